//! What merge requests and pull requests have in common: opening one, its commits, its mergeability.
//!
//! Never answers a client: the wire forms are in `gitlab` and `github`.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::Forge;
use super::git::GitError;
use super::seed::Side;
use super::state::{ChangeRequest, Merged, Note, Project, Standing};

/// What somebody asks for when opening a change request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Proposal {
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) source: String,
    pub(crate) target: String,
    pub(crate) author: u64,
    pub(crate) draft: bool,
    pub(crate) labels: Vec<String>,
    pub(crate) assignees: Vec<u64>,
    pub(crate) reviewers: Vec<u64>,
    pub(crate) remove_source_branch: Option<bool>,
    pub(crate) squash: bool,
}

/// What came of it.
pub(crate) enum Opened {
    New(Box<ChangeRequest>),
    /// Another open one stands between the same branches.
    Exists(u64),
}

/// What git says about a change request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    /// Head of the source branch.
    pub(crate) head: Option<String>,
    /// Head of the target branch.
    pub(crate) target_head: Option<String>,
    /// Where the two parted.
    pub(crate) base: Option<String>,
    /// Whether it merges without conflict, once that is known.
    pub(crate) mergeable: Option<bool>,
}

/// The ref under which a forge keeps a change request's head.
pub(crate) fn head_ref(side: Side, number: u64) -> String {
    match side {
        Side::Gitlab => format!("refs/merge-requests/{number}/head"),
        Side::Github => format!("refs/pull/{number}/head"),
    }
}

/// Notes that something happened in the project.
pub(crate) fn touch(project: &mut Project) {
    project.last_activity = Timestamp::now();
}

/// Head of a change request: the live branch while it is open, else what it was last.
pub(crate) fn head_of(project: &Project, one: &ChangeRequest, refs: &BTreeMap<String, String>) -> Option<String> {
    let live = refs.get(&format!("refs/heads/{}", one.source));
    let kept = refs.get(&head_ref(project.side, one.number));
    match one.standing {
        Standing::Open => live.or(kept),
        Standing::Closed | Standing::Merged => kept,
    }
    .cloned()
}

/// Opens a change request, unless an open one stands between the same branches. The check and the insertion are one
/// step, so that two simultaneous requests give one.
pub(crate) async fn open(forge: &Forge, project: &Project, proposal: Proposal, head: &str) -> Result<Opened, GitError> {
    let opened = insert(forge, project, proposal);
    if let Opened::New(one) = &opened {
        project
            .repository
            .set_ref(&head_ref(project.side, one.number), head)
            .await?;
    }
    Ok(opened)
}

fn insert(forge: &Forge, project: &Project, proposal: Proposal) -> Opened {
    let mut world = forge.world();
    let id = world.next_id();
    let Some(project) = world.project_mut(project.id) else {
        return Opened::Exists(0);
    };
    if let Some(other) = project
        .open_from(&proposal.source)
        .find(|other| other.target == proposal.target)
    {
        return Opened::Exists(other.number);
    }
    let now = Timestamp::now();
    let one = ChangeRequest {
        id,
        number: project.next_number(false),
        title: proposal.title,
        description: proposal.description,
        source: proposal.source,
        target: proposal.target,
        author: proposal.author,
        standing: Standing::Open,
        draft: proposal.draft,
        labels: proposal.labels,
        assignees: proposal.assignees,
        remove_source_branch: proposal.remove_source_branch,
        squash: proposal.squash,
        created_at: now,
        updated_at: now,
        closed: None,
        merged: None,
        notes: Vec::new(),
        reviewers: proposal.reviewers,
        approvals: Vec::new(),
        reviews: Vec::new(),
        reads: 0,
        parted: None,
        checked: None,
    };
    project.change_requests.push(one.clone());
    touch(project);
    Opened::New(Box::new(one))
}

/// How much git is asked of a change request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Heads, and what was found out before.
    Known,
    /// Where the branches parted, too: what is answered before mergeability is looked at.
    Base,
    /// Everything.
    Whole,
}

