// octokit at the test forge, with its paging and its throttling. Arguments: the GitHub instance's address.

import { Octokit } from "octokit";

import { checks, raises, same } from "./checks.mjs";

const check = checks("octokit");
const quiet = { debug() {}, info() {}, warn() {}, error() {} };
const client = (auth) =>
  new Octokit({
    auth,
    baseUrl: `${process.argv[2]}/api/v3`,
    log: quiet,
    // It retries and throttles by itself: refusals are looked at here.
    retry: { enabled: false },
    throttle: { onRateLimit: () => false, onSecondaryRateLimit: () => false },
  });
const lin = client("test-github-lin");
const shop = { owner: "acme", repo: "shop" };

await check("the user and the scopes", async () => {
  const answer = await lin.rest.users.getAuthenticated();
  same([answer.data.login, answer.headers["x-oauth-scopes"]], ["lin", "repo, user"]);
});

await check("refusals: a dead token, a missing repository", async () => {
  await raises(401, () => client("test-github-revoked").rest.users.getAuthenticated());
  await raises(404, () => lin.rest.repos.get({ owner: "acme", repo: "none" }));
});

await check("repositories over pages", async () => {
  const all = await lin.paginate(lin.rest.repos.listForAuthenticatedUser, { per_page: 30 });
  same(new Set(all.map((one) => one.id)).size, 251);
});

await check("an installation's repositories over pages", async () => {
  const installation = client("test-github-installation");
  const all = await installation.paginate(installation.rest.apps.listReposAccessibleToInstallation, { per_page: 1 });
  same(all.map((one) => one.full_name), ["acme/shop"]);
});

await check("a renamed repository is followed", async () => {
  same((await lin.rest.repos.get({ owner: "acme", repo: "old-shop" })).data.full_name, "acme/shop");
});

await check("pull requests and what is said about one", async () => {
  const pulls = await lin.paginate(lin.rest.pulls.list, { ...shop, state: "all", per_page: 2 });
  same(pulls.length >= 4, true);
  const one = { ...shop, pull_number: 3 };
  same((await lin.paginate(lin.rest.pulls.listFiles, { ...one, per_page: 1 })).map((file) => file.filename), ["cart.txt"]);
  same((await lin.paginate(lin.rest.pulls.listReviews, { ...one, per_page: 1 })).length >= 2, true);
  same((await lin.paginate(lin.rest.pulls.listReviewComments, { ...one, per_page: 1 })).length >= 1, true);
  const diff = await lin.rest.pulls.get({ ...one, mediaType: { format: "diff" } });
  same(diff.data.startsWith("diff --git a/cart.txt"), true);
});

await check("check runs over pages", async () => {
  const { data } = await lin.rest.pulls.get({ ...shop, pull_number: 3 });
  const runs = await lin.paginate(lin.rest.checks.listForRef, { ...shop, ref: data.head.sha, per_page: 1 });
  same(runs.map((one) => one.name).sort(), ["build", "lint"]);
});

await check("issues over pages, search, a comment", async () => {
  const rows = await lin.paginate(lin.rest.issues.listForRepo, { ...shop, state: "all", per_page: 2 });
  same(rows.filter((one) => !one.pull_request && one.number < 3).length, 2);
  const found = await lin.paginate("GET /search/issues", { q: "repo:acme/shop is:pr", per_page: 2 });
  same(found.length >= 4, true);
  const made = await lin.rest.issues.createComment({ ...shop, issue_number: 1, body: "From octokit" });
  same(made.data.body, "From octokit");
});

check.end();
