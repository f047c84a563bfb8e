//! Change requests, issues, comments, reviews and pipelines of a seed, at the start or under way.
//!
//! Does what people would do by the API of either forge, without asking who may.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::person;
use crate::forge::change_request::{self, Facts, Opened, Proposal};
use crate::forge::git::GitError;
use crate::forge::git::import::NewCommit;
use crate::forge::seed::{ActivitySeed, ChangeRequestSeed, CommentSeed, IssueSeed, Side, StandingSeed};
use crate::forge::state::{Check, Issue, Note, Pipeline, Position, Project, Review, Standing, Status, World};
use crate::forge::{Error, Forge};

/// One issue with its comments; returns its number.
pub(super) fn issue(forge: &Forge, seed: &IssueSeed) -> Result<u64, Error> {
    let mut world = forge.world();
    let author = person(&world, &seed.author)?;
    let assignees = seed
        .assignees
        .iter()
        .map(|name| person(&world, name))
        .collect::<Result<_, _>>()?;
    let id = world.next_id();
    let mut notes = comments(&mut world, &seed.comments, author)?;
    for text in &seed.system_notes {
        let mut note = Note::alone(world.next_id(), author, text.clone());
        note.system = true;
        notes.push(note);
    }
    let missing = || Error::JudgeSeed(format!("issue of unknown project {}", seed.project));
    let project = world.project(seed.forge, &seed.project).ok_or_else(missing)?.id;
    let project = world.project_mut(project).ok_or_else(missing)?;
    let now = Timestamp::now();
    let number = project.next_number(true);
    project.issues.push(Issue {
        id,
        number,
        title: seed.title.clone(),
        description: seed.description.clone(),
        author,
        standing: if seed.closed { Standing::Closed } else { Standing::Open },
        kind: seed.kind,
        labels: seed.labels.clone(),
        assignees,
        closed: seed.closed.then_some((now, author)),
        created_at: now,
        updated_at: now,
        notes,
    });
    change_request::touch(project);
    Ok(number)
}

fn comments(world: &mut World, seeds: &[CommentSeed], default: u64) -> Result<Vec<Note>, Error> {
    let mut notes = Vec::new();
    for seed in seeds {
        let (author, body) = words(world, seed, default)?;
        notes.push(Note::alone(world.next_id(), author, body));
    }
    Ok(notes)
}

fn words(world: &World, seed: &CommentSeed, default: u64) -> Result<(u64, String), Error> {
    Ok(match seed {
        CommentSeed::Text(body) => (default, body.clone()),
        CommentSeed::By { author, body } => (person(world, author)?, body.clone()),
    })
}

fn found(forge: &Forge, side: Side, path: &str) -> Result<Project, Error> {
    let project = forge.world().project(side, path).cloned();
    project.ok_or_else(|| Error::JudgeSeed(format!("change request of unknown project {path}")))
}

fn broken(project: &Project) -> impl FnOnce(GitError) -> Error {
    let project = project.path.clone();
    |source| Error::PlantProject { project, source }
}

/// One change request with all that happened at it; returns its number.
pub(super) async fn change_request(forge: &Forge, seed: &ChangeRequestSeed) -> Result<u64, Error> {
    let project = found(forge, seed.forge, &seed.project)?;
    let target = seed.target.clone().unwrap_or_else(|| project.default_branch.clone());
    let head = branch(forge, &project, seed, &target).await?;
    let proposal = {
        let world = forge.world();
        Proposal {
            title: seed.title.clone(),
            description: seed.description.clone(),
            source: seed.source.clone(),
            target,
            author: person(&world, &seed.author)?,
            draft: seed.draft,
            labels: seed.labels.clone(),
            assignees: seed
                .assignees
                .iter()
                .map(|name| person(&world, name))
                .collect::<Result<_, _>>()?,
            ..Proposal::default()
        }
    };
    let opened = change_request::open(forge, &project, proposal, &head).await;
    let number = match opened.map_err(broken(&project))? {
        Opened::New(one) => one.number,
        Opened::Exists(number) => {
            let text = format!("{}: {number} is open between the same branches", seed.project);
            return Err(Error::JudgeSeed(text));
        }
    };
    if !seed.activity.is_nothing() {
        activity(forge, &forge.reread(&project), number, &seed.activity).await?;
    }
    settle(forge, &project, number, seed.state).await?;
    Ok(number)
}

