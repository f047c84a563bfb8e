"""python-gitlab at the test forge. Arguments: the GitLab instance's address."""

import sys
import warnings

import gitlab
from gitlab.exceptions import (
    GitlabAuthenticationError,
    GitlabCreateError,
    GitlabGetError,
    GitlabListError,
)

from checks import Checks, raises, same

# It warns where a Link does not fit the base address: that must not happen.
warnings.simplefilter("error", UserWarning)

url = sys.argv[1]
check = Checks("python-gitlab")
lin = gitlab.Gitlab(url, private_token="test-gitlab-lin", keep_base_url=True)
ada = gitlab.Gitlab(url, private_token="test-gitlab-api")
shop = "platform/shop"


@check("the user and the token")
def _():
    lin.auth()
    same(lin.user.username, "lin")
    token = lin.personal_access_tokens.get("self")
    same(token.scopes, ["api"])
    same(token.active, True)
    same(lin.version()[0][:2], "18")


@check("a token of Bearer kind")
def _():
    other = gitlab.Gitlab(url, oauth_token="test-gitlab-lin")
    other.auth()
    same(other.user.username, "lin")


@check("refusals: a dead token, a lacking scope, a missing project")
def _():
    dead = gitlab.Gitlab(url, private_token="test-gitlab-expired")
    raises(GitlabAuthenticationError, 401, dead.auth)
    narrow = gitlab.Gitlab(url, private_token="test-gitlab-write-repository")
    raises(GitlabListError, 403, narrow.projects.list)
    raises(GitlabGetError, 404, lambda: lin.projects.get("platform/none"))


@check("projects: pages, iterator, search, keyset")
def _():
    page = lin.projects.list(membership=True, per_page=20, page=2)
    same(len(page), 20)
    every = list(lin.projects.list(membership=True, iterator=True, per_page=100))
    same(len({one.id for one in every}), 251)
    found = lin.projects.list(search="shop", membership=True, get_all=True)
    same([one.path_with_namespace for one in found], [shop])
    # keyset gives no totals: the iterator must go on without them
    walk = lin.projects.list(membership=True, pagination="keyset", order_by="id", per_page=50, iterator=True)
    same(len(list(walk)), 251)


@check("one project: branches, members, protection, commits")
def _():
    project = lin.projects.get(shop)
    same(project.default_branch, "main")
    same(project.permissions["project_access"]["access_level"], 40)
    same(project.branches.get("main").protected, True)
    same(project.members.get(9).access_level, 40)
    same(project.members_all.get(7).username, "ada")
    same(project.protectedbranches.list()[0].name, "main")
    same(project.commits.list(get_all=True)[-1].title, "Initial commit")


@check("merge requests: list with filters")
def _():
    project = lin.projects.get(shop)
    opened = project.mergerequests.list(state="opened", get_all=True)
    same(sorted(one.source_branch for one in opened), ["count-cart", "layout"])
    same([one.iid for one in project.mergerequests.list(source_branch="count-cart", get_all=True)], [1])
    same([one.iid for one in project.mergerequests.list(author_username="lin", get_all=True)], [2])
    same([one.iid for one in project.mergerequests.list(search="heading", get_all=True)], [3])
    same([one.state for one in project.mergerequests.list(state="merged", get_all=True)], ["merged"])
    raises(GitlabListError, 400, lambda: project.mergerequests.list(state="open"))


@check("a merge request: details, diffs, approvals, reviewers, pipelines")
def _():
    request = lin.projects.get(shop).mergerequests.get(1)
    same(request.labels, ["enhancement", "cart"])
    same(request.head_pipeline["status"], "success")
    same(request.changes()["changes"][0]["new_path"], "cart.txt")
    # its `diffs` are versions of the request; the files are asked for by address
    files = lin.http_list(f"/projects/{request.project_id}/merge_requests/1/diffs", get_all=True)
    same([one["new_path"] for one in files], ["cart.txt"])
    same([one.title for one in request.commits()], ["Count what is in the cart"])
    same([one.status for one in request.pipelines.list(get_all=True)], ["success", "failed"])
    same(request.approvals.get().approved, True)
    same([one.state for one in request.reviewer_details.list(get_all=True)], ["approved"])


