//! The scripted model: a server of four model APIs that does what the lines of the user's message say, for real agents in tests.
//!
//! It stands where a model provider would: it wants the key, and shows in its log who came with it. It never thinks, opens no
//! connection, and never writes the key anywhere.

mod chat;
mod contents;
mod conversation;
mod log;
mod messages;
mod responses;
mod script;
mod server;
mod shapes;
mod toolbox;

use std::path::PathBuf;

pub use server::serve;

/// How a scripted model is set up.
#[derive(Debug)]
pub struct Settings {
    /// The key that every request has to bring as its bearer token.
    pub key: String,
    /// Where a line for each request is appended, if anywhere.
    pub log: Option<PathBuf>,
}
