//! Whether the projects of one session go together: a public one with others only where that was allowed. Pure.
//!
//! What a forge does not tell counts as private.

use serde::Deserialize;

use crate::forge::Visibility;
use crate::message::ProjectKey;

/// What the operator says to sessions over public and other projects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MixedVisibility {
    /// Never.
    Refuse,
    /// Where the task asks for it (`mixed_visibility`).
    #[default]
    Ask,
    /// Always.
    Allow,
}

/// The sentence that names a public and another project of the list, where there are both.
pub(super) fn mix(projects: &[(&ProjectKey, Visibility)]) -> Option<String> {
    let (public, _) = projects.iter().find(|(_, seen)| *seen == Visibility::Public)?;
    let (other, seen) = projects.iter().find(|(_, seen)| *seen != Visibility::Public)?;
    Some(format!(
        "the session mixes {public}, which is public, with {other}, which is {}: what it reads in the one it could publish in the other",
        seen.as_str()
    ))
}

/// Whether a mix is allowed; the sentence of the refusal says what to do.
pub(super) fn allow(operator: MixedVisibility, task: bool, mix: &str) -> Result<(), String> {
    match (operator, task) {
        (MixedVisibility::Allow, _) | (MixedVisibility::Ask, true) => Ok(()),
        (MixedVisibility::Ask, false) => Err(format!(
            "{mix}; send a session for each, or the task again with \"mixed_visibility\": true"
        )),
        (MixedVisibility::Refuse, _) => Err(format!(
            "{mix}, which the operator does not allow (session.mixed_visibility); send a session for each"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_with_another_is_a_mix() {
        let key = |path: &str| ProjectKey {
            connection: "lab".parse().unwrap(),
            path: path.parse().unwrap(),
        };
        let (one, two, three) = (key("a/one"), key("a/two"), key("a/three"));
        let of = |seen: [Visibility; 3]| mix(&[(&one, seen[0]), (&two, seen[1]), (&three, seen[2])]);
        use Visibility::{Internal, Private, Public};
        assert_eq!(of([Public, Public, Public]), None);
        assert_eq!(of([Private, Internal, Private]), None);
        let said = of([Private, Private, Public]).unwrap();
        assert!(
            said.contains("lab:a/three, which is public") && said.contains("lab:a/one, which is private"),
            "{said}"
        );
        assert!(
            of([Public, Public, Internal])
                .unwrap()
                .contains("lab:a/three, which is internal")
        );
    }

    #[test]
    fn the_operator_has_the_last_word() {
        use MixedVisibility::{Allow, Ask, Refuse};
        for (operator, task, allowed) in [
            (Refuse, true, false),
            (Refuse, false, false),
            (Ask, false, false),
            (Ask, true, true),
            (Allow, false, true),
        ] {
            assert_eq!(allow(operator, task, "mix").is_ok(), allowed, "{operator:?} {task}");
        }
        assert_eq!(Visibility::of(Some("secret")), Visibility::Private);
    }
}
