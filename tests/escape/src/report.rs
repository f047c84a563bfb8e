//! One line for each row: `row|verdict|name|what was tried|what happened`, and a last line with their number, so that none can be lost unseen.
//!
//! Never decides what a row means: the row does.

use std::io::Write as _;

/// What became of an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It failed.
    Held,
    /// It succeeded.
    Broken,
    /// It gave something small away that is known and written down.
    Known,
    /// It could not be tried, so nothing is shown.
    Untried,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Broken => "BROKEN",
            Self::Known => "known",
            Self::Untried => "UNTRIED",
        }
    }
}

/// The rows so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: usize,
}

impl Report {
    pub(crate) fn row(&mut self, verdict: Verdict, name: &str, tried: &str, happened: &str) {
        let plain = |text: &str| -> String {
            let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
            one_line.replace('|', "/").chars().take(160).collect()
        };
        self.rows += 1;
        line(&format!(
            "row|{}|{}|{}|{}",
            verdict.word(),
            plain(name),
            plain(tried),
            plain(happened)
        ));
    }

    /// A row whose success is an escape.
    pub(crate) fn attack(&mut self, name: &str, tried: &str, result: Result<String, String>) {
        match result {
            Ok(got) => self.row(Verdict::Broken, name, tried, &got),
            Err(refusal) => self.row(Verdict::Held, name, tried, &refusal),
        }
    }

    pub(crate) fn end(&self) {
        line(&format!("end|{}", self.rows));
    }
}

/// Writes a line at once; a reader that went away is not this program's business.
pub(crate) fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// An attack's result from an ordinary one.
pub(crate) fn tried<T, E: std::fmt::Display>(result: Result<T, E>, got: &str) -> Result<String, String> {
    match result {
        Ok(_) => Ok(got.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
