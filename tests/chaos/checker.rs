//! What must hold after any run, whatever was killed in it: a pure judgement over what was sent, what was told, and what is left.
//!
//! Asks nobody and changes nothing. Its own tests show that it fails for each violation.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// All that is known of a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Record {
    /// The sessions that were asked for.
    pub(crate) submitted: BTreeSet<String>,
    /// The data of all events, in the order of their arrival.
    pub(crate) events: Vec<Value>,
    /// The forges' projects, by path.
    pub(crate) projects: BTreeMap<String, Project>,
    /// The commits in kept bundles.
    pub(crate) kept: BTreeSet<String>,
    /// Whatever should be gone, in words.
    pub(crate) left: Vec<String>,
    /// The sessions of dead letters.
    pub(crate) dead: Vec<String>,
}

/// What a forge holds of a project.
#[derive(Debug, Clone, Default)]
pub(crate) struct Project {
    /// Heads by branch.
    pub(crate) branches: BTreeMap<String, String>,
    /// Every commit of every branch.
    pub(crate) commits: BTreeSet<String>,
    /// The source branches of all change requests, closed ones too.
    pub(crate) requests: Vec<String>,
}

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Violation {
    /// The last attempt of a session has no final event.
    NeverEnded(String),
    /// An attempt has more than one final event.
    EndedTwice(String, u64),
    /// Two runs went by the same attempt.
    AttemptRunTwice(String, u64),
    /// Something was told after the final event of the same attempt.
    AfterTheEnd(String, u64),
    /// Events of an attempt came in another order than their numbers.
    Disordered(String, u64),
    /// A session of nobody.
    NotAskedFor(String),
    /// More than one change request of a session in a project.
    TwoRequests(String, String),
    /// A session that went well left a branch without a change request.
    NoRequest(String, String),
    /// A commit that staging took is nowhere.
    CommitLost(String, String),
    /// An outcome says of a branch what the forge does not.
    Untrue(String, String),
    /// A dead letter without its final event, or the other way about.
    DeadLetter(String),
    /// Something is left.
    Left(String),
}

fn word<'a>(event: &'a Value, name: &str) -> &'a str {
    event[name].as_str().unwrap_or_default()
}

fn number(event: &Value, name: &str) -> u64 {
    event[name].as_u64().unwrap_or_default()
}

/// The projects of an outcome.
fn outcomes(finished: &Value) -> impl Iterator<Item = &Value> {
    finished["outcome"]["projects"].as_array().into_iter().flatten()
}

/// Judges a run.
pub(crate) fn check(record: &Record) -> BTreeSet<Violation> {
    let mut found = BTreeSet::new();
    let mut sessions: BTreeMap<&str, BTreeMap<u64, Vec<&Value>>> = BTreeMap::new();
    for event in &record.events {
        let attempts = sessions.entry(word(event, "session")).or_default();
        attempts.entry(number(event, "attempt")).or_default().push(event);
    }
    for session in &record.submitted {
        if !sessions.contains_key(session.as_str()) {
            found.insert(Violation::NeverEnded(session.clone()));
        }
    }
    for (session, attempts) in &sessions {
        if !record.submitted.contains(*session) {
            found.insert(Violation::NotAskedFor((*session).to_owned()));
        }
        for (attempt, events) in attempts {
            check_attempt(session, *attempt, events, &mut found);
        }
        check_end(record, session, attempts, &mut found);
        check_work(record, session, attempts, &mut found);
    }
    found.extend(record.left.iter().map(|what| Violation::Left(what.clone())));
    found
}

fn check_attempt(session: &str, attempt: u64, events: &[&Value], found: &mut BTreeSet<Violation>) {
    // A repetition of what was told is allowed: consumers know it by its number.
    let mut told: BTreeMap<u64, &Value> = BTreeMap::new();
    let mut last = 0;
    for event in events {
        let seq = number(event, "seq");
        match told.get(&seq) {
            Some(first) if first == event => continue,
            Some(_) => {
                found.insert(Violation::AttemptRunTwice(session.to_owned(), attempt));
            }
            None if seq < last => {
                found.insert(Violation::Disordered(session.to_owned(), attempt));
            }
            None => {}
        }
        last = last.max(seq);
        told.insert(seq, event);
    }
    let of = |kind: &str| {
        let seqs = told.values().filter(|event| word(event, "event") == kind);
        seqs.map(|event| number(event, "seq")).collect::<Vec<_>>()
    };
    if of("claimed").len() > 1 {
        found.insert(Violation::AttemptRunTwice(session.to_owned(), attempt));
    }
    let ends = of("finished");
    if ends.len() > 1 {
        found.insert(Violation::EndedTwice(session.to_owned(), attempt));
    }
    if ends.first().is_some_and(|end| told.keys().any(|seq| seq > end)) {
        found.insert(Violation::AfterTheEnd(session.to_owned(), attempt));
    }
}

