//! How a project comes into the workspace: cloned from the gateway, or taken over from the set-up; then the session's branch is checked out.
//! Runs in the sandbox; its output is untrusted.

use tokio::io::AsyncReadExt as _;

use super::{base_environment, remote};
use crate::gateway::inside::Command;
use crate::gateway::{GatewayError, Inside, Process};
use crate::grant::{ProjectGrant, Trailers};
use crate::message::{EventBody, Reason};
use crate::progress::Progress;
use crate::sandbox::{INSIDE, WORKSPACE};
use crate::session::failure::Failure;

/// What `git clone` in the sandbox says last is kept up to here, in characters.
const LAST_WORDS: usize = 600;

/// A clone that runs.
pub(in crate::session) struct Cloning<'a> {
    process: Process,
    project: &'a ProjectGrant,
}

/// Clones one project and checks the session's branch out: from the forge's own when it exists there already, else from the base.
pub(in crate::session) async fn clone(
    inside: &Inside,
    project: &ProjectGrant,
    trailers: &Trailers,
    branch_exists: bool,
    shown: Option<&str>,
    progress: &Progress,
) -> Result<(), Failure> {
    let mut cloning = Cloning::begin(inside, project, trailers, branch_exists, shown).await?;
    cloning.finish(progress).await
}

impl<'a> Cloning<'a> {
    /// Begins it, from where its objects are shown in the sandbox, or else through the gateway. Either way it is the gateway's clone afterwards.
    pub(in crate::session) async fn begin(
        inside: &Inside,
        project: &'a ProjectGrant,
        trailers: &Trailers,
        branch_exists: bool,
        shown: Option<&str>,
    ) -> Result<Self, GatewayError> {
        let start = if branch_exists { &project.branch } else { &project.base };
        // The new branch is where the old one is, so nothing is checked out twice: git would read every file of a fresh tree once more.
        // `inside settle` does in one step what git would be run for three times. And files as young as the index would be read again by each
        // `status`, `add` and `commit`: 20 ms for 900 files, each time.
        // Progress goes to standard error, which is kept only at its end; both streams are read as one.
        // A tree that is there uncompressed is checked out by a git of its own, which looks into that pack first, and alone: two workers are no
        // quicker then, and take 15 ms more of the processors for 900 files.
        let script = "exec 2>&1; if [ -n \"$8\" ]; then late=; [ \"$3\" = \"$6\" ] || [ ! -e \"$8/prepared\" ] || late=--no-checkout; \
                      git -c protocol.file.allow=always clone --shared $late --progress \
                      -c \"user.name=$1\" -c \"user.email=$2\" --branch \"$3\" -- \"$8\" \"$5\" && \
                      { [ -z \"$late\" ] || git -C \"$5\" -c checkout.workers=1 reset --hard >/dev/null; }; \
                      else git clone --progress -c \"user.name=$1\" -c \"user.email=$2\" --branch \"$3\" -- \"$4\" \"$5\"; fi && \
                      cd \"$5\" && { \"$9\" settle . \"$4\" \"$6\" 2>/dev/null || { git config remote.origin.url \"$4\" && \
                      if [ \"$3\" != \"$6\" ]; then \
                      git update-ref \"refs/heads/$6\" HEAD && git symbolic-ref HEAD \"refs/heads/$6\"; fi; }; } && \
                      printf '%s\\n' \"$7\" > .git/cofferdam-trailers && \
                      if [ -f .gitmodules ]; then git config -f .gitmodules --get-regexp '^submodule\\..*\\.path$' | \
                      while read -r _ path; do git submodule --quiet update --init -- \"$path\" >/dev/null || \
                      echo \"the submodule $path is left out: it is no project of this session\"; done; fi";
        let mut process = inside
            .spawn(Command {
                argv: [
                    "sh",
                    "-c",
                    script,
                    "clone",
                    &project.identity.name,
                    &project.identity.email,
                    start.as_str(),
                    &remote(project),
                    &project.directory,
                    project.branch.as_str(),
                    &trailers.lines().join("\n"),
                    shown.unwrap_or_default(),
                    INSIDE,
                ]
                .map(str::to_owned)
                .to_vec(),
                env: base_environment(),
                directory: WORKSPACE.to_owned(),
            })
            .await?;
        drop(process.take_stdin());
        Ok(Self { process, project })
    }

    /// By which `inside` knows its process.
    pub(in crate::session) fn process(&self) -> u32 {
        self.process.id()
    }

    /// Waits for its end, telling how far it is. Cancel-safe in that the process goes on.
    pub(in crate::session) async fn finish(&mut self, progress: &Progress) -> Result<(), Failure> {
        let key = &self.project.key;
        let mut last_lines = String::new();
        if let Some(mut output) = self.process.take_stdout() {
            let mut buffer = vec![0_u8; 8 * 1024];
            while let Ok(count @ 1..) = output.read(&mut buffer).await {
                for line in String::from_utf8_lossy(&buffer[..count])
                    .split(['\r', '\n'])
                    .filter(|line| !line.is_empty())
                {
                    match clone_progress(line) {
                        Some((phase, percent)) => {
                            let project = key.clone();
                            progress.note(EventBody::Clone {
                                project,
                                phase,
                                percent,
                            });
                        }
                        None => {
                            last_lines = format!("{last_lines} {line}");
                            let surplus = last_lines.chars().count().saturating_sub(LAST_WORDS);
                            last_lines = last_lines.chars().skip(surplus).collect();
                        }
                    }
                }
            }
        }
        let exit = self.process.wait().await;
        if exit.is_success() {
            if last_lines.contains("is left out") {
                let code = "submodule_left_out".to_owned();
                let message = format!("{key}: {}", last_lines.trim());
                progress.state(EventBody::Warning { code, message }).await;
            }
            return Ok(());
        }
        let message = format!(
            "{key} could not be cloned inside the sandbox (status {}): {}",
            exit.status,
            last_lines.trim()
        );
        Err(Failure::new(Reason::CloneFailed, message))
    }
}

