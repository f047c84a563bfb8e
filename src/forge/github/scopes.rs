//! What the scopes of a GitHub token allow. Pure: no I/O, and no guess where there are none.

use crate::message::{Capabilities, Right};

/// What the scopes of a classic GitHub token allow; `None` for fine-grained and App tokens, which name none.
pub(super) fn capabilities(scopes: Option<&[String]>) -> Capabilities {
    let Some(scopes) = scopes else {
        return Capabilities::UNPROVEN;
    };
    let has = |name: &str| scopes.iter().any(|scope| scope == name);
    if has("repo") {
        return Capabilities {
            read_projects: Right::Yes,
            clone: Right::Yes,
            push_branches: Right::Yes,
            open_change_requests: Right::Yes,
            inspect_change_requests: Right::Yes,
            read_issues: Right::Yes,
            comment: Right::Yes,
        };
    }
    // Without a scope everybody's repositories can be read; with `public_repo` they can be written too. Whether this one is public, the
    // look-up of the project tells.
    let write = if has("public_repo") { Right::Unproven } else { Right::No };
    Capabilities {
        push_branches: write,
        open_change_requests: write,
        comment: write,
        ..Capabilities::UNPROVEN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn github_scopes_allow_what_they_name() {
        let of = |scopes: &[&str]| {
            let scopes: Vec<String> = scopes.iter().map(|scope| (*scope).to_owned()).collect();
            capabilities(Some(&scopes))
        };
        assert_eq!(of(&["repo"]).rows().map(|(_, right)| right), [Right::Yes; 7]);
        assert_eq!(of(&["gist"]).push_branches, Right::No);
        assert_eq!(of(&["public_repo"]).push_branches, Right::Unproven);
        assert_eq!(capabilities(None), Capabilities::UNPROVEN);
    }
}
