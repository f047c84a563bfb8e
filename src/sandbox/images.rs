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
        ] {
            assert!(check_form(wrong).is_err(), "{wrong}");
        }
        for good in ["a", "host.example:5000/a/b:1", &format!("a:1@{D1}")] {
            assert_eq!(check_form(good), Ok(()), "{good}");
        }
    }
}
