//! The head of a push: git's list of commands in front of the pack, read before git is started. Pure.
//!
//! What may be pushed is not decided here but by the repository's own check; here only what git's program must never see is turned away: a
//! signed push, which would make it start another program, options, and what is no list at all.

use std::fmt;

/// Longest head, in bytes.
const LONGEST: usize = 64 * 1024;
/// Longest packet of the protocol, its length's four digits included.
const LONGEST_PACKET: usize = 65_520;

/// What a push asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Head {
    /// The names of the references that it wants to change, as harmless text.
    pub(super) references: Vec<String>,
    /// Whether it wants a report.
    pub(super) report: bool,
    /// Where the list ends in the body, in bytes.
    pub(super) length: usize,
}

impl Head {
    /// The references for a sentence.
    pub(super) fn shown(&self) -> String {
        if self.references.is_empty() {
            "nothing".to_owned()
        } else {
            self.references.iter().take(8).cloned().collect::<Vec<_>>().join(", ")
        }
    }
}

/// Why a head is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bad {
    TooLong,
    NoPacket,
    NoCommand,
    BrokenOff,
    Certificate,
    Options,
    AfterNothing,
}

impl fmt::Display for Bad {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            Self::TooLong => "the list of references is longer than 64 KiB",
            Self::NoPacket => "the list of references is not in git's packet format",
            Self::NoCommand => "a line of the list of references is none",
            Self::BrokenOff => "the list of references broke off",
            Self::Certificate => "signed pushes (push certificates) are not taken: push without --signed",
            Self::Options => "push options are not taken: push without -o",
            Self::AfterNothing => "something follows an empty list of references",
        };
        write!(
            formatter,
            "{what}. Push the session's branch alone, with `git push origin HEAD`."
        )
    }
}

/// Reads the head out of the beginning of a body; `None` as long as there is more of it to come.
pub(super) fn read(body: &[u8]) -> Result<Option<Head>, Bad> {
    let mut head = Head::default();
    let mut rest = body;
    loop {
        let Some((digits, after)) = rest.split_at_checked(4) else {
            return unfinished(body);
        };
        let length = length(digits)?;
        if length == 0 {
            head.length = body.len() - after.len();
            return Ok(Some(head));
        }
        let Some(packet) = rest.get(4..length) else {
            return unfinished(body);
        };
        rest = &rest[length..];
        line(packet, &mut head)?;
    }
}

fn unfinished(body: &[u8]) -> Result<Option<Head>, Bad> {
    if body.len() > LONGEST {
        Err(Bad::TooLong)
    } else {
        Ok(None)
    }
}

/// A packet's length, with its own four digits; 0 is the end of a list.
fn length(digits: &[u8]) -> Result<usize, Bad> {
    // Only digits: the number parser would take a sign.
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(Bad::NoPacket);
    }
    let text = std::str::from_utf8(digits).map_err(|_| Bad::NoPacket)?;
    match usize::from_str_radix(text, 16) {
        Ok(0) => Ok(0),
        Ok(length) if (5..=LONGEST_PACKET).contains(&length) => Ok(length),
        Ok(_) | Err(_) => Err(Bad::NoPacket),
    }
}

fn line(packet: &[u8], head: &mut Head) -> Result<(), Bad> {
    let (command, words) = match packet.iter().position(|byte| *byte == 0) {
        Some(end) => (&packet[..end], &packet[end + 1..]),
        None => (packet, &[][..]),
    };
    if command.starts_with(b"push-cert") {
        return Err(Bad::Certificate);
    }
    for word in words.split(|byte| *byte == b' ' || *byte == b'\n') {
        match word {
            b"push-options" => return Err(Bad::Options),
            b"report-status" | b"report-status-v2" => head.report = true,
            word if word.starts_with(b"push-cert") => return Err(Bad::Certificate),
            _ => {}
        }
    }
    if command.starts_with(b"shallow ") {
        return Ok(());
    }
    let mut parts = command.splitn(3, |byte| *byte == b' ');
    let (Some(old), Some(new), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(Bad::NoCommand);
    };
    let is_id = |id: &[u8]| matches!(id.len(), 40 | 64) && id.iter().all(u8::is_ascii_hexdigit);
    if !is_id(old) || !is_id(new) || name.is_empty() {
        return Err(Bad::NoCommand);
    }
    head.references.push(
        String::from_utf8_lossy(name)
            .chars()
            .filter(|c| !c.is_control())
            .take(200)
            .collect(),
    );
    Ok(())
}

