//! What the scopes of a GitLab token allow. Pure: no I/O, and no guess where the scopes do not say.

use crate::message::{Capabilities, Right};

/// What GitLab's scopes allow; `None` where the instance does not tell them.
pub(super) fn capabilities(scopes: Option<&[String]>) -> Capabilities {
    let Some(scopes) = scopes else {
        return Capabilities::UNPROVEN;
    };
    let has = |name: &str| scopes.iter().any(|scope| scope == name);
    // A granular token's rights are not in its scopes.
    if has("granular") {
        return Capabilities::UNPROVEN;
    }
    let mut may = Capabilities::NONE;
    if has("read_repository") {
        may.clone = Right::GitOnly;
        may.read_projects = Right::GitOnly;
    }
    if has("write_repository") {
        may.clone = Right::GitOnly;
        may.read_projects = Right::GitOnly;
        may.push_branches = Right::Yes;
        may.open_change_requests = Right::PushOptions;
    }
    if has("api") || has("read_api") {
        may.read_projects = Right::Yes;
        may.clone = Right::Yes;
        may.inspect_change_requests = Right::Yes;
        may.read_issues = Right::Yes;
    }
    if has("api") {
        may.push_branches = Right::Yes;
        may.open_change_requests = Right::Yes;
        may.comment = Right::Yes;
    }
    may
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Right;

    fn of(scopes: &[&str]) -> Capabilities {
        let scopes: Vec<String> = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        capabilities(Some(&scopes))
    }

    /// The table of README.md, row by row.
    #[test]
    fn gitlab_scopes_allow_what_the_table_says() {
        use Right::{GitOnly, No, PushOptions, Yes};
        let row = |scope: &str| of(&[scope]).rows().map(|(_, right)| right);
        assert_eq!(row("api"), [Yes, Yes, Yes, Yes, Yes, Yes, Yes]);
        assert_eq!(row("read_api"), [Yes, Yes, No, No, Yes, Yes, No]);
        assert_eq!(
            row("write_repository"),
            [GitOnly, GitOnly, Yes, PushOptions, No, No, No]
        );
        assert_eq!(row("read_repository"), [GitOnly, GitOnly, No, No, No, No, No]);
        assert_eq!(row("read_user"), [No; 7]);
        let both = of(&["read_api", "write_repository"]).rows().map(|(_, right)| right);
        assert_eq!(both, [Yes, Yes, Yes, PushOptions, Yes, Yes, No]);
        assert_eq!(of(&["granular"]), Capabilities::UNPROVEN);
        assert_eq!(capabilities(None), Capabilities::UNPROVEN);
    }
}
