//! Reviews, review comments and who is asked to review.
//!
//! Never dismisses or deletes one.

use axum::extract::{RawQuery, State};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::access::Entry;
use super::issues::reactions;
use super::pull_wire::association;
use super::pulls::pull;
use super::repositories::numbered;
use super::repository_wire::{rest_url, web_url};
use super::users::basic;
use super::wire::{Answer, Refusal, created, found, node, page, time};
use crate::forge::Forge;
use crate::forge::change_request;
use crate::forge::parameters::Parameters;
use crate::forge::seed::Verdict;
use crate::forge::state::{ChangeRequest, Note, Position, Project, Review};

const READ: &str = "pull_requests=read";
const WRITE: &str = "pull_requests=write";

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Approved => "APPROVED",
        Verdict::ChangesRequested => "CHANGES_REQUESTED",
        Verdict::Commented => "COMMENTED",
        Verdict::Dismissed => "DISMISSED",
        Verdict::Pending => "PENDING",
    }
}

fn review_wire(forge: &Forge, project: &Project, number: u64, one: &Review) -> Value {
    let (rest, web) = (rest_url(forge, project), web_url(forge, project));
    let html = format!("{web}/pull/{number}#pullrequestreview-{}", one.id);
    let pull = format!("{rest}/pulls/{number}");
    let mut body = json!({
        "id": one.id,
        "node_id": node("PullRequestReview", one.id),
        "user": basic(forge, one.author),
        "body": one.body,
        "state": word(one.verdict),
        "html_url": html,
        "pull_request_url": pull,
        "author_association": association(project, one.author),
        "_links": {"html": {"href": html}, "pull_request": {"href": pull}},
        "commit_id": one.commit,
    });
    if one.verdict != Verdict::Pending {
        body["submitted_at"] = json!(time(one.submitted_at));
    }
    body
}

fn comment_wire(forge: &Forge, project: &Project, number: u64, note: &Note, position: &Position) -> Value {
    let (rest, web) = (rest_url(forge, project), web_url(forge, project));
    let url = format!("{rest}/pulls/comments/{}", note.id);
    let html = format!("{web}/pull/{number}#discussion_r{}", note.id);
    let pull = format!("{rest}/pulls/{number}");
    let line = position.new_line.or(position.old_line);
    let side = if position.new_line.is_some() { "RIGHT" } else { "LEFT" };
    let mut body = json!({
        "url": url,
        "pull_request_review_id": note.review,
        "id": note.id,
        "node_id": node("PullRequestReviewComment", note.id),
        "diff_hunk": "@@ -1 +1 @@",
        "path": position.new_path,
        "commit_id": position.head,
        "original_commit_id": position.head,
        "user": basic(forge, note.author),
        "body": note.body,
        "created_at": time(note.created_at),
        "updated_at": time(note.updated_at),
        "html_url": html,
        "pull_request_url": pull,
        "author_association": association(project, note.author),
        "_links": {"self": {"href": url}, "html": {"href": html}, "pull_request": {"href": pull}},
        "reactions": reactions(&url),
        "start_line": null,
        "original_start_line": null,
        "start_side": null,
        "line": line,
        "original_line": line,
        "side": side,
        "position": line,
        "original_position": line,
        "subject_type": "line",
    });
    if note.thread != note.id {
        body["in_reply_to_id"] = json!(note.thread);
    }
    body
}

/// The review comments of a pull request: those of its notes that are about a line.
pub(crate) fn on_lines(one: &ChangeRequest) -> impl Iterator<Item = (&Note, &Position)> {
    one.notes
        .iter()
        .filter_map(|note| Some((note, note.position.as_ref()?)))
}

fn visible(entry: &Entry, one: &Review) -> bool {
    let me = entry.caller.as_ref().map(|caller| caller.user.id);
    one.verdict != Verdict::Pending || me == Some(one.author)
}

