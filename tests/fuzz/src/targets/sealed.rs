//! Sealed credentials: text that a task carries, and files of identities.

use std::sync::OnceLock;

use cofferdam::secret::seal::{Identity, open};

/// Stands for a token in clear, in the wrong field. Not the input itself: short ones are words of our own sentences.
const MARK: &str = "Zq7-fuzz0mark-Zq7";

/// A sealed text, and the same bytes as a file of identities: as they are, and with a mark that no sentence may repeat.
pub fn opened(data: &[u8]) {
    static OURS: OnceLock<Identity> = OnceLock::new();
    let ours = OURS.get_or_init(Identity::generate);
    let text = String::from_utf8_lossy(data);
    for text in [text.to_string(), format!("{text}{MARK}"), format!("{MARK}{text}")] {
        match open(&text, std::slice::from_ref(ours)) {
            Ok(_) => panic!("nobody sealed it to a key that was made just now"),
            Err(error) => repeats_nothing(&error.to_string()),
        }
        if let Err(error) = Identity::read_all(&text) {
            repeats_nothing(&error.to_string());
        }
    }
}

fn repeats_nothing(sentence: &str) {
    assert!(sentence.len() < 1_000 && !sentence.contains(MARK), "{sentence}");
}
