//! The forge tools against both forges, asked by the scripted agent: the real clients, real git, the real router; no sandbox and no Docker.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use cofferdam::forge::{self, Clients, Connect as _, CountRequests, Forge, ProjectFacts, inspect::FileDiff};
use cofferdam::grant::{Grant, Identity, ProjectGrant, SessionLimits, Trailers};
use cofferdam::message::{Capabilities, EventBody, ForgeKind, ProjectKey, Publish, Uncommitted};
use cofferdam::repository::{self, Access, DiffReader, Repositories};
use cofferdam::secret::Secret;
use cofferdam::tools::{self, DiffRequest, Diffs, ForgeProject, GitDiff, Reach, Wishes};
use serde_json::{Value, json};

use crate::harness::{HUB, LAB, Process, World, support};

struct Uncounted;

impl CountRequests for Uncounted {
    fn count(&self, _: ForgeKind, _: &'static str, _: u16) {}
    fn left(&self, _: ForgeKind, _: u8) {}
}

/// As the session does it: git through the worker's own reader.
struct Readers(BTreeMap<ProjectKey, (DiffReader, Access)>);

#[async_trait::async_trait]
impl Diffs for Readers {
    async fn diff(&self, project: &ProjectKey, request: &DiffRequest) -> Result<GitDiff, String> {
        let request = repository::DiffRequest {
            number: request.number,
            head: request.head.as_deref().map(|head| head.parse().unwrap()),
            base: request.base.as_deref().map(|base| base.parse().unwrap()),
            target: request.target.parse().ok(),
            path: request.path.clone(),
            skip: request.skip,
            most: request.most,
        };
        let (reader, access) = &self.0[project];
        let found = reader.read(&request, access).await.map_err(|error| error.to_string())?;
        let file = |file: repository::FileDiff| FileDiff {
            path: file.path,
            old_path: file.old_path,
            change: "any".into(),
            diff: file.diff.ok(),
            why: None,
        };
        Ok(GitDiff {
            base: found.base.to_string(),
            head: found.head.to_string(),
            total: found.total,
            files: found.files.into_iter().map(file).collect(),
        })
    }
}

/// Asks the forge's API in the user's own name.
fn curl(url: &str, header: &str, body: &Value) -> Value {
    let output = Command::new("curl")
        .args([
            "-sS",
            "--max-time",
            "20",
            "-H",
            header,
            "-H",
            "content-type: application/json",
        ])
        .args(["-d", &body.to_string(), url])
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

fn grant_of(
    kind: ForgeKind,
    connection: &str,
    forge: &dyn Forge,
    facts: &ProjectFacts,
    may: Capabilities,
) -> ProjectGrant {
    ProjectGrant {
        key: ProjectKey {
            connection: connection.parse().unwrap(),
            path: facts.path.clone(),
        },
        forge: kind,
        connection: connection.parse().unwrap(),
        id: facts.id.clone(),
        instance: forge.instance().to_owned(),
        clone_url: facts.clone_url.clone(),
        web_url: facts.web_url.clone(),
        base: "main".parse().unwrap(),
        default_branch: "main".parse().unwrap(),
        branch: "cofferdam/x-1".parse().unwrap(),
        directory: "/workspace/x".into(),
        identity: Identity {
            name: "Ada".into(),
            email: "ada@example.org".into(),
        },
        capabilities: may,
    }
}

/// What the scripted agent says and is told after these directives, as one text.
fn scripted(url: &str, directives: &str) -> String {
    let mut agent = Process(
        Command::new(support("scripted-agent"))
            .arg("acp")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut input = agent.0.stdin.take().unwrap();
    let mut lines = BufReader::new(agent.0.stdout.take().unwrap()).lines();
    let mut said = String::new();
    let mut session = Value::Null;
    let servers = json!([{"type": "http", "name": "cofferdam", "url": url, "headers": []}]);
    for (id, method) in ["initialize", "session/new", "session/prompt"].into_iter().enumerate() {
        let params = match id {
            0 => json!({"protocolVersion": 1, "clientCapabilities": {}}),
            1 => json!({"cwd": "/tmp", "mcpServers": servers}),
            _ => json!({"sessionId": session, "prompt": [{"type": "text", "text": directives}]}),
        };
        writeln!(
            input,
            "{}",
            json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
        )
        .unwrap();
        loop {
            let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
            if line["id"] == id && line.get("method").is_none() {
                assert!(line["error"].is_null(), "{line}");
                session = if id == 1 {
                    line["result"]["sessionId"].clone()
                } else {
                    session
                };
                break;
            }
            if let Some(text) = line.pointer("/params/update/content/text").and_then(Value::as_str) {
                said.push_str(text);
                said.push('\n');
            }
        }
    }
    said
}

#[test]
fn an_agent_reads_and_answers_on_both_forges_without_a_token() {
    let world = World::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // Only the first test of a process installs it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    for (side, path) in [("gitlab", LAB), ("github", HUB)] {
        let commit = json!({"forge": side, "project": path, "branch": "feature", "files": {"new.txt": "hello\n"}});
        world.ask("POST", "/_test/commit", Some(&commit));
    }
    let lab = format!(
        "{}/gitlab/api/v4/projects/{}/merge_requests",
        world.forge,
        LAB.replace('/', "%2F")
    );
    let request =
        json!({"source_branch": "feature", "target_branch": "main", "title": "Say hello", "description": "As asked"});
    let lab = curl(&lab, "PRIVATE-TOKEN: test-gitlab-api", &request)["iid"]
        .as_u64()
        .unwrap();
    let hub = format!("{}/api/v3/repos/{HUB}/pulls", world.forge);
    let request = json!({"head": "feature", "base": "main", "title": "Say hello", "body": "As asked"});
    let hub = curl(&hub, "Authorization: Bearer test-github-repo", &request)["number"]
        .as_u64()
        .unwrap();

    let told: Arc<Mutex<Vec<EventBody>>> = Arc::default();
    let url = runtime.block_on(serve(&world, &told));
    let mut directives = String::from("!tools\n");
    for (project, number) in [(format!("lab:{LAB}"), lab), (format!("hub:{HUB}"), hub)] {
        let mut tool = |name: &str, more: Value| {
            let mut arguments = json!({"project": project});
            arguments
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            directives.push_str(&format!("!tool {name} {arguments}\n!say /end\n"));
        };
        tool(
            "list_change_requests",
            json!({"state": "open", "source_branch": "feature"}),
        );
        tool("get_change_request", json!({"number": number}));
        tool("get_change_request_diff", json!({"number": number}));
        tool("list_change_request_discussions", json!({"number": number}));
        tool("list_issues", json!({"state": "all"}));
        tool(
            "reply_to_discussion",
            json!({"number": number, "body": "Looks good @all"}),
        );
    }
    let said = scripted(&url, &directives);
    let answers: Vec<&str> = said.split("/end").collect();
    assert_eq!(answers.len(), 13, "{said}");
    assert!(answers[0].contains("comment_on_issue"), "{said}");
    for side in [&answers[..6], &answers[6..12]] {
        assert!(side[0].contains("Say hello"), "{}", side[0]);
        assert!(
            side[1].contains("As asked") && side[1].contains("\"source_repository\":\"same\""),
            "{}",
            side[1]
        );
        for part in ["\"source\":\"git\"", "\"complete\":true", "+hello", "new.txt"] {
            assert!(side[2].contains(part), "{part} in {}", side[2]);
        }
        assert!(side[3].contains("\"items\":["), "{}", side[3]);
        assert!(
            side[4].contains("\"number\":") && !side[4].contains("Say hello"),
            "{}",
            side[4]
        );
        assert!(side[5].contains("\"comments_left\":"), "{}", side[5]);
    }
    let told = told.lock().unwrap();
    assert_eq!(told.len(), 2);
    for event in told.iter() {
        let EventBody::Commented { url, text, .. } = event else {
            panic!("{event:?}")
        };
        assert!(
            url.as_ref().unwrap().starts_with(&world.forge) && !text.contains("@all"),
            "{event:?}"
        );
    }
}

/// The tools of a session over both projects, on a port of their own.
async fn serve(world: &World, told: &Arc<Mutex<Vec<EventBody>>>) -> String {
    let config = forge::Config {
        allow_http: true,
        ..forge::Config::default()
    };
    let clients = Clients::new(config, Arc::new(Uncounted)).unwrap();
    let config = repository::Config {
        state_dir: world.state_dir(),
        ..repository::Config::default()
    };
    let internal = vec![env!("CARGO_BIN_EXE_cofferdam").to_owned(), "internal".to_owned()];
    let repositories = Repositories::open(config, internal).await.unwrap();
    let session = "0190c2f0-7c1e-7000-8000-000000000001".parse().unwrap();
    let (mut grants, mut projects, mut readers) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
    for (number, (kind, name, path, token, user)) in [
        (ForgeKind::Gitlab, "lab", LAB, "test-gitlab-api", "oauth2"),
        (ForgeKind::Github, "hub", HUB, "test-github-repo", "x-access-token"),
    ]
    .into_iter()
    .enumerate()
    {
        let address = match kind {
            ForgeKind::Gitlab => format!("{}/gitlab", world.forge),
            ForgeKind::Github => world.forge.clone(),
        };
        let secret = Secret::new(token);
        let forge = clients.connect(kind, Some(&address), &secret, None).unwrap();
        let may = forge.token().await.unwrap().capabilities;
        let facts = forge.project(&path.parse().unwrap()).await.unwrap();
        let grant = grant_of(kind, name, forge.as_ref(), &facts, may);
        let access = Access {
            token: secret,
            basic_user: user.to_owned(),
            account: "ada".to_owned(),
            ca_file: None,
        };
        let mirrored = repositories.refresh(&grant, &access).await.unwrap();
        let trailers = Trailers::new(&grant.identity, &grant.identity, session);
        let staging = repositories
            .stage(&mirrored, session, number, &grant, &trailers)
            .await
            .unwrap();
        readers.insert(grant.key.clone(), (repositories.diffs(&staging, &grant), access));
        projects.insert(grant.key.clone(), ForgeProject { forge, facts });
        grants.push(grant);
    }
    let second = std::time::Duration::from_secs(1);
    let grant = Grant {
        session,
        projects: grants,
        trailers: BTreeMap::new(),
        publish: Publish::ChangeRequest,
        uncommitted: Uncommitted::Commit,
        may_comment: true,
        egress: cofferdam::grant::Egress::default(),
        limits: SessionLimits {
            session: second,
            turn: second,
            idle: second,
        },
    };
    let told = Arc::clone(told);
    let reach = Reach {
        may_act: Arc::new(|| true),
        refuse: Arc::new(|_| None),
        speaking: tokio_util::task::TaskTracker::new(),
        project: Arc::new(move |key| projects.get(key).cloned()),
        diffs: Arc::new(Readers(readers)),
        tell: Arc::new(move |event| {
            told.lock().unwrap().push(event);
            Box::pin(async {})
        }),
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let router = tools::router(Arc::new(grant), Wishes::default(), reach)();
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}
