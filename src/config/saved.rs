//! What the configuration says of agents' saved states: where they are kept, and which paths of an agent's home directory they are.
//!
//! Pure: looks at no directory.

use super::{Config, ConfigError, LONGEST_S};
use crate::agent::Protocol;

/// Most paths of one agent.
const MOST_PATHS: usize = 16;
/// Longest path, in bytes.
const LONGEST_PATH: usize = 200;
/// Largest state that can be allowed, in bytes: a sandbox's home directory holds 512 MiB.
const LARGEST: u64 = 512 * 1024 * 1024;

/// Whether directory, bounds and paths make sense.
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    let wrong = |key: &str, detail: &str| {
        Err(ConfigError::Key {
            key: key.to_owned(),
            detail: detail.to_owned(),
        })
    };
    let session = &config.session;
    if session.saved_states.as_ref().is_some_and(|path| !path.is_absolute()) {
        return wrong("session.saved_states", "must be an absolute path");
    }
    if !(1..=LARGEST).contains(&session.most_saved_state) {
        return wrong(
            "session.most_saved_state",
            "must be at least 1 and at most 536870912 (512 MiB): leave session.saved_states out to save nothing",
        );
    }
    if !(1..=LONGEST_S).contains(&session.saved_state_s) {
        return wrong(
            "session.saved_state_s",
            "must be a number of seconds that is not 0, and at most 30 days",
        );
    }
    for (name, agent) in &config.agents {
        let key = format!("agents.{name}.saved_state");
        if agent.saved_state.len() > MOST_PATHS {
            return wrong(&key, "must be at most 16 paths");
        }
        if !agent.saved_state.iter().all(|path| is_inside(path)) {
            return wrong(
                &key,
                "paths are relative to the home directory, stay in it and are not all of it: at most 200 bytes, without . and .., and not .cofferdam",
            );
        }
        if agent.protocol == Protocol::Command && !agent.saved_state.is_empty() {
            return wrong(
                &key,
                "must be empty where protocol is \"command\": a plain command has no way to load it",
            );
        }
    }
    Ok(())
}

/// A path below the home directory, without detours, that is not our own place there.
fn is_inside(path: &str) -> bool {
    let plain = !path.is_empty() && path.len() <= LONGEST_PATH && !path.contains(char::is_control);
    plain
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
        && path.split('/').next() != Some(".cofferdam")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Config::load(Some(file.path()), [])
    }

    #[test]
    fn paths_stay_in_the_home_directory_and_mistakes_name_their_key() {
        let agent = "[agents.a]\nimage = \"i\"\ncommand = [\"c\"]\nco_author = \"A <a@b.c>\"\n";
        let says = |text: &str| load(text).unwrap_err().to_string();
        for good in ["[]", "[\".local/share/opencode\", \".codex\"]", "[\"a..b\", \"-x\"]"] {
            assert!(load(&format!("{agent}saved_state = {good}")).is_ok(), "{good}");
        }
        for bad in [
            "/etc",
            "",
            ".",
            "..",
            "a/../b",
            "a//b",
            "a/",
            "./a",
            ".cofferdam",
            ".cofferdam/x",
            "a\\nb",
            &"x".repeat(201),
        ] {
            let said = says(&format!("{agent}saved_state = [\"{bad}\"]"));
            assert!(said.contains("agents.a.saved_state"), "{bad}: {said}");
        }
        let many = vec!["\"x\""; 17].join(",");
        assert!(says(&format!("{agent}saved_state = [{many}]")).contains("at most 16"));
        let said = says(&format!("{agent}saved_state = [\"x\"]\nprotocol = \"command\""));
        assert!(said.contains("agents.a.saved_state"), "{said}");
        assert!(load("[session]\nsaved_states = \"/srv/states\"\nmost_saved_state = 1000\nsaved_state_s = 60").is_ok());
        for (key, value) in [
            ("saved_states", "\"states\""),
            ("most_saved_state", "0"),
            ("most_saved_state", "536870913"),
            ("saved_state_s", "0"),
            ("saved_state_s", "9999999999"),
        ] {
            let said = says(&format!("[session]\n{key} = {value}"));
            assert!(said.contains(&format!("session.{key}")), "{said}");
        }
    }
}
