//! Which files run on their own once they are on a forge or in a colleague's checkout: CI, hooks, editors' tasks. Pure.
//!
//! By their paths alone, without regard to case, because some file systems have none. A project whose CI file has another name (GitLab lets it
//! be chosen) is not known here, and neither is what build tools run when they are called.

use std::collections::BTreeSet;

use crate::repository::scan::Changed;

/// Names that count in any directory.
const NAMES: &[(&str, &str)] = &[
    (".gitlab-ci.yml", "GitLab CI"),
    (".gitlab-ci.yaml", "GitLab CI"),
    ("jenkinsfile", "Jenkins"),
    ("azure-pipelines.yml", "Azure Pipelines"),
    ("azure-pipelines.yaml", "Azure Pipelines"),
    (".pre-commit-config.yaml", "git hooks"),
    (".pre-commit-config.yml", "git hooks"),
    ("lefthook.yml", "git hooks"),
    ("lefthook.yaml", "git hooks"),
    ("lefthook.toml", "git hooks"),
    (".lefthook.yml", "git hooks"),
    (".overcommit.yml", "git hooks"),
    (".huskyrc", "git hooks"),
    (".huskyrc.json", "git hooks"),
    (".envrc", "direnv"),
    (".gitmodules", "submodules"),
    (".gitattributes", "git's filters"),
    (".mcp.json", "an agent's tools"),
    (".yarnrc.yml", "a package manager's hooks"),
    (".pnpmfile.cjs", "a package manager's hooks"),
    (".npmrc", "a package manager's hooks"),
    ("mise.toml", "a tool manager"),
    (".mise.toml", "a tool manager"),
];

/// Directories that count wherever they are, with every file in them.
const ANYWHERE: &[(&str, &str)] = &[
    (".claude", "an agent's tools"),
    (".cursor", "an agent's tools"),
    (".cargo", "a build tool's settings"),
    (".mise", "a tool manager"),
    (".idea", "an editor's tasks"),
    (".run", "an editor's tasks"),
];

/// Names that count at the top only.
const TOP: &[(&str, &str)] = &[
    (".travis.yml", "Travis CI"),
    ("appveyor.yml", "AppVeyor"),
    (".appveyor.yml", "AppVeyor"),
    (".drone.yml", "Drone"),
    (".drone.yaml", "Drone"),
    (".drone.jsonnet", "Drone"),
    (".drone.star", "Drone"),
    (".woodpecker.yml", "Woodpecker"),
    (".woodpecker.yaml", "Woodpecker"),
    ("bitbucket-pipelines.yml", "Bitbucket Pipelines"),
    (".cirrus.yml", "Cirrus CI"),
    (".cirrus.star", "Cirrus CI"),
    ("cloudbuild.yaml", "Cloud Build"),
    ("cloudbuild.yml", "Cloud Build"),
    ("buildspec.yml", "CodeBuild"),
    ("circle.yml", "CircleCI"),
    (".hound.yml", "a review bot"),
    ("renovate.json", "a dependency bot"),
    (".renovaterc", "a dependency bot"),
    (".renovaterc.json", "a dependency bot"),
    ("vercel.json", "deployment"),
    ("netlify.toml", "deployment"),
    (".gitpod.yml", "a development container"),
    (".devcontainer.json", "a development container"),
    ("codeowners", "who must review"),
    (".github/codeowners", "who must review"),
    (".gitlab/codeowners", "who must review"),
    ("docs/codeowners", "who must review"),
    (".github/dependabot.yml", "a dependency bot"),
    (".github/dependabot.yaml", "a dependency bot"),
    (".github/renovate.json", "a dependency bot"),
    (".vscode/tasks.json", "an editor's tasks"),
    (".vscode/settings.json", "an editor's tasks"),
    (".vscode/launch.json", "an editor's tasks"),
    (".vscode/mcp.json", "an agent's tools"),
    (".readthedocs.yml", "Read the Docs"),
    (".readthedocs.yaml", "Read the Docs"),
    ("readthedocs.yml", "Read the Docs"),
    ("readthedocs.yaml", "Read the Docs"),
    (".zuul.yaml", "Zuul"),
    ("zuul.yaml", "Zuul"),
    (".build.yml", "builds.sr.ht"),
    ("bitrise.yml", "Bitrise"),
    ("codefresh.yml", "Codefresh"),
    ("amplify.yml", "deployment"),
];

