//! Where the next page or a moved resource is, and whether the token may go there. Pure.
//!
//! Never gives an address outside the connection's own API.

use http::HeaderMap;
use http::header::{LINK, LOCATION};
use url::Url;

use crate::forge::address::Address;
use crate::forge::text::masked_line;
use crate::secret::Mask;

/// Longest link that is looked at.
const LONGEST: usize = 8192;

/// The next page's address, if there is one. An instance behind a proxy may write its links with another host than ours: what comes
/// after the API's path is then put behind our own address.
///
/// # Errors
/// The link leads outside the API; the sentence says where.
pub(in crate::forge) fn next_page(
    headers: &HeaderMap,
    current: &Url,
    address: &Address,
    mask: &Mask,
) -> Result<Option<Url>, String> {
    let Some(link) = headers
        .get_all(LINK)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .find_map(next_of)
    else {
        return Ok(None);
    };
    let Ok(url) = current.join(link) else {
        return Err(format!(
            "its link to the next page is no address: {}",
            // A query could hold anything.
            masked_line(link.split(['?', '#']).next().unwrap_or_default(), 100, mask)
        ));
    };
    if address.covers(&url) {
        return Ok(Some(url));
    }
    rebased(&url, address)
        .map(Some)
        .ok_or_else(|| format!("its link to the next page leads to {}", place(&url, mask)))
}

/// The link of relation "next" in one `Link` header.
fn next_of(value: &str) -> Option<&str> {
    if value.len() > LONGEST {
        return None;
    }
    let mut rest = value;
    loop {
        let start = rest.find('<')? + 1;
        let end = start + rest[start..].find('>')?;
        let after = &rest[end + 1..];
        // Parameters reach to the next link; a comma inside quotes only ends the search for this one's relation early.
        let parameters = &after[..after.find(",").unwrap_or(after.len())];
        let is_next = parameters
            .split(';')
            .filter_map(|parameter| parameter.trim().split_once('='))
            .any(|(name, word)| name.trim().eq_ignore_ascii_case("rel") && word.trim().trim_matches('"') == "next");
        if is_next {
            return Some(&rest[start..end]);
        }
        rest = after;
    }
}

fn rebased(url: &Url, address: &Address) -> Option<Url> {
    if address.api_suffix.is_empty() {
        return None;
    }
    let marker = format!("/{}/", address.api_suffix);
    let start = url.path().find(&marker)? + marker.len();
    let mut own = address.api.clone();
    own.set_path(&format!("{}{}", address.api.path(), &url.path()[start..]));
    own.set_query(url.query());
    address.covers(&own).then_some(own)
}

/// Where a redirect of a read leads, if the token may follow.
///
/// # Errors
/// It leads outside the API; the sentence says where.
pub(in crate::forge) fn redirect(
    headers: &HeaderMap,
    current: &Url,
    address: &Address,
    mask: &Mask,
) -> Result<Url, String> {
    let Some(location) = headers.get(LOCATION).and_then(|value| value.to_str().ok()) else {
        return Err("it redirects without saying where".to_owned());
    };
    match current.join(location) {
        Ok(url) if location.len() <= LONGEST && address.covers(&url) => Ok(url),
        Ok(url) => Err(format!(
            "it redirects to {}, where the token is not sent: if that is the instance's address, use it in the connection",
            place(&url, mask)
        )),
        Err(_) => Err("it redirects to what is no address".to_owned()),
    }
}

