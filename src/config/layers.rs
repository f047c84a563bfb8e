//! Where each key's value comes from: a variable, the file, or the default; and what is said of a key that nobody knows.
//!
//! Reads one file and no other; masks nothing, so that what is shown of it goes through the command line's mask.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value as Schema;

use super::{Config, ConfigError};
use crate::message::redact;

/// What separates the parts of a variable's name: `COFFERDAM__SANDBOX__CPUS` sets `sandbox.cpus`.
const SEPARATOR: &str = "__";
/// What every variable begins with.
const PREFIX: &str = "COFFERDAM__";
/// How much two names have in common at least, of 1, for one to be taken for the other.
const NEAR: f64 = 0.75;

/// A file's keys under those of the environment.
#[derive(Debug)]
pub struct Layers {
    table: toml::Table,
    /// By the key that each set.
    variables: BTreeMap<Vec<String>, String>,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Nobody set it.
    Default,
    /// The file.
    File,
    /// A variable, by its name.
    Variable(String),
}

/// One key as it counts.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    /// Its path, part by part.
    pub path: Vec<String>,
    /// Its value; none where it is not set and has no default.
    pub value: Option<toml::Value>,
    /// Where that comes from.
    pub source: Source,
}

impl Layers {
    /// Reads a file, or nothing where there is none, and the variables that begin with `COFFERDAM__`.
    ///
    /// # Errors
    /// The file cannot be read or is no TOML; a variable sets something under a value.
    pub fn read(
        path: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let shown = path.map_or_else(|| "(defaults)".to_owned(), |path| path.display().to_string());
        let text = match path {
            Some(path) => std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
                path: shown.clone(),
                source,
            })?,
            None => String::new(),
        };
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| ConfigError::Syntax {
            path: shown,
            // Not the line itself, as the parser would have it: a password may stand there.
            detail: match error.span() {
                Some(span) => format!("line {}: {}", line_of(&text, span.start), error.message()),
                None => error.message().to_owned(),
            },
        })?;
        let mut layers = Self {
            table,
            variables: BTreeMap::new(),
        };
        for (name, value) in environment {
            if let Some(keys) = name.strip_prefix(PREFIX) {
                let path = overlay(&mut layers.table, keys, &value)?;
                layers.variables.insert(path, name);
            }
        }
        Ok(layers)
    }

    /// The configuration that they make, not yet checked across rooms.
    ///
    /// # Errors
    /// The first key that is unknown, missing or of the wrong form.
    pub fn config(&self) -> Result<Config, ConfigError> {
        serde_path_to_error::deserialize(toml::Value::Table(self.table.clone())).map_err(|error| {
            let (key, words) = (error.path().to_string(), error.inner().message().trim().to_owned());
            // Where credentials are named, somebody puts them.
            let close = ["connections", "credentials", "queue", "models"];
            let is_close = close.contains(&key.split('.').next().unwrap_or_default());
            let unknown = unknown(&words);
            let (mut key, mut detail) = if is_close {
                redact::told(&key, &words)
            } else {
                (key, words.clone())
            };
            if let Some((name, known)) = unknown {
                if !is_close {
                    let at = key.trim_start_matches('.');
                    let at = at.strip_suffix(name).unwrap_or(at).trim_end_matches('.');
                    key = if at.is_empty() {
                        name.to_owned()
                    } else {
                        format!("{at}.{name}")
                    };
                    detail = format!("there is no such key; known are {}", listed(&known));
                }
                if let Some(nearest) = nearest(name, &known) {
                    detail = format!("there is no such key; did you mean `{nearest}`?");
                }
            }
            ConfigError::Key { key, detail }
        })
    }

    /// Every key as it counts, in the order of the schema.
    #[must_use]
    pub fn keys(&self) -> Vec<Key> {
        let schema = schemars::schema_for!(Config).to_value();
        let mut keys = Vec::new();
        let whole = toml::Value::Table(self.table.clone());
        self.walk(&schema, &schema, Some(&whole), &mut Vec::new(), &mut keys);
        keys
    }

    fn walk(
        &self,
        root: &Schema,
        schema: &Schema,
        value: Option<&toml::Value>,
        path: &mut Vec<String>,
        keys: &mut Vec<Key>,
    ) {
        let resolved = resolved(root, schema, value.is_some());
        let below = |name: &str| value.and_then(|value| value.get(name));
        if let Some(fields) = resolved["properties"].as_object() {
            for (name, field) in fields {
                path.push(name.clone());
                self.walk(root, field, below(name), path, keys);
                path.pop();
            }
        } else if resolved["additionalProperties"].is_object() {
            for (name, value) in value.and_then(toml::Value::as_table).into_iter().flatten() {
                path.push(name.clone());
                self.walk(root, &resolved["additionalProperties"], Some(value), path, keys);
                path.pop();
            }
        } else {
            let default = schema.get("default").or_else(|| resolved.get("default"));
            let default = default.and_then(|default| toml::Value::try_from(default).ok());
            let empty = || (resolved["type"] == "array").then(|| toml::Value::Array(Vec::new()));
            keys.push(Key {
                path: path.clone(),
                source: value.map_or(Source::Default, |_| self.source(path)),
                value: value.cloned().or(default).or_else(empty),
            });
        }
    }

    fn source(&self, path: &[String]) -> Source {
        let set = (1..=path.len())
            .rev()
            .find_map(|length| self.variables.get(&path[..length]));
        set.map_or(Source::File, |name| Source::Variable(name.clone()))
    }
}