/// Directories of which every file counts, and the directories themselves when they are links.
const DIRECTORIES: &[(&str, &str)] = &[
    (".gitlab/ci", "GitLab CI"),
    (".gitlab-ci", "GitLab CI"),
    (".gitlab/agents", "GitLab CI"),
    (".github/workflows", "GitHub Actions"),
    (".github/actions", "GitHub Actions"),
    (".gitea/workflows", "Gitea Actions"),
    (".forgejo/workflows", "Forgejo Actions"),
    (".circleci", "CircleCI"),
    (".woodpecker", "Woodpecker"),
    (".buildkite", "Buildkite"),
    (".azure-pipelines", "Azure Pipelines"),
    (".semaphore", "Semaphore"),
    (".teamcity", "TeamCity"),
    (".tekton", "Tekton"),
    (".zuul.d", "Zuul"),
    ("zuul.d", "Zuul"),
    (".builds", "builds.sr.ht"),
    (".husky", "git hooks"),
    (".githooks", "git hooks"),
    (".git-hooks", "git hooks"),
    (".hooks", "git hooks"),
    (".lefthook", "git hooks"),
    (".devcontainer", "a development container"),
];

/// What runs a file on its own, by its path; `None` for other files.
#[must_use]
pub fn runs_on_its_own(path: &str) -> Option<&'static str> {
    let path = path.to_lowercase();
    let name = path.rsplit('/').next().unwrap_or_default();
    let of = |table: &[(&str, &'static str)], wanted: &str| {
        table.iter().find(|(known, _)| *known == wanted).map(|(_, what)| *what)
    };
    let in_directory = || {
        DIRECTORIES.iter().find_map(|(directory, what)| {
            // Above it: a link in the place of `.github` brings other workflows.
            let is_above = directory
                .strip_prefix(path.as_str())
                .is_some_and(|rest| rest.starts_with('/'));
            let is_below = path
                .strip_prefix(directory)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            (is_above || is_below).then_some(*what)
        })
    };
    // Files that others include by habit.
    let included = || {
        [".gitlab-ci.yml", ".gitlab-ci.yaml"]
            .iter()
            .any(|end| name.ends_with(end))
            .then_some("GitLab CI")
    };
    let anywhere = || path.split('/').find_map(|part| of(ANYWHERE, part));
    of(NAMES, name)
        .or_else(|| of(TOP, &path))
        .or_else(included)
        .or_else(in_directory)
        .or_else(anywhere)
}

/// The changed paths that run on their own, with what runs them. A link counts by where it leads, too.
pub(super) fn among(changed: &BTreeSet<Changed>) -> Vec<(String, &'static str)> {
    let what = |changed: &Changed| {
        let target = changed.target.as_deref().map(|target| resolved(&changed.path, target));
        runs_on_its_own(&changed.path).or_else(|| target.as_deref().and_then(runs_on_its_own))
    };
    changed
        .iter()
        .filter_map(|changed| Some((changed.path.clone(), what(changed)?)))
        .collect()
}

