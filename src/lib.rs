//! cofferdam: coding sessions from a queue, in sealed containers, to merge and pull requests.

pub mod admin;
pub mod agent;
pub mod cli;
pub mod config;
pub mod forge;
pub mod gateway;
pub mod grant;
pub mod message;
pub mod metrics;
pub mod progress;
pub mod queue;
pub mod repository;
pub mod sandbox;
pub mod secret;
pub mod session;
pub mod tools;
pub mod worker;
