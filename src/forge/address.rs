//! Instance addresses: from what people paste to one canonical form, and to the API's own address. Pure.
//!
//! Never accepts user information, a query or a fragment (they carry tokens), and never repeats them in an error.

use url::Url;

use super::text::web_address;
use super::{CloneBy, Config, ForgeError};
use crate::message::ProjectPath;

/// What differs between kinds of forge about addresses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// The public instance, canonical.
    pub(super) public_instance: &'static str,
    /// Where the public instance's API is, when it is not below the instance.
    pub(super) public_api: Option<&'static str>,
    /// What comes after an instance's address to reach its API, without slashes at the ends.
    pub(super) api_suffix: &'static str,
}

/// One instance's addresses.
#[derive(Debug, Clone)]
pub(super) struct Address {
    /// The canonical address, without a trailing slash.
    pub(super) instance: String,
    /// The API's address, with a trailing slash.
    pub(super) api: Url,
    /// The API's path as other addresses of the same instance would carry it; empty where there is none.
    pub(super) api_suffix: &'static str,
    /// What the forge may name as a project's clone address; nothing where the instance's own is used.
    named: Option<Named>,
}

/// Which clone addresses that a forge names are used.
#[derive(Debug, Clone)]
struct Named {
    allow_http: bool,
    /// Canonical addresses; any when empty.
    allowed: Vec<String>,
}

/// Longest address that is looked at.
const LONGEST: usize = 2048;

/// Ends of pasted API addresses.
const API_ENDS: [&str; 2] = ["/api/v4", "/api/v3"];

impl Address {
    /// The addresses of a connection's instance; `url` is `None` for the public one. `allowed` holds canonical addresses.
    pub(super) fn new(
        shape: Shape,
        url: Option<&str>,
        config: &Config,
        allowed: &[String],
    ) -> Result<Self, ForgeError> {
        let mut instance = match url {
            Some(text) => canonical(text, config.allow_http)?,
            None => shape.public_instance.to_owned(),
        };
        if shape.public_api == Some(instance.as_str()) {
            shape.public_instance.clone_into(&mut instance);
        }
        if !allowed.is_empty() && !allowed.contains(&instance) {
            let rule = format!("the operator allows only {}", allowed.join(", "));
            return Err(ForgeError::Address { url: instance, rule });
        }
        let is_public = instance == shape.public_instance;
        let (api, api_suffix) = match shape.public_api {
            Some(api) if is_public => (format!("{api}/"), ""),
            _ => (format!("{instance}/{}/", shape.api_suffix), shape.api_suffix),
        };
        match Url::parse(&api) {
            Ok(api) => Ok(Self {
                instance,
                api,
                api_suffix,
                named: (config.clone_by == CloneBy::Project).then(|| Named {
                    allow_http: config.allow_http,
                    allowed: allowed.to_vec(),
                }),
            }),
            Err(_) => Err(refused(&instance, "it must be like https://forge.example.org")),
        }
    }

