//! The errors that any request can end with, in words, masked and bounded.
//!
//! Never holds a token, and never more of an answer than a sentence needs.

use std::time::SystemTime;

use http::HeaderMap;

use super::pace::{UNSAID_WAIT, asked_wait};
use super::{Answer, Api, Asked};
use crate::forge::ForgeError;
use crate::forge::text::{clean, detail};

impl Api {
    /// The words of an answer that refuses, bounded and masked; its status where it says nothing.
    pub(in crate::forge) fn detail(&self, answer: &Answer) -> String {
        let said = detail(&answer.body, &self.mask);
        if said.is_empty() {
            format!("HTTP {}", answer.status.as_u16())
        } else {
            said
        }
    }

    /// The error for an answer that the API does not promise.
    pub(in crate::forge) fn misunderstood(&self, asked: Asked, said: &str) -> ForgeError {
        ForgeError::Answer {
            instance: self.address.instance.clone(),
            act: asked.act.to_owned(),
            detail: clean(said, &self.mask),
        }
    }

    /// The error for an address at which there is no such API: every instance knows its token's user.
    pub(in crate::forge) fn no_api(&self, asked: Asked) -> ForgeError {
        self.misunderstood(
            asked,
            "there is no such API at this address: check the address and the kind of forge",
        )
    }

    /// The error for a page that asks for a login in place of an API that refuses a token.
    pub(in crate::forge) fn login_page(&self, asked: Asked, answer: &Answer) -> ForgeError {
        let said = format!(
            "{} asks for a login: something stands before the forge's API, or this is not the instance's address",
            self.detail(answer)
        );
        self.misunderstood(asked, &said)
    }

    /// The same error, which says what else could answer so.
    pub(in crate::forge) fn other_product(error: ForgeError) -> ForgeError {
        let mut error = error;
        if let ForgeError::Answer { detail, .. } = &mut error
            && !detail.contains("check")
        {
            detail.push_str(": check the address and the kind of forge");
        }
        error
    }

    /// The error for an answer that limits the rate.
    pub(super) fn rate_limited(&self, headers: &HeaderMap) -> ForgeError {
        ForgeError::RateLimited {
            instance: self.address.instance.clone(),
            wait: asked_wait(headers, SystemTime::now()).unwrap_or(UNSAID_WAIT),
        }
    }

    pub(super) fn unavailable(&self, said: &str) -> ForgeError {
        ForgeError::Unavailable {
            instance: self.address.instance.clone(),
            detail: clean(said, &self.mask),
        }
    }
}
