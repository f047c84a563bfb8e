//! GitLab's push options: `merge_request.create` and its relatives open or update a merge request by a push alone,
//! the only way for a token that has `write_repository` and nothing more.
//!
//! Never lets a wrong option fail the push: it prints the box of warnings, as GitLab does.

use jiff::Timestamp;

use super::{Told, Update};
use crate::forge::Forge;
use crate::forge::change_request::{self, Opened, Proposal};
use crate::forge::git::GitError;
use crate::forge::gitlab::with_draft_prefix;
use crate::forge::state::{Caller, Project};

/// GitLab handles no more branches of one push.
const BRANCH_LIMIT: usize = 10;

/// The options that concern merge requests.
#[derive(Debug, Default)]
struct Wishes {
    /// As given, for the box.
    given: Vec<String>,
    create: bool,
    target: Option<String>,
    title: Option<String>,
    description: Option<String>,
    draft: bool,
    remove_source_branch: bool,
    squash: bool,
    labels: Vec<String>,
    unlabels: Vec<String>,
}

impl Wishes {
    fn parse(options: &[String]) -> Self {
        let mut wishes = Self::default();
        for option in options {
            let Some(rest) = option
                .strip_prefix("merge_request.")
                .or_else(|| option.strip_prefix("mr."))
            else {
                continue;
            };
            let (key, value) = match rest.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (rest, None),
            };
            let on = value.is_none_or(|value| value != "false");
            let text = value.map(ToOwned::to_owned);
            match key {
                "create" => wishes.create = on,
                "target" => wishes.target = text,
                "title" => wishes.title = text,
                // A push option holds no line end: GitLab reads the two characters \n as one.
                "description" => wishes.description = text.map(|text| text.replace("\\n", "\n")),
                "draft" => wishes.draft = on,
                "remove_source_branch" => wishes.remove_source_branch = on,
                "squash" => wishes.squash = on,
                "label" => wishes.labels.extend(text),
                "unlabel" => wishes.unlabels.extend(text),
                _ => continue,
            }
            wishes.given.push(format!("'merge_request.{rest}'"));
        }
        wishes
    }
}

/// Does what the options of a push say; returns what the hook prints about it.
pub(super) async fn apply(forge: &Forge, project: &Project, caller: &Caller, told: &Told) -> Result<String, GitError> {
    let wishes = Wishes::parse(&told.options);
    if wishes.given.is_empty() {
        return Ok(String::new());
    }
    let branches: Vec<(&str, &Update)> = told
        .updates
        .iter()
        .filter(|update| !update.deletes())
        .filter_map(|update| Some((update.branch()?, update)))
        .filter(|(branch, _)| *branch != project.default_branch)
        .collect();
    let known = project.repository.branches().await?;
    let mut errors = Vec::new();
    if !project.change_requests_enabled {
        errors.push(format!("Merge requests are not enabled for project {}", project.path));
    } else if branches.len() > BRANCH_LIMIT {
        errors.push(format!(
            "Too many branches pushed ({} were pushed, limit is {BRANCH_LIMIT})",
            branches.len()
        ));
    } else if let Some(target) = wishes.target.as_ref().filter(|target| !known.contains_key(*target)) {
        errors.push(format!("Branch {target} does not exist"));
    } else {
        for (branch, update) in branches {
            errors.extend(one_branch(forge, project, caller, &wishes, branch, update).await?);
        }
    }
    let boxes: Vec<String> = errors.iter().map(|error| warning(&wishes, error)).collect();
    Ok(boxes.concat())
}

