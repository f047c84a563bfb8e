//! Pages of a list by their numbers, for callers that go on later.
//!
//! Never follows a link: it only reads from it that, and with which number, there is a next page.

use serde::de::DeserializeOwned;
use url::Url;

use super::{Answer, Api, Asked, MOST_PAGES, link};
use crate::forge::ForgeError;
use crate::forge::inspect::{LARGEST_PAGE, Page, PageRequest};

/// Highest page number that is asked for or believed.
const LAST_PAGE: u32 = 1_000_000;

impl PageRequest {
    /// The same within its bounds.
    pub(in crate::forge) fn bounded(self) -> Self {
        Self {
            page: self.page.clamp(1, LAST_PAGE),
            per_page: self.per_page.clamp(1, LARGEST_PAGE),
        }
    }

    /// The address of this page of a list.
    pub(in crate::forge) fn of(self, list: &Url) -> Url {
        let Self { page, per_page } = self.bounded();
        let mut url = list.clone();
        url.query_pairs_mut()
            .append_pair("page", &page.to_string())
            .append_pair("per_page", &per_page.to_string());
        url
    }
}

impl Api {
    /// The answer that holds one page of a list, and the number of the next page.
    pub(in crate::forge) async fn page_answer(
        &self,
        asked: Asked,
        list: &Url,
        page: PageRequest,
    ) -> Result<(Answer, Option<u32>), ForgeError> {
        let url = page.of(list);
        let answer = self.get(asked, url.clone()).await?;
        let next = if answer.status.is_success() {
            self.next_number(asked, &answer, &url, page.bounded().page)?
        } else {
            None
        };
        Ok((answer, next))
    }

    /// One page of a list; `refuse` makes the error of a page that was refused.
    pub(in crate::forge) async fn page<T: DeserializeOwned>(
        &self,
        asked: Asked,
        list: &Url,
        page: PageRequest,
        refuse: impl Fn(&Answer) -> ForgeError + Send + Sync,
    ) -> Result<Page<T>, ForgeError> {
        let (answer, next_page) = self.page_answer(asked, list, page).await?;
        if !answer.status.is_success() {
            return Err(refuse(&answer));
        }
        let items = self.parse(asked, &answer)?;
        Ok(Page { items, next_page })
    }

    /// The first page, from this one on, of which something is kept. Pages keep the forge's own numbers, so that nothing is shown twice or
    /// left out; after some pages of which nothing was kept the caller decides whether to go on.
    pub(in crate::forge) async fn kept_page<T: DeserializeOwned, U>(
        &self,
        asked: Asked,
        list: &Url,
        page: PageRequest,
        refuse: impl Fn(&Answer) -> ForgeError + Send + Sync,
        keep: impl Fn(T) -> Option<U> + Send + Sync,
    ) -> Result<Page<U>, ForgeError> {
        let mut page = page.bounded();
        for _ in 1..MOST_PAGES {
            let read = self.page(asked, list, page, &refuse).await?.keep(&keep);
            match read.next_page {
                Some(next) if read.items.is_empty() => page.page = next,
                _ => return Ok(read),
            }
        }
        Ok(self.page(asked, list, page, &refuse).await?.keep(&keep))
    }

    /// The number of the next page. GitLab leaves links out for some lists and sends a header in their place.
    fn next_number(&self, asked: Asked, answer: &Answer, url: &Url, current: u32) -> Result<Option<u32>, ForgeError> {
        let linked = link::next_page(&answer.headers, url, &self.address, &self.mask)
            .map_err(|said| self.misunderstood(asked, &said))?;
        let number = match linked {
            Some(next) => next
                .query_pairs()
                .find(|(name, _)| name == "page")
                .and_then(|(_, number)| number.parse::<u32>().ok())
                // A list that goes on by a cursor goes on by numbers too.
                .or(Some(current + 1)),
            None => answer
                .headers
                .get("x-next-page")
                .and_then(|value| value.to_str().ok())
                .and_then(|number| number.trim().parse().ok()),
        };
        match number {
            Some(next) if next <= current => {
                Err(self.misunderstood(asked, "its link to the next page leads back: the list would never end"))
            }
            Some(next) if next > LAST_PAGE => Ok(None),
            other => Ok(other),
        }
    }
}

impl<T> Page<T> {
    /// The same page with the rows that are kept.
    pub(in crate::forge) fn keep<U>(self, keep: impl Fn(T) -> Option<U>) -> Page<U> {
        Page {
            items: self.items.into_iter().filter_map(keep).collect(),
            next_page: self.next_page,
        }
    }
}
