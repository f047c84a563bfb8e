//! Tests of the built binary, from outside: as a process with a gateway that is ours, as git's hook, and in a container.
//! They use the loopback interface and temporary directories only.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "everything but the one expected report fails a test"
)]
#![expect(clippy::print_stderr, reason = "a skipped test says so, and measurements are shown")]

mod container;
mod files;
mod gateway;
mod hooks;
mod life;
mod processes;
mod relay;
mod repository;
mod settle;
mod stdio;
mod trailers;