async fn one_branch(
    forge: &Forge,
    project: &Project,
    caller: &Caller,
    wishes: &Wishes,
    branch: &str,
    update: &Update,
) -> Result<Option<String>, GitError> {
    let open: Vec<u64> = forge.reread(project).open_from(branch).map(|one| one.number).collect();
    if let Some(number) = open.first() {
        change(forge, project, *number, wishes);
        return Ok(None);
    }
    if !wishes.create {
        return Ok(Some(format!(
            "A merge_request.create push option is required to create a merge request for branch {branch}"
        )));
    }
    let target = wishes.target.clone().unwrap_or_else(|| project.default_branch.clone());
    let (title, description) = built(project, &target, branch, update).await?;
    let title = wishes.title.clone().unwrap_or(title);
    let proposal = Proposal {
        title: if wishes.draft { with_draft_prefix(&title) } else { title },
        description: wishes.description.clone().unwrap_or(description),
        source: branch.to_owned(),
        target,
        author: caller.user.id,
        labels: wishes.labels.clone(),
        assignees: vec![caller.user.id],
        remove_source_branch: wishes.remove_source_branch.then_some(true),
        squash: wishes.squash,
        draft: false,
        reviewers: Vec::new(),
    };
    match change_request::open(forge, project, proposal, &update.new).await? {
        Opened::New(_) => Ok(None),
        Opened::Exists(number) => Ok(Some(format!(
            "Another open merge request already exists for this source branch: !{number}"
        ))),
    }
}

/// Title and description that GitLab makes up: those of the only commit, or the branch's name.
async fn built(project: &Project, target: &str, branch: &str, update: &Update) -> Result<(String, String), GitError> {
    let commits = project
        .repository
        .commits_between(&format!("refs/heads/{target}"), &update.new)
        .await?;
    let (title, mut description) = match &commits[..] {
        [only] => (only.title().to_owned(), only.body().to_owned()),
        _ => {
            let words = branch.replace(['-', '_'], " ");
            let mut letters = words.chars();
            let first = letters
                .next()
                .map(|letter| letter.to_uppercase().to_string())
                .unwrap_or_default();
            (first + letters.as_str(), String::new())
        }
    };
    // A branch that begins with an issue's number closes that issue.
    if let Some(issue) = branch
        .split_once('-')
        .and_then(|(number, _)| number.parse::<u64>().ok())
        && project.issues.iter().any(|one| one.number == issue)
    {
        let gap = if description.is_empty() { "" } else { "\n\n" };
        description.push_str(&format!("{gap}Closes #{issue}"));
    }
    Ok((title, description))
}

fn change(forge: &Forge, project: &Project, number: u64, wishes: &Wishes) {
    let mut world = forge.world();
    let Some(one) = world.change_request_mut(project.id, number) else {
        return;
    };
    if let Some(title) = &wishes.title {
        one.title.clone_from(title);
    }
    if wishes.draft {
        one.title = with_draft_prefix(&one.title);
    }
    if let Some(description) = &wishes.description {
        one.description.clone_from(description);
    }
    if let Some(target) = &wishes.target {
        one.target.clone_from(target);
    }
    if wishes.remove_source_branch {
        one.remove_source_branch = Some(true);
    }
    one.squash |= wishes.squash;
    one.labels.retain(|label| !wishes.unlabels.contains(label));
    for label in &wishes.labels {
        if !one.labels.contains(label) {
            one.labels.push(label.clone());
        }
    }
    one.updated_at = Timestamp::now();
}

/// GitLab's box: 72 columns, text centred.
fn warning(wishes: &Wishes, error: &str) -> String {
    const WIDTH: usize = 72;
    const TEXT: usize = 68;
    let message = format!(
        "WARNINGS: Error encountered with push options {}: {error}",
        wishes.given.join(" ")
    );
    let mut lines: Vec<String> = Vec::new();
    for word in message.split(' ') {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= TEXT => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    let rule = "=".repeat(WIDTH);
    let centred: Vec<String> = lines
        .iter()
        .map(|line| format!("{}{line}\n", " ".repeat(WIDTH.saturating_sub(line.len()) / 2)))
        .collect();
    format!("{rule}\n\n{}\n{rule}\n\n", centred.concat())
}
