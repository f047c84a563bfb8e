//! git's answer to a push, read as it passes: what was refused, and in which words. Where git's own words say neither rule nor remedy, they are
//! put in.
//!
//! Pure. An answer that does not read passes as it is; nothing is held back but the report itself, until its end.

use bytes::Bytes;

use crate::message::readable::is_shown;

/// How the check of the repository room begins its own refusals.
const OURS: &str = "cofferdam: refused:";
/// How much of the words and of the report is kept, in bytes.
const KEPT: usize = 64 * 1024;
/// Longest packet of the protocol.
const LONGEST_PACKET: usize = 65_520;
/// Longest message of an event, in characters.
const LONGEST_MESSAGE: usize = 1_000;

/// An answer on its way.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// The beginning of a packet that is not whole yet.
    partial: Vec<u8>,
    /// The packets of the first band, held back until the end.
    held: Vec<u8>,
    /// Their contents: the report.
    verdict: Vec<u8>,
    /// What the second band says.
    words: Vec<u8>,
    /// Whether it stopped reading as an answer.
    unreadable: bool,
}

impl Report {
    /// Takes a piece; gives what is to be passed on.
    pub(super) fn piece(&mut self, piece: &Bytes) -> Bytes {
        if self.unreadable {
            return piece.clone();
        }
        self.partial.extend_from_slice(piece);
        let all = std::mem::take(&mut self.partial);
        let mut out = Vec::with_capacity(all.len());
        let mut rest = all.as_slice();
        while let Some(digits) = rest.get(..4) {
            let Some(length) = packet_length(digits) else {
                self.unreadable = true;
                out.append(&mut self.held);
                out.extend_from_slice(rest);
                return out.into();
            };
            let Some(packet) = rest.get(..length) else { break };
            rest = &rest[length..];
            self.packet(packet, &mut out);
        }
        self.partial = rest.to_vec();
        out.into()
    }

    fn packet(&mut self, packet: &[u8], out: &mut Vec<u8>) {
        let content = packet.get(4..).unwrap_or_default();
        match content.split_first() {
            Some((1, part)) if self.held.len() + packet.len() <= KEPT && self.verdict.len() + part.len() <= KEPT => {
                self.verdict.extend_from_slice(part);
                self.held.extend_from_slice(packet);
            }
            Some((2, words)) => {
                let room = KEPT.saturating_sub(self.words.len());
                self.words.extend_from_slice(&words[..words.len().min(room)]);
                out.extend_from_slice(packet);
            }
            // A client without side bands gets the report as it is.
            Some((b'u' | b'n' | b'o', _)) if self.verdict.len() + packet.len() <= KEPT => {
                self.verdict.extend_from_slice(packet);
                out.extend_from_slice(packet);
            }
            Some((1, _)) => {
                // In their order: the report is longer than is kept.
                out.append(&mut self.held);
                out.extend_from_slice(packet);
            }
            Some(_) => out.extend_from_slice(packet),
            None => {
                if !self.held.is_empty()
                    && let Some(explained) = self.explanation()
                {
                    let text = format!("\u{2}{explained}\n");
                    out.extend_from_slice(format!("{:04x}{text}", text.len() + 4).as_bytes());
                    self.words.extend_from_slice(explained.as_bytes());
                }
                out.append(&mut self.held);
                out.extend_from_slice(packet);
            }
        }
    }

    /// What was not passed on when the answer ended: an answer that broke off.
    pub(super) fn rest(&mut self) -> Bytes {
        let mut out = std::mem::take(&mut self.held);
        out.append(&mut self.partial);
        out.into()
    }

    /// The message of a refusal; `None` when nothing was refused, or nothing is known.
    pub(super) fn refusal(&self) -> Option<String> {
        let said = verdict(&self.verdict)?;
        let words = String::from_utf8_lossy(&self.words).into_owned();
        let ours = words.find(OURS).map(|at| words[at..].to_owned());
        let text = ours
            .or_else(|| explain(&said, &words))
            .unwrap_or_else(|| format!("{OURS} {}: {}. {}", said.reference, said.reason, GENERAL));
        // Characters that nobody sees, or that turn the reading direction, are left out: names of references are the agent's.
        let plain: String = text
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .filter(|c| is_shown(*c))
            .collect();
        let line = plain.split_whitespace().collect::<Vec<_>>().join(" ");
        Some(line.chars().take(LONGEST_MESSAGE).collect())
    }

