//! The git route as a sandbox has it: the real gateway on its socket, a real git client, hand-made requests for what no client sends. Each
//! attempt is refused by rule, reference and remedy, is told to the session, and changes nothing. No Docker.

mod scene;

use crate::harness::LAB;
use scene::{BRANCH, Scene};

/// A script, and what its refusal says.
type Row = (&'static str, &'static str, &'static [&'static str]);

/// Attempts with a branch that is not there yet.
const NEW: &[Row] = &[
    (
        "update main",
        "git push origin $(commit origin/main^{tree}):refs/heads/main",
        &["refs/heads/main may not be pushed"],
    ),
    (
        "create another",
        "git push origin $(commit origin/main^{tree}):refs/heads/other",
        &["refs/heads/other may not be pushed"],
    ),
    (
        "create below it",
        "git push origin $(commit origin/main^{tree}):refs/heads/$BRANCH/x",
        &["refs/heads/cofferdam/fix-1/x may not be pushed"],
    ),
    (
        "delete main",
        "git push origin :refs/heads/main",
        &["refs/heads/main may not be pushed"],
    ),
    (
        "tag",
        "git tag -f v1 && git push origin v1",
        &["refs/tags/v1 may not be pushed", "no tag"],
    ),
    (
        "annotated tag",
        "git tag -f -a -m x v2 && git push origin v2",
        &["refs/tags/v2 may not be pushed"],
    ),
    (
        "hidden names",
        "git push origin $(commit origin/main^{tree}):refs/merge-requests/1/head",
        &["refs/merge-requests/1/head may not be pushed"],
    ),
    (
        "several",
        "c=$(commit origin/main^{tree}); git push origin $c:refs/heads/$BRANCH $c:refs/heads/two",
        &["2 references"],
    ),
    (
        "several at once",
        "c=$(commit origin/main^{tree}); git push --atomic origin $c:refs/heads/$BRANCH $c:refs/tags/two",
        &["2 references"],
    ),
    (
        "a tag as the branch",
        "git tag -f -a -m x v3 $(commit origin/main^{tree}) && git push origin v3:refs/heads/$BRANCH",
        &["refs/heads/cofferdam/fix-1"],
    ),
    (
        "a cut history",
        "one=$(commit origin/main^{tree}); two=$(commit origin/main^{tree} $one); echo $two > .git/shallow; \
        three=$(commit origin/main^{tree} $two); push $three && r=0 || r=1; rm .git/shallow; exit $r",
        &["shallow", "git fetch --unshallow"],
    ),
    (
        "oversized pack",
        "b=$(head -c 5000000 /dev/urandom | blob); d=$(head -c 5000000 /dev/urandom | blob); \
        push $(commit $(printf '100644 blob %s\\tb\\n100644 blob %s\\td\\n' $b $d | tree))",
        &["larger than what may be pushed at once", "git log --stat"],
    ),
    (
        "oversized file",
        "b=$(head -c 5600000 /dev/urandom | blob); push $(commit $(printf '100644 blob %s\\tb\\n' $b | tree))",
        &["5600000 bytes", "git rev-list"],
    ),
    (
        "too many objects",
        "for i in $(seq 310); do echo $i; done | while read i; do printf '100644 blob %s\\tf%s\\n' $(echo $i | blob) $i; done > ../list; \
        push $(commit $(tree < ../list))",
        &["more than 300 new files"],
    ),
    (
        "a large directory",
        "b=$(echo x | blob); perl -e 'printf \"100644 blob %s\\tf%07d\\n\", $ARGV[0], $_ for 1..250000' $b > ../list; \
        push $(commit $(tree < ../list))",
        &["has a list of", "several directories"],
    ),
    (
        "a tree of a million files",
        "t=$(printf '100644 blob %s\\tf\\n' $(echo x | blob) | tree); for level in 1 2 3 4 5 6; do \
        t=$(for i in 0 1 2 3 4 5 6 7 8 9; do printf '040000 tree %s\\td%s\\n' $t $i; done | tree); done; push $(commit $t)",
        &["more than 500 files"],
    ),
    (
        "deep directories",
        "t=$(printf '100644 blob %s\\tf\\n' $(echo x | blob) | tree); for level in $(seq 140); do \
        t=$(printf '040000 tree %s\\td\\n' $t | tree); done; push $(commit $t)",
        &["deeper than 128"],
    ),
    (
        "nothing to merge with",
        "push $(git commit-tree origin/main^{tree} -F $MSG)",
        &["no parent"],
    ),
    (
        "no trailers",
        "push $(git commit-tree origin/main^{tree} -p origin/main -m bare)",
        &["lacks the trailer", "inside trailers"],
    ),
];

