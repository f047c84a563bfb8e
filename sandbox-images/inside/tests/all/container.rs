//! `inside` as PID 1 of a sealed container. Skipped, loudly, where no engine answers, the image is missing or the static
//! binary is not built.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use cofferdam_inside::{Order, Report};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::gateway::{Control, Gateway, INSIDE, until, within};
use crate::repository::TRAILERS;

const IMAGE: &str = "cofferdam/sandbox-base:12";
const BUILD: &str = "RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --target x86_64-unknown-linux-gnu -p cofferdam-inside";

fn docker(arguments: &[&str]) -> Option<String> {
    let output = Command::new("docker").args(arguments).output().ok()?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        eprintln!("docker {}: {stderr}", arguments.first()?);
        return None;
    }
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Built beside the binary under test, or named by a variable.
fn static_binary() -> Option<PathBuf> {
    let named = std::env::var_os("COFFERDAM_INSIDE_STATIC").map(PathBuf::from);
    let target = Path::new(INSIDE).ancestors().nth(2)?;
    named
        .or_else(|| Some(target.join("x86_64-unknown-linux-gnu/release/inside")))
        .filter(|path| path.is_file())
}

/// Removed when it is dropped.
struct Container(String);

impl Drop for Container {
    fn drop(&mut self) {
        docker(&["rm", "--force", "--volumes", &self.0]);
    }
}

struct Sandbox {
    gateway: Gateway,
    control: Control,
    container: Container,
    _directory: tempfile::TempDir,
}

impl Sandbox {
    async fn start() -> Option<Self> {
        if docker(&["image", "inspect", "--format", "{{.Id}}", IMAGE]).is_none() {
            eprintln!("SKIPPED: no docker, or no image {IMAGE} (sandbox-images/build.sh builds it)");
            return None;
        }
        let Some(binary) = static_binary() else {
            eprintln!("SKIPPED: no static binary; {BUILD}");
            return None;
        };
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let program = directory.path().join("cofferdam");
        fs::create_dir_all(program.join("hooks")).unwrap();
        fs::copy(&binary, program.join("inside")).unwrap();
        for name in ["prepare-commit-msg", "commit-msg"] {
            symlink("../inside", program.join("hooks").join(name)).unwrap();
        }
        let gateway = Gateway::open();
        fs::set_permissions(gateway.directory.path(), fs::Permissions::from_mode(0o711)).unwrap();
        fs::set_permissions(gateway.socket(), fs::Permissions::from_mode(0o666)).unwrap();
        let mount = |from: &Path, to: &str| format!("type=bind,source={},target={to},readonly", from.display());
        let arguments = [
            "run --detach --network none --read-only --cap-drop ALL --security-opt no-new-privileges --user 1000:1000",
            "--tmpfs /tmp:mode=1777 --env COFFERDAM_CANARY=canary --pids-limit 512 --memory 512m",
            "--entrypoint /opt/cofferdam/inside --mount",
        ]
        .map(|part| part.split(' '));
        let mut arguments: Vec<&str> = arguments.into_iter().flatten().collect();
        let (socket, program) = (
            mount(gateway.directory.path(), "/run/cofferdam"),
            mount(&program, "/opt/cofferdam"),
        );
        arguments.extend([socket.as_str(), "--mount", program.as_str(), IMAGE]);
        let container = Container(docker(&arguments).expect("the container does not start"));
        let mut control = gateway.control().await;
        let hello = control.hello().await;
        assert_eq!(
            hello,
            Report::Hello {
                version: 1,
                pid: 1,
                uid: 1000
            }
        );
        Some(Self {
            gateway,
            control,
            container,
            _directory: directory,
        })
    }

    /// Runs a script; its exit code and all that it printed.
    async fn shell(&mut self, script: &str) -> (Option<i32>, String) {
        let (id, token) = self.control.shell(script).await;
        let mut stdio = self.gateway.stdio(&token).await;
        self.control.started(id).await;
        let (stdout, stderr) = stdio.read_all().await;
        let (code, _) = self.control.exited(id).await;
        (code, String::from_utf8([stdout, stderr].concat()).unwrap())
    }

