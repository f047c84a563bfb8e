//! Where the token is not: not in any process's arguments or environment, not on the disk, not in an error.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use base64::Engine as _;

use super::forge::{BRANCH, Forge, TOKEN, access};
use super::sandbox::Sandbox;
use crate::repository::PublishRequest;

/// The arguments and the environment of every process whose arguments contain the text.
fn processes(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(arguments) = std::fs::read(entry.path().join("cmdline")) else {
            continue;
        };
        let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
        if arguments.contains(text) {
            let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            found.push((arguments, String::from_utf8_lossy(&environment).replace('\0', "\n")));
        }
    }
    found
}

/// Waits until nothing runs whose arguments contain the text.
pub(super) async fn until_no_process_mentions(text: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let running = processes(text);
        if running.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "still running: {running:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn assert_no_token_in(text: &str, place: &str) {
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("oauth2:{TOKEN}"));
    assert!(
        !text.contains(TOKEN) && !text.contains(&basic),
        "the token is in {place}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_is_in_no_process_and_in_no_file() {
    let forge = Forge::start().await;
    forge.manners.hold.store(true, Ordering::SeqCst);
    let (room, project) = (forge.room.clone(), forge.project("team/greeter"));
    let refresh = tokio::spawn(async move { room.refresh(&project, &access()).await.map(|_| ()) });
    // The credential was handed over and accepted: git and its helper stand still now.
    forge.manners.held.notified().await;
    let running = processes(&forge.address);
    assert!(running.len() >= 2, "git and its helper are not to be seen: {running:?}");
    for (arguments, environment) in running {
        assert!(
            environment.contains("GIT_TERMINAL_PROMPT"),
            "the environment was read: {environment}"
        );
        assert_no_token_in(&arguments, "arguments");
        assert_no_token_in(&environment, "an environment");
    }
    forge.manners.hold.store(false, Ordering::SeqCst);
    forge.manners.release.notify_one();
    refresh.await.unwrap().unwrap();

    let staging = forge.stage().await.unwrap();
    let sandbox = Sandbox::clone_of(&staging).await;
    sandbox.commit("a", "a\n");
    sandbox.push(&[BRANCH]).await.expect_success();
    let head = staging.head().unwrap().unwrap();
    forge.manners.hold.store(true, Ordering::SeqCst);
    let (publishing, project, published) = (staging.clone(), forge.project("team/greeter"), head.clone());
    let push = tokio::spawn(async move {
        let request = PublishRequest {
            head: &published,
            expected: None,
            options: &[],
        };
        publishing.publish(&project, &access(), &request).await
    });
    forge.manners.held.notified().await;
    let running = processes(&forge.address);
    assert!(running.len() >= 2, "{running:?}");
    for (arguments, environment) in running {
        assert_no_token_in(&arguments, "arguments");
        assert_no_token_in(&environment, "an environment");
    }
    forge.manners.hold.store(false, Ordering::SeqCst);
    forge.manners.release.notify_one();
    push.await.unwrap().unwrap();
    staging.keep().await.unwrap();

    for file in super::files_below(&forge.state)
        .into_iter()
        .chain(super::files_below(sandbox.path()))
    {
        assert_no_token_in(
            &String::from_utf8_lossy(&std::fs::read(&file).unwrap()),
            &file.display().to_string(),
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forge_that_echoes_the_token_is_masked() {
    let forge = Forge::start().await;
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("oauth2:{TOKEN}"));
    *forge.manners.status.lock().unwrap() = Some((403, format!("no, {TOKEN} and {basic}\n")));
    let error = forge
        .room
        .refresh(&forge.project("team/greeter"), &access())
        .await
        .unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(text.contains("[MASKED]"), "{text}");
    assert_no_token_in(&text, "an error");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_cannot_say_more_than_a_password() {
    let forge = Forge::start().await;
    let mut access = super::forge::access_with("good-start\nhost=elsewhere");
    let project = forge.project("team/greeter");
    assert!(forge.room.refresh(&project, &access).await.is_err());
    access = super::forge::access_with("");
    assert!(forge.room.refresh(&project, &access).await.is_err());
    assert!(forge.manners.seen.lock().unwrap().is_empty());
}

/// What can be read from the open files of `pack-objects` in a repository, beyond its three streams; `None` while it does not run.
fn readable_by_pack_objects(repository: &std::path::Path) -> Option<Vec<(String, String)>> {
    use std::io::Read as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let process = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .find(|process| {
            let arguments = std::fs::read(process.join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&arguments).contains("pack-objects")
                && std::fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == repository)
        })?;
    let mut found = Vec::new();
    for file in std::fs::read_dir(process.join("fd")).ok()?.flatten() {
        let number: u32 = file.file_name().to_str().unwrap().parse().unwrap();
        let target = std::fs::read_link(file.path())
            .unwrap_or_default()
            .display()
            .to_string();
        if number < 3 || !(target.contains("pipe:") || target.contains("memfd:")) {
            continue;
        }
        let opened = std::fs::File::options()
            .read(true)
            .custom_flags(0o4000)
            .open(file.path());
        let mut content = [0; 4096];
        let length = opened.and_then(|mut file| file.read(&mut content)).unwrap_or(0);
        found.push((
            format!("{number} -> {target}"),
            String::from_utf8_lossy(&content[..length]).into_owned(),
        ));
    }
    Some(found)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_reads_an_agents_objects_while_it_is_published_finds_no_token() {
    let forge = Forge::start().await;
    let staging = forge.stage().await.unwrap();
    let sandbox = Sandbox::clone_of(&staging).await;
    // So large that git still packs while it already talks to the forge.
    std::fs::write(sandbox.path().join("large"), super::sandbox::noise(1, 4_000_000)).unwrap();
    sandbox.commit("a", "a\n");
    sandbox.push(&[BRANCH]).await.expect_success();
    let head = staging.head().unwrap().unwrap();
    forge.manners.hold.store(true, Ordering::SeqCst);
    let (publishing, project, published) = (staging.clone(), forge.project("team/greeter"), head.clone());
    let push = tokio::spawn(async move {
        let request = PublishRequest {
            head: &published,
            expected: None,
            options: &[],
        };
        publishing.publish(&project, &access(), &request).await
    });
    forge.manners.held.notified().await;
    let files = readable_by_pack_objects(&staging.repository()).expect("git packs");
    // It inherits what its parents were given, but there is nothing left in it.
    assert!(files.iter().any(|(file, _)| file.starts_with("3 -> ")), "{files:?}");
    for (file, content) in files {
        assert_no_token_in(&content, &file);
    }
    forge.manners.hold.store(false, Ordering::SeqCst);
    forge.manners.release.notify_one();
    push.await.unwrap().unwrap();
    assert_eq!(forge.head("team/greeter", BRANCH), Some(head));
}
