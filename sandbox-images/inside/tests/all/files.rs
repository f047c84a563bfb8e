//! Files that the worker writes into the sandbox.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use cofferdam_inside::{Order, Report};

use crate::gateway::connected;

#[tokio::test]
async fn writes_whole_files_and_follows_no_link() {
    let (gateway, _inside, mut control) = connected().await;
    let root = gateway.directory.path().join("root");
    let mut id = 0;
    let mut write = |path: &std::path::Path, mode, content: &str| {
        id += 1;
        Order::WriteFile {
            id,
            path: path.to_str().unwrap().to_owned(),
            mode,
            content: content.to_owned(),
        }
    };

    let file = root.join("a/b/c");
    control.order(write(&file, 0o640, "first")).await;
    assert_eq!(control.report().await, Report::Written { id: 1 });
    control.order(write(&file, 0o755, "second ü")).await;
    assert_eq!(control.report().await, Report::Written { id: 2 });
    assert_eq!(fs::read_to_string(&file).unwrap(), "second ü");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o755);

    let link = root.join("link");
    symlink(&file, &link).unwrap();
    symlink(root.join("nowhere"), root.join("dangling")).unwrap();
    control.order(write(&link, 0o600, "third")).await;
    assert!(control.refused(3).await.contains("not a regular file"));
    control.order(write(&root.join("dangling"), 0o600, "third")).await;
    control.refused(4).await;
    assert!(!root.join("nowhere").exists());
    assert_eq!(fs::read_to_string(&file).unwrap(), "second ü");

    control.order(write(&file.join("below-a-file"), 0o600, "x")).await;
    assert!(control.refused(5).await.contains("could not be made"));
    control.order(write(std::path::Path::new("relative"), 0o600, "x")).await;
    assert!(control.refused(6).await.contains("absolute"));
    control.order(write(&root.join("x/../y"), 0o600, "x")).await;
    control.refused(7).await;
    control.order(write(&file, 0o4755, "x")).await;
    assert!(control.refused(8).await.contains("permission bits"));
    let left: Vec<_> = fs::read_dir(root.join("a/b"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["c"], "no temporary file stays");
}
