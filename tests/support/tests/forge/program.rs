//! The program `test-forge`: says where it is, and stops by itself.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use cofferdam_test_support::forge::{self, Options, Seed};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

async fn started(directory: &Path, more: &[&str]) -> (Child, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_test-forge"));
    command
        .arg("--seed")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/seeds/demo.toml"));
    command
        .arg("--data")
        .arg(directory.join("data"))
        .arg("--ready-file")
        .arg(directory.join("ready"))
        .args(more);
    let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = tokio::time::timeout(Duration::from_secs(30), lines.next_line())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    (child, serde_json::from_str(&line).unwrap())
}

async fn ended(mut child: Child) -> bool {
    tokio::time::timeout(Duration::from_secs(20), child.wait())
        .await
        .unwrap()
        .unwrap()
        .success()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_tells_its_address_and_stops_at_a_signal() {
    let directory = tempfile::tempdir().unwrap();
    let (child, said) = started(directory.path(), &[]).await;
    let ready: Value = serde_json::from_str(&std::fs::read_to_string(directory.path().join("ready")).unwrap()).unwrap();
    assert_eq!(ready, said);
    assert_eq!(said["gitlab"], format!("{}/gitlab", said["github"].as_str().unwrap()));
    let id = child.id().unwrap().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .await
            .unwrap()
            .success()
    );
    assert!(ended(child).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_stops_after_its_lifetime_and_with_its_parent() {
    let directory = tempfile::tempdir().unwrap();
    let (child, _) = started(&directory.path().join("one"), &["--max-lifetime", "1"]).await;
    assert!(ended(child).await);
    let mut parent = Command::new("sleep").arg("60").kill_on_drop(true).spawn().unwrap();
    let id = parent.id().unwrap().to_string();
    let (child, _) = started(&directory.path().join("two"), &["--parent-pid", &id]).await;
    parent.kill().await.unwrap();
    assert!(ended(child).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_waits_the_delay() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options {
        delay: Duration::from_millis(200),
        ..Options::default()
    };
    let seed = Seed::parse("").unwrap();
    let running = forge::start_with(&seed, directory.path(), options).await.unwrap();
    let before = std::time::Instant::now();
    let client = crate::world::client().no_proxy().build().unwrap();
    assert_eq!(
        client.get(format!("{}/", running.url)).send().await.unwrap().status(),
        200
    );
    assert!(before.elapsed() >= Duration::from_millis(200));
    running.stop().await;
}

#[tokio::test]
async fn what_is_wrong_is_said_and_nothing_starts() {
    let directory = tempfile::tempdir().unwrap();
    let refused = async |text: &str| match Seed::parse(text) {
        Ok(seed) => forge::start(&seed, directory.path()).await.unwrap_err().to_string(),
        Err(wrong) => wrong.to_string(),
    };
    assert!(
        refused("[[projects]]\nforge = \"gitlab\"\npath = \"alone\"")
            .await
            .contains("group/name")
    );
    assert!(
        refused("[[projects]]\nforge = \"github\"\npath = \"a/b/c\"")
            .await
            .contains("two parts")
    );
    assert!(
        refused("[[tokens]]\nname = \"t\"\nvalue = \"v\"\nuser = \"x\"\nforge = \"gitlab\"")
            .await
            .contains("no user x")
    );
    assert!(refused("colour = 1").await.contains("unknown field"));
    let open = Options {
        listen: "0.0.0.0:0".parse().unwrap(),
        ..Options::default()
    };
    let wrong = forge::start_with(&Seed::default(), directory.path(), open)
        .await
        .unwrap_err();
    assert!(wrong.to_string().contains("not a loopback address"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generated_and_a_copied_project_hold_what_they_should() {
    let text = r#"
        [[users]]
        id = 1
        username = "a"
        name = "A"
        email = "a@example.org"
        [[tokens]]
        name = "t"
        value = "v"
        user = "a"
        forge = "gitlab"
        scopes = ["api"]
        [[projects]]
        forge = "gitlab"
        path = "g/big"
        generate = { files = 120, bytes = 500, commits = 30 }
        members = [{ user = "a", role = "developer" }]
        [[projects]]
        forge = "gitlab"
        path = "g/empty"
        empty = true
        members = [{ user = "a", role = "developer" }]
    "#;
    let directory = tempfile::tempdir().unwrap();
    let running = forge::start(&Seed::parse(text).unwrap(), &directory.path().join("data"))
        .await
        .unwrap();
    let clone = directory.path().join("clone");
    let url = format!("{}/g/big.git", running.gitlab.replace("http://", "http://x:v@"));
    let mut git = Command::new("git");
    assert!(
        git.args(["clone", "-q", "--bare", &url])
            .arg(&clone)
            .status()
            .await
            .unwrap()
            .success()
    );
    let count = Command::new("git")
        .args(["rev-list", "--count", "main"])
        .current_dir(&clone)
        .output()
        .await
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&count.stdout).trim(), "30");

    let copied = format!(
        "[[users]]\nid = 1\nusername = \"a\"\nname = \"A\"\nemail = \"a@example.org\"\n[[projects]]\nforge = \"github\"\npath = \"o/copy\"\nvisibility = \"public\"\nfrom_bare = {:?}",
        clone.to_str().unwrap()
    );
    let copy = forge::start(&Seed::parse(&copied).unwrap(), &directory.path().join("copied"))
        .await
        .unwrap();
    let url = format!("{}/o/copy.git", copy.github);
    let heads = Command::new("git")
        .args(["ls-remote", &url, "refs/heads/main"])
        .output()
        .await
        .unwrap();
    assert!(String::from_utf8_lossy(&heads.stdout).ends_with("refs/heads/main\n"));
    copy.stop().await;
    running.stop().await;
}