    /// What to add to git's own words.
    fn explanation(&self) -> Option<String> {
        let words = String::from_utf8_lossy(&self.words);
        if words.contains(OURS) {
            return None;
        }
        explain(&verdict(&self.verdict)?, &words)
    }
}

const GENERAL: &str = "Push the session's branch alone, with `git push origin HEAD`.";

/// A refusal in git's report.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    reference: String,
    reason: String,
    /// What was wrong with the pack, when something was.
    unpack: Option<String>,
}

/// The first refusal of a report: `unpack REASON`, `ng REFERENCE REASON`.
fn verdict(report: &[u8]) -> Option<Said> {
    let (mut unpack, mut refused) = (None, None);
    let mut rest = report;
    while let Some(length) = rest.get(..4).and_then(packet_length) {
        let Some(line) = rest.get(4..length) else { break };
        rest = &rest[length..];
        let line = String::from_utf8_lossy(line);
        let line = line.trim_end();
        if let Some(reason) = line.strip_prefix("unpack ").filter(|reason| *reason != "ok") {
            unpack = Some(reason.to_owned());
        }
        if let Some((reference, reason)) = line.strip_prefix("ng ").and_then(|rest| rest.split_once(' ')) {
            refused.get_or_insert_with(|| (reference.to_owned(), reason.to_owned()));
        }
    }
    let (reference, reason) = refused.or_else(|| Some(("the push".to_owned(), unpack.clone()?)))?;
    Some(Said {
        reference,
        reason,
        unpack,
    })
}

/// Rule, reference and what to do, for what git refuses by itself.
fn explain(said: &Said, words: &str) -> Option<String> {
    let (rule, remedy) = match (&said.unpack, said.reason.as_str()) {
        (Some(_), _) if words.contains("exceeds maximum allowed size") => (
            "the pack is larger than what may be pushed at once".to_owned(),
            "Leave large files out (`git log --stat`), or push fewer commits at once.",
        ),
        (Some(_), _) if finding(words).is_some() => (
            format!(
                "an object has a flaw that git's own check does not let through ({})",
                finding(words).unwrap_or_default()
            ),
            "Take it out of the commits that have it (`git rebase -i`, `git commit --amend`), then `git push` again.",
        ),
        (Some(reason), _) => (
            format!("the pack could not be taken in ({reason})"),
            "Look at the clone with `git fsck`; if it is whole, push fewer commits or smaller files at once.",
        ),
        (None, "shallow update not allowed") => (
            "the history of this clone is cut off, and so would be the branch's".to_owned(),
            "Get the rest with `git fetch --unshallow`, then `git push` again.",
        ),
        (None, "missing necessary objects") => (
            "the push names objects that neither it nor this project has".to_owned(),
            "Run `git fetch origin`, then `git push` again.",
        ),
        (None, reason) if reason.contains("hook declined") => return None,
        (None, reason) => (format!("git does not take it ({reason})"), GENERAL),
    };
    Some(format!("{OURS} {}: {rule}. {remedy}", said.reference))
}

/// What git's check of an object found: `object ID: NAME: words`.
fn finding(words: &str) -> Option<String> {
    let at = words.find("object ")?;
    let text = &words[at + "object ".len()..];
    let (id, rest) = text.split_once(": ")?;
    let (name, _) = rest.split_once(':')?;
    let is_name = !name.is_empty() && name.len() < 40 && name.bytes().all(|b| b.is_ascii_alphanumeric());
    (id.len() >= 40 && id.bytes().all(|b| b.is_ascii_hexdigit()) && is_name).then(|| format!("{name} in {id}"))
}

