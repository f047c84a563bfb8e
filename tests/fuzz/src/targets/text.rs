//! What a model wrote, on its way to where a forge renders it. The judge reads Markdown as forges do, where it matters.

use cofferdam::agent::sections::{self, Sections};
use cofferdam::grant::neutral;
use cofferdam::session::change_text::{self, Branch, Parts, Sister};

use crate::judge::{hides, parts};

/// Breaks what would act.
const BREAK: char = '\u{200b}';

pub fn neutral(data: &[u8]) {
    let text = &*String::from_utf8_lossy(data);
    let got = neutral::text(text);
    assert_harmless(&got);
    assert_eq!(neutral::text(&got), got, "what is harmless stays as it is");
    for most in [10, 120] {
        let title = neutral::title(text, most);
        assert!(
            !title.contains('\n') && title.chars().filter(|c| *c != BREAK).count() <= most,
            "{title:?}"
        );
        assert_words_are_broken(&title);
        let line = neutral::line(text, most);
        assert!(!line.contains('\n'));
        assert_live_is_broken(&line);
    }
    let code = neutral::code(text);
    assert!(
        code.len() >= 2 && !code[1..code.len() - 1].contains(['`', '\n']),
        "{code:?}"
    );
    if let Some(address) = neutral::address(text) {
        assert!(address.starts_with("http://") || address.starts_with("https://"));
        assert!(!address.contains(['\n', ' ', '<', '>', '(', ')', '`']), "{address:?}");
    }
}

/// The text of a change request: an agent's answer, a subject, a body, a path. A high first byte repeats the answer, so that the
/// limit of a section is reached.
pub fn change_request(data: &[u8]) {
    let (times, data) = data
        .split_first()
        .map_or((1, data), |(first, rest)| (usize::from(*first), rest));
    let parts = parts(data);
    let part = |index: usize| parts.get(index).cloned().unwrap_or_default();
    let answer = part(0);
    let often = 1 + (16 * 1024 / answer.len().max(1)) * usize::from(times > 250);
    let said = Sections {
        changes: answer.repeat(often),
        approach: answer.clone(),
        trade_offs: answer.clone(),
        checked: answer.clone(),
    };
    let branch = Branch {
        commits: vec![(part(1), part(2)), (part(2), part(1))],
        files: vec![(part(3), u64::MAX, u64::MAX), (part(1), 1, 1)],
        truncated: false,
        warnings: Vec::new(),
    };
    let sisters = [Sister {
        project: cofferdam::message::ProjectKey {
            connection: "hub".parse().expect("it is one"),
            path: "a/b".parse().expect("it is one"),
        },
        word: "pull request",
        url: part(3),
    }];
    for sections in [&sections::read(&answer), &said] {
        let made = change_text::description(&Parts {
            is_whole: true,
            session: "0190c2f0-7c1e-7000-8000-000000000001".parse().expect("it is one"),
            sections,
            branch: &branch,
            agent: &part(1),
            user: &part(1),
            sisters: &sisters,
            unreached: &(Vec::new(), 0),
        });
        assert!(made.encode_utf16().count() <= 65_536, "{}", made.len());
        assert_harmless_but_ours(&made);
    }
    let title = change_text::title(&part(1), &branch);
    assert!(!title.trim().is_empty() && !title.contains('\n') && title.len() < 4_000);
    assert_words_are_broken(&title);
}

/// The session's own lines stand last, outside of any fence, and live text before them is harmless.
fn assert_harmless_but_ours(text: &str) {
    let (before, ours) = text.rsplit_once("\n---\nWritten by ").expect("it says whose it is");
    let last = ours.trim_end().lines().last().unwrap_or_default();
    assert_eq!(last, "Cofferdam-Session: 0190c2f0-7c1e-7000-8000-000000000001");
    let (live, open) = live_lines(before);
    assert!(!open, "a fence swallows the session's own lines: {text:?}");
    for line in live {
        let ours = ["- `", "- most of the change is in `"]
            .iter()
            .any(|start| line.starts_with(start));
        match (line.find('`'), line.rfind('`')) {
            // A file's path is code, and holds no tick that would end it.
            (Some(start), Some(end)) if ours && start < end && !line[start + 1..end].contains('`') => {
                assert_live_is_broken(&format!("{}{}", &line[..start], &line[end + 1..]));
            }
            _ => assert_live_is_broken(line),
        }
    }
}

