//! What the fuzzers reach here: what the git route reads. It only calls what a sandbox's bytes meet.

pub use super::git::fuzzing::{decompressed, refusal};