/// Scheme, host and path: a query could hold anything.
fn place(url: &Url, mask: &Mask) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let text = format!(
        "{}://{}{port}{}",
        url.scheme(),
        url.host_str().unwrap_or_default(),
        url.path()
    );
    masked_line(&text, 150, mask)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forge::Config;
    use crate::forge::address::Shape;

    fn address(url: &str) -> Address {
        let shape = Shape {
            public_instance: "https://hub.example",
            public_api: Some("https://api.hub.example"),
            api_suffix: "api/v4",
        };
        Address::new(shape, Some(url), &Config::default(), &[]).unwrap()
    }

    fn next(address: &Address, link: &str) -> Result<Option<String>, String> {
        let mut headers = HeaderMap::new();
        headers.insert(LINK, link.parse().unwrap());
        next_page(&headers, &address.resource(&["projects"]), address, &Mask::default())
            .map(|url| url.map(String::from))
    }

    #[test]
    fn follows_the_next_relation_only() {
        let own = address("forge.example/sub");
        let link = r#"<https://forge.example/sub/api/v4/x?page=1&a=b,c>; rel="first", <https://forge.example/sub/api/v4/x?page=3>; rel="next""#;
        assert_eq!(
            next(&own, link).unwrap().as_deref(),
            Some("https://forge.example/sub/api/v4/x?page=3")
        );
        assert_eq!(
            next(&own, r#"<https://forge.example/sub/api/v4/x>; rel="last""#),
            Ok(None)
        );
        for broken in ["", "<", "<>", "><", ";rel=next", "<x", ",,,<a>,<b>"] {
            assert_eq!(next(&own, broken), Ok(None), "{broken}");
        }
    }

    #[test]
    fn links_of_another_host_come_home_or_are_refused() {
        let own = address("forge.example/sub");
        assert_eq!(
            next(&own, "<http://inner:8080/api/v4/projects/a%2Fb/x?page=2>; rel=next")
                .unwrap()
                .as_deref(),
            Some("https://forge.example/sub/api/v4/projects/a%2Fb/x?page=2")
        );
        assert!(
            next(&own, "<https://evil.example/steal?page=2>; rel=next")
                .unwrap_err()
                .contains("evil.example/steal")
        );
        assert!(next(&own, "<https://evil.example/api/v4/../../x>; rel=next").is_err());
        // Found by fuzzing: what is no address was repeated whole.
        let no_address = next(&own, "<https://forge.example:x/y?private_token=secret>; rel=next").unwrap_err();
        assert!(
            no_address.contains("no address") && !no_address.contains("secret"),
            "{no_address}"
        );
        let public = address("hub.example");
        assert!(next(&public, "<https://evil.example/api/v4/x>; rel=next").is_err());
        assert_eq!(
            next(
                &public,
                "<https://api.hub.example/repositories/1/pulls?page=2>; rel=\"next\""
            )
            .unwrap()
            .as_deref(),
            Some("https://api.hub.example/repositories/1/pulls?page=2")
        );
    }

    #[test]
    fn redirects_stay_inside_the_api() {
        let own = address("forge.example");
        let to = |location: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(LOCATION, location.parse().unwrap());
            redirect(&headers, &own.resource(&["projects", "a/b"]), &own, &Mask::default()).map(String::from)
        };
        assert_eq!(
            to("/api/v4/projects/81").unwrap(),
            "https://forge.example/api/v4/projects/81"
        );
        assert_eq!(
            to("https://forge.example/api/v4/projects/81").unwrap(),
            "https://forge.example/api/v4/projects/81"
        );
        assert!(
            to("https://other.example/api/v4/projects/81?private_token=x")
                .unwrap_err()
                .contains("https://other.example/api/v4")
        );
        assert!(
            !to("https://other.example/?private_token=secret")
                .unwrap_err()
                .contains("secret")
        );
        assert!(to("/users/sign_in").is_err());
        assert!(to("//other.example/api/v4/").is_err());
        assert!(redirect(&HeaderMap::new(), &own.resource(&[]), &own, &Mask::default()).is_err());
    }

    #[test]
    fn a_secret_in_an_address_is_masked_before_it_is_cut() {
        let mask = Mask::new([&crate::secret::Secret::new("glpat-0123456789abcdef")]);
        let own = address("forge.example");
        let current = own.resource(&["projects"]);
        for before in 60..150 {
            let path = format!(
                "https://elsewhere.example/{}/glpat-0123456789abcdef",
                "x".repeat(before)
            );
            let mut headers = HeaderMap::new();
            headers.insert(LOCATION, path.parse().unwrap());
            headers.insert(LINK, format!("<{path}>; rel=\"next\"").parse().unwrap());
            for said in [
                redirect(&headers, &current, &own, &mask).unwrap_err(),
                next_page(&headers, &current, &own, &mask).unwrap_err(),
            ] {
                assert!(!said.contains("glpat") && said.contains("elsewhere"), "{said}");
            }
        }
    }
}
