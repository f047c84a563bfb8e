//! Sealed credentials: text that a task carries, and files of identities.

use std::sync::OnceLock;

use cofferdam::secret::seal::{Identity, open};

/// A sealed text, and the same bytes as a file of identities.
pub fn opened(data: &[u8]) {
    static OURS: OnceLock<Identity> = OnceLock::new();
    let ours = OURS.get_or_init(Identity::generate);
    let text = String::from_utf8_lossy(data);
    match open(&text, std::slice::from_ref(ours)) {
        Ok(_) => panic!("nobody sealed it to a key that was made just now"),
        Err(error) => {
            let sentence = error.to_string();
            assert!(sentence.len() < 1_000);
            // It may be a token in clear, in the wrong field.
            let own = text.trim();
            assert!(own.len() < 12 || !sentence.contains(own), "{sentence}");
        }
    }
    if let Err(error) = Identity::read_all(&text) {
        assert!(error.to_string().len() < 1_000);
        assert!(text.trim().len() < 12 || !error.to_string().contains(text.trim()));
    }
}
