//! `exec --timings` on the real thing: each step has its row, in order, and they add up to the whole.

use crate::harness::{Ran, World};

/// Name, milliseconds, and per cent of the whole.
type Row = (String, f64, f64);

/// The rows of the table that ends standard error.
fn rows(stderr: &str) -> Vec<Row> {
    let table = stderr.lines().skip_while(|line| !line.starts_with("step "));
    let row = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name @ .., ms, share, "%"] = words.as_slice() else {
            panic!("{line:?} is no row");
        };
        (name.join(" "), ms.parse().unwrap(), share.parse().unwrap())
    };
    table.skip(1).map(row).collect()
}

#[test]
fn where_the_milliseconds_went_is_told_and_adds_up() {
    let world = World::new();
    let task = world.lab_task("Add a note.\n!write note.txt a note\n!commit . Add a note\n!say ## Changes\\nA note.");
    let (file, config) = (world.write_task(&task), world.config(""));
    let mut command = world.command(&config);
    command.args(["exec", "--json", "--timings"]).arg(file);
    let ran = Ran::of(command);
    assert_eq!((ran.exit, ran.reason()), (0, "published"), "{}", ran.stderr);

    let mut rows = rows(&ran.stderr);
    let (name, whole, share) = rows.pop().unwrap();
    assert_eq!((name.as_str(), share), ("whole", 100.0), "{}", ran.stderr);
    let names: Vec<&str> = rows.iter().map(|(name, ..)| name.as_str()).collect();
    let expected = [
        "claim",
        "grant",
        "mirror",
        "sandbox",
        "clone",
        "agent start",
        "turn",
        "staging, publish",
        "cleanup",
        "settle",
    ];
    assert_eq!(names, expected, "{}", ran.stderr);
    // Each is rounded to a tenth.
    let sum = |of: fn(&Row) -> f64| rows.iter().map(of).sum::<f64>();
    assert!((sum(|row| row.1) - whole).abs() < 1.0, "{}", ran.stderr);
    assert!((sum(|row| row.2) - 100.0).abs() < 1.0, "{}", ran.stderr);
    // The worker's own count leaves out the claim and what follows the last event.
    let counted = ran.outcome()["duration_ms"].as_f64().unwrap();
    assert!(whole >= counted, "{counted} of {whole}");
    // Nothing of it is among the events.
    assert!(ran.stdout.lines().all(|line| line.starts_with('{')), "{}", ran.stdout);

    // Who does not ask is not told.
    let ran = world.exec(&world.lab_task("!say hi"));
    assert!(!ran.stderr.contains("whole"), "{}", ran.stderr);
}
