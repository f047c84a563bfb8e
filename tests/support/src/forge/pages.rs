//! Pages for people: what the forge holds, and one page for each merge request and pull request.
//!
//! Needs no token, since it shows a test double's data to whoever sits at this machine. Escapes all of it.

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;

use super::Forge;
use super::change_request;
use super::git::GitError;
use super::git::commits::Commit;
use super::git::diff::FileDiff;
use super::seed::Side;
use super::state::{ChangeRequest, Project, Standing};

/// The pages whose address does not depend on a project's depth.
pub(super) fn router() -> Router<Forge> {
    Router::new()
        .route("/", get(index))
        .route("/{owner}/{repo}/pull/{number}", get(pull))
}

const STYLE: &str = "body{font:16px/1.5 sans-serif;max-width:60rem;margin:0 auto;padding:0 1rem 3rem}\
.banner{background:#7a2e00;color:#fff;padding:.5rem 1rem;margin:0 -1rem 1rem}\
pre{background:#f5f5f5;border:1px solid #ddd;padding:.75rem;overflow-x:auto;white-space:pre-wrap}\
pre.diff{white-space:pre}\
.add{background:#e2f5e2}.del{background:#fbe4e4}.hunk{color:#57606a}\
h1{line-height:1.2}code{background:#f5f5f5;padding:0 .2rem}dt{font-weight:bold}";

const BANNER: &str = "<p class=banner><strong>cofferdam test forge.</strong> A test double that plays GitLab and \
GitHub on this machine. It is neither, and nothing here is real.</p>";

fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

fn page(title: &str, body: &str) -> Response {
    let title = escape(title);
    Html(format!(
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8><title>{title} · cofferdam test forge</title>\
         <meta name=viewport content=\"width=device-width\"><style>{STYLE}</style></head><body>{BANNER}{body}</body></html>\n"
    ))
    .into_response()
}

fn missing() -> Response {
    let mut response = page(
        "Not found",
        "<h1>Not found</h1><p><a href=\"/\">What this forge holds</a></p>",
    );
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

fn word(side: Side) -> (&'static str, &'static str, char) {
    match side {
        Side::Gitlab => ("GitLab", "Merge request", '!'),
        Side::Github => ("GitHub", "Pull request", '#'),
    }
}

fn address(project: &Project, number: u64) -> String {
    match project.side {
        Side::Gitlab => format!("/gitlab/{}/-/merge_requests/{number}", project.path),
        Side::Github => format!("/{}/pull/{number}", project.path),
    }
}

fn state_word(standing: Standing) -> &'static str {
    match standing {
        Standing::Open => "open",
        Standing::Closed => "closed",
        Standing::Merged => "merged",
    }
}

async fn index(State(forge): State<Forge>) -> Response {
    let projects: Vec<Project> = forge
        .world()
        .projects
        .iter()
        .filter(|one| !one.of_a_crowd)
        .cloned()
        .collect();
    let mut body = "<h1>What this forge holds</h1>".to_owned();
    for project in projects {
        let (side, _, sign) = word(project.side);
        body.push_str(&format!("<h2>{side}: {}</h2><ul>", escape(&project.path)));
        let branches = project.repository.branches().await.unwrap_or_default();
        for (name, sha) in &branches {
            body.push_str(&format!(
                "<li>branch <code>{}</code> at <code>{}</code></li>",
                escape(name),
                escape(sha)
            ));
        }
        for one in &project.change_requests {
            let (link, title) = (escape(&address(&project, one.number)), escape(&one.title));
            let state = state_word(one.standing);
            body.push_str(&format!(
                "<li><a href=\"{link}\">{sign}{} {title}</a> ({state})</li>",
                one.number
            ));
        }
        body.push_str("</ul>");
    }
    page("Index", &body)
}

async fn pull(State(forge): State<Forge>, Path((owner, repo, number)): Path<(String, String, String)>) -> Response {
    show(&forge, Side::Github, &format!("{owner}/{repo}"), &number).await
}

/// The page of a merge request, whose project may lie at any depth; `None` if the path is something else.
pub(super) async fn merge_request(forge: &Forge, path: &str) -> Option<Response> {
    let (project, number) = path.strip_prefix("/gitlab/")?.split_once("/-/merge_requests/")?;
    Some(show(forge, Side::Gitlab, project, number).await)
}

