//! What new entries of a tree may be: symbolic links that stay in the checkout, submodules at addresses on the network. Pure.
//!
//! git's own check refuses what harms git (`.git` in all its spellings, submodules that look like options); this is about what harms whoever
//! checks the branch out, or a forge that does. Only entries that a commit brings are looked at: what upstream has may stay.

/// Longest target of a symbolic link, in bytes; git and most systems take no longer one.
const LONGEST_TARGET: usize = 4096;

/// Names of files that git reads in a checkout: as a link they would make it read another file.
pub fn is_special(name: &[u8]) -> bool {
    let specials: [&[u8]; 4] = [b".gitmodules", b".gitattributes", b".gitignore", b".mailmap"];
    specials.iter().any(|special| name.eq_ignore_ascii_case(special))
}

/// Whether a symbolic link may be committed: `depth` directories above it are in the checkout.
///
/// # Errors
/// What is wrong with it, as the end of a sentence.
pub fn check_link(name: &[u8], target: &[u8], depth: usize) -> Result<(), &'static str> {
    if is_special(name) {
        return Err("stands for a file that git itself reads");
    }
    if target.is_empty() || target.len() > LONGEST_TARGET || target.contains(&0) {
        return Err("leads to no usable path");
    }
    // Some systems take both slashes, and drives.
    let is_drive = matches!(target, [drive, b':', ..] if drive.is_ascii_alphabetic());
    if target.starts_with(b"/") || target.starts_with(b"\\") || is_drive {
        return Err("leads to an absolute path, outside of the project");
    }
    let mut above = 0;
    let mut named = false;
    for part in target.split(|byte| matches!(byte, b'/' | b'\\')) {
        match part {
            b"" | b"." => {}
            // Behind a name, which may be a link itself, nobody can say where it leads.
            b".." if named => return Err("goes up again behind a directory's name"),
            b".." => above += 1,
            name if is_git_directory(name) => return Err("leads into git's own directory"),
            _ => named = true,
        }
    }
    if above > depth {
        return Err("leads out of the project");
    }
    Ok(())
}

/// `.gitmodules` as some file system may read it: git follows it under each of these names.
pub fn is_modules(name: &[u8]) -> bool {
    let text = as_read(name);
    let text = plain(&text);
    let Some((front, number)) = text.split_once('~') else {
        return text == ".gitmodules";
    };
    let is_number = !number.starts_with('0') && !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    // The short names that one file system gives: from the front, and from a sum over the name where several begin alike.
    let usual = front == "gitmod" && matches!(number, "1" | "2" | "3" | "4");
    usual || (is_number && text.len() == 8 && "gi7eba".starts_with(front))
}

/// `.git` as some file system may read it.
fn is_git_directory(name: &[u8]) -> bool {
    let text = as_read(name);
    matches!(plain(&text), ".git" | "git~1")
}

/// A name in small letters, without what is left out of comparisons.
fn as_read(name: &[u8]) -> String {
    String::from_utf8_lossy(name)
        .chars()
        // Left out by one file system's comparison.
        .filter(
            |c| !matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}'),
        )
        .map(|c| c.to_ascii_lowercase())
        .collect()
}

/// Without a stream's name, and without the spaces and dots that a name cannot end with there.
fn plain(text: &str) -> &str {
    text.split(':').next().unwrap_or_default().trim_end_matches([' ', '.'])
}

/// The first address in a new `.gitmodules` that is none of a repository on the network and was not there before.
///
/// # Errors
/// That address, as harmless text.
pub fn check_modules(text: &[u8], before: &[&[u8]]) -> Result<(), String> {
    let known: Vec<String> = before.iter().flat_map(|text| addresses(text)).collect();
    let new = addresses(text)
        .into_iter()
        .find(|url| !is_plain(url) && !known.contains(url));
    match new {
        None => Ok(()),
        Some(url) => Err(url.chars().filter(|c| !c.is_control()).take(200).collect()),
    }
}

fn is_plain(url: &str) -> bool {
    if url.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return false;
    }
    let lower = url.to_ascii_lowercase();
    let rest = ["https://", "http://", "ssh://", "git://"]
        .iter()
        .find_map(|scheme| lower.strip_prefix(scheme));
    if let Some(rest) = rest {
        // A host that begins with a dash was an option once.
        let host = rest.split('/').next().unwrap_or_default();
        let host = host.rsplit('@').next().unwrap_or_default();
        return !host.is_empty() && !host.starts_with('-') && !rest.starts_with('-');
    }
    if lower.starts_with("./") || lower.starts_with("../") {
        return true;
    }
    // `user@host:path`, but not `transport::address`.
    lower.split_once(':').is_some_and(|(place, path)| {
        let (user, host) = place.split_once('@').unwrap_or(("", place));
        let word = |text: &str| {
            text.bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        };
        let is_host = host.contains('.') && !host.starts_with('-') && word(host);
        is_host && !user.starts_with('-') && word(user) && !path.starts_with(':') && !path.is_empty()
    })
}

