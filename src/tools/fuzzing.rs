//! What the fuzzers reach here: how results are bounded. It only calls what a real result meets.

use serde_json::Value;

use super::bounds;
use crate::grant::ProjectGrant;

/// Largest result, in bytes of JSON.
pub const LARGEST_RESULT: usize = bounds::LARGEST_RESULT;

/// A page of rows as a model gets it, with the arguments `place`.
#[must_use]
pub fn listed(project: &ProjectGrant, rows: Vec<Value>, place: Value) -> Option<Value> {
    let place: super::arguments::Place = serde_json::from_value(place).ok()?;
    place.page().ok()?;
    serde_json::to_value(bounds::fit(project, rows, None, &place).ok()?).ok()
}

/// One thing as a model gets it.
#[must_use]
pub fn single(project: &ProjectGrant, item: &Value, text_from: usize) -> Option<Value> {
    serde_json::to_value(bounds::single(project, item, text_from).ok()?).ok()
}
