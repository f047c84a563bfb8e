//! `cofferdam config show`: every key as it counts, and where it comes from. What it prints is a configuration again, but for what is masked.
//!
//! Never prints a credential: those that the configuration names lie elsewhere and are not read, those that stand in it are masked.

use std::path::Path;

use serde_json::json;

use super::compose::environment;
use super::{Exit, show};
use crate::config::{Config, Key, Layers, Source};
use crate::secret::{MASKED, log_line};

/// Values that are longer, in bytes, or have several lines, are only told of.
const LONGEST: usize = 200;
/// What stands in names of variables that somebody put a secret into.
const TELLING: [&str; 7] = ["KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "AUTH"];

/// Prints all keys.
pub(super) fn show(path: Option<&Path>, as_json: bool) -> Exit {
    // What is shown is what would run: a configuration that would not is refused as it is there.
    let checked = Config::load(path, environment());
    let layers = checked.and_then(|_| Layers::read(path, environment()));
    let layers = match layers {
        Ok(layers) => layers,
        Err(error) => {
            show::complain(&error.to_string());
            return Exit::BadConfig;
        }
    };
    let file = path.map_or_else(|| "file".to_owned(), |path| path.display().to_string());
    for key in layers.keys() {
        let from = match &key.source {
            Source::Default => "default",
            Source::File => &file,
            Source::Variable(name) => name,
        };
        show::line(&log_line(&if as_json {
            as_object(&key, from)
        } else {
            as_toml(&key, from)
        }));
    }
    Exit::Success
}

fn as_object(key: &Key, from: &str) -> String {
    let value = key.value.as_ref().map(|value| masked(&key.path, value));
    json!({"key": dotted(&key.path), "value": value, "from": from}).to_string()
}

fn as_toml(key: &Key, from: &str) -> String {
    let name = dotted(&key.path);
    let Some(value) = &key.value else {
        return format!("# {name} is not set");
    };
    let text = masked(&key.path, value).to_string();
    if text.len() > LONGEST || text.contains('\n') {
        return format!("# {name} has {} bytes  # {from}", text.len());
    }
    format!("{name} = {text}  # {from}")
}

/// The path as TOML writes it.
fn dotted(path: &[String]) -> String {
    let is_bare = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let part = |part: &String| {
        if is_bare(part) {
            part.clone()
        } else {
            toml::Value::from(part.as_str()).to_string()
        }
    };
    path.iter().map(part).collect::<Vec<_>>().join(".")
}

/// The value without what may be a secret.
fn masked(path: &[String], value: &toml::Value) -> toml::Value {
    let mask = || toml::Value::from(MASKED);
    let parts: Vec<&str> = path.iter().map(String::as_str).collect();
    match (parts.as_slice(), value) {
        (["connections", _, "credential"], toml::Value::Table(fields)) => {
            let field = |(name, value): (&String, &toml::Value)| {
                let is_a_name = ["file", "env"].contains(&name.as_str());
                (name.clone(), if is_a_name { value.clone() } else { mask() })
            };
            toml::Value::Table(fields.iter().map(field).collect())
        }
        (["agents", _, "environment", name], _)
            if TELLING.iter().any(|word| name.to_ascii_uppercase().contains(word)) =>
        {
            mask()
        }
        _ => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(path: &[&str], value: impl Into<toml::Value>) -> String {
        let key = Key {
            path: path.iter().map(|part| (*part).to_owned()).collect(),
            value: Some(value.into()),
            source: Source::File,
        };
        log_line(&as_toml(&key, "config.toml"))
    }

    #[test]
    fn what_may_be_a_secret_is_masked_and_the_rest_is_toml() {
        assert_eq!(shown(&["sandbox", "cpus"], 1.5), "sandbox.cpus = 1.5  # config.toml");
        assert_eq!(
            shown(&["agents", "a", "files", "x y.json"], "{}"),
            "agents.a.files.\"x y.json\" = \"{}\"  # config.toml"
        );
        let plain: toml::Value = toml::from_str::<toml::Table>("plain = \"Opaque7Canary9Tok\"")
            .unwrap()
            .into();
        assert_eq!(
            shown(&["connections", "lab", "credential"], plain),
            "connections.lab.credential = { plain = \"[MASKED]\" }  # config.toml"
        );
        let named: toml::Value = toml::from_str::<toml::Table>("env = \"LAB\"").unwrap().into();
        assert!(shown(&["connections", "lab", "credential"], named).contains("{ env = \"LAB\" }"));
        let url = shown(
            &["queue", "url"],
            "amqp://worker:Opaque7Canary9Tok@broker.example.org/x",
        );
        assert!(!url.contains("Canary") && url.contains("broker.example.org"), "{url}");
        assert!(!shown(&["agents", "a", "environment", "API_KEY"], "Opaque7Canary9Tok").contains("Canary"));
        assert!(shown(&["agents", "a", "environment", "LANG"], "C.UTF-8").contains("C.UTF-8"));
        assert_eq!(
            shown(&["agents", "a", "files", "x"], "y".repeat(500)),
            "# agents.a.files.x has 502 bytes  # config.toml"
        );
    }
}
