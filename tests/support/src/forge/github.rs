//! The GitHub Enterprise side: REST under `/api/v3`.
//!
//! Never answers as GitLab would; what both forges share is one level up.

mod access;
mod checks;
mod commit_wire;
mod issues;
mod labels;
mod pull_wire;
mod pulls;
mod repositories;
mod repository_wire;
mod reviews;
mod search;
mod users;
mod wire;

use axum::Router;
use axum::routing::{any, get, post};

use super::Forge;

pub(crate) use access::{permits, sees};

/// A repository by name, and by number: the links of paged lists use the latter.
const REPOSITORY: [&str; 2] = ["/api/v3/repos/{owner}/{repo}", "/api/v3/repositories/{repository_id}"];

/// All REST routes of the GitHub side.
pub(super) fn router(forge: &Forge) -> Router<Forge> {
    let mut router = Router::new()
        .route("/api/v3", get(users::root))
        .route("/api/v3/user", get(users::user))
        .route("/api/v3/user/emails", get(users::emails))
        .route("/api/v3/user/repos", get(repositories::list))
        .route("/api/v3/installation/repositories", get(repositories::of_installation))
        .route("/api/v3/search/issues", get(search::issues))
        .route("/api/v3/users/{login}", get(users::by_login))
        .route("/api/v3/rate_limit", get(users::rate_limit))
        .route("/api/v3/meta", get(users::meta));
    for base in REPOSITORY {
        let under = |rest: &str| format!("{base}{rest}");
        router = router
            .route(base, get(repositories::one))
            .route(&under("/branches"), get(repositories::branches))
            .route(&under("/branches/{*branch}"), get(repositories::branch))
            .route(&under("/git/ref/{*name}"), get(repositories::reference))
            .route(&under("/commits/{*name}"), get(repositories::commit))
            .route(&under("/pulls"), get(pulls::list).post(pulls::create))
            .route(&under("/pulls/{number}"), get(pulls::one).patch(pulls::update))
            .route(&under("/pulls/{number}/files"), get(pulls::files))
            .route(&under("/pulls/{number}/commits"), get(pulls::commits))
            .route(&under("/pulls/{number}/merge"), get(pulls::merged))
            .route(
                &under("/pulls/{number}/reviews"),
                get(reviews::list).post(reviews::create),
            )
            .route(&under("/pulls/{number}/reviews/{review}"), get(reviews::one))
            .route(
                &under("/pulls/{number}/reviews/{review}/comments"),
                get(reviews::comments_of),
            )
            .route(
                &under("/pulls/{number}/comments"),
                get(reviews::comments).post(reviews::comment),
            )
            .route(
                &under("/pulls/{number}/comments/{comment}/replies"),
                post(reviews::reply),
            )
            .route(&under("/pulls/{number}/requested_reviewers"), get(reviews::requested))
            .route(&under("/commits"), get(checks::commits))
            .route(&under("/labels"), get(labels::of_repository))
            .route(&under("/collaborators/{login}/permission"), get(users::permission))
            .route(&under("/issues"), get(issues::list).post(issues::create))
            .route(&under("/issues/{number}"), get(issues::one).patch(issues::update))
            .route(
                &under("/issues/comments/{comment}"),
                get(issues::comment_one).patch(issues::comment_edit),
            )
            .route(
                &under("/issues/{number}/labels"),
                get(labels::of_issue).post(labels::add),
            )
            .route(
                &under("/issues/{number}/comments"),
                get(issues::comments).post(issues::comment),
            );
    }
    router
        .route("/api/v3/{*rest}", any(wire::no_route))
        .method_not_allowed_fallback(wire::no_route)
        .layer(axum::middleware::from_fn_with_state(forge.clone(), wire::dress))
        .with_state(forge.clone())
}
