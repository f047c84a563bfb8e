//! What the pure parts that every message, event and request meets cost: a task's reading, an event's encoding, the check of references, the match of
//! hosts, and masking. Run with `cargo bench --bench pure`; figures are criterion's.
//!
//! Never does I/O, and judges nothing: what must hold is held by tests. Masking is told in bytes a second, because its time grows with the text.

#![expect(clippy::unwrap_used, reason = "a benchmark fails where it stands")]

use std::fmt::Write as _;
use std::hint::black_box;

use cofferdam::grant::egress::{Egress, Way};
use cofferdam::message::{BranchName, EgressLevel, Event, EventBody, SessionId, Task};
use cofferdam::repository::push_check::{check_updates, parse_updates};
use cofferdam::secret::{Mask, Secret};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde_json::{Value, json};

const SESSION: &str = "0190c2f0-7c1e-7000-8000-000000000001";
/// How long the texts are that are masked: what an event may hold, and what a piece of a log may.
const TEXTS: [(&str, usize); 2] = [("16 KiB", 16 * 1024), ("1 MiB", 1024 * 1024)];

/// A task over some projects, with a prompt of some pages.
fn task() -> Vec<u8> {
    let projects: Vec<Value> = (0..8)
        .map(|number| json!({"connection": "lab", "path": format!("group/sub/project-{number}"), "base": "main"}))
        .collect();
    let connection =
        json!({"forge": "gitlab", "url": "https://gitlab.example.org", "credential": {"env": "COFFERDAM_TOKEN_LAB"}});
    let task = json!({
        "version": 1,
        "session": SESSION,
        "title": "Greet in German too",
        "prompt": "Let the greeter greet in German too, and test it.\n".repeat(80),
        "projects": projects,
        "connections": {"lab": connection},
    });
    task.to_string().into_bytes()
}

fn messages(criterion: &mut Criterion) {
    let body = task();
    let _: Task = Task::parse(&body).unwrap();
    let mut group = criterion.benchmark_group("message");
    group.throughput(Throughput::BytesDecimal(body.len() as u64));
    group.bench_function("parse a task", |bencher| {
        bencher.iter(|| Task::parse(black_box(&body)).unwrap());
    });

    let session: SessionId = SESSION.parse().unwrap();
    let text = "I look at the greeter's tests first.\n".repeat(20);
    let said = EventBody::AgentMessage { text };
    for (name, body) in [("short", EventBody::TurnStarted { turn: 1 }), ("with text", said)] {
        let bytes = serde_json::to_vec(&Event::now("w1", session, 1, 7, body.clone())).unwrap();
        group.throughput(Throughput::BytesDecimal(bytes.len() as u64));
        // With its making: the id, the time and the key are encoded too.
        group.bench_function(format!("encode an event, {name}"), |bencher| {
            bencher.iter(|| {
                let event = Event::now("w1", session, 1, 7, black_box(&body).clone());
                (event.routing_key(), serde_json::to_vec(&event).unwrap())
            });
        });
    }
    group.finish();
}

fn references(criterion: &mut Criterion) {
    let allowed = "refs/heads/cofferdam/greet-in-german-too-0a1b2c3d";
    let (old, new) = ("0".repeat(40), "a1".repeat(20));
    let one = format!("{old} {new} {allowed}\n");
    let many: String = (0..200)
        .map(|number| format!("{old} {new} refs/heads/other-{number}\n"))
        .collect();
    assert!(check_updates(&parse_updates(one.as_bytes()).unwrap(), allowed).is_ok());
    assert!(check_updates(&parse_updates(many.as_bytes()).unwrap(), allowed).is_err());
    let mut group = criterion.benchmark_group("reference");
    for (name, list) in [("the one that is allowed", one), ("200 that are not", many)] {
        group.bench_function(format!("check a push, {name}"), |bencher| {
            bencher.iter(|| check_updates(&parse_updates(black_box(list.as_bytes())).unwrap(), allowed).is_ok());
        });
    }
    group.bench_function("read a branch's name", |bencher| {
        bencher.iter(|| black_box("cofferdam/greet-in-german-too-0a1b2c3d").parse::<BranchName>());
    });
    group.finish();
}

