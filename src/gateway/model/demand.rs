//! What a request to a model may ask for: a listed model, tools that run in the sandbox, contents that are in the request itself. Pure.
//!
//! A tool that runs at the provider, or an address that the provider fetches, would reach what the sandbox cannot. The whole body is walked
//! without keeping it, so that a key said twice is seen twice. Keys are compared without case and underscores: servers differ in that. What names
//! something to fetch is looked for by its key at any depth; only what a tool of the sandbox is given may say anything.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::api::Api;

mod places;

use places::{ANYWHERE, CHAT_TOOLS, CONTENTS_TOOLS, FREE, MESSAGES_TOOLS, RESPONSES_TOOLS, TESTS, Test};

/// What an answer may have at most where the request does not say, in tokens.
const USUAL_OUTPUT: u64 = 16 * 1024;
/// Most answers to one request.
const MOST_ANSWERS: u64 = 128;

/// What is asked for, as far as it costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Asked {
    limit: Option<u64>,
    answers: u64,
}

impl Asked {
    /// How many tokens the model may write for it: its own limit, else a guess.
    pub(super) fn output(self) -> u64 {
        let answers = self.answers.clamp(1, MOST_ANSWERS);
        self.limit.unwrap_or(USUAL_OUTPUT).saturating_mul(answers)
    }
}

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
                "{place} names something that the provider is to fetch or has stored: put the content itself into the request \
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
pub(super) fn check(body: &[u8], rules: Rules<'_>) -> Result<Asked, Refused> {
    if let Some(name) = rules.in_path {
        check_model(name, rules)?;
    }
    let mut walk = Walk {
        rules,
        path: Vec::new(),
        plain: Vec::new(),
        free: 0,
        model_named: rules.in_path.is_some(),
        asked: Asked::default(),
        found: None,
    };
    let mut reader = serde_json::Deserializer::from_slice(body);
    let read = walk.deserialize(&mut reader).and_then(|()| reader.end());
    match (walk.found, read) {
        (Some(refused), _) => Err(refused),
        (None, Err(_)) => Err(Refused::NotJson),
        (None, Ok(())) if !rules.models.is_empty() && !walk.model_named => Err(Refused::Model(String::new())),
        (None, Ok(())) => Ok(walk.asked),
    }
}

fn check_model(name: &str, rules: Rules<'_>) -> Result<(), Refused> {
    if rules.models.iter().any(|open| open == name) {
        Ok(())
    } else if !rules.models.is_empty() {
        Err(Refused::Model(shown(name)))
    } else if rules.walls && searches(name) {
        Err(Refused::Tool(format!(
            "the model {}, which searches the web by itself,",
            shown(name)
        )))
    } else {
        Ok(())
    }
}

/// Whether a model's name says that it reaches out on its own. Others do so under names that say nothing: a list of models is what keeps them out.
fn searches(name: &str) -> bool {
    let name = name.to_lowercase();
    name.ends_with(":online")
        || ["search-preview", "search-api", "deep-research"]
            .iter()
            .any(|part| name.contains(part))
}

/// What stands at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen<'a> {
    Text(&'a str),
    True,
    /// A number that is not below zero.
    Number(u64),
    /// Another number, or `false`, or the beginning of an object or of a list's element.
    Something,
}

struct Walk<'r> {
    rules: Rules<'r>,
    path: Vec<String>,
    /// Whether each of the path's keys is spelled as its API spells it: another spelling may be one that the provider does not know.
    plain: Vec<bool>,
    /// Above zero in what a tool of the sandbox is given.
    free: usize,
    model_named: bool,
    asked: Asked,
    found: Option<Refused>,
}