/// The values of all `url` keys, as git reads them.
fn addresses(text: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(text).replace("\r\n", "\n");
    // A backslash at a line's end goes on with the next.
    let text = text.replace("\\\n", "");
    text.lines().filter_map(address).collect()
}

fn address(line: &str) -> Option<String> {
    let mut line = line.trim_start_matches('\u{feff}').trim_start();
    // A section may stand on the same line; a quoted `]` does not end it.
    while line.starts_with('[') {
        let mut quoted = false;
        let end = line.char_indices().find(|(_, c)| {
            quoted ^= *c == '"';
            *c == ']' && !quoted
        });
        line = line[end?.0 + 1..].trim_start();
    }
    let (key, value) = line.split_once('=')?;
    if !key.trim().eq_ignore_ascii_case("url") {
        return None;
    }
    let (mut out, mut quoted) = (String::new(), false);
    let mut characters = value.trim_start().chars();
    while let Some(c) = characters.next() {
        match c {
            '"' => quoted = !quoted,
            '#' | ';' if !quoted => break,
            '\\' => match characters.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some(other) => out.push(other),
                None => {}
            },
            c => out.push(c),
        }
    }
    Some(out.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_in_the_checkout() {
        for (target, depth) in [
            ("a", 0),
            ("./a/b", 0),
            ("../a", 1),
            ("../../a/b.txt", 2),
            (".github/x", 0),
            ("a..b", 0),
            (".gitignore", 0),
        ] {
            assert_eq!(check_link(b"link", target.as_bytes(), depth), Ok(()), "{target}");
        }
        for (target, depth) in [
            ("", 0),
            ("/etc/passwd", 3),
            ("..", 0),
            ("../x", 0),
            ("../../x", 1),
            ("./../x", 0),
            ("a/../b", 5),
            ("a/..", 5),
            ("a\0b", 0),
            ("\\\\server\\x", 0),
            ("C:/x", 0),
            ("..\\x", 0),
            (".git/config", 0),
            ("../.GIT/hooks", 1),
            ("git~1/x", 0),
            (".git /x", 0),
            (".git::$INDEX_ALLOCATION/x", 0),
            (".g\u{200c}it/config", 0),
        ] {
            assert!(check_link(b"link", target.as_bytes(), depth).is_err(), "{target}");
        }
        assert!(check_link(b"link", &[b'a'; LONGEST_TARGET + 1], 0).is_err());
        for name in [".gitmodules", ".gitattributes", ".GitIgnore", ".mailmap"] {
            assert!(check_link(name.as_bytes(), b"a", 0).is_err(), "{name}");
        }
    }

    #[test]
    fn submodules_are_on_the_network_and_what_was_there_may_stay() {
        let of = |url: &str| format!("[submodule \"x\"]\n\tpath = x\n\turl = {url}\n");
        for url in [
            "https://forge.example/a/b.git",
            "HTTPS://forge.example/a",
            "\"ssh://git@forge.example:22/a\"",
            "../other.git",
            "./x",
            "git@forge.example:a/b.git",
            "https://[::1]/a ; a comment",
        ] {
            assert_eq!(check_modules(of(url).as_bytes(), &[]), Ok(()), "{url}");
        }
        for url in [
            "ext::sh -c id",
            "\"e\"xt::id",
            "file:///etc",
            "FILE:///etc",
            "/etc",
            "-u/x",
            "--upload-pack=id",
            "ssh://-oProxyCommand=id/x",
            "ssh://u@-oProxyCommand=id/x",
            "-oProxyCommand=id:x",
            "fd::3",
            "a\\nb",
            "https://x\\n.example",
            "",
            "host:path",
        ] {
            assert!(check_modules(of(url).as_bytes(), &[]).is_err(), "{url}");
        }
        for text in [
            "[submodule \"a]b\"] URL=ext::id",
            "[submodule \"x\"]\nurl = ex\\\nt::id",
            "[a][b]\turl = ext::id",
            "\u{feff}[submodule \"x\"]\r\n url = ext::id\r\n",
        ] {
            assert_eq!(check_modules(text.as_bytes(), &[]), Err("ext::id".to_owned()), "{text}");
        }
        let old = of("/srv/old");
        assert_eq!(
            check_modules((old.clone() + &of("../new")).as_bytes(), &[old.as_bytes()]),
            Ok(())
        );
        assert!(check_modules((old.clone() + &of("/srv/new")).as_bytes(), &[old.as_bytes()]).is_err());
    }
}
