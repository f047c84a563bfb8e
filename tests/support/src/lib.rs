//! Test doubles of cofferdam. Nothing here is the product, and nothing here imports it, so that it can judge it.

pub mod forge;
