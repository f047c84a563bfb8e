//! Whether a commit message has the session's trailers: one rule, used by what adds them and by what refuses commits without them. Pure.
//!
//! It is simpler than git's own reading, so that nobody has to guess: the lines of the last paragraph, unless it is the first. It reads bytes
//! that an agent wrote and never assumes UTF-8.

/// The first of `trailers` (`Key: value` each) that the message's last paragraph lacks. Keys compare without case, values exactly; a message of
/// one paragraph has no trailers.
pub fn missing_trailer<'a>(message: &[u8], trailers: impl IntoIterator<Item = &'a [u8]>) -> Option<&'a [u8]> {
    let block = last_paragraph(message);
    trailers
        .into_iter()
        .find(|wanted| !block.iter().any(|have| same(have, wanted)))
}

fn last_paragraph(message: &[u8]) -> Vec<&[u8]> {
    let lines: Vec<&[u8]> = message
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii_end)
        .collect();
    let end = lines
        .iter()
        .rposition(|line| !line.is_empty())
        .map_or(0, |last| last + 1);
    let start = lines[..end]
        .iter()
        .rposition(|line| line.is_empty())
        .map_or(0, |blank| blank + 1);
    if start == 0 {
        Vec::new()
    } else {
        lines[start..end].to_vec()
    }
}

fn same(have: &[u8], want: &[u8]) -> bool {
    match (split(have), split(want)) {
        (Some((key, value)), Some((wanted, exactly))) => key.eq_ignore_ascii_case(wanted) && value == exactly,
        (None, _) | (_, None) => false,
    }
}

fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    Some((&line[..colon], line[colon + 1..].trim_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: [&[u8]; 2] = [b"Co-authored-by: J\xf6rg <j@x>", b"Session: 1"];

    fn complete(message: &[u8]) -> bool {
        missing_trailer(message, WANTED).is_none()
    }

    #[test]
    fn only_the_last_paragraph_counts_and_never_the_first() {
        let block = WANTED.join(&b"\n"[..]);
        assert!(complete(&[b"Fix\n\n", &block[..], b"\n\n \r\n"].concat()));
        assert!(complete(
            &[b"Fix\n \r\nco-AUTHORED-by:J\xf6rg <j@x>\r\n", WANTED[1]].concat()
        ));
        assert!(!complete(&block));
        assert!(!complete(&[b"Fix\n\n", &block[..], b"\n\nmore\n"].concat()));
        assert!(!complete(b""));
    }

    #[test]
    fn each_has_to_be_there_as_it_is() {
        assert_eq!(missing_trailer(b"Fix\n\nSession: 1\n", WANTED), Some(WANTED[0]));
        for other in ["Session: 2", "Session : 1", "Session", "Session: 1 2", " Session: 1"] {
            let message = [b"Fix\n\n", WANTED[0], b"\n", other.as_bytes()].concat();
            assert_eq!(missing_trailer(&message, WANTED), Some(WANTED[1]), "{other}");
        }
    }
}
