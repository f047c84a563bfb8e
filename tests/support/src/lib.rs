//! The test doubles of cofferdam: a scripted agent, a scripted model, a test forge. They stand for the outside world in tests and
//! demonstrations; they import nothing of the product, and nothing of them is part of it.

pub mod agent;
pub mod model;
//! Test doubles of cofferdam. Nothing here is the product, and nothing here imports it, so that it can judge it.

pub mod forge;
