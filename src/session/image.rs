//! Of which image a session's sandbox is made: the agent's, or, where the operator lets an agent's projects choose, the one that a project's
//! `devcontainer.json` names.
//!
//! A project's word is a wish: it is read at the default branch, which no agent pushes to, and counts only where `sandbox.images` has the image. Never
//! builds an image, and never takes anything but a name from a project.

use std::sync::Arc;

use futures::future::join_all;

use super::Session;
use super::failure::Failure;
use super::publish::Work;
use crate::agent;
use crate::message::{EventBody, Reason};
use crate::sandbox::SandboxError;
use crate::sandbox::devcontainer::{self, Asked};

/// An image that may be used.
pub(super) struct Image {
    /// As it was asked for.
    pub(super) name: String,
    /// By what the engine knows it.
    pub(super) id: String,
    /// Which file of which project names it; none for the agent's own.
    pub(super) named_by: Option<String>,
}

impl Image {
    /// A failure to start a sandbox of it. Where the image is what fails, it says who names it: some engines know only then that there is none.
    pub(super) fn blamed(&self, mut failure: Failure) -> Failure {
        if let Some(place) = &self.named_by
            && matches!(
                failure.reason,
                Reason::ImageMissing | Reason::ImageRefused | Reason::PullTimeout
            )
        {
            failure.message = format!("{} ({place} names it)", failure.message);
        }
        failure
    }
}

impl Session<'_> {
    /// The image of the first project, in the task's order, that names one which is allowed; else the agent's. What is not used is told.
    pub(super) async fn image(
        &self,
        agent: &agent::Config,
        usual: String,
        work: &[Arc<Work>],
    ) -> Result<Image, Failure> {
        let asked = self.early(async { Ok(join_all(work.iter().map(|one| wished(one))).await) });
        let mut chosen: Option<Image> = None;
        for (one, asked) in work.iter().zip(asked.await?) {
            let project = &one.admitted.grant.key;
            let unused = match asked {
                Ok(None) => None,
                Ok(Some((_, Asked::Image(name)))) if chosen.as_ref().is_some_and(|first| first.name == name) => None,
                Ok(Some((path, Asked::Image(name)))) if chosen.is_some() => Some(format!(
                    "{path} names {name}, and an earlier project of the session another image"
                )),
                Ok(Some((path, Asked::Image(name)))) => {
                    let looking = async { Ok(self.rooms.engine.require_image(&name).await) };
                    let named_by = Some(format!("{path} of {project}"));
                    match self.early(looking).await? {
                        Ok(id) => {
                            tracing::info!(%project, image = %name, "the sandbox is made of the image that the project names");
                            chosen = Some(Image { name, id, named_by });
                            None
                        }
                        Err(error @ SandboxError::ImageRefused { .. }) => {
                            Some(format!("{path} names an image that is not allowed: {error}"))
                        }
                        Err(error) => {
                            let id = String::new();
                            return Err(Image { name, id, named_by }.blamed(Failure::from(error)));
                        }
                    }
                }
                Ok(Some((path, Asked::Built))) => Some(format!(
                    "{path} has its image built or composed, which is not done here; only its `image` counts"
                )),
                Ok(Some((path, Asked::Nothing))) => Some(format!("{path} names no `image`")),
                Err(why) => Some(why),
            };
            if let Some(why) = unused {
                let instead = chosen.as_ref().map_or(&agent.image, |first| &first.name);
                let code = "devcontainer_unused".to_owned();
                let message = format!("{project}: {why}; the sandbox is made of {instead}");
                self.progress.state(EventBody::Warning { code, message }).await;
            }
        }
        Ok(chosen.unwrap_or_else(|| Image {
            name: agent.image.clone(),
            id: usual,
            named_by: None,
        }))
    }
}

/// What a project's default branch says, and where; or why that cannot be known.
async fn wished(work: &Work) -> Result<Option<(&'static str, Asked)>, String> {
    let branch = &work.admitted.grant.default_branch;
    for path in devcontainer::PATHS {
        let read = work
            .staging
            .small_file(branch, path, devcontainer::LARGEST, "read a devcontainer.json");
        if let Some(text) = read.await.map_err(|error| error.to_string())? {
            let asked = devcontainer::read(&text).map_err(|error| format!("{path}: {error}"))?;
            return Ok(Some((path, asked)));
        }
    }
    Ok(None)
}
