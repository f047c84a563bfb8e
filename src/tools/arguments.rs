//! What arguments of several tools have in common, held to their bounds. Pure.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::error::ToolError;
use crate::forge::inspect::{LARGEST_PAGE, PageRequest};

/// Longest filter, in bytes.
const LONGEST_FILTER: usize = 300;
/// Last page that can be asked for.
const LAST_PAGE: u32 = 10_000;
/// Rows of a page, unless others are asked for.
const USUAL_ROWS: u32 = 20;

/// Where to read on. No field need be given.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
pub(super) struct Place {
    /// The page, from 1.
    #[serde(default)]
    page: Option<u32>,
    /// Rows of a page, 1 to 100; 20 when absent.
    #[serde(default)]
    per_page: Option<u32>,
    /// Rows of the page to pass over, because an earlier call showed them.
    #[serde(default)]
    pub(super) skip: usize,
    /// Show every text from this character on, because an earlier call showed what stands before it.
    #[serde(default)]
    pub(super) text_from: usize,
    /// Arguments that no tool has: a filter that does nothing would make the answer a lie.
    #[serde(flatten)]
    #[schemars(skip)]
    unknown: BTreeMap<String, serde::de::IgnoredAny>,
}

impl Place {
    /// The page.
    pub(super) fn page(&self) -> Result<PageRequest, ToolError> {
        if let Some(name) = self.unknown.keys().next() {
            let rule = format!("{:?} is none of this tool's", name.chars().take(50).collect::<String>());
            return refused("the argument", rule);
        }
        let (page, per_page) = (self.page.unwrap_or(1), self.per_page.unwrap_or(USUAL_ROWS));
        if !(1..=LAST_PAGE).contains(&page) {
            return refused("page", format!("must be from 1 to {LAST_PAGE}"));
        }
        if !(1..=LARGEST_PAGE).contains(&per_page) {
            return refused("per_page", format!("must be from 1 to {LARGEST_PAGE}"));
        }
        Ok(PageRequest { page, per_page })
    }
}

/// A filter that was given; an empty one is none, because models fill in what they leave out.
pub(super) fn filter(argument: &'static str, value: Option<String>) -> Result<Option<String>, ToolError> {
    match value.map(|value| value.trim().to_owned()) {
        Some(value) if value.len() > LONGEST_FILTER || value.chars().any(char::is_control) => {
            refused(argument, format!("must be one line of at most {LONGEST_FILTER} bytes"))
        }
        value => Ok(value.filter(|value| !value.is_empty())),
    }
}

/// A number of a change request or issue.
pub(super) fn number(value: u64) -> Result<u64, ToolError> {
    if (1..=u64::from(u32::MAX)).contains(&value) {
        Ok(value)
    } else {
        refused("number", "must be the number that a list shows".to_owned())
    }
}

pub(super) fn refused<T>(argument: &'static str, rule: String) -> Result<T, ToolError> {
    Err(ToolError::Argument { argument, rule })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_and_filters_are_held_to_their_bounds() {
        let place = |page, per_page| Place {
            page,
            per_page,
            ..Place::default()
        };
        assert_eq!(place(None, None).page().unwrap(), PageRequest { page: 1, per_page: 20 });
        assert!(place(Some(0), None).page().is_err() && place(Some(10_001), None).page().is_err());
        assert!(place(None, Some(0)).page().is_err() && place(None, Some(101)).page().is_err());
        assert_eq!(filter("author", Some("  ".into())).unwrap(), None);
        assert_eq!(filter("author", Some(" ada ".into())).unwrap().as_deref(), Some("ada"));
        assert!(filter("author", Some("a\nb".into())).is_err());
        assert!(filter("text", Some("x".repeat(301))).is_err());
        assert!(number(0).is_err() && number(1 << 40).is_err() && number(7).is_ok());
    }
}
