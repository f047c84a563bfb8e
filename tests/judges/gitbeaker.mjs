// gitbeaker at the test forge. Arguments: the GitLab instance's address.

import { Gitlab } from "@gitbeaker/rest";

import { checks, raises, same } from "./checks.mjs";

const host = process.argv[2];
const check = checks("gitbeaker");
const lin = new Gitlab({ host, token: "test-gitlab-lin" });
const ada = new Gitlab({ host, token: "test-gitlab-api" });
const shop = "platform/shop";

await check("the user and the token", async () => {
  same((await lin.Users.showCurrentUser()).username, "lin");
  same((await lin.Metadata.show()).enterprise, true);
});

await check("refusals: a dead token, a missing project", async () => {
  await raises(401, () => new Gitlab({ host, token: "test-gitlab-revoked" }).Users.showCurrentUser());
  await raises(404, () => lin.Projects.show("platform/none"));
});

await check("projects over pages, by offset and by keyset", async () => {
  same((await lin.Projects.all({ membership: true, perPage: 50 })).length, 251);
  const keyset = { membership: true, pagination: "keyset", orderBy: "id", perPage: 50 };
  same((await lin.Projects.all(keyset)).length, 251);
  same((await lin.Projects.show(shop)).default_branch, "main");
});

await check("merge requests: list, details, diffs, approvals", async () => {
  const opened = await lin.MergeRequests.all({ projectId: shop, state: "opened", sourceBranch: "count-cart" });
  same(opened.map((one) => one.iid), [1]);
  same((await lin.MergeRequests.show(shop, 1)).head_pipeline.status, "success");
  same((await lin.MergeRequests.allDiffs(shop, 1)).map((one) => one.new_path), ["cart.txt"]);
  same((await lin.MergeRequests.allPipelines(shop, 1)).map((one) => one.status), ["success", "failed"]);
  same((await lin.MergeRequests.allCommits(shop, 1)).length, 1);
});

await check("a merge request: create, conflict, update", async () => {
  const made = await ada.MergeRequests.create(shop, "for-gitbeaker", "main", "Say hello", { description: "Words" });
  same(made.state, "opened");
  await raises(409, () => ada.MergeRequests.create(shop, "for-gitbeaker", "main", "Say hello"));
  same((await ada.MergeRequests.edit(shop, made.iid, { title: "Draft: Say hello" })).draft, true);
});

await check("notes and discussions of a merge request", async () => {
  const note = await ada.MergeRequestNotes.create(shop, 1, "From gitbeaker");
  same((await ada.MergeRequestNotes.show(shop, 1, note.id)).body, "From gitbeaker");
  const thread = await ada.MergeRequestDiscussions.create(shop, 1, "A thread");
  await ada.MergeRequestDiscussions.addNote(shop, 1, thread.id, "An answer");
  const all = await ada.MergeRequestDiscussions.all(shop, 1, { perPage: 2 });
  same(all.find((one) => one.id === thread.id).notes.map((one) => one.body), ["A thread", "An answer"]);
  const resolved = await ada.MergeRequestDiscussions.resolve(shop, 1, thread.id, true);
  same(resolved.notes.every((one) => one.resolved), true);
});

await check("issues: list, details, notes", async () => {
  same((await ada.Issues.all({ projectId: shop, issueType: "issue", labels: "bug" })).map((one) => one.iid), [1]);
  same((await ada.Issues.show(1, { projectId: shop })).title, "The cart forgets things");
  await ada.IssueNotes.create(shop, 1, "From gitbeaker");
  same((await ada.IssueNotes.all(shop, 1, { perPage: 1 }))[0].body, "From gitbeaker");
});

check.end();
