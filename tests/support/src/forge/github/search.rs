//! `GET /search/issues`: issues and pull requests of all repositories that the token sees. Read only.
//!
//! Knows the qualifiers that clients of this kind use; a qualifier that it does not know is a word to look for, as on the real one.

use axum::extract::{RawQuery, State};
use serde_json::{Value, json};

use super::access::{Account, sees};
use super::issues::{Row, rows, wire};
use super::pull_wire::standing_word;
use super::wire::{Answer, Refusal, found};
use crate::forge::Forge;
use crate::forge::paging::Window;
use crate::forge::parameters::{Parameters, pairs};
use crate::forge::seed::Side;
use crate::forge::state::{Project, Standing};

/// The search shows no more than this of what it finds.
const MOST: usize = 1000;

/// Parts of a query: qualifiers and words, quotes joined.
fn parts(query: &str) -> Vec<String> {
    let (mut parts, mut part, mut quoted) = (Vec::new(), String::new(), false);
    for letter in query.chars() {
        match letter {
            '"' => quoted = !quoted,
            ' ' if !quoted => parts.push(std::mem::take(&mut part)),
            other => part.push(other),
        }
    }
    parts.push(part);
    parts.retain(|part| !part.is_empty());
    parts
}

fn matches(forge: &Forge, row: &Row, part: &str) -> bool {
    let (negated, part) = part.strip_prefix('-').map_or((false, part), |part| (true, part));
    let user = |name: &str| forge.world().person(name).map(|user| user.id);
    let hit = match part.split_once(':') {
        // Handled before, by repository.
        Some(("repo" | "user" | "org", _)) => return true,
        Some(("is" | "type", "pr" | "pull-request")) => row.pull.is_some(),
        Some(("is" | "type", "issue")) => row.pull.is_none(),
        Some(("is" | "state", "open")) => standing_word(row.standing) == "open",
        Some(("is" | "state", "closed")) => standing_word(row.standing) == "closed",
        Some(("is", "merged")) => row.standing == Standing::Merged,
        Some(("is", "unmerged")) => row.pull.is_some() && row.standing != Standing::Merged,
        Some(("is", "draft")) => row.pull == Some(true),
        Some(("draft", value)) => row.pull == Some(value == "true"),
        Some(("author", name)) => user(name) == Some(row.author),
        Some(("assignee", name)) => user(name).is_some_and(|id| row.assignees.contains(&id)),
        Some(("head", branch)) => row.branches.as_ref().is_some_and(|(head, _)| head == branch),
        Some(("base", branch)) => row.branches.as_ref().is_some_and(|(_, base)| base == branch),
        Some(("label", label)) => row.labels.iter().any(|one| one.eq_ignore_ascii_case(label)),
        Some(("in" | "sort", _)) => return true,
        _ => {
            let part = part.to_lowercase();
            let within = |text: &str| text.to_lowercase().contains(&part);
            within(&row.title) || within(&row.body) || row.notes.iter().any(|note| within(&note.body))
        }
    };
    hit != negated
}

/// The repositories that a query is about; an invisible one that is named is an error.
fn repositories(
    forge: &Forge,
    caller: &crate::forge::state::Caller,
    parts: &[String],
) -> Result<Vec<Project>, Refusal> {
    let named = |key: &str| -> Vec<String> {
        parts
            .iter()
            .filter_map(|part| Some(part.strip_prefix(key)?.to_lowercase()))
            .collect()
    };
    let (repos, mut owners) = (named("repo:"), named("user:"));
    owners.extend(named("org:"));
    let world = forge.world();
    let seen: Vec<&Project> = world
        .projects
        .iter()
        .filter(|one| one.side == Side::Github && sees(caller, one))
        .collect();
    let exists = |path: &String| seen.iter().any(|one| one.path.eq_ignore_ascii_case(path));
    if !repos.is_empty() && !repos.iter().any(exists) {
        let message = "The listed users and repositories cannot be searched either because the resources do not exist or you do not have permission to view them.";
        return Err(Refusal::Invalid(
            json!([{"message": message, "resource": "Search", "field": "q", "code": "invalid"}]),
        ));
    }
    let wanted = |one: &&&Project| {
        let path = one.path.to_lowercase();
        let owner = one.namespace().to_lowercase();
        (repos.is_empty() && owners.is_empty()) || repos.contains(&path) || owners.contains(&owner)
    };
    Ok(seen.iter().filter(wanted).map(|one| (*one).clone()).collect())
}

/// `GET /search/issues`
pub(crate) async fn issues(State(forge): State<Forge>, Account(caller): Account, RawQuery(query): RawQuery) -> Answer {
    let parameters = Parameters::from_query(query.as_deref());
    let asked = parameters.text("q").unwrap_or_default();
    if asked.trim().is_empty() {
        return Err(Refusal::Invalid(
            json!([{"resource": "Search", "field": "q", "code": "missing"}]),
        ));
    }
    let parts = parts(&asked);
    let mut hits: Vec<(Project, Row)> = Vec::new();
    for project in repositories(&forge, &caller, &parts)? {
        let all = rows(&project)
            .into_iter()
            .filter(|row| parts.iter().all(|part| matches(&forge, row, part)));
        hits.extend(all.map(|row| (project.clone(), row)));
    }
    let updated = parameters.text("sort").as_deref() == Some("updated");
    hits.sort_by_key(|(_, row)| (if updated { row.updated_at } else { row.created_at }, row.id));
    if parameters.text("order").as_deref() != Some("asc") {
        hits.reverse();
    }
    let total = hits.len();
    hits.truncate(MOST);
    let window = Window::of(&parameters, 30);
    let given: Vec<(String, String)> = pairs(query.as_deref().unwrap_or_default()).collect();
    let url = format!("{}/api/v3/search/issues", forge.github());
    let headers = window.github(&url, &given, hits.len());
    let items: Vec<Value> = window
        .cut(hits)
        .into_iter()
        .map(|(project, row)| {
            let mut item = wire(&forge, &project, &row);
            item["score"] = json!(1.0);
            item
        })
        .collect();
    let mut answer =
        found(json!({"total_count": total, "incomplete_results": false, "items": items, "search_type": "lexical"}))?;
    answer.headers_mut().extend(headers);
    Ok(answer)
}
