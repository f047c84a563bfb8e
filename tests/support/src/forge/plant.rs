//! From a seed to a world: checks the seed, makes the repositories and the hooks.
//!
//! Never runs after the start.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use jiff::Timestamp;

use super::git::import::NewCommit;
use super::git::{GitError, Repository};
use super::push::HOOK;
use super::seed::{IssueSeed, ProjectSeed, Seed, Side};
use super::state::{Issue, Note, Project, Standing, Token, User, World};
use super::{Error, change_request};

/// Date of every seeded commit, so that the same seed gives the same commit ids: 2026-01-02 03:04:05 UTC.
const FIRST_COMMIT: i64 = 1_767_323_045;

/// Makes everything that the seed names, under `data`.
pub(crate) async fn plant(seed: &Seed, data: &Path) -> Result<World, Error> {
    let data = std::path::absolute(data).map_err(|source| Error::Write {
        path: data.to_owned(),
        source,
    })?;
    let hooks = data.join("hooks");
    write_hooks(&hooks)?;

    let users: Vec<User> = seed
        .users
        .iter()
        .map(|user| User {
            id: user.id,
            username: user.username.clone(),
            name: user.name.clone(),
            email: user.email.clone(),
            commit_email: user.commit_email.clone().unwrap_or_else(|| user.email.clone()),
            public_email: user.public_email.clone(),
        })
        .collect();
    let mut world = World {
        users,
        tokens: Vec::new(),
        projects: Vec::new(),
        last_id: 5000,
    };

    for token in &seed.tokens {
        let user = user_id(&world, &token.user)?;
        let twice = world
            .tokens
            .iter()
            .any(|other| other.name == token.name || other.value == token.value);
        if twice || token.value.is_empty() {
            return Err(Error::JudgeSeed(format!(
                "token {} has a name or value that is taken or empty",
                token.name
            )));
        }
        let id = world.next_id();
        world.tokens.push(Token {
            id,
            name: token.name.clone(),
            value: token.value.clone(),
            user,
            side: token.forge,
            scopes: token.scopes.clone(),
            fine_grained: token.fine_grained.clone(),
            expires_at: token.expires_at,
            revoked: token.revoked,
            created_at: Timestamp::now(),
        });
    }
    for (index, project) in seed.projects.iter().enumerate() {
        let id = project.id.unwrap_or(101 + index as u64);
        let planted = plant_project(&world, id, project, &data, &hooks).await?;
        world.projects.push(planted);
    }
    for issue in &seed.issues {
        plant_issue(&mut world, issue)?;
    }
    Ok(world)
}

fn write_hooks(hooks: &Path) -> Result<(), Error> {
    let write = |path: &Path| {
        std::fs::write(path, HOOK)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
    };
    std::fs::create_dir_all(hooks).map_err(|source| Error::Write {
        path: hooks.to_owned(),
        source,
    })?;
    for name in ["pre-receive", "post-receive"] {
        let path = hooks.join(name);
        write(&path).map_err(|source| Error::Write { path, source })?;
    }
    Ok(())
}

fn user_id(world: &World, username: &str) -> Result<u64, Error> {
    let found = world.users.iter().find(|user| user.username == username);
    found
        .map(|user| user.id)
        .ok_or_else(|| Error::JudgeSeed(format!("no user {username}")))
}

async fn plant_project(
    world: &World,
    id: u64,
    seed: &ProjectSeed,
    data: &Path,
    hooks: &Path,
) -> Result<Project, Error> {
    judge_project(world, id, seed)?;
    let mut members = BTreeMap::new();
    for member in &seed.members {
        members.insert(user_id(world, &member.user)?, member.role);
    }
    let name = match seed.forge {
        Side::Gitlab => "gitlab",
        Side::Github => "github",
    };
    let directory = data.join(name).join(format!("{id}.git"));
    let planted = plant_repository(world, seed, &directory, hooks).await;
    let repository = planted.map_err(|source| Error::PlantProject {
        project: seed.path.clone(),
        source,
    })?;
    let now = Timestamp::now();
    Ok(Project {
        id,
        side: seed.forge,
        path: seed.path.clone(),
        moved_from: seed.moved_from.clone(),
        description: seed.description.clone(),
        visibility: seed.visibility,
        default_branch: seed.default_branch.clone(),
        members,
        protected: seed.protected.clone(),
        push_rules: seed.push_rules.clone(),
        drafts_supported: seed.drafts_supported,
        change_requests_enabled: seed.change_requests_enabled,
        issues_enabled: seed.issues_enabled,
        branch_delay_ms: seed.branch_delay_ms,
        repository,
        created_at: now,
        last_activity: now,
        change_requests: Vec::new(),
        issues: Vec::new(),
        unseen: HashMap::new(),
    })
}

