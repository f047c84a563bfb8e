//! GitLab's rows, by their number.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Row, branch, info_refs, more};
use crate::world::{Got, World, got};

const LIN: &str = "test-gitlab-lin";
const ADA: &str = "test-gitlab-api";
const SHOP: &str = "/projects/platform%2Fshop";
const HERE: &str = "/projects/measured%2Fhere";
const CLOSED: &str = "/projects/measured%2Fclosed";
const LARGE: &str = "/projects/measured%2Flarge";

/// Rows that are not checked, and why.
pub(super) const APART: [(u64, &str); 11] = [
    (9, "tokens of OAuth are not played"),
    (17, "no project is made"),
    (18, "no project is deleted"),
    (20, "tags are read with git"),
    (21, "files are read with git"),
    (45, "nothing is merged by REST"),
    (46, "nothing is merged by REST"),
    (47, "nothing is merged by REST"),
    (48, "no test merge is made"),
    (67, "nobody is banned: it would last longer than a test"),
    (76, "a push makes no project"),
];

fn wish(source: &str) -> Value {
    json!({"title": "A title", "source_branch": source, "target_branch": "main"})
}

async fn post(world: &World, path: &str, body: Value) -> Got {
    world.post_gitlab(path, LIN, body).await
}

async fn user(world: &World, headers: &[(&str, String)]) -> Got {
    let mut request = world.gitlab(Method::GET, "/user", "");
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    got(request).await
}

/// Whether the row is known here; if so it holds.
pub(super) async fn check(world: &World, row: &Row) -> bool {
    let get = async |path: String| world.get_gitlab(&path, LIN).await;
    let requests = format!("{SHOP}/merge_requests");
    match row.number {
        1..=12 => tokens(world, row).await,
        13..=16 | 19 => projects(world, row).await,
        22 => {
            for number in [0, 77, 5001] {
                row.holds(&get(format!("{requests}/{number}")).await);
            }
        }
        23 => row.holds(&get(format!("{requests}/x")).await),
        24..=34 => opened(world, row).await,
        36..=44 => requests_of(world, row).await,
        49..=54 => notes(world, row).await,
        55..=58 => issues(world, row).await,
        59..=62 | 68 => paging(world, row).await,
        63 | 64 | 66 => rates(world, row).await,
        69 | 71..=75 | 77 => git(world, row).await,
        _ => return false,
    }
    true
}

async fn tokens(world: &World, row: &Row) {
    let get = async |path: &str, token: &str| world.get_gitlab(path, token).await;
    match row.number {
        1 => {
            row.holds(&get("/user", "").await);
            row.holds(&get("/user", "nobody-knows-this").await);
        }
        2 => row.holds(&get("/user", "test-gitlab-revoked").await),
        3 => row.holds(&get("/user", "test-gitlab-expired").await),
        4 => {
            row.holds(&user(world, &[("PRIVATE-TOKEN", LIN.to_owned())]).await);
            row.holds(&user(world, &[("Authorization", format!("Bearer {LIN}"))]).await);
            row.holds(&got(world.gitlab(Method::GET, &format!("/user?private_token={LIN}"), "")).await);
            row.that(user(world, &[("JOB-TOKEN", LIN.to_owned())]).await.status == 401);
        }
        5 => row.holds(&got(world.gitlab(Method::GET, "/user", "").basic_auth("anything", Some(LIN))).await),
        6 => row.holds(&get("/projects", "test-gitlab-read-user").await),
        7 => {
            let path = format!("{SHOP}/issues");
            let body = json!({"title": "x"});
            row.holds(&world.post_gitlab(&path, "test-gitlab-granular", body).await);
            row.that(
                get("/personal_access_tokens/self", "test-gitlab-granular").await.body["scopes"] == json!(["granular"]),
            );
        }
        8 => {
            for token in [
                ADA,
                "test-gitlab-read-api",
                "test-gitlab-write-repository",
                "test-gitlab-read-user",
                "test-gitlab-read-repository",
                "test-gitlab-granular",
            ] {
                let own = get("/personal_access_tokens/self", token).await;
                row.that(own.status == 200 && own.body["active"] == true && own.body["scopes"].is_array());
                for key in [
                    "id",
                    "name",
                    "revoked",
                    "created_at",
                    "description",
                    "user_id",
                    "last_used_at",
                    "granular",
                    "expires_at",
                ] {
                    row.that(own.body.as_object().unwrap().contains_key(key));
                }
            }
        }
        10 => {
            row.holds(&get("/version", "").await);
            row.holds(&get("/metadata", "").await);
            row.that(get("/metadata", "test-gitlab-read-api").await.status == 200);
        }
        11 => {
            for path in ["/projects", SHOP, "/projects/platform%2Fshop/issues"] {
                row.holds(&get(path, "test-gitlab-write-repository").await);
                row.holds(&get(path, "test-gitlab-read-repository").await);
            }
        }
        _ => row.holds(&got(world.gitlab(Method::GET, "/user", LIN).header("Sudo", "ada")).await),
    }
}

