//! What control messages made of a session's projects and connections outlives the worker that obeyed them, or was about to.

use serde_json::json;

use super::{LEGACY, add, add_new, fetching, hub, lab_alone, of_project};
use crate::harness::{HUB, LAB, World, signal};
use crate::kit::{Daemon, outcome, wait_for};
use crate::talk::Talk;

/// A second token of the same user.
fn seed(seed: String) -> String {
    seed + "\n[[tokens]]\nname = \"ada-fresh\"\nvalue = \"test-gitlab-fresh\"\nuser = \"ada\"\nforge = \"gitlab\"\nscopes = [\"api\"]\n"
}

#[test]
fn who_takes_over_has_what_was_added_and_renewed_and_not_what_was_dropped() {
    let world = World::with_seed(seed).token("FRESH", "test-gitlab-fresh");
    let mut one = Daemon::start(&world, "");
    let task = lab_alone(&world, "!write one.txt 1\n!commit . First", 120);
    let talk = Talk::begin(&world, &one, &task);
    wait_for(&talk.events, "change_request_opened");
    talk.applied("a-1", add_new(&world, "web", "HUB"));
    let mut legacy = add("old", LEGACY);
    legacy["new_connection"] = hub(&world, "HUB");
    talk.applied("a-2", legacy);
    let fresh = json!({"kind": "credential", "connection": "lab", "credential": {"env": "COFFERDAM_TOKEN_FRESH"}});
    talk.applied("c-1", fresh);
    talk.applied("d-1", json!({"kind": "disconnect", "connection": "old"}));
    signal(&one.process.0, "KILL");
    one.wait();
    // The token of the task is dead; the one that came since is not.
    world.ask("POST", "/_test/tokens/ada-gitlab-api", Some(&json!({"revoked": true})));

    let two = one.beside(&world, "two");
    for (path, place) in [(LAB, "/workspace/greeter"), (HUB, "/workspace/website")] {
        let cloned = talk.first(path, |data| {
            data["event"] == "cloned" && data["attempt"] == 2 && data["project"]["path"] == path
        });
        assert_eq!(cloned["directory"], place);
    }
    talk.ask(
        "p-1",
        "!shell test ! -e legacy\n!write greeter/two.txt 2\n!commit greeter Second\n!write website/two.txt 2\n!commit website Second",
    );
    talk.turn_ended(2);
    assert_eq!(talk.ran("test ! -e legacy"), "completed");
    // Each copy of what is done is known.
    for id in ["a-1", "a-2", "c-1", "d-1"] {
        talk.post(id, json!({"kind": "disconnect", "connection": "web"}));
        talk.first(id, |data| {
            data["event"] == "control_answered"
                && data["in_reply_to"] == id
                && data["attempt"] == 2
                && data["message"].as_str().unwrap().contains("already handled")
        });
    }
    let said = talk.refused("a-3", add("old", LEGACY));
    assert!(said.contains("no connection old"), "{said}");

    // And a second death changes nothing of it, once the turn is published.
    talk.first("the pull request", |data| {
        data["event"] == "change_request_opened" && data["project"]["path"] == HUB
    });
    let mut two = two;
    signal(&two.process.0, "KILL");
    two.wait();
    let _three = one.beside(&world, "three");
    talk.first("the third attempt", |data| {
        data["event"] == "cloned" && data["attempt"] == 3 && data["project"]["path"] == HUB
    });
    talk.say("e-1", json!({"kind": "end"}));
    let outcome = outcome(&talk.events);
    assert_eq!(outcome["projects"].as_array().unwrap().len(), 2, "{outcome}");
    for path in [LAB, HUB] {
        assert_eq!(of_project(&outcome, path)["reason"], "published", "{outcome}");
        assert_eq!(world.project(path)["change_requests"].as_array().unwrap().len(), 1);
    }
}

#[test]
fn what_a_dead_worker_was_asked_to_add_is_added_by_the_next() {
    let world = World::new();
    let mut one = Daemon::start(&world, "");
    let task = lab_alone(&world, "!write one.txt 1\n!commit . First", 120);
    let talk = Talk::begin(&world, &one, &task);
    wait_for(&talk.events, "change_request_opened");
    // So slow that the worker dies in the middle of it.
    let slow =
        json!({"match": {"method": "POST", "path_contains": "acme/website.git/git-upload-pack"}, "delay_ms": 60000});
    world.ask("POST", "/_test/faults", Some(&slow));
    talk.post("a-1", add_new(&world, "web", "HUB"));
    fetching(&world);
    signal(&one.process.0, "KILL");
    one.wait();
    let _two = one.beside(&world, "two");
    let answer = talk.answer("a-1");
    assert_eq!(
        (&answer["applied"], &answer["attempt"]),
        (&json!(true), &json!(2)),
        "{answer}"
    );
    talk.say("e-1", json!({"kind": "end"}));
    let outcome = outcome(&talk.events);
    assert_eq!(of_project(&outcome, HUB)["reason"], "nothing_to_publish", "{outcome}");
    assert_eq!(outcome["projects"].as_array().unwrap().len(), 2, "{outcome}");
}
