//! Reading fields that forges leave out, null, or give another shape than they document. Pure.
//!
//! Never guesses a value: what is not understood is as if it were absent.

use serde::{Deserialize, Deserializer};

/// A field that may be null where the documentation has a value. With `#[serde(default)]` it may also be absent.
pub(super) fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// A label: its name, or an object with the name in it, by route and version.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Label {
    /// The name alone.
    Name(String),
    /// An object that has it.
    Object {
        /// The name.
        #[serde(default)]
        name: Option<String>,
    },
    /// Anything else.
    Other(serde::de::IgnoredAny),
}

impl Label {
    /// The name; empty where there is none.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Name(name) => name,
            Self::Object { name } => name.as_deref().unwrap_or_default(),
            Self::Other(_) => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Row {
        #[serde(default, deserialize_with = "nullable")]
        labels: Vec<Label>,
    }

    #[test]
    fn labels_of_every_shape_are_read() {
        for (text, expected) in [
            ("{}", vec![]),
            (r#"{"labels":null}"#, vec![]),
            (
                r#"{"labels":["a",{"name":"b"},{"name":null},7]}"#,
                vec!["a", "b", "", ""],
            ),
        ] {
            let row: Row = serde_json::from_str(text).unwrap();
            assert_eq!(
                row.labels.iter().map(Label::name).collect::<Vec<_>>(),
                expected,
                "{text}"
            );
        }
    }
}