/// Names by which some system finds git's own directory, and names that no file can have.
const NAMES: &[&str] = &[
    ".git",
    ".GIT",
    ".Git",
    ".git.",
    ".git ",
    "git~1",
    "GIT~1",
    ".git::$INDEX_ALLOCATION",
    ".git:x",
    ".g\u{200c}it",
    ".gi\u{feff}t",
    ".",
    "..",
];

/// Symbolic links: name, target, why not.
const LINKS: &[(&str, &str, &str)] = &[
    ("link", "/etc/passwd", "an absolute path"),
    ("link", "../x", "out of the project"),
    ("link", "a/../../x", "up again"),
    ("link", ".git/config", "git's own directory"),
    (".gitattributes", "x", "git itself reads"),
    (".gitignore", "x", "git itself reads"),
];

/// `.gitmodules` files that are refused.
const MODULES: &[(&str, &str)] = &[
    (
        "[submodule \"x\"]\\n\\tpath = x\\n\\turl = -u./payload\\n",
        "gitmodulesUrl",
    ),
    ("[submodule \"x\"]\\n\\tpath = -x\\n\\turl = ../x\\n", "gitmodulesPath"),
    (
        "[submodule \"../../x\"]\\n\\tpath = x\\n\\turl = ../x\\n",
        "gitmodulesName",
    ),
    (
        "[submodule \"x\"]\\n\\tpath = x\\n\\turl = ../x\\n\\tupdate = !id\\n",
        "gitmodulesUpdate",
    ),
    (
        "[submodule \"x\"]\\n\\tpath = x\\n\\turl = ext::sh -c id\\n",
        "a submodule at ext::sh",
    ),
    (
        "[submodule \"x\"]\\n\\tpath = x\\n\\turl = file:///etc\\n",
        "a submodule at file:///etc",
    ),
    (
        "[submodule \"x\"]\\n\\tpath = x\\n\\turl = /srv/secret.git\\n",
        "a submodule at /srv/secret.git",
    ),
];