fn assert_harmless(text: &str) {
    for line in text.lines() {
        assert!(!line.trim_start().starts_with('/'), "a quick action in {text:?}");
    }
    assert!(
        !text.contains(|c: char| c != BREAK && (hides(c) || c.is_control() && !matches!(c, '\n' | '\t'))),
        "{text:?}"
    );
    let (live, open) = live_lines(text);
    assert!(!open, "an open fence in {text:?}");
    for line in live {
        assert_live_is_broken(line);
    }
}

/// The lines outside of fenced code, by CommonMark's rules at the margin, and whether a fence is left open.
fn live_lines(text: &str) -> (Vec<&str>, bool) {
    let (mut live, mut open) = (Vec::new(), None::<(char, usize)>);
    for line in text.lines() {
        let start = line.trim_start_matches(' ');
        let indent = line.len() - start.len();
        let fence = start.chars().next().filter(|c| indent <= 3 && matches!(c, '`' | '~'));
        let length = fence.map_or(0, |mark| start.chars().take_while(|c| *c == mark).count());
        let rest = &start[length..];
        match (open, fence) {
            (None, Some(mark)) if length >= 3 && !(mark == '`' && rest.contains('`')) => open = Some((mark, length)),
            (None, _) => live.push(line),
            (Some((mark, least)), Some(found)) if mark == found && length >= least && rest.trim().is_empty() => {
                open = None
            }
            (Some(_), _) => {}
        }
    }
    (live, open.is_some())
}

/// What acts in Markdown.
fn assert_live_is_broken(line: &str) {
    assert_words_are_broken(line);
    assert!(!line.trim_start().starts_with('/'), "a quick action: {line:?}");
    assert!(!line.contains("!["), "an image: {line:?}");
    let tag = line
        .split('<')
        .skip(1)
        .any(|rest| rest.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '!' | '?')));
    assert!(!tag, "raw HTML: {line:?}");
    let entity = line.split('&').skip(1).any(|rest| {
        let rest = rest.strip_prefix('#').unwrap_or(rest);
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        end > 0 && rest[end..].starts_with(';')
    });
    assert!(!entity, "an entity: {line:?}");
    let lower = line.trim_start().to_ascii_lowercase();
    for key in [
        "co-authored-by:",
        "signed-off-by:",
        "cofferdam-session:",
        "skip-checks:",
    ] {
        assert!(!lower.starts_with(key), "a trailer: {line:?}");
    }
}

/// What acts in titles too.
fn assert_words_are_broken(line: &str) {
    let after = |mark: char, acts: fn(char) -> bool| line.split(mark).skip(1).any(|rest| rest.starts_with(acts));
    assert!(
        !after('@', |c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.')),
        "a mention: {line:?}"
    );
    for mark in ['#', '!', '$', '%', '~', '&'] {
        assert!(!after(mark, |c| c.is_ascii_digit()), "a reference: {line:?}");
    }
    let lower = line.to_ascii_lowercase();
    for word in ["[skip ci]", "[ci skip]", "[no ci]", "[skip actions]", "[actions skip]"] {
        assert!(!lower.contains(word), "{word}: {line:?}");
    }
    for kind in ["/issues/", "/merge_requests/", "/pull/", "/pulls/"] {
        for (at, _) in lower.match_indices("https://") {
            let end = lower[at..]
                .find(|c: char| c.is_whitespace() || "()<>".contains(c))
                .map_or(lower.len(), |end| at + end);
            assert!(
                !lower[at + 8..end].contains(kind),
                "an address that is a reference: {line:?}"
            );
        }
    }
}
