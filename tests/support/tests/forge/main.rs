//! Judges the test forge from outside: with real git, over HTTP, and against what real forges were seen to answer.
//!
//! Talks to loopback only. The comparison with recorded shapes and measured rows needs the directory `forge-data`
//! (environment `FORGE_DATA`); without it those checks say so and do nothing.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "tests fail by panicking, and say loudly what they skip"
)]

mod activity;
mod control;
mod data;
mod faults;
mod git;
mod github;
mod gitlab;
mod measured;
mod moved;
mod pages;
mod program;
mod push_options;
mod replay;
mod schemas;
mod shapes;
mod world;
