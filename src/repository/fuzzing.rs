//! What the fuzzers reach here: the list of references that a forge answers with. It only calls what a real forge's bytes meet.

use crate::grant::ShownRef;

/// The references in an answer, if it is one.
#[must_use]
pub fn shown_refs(answer: &[u8]) -> Option<Vec<ShownRef>> {
    super::mirror::shown_refs(answer)
}
