//! What all targets hold texts to. Written anew on purpose: a judge that shares its lists with the judged sees nothing.

use serde_json::Value;

/// A token as a session has one. It stands in the dictionaries, so that the fuzzer puts it everywhere.
pub const TOKEN: &str = "glpat-0123456789abcdef";

/// Characters with which text is hidden or turned around.
pub fn hides(c: char) -> bool {
    matches!(u32::from(c),
        0x200b..=0x200f | 0x202a..=0x202e | 0x2060..=0x2064 | 0x2066..=0x2069 | 0xfeff | 0xe0000..=0xe007f)
}

/// Fit to be shown on a terminal: no control characters but line feed and tab, nothing hidden.
pub fn assert_visible(text: &str) {
    let bad = text
        .chars()
        .find(|c| hides(*c) || (c.is_control() && !matches!(c, '\n' | '\t' | '\r')));
    assert!(bad.is_none(), "{bad:?} in {text:?}");
}

/// Calls `look` with every string of a value, and with the name of the field that it stands in.
pub fn each_string(value: &Value, name: &str, look: &mut impl FnMut(&str, &str)) {
    match value {
        Value::String(text) => look(name, text),
        Value::Array(items) => items.iter().for_each(|item| each_string(item, name, look)),
        Value::Object(fields) => fields.iter().for_each(|(name, item)| each_string(item, name, look)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The text of some bytes, and its parts between zero characters.
pub fn parts(data: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(data).split('\0').map(str::to_owned).collect()
}

/// Runs what never really waits.
pub fn now<T>(future: impl Future<Output = T>) -> T {
    futures::executor::block_on(future)
}
