//! Which images a sandbox may be made of, and whether the engine's image is the one that was pinned. Pure: no engine is asked here.
//!
//! Fails closed: an image that no rule allows is refused, and a digest that cannot be confirmed is as good as a wrong one.

/// What the engine has under an image's name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Its id: the digest of its configuration.
    pub id: String,
    /// The names and digests it was pulled by.
    pub digests: Vec<String>,
}

/// The digest of a reference that has one: of `name@sha256:<64 hex digits>` what stands after the `@`.
#[must_use]
pub fn pinned(image: &str) -> Option<&str> {
    let (name, digest) = image.rsplit_once('@')?;
    let hex = digest.strip_prefix("sha256:")?;
    let whole = hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    (whole && !name.is_empty()).then_some(digest)
}

/// Whether a reference has the form that the engine and this file agree about.
///
/// # Errors
/// What is wrong, as a fragment of a sentence.
pub fn check_form(image: &str) -> Result<(), &'static str> {
    check_beginning(image)?;
    if !is_reference(image.rsplit_once('@').map_or(image, |(name, _)| name)) {
        return Err("it is no reference of an image: [host[:port]/]name[/name...][:tag], names in small letters");
    }
    Ok(())
}

/// Whether references may begin like this: what stands before the `*` of a rule may end anywhere in one.
///
/// # Errors
/// What is wrong, as a fragment of a sentence.
pub fn check_beginning(image: &str) -> Result<(), &'static str> {
    if image.is_empty() || image.len() > 512 || image.starts_with('-') {
        return Err("a reference has 1 to 512 characters and does not begin with '-'");
    }
    if image.contains('*') || image.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("a reference has neither '*' nor blanks");
    }
    if image.contains('@') && pinned(image).is_none() {
        return Err("what stands after '@' must be sha256: and 64 digits of 0-9 and a-f");
    }
    Ok(())
}

/// `[host[:port]/]name[/name...][:tag]`. The engine's address of an image is made of it, so nothing that means something in an address may pass:
/// `own/../other` begins as a rule for `own/*` wants it, and is `other`.
fn is_reference(name: &str) -> bool {
    let inner = |b: u8| matches!(b, b'.' | b'_' | b'-');
    let is_tag = |tag: &str| {
        let begins = tag.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        begins && tag.len() <= 128 && tag.bytes().all(|b| b.is_ascii_alphanumeric() || inner(b))
    };
    let is_name = |name: &str| {
        let bounded = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        bounded(name.chars().next())
            && bounded(name.chars().next_back())
            && !name.contains("..")
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || inner(b))
    };
    let is_host = |part: &str| {
        let (host, port) = part.split_once(':').unwrap_or((part, "1"));
        let is_named = host.contains('.') || part.contains(':') || host == "localhost";
        is_named
            && !host.contains("..")
            && host.starts_with(|c: char| c.is_ascii_alphanumeric())
            && host
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
            && !port.is_empty()
            && port.len() <= 5
            && port.bytes().all(|b| b.is_ascii_digit())
    };
    let (path, last) = name
        .rsplit_once('/')
        .map_or((None, name), |(path, last)| (Some(path), last));
    let (last, tag) = last
        .split_once(':')
        .map_or((last, None), |(last, tag)| (last, Some(tag)));
    let mut parts = path.into_iter().flat_map(|path| path.split('/')).enumerate();
    is_name(last) && tag.is_none_or(is_tag) && parts.all(|(place, part)| is_name(part) || (place == 0 && is_host(part)))
}

/// Whether the operator's rules allow an image. An empty list allows none.
///
/// A rule is an exact reference, a beginning that ends in `*`, or a reference with a digest; the last one also allows an image that is
/// named otherwise, once the engine has shown that it is that one (`found`).
#[must_use]
pub fn allowed(rules: &[String], image: &str, found: Option<&Found>) -> bool {
    rules.iter().any(|rule| match rule.strip_suffix('*') {
        Some(beginning) => image.starts_with(beginning),
        None if rule == image => true,
        None => found.is_some_and(|found| pinned(rule).is_some() && is_pinned(rule, found)),
    })
}

