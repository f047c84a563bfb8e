//! A merge request as GitLab's REST shows it. Pure, but for the short look into who is who.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::reviews::{newest, pipeline_full, pipeline_wire};
use super::users::basic;
use super::wire::time;
use crate::forge::Forge;
use crate::forge::change_request::Facts;
use crate::forge::git::diff::FileDiff;
use crate::forge::json::extend;
use crate::forge::state::{ChangeRequest, Project, Standing};

/// The prefixes that make a draft.
const DRAFT: [&str; 4] = ["draft:", "[draft]", "(draft)", "draft -"];

/// Whether a title makes its merge request a draft.
pub(crate) fn is_draft(title: &str) -> bool {
    let title = title.trim_start().to_lowercase();
    DRAFT.iter().any(|prefix| title.starts_with(prefix))
}

/// The title with a draft's prefix.
pub(crate) fn with_draft_prefix(title: &str) -> String {
    if is_draft(title) {
        title.to_owned()
    } else {
        format!("Draft: {title}")
    }
}

pub(crate) fn standing_word(standing: Standing) -> &'static str {
    match standing {
        Standing::Open => "opened",
        Standing::Closed => "closed",
        Standing::Merged => "merged",
    }
}

/// How much of its background work GitLab has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// In the answer that creates it.
    Preparing,
    /// At the first reading since the head moved.
    Checking,
    /// Later.
    Done,
    /// In a list: what is known is told, nothing is computed.
    Listed,
}

/// `merge_status` and `detailed_merge_status`.
fn merge_status(one: &ChangeRequest, facts: &Facts, progress: Progress) -> (&'static str, &'static str) {
    if one.standing != Standing::Open {
        return ("can_be_merged", "not_open");
    }
    match (progress, facts.mergeable) {
        (Progress::Preparing, _) => ("checking", "preparing"),
        (Progress::Checking, _) => ("checking", "checking"),
        (Progress::Listed | Progress::Done, None) => ("unchecked", "unchecked"),
        (Progress::Listed | Progress::Done, Some(_)) if is_draft(&one.title) => ("can_be_merged", "draft_status"),
        (Progress::Listed | Progress::Done, Some(false)) => ("cannot_be_merged", "conflict"),
        (Progress::Listed | Progress::Done, Some(true)) => ("can_be_merged", "mergeable"),
    }
}

/// What lists and single answers share.
pub(crate) fn listed(
    forge: &Forge,
    project: &Project,
    one: &ChangeRequest,
    facts: &Facts,
    progress: Progress,
) -> Value {
    let (merge_status, detailed) = merge_status(one, facts, progress);
    let draft = is_draft(&one.title);
    let mut assignees: Vec<Value> = one.assignees.iter().map(|id| basic(forge, *id)).collect();
    assignees.truncate(1);
    let comments = one.notes.iter().filter(|note| !note.system).count();
    let closed_by = one.closed.map(|(_, by)| basic(forge, by));
    let merged_by = one.merged.as_ref().map(|merged| basic(forge, merged.by));
    let mut body = json!({
        "id": one.id,
        "iid": one.number,
        "project_id": project.id,
        "title": one.title,
        "description": one.description,
        "state": standing_word(one.standing),
        "created_at": time(one.created_at),
        "updated_at": time(one.updated_at),
        "merged_by": merged_by,
        "merge_user": merged_by,
        "merged_at": one.merged.as_ref().map(|merged| time(merged.at)),
        "closed_by": closed_by,
        "closed_at": one.closed.map(|(at, _)| time(at)),
        "target_branch": one.target,
        "source_branch": one.source,
        "user_notes_count": comments,
        "upvotes": 0,
        "downvotes": 0,
        "author": basic(forge, one.author),
    });
    let more = json!({
        "assignees": assignees,
        "assignee": assignees.first(),
        "reviewers": one.reviewers.iter().take(1).map(|id| basic(forge, *id)).collect::<Vec<_>>(),
        "source_project_id": project.id,
        "target_project_id": project.id,
        "labels": one.labels,
        "draft": draft,
        "imported": false,
        "imported_from": "none",
        "work_in_progress": draft,
        "milestone": null,
        "merge_when_pipeline_succeeds": false,
        "merge_status": merge_status,
        "detailed_merge_status": detailed,
        "merge_after": null,
        "sha": facts.head,
        "merge_commit_sha": one.merged.as_ref().map(|merged| &merged.commit),
        "squash_commit_sha": null,
        "discussion_locked": null,
        "should_remove_source_branch": null,
        "force_remove_source_branch": one.remove_source_branch,
        "prepared_at": if progress == Progress::Preparing { Value::Null } else { json!(time(one.created_at)) },
        "reference": format!("!{}", one.number),
        "references": {
            "short": format!("!{}", one.number),
            "relative": format!("!{}", one.number),
            "full": format!("{}!{}", project.path, one.number),
        },
        "web_url": format!("{}/{}/-/merge_requests/{}", forge.gitlab(), project.path, one.number),
        "time_stats": time_stats(),
        "squash": one.squash,
        "squash_on_merge": one.squash,
        "task_completion_status": {"count": 0, "completed_count": 0},
        "has_conflicts": facts.mergeable == Some(false),
        "blocking_discussions_resolved": true,
        "approvals_before_merge": null,
    });
    extend(&mut body, more);
    body
}

