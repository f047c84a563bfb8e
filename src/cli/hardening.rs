//! What the process does about its own memory before anything else: no core dump of it, and no look into it.
//!
//! A core dump on a disk, or in a collector of dumps, would hold every credential that the worker holds. Never gives a right up that the
//! worker needs.

use nix::sys::resource::{Resource, setrlimit};

/// One byte: no dump fits, and where dumps are piped to a program (which heeds no other limit, not even 0) the kernel takes it for "none".
const NO_CORE: u64 = 1;

/// Keeps this process and its children from being dumped, and this process from being read by others of the same user (`/proc/PID/environ`,
/// `/proc/PID/mem`, a debugger). Children get the limit; they are readable again once they run another program.
pub(super) fn keep_memory_private() {
    // Either is refused only where the system has taken more away already.
    let _ = setrlimit(Resource::RLIMIT_CORE, NO_CORE, NO_CORE);
    let _ = nix::sys::prctl::set_dumpable(false);
}
