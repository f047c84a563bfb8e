//! A sandbox for the tests: a staging behind plain HTTP, as the gateway will carry it, and a clone of it with a real git client.

use std::path::{Path, PathBuf};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use futures::StreamExt as _;
use tokio::io::AsyncWriteExt as _;

use super::forge::{BRANCH, ada, git, git_command, trailers};
use crate::repository::{Protocol, Service, Staging, info_refs_prefix};

pub(super) struct Sandbox {
    directory: tempfile::TempDir,
    pub(super) address: String,
}

/// What a push said.
pub(super) struct Said {
    pub(super) success: bool,
    pub(super) text: String,
}

impl Sandbox {
    /// Serves the staging and clones it.
    pub(super) async fn clone_of(staging: &Staging) -> Self {
        let sandbox = Self {
            directory: tempfile::tempdir().unwrap(),
            address: serve(staging.clone()).await,
        };
        sandbox
            .run(&["clone", "-q", &format!("{}/p.git", sandbox.address), "."])
            .await
            .expect_success();
        sandbox.git(&["checkout", "-q", "-b", BRANCH]);
        sandbox.git(&["config", "user.name", &ada().name]);
        sandbox.git(&["config", "user.email", &ada().email]);
        sandbox
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(super) fn git(&self, arguments: &[&str]) -> String {
        git(self.path(), arguments)
    }

    /// Off the runtime's threads, which serve what this asks for.
    pub(super) async fn run(&self, arguments: &[&str]) -> Said {
        let mut command = git_command(self.path(), arguments);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap();
        Said {
            success: output.status.success(),
            text: String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout),
        }
    }

    pub(super) async fn push(&self, arguments: &[&str]) -> Said {
        self.run(&[&["push", "origin"], arguments].concat()).await
    }

    /// A commit as it should be.
    pub(super) fn commit(&self, file: &str, text: &str) -> String {
        self.commit_saying(
            file,
            text,
            &format!("Change {file}\n\nWhy.\n\n{}\n", trailers().lines().join("\n")),
            &[],
        )
    }

    pub(super) fn commit_saying(&self, file: &str, text: &str, message: &str, options: &[&str]) -> String {
        std::fs::write(self.path().join(file), text).unwrap();
        self.git(&["add", "."]);
        self.git(&[&["commit", "-q", "-m", message], options].concat());
        self.git(&["rev-parse", "HEAD"])
    }
}

impl Said {
    #[track_caller]
    pub(super) fn expect_success(&self) {
        assert!(self.success, "{}", self.text);
    }

    #[track_caller]
    pub(super) fn expect_refusal(&self, words: &[&str]) {
        assert!(!self.success, "it was accepted: {}", self.text);
        for word in words {
            assert!(self.text.contains(word), "{word:?} is not in {}", self.text);
        }
    }
}

pub(super) async fn serve(staging: Staging) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let router = axum::Router::new().fallback(answer).with_state(staging);
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

async fn answer(State(staging): State<Staging>, request: Request) -> Response {
    let header = request
        .headers()
        .get("git-protocol")
        .and_then(|value| value.to_str().ok());
    let protocol = Protocol::from_header(header);
    let path = PathBuf::from(request.uri().path());
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    let (prefix, mut serving, kind) = if name == "refs" {
        let service = Service::from_name(request.uri().query().unwrap().strip_prefix("service=").unwrap()).unwrap();
        let serving = staging.info_refs(service, protocol).await.unwrap();
        (
            info_refs_prefix(service, protocol),
            serving,
            format!("{}-advertisement", service.name()),
        )
    } else {
        let service = Service::from_name(&name).unwrap();
        let serving = match service {
            Service::UploadPack => staging.upload_pack(protocol).await.unwrap(),
            Service::ReceivePack => staging.receive_pack(protocol).await.unwrap(),
        };
        (Vec::new(), serving, format!("{}-result", service.name()))
    };
    let (mut input, output) = (serving.input.take().unwrap(), serving.output.take().unwrap());
    tokio::spawn(async move {
        let mut body = request.into_body().into_data_stream();
        while let Some(Ok(chunk)) = body.next().await {
            if input.write_all(&chunk).await.is_err() {
                break;
            }
        }
    });
    let prefix = futures::stream::iter([Ok(bytes::Bytes::from(prefix))]);
    // The program lives as long as its answer is being carried.
    let output = tokio_util::io::ReaderStream::new(output).map(move |chunk| {
        let _ = &serving;
        chunk
    });
    Response::builder()
        .header("Content-Type", format!("application/x-{kind}"))
        .body(Body::from_stream(prefix.chain(output)))
        .unwrap()
}

/// Bytes that do not compress.
pub(super) fn noise(seed: u64, length: usize) -> Vec<u8> {
    use sha2::Digest as _;
    (0_u64..)
        .flat_map(|index| sha2::Sha256::digest([seed.to_le_bytes(), index.to_le_bytes()].concat()))
        .take(length)
        .collect()
}
