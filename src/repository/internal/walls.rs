//! Walls that a process of the worker puts around itself before it reads what an agent made: the files it may open, no network, no other
//! program, no look into other processes. They cannot be taken down, and whatever it starts has them too.
//!
//! Landlock as far as the kernel has it: an old kernel leaves files open to it that its user may open. The filter of system calls is not left
//! out: a process that cannot set it does not read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope, make_bitflags, path_beneath_rules,
};
use nix::libc;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

/// What of the kernel's rules is asked for; it gives what it has.
const NEWEST: ABI = ABI::V10;

/// A library's own settings: it fails where it sees such a file and cannot read it.
const SETTINGS: &[&str] = &["/etc/gitconfig"];

/// What may be opened.
#[derive(Debug, Default)]
pub(super) struct Doors {
    pub(super) read: Vec<PathBuf>,
    /// Also to be run.
    pub(super) run: Vec<PathBuf>,
    /// Also to be written, made and removed.
    pub(super) write: Vec<PathBuf>,
}

/// Puts the walls up. What is not there is not opened to anybody.
///
/// # Errors
/// The kernel refused; a sentence.
pub(super) fn close(doors: &Doors) -> Result<RulesetStatus, String> {
    let status = files(doors).map_err(|error| format!("cannot limit the files it opens: {error}"))?;
    let filter = filter(!doors.run.is_empty()).map_err(|error| format!("cannot limit its system calls: {error}"))?;
    if let Some(filter) = filter {
        seccompiler::apply_filter(&filter).map_err(|error| format!("cannot limit its system calls: {error}"))?;
    }
    Ok(status)
}

/// The walls of a reader: one directory, and nothing else.
pub(super) fn close_to(directory: &Path) -> Result<(), String> {
    let read = SETTINGS
        .iter()
        .map(PathBuf::from)
        .chain([directory.to_owned()])
        .collect();
    close(&Doors {
        read,
        ..Doors::default()
    })
    .map(|_| ())
}

/// Whether this kernel limits the files: in words for people. Limits the process that asks.
pub(super) fn told() -> Result<&'static str, String> {
    Ok(match close(&Doors::default())? {
        RulesetStatus::FullyEnforced => "all",
        RulesetStatus::PartiallyEnforced => "partly",
        RulesetStatus::NotEnforced => "none",
    })
}

fn files(doors: &Doors) -> Result<RulesetStatus, RulesetError> {
    let read = make_bitflags!(AccessFs::{ReadFile | ReadDir});
    let run: BitFlags<AccessFs> = read | AccessFs::Execute;
    let write = AccessFs::from_all(NEWEST)
        & !(AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::MakeSock);
    let mut rules = Ruleset::default();
    if !doors.write.is_empty() {
        // The first kernels with Landlock let nobody behind it move a file to another directory, which a push must: none of it there.
        rules = rules
            .set_compatibility(CompatLevel::SoftRequirement)
            .handle_access(AccessFs::Refer)?
            .set_compatibility(CompatLevel::BestEffort);
    }
    let rules = rules
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?
        .add_rules(path_beneath_rules(&doors.read, read))?
        .add_rules(path_beneath_rules(&doors.run, run))?
        .add_rules(path_beneath_rules(&doors.write, write))?;
    Ok(rules.restrict_self()?.ruleset)
}

/// What no reader of objects has a use for: sockets (the engine's among them), other processes, keys, and ways round this filter.
const NEVER: &[libc::c_long] = &[
    libc::SYS_socket,
    libc::SYS_connect,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_io_uring_setup,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_mount,
    libc::SYS_unshare,
    libc::SYS_setns,
];

/// What only a process that starts others needs.
const ALONE: &[libc::c_long] = &[libc::SYS_execve, libc::SYS_execveat, libc::SYS_kill];

/// `None` on a machine for which no filter can be made.
fn filter(starts_others: bool) -> Result<Option<BpfProgram>, String> {
    let Ok(machine) = TargetArch::try_from(std::env::consts::ARCH) else {
        return Ok(None);
    };
    let alone = if starts_others { &[][..] } else { ALONE };
    let mut calls = BTreeMap::new();
    for call in NEVER.iter().chain(alone) {
        calls.insert(*call, Vec::new());
        // The same calls under their other numbers, where a kernel has these.
        if cfg!(target_arch = "x86_64") {
            calls.insert(*call | 0x4000_0000, Vec::new());
        }
    }
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter =
        SeccompFilter::new(calls, SeccompAction::Allow, refused, machine).map_err(|error| error.to_string())?;
    BpfProgram::try_from(filter)
        .map(Some)
        .map_err(|error| error.to_string())
}
