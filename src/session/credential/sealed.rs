//! Opens a sealed credential and holds it to what it was sealed for.
//!
//! age binds a text to nothing: whoever administers the broker could copy a sealed token into a task of his own, for a forge of his own. So
//! the sealed text may say where and for what the token may be used, and that is checked before anything is done with it.

use super::{Asked, Config, CredentialError, identities};
use crate::forge;
use crate::secret::Secret;
use crate::secret::seal::{self, Bounds, SealError};

/// The token, if this worker can open it and it may be used for this.
pub(super) fn open(config: &Config, text: &str, asked: &Asked<'_>) -> Result<Secret, CredentialError> {
    let refused = |rule: String| CredentialError::Sealed { rule };
    if config.identities.is_empty() {
        let rule = "this worker has no key: the operator names files in credentials.identities (cofferdam keygen)";
        return Err(refused(rule.to_owned()));
    }
    let identities = identities::read(&config.identities)?;
    let (token, bounds) = seal::open(text, &identities).map_err(|error| match error {
        SealError::OtherKey => {
            let own: Vec<String> = identities.iter().map(seal::Identity::recipient).collect();
            refused(format!("it is sealed to another key; seal it to {}", own.join(" or ")))
        }
        SealError::TooLarge(_)
        | SealError::Malformed(_)
        | SealError::Content(_)
        | SealError::Key(_)
        | SealError::Seal(_) => refused(format!("{error}; make it with cofferdam seal, or with any age program")),
    })?;
    allowed(&bounds, asked, config.require_bound, jiff::Timestamp::now()).map_err(refused)?;
    Ok(token)
}

/// Whether the bounds allow this use. Pure.
fn allowed(bounds: &Bounds, asked: &Asked<'_>, must_name_url: bool, now: jiff::Timestamp) -> Result<(), String> {
    match &bounds.url {
        Some(url) => {
            let (sealed, wanted) = (
                forge::instance(asked.forge, Some(url)),
                forge::instance(asked.forge, asked.url),
            );
            if sealed.is_none() || sealed != wanted {
                // Not which one: who sends a stolen token is not told where it is good.
                return Err("it is sealed for another forge address than this connection's".to_owned());
            }
        }
        None if must_name_url => {
            return Err("it names no forge address, and this worker requires one: cofferdam seal --url".to_owned());
        }
        None => {}
    }
    if let Some(session) = bounds.session
        && asked.session.is_none_or(|asked| asked.0 != session)
    {
        return Err("it is sealed for another session".to_owned());
    }
    match bounds.not_after {
        Some(end) if now > end => Err(format!("it was sealed until {end}: seal a fresh one")),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::message::{Credential, ForgeKind, SessionId};
    use crate::secret::seal::Identity;

    const SESSION: &str = "0190c2f0-7c1e-7000-8000-000000000001";

    fn asked(url: Option<&'static str>) -> Asked<'static> {
        Asked {
            session: Some(SESSION.parse::<SessionId>().unwrap()),
            forge: ForgeKind::Gitlab,
            url,
        }
    }

    fn at(text: &str) -> jiff::Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_sealed_token_goes_only_where_it_was_sealed_for() {
        let now = at("2026-06-01T00:00:00Z");
        let judge = |bounds: &Bounds, asked: &Asked<'_>| allowed(bounds, asked, false, now).is_ok();
        let url = |text: &str| Bounds {
            url: Some(text.into()),
            ..Bounds::default()
        };
        let lab = asked(Some("https://gitlab.example.org/forge"));
        for same in [
            "https://gitlab.example.org/forge",
            "gitlab.example.org/forge/",
            "https://GitLab.example.org:443/forge/api/v4",
        ] {
            assert!(judge(&url(same), &lab), "{same}");
        }
        for other in [
            "https://gitlab.example.org",
            "https://gitlab.example.org.evil/forge",
            "http://gitlab.example.org/forge",
            "https://gitlab.example.org:8443/forge",
            "https://gitlab.com",
            "not an address",
            "",
        ] {
            assert!(!judge(&url(other), &lab), "{other}");
        }
        // The public instance goes by its name, whether the task says it or not.
        assert!(judge(&url("gitlab.com"), &asked(None)));
        assert!(!judge(&url("https://github.com"), &asked(None)));
        assert!(!judge(&url("https://gitlab.com"), &asked(Some("https://evil.example"))));

        let session = |text: &str| Bounds {
            session: Some(text.parse().unwrap()),
            ..Bounds::default()
        };
        assert!(judge(&session(SESSION), &lab));
        assert!(!judge(&session("0190c2f0-7c1e-7000-8000-000000000002"), &lab));
        let nobody = Asked { session: None, ..lab };
        assert!(!judge(&session(SESSION), &nobody));

        let until = |text: &str| Bounds {
            not_after: Some(at(text)),
            ..Bounds::default()
        };
        assert!(judge(&until("2026-06-01T00:00:00Z"), &lab));
        assert!(!judge(&until("2026-05-31T23:59:59Z"), &lab));
        assert!(allowed(&Bounds::default(), &lab, true, now).is_err());
        assert!(allowed(&url("gitlab.example.org/forge"), &lab, true, now).is_ok());
    }

    #[test]
    fn keys_are_tried_in_order_and_files_that_others_read_are_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, identity: &Identity, mode| {
            let path = directory.path().join(name);
            std::fs::write(&path, identity.text().expose()).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let (new, old, foreign) = (Identity::generate(), Identity::generate(), Identity::generate());
        let config = Config {
            identities: vec![write("new", &new, 0o600), write("old", &old, 0o400)],
            ..Config::default()
        };
        assert_eq!(config.recipients().unwrap(), [new.recipient(), old.recipient()]);
        let sealed_to = |identity: &Identity| {
            let recipient = identity.recipient().parse().unwrap();
            let token = Secret::new("glpat-canary-seal");
            Credential::Sealed(seal::seal(&token, &Bounds::default(), &[recipient]).unwrap())
        };
        let resolve = |config: &Config, credential: &Credential| config.resolve(credential, &asked(None), |_| None);
        for identity in [&new, &old] {
            assert_eq!(
                resolve(&config, &sealed_to(identity)).unwrap().expose(),
                "glpat-canary-seal"
            );
        }
        let error = resolve(&config, &sealed_to(&foreign)).unwrap_err().to_string();
        assert!(
            error.contains(&new.recipient()) && error.contains(&old.recipient()),
            "{error}"
        );
        let error = resolve(&Config::default(), &sealed_to(&new)).unwrap_err().to_string();
        assert!(error.contains("credentials.identities"), "{error}");
        for mode in [0o640, 0o604, 0o620, 0o666] {
            let open = Config {
                identities: vec![write("open", &new, mode)],
                ..Config::default()
            };
            let error = resolve(&open, &sealed_to(&new)).unwrap_err();
            assert!(matches!(error, CredentialError::Identity { .. }), "{mode:o}");
            assert!(open.recipients().is_err());
        }
        // A new key in the file is used at once.
        write("old", &foreign, 0o600);
        assert!(resolve(&config, &sealed_to(&foreign)).is_ok());
        assert!(resolve(&config, &sealed_to(&old)).is_err());
    }
}
