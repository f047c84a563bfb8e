//! A gateway with one project behind a loopback port, as `inside` makes one in a sandbox, and a clone of it.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cofferdam::gateway::git::{self, GitRoutes};
use cofferdam::gateway::{Gateway, HTTP_PORT};
use cofferdam::grant::{Identity, ProjectGrant, Trailers};
use cofferdam::message::{Capabilities, EventBody, ForgeKind};
use cofferdam::repository::{self, Access, Repositories, Staging};
use cofferdam::secret::Secret;
use cofferdam_inside::Preamble;

use crate::harness::{LAB, World};

pub(super) const BRANCH: &str = "cofferdam/fix-1";
/// An end to every wait.
pub(super) const LIMIT: Duration = Duration::from_secs(60);

pub(super) struct Scene {
    pub(super) world: World,
    pub(super) staging: Arc<Staging>,
    pub(super) told: Arc<Mutex<Vec<EventBody>>>,
    pub(super) address: String,
    pub(super) clone: PathBuf,
    pub(super) message: PathBuf,
    _gateway: Gateway,
}

/// What an attempt said, and what the session was told meanwhile.
pub(super) struct Said {
    pub(super) success: bool,
    pub(super) text: String,
    pub(super) refused: Vec<String>,
}

impl Scene {
    pub(super) async fn open() -> Self {
        let world = World::new();
        let config = repository::Config {
            state_dir: world.state_dir(),
            largest_push: 6_000_000,
            largest_object: 5_500_000,
            most_objects: 300,
            most_files: 500,
            ..repository::Config::default()
        };
        let internal = vec![env!("CARGO_BIN_EXE_cofferdam").to_owned(), "internal".to_owned()];
        let repositories = Repositories::open(config, internal).await.unwrap();
        let ada = Identity {
            name: "Ada Example".into(),
            email: "ada@example.org".into(),
        };
        let grant = ProjectGrant {
            key: serde_json::from_value(serde_json::json!({"connection": "lab", "path": LAB})).unwrap(),
            forge: ForgeKind::Gitlab,
            connection: "lab".parse().unwrap(),
            id: "1".into(),
            instance: format!("{}/gitlab", world.forge),
            clone_url: format!("{}/gitlab/{LAB}.git", world.forge),
            web_url: format!("{}/gitlab/{LAB}", world.forge),
            base: "main".parse().unwrap(),
            default_branch: "main".parse().unwrap(),
            branch: BRANCH.parse().unwrap(),
            directory: "greeter".into(),
            identity: ada.clone(),
            capabilities: Capabilities::UNPROVEN,
        };
        let access = Access {
            token: Secret::new("test-gitlab-api"),
            basic_user: "oauth2".into(),
            account: "ada".into(),
            ca_file: None,
        };
        let session = "0190c2f0-7c1e-7000-8000-000000000001".parse().unwrap();
        let trailers = Trailers::new(&ada, &ada, session);
        let mirrored = repositories.refresh(&grant, &access).await.unwrap();
        let staging = repositories
            .stage(&mirrored, session, 0, &grant, &trailers)
            .await
            .unwrap();
        drop(mirrored);
        let staging = Arc::new(staging);
        let told: Arc<Mutex<Vec<EventBody>>> = Arc::default();
        let telling = told.clone();
        let tell: git::Tell = Box::new(move |event| {
            telling.lock().unwrap().push(event);
            Box::pin(async {})
        });
        let socket = world.directory.path().join("socket");
        let gateway = Gateway::open(&socket).unwrap();
        let routes = Arc::new(GitRoutes::new([(grant.key.clone(), staging.clone())], tell));
        gateway.serve(Arc::new(move || git::router(routes.clone())));
        let address = relay(socket);
        let clone = world.directory.path().join("clone");
        let message = world.directory.path().join("message");
        std::fs::write(
            &message,
            format!("Change it\n\nWhy.\n\n{}\n", trailers.lines().join("\n")),
        )
        .unwrap();
        let scene = Self {
            world,
            staging,
            told,
            address,
            clone,
            message,
            _gateway: gateway,
        };
        std::fs::create_dir(&scene.clone).unwrap();
        let said = scene.run("git clone -q \"$URL\" . && git config user.name 'Ada Example' && git config user.email ada@example.org").await;
        assert!(said.success, "{}", said.text);
        scene
    }

    pub(super) fn place(&self) -> String {
        format!("/git/lab/{LAB}.git")
    }

    /// Runs a script in the clone: `commit TREE [PARENT]` prints a commit with all that one needs, `push COMMIT` pushes it to the session's
    /// branch, `tree` reads the lines of `git ls-tree`.
    pub(super) async fn run(&self, script: &str) -> Said {
        let prelude = "set -e\ncommit() { git commit-tree \"$1\" -p \"${2:-origin/main}\" -F \"$MSG\"; }\n\
                       push() { git push origin \"$1:refs/heads/$BRANCH\"; }\ntree() { git mktree --missing; }\nblob() { git hash-object -w --stdin; }\n";
        let mut command = Command::new("bash");
        command
            .args(["-c", &format!("{prelude}{script}")])
            .current_dir(&self.clone)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", "/nonexistent")
            .env("LC_ALL", "C.UTF-8")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("URL", format!("{}{}", self.address, self.place()))
            .env("BRANCH", BRANCH)
            .env("MSG", &self.message);
        let before = self.told.lock().unwrap().len();
        let output = tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap();
        Said {
            success: output.status.success(),
            text: String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout),
            refused: self.refused_since(before),
        }
    }

    pub(super) fn refused_since(&self, before: usize) -> Vec<String> {
        let told = self.told.lock().unwrap();
        let mut refused = Vec::new();
        for event in &told[before..] {
            if let EventBody::PushRefused { message, .. } = event {
                refused.push(message.clone());
            }
        }
        refused
    }

    /// Bytes as they are, over a connection of their own; the answer's status and text, once the other side has closed or said all.
    pub(super) async fn raw(&self, request: Vec<u8>) -> (u16, String, Vec<String>) {
        let address = self.address.trim_start_matches("http://").to_owned();
        let before = self.told.lock().unwrap().len();
        let answer = tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            let _ = stream.write_all(&request);
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            String::from_utf8_lossy(&answer).into_owned()
        });
        let answer = answer.await.unwrap();
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        (status, answer, self.refused_since(before))
    }

    pub(super) async fn post(&self, headers: &str, body: &[u8]) -> (u16, String, Vec<String>) {
        let mut request = format!(
            "POST {}/git-receive-pack HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/x-git-receive-pack-request\r\n\
             content-length: {}\r\n{headers}\r\n",
            self.place(),
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        self.raw(request).await
    }

    /// All references of the staging, as the gateway shows them.
    pub(super) async fn references(&self) -> String {
        let said = self.run("git ls-remote origin").await;
        assert!(said.success, "{}", said.text);
        said.text
    }
}

/// What `inside` does in a sandbox: a loopback port that leads to the gateway's socket.
fn relay(socket: PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for inner in listener.incoming() {
            let (Ok(inner), Ok(mut outer)) = (inner, UnixStream::connect(&socket)) else {
                return;
            };
            outer
                .write_all(Preamble::Relay(HTTP_PORT).to_string().as_bytes())
                .unwrap();
            let (mut from, mut to) = (inner.try_clone().unwrap(), outer.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(std::net::Shutdown::Write);
            });
            let (mut from, mut to) = (outer, inner);
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(std::net::Shutdown::Write);
            });
        }
    });
    address
}
