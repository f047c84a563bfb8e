//! What a session may take of its host: disk, memory, output. Over a limit it ends with that reason, its committed work is kept, and the worker
//! and the next session go on.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{LAB, Ran, World, until};
use crate::kit::{Amqp, Daemon, outcome, wait_for};

const MIB: u64 = 1024 * 1024;

/// Runs a task with keys of the configuration set by variables.
fn exec(world: &World, more: &str, variables: &[(&str, &str)], task: &Value) -> Ran {
    let config = world.config(more);
    let mut command = world.command(&config);
    command.args(["exec", "--json"]).arg(world.write_task(task));
    for (key, value) in variables {
        command.env(format!("COFFERDAM__{key}"), value);
    }
    Ran::of(command)
}

const ON_DISK: (&str, &str) = ("SANDBOX__WORKSPACE", "directory");

/// The session ended for its disk, what was committed is in a bundle, what was not is nowhere, and nothing is left.
fn assert_disk_full(world: &World, ran: &Ran, words: &str) {
    let said = ran.all("warning");
    assert_eq!(
        (ran.exit, ran.reason()),
        (1, "disk_full"),
        "{} {said:?} {}",
        ran.outcome(),
        ran.stderr
    );
    let message = ran.outcome()["message"].as_str().unwrap();
    assert!(message.contains(words), "{message}");
    let kept = ran.of_project(LAB)["kept"]
        .as_str()
        .expect("a bundle of the committed work");
    let bundle = world.state_dir().join("kept").join(kept);
    assert!(
        bundle.metadata().unwrap().len() < MIB,
        "what filled the disk was kept as well"
    );
    let heads = Command::new("git")
        .args(["bundle", "list-heads"])
        .arg(&bundle)
        .output()
        .unwrap();
    let head = ran.of_project(LAB)["head"].as_str().unwrap();
    assert!(String::from_utf8_lossy(&heads.stdout).contains(head));
    world.assert_clean();
}

#[test]
fn a_workspace_on_disk_over_its_limit_ends_its_session_and_the_next_one_works() {
    let world = World::new();
    let limits = [ON_DISK, ("SANDBOX__WORKSPACE_BYTES", "67108864")];
    // In many files, one of them sparse: lengths say nothing.
    let prompt = "!write a.txt b\n!commit . One\n!shell truncate -s 900G sparse; for n in $(seq 40); do head -c 4000000 /dev/urandom >big$n; done\n!hang";
    let ran = exec(&world, "", &limits, &world.lab_task(prompt));
    assert_disk_full(&world, &ran, "sandbox.workspace_bytes");
    let ran = exec(
        &world,
        "",
        &limits,
        &world.lab_task("!shell truncate -s 900G /workspace/sparse\n!write a.txt b\n!sleep 3000"),
    );
    assert_eq!(ran.reason(), "published", "{} {}", ran.outcome(), ran.stderr);
}

/// Fills a file that has no name any more, and holds it.
const UNSEEN: &str = "!shell exec 3>gone; rm gone; head -c 170000000 /dev/urandom >&3; sleep 600";

#[test]
fn a_file_that_is_open_without_a_name_counts_as_what_it_takes() {
    let world = World::new();
    let limits = [ON_DISK, ("SANDBOX__WORKSPACE_BYTES", "67108864")];
    let mut task = world.lab_task(&format!("!write a.txt b\n!commit . One\n{UNSEEN}"));
    // The next look at it may be half a minute away.
    task["limits"] = json!({"turn_s": 120});
    let ran = exec(&world, "", &limits, &task);
    assert_disk_full(&world, &ran, "sandbox.workspace_bytes");
}

#[test]
fn in_danger_the_session_that_fills_the_disk_goes_and_not_the_one_that_is_seen_to() {
    let world = World::new();
    let _disk = SmallDisk::mount(&world, "256m");
    let prefix = format!("t{}", uuid::Uuid::new_v4().simple());
    // A set-up puts the workspace on disk.
    let config = "set_up = { script = 'true' }\n[disk]\nleast_free_bytes = 167772160\n";
    let daemon = Daemon::begin(&world, &crate::kit::broker(), &prefix, config);
    until(Duration::from_secs(30), "readiness", || {
        (daemon.status("/readyz") == 200).then_some(())
    });
    let innocent = world.lab_task(
        "!shell head -c 20000000 /dev/urandom >/workspace/seen\n!write a.txt b\n!commit . One\n!sleep 30000\n!say done",
    );
    let (_one, seen) = daemon.submit_aside(&world, &innocent);
    wait_for(&seen, "turn_started");
    let mut hostile = world.lab_task(&format!("!write b.txt b\n!commit . Two\n{UNSEEN}"));
    hostile["limits"] = json!({"turn_s": 120});
    let (_two, unseen) = daemon.submit_aside(&world, &hostile);
    let ended = outcome(&unseen);
    assert_eq!(ended["reason"], "disk_full", "{ended} {}", daemon.log());
    assert!(
        ended["message"].as_str().unwrap().contains("took most of it"),
        "{ended}"
    );
    let published = outcome(&seen);
    assert_eq!(published["reason"], "published", "{published} {}", daemon.log());
}

