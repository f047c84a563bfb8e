"""githubkit at the test forge: its models refuse answers that lack what GitHub promises. Arguments: the GitHub instance's address."""

import sys

from githubkit import GitHub, TokenAuthStrategy
from githubkit.exception import RequestFailed

from checks import Checks, raises, same

url = sys.argv[1] + "/api/v3/"
check = Checks("githubkit")


def client(token):
    return GitHub(TokenAuthStrategy(token), base_url=url, http_cache=False, auto_retry=False)


# A client must outlive what is asked through it.
lin, dead, installation = (client(f"test-github-{name}") for name in ("lin", "expired", "installation"))
# The version that the product asks for; the newest one has fields that others lack.
VERSION = "2022-11-28"
rest = lin.rest(VERSION)
shop = ("acme", "shop")


@check("the user, somebody else, e-mail addresses, limits")
def _():
    same(rest.users.get_authenticated().parsed_data.login, "lin")
    same(rest.users.get_by_username("ada").parsed_data.name, "Ada Example")
    same(rest.users.list_emails_for_authenticated_user().parsed_data[0].primary, True)
    assert rest.rate_limit.get().parsed_data.rate.limit > 0
    rest.meta.get()


@check("refusals")
def _():
    raises(RequestFailed, 401, dead.rest(VERSION).users.get_authenticated)
    raises(RequestFailed, 404, lambda: rest.repos.get("acme", "none"))


@check("repositories over pages")
def _():
    pages = lin.rest.paginate(rest.repos.list_for_authenticated_user, per_page=100)
    same(len({one.id for one in pages}), 251)


@check("an installation's repositories")
def _():
    given = installation.rest(VERSION).apps.list_repos_accessible_to_installation().parsed_data
    same([one.full_name for one in given.repositories], ["acme/shop"])


@check("a repository, its branches and commits")
def _():
    same(rest.repos.get(*shop).parsed_data.default_branch, "main")
    same({one.name for one in rest.repos.list_branches(*shop).parsed_data} >= {"main", "count-cart"}, True)
    head = rest.repos.get_branch(*shop, "main").parsed_data.commit.sha
    same(rest.repos.get_commit(*shop, head).parsed_data.sha, head)
    same(rest.git.get_ref(*shop, "heads/main").parsed_data.object_.sha, head)
    assert rest.repos.list_commits(*shop).parsed_data
    same(rest.repos.get_collaborator_permission_level(*shop, "ada").parsed_data.permission, "write")


@check("pull requests: list, details, files, commits")
def _():
    same(len(rest.pulls.list(*shop, state="all").parsed_data) >= 4, True)
    pull = rest.pulls.get(*shop, 3).parsed_data
    same(pull.title, "Count what is in the cart")
    rest.pulls.get(*shop, 5)
    same([one.filename for one in rest.pulls.list_files(*shop, 3).parsed_data], ["cart.txt"])
    same(len(rest.pulls.list_commits(*shop, 3).parsed_data), 1)


@check("reviews, review comments, who is asked")
def _():
    reviews = rest.pulls.list_reviews(*shop, 3).parsed_data
    same(reviews[0].state, "CHANGES_REQUESTED")
    rest.pulls.get_review(*shop, 3, reviews[0].id)
    same(len(rest.pulls.list_comments_for_review(*shop, 3, reviews[0].id).parsed_data), 1)
    same(rest.pulls.list_review_comments(*shop, 3).parsed_data[0].path, "cart.txt")
    rest.pulls.list_requested_reviewers(*shop, 3)


@check("check runs and statuses")
def _():
    head = rest.pulls.get(*shop, 3).parsed_data.head.sha
    same(rest.checks.list_for_ref(*shop, head).parsed_data.total_count, 2)
    same(rest.repos.get_combined_status_for_ref(*shop, head).parsed_data.state, "success")


@check("issues, comments, labels, search")
def _():
    assert rest.issues.list_for_repo(*shop, state="all").parsed_data
    same(rest.issues.get(*shop, 1).parsed_data.title, "The cart forgets things")
    assert rest.issues.list_comments(*shop, 1).parsed_data
    rest.issues.list_labels_for_repo(*shop)
    same(rest.search.issues_and_pull_requests(q="repo:acme/shop is:issue paper").parsed_data.total_count, 1)


@check("writing: pull request, issue, comment, review")
def _():
    pull = rest.pulls.create(*shop, title="Say more", head="for-githubkit", base="main", body="Words").parsed_data
    rest.pulls.update(*shop, pull.number, state="closed")
    issue = rest.issues.create(*shop, title="A new one", labels=["judged"]).parsed_data
    rest.issues.create_comment(*shop, issue.number, body="Words")
    rest.issues.update(*shop, issue.number, state="closed")
    rest.pulls.create_review(*shop, 3, event="COMMENT", body="Fine.")


check.end()
