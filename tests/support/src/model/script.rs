//! What a conversation so far makes the model say next. Pure: the same conversation always has the same next answer.
//!
//! Directives, one a line of a user message: `!shell COMMAND`, `!file PATH TEXT`, `!tool NAME JSON`, `!say TEXT`, `!sleep MILLISECONDS`,
//! `!status CODE [TIMES]`. In what is said, `\n` is a new line. Any other line is for somebody else.

use serde_json::Value;

use super::conversation::{Conversation, Entry, Tool};
use super::toolbox;

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
    /// The tool as it was offered.
    pub(super) tool: Tool,
    /// A JSON object, or a text where the tool takes that.
    pub(super) arguments: Value,
}

impl Call {
    /// What the tool is given, as text.
    pub(super) fn input(&self) -> String {
        let text = self.arguments.as_str().map(str::to_owned);
        text.unwrap_or_else(|| self.arguments.to_string())
    }
}

/// A status that is answered in place of the answer, a few times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// The HTTP status.
    pub(super) status: u16,
    /// How often.
    pub(super) times: u64,
}

/// The next answer in this conversation.
pub(super) fn next(conversation: &Conversation) -> Result<Next, String> {
    let Conversation { entries, tools } = conversation;
    if tools.is_empty() {
        return Ok(Next {
            text: TITLE.to_owned(),
            ..Next::default()
        });
    }
    let turn = current_turn(entries);
    let done = turn.iter().filter(|entry| **entry == Entry::Called).count();
    let mut next = Next::default();
    let mut texts = Vec::new();
    let mut position = 0;
    for line in turn.iter().flat_map(lines) {
        let Some(rest) = line.trim_end().strip_prefix('!') else {
            continue;
        };
        let (word, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let not_understood = || format!("not a directive: `{line}`");
        match word {
            "say" => texts.push(rest.replace("\\n", "\n")),
            "sleep" => next.milliseconds = rest.parse().map_err(|_| not_understood())?,
            "status" => next.failures.push(failure(rest).ok_or_else(not_understood)?),
            "shell" | "file" | "tool" if position < done => {
                // This step is over, and with it all that came before it.
                (next, position) = (Next::default(), position + 1);
                texts.clear();
            }
            "shell" | "file" | "tool" => {
                match call(tools, word, rest).ok_or_else(not_understood)? {
                    Ok((tool, arguments)) => {
                        next.call = Some(Call {
                            id: format!("call_{}", entries.len()),
                            tool: tool.clone(),
                            arguments,
                        });
                    }
                    Err(name) => texts.push(format!("I have no tool named {name}.")),
                }
                break;
            }
            _ => return Err(not_understood()),
        }
    }
    if texts.is_empty() && next.call.is_none() {
        texts.push(NOTHING_MORE.to_owned());
    }
    next.text = texts.join("\n");
    Ok(next)
}

/// The tool that a directive wants and what it is given, or the name of a tool that is not there. `None` when it cannot be understood.
fn call<'a>(tools: &'a [Tool], word: &str, rest: &str) -> Option<Result<(&'a Tool, Value), String>> {
    let (first, more) = rest.split_once(' ').unwrap_or((rest, ""));
    if first.is_empty() {
        return None;
    }
    let found = |tool: Option<&'a Tool>, name: &str| tool.ok_or_else(|| name.to_owned());
    Some(match word {
        "shell" => found(toolbox::shell(tools), "shell").map(|tool| (tool, toolbox::command(tool, rest))),
        "file" => found(toolbox::writer(tools), "write").map(|tool| (tool, toolbox::file(tool, first, more))),
        _ => {
            let arguments: Value = serde_json::from_str(if more.is_empty() { "{}" } else { more }).ok()?;
            let arguments = arguments.is_object().then_some(arguments)?;
            found(toolbox::named(tools, first), first).map(|tool| (tool, arguments))
        }
    })
}

fn failure(rest: &str) -> Option<Failure> {
    let (status, times) = rest.split_once(' ').unwrap_or((rest, "1"));
    let status = status.parse().ok().filter(|status| (400..600).contains(status))?;
    Some(Failure {
        status,
        times: times.parse().ok()?,
    })
}

/// What came after the last answer with which the model ended a turn.
fn current_turn(entries: &[Entry]) -> &[Entry] {
    let end = entries.iter().rposition(|entry| *entry == Entry::Said);
    &entries[end.map_or(0, |end| end + 1)..]
}

fn lines(entry: &Entry) -> Vec<&str> {
    match entry {
        Entry::User(texts) => texts.iter().flat_map(|text| text.lines()).collect(),
        Entry::Called | Entry::Said | Entry::Other => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::chat;
    use super::*;

    /// The next answer to a chat-completions request.
    fn answer(request: &Value) -> Result<Next, String> {
        next(&chat::read(request)?)
    }

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
        answer(&json!({"messages": messages, "tools": tools})).unwrap()
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
    fn a_tool_is_called_with_what_the_directive_says() {
        let call = after(&[user("!tool list_projects {\"a\": 1}")]).call.unwrap();
        assert_eq!(
            (call.tool.name.as_str(), call.arguments),
            ("runner_list_projects", json!({"a": 1}))
        );
        assert_eq!(after(&[user("!tool fly")]).text, "I have no tool named fly.");
        assert_eq!(after(&[user("!file a b")]).text, "I have no tool named write.");
    }

    #[test]
    fn a_request_without_tools_wants_a_title() {
        let titled = answer(&json!({"messages": [user("!shell rm -rf /")]})).unwrap();
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
        for text in [
            "!shel x",
            "!shell",
            "!status 200",
            "!status",
            "!sleep",
            "!tool x [1]",
            "!file",
        ] {
            let request = json!({"messages": [user(text)], "tools": [{"function": {"name": "bash"}}]});
            assert!(answer(&request).unwrap_err().contains(text), "{text}");
        }
        assert!(answer(&json!({"messages": "none"})).is_err());
    }
}