    async fn resident(&mut self) -> u64 {
        let (_, said) = self.shell("grep VmRSS /proc/1/status").await;
        said.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

#[tokio::test]
async fn serves_as_the_first_process_of_a_sealed_container() {
    let Some(mut sandbox) = Sandbox::start().await else {
        return;
    };
    let idle = sandbox.resident().await;
    eprintln!("resident when idle: {idle} kB");
    assert!(idle <= 2048, "{idle} kB");

    // Nothing of PID 1 can be read by the user that it runs as.
    for secret in ["cat environ", "cat mem", "cat maps", "cat auxv", "ls fd/", "ls root/"] {
        let (code, said) = sandbox.shell(&format!("cd /proc/1 && {secret}")).await;
        assert!(
            code != Some(0) && said.contains("Permission denied") && !said.contains("canary"),
            "{secret}: {said}"
        );
    }

    // Orphans, in sessions of their own, end up here and are reaped.
    let (code, _) = sandbox
        .shell("for i in 1 2 3 4 5 6 7 8 9; do setsid sh -c 'sleep 0.1; exit 1' & done")
        .await;
    assert_eq!(code, Some(0));
    let mut left = String::new();
    for _ in 0..1000 {
        (_, left) = sandbox.shell("cat /proc/[0-9]*/stat | grep -cE '\\) [A-Z] 1 '").await;
        // The one that counts.
        if left.trim() == "1" {
            break;
        }
    }
    assert_eq!(left.trim(), "1");

    // The one way out, and none beside it.
    let (code, said) = sandbox.shell("bash -c 'exec 3<>/dev/tcp/10.0.0.1/80'").await;
    assert!(code != Some(0) && said.contains("unreachable"), "{said}");
    sandbox.control.order(Order::Listen { id: 9000, port: 8080 }).await;
    assert_eq!(
        sandbox.control.report().await,
        Report::Listening { id: 9000, port: 8080 }
    );
    let client = "bash -c 'exec 3<>/dev/tcp/127.0.0.1/8080; echo asked >&3; read answer <&3; echo got $answer'";
    let (id, token) = sandbox.control.shell(client).await;
    let mut stdio = sandbox.gateway.stdio(&token).await;
    sandbox.control.started(id).await;
    let (port, mut relay) = sandbox.gateway.relay().await;
    assert_eq!(port, 8080);
    let mut asked = [0; 6];
    within(relay.read_exact(&mut asked)).await.unwrap();
    relay.write_all(b"answer\n").await.unwrap();
    assert_eq!((&asked, stdio.line().await.as_str()), (b"asked\n", "got answer"));
    assert_eq!(sandbox.control.exited(id).await, (Some(0), None));

    // A commit by the image's own git.
    let (path, content) = ("/tmp/trailers".to_owned(), TRAILERS.to_owned());
    sandbox
        .control
        .order(Order::WriteFile {
            id: 9001,
            path,
            mode: 0o600,
            content,
        })
        .await;
    assert_eq!(sandbox.control.report().await, Report::Written { id: 9001 });
    let script = "export HOME=/tmp COFFERDAM_TRAILERS=/tmp/trailers; git init -q /tmp/r && cd /tmp/r && git config user.name a && \
        git config user.email a@b && git config core.hooksPath /opt/cofferdam/hooks && git commit -q --allow-empty -m Title && \
        git commit -q --amend --allow-empty --no-edit --no-verify && git log --format=%B && /opt/cofferdam/inside trailers";
    let (code, said) = sandbox.shell(script).await;
    assert!(
        said.starts_with(&format!("Title\n\n{TRAILERS}")) && said.contains("nothing changed"),
        "{said}"
    );
    assert_eq!(code, Some(0));

    let busy = sandbox.resident().await;
    eprintln!("resident after the work: {busy} kB");
    sandbox.control.order(Order::Shutdown { grace_ms: 1000 }).await;
    let id = sandbox.container.0.clone();
    assert_eq!(docker(&["wait", &id]).as_deref(), Some("0"));
}

#[tokio::test]
async fn kills_everything_in_the_container_however_it_hides() {
    let Some(mut sandbox) = Sandbox::start().await else {
        return;
    };
    let hidden = "for i in 1 2 3; do setsid sh -c 'trap \"\" TERM HUP INT; while :; do sleep 0.05; done' </dev/null >/dev/null 2>&1 & done";
    let (code, _) = sandbox.shell(hidden).await;
    assert_eq!(code, Some(0));
    // As the engine stops it.
    let id = sandbox.container.0.clone();
    docker(&["kill", "--signal", "TERM", &id]).unwrap();
    assert_eq!(docker(&["wait", &id]).as_deref(), Some("0"));
    until(|| docker(&["inspect", "--format", "{{.State.Status}}", &id]).as_deref() == Some("exited")).await;
}
