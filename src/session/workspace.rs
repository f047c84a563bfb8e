//! What the worker has done inside the sandbox besides the agent: git's settings, clones, and at the end of a turn the commit of what
//! was left and the push into staging. All of it runs in the sandbox; its output is untrusted.

use std::fmt::Write as _;
use std::time::Duration;

use super::failure::Failure;
use crate::gateway::inside::Command;
use crate::gateway::{GatewayError, HTTP_PORT, Inside, PROXY_PORT};
use crate::grant::{Grant, ProjectGrant};
use crate::message::Uncommitted;
use crate::sandbox::{HOME, INSIDE, TOOLS_DIRECTORY, WORKSPACE};

mod checkout;

pub(super) use checkout::{Cloning, adopt, clone, make_directory, unmake_directory};

/// Where git's system-wide settings are in the sandbox.
const GIT_CONFIG: &str = "/home/agent/.cofferdam/gitconfig";
/// Where the trailers are in the sandbox; `inside` reads them there.
const TRAILERS: &str = "/home/agent/.cofferdam/trailers";
/// How long the steps at the end of a turn may take for one project.
const COLLECT_TIMEOUT: Duration = Duration::from_secs(120);

/// How long ending what an agent left may take.
const QUIET_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a project is cloned from, seen from inside.
pub(super) fn remote(project: &ProjectGrant) -> String {
    format!(
        "http://127.0.0.1:{HTTP_PORT}/git/{}/{}.git",
        project.connection, project.key.path
    )
}

/// The environment of every process in the sandbox. The way out is named at every level: a proxy's refusal says more than a dead network.
pub(super) fn base_environment() -> Vec<(String, String)> {
    let proxy = format!("http://127.0.0.1:{PROXY_PORT}");
    let proxies = [
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
    ];
    let plain = [
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("HOME", HOME),
        ("USER", "agent"),
        ("LANG", "C.UTF-8"),
        ("TMPDIR", "/tmp"),
        ("GIT_CONFIG_SYSTEM", GIT_CONFIG),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("COFFERDAM_TRAILERS", TRAILERS),
        ("NO_PROXY", "127.0.0.1,::1,localhost"),
        ("no_proxy", "127.0.0.1,::1,localhost"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    plain
        .into_iter()
        .chain(proxies.map(|name| (name.to_owned(), proxy.clone())))
        .collect()
}

/// Opens the gateway's ports and writes git's settings and the trailers.
pub(super) async fn prepare(inside: &Inside, grant: &Grant) -> Result<(), Failure> {
    // For repositories that are not our clones; those have trailers of their own.
    let trailers = grant
        .trailers
        .values()
        .next()
        .map(|trailers| trailers.lines().join("\n") + "\n");
    let trailers = trailers.unwrap_or_default();
    tokio::try_join!(
        inside.listen(HTTP_PORT),
        inside.listen(PROXY_PORT),
        configure(inside, grant),
        inside.write_file(TRAILERS, 0o644, &trailers),
    )?;
    Ok(())
}

/// Writes git's settings: where the addresses of these projects lead.
pub(super) async fn configure(inside: &Inside, grant: &Grant) -> Result<(), GatewayError> {
    inside.write_file(GIT_CONFIG, 0o644, &git_config(grant)).await
}

/// git's settings in the sandbox: the session's hooks, plain pushes, and the forge's own addresses led to the gateway.
fn git_config(grant: &Grant) -> String {
    let mut text = format!(
        "[core]\n\thooksPath = {TOOLS_DIRECTORY}/hooks\n[safe]\n\tdirectory = *\n[push]\n\tdefault = current\n\tautoSetupRemote = true\n\
         [pull]\n\trebase = false\n[protocol \"file\"]\n\tallow = never\n[credential]\n\thelper =\n[advice]\n\tdetachedHead = false\n\
         [commit]\n\tgpgSign = false\n[tag]\n\tgpgSign = false\n[checkout]\n\tworkers = 2\n[gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n[user]\n\tuseConfigOnly = true\n"
    );
    for project in &grant.projects {
        let _ = writeln!(text, "[url \"{}\"]", remote(project));
        for address in addresses(&project.clone_url) {
            let _ = writeln!(text, "\tinsteadOf = \"{}\"", quoted(&address));
        }
    }
    text
}

/// How people write the address of a project in remotes and `.gitmodules`: with and without `.git`, over HTTPS and SSH. git takes the
/// longest that fits, so one project's never stands for another that is granted too.
fn addresses(clone_url: &str) -> Vec<String> {
    let bare = clone_url.strip_suffix(".git").unwrap_or(clone_url);
    let mut all = vec![format!("{bare}.git"), bare.to_owned()];
    if let Some((host, path)) = bare.split_once("://").and_then(|(_, rest)| rest.split_once('/')) {
        let host = host.split_once(':').map_or(host, |(host, _)| host);
        for path in [format!("{path}.git"), path.to_owned()] {
            all.push(format!("git@{host}:{path}"));
            all.push(format!("ssh://git@{host}/{path}"));
        }
    }
    all
}

/// Fit for a quoted value of a git configuration.
fn quoted(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .flat_map(|c| {
            if matches!(c, '"' | '\\') {
                vec!['\\', c]
            } else {
                vec![c]
            }
        })
        .collect()
}

/// What came of collecting one project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Collected {
    /// Everything committed is in staging, or there was nothing.
    Taken,
    /// Staging or git said no; its words.
    Refused(String),
}

/// Ends the agent and all that it left running, so that nobody changes the work, holds its locks or keeps connections while it is taken.
///
/// A signal to the agent's group would miss daemons. No process is started for it: one that forks without end leaves no room for any.
pub(super) async fn quiet(inside: &Inside) {
    if !inside.is_alone() {
        return;
    }
    // Where it does not work, taking the commits has limits of its own.
    match tokio::time::timeout(QUIET_TIMEOUT, inside.quiet()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "what an agent left running was not ended"),
        Err(_) => tracing::warn!("what an agent left running was not ended in time"),
    }
}

