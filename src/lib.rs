//! cofferdam: coding sessions from a queue, in sealed containers, to merge and pull requests.

pub mod admin;
pub mod forge;
pub mod grant;
pub mod message;
pub mod metrics;
pub mod progress;
pub mod queue;
pub mod sandbox;
pub mod repository;
pub mod secret;