#[test]
fn too_many_files_and_too_deep_trees_end_their_session_and_are_removed() {
    let world = World::new();
    let files = [ON_DISK, ("DISK__WORKSPACE_FILES", "2000")];
    let prompt = "!write a.txt b\n!commit . One\n!shell mkdir many && cd many && seq 3000 | xargs touch\n!hang";
    let ran = exec(&world, "", &files, &world.lab_task(prompt));
    assert_disk_full(&world, &ran, "disk.workspace_files");
    let prompt = "!write a.txt b\n!commit . One\n!shell cd /workspace; n=0; while [ $n -lt 3000 ]; do mkdir d && cd -P d; n=$((n+1)); done\n!hang";
    let ran = exec(&world, "", &[ON_DISK], &world.lab_task(prompt));
    assert_disk_full(&world, &ran, "deeper than");
}

#[test]
fn a_workspace_in_memory_that_is_full_is_called_so() {
    let world = World::new();
    let limits = [("SANDBOX__WORKSPACE_BYTES", "33554432")];
    let prompt = "!write a.txt b\n!commit . One\n!shell head -c 90000000 /dev/urandom >big\n!say I could not write";
    let ran = exec(&world, "", &limits, &world.lab_task(prompt));
    assert_disk_full(&world, &ran, "/workspace in the sandbox is full");
    // An agent that has room again is not called full.
    let prompt = "!write a.txt b\n!shell head -c 90000000 /dev/urandom >big; rm big\n!say I went on";
    let ran = exec(&world, "", &limits, &world.lab_task(prompt));
    assert_eq!(ran.reason(), "published", "{} {}", ran.outcome(), ran.stderr);
}

const SMALL: [(&str, &str); 2] = [
    ("SANDBOX__MEMORY_BYTES", "268435456"),
    ("SANDBOX__WORKSPACE_BYTES", "67108864"),
];
/// `tail` holds what it reads to the end of a line that never comes.
const HUNGRY: &str = "!shell head -c 900000000 /dev/zero | tail";

fn memory_warnings(ran: &Ran) -> usize {
    let warnings = ran.all("warning");
    warnings.iter().filter(|data| data["code"] == "out_of_memory").count()
}

#[test]
fn a_child_that_is_killed_for_memory_is_told_once_and_the_session_goes_on() {
    let world = World::new();
    let prompt = format!("!write a.txt b\n{HUNGRY}\n{HUNGRY}\n!say still here");
    let ran = exec(&world, "", &SMALL, &world.lab_task(&prompt));
    assert_eq!(ran.reason(), "published", "{} {}", ran.outcome(), ran.stderr);
    assert_eq!(memory_warnings(&ran), 1, "{:?}", ran.all("warning"));
    assert!(ran.said().contains("still here"));
    // Where nothing was killed, nothing is told.
    let ran = exec(&world, "", &SMALL, &world.lab_task("!write a.txt b"));
    assert_eq!(memory_warnings(&ran), 0);
}

#[test]
fn an_agent_that_is_killed_for_memory_ran_out_of_it_though_pid_1_lives() {
    let world = World::new();
    let hungry = "[agents.hungry]\nimage = \"cofferdam/sandbox-scripted:test\"\ncommand = [\"tail\", \"/dev/zero\"]\nprotocol = \"command\"\n\
                  co_author = \"H <h@a.example>\"";
    let mut task = world.lab_task("anything");
    task["agent"] = json!("hungry");
    let ran = exec(&world, hungry, &SMALL, &task);
    assert_eq!(
        (ran.exit, ran.reason()),
        (1, "out_of_memory"),
        "{} {}",
        ran.outcome(),
        ran.stderr
    );
    let message = ran.outcome()["message"].as_str().unwrap();
    assert!(message.contains("sandbox.memory_bytes"), "{message}");
    world.assert_clean();
}