async fn settle(forge: &Forge, project: &Project, number: u64, state: StandingSeed) -> Result<(), Error> {
    let gone = || Error::JudgeSeed(format!("{}: no change request {number}", project.path));
    match state {
        StandingSeed::Open => {}
        StandingSeed::Closed => {
            let mut world = forge.world();
            let one = world.change_request_mut(project.id, number).ok_or_else(gone)?;
            one.standing = Standing::Closed;
            one.closed = Some((Timestamp::now(), one.author));
        }
        StandingSeed::Merged => {
            let live = forge.reread(project);
            let one = live
                .change_requests
                .iter()
                .find(|one| one.number == number)
                .ok_or_else(gone)?;
            let merged = change_request::merge(forge, &live, one)
                .await
                .map_err(broken(project))?;
            if merged.is_none() {
                return Err(Error::JudgeSeed(format!("{}: {number} does not merge", project.path)));
            }
        }
    }
    Ok(())
}

/// The source branch with the seed's commit; returns its head.
async fn branch(forge: &Forge, project: &Project, seed: &ChangeRequestSeed, target: &str) -> Result<String, Error> {
    let (name, email) = {
        let world = forge.world();
        let author = person(&world, &seed.author)?;
        let author = world
            .user(author)
            .map(|user| (user.name.clone(), user.commit_email.clone()));
        author.unwrap_or_default()
    };
    let heads = project.repository.branches().await.map_err(broken(project))?;
    let old = heads.get(&seed.source);
    let mut files: BTreeMap<String, Option<String>> = seed
        .files
        .iter()
        .map(|(path, text)| (path.clone(), Some(text.clone())))
        .collect();
    match old {
        Some(head) if files.is_empty() => return Ok(head.clone()),
        None if files.is_empty() => {
            let path = format!("{}.txt", seed.source.replace('/', "-"));
            files.insert(path, Some(format!("{}\n", seed.title)));
        }
        Some(_) | None => {}
    }
    let message = format!("{}\n", seed.title);
    let commit = NewCommit {
        branch: &seed.source,
        parent: old.or_else(|| heads.get(target)).map(String::as_str),
        author: (&name, &email),
        when: Timestamp::now().as_second(),
        message: &message,
        files: &files,
    };
    project.repository.import(&commit).await.map_err(broken(project))?;
    let mut heads = project.repository.branches().await.map_err(broken(project))?;
    heads
        .remove(&seed.source)
        .ok_or_else(|| Error::JudgeSeed(format!("{}: {} was not made", seed.project, seed.source)))
}

/// What happened at a change request that is there.
pub(super) async fn activity(forge: &Forge, project: &Project, number: u64, seed: &ActivitySeed) -> Result<(), Error> {
    let gone = || Error::JudgeSeed(format!("{}: no change request {number}", project.path));
    let one = project
        .change_requests
        .iter()
        .find(|one| one.number == number)
        .ok_or_else(gone)?;
    let refs = project.repository.refs().await.map_err(broken(project))?;
    let facts = change_request::facts(forge, project, one, &refs, change_request::Depth::Whole).await;
    let facts = facts.map_err(broken(project))?;
    let mut guard = forge.world();
    let world = &mut *guard;
    let (author, now) = (one.author, Timestamp::now());

    let mut notes = comments(world, &seed.comments, author)?;
    for text in &seed.system_notes {
        let mut note = Note::alone(world.next_id(), author, text.clone());
        note.system = true;
        notes.push(note);
    }
    notes.extend(threads(world, seed, &facts, author)?);
    let reviews = reviews(world, seed, &facts, &mut notes)?;
    let reviewers = seed
        .reviewers
        .iter()
        .map(|name| person(world, name))
        .collect::<Result<Vec<_>, _>>()?;
    let approvals = seed
        .approved_by
        .iter()
        .map(|name| person(world, name))
        .collect::<Result<Vec<_>, _>>()?;

    let live = world.change_request_mut(project.id, number).ok_or_else(gone)?;
    live.notes.extend(notes);
    live.reviews.extend(reviews);
    live.approvals.extend(approvals.iter().map(|id| (*id, now)));
    for id in reviewers.into_iter().chain(approvals) {
        if !live.reviewers.contains(&id) {
            live.reviewers.push(id);
        }
    }
    live.updated_at = now;
    let source = live.source.clone();
    checks(
        world,
        project.id,
        seed,
        &source,
        facts.head.as_deref().unwrap_or_default(),
        author,
    );
    Ok(())
}

