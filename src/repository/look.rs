//! What a forge shows of a project over git alone, for tokens that its API is closed to; and the certificates that git trusts.
//!
//! Only asks (`ls-remote`); never fetches, never writes to a forge.

use std::path::PathBuf;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::git::{Credential, Invocation, Limits};
use super::remote::{self, Access};
use super::{Repositories, RepositoryError, Shared, bare, blocking};
use crate::grant::ShownRef;
use crate::message::BranchName;

/// Time limit of one look.
const LIMIT: Duration = Duration::from_secs(60);
/// Longest list of references that is read, in bytes; a project with some 200,000 merge requests fits.
const LONGEST_LIST: usize = 16 * 1024 * 1024;
/// Where distributions keep the certificates that the machine trusts.
const SYSTEM_BUNDLES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

impl Repositories {
    /// The branch that the project's HEAD names; `None` for an empty repository.
    ///
    /// # Errors
    /// The forge's refusals, time.
    pub async fn default_branch(
        &self,
        clone_url: &str,
        access: &Access,
    ) -> Result<Option<BranchName>, RepositoryError> {
        let listed = list(&self.shared, clone_url, access, &["--symref"], "HEAD").await?;
        Ok(listed.lines().find_map(|line| {
            let (target, name) = line.strip_prefix("ref: refs/heads/")?.split_once('\t')?;
            (name == "HEAD").then(|| target.parse().ok())?
        }))
    }

    /// The references that match a pattern of `ls-remote`, as the forge shows them now.
    ///
    /// # Errors
    /// The forge's refusals, more of them than is read, time.
    pub async fn remote_refs(
        &self,
        clone_url: &str,
        access: &Access,
        pattern: &str,
    ) -> Result<Vec<ShownRef>, RepositoryError> {
        let listed = list(&self.shared, clone_url, access, &["--refs"], pattern).await?;
        let parsed = listed.lines().filter_map(|line| {
            let (target, name) = line.split_once('\t')?;
            Some(ShownRef {
                name: name.to_owned(),
                target: target.parse().ok()?,
            })
        });
        Ok(parsed.collect())
    }

    /// A file for git with these certificates (PEM), the operator's own and those that the machine trusts; `None` when the machine's are all.
    /// The same text gives the same file.
    ///
    /// # Errors
    /// The disk.
    pub async fn trust(&self, pem: Option<&str>) -> Result<Option<PathBuf>, RepositoryError> {
        let own = [self.shared.config.ca.as_deref(), pem];
        let pem: String = own.into_iter().flatten().map(certificates).collect();
        if pem.is_empty() {
            return Ok(None);
        }
        let directory = self.shared.config.state_dir.join("certificates");
        blocking(move || {
            std::fs::create_dir_all(&directory).map_err(RepositoryError::state("make the directory", &directory))?;
            let mut all = SYSTEM_BUNDLES
                .iter()
                .find_map(|path| std::fs::read(path).ok())
                .unwrap_or_default();
            all.push(b'\n');
            all.extend_from_slice(pem.as_bytes());
            let file = directory.join(format!("{}.pem", &hex::encode(Sha256::digest(&all))[..32]));
            // Its age tells when it was last used.
            match std::fs::File::options().append(true).open(&file) {
                Ok(known) => known
                    .set_modified(std::time::SystemTime::now())
                    .map_err(RepositoryError::state("touch", &file))?,
                Err(_) => bare::write_whole(&file, &all)?,
            }
            Ok(Some(file))
        })
        .await
    }
}

/// The certificates in a PEM text, and nothing else of it: people paste keys along.
fn certificates(pem: &str) -> String {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    pem.split(BEGIN)
        .skip(1)
        .filter_map(|part| part.split_once(END))
        .map(|(body, _)| format!("{BEGIN}{body}{END}\n"))
        .collect()
}

/// Removes the files of certificates that no session used for that long; says how many.
pub(super) fn remove_unused(shared: &Shared, age: Duration) -> Result<usize, RepositoryError> {
    let directory = shared.config.state_dir.join("certificates");
    let Ok(entries) = std::fs::read_dir(&directory) else {
        return Ok(0);
    };
    let mut removed = 0;
    for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        let unused = std::fs::metadata(&path)
            .and_then(|metadata| metadata.modified())
            .ok()
            .and_then(|modified| modified.elapsed().ok());
        if unused.is_some_and(|unused| unused > age) {
            std::fs::remove_file(&path).map_err(RepositoryError::state("remove", &path))?;
            removed += 1;
        }
    }
    Ok(removed)
}

async fn list(
    shared: &Shared,
    clone_url: &str,
    access: &Access,
    options: &[&str],
    pattern: &str,
) -> Result<String, RepositoryError> {
    let address = remote::address(clone_url)?;
    // git holds the whole list before it prints a line: a forge is not trusted with this machine's memory.
    let limits = Limits {
        memory: shared.config.git_memory,
        heap: shared.config.git_memory,
        file: shared.config.largest_fetch,
        processor_s: LIMIT.as_secs() * 2,
    };
    let invocation = Invocation::new("ask the forge for its references", LIMIT)
        .limits(limits)
        .arguments(["ls-remote", "--quiet"])
        .arguments(options)
        .arguments(["--", address.as_str(), pattern])
        .largest_output(LONGEST_LIST)
        .network(
            Credential::new(access, &address)?,
            access.ca_file.clone(),
            access.mask(),
        );
    let finished = shared.git.run(invocation).await?;
    if finished.success() {
        return Ok(String::from_utf8_lossy(&finished.stdout).into_owned());
    }
    Err(
        remote::failure(&finished.stderr).unwrap_or_else(|| RepositoryError::Fetch {
            text: remote::shortened(&finished.stderr),
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_certificates_are_taken() {
        let text = "x\n-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----\n-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----\ny";
        assert_eq!(
            certificates(text),
            "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----\n"
        );
        assert_eq!(certificates("-----BEGIN CERTIFICATE-----\nabc"), "");
    }
}