async fn show(forge: &Forge, side: Side, path: &str, number: &str) -> Response {
    let project = forge.world().project(side, path).cloned();
    let found = project.and_then(|project| {
        let number: u64 = number.parse().ok()?;
        let one = project.change_requests.iter().find(|one| one.number == number)?.clone();
        Some((project, one))
    });
    let Some((project, one)) = found else {
        return missing();
    };
    match content(forge, &project, &one).await {
        Ok(body) => page(&one.title, &body),
        Err(source) => {
            let mut response = page(
                "Error",
                &format!("<h1>Error</h1><pre>{}</pre>", escape(&source.to_string())),
            );
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        }
    }
}

async fn content(forge: &Forge, project: &Project, one: &ChangeRequest) -> Result<String, GitError> {
    let (side, kind, sign) = word(project.side);
    let name = |id: u64| {
        forge
            .world()
            .user(id)
            .map(|user| format!("{} (@{})", user.name, user.username))
            .unwrap_or_default()
    };
    let refs = project.repository.refs().await?;
    let facts = change_request::facts(forge, project, one, &refs, change_request::Depth::Whole).await?;
    let draft = one.draft || super::gitlab::is_draft(&one.title);
    let head = facts.head.clone().unwrap_or_default();
    let mut body = format!(
        "<p><a href=\"/\">all projects</a> · {side} · {}</p><h1>{} <small>{sign}{}</small></h1>\
         <p>{kind}, {}{}, by {}, from <code>{}</code> into <code>{}</code>, head <code>{}</code></p>\
         <h2>Description</h2><pre>{}</pre>",
        escape(&project.path),
        escape(&one.title),
        one.number,
        if draft { "draft, " } else { "" },
        state_word(one.standing),
        escape(&name(one.author)),
        escape(&one.source),
        escape(&one.target),
        escape(&head),
        escape(if one.description.is_empty() {
            "(none)"
        } else {
            &one.description
        }),
    );
    if let (Some(base), Some(head)) = (&facts.base, &facts.head) {
        let commits = project.repository.commits_between(base, head).await?;
        body.push_str(&format!("<h2>Commits ({})</h2>", commits.len()));
        body.extend(commits.iter().rev().map(commit));
        let files = project.repository.diff(base, head).await?;
        body.push_str(&format!("<h2>Changes ({} files)</h2>", files.len()));
        body.extend(files.iter().map(file));
    }
    if !one.notes.is_empty() {
        body.push_str("<h2>Comments</h2>");
    }
    for note in &one.notes {
        let activity = if note.system { " (activity)" } else { "" };
        body.push_str(&format!(
            "<p>{}{activity}</p><pre>{}</pre>",
            escape(&name(note.author)),
            escape(&note.body)
        ));
    }
    Ok(body)
}

fn commit(one: &Commit) -> String {
    let person = |name: &str, email: &str| escape(&format!("{name} <{email}>"));
    format!(
        "<p><code>{}</code><br>author {}<br>committer {}</p><pre>{}</pre>",
        escape(&one.sha),
        person(&one.author.name, &one.author.email),
        person(&one.committer.name, &one.committer.email),
        escape(one.message.trim_end()),
    )
}

fn file(diff: &FileDiff) -> String {
    let kind = match diff.letter {
        'A' => "new file",
        'D' => "deleted",
        'R' => "renamed",
        _ => "changed",
    };
    let mut lines = String::new();
    for line in diff.patch.lines() {
        let class = match line.chars().next() {
            Some('+') => "add",
            Some('-') => "del",
            Some('@') => "hunk",
            _ => "same",
        };
        lines.push_str(&format!("<span class={class}>{}</span>\n", escape(line)));
    }
    if diff.binary {
        lines.push_str("(binary)");
    } else if diff.too_large {
        lines.push_str("(too large to show)");
    }
    format!(
        "<h3>{} <small>{kind}</small></h3><pre class=diff>{lines}</pre>",
        escape(&diff.new_path)
    )
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn markup_in_a_title_stays_text() {
        assert_eq!(escape("<b a='\"&"), "&lt;b a=&#39;&quot;&amp;");
    }
}
