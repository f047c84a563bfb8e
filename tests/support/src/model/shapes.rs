//! The four APIs: which one a request asks, how its answer is sent, and the answer in that API's words. Pure.
//!
//! Written from those APIs' descriptions, not from what our gateway reads.

use serde_json::{Value, json};

use super::conversation::Conversation;
use super::script::Next;
use super::{chat, contents, messages, responses};

/// Pieces of this many characters, so that a client has to put them together.
const PIECE: usize = 16;

/// Which API was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Chat,
    Responses,
    Messages,
    Contents,
}

/// How an answer is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Whole,
    Events,
    /// A JSON list of pieces: what one of the APIs streams by default.
    List,
}

/// What all parts of one answer share.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    /// The model's name, as the client gave it.
    pub(super) model: &'a str,
    /// The answer's id.
    pub(super) id: String,
    /// Seconds since 1970.
    pub(super) created: i64,
    /// Tokens read.
    pub(super) read: u64,
    /// Tokens written.
    pub(super) written: u64,
}

/// Made-up numbers that grow with the work, as a provider's do: about four bytes a token.
pub(super) fn cost(request_bytes: usize, next: &Next) -> (u64, u64) {
    let input = next.call.as_ref().map_or(0, |call| call.input().len());
    let tokens = |bytes: usize| bytes.div_ceil(4) as u64;
    (tokens(request_bytes), tokens(next.text.len() + input))
}

/// The shape and form that a request asks for.
pub(super) fn asked(path: &str, query: &str, request: &Value) -> Option<(Shape, Form)> {
    let streamed = if request.get("stream") == Some(&json!(true)) {
        Form::Events
    } else {
        Form::Whole
    };
    let by_end = [
        ("/v1/chat/completions", Shape::Chat),
        ("/v1/responses", Shape::Responses),
        ("/v1/messages", Shape::Messages),
    ];
    if let Some((_, shape)) = by_end.iter().find(|(end, _)| path.ends_with(end)) {
        return Some((*shape, streamed));
    }
    let (_, act) = path.split_once("/v1beta/models/")?.1.split_once(':')?;
    match act {
        "generateContent" => Some((Shape::Contents, Form::Whole)),
        "streamGenerateContent" if query.split('&').any(|pair| pair == "alt=sse") => {
            Some((Shape::Contents, Form::Events))
        }
        "streamGenerateContent" => Some((Shape::Contents, Form::List)),
        _ => None,
    }
}

/// How many tokens a request has, where that alone is asked.
pub(super) fn counted(path: &str, request_bytes: usize) -> Option<Value> {
    let tokens = request_bytes.div_ceil(4);
    match path {
        path if path.ends_with("/v1/messages/count_tokens") => Some(json!({"input_tokens": tokens})),
        path if path.contains("/v1beta/models/") && path.ends_with(":countTokens") => {
            Some(json!({"totalTokens": tokens}))
        }
        _ => None,
    }
}

/// What a request says.
pub(super) fn read(shape: Shape, request: &Value) -> Result<Conversation, String> {
    match shape {
        Shape::Chat => chat::read(request),
        Shape::Responses => responses::read(request),
        Shape::Messages => messages::read(request),
        Shape::Contents => contents::read(request),
    }
}

/// Content type and body.
pub(super) fn answer(
    (shape, form): (Shape, Form),
    request: &Value,
    frame: &Frame<'_>,
    next: &Next,
) -> (&'static str, String) {
    let body = match (shape, form) {
        (Shape::Chat, Form::Events) => {
            let with_usage = request.pointer("/stream_options/include_usage") == Some(&json!(true));
            unnamed(&chat::events(frame, next, with_usage)) + "data: [DONE]\n\n"
        }
        (Shape::Responses, Form::Events) => named(&responses::events(frame, next)),
        (Shape::Messages, Form::Events) => named(&messages::events(frame, next)),
        (Shape::Contents, Form::Events) => unnamed(&contents::pieces(frame, next)),
        (Shape::Contents, Form::List) => Value::from(contents::pieces(frame, next)).to_string(),
        (Shape::Chat, Form::Whole | Form::List) => chat::whole(frame, next).to_string(),
        (Shape::Responses, Form::Whole | Form::List) => responses::whole(frame, next).to_string(),
        (Shape::Messages, Form::Whole | Form::List) => messages::whole(frame, next).to_string(),
        (Shape::Contents, Form::Whole) => contents::whole(frame, next).to_string(),
    };
    let kind = if form == Form::Events {
        "text/event-stream"
    } else {
        "application/json"
    };
    (kind, body)
}

fn unnamed(events: &[Value]) -> String {
    events.iter().map(|event| format!("data: {event}\n\n")).collect()
}

/// These APIs name an event by its data's type.
fn named(events: &[Value]) -> String {
    let name = |event: &Value| {
        event
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or("message")
            .to_owned()
    };
    events
        .iter()
        .map(|event| format!("event: {}\ndata: {event}\n\n", name(event)))
        .collect()
}

/// A text cut up.
pub(super) fn pieces(text: &str) -> impl Iterator<Item = String> {
    let characters: Vec<char> = text.chars().collect();
    let pieces: Vec<String> = characters.chunks(PIECE).map(|piece| piece.iter().collect()).collect();
    pieces.into_iter()
}
