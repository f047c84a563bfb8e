//! What changed between two versions of a schema, and which changes break whoever was built for the older one.
//!
//! Judges what the schemas say, never what the code does with it. A keyword that it does not know breaks when it changes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// Who has to go on understanding whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The worker reads it: what was right stays right and means the same.
    Read,
    /// The same for a configuration, whose defaults may change.
    Configured,
    /// The worker sends it: what could be relied on still can.
    Sent,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    /// Where: names of fields, `[]` for what is in a list, `*` for what has a free name.
    pub(super) at: String,
    /// What, in words.
    pub(super) what: String,
    /// Whether it breaks the other side.
    pub(super) breaks: bool,
}

impl std::fmt::Display for Change {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = if self.breaks { "breaks" } else { "fits" };
        let at = if self.at.is_empty() { "/" } else { &self.at };
        write!(formatter, "{word} {at}: {}", self.what)
    }
}

/// Keywords that say nothing of what is valid.
const REMARKS: [&str; 6] = ["title", "description", "examples", "$schema", "$defs", CLOSED];
/// Marks a list of words that gets no new one within a version.
pub(super) const CLOSED: &str = "x-closed";
/// Those that are judged elsewhere in this file.
const JUDGED: [&str; 11] = [
    "type",
    "const",
    "properties",
    "required",
    "additionalProperties",
    "unevaluatedProperties",
    "items",
    "propertyNames",
    "pattern",
    "format",
    "default",
];
const LEAST: [&str; 5] = ["minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"];
const MOST: [&str; 5] = ["maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"];

/// All changes from an older schema to a newer one.
pub(super) fn changes(side: Side, old: &Value, new: &Value) -> Vec<Change> {
    let mut walk = Walk {
        side,
        old,
        new,
        seen: BTreeSet::new(),
        found: Vec::new(),
    };
    walk.schema("", old, new);
    walk.found
}

/// All changes of names, kinds and arguments in an AsyncAPI document; the messages' schemas have files of their own.
pub(super) fn broker_changes(old: &Value, new: &Value) -> Vec<Change> {
    let mut found = Vec::new();
    for part in ["channels", "operations"] {
        places(&format!("/{part}"), &old[part], &new[part], &mut found);
    }
    found
}

fn places(at: &str, old: &Value, new: &Value, found: &mut Vec<Change>) {
    let (Value::Object(before), Value::Object(after)) = (old, new) else {
        if old != new {
            found.push(Change {
                at: at.to_owned(),
                what: format!("{old} became {new}"),
                breaks: true,
            });
        }
        return;
    };
    let told = |name: &&String| !["description", "summary", "title"].contains(&name.as_str());
    for name in before.keys().filter(told) {
        places(&format!("{at}/{name}"), &old[name], &new[name], found);
    }
    for name in after.keys().filter(told).filter(|name| !before.contains_key(*name)) {
        found.push(Change {
            at: format!("{at}/{name}"),
            what: "is new".into(),
            breaks: false,
        });
    }
}

struct Walk<'s> {
    side: Side,
    old: &'s Value,
    new: &'s Value,
    /// Pairs of definitions that were compared: a definition may hold itself, and is told of once.
    seen: BTreeSet<(String, String)>,
    found: Vec<Change>,
}

