//! Credentials that cannot be printed, masking of those that are known and of what looks like one, and the sealing of them for a worker.
//!
//! A `Secret` has no `Display`, its `Debug` says nothing, and its memory is cleared when the last clone goes. Never logs anything itself.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use finder::Finder;

mod finder;
mod forms;
mod mask;
pub mod seal;
mod shapes;
mod traces;

pub use finder::Trail;
pub use mask::{MASKED, Mask};
pub use shapes::without_token_shapes;
pub use traces::Traces;

/// A credential. Read it only where it is put on the wire. Clones share one piece of memory.
#[derive(Clone)]
pub struct Secret(Arc<Known>);

/// A secret with the forms in which it may turn up.
struct Known {
    clear: SecretString,
    forms: Arc<Vec<forms::Form>>,
}

/// Every secret that lives in this process: what a log line is masked with. Nobody can forget to add one, and none outlives its use.
static LIVING: Mutex<Living> = Mutex::new(Living {
    secrets: Vec::new(),
    finder: None,
    changes: 0,
});

struct Living {
    secrets: Vec<Weak<Known>>,
    /// Finds all of them. Made for the first line after a change, not per line.
    finder: Option<Arc<Finder>>,
    changes: u64,
}

fn living() -> MutexGuard<'static, Living> {
    LIVING.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Living {
    fn change(&mut self) {
        self.finder = None;
        self.changes = self.changes.wrapping_add(1);
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        // The finder holds its forms: these go too.
        living().change();
    }
}

impl Secret {
    /// Wraps a credential; surrounding white space (a file's last newline) is dropped.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let clear = SecretString::from(text.trim().to_owned());
        let forms = Arc::new(forms::of(clear.expose_secret()));
        let known = Arc::new(Known { clear, forms });
        let mut living = living();
        living.secrets.retain(|one| one.strong_count() > 0);
        living.secrets.push(Arc::downgrade(&known));
        living.change();
        drop(living);
        Self(known)
    }

    /// The credential in clear. Every call is a place to review.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.clear.expose_secret()
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.expose().is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(..)")
    }
}

impl<'de> serde::Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        Ok(Self::new(&text))
    }
}

/// A whole line of a log as it may be shown: without any secret that lives in this process, without token shapes, and without the password of
/// an address.
#[must_use]
pub fn log_line(line: &str) -> String {
    mask::log_line(&living_finder(), line)
}

fn living_finder() -> Arc<Finder> {
    let (secrets, changes) = {
        let living = living();
        if let Some(finder) = &living.finder {
            return Arc::clone(finder);
        }
        let secrets: Vec<Arc<Known>> = living.secrets.iter().filter_map(Weak::upgrade).collect();
        (secrets, living.changes)
    };
    let finder = Arc::new(Finder::new(secrets.iter().map(|known| Arc::clone(&known.forms))));
    let mut living = living();
    if living.changes == changes {
        living.finder = Some(Arc::clone(&finder));
    }
    // Before the secrets, the last clone of which may be here: its end takes the lock.
    drop(living);
    finder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Secret::new("glpat-very-secret")), "Secret(..)");
        assert!(!format!("{:?}", Mask::new([&Secret::new("glpat-very-secret")])).contains("glpat"));
    }

    #[test]
    fn a_log_line_hides_what_lives_and_what_looks_like_a_token() {
        let secret = Secret::new("living-secret-of-no-shape");
        let bytes: Vec<String> = secret.expose().bytes().map(|byte| byte.to_string()).collect();
        let line = format!(
            "{} [{}] amqp://guest:hunter2@broker:5672/%2f glpat-{} end",
            secret.expose(),
            bytes.join(", "),
            "abcdefghij0123456789"
        );
        assert_eq!(
            log_line(&line),
            format!("{MASKED} [{MASKED}] amqp://guest:{MASKED}@broker:5672/%2f {MASKED} end")
        );
        drop(secret);
        assert_eq!(log_line("living-secret-of-no-shape"), "living-secret-of-no-shape");
    }

    #[test]
    fn a_log_line_that_was_escaped_as_json_hides_what_was_escaped() {
        for value in ["quo\"ted\\secret", "two\nlines-of-it", "tab\tand\"quote"] {
            let secret = Secret::new(value);
            let said = serde_json::json!({"message": format!("got {value}, sorry")}).to_string();
            assert_eq!(log_line(&said), format!("{{\"message\":\"got {MASKED}, sorry\"}}"));
            // What prints itself as a debugger does is escaped twice.
            let said = serde_json::json!({"message": format!("got {value:?}, sorry")}).to_string();
            assert_eq!(
                log_line(&said),
                format!("{{\"message\":\"got \\\"{MASKED}\\\", sorry\"}}")
            );
            drop(secret);
        }
    }
}