/// Whether any rule may still allow an image after the engine has shown what it is.
#[must_use]
pub fn may_become_allowed(rules: &[String]) -> bool {
    rules.iter().any(|rule| pinned(rule).is_some())
}

/// Whether what the engine has is what a reference with a digest names: by a digest it was pulled by or, for one that was built here and never
/// pulled, by its id. A digest is of the content, so names do not count. True for references without a digest.
#[must_use]
pub fn is_pinned(image: &str, found: &Found) -> bool {
    let Some(digest) = pinned(image) else {
        return true;
    };
    found.id == digest
        || found
            .digests
            .iter()
            .filter_map(|known| pinned(known))
            .any(|known| known == digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const D1: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";
    const D3: &str = "sha256:3333333333333333333333333333333333333333333333333333333333333333";
    const D2: &str = "sha256:2222222222222222222222222222222222222222222222222222222222222222";

    fn rules(list: &[&str]) -> Vec<String> {
        list.iter().map(|rule| (*rule).to_owned()).collect()
    }

    fn pulled() -> Found {
        Found {
            id: D2.to_owned(),
            digests: vec![format!("agents/a@{D1}")],
        }
    }

    #[test]
    fn only_what_a_rule_names_is_allowed() {
        let list = rules(&["agents/a:1", "own/*"]);
        assert!(allowed(&list, "agents/a:1", None));
        assert!(allowed(&list, "own/b:2", None));
        for other in ["agents/a:2", "agents/a", "evil/own/b", "Own/b", "", "x"] {
            assert!(!allowed(&list, other, None), "{other}");
        }
        assert!(!allowed(&[], "agents/a:1", Some(&pulled())));
    }

    #[test]
    fn a_rule_with_a_digest_allows_that_image_by_whatever_name() {
        let list = rules(&[&format!("agents/a@{D1}")]);
        assert!(may_become_allowed(&list));
        assert!(!allowed(&list, "agents/a:1", None));
        assert!(allowed(&list, "agents/a:1", Some(&pulled())));
        let other = Found {
            digests: vec![format!("agents/a@{D2}")],
            id: D3.to_owned(),
        };
        assert!(!allowed(&list, "agents/a:1", Some(&other)));
    }

    #[test]
    fn a_pinned_image_must_be_the_one_that_is_there() {
        assert!(is_pinned(&format!("agents/a@{D1}"), &pulled()));
        assert!(is_pinned(&format!("agents/a:1@{D1}"), &pulled()));
        assert!(is_pinned(&format!("agents/a@{D2}"), &pulled()), "built here: by its id");
        assert!(!is_pinned(&format!("agents/a@{D3}"), &pulled()));
        assert!(!is_pinned(&format!("agents/a@{D1}"), &Found::default()));
        assert!(is_pinned("agents/a:1", &Found::default()));
    }

    #[test]
    fn a_crooked_digest_is_a_malformed_reference_and_not_an_unpinned_one() {
        for wrong in [
            "a@",
            "a@sha256:1",
            &format!("a@{}", D1.to_uppercase()),
            &format!("@{D1}"),
            "a@md5:1",
            "a b",
            "-a",
            "a*",
            "",
            "own/../other:1",
            "own/./a",
            "own//a",
            "/a",
            "a/",
            "x/../../containers",
            "Own/a",
            "a:b:c",
            "a:",
            "host:port/a",
            "..:1/a",
            "a?b",
            "a%2e",
            "a\\b",
            "a#b",
        ] {
            assert!(check_form(wrong).is_err(), "{wrong}");
        }
        for good in [
            "a",
            "host.example:5000/a/b:1",
            "localhost:5000/a",
            "Host.example/a__b/c-d.e:V1.2_3-x",
            &format!("a:1@{D1}"),
            D1,
        ] {
            assert_eq!(check_form(good), Ok(()), "{good}");
        }
    }
}
