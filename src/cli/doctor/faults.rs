//! Faults of engines and runtimes that let a container out, by the version that mended them. Pure: from a version's text to what is known.
//!
//! A distribution may have mended an old version without a new number, so this warns and never refuses.

/// A fault that was mended in some versions.
struct Fault {
    /// Its name, and what it lets happen.
    what: &'static str,
    /// The component as the engine calls it.
    component: &'static str,
    /// The first good version of each line that got one, ascending; a line after the last is good.
    mended: &'static [(u32, u32, u32)],
}

const FAULTS: &[Fault] = &[
    Fault {
        what: "CVE-2024-21626 (a container gets at the host's files through a leaked descriptor)",
        component: "runc",
        mended: &[(1, 1, 12)],
    },
    Fault {
        what: "CVE-2025-31133, CVE-2025-52565, CVE-2025-52881 (redirected masked paths, /dev/console and /proc writes)",
        component: "runc",
        mended: &[(1, 2, 8), (1, 3, 3)],
    },
    Fault {
        what: "CVE-2026-41579 (an image's /dev that is a symbolic link)",
        component: "runc",
        mended: &[(1, 4, 3)],
    },
    Fault {
        what: "CVE-2024-25621 and CVE-2025-64329 (open runtime directories, memory used up by attaching)",
        component: "containerd",
        mended: &[(1, 7, 29), (2, 0, 7), (2, 1, 5), (2, 2, 0)],
    },
    Fault {
        what: "CVE-2024-41110 (authorisation plugins are passed by)",
        component: "Engine",
        mended: &[(23, 0, 15), (25, 0, 6), (26, 1, 5), (27, 1, 1)],
    },
    Fault {
        what: "CVE-2024-29018 (name look-ups leave internal networks; sandboxes here have no network at all)",
        component: "Engine",
        mended: &[(23, 0, 11), (25, 0, 5), (26, 0, 0)],
    },
];

/// What is known of a component at a version; nothing where the version cannot be read.
pub(super) fn known(component: &str, version: &str) -> Vec<&'static str> {
    let Some(version) = numbers(version) else {
        return Vec::new();
    };
    FAULTS
        .iter()
        .filter(|fault| fault.component == component && !is_mended(version, fault.mended))
        .map(|fault| fault.what)
        .collect()
}

/// A version is good at or above the first good one of its own line, or when its line is newer than all that are listed.
fn is_mended(version: (u32, u32, u32), mended: &[(u32, u32, u32)]) -> bool {
    let line = |version: (u32, u32, u32)| (version.0, version.1);
    match mended.iter().find(|good| line(**good) == line(version)) {
        Some(good) => version >= *good,
        None => mended.last().is_some_and(|last| line(version) > line(*last)),
    }
}

/// The first three numbers of a version such as `1.1.5+ds1-1+deb12u1` or `v2.0.0-rc.1`.
fn numbers(version: &str) -> Option<(u32, u32, u32)> {
    let plain: String = version
        .trim_start_matches('v')
        .chars()
        .take_while(|c| c.is_ascii_digit() || *c == '.')
        .collect();
    let mut parts = plain.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??, parts.next().flatten().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_are_warned_of_and_new_ones_are_not() {
        assert_eq!(known("runc", "1.1.5+ds1-1+deb12u1").len(), 3);
        assert_eq!(known("runc", "1.1.12").len(), 2);
        assert_eq!(known("runc", "1.2.8").len(), 1);
        assert_eq!(known("runc", "1.4.3"), Vec::<&str>::new());
        assert_eq!(known("runc", "v2.0.0-rc.1"), Vec::<&str>::new());
        assert_eq!(known("Engine", "20.10.24+dfsg1").len(), 2);
        assert_eq!(known("Engine", "28.2.2"), Vec::<&str>::new());
        assert_eq!(known("other", "1.0.0"), Vec::<&str>::new());
        assert_eq!(known("runc", "unknown"), Vec::<&str>::new());
    }
}