/// `GET …/pulls/:number/reviews`: the oldest first.
pub(crate) async fn list(State(forge): State<Forge>, entry: Entry, RawQuery(query): RawQuery) -> Answer {
    entry.needs("pull_requests", false, READ)?;
    let one = pull(&entry)?;
    let url = numbered(&forge, &entry.project, &format!("/pulls/{}/reviews", one.number));
    let all: Vec<&Review> = one.reviews.iter().filter(|review| visible(&entry, review)).collect();
    page(&url, query.as_deref(), all, |review| {
        review_wire(&forge, &entry.project, one.number, review)
    })
}

fn review<'a>(entry: &Entry, one: &'a ChangeRequest) -> Result<&'a Review, Refusal> {
    let id: Option<u64> = entry.part("review").parse().ok();
    let found = one
        .reviews
        .iter()
        .find(|review| Some(review.id) == id && visible(entry, review));
    found.ok_or(Refusal::NotFound("/pulls/reviews#get-a-review-for-a-pull-request"))
}

/// `GET …/pulls/:number/reviews/:review`
pub(crate) async fn one(State(forge): State<Forge>, entry: Entry) -> Answer {
    entry.needs("pull_requests", false, READ)?;
    let one = pull(&entry)?;
    found(review_wire(&forge, &entry.project, one.number, review(&entry, one)?))
}

/// `GET …/pulls/:number/reviews/:review/comments`
pub(crate) async fn comments_of(State(forge): State<Forge>, entry: Entry, RawQuery(query): RawQuery) -> Answer {
    entry.needs("pull_requests", false, READ)?;
    let one = pull(&entry)?;
    let review = review(&entry, one)?;
    let url = numbered(
        &forge,
        &entry.project,
        &format!("/pulls/{}/reviews/{}/comments", one.number, review.id),
    );
    let own: Vec<_> = on_lines(one)
        .filter(|(note, _)| note.review == Some(review.id))
        .collect();
    page(&url, query.as_deref(), own, |(note, position)| {
        comment_wire(&forge, &entry.project, one.number, note, position)
    })
}

/// `POST …/pulls/:number/reviews`
pub(crate) async fn create(State(forge): State<Forge>, entry: Entry, parameters: Parameters) -> Answer {
    entry.needs("pull_requests", true, WRITE)?;
    let author = entry.caller()?.user.id;
    let one = pull(&entry)?;
    let invalid = |message: &str| Refusal::Unprocessable(format!("Unprocessable Entity: \"{message}\""));
    let verdict = match parameters.text("event").as_deref() {
        None => Verdict::Pending,
        Some("APPROVE") if one.author == author => return Err(invalid("Can not approve your own pull request")),
        Some("REQUEST_CHANGES") if one.author == author => {
            return Err(invalid("Can not request changes on your own pull request"));
        }
        Some("APPROVE") => Verdict::Approved,
        Some("REQUEST_CHANGES") => Verdict::ChangesRequested,
        Some("COMMENT") => Verdict::Commented,
        Some(_) => {
            return Err(invalid(
                "Variable $event of type PullRequestReviewEvent was provided invalid value",
            ));
        }
    };
    let refs = entry.project.repository.refs().await?;
    let review = Review {
        id: forge.world().next_id(),
        author,
        verdict,
        body: parameters.text("body").unwrap_or_default(),
        commit: change_request::head_of(&entry.project, one, &refs),
        submitted_at: Timestamp::now(),
    };
    if let Some(live) = forge.world().change_request_mut(entry.project.id, one.number) {
        live.reviews.push(review.clone());
    }
    found(review_wire(&forge, &entry.project, one.number, &review))
}

/// `GET …/pulls/:number/comments`: ascending ids.
pub(crate) async fn comments(State(forge): State<Forge>, entry: Entry, RawQuery(query): RawQuery) -> Answer {
    entry.needs("pull_requests", false, READ)?;
    let one = pull(&entry)?;
    let url = numbered(&forge, &entry.project, &format!("/pulls/{}/comments", one.number));
    let mut all: Vec<_> = on_lines(one).collect();
    let parameters = Parameters::from_query(query.as_deref());
    if parameters.text("direction").as_deref() == Some("desc") && parameters.has("sort") {
        all.reverse();
    }
    page(&url, query.as_deref(), all, |(note, position)| {
        comment_wire(&forge, &entry.project, one.number, note, position)
    })
}

