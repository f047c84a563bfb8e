//! Which system calls a sandbox may make, as the engine wants to be told: the text of a profile, ours or the operator's.
//!
//! Ours (`seccomp.json`) names what is allowed and refuses all else. Against the engine's usual default it also leaves out:
//! - `ptrace`, `process_vm_readv` and `_writev`, `kcmp`: whoever may look into a neighbour of the same user needs no hole to steal from it, and
//!   kernels had many faults there. Debuggers and leak checkers need them: an operator who wants those writes a profile of their own.
//! - sockets and pairs of them other than unix, TCP and UDP over IPv4 and IPv6, and routing netlink (which lists interfaces): no vsock, no crypto,
//!   no packet, no other netlink, and of the internet's protocols no MPTCP, SCTP, DCCP, SMC, L2TP, ICMP or raw ones.
//! - the 32-bit call tables: a process that uses one is killed.
//! - calls that nothing asks for and that kernels had faults in (`fanotify_mark`, `name_to_handle_at`, `memfd_secret`, `remap_file_pages`,
//!   `modify_ldt`, `statmount`, `listmount`, `clock_adjtime`).
//!
//! io_uring, bpf, userfaultfd, keys, mounts, name spaces, modules and clocks were never in. An engine that knows fewer calls ignores the rest.

use crate::sandbox::{SandboxError, Seccomp};

/// Our own profile.
const OURS: &str = include_str!("seccomp.json");
/// Largest profile of an operator, in bytes.
const LARGEST: usize = 256 * 1024;

/// The profile's text; `None` leaves the engine's own.
///
/// # Errors
/// The operator's file cannot be read or is not a profile.
pub(super) fn profile(choice: &Seccomp) -> Result<Option<String>, SandboxError> {
    let path = match choice {
        Seccomp::Ours => return Ok(Some(OURS.to_owned())),
        Seccomp::Engine => return Ok(None),
        Seccomp::File(path) => path,
    };
    let wrong = |detail: String| SandboxError::Prepare {
        detail: format!("sandbox.seccomp {}: {detail}", path.display()),
    };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    if text.len() > LARGEST {
        return Err(wrong(format!("is larger than {LARGEST} bytes")));
    }
    let read: serde_json::Value = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    // Without these two the engine would take an empty object for a profile that allows everything or nothing.
    if read["defaultAction"].is_string() && read["syscalls"].is_array() {
        Ok(Some(text))
    } else {
        Err(wrong("has no defaultAction or no syscalls".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn ours() -> serde_json::Value {
        serde_json::from_str(OURS).unwrap()
    }

    /// The calls that some rule allows, whatever their arguments.
    fn named() -> BTreeSet<String> {
        let profile = ours();
        let rules = profile["syscalls"].as_array().unwrap().iter();
        rules
            .filter(|rule| rule["action"] == "SCMP_ACT_ALLOW")
            .flat_map(|rule| rule["names"].as_array().unwrap())
            .map(|name| name.as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn what_is_not_named_is_refused_and_the_dangerous_is_not_named() {
        assert_eq!(ours()["defaultAction"], "SCMP_ACT_ERRNO");
        let named = named();
        for call in [
            "io_uring_setup",
            "io_uring_enter",
            "io_uring_register",
            "bpf",
            "userfaultfd",
            "keyctl",
            "add_key",
            "request_key",
            "ptrace",
            "process_vm_readv",
            "process_vm_writev",
            "pidfd_getfd",
            "kcmp",
            "mount",
            "umount2",
            "unshare",
            "setns",
            "pivot_root",
            "chroot",
            "open_by_handle_at",
            "name_to_handle_at",
            "perf_event_open",
            "fsopen",
            "fsmount",
            "move_mount",
            "open_tree",
            "init_module",
            "finit_module",
            "delete_module",
            "kexec_load",
            "reboot",
            "swapon",
            "quotactl",
            "acct",
            "settimeofday",
            "clock_settime",
            "sethostname",
            "syslog",
            "iopl",
            "ioperm",
            "modify_ldt",
            "fanotify_init",
            "clone3",
            "socketcall",
            "_sysctl",
            "uselib",
            "vhangup",
            "mbind",
            "move_pages",
            "lookup_dcookie",
            "nfsservctl",
            "personality_",
        ] {
            assert!(!named.contains(call), "{call}");
        }
        for call in [
            "read",
            "execve",
            "clone",
            "futex",
            "socket",
            "connect",
            "splice",
            "memfd_create",
            "landlock_create_ruleset",
            "mknod",
        ] {
            assert!(named.contains(call), "{call}");
        }
    }

    #[test]
    fn sockets_clones_and_personalities_are_allowed_only_with_arguments() {
        let profile = ours();
        let rules = profile["syscalls"].as_array().unwrap();
        let (mut families, mut pairs) = (Vec::new(), Vec::new());
        for rule in rules.iter().filter(|rule| rule["action"] == "SCMP_ACT_ALLOW") {
            for name in rule["names"].as_array().unwrap() {
                let name = name.as_str().unwrap();
                if ["socket", "socketpair", "clone", "personality"].contains(&name) {
                    assert!(rule["args"].is_array(), "{name} without arguments");
                }
                let value = |index: usize, key: &str| rule["args"][index][key].as_u64();
                if name == "socketpair" {
                    assert_eq!(rule["args"][0]["op"], "SCMP_CMP_EQ");
                    pairs.push(value(0, "value").unwrap());
                }
                if name == "socket" {
                    assert_eq!(rule["args"][0]["op"], "SCMP_CMP_EQ");
                    let arguments = rule["args"].as_array().unwrap().len();
                    families.push((
                        value(0, "value").unwrap(),
                        arguments,
                        value(1, "valueTwo"),
                        value(2, "value"),
                    ));
                }
            }
        }
        // Unix; TCP and UDP by their kind and by their number, over IPv4 and IPv6; routing netlink.
        let of =
            |family| [(1, 0), (1, 6), (2, 0), (2, 17)].map(|(kind, protocol)| (family, 3, Some(kind), Some(protocol)));
        let mut expected = vec![(1, 1, None, None)];
        expected.extend(of(2).into_iter().chain(of(10)));
        families
            .iter_mut()
            .filter(|(family, ..)| *family == 16)
            .for_each(|netlink| {
                assert_eq!(netlink.1, 2);
                netlink.3 = None;
            });
        expected.push((16, 2, None, None));
        assert_eq!(families, expected);
        assert_eq!(pairs, [1]);
    }

    #[test]
    fn both_processors_are_named_and_no_32_bit_table() {
        let architectures: Vec<_> = ours()["archMap"].as_array().unwrap().clone();
        let names: Vec<_> = architectures
            .iter()
            .map(|one| one["architecture"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"]);
        assert!(
            architectures
                .iter()
                .all(|one| one["subArchitectures"].as_array().unwrap().is_empty())
        );
    }

    #[test]
    fn an_operators_file_is_read_and_a_wrong_one_stops_the_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("p.json");
        let choice = Seccomp::File(path.clone());
        assert!(profile(&choice).unwrap_err().to_string().contains("p.json"));
        for wrong in ["", "{}", "[]", "{\"defaultAction\": \"SCMP_ACT_ERRNO\"}"] {
            std::fs::write(&path, wrong).unwrap();
            assert!(profile(&choice).is_err(), "{wrong}");
        }
        std::fs::write(&path, OURS).unwrap();
        assert_eq!(profile(&choice).unwrap().as_deref(), Some(OURS));
        assert_eq!(profile(&Seccomp::Engine).unwrap(), None);
    }
}
