//! What a conversation so far makes the model say next. Pure: the same conversation always has the same next answer.
//!
//! Directives, one a line of a user message: `!shell COMMAND`, `!tool NAME JSON`, `!say TEXT`, `!sleep MILLISECONDS`,
//! `!status CODE [TIMES]`. Any other line is for somebody else.

use serde_json::{Value, json};

/// The tool that runs commands, by the name that agents commonly give it.
const SHELL_TOOL: &str = "bash";
/// What is said when nobody told what to say.
const NOTHING_MORE: &str = "Done.";
/// What is said to a request without tools: agents ask for a title that way.
const TITLE: &str = "Scripted work";

/// The model's next answer.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Next {
    /// Its text, before any call.
    pub(super) text: String,
    /// The one tool that it calls.
    pub(super) call: Option<Call>,
    /// How long it thinks.
    pub(super) milliseconds: u64,
    /// How it fails before it answers.
    pub(super) failures: Vec<Failure>,
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Call {
    /// Unlike those of other calls in the conversation.
    pub(super) id: String,
    /// The tool's name as it was offered.
    pub(super) tool: String,
    /// A JSON object.
    pub(super) arguments: Value,
}

/// A status that is answered in place of the answer, a few times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// The HTTP status.
    pub(super) status: u16,
    /// How often.
    pub(super) times: u64,
}

/// The next answer to `request`, a chat-completions body.
pub(super) fn next(request: &Value) -> Result<Next, String> {
    let messages = request
        .get("messages")
        .and_then(Value::as_array)
        .ok_or("messages is not an array")?;
    let tools = offered(request);
    if tools.is_empty() {
        return Ok(Next {
            text: TITLE.to_owned(),
            ..Next::default()
        });
    }
    let turn = current_turn(messages);
    let done = turn.iter().filter(|message| calls_tools(message)).count();
    let mut next = Next::default();
    let mut texts = Vec::new();
    let mut position = 0;
    for line in turn.iter().filter(|message| is_from(message, "user")).flat_map(lines) {
        let Some(rest) = line.trim_end().strip_prefix('!') else {
            continue;
        };
        let (word, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        match word {
            "say" => texts.push(rest.to_owned()),
            "sleep" => next.milliseconds = rest.parse().map_err(|_| format!("not a directive: `{line}`"))?,
            "status" => next
                .failures
                .push(failure(rest).ok_or_else(|| format!("not a directive: `{line}`"))?),
            "shell" | "tool" if position < done => {
                // This step is over, and with it all that came before it.
                (next, position) = (Next::default(), position + 1);
                texts.clear();
            }
            "shell" | "tool" => {
                let (name, arguments) = wanted(word, rest).ok_or_else(|| format!("not a directive: `{line}`"))?;
                next.call = match find(&tools, name) {
                    Some(tool) => Some(Call {
                        id: format!("call_{}", messages.len()),
                        tool,
                        arguments,
                    }),
                    None => {
                        texts.push(format!("I have no tool named {name}."));
                        None
                    }
                };
                break;
            }
            _ => return Err(format!("not a directive: `{line}`")),
        }
    }
    if texts.is_empty() && next.call.is_none() {
        texts.push(NOTHING_MORE.to_owned());
    }
    next.text = texts.join("\n");
    Ok(next)
}

fn wanted<'a>(word: &str, rest: &'a str) -> Option<(&'a str, Value)> {
    if word == "shell" {
        return (!rest.is_empty()).then(|| (SHELL_TOOL, json!({"command": rest, "description": "As the user asked"})));
    }
    let (name, arguments) = rest.split_once(' ').unwrap_or((rest, "{}"));
    let arguments: Value = serde_json::from_str(arguments).ok()?;
    (!name.is_empty() && arguments.is_object()).then_some((name, arguments))
}

fn failure(rest: &str) -> Option<Failure> {
    let (status, times) = rest.split_once(' ').unwrap_or((rest, "1"));
    let status = status.parse().ok().filter(|status| (400..600).contains(status))?;
    Some(Failure {
        status,
        times: times.parse().ok()?,
    })
}

/// What came after the last message with which the model ended a turn.
fn current_turn(messages: &[Value]) -> &[Value] {
    let end = messages
        .iter()
        .rposition(|message| is_from(message, "assistant") && !calls_tools(message));
    &messages[end.map_or(0, |end| end + 1)..]
}

fn is_from(message: &Value, role: &str) -> bool {
    message.get("role").and_then(Value::as_str) == Some(role)
}

