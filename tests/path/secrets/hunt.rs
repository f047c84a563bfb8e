//! The hunt for canaries: every form of a secret, and every place where a session leaves something. An independent judge: it shares no code
//! with the masking under test.

use std::path::Path;
use std::process::Command;

use base64::Engine as _;

use crate::harness::World;

/// A secret of a distinctive value, and the forms in which it would still be one.
#[derive(Clone)]
pub(super) struct Canary {
    pub(super) name: &'static str,
    pub(super) value: String,
    forms: Vec<String>,
}

impl Canary {
    /// A fresh one: no other test of this machine knows it.
    pub(super) fn new(name: &'static str, prefix: &str) -> Self {
        let id = uuid::Uuid::new_v4().simple().to_string();
        // Something that URLs escape, so that the escaped form is another.
        Self::of(name, &format!("{prefix}canary-{}", &id[..20]))
    }

    /// One of a value that is given.
    pub(super) fn of(name: &'static str, value: &str) -> Self {
        let value = value.to_owned();
        let mut forms = vec![value.clone(), value.replace('-', "%2D"), value.replace('-', "%2d")];
        let encode = |text: &str| base64::engine::general_purpose::STANDARD_NO_PAD.encode(text);
        // What base64 of anything that holds it has in common, by how much stands before it.
        for (before, skipped) in [("", 0), ("x", 2), ("xx", 3)] {
            let whole = before.len() + value.len();
            forms.push(encode(&format!("{before}{value}"))[skipped..whole * 8 / 6].to_owned());
        }
        let numbers: Vec<String> = value.bytes().map(|byte| byte.to_string()).collect();
        forms.push(numbers.join(", "));
        let hex: String = value.bytes().map(|byte| format!("{byte:02x}")).collect();
        forms.extend([hex.to_uppercase(), hex]);
        let json = serde_json::Value::from(value.as_str()).to_string();
        forms.push(json[1..json.len() - 1].to_owned());
        Self { name, value, forms }
    }

    /// The form in which it stands there, if it does.
    pub(super) fn stands_in(&self, bytes: &[u8]) -> Option<&str> {
        // What is no text becomes a sign of its own and cuts no form, which are all ASCII.
        let text = String::from_utf8_lossy(bytes);
        // Encoders break lines. Whole containers are looked at as they are.
        let dense = if bytes.len() < LARGEST_DENSE {
            without_space(&text)
        } else {
            String::new()
        };
        self.forms
            .iter()
            .find(|form| text.contains(form.as_str()) || dense.contains(&without_space(form)))
            .map(String::as_str)
    }
}

/// Above so many bytes, broken lines are not joined.
const LARGEST_DENSE: usize = 16 * 1024 * 1024;

/// Without white space, also where JSON wrote it as an escape.
fn without_space(text: &str) -> String {
    text.replace("\\n", "")
        .chars()
        .filter(|c| !c.is_ascii_whitespace())
        .collect()
}

/// Fails where any canary stands.
#[track_caller]
pub(super) fn assert_none(canaries: &[Canary], place: &str, bytes: &[u8]) {
    for canary in canaries {
        if let Some(form) = canary.stands_in(bytes) {
            panic!("the canary {} stands in {place}, as {form}", canary.name);
        }
    }
}

/// Every file below a directory, and every object of every repository and bundle in it, unpacked.
#[track_caller]
pub(super) fn assert_none_below(canaries: &[Canary], place: &str, directory: &Path) -> usize {
    let mut looked = 0;
    let mut waiting = vec![directory.to_owned()];
    while let Some(path) = waiting.pop() {
        let Ok(about) = std::fs::symlink_metadata(&path) else {
            continue;
        };
        let shown = format!("{place}: {}", path.display());
        assert_none(
            canaries,
            &format!("the name {shown}"),
            path.as_os_str().as_encoded_bytes(),
        );
        if about.is_dir() {
            if path.join("HEAD").exists() && path.join("objects").exists() {
                assert_none(canaries, &format!("the objects of {shown}"), &objects(&path));
                looked += 1;
            }
            waiting.extend(
                std::fs::read_dir(&path)
                    .into_iter()
                    .flatten()
                    .flatten()
                    .map(|entry| entry.path()),
            );
        } else if about.is_file() {
            let bytes = std::fs::read(&path).unwrap_or_default();
            assert_none(canaries, &shown, &bytes);
            if bytes.starts_with(b"# v2 git bundle") {
                assert_none(
                    canaries,
                    &format!("the objects of {shown}"),
                    &unbundled(directory, &path),
                );
            }
            looked += 1;
        }
    }
    looked
}

fn git(directory: &Path, arguments: &[&str]) -> Vec<u8> {
    let mut command = Command::new("git");
    command
        .arg("-c")
        .arg("safe.directory=*")
        .arg("-C")
        .arg(directory)
        .args(arguments);
    command.output().unwrap().stdout
}

fn objects(repository: &Path) -> Vec<u8> {
    git(
        repository,
        &["cat-file", "--batch-all-objects", "--batch", "--unordered"],
    )
}

