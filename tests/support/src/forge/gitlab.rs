//! The GitLab side: REST v4 under `/gitlab/api/v4`.
//!
//! Never answers as GitHub would; what both forges share is one level up.

mod access;
mod discussions;
mod issues;
mod members;
mod merge_request_wire;
mod merge_requests;
mod notes;
mod project_settings;
mod projects;
mod repository;
mod reviews;
mod users;
mod wire;

use axum::Router;
use axum::routing::get;

use super::Forge;
use notes::Kind;

pub(crate) use merge_request_wire::{is_draft, with_draft_prefix};

const PROJECT: &str = "/gitlab/api/v4/projects/{id}";

/// All REST routes of the GitLab side.
pub(super) fn router(forge: &Forge) -> Router<Forge> {
    let under = |rest: &str| format!("{PROJECT}{rest}");
    Router::new()
        .route("/gitlab/api/v4/personal_access_tokens/self", get(users::token))
        .route("/gitlab/api/v4/user", get(users::user))
        .route("/gitlab/api/v4/metadata", get(users::metadata))
        .route("/gitlab/api/v4/version", get(users::version))
        .route("/gitlab/api/v4/projects", get(projects::list))
        .route(PROJECT, get(projects::one))
        .route(&under("/repository/branches"), get(repository::branches))
        .route(&under("/repository/branches/{branch}"), get(repository::branch))
        .route(&under("/repository/commits"), get(repository::commits))
        .route(&under("/repository/commits/{sha}"), get(repository::commit))
        .route(
            &under("/merge_requests"),
            get(merge_requests::list).post(merge_requests::create),
        )
        .route(
            &under("/merge_requests/{iid}"),
            get(merge_requests::one).put(merge_requests::changing::update),
        )
        .route(
            &under("/merge_requests/{iid}/changes"),
            get(merge_requests::content::changes),
        )
        .route(
            &under("/merge_requests/{iid}/diffs"),
            get(merge_requests::content::diffs),
        )
        .route(
            &under("/merge_requests/{iid}/raw_diffs"),
            get(merge_requests::content::raw_diffs),
        )
        .route(
            &under("/merge_requests/{iid}/commits"),
            get(merge_requests::content::commits),
        )
        .route(&under("/merge_requests/{iid}/approvals"), get(reviews::approvals))
        .route(&under("/merge_requests/{iid}/reviewers"), get(reviews::reviewers))
        .route(&under("/merge_requests/{iid}/pipelines"), get(reviews::pipelines))
        .merge(notes::router(&under("/merge_requests/{iid}"), Kind::MergeRequest))
        .merge(discussions::router(&under("/merge_requests/{iid}"), Kind::MergeRequest))
        .route(&under("/issues"), get(issues::list).post(issues::create))
        .route(&under("/issues/{iid}"), get(issues::one).put(issues::update))
        .merge(notes::router(&under("/issues/{iid}"), Kind::Issue))
        .merge(discussions::router(&under("/issues/{iid}"), Kind::Issue))
        .route("/gitlab/api/v4/issues/{id}", get(issues::by_id))
        .route(&under("/members"), get(members::list))
        .route(&under("/members/all"), get(members::list))
        .route(&under("/members/{user}"), get(members::one))
        .route(&under("/members/all/{user}"), get(members::one))
        .route(&under("/protected_branches"), get(members::protected))
        .route(&under("/protected_branches/{name}"), get(members::protected_one))
        .route("/gitlab/api/v4/users", get(members::users))
        .route("/gitlab/api/v4/{*rest}", axum::routing::any(wire::no_route))
        .method_not_allowed_fallback(wire::no_method)
        .layer(axum::middleware::from_fn(wire::dress))
        .with_state(forge.clone())
}