/// A packet's whole length; 4 for a list's end.
fn packet_length(digits: &[u8]) -> Option<usize> {
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    match usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()? {
        0 => Some(4),
        length if (5..=LONGEST_PACKET).contains(&length) => Some(length),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn band(band: u8, text: &str) -> String {
        format!("{:04x}{}{text}", text.len() + 5, char::from(band))
    }

    fn line(text: &str) -> String {
        format!("{:04x}{text}\n", text.len() + 5)
    }

    /// What a client gets, and what the session is told.
    fn passed(answer: &str, piece: usize) -> (String, Option<String>) {
        let mut report = Report::default();
        let mut out = Vec::new();
        for piece in answer.as_bytes().chunks(piece) {
            out.extend_from_slice(&report.piece(&Bytes::copy_from_slice(piece)));
        }
        out.extend_from_slice(&report.rest());
        (String::from_utf8(out).unwrap(), report.refusal())
    }

    #[test]
    fn our_own_refusals_and_accepted_pushes_pass_as_they_are() {
        let accepted = band(1, &(line("unpack ok") + &line("ok refs/heads/x") + "0000")) + "0000";
        let words = "cofferdam: refused: commit abc lacks\n";
        let refused = band(2, "Checking...\n")
            + &band(2, words)
            + &band(
                1,
                &(line("unpack ok") + &line("ng refs/heads/x pre-receive hook declined") + "0000"),
            )
            + "0000";
        for piece in [1, 3, 1000] {
            assert_eq!(passed(&accepted, piece), (accepted.clone(), None));
            let (out, told) = passed(&refused, piece);
            assert_eq!((out, told.as_deref()), (refused.clone(), Some(words.trim())));
        }
    }

    #[test]
    fn git_s_own_refusals_get_rule_reference_and_remedy() {
        let id = "a".repeat(40);
        let flaw = format!("error: object {id}: hasDotgit: contains '.git'\nfatal: fsck error in packed object\n");
        for (words, unpack, reason, wanted) in [
            (
                flaw.as_str(),
                "unpack index-pack abnormal exit",
                "unpacker error",
                "hasDotgit in aaaa",
            ),
            (
                "fatal: pack exceeds maximum allowed size (9 bytes)\n",
                "unpack index-pack abnormal exit",
                "unpacker error",
                "push fewer commits",
            ),
            ("", "unpack index-pack abnormal exit", "unpacker error", "git fsck"),
            ("", "unpack ok", "shallow update not allowed", "git fetch --unshallow"),
            ("", "unpack ok", "missing necessary objects", "git fetch origin"),
            ("", "unpack ok", "funny refname", "git push origin HEAD"),
        ] {
            let report = line(unpack) + &line(&format!("ng refs/heads/x {reason}")) + "0000";
            let answer = band(2, words) + &band(1, &report) + "0000";
            for piece in [1, 1000] {
                let (out, told) = passed(&answer, piece);
                let told = told.unwrap();
                assert!(
                    told.starts_with(OURS) && told.contains("refs/heads/x") && told.contains(wanted),
                    "{told}"
                );
                let told_at = out.find(OURS).unwrap();
                assert!(told_at < out.find("ng refs").unwrap() && out.contains(wanted), "{out}");
            }
            // Without side bands there is no place for words, but the session is told.
            let (out, told) = passed(&report, 5);
            assert_eq!(out, report);
            assert!(told.unwrap().contains("refs/heads/x"));
        }
    }

    #[test]
    fn what_does_not_read_passes_and_says_nothing() {
        for answer in [
            "",
            "zzzz",
            "ffff",
            "0001",
            "0010\u{1}short",
            "0000",
            "0005\u{2}",
            "hello 0000",
        ] {
            for piece in [1, 1000] {
                assert_eq!(passed(answer, piece), (answer.to_owned(), None), "{answer:?}");
            }
        }
    }

    #[test]
    fn memory_is_bounded() {
        let mut report = Report::default();
        let one = Bytes::from(band(1, &"x".repeat(60_000)) + &band(2, &"y".repeat(60_000)));
        let mut passed = 0;
        for _ in 0..20 {
            passed += report.piece(&one).len();
        }
        assert!(report.held.len() <= KEPT && report.words.len() <= KEPT && report.verdict.len() <= KEPT);
        assert_eq!(passed + report.rest().len(), 20 * one.len());
    }
}
