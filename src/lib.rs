//! cofferdam: coding sessions from a queue, in sealed containers, to merge and pull requests.

pub mod forge;
pub mod grant;
pub mod message;
pub mod queue;
pub mod sandbox;
pub mod repository;
pub mod secret;