#[test]
fn a_turn_that_fails_later_names_what_was_killed_before() {
    let world = World::new();
    let mut task = world.lab_task(&format!("{HUNGRY}\n!hang"));
    // Long enough for the kill.
    task["limits"] = json!({"turn_s": 20});
    let ran = exec(&world, "", &SMALL, &task);
    assert_eq!(ran.reason(), "turn_timeout", "{} {}", ran.outcome(), ran.stderr);
    let message = ran.outcome()["message"].as_str().unwrap();
    assert!(
        message.contains("killed a process of the sandbox for memory"),
        "{message}"
    );
}

/// Most memory that the worker ever had, in bytes.
fn peak(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.process.0.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// A page that does not come in its time is asked for once more.
fn metric(daemon: &Daemon, name: &str) -> u64 {
    until(Duration::from_secs(30), name, || {
        let page = daemon.page("/metrics");
        let line = page.lines().find_map(|line| line.strip_prefix(&format!("{name} ")))?;
        Some(line.parse::<f64>().unwrap() as u64)
    })
}

#[test]
#[ignore = "long: tests/run.sh --full"]
fn floods_of_every_kind_cost_the_worker_no_memory_and_are_counted() {
    let world = World::new();
    let daemon = Daemon::start(&world, "");
    // The agent's own streams: it is the parent of the shell.
    let onto = |stream: u8| {
        format!(
            "!shell head -c 200000000 /dev/zero | tr '\\\\0' 'x' | fold -w 1000 >/proc/$PPID/fd/{stream}\n!write a.txt b"
        )
    };
    let permissions = format!("{}!write a.txt b", "!permission again\n".repeat(600));
    let usage = "!shell i=0; while [ $i -lt 20000 ]; do echo '{\"jsonrpc\":\"2.0\",\"id\":900,\"result\":{\"usage\":{\"inputTokens\":7,\"outputTokens\":'$i'}}}'; \
                 i=$((i+1)); done >/proc/$PPID/fd/1\n!write a.txt b";
    let at_rest = peak(&daemon);
    let mut told = Vec::new();
    for prompt in [
        onto(1),
        onto(2),
        "!flood 200000000\n!write a.txt b".to_owned(),
        permissions,
        usage.to_owned(),
    ] {
        let ran = daemon.submit(&world, &world.lab_task(&prompt));
        assert_eq!(ran.reason(), "published", "{} {}", ran.outcome(), ran.stderr);
        // All that may be told, in events of 16 KiB, and what must be told.
        assert!(ran.events.len() < 4096 + 600, "{} events", ran.events.len());
        told.push(ran);
    }
    let dropped = |ran: &Ran| -> u64 {
        ran.all("output_dropped")
            .iter()
            .map(|data| data["bytes"].as_u64().unwrap())
            .sum()
    };
    // Garbage on standard output, all but the kept end of standard error, and most of what it says.
    assert!(
        (199_000_000..=200_300_000).contains(&dropped(&told[0])),
        "{}",
        dropped(&told[0])
    );
    assert!(
        (199_000_000..=200_300_000).contains(&dropped(&told[1])),
        "{}",
        dropped(&told[1])
    );
    let said = told[2].said().len() as u64;
    assert!(said <= 64 * MIB && dropped(&told[2]) > 120_000_000, "{said} said");
    assert!(
        said + dropped(&told[2]) >= 200_000_000,
        "{said} said, {} dropped",
        dropped(&told[2])
    );
    assert!(metric(&daemon, "cofferdam_output_dropped_bytes_total") > 500_000_000);
    let untold = told[3]
        .all("warning")
        .into_iter()
        .find(|data| data["code"] == "permissions_not_told");
    assert_eq!(told[3].all("agent_permission").len(), 500);
    assert!(untold.unwrap()["message"].as_str().unwrap().contains(" 100 times"));
    assert!(
        told[4].all("agent_usage").len() <= 1,
        "{:?}",
        told[4].all("agent_usage").len()
    );
    let peak = peak(&daemon);
    eprintln!(
        "worker's memory: {} MiB at rest, {} MiB at most",
        at_rest / MIB,
        peak / MIB
    );
    assert!(peak < at_rest + 128 * MIB, "{} MiB", peak / MIB);
}

/// A small file system for a worker's state; gone with the test.
pub(crate) struct SmallDisk(pub(crate) std::path::PathBuf);

impl SmallDisk {
    pub(crate) fn mount(world: &World, size: &str) -> Self {
        let path = world.state_dir();
        std::fs::create_dir_all(&path).unwrap();
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", &format!("size={size},mode=700"), "tmpfs"])
            .arg(&path);
        assert!(mount.status().unwrap().success(), "mounting a tmpfs needs root");
        Self(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn below_the_mark_no_task_is_taken_none_is_lost_and_it_resumes_by_itself() {
    let world = World::new();
    let disk = SmallDisk::mount(&world, "128m");
    let filler = disk.0.join("filler");
    std::fs::write(&filler, vec![0; 100 * MIB as usize]).unwrap();
    let amqp = Amqp::open();
    let prefix = format!("t{}", uuid::Uuid::new_v4().simple());
    let mark = "[disk]\nleast_free_bytes = 67108864\n";
    let daemon = Daemon::begin(&world, &crate::kit::broker(), &prefix, mark);
    until(Duration::from_secs(30), "readiness tells it", || {
        (daemon.page("/readyz") == "the disk is nearly full\n").then_some(())
    });
    let doctor = |config: &std::path::Path| {
        let mut command = world.command(config);
        command.arg("doctor");
        String::from_utf8_lossy(&command.output().unwrap().stdout).into_owned()
    };
    assert!(metric(&daemon, "cofferdam_disk_free_bytes") < 64 * MIB);
    assert_eq!(metric(&daemon, "cofferdam_admission_paused"), 1);
    let (_following, events) = daemon.submit_aside(&world, &world.lab_task("!write a.txt b"));
    let tasks = format!("{prefix}.tasks");
    until(Duration::from_secs(30), "the task in the queue", || {
        (amqp.count(&tasks) == 1).then_some(())
    });
    // Long enough for several looks at the disk, in none of which it is taken.
    for _ in 0..30 {
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(amqp.count(&tasks), 1);
    }
    std::fs::remove_file(&filler).unwrap();
    wait_for(&events, "\"event\":\"claimed\"");
    // And it pauses again while the worker waits for tasks: what it asked the broker for is taken back.
    assert_eq!(outcome(&events)["reason"], "published");
    std::fs::write(&filler, vec![0; 100 * MIB as usize]).unwrap();
    until(Duration::from_secs(30), "a pause", || {
        (metric(&daemon, "cofferdam_admission_paused") == 1).then_some(())
    });
    let (_following, second) = daemon.submit_aside(&world, &world.lab_task("!write a.txt b"));
    until(Duration::from_secs(30), "the second in the queue", || {
        (amqp.count(&tasks) == 1).then_some(())
    });
    std::fs::remove_file(&filler).unwrap();
    assert_eq!(outcome(&second)["reason"], "published");
    assert_eq!(metric(&daemon, "cofferdam_admission_paused"), 0);
    let log = daemon.log();
    assert_eq!(
        log.matches("no task is taken: the disk is nearly full").count(),
        2,
        "{log}"
    );
    assert_eq!(log.matches("tasks are taken again").count(), 2);
    let config = daemon.config.clone();
    drop(daemon);
    std::fs::write(&filler, vec![0; 100 * MIB as usize]).unwrap();
    let said = doctor(&config);
    assert!(
        said.contains("PROBLEM  disk") && said.contains("no task is taken below 64 MiB"),
        "{said}"
    );
}

/// A script that sends what is left over of each request's last byte to nobody: `opened` sockets that each hold their request open.
fn holding(requests: &[(usize, &str, usize)]) -> String {
    let mut script = String::from("use IO::Socket::INET; my @all; ");
    for (count, path, size) in requests {
        script.push_str(&format!(
            "for (1..{count}) {{ my $p = fork; if ($p) {{ push @all, $p; next }} my $s = IO::Socket::INET->new(PeerAddr => q(127.0.0.1), PeerPort => 8470); \
             print $s qq(POST {path} HTTP/1.1\\r\\nhost: x\\r\\ncontent-type: application/json\\r\\ncontent-length: {size}\\r\\n\\r\\n); \
             print $s q(x) x ({size} - 1); $s->flush; sleep 60; exit }} "
        ));
    }
    script + "sleep 8; kill 9, @all;"
}

#[test]
fn requests_that_are_held_open_cost_the_worker_no_memory() {
    let world = World::new();
    let daemon = Daemon::start(&world, "");
    let at_rest = peak(&daemon);
    let fetch = format!("/git/lab/{LAB}.git/git-upload-pack");
    let prompt = format!(
        "!shell perl -e '{}'\n!write a.txt b",
        holding(&[(16, &fetch, 16 * 1024 * 1024)])
    );
    let ran = daemon.submit(&world, &world.lab_task(&prompt));
    assert_eq!(ran.reason(), "published", "{} {}", ran.outcome(), ran.stderr);
    let most = peak(&daemon);
    eprintln!("fetches: {} MiB at rest, {} MiB at most", at_rest / MIB, most / MIB);
    assert!(most < at_rest + 64 * MIB, "{} MiB", most / MIB);
    drop(daemon);
    // Requests to the model, in two sessions at once: together they get what all get.
    let model = crate::opencode::Model::start(&world);
    let key = world.directory.path().join("model.key");
    std::fs::write(&key, crate::opencode::KEY).unwrap();
    let more = format!(
        "model = \"m\"\n[models.m]\nurl = \"{}\"\nkey_file = \"{}\"\n[gateway]\nbody_bytes = 67108864\n",
        model.url,
        key.display()
    );
    let daemon = Daemon::start(&world, &more);
    let at_rest = peak(&daemon);
    let prompt = format!(
        "!shell perl -e '{}'\n!write a.txt b",
        holding(&[(12, "/model/m/v1/messages", 20 * 1024 * 1024)])
    );
    let (_one, first) = daemon.submit_aside(&world, &world.lab_task(&prompt));
    let (_two, second) = daemon.submit_aside(&world, &world.lab_task(&prompt));
    for events in [first, second] {
        assert_eq!(outcome(&events)["reason"], "published");
    }
    let most = peak(&daemon);
    eprintln!("models: {} MiB at rest, {} MiB at most", at_rest / MIB, most / MIB);
    assert!(most > at_rest + 32 * MIB, "nothing was held: {} MiB", most / MIB);
    assert!(most < at_rest + 160 * MIB, "{} MiB", most / MIB);
}

#[test]
fn the_session_whose_stalled_push_fills_the_disk_ends_and_another_goes_on() {
    let world = World::new();
    let _disk = SmallDisk::mount(&world, "256m");
    let daemon = Daemon::start(&world, "[disk]\nleast_free_bytes = 209715200\n");
    let (_innocent, others) = daemon.submit_aside(&world, &world.lab_task("!write a.txt b\n!sleep 20000"));
    wait_for(&others, "\"event\":\"turn_started\"");
    // A pack that goes on for 170 MB and then stops in the middle of its only object.
    let place = format!("/git/lab/{LAB}.git/git-receive-pack");
    let script = format!(
        "use IO::Socket::INET; my $s = IO::Socket::INET->new(PeerAddr => q(127.0.0.1), PeerPort => 8470); sub part {{ print $s sprintf(qq(%x\\r\\n), \
         length $_[0]) . $_[0] . qq(\\r\\n) }} my $c = (q(0) x 40) . q( ) . (q(a) x 40) . qq( refs/heads/x\\0 report-status); print $s qq(POST {place} \
         HTTP/1.1\\r\\nhost: x\\r\\ntransfer-encoding: chunked\\r\\n\\r\\n); part(sprintf(q(%04x), 4 + length $c) . $c . q(0000) . q(PACK) . \
         pack(q(NNCCCCC), 2, 1, 0xb0, 0x80, 0x80, 0x80, 0x04) . pack(q(CC), 0x78, 1)); my $b = pack(q(Cvv), 0, 65535, 0) . q(y) x 65535; part($b) for 1..2590; \
         $s->flush; sleep 100"
    );
    let mut task = world.lab_task(&format!(
        "!write a.txt b\n!commit . One\n!shell perl -e '{script}'\n!hang"
    ));
    task["limits"] = json!({"turn_s": 120});
    let (_attack, events) = daemon.submit_aside(&world, &task);
    let ended = outcome(&events);
    assert_eq!(ended["reason"], "disk_full", "{ended} {}", daemon.log());
    assert!(ended["message"].as_str().unwrap().contains("nearly full"), "{ended}");
    assert_eq!(outcome(&others)["reason"], "published");
    until(Duration::from_secs(30), "the disk has its room again", || {
        (metric(&daemon, "cofferdam_disk_free_bytes") > 200 * MIB).then_some(())
    });
}