/// A schema with what it refers to in its place; of "this or null" this, where there is a value.
fn resolved<'s>(root: &'s Schema, schema: &'s Schema, is_set: bool) -> &'s Schema {
    let target = schema["$ref"]
        .as_str()
        .and_then(|target| root.pointer(target.strip_prefix('#')?));
    if let Some(target) = target {
        return resolved(root, target, is_set);
    }
    let some = schema["anyOf"]
        .as_array()
        .and_then(|all| all.iter().find(|one| one["type"] != "null"));
    match some.filter(|_| is_set) {
        Some(some) => resolved(root, some, is_set),
        None => schema,
    }
}

/// The name in the parser's words about one that is unknown, and those that it knows.
fn unknown(words: &str) -> Option<(&str, Vec<&str>)> {
    let mut quoted = words.strip_prefix("unknown field ")?.split('`').skip(1).step_by(2);
    let name = quoted.next()?;
    Some((name, quoted.collect()))
}

fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let likeness =
        |one: &str| strsim::normalized_damerau_levenshtein(name, one).max(strsim::jaro_winkler(name, one) - 0.1);
    let best = known
        .iter()
        .max_by(|one, other| likeness(one).total_cmp(&likeness(other)))?;
    (likeness(best) >= NEAR).then_some(best)
}

fn listed(known: &[&str]) -> String {
    known
        .iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// The line that a place in a text is on, from 1.
fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

/// Sets one key from a variable, and says which; the value is read as TOML where it is, and as text otherwise.
fn overlay(table: &mut toml::Table, keys: &str, value: &str) -> Result<Vec<String>, ConfigError> {
    let parts: Vec<String> = keys.split(SEPARATOR).map(str::to_ascii_lowercase).collect();
    let Some((last, above)) = parts.split_last() else {
        return Ok(parts);
    };
    let mut place = table;
    for part in above {
        let below = place
            .entry(part.clone())
            .or_insert_with(|| toml::Value::Table(toml::Table::new()));
        place = below.as_table_mut().ok_or_else(|| ConfigError::Key {
            key: parts.join("."),
            detail: format!("{part} is a value, not a section"),
        })?;
    }
    let read = format!("value = {value}")
        .parse::<toml::Table>()
        .ok()
        .and_then(|mut table| table.remove("value"));
    place.insert(
        last.clone(),
        read.unwrap_or_else(|| toml::Value::String(value.to_owned())),
    );
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_says_where_its_value_comes_from() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "concurrency = 2\n[sandbox]\ncpus = 1.0\n[agents.a]\nimage = \"i\"\ncommand = [\"c\"]\nco_author = \"A <a@b.c>\"\n\
                    environment = { LANG = \"C\" }\n[agents.a.set_up]\nscript = \"true\"\n";
        std::fs::write(file.path(), text).unwrap();
        let environment = [
            ("COFFERDAM__CONCURRENCY", "7"),
            ("COFFERDAM__QUEUE", "{ prefix = \"mine\" }"),
            ("HOME", "/root"),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let layers = Layers::read(Some(file.path()), environment).unwrap();
        layers.config().unwrap();
        let keys = layers.keys();
        let of = |path: &str| {
            let found: Vec<_> = keys.iter().filter(|key| key.path.join(".") == path).collect();
            assert_eq!(found.len(), 1, "{path}");
            let value = found[0].value.as_ref().map(ToString::to_string);
            (value.unwrap_or_default(), found[0].source.clone())
        };
        let set = |name: &str| Source::Variable(name.to_owned());
        assert_eq!(of("concurrency"), ("7".into(), set("COFFERDAM__CONCURRENCY")));
        assert_eq!(of("queue.prefix"), ("\"mine\"".into(), set("COFFERDAM__QUEUE")));
        assert_eq!(of("sandbox.cpus"), ("1.0".into(), Source::File));
        assert_eq!(of("sandbox.workspace"), ("\"tmpfs\"".into(), Source::Default));
        assert_eq!(of("sandbox.seccomp"), ("\"ours\"".into(), Source::Default));
        assert_eq!(of("agents.a.environment.LANG"), ("\"C\"".into(), Source::File));
        assert_eq!(of("agents.a.set_up.script"), ("\"true\"".into(), Source::File));
        assert_eq!(of("agents.a.start_timeout_s"), ("60".into(), Source::Default));
        assert_eq!(of("worker"), (String::new(), Source::Default));
        // What the schema says of defaults is what they are.
        let shown: toml::Table = keys
            .iter()
            .filter(|key| key.path.len() == 1 && key.source == Source::Default)
            .filter_map(|key| Some((key.path[0].clone(), key.value.clone()?)))
            .collect();
        assert_eq!(shown["drain_s"].as_integer(), Some(3600));
    }

    #[test]
    fn all_defaults_together_are_the_default_configuration() {
        let layers = Layers::read(None, []).unwrap();
        let mut table = toml::Table::new();
        for key in layers.keys() {
            assert_eq!(key.source, Source::Default);
            let Some(value) = key.value else { continue };
            let (last, above) = key.path.split_last().unwrap();
            let place = above.iter().fold(&mut table, |place, part| {
                place
                    .entry(part.clone())
                    .or_insert_with(|| toml::Value::Table(toml::Table::new()))
                    .as_table_mut()
                    .unwrap()
            });
            place.insert(last.clone(), value);
        }
        let again = Layers {
            table,
            variables: BTreeMap::new(),
        };
        assert_eq!(
            format!("{:?}", again.config().unwrap()),
            format!("{:?}", Config::default())
        );
    }
}
