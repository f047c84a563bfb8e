//! Joining JSON objects that are too long to be written as one.

use serde_json::Value;

/// Adds the entries of one object to another. Anything that is not an object stays as it is.
pub(crate) fn extend(body: &mut Value, more: Value) {
    if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
    }
}