/// One attempt: refused by the words, told once in the same words with rule, reference and remedy, and nothing is changed.
async fn refused(scene: &Scene, name: &str, script: &str, words: &[&str], before: &str) {
    let said = scene.run(script).await;
    assert!(!said.success, "{name} went through: {}", said.text);
    let [told] = said.refused.as_slice() else {
        panic!("{name}: {} events; it said: {}", said.refused.len(), said.text)
    };
    // git wraps nothing, but begins each line of the other side's with its mark.
    let heard = said.text.replace("remote: ", "");
    for word in words {
        assert!(heard.contains(word), "{name}: {word:?} is not in {heard}");
        assert!(told.contains(word), "{name}: {word:?} is not in the event {told}");
    }
    assert!(told.starts_with("cofferdam: refused:"), "{name}: {told}");
    assert!(
        told.contains("refs/") && told.contains("`git "),
        "{name}: no reference or no remedy in {told}"
    );
    assert_eq!(scene.references().await, before, "{name} changed something");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_pushed_is_refused_by_rule_reference_and_remedy() {
    let scene = Scene::open().await;
    let before = scene.references().await;
    assert!(
        before.contains("refs/heads/main") && !before.contains(BRANCH),
        "{before}"
    );
    for (name, script, words) in NEW {
        refused(&scene, name, script, words, &before).await;
    }
    for name in NAMES {
        let script = format!("push $(commit $(printf '100644 blob %s\\t%s\\n' $(echo x | blob) '{name}' | tree))");
        refused(&scene, name, &script, &["hasDot", "git commit --amend"], &before).await;
        let script = format!(
            "t=$(printf '100644 blob %s\\tconfig\\n' $(echo x | blob) | tree); push $(commit $(printf '040000 tree %s\\t%s\\n' $t '{name}' | tree))"
        );
        refused(&scene, name, &script, &["hasDot"], &before).await;
    }
    for (name, target, why) in LINKS {
        let script = format!(
            "push $(commit $(printf '120000 blob %s\\t%s\\n' $(printf '%s' '{target}' | blob) '{name}' | tree))"
        );
        refused(&scene, target, &script, &["symbolic link", name, why], &before).await;
    }
    let script = "push $(commit $(printf '120000 blob %s\\t.gitmodules\\n' $(printf x | blob) | tree))";
    refused(&scene, ".gitmodules as a link", script, &["gitmodules"], &before).await;
    for (text, words) in MODULES {
        let script =
            format!("push $(commit $(printf '100644 blob %s\\t.gitmodules\\n' $(printf '{text}' | blob) | tree))");
        refused(&scene, text, &script, &[words], &before).await;
    }
    // Accepted: a large push, for which git asks first with an empty request; then what may not be done to it.
    let large = scene
        .run("b=$(head -c 5000000 /dev/urandom | blob); push $(commit $(printf '100644 blob %s\\tb\\n' $b | tree))")
        .await;
    assert!(large.success && large.refused.is_empty(), "{}", large.text);
    let before = scene.references().await;
    assert!(before.contains(BRANCH));
    let first = scene.staging.head().unwrap();
    for (name, script, words) in [
        (
            "delete",
            "git push origin :refs/heads/$BRANCH",
            &["may not be deleted", "git revert"][..],
        ),
        (
            "force",
            "git push -f origin $(commit origin/main^{tree}):refs/heads/$BRANCH",
            &["never rewritten", "git merge"],
        ),
        (
            "rewind",
            "git push -f origin origin/main:refs/heads/$BRANCH",
            &["would lose commit"],
        ),
    ] {
        refused(&scene, name, script, words, &before).await;
    }
    assert_eq!(scene.staging.head().unwrap(), first);
    // And the forge saw nothing of all this.
    let project = scene.world.project(LAB);
    assert_eq!(
        project["branches"].as_object().unwrap().keys().collect::<Vec<_>>(),
        ["main"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn links_and_submodules_that_stay_at_home_may_be_pushed_in_every_protocol() {
    let scene = Scene::open().await;
    let script = "t=$(printf '120000 blob %s\\tup\\n' $(printf '../b.txt' | blob) | tree)\n\
        m=$(printf '[submodule \"x\"]\\n\\tpath = x\\n\\turl = ../other.git\\n' | blob)\n\
        printf '100644 blob %s\\t.gitmodules\\n120000 blob %s\\tlink\\n040000 tree %s\\tdir\\n160000 commit %s\\tx\\n' \
        $m $(printf 'dir/up' | blob) $t $(git rev-parse origin/main) > ../list\nc=$(commit $(tree < ../list)); push $c";
    let said = scene.run(script).await;
    assert!(said.success, "{}", said.text);
    for version in ["0", "1", "2"] {
        let script = format!(
            "git config protocol.version {version}; git fetch -q --prune origin; push $(commit origin/$BRANCH^{{tree}} origin/$BRANCH)\n\
             git fetch -q origin; git clone -q \"$URL\" ../clone-{version}; git clone -q --depth 1 \"$URL\" ../shallow-{version}; git ls-remote \"$URL\"\n\
             cd ../shallow-{version}; git fetch -q --unshallow"
        );
        let said = scene.run(&script).await;
        assert!(said.success && said.refused.is_empty(), "{version}: {}", said.text);
    }
    // From a clone that is cut off where this project goes on, work can be pushed.
    let script = "cd ../shallow-2; git config user.name 'Ada Example'; git config user.email ada@example.org; git fetch -q origin $BRANCH; \
        push $(commit FETCH_HEAD^{tree} FETCH_HEAD)";
    let said = scene.run(script).await;
    assert!(said.success, "{}", said.text);
    assert_eq!(scene.told.lock().unwrap().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_no_client_sends_are_turned_away_and_told() {
    let scene = Scene::open().await;
    let before = scene.references().await;
    let packet = |text: &str| format!("{:04x}{text}", text.len() + 4);
    let command = |name: &str, words: &str| packet(&format!("{} {} {name}\0 {words}", "0".repeat(40), "a".repeat(40)));
    let branch = format!("refs/heads/{BRANCH}");
    let usual = command(&branch, "report-status-v2 side-band-64k") + "0000";
    let count = 1_u32.to_be_bytes();
    let corrupt = [usual.as_bytes(), b"PACK", &2_u32.to_be_bytes(), &count, &[0x95; 200]].concat();
    let silent = [
        (command(&branch, "") + "0000").as_bytes(),
        b"PACK",
        &2_u32.to_be_bytes(),
        &count,
        &[0x95; 200],
    ]
    .concat();
    let plain = [
        (command(&branch, "report-status") + "0000").as_bytes(),
        b"PACK",
        &2_u32.to_be_bytes(),
        &0_u32.to_be_bytes(),
        &[0; 20],
    ]
    .concat();
    let rows: [(&str, &str, &[u8], u16, &str); 12] = [
        ("corrupt pack", "", &corrupt, 200, "could not be taken in"),
        ("no report wanted", "", &silent, 200, "the client asked for no report"),
        ("no side band", "", &plain, 200, &branch),
        (
            "compressed",
            "content-encoding: gzip\r\n",
            usual.as_bytes(),
            415,
            "without Content-Encoding",
        ),
        (
            "compressed otherwise",
            "content-encoding: br\r\n",
            usual.as_bytes(),
            415,
            "without Content-Encoding",
        ),
        (
            "options",
            "",
            &(command(&branch, "push-options") + "00000009-x00000").into_bytes(),
            400,
            "push options are not taken",
        ),
        (
            "certificate",
            "",
            &(packet("push-cert\0 report-status") + "0000").into_bytes(),
            400,
            "without --signed",
        ),
        (
            "certificate's nonce",
            "",
            &(command(&branch, "push-cert=x") + "0000").into_bytes(),
            400,
            "without --signed",
        ),
        ("no packets", "", b"hello", 400, "git's packet format"),
        (
            "a list without end",
            "",
            &usual.as_bytes()[..usual.len() - 4],
            400,
            "broke off",
        ),
        ("something after nothing", "", b"0000PACK", 400, "follows an empty list"),
        (
            "a long list",
            "",
            &command(&branch, "").repeat(700).into_bytes(),
            400,
            "longer than 64 KiB",
        ),
    ];
    for (name, headers, body, status, words) in rows {
        let (answered, text, told) = scene.post(headers, body).await;
        assert_eq!(answered, status, "{name}: {text}");
        assert_eq!(told.len(), 1, "{name}: {told:?} {text}");
        assert!(told[0].contains(words), "{name}: {told:?}");
        assert_eq!(scene.references().await, before, "{name}");
    }
    // The question before a large push is answered and is none.
    let (status, text, told) = scene.post("", b"0000").await;
    assert!(status == 200 && told.is_empty(), "{text}");
    // With two lengths the chunks count, as the standard says, and nobody stands between who could have read the other.
    let both = format!(
        "POST {}/git-receive-pack HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n4\r\n0000\r\n0\r\n\r\n",
        scene.place()
    );
    let (status, text, told) = scene.raw(both.into_bytes()).await;
    assert!(status == 200 && told.is_empty(), "{text} {told:?}");
    assert_eq!(text.matches("HTTP/1.1").count(), 1, "{text}");
    assert_eq!(scene.references().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_smart_protocol_of_granted_projects_is_served() {
    let scene = Scene::open().await;
    let place = scene.place();
    for (method, target, status) in [
        ("GET", format!("{place}/info/refs?service=git-upload-pack"), 200),
        ("GET", format!("{place}/info/refs"), 403),
        ("GET", format!("{place}/info/refs?service=git-upload-archive"), 403),
        ("GET", format!("{place}/info/refs?service=git-upload-pack%00"), 403),
        ("GET", format!("{place}/HEAD"), 403),
        ("GET", format!("{place}/config"), 403),
        ("GET", format!("{place}/objects/info/packs"), 403),
        ("GET", format!("{place}/objects/info/alternates"), 403),
        ("POST", format!("{place}/git-upload-archive"), 403),
        ("POST", format!("{place}/info/lfs/objects/batch"), 403),
        ("GET", format!("{place}/info/lfs/locks"), 403),
        ("PUT", format!("{place}/git-receive-pack"), 403),
        (
            "GET",
            format!("{place}/../greeter.git/info/refs?service=git-upload-pack"),
            404,
        ),
        (
            "GET",
            format!(
                "{}/info/refs?service=git-upload-pack",
                place.replace("tools/greeter", "tools%2fgreeter")
            ),
            404,
        ),
        (
            "GET",
            format!(
                "{}/info/refs?service=git-upload-pack",
                place.replace("tools/", "tools//")
            ),
            404,
        ),
        (
            "GET",
            "/git/lab/acme/secret.git/info/refs?service=git-upload-pack".to_owned(),
            404,
        ),
        (
            "GET",
            "/git/hub/platform/tools/greeter.git/info/refs?service=git-upload-pack".to_owned(),
            404,
        ),
        ("GET", "/git/lab".to_owned(), 404),
    ] {
        let request =
            format!("{method} {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        let (answered, text, _) = scene.raw(request.into_bytes()).await;
        assert_eq!(answered, status, "{method} {target}: {text}");
    }
    // Neither options nor certificates are offered, so a client says itself that they do not work.
    for (script, words) in [
        ("git push -o ci.skip origin HEAD:refs/heads/$BRANCH", "push options"),
        ("git push --signed=true origin HEAD:refs/heads/$BRANCH", "--signed"),
    ] {
        let said = scene.run(script).await;
        assert!(!said.success && said.text.contains(words), "{}", said.text);
    }
    assert_eq!(scene.staging.head().unwrap(), None);
}