/// Where a link leads, from the top of the project.
fn resolved(path: &str, target: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    if target.starts_with('/') {
        parts.clear();
    }
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_on_its_own_is_known_by_its_path() {
        for (path, what) in [
            (".gitlab-ci.yml", "GitLab CI"),
            ("sub/.gitlab-ci.yml", "GitLab CI"),
            (".GitLab-CI.yml", "GitLab CI"),
            ("ci/build.gitlab-ci.yml", "GitLab CI"),
            (".gitlab/ci/test.yml", "GitLab CI"),
            (".github/workflows/x.yml", "GitHub Actions"),
            (".GITHUB/Workflows/x.yml", "GitHub Actions"),
            (".github/actions/setup/action.yml", "GitHub Actions"),
            (".github", "GitHub Actions"),
            ("Jenkinsfile", "Jenkins"),
            (".circleci/config.yml", "CircleCI"),
            ("azure-pipelines.yml", "Azure Pipelines"),
            ("bitbucket-pipelines.yml", "Bitbucket Pipelines"),
            (".drone.yml", "Drone"),
            (".woodpecker/a.yml", "Woodpecker"),
            (".woodpecker.yml", "Woodpecker"),
            (".travis.yml", "Travis CI"),
            (".buildkite/pipeline.yml", "Buildkite"),
            (".husky/pre-commit", "git hooks"),
            (".husky", "git hooks"),
            (".githooks/pre-push", "git hooks"),
            (".pre-commit-config.yaml", "git hooks"),
            ("lefthook.yml", "git hooks"),
            (".devcontainer/devcontainer.json", "a development container"),
            (".vscode/tasks.json", "an editor's tasks"),
            ("a/b/.envrc", "direnv"),
            (".github/CODEOWNERS", "who must review"),
            ("CODEOWNERS", "who must review"),
            (".tekton/push.yaml", "Tekton"),
            (".readthedocs.yaml", "Read the Docs"),
            (".readthedocs.yml", "Read the Docs"),
            (".zuul.yaml", "Zuul"),
            (".zuul.d/jobs.yaml", "Zuul"),
            (".build.yml", "builds.sr.ht"),
            (".builds/debian.yml", "builds.sr.ht"),
            ("bitrise.yml", "Bitrise"),
            ("codefresh.yml", "Codefresh"),
            ("amplify.yml", "deployment"),
            (".claude/settings.json", "an agent's tools"),
            ("sub/.mcp.json", "an agent's tools"),
            (".cursor/mcp.json", "an agent's tools"),
            (".vscode/mcp.json", "an agent's tools"),
            ("a/.cargo/config.toml", "a build tool's settings"),
            (".cargo/config", "a build tool's settings"),
            ("a/.yarnrc.yml", "a package manager's hooks"),
            (".pnpmfile.cjs", "a package manager's hooks"),
            (".npmrc", "a package manager's hooks"),
            ("mise.toml", "a tool manager"),
            (".mise.toml", "a tool manager"),
            (".idea/runConfigurations/x.xml", "an editor's tasks"),
            ("sub/.run/x.run.xml", "an editor's tasks"),
        ] {
            assert_eq!(runs_on_its_own(path), Some(what), "{path}");
        }
        for path in [
            "Makefile",
            "package.json",
            "src/.github-like/x.yml",
            ".github/ISSUE_TEMPLATE/bug.md",
            ".githubx/workflows/a.yml",
            "docs/gitlab-ci.md",
            ".circleci-notes",
            "src/jenkinsfile.rs",
            ".vscode/extensions.json",
            "x/.travis.yml",
            "",
        ] {
            assert_eq!(runs_on_its_own(path), None, "{path}");
        }
    }

    #[test]
    fn a_link_counts_by_where_it_leads() {
        let changed = |path: &str, target: Option<&str>| Changed {
            path: path.into(),
            target: target.map(str::to_owned),
        };
        let all = BTreeSet::from([
            changed("tools/ci.yml", Some("../.github/workflows/ci.yml")),
            changed("a/b/hooks", Some("../../.husky")),
            changed("plain", Some("src/main.rs")),
            changed("src/main.rs", None),
            changed("up", Some("../../../.circleci/config.yml")),
        ]);
        let paths: Vec<String> = among(&all).into_iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["a/b/hooks", "tools/ci.yml", "up"]);
    }
}
