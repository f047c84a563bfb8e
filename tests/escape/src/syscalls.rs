//! The table of system calls: each is made with arguments that no kernel can use, in a child of its own, so that the error tells how far it got.
//!
//! Raw calls are made by the image's perl, which every Debian has: this program forbids unsafe code, and a call that has no safe wrapper is
//! just what is to be tried. Without perl the rows are UNTRIED, which fails the run.

use std::process::Command;

use crate::Asked;
use crate::report::{Report, Verdict};

const EPERM: i32 = 1;
const EACCES: i32 = 13;
const ENODEV: i32 = 19;
const EINVAL: i32 = 22;
const ENOSYS: i32 = 38;
const ESOCKTNOSUPPORT: i32 = 94;
const EOPNOTSUPP: i32 = 95;
const EAFNOSUPPORT: i32 = 97;
const EPROTONOSUPPORT: i32 = 93;

/// A call: its name, its number on x86-64 and on aarch64 (0: there is none), its arguments.
type Call = (&'static str, u32, u32, &'static str);

/// Calls that a sealed sandbox under the host's kernel is refused.
const REFUSED: &[Call] = &[
    ("io_uring_setup", 425, 425, "1,0"),
    ("io_uring_enter", 426, 426, "-1,0,0,0,0,0"),
    ("io_uring_register", 427, 427, "-1,0,0,0"),
    ("bpf", 321, 280, "0,0,0"),
    ("userfaultfd", 323, 282, "1"),
    ("keyctl", 250, 219, "0,-3,0"),
    ("add_key", 248, 217, "0,0,0,0,0"),
    ("request_key", 249, 218, "0,0,0,0"),
    ("perf_event_open", 298, 241, "0,0,-1,-1,0"),
    ("mount", 165, 40, "0,0,0,0,0"),
    ("umount2", 166, 39, "0,0"),
    ("pivot_root", 155, 41, "0,0"),
    ("chroot", 161, 51, "0"),
    ("unshare NEWUSER", 272, 97, "0x10000000"),
    ("unshare NEWNS", 272, 97, "0x00020000"),
    ("unshare NEWNET", 272, 97, "0x40000000"),
    ("setns", 308, 268, "-1,0"),
    ("clone3", 435, 435, "0,0"),
    ("open_by_handle_at", 304, 265, "-1,0,0"),
    ("name_to_handle_at", 303, 264, "-1,0,0,0,0"),
    ("ptrace TRACEME", 101, 117, "0,0,0,0"),
    ("process_vm_readv", 310, 270, "1,0,0,0,0,0"),
    ("process_vm_writev", 311, 271, "1,0,0,0,0,0"),
    ("kcmp", 312, 272, "1,1,0,0,0"),
    ("pidfd_getfd", 438, 438, "-1,0,0"),
    ("fsopen", 430, 430, "0,0"),
    ("fsmount", 432, 432, "-1,0,0"),
    ("open_tree", 428, 428, "-1,0,0"),
    ("move_mount", 429, 429, "-1,0,-1,0,0"),
    ("mount_setattr", 442, 442, "-1,0,0,0,0"),
    ("quotactl", 179, 60, "0,0,0,0"),
    ("swapon", 167, 224, "0,0"),
    ("reboot", 169, 142, "0,0,0,0"),
    ("init_module", 175, 105, "0,0,0"),
    ("finit_module", 313, 273, "-1,0,0"),
    ("delete_module", 176, 106, "0,0"),
    ("kexec_load", 246, 104, "0,0,0,0xffffffff"),
    ("acct", 163, 89, "1"),
    ("settimeofday", 164, 170, "1,0"),
    ("clock_settime", 227, 112, "0,0"),
    ("sethostname", 170, 161, "0,-1"),
    ("setdomainname", 171, 162, "0,-1"),
    ("syslog", 103, 116, "3,0,0"),
    ("iopl", 172, 0, "3"),
    ("ioperm", 173, 0, "0,1,1"),
    ("modify_ldt", 154, 0, "0,0,0"),
    ("personality NO_RANDOMIZE", 135, 92, "0x0040000"),
    ("fanotify_init", 300, 262, "0,0"),
    ("fanotify_mark", 301, 263, "-1,0,0,-1,0"),
    ("memfd_secret", 447, 447, "0"),
    ("lookup_dcookie", 212, 18, "0,0,0"),
    ("mbind", 237, 235, "0,0,0,0,0,0"),
    ("move_pages", 279, 239, "0,0,0,0,0,0"),
    ("socket AF_VSOCK", 41, 198, "40,1,0"),
    ("socket AF_ALG", 41, 198, "38,5,0"),
    ("socket AF_PACKET", 41, 198, "17,3,0"),
    ("socket AF_KEY", 41, 198, "15,3,2"),
    ("socket AF_BLUETOOTH", 41, 198, "31,3,1"),
    ("socket AF_CAN", 41, 198, "29,3,1"),
    ("socket AF_TIPC", 41, 198, "30,4,0"),
    ("socket AF_XDP", 41, 198, "44,3,0"),
    ("socket NETLINK_NETFILTER", 41, 198, "16,3,12"),
    ("socket NETLINK_XFRM", 41, 198, "16,3,6"),
    ("socket NETLINK_GENERIC", 41, 198, "16,3,16"),
    ("socket NETLINK_KOBJECT", 41, 198, "16,3,15"),
    ("socket raw ICMP", 41, 198, "2,3,1"),
    ("socket raw IPv6", 41, 198, "10,3,58"),
    ("socket AF_SMC", 41, 198, "43,1,0"),
    ("socket AF_RDS", 41, 198, "21,5,0"),
    ("socket MPTCP", 41, 198, "2,1,262"),
    ("socket MPTCP IPv6", 41, 198, "10,1,262"),
    ("socket SMC by protocol", 41, 198, "2,1,256"),
    ("socket SCTP", 41, 198, "2,1,132"),
    ("socket SCTP, many at once", 41, 198, "2,5,0"),
    ("socket DCCP", 41, 198, "2,6,0"),
    ("socket UDP-Lite", 41, 198, "2,2,136"),
    ("socket L2TP", 41, 198, "2,2,115"),
    ("socket ping", 41, 198, "2,2,1"),
    ("socket ping IPv6", 41, 198, "10,2,58"),
    ("socket SOCK_PACKET", 41, 198, "2,10,768"),
    ("socketpair AF_VSOCK", 53, 199, "40,1,0,(my $s = chr(0) x 8)"),
    ("socketpair AF_ALG", 53, 199, "38,5,0,(my $s = chr(0) x 8)"),
    ("socketpair AF_TIPC", 53, 199, "30,1,0,(my $s = chr(0) x 8)"),
    ("socketpair AF_RDS", 53, 199, "21,5,0,(my $s = chr(0) x 8)"),
    ("socketpair AF_BLUETOOTH", 53, 199, "31,3,1,(my $s = chr(0) x 8)"),
    ("socketpair AF_INET", 53, 199, "2,1,0,(my $s = chr(0) x 8)"),
    ("socketpair AF_NETLINK", 53, 199, "16,3,0,(my $s = chr(0) x 8)"),
];

