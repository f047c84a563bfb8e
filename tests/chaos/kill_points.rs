//! A worker is killed at a named point of the path; whoever comes next brings its session to one end, one branch and one merge request.
//!
//! No code of the product helps: the moment is chosen from outside, by what the proxy to the broker is about to pass, or by what the forge
//! holds back.

use std::time::Duration;

use serde_json::{Value, json};

use crate::fleet::Site;
use crate::harness::{LAB, until};
use crate::proxy::Way;

/// What is waited for before the kill.
enum Moment {
    /// The worker is about to send this to the broker; `{}` is the session.
    Sends(&'static str),
    /// It is about to acknowledge the delivery of its task.
    Acknowledges,
    /// It is about to leave the mark that the session is over.
    Marks,
    /// It is about to delete the mailbox.
    Deletes,
    /// The forge has received this request (method, part of the path), and holds it back.
    Asks(&'static str, &'static str),
    /// The forge has done what was asked, and its answer is held back.
    Pushed,
    /// The same for the merge request.
    Opened,
}

/// Who goes on.
enum Next {
    /// The same worker, started again in its place.
    Itself,
    /// Another. The killed one is started again at the end, to clear what it left.
    Another,
}

const WORK: &str = "!write work.txt done\n!commit . Work";

/// Kills a worker at the moment, and asserts that all is well after its successor has done the rest.
fn killed_at(prompt: &str, moment: &Moment, next: &Next) {
    let mut site = Site::new(600, "");
    let (mut one, mut two) = (site.worker("w1"), site.worker("w2"));
    one.start_ready(&site);
    site.desk.listen();
    let task = site.world.lab_task(prompt);
    let session = task["session"].as_str().unwrap().to_owned();
    // Class and method of AMQP's frames, and the name with the flag `durable` and not `passive`: looking for the mark is another frame.
    let (acknowledge, delete) = ([0, 60, 0, 80], [0, 50, 0, 40]);
    let mark = [format!("session.{session}.closed").as_bytes(), &[2]].concat();
    let trap = match moment {
        Moment::Sends(pattern) => Some(pattern.replace("{}", &session).into_bytes()),
        Moment::Acknowledges => Some(acknowledge.to_vec()),
        Moment::Marks => Some(mark),
        Moment::Deletes => Some(delete.to_vec()),
        Moment::Asks(..) | Moment::Pushed | Moment::Opened => None,
    };
    if let Some(pattern) = &trap {
        one.amqp.trap(Way::There, pattern);
    }
    let held = |method: &str, path: &str, after: bool| {
        let how = if after {
            json!({"after": true, "stall_ms": 30_000})
        } else {
            json!({"delay_ms": 30_000})
        };
        let mut fault = json!({"match": {"method": method, "path_contains": path}, "times": 1});
        fault.as_object_mut().unwrap().extend(how.as_object().unwrap().clone());
        site.world.ask("POST", "/_test/faults", Some(&fault));
    };
    match moment {
        Moment::Asks(method, path) => held(method, path, false),
        Moment::Pushed => held("POST", "git-receive-pack", true),
        Moment::Opened => held("POST", "/merge_requests", true),
        Moment::Sends(_) | Moment::Acknowledges | Moment::Marks | Moment::Deletes => {}
    }
    site.submit(&task);

    if trap.is_some() {
        one.amqp.sprung("the moment");
    } else {
        until(Duration::from_secs(60), "the forge has the request", || {
            (site.world.ask("GET", "/_test/faults", None) == json!([])).then_some(())
        });
    }
    // The forge is this test's own, so what is not the default branch is the session's.
    let is_own = |name: &&String| *name != "main";
    let branch_there = |project: &Value| {
        project["branches"]
            .as_object()
            .unwrap()
            .keys()
            .any(|name| is_own(&name))
    };
    match moment {
        Moment::Pushed => until(Duration::from_secs(30), "the branch", || {
            branch_there(&site.world.project(LAB)).then_some(())
        }),
        Moment::Opened => until(Duration::from_secs(30), "the merge request", || {
            let requests = site.world.project(LAB)["change_requests"].as_array().unwrap().len();
            (requests == 1).then_some(())
        }),
        Moment::Sends(_) | Moment::Acknowledges | Moment::Marks | Moment::Deletes | Moment::Asks(..) => {}
    }
    match next {
        Next::Itself => {
            one.kill();
            one.start_ready(&site);
        }
        Next::Another => {
            one.kill();
            two.start_ready(&site);
            until(Duration::from_secs(60), "the successor's end of the session", || {
                site.is_settled().then_some(())
            });
            one.start_ready(&site);
        }
    }
    let record = site.assert_well(&mut [&mut one, &mut two]);
    let project = &record.projects[LAB];
    let own: Vec<&String> = project.branches.keys().filter(is_own).collect();
    assert_eq!((own.len(), project.requests.len()), (1, 1), "{project:?}");
    let shown = std::process::Command::new("git")
        .arg("--git-dir")
        .arg(crate::record::repository(&site.world, LAB))
        .args(["show", &format!("{}:work.txt", own[0])])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&shown.stdout), "done");
    let last = record
        .events
        .iter()
        .rfind(|event| event["event"] == "finished")
        .unwrap();
    assert_eq!(last["outcome"]["reason"], "published", "{last}");
    // What is published is not asked again.
    let is_published = match moment {
        Moment::Sends(pattern) => pattern.ends_with("finished"),
        Moment::Marks | Moment::Deletes => true,
        Moment::Acknowledges | Moment::Asks(..) | Moment::Pushed | Moment::Opened => false,
    };
    if is_published {
        let turns = record.events.iter().filter(|event| event["event"] == "turn_started");
        assert_eq!(turns.count(), 1, "{:?}", record.events);
    }
    assert_eq!(record.dead, Vec::<String>::new());
}

