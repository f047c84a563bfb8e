//! What a request to a model may ask for: a listed model, tools that run in the sandbox, contents that are in the request itself. Pure.
//!
//! A tool that runs at the provider, or an address that the provider fetches, would reach what the sandbox cannot. The whole body is walked
//! without keeping it, so that a key said twice is seen twice. Keys are compared without case and underscores: servers differ in that.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::api::Api;

/// What is asked of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a> {
    pub(super) api: Api,
    /// Whether tools and fetches of the provider are refused.
    pub(super) walls: bool,
    /// The models that may be named; any when empty.
    pub(super) models: &'a [String],
    /// The model that the path names.
    pub(super) in_path: Option<&'a str>,
}

/// Why a request is not sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refused {
    /// It does not read.
    NotJson,
    /// A model that is not listed, or none.
    Model(String),
    /// A tool of the provider.
    Tool(String),
    /// Something that the provider is to fetch, or has stored.
    Remote(String),
    /// It would go on without anybody waiting for its answer.
    Background,
}

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotJson => formatter.write_str("the request is not JSON, so what it asks for cannot be checked"),
            Self::Model(name) if name.is_empty() => {
                formatter.write_str("the request names no model: name one that is open to agents")
            }
            Self::Model(name) => write!(
                formatter,
                "the model {name} is not open to agents here: use another, or ask the operator (models.NAME.models)"
            ),
            Self::Tool(name) => write!(
                formatter,
                "{name} would run at the model's provider, outside of this session's walls: take it out of the request; tools that run in the \
                 sandbox work (the operator's key is models.NAME.deny_server_tools)"
            ),
            Self::Remote(place) => write!(
                formatter,
                "{place} names something for the provider to fetch: put the content itself into the request \
                 (the operator's key is models.NAME.deny_server_tools)"
            ),
            Self::Background => {
                formatter.write_str("a request in the background cannot be counted: send it without `background`")
            }
        }
    }
}

/// Whether a request may be sent.
///
/// # Errors
/// The first thing that it may not ask.
pub(super) fn check(body: &[u8], rules: Rules<'_>) -> Result<(), Refused> {
    if let Some(name) = rules.in_path {
        check_model(name, rules)?;
    }
    let mut walk = Walk {
        rules,
        path: Vec::new(),
        model_named: rules.in_path.is_some(),
        found: None,
    };
    let mut reader = serde_json::Deserializer::from_slice(body);
    let read = walk.deserialize(&mut reader).and_then(|()| reader.end());
    match (walk.found, read) {
        (Some(refused), _) => Err(refused),
        (None, Err(_)) => Err(Refused::NotJson),
        (None, Ok(())) if !rules.models.is_empty() && !walk.model_named => Err(Refused::Model(String::new())),
        (None, Ok(())) => Ok(()),
    }
}

fn check_model(name: &str, rules: Rules<'_>) -> Result<(), Refused> {
    if rules.models.is_empty() || rules.models.iter().any(|open| open == name) {
        Ok(())
    } else {
        Err(Refused::Model(shown(name)))
    }
}

/// What is tested at a place.
#[derive(Debug, Clone, Copy)]
enum Test {
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
    /// Not `true`.
    NotBackground,
}

/// Tools that the client runs, by their type.
const CHAT_TOOLS: &[&str] = &["function", "custom"];
const RESPONSES_TOOLS: &[&str] = &["function", "custom", "local_shell", "apply_patch"];
const MESSAGES_TOOLS: &[&str] = &["custom", "bash_", "text_editor_", "memory_", "tool_search_tool_"];

