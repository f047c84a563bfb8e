//! Reads from an answer, as it passes, how many tokens it says it cost: in one piece or as a stream of events, in the words of all APIs.
//!
//! Pure, and only looks: nothing here can hold an answer back or change it. Memory is bounded; what does not read counts as nothing.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Longest answer in one piece, and longest line of a stream, that is read for its numbers, in bytes: the last event of one API holds the
/// whole answer once more.
const LONGEST: usize = 4 * 1024 * 1024;
/// A single number above this is not believed: no model reads or writes so many tokens for one request.
const MOST_BELIEVED: u64 = 1_000_000_000;

/// Tokens of one answer, or of many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Read by the model.
    pub input: u64,
    /// Written by it.
    pub output: u64,
}

impl Tokens {
    pub(super) fn total(self) -> u64 {
        self.input.saturating_add(self.output)
    }

    /// The larger of both numbers: counts in a stream are cumulative.
    fn max(self, other: Self) -> Self {
        Self {
            input: self.input.max(other.input),
            output: self.output.max(other.output),
        }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            input: self.input.saturating_add(other.input),
            output: self.output.saturating_add(other.output),
        }
    }

    pub(super) fn minus(self, other: Self) -> Self {
        Self {
            input: self.input.saturating_sub(other.input),
            output: self.output.saturating_sub(other.output),
        }
    }
}

#[derive(Debug)]
enum Form {
    /// JSON in one piece.
    Whole(Vec<u8>),
    /// Events, a line at a time; the second value is whether the rest of a line that is too long is passed over.
    Events(Vec<u8>, bool),
    /// Too long, or compressed.
    Unread,
}

/// What is known of one answer so far.
#[derive(Debug)]
pub(super) struct Tap {
    form: Form,
    tokens: Option<Tokens>,
    bytes: u64,
    events: u64,
    ended: bool,
}

impl Tap {
    /// For an answer of that content type and encoding.
    pub(super) fn new(content_type: &str, encoded: bool) -> Self {
        let form = if encoded {
            Form::Unread
        } else if content_type
            .trim_start()
            .to_ascii_lowercase()
            .starts_with("text/event-stream")
        {
            Form::Events(Vec::new(), false)
        } else {
            Form::Whole(Vec::new())
        };
        Self {
            form,
            tokens: None,
            bytes: 0,
            events: 0,
            ended: false,
        }
    }

    /// Looks at the next piece.
    pub(super) fn see(&mut self, piece: &[u8]) {
        self.bytes = self.bytes.saturating_add(piece.len() as u64);
        match &mut self.form {
            Form::Unread => {}
            Form::Whole(kept) if kept.len() + piece.len() > LONGEST => self.form = Form::Unread,
            Form::Whole(kept) => kept.extend_from_slice(piece),
            Form::Events(..) => self.see_events(piece),
        }
    }

    fn see_events(&mut self, piece: &[u8]) {
        let Form::Events(line, passing_over) = &mut self.form else {
            return;
        };
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            let ends = part.ends_with(b"\n");
            if !*passing_over && line.len() + part.len() > LONGEST {
                *passing_over = true;
                line.clear();
            }
            if !*passing_over {
                line.extend_from_slice(part);
            }
            if ends {
                if let Some(data) = line.strip_prefix(b"data:") {
                    self.events = self.events.saturating_add(1);
                    self.tokens = larger(self.tokens, read(data));
                }
                line.clear();
                *passing_over = false;
            }
        }
    }

    /// The answer is whole.
    pub(super) fn end(&mut self) {
        match std::mem::replace(&mut self.form, Form::Unread) {
            Form::Unread => {}
            Form::Whole(kept) => self.tokens = larger(self.tokens, read(&kept)),
            // A last line without its end.
            Form::Events(line, _) => {
                if let Some(data) = line.strip_prefix(b"data:") {
                    self.tokens = larger(self.tokens, read(data));
                }
            }
        }
        self.ended = true;
    }

    /// What the answer said so far.
    pub(super) fn tokens(&self) -> Tokens {
        self.tokens.unwrap_or_default()
    }

    /// Whether the answer was seen to be written: it told numbers, or an event came. An answer in one piece is nothing before its end.
    pub(super) fn has_begun(&self) -> bool {
        self.events > 0 || self.tokens.is_some()
    }

    /// What a budget is charged: the answer's own numbers when it came to its end and told some; else at least a guess, so that no client gets
    /// answers for nothing by not asking for the numbers or by hanging up before they come. An event of a stream is about a token.
    pub(super) fn charge(&self, request_bytes: u64) -> Tokens {
        if self.ended && self.tokens.is_some() {
            return self.tokens();
        }
        let output = if self.events > 0 { self.events } else { self.bytes / 4 };
        self.tokens().max(Tokens {
            input: request_bytes / 4,
            output,
        })
    }
}

