//! Judges the `cofferdam` program from outside: real Docker, real git, a real HTTP forge (the test double), a real agent process.
//!
//! Calls nothing of the library: what a test sees is what an orchestrator, a user or an operator would see. Talks to loopback only.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests fail by panicking, also in their helpers"
)]

mod agent_ends;
mod harness;
mod main_job;
mod outcomes;
