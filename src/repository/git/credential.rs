//! Hands a credential to git without writing it anywhere: a file that exists only in memory, inherited as an open descriptor.
//!
//! git's credential protocol is line based, so a credential that holds a line break could say more than a password; it is refused.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;

use nix::sys::memfd::{MFdFlags, memfd_create};
use url::Url;
use zeroize::Zeroizing;

use crate::repository::RepositoryError;
use crate::repository::remote::Access;

/// Where the helper finds the credential.
pub(super) const CREDENTIAL_FD: i32 = 3;

/// A credential for one origin, readable through an inherited descriptor only.
#[derive(Debug)]
pub(crate) struct Credential {
    file: File,
    origin: String,
}

impl Credential {
    pub(crate) fn new(access: &Access, address: &Url) -> Result<Self, RepositoryError> {
        let unusable = |text: &str| text.is_empty() || text.chars().any(char::is_control);
        if unusable(access.token.expose()) || unusable(&access.basic_user) {
            return Err(RepositoryError::Credential);
        }
        let failed = |source| RepositoryError::State {
            act: "make a file in memory for",
            path: "credential".into(),
            source,
        };
        let descriptor =
            memfd_create(c"credential", MFdFlags::MFD_CLOEXEC).map_err(|error| failed(std::io::Error::from(error)))?;
        let mut file = File::from(descriptor);
        let text = Zeroizing::new(format!(
            "username={}\npassword={}\n",
            access.basic_user,
            access.token.expose()
        ));
        file.write_all(text.as_bytes()).map_err(failed)?;
        Ok(Self {
            file,
            origin: address.origin().ascii_serialization(),
        })
    }

    pub(super) fn into_descriptor(self) -> OwnedFd {
        OwnedFd::from(self.file)
    }

    /// The helper is asked for this origin only: scheme, host and port.
    pub(super) fn helper_key(&self) -> String {
        format!("credential.{}.helper", self.origin)
    }

    /// Reads the file anew at every call (an inherited descriptor shares its offset), and stores or erases nothing.
    pub(super) fn helper(&self) -> String {
        format!("!f() {{ test \"$1\" = get && cat /proc/self/fd/{CREDENTIAL_FD}; }}; f")
    }
}