fn position(facts: &Facts, path: &str, new_line: Option<u64>, old_line: Option<u64>) -> Position {
    let text = |sha: &Option<String>| sha.clone().unwrap_or_default();
    Position {
        base: text(&facts.base),
        start: text(&facts.target_head),
        head: text(&facts.head),
        old_path: path.to_owned(),
        new_path: path.to_owned(),
        old_line,
        new_line,
    }
}

fn threads(world: &mut World, seed: &ActivitySeed, facts: &Facts, author: u64) -> Result<Vec<Note>, Error> {
    let mut notes = Vec::new();
    for thread in &seed.discussions {
        let starter = person(world, &thread.author)?;
        let resolved = thread
            .resolved_by
            .as_ref()
            .map(|name| person(world, name))
            .transpose()?;
        let mut first = Note::alone(world.next_id(), starter, thread.body.clone());
        first.individual = false;
        first.resolved = resolved.map(|by| (Timestamp::now(), by));
        first.position = thread
            .path
            .as_ref()
            .map(|path| position(facts, path, thread.line, thread.old_line));
        let like = first.clone();
        notes.push(first);
        for reply in &thread.replies {
            let (author, body) = words(world, reply, author)?;
            notes.push(Note {
                id: world.next_id(),
                author,
                body,
                ..like.clone()
            });
        }
    }
    Ok(notes)
}

fn reviews(world: &mut World, seed: &ActivitySeed, facts: &Facts, notes: &mut Vec<Note>) -> Result<Vec<Review>, Error> {
    let mut reviews = Vec::new();
    for review in &seed.reviews {
        let author = person(world, &review.author)?;
        let id = world.next_id();
        for comment in &review.comments {
            let mut note = Note::alone(world.next_id(), author, comment.body.clone());
            note.individual = false;
            note.review = Some(id);
            note.position = Some(position(facts, &comment.path, Some(comment.line), None));
            notes.push(note);
        }
        reviews.push(Review {
            id,
            author,
            verdict: review.verdict,
            body: review.body.clone(),
            commit: facts.head.clone(),
            submitted_at: Timestamp::now(),
        });
    }
    Ok(reviews)
}

fn checks(world: &mut World, project: u64, seed: &ActivitySeed, branch: &str, head: &str, user: u64) {
    let now = Timestamp::now();
    for pipeline in &seed.pipelines {
        let id = world.next_id();
        if let Some(project) = world.project_mut(project) {
            project.pipelines.push(Pipeline {
                id,
                number: project.pipelines.len() as u64 + 1,
                sha: head.to_owned(),
                branch: branch.to_owned(),
                status: pipeline.status.clone(),
                source: pipeline.source.clone(),
                user,
                created_at: now,
            });
        }
    }
    for check in &seed.checks {
        let id = world.next_id();
        let completed = if check.conclusion.is_some() {
            "completed"
        } else {
            "in_progress"
        };
        if let Some(project) = world.project_mut(project) {
            project.checks.push(Check {
                id,
                sha: head.to_owned(),
                name: check.name.clone(),
                status: check.status.clone().unwrap_or_else(|| completed.to_owned()),
                conclusion: check.conclusion.clone(),
                started_at: now,
            });
        }
    }
    for status in &seed.statuses {
        let id = world.next_id();
        if let Some(project) = world.project_mut(project) {
            project.statuses.push(Status {
                id,
                sha: head.to_owned(),
                context: status.context.clone(),
                state: status.state.clone(),
                description: status.description.clone(),
                created_at: now,
            });
        }
    }
}
