//! Where in a request something may be asked of the provider itself, and where only a tool of the sandbox is spoken to. Tables only.

use super::super::api::Api;

/// What is tested at a place.
#[derive(Debug, Clone, Copy)]
pub(super) enum Test {
    /// A text that is one of these, or begins with one that ends in `_`.
    ToolType(&'static [&'static str]),
    /// Nothing may be here.
    NoTool,
    /// Nothing may be here.
    NoStored,
    /// A text with the content itself, not an address.
    Inline,
    /// A text that is none of these.
    NotSource(&'static [&'static str]),
    /// Not a reference to what the provider has stored.
    NotReference,
    /// Not `true`.
    NotBackground,
    /// Not `true`.
    NotOn,
}

/// Tools that the client runs, by their type.
pub(super) const CHAT_TOOLS: &[&str] = &["function", "custom"];
/// A namespace is a group of such tools, and those in it are looked at like the others; a tool search looks through what the request lists.
pub(super) const RESPONSES_TOOLS: &[&str] = &[
    "function",
    "custom",
    "local_shell",
    "apply_patch",
    "namespace",
    "tool_search",
];
pub(super) const MESSAGES_TOOLS: &[&str] = &["custom", "bash_", "text_editor_", "memory_", "tool_search_tool_"];

/// Places in a request, and what is tested there. `*` stands for an element of a list.
pub(super) const TESTS: &[(Api, &[&str], Test)] = &[
    (Api::Chat, &["tools", "*", "type"], Test::ToolType(CHAT_TOOLS)),
    (Api::Chat, &["websearchoptions"], Test::NoTool),
    (Api::Chat, &["plugins"], Test::NoTool),
    (Api::Chat, &["searchparameters"], Test::NoTool),
    (Api::Chat, &["websearch"], Test::NoTool),
    (Api::Chat, &["enablesearch"], Test::NotOn),
    (Api::Responses, &["tools", "*", "type"], Test::ToolType(RESPONSES_TOOLS)),
    (Api::Responses, &["prompt"], Test::NoTool),
    (Api::Responses, &["background"], Test::NotBackground),
    (Api::Responses, &["conversation"], Test::NoStored),
    (Api::Responses, &["previousresponseid"], Test::NoStored),
    (Api::Responses, &["input", "*", "type"], Test::NotReference),
    (Api::Messages, &["tools", "*", "type"], Test::ToolType(MESSAGES_TOOLS)),
    (Api::Messages, &["container"], Test::NoTool),
    (Api::Contents, &["tools", "*", "?"], Test::NoTool),
    (Api::Contents, &["tools", "?"], Test::NoTool),
];
/// The only thing below `tools` of the Contents API that the client runs.
pub(super) const CONTENTS_TOOLS: &str = "functiondeclarations";

/// Which of a place's keys is meant.
#[derive(Debug, Clone, Copy)]
pub(super) enum Key {
    Last,
    /// The one above the last; elements of lists between them do not count.
    Above,
    /// The end of the last.
    Ends,
}

type Anywhere = (Option<Api>, &'static [(Key, &'static str)], Test);

/// What is tested at any depth, by the last keys; the first that is met decides. Of one API, or of all.
pub(super) const ANYWHERE: &[Anywhere] = &[
    (None, &[(Key::Last, "serverurl")], Test::NoTool),
    (None, &[(Key::Last, "connectorid")], Test::NoTool),
    (None, &[(Key::Last, "mcpservers")], Test::NoTool),
    (None, &[(Key::Ends, "url")], Test::Inline),
    (None, &[(Key::Ends, "urls")], Test::Inline),
    (None, &[(Key::Ends, "uri")], Test::Inline),
    (None, &[(Key::Ends, "uris")], Test::Inline),
    (None, &[(Key::Last, "fileid")], Test::NoStored),
    (None, &[(Key::Last, "fileids")], Test::NoStored),
    (None, &[(Key::Last, "cachedcontent")], Test::NoStored),
    (Some(Api::Contents), &[(Key::Last, "filedata")], Test::NoStored),
    (None, &[(Key::Last, "filedata")], Test::Inline),
    (
        None,
        &[(Key::Above, "source"), (Key::Last, "type")],
        Test::NotSource(&["url", "file"]),
    ),
];

/// What a tool of the sandbox is given or answers, what describes a form, and what only labels an answer: nothing in it is the provider's to
/// act on.
pub(super) const FREE: &[(Api, &[&str])] = &[
    (Api::Chat, &["tools", "*", "function", "parameters"]),
    (Api::Chat, &["functions", "*", "parameters"]),
    (Api::Chat, &["responseformat", "jsonschema", "schema"]),
    (Api::Chat, &["messages", "*", "toolcalls", "*", "function", "arguments"]),
    (Api::Chat, &["messages", "*", "functioncall", "arguments"]),
    (Api::Chat, &["messages", "*", "annotations"]),
    (Api::Chat, &["metadata"]),
    (Api::Responses, &["tools", "*", "parameters"]),
    (Api::Responses, &["tools", "*", "tools", "*", "parameters"]),
    // Tools may come later in the conversation, too.
    (Api::Responses, &["input", "*", "tools", "*", "parameters"]),
    (
        Api::Responses,
        &["input", "*", "tools", "*", "tools", "*", "parameters"],
    ),
    (Api::Responses, &["text", "format", "schema"]),
    (Api::Responses, &["input", "*", "arguments"]),
    (Api::Responses, &["input", "*", "content", "*", "annotations"]),
    (Api::Responses, &["metadata"]),
    (Api::Messages, &["tools", "*", "inputschema"]),
    (Api::Messages, &["tools", "*", "inputexamples"]),
    (Api::Messages, &["messages", "*", "content", "*", "input"]),
    (Api::Messages, &["messages", "*", "content", "*", "citations"]),
    (Api::Messages, &["outputformat", "schema"]),
    (Api::Messages, &["outputconfig", "format", "schema"]),
    (Api::Contents, &["tools", "*", "functiondeclarations"]),
    (Api::Contents, &["tools", "functiondeclarations"]),
    (Api::Contents, &["contents", "*", "parts", "*", "functioncall", "args"]),
    (
        Api::Contents,
        &["contents", "*", "parts", "*", "functionresponse", "response"],
    ),
    (Api::Contents, &["generationconfig", "responseschema"]),
    (Api::Contents, &["generationconfig", "responsejsonschema"]),
];