impl Walk<'_> {
    /// Looks at what stands at the current place; says whether to go on.
    fn look(&mut self, seen: Seen<'_>) -> bool {
        if self.free > 0 {
            return true;
        }
        if let Seen::Number(number) = seen {
            self.count(number);
        }
        let refused = self.model(seen).err().or_else(|| {
            let mut tests = TESTS.iter().filter(|(api, place, _)| {
                // Words that only one API has are not read into a path that only the operator knows.
                (*api == self.rules.api || (self.rules.api == Api::Other && !place.contains(&"?"))) && self.is_at(place)
            });
            tests
                .find_map(|(_, _, test)| self.fails(*test, seen))
                .or_else(|| self.anywhere(seen))
        });
        self.found = refused;
        self.found.is_none()
    }

    /// What holds at any depth, by the key alone.
    fn anywhere(&self, seen: Seen<'_>) -> Option<Refused> {
        let mut keys = self.path.iter().rev().filter(|key| *key != "*");
        let (key, above) = (keys.next()?, keys.next().map_or("", String::as_str));
        let by_name = ANYWHERE
            .iter()
            .find(|(api, names, _)| {
                api.is_none_or(|api| api == self.rules.api)
                    && names.iter().all(|(place, name)| match place {
                        places::Key::Last => key == name,
                        places::Key::Above => above == *name,
                        places::Key::Ends => key.ends_with(name),
                    })
            })
            .and_then(|(_, _, test)| self.fails(*test, seen));
        by_name.or_else(|| {
            let typed = key == "type" && above == "tools" && self.path.len() > 3;
            let known = match self.rules.api {
                Api::Chat | Api::Other => CHAT_TOOLS,
                Api::Responses => RESPONSES_TOOLS,
                Api::Messages => MESSAGES_TOOLS,
                Api::Contents => &[],
            };
            typed.then(|| self.fails(Test::ToolType(known), seen)).flatten()
        })
    }

    /// Takes what limits the answer. Of several limits the largest counts, and none in a spelling that the provider may not know.
    fn count(&mut self, number: u64) {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        let known: &[&[&str]] = match self.rules.api {
            Api::Chat => &[&["maxtokens"], &["maxcompletiontokens"]],
            Api::Responses => &[&["maxoutputtokens"]],
            Api::Messages => &[&["maxtokens"]],
            Api::Contents => &[&["generationconfig", "maxoutputtokens"]],
            Api::Other => &[],
        };
        if known.contains(&path.as_slice()) && self.plain.iter().all(|plain| *plain) {
            self.asked.limit = self.asked.limit.max(Some(number));
        }
        if matches!(
            path.as_slice(),
            ["n" | "bestof"] | ["generationconfig", "candidatecount"]
        ) {
            self.asked.answers = self.asked.answers.max(number);
        }
    }

    /// Goes one key down; `up` comes back.
    fn down(&mut self, key: Key) {
        self.path.push(key.folded);
        self.plain.push(key.plain);
        let api = self.rules.api;
        let is_free = || {
            FREE.iter()
                .any(|(of, place)| (*of == api || api == Api::Other) && self.is_at(place))
        };
        if self.free > 0 || is_free() {
            self.free += 1;
        }
    }

    fn up(&mut self) {
        self.free = self.free.saturating_sub(1);
        self.path.pop();
        self.plain.pop();
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
        if matches!(test, Test::NotBackground) {
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
            (Test::NotReference, Seen::Text(kind)) => kind
                .eq_ignore_ascii_case("item_reference")
                .then(|| Refused::Remote("a reference to a stored item".to_owned())),
            (Test::NotOn, Seen::True) => Some(Refused::Tool(place())),
            (Test::NoTool, _) => Some(Refused::Tool(place())),
            (Test::NoStored, _) => Some(Refused::Remote(place())),
            (
                Test::ToolType(_)
                | Test::NotSource(_)
                | Test::NotReference
                | Test::Inline
                | Test::NotBackground
                | Test::NotOn,
                _,
            ) => None,
        }
    }
}

/// Whether a text is an address rather than content: `data:` holds the content, base64 alone has no colon. Parsers of addresses take away what
/// stands before one and cannot be seen.
fn is_address(text: &str) -> bool {
    let unseen = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{feff}');
    let text = text.trim_start_matches(unseen);
    let is_data = text.get(..5).is_some_and(|begin| begin.eq_ignore_ascii_case("data:"));
    let mut first = text.chars().filter(|c| !unseen(*c)).take(2);
    let is_slash = |c: Option<char>| matches!(c, Some('/' | '\\'));
    !is_data && (is_slash(first.next()) && is_slash(first.next()) || text.contains(':'))
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}

/// A key without case and underscores, and whether it is written as the APIs write those that limit an answer.
struct Key {
    folded: String,
    plain: bool,
}

/// Those spellings.
const PLAIN: [&str; 6] = [
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "maxOutputTokens",
    "generationConfig",
    "generation_config",
];

impl Key {
    fn element() -> Self {
        Self {
            folded: "*".to_owned(),
            plain: false,
        }
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reading;
        impl Visitor<'_> for Reading {
            type Value = Key;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a key")
            }

            fn visit_str<E>(self, key: &str) -> Result<Key, E> {
                // Up and down again: the long s and the sign of Kelvin are letters then, as they are for some servers. The dot is what is left
                // of a capital I that has one.
                let letters = key.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase);
                let kept = letters.filter(|c| !matches!(c, '_' | '-' | '\u{307}'));
                Ok(Key {
                    folded: kept.take(100).collect(),
                    plain: PLAIN.contains(&key),
                })
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

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<(), E> {
        if self.look(Seen::Number(number)) {
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
        while let Some(key) = map.next_key()? {
            self.down(key);
            map.next_value_seed(&mut *self)?;
            self.up();
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        // A list without elements asks for nothing; the first element is looked at in the list's place, too.
        let mut first = true;
        loop {
            self.down(Key::element());
            let element = list.next_element_seed(&mut *self)?;
            self.up();
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
