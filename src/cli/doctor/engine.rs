//! What `doctor` finds of the engine: versions and their known faults, runtimes that are asked for, images, processes that were left behind.
//!
//! Only looks, and asks each gVisor that the engine names for its version.

use std::path::Path;
use std::time::Duration;

use super::faults;
use super::{Finding, ok, problem, warning};
use crate::config::Config;
use crate::sandbox::docker::DockerEngine;
use crate::sandbox::{Engine as _, Survey};

/// How long a runtime may take to say its version.
const VERSION_TIMEOUT: Duration = Duration::from_secs(5);

/// Looks at all of it.
pub(super) async fn engine(config: &Config, engine: &DockerEngine, findings: &mut Vec<Finding>) {
    match engine.check().await {
        Ok(facts) => findings.push(ok(
            "engine",
            format!(
                "version {}, API {}, default runtime {}",
                facts.version, facts.api, facts.runtime
            ),
        )),
        Err(error) => {
            findings.push(problem(
                "engine",
                error.to_string(),
                "systemctl start docker; or, without systemd, deploy/docker.sh",
            ));
            return;
        }
    }
    match engine.survey().await {
        Ok(survey) => {
            findings.push(versions(&survey).await);
            findings.extend(known_faults(&survey));
            findings.extend(orphans(&survey, Path::new("/proc")));
        }
        Err(error) => findings.push(warning("engine's parts", error.to_string(), "see the engine's log")),
    }
    for (key, runtime) in config.runtimes() {
        findings.push(match engine.require_runtime(runtime).await {
            Ok(()) => ok(&key, runtime.to_owned()),
            Err(error) => problem(
                &key,
                error.to_string(),
                "COFFERDAM_RUNSC=1 deploy/docker.sh start registers runsc; sessions that ask for it are refused until then",
            ),
        });
    }
    if config.agents.is_empty() {
        findings.push(warning(
            "agents",
            "none configured".to_owned(),
            "add an [agents.NAME] section, see the README",
        ));
    }
    for (name, agent) in &config.agents {
        findings.push(match engine.require_image(&agent.image).await {
            Ok(_) => ok(&format!("image of agent {name}"), agent.image.clone()),
            Err(error) => problem(
                &format!("image of agent {name}"),
                error.to_string(),
                &format!("docker pull {0}; or sandbox-images/build.sh", agent.image),
            ),
        });
    }
}

/// The engine's parts, the control groups, and each gVisor's own word.
async fn versions(survey: &Survey) -> Finding {
    let mut words: Vec<String> = survey
        .components
        .iter()
        .map(|(name, version)| format!("{name} {version}"))
        .collect();
    for (name, program) in &survey.runtimes {
        if program.contains("runsc") {
            let version = version_of(program).await;
            words.push(format!(
                "{name} {}",
                version.unwrap_or_else(|| "of unknown version".to_owned())
            ));
        }
    }
    words.push(format!("cgroups version {}", survey.cgroups));
    ok("engine's parts", words.join(", "))
}

/// The first line of what a program says to `--version`; it may be on another machine.
async fn version_of(program: &str) -> Option<String> {
    let asked = tokio::process::Command::new(program)
        .arg("--version")
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(VERSION_TIMEOUT, asked).await.ok()?.ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().next()?.rsplit(' ').next()?;
    (!line.is_empty()).then(|| line.chars().take(60).collect())
}

fn known_faults(survey: &Survey) -> Vec<Finding> {
    let of = |(name, version): &(String, String)| {
        let faults = faults::known(name, version);
        (!faults.is_empty()).then(|| {
            warning(
                &format!("{name} {version}"),
                faults.join("; "),
                "install a newer one, or ask your distribution's security tracker whether it mended this version",
            )
        })
    };
    survey.components.iter().filter_map(of).collect()
}

/// Processes of gVisor that belong to no container: a start that failed can leave them, and the engine does not list them.
fn orphans(survey: &Survey, proc: &Path) -> Option<Finding> {
    let mut left = Vec::new();
    for entry in std::fs::read_dir(proc).ok()?.filter_map(Result::ok) {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(command) = std::fs::read(entry.path().join("cmdline")) else {
            continue;
        };
        if is_orphan(&command, &survey.containers) {
            left.push(pid.to_string());
        }
    }
    (!left.is_empty()).then(|| {
        warning(
            "left processes",
            format!(
                "gVisor's processes {} belong to no container of this engine",
                left.join(", ")
            ),
            "end them with `kill`, unless another engine on this machine uses gVisor",
        )
    })
}

/// Whether a process's arguments are those of a gVisor sandbox or gofer of none of these containers.
fn is_orphan(command: &[u8], containers: &[String]) -> bool {
    let mut words = command.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let is_runsc = words
        .next()
        .is_some_and(|first| matches!(first.rsplit('/').next(), Some("runsc-sandbox" | "runsc-gofer")));
    is_runsc && !words.any(|word| containers.iter().any(|id| word.contains(id.as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_gvisor_process_without_a_container_is_left_over() {
        let containers = ["abc123".to_owned()];
        let orphan = |command: &str| is_orphan(command.replace(' ', "\0").as_bytes(), &containers);
        assert!(orphan("runsc-sandbox --root=/x boot --bundle=/run/def456 def456"));
        assert!(orphan("runsc-gofer gofer --bundle /run/def456"));
        assert!(!orphan("runsc-sandbox boot abc123"));
        assert!(!orphan("runsc-gofer gofer --bundle /run/abc123"));
        assert!(!orphan("grep runsc-sandbox"));
        assert!(!orphan(""));
    }
}