fn check_end(record: &Record, session: &str, attempts: &BTreeMap<u64, Vec<&Value>>, found: &mut BTreeSet<Violation>) {
    let last = attempts.values().next_back().into_iter().flatten();
    let Some(end) = last.copied().find(|event| word(event, "event") == "finished") else {
        found.insert(Violation::NeverEnded(session.to_owned()));
        return;
    };
    let abandoned = end["outcome"]["reason"] == "abandoned";
    if abandoned != record.dead.iter().any(|dead| dead == session) {
        found.insert(Violation::DeadLetter(session.to_owned()));
    }
    for outcome in outcomes(end) {
        let path = word(&outcome["project"], "path");
        let (branch, head) = (word(outcome, "branch"), word(outcome, "head"));
        let shown = record
            .projects
            .get(path)
            .and_then(|project| project.branches.get(branch));
        if outcome["reason"] == "published" && shown.map(String::as_str) != Some(head) {
            found.insert(Violation::Untrue(session.to_owned(), path.to_owned()));
        }
    }
}

fn check_work(record: &Record, session: &str, attempts: &BTreeMap<u64, Vec<&Value>>, found: &mut BTreeSet<Violation>) {
    let all = || attempts.values().flatten().copied();
    let named: BTreeSet<&str> = all()
        .filter(|event| word(event, "event") == "finished")
        .flat_map(outcomes)
        .map(|outcome| word(outcome, "head"))
        .collect();
    for event in all().filter(|event| word(event, "event") == "push_accepted") {
        let (path, head) = (word(&event["project"], "path"), word(event, "head"));
        let on_forge = record
            .projects
            .get(path)
            .is_some_and(|project| project.commits.contains(head));
        if !on_forge && !named.contains(head) && !record.kept.contains(head) {
            found.insert(Violation::CommitLost(session.to_owned(), head.to_owned()));
        }
    }
    let went_well = all().any(|event| event["outcome"]["result"] == "success");
    for (path, project) in &record.projects {
        let own: BTreeSet<&str> = all()
            .filter(|event| word(event, "event") == "granted" && word(&event["project"], "path") == path)
            .map(|event| word(event, "branch"))
            .collect();
        if project
            .requests
            .iter()
            .filter(|source| own.contains(source.as_str()))
            .count()
            > 1
        {
            found.insert(Violation::TwoRequests(session.to_owned(), path.clone()));
        }
        // Whoever died between the two left the branch; whoever went on had to see it.
        let mut shown = own.iter().filter(|branch| project.branches.contains_key(**branch));
        if went_well && shown.any(|branch| !project.requests.iter().any(|source| source == branch)) {
            found.insert(Violation::NoRequest(session.to_owned(), path.clone()));
        }
    }
}

mod tests {
    //! The checker fails for each violation, and for nothing else.

    use serde_json::{Value, json};

    use super::{Project, Record, Violation, check};

    fn event(session: &str, attempt: u64, seq: u64, kind: &str, more: Value) -> Value {
        let mut event = json!({"session": session, "attempt": attempt, "seq": seq, "event": kind});
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        event
    }

    fn finished(session: &str, attempt: u64, seq: u64, head: &str) -> Value {
        let project = json!({"project": {"connection": "lab", "path": "p"}, "reason": "published", "branch": format!("b-{session}"), "head": head});
        let outcome = json!({"result": "success", "reason": "published", "projects": [project]});
        event(session, attempt, seq, "finished", json!({"outcome": outcome}))
    }