@check("a merge request: create, conflict, update, close")
def _():
    project = ada.projects.get(shop)
    commit = {"title": "Say hello", "source_branch": "for-judges", "target_branch": "main"}
    made = project.mergerequests.create({**commit, "description": "Words", "labels": ["judged"]})
    same(made.state, "opened")
    error = raises(GitlabCreateError, 409, lambda: project.mergerequests.create(commit))
    assert f"!{made.iid}" in str(error.error_message), error.error_message
    error = raises(GitlabCreateError, 400, lambda: project.mergerequests.create({**commit, "source_branch": "absent"}))
    assert "source_branch" in str(error.error_message), error.error_message
    made.title = "Draft: Say hello"
    made.save()
    same(project.mergerequests.get(made.iid).draft, True)
    made.state_event = "close"
    made.save()
    same(project.mergerequests.get(made.iid).state, "closed")


@check("notes of a merge request: create, list, edit")
def _():
    request = ada.projects.get(shop).mergerequests.get(2)
    for number in range(25):
        request.notes.create({"body": f"note {number}"})
    notes = request.notes.list(iterator=True, sort="asc", per_page=10)
    same([note.body for note in notes][:2], ["note 0", "note 1"])
    same(len(request.notes.list(get_all=True)), 25)
    note = request.notes.list(per_page=1, get_all=False)[0]
    note.body = "other words"
    note.save()
    same(request.notes.get(note.id).body, "other words")
    system = ada.projects.get(shop).mergerequests.get(1).notes.list(activity_filter="only_activity", get_all=True)
    same([note.system for note in system], [True])


@check("discussions of a merge request: list, begin, reply, resolve")
def _():
    request = ada.projects.get(shop).mergerequests.get(1)
    lines = [one for one in request.discussions.list(iterator=True) if one.attributes["notes"][0]["type"] == "DiffNote"]
    note = lines[0].attributes["notes"][0]
    same((note["position"]["new_path"], note["position"]["new_line"]), ("cart.txt", 4))
    same(note["resolved"], True)
    refs = request.diff_refs
    position = {**refs, "position_type": "text", "new_path": "cart.txt", "old_path": "cart.txt", "new_line": 4}
    made = request.discussions.create({"body": "And five?", "position": position})
    made.notes.create({"body": "No."})
    again = request.discussions.get(made.id)
    same([one["body"] for one in again.attributes["notes"]], ["And five?", "No."])
    again.resolved = True
    again.save()
    same(request.discussions.get(made.id).attributes["notes"][1]["resolved"], True)


@check("issues: list with filters, details, notes, create, close")
def _():
    project = ada.projects.get(shop)
    same(len(project.issues.list(get_all=True)), 3)
    only = project.issues.list(issue_type="issue", get_all=True)
    same([one.iid for one in only], [1])
    same([one.iid for one in project.issues.list(labels=["bug"], state="opened", get_all=True)], [1])
    same([one.iid for one in project.issues.list(author_username="lin", state="closed", get_all=True)], [3])
    issue = project.issues.get(1)
    same([note.body for note in issue.notes.list(sort="asc", activity_filter="only_comments", get_all=True)], ["Seen today.", "On it."])
    issue.notes.create({"body": "Fixed."})
    same(issue.notes.list(get_all=True)[0].body, "Fixed.")
    made = project.issues.create({"title": "A new one", "labels": ["judged"]})
    made.state_event = "close"
    made.save()
    same(project.issues.get(made.iid).state, "closed")
    raises(GitlabGetError, 404, lambda: project.issues.get(99))


check.end()
