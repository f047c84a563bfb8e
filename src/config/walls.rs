//! What the configuration says of sandboxes across rooms: which images may be used, which runtimes are asked for, and whether both make sense.
//!
//! Pure: asks no engine and reads no file.

use std::collections::BTreeSet;

use super::{Config, ConfigError};
use crate::sandbox::{Backend, images};

/// Processes and threads below which gVisor's own threads would not fit: they count in the same control group.
const LEAST_PIDS_OF_RUNSC: i64 = 1024;

impl Config {
    /// The images that sandboxes may be made of: those that the operator listed, else those that the agents name.
    #[must_use]
    pub fn images(&self) -> Vec<String> {
        if !self.sandbox.images.is_empty() {
            return self.sandbox.images.clone();
        }
        let of_set_ups = self
            .agents
            .values()
            .filter_map(|agent| agent.set_up.as_ref()?.image.as_deref());
        let of_agents = self.agents.values().map(|agent| agent.image.as_str());
        let named: BTreeSet<&str> = of_agents.chain(of_set_ups).collect();
        named.into_iter().map(str::to_owned).collect()
    }

    /// Every runtime that some session may ask for, by the key that asks.
    #[must_use]
    pub fn runtimes(&self) -> Vec<(String, &str)> {
        let all = [("sandbox.runtime".to_owned(), &self.sandbox.runtime)];
        let agents = self
            .agents
            .iter()
            .map(|(name, agent)| (format!("agents.{name}.runtime"), &agent.runtime));
        let tenants = self
            .tenants
            .iter()
            .map(|(name, tenant)| (format!("tenants.{name}.runtime"), &tenant.runtime));
        all.into_iter()
            .chain(agents)
            .chain(tenants)
            .filter_map(|(key, runtime)| Some((key, runtime.as_deref()?)))
            .collect()
    }
}

/// Whether images and runtimes are named well.
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    let wrong = |key: &str, detail: &str| {
        Err(ConfigError::Key {
            key: key.to_owned(),
            detail: detail.to_owned(),
        })
    };
    if config.sandbox.backend == Backend::Kubernetes {
        if let Err((key, rule)) = config.sandbox.kubernetes.check() {
            return wrong(&format!("sandbox.kubernetes.{key}"), rule);
        }
        if let Some(name) = config
            .agents
            .iter()
            .find_map(|(name, agent)| agent.set_up.as_ref().map(|_| name))
        {
            return wrong(
                &format!("agents.{name}.set_up"),
                "needs a directory that two sandboxes share, which sandbox.backend \"kubernetes\" has not",
            );
        }
    }
    for rule in &config.sandbox.images {
        if rule == "*" {
            return wrong(
                "sandbox.images",
                "`*` would allow every image: name them, or at least their registry",
            );
        }
        let formed = match rule.strip_suffix('*') {
            Some(beginning) => images::check_beginning(beginning),
            None => images::check_form(rule),
        };
        if let Err(detail) = formed {
            return wrong("sandbox.images", &format!("{rule:?}: {detail}"));
        }
    }
    for (name, agent) in &config.agents {
        if let Err(detail) = images::check_form(&agent.image) {
            return wrong(&format!("agents.{name}.image"), detail);
        }
    }
    for (key, runtime) in config.runtimes() {
        let plain = !runtime.is_empty()
            && runtime.len() <= 64
            && runtime
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if !plain {
            return wrong(
                &key,
                "must be the name of a runtime that the engine has, such as \"runsc\"",
            );
        }
        if runtime.contains("runsc") && config.sandbox.pids < LEAST_PIDS_OF_RUNSC {
            return wrong(
                "sandbox.pids",
                &format!(
                    "must be at least {LEAST_PIDS_OF_RUNSC} for {key} = {runtime:?}: gVisor's own threads count too"
                ),
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGENT: &str = "[agents.a]\nimage = \"i:1\"\ncommand = [\"c\"]\nco_author = \"A <a@b.c>\"\n";

    fn load(text: &str) -> Result<Config, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Config::load(Some(file.path()), []).map_err(|error| error.to_string())
    }

    #[test]
    fn without_a_list_the_agents_images_are_the_list() {
        assert_eq!(load(AGENT).unwrap().images(), ["i:1"]);
        let listed = load(&format!("[sandbox]\nimages = [\"own/*\"]\n{AGENT}")).unwrap();
        assert_eq!(listed.images(), ["own/*"]);
        assert_eq!(Config::default().images(), Vec::<String>::new());
    }

    #[test]
    fn every_mistake_names_its_key() {
        for (text, key) in [
            ("[sandbox]\nimages = [\"*\"]".to_owned(), "sandbox.images"),
            ("[sandbox]\nimages = [\"a@sha256:1\"]".to_owned(), "sandbox.images"),
            ("[sandbox]\nseccomp = \"unconfined\"".to_owned(), "sandbox.seccomp"),
            ("[sandbox]\nruntime = \"a b\"".to_owned(), "sandbox.runtime"),
            ("[sandbox]\nruntime = \"runsc\"\npids = 512".to_owned(), "sandbox.pids"),
            ("[tenants.a]\nruntime = \"\"".to_owned(), "tenants.a.runtime"),
            ("[tenants.A]".to_owned(), "tenant"),
            ("[tenants.a]\nimage = \"x\"".to_owned(), "image"),
            (AGENT.replace("i:1", "i@sha256:12"), "agents.a.image"),
            (format!("{AGENT}runtime = \"/bin/sh\""), "agents.a.runtime"),
        ] {
            let said = load(&text).unwrap_err();
            assert!(said.contains(key), "{text}: {said}");
        }
    }

    #[test]
    fn all_runtimes_are_known_with_the_key_that_asks() {
        let config = load(&format!(
            "[sandbox]\nruntime = \"r\"\n{AGENT}runtime = \"s\"\n[tenants.b]\n[tenants.c]\nruntime = \"t\""
        ))
        .unwrap();
        let expected = [
            ("sandbox.runtime", "r"),
            ("agents.a.runtime", "s"),
            ("tenants.c.runtime", "t"),
        ];
        assert_eq!(
            config.runtimes(),
            expected.map(|(key, runtime)| (key.to_owned(), runtime))
        );
    }
}
