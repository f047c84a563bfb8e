//! Hands a credential to git without writing it anywhere: a pipe that is read once, inherited as an open descriptor.
//!
//! git gives every process that it starts its open descriptors, also those that read what an agent made (`pack-objects`, `index-pack`). Who asks
//! first is the one that talks to the forge, before any of those is started; behind it the pipe is empty. git's credential protocol is line
//! based, so a credential that holds a line break could say more than a password; it is refused.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;

use url::Url;
use zeroize::Zeroizing;

use crate::repository::RepositoryError;
use crate::repository::remote::Access;

/// Where the helper finds the credential.
pub(super) const CREDENTIAL_FD: i32 = 3;
/// Longest user name and token together, in bytes: what a pipe holds without a reader, on every system. Tokens are far shorter.
const LONGEST: usize = 4096;

/// A credential for one origin, readable once, through an inherited descriptor only.
#[derive(Debug)]
pub(crate) struct Credential {
    reader: OwnedFd,
    origin: String,
}

impl Credential {
    pub(crate) fn new(access: &Access, address: &Url) -> Result<Self, RepositoryError> {
        let unusable = |text: &str| text.is_empty() || text.chars().any(char::is_control);
        if unusable(access.token.expose()) || unusable(&access.basic_user) {
            return Err(RepositoryError::Credential);
        }
        let text = Zeroizing::new(format!(
            "username={}\npassword={}\n",
            access.basic_user,
            access.token.expose()
        ));
        if text.len() > LONGEST {
            return Err(RepositoryError::Credential);
        }
        let failed = |source| RepositoryError::State {
            act: "make a pipe for",
            path: "credential".into(),
            source,
        };
        // Both ends close on exec; the reading one is given a number of its own in git alone.
        let (reader, writer) = std::io::pipe().map_err(failed)?;
        // Closed right after: whoever reads next finds the end.
        File::from(OwnedFd::from(writer))
            .write_all(text.as_bytes())
            .map_err(failed)?;
        Ok(Self {
            reader: reader.into(),
            origin: address.origin().ascii_serialization(),
        })
    }

    pub(super) fn into_descriptor(self) -> OwnedFd {
        self.reader
    }

    /// The helper is asked for this origin only: scheme, host and port.
    pub(super) fn helper_key(&self) -> String {
        format!("credential.{}.helper", self.origin)
    }

    /// Empties the pipe, and stores or erases nothing.
    pub(super) fn helper(&self) -> String {
        format!("!f() {{ test \"$1\" = get && cat <&{CREDENTIAL_FD}; }}; f")
    }
}
