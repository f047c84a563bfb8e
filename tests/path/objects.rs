//! A project's objects as its sandbox sees them: shown, not copied, not to be written, and gone with their connection.

use std::os::unix::fs::MetadataExt as _;

use serde_json::json;

use crate::harness::World;
use crate::kit::{Daemon, outcome, wait_for};
use crate::talk::Talk;

/// What must hold in the clone, one command each.
const LOOKS: &[&str] = &[
    // It builds on what is shown, and has no pack of its own.
    "grep -qx /run/cofferdam-objects/0/objects .git/objects/info/alternates && test -z \"$(find .git/objects -name '*.pack')\"",
    // It is the gateway's clone all the same.
    "test \"$(git remote get-url origin)\" = http://127.0.0.1:8470/git/lab/platform/tools/greeter.git && git fetch -q --prune origin",
    "git fsck --full --strict --no-dangling && git log --oneline origin/main && git gc -q",
    // Nobody writes there.
    "! touch /run/cofferdam-objects/x && ! touch /run/cofferdam-objects/0/objects/pack/x && ! rm -rf /run/cofferdam-objects/0",
    "! chmod u+w /run/cofferdam-objects/0/objects/pack/*.pack && ! sh -c 'echo x >>/run/cofferdam-objects/0/packed-refs'",
    // Nothing besides what the token was shown.
    "test ! -e /run/cofferdam-objects/1 && test ! -e /run/cofferdam-objects/0/objects/info/alternates",
];

#[test]
fn a_clone_builds_on_shown_objects_and_cannot_change_them() {
    let world = World::new();
    let looks: Vec<String> = LOOKS
        .iter()
        .map(|look| format!("!shell ({look}) && echo >>/tmp/held"))
        .collect();
    // Something is published if every one of them held.
    let prompt = format!(
        "{}\n!shell test \"$(wc -l </tmp/held)\" -eq {} && echo all >held.txt",
        looks.join("\n"),
        LOOKS.len()
    );
    let ran = world.exec(&world.lab_task(&prompt));
    assert_eq!(ran.reason(), "published", "{:?}", ran.all("agent_tool"));
    world.assert_clean();
}

#[test]
fn what_is_shown_is_a_link_for_this_session_and_goes_with_its_connection() {
    let world = World::new();
    let daemon = Daemon::start(&world, "");
    let talk = Talk::begin(&world, &daemon, &world.task("!say ready\n!hang"));
    wait_for(&talk.events, "agent_message");
    let sandboxes = world.state_dir().join("sandboxes");
    let home = std::fs::read_dir(sandboxes).unwrap().next().unwrap().unwrap();
    let shown = home.path().join("objects");
    for number in ["0", "1"] {
        let packs = std::fs::read_dir(shown.join(number).join("objects/pack")).unwrap();
        for pack in packs.map(Result::unwrap) {
            // The mirror's, the object store's, and this one.
            assert!(
                pack.metadata().unwrap().nlink() >= 3,
                "{} was copied",
                pack.path().display()
            );
        }
    }
    talk.applied("d-1", json!({"kind": "disconnect", "connection": "lab"}));
    assert!(!shown.join("0").exists());
    assert!(shown.join("1").exists());
    talk.applied("e-1", json!({"kind": "end", "publish": false}));
    let outcome = outcome(&talk.events);
    assert_eq!(outcome["reason"], "cancelled", "{outcome}");
    world.assert_clean();
}
