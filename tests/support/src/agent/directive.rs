//! What a prompt can tell the scripted agent to do: one directive a line, each starting with `!`. Pure parsing; it runs nothing.

use serde_json::Value;

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Directive {
    /// `!write PATH TEXT`: replace a file.
    Write { path: String, text: String },
    /// `!append PATH TEXT`: add to a file.
    Append { path: String, text: String },
    /// `!shell COMMAND`: run it with `sh -c`.
    Shell(String),
    /// `!commit DIR MESSAGE`: commit everything in that checkout.
    Commit { directory: String, message: String },
    /// `!tool NAME JSON`: call an MCP tool and say its result.
    Tool { name: String, arguments: Value },
    /// `!tools`: say which MCP tools there are.
    Tools,
    /// `!permission TITLE`: ask the client once, say what it answered.
    Permission(String),
    /// `!double-permission`: ask twice for one call.
    DoublePermission,
    /// `!permitted TITLE`: ask the client once; where it does not allow it, nothing after this line is done.
    Permitted(String),
    /// `!permissions N`: ask the client for so many at the same time, say how often each answer came.
    Permissions(u64),
    /// `!next LINE`: do that when a later prompt of the same session says nothing to do.
    Next(Box<Directive>),
    /// `!say TEXT`: a piece of the agent's message.
    Say(String),
    /// `!think TEXT`: a piece of the agent's thoughts.
    Think(String),
    /// `!plan A;B;C`: the agent's plan.
    Plan(Vec<String>),
    /// `!sleep MILLISECONDS`: wait; a cancel ends the wait.
    Sleep(u64),
    /// `!hang`: do nothing until cancelled.
    Hang,
    /// `!hang-hard`: do nothing, and heed neither cancel nor SIGTERM nor the end of the input.
    HangHard,
    /// `!fail MESSAGE`: answer the prompt with an error.
    Fail(String),
    /// `!stop REASON`: end the turn here with that stop reason.
    Stop(String),
    /// `!flood BYTES`: that much text, in many small messages.
    Flood(u64),
    /// `!stderr TEXT`: a line on standard error.
    Stderr(String),
    /// `!exit CODE`: die at once.
    Exit(i32),
    /// `!garbage`: a line that is not JSON.
    Garbage,
    /// `!hugeline BYTES`: one message of at least that size on a single line.
    HugeLine(u64),
    /// `!unknown-update`: a kind of update that no version of the protocol knows.
    UnknownUpdate,
    /// `!orphan-update`: the progress of a tool call that was never announced.
    OrphanUpdate,
    /// `!fs-write PATH TEXT`: ask the client to write, as some agents do unasked, and write it then as well.
    FsWrite { path: String, text: String },
    /// `!env NAME`: say the value of an environment variable.
    Env(String),
    /// `!recall`: say what the agent itself remembers of the turns before this one (`SCRIPTED_LOADS`).
    Recall,
    /// `!quoted`: say what the prompt tells of the turns before, which are its lines that start with `> `.
    Quoted,
    /// `!spawn-daemon`: leave a process behind.
    SpawnDaemon,
}

/// A line that starts with `!` and says nothing known. A test with a typing error must fail, not pass by doing nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a directive: `{line}` ({reason})")]
pub struct NotADirective {
    /// The line as it was given.
    pub line: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// The directives of a prompt, in order. Lines that do not start with `!` are for other agents.
pub fn parse(prompt: &str) -> Result<Vec<Directive>, NotADirective> {
    prompt
        .lines()
        .filter_map(|line| line.strip_prefix('!').map(|rest| (line, rest)))
        .map(|(line, rest)| {
            directive(rest.trim_end()).map_err(|reason| NotADirective {
                line: line.to_owned(),
                reason,
            })
        })
        .collect()
}

fn directive(line: &str) -> Result<Directive, &'static str> {
    let (word, rest) = split(line);
    match word {
        "write" => path_and_text(rest).map(|(path, text)| Directive::Write { path, text }),
        "append" => path_and_text(rest).map(|(path, text)| Directive::Append { path, text }),
        "fs-write" => path_and_text(rest).map(|(path, text)| Directive::FsWrite { path, text }),
        "shell" => some(rest).map(|command| Directive::Shell(command.to_owned())),
        "commit" => {
            let (directory, message) = path_and_text(rest)?;
            Ok(Directive::Commit {
                directory,
                message: some(&message)?.to_owned(),
            })
        }
        "tool" => tool(rest),
        "tools" => nothing(rest, Directive::Tools),
        "permission" => some(rest).map(|title| Directive::Permission(title.to_owned())),
        "double-permission" => nothing(rest, Directive::DoublePermission),
        "permitted" => some(rest).map(|title| Directive::Permitted(title.to_owned())),
        "permissions" => number(rest).map(Directive::Permissions),
        "next" => directive(some(rest)?).map(|later| Directive::Next(Box::new(later))),
        "say" => Ok(Directive::Say(unescape(rest))),
        "think" => Ok(Directive::Think(unescape(rest))),
        "plan" => {
            some(rest).map(|steps| Directive::Plan(steps.split(';').map(|step| step.trim().to_owned()).collect()))
        }
        "sleep" => number(rest).map(Directive::Sleep),
        "hang" => nothing(rest, Directive::Hang),
        "hang-hard" => nothing(rest, Directive::HangHard),
        "fail" => Ok(Directive::Fail(rest.to_owned())),
        "stop" => some(rest).map(|reason| Directive::Stop(reason.to_owned())),
        "flood" => number(rest).map(Directive::Flood),
        "stderr" => Ok(Directive::Stderr(unescape(rest))),
        "exit" => rest.parse().map(Directive::Exit).map_err(|_| "it needs an exit code"),
        "garbage" => nothing(rest, Directive::Garbage),
        "hugeline" => number(rest).map(Directive::HugeLine),
        "unknown-update" => nothing(rest, Directive::UnknownUpdate),
        "orphan-update" => nothing(rest, Directive::OrphanUpdate),
        "env" => some(rest).map(|name| Directive::Env(name.to_owned())),
        "recall" => nothing(rest, Directive::Recall),
        "quoted" => nothing(rest, Directive::Quoted),
        "spawn-daemon" => nothing(rest, Directive::SpawnDaemon),
        _ => Err("there is no such word"),
    }
}

