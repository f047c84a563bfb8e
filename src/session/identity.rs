//! People and agents as git writes them: `Name <address>`. Pure.

use crate::grant::Identity;

/// Reads `Name <address>`; `None` when it is not that, or would break a commit header.
#[must_use]
pub fn parse(text: &str) -> Option<Identity> {
    let (name, rest) = text.split_once('<')?;
    let (email, after) = rest.split_once('>')?;
    if !after.trim().is_empty() {
        return None;
    }
    make(name, email)
}

/// An identity of a name and an address, cleaned of what git would drop; `None` when nothing usable is left.
#[must_use]
pub fn make(name: &str, email: &str) -> Option<Identity> {
    let clean = |text: &str| {
        text.chars()
            .map(|c| {
                if c.is_control() || matches!(c, '<' | '>') {
                    ' '
                } else {
                    c
                }
            })
            .collect::<String>()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    let name: String = clean(name).chars().take(200).collect();
    let email = clean(email);
    // git strips these from the ends of names, and a commit would then differ from what was ordered.
    let name = name
        .trim_matches(|c: char| matches!(c, '.' | ',' | ':' | ';' | '"' | '\\' | '\''))
        .trim()
        .to_owned();
    let usable = !name.is_empty() && email.contains('@') && !email.contains(' ') && email.len() <= 254;
    usable.then_some(Identity { name, email })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_refuses() {
        assert_eq!(
            parse("Ada Example <ada@example.org>").unwrap().to_string(),
            "Ada Example <ada@example.org>"
        );
        for bad in ["Ada", "<a@b>", "Ada <>", "Ada <a b@c>", "Ada <a@b> x"] {
            assert!(parse(bad).is_none(), "{bad}");
        }
        assert_eq!(make("A\nB <x>", "a@b").unwrap().name, "A B x");
    }
}
