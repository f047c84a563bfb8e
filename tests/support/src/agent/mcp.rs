//! A client of one MCP server over streamable HTTP, revision 2025-06-18, as agents in the field still speak it: a handshake once, then
//! calls. It opens no stream of the server's own and knows no tool's meaning.

use std::sync::Mutex;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use super::connection::lock;
use super::http::{self, Address};

const REVISION: &str = "2025-06-18";

/// A server that a client named in `session/new`.
#[derive(Debug)]
pub(super) struct Server {
    address: Address,
    headers: Vec<(String, String)>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    is_ready: bool,
    session: Option<String>,
    last_id: u64,
}

/// What a tool answered.
#[derive(Debug)]
pub(super) struct ToolAnswer {
    /// The tool itself says that it failed.
    pub(super) is_error: bool,
    /// All its text.
    pub(super) text: String,
}

impl Server {
    /// From `{"type": "http", "name", "url", "headers": [{"name", "value"}]}`.
    pub(super) fn new(description: &Value) -> anyhow::Result<Self> {
        let text = |value: &Value, key: &str| {
            value
                .get(key)
                .and_then(Value::as_str)
                .map(str::to_owned)
                .with_context(|| format!("the MCP server has no {key}"))
        };
        text(description, "name")?;
        let headers = description
            .get("headers")
            .and_then(Value::as_array)
            .context("the MCP server has no headers")?;
        let headers = headers
            .iter()
            .map(|header| Ok((text(header, "name")?, text(header, "value")?)))
            .collect::<anyhow::Result<_>>()?;
        Ok(Self {
            address: Address::parse(&text(description, "url")?)?,
            headers,
            state: Mutex::default(),
        })
    }

    /// The names of the tools.
    pub(super) fn list(&self) -> anyhow::Result<Vec<String>> {
        let result = self.request("tools/list", json!({}))?;
        let tools = result
            .get("tools")
            .and_then(Value::as_array)
            .context("tools/list has no tools")?;
        tools
            .iter()
            .map(|tool| {
                tool.get("name")
                    .and_then(Value::as_str)
                    .map(str::to_owned)
                    .context("a tool without a name")
            })
            .collect()
    }

    /// Calls a tool.
    pub(super) fn call(&self, name: &str, arguments: &Value) -> anyhow::Result<ToolAnswer> {
        let result = self.request("tools/call", json!({"name": name, "arguments": arguments}))?;
        let content = result
            .get("content")
            .and_then(Value::as_array)
            .context("tools/call has no content")?;
        let texts: Vec<&str> = content
            .iter()
            .filter_map(|part| part.get("text").and_then(Value::as_str))
            .collect();
        let is_error = result.get("isError").and_then(Value::as_bool).unwrap_or(false);
        Ok(ToolAnswer {
            is_error,
            text: texts.join("\n"),
        })
    }

    fn request(&self, method: &str, params: Value) -> anyhow::Result<Value> {
        let mut state = lock(&self.state);
        if !state.is_ready {
            self.handshake(&mut state).context("MCP handshake")?;
        }
        self.exchange(&mut state, method, params)
    }

    fn handshake(&self, state: &mut State) -> anyhow::Result<()> {
        let hello = json!({
            "protocolVersion": REVISION, "capabilities": {},
            "clientInfo": {"name": "scripted-agent", "version": env!("CARGO_PKG_VERSION")},
        });
        let result = self.exchange(state, "initialize", hello)?;
        let version = result
            .get("protocolVersion")
            .and_then(Value::as_str)
            .unwrap_or_default();
        ensure!(version == REVISION, "the server chose revision `{version}`");
        let answer = self.post(state, &json!({"jsonrpc": "2.0", "method": "notifications/initialized"}))?;
        ensure!(
            (200..300).contains(&answer.status),
            "notifications/initialized: HTTP {}",
            answer.status
        );
        state.is_ready = true;
        Ok(())
    }

    fn exchange(&self, state: &mut State, method: &str, params: Value) -> anyhow::Result<Value> {
        state.last_id += 1;
        let id = state.last_id;
        let answer = self.post(
            state,
            &json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}),
        )?;
        ensure!(
            answer.status == 200,
            "{method}: HTTP {} {}",
            answer.status,
            String::from_utf8_lossy(&answer.body).trim()
        );
        if let Some(session) = answer.header("mcp-session-id") {
            state.session = Some(session.to_owned());
        }
        let is_stream = answer
            .header("content-type")
            .is_some_and(|kind| kind.starts_with("text/event-stream"));
        let message = if is_stream {
            from_stream(&answer.body, id)?
        } else {
            serde_json::from_slice(&answer.body)?
        };
        if let Some(error) = message.get("error") {
            bail!("{method}: {error}");
        }
        ensure!(
            message.get("id") == Some(&json!(id)),
            "{method}: the answer is to another request"
        );
        message
            .get("result")
            .cloned()
            .with_context(|| format!("{method}: no result"))
    }

    fn post(&self, state: &State, message: &Value) -> anyhow::Result<http::Answer> {
        let mut headers: Vec<(&str, &str)> = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        headers.extend([
            ("Content-Type", "application/json"),
            ("Accept", "application/json, text/event-stream"),
        ]);
        if state.is_ready {
            headers.push(("MCP-Protocol-Version", REVISION));
        }
        if let Some(session) = &state.session {
            headers.push(("Mcp-Session-Id", session));
        }
        http::post(&self.address, &headers, message.to_string().as_bytes())
    }
}

/// The message that answers `id` in a stream of events; others (progress, logs) are passed over.
fn from_stream(body: &[u8], id: u64) -> anyhow::Result<Value> {
    let text = std::str::from_utf8(body).context("an event stream that is not UTF-8")?;
    for event in text.replace("\r\n", "\n").split("\n\n") {
        let data: Vec<&str> = event
            .lines()
            .filter_map(|line| line.strip_prefix("data:"))
            .map(str::trim_start)
            .collect();
        if let Ok(message) = serde_json::from_str::<Value>(&data.join("\n"))
            && message.get("id") == Some(&json!(id))
        {
            return Ok(message);
        }
    }
    bail!("the event stream has no answer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_found_among_other_events() {
        let body = b"event: message\r\ndata: {\"method\":\"notifications/progress\"}\r\n\r\n: ping\n\ndata: {\"id\":2,\ndata: \"result\":{}}\n\n";
        assert_eq!(from_stream(body, 2).unwrap(), json!({"id": 2, "result": {}}));
        assert!(from_stream(body, 3).is_err());
    }

    #[test]
    fn a_server_needs_a_plain_address_and_headers() {
        let server = |url| json!({"type": "http", "name": "runner", "url": url, "headers": []});
        assert!(Server::new(&server("http://127.0.0.1:8470/mcp")).is_ok());
        assert!(Server::new(&server("https://127.0.0.1:8470/mcp")).is_err());
        assert!(Server::new(&json!({"type": "http", "name": "runner", "url": "http://localhost/"})).is_err());
    }
}
