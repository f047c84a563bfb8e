//! Limits that a child process puts on itself before it reads what an agent made.
//!
//! Never raises a limit, and fails closed: a process that cannot limit itself does not read.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::repository::policy::Policy;

/// Open files, enough for packs and their indexes.
const MOST_FILES: u64 = 512;

pub(super) fn apply(policy: &Policy) -> Result<(), String> {
    for (resource, value) in [
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_AS, policy.memory),
        (Resource::RLIMIT_CPU, policy.processor_s),
        // It answers through pipes and writes no file.
        (Resource::RLIMIT_FSIZE, 0),
        (Resource::RLIMIT_NOFILE, MOST_FILES),
    ] {
        let limited = getrlimit(resource).and_then(|(_, hard)| setrlimit(resource, value.min(hard), value.min(hard)));
        limited.map_err(|error| format!("cannot limit {resource:?}: {error}"))?;
    }
    Ok(())
}