/// Places in a request, and what is tested there. `*` stands for an element of a list.
const TESTS: &[(Api, &[&str], Test)] = &[
    (Api::Chat, &["tools", "*", "type"], Test::ToolType(CHAT_TOOLS)),
    (Api::Chat, &["websearchoptions"], Test::NoTool),
    (Api::Chat, &["plugins"], Test::NoTool),
    (Api::Chat, &["messages", "*", "content", "*", "imageurl"], Test::Inline),
    (
        Api::Chat,
        &["messages", "*", "content", "*", "imageurl", "url"],
        Test::Inline,
    ),
    (
        Api::Chat,
        &["messages", "*", "content", "*", "videourl", "url"],
        Test::Inline,
    ),
    (
        Api::Chat,
        &["messages", "*", "content", "*", "audiourl", "url"],
        Test::Inline,
    ),
    (
        Api::Chat,
        &["messages", "*", "content", "*", "file", "filedata"],
        Test::Inline,
    ),
    (
        Api::Chat,
        &["messages", "*", "content", "*", "file", "fileid"],
        Test::NoStored,
    ),
    (Api::Responses, &["tools", "*", "type"], Test::ToolType(RESPONSES_TOOLS)),
    (Api::Responses, &["prompt"], Test::NoTool),
    (Api::Responses, &["background"], Test::NotBackground),
    (
        Api::Responses,
        &["input", "*", "content", "*", "imageurl"],
        Test::Inline,
    ),
    (
        Api::Responses,
        &["input", "*", "content", "*", "imageurl", "url"],
        Test::Inline,
    ),
    (
        Api::Responses,
        &["input", "*", "content", "*", "fileurl"],
        Test::NoStored,
    ),
    (
        Api::Responses,
        &["input", "*", "content", "*", "fileid"],
        Test::NoStored,
    ),
    (Api::Responses, &["input", "*", "output", "*", "imageurl"], Test::Inline),
    (
        Api::Responses,
        &["input", "*", "output", "*", "fileurl"],
        Test::NoStored,
    ),
    (Api::Responses, &["input", "*", "output", "*", "fileid"], Test::NoStored),
    (Api::Responses, &["input", "*", "output", "imageurl"], Test::Inline),
    (Api::Responses, &["input", "*", "output", "fileid"], Test::NoStored),
    (Api::Messages, &["tools", "*", "type"], Test::ToolType(MESSAGES_TOOLS)),
    (Api::Messages, &["mcpservers"], Test::NoTool),
    (Api::Messages, &["container"], Test::NoTool),
    (
        Api::Messages,
        &["messages", "*", "content", "*", "source", "type"],
        Test::NotSource(&["url", "file"]),
    ),
    (
        Api::Messages,
        &["messages", "*", "content", "*", "content", "*", "source", "type"],
        Test::NotSource(&["url", "file"]),
    ),
    (
        Api::Messages,
        &[
            "messages", "*", "content", "*", "source", "content", "*", "source", "type",
        ],
        Test::NotSource(&["url", "file"]),
    ),
    (Api::Contents, &["tools", "*", "?"], Test::NoTool),
    (Api::Contents, &["tools", "?"], Test::NoTool),
    (Api::Contents, &["cachedcontent"], Test::NoStored),
    (
        Api::Contents,
        &["contents", "*", "parts", "*", "filedata"],
        Test::NoStored,
    ),
    (Api::Contents, &["contents", "*", "parts", "filedata"], Test::NoStored),
    (Api::Contents, &["contents", "parts", "*", "filedata"], Test::NoStored),
    (Api::Contents, &["contents", "parts", "filedata"], Test::NoStored),
    (
        Api::Contents,
        &[
            "contents",
            "*",
            "parts",
            "*",
            "functionresponse",
            "parts",
            "*",
            "filedata",
        ],
        Test::NoStored,
    ),
    (
        Api::Contents,
        &["systeminstruction", "parts", "*", "filedata"],
        Test::NoStored,
    ),
];
/// The only thing below `tools` of the Contents API that the client runs.
const CONTENTS_TOOLS: &str = "functiondeclarations";
/// Longest of those places.
const DEEPEST: usize = 9;

/// What stands at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen<'a> {
    Text(&'a str),
    True,
    /// A number, or `false`, or the beginning of an object or of a list's element.
    Something,
}

struct Walk<'r> {
    rules: Rules<'r>,
    path: Vec<String>,
    model_named: bool,
    found: Option<Refused>,
}