impl Walk<'_> {
    fn tell(&mut self, at: &str, breaks: bool, what: impl Into<String>) {
        self.found.push(Change {
            at: at.to_owned(),
            what: what.into(),
            breaks,
        });
    }

    fn reads(&self) -> bool {
        self.side != Side::Sent
    }

    fn schema(&mut self, at: &str, old: &Value, new: &Value) {
        // What is left out must go on meaning the same; leaving out the default itself is `null`.
        let (before, after) = (&old["default"], &new["default"]);
        if before != after && self.side != Side::Sent {
            let breaks = self.side == Side::Read;
            self.tell(at, breaks, format!("the default {before} became {after}"));
        }
        if let (Some(before), Some(after)) = (reference(old), reference(new))
            && !self.seen.insert((before.to_owned(), after.to_owned()))
        {
            return;
        }
        let (before, after) = (resolved(self.old, old), resolved(self.new, new));
        let closed = before.get(CLOSED) == Some(&Value::Bool(true)) || after.get(CLOSED) == Some(&Value::Bool(true));
        let (mut before, mut after) = (forms(self.old, before), forms(self.new, after));
        if before.forms.is_empty() != after.forms.is_empty() {
            before.one();
            after.one();
        }
        self.plain(at, &before.base, &after.base);
        for (name, form) in &before.forms {
            match after.forms.get(name) {
                Some(other) => self.plain_of(&format!("{at}{}", below(name)), form, other),
                None => self.tell(at, self.reads() || name != "null", format!("{name} is gone")),
            }
        }
        for (name, _) in after.forms.iter().filter(|(name, _)| !before.forms.contains_key(*name)) {
            // Consumers ignore words and kinds that they do not know, but cannot ignore a value of another form.
            let breaks = !self.reads() && (closed || name == "null" || name.starts_with(VALUE));
            self.tell(at, breaks, format!("{name} is new"));
        }
    }

    /// One of several forms, which may have forms itself.
    fn plain_of(&mut self, at: &str, old: &Map<String, Value>, new: &Map<String, Value>) {
        let (before, after) = (Value::Object(old.clone()), Value::Object(new.clone()));
        if has_forms(old) || has_forms(new) {
            self.schema(at, &before, &after);
        } else {
            self.plain(at, old, new);
        }
    }

    fn plain(&mut self, at: &str, old: &Map<String, Value>, new: &Map<String, Value>) {
        let nothing = Value::Null;
        let both = |key: &str| (old.get(key).unwrap_or(&nothing), new.get(key).unwrap_or(&nothing));
        for key in ["type", "const"] {
            let (before, after) = both(key);
            if before != after {
                self.tell(at, true, format!("{key} {before} became {after}"));
            }
        }
        self.fields(at, old, new);
        for key in ["items", "propertyNames"] {
            let (before, after) = both(key);
            match (before.is_null(), after.is_null()) {
                (true, true) => {}
                (false, false) => self.schema(&format!("{at}[]"), before, after),
                (gone, _) => self.tell(at, true, format!("{key} {}", if gone { "is new" } else { "is gone" })),
            }
        }
        for (keys, is_least) in [(LEAST, true), (MOST, false)] {
            for key in keys {
                let (before, after) = both(key);
                if before != after {
                    let narrower = match (before.as_f64(), after.as_f64()) {
                        (None, _) => true,
                        (_, None) => false,
                        (Some(before), Some(after)) => (after > before) == is_least,
                    };
                    self.tell(at, narrower == self.reads(), format!("{key} {before} became {after}"));
                }
            }
        }
        for key in ["pattern", "format"] {
            let (before, after) = both(key);
            // The format of a number is its size in some language; its bounds are what counts.
            let counts = key == "pattern" || old.get("type") == Some(&Value::from("string"));
            if before != after && counts {
                let harmless = if self.reads() { after } else { before };
                self.tell(at, !harmless.is_null(), format!("{key} {before} became {after}"));
            }
        }
        let known = |key: &&String| {
            let key = key.as_str();
            [&REMARKS[..], &JUDGED, &LEAST, &MOST]
                .iter()
                .any(|list| list.contains(&key))
        };
        let others: BTreeSet<_> = old.keys().chain(new.keys()).filter(|key| !known(key)).collect();
        for key in others {
            if old.get(key) != new.get(key) {
                self.tell(at, true, format!("{key} changed, which is not judged here"));
            }
        }
    }

    fn fields(&mut self, at: &str, old: &Map<String, Value>, new: &Map<String, Value>) {
        let of = |schema: &Map<String, Value>| schema.get("properties").and_then(Value::as_object).cloned();
        let (before, after) = (of(old).unwrap_or_default(), of(new).unwrap_or_default());
        let must = |schema: &Map<String, Value>, name: &str| {
            let required = schema.get("required").and_then(Value::as_array);
            required.is_some_and(|names| names.iter().any(|one| one == name))
        };
        for (name, field) in &before {
            let at = format!("{at}/{name}");
            let Some(other) = after.get(name) else {
                self.tell(&at, true, "the field is gone");
                continue;
            };
            match (must(old, name), must(new, name)) {
                (false, true) => self.tell(&at, self.reads(), "the field became required"),
                (true, false) => self.tell(&at, !self.reads(), "the field may be absent"),
                (true, true) | (false, false) => {}
            }
            self.schema(&at, field, other);
        }
        for name in after.keys().filter(|name| !before.contains_key(*name)) {
            let required = must(new, name);
            let what = if required {
                "the required field is new"
            } else {
                "the field is new"
            };
            self.tell(&format!("{at}/{name}"), required && self.reads(), what);
        }
        let nothing = Value::Null;
        for key in ["additionalProperties", "unevaluatedProperties"] {
            let (before, after) = (old.get(key).unwrap_or(&nothing), new.get(key).unwrap_or(&nothing));
            if before.is_object() && after.is_object() {
                self.schema(&format!("{at}/*"), before, after);
            } else if before != after {
                let widened = before == &Value::Bool(false) && (after.is_null() || after == &Value::Bool(true));
                self.tell(at, !(widened && self.reads()), format!("{key} {before} became {after}"));
            }
        }
    }
}