async fn projects(world: &World, row: &Row) {
    let get = async |path: &str, token: &str| world.get_gitlab(path, token).await;
    match row.number {
        13 => {
            for (path, token) in [
                ("/projects/platform%2Fnothing", LIN),
                ("/projects/platform%2Ftools%2Fgreeter", LIN),
                (SHOP, ""),
            ] {
                let answer = get(path, token).await;
                row.holds(&answer);
                row.that(answer.body == json!({"message": "404 Project Not Found"}));
            }
        }
        14 => row.holds(&get("/projects/platform/shop", LIN).await),
        15 => row.holds(&get("/projects/platform%252Fshop", LIN).await),
        16 => {
            let still = crate::world::client()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .unwrap();
            let url = format!("{}/api/v4/projects/measured%2Fthere", world.running.gitlab);
            let answer = got(still.get(url).header("PRIVATE-TOKEN", LIN)).await;
            row.holds(&answer);
            let id = &get(HERE, LIN).await.body["id"];
            row.that(answer.header("location").ends_with(&format!("/api/v4/projects/{id}")));
        }
        _ => row.holds(&get(&format!("{SHOP}/repository/branches/none"), LIN).await),
    }
}

async fn opened(world: &World, row: &Row) {
    let path = format!("{SHOP}/merge_requests");
    let source = format!("row-{}", row.number);
    branch(world, "gitlab", "platform/shop", &source).await;
    let with = |more: Value| {
        let mut body = wish(&source);
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    match row.number {
        24 => {
            row.holds(&post(world, &path, json!({"source_branch": source, "target_branch": "main"})).await);
            let several = post(world, &path, json!({"target_branch": "main"})).await;
            row.that(several.body == json!({"error": "title is missing, source_branch is missing"}));
        }
        25 => row.holds(&post(world, &path, wish("main")).await),
        26 => {
            row.that(post(world, &path, wish(&source)).await.status == 201);
            row.holds(&post(world, &path, wish(&source)).await);
        }
        27 => row.holds(&post(world, &path, wish("not-pushed")).await),
        28 => {
            let other = world.get_gitlab("/projects/platform%2Fhandbook", LIN).await.body["id"].clone();
            row.holds(&post(world, &path, with(json!({"target_project_id": other}))).await);
        }
        29 => {
            branch(world, "gitlab", "measured/closed", &source).await;
            row.holds(&post(world, &format!("{CLOSED}/merge_requests"), wish(&source)).await);
        }
        30 => row.holds(
            &world
                .post_gitlab(&format!("{HERE}/merge_requests"), ADA, wish("main"))
                .await,
        ),
        31 => {
            let answer = post(world, &path, with(json!({"assignee_ids": [7, 8]}))).await;
            row.holds(&answer);
            row.that(answer.body["assignees"].as_array().unwrap().len() == 1 && answer.body["assignee"]["id"] == 7);
        }
        32 => {
            let answer = post(world, &path, with(json!({"assignee_id": 999}))).await;
            row.holds(&answer);
            row.that(answer.body["assignee"].is_null());
        }
        33 => row.holds(&post(world, &path, with(json!({"assignee_ids": [null]}))).await),
        _ => {
            let answer = post(world, &path, with(json!({"labels": "REVIEW,review"}))).await;
            row.holds(&answer);
            row.that(answer.body["labels"] == json!(["REVIEW", "review"]));
        }
    }
}

async fn requests_of(world: &World, row: &Row) {
    let get = async |path: String| world.get_gitlab(&path, LIN).await;
    let path = format!("{SHOP}/merge_requests");
    let states = |answer: &Got| -> Vec<String> {
        let all = answer.body.as_array().unwrap().iter();
        all.map(|one| one["state"].as_str().unwrap().to_owned()).collect()
    };
    match row.number {
        36 => {
            branch(world, "gitlab", "platform/shop", "row-36").await;
            let made = post(world, &path, wish("row-36")).await;
            row.that(made.body["detailed_merge_status"] == "preparing");
            let own = format!("{path}/{}", made.body["iid"]);
            row.that(get(own.clone()).await.body["detailed_merge_status"] == "checking");
            let read = get(own).await;
            row.holds(&read);
            row.that(read.body["detailed_merge_status"] == "mergeable");
        }
        37 => {
            let all = get(path.clone()).await;
            row.holds(&all);
            let states = states(&all);
            row.that(
                ["opened", "closed", "merged"]
                    .iter()
                    .all(|state| states.iter().any(|one| one == state)),
            );
            let numbers: Vec<u64> = all
                .body
                .as_array()
                .unwrap()
                .iter()
                .map(|one| one["iid"].as_u64().unwrap())
                .collect();
            row.that(numbers.is_sorted_by(|a, b| a > b));
        }
        38 => {
            let wide = get(format!("{path}?stat=opened")).await;
            row.holds(&wide);
            row.that(states(&wide).iter().any(|state| state == "merged"));
        }
        39 => row.holds(&get(format!("{path}?state=open")).await),
        40 => {
            let read = get(format!("{LARGE}/merge_requests/1")).await;
            row.holds(&read);
            row.that(read.body["changes_count"] == "2+");
        }
        41 => {
            let changes = get(format!("{LARGE}/merge_requests/1/changes")).await;
            row.holds(&changes);
            row.that(changes.body["overflow"] == true && changes.body["changes"].as_array().unwrap().len() == 2);
            row.that(get(format!("{path}/1/changes")).await.body["overflow"] == false);
        }
        42 => {
            let diffs = get(format!("{LARGE}/merge_requests/1/diffs?per_page=1")).await;
            row.holds(&diffs);
            row.that(diffs.header("x-next-page") == "2");
            let (first, keys) = (&diffs.body[0], diffs.body[0].as_object().unwrap());
            row.that(first["collapsed"] == true && first["diff"] == "" && first["too_large"] == false);
            for key in [
                "old_path",
                "new_path",
                "a_mode",
                "b_mode",
                "new_file",
                "renamed_file",
                "deleted_file",
                "generated_file",
            ] {
                row.that(keys.contains_key(key));
            }
        }
        43 => {
            let raw = get(format!("{path}/1/raw_diffs")).await;
            row.holds(&raw);
            row.that(raw.header("content-type").starts_with("text/plain"));
        }
        _ => {
            let nothing = got(world
                .gitlab(Method::PUT, &format!("{path}/1"), LIN)
                .json(&json!({"unknown": 1})))
            .await;
            row.that(u64::from(nothing.status) == 400);
            let error = nothing.body["error"].as_str().unwrap();
            row.that(
                error.contains("assignee_id, assignee_ids, ")
                    && error.ends_with(" are missing, at least one parameter must be provided"),
            );
        }
    }
}

async fn notes(world: &World, row: &Row) {
    let path = format!("{SHOP}/merge_requests/1/notes");
    match row.number {
        49 => {
            let all = world.get_gitlab(&path, LIN).await;
            row.holds(&all);
            let list = all.body.as_array().unwrap();
            row.that(list.iter().any(|note| note["system"] == true) && all.header("x-per-page") == "20");
            let ids: Vec<u64> = list.iter().map(|note| note["id"].as_u64().unwrap()).collect();
            row.that(ids.is_sorted_by(|a, b| a > b));
            let only = world
                .get_gitlab(&format!("{path}?activity_filter=only_comments"), LIN)
                .await;
            row.that(only.body.as_array().unwrap().iter().all(|note| note["system"] == false));
        }
        53 => {
            let all = world.get_gitlab(&path, LIN).await;
            row.holds(&all);
            let author = all.body[0]["author"].as_object().unwrap();
            row.that(!author.contains_key("bot") && author.contains_key("public_email") && author.len() == 8);
        }
        50 => row.holds(&world.get_gitlab(&format!("{path}?activity_filter=bogus"), LIN).await),
        51 => row.holds(&post(world, &path, json!({})).await),
        52 => row.holds(&post(world, &path, json!({"body": ""})).await),
        _ => {
            let all = world
                .get_gitlab(&format!("{SHOP}/merge_requests/1/discussions"), LIN)
                .await;
            row.holds(&all);
            let list = all.body.as_array().unwrap();
            let first = |thread: &Value| thread["notes"][0]["id"].as_u64().unwrap();
            row.that(list.iter().map(first).collect::<Vec<_>>().is_sorted());
            row.that(list.iter().all(|one| one["id"].as_str().unwrap().len() == 40));
            let on_line = list.iter().find(|one| one["notes"][0]["type"] == "DiffNote").unwrap();
            let note = &on_line["notes"][0];
            row.that(on_line["individual_note"] == false && note["resolvable"] == true && note["resolved"] == true);
            for key in [
                "base_sha",
                "start_sha",
                "head_sha",
                "old_path",
                "new_path",
                "position_type",
                "old_line",
                "new_line",
            ] {
                row.that(note["position"].as_object().unwrap().contains_key(key));
            }
        }
    }
}

async fn issues(world: &World, row: &Row) {
    let path = format!("{SHOP}/issues");
    match row.number {
        55 => row.holds(&world.get_gitlab(&format!("{path}/77"), LIN).await),
        56 => {
            let all = world.get_gitlab(&path, LIN).await;
            row.holds(&all);
            let list = all.body.as_array().unwrap();
            let has = |key: &str, value: &str| list.iter().any(|one| one[key] == value);
            row.that(has("state", "closed") && has("issue_type", "incident") && has("issue_type", "task"));
            row.that(
                list.iter()
                    .any(|one| one["web_url"].as_str().unwrap().contains("/-/work_items/")),
            );
            let only = world.get_gitlab(&format!("{path}?issue_type=issue"), LIN).await;
            row.that(
                only.body
                    .as_array()
                    .unwrap()
                    .iter()
                    .all(|one| one["issue_type"] == "issue"),
            );
        }
        57 => row.holds(&post(world, &format!("{CLOSED}/issues"), json!({"title": "x"})).await),
        _ => row.holds(&world.get_gitlab("/issues/5001", LIN).await),
    }
}

async fn paging(world: &World, row: &Row) {
    let get = async |path: &str| world.get_gitlab(path, LIN).await;
    match row.number {
        59 => {
            let first = get("/projects?membership=true").await;
            row.holds(&first);
            row.that(
                first.header("x-per-page") == "20"
                    && first.header("x-page") == "1"
                    && first.header("x-prev-page").is_empty(),
            );
            for rel in ["next", "first", "last"] {
                row.that(first.header("link").contains(&format!("rel=\"{rel}\"")));
            }
            row.that(first.header("link").starts_with("<http://"));
            let wide = get("/projects?membership=true&per_page=500").await;
            row.that(wide.header("x-per-page") == "100" && wide.body.as_array().unwrap().len() == 100);
            let pages = wide.header("x-total-pages").to_owned();
            let last = get(&format!("/projects?membership=true&per_page=100&page={pages}")).await;
            row.that(last.headers.contains_key("x-next-page") && last.header("x-next-page").is_empty());
        }
        60 => {
            let crowd = json!({"crowds": [{"forge": "gitlab", "group": "throng", "count": 10_000, "members": [{"user": "lin", "role": "developer"}]}]});
            more(world, crowd).await;
            let page = get("/projects?membership=true&per_page=100").await;
            row.holds(&page);
            row.that(!page.headers.contains_key("x-total") && !page.headers.contains_key("x-total-pages"));
            row.that(page.header("link").contains("rel=\"next\"") && !page.header("link").contains("rel=\"last\""));
        }
        61 => {
            let page = get("/projects?membership=true&pagination=keyset&order_by=id&per_page=100").await;
            row.holds(&page);
            let link = page.header("link");
            row.that(link.contains("rel=\"next\"") && (link.contains("id_before=") || link.contains("cursor=")));
            row.that(
                !link.contains("rel=\"first\"")
                    && !page.headers.keys().any(|name| name.as_str().starts_with("x-total")),
            );
        }
        62 => {
            let answer = get("/user").await;
            row.holds(&answer);
            let meta: Value = serde_json::from_str(answer.header("x-gitlab-meta")).unwrap();
            row.that(
                meta["correlation_id"].is_string()
                    && meta["version"] == "1"
                    && !answer.header("x-request-id").is_empty(),
            );
        }
        _ => {
            let path = format!("{SHOP}/issues");
            let tag = get(&path).await.header("etag").to_owned();
            row.that(tag.starts_with("W/\""));
            row.holds(&got(world.gitlab(Method::GET, &path, LIN).header("If-None-Match", tag)).await);
        }
    }
}

async fn rates(world: &World, row: &Row) {
    let named = |answer: &Got, part: &str| answer.headers.keys().any(|name| name.as_str().starts_with(part));
    match row.number {
        63 => {
            more(world, json!({"gitlab": {"rate_limit": 2000}})).await;
            let answer = world.get_gitlab("/user", "test-gitlab-limited").await;
            row.holds(&answer);
            row.that(
                answer.header("ratelimit-limit") == "2000"
                    && answer.header("ratelimit-name") == "throttle_authenticated_api",
            );
            for name in ["observed", "remaining", "reset", "resettime"] {
                row.that(!answer.header(&format!("ratelimit-{name}")).is_empty());
            }
            more(world, json!({"gitlab": {}})).await;
        }
        64 => {
            more(world, json!({"gitlab": {"rate_limit": 1}})).await;
            world.get_gitlab("/user", "test-gitlab-limited").await;
            // The minute may end between two requests, but not between three.
            let mut answer = world.get_gitlab("/user", "test-gitlab-limited").await;
            if answer.status == 200 {
                answer = world.get_gitlab("/user", "test-gitlab-limited").await;
            }
            more(world, json!({"gitlab": {}})).await;
            row.holds(&answer);
            row.that(answer.header("content-type").starts_with("text/plain"));
            row.that(answer.header("retry-after").parse::<u64>().is_ok_and(|wait| wait <= 60));
        }
        _ => {
            let answer = world.get_gitlab("/user", LIN).await;
            row.holds(&answer);
            row.that(!named(&answer, "ratelimit"));
        }
    }
}

async fn git(world: &World, row: &Row) {
    const FETCH: &str = "git-upload-pack";
    const PUSH: &str = "git-receive-pack";
    let base = world.running.gitlab.clone();
    let ask =
        async |path: &str, service: &str, token: &str| info_refs(world, Method::GET, &base, path, service, token).await;
    match row.number {
        69 => {
            for token in ["", "nobody-knows-this"] {
                let answer = ask("platform/shop", FETCH, token).await;
                row.holds(&answer);
                row.that(answer.header("www-authenticate") == "Basic realm=\"GitLab\"");
                row.that(answer.header("content-type").starts_with("text/plain"));
            }
        }
        71 => row.holds(&ask("platform/tools/greeter", PUSH, "test-gitlab-read-api").await),
        72 => row.holds(&ask("platform/tools/greeter", FETCH, "test-gitlab-read-user").await),
        73 => row.holds(&ask("measured/here", PUSH, "test-gitlab-grace").await),
        74 => {
            for token in [ADA, "test-gitlab-read-api", "test-gitlab-write-repository"] {
                row.holds(&ask("platform/tools/greeter", FETCH, token).await);
            }
            row.holds(&ask("platform/shop", FETCH, "test-gitlab-read-repository").await);
            for token in [ADA, "test-gitlab-write-repository"] {
                row.holds(&ask("platform/tools/greeter", PUSH, token).await);
            }
        }
        75 => row.holds(&info_refs(world, Method::HEAD, &base, "platform/shop", FETCH, LIN).await),
        _ => {
            row.holds(&ask("measured/there", FETCH, LIN).await);
            let work = world.work("gitlab", "measured/there", LIN, "row-77").await;
            let pushed = world.git(&work, &["push", "origin", "row-77"]).await.good();
            pushed.said(&[
                "Project 'measured/there' was moved to 'measured/here'.",
                "git remote set-url origin",
            ]);
        }
    }
}
