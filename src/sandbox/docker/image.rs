//! Looks at an image, pulls it where the configuration allows, and says by which id it is to be started. The rules are `images.rs`'s.
//!
//! Never pulls an image that no rule allows, and never hands out one that is not what was pinned.

use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures::TryStreamExt as _;

use super::{sentence, within};
use crate::sandbox::SandboxError;
use crate::sandbox::images::{self, Found};

/// An image that may be used.
#[derive(Debug, Clone)]
pub(super) struct Image {
    /// Its id.
    pub(super) id: String,
    /// The places for which it wants a volume; the engine would make one on the host's disk, without a bound.
    pub(super) volumes: Vec<String>,
}

/// The engine's images under the operator's rules.
pub(super) struct Images<'a> {
    pub(super) client: &'a Docker,
    pub(super) rules: &'a [String],
    pub(super) pull: bool,
    pub(super) timeout: Duration,
    pub(super) pull_timeout: Duration,
}

impl Images<'_> {
    /// The image, if it may be used.
    pub(super) async fn require(&self, image: &str) -> Result<Image, SandboxError> {
        let refused = |detail: &str| SandboxError::ImageRefused {
            image: image.to_owned(),
            detail: detail.to_owned(),
        };
        let not_listed =
            || refused("it is not one of sandbox.images: let the operator add it there, or choose another agent");
        images::check_form(image).map_err(refused)?;
        let by_name = images::allowed(self.rules, image, None);
        if !by_name && !images::may_become_allowed(self.rules) {
            return Err(not_listed());
        }
        let mut found = self.look(image).await?;
        if found.is_none() && self.pull && by_name {
            self.pull(image).await?;
            found = self.look(image).await?;
        }
        let Some((found, volumes)) = found else {
            return Err(if !by_name {
                not_listed()
            } else if images::pinned(image).is_some() {
                refused(
                    "this machine has no image with that digest: pull it, or correct the digest in the configuration",
                )
            } else {
                SandboxError::ImageMissing {
                    image: image.to_owned(),
                }
            });
        };
        if !images::allowed(self.rules, image, Some(&found)) {
            return Err(not_listed());
        }
        if !images::is_pinned(image, &found) {
            return Err(refused(
                "what the engine has is not what the digest names: pull it again, or correct the digest",
            ));
        }
        Ok(Image { id: found.id, volumes })
    }

    /// What the engine has under a reference. An image that was built here has no digest of a registry, and is asked for by its id.
    async fn look(&self, image: &str) -> Result<Option<(Found, Vec<String>)>, SandboxError> {
        if let Some(found) = self.inspect(image).await? {
            return Ok(Some(found));
        }
        match images::pinned(image) {
            Some(id) => self.inspect(id).await,
            None => Ok(None),
        }
    }

    /// What the engine says of an image, and its volumes.
    async fn inspect(&self, image: &str) -> Result<Option<(Found, Vec<String>)>, SandboxError> {
        match within(self.timeout, self.client.inspect_image(image)).await {
            Ok(about) => {
                let volumes = about.config.and_then(|config| config.volumes).unwrap_or_default();
                let digests = about.repo_digests.unwrap_or_default();
                let id = about.id.filter(|id| !id.is_empty());
                Ok(id.map(|id| (Found { id, digests }, volumes)))
            }
            Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
            // It is there, and does not take the question: no reason to think that it is away.
            Err(
                ref error @ Error::DockerResponseServerError {
                    status_code: 400..=499, ..
                },
            ) => Err(SandboxError::ImageRefused {
                image: image.to_owned(),
                detail: format!("the engine refuses the reference ({}): correct it", sentence(error)),
            }),
            Err(error) => Err(SandboxError::Connect {
                detail: sentence(&error),
            }),
        }
    }

    async fn pull(&self, image: &str) -> Result<(), SandboxError> {
        let options = CreateImageOptionsBuilder::default().from_image(image).build();
        let pulled = self
            .client
            .create_image(Some(options), None, None)
            .try_for_each(|_| async { Ok(()) });
        let image = image.to_owned();
        match tokio::time::timeout(self.pull_timeout, pulled).await {
            Ok(pulled) => pulled.map_err(|error| SandboxError::PullImage {
                image,
                detail: sentence(&error),
            }),
            Err(_) => Err(SandboxError::PullTimeout {
                image,
                limit_s: self.pull_timeout.as_secs(),
            }),
        }
    }
}
