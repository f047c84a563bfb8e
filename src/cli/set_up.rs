//! Looks up the secrets of set-ups that the operator's configuration names. No task has a word in it.

use crate::agent::Agents;
use crate::agent::set_up::Source;
use crate::message::AgentName;
use crate::secret::Secret;
use crate::session::SetUpSecrets;

/// Shorter values could not be told from ordinary words when the workspace is searched for them.
const SHORTEST: usize = 8;
/// Longest value, in bytes: all of them have to fit an order to the sandbox.
const LONGEST: usize = 16 * 1024;

/// The secrets of all agents' set-ups.
///
/// # Errors
/// The key, and what is wrong with the secret, never its value.
pub(super) fn secrets(agents: &Agents) -> Result<std::collections::BTreeMap<AgentName, SetUpSecrets>, String> {
    let mut all = std::collections::BTreeMap::new();
    for (agent, config) in agents {
        let Some(set_up) = &config.set_up else { continue };
        let mut secrets = SetUpSecrets::new();
        for (name, source) in &set_up.secrets {
            let secret = read(source).map_err(|problem| format!("agents.{agent}.set_up.secrets.{name}: {problem}"))?;
            secrets.push((name.clone(), secret));
        }
        all.insert(agent.clone(), secrets);
    }
    Ok(all)
}

fn read(source: &Source) -> Result<Secret, String> {
    let text = match source {
        Source::Env(name) => std::env::var(name).map_err(|_| format!("the variable {name} is not set"))?,
        Source::File(path) => std::fs::read_to_string(path)
            .map_err(|error| format!("the file {} cannot be read: {error}", path.display()))?,
    };
    let text = zeroize::Zeroizing::new(text);
    let secret = Secret::new(&text);
    let length = secret.expose().len();
    if (SHORTEST..=LONGEST).contains(&length) && !secret.expose().contains('\0') {
        Ok(secret)
    } else {
        Err(format!(
            "the value must have {SHORTEST} to {LONGEST} bytes without NUL: a shorter one could not be searched for in the workspace"
        ))
    }
}
