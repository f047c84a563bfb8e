//! Cutting lists into pages, with the headers of each forge.
//!
//! Never changes the order of a list.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::parameters::Parameters;

const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// GitLab counts no longer than this.
const COUNT_LIMIT: usize = 10_000;

/// Which part of a list is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    page: usize,
    per_page: usize,
}

impl Window {
    /// Reads `page` and `per_page`; both forges clamp to 100.
    pub(crate) fn of(parameters: &Parameters, default: usize) -> Self {
        let number = |key, default| {
            parameters
                .number(key)
                .and_then(|n| usize::try_from(n).ok())
                .unwrap_or(default)
        };
        Self {
            page: number("page", 1).max(1),
            per_page: number("per_page", default).clamp(1, 100),
        }
    }

    /// The asked part of a list.
    pub(crate) fn cut<T>(self, items: Vec<T>) -> Vec<T> {
        items
            .into_iter()
            .skip((self.page - 1).saturating_mul(self.per_page))
            .take(self.per_page)
            .collect()
    }

    fn pages(self, total: usize) -> usize {
        total.div_ceil(self.per_page).max(1)
    }

    /// GitLab: `X-*` counters and a `Link` that echoes every effective parameter.
    pub(crate) fn gitlab(self, url: &str, effective: &[(String, String)], total: usize) -> HeaderMap {
        self.gitlab_counted(url, effective, total, total <= COUNT_LIMIT)
    }

    /// The same for lists whose length GitLab never tells.
    pub(crate) fn gitlab_uncounted(self, url: &str, effective: &[(String, String)], total: usize) -> HeaderMap {
        self.gitlab_counted(url, effective, total, false)
    }

    fn gitlab_counted(self, url: &str, effective: &[(String, String)], total: usize, counted: bool) -> HeaderMap {
        let pages = self.pages(total);
        let next = (self.page < pages).then_some(self.page + 1);
        let previous = (self.page > 1).then(|| self.page - 1);
        let mut all: Vec<(String, String)> = effective
            .iter()
            .filter(|(key, _)| !matches!(key.as_str(), "page" | "per_page" | "private_token"))
            .cloned()
            .collect();
        all.push(("per_page".to_owned(), self.per_page.to_string()));
        let link = |page: usize, rel: &str| {
            let mut pairs = all.clone();
            pairs.push(("page".to_owned(), page.to_string()));
            pairs.sort();
            format!("<{url}?{}>; rel=\"{rel}\"", join(&pairs))
        };
        let mut links = Vec::new();
        links.extend(previous.map(|page| link(page, "prev")));
        links.extend(next.map(|page| link(page, "next")));
        links.push(link(1, "first"));
        if counted {
            links.push(link(pages, "last"));
        }
        let text = |page: Option<usize>| page.map(|page| page.to_string()).unwrap_or_default();
        let mut headers = HeaderMap::new();
        set(&mut headers, "link", &links.join(", "));
        set(&mut headers, "x-next-page", &text(next));
        set(&mut headers, "x-prev-page", &text(previous));
        set(&mut headers, "x-page", &self.page.to_string());
        set(&mut headers, "x-per-page", &self.per_page.to_string());
        if counted {
            set(&mut headers, "x-total", &total.to_string());
            set(&mut headers, "x-total-pages", &pages.to_string());
        }
        headers
    }

    /// GitLab's keyset paging by id: a `Link` to the next page and nothing else.
    pub(crate) fn gitlab_keyset(
        self,
        url: &str,
        effective: &[(String, String)],
        parameters: &Parameters,
        ascending: bool,
        ids: Vec<u64>,
    ) -> (HeaderMap, Vec<u64>) {
        let (after, before) = (parameters.number("id_after"), parameters.number("id_before"));
        let mut rest = ids
            .into_iter()
            .filter(|id| after.is_none_or(|after| *id > after) && before.is_none_or(|before| *id < before));
        let cut: Vec<u64> = rest.by_ref().take(self.per_page).collect();
        let mut headers = HeaderMap::new();
        if let (Some(last), true) = (cut.last(), rest.next().is_some()) {
            let mut pairs: Vec<(String, String)> = effective.to_vec();
            pairs.push(("per_page".to_owned(), self.per_page.to_string()));
            let key = if ascending { "id_after" } else { "id_before" };
            pairs.push((key.to_owned(), last.to_string()));
            pairs.sort();
            set(&mut headers, "link", &format!("<{url}?{}>; rel=\"next\"", join(&pairs)));
        }
        (headers, cut)
    }

    /// GitHub: a `Link` only, and none at all if one page holds everything.
    pub(crate) fn github(self, url: &str, query: &[(String, String)], total: usize) -> HeaderMap {
        let pages = self.pages(total);
        let mut headers = HeaderMap::new();
        if pages <= 1 && self.page == 1 {
            return headers;
        }
        let others: Vec<(String, String)> = query.iter().filter(|(key, _)| key != "page").cloned().collect();
        let link = |page: usize, rel: &str| {
            let mut pairs = others.clone();
            pairs.push(("page".to_owned(), page.to_string()));
            format!("<{url}?{}>; rel=\"{rel}\"", join(&pairs))
        };
        let mut links = Vec::new();
        if self.page > 1 {
            links.push(link(self.page - 1, "prev"));
        }
        if self.page < pages {
            links.push(link(self.page + 1, "next"));
            links.push(link(pages, "last"));
        }
        if self.page > 1 {
            links.push(link(1, "first"));
        }
        set(&mut headers, "link", &links.join(", "));
        headers
    }
}

fn join(pairs: &[(String, String)]) -> String {
    let encode = |text: &str| utf8_percent_encode(text, QUERY).to_string();
    let parts: Vec<String> = pairs
        .iter()
        .map(|(key, value)| format!("{}={}", encode(key), encode(value)))
        .collect();
    parts.join("&")
}

pub(crate) fn set(headers: &mut HeaderMap, name: &'static str, value: &str) {
    // A value with bytes that no header may hold is left out, as a real server's framework does.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}
