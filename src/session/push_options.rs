//! A merge request by push options: for GitLab tokens to which the API is closed. What goes with the push, and what its answer says.
//!
//! Pure. GitLab takes each option as one line in which the two characters `\n` mean a line break; an option must fit into one packet of git's
//! protocol. What the answer names is only believed once the forge's references show it.

use crate::grant::ShownRef;
use crate::message::{BranchName, CommitId};

/// Longest description option in bytes. git sends an option as one packet of at most 65,516.
const LONGEST_DESCRIPTION: usize = 60_000;
/// Longest title in characters; GitLab stores 255.
const LONGEST_TITLE: usize = 240;
/// What stands where the rest of a description was.
const CUT: &str = "\\n\\n(The rest was cut: it did not fit into a push option.)";

/// The options that open a merge request, or, where there is one, give it the new description. The title of an open one stays: setting it would
/// take its draft mark away. `create` and the target go along all the same: references do not tell whether the one that was seen is still open,
/// and it makes no second one.
pub(super) fn options(exists: bool, target: &BranchName, title: &str, description: &str, draft: bool) -> Vec<String> {
    let mut options = vec![
        "merge_request.create".to_owned(),
        format!("merge_request.target={target}"),
    ];
    if !exists {
        let title: String = one_line(title).chars().take(LONGEST_TITLE).collect();
        options.push(format!("merge_request.title={title}"));
        if draft {
            options.push("merge_request.draft".to_owned());
        }
    }
    options.push(format!("merge_request.description={}", escaped(description)));
    options
}

fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect::<String>()
        .trim()
        .to_owned()
}

/// Lines joined by the two characters that GitLab reads as a line break, cut at a line when it is too long. The same two characters in the
/// text itself cannot be told apart from it and are written as an entity.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for (index, line) in text.replace("\\n", "&#92;n").lines().enumerate() {
        let line: String = line.replace('\t', "    ").chars().filter(|c| !c.is_control()).collect();
        if out.len() + line.len() + 2 > LONGEST_DESCRIPTION - CUT.len() {
            out.push_str(CUT);
            break;
        }
        if index > 0 {
            out.push_str("\\n");
        }
        out.push_str(&line);
    }
    out
}

/// The number of the merge request whose address the forge printed.
pub(super) fn number_in(remote: &[String]) -> Option<u64> {
    remote.iter().flat_map(|line| line.split_whitespace()).find_map(|word| {
        let address = word.starts_with("http://") || word.starts_with("https://");
        let (_, number) = word.split_once("/-/merge_requests/").filter(|_| address)?;
        number.parse().ok()
    })
}

/// The merge requests whose head is that commit, among the references `refs/merge-requests/*/head`, the newest first.
pub(super) fn numbers_at(refs: &[ShownRef], head: &CommitId) -> Vec<u64> {
    let mut numbers: Vec<u64> = refs
        .iter()
        .filter(|shown| shown.target == *head)
        .filter_map(|shown| {
            shown
                .name
                .strip_prefix("refs/merge-requests/")?
                .strip_suffix("/head")?
                .parse()
                .ok()
        })
        .collect();
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn main() -> BranchName {
        "main".parse().unwrap()
    }

    #[test]
    fn a_new_one_gets_everything_and_an_open_one_its_description() {
        let new = options(false, &main(), "Fix\nit", "# A\n\tb\r\nsay \"\\n\"", true);
        assert_eq!(
            new,
            [
                "merge_request.create",
                "merge_request.target=main",
                "merge_request.title=Fix it",
                "merge_request.draft",
                "merge_request.description=# A\\n    b\\nsay \"&#92;n\""
            ]
        );
        assert_eq!(
            options(true, &main(), "x", "y", true),
            [
                "merge_request.create",
                "merge_request.target=main",
                "merge_request.description=y"
            ]
        );
        assert!(!options(false, &main(), "x", "y", false).contains(&"merge_request.draft".to_owned()));
    }

    #[test]
    fn a_long_description_is_cut_at_a_line_and_says_so() {
        let text = "0123456789\n".repeat(20_000);
        let cut = escaped(&text);
        assert!(cut.len() <= LONGEST_DESCRIPTION && cut.ends_with(CUT), "{}", cut.len());
        assert!(escaped(&"x".repeat(100_000)).ends_with(CUT));
        assert!(
            options(false, &main(), "x", &text, false)
                .iter()
                .all(|option| option.len() < 65_516)
        );
    }

    #[test]
    fn the_address_is_found_among_the_forges_words() {
        let said = |line: &str| number_in(&["".to_owned(), line.to_owned()]);
        assert_eq!(said("http://h:1/gitlab/a/b/c/-/merge_requests/12"), Some(12));
        assert_eq!(said("  https://gitlab.com/a/b/-/merge_requests/7  "), Some(7));
        assert_eq!(
            said("https://h/a/b/-/merge_requests/new?merge_request%5Bsource_branch%5D=x"),
            None
        );
        assert_eq!(said("javascript:/-/merge_requests/7"), None);
    }

    #[test]
    fn references_tell_which_merge_request_has_the_commit() {
        let commit = |c: char| c.to_string().repeat(40).parse::<CommitId>().unwrap();
        let shown = |name: &str, c| ShownRef {
            name: name.to_owned(),
            target: commit(c),
        };
        let refs = [
            shown("refs/merge-requests/3/head", 'a'),
            shown("refs/merge-requests/12/head", 'a'),
            shown("refs/merge-requests/4/head", 'b'),
            shown("refs/merge-requests/x/head", 'a'),
            shown("refs/heads/y", 'a'),
        ];
        assert_eq!(numbers_at(&refs, &commit('a')), [12, 3]);
    }
}