/// Calls that must work, or the instrument does not.
const ALLOWED: &[Call] = &[
    ("getppid", 110, 173, ""),
    ("socket AF_UNIX", 41, 198, "1,1,0"),
    ("socket AF_INET", 41, 198, "2,1,0"),
    ("socket AF_INET6", 41, 198, "10,1,0"),
    ("socket TCP, closed on exec", 41, 198, "2,0x80801,6"),
    ("socket UDP", 41, 198, "2,0x80802,17"),
    ("socket UDP IPv6", 41, 198, "10,2,0"),
    ("socket NETLINK_ROUTE", 41, 198, "16,3,0"),
    ("socketpair AF_UNIX", 53, 199, "1,1,0,(my $s = chr(0) x 8)"),
];

/// Answers of gVisor's own kernel that are no refusal by name: the call does not reach the host's either way. The name, and what it says.
const GVISOR_ANSWERS: &[(&str, &[i32])] = &[
    ("unshare NEWUSER", &[0, EPERM]),
    ("unshare NEWNS", &[0, EPERM]),
    ("unshare NEWNET", &[0, EPERM]),
    ("ptrace TRACEME", &[0]),
    ("io_uring_setup", &[14, ENOSYS]),
    ("io_uring_enter", &[9, ENOSYS]),
    // Its own log, a fixed text.
    ("syslog", &[0]),
    // Its own events of devices, of which there are none.
    ("socket NETLINK_KOBJECT", &[0]),
    // Its own echo sockets, on its own network.
    ("socket ping", &[0]),
    ("socket ping IPv6", &[0]),
    ("chroot", &[14, EPERM]),
    ("clone3", &[ENOSYS]),
    ("personality NO_RANDOMIZE", &[EINVAL]),
    ("mbind", &[0, EINVAL, ENOSYS]),
    ("perf_event_open", &[ENODEV, EPERM]),
    ("fanotify_mark", &[ENOSYS]),
    ("setns", &[EOPNOTSUPP, EPERM, ENOSYS]),
];