macro_rules! kill_points {
    ($($(#[$more:meta])* $name:ident: $prompt:expr, $moment:expr, $next:expr;)*) => {
        $(#[test] $(#[$more])* fn $name() { killed_at($prompt, &$moment, &$next); })*
    };
}

kill_points! {
    killed_before_the_claim: WORK, Moment::Sends("session.{}.closed"), Next::Itself;
    killed_between_claim_and_acknowledgement: WORK, Moment::Acknowledges, Next::Another;
    killed_after_the_claim: WORK, Moment::Sends("\"stage\":\"grant\""), Next::Another;
    killed_before_the_clone: WORK, Moment::Sends("\"stage\":\"clone\""), Next::Itself;
    killed_after_the_clone: WORK, Moment::Sends("session.{}.cloned"), Next::Another;
    killed_before_the_commit: "!write work.txt done\n!say ready\n!sleep 3000\n!commit . Work", Moment::Sends("session.{}.agent_message"), Next::Itself;
    killed_between_commit_and_staging: "!write work.txt done\n!commit . Work\n!say ready\n!sleep 3000\n!shell git push -q", Moment::Sends("session.{}.agent_message"), Next::Another;
    killed_after_the_push_to_staging: "!write work.txt done\n!commit . Work\n!shell git push -q\n!sleep 2000", Moment::Sends("session.{}.push_accepted"), Next::Itself;
    killed_before_the_push_to_the_forge: WORK, Moment::Asks("GET", "service=git-receive-pack"), Next::Another;
    killed_while_the_forge_s_answer_to_the_push_is_under_way: WORK, Moment::Pushed, Next::Itself;
    killed_between_push_and_merge_request: WORK, Moment::Asks("POST", "/merge_requests"), Next::Another;
    killed_while_the_forge_s_answer_to_the_merge_request_is_under_way: WORK, Moment::Opened, Next::Another;
    killed_before_the_final_event: WORK, Moment::Sends("session.{}.finished"), Next::Itself;
    killed_between_final_event_and_settling: WORK, Moment::Marks, Next::Another;
    killed_while_settling: WORK, Moment::Deletes, Next::Itself;
}