pub(crate) fn time_stats() -> Value {
    json!({
        "time_estimate": 0,
        "total_time_spent": 0,
        "human_time_estimate": null,
        "human_total_time_spent": null,
    })
}

/// One merge request in full. `changes` is the number of changed files, once known.
pub(crate) fn full(
    forge: &Forge,
    project: &Project,
    one: &ChangeRequest,
    facts: &Facts,
    progress: Progress,
    changes: Option<String>,
    may_merge: bool,
) -> Value {
    let mut body = listed(forge, project, one, facts, progress);
    let pipeline = newest(project, facts.head.as_deref());
    // GitLab's start_sha is the head of the target branch when the diff was made; the base is where they parted.
    let more = json!({
        "subscribed": true,
        "changes_count": changes,
        "latest_build_started_at": null,
        "latest_build_finished_at": null,
        "first_deployed_to_production_at": null,
        "pipeline": pipeline.map(|one| pipeline_wire(forge, project, one)),
        "head_pipeline": pipeline.map(|one| pipeline_full(forge, project, one)),
        "diff_refs": {
            "base_sha": facts.base,
            "head_sha": facts.head,
            "start_sha": facts.target_head.as_ref().or(facts.base.as_ref()),
        },
        "merge_error": null,
        "first_contribution": false,
        "user": {"can_merge": may_merge},
    });
    extend(&mut body, more);
    body
}

/// Whether a patch is longer than what is shown unasked.
pub(crate) fn collapsed(project: &Project, diff: &FileDiff) -> bool {
    project
        .limits
        .collapse_bytes
        .is_some_and(|limit| diff.patch.len() > limit)
}

/// One file of `/diffs` and `/changes`.
pub(crate) fn file(project: &Project, diff: &FileDiff) -> Value {
    let collapsed = collapsed(project, diff);
    json!({
        "diff": if collapsed { "" } else { &diff.patch },
        "collapsed": collapsed,
        "too_large": diff.too_large,
        "new_path": diff.new_path,
        "old_path": diff.old_path,
        "a_mode": diff.old_mode,
        "b_mode": diff.new_mode,
        "new_file": diff.letter == 'A',
        "renamed_file": diff.letter == 'R',
        "deleted_file": diff.letter == 'D',
        "generated_file": false,
    })
}

/// Known heads by full ref name.
pub(crate) type Refs = BTreeMap<String, String>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draft_is_known_by_its_title() {
        assert!(is_draft("Draft: x") && is_draft("[Draft] x") && is_draft("(draft) x"));
        assert!(!is_draft("Drafting rules") && !is_draft("WIP: x"));
        assert_eq!(with_draft_prefix("Draft: x"), "Draft: x");
        assert_eq!(with_draft_prefix("x"), "Draft: x");
    }
}
