//! From a seed to a world: checks the seed, makes the repositories and the hooks.
//!
//! Runs at the start, and again for what a test adds under way. Never removes anything.

mod activity;

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;

use super::git::import::NewCommit;
use super::git::{GitError, Repository};
use super::push::HOOK;
use super::seed::{CrowdSeed, Instance, MemberSeed, ProjectSeed, Role, Seed, Side};
use super::state::{Project, Token, User, World};
use super::{Error, Forge};

const HOOKS: &str = "hooks";

/// Date of every seeded commit, so that the same seed gives the same commit ids: 2026-01-02 03:04:05 UTC.
const FIRST_COMMIT: i64 = 1_767_323_045;

/// Makes the directory and the hooks that all repositories share.
pub(crate) fn prepare(data: &Path) -> Result<PathBuf, Error> {
    let data = std::path::absolute(data).map_err(|source| Error::Write {
        path: data.to_owned(),
        source,
    })?;
    write_hooks(&data.join(HOOKS))?;
    Ok(data)
}

/// Makes everything that the seed names, beside what is there. Returns the numbers of its issues and of its change requests, in order.
pub(crate) async fn grow(forge: &Forge, seed: &Seed) -> Result<Grown, Error> {
    people(&mut forge.world(), seed)?;
    let outside = |settings: &Option<Instance>| settings.as_ref().and_then(|one| one.external_url.clone());
    if let Some(url) = outside(&seed.gitlab) {
        forge.believed().gitlab = url;
    }
    if let Some(url) = outside(&seed.github) {
        forge.believed().github = url;
    }
    for project in &seed.projects {
        let id = {
            let world = forge.world();
            project.id.unwrap_or_else(|| free_id(&world))
        };
        let planted = plant_project(forge, id, project).await?;
        forge.world().projects.push(planted);
    }
    for crowd in &seed.crowds {
        plant_crowd(forge, crowd).await?;
    }
    let mut grown = Grown::default();
    for issue in &seed.issues {
        grown.issues.push(activity::issue(forge, issue)?);
    }
    for one in &seed.change_requests {
        grown.change_requests.push(activity::change_request(forge, one).await?);
    }
    for one in &seed.activities {
        let project = forge.world().project(one.forge, &one.project).cloned();
        let project = project.ok_or_else(|| Error::JudgeSeed(format!("no project {}", one.project)))?;
        activity::activity(forge, &project, one.number, &one.activity).await?;
    }
    Ok(grown)
}

/// What a seed made.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Grown {
    pub(crate) issues: Vec<u64>,
    pub(crate) change_requests: Vec<u64>,
}

fn free_id(world: &World) -> u64 {
    world.projects.iter().map(|project| project.id).max().unwrap_or(100) + 1
}

/// Users, tokens, settings: all that needs no repository.
fn people(world: &mut World, seed: &Seed) -> Result<(), Error> {
    for user in &seed.users {
        if world.person(&user.username).is_some() || world.user(user.id).is_some() {
            return Err(Error::JudgeSeed(format!("the user {} is there already", user.username)));
        }
        world.users.push(User {
            id: user.id,
            username: user.username.clone(),
            name: user.name.clone(),
            email: user.email.clone(),
            commit_email: user.commit_email.clone().unwrap_or_else(|| user.email.clone()),
            public_email: user.public_email.clone(),
        });
    }
    if let Some(settings) = &seed.gitlab {
        world.gitlab = settings.clone();
    }
    if let Some(settings) = &seed.github {
        world.github = settings.clone();
    }
    for token in &seed.tokens {
        let user = person(world, &token.user)?;
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
            installation: token.installation,
            expires_at: token.expires_at,
            revoked: token.revoked,
            created_at: Timestamp::now(),
        });
    }
    Ok(())
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

fn person(world: &World, username: &str) -> Result<u64, Error> {
    let found = world.person(username);
    found
        .map(|user| user.id)
        .ok_or_else(|| Error::JudgeSeed(format!("no user {username}")))
}

fn members(world: &World, seeds: &[MemberSeed]) -> Result<BTreeMap<u64, Role>, Error> {
    let one = |member: &MemberSeed| Ok((person(world, &member.user)?, member.role));
    seeds.iter().map(one).collect()
}

fn directory(forge: &Forge, side: Side, name: &str) -> PathBuf {
    let word = match side {
        Side::Gitlab => "gitlab",
        Side::Github => "github",
    };
    forge.0.data.join(word).join(format!("{name}.git"))
}

async fn plant_project(forge: &Forge, id: u64, seed: &ProjectSeed) -> Result<Project, Error> {
    let (members, author) = {
        let world = forge.world();
        judge_project(&world, id, seed)?;
        (members(&world, &seed.members)?, first_author(&world))
    };
    let directory = directory(forge, seed.forge, &id.to_string());
    let planted = plant_repository(&author, seed, &directory, &forge.0.data.join(HOOKS)).await;
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
        archived: seed.archived,
        of_a_crowd: false,
        limits: seed.diff_limits,
        repository,
        created_at: now,
        last_activity: now,
        change_requests: Vec::new(),
        issues: Vec::new(),
        pipelines: Vec::new(),
        checks: Vec::new(),
        statuses: Vec::new(),
        unseen: HashMap::new(),
    })
}

/// Many projects with the repository of the first.
async fn plant_crowd(forge: &Forge, seed: &CrowdSeed) -> Result<(), Error> {
    let path = |number: u32| format!("{}/{}{number:05}", seed.group, seed.prefix);
    let one = ProjectSeed {
        visibility: seed.visibility,
        members: seed.members.clone(),
        ..ProjectSeed::plain(seed.forge, &path(1))
    };
    let id = free_id(&forge.world());
    let planted = plant_project(forge, id, &one).await?;
    let mut world = forge.world();
    world.projects.reserve(seed.count as usize);
    for number in 1..=seed.count {
        world.projects.push(Project {
            id: id + u64::from(number) - 1,
            path: path(number),
            of_a_crowd: true,
            ..planted.clone()
        });
    }
    Ok(())
}

fn first_author(world: &World) -> (String, String) {
    let first = world.users.first();
    first.map_or_else(
        || ("Test Forge".to_owned(), "forge@example.org".to_owned()),
        |user| (user.name.clone(), user.email.clone()),
    )
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
    (name, email): &(String, String),
    seed: &ProjectSeed,
    directory: &Path,
    hooks: &Path,
) -> Result<Repository, GitError> {
    if let Some(from) = &seed.from_bare {
        return Repository::copy(from, directory.to_owned(), seed.forge, hooks).await;
    }
    let branch = &seed.default_branch;
    let repository = Repository::create(directory.to_owned(), seed.forge, branch, hooks).await?;
    let author = (name.as_str(), email.as_str());
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
