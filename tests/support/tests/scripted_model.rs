//! Runs the scripted model's binary and talks to it as an agent's client library would, over plain HTTP.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails its test by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const KEY: &str = "a-key-for-this-test";

struct Model {
    child: Child,
    address: String,
    directory: PathBuf,
}

impl Model {
    fn start(name: &str, arguments: &[&str]) -> Self {
        let directory = std::env::temp_dir().join(format!("scripted-model-{}-{name}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("key"), format!("{KEY}\n")).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_scripted-model"))
            .args(["--key-file", "key", "--log", "log", "--ready-file", "ready"])
            .args(arguments)
            .current_dir(&directory)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = std::fs::read_to_string(directory.join("ready")).unwrap();
        assert_eq!(line, format!("http://{address}/v1\n"));
        Self {
            child,
            address,
            directory,
        }
    }

    /// The status and the body of an answer.
    fn send(&self, request: &str, key: &str, body: &Value) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let body = body.to_string();
        let length = body.len();
        // Version 1.0 asks for a body without chunks and for the end of the connection.
        write!(
            stream,
            "{request} HTTP/1.0\r\nAuthorization: Bearer {key}\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn complete(&self, body: &Value) -> (u16, String) {
        self.send("POST /v1/chat/completions", KEY, body)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap()
    }

    fn wait_for_exit(&mut self) {
        let end = Instant::now() + Duration::from_secs(30);
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < end, "the model did not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn request(prompt: &str, stream: bool) -> Value {
    json!({
        "model": "m", "stream": stream, "stream_options": {"include_usage": true},
        "messages": [{"role": "user", "content": prompt}], "tools": [{"type": "function", "function": {"name": "bash"}}],
    })
}

#[test]
fn it_answers_in_one_piece_or_in_many() {
    let model = Model::start("pieces", &[]);
    let prompt = "!say Looking around, as was asked.\n!shell ls --all --color=never | head";
    let (status, body) = model.complete(&request(prompt, false));
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (status, &answer["choices"][0]["finish_reason"]),
        (200, &json!("tool_calls"))
    );
    let function = &answer["choices"][0]["message"]["tool_calls"][0]["function"];
    let arguments: Value = serde_json::from_str(function["arguments"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&function["name"], &arguments["command"]),
        (&json!("bash"), &json!("ls --all --color=never | head"))
    );
    assert!(answer["usage"]["total_tokens"].as_u64().unwrap() > 0);

    let (_, body) = model.complete(&request(prompt, true));
    let events: Vec<&str> = body
        .split("\n\n")
        .filter_map(|event| event.strip_prefix("data: "))
        .collect();
    assert_eq!(events.last(), Some(&"[DONE]"));
    let chunks: Vec<Value> = events[..events.len() - 1]
        .iter()
        .map(|event| serde_json::from_str(event).unwrap())
        .collect();
    let joined = |pointer: &str| -> String {
        chunks
            .iter()
            .filter_map(|chunk| chunk.pointer(pointer)?.as_str())
            .collect()
    };
    assert_eq!(joined("/choices/0/delta/content"), "Looking around, as was asked.");
    let streamed: Value = serde_json::from_str(&joined("/choices/0/delta/tool_calls/0/function/arguments")).unwrap();
    assert_eq!(streamed, arguments);
    assert_eq!(joined("/choices/0/finish_reason"), "tool_calls");
    assert!(chunks.last().unwrap()["usage"]["prompt_tokens"].as_u64().unwrap() > 0);
}