fn larger(known: Option<Tokens>, found: Option<Tokens>) -> Option<Tokens> {
    match (known, found) {
        (Some(known), Some(found)) => Some(known.max(found)),
        (known, found) => found.or(known),
    }
}

fn read(text: &[u8]) -> Option<Tokens> {
    // Most events hold no numbers.
    if !text.windows(5).any(|five| five == b"usage") {
        return None;
    }
    serde_json::from_slice::<Answer>(text).ok()?.0
}

/// An answer, an event, or a list of answers; only its numbers.
struct Answer(Option<Tokens>);

impl<'de> Deserialize<'de> for Answer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reading;
        impl<'de> Visitor<'de> for Reading {
            type Value = Answer;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an answer")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Answer, A::Error> {
                Fields::deserialize(MapAccessDeserializer::new(map)).map(|fields| Answer(fields.tokens()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Answer, A::Error> {
                let mut found = None;
                while let Some(fields) = list.next_element::<Fields>()? {
                    found = larger(found, fields.tokens());
                }
                Ok(Answer(found))
            }
        }
        deserializer.deserialize_any(Reading)
    }
}

#[derive(serde::Deserialize)]
struct Fields {
    #[serde(default)]
    usage: Option<Numbers>,
    #[serde(default, rename = "usageMetadata")]
    metadata: Option<Numbers>,
    /// The last event of a Responses stream.
    #[serde(default)]
    response: Option<Below>,
    /// The first event of a Messages stream.
    #[serde(default)]
    message: Option<Below>,
}

#[derive(serde::Deserialize)]
struct Below {
    #[serde(default)]
    usage: Option<Numbers>,
}

impl Fields {
    fn tokens(&self) -> Option<Tokens> {
        let below = [&self.response, &self.message].map(|part| part.as_ref().and_then(|below| below.usage.as_ref()));
        [self.usage.as_ref(), self.metadata.as_ref(), below[0], below[1]]
            .into_iter()
            .flatten()
            .map(Numbers::tokens)
            .reduce(Tokens::max)
    }
}

/// The numbers' names in the four APIs. Two add what was read from a cache to what they call input, one takes it out.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Numbers {
    prompt_tokens: Count,
    completion_tokens: Count,
    input_tokens: Count,
    cache_creation_input_tokens: Count,
    cache_read_input_tokens: Count,
    output_tokens: Count,
    #[serde(rename = "promptTokenCount")]
    prompt: Count,
    #[serde(rename = "toolUsePromptTokenCount")]
    tools: Count,
    #[serde(rename = "candidatesTokenCount")]
    candidates: Count,
    #[serde(rename = "thoughtsTokenCount")]
    thoughts: Count,
}

impl Numbers {
    fn tokens(&self) -> Tokens {
        let messages = self.input_tokens.0 + self.cache_creation_input_tokens.0 + self.cache_read_input_tokens.0;
        Tokens {
            input: self.prompt_tokens.0.max(messages).max(self.prompt.0 + self.tools.0),
            output: self
                .completion_tokens
                .0
                .max(self.output_tokens.0)
                .max(self.candidates.0 + self.thoughts.0),
        }
    }
}

/// A number that may be anything: what is none, or below zero, is 0; what is beyond belief is cut.
#[derive(Debug, Clone, Copy, Default)]
struct Count(u64);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reading;
        impl<'de> Visitor<'de> for Reading {
            type Value = Count;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a number")
            }

            fn visit_u64<E>(self, value: u64) -> Result<Count, E> {
                Ok(Count(value.min(MOST_BELIEVED)))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Count, E> {
                Ok(Count(u64::try_from(value).unwrap_or(0).min(MOST_BELIEVED)))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Count, E> {
                let most = MOST_BELIEVED as f64;
                // Within the bounds on both sides, so the cast loses only the fraction.
                let whole = if value > 0.0 { value.min(most) as u64 } else { 0 };
                Ok(Count(whole))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Count, E> {
                Ok(Count(0))
            }

            fn visit_str<E>(self, _: &str) -> Result<Count, E> {
                Ok(Count(0))
            }

            fn visit_unit<E>(self) -> Result<Count, E> {
                Ok(Count(0))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Count, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Count(0))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Count, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Count(0))
            }
        }
        deserializer.deserialize_any(Reading)
    }
}

#[cfg(test)]
mod tests;