/// Whether the agent is there for another turn while its work is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Agent {
    /// It is, and so is what it left running.
    Stays,
    /// It was ended.
    Ends,
}

/// Commits what the agent left, by policy, and pushes the checked-out commit to the session's branch in staging.
pub(super) async fn collect(
    inside: &Inside,
    project: &ProjectGrant,
    policy: Uncommitted,
    message: &str,
    agent: Agent,
) -> Result<Collected, Failure> {
    // A lock of a living agent's git is given a moment to go by itself.
    let patience = match agent {
        Agent::Stays => "20",
        Agent::Ends => "0",
    };
    let commit = match policy {
        Uncommitted::Commit => "yes",
        Uncommitted::Discard => "no",
    };
    // Whoever held a lock of this repository is dead by now. What cannot be committed does not keep what is committed. A commit that a
    // hook-less tool made lacks the trailers; `inside trailers` adds them before anything is accepted. The repository's own hooks are left
    // out: they have had their say with the agent, and must not hold its work back.
    let script = "exec 2>&1; hooks=$6; ours() { git -c core.hooksPath=\"$hooks\" \"$@\"; }; cd \"$1\" || exit 90; left=0; \
        if [ -d .git ]; then dir=.git; else dir=$(git rev-parse --git-dir) || exit 94; fi; \
        n=0; while [ -e \"$dir/index.lock\" ] && [ $n -lt \"$7\" ]; do sleep 0.1; n=$((n+1)); done; \
        for lock in \"$dir/index.lock\" \"$dir/HEAD.lock\"; do [ ! -e \"$lock\" ] || rm -f \"$lock\"; done; \
        find \"$dir/refs\" -name '*.lock' -type f -delete; \
        if [ \"$2\" = yes ]; then changes=$(git --no-optional-locks status --porcelain) || left=95; \
        [ -z \"$changes\" ] || { git add -A && ours commit -q --no-verify -m \"$3\"; } || left=91; fi; \
        new=$(git rev-list --count HEAD --not --remotes=origin) || exit 92; \
        [ \"$new\" = 0 ] && exit $left; \
        ours push -q origin \"HEAD:refs/heads/$4\" && exit $left; \
        git symbolic-ref -q HEAD >/dev/null || ours checkout -q -B \"$4\" || exit 93; \
        \"$5\" trailers && ours push -q origin \"HEAD:refs/heads/$4\" && exit $left";
    let process = inside
        .spawn(Command {
            argv: [
                "sh",
                "-c",
                script,
                "collect",
                &project.directory,
                commit,
                message,
                project.branch.as_str(),
                INSIDE,
                &format!("{TOOLS_DIRECTORY}/hooks"),
                patience,
            ]
            .map(str::to_owned)
            .to_vec(),
            env: base_environment(),
            directory: WORKSPACE.to_owned(),
        })
        .await?;
    let id = process.id();
    let Ok((exit, output, _)) = tokio::time::timeout(COLLECT_TIMEOUT, process.finish(64 * 1024)).await else {
        let _ = inside.signal(id, 9).await;
        return Ok(Collected::Refused(format!(
            "taking the commits took longer than {} s",
            COLLECT_TIMEOUT.as_secs()
        )));
    };
    if exit.is_success() {
        return Ok(Collected::Taken);
    }
    let said = String::from_utf8_lossy(&output);
    let end: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let end = end[end.len().saturating_sub(12)..].join(" / ");
    Ok(Collected::Refused(format!(
        "status {}: {}",
        exit.status,
        end.chars().take(1500).collect::<String>()
    )))
}

/// Removes a project's files from the sandbox.
pub(super) async fn erase(inside: &Inside, project: &ProjectGrant) {
    let order = Command {
        argv: ["rm", "-rf", "--", &project.directory].map(str::to_owned).to_vec(),
        env: base_environment(),
        directory: "/".to_owned(),
    };
    match inside.spawn(order).await {
        Ok(process) => drop(process.finish(0).await),
        Err(error) => {
            tracing::warn!(project = %project.key, %error, "a dropped project stays in its sandbox until the end")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_is_known_by_each_of_its_addresses() {
        assert_eq!(
            addresses("https://h:8443/gitlab/a/b.git"),
            [
                "https://h:8443/gitlab/a/b.git",
                "https://h:8443/gitlab/a/b",
                "git@h:gitlab/a/b.git",
                "ssh://git@h/gitlab/a/b.git",
                "git@h:gitlab/a/b",
                "ssh://git@h/gitlab/a/b",
            ]
        );
    }

    #[test]
    fn a_value_cannot_leave_its_quotes() {
        assert_eq!(quoted("a\"]\n[core] x = \\"), "a\\\"][core] x = \\\\");
    }
}