/// The data of a stream's events.
fn data(body: &str) -> Vec<Value> {
    let lines = body.lines().filter_map(|line| line.strip_prefix("data: "));
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What stands at these places, put together.
fn joined(events: &[Value], pointer: &str) -> String {
    events
        .iter()
        .filter_map(|event| event.pointer(pointer)?.as_str())
        .collect()
}

const PROMPT: &str = "!say Looking around, as was asked.\n!shell ls --all --color=never | head\n!say Seen.";
const COMMAND: &str = "ls --all --color=never | head";

#[test]
fn the_messages_api_streams_text_and_calls() {
    let model = Model::start("messages", &[]);
    let tool = json!({"name": "Bash", "input_schema": {"properties": {"command": {"type": "string"}}, "required": ["command"]}});
    let mut request = json!({"model": "m", "max_tokens": 9, "stream": true, "tools": [tool, {"type": "web_search_1", "name": "web"}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": PROMPT}]}]});
    let (status, body) = model.send("POST /v1/messages?beta=true", KEY, &request);
    assert_eq!(status, 200, "{body}");
    let events = data(&body);
    assert_eq!(body.matches("event: content_block_start\n").count(), 2, "{body}");
    assert_eq!(joined(&events, "/delta/text"), "Looking around, as was asked.");
    let input: Value = serde_json::from_str(&joined(&events, "/delta/partial_json")).unwrap();
    assert_eq!(input, json!({"command": COMMAND}));
    assert_eq!(joined(&events, "/content_block/name"), "Bash");
    assert_eq!(joined(&events, "/delta/stop_reason"), "tool_use");
    assert_eq!(events.last(), Some(&json!({"type": "message_stop"})));

    request["stream"] = json!(false);
    let messages = request["messages"].as_array_mut().unwrap();
    messages
        .push(json!({"role": "assistant", "content": [{"type": "tool_use", "id": "x", "name": "Bash", "input": {}}]}));
    messages
        .push(json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x", "content": "!say no"}]}));
    let (_, body) = model.send("POST /v1/messages", KEY, &request);
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (&answer["content"][0]["text"], &answer["stop_reason"]),
        (&json!("Seen."), &json!("end_turn"))
    );
    let (_, body) = model.send("POST /v1/messages/count_tokens", KEY, &request);
    assert!(
        serde_json::from_str::<Value>(&body).unwrap()["input_tokens"]
            .as_u64()
            .unwrap()
            > 9
    );
}

#[test]
fn the_responses_api_streams_text_and_calls() {
    let model = Model::start("responses", &[]);
    let shell =
        json!({"type": "function", "name": "exec_command", "parameters": {"properties": {"cmd": {"type": "string"}}}});
    let group = json!({"type": "namespace", "name": "mcp__runner", "tools": [{"type": "function", "name": "list"}]});
    let mut request = json!({"model": "m", "stream": true, "tools": [shell, {"type": "custom", "name": "apply_patch"}],
        "input": [{"type": "additional_tools", "tools": [group]},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": PROMPT.replace("!say Seen.", "!tool list {}\n!file a b")}]}]});
    let (status, body) = model.send("POST /v1/responses", KEY, &request);
    assert_eq!(status, 200, "{body}");
    let events = data(&body);
    let of = |kind: &str| -> Vec<Value> { events.iter().filter(|event| event["type"] == kind).cloned().collect() };
    assert_eq!(
        joined(&of("response.output_text.delta"), "/delta"),
        "Looking around, as was asked."
    );
    let given: Value = serde_json::from_str(&joined(&of("response.function_call_arguments.delta"), "/delta")).unwrap();
    assert_eq!(given, json!({"cmd": COMMAND}));
    let numbers: Vec<u64> = events
        .iter()
        .map(|event| event["sequence_number"].as_u64().unwrap())
        .collect();
    assert!(numbers.iter().copied().eq(0..events.len() as u64), "{numbers:?}");
    let done: Vec<Value> = of("response.output_item.done")
        .iter()
        .map(|event| event["item"].clone())
        .collect();
    assert_eq!(of("response.completed")[0]["response"]["output"], json!(done));

    request["stream"] = json!(false);
    for (place, kind, name) in [(2, "function_call", "list"), (3, "custom_tool_call", "apply_patch")] {
        let input = request["input"].as_array_mut().unwrap();
        // One answer of the model, although its text and its call are two items.
        input.push(json!({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "x"}]}));
        input.push(json!({"type": "reasoning", "summary": []}));
        input.push(json!({"type": "function_call", "call_id": "x", "name": "any", "arguments": "{}"}));
        input.push(json!({"type": "function_call_output", "call_id": "x", "output": "!say no"}));
        let (_, body) = model.send("POST /v1/responses", KEY, &request);
        let item = serde_json::from_str::<Value>(&body).unwrap()["output"][0].clone();
        assert_eq!(
            (&item["type"], &item["name"]),
            (&json!(kind), &json!(name)),
            "step {place}"
        );
        assert_eq!(item["namespace"].as_str(), (name == "list").then_some("mcp__runner"));
        assert!(
            name == "list" || item["input"].as_str().unwrap().contains("*** Add File: a\n+b\n"),
            "{item}"
        );
    }
}

#[test]
fn the_contents_api_answers_in_pieces_with_calls() {
    let model = Model::start("contents", &[]);
    let shell = json!({"name": "run_shell_command", "parameters": {"properties": {"command": {"type": "STRING"}}}});
    let mut request = json!({"tools": [{"functionDeclarations": [shell]}],
        "contents": [{"role": "user", "parts": [{"text": PROMPT}]}]});
    let (status, body) = model.send("POST /v1beta/models/gem:streamGenerateContent?alt=sse", KEY, &request);
    assert_eq!(status, 200, "{body}");
    let events = data(&body);
    assert_eq!(
        joined(&events, "/candidates/0/content/parts/0/text"),
        "Looking around, as was asked."
    );
    let call = &events.last().unwrap()["candidates"][0]["content"]["parts"][0]["functionCall"];
    assert_eq!(
        (&call["name"], &call["args"]),
        (&json!("run_shell_command"), &json!({"command": COMMAND}))
    );
    assert_eq!(joined(&events, "/candidates/0/finishReason"), "STOP");
    let (_, listed) = model.send("POST /v1beta/models/gem:streamGenerateContent", KEY, &request);
    assert_eq!(serde_json::from_str::<Vec<Value>>(&listed).unwrap().len(), events.len());

    let contents = request["contents"].as_array_mut().unwrap();
    contents.push(
        json!({"role": "model", "parts": [{"text": "x"}, {"functionCall": {"name": "run_shell_command", "args": {}}}]}),
    );
    contents.push(json!({"role": "user", "parts": [{"functionResponse": {"name": "run_shell_command", "response": {"output": "!say no"}}}]}));
    let (_, body) = model.send("POST /v1beta/models/gem:generateContent", KEY, &request);
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(answer["candidates"][0]["content"]["parts"], json!([{"text": "Seen."}]));
    let (_, body) = model.send("POST /v1beta/models/gem:countTokens", KEY, &request);
    assert!(
        serde_json::from_str::<Value>(&body).unwrap()["totalTokens"]
            .as_u64()
            .unwrap()
            > 9
    );
}

#[test]
fn it_wants_the_key_and_logs_no_value() {
    let model = Model::start("key", &[]);
    assert_eq!(model.send("GET /v1/models", KEY, &Value::Null).0, 200);
    assert_eq!(
        model.send("GET /v1/models", "wrong-and-secret-too", &Value::Null).0,
        401
    );
    assert_eq!(
        model.send("POST /v1/chat/completions", "", &request("!say x", false)).0,
        401
    );
    assert_eq!(model.send("GET /v1/elsewhere", KEY, &Value::Null).0, 404);
    assert_eq!(model.complete(&json!({"messages": 1})).0, 400);
    assert_eq!(model.complete(&request("!shel typo", false)).0, 400);
    let log = model.log();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let statuses: Vec<u64> = lines.iter().map(|line| line["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [200, 401, 401, 404, 400, 400]);
    assert_eq!(
        (&lines[2]["has_tools"], &lines[2]["path"]),
        (&json!(true), &json!("/v1/chat/completions"))
    );
    assert_eq!(lines[0]["headers"], json!(["authorization", "content-length"]));
    assert!(!log.contains(KEY) && !log.contains("wrong-and-secret-too"));
}

#[test]
fn a_failure_is_given_as_often_as_the_script_says() {
    let model = Model::start("failure", &[]);
    let statuses = |count: usize| -> Vec<u16> {
        (0..count)
            .map(|_| {
                model
                    .complete(&request("!status 503 2\n!status 429\n!say well", false))
                    .0
            })
            .collect()
    };
    assert_eq!(statuses(4), [503, 503, 429, 200]);
    assert_eq!(statuses(4), [503, 503, 429, 200]);
}

#[test]
fn it_ends_by_itself() {
    Model::start("lifetime", &["--max-lifetime", "0"]).wait_for_exit();
    let mut parent = Command::new("sleep").arg("60").spawn().unwrap();
    let mut model = Model::start("parent", &["--parent-pid", &parent.id().to_string()]);
    assert_eq!(model.send("GET /v1/models", KEY, &Value::Null).0, 200);
    parent.kill().unwrap();
    parent.wait().unwrap();
    model.wait_for_exit();
}