fn judge_project(world: &World, id: u64, seed: &ProjectSeed) -> Result<(), Error> {
    let wrong = |why: &str| Err(Error::JudgeSeed(format!("project {}: {why}", seed.path)));
    let parts: Vec<&str> = seed.path.split('/').collect();
    if parts.len() < 2 || parts.iter().any(|part| part.is_empty() || part.starts_with('.')) {
        return wrong("its path is not group/name");
    }
    if seed.forge == Side::Github && parts.len() != 2 {
        return wrong("a GitHub path has two parts");
    }
    if world.project(seed.forge, &seed.path).is_some() || world.projects.iter().any(|other| other.id == id) {
        return wrong("its path or id is taken");
    }
    let sources = [
        !seed.files.is_empty(),
        seed.empty,
        seed.from_bare.is_some(),
        seed.generate.is_some(),
    ];
    if sources.iter().filter(|given| **given).count() > 1 {
        return wrong("give one of files, empty, from_bare, generate");
    }
    Ok(())
}

async fn plant_repository(
    world: &World,
    seed: &ProjectSeed,
    directory: &Path,
    hooks: &Path,
) -> Result<Repository, GitError> {
    if let Some(from) = &seed.from_bare {
        return Repository::copy(from, directory.to_owned(), seed.forge, hooks).await;
    }
    let branch = &seed.default_branch;
    let repository = Repository::create(directory.to_owned(), seed.forge, branch, hooks).await?;
    let author = world
        .users
        .first()
        .map_or(("Test Forge", "forge@example.org"), |user| (&user.name, &user.email));
    if let Some(size) = seed.generate {
        repository.generate(branch, size, author, FIRST_COMMIT).await?;
    } else if !seed.empty {
        let mut files: BTreeMap<_, _> = seed
            .files
            .iter()
            .map(|(path, text)| (path.clone(), Some(text.clone())))
            .collect();
        if files.is_empty() {
            files.insert("README.md".to_owned(), Some(format!("# {}\n", seed.path)));
        }
        let message = "Initial commit\n";
        let first = NewCommit {
            branch,
            parent: None,
            author,
            when: FIRST_COMMIT,
            message,
            files: &files,
        };
        repository.import(&first).await?;
    }
    Ok(repository)
}

fn plant_issue(world: &mut World, seed: &IssueSeed) -> Result<(), Error> {
    let author = user_id(world, &seed.author)?;
    let (id, first_note) = (world.next_id(), world.last_id + 1);
    world.last_id += seed.comments.len() as u64;
    let missing = || Error::JudgeSeed(format!("issue of unknown project {}", seed.project));
    let project = world.project(seed.forge, &seed.project).ok_or_else(missing)?.id;
    let project = world.project_mut(project).ok_or_else(missing)?;
    let now = Timestamp::now();
    let comments = seed.comments.iter().zip(first_note..);
    let notes = comments.map(|(body, id)| Note {
        id,
        author,
        body: body.clone(),
        system: false,
        created_at: now,
    });
    let issue = Issue {
        id,
        number: project.next_number(true),
        title: seed.title.clone(),
        description: seed.description.clone(),
        author,
        standing: if seed.closed { Standing::Closed } else { Standing::Open },
        labels: seed.labels.clone(),
        created_at: now,
        updated_at: now,
        notes: notes.collect(),
    };
    project.issues.push(issue);
    change_request::touch(project);
    Ok(())
}