/// Whether something stands behind a list that asks for nothing; git itself asks so, alone, before a large push.
pub(super) fn check_after(head: &Head, body: &[u8]) -> Result<(), Bad> {
    if head.references.is_empty() && body.len() > head.length {
        Err(Bad::AfterNothing)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(text: &str) -> String {
        format!("{:04x}{text}", text.len() + 4)
    }

    fn command(name: &str) -> String {
        format!("{} {} {name}", "0".repeat(40), "a".repeat(40))
    }

    #[test]
    fn a_head_is_read_from_any_beginning_that_holds_it() {
        let two = packet(&format!(
            "{}\0 report-status-v2 side-band-64k object-format=sha1",
            command("refs/heads/x")
        )) + &packet(&command("refs/tags/t\u{1b}[2J"))
            + "0000";
        let body = two.clone() + "PACK...";
        for end in 0..two.len() {
            assert_eq!(read(&body.as_bytes()[..end]), Ok(None), "{end}");
        }
        let head = read(body.as_bytes()).unwrap().unwrap();
        assert_eq!(head.references, ["refs/heads/x", "refs/tags/t[2J"]);
        assert_eq!((head.report, head.length), (true, two.len()));
        assert_eq!(check_after(&head, body.as_bytes()), Ok(()));
        let shallow = packet(&format!("shallow {}", "a".repeat(40))) + &two;
        assert_eq!(read(shallow.as_bytes()).unwrap().unwrap().references.len(), 2);
    }

    #[test]
    fn git_s_question_before_a_large_push_is_a_head_and_nothing_follows_it() {
        let head = read(b"0000").unwrap().unwrap();
        assert_eq!((head.references.len(), head.length), (0, 4));
        assert_eq!(check_after(&head, b"0000"), Ok(()));
        assert_eq!(check_after(&head, b"0000P"), Err(Bad::AfterNothing));
    }

    #[test]
    fn what_is_no_head_is_turned_away() {
        let capable = |word: &str| packet(&format!("{}\0 {word}", command("refs/heads/x"))) + "0000";
        for (body, wanted) in [
            ("zzzz".to_owned(), Bad::NoPacket),
            ("+001".into(), Bad::NoPacket),
            ("0001".into(), Bad::NoPacket),
            ("0002".into(), Bad::NoPacket),
            ("0003".into(), Bad::NoPacket),
            ("0004".into(), Bad::NoPacket),
            ("fff1".into(), Bad::NoPacket),
            ("PACK\0\0\0\x02".into(), Bad::NoPacket),
            (packet("hello") + "0000", Bad::NoCommand),
            (
                packet(&format!("{} {} ", "0".repeat(40), "a".repeat(40))) + "0000",
                Bad::NoCommand,
            ),
            (
                packet(&format!("{} {} refs/heads/x", "g".repeat(40), "a".repeat(40))) + "0000",
                Bad::NoCommand,
            ),
            (capable("push-options"), Bad::Options),
            (capable("atomic push-cert=nonce"), Bad::Certificate),
            (packet("push-cert\0 report-status") + "0000", Bad::Certificate),
            (packet(&command("refs/heads/x")).repeat(700), Bad::TooLong),
        ] {
            assert_eq!(read(body.as_bytes()).unwrap_err(), wanted, "{body:.60}");
            assert!(wanted.to_string().contains("git push origin HEAD"));
        }
    }
}