fn text(parameters: &Parameters) -> Result<String, Refusal> {
    parameters
        .text("body")
        .filter(|body| !body.trim().is_empty())
        .ok_or_else(|| {
            Refusal::Invalid(
                json!([{"resource": "PullRequestReviewComment", "code": "missing_field", "field": "body"}]),
            )
        })
}

fn store(forge: &Forge, entry: &Entry, number: u64, note: Note) -> Answer {
    let note = change_request::add(forge, entry.project.id, number, note).ok_or(Refusal::NotFound(""))?;
    match &note.position {
        Some(position) => created(comment_wire(forge, &entry.project, number, &note, position)),
        None => Err(Refusal::NotFound("")),
    }
}

/// `POST …/pulls/:number/comments`
pub(crate) async fn comment(State(forge): State<Forge>, entry: Entry, parameters: Parameters) -> Answer {
    entry.needs("pull_requests", true, WRITE)?;
    let author = entry.caller()?.user.id;
    let one = pull(&entry)?;
    let body = text(&parameters)?;
    if let Some(id) = parameters.number("in_reply_to") {
        return answer(&forge, &entry, one, id, author, body);
    }
    let missing = |field: &str| {
        Refusal::Invalid(json!([{"resource": "PullRequestReviewComment", "code": "missing_field", "field": field}]))
    };
    let path = parameters.text("path").ok_or_else(|| missing("path"))?;
    let head = parameters.text("commit_id").ok_or_else(|| missing("commit_id"))?;
    let line = parameters.number("line").or_else(|| parameters.number("position"));
    let line = line.ok_or_else(|| missing("line"))?;
    let left = parameters.text("side").as_deref() == Some("LEFT");
    let mut note = Note::alone(forge.world().next_id(), author, body);
    note.individual = false;
    note.position = Some(Position {
        base: String::new(),
        start: String::new(),
        head,
        old_path: path.clone(),
        new_path: path,
        old_line: left.then_some(line),
        new_line: (!left).then_some(line),
    });
    store(&forge, &entry, one.number, note)
}

/// `POST …/pulls/:number/comments/:comment/replies`
pub(crate) async fn reply(State(forge): State<Forge>, entry: Entry, parameters: Parameters) -> Answer {
    entry.needs("pull_requests", true, WRITE)?;
    let author = entry.caller()?.user.id;
    let one = pull(&entry)?;
    let id = entry.part("comment").parse().map_err(|_| Refusal::NotFound(""))?;
    answer(&forge, &entry, one, id, author, text(&parameters)?)
}

fn answer(forge: &Forge, entry: &Entry, one: &ChangeRequest, id: u64, author: u64, body: String) -> Answer {
    let first = on_lines(one).map(|(note, _)| note).find(|note| note.id == id);
    let first = first.ok_or(Refusal::NotFound("/pulls/comments#create-a-reply-for-a-review-comment"))?;
    let mut note = Note::alone(forge.world().next_id(), author, body);
    note.individual = false;
    note.thread = first.thread;
    note.position = first.position.clone();
    store(forge, entry, one.number, note)
}

/// `GET …/pulls/:number/requested_reviewers`: those who have not answered yet.
pub(crate) async fn requested(State(forge): State<Forge>, entry: Entry) -> Answer {
    entry.needs("pull_requests", false, READ)?;
    let users = waiting(&forge, pull(&entry)?);
    found(json!({"users": users, "teams": []}))
}

/// Who is asked and has not answered yet.
pub(crate) fn waiting(forge: &Forge, one: &ChangeRequest) -> Vec<Value> {
    let answered = |id: u64| one.reviews.iter().any(|review| review.author == id);
    one.reviewers
        .iter()
        .filter(|id| !answered(**id))
        .map(|id| basic(forge, *id))
        .collect()
}