fn hosts(criterion: &mut Criterion) {
    // As many as a task may have, every second for all below a name.
    let rules: Vec<Value> = (0..64)
        .map(|number| json!({"host": format!("{}host{number}.example.org", if number % 2 == 0 { "." } else { "" })}))
        .collect();
    let rules = serde_json::from_value(Value::from(rules)).unwrap();
    let egress = Egress::new(EgressLevel::Custom, rules);
    let cases = [
        ("the last of 64 rules", "host63.example.org:443", true),
        ("a name below one", "deep.below.host62.example.org:443", true),
        ("none of 64 rules", "elsewhere.example.net:443", false),
        ("an address", "127.0.0.1:443", false),
    ];
    let mut group = criterion.benchmark_group("host");
    for (name, asked, allowed) in cases {
        assert_eq!(egress.decide(asked, Way::Tunnel).is_ok(), allowed, "{asked}");
        group.bench_function(format!("match, {name}"), |bencher| {
            bencher.iter(|| egress.decide(black_box(asked), Way::Tunnel).is_ok());
        });
    }
    group.finish();
}

/// Words and lines like those of a build's output, without anything to hide.
fn prose(bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 128);
    let mut number = 0_u32;
    while text.len() < bytes {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (file, line) = (number >> 20, number >> 16 & 0xfff);
        writeln!(
            text,
            "   Compiling part-{file} (/workspace/greeter/src/part_{file}.rs:{line}): 3 warnings, finished"
        )
        .unwrap();
    }
    text.truncate(text.floor_char_boundary(bytes));
    text
}

/// A few secrets, as a session has them: tokens of two forges, a key of a model.
fn mask() -> Mask {
    let secrets = [
        "glpat-0123456789abcdefghij",
        "ghp_0123456789abcdefghijABCDEFGHIJ012345",
        "bench/key+with=signs",
    ];
    Mask::new(&secrets.map(Secret::new))
}

/// As many as a worker with a hundred sessions knows, all of them with other beginnings.
fn many() -> Mask {
    let value = |number: u64| format!("{:016x}{number:04}", number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let secrets: Vec<Secret> = (1..=100).map(|number| Secret::new(&value(number))).collect();
    Mask::new(&secrets)
}

fn masking(criterion: &mut Criterion) {
    let (known, many) = (mask(), many());
    let shapes = mask().and_token_shapes();
    let mut group = criterion.benchmark_group("mask");
    for (size, bytes) in TEXTS {
        let plain = prose(bytes);
        let escaped = plain.replace('\n', "\\n");
        let hiding = plain.replace("3 warnings", "glpat-0123456789abcdefghij");
        assert_eq!(
            (shapes.apply(&plain), many.apply(&plain)),
            (plain.clone(), plain.clone())
        );
        assert!(shapes.apply(&hiding).contains("[MASKED]"));
        let cases = [
            ("known secrets", &known, &plain),
            ("100 known secrets", &many, &plain),
            ("known secrets, escaped lines", &known, &escaped),
            ("and token shapes", &shapes, &plain),
            ("and token shapes, one in each line", &shapes, &hiding),
        ];
        for (name, mask, text) in cases {
            group.throughput(Throughput::BytesDecimal(text.len() as u64));
            group.bench_function(format!("{name}, {size}"), |bencher| {
                bencher.iter(|| mask.apply(black_box(text)));
            });
        }
        group.throughput(Throughput::BytesDecimal(plain.len() as u64));
        group.bench_function(format!("how far it is settled, {size}"), |bencher| {
            bencher.iter(|| shapes.settled(black_box(&plain)));
        });
    }
    group.finish();
}

/// A line of a log, in a process that knows secrets.
fn log_lines(criterion: &mut Criterion) {
    let _living = ["glpat-0123456789abcdefghij", "bench/key+with=signs"].map(Secret::new);
    let line = format!("{} https://ada:0123@gitlab.example.org/group/project.git", prose(300));
    assert!(cofferdam::secret::log_line(&line).contains("https://ada:[MASKED]@"));
    let mut group = criterion.benchmark_group("log");
    group.throughput(Throughput::BytesDecimal(line.len() as u64));
    group.bench_function("a line of 350 bytes", |bencher| {
        bencher.iter(|| cofferdam::secret::log_line(black_box(&line)));
    });
    group.finish();
}

criterion_group!(pure, messages, references, hosts, masking, log_lines);
criterion_main!(pure);
