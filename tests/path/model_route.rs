//! The model route from inside a sandbox: four APIs, whole and streamed, counted and held against a budget.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::harness::{LAB, World};
use crate::opencode::{KEY, Model};

/// The scripted agent with a model; `more` are further keys of the endpoint.
fn configuration(world: &World, model: &Model, more: &str) -> String {
    let key: PathBuf = world.directory.path().join("model.key");
    std::fs::write(&key, KEY).unwrap();
    // The first line still belongs to the agent's section.
    format!(
        "model = \"m\"\n[models.m]\nurl = \"{}\"\nkey_file = \"{}\"\n{more}\n[session]\ngrace_s = 2\n",
        model.url,
        key.display()
    )
}

/// A directive that asks a model from the sandbox, with keys of its own, and keeps the answer's first line.
fn ask(target: &str, body: &Value) -> String {
    let body = body.to_string();
    assert!(!body.contains('\''));
    format!(
        "!shell bash -c 'b=$1; exec 3<>/dev/tcp/127.0.0.1/8470; printf \"POST /model/m{target} HTTP/1.1\\r\\nhost: x\\r\\nconnection: close\\r\\n\
         content-type: application/json\\r\\nx-api-key: attacker\\r\\nauthorization: Bearer attacker\\r\\ncontent-length: %d\\r\\n\\r\\n%s\" ${{#b}} \"$b\" >&3; \
         cat <&3 >/tmp/answer; head -1 /tmp/answer >>/tmp/answers; cat /tmp/answer >>/tmp/all' x '{body}'"
    )
}

fn lines(model: &Model) -> Vec<Value> {
    let log = std::fs::read_to_string(&model.log).unwrap_or_default();
    log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn four_apis_are_answered_whole_and_streamed_and_every_token_is_counted() {
    let world = World::new();
    let model = Model::start(&world);
    let text = json!([{"role": "user", "content": "hello"}]);
    let contents = json!({"contents": [{"parts": [{"text": "hello"}]}]});
    let requests = [
        ("/v1/chat/completions", json!({"model": "scripted", "messages": text})),
        (
            "/v1/chat/completions",
            json!({"model": "scripted", "messages": text, "stream": true, "stream_options": {"include_usage": true}}),
        ),
        ("/v1/responses", json!({"model": "scripted", "input": text})),
        (
            "/v1/responses",
            json!({"model": "scripted", "input": text, "stream": true}),
        ),
        (
            "/v1/messages?beta=true",
            json!({"model": "scripted", "messages": text, "max_tokens": 9}),
        ),
        (
            "/v1/messages",
            json!({"model": "scripted", "messages": text, "max_tokens": 9, "stream": true}),
        ),
        ("/v1beta/models/gem:generateContent?key=attacker", contents.clone()),
        (
            "/v1beta/models/gem:streamGenerateContent?alt=sse&key=attacker",
            contents.clone(),
        ),
        ("/v1beta/models/gem:streamGenerateContent", contents),
    ];
    let refused = [
        ("/v1/files", json!({})),
        ("/v1/messages", json!({"tools": [{"type": "web_fetch_20250910"}]})),
        ("/v1/chat/completions", json!({"model": "other", "messages": text})),
    ];
    let mut prompt = String::new();
    for (target, body) in requests.iter().chain(&refused) {
        prompt.push_str(&(ask(target, body) + "\n"));
    }
    prompt.push_str("!shell cp /tmp/answers /tmp/all .\n!say ok");
    // The path names the model in one API; the list is for all.
    let configuration = configuration(&world, &model, "models = [\"scripted\", \"gem\"]");
    let ran = world.exec_with(&configuration, &world.lab_task(&prompt));
    assert_eq!(ran.reason(), "published", "{} {}", ran.outcome(), ran.stderr);
    let log = lines(&model);
    assert_eq!(log.len(), requests.len(), "{log:?}");
    assert!(log.iter().all(|line| line["status"] == 200), "{log:?}");
    assert!(
        !log.iter().any(|line| line["query"].to_string().contains("key")),
        "{log:?}"
    );
    let sum = |index: usize| {
        log.iter()
            .map(|line| line["usage"][index].as_u64().unwrap())
            .sum::<u64>()
    };
    // A turn of more than half a minute tells it in between, too: the last one is the sum.
    let usage = *ran.all("model_usage").last().unwrap();
    assert_eq!(
        (&usage["model"], &usage["requests"]),
        (&json!("m"), &json!(requests.len()))
    );
    assert_eq!(
        (&usage["input_tokens"], &usage["output_tokens"]),
        (&json!(sum(0)), &json!(sum(1)))
    );
    let sent: usize = requests.iter().map(|(_, body)| body.to_string().len()).sum();
    assert_eq!(usage["request_bytes"], json!(sent));
    assert!(usage["answer_bytes"].as_u64().unwrap() > 1000);
    let page = world.ask("GET", &format!("/gitlab/{LAB}/-/merge_requests/1"), None);
    let page = page.as_str().unwrap();
    assert_eq!(page.matches("HTTP/1.1 403").count(), 2 * refused.len(), "{page}");
    assert!(page.contains("web_fetch_20250910") && page.contains("the model other is not open"));
    assert!(
        !page.contains(KEY) && !ran.stdout.contains(KEY) && !ran.stderr.contains(KEY),
        "the model's key is out"
    );
}

#[test]
fn a_spent_budget_ends_the_turn_and_the_work_is_kept() {
    let world = World::new();
    let model = Model::start(&world);
    let long = json!({"model": "scripted", "messages": [{"role": "user", "content": "y".repeat(600)}]});
    let asking = ask("/v1/chat/completions", &long);
    let prompt = format!("!write a.txt b\n!commit . One\n{asking}\n{asking}\n{asking}\n!hang");
    let configuration = configuration(&world, &model, "budget_tokens = 200");
    let mut task = world.lab_task(&prompt);
    // Higher than the operator's: it does not count.
    task["limits"] = json!({"model_tokens": 100_000});
    let ran = world.exec_with(&configuration, &task);
    assert_eq!(ran.reason(), "budget_spent", "{} {}", ran.outcome(), ran.stderr);
    assert!(
        ran.outcome()["message"].as_str().unwrap().contains("200 model tokens"),
        "{}",
        ran.outcome()
    );
    assert_eq!(ran.all("turn_ended")[0]["stop_reason"], "budget_spent");
    let project = ran.of_project(LAB);
    assert!(
        project["change_request"].is_null() && project["kept"].is_string(),
        "{project}"
    );
    // The second answer went over it and was given; the third was not asked for.
    assert_eq!(lines(&model).len(), 2);
    assert_eq!(ran.all("model_usage").last().unwrap()["requests"], 2);
    assert_eq!(ran.exit, 1);
    let branches = world.project(LAB)["branches"].as_object().unwrap().len();
    assert_eq!(branches, 1, "something was published");
    world.assert_clean();

    // The task's own limit counts where it is lower.
    task["session"] = json!(uuid::Uuid::new_v4());
    task["limits"] = json!({"model_tokens": 10});
    let ran = world.exec_with(&configuration, &task);
    assert_eq!(ran.reason(), "budget_spent", "{} {}", ran.outcome(), ran.stderr);
    assert_eq!(lines(&model).len(), 3);
}