fn calls_tools(message: &Value) -> bool {
    message
        .get("tool_calls")
        .and_then(Value::as_array)
        .is_some_and(|calls| !calls.is_empty())
}

/// The text of a message, which is a string or a list of parts.
fn lines(message: &Value) -> Vec<&str> {
    let content = message.get("content");
    let texts: Vec<&str> = match content {
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(parts)) => parts
            .iter()
            .filter_map(|part| part.get("text").and_then(Value::as_str))
            .collect(),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => Vec::new(),
    };
    texts.into_iter().flat_map(str::lines).collect()
}

fn offered(request: &Value) -> Vec<&str> {
    let tools = request
        .get("tools")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    tools
        .iter()
        .filter_map(|tool| tool.pointer("/function/name").and_then(Value::as_str))
        .collect()
}

/// Agents put the MCP server's name before a tool's, each in its own way.
fn find(tools: &[&str], name: &str) -> Option<String> {
    let exact = tools.iter().find(|tool| **tool == name);
    exact
        .or_else(|| tools.iter().find(|tool| tool.ends_with(name)))
        .map(|tool| (*tool).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(text: &str) -> Value {
        json!({"role": "user", "content": text})
    }

    fn called() -> [Value; 2] {
        [
            json!({"role": "assistant", "content": null, "tool_calls": [{"id": "x"}]}),
            json!({"role": "tool", "content": "!say a tool's output is no directive"}),
        ]
    }

    fn after(messages: &[Value]) -> Next {
        let tools = json!([{"function": {"name": "bash"}}, {"function": {"name": "runner_list_projects"}}]);
        next(&json!({"messages": messages, "tools": tools})).unwrap()
    }

    fn command(next: &Next) -> Option<&str> {
        next.call.as_ref().and_then(|call| call.arguments["command"].as_str())
    }

    #[test]
    fn each_answer_is_the_next_step() {
        let prompt = user("Please.\n!say first\n!shell one\n!shell two\n!say last");
        let mut messages = vec![json!({"role": "system", "content": "!say never"}), prompt];
        let first = after(&messages);
        assert_eq!((first.text.as_str(), command(&first)), ("first", Some("one")));
        messages.extend(called());
        let second = after(&messages);
        assert_eq!((second.text.as_str(), command(&second)), ("", Some("two")));
        assert_ne!(first.call.unwrap().id, second.call.unwrap().id);
        messages.extend(called());
        let third = after(&messages);
        assert_eq!((third.text.as_str(), command(&third)), ("last", None));
        messages.extend([json!({"role": "assistant", "content": "last"}), user("!shell three")]);
        assert_eq!(command(&after(&messages)), Some("three"));
        messages.extend(called());
        assert_eq!(after(&messages).text, "Done.");
    }

    #[test]
    fn a_tool_is_found_behind_its_server_s_name() {
        let call = after(&[user("!tool list_projects {\"a\": 1}")]).call.unwrap();
        assert_eq!(
            (call.tool.as_str(), call.arguments),
            ("runner_list_projects", json!({"a": 1}))
        );
        assert_eq!(after(&[user("!tool fly")]).text, "I have no tool named fly.");
    }

    #[test]
    fn a_request_without_tools_wants_a_title() {
        let titled = next(&json!({"messages": [user("!shell rm -rf /")]})).unwrap();
        assert_eq!((titled.text.as_str(), titled.call), (TITLE, None));
    }

    #[test]
    fn parts_are_read_and_failures_belong_to_their_step() {
        let parts = json!({"role": "user", "content": [
            {"type": "text", "text": "!status 503 2\n!shell one"}, {"type": "image_url"}, {"type": "text", "text": "!sleep 5"},
        ]});
        let first = after(std::slice::from_ref(&parts));
        assert_eq!(first.failures, [Failure { status: 503, times: 2 }]);
        assert_eq!(first.milliseconds, 0);
        let mut messages = vec![parts];
        messages.extend(called());
        let second = after(&messages);
        assert_eq!((second.failures.len(), second.milliseconds), (0, 5));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in ["!shel x", "!shell", "!status 200", "!status", "!sleep", "!tool x [1]"] {
            let request = json!({"messages": [user(text)], "tools": [{"function": {"name": "bash"}}]});
            assert!(next(&request).unwrap_err().contains(text), "{text}");
        }
        assert!(next(&json!({"messages": "none"})).is_err());
    }
}
