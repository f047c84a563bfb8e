"""PyGithub at the test forge. Arguments: the GitHub instance's address."""

import sys

from github import Auth, Github
from github.GithubException import BadCredentialsException, GithubException, UnknownObjectException

from checks import Checks, raises, same

url = sys.argv[1] + "/api/v3"
check = Checks("PyGithub")


def client(token, **more):
    # No retries: what the test forge refuses is refused at once. No pauses: it is on this machine.
    pace = {"seconds_between_requests": 0, "seconds_between_writes": 0}
    return Github(base_url=url, auth=Auth.Token(token), retry=None, **pace, **more)


lin = client("test-github-lin", per_page=100)
ada = client("test-github-repo", per_page=5)


@check("the user and the scopes")
def _():
    same(lin.get_user().login, "lin")
    same(lin.oauth_scopes, ["repo", "user"])
    same(lin.get_user("ada").name, "Ada Example")


@check("refusals: a dead token, a missing repository")
def _():
    raises(BadCredentialsException, 401, lambda: client("test-github-expired").get_user().login)
    raises(UnknownObjectException, 404, lambda: lin.get_repo("acme/none"))


@check("repositories over pages")
def _():
    names = [one.full_name for one in lin.get_user().get_repos()]
    same(len(set(names)), 251)


@check("a renamed repository")
def _():
    same(lin.get_repo("acme/old-shop").full_name, "acme/shop")


@check("pull requests: list with filters")
def _():
    repo = lin.get_repo("acme/shop")
    same(sorted(one.head.ref for one in repo.get_pulls()), ["count-cart", "layout"])
    same([one.title for one in repo.get_pulls(head="acme:count-cart", state="open")], ["Count what is in the cart"])
    same(sorted(one.merged_at is not None for one in repo.get_pulls(state="closed")), [False, True])


@check("a pull request: details, files, commits, reviews, comments, checks")
def _():
    repo = lin.get_repo("acme/shop")
    pull = repo.get_pull(3)
    same([label.name for label in pull.labels], ["enhancement", "bug"])
    same([one.login for one in pull.requested_reviewers], ["lin"])
    same([one.filename for one in pull.get_files()], ["cart.txt"])
    same(pull.get_commits().totalCount, 1)
    same([one.state for one in pull.get_reviews()], ["CHANGES_REQUESTED", "APPROVED"])
    same([(one.path, one.line) for one in pull.get_review_comments()], [("cart.txt", 4)])
    same([one.body for one in pull.get_issue_comments()], ["Ready.", "Thanks!"])
    commit = repo.get_commit(pull.head.sha)
    same(sorted((one.name, one.conclusion) for one in commit.get_check_runs()), [("build", "success"), ("lint", None)])
    same(commit.get_combined_status().state, "success")


@check("a pull request: create, conflict, update, close")
def _():
    repo = ada.get_repo("acme/shop")
    pull = repo.create_pull(base="main", head="for-judges", title="Say hello", body="Words")
    same(pull.state, "open")
    error = raises(GithubException, 422, lambda: repo.create_pull(base="main", head="for-judges", title="x", body="y"))
    assert "already exists" in error.data["errors"][0]["message"], error.data
    pull.edit(title="Say hello, again")
    same(repo.get_pull(pull.number).title, "Say hello, again")
    pull.edit(state="closed")
    same(repo.get_pull(pull.number).state, "closed")


@check("review comments: answer one")
def _():
    pull = ada.get_repo("acme/shop").get_pull(3)
    first = next(iter(pull.get_review_comments()))
    made = pull.create_review_comment_reply(first.id, "Because.")
    same((made.body, made.in_reply_to_id), ("Because.", first.id))


@check("issues: list, pull requests told apart, comments over pages")
def _():
    repo = ada.get_repo("acme/shop")
    rows = list(repo.get_issues(state="all"))
    same(sorted(one.number for one in rows if one.pull_request is None), [1, 2])
    same([one.number for one in repo.get_issues(labels=["bug"], creator="grace")], [1])
    issue = repo.get_issue(1)
    for number in range(12):
        issue.create_comment(f"comment {number}")
    same(issue.get_comments().totalCount, 14)
    same([one.body for one in issue.get_comments()][-1], "comment 11")
    made = repo.create_issue("A new one", body="Words", labels=["judged"])
    made.edit(state="closed")
    same(repo.get_issue(made.number).state, "closed")


@check("search for issues and pull requests")
def _():
    found = lin.search_issues("repo:acme/shop is:pr is:open author:ada cart")
    same([one.number for one in found], [3])
    raises(GithubException, 422, lambda: lin.search_issues("repo:acme/none x").totalCount)


check.end()