    /// The address of an API resource. Each segment is encoded whole, so a path of several parts is one segment.
    pub(super) fn resource(&self, segments: &[&str]) -> Url {
        let mut url = self.api.clone();
        // An http address always has a path; the error arm cannot happen and leaves the API's root.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    /// Where git reaches a project; `named` is what the forge says. What is not usable (another scheme, user information, a place that the
    /// operator does not allow) counts for nothing.
    pub(super) fn clone_url(&self, named: Option<&str>, path: &ProjectPath) -> String {
        let usable = |rule: &Named| {
            let url = web_address(named?)?;
            let secure = url.starts_with("https://") || rule.allow_http;
            let below = |allowed: &String| {
                url.strip_prefix(allowed.as_str())
                    .is_some_and(|rest| rest.starts_with('/'))
            };
            let allowed = rule.allowed.is_empty() || rule.allowed.iter().any(below);
            (secure && allowed && !url.contains(['?', '#'])).then_some(url)
        };
        let chosen = self.named.as_ref().and_then(usable);
        chosen.unwrap_or_else(|| format!("{}/{path}.git", self.instance))
    }

    /// Whether the token may be sent there: same scheme, host and port, and below the API's path.
    pub(super) fn covers(&self, url: &Url) -> bool {
        url.scheme() == self.api.scheme()
            && url.host() == self.api.host()
            && url.port_or_known_default() == self.api.port_or_known_default()
            && url.username().is_empty()
            && url.password().is_none()
            && url.path().starts_with(self.api.path())
    }
}

/// The canonical form of a pasted address: scheme, host, port and sub-path, without a trailing slash.
pub(super) fn canonical(text: &str, allow_http: bool) -> Result<String, ForgeError> {
    let text = text.trim();
    if text.is_empty() || text.len() > LONGEST || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(refused(text, "it must be like https://forge.example.org"));
    }
    let with_scheme = if text.contains("://") {
        text.to_owned()
    } else {
        format!("https://{text}")
    };
    let url = Url::parse(&with_scheme).map_err(|_| refused(text, "it must be like https://forge.example.org"))?;
    match url.scheme() {
        "https" => {}
        "http" if allow_http => {}
        "http" => {
            return Err(refused(
                text,
                "it must begin with https://, so that the token is not readable on the way",
            ));
        }
        _ => return Err(refused(text, "it must begin with https://")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refused(
            text,
            "it must not hold a user name or a token: the credential has its own field",
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(refused(text, "it must end before any '?' or '#'"));
    }
    let Some(host) = url.host_str().filter(|host| !host.is_empty()) else {
        return Err(refused(text, "it must name a host"));
    };
    // Addresses may hold quotes, '$' and more in a host's place; names of hosts do not.
    let label = |label: &str| {
        !label.is_empty()
            && label
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
    };
    if !host.starts_with('[') && !host.split('.').all(label) {
        return Err(refused(
            text,
            "its host may hold only letters, digits, '-', '_' and single dots",
        ));
    }
    let mut path = url.path().trim_end_matches('/');
    while let Some(shorter) = API_ENDS.iter().find_map(|end| path.strip_suffix(end)) {
        path = shorter.trim_end_matches('/');
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~');
    if !path.is_empty()
        && !path[1..]
            .split('/')
            .all(|part| !part.is_empty() && part.chars().all(plain))
    {
        return Err(refused(
            text,
            "its path may hold only letters, digits, '-', '_', '.' and '~'",
        ));
    }
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    Ok(format!("{}://{host}{port}{path}", url.scheme()))
}

/// The error, with the address stripped of all that could be a secret.
fn refused(text: &str, rule: &str) -> ForgeError {
    // A password may hold any sign itself: of what may be one, only what comes after the last '@' is shown, and nothing where the address
    // may have ended before.
    let shown = match (text.split(['?', '#']).next().unwrap_or_default(), text.rfind('@')) {
        (before, None) => before,
        (before, Some(at)) if at < before.len() => &before[at + 1..],
        (_, Some(_)) => "",
    };
    ForgeError::Address {
        url: shown.chars().take(200).collect(),
        rule: rule.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Shape = Shape {
        public_instance: "https://forge.example.com",
        public_api: None,
        api_suffix: "api/v4",
    };
    const SPLIT: Shape = Shape {
        public_instance: "https://hub.example.com",
        public_api: Some("https://api.hub.example.com"),
        api_suffix: "api/v3",
    };

    fn address(shape: Shape, url: Option<&str>) -> Address {
        Address::new(shape, url, &Config::default(), &[]).unwrap()
    }

    #[test]
    fn pitfall_14_what_people_paste_becomes_one_form() {
        for (pasted, expected) in [
            ("forge.example.com", "https://forge.example.com"),
            ("https://Forge.Example.com/", "https://forge.example.com"),
            ("https://forge.example.com:443//", "https://forge.example.com"),
            ("https://forge.example.com/api/v4/", "https://forge.example.com"),
            ("forge.example.com/api/v3", "https://forge.example.com"),
            ("forge.example.com/api/v4/api/v3", "https://forge.example.com"),
            ("forge.example.com:8443/sub/", "https://forge.example.com:8443/sub"),
            (
                "https://forge.example.com/tools/code/api/v4",
                "https://forge.example.com/tools/code",
            ),
            (" https://[::1]:8443 ", "https://[::1]:8443"),
        ] {
            assert_eq!(canonical(pasted, false).unwrap(), expected, "{pasted}");
        }
    }

    #[test]
    fn unusable_addresses_are_refused_without_repeating_secrets() {
        for bad in [
            "",
            "https://",
            "ssh://forge.example.com",
            "file:///etc/passwd",
            "http://forge.example.com",
            "https://user:very-secret@forge.example.com",
            "very-secret@forge.example.com",
            "https://forge.example.com/?private_token=very-secret",
            "https://forge.example.com/#very-secret",
            // Found by fuzzing: a password with a sign that ends an address.
            "https://user:very-secret#1@forge.example.com",
            "user:very-secret?@forge.example.com",
            "user:very-secret://1@forge.example.com",
            "https://forge.example.com/a%2fb",
            "https://forge.example.com/a//b",
            "https://forge.example.com/a b",
            // Found by fuzzing: signs that no host's name has.
            "https://forge\".example.com",
            "https://forge.example.com$(id)",
            "https://forge.example.com.",
            "https://forge\n.example.com",
        ] {
            let error = canonical(bad, false).unwrap_err();
            assert!(matches!(error, ForgeError::Address { .. }), "{bad}");
            assert!(!error.to_string().contains("very-secret"), "{error}");
        }
        assert!(canonical(&"a".repeat(5000), false).unwrap_err().to_string().len() < 400);
    }

    #[test]
    fn plain_http_needs_the_operators_word() {
        assert_eq!(
            canonical("http://127.0.0.1:8080/", true).unwrap(),
            "http://127.0.0.1:8080"
        );
        assert!(canonical("http://127.0.0.1:8080/", false).is_err());
    }

    #[test]
    fn pitfall_13_the_api_is_below_the_instance_with_its_sub_path() {
        assert_eq!(address(PLAIN, None).api.as_str(), "https://forge.example.com/api/v4/");
        assert_eq!(
            address(PLAIN, Some("x.example/sub")).api.as_str(),
            "https://x.example/sub/api/v4/"
        );
        for pasted in [None, Some("hub.example.com"), Some("https://api.hub.example.com/")] {
            let public = address(SPLIT, pasted);
            assert_eq!(public.api.as_str(), "https://api.hub.example.com/");
            assert_eq!(public.instance, "https://hub.example.com");
        }
        assert_eq!(
            address(SPLIT, Some("hub.corp.example")).api.as_str(),
            "https://hub.corp.example/api/v3/"
        );
    }

    #[test]
    fn only_allowed_instances_are_used() {
        let allowed = ["https://forge.example.com/one".to_owned()];
        let open = |url| Address::new(PLAIN, url, &Config::default(), &allowed);
        assert!(open(Some("forge.example.com/one/")).is_ok());
        assert!(open(Some("forge.example.com/two")).is_err());
        assert!(open(None).is_err());
    }

    #[test]
    fn pitfall_15_the_operator_chooses_by_which_address_is_cloned() {
        let path: ProjectPath = "a/b".parse().unwrap();
        let of = |clone_by, allowed: &[String], named| {
            let config = Config {
                clone_by,
                ..Config::default()
            };
            let address = Address::new(PLAIN, Some("x.example/sub"), &config, allowed).unwrap();
            address.clone_url(named, &path)
        };
        let (own, other) = ("https://x.example/sub/a/b.git", "https://git.example/a/b.git");
        assert_eq!(of(CloneBy::Instance, &[], Some(other)), own);
        assert_eq!(of(CloneBy::Project, &[], Some(other)), other);
        for bad in [
            None,
            Some("http://git.example/a/b.git"),
            Some("ssh://git@git.example/a/b.git"),
            Some("https://u:p@git.example/a/b.git"),
            Some("https://git.example/a/b.git?x=1"),
            Some("git@git.example:a/b.git"),
        ] {
            assert_eq!(of(CloneBy::Project, &[], bad), own, "{bad:?}");
        }
        let allowed = ["https://x.example/sub".to_owned()];
        assert_eq!(of(CloneBy::Project, &allowed, Some(other)), own);
        let both = [allowed[0].clone(), "https://git.example".to_owned()];
        assert_eq!(of(CloneBy::Project, &both, Some(other)), other);
        assert_eq!(
            of(CloneBy::Project, &both, Some("https://git.example.evil/a/b.git")),
            own
        );
    }

    #[test]
    fn pitfall_16_a_path_of_nested_groups_is_one_segment() {
        let url = address(PLAIN, None).resource(&["projects", "a/b c", "branches", "x?y#z"]);
        assert_eq!(
            url.as_str(),
            "https://forge.example.com/api/v4/projects/a%2Fb%20c/branches/x%3Fy%23z"
        );
    }

    #[test]
    fn the_token_stays_below_the_api() {
        let address = address(PLAIN, Some("x.example/sub"));
        let covers = |text: &str| address.covers(&Url::parse(text).unwrap());
        assert!(covers("https://x.example/sub/api/v4/projects/81"));
        assert!(covers("https://x.example:443/sub/api/v4/projects/81"));
        for foreign in [
            "http://x.example/sub/api/v4/projects/81",
            "https://y.example/sub/api/v4/projects/81",
            "https://x.example:8443/sub/api/v4/projects/81",
            "https://x.example/other/api/v4/projects/81",
            "https://x.example/sub/api/v4/../../../steal",
            "https://user@x.example/sub/api/v4/projects/81",
            "https://x.example/users/sign_in",
        ] {
            assert!(!covers(foreign), "{foreign}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_pasted_no_password_survives_and_what_is_canonical_stays(
            scheme in "(https://|http://|ssh://|)", before in ".{0,8}", after in ".{0,8}", host in "[a-z.:0-9\\[\\]/?#]{0,20}"
        ) {
            let pasted = format!("{scheme}{before}very-secret{after}@{host}");
            match canonical(&pasted, true) {
                Ok(address) => proptest::prop_assert!(!address.contains("very-secret"), "{address}"),
                Err(error) => proptest::prop_assert!(!error.to_string().contains("very-secret"), "{error}"),
            }
            if let Ok(address) = canonical(&host, true) {
                proptest::prop_assert_eq!(canonical(&address, true).unwrap(), address);
            }
        }
    }
}