pub(crate) fn rows(asked: &Asked, report: &mut Report) {
    let calls: Vec<&Call> = ALLOWED.iter().chain(REFUSED).collect();
    let answers = match make(&calls) {
        Ok(answers) => answers,
        Err(why) => {
            report.row(Verdict::Untried, "system calls", "make them by perl", &why);
            return;
        }
    };
    for (call, answer) in calls.iter().zip(answers) {
        let name = call.0;
        let tried = format!("call {} ({})", number(call), call.3);
        let Some(answer) = answer else {
            report.row(Verdict::Untried, name, &tried, "perl gave no answer");
            continue;
        };
        let happened = word(answer);
        if ALLOWED.iter().any(|allowed| allowed.0 == name) {
            let verdict = if answer == 0 { Verdict::Held } else { Verdict::Untried };
            report.row(verdict, &format!("{name} (must work)"), &tried, &happened);
        } else if refuses(name, answer) {
            report.row(Verdict::Held, name, &tried, &happened);
        } else if asked.own_kernel() && answered_by_gvisor(name, answer) {
            report.row(
                Verdict::Held,
                name,
                &tried,
                &format!("{happened}: answered by gVisor's kernel, not the host's"),
            );
        } else {
            report.row(
                Verdict::Broken,
                name,
                &tried,
                &format!("{happened}: it got past the filter"),
            );
        }
    }
}

/// Errors by which a filter, or a kernel that lacks the call, refuses. Anything else was looked at by the call itself: a family that the kernel
/// does not know today is one module away, so of sockets only the filter's own word counts.
fn refuses(name: &str, answer: i32) -> bool {
    answer == EPERM || (!is_socket(name) && matches!(answer, EACCES | ENOSYS))
}

fn is_socket(name: &str) -> bool {
    name.starts_with("socket")
}

fn answered_by_gvisor(name: &str, answer: i32) -> bool {
    let no_such = matches!(
        answer,
        EINVAL | EACCES | EAFNOSUPPORT | ESOCKTNOSUPPORT | EPROTONOSUPPORT
    );
    GVISOR_ANSWERS
        .iter()
        .any(|(known, answers)| *known == name && answers.contains(&answer))
        || matches!(answer, ENODEV | EOPNOTSUPP)
        || (is_socket(name) && no_such)
}

fn number(call: &Call) -> u32 {
    if cfg!(target_arch = "aarch64") { call.2 } else { call.1 }
}

fn word(answer: i32) -> String {
    if answer == 0 {
        "it succeeded".to_owned()
    } else {
        format!("{:?}", nix::errno::Errno::from_raw(answer))
    }
}

/// Makes every call in a child of its own and returns the errors in order; 0 is success.
fn make(calls: &[&Call]) -> Result<Vec<Option<i32>>, String> {
    let mut script = String::from("$| = 1;\n");
    for (index, call) in calls.iter().enumerate() {
        let arguments = if call.3.is_empty() {
            String::new()
        } else {
            format!(", {}", call.3)
        };
        if number(call) == 0 {
            script += &format!("print \"{index} {ENOSYS}\\n\";\n");
            continue;
        }
        script += &format!(
            "if (!(defined(my $p = fork()))) {{ print \"{index} fork\\n\"; }} elsif ($p == 0) {{ $! = 0; \
             my $r = syscall({}{arguments}); print \"{index} \", ($r == -1 ? $!+0 : 0), \"\\n\"; exit 0; }} else {{ waitpid($p, 0); }}\n",
            number(call)
        );
    }
    let output = Command::new("perl")
        .args(["-e", &script])
        .output()
        .map_err(|error| format!("perl: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut answers = vec![None; calls.len()];
    for line in text.lines() {
        if let Some((index, answer)) = line.split_once(' ')
            && let (Ok(index), Ok(answer)) = (index.parse::<usize>(), answer.parse())
            && let Some(place) = answers.get_mut(index)
        {
            *place = Some(answer);
        }
    }
    if answers.iter().all(Option::is_none) {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(answers)
}