fn split(line: &str) -> (&str, &str) {
    match line.split_once(' ') {
        Some((word, rest)) => (word, rest.trim_start()),
        None => (line, ""),
    }
}

fn some(rest: &str) -> Result<&str, &'static str> {
    if rest.is_empty() {
        Err("something is missing after the word")
    } else {
        Ok(rest)
    }
}

fn nothing(rest: &str, directive: Directive) -> Result<Directive, &'static str> {
    if rest.is_empty() {
        Ok(directive)
    } else {
        Err("nothing may follow the word")
    }
}

fn number(rest: &str) -> Result<u64, &'static str> {
    rest.parse().map_err(|_| "it needs a number")
}

fn path_and_text(rest: &str) -> Result<(String, String), &'static str> {
    let (path, text) = split(some(rest)?);
    Ok((path.to_owned(), unescape(text)))
}

fn tool(rest: &str) -> Result<Directive, &'static str> {
    let (name, json) = split(some(rest)?);
    let json = if json.is_empty() { "{}" } else { json };
    let arguments: Value = serde_json::from_str(json).map_err(|_| "the tool's arguments are not JSON")?;
    if !arguments.is_object() {
        return Err("the tool's arguments are not a JSON object");
    }
    Ok(Directive::Tool {
        name: name.to_owned(),
        arguments,
    })
}

/// `\n`, `\t` and `\\`; any other backslash stands for itself.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            plain.push(character);
            continue;
        }
        match characters.next() {
            Some('n') => plain.push('\n'),
            Some('t') => plain.push('\t'),
            Some('\\') => plain.push('\\'),
            Some(other) => plain.extend(['\\', other]),
            None => plain.push('\\'),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_that_start_with_a_mark_count() {
        let prompt = "Please help.\n !say not this\n!say a\\nb\r\n\n!write src/x.txt two words\\n\n!plan a; b;c";
        let expected = vec![
            Directive::Say("a\nb".into()),
            Directive::Write {
                path: "src/x.txt".into(),
                text: "two words\n".into(),
            },
            Directive::Plan(vec!["a".into(), "b".into(), "c".into()]),
        ];
        assert_eq!(parse(prompt), Ok(expected));
    }

    #[test]
    fn a_tool_takes_an_object_or_nothing() {
        let call = |arguments| Directive::Tool {
            name: "list_projects".into(),
            arguments,
        };
        assert_eq!(parse("!tool list_projects"), Ok(vec![call(serde_json::json!({}))]));
        assert_eq!(
            parse("!tool list_projects {\"a\": 1}"),
            Ok(vec![call(serde_json::json!({"a": 1}))])
        );
        assert!(parse("!tool list_projects [1]").is_err());
        assert!(parse("!tool list_projects {").is_err());
    }

    #[test]
    fn what_is_for_a_later_prompt_is_a_directive_itself() {
        let later = Directive::Next(Box::new(Directive::Say("later".into())));
        assert_eq!(parse("!next say later"), Ok(vec![later]));
        assert_eq!(
            parse("!permitted rm -r x"),
            Ok(vec![Directive::Permitted("rm -r x".into())])
        );
    }

    #[test]
    fn a_typing_error_is_not_silence() {
        for line in [
            "!next",
            "!next nonsense",
            "!permissions many",
            "!wirte a b",
            "!",
            "!sleep soon",
            "!hang now",
            "!exit",
            "!commit .",
            "!shell",
        ] {
            let refused = parse(&format!("!say fine\n{line}")).expect_err(line);
            assert_eq!(refused.line, line);
        }
    }
}