/// What git says now.
pub(crate) async fn facts(
    forge: &Forge,
    project: &Project,
    one: &ChangeRequest,
    refs: &BTreeMap<String, String>,
    depth: Depth,
) -> Result<Facts, GitError> {
    let head = head_of(project, one, refs);
    let target_head = refs.get(&format!("refs/heads/{}", one.target)).cloned();
    let mut facts = Facts {
        head,
        target_head,
        ..Facts::default()
    };
    let (Some(head), Some(target)) = (&facts.head, &facts.target_head) else {
        return Ok(facts);
    };
    let known = one
        .checked
        .as_ref()
        .filter(|(h, t, _)| h == head && t == target)
        .map(|(_, _, clean)| *clean);
    facts.mergeable = known;
    if depth == Depth::Known {
        return Ok(facts);
    }
    facts.base = match (&one.merged, &one.parted) {
        // After the merge the live branches have no difference left: the base was noted then.
        (Some(merged), _) => Some(merged.base.clone()),
        (None, Some((h, t, base))) if h == head && t == target => base.clone(),
        (None, _) => {
            let base = project.repository.merge_base(target, head).await?;
            if let Some(one) = forge.world().change_request_mut(project.id, one.number) {
                one.parted = Some((head.clone(), target.clone(), base.clone()));
            }
            base
        }
    };
    if known.is_none() && depth == Depth::Whole {
        let clean = project.repository.merges(target, head).await?;
        facts.mergeable = Some(clean);
        let checked = Some((head.clone(), target.clone(), clean));
        if let Some(one) = forge.world().change_request_mut(project.id, one.number) {
            one.checked = checked;
        }
    }
    Ok(facts)
}

/// Counts a reading; returns how many there were since the head last moved.
pub(crate) fn count_reading(forge: &Forge, project: u64, number: u64) -> u32 {
    let mut world = forge.world();
    world.change_request_mut(project, number).map_or(0, |one| {
        one.reads = one.reads.saturating_add(1);
        one.reads - 1
    })
}

/// Adds a comment.
pub(crate) fn add_note(
    forge: &Forge,
    project: u64,
    number: u64,
    author: u64,
    body: String,
    system: bool,
) -> Option<Note> {
    let mut note = Note::alone(forge.world().next_id(), author, body);
    note.system = system;
    add(forge, project, number, note)
}

/// Adds a note that is made already.
pub(crate) fn add(forge: &Forge, project: u64, number: u64, note: Note) -> Option<Note> {
    let mut world = forge.world();
    let one = world.change_request_mut(project, number)?;
    one.updated_at = note.created_at;
    one.notes.push(note.clone());
    Some(note)
}

/// Merges an open change request on behalf of its author; `None` if it conflicts or its branches are gone.
pub(crate) async fn merge(forge: &Forge, project: &Project, one: &ChangeRequest) -> Result<Option<String>, GitError> {
    let refs = project.repository.refs().await?;
    let facts = facts(forge, project, one, &refs, Depth::Whole).await?;
    let (Some(head), Some(base)) = (facts.head, facts.base) else {
        return Ok(None);
    };
    let message = format!("Merge branch '{}' into '{}'\n", one.source, one.target);
    let Some(sha) = project.repository.merge(&one.target, &head, &message).await? else {
        return Ok(None);
    };
    if let Some(live) = forge.world().change_request_mut(project.id, one.number) {
        let now = Timestamp::now();
        live.standing = Standing::Merged;
        live.updated_at = now;
        live.merged = Some(Merged {
            at: now,
            by: one.author,
            base,
            commit: sha.clone(),
        });
    }
    Ok(Some(sha))
}

/// After a push to a branch: open change requests from it have a new head, whose mergeability is not known yet.
pub(crate) async fn head_moved(
    forge: &Forge,
    project: &Project,
    branch: &str,
    (old, new): (&str, &str),
    pusher: u64,
) -> Result<(), GitError> {
    let numbers: Vec<u64> = forge.reread(project).open_from(branch).map(|one| one.number).collect();
    for number in numbers {
        project.repository.set_ref(&head_ref(project.side, number), new).await?;
        if let Some(one) = forge.world().change_request_mut(project.id, number) {
            one.reads = 0;
            one.checked = None;
            one.updated_at = Timestamp::now();
        }
        if project.side == Side::Gitlab {
            let commits = project.repository.commits_between(old, new).await?;
            let lines: Vec<String> = commits
                .iter()
                .map(|one| format!("<li>{} - {}</li>", one.sha.get(..8).unwrap_or_default(), one.title()))
                .collect();
            let noun = if commits.len() == 1 { "commit" } else { "commits" };
            let body = format!("added {} {noun}\n\n<ul>{}</ul>", commits.len(), lines.concat());
            add_note(forge, project.id, number, pusher, body, true);
        }
    }
    Ok(())
}
