//! Takes our key out of what a model endpoint answers: one that repeats it, in an error or a header, does not bring it to the agent. Pure.
//!
//! Holds back only what may be the beginning of the key, in any form of it, until the next piece shows whether it is.

use axum::http::HeaderValue;
use bytes::Bytes;

use crate::secret::Mask;

/// More is not held back: nothing is that long and still only the beginning of a key.
const MOST_HELD: usize = 64 * 1024;

/// The end of an event of a stream, which an agent waits for. No key goes on behind it: elsewhere white space counts for nothing.
const EVENT_END: &[u8] = b"\n\n";

/// The body of one answer.
pub(super) struct Echo {
    mask: Mask,
    held: Vec<u8>,
}

impl Echo {
    pub(super) fn new(mask: &Mask) -> Self {
        Self {
            mask: mask.clone(),
            held: Vec::new(),
        }
    }

    /// What of the answer so far may go to the agent now; often all of it, at times nothing.
    pub(super) fn piece(&mut self, piece: Bytes) -> Bytes {
        if self.mask.is_empty() {
            return piece;
        }
        self.held.extend_from_slice(&piece);
        let settled = match self.held.ends_with(EVENT_END) {
            true => self.held.len(),
            false => self.settled(),
        };
        let rest = self.held.split_off(settled);
        let shown = std::mem::replace(&mut self.held, rest);
        self.mask.apply_bytes(&shown).into()
    }

    fn settled(&self) -> usize {
        match self.mask.settled_bytes(&self.held) {
            settled if self.held.len() - settled > MOST_HELD => self.held.len(),
            settled => settled,
        }
    }

    /// What was held back when the answer ended.
    pub(super) fn end(&mut self) -> Bytes {
        self.mask.apply_bytes(&std::mem::take(&mut self.held)).into()
    }
}

/// A header as it may go to the agent; `None` where it holds the key and cannot be written without it.
pub(super) fn header(value: &HeaderValue, mask: &Mask) -> Option<HeaderValue> {
    HeaderValue::from_bytes(&mask.apply_bytes(value.as_bytes())).ok()
}
