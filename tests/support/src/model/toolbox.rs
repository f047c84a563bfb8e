//! Which of an agent's tools is meant, and what it is given: agents name their tools, and what these take, each in its own way. Pure.

use serde_json::{Map, Value, json};

use super::conversation::Tool;

/// Tools that run commands, by the names that agents give them.
const SHELLS: &[&str] = &[
    "bash",
    "Bash",
    "run_shell_command",
    "exec_command",
    "shell_command",
    "shell",
];
/// Tools that write a file.
const WRITERS: &[&str] = &["write", "Write", "write_file", "create", "apply_patch"];
/// What goes into an argument that is wanted and that nobody here knows.
const UNKNOWN: &str = "As the user asked";

/// A tool by its name. Agents put the MCP server's name before a tool's.
pub(super) fn named<'a>(tools: &'a [Tool], name: &str) -> Option<&'a Tool> {
    let exact = tools.iter().find(|tool| tool.name == name);
    exact.or_else(|| tools.iter().find(|tool| tool.name.ends_with(name)))
}

/// The tool that runs commands.
pub(super) fn shell(tools: &[Tool]) -> Option<&Tool> {
    first(tools, SHELLS)
}

/// The tool that writes files.
pub(super) fn writer(tools: &[Tool]) -> Option<&Tool> {
    first(tools, WRITERS)
}

fn first<'a>(tools: &'a [Tool], names: &[&str]) -> Option<&'a Tool> {
    names
        .iter()
        .find_map(|name| tools.iter().find(|tool| tool.name == *name))
}

/// What the shell is given so that it runs `command`.
pub(super) fn command(tool: &Tool, command: &str) -> Value {
    let key = known(tool, &["command", "cmd"]);
    let value = if tool.takes.pointer(&format!("/properties/{key}/type")) == Some(&json!("array")) {
        json!(["bash", "-c", command])
    } else {
        json!(command)
    };
    let mut given = Map::from_iter([(key.to_owned(), value)]);
    if tool
        .takes
        .get("properties")
        .is_none_or(|properties| properties.get("description").is_some())
    {
        given.insert("description".to_owned(), json!(UNKNOWN));
    }
    complete(tool, given)
}

/// What the writer is given so that it makes a file.
pub(super) fn file(tool: &Tool, path: &str, text: &str) -> Value {
    if tool.is_free {
        return json!(format!(
            "*** Begin Patch\n*** Add File: {path}\n+{text}\n*** End Patch\n"
        ));
    }
    let place = known(tool, &["file_path", "filePath", "path", "absolute_path"]);
    let content = known(tool, &["content", "file_text"]);
    complete(
        tool,
        Map::from_iter([
            (place.to_owned(), json!(path)),
            (content.to_owned(), json!(format!("{text}\n"))),
        ]),
    )
}

/// The first of these names that the tool knows.
fn known<'a>(tool: &Tool, names: &[&'a str]) -> &'a str {
    let properties = tool.takes.get("properties");
    let is_known = |name: &&&str| properties.is_some_and(|properties| properties.get(**name).is_some());
    names.iter().find(is_known).unwrap_or(&names[0])
}

/// Adds what else is wanted, with a value of its type.
fn complete(tool: &Tool, mut given: Map<String, Value>) -> Value {
    let wanted = tool.takes.get("required").and_then(Value::as_array);
    for name in wanted.into_iter().flatten().filter_map(Value::as_str) {
        if !given.contains_key(name) {
            let kind = tool
                .takes
                .pointer(&format!("/properties/{name}/type"))
                .and_then(Value::as_str);
            // One of the APIs writes types in capitals.
            let value = match kind.unwrap_or_default().to_lowercase().as_str() {
                "boolean" => json!(false),
                "integer" | "number" => json!(1),
                _ => json!(UNKNOWN),
            };
            given.insert(name.to_owned(), value);
        }
    }
    Value::Object(given)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(name: &str, takes: Value) -> Tool {
        Tool {
            name: name.to_owned(),
            takes,
            ..Tool::default()
        }
    }

    #[test]
    fn a_tool_is_found_behind_its_server_s_name() {
        let tools = [tool("runner_list", Value::Null), tool("list", Value::Null)];
        assert_eq!(named(&tools, "list").unwrap().name, "list");
        assert_eq!(named(&tools[..1], "list").unwrap().name, "runner_list");
        assert!(named(&tools, "fly").is_none());
    }

    #[test]
    fn each_shell_is_given_what_it_takes() {
        let takes = json!({"properties": {"command": {"type": "STRING"}, "is_background": {"type": "BOOLEAN"}, "dir": {}},
            "required": ["command", "is_background"]});
        assert_eq!(
            command(&tool("run_shell_command", takes), "ls"),
            json!({"command": "ls", "is_background": false})
        );
        let takes = json!({"properties": {"command": {"type": "array"}, "description": {}}});
        assert_eq!(
            command(&tool("shell", takes), "ls"),
            json!({"command": ["bash", "-c", "ls"], "description": UNKNOWN})
        );
        let takes =
            json!({"properties": {"cmd": {"type": "string"}, "why": {"type": "string"}}, "required": ["cmd", "why"]});
        assert_eq!(
            command(&tool("exec_command", takes), "ls"),
            json!({"cmd": "ls", "why": UNKNOWN})
        );
    }

    #[test]
    fn each_writer_is_given_what_it_takes() {
        let takes = json!({"properties": {"path": {}, "file_text": {}}, "required": ["path"]});
        assert_eq!(
            file(&tool("create", takes), "/a", "b"),
            json!({"path": "/a", "file_text": "b\n"})
        );
        let free = Tool {
            is_free: true,
            ..tool("apply_patch", Value::Null)
        };
        assert!(file(&free, "/a", "b").as_str().unwrap().contains("Add File: /a\n+b\n"));
    }
}
