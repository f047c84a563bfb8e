//! What forges answer: bodies, errors, and what git prints when they refuse a push.

use std::sync::OnceLock;

use cofferdam::forge::classify;
use cofferdam::forge::inspect::LONGEST_TEXT;
use cofferdam::fuzzing::forge;
use cofferdam::secret::{Mask, Secret};

use crate::judge::{TOKEN, assert_visible, each_string};
use crate::targets::address::read;

fn mask() -> &'static Mask {
    static MASK: OnceLock<Mask> = OnceLock::new();
    MASK.get_or_init(|| Mask::new([&Secret::new(TOKEN)]))
}

/// A good answer, read as every type of both forges.
pub fn answers(data: &[u8]) {
    for value in forge::shown(data, mask()) {
        each_string(&value, "", &mut |name, text| {
            assert_visible(text);
            assert!(text.len() <= LONGEST_TEXT + 100, "{name} has {} bytes", text.len());
            // What the agent may read through the tools has names; the rest becomes events, which are masked there.
            assert!(name.is_empty() || !text.contains(TOKEN), "the token is in {name:?}");
        });
    }
}

/// A bad answer: its status, headers, an empty line, the body.
pub fn errors(data: &[u8]) {
    let (head, body) = match data.windows(2).position(|two| two == b"\n\n") {
        Some(end) => (&data[..end], &data[end + 2..]),
        None => (&data[..0], data),
    };
    let status = [400, 401, 403, 404, 409, 422, 500][data.first().map_or(0, |byte| usize::from(*byte) % 7)];
    let said = forge::refused(status, read(head), body, mask());
    assert!(said.chars().count() <= 300 && !said.contains('\n'), "{said}");
    assert!(!said.contains(TOKEN), "{said}");
    assert_visible(&said);
    let text = String::from_utf8_lossy(body);
    for most in [100, 300] {
        let cut = forge::description(&text, most);
        assert!(cut.encode_utf16().count() <= most);
        assert!(text.encode_utf16().count() > most || cut == text);
    }
}

/// What `git push` printed.
pub fn push_output(data: &[u8]) {
    let output = String::from_utf8_lossy(data);
    let sentence = classify(&output).sentence();
    assert!(
        sentence.chars().count() <= 2_000,
        "{} characters",
        sentence.chars().count()
    );
    assert_visible(&sentence);
    let with_user = classify(&format!(
        "fatal: Authentication failed for 'https://oauth2:{TOKEN}@h.example/a/b.git/'\n{output}"
    ));
    // What else git prints is masked where it becomes an event; an address is not repeated with its user anywhere.
    assert!(
        output.contains("glpat") || !with_user.sentence().contains(TOKEN),
        "{}",
        with_user.sentence()
    );
}
