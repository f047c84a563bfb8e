//! What the fuzzers reach here: what the git route and the way out read. It only calls what a sandbox's bytes meet.

use super::egress::greeting;
use crate::grant::egress::Rule;
use crate::message::HostName;

pub use super::git::fuzzing::{decompressed, refusal};

/// What the first bytes in a tunnel to this host come to.
///
/// # Errors
/// The rule that they break, and the sentence.
pub fn greeting(mut bytes: &[u8], host: &HostName) -> Result<Vec<u8>, (Rule, String)> {
    futures::executor::block_on(greeting::read_untimed(&mut bytes, host))
}