/// What a form without a word of its own is called.
const VALUE: &str = "a value";

/// A schema: what holds for all, and the forms of which one is taken, by name. Lists of words are forms, and so is "or null".
struct Forms {
    base: Map<String, Value>,
    forms: BTreeMap<String, Map<String, Value>>,
}

impl Forms {
    /// Where the other schema has forms and this one does not, it is one form itself.
    fn one(&mut self) {
        if self.forms.is_empty() {
            let base = std::mem::take(&mut self.base);
            let name = word_of(&base).unwrap_or_else(|| VALUE.to_owned());
            self.forms.insert(name, base);
        }
    }
}

fn has_forms(schema: &Map<String, Value>) -> bool {
    ["oneOf", "anyOf", "enum"].iter().any(|key| schema.contains_key(*key))
        || schema.get("type").is_some_and(Value::is_array)
}

fn forms(root: &Value, mut schema: Map<String, Value>) -> Forms {
    let mut list = Vec::new();
    collect(root, &mut schema, &mut list);
    let unnamed = list.iter().filter(|form| word_of(form).is_none()).count();
    let named = list.into_iter().map(|form| {
        let name = word_of(&form).unwrap_or_else(|| {
            let required = form.get("required").filter(|_| unnamed > 1);
            required.map_or_else(|| VALUE.to_owned(), |names| format!("{VALUE} with {names}"))
        });
        (name, form)
    });
    Forms {
        forms: named.collect(),
        base: schema,
    }
}

/// Takes the forms out of a schema; forms that are nothing but a choice among others are those others.
fn collect(root: &Value, schema: &mut Map<String, Value>, list: &mut Vec<Map<String, Value>>) {
    for key in ["oneOf", "anyOf"] {
        let Some(Value::Array(all)) = schema.remove(key) else {
            continue;
        };
        for one in all {
            let mut form = resolved(root, &one);
            if has_forms(&form) && !form.contains_key("properties") {
                collect(root, &mut form, list);
            } else {
                list.push(form);
            }
        }
    }
    if let Some(Value::Array(words)) = schema.remove("enum") {
        let kind = schema.remove("type");
        list.extend(words.into_iter().map(|word| {
            let mut form = Map::from_iter([("const".to_owned(), word)]);
            form.extend(
                kind.clone()
                    .filter(|_| !form["const"].is_null())
                    .map(|kind| ("type".to_owned(), kind)),
            );
            form
        }));
    }
    if let Some(Value::Array(kinds)) = schema.get("type").cloned() {
        let mut whole = std::mem::take(schema);
        for kind in kinds {
            whole.insert("type".into(), kind.clone());
            list.push(if kind == "null" {
                Map::from_iter([("type".to_owned(), kind)])
            } else {
                whole.clone()
            });
        }
    }
}

/// The word that a form is known by: its only value, or the only value of a field that it always has.
fn word_of(form: &Map<String, Value>) -> Option<String> {
    if form.get("type") == Some(&Value::from("null")) {
        return Some("null".into());
    }
    if let Some(word) = form.get("const") {
        return Some(word.to_string());
    }
    let required = form.get("required")?.as_array()?;
    let fields = form.get("properties")?.as_object()?;
    let tag = |name: &Value| {
        Some(format!(
            "{}={}",
            name.as_str()?,
            fields.get(name.as_str()?)?.get("const")?
        ))
    };
    required.iter().find_map(tag)
}

/// How a place within a form is told.
fn below(name: &str) -> String {
    if name.starts_with(VALUE) {
        String::new()
    } else {
        format!("({name})")
    }
}

fn reference(schema: &Value) -> Option<&str> {
    schema
        .get("$ref")
        .filter(|_| schema.get("properties").is_none())?
        .as_str()
}

/// A schema with what it refers to put in its place; what stands beside the reference wins, fields are together.
fn resolved(root: &Value, schema: &Value) -> Map<String, Value> {
    let mut own = match schema {
        Value::Object(own) => own.clone(),
        Value::Bool(false) => Map::from_iter([("not".to_owned(), Value::Object(Map::new()))]),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
    };
    let Some(target) = own.remove("$ref") else { return own };
    let pointer = target
        .as_str()
        .and_then(|target| target.strip_prefix('#'))
        .unwrap_or("/nowhere");
    let mut whole = resolved(root, root.pointer(pointer).unwrap_or(&Value::Null));
    for (key, value) in own {
        match (whole.get_mut(&key), value) {
            (Some(Value::Object(fields)), Value::Object(more)) if key == "properties" => fields.extend(more),
            (Some(Value::Array(names)), Value::Array(more)) if key == "required" => names.extend(more),
            (_, value) => {
                whole.insert(key, value);
            }
        }
    }
    whole
}

#[cfg(test)]
mod tests;
