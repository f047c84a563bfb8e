//! A small ACP client for tests: every wait is bounded, and its agent dies with it.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);

/// A directory of one test's own.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "scripted-agent-{}-{}",
            std::process::id(),
            LAST.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) struct Client {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    directory: Directory,
    session: String,
    last_id: u64,
    updates: Vec<Value>,
    answers: Vec<Value>,
    garbage: Vec<String>,
    permission: Option<&'static str>,
    questions: Vec<(String, Value)>,
}

impl Client {
    /// An agent that has been told nothing yet.
    pub(crate) fn bare(environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_scripted-agent"));
        command.arg("acp").envs(environment.iter().copied());
        Self::of(command)
    }

    /// Whatever agent the command starts, told nothing yet.
    pub(crate) fn of(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = mpsc::channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            output
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        Self {
            input: child.stdin.take(),
            child,
            lines,
            directory: Directory::new(),
            session: String::new(),
            last_id: 0,
            updates: Vec::new(),
            answers: Vec::new(),
            garbage: Vec::new(),
            permission: Some("allow_once"),
            questions: Vec::new(),
        }
    }

    /// An agent with a session.
    pub(crate) fn start(environment: &[(&str, &str)]) -> Self {
        let mut client = Self::bare(environment);
        client.open(None, json!([]));
        client
    }

    /// An agent with a session and an MCP server.
    pub(crate) fn with_tools(url: &str, authorization: &str) -> Self {
        let mut client = Self::bare(&[]);
        let headers = json!([{"name": "Authorization", "value": authorization}]);
        client.open(
            None,
            json!([{"type": "http", "name": "runner", "url": url, "headers": headers}]),
        );
        client
    }

    /// Shakes hands and opens a session, in the client's own directory unless another is named.
    pub(crate) fn open(&mut self, directory: Option<&str>, servers: Value) {
        assert!(self.request("initialize", json!({"protocolVersion": 1, "clientCapabilities": {}}))["error"].is_null());
        let directory = directory.map_or_else(|| json!(self.directory.path()), |path| json!(path));
        let opened = self.request("session/new", json!({"cwd": directory, "mcpServers": servers}));
        self.expect_session(opened["result"]["sessionId"].as_str().unwrap());
    }

    /// From now on every update has to be this session's.
    pub(crate) fn expect_session(&mut self, session: &str) {
        session.clone_into(&mut self.session);
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn session(&self) -> &str {
        &self.session
    }

    pub(crate) fn updates(&self) -> &[Value] {
        &self.updates
    }

    /// The parameters of every request of that name that the agent made.
    pub(crate) fn questions(&self, method: &str) -> Vec<&Value> {
        self.questions
            .iter()
            .filter(|(asked, _)| asked == method)
            .map(|(_, params)| params)
            .collect()
    }

    pub(crate) fn answer_permissions(&mut self, kind: &'static str) {
        self.permission = Some(kind);
    }

    pub(crate) fn ignore_questions(&mut self) {
        self.permission = None;
    }

    pub(crate) fn send_line(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    pub(crate) fn notify(&mut self, method: &str, params: Value) {
        self.send_line(&json!({"jsonrpc": "2.0", "method": method, "params": params}).to_string());
    }

    pub(crate) fn send_request(&mut self, method: &str, params: Value) -> u64 {
        self.last_id += 1;
        let id = self.last_id;
        self.send_line(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string());
        id
    }

    pub(crate) fn request(&mut self, method: &str, params: Value) -> Value {
        let id = self.send_request(method, params);
        self.wait_for_answer(id)
    }

    pub(crate) fn send_prompt(&mut self, text: &str) -> u64 {
        self.send_request(
            "session/prompt",
            json!({"sessionId": self.session, "prompt": [{"type": "text", "text": text}]}),
        )
    }

    /// A whole turn: its updates and its answer.
    pub(crate) fn prompt(&mut self, text: &str) -> (Vec<Value>, Value) {
        self.updates.clear();
        let id = self.send_prompt(text);
        let answer = self.wait_for_answer(id);
        (self.updates.clone(), answer)
    }

    pub(crate) fn answer_so_far(&self, id: u64) -> Option<&Value> {
        self.answers.iter().find(|answer| answer["id"] == json!(id))
    }

    pub(crate) fn wait_for_answer(&mut self, id: u64) -> Value {
        loop {
            if let Some(answer) = self.answer_so_far(id) {
                return answer.clone();
            }
            self.receive();
        }
    }

    pub(crate) fn wait_for_update(&mut self, wanted: impl Fn(&Value) -> bool) {
        while !self.updates.iter().any(&wanted) {
            self.receive();
        }
    }

    pub(crate) fn next_message(&mut self) -> Value {
        let known = self.answers.len();
        while self.answers.len() == known {
            self.receive();
        }
        self.answers[known].clone()
    }

    pub(crate) fn next_garbage(&mut self) -> String {
        while self.garbage.is_empty() {
            self.receive();
        }
        self.garbage.remove(0)
    }

    pub(crate) fn close_input(&mut self) {
        self.input = None;
    }

    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub(crate) fn wait_for_exit(&mut self) -> (ExitStatus, String) {
        let end = Instant::now() + LIMIT;
        while self.is_running() {
            assert!(Instant::now() < end, "the agent did not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut errors = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        (self.child.wait().unwrap(), errors)
    }

    fn receive(&mut self) {
        let line = self.lines.recv_timeout(LIMIT).expect("the agent said nothing more");
        let Ok(message) = serde_json::from_str::<Value>(&line) else {
            self.garbage.push(line);
            return;
        };
        match message["method"].as_str() {
            Some("session/update") => {
                assert_eq!(message["params"]["sessionId"], json!(self.session), "{message}");
                self.updates.push(message["params"]["update"].clone());
            }
            Some(method) => self.reply(method, &message),
            None => self.answers.push(message),
        }
    }

    fn reply(&mut self, method: &str, message: &Value) {
        let id = &message["id"];
        self.questions.push((method.to_owned(), message["params"].clone()));
        let body = match (method, self.permission) {
            ("session/request_permission", None) => return,
            ("session/request_permission", Some("cancelled")) => {
                json!({"result": {"outcome": {"outcome": "cancelled"}}})
            }
            ("session/request_permission", Some(kind)) => {
                let options = message["params"]["options"].as_array().unwrap();
                let option = options.iter().find(|option| option["kind"] == kind).unwrap();
                json!({"result": {"outcome": {"outcome": "selected", "optionId": option["optionId"]}}})
            }
            (_, _) => json!({"error": {"code": -32601, "message": "no such method here"}}),
        };
        let mut answer = json!({"jsonrpc": "2.0", "id": id});
        answer
            .as_object_mut()
            .unwrap()
            .extend(body.as_object().unwrap().clone());
        self.send_line(&answer.to_string());
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