impl Walk<'_> {
    /// Looks at what stands at the current place; says whether to go on.
    fn look(&mut self, seen: Seen<'_>) -> bool {
        if self.path.len() > DEEPEST {
            return true;
        }
        let refused = self.model(seen).err().or_else(|| {
            let mut tests = TESTS.iter().filter(|(api, place, _)| {
                // Words that only one API has are not read into a path that only the operator knows.
                (*api == self.rules.api || (self.rules.api == Api::Other && !place.contains(&"?"))) && self.is_at(place)
            });
            tests.find_map(|(_, _, test)| self.fails(*test, seen))
        });
        self.found = refused;
        self.found.is_none()
    }

    fn model(&mut self, seen: Seen<'_>) -> Result<(), Refused> {
        let Seen::Text(name) = seen else { return Ok(()) };
        match self.path.as_slice() {
            [one] if one == "model" => {
                self.model_named = true;
                check_model(name, self.rules)
            }
            // Some take several, to fall back on.
            [list, element] if list == "models" && element == "*" => check_model(name, self.rules),
            _ => Ok(()),
        }
    }

    fn is_at(&self, place: &[&str]) -> bool {
        self.path.len() == place.len()
            && self
                .path
                .iter()
                .zip(place)
                .all(|(is, wanted)| is == wanted || (*wanted == "?" && is != "*" && is != CONTENTS_TOOLS))
    }

    fn fails(&self, test: Test, seen: Seen<'_>) -> Option<Refused> {
        // A path's own words, as they were written in neither case.
        let place = || shown(&self.path.join(".").replace(".*", "[]"));
        if let Test::NotBackground = test {
            return (seen == Seen::True).then_some(Refused::Background);
        }
        if !self.rules.walls {
            return None;
        }
        match (test, seen) {
            (Test::ToolType(known), Seen::Text(name)) => {
                let known: &[&[&str]] = match self.rules.api {
                    Api::Other => &[CHAT_TOOLS, RESPONSES_TOOLS, MESSAGES_TOOLS],
                    Api::Chat | Api::Responses | Api::Messages | Api::Contents => &[known],
                };
                let mut known = known.iter().copied().flatten();
                let ours = known.any(|one| name == *one || (one.ends_with('_') && name.starts_with(one)));
                (!ours).then(|| Refused::Tool(format!("the tool type {}", shown(name))))
            }
            (Test::NotSource(remote), Seen::Text(name)) => remote
                .iter()
                .any(|one| name.eq_ignore_ascii_case(one))
                .then(|| Refused::Remote(format!("a source of type {}", shown(name)))),
            (Test::Inline, Seen::Text(text)) => is_address(text).then(|| Refused::Remote(place())),
            (Test::NoTool, _) => Some(Refused::Tool(place())),
            (Test::NoStored, _) => Some(Refused::Remote(place())),
            (Test::ToolType(_) | Test::NotSource(_) | Test::Inline | Test::NotBackground, _) => None,
        }
    }
}

/// Whether a text is an address rather than content: `data:` holds the content, base64 alone has no colon.
fn is_address(text: &str) -> bool {
    let text = text.trim_start();
    let is_data = text.get(..5).is_some_and(|begin| begin.eq_ignore_ascii_case("data:"));
    !is_data && (text.starts_with("//") || text.chars().take(64).any(|c| c == ':'))
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}

/// A key without case and underscores.
struct Key(String);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reading;
        impl Visitor<'_> for Reading {
            type Value = Key;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a key")
            }

            fn visit_str<E>(self, key: &str) -> Result<Key, E> {
                let kept = key.chars().filter(|c| *c != '_').map(|c| c.to_ascii_lowercase());
                Ok(Key(kept.take(100).collect()))
            }
        }
        deserializer.deserialize_str(Reading)
    }
}

fn stop<E: serde::de::Error>() -> E {
    E::custom("refused")
}

impl<'de> DeserializeSeed<'de> for &mut Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Walk<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        let seen = if value { Seen::True } else { return Ok(()) };
        if self.look(seen) { Ok(()) } else { Err(stop()) }
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<(), E> {
        if self.look(Seen::Something) {
            Ok(())
        } else {
            Err(stop())
        }
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<(), E> {
        if self.look(Seen::Something) {
            Ok(())
        } else {
            Err(stop())
        }
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<(), E> {
        if self.look(Seen::Something) {
            Ok(())
        } else {
            Err(stop())
        }
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        if self.look(Seen::Text(text)) {
            Ok(())
        } else {
            Err(stop())
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if !self.look(Seen::Something) {
            return Err(stop());
        }
        while let Some(Key(key)) = map.next_key()? {
            self.path.push(key);
            map.next_value_seed(&mut *self)?;
            self.path.pop();
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        // A list without elements asks for nothing; the first element is looked at in the list's place, too.
        let mut first = true;
        loop {
            self.path.push("*".to_owned());
            let element = list.next_element_seed(&mut *self)?;
            self.path.pop();
            if element.is_none() {
                return Ok(());
            }
            if std::mem::take(&mut first) && !self.look(Seen::Something) {
                return Err(stop());
            }
        }
    }
}

#[cfg(test)]
mod tests;