/// A bundle builds on what its mirror has.
fn unbundled(state: &Path, bundle: &Path) -> Vec<u8> {
    let scratch = tempfile::tempdir().unwrap();
    git(scratch.path(), &["init", "-q", "--bare", "."]);
    let mirrors = std::fs::read_dir(state.join("mirrors")).into_iter().flatten().flatten();
    let alternates: String = mirrors
        .map(|entry| format!("{}\n", entry.path().join("mirror.git/objects").display()))
        .collect();
    std::fs::write(scratch.path().join("objects/info/alternates"), alternates).unwrap();
    git(
        scratch.path(),
        &["fetch", "-q", bundle.to_str().unwrap(), "+refs/*:refs/bundled/*"],
    );
    let names = git(scratch.path(), &["for-each-ref", "refs/bundled"]);
    assert!(!names.is_empty(), "{} was not unpacked", bundle.display());
    objects(scratch.path())
}

/// What the agent runs: looks through its files, environments and processes for any form, and fails when it finds one. The forms are cut in
/// two in its text and joined by the shell, so that the text itself holds none; they reach grep by a pipe, so that no process's arguments do.
pub(super) fn search(canaries: &[Canary]) -> String {
    let halves = canaries.iter().flat_map(|canary| canary.forms.iter()).map(|form| {
        let (one, two) = form.split_at(form.len() / 2);
        format!("'{one}''{two}'")
    });
    let patterns = halves.collect::<Vec<_>>().join(" ");
    let look = format!("printf '%s\\n' {patterns} | grep -raqF -f -");
    format!(
        "!shell : SEARCHED; for place in /proc/[0-9]*/environ /proc/[0-9]*/cmdline /proc/[0-9]*/mounts /proc/self/maps /etc /home /mnt /opt /root \
         /run /srv /tmp /usr/local /var /workspace /dev/shm; do if {look} $place 2>/dev/null; then echo found in $place; exit 3; fi; done; exit 0"
    )
}

/// What a watcher saw of the machine while the sessions ran.
pub(super) struct Watched {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    inspected: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: Option<std::thread::JoinHandle<Result<String, String>>>,
}

impl Drop for Watched {
    /// Also where a test ends without its verdict: it would watch, and keep a processor busy, until all tests have ended.
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

impl Watched {
    /// Watches processes and containers until `end`.
    pub(super) fn begin(world: &World, canaries: &[Canary]) -> Self {
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (canaries, stopped, worker) = (canaries.to_vec(), stop.clone(), world.worker.clone());
        let inspected = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let any = inspected.clone();
        let thread = std::thread::spawn(move || {
            let mut inspected = String::new();
            while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
                if let Some(place) = seen_in_processes(&canaries) {
                    return Err(place);
                }
                // Those of other tests are none of ours, and a look at each takes its time.
                let list = Command::new("docker")
                    .args(["ps", "-a", "--filter", "label=dev.cofferdam.worker"])
                    .args(["--format", "{{.ID}} {{.Label \"dev.cofferdam.worker\"}}"])
                    .output()
                    .unwrap();
                let list = String::from_utf8_lossy(&list.stdout).into_owned();
                let own = list.lines().filter(|line| line.contains(&worker));
                for id in own.filter_map(|line| line.split(' ').next()) {
                    let about = Command::new("docker").args(["inspect", id]).output().unwrap();
                    let about = String::from_utf8_lossy(&about.stdout).into_owned();
                    if about.contains(&worker) {
                        inspected.push_str(&about);
                        any.store(true, std::sync::atomic::Ordering::Relaxed);
                    }
                }
            }
            Ok(inspected)
        });
        Self {
            stop,
            inspected,
            thread: Some(thread),
        }
    }

    /// Whether a sandbox was inspected by now.
    pub(super) fn has_inspected(&self) -> bool {
        self.inspected.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Everything that `docker inspect` said.
    #[track_caller]
    pub(super) fn end(mut self) -> String {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let seen = self.thread.take().unwrap().join().unwrap();
        seen.unwrap_or_else(|place| panic!("a canary stands in the {place}"))
    }
}

fn seen_in_processes(canaries: &[Canary]) -> Option<String> {
    let own = std::process::id().to_string();
    for entry in std::fs::read_dir("/proc").ok()?.filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.bytes().all(|byte| byte.is_ascii_digit()) || name == own {
            continue;
        }
        for file in ["cmdline", "environ"] {
            // The worker gets `env` credentials by its environment: that is how they are named. A child of it that is about to become git
            // still has its executable. Asked on both sides of the look: it may become git, or a test's child the worker, or end meanwhile.
            let is_worker = || {
                let executable = std::fs::read_link(entry.path().join("exe")).unwrap_or_default();
                executable.to_string_lossy().contains("/cofferdam")
            };
            let was_worker = is_worker();
            let Ok(bytes) = std::fs::read(entry.path().join(file)) else {
                continue;
            };
            if file == "environ" && (was_worker || is_worker()) {
                continue;
            }
            if let Some(canary) = canaries.iter().find(|canary| canary.stands_in(&bytes).is_some()) {
                let program = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
                return Some(format!("{file} of {} ({})", program.trim(), canary.name));
            }
        }
    }
    None
}
