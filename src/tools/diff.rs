//! `get_change_request_diff`: from git where the worker has the project, else from the forge's API, saying which and whether it is whole.
//!
//! Never shows an empty or cut diff as all there is.

use rmcp::handler::server::wrapper::{Json, Parameters};
use rmcp::{tool, tool_router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Tools;
use super::arguments::{Place, filter, number};
use super::bounds::{self, Listed};
use super::error::ToolError;
use super::reach::{Act, DiffRequest, ForgeProject};
use crate::forge::inspect::{ChangeRequestDetails, FileDiff, PageRequest};
use crate::grant::ProjectGrant;

/// The arguments of `get_change_request_diff`.
#[derive(Debug, Deserialize, JsonSchema)]
struct GetChangeRequestDiff {
    /// The project as `connection:group/project`; may be left out in a session of one project.
    #[serde(default)]
    project: Option<String>,
    /// Its number.
    number: u64,
    /// Only this file, or the files below this directory.
    #[serde(default)]
    path: Option<String>,
    #[serde(flatten)]
    place: Place,
}

/// What `get_change_request_diff` answers: one row a file.
#[derive(Debug, Serialize, JsonSchema)]
struct DiffView {
    /// The files. `why` says why a file's `diff` is missing or not whole: `binary`, `no_lines` (only its name or mode
    /// changed), `too_large`, `collapsed`, `cut`.
    #[serde(flatten)]
    files: Listed<FileDiff>,
    /// Where it was taken from: `git`, or the forge's `api`.
    source: &'static str,
    /// Whether this result has every changed file (of those asked for) with all its hunks. A binary file is complete without any.
    complete: bool,
    /// How many files differ (of those asked for), where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    total_files: Option<usize>,
    /// The commit that the diff starts from, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    base: Option<String>,
    /// The commit that it leads to, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    head: Option<String>,
}

/// Files of a diff, before they are made to fit.
struct Taken {
    files: Vec<FileDiff>,
    next_page: Option<u32>,
    source: &'static str,
    complete: bool,
    total: Option<usize>,
    base: Option<String>,
    head: Option<String>,
}

#[tool_router(router = diff_router, vis = "pub(super)")]
impl Tools {
    /// Shows the diff of a merge request or pull request, file by file, optionally of one file or directory.
    #[tool(
        title = "Show the diff of a change request",
        annotations(
            title = "Show the diff of a change request",
            read_only_hint = true,
            destructive_hint = false,
            idempotent_hint = true,
            open_world_hint = true
        )
    )]
    async fn get_change_request_diff(
        &self,
        Parameters(wanted): Parameters<GetChangeRequestDiff>,
    ) -> Result<Json<DiffView>, ToolError> {
        let (project, at) = self.reach(wanted.project.as_deref(), Act::InspectChangeRequests)?;
        let (number, page) = (number(wanted.number)?, wanted.place.page()?);
        let path = filter("path", wanted.path)?;
        let _place = self.budget.call()?;
        let details = at.forge.change_request_details(&at.facts, number).await?;
        let taken = match self.git_diff(&project, &details, path.as_deref(), page).await {
            Some(taken) => taken,
            None => api_diff(&at, &details, path.as_deref(), page).await?,
        };
        let first = page.page == 1 && wanted.place.skip == 0 && wanted.place.text_from == 0;
        let files = bounds::fit(&project, taken.files, taken.next_page, &wanted.place)?;
        Ok(Json(DiffView {
            complete: first && taken.complete && taken.next_page.is_none() && !files.truncated,
            files,
            source: taken.source,
            total_files: taken.total,
            base: taken.base,
            head: taken.head,
        }))
    }
}

impl Tools {
    async fn git_diff(
        &self,
        project: &ProjectGrant,
        details: &ChangeRequestDetails,
        path: Option<&str>,
        page: PageRequest,
    ) -> Option<Taken> {
        let most = usize::try_from(page.per_page).unwrap_or(usize::MAX);
        let skip = usize::try_from(page.page - 1)
            .unwrap_or(usize::MAX)
            .saturating_mul(most);
        let request = DiffRequest {
            number: details.summary.number,
            head: details.head.clone(),
            base: details.base.clone(),
            target: details.summary.target_branch.clone(),
            path: path.map(str::to_owned),
            skip,
            most,
        };
        match self.reach.diffs.diff(&project.key, &request).await {
            // Where git and the API disagree on whether there is anything, neither is believed to be empty.
            Ok(diff) if diff.total == 0 && path.is_none() && details.changed_files != Some(0) => None,
            Ok(diff) => Some(Taken {
                next_page: (skip.saturating_add(most) < diff.total).then(|| page.page + 1),
                complete: diff.files.iter().all(is_whole),
                files: diff.files,
                source: "git",
                total: Some(diff.total),
                base: Some(diff.base),
                head: Some(diff.head),
            }),
            Err(reason) => {
                tracing::info!(project = %project.key, number = request.number, reason, "the diff is taken from the API");
                None
            }
        }
    }
}

async fn api_diff(
    at: &ForgeProject,
    details: &ChangeRequestDetails,
    path: Option<&str>,
    page: PageRequest,
) -> Result<Taken, ToolError> {
    let diff = at
        .forge
        .change_request_diff(&at.facts, details.summary.number, page)
        .await?;
    let wanted = path.map(|path| path.trim_matches('/')).filter(|path| !path.is_empty());
    let below = |path: &str| {
        wanted.is_none_or(|wanted| {
            path.strip_prefix(wanted)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    };
    let mut files = diff.files.items;
    files.retain(|file| below(&file.path) || file.old_path.as_deref().is_some_and(below));
    // An API that lists nothing has not computed it yet, or has given up.
    let told = !files.is_empty() || wanted.is_some() || details.changed_files == Some(0);
    Ok(Taken {
        complete: diff.complete && told && files.iter().all(is_whole),
        files,
        next_page: diff.files.next_page,
        source: "api",
        total: None,
        base: details.base.clone(),
        head: details.head.clone(),
    })
}

fn is_whole(file: &FileDiff) -> bool {
    match (&file.diff, file.why.as_deref()) {
        (_, Some("binary" | "no_lines")) => true,
        (Some(diff), None) => !diff.is_empty(),
        (_, Some(_)) | (None, None) => false,
    }
}
