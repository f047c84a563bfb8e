//! Which walls a session gets: the tenant's runtime, else the agent's, else that of all sandboxes. Pure.
//!
//! Fails closed: where the operator lists tenants, a name that is not listed is refused, never taken for nobody.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::failure::Failure;
use crate::message::{Reason, TenantName};

/// One tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The OCI runtime of this tenant's sandboxes; the agent's or `sandbox.runtime` when absent.
    pub runtime: Option<String>,
}

/// The configured tenants.
pub type Tenants = BTreeMap<TenantName, Config>;

/// The runtime of a session; `None` is the engine's default.
///
/// # Errors
/// The operator lists tenants, and the task's is none of them.
pub fn runtime<'a>(
    tenants: &'a Tenants,
    tenant: Option<&TenantName>,
    agent: Option<&'a str>,
    all: Option<&'a str>,
) -> Result<Option<&'a str>, Failure> {
    let own = match tenant {
        Some(name) if !tenants.is_empty() => {
            let config = tenants.get(name).ok_or_else(|| unknown(name))?;
            config.runtime.as_deref()
        }
        _ => None,
    };
    Ok(own.or(agent).or(all))
}

/// The tenants' names are not told: they are other customers.
fn unknown(name: &TenantName) -> Failure {
    Failure::new(
        Reason::UnknownTenant,
        format!("this worker has no tenant {name}: correct the task, or let the operator add [tenants.{name}]"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenants() -> Tenants {
        let strong = Config {
            runtime: Some("strong".into()),
        };
        [("a", strong), ("b", Config::default())]
            .map(|(name, config)| (name.parse().unwrap(), config))
            .into()
    }

    fn chosen(tenant: Option<&str>, agent: Option<&str>, all: Option<&str>) -> Result<Option<String>, Reason> {
        let name: Option<TenantName> = tenant.map(|name| name.parse().unwrap());
        runtime(&tenants(), name.as_ref(), agent, all)
            .map(|runtime| runtime.map(str::to_owned))
            .map_err(|failure| failure.reason)
    }

    #[test]
    fn the_tenants_runtime_wins_over_the_agents_and_that_over_the_general_one() {
        let some = |name: &str| Ok(Some(name.to_owned()));
        assert_eq!(chosen(Some("a"), Some("agents"), Some("all")), some("strong"));
        assert_eq!(chosen(Some("b"), Some("agents"), Some("all")), some("agents"));
        assert_eq!(chosen(None, Some("agents"), Some("all")), some("agents"));
        assert_eq!(chosen(None, None, Some("all")), some("all"));
        assert_eq!(chosen(None, None, None), Ok(None));
    }

    #[test]
    fn a_tenant_that_is_not_listed_is_refused_where_any_is() {
        assert_eq!(chosen(Some("c"), None, None), Err(Reason::UnknownTenant));
        let name: TenantName = "c".parse().unwrap();
        assert_eq!(
            runtime(&Tenants::new(), Some(&name), Some("agents"), None),
            Ok(Some("agents"))
        );
    }
}
