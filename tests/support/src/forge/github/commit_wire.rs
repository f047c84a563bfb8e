//! Commits and changed files as GitHub's REST shows them. Pure, but for the look into who is who.

use serde_json::{Value, json};

use super::repository_wire::{rest_url, web_url};
use super::users::by_email;
use crate::forge::Forge;
use crate::forge::git::commits::Commit;
use crate::forge::git::diff::FileDiff;
use crate::forge::state::Project;

/// A commit's date in UTC, as GitHub prints it.
fn utc(date: &str) -> String {
    date.parse::<jiff::Timestamp>()
        .map_or_else(|_| date.to_owned(), |at| format!("{at:.0}"))
}

/// One commit without its files.
pub(crate) fn commit(forge: &Forge, project: &Project, one: &Commit) -> Value {
    let (rest, web) = (rest_url(forge, project), web_url(forge, project));
    let sha = &one.sha;
    let parents: Vec<Value> = one
        .parents
        .iter()
        .map(|sha| json!({"sha": sha, "url": format!("{rest}/commits/{sha}"), "html_url": format!("{web}/commit/{sha}")}))
        .collect();
    json!({
        "sha": sha,
        "node_id": format!("C_{sha}"),
        "commit": {
            "author": {"name": one.author.name, "email": one.author.email, "date": utc(&one.author.date)},
            "committer": {"name": one.committer.name, "email": one.committer.email, "date": utc(&one.committer.date)},
            "message": one.message.trim_end_matches('\n'),
            "tree": {"sha": one.tree, "url": format!("{rest}/git/trees/{}", one.tree)},
            "url": format!("{rest}/git/commits/{sha}"),
            "comment_count": 0,
            "verification": {
                "verified": false,
                "reason": "unsigned",
                "signature": null,
                "payload": null,
                "verified_at": null,
            },
        },
        "url": format!("{rest}/commits/{sha}"),
        "html_url": format!("{web}/commit/{sha}"),
        "comments_url": format!("{rest}/commits/{sha}/comments"),
        "author": by_email(forge, &one.author.email),
        "committer": by_email(forge, &one.committer.email),
        "parents": parents,
    })
}

/// One changed file at a head. The patch is absent where GitHub leaves it out: binary or too large.
pub(crate) fn file(forge: &Forge, project: &Project, head: &str, diff: &FileDiff) -> Value {
    let (rest, web) = (rest_url(forge, project), web_url(forge, project));
    let path = &diff.new_path;
    let status = match diff.letter {
        'A' => "added",
        'D' => "removed",
        'R' => "renamed",
        'C' => "copied",
        'T' => "changed",
        _ => "modified",
    };
    let mut body = json!({
        "sha": diff.blob,
        "filename": path,
        "status": status,
        "additions": diff.additions,
        "deletions": diff.deletions,
        "changes": diff.additions + diff.deletions,
        "blob_url": format!("{web}/blob/{head}/{path}"),
        "raw_url": format!("{web}/raw/{head}/{path}"),
        "contents_url": format!("{rest}/contents/{path}?ref={head}"),
    });
    if !diff.binary && !diff.too_large {
        body["patch"] = json!(diff.patch.trim_end_matches('\n'));
    }
    if matches!(diff.letter, 'R' | 'C') {
        body["previous_filename"] = json!(diff.old_path);
    }
    body
}