    /// A run that is well: one session that ended at once, one whose first worker was killed after staging took something.
    fn well() -> Record {
        let push = json!({"project": {"connection": "lab", "path": "p"}, "head": "c2"});
        Record {
            submitted: ["one".to_owned(), "two".to_owned()].into(),
            events: vec![
                event("one", 1, 1, "claimed", json!({})),
                event("two", 1, 1, "claimed", json!({})),
                event(
                    "two",
                    1,
                    2,
                    "granted",
                    json!({"project": {"path": "p"}, "branch": "b-two"}),
                ),
                event("two", 1, 3, "push_accepted", push),
                event("one", 1, 3, "stage", json!({})),
                event("one", 1, 3, "stage", json!({})),
                finished("one", 1, 4, "c1"),
                event("two", 2, 1, "claimed", json!({})),
                finished("two", 2, 2, "c3"),
            ],
            projects: [(
                "p".to_owned(),
                Project {
                    branches: [("b-one", "c1"), ("b-two", "c3")]
                        .map(|(a, b)| (a.to_owned(), b.to_owned()))
                        .into(),
                    commits: ["c1", "c2", "c3"].map(str::to_owned).into(),
                    requests: vec!["b-one".to_owned(), "b-two".to_owned()],
                },
            )]
            .into(),
            ..Record::default()
        }
    }

    fn found(change: impl FnOnce(&mut Record)) -> Vec<Violation> {
        let mut record = well();
        change(&mut record);
        check(&record).into_iter().collect()
    }

    #[test]
    fn a_run_that_is_well_has_no_violation() {
        assert_eq!(found(|_| {}), []);
    }

    #[test]
    fn every_violation_is_found() {
        let (one, two) = (|| "one".to_owned(), || "two".to_owned());
        // Sessions and their ends.
        assert_eq!(
            found(|run| assert!(run.submitted.insert("three".into()))),
            [Violation::NeverEnded("three".into())]
        );
        assert_eq!(
            found(|run| assert!(run.submitted.remove("one"))),
            [Violation::NotAskedFor(one())]
        );
        assert_eq!(found(|run| drop(run.events.pop())), [Violation::NeverEnded(two())]);
        let late = event("one", 2, 1, "claimed", json!({}));
        assert_eq!(found(|run| run.events.push(late)), [Violation::NeverEnded(one())]);
        let again = finished("one", 1, 5, "c1");
        assert_eq!(
            found(|run| run.events.push(again)),
            [Violation::EndedTwice(one(), 1), Violation::AfterTheEnd(one(), 1)]
        );
        let after = event("one", 1, 5, "warning", json!({}));
        assert_eq!(found(|run| run.events.push(after)), [Violation::AfterTheEnd(one(), 1)]);
        // Attempts.
        let other = event("one", 1, 1, "claimed", json!({"worker": "another"}));
        assert_eq!(
            found(|run| run.events.push(other)),
            [Violation::AttemptRunTwice(one(), 1)]
        );
        let other = event("two", 2, 1, "claimed", json!({}));
        let second = event("two", 2, 0, "claimed", json!({}));
        assert_eq!(
            found(|run| run.events.extend([other, second])),
            [Violation::AttemptRunTwice(two(), 2), Violation::Disordered(two(), 2)]
        );
        assert_eq!(
            found(|run| run.events.push(event("one", 1, 2, "stage", json!({})))),
            [Violation::Disordered(one(), 1)]
        );
        // Work.
        assert_eq!(
            found(|run| run.projects.get_mut("p").unwrap().requests.push("b-two".into())),
            [Violation::TwoRequests(two(), "p".into())]
        );
        let without = |run: &mut Record| {
            run.projects
                .get_mut("p")
                .unwrap()
                .requests
                .retain(|source| source != "b-two")
        };
        assert_eq!(found(without), [Violation::NoRequest(two(), "p".into())]);
        assert_eq!(
            found(|run| {
                without(run);
                run.events[8]["outcome"]["result"] = json!("failure");
            }),
            []
        );
        let lost = [Violation::CommitLost(two(), "c2".into())];
        let lose = |run: &mut Record| assert!(run.projects.get_mut("p").unwrap().commits.remove("c2"));
        assert_eq!(found(lose), lost);
        assert_eq!(
            found(|run| {
                lose(run);
                run.kept.insert("c2".into());
            }),
            []
        );
        assert_eq!(
            found(|run| drop(run.projects.get_mut("p").unwrap().branches.remove("b-one"))),
            [Violation::Untrue(one(), "p".into())]
        );
        // What is left.
        assert_eq!(found(|run| run.dead.push(one())), [Violation::DeadLetter(one())]);
        assert_eq!(
            found(|run| run.events[6]["outcome"]["reason"] = json!("abandoned")),
            [Violation::DeadLetter(one())]
        );
        assert_eq!(
            found(|run| run.left.push("a container".into())),
            [Violation::Left("a container".into())]
        );
    }
}
