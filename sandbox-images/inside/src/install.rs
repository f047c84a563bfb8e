//! Putting this program and the names of its git hooks into a directory: how it comes into a sandbox whose worker can mount nothing there.
//!
//! Writes nowhere else, and replaces what is there.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::hook;

/// Writes `inside`, and `hooks/` with a link to it for each hook.
pub(crate) fn run(directory: &Path) -> io::Result<()> {
    let program = directory.join("inside");
    let hooks = directory.join("hooks");
    fs::create_dir_all(&hooks)?;
    // Anew each time, as an interrupted one may have left half a program.
    forget(&program)?;
    fs::copy("/proc/self/exe", &program)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    for name in hook::NAMES {
        forget(&hooks.join(name))?;
        symlink("../inside", hooks.join(name))?;
    }
    Ok(())
}

fn forget(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn puts_the_program_and_its_hooks_there_and_again_over_half_of_it() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("inside"), "half").unwrap();
        for _ in 0..2 {
            run(directory.path()).unwrap();
        }
        for name in hook::NAMES {
            let linked = fs::read(directory.path().join("hooks").join(name)).unwrap();
            assert_eq!(linked, fs::read("/proc/self/exe").unwrap());
        }
    }
}