/// Makes the directory of a project that comes into a workspace in which an agent works already: what is there is the agent's, and stays.
pub(in crate::session) async fn make_directory(inside: &Inside, project: &ProjectGrant) -> Result<(), Failure> {
    let script = "mkdir -p -- \"$(dirname -- \"$1\")\" && mkdir -- \"$1\"";
    let argv = ["sh", "-c", script, "make", &project.directory];
    let process = inside
        .spawn(Command {
            argv: argv.map(str::to_owned).to_vec(),
            env: base_environment(),
            directory: WORKSPACE.to_owned(),
        })
        .await?;
    let (exit, _, _) = process.finish(0).await;
    if exit.is_success() {
        return Ok(());
    }
    let message = format!(
        "{} cannot be made in the sandbox: something is there already, or there is no room; have the agent move it away, then add the project again",
        project.directory
    );
    Err(Failure::new(Reason::CloneFailed, message))
}

/// Removes what [`make_directory`] made and whatever came into it.
pub(in crate::session) async fn unmake_directory(inside: &Inside, project: &ProjectGrant) -> Result<(), GatewayError> {
    let below = project.directory.strip_prefix(WORKSPACE).unwrap_or_default();
    let below = below.trim_start_matches('/');
    let script = "rm -rf -- \"$1\"; rmdir -p -- \"$(dirname -- \"$1\")\" 2>/dev/null; true";
    let process = inside
        .spawn(Command {
            argv: ["sh", "-c", script, "unmake", below].map(str::to_owned).to_vec(),
            env: base_environment(),
            directory: WORKSPACE.to_owned(),
        })
        .await?;
    drop(process.finish(0).await);
    Ok(())
}

/// Takes over a project that the set-up cloned: the session's branch is checked out, now that no secret is in reach. What the set-up left in
/// the tree stays, unless the branch has something else there.
pub(in crate::session) async fn adopt(
    inside: &Inside,
    project: &ProjectGrant,
    trailers: &Trailers,
    branch_exists: bool,
) -> Result<(), Failure> {
    let (start, track) = if branch_exists {
        (&project.branch, "--track")
    } else {
        (&project.base, "--no-track")
    };
    let script = "cd \"$1\" && dir=$(git rev-parse --git-dir) && printf '%s\\n' \"$5\" > \"$dir/cofferdam-trailers\" && \
                  { git checkout -q \"$4\" -B \"$3\" \"origin/$2\" 2>/dev/null || git checkout -q -f \"$4\" -B \"$3\" \"origin/$2\"; } && \
                  git symbolic-ref -q HEAD >/dev/null";
    let process = inside
        .spawn(Command {
            argv: [
                "sh",
                "-c",
                script,
                "adopt",
                &project.directory,
                start.as_str(),
                project.branch.as_str(),
                track,
                &trailers.lines().join("\n"),
            ]
            .map(str::to_owned)
            .to_vec(),
            env: base_environment(),
            directory: WORKSPACE.to_owned(),
        })
        .await?;
    let (exit, _, errors) = process.finish(0).await;
    if exit.is_success() {
        return Ok(());
    }
    let said: String = errors
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .take(600)
        .collect();
    let message = format!(
        "the branch {start} of {} could not be checked out after the set-up (status {}): {said}",
        project.key, exit.status
    );
    Err(Failure::new(Reason::CloneFailed, message))
}

/// "Receiving objects:  42% (…)" as phase and percentage.
fn clone_progress(line: &str) -> Option<(String, u8)> {
    let (phase, rest) = line.trim_start_matches("remote: ").split_once(':')?;
    let (percent, _) = rest.trim_start().split_once('%')?;
    let percent: u8 = percent.trim().parse().ok()?;
    let known = [
        "Enumerating objects",
        "Counting objects",
        "Compressing objects",
        "Receiving objects",
        "Resolving deltas",
        "Updating files",
        "Checking out files",
    ];
    (percent <= 100 && known.contains(&phase)).then(|| (phase.to_owned(), percent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn git_progress_is_read_and_other_lines_are_not() {
        assert_eq!(
            clone_progress("Receiving objects:  42% (42/100), 1.2 MiB"),
            Some(("Receiving objects".into(), 42))
        );
        assert_eq!(
            clone_progress("remote: Counting objects: 100% (5/5), done."),
            Some(("Counting objects".into(), 100))
        );
        assert_eq!(clone_progress("fatal: repository not found: 42%"), None);
        assert_eq!(clone_progress("Receiving objects: 400% (1/1)"), None);
    }
}
