//! The wire between `inside`, PID 1 of a sandbox, and the worker's gateway.
//!
//! Both ends use this library, so that the two cannot drift apart; for the same reason the rule by which a commit has
//! its trailers is here: [`missing_trailer`]. It parses and formats, and nothing else: it opens
//! no socket, starts no process, decides nothing and trusts neither side. All that it reads is bounded.
//!
//! A sandbox has one unix socket. `inside` dials it, once for each purpose, and every connection begins with one
//! [`Preamble`] line that names the purpose:
//!
//! | preamble | then |
//! |---|---|
//! | `cofferdam/1 control` | [`Order`]s to the sandbox and [`Report`]s from it, one JSON object a line |
//! | `cofferdam/1 stdio <token>` | [`Frame`]s both ways: the stdio of the one process whose spawn order carried the token |
//! | `cofferdam/1 relay <port>` | raw bytes of one TCP connection that was made to that loopback port |
//!
//! Where there is no directory to share, each of these connections is made to the worker over TCP and TLS, and a [`Greeting`] goes before
//! the preamble.
//!
//! The control connection begins with [`Report::Hello`]. Every order but `signal` carries an id that was never used
//! before in this sandbox. An order that this version does not know, or cannot parse, is answered by `refused` when an
//! id can be read from it, and otherwise dropped; a field that it does not know is ignored. So a newer worker learns
//! what an older sandbox cannot do, and nothing breaks.
//!
//! A stdio connection outlives its process where other processes still hold its stdout or stderr: `exited` says that
//! the process is gone, an empty frame says that a stream has ended. Neither waits for the other.

mod control;
mod error;
mod frame;
mod link;
mod preamble;
mod token;
mod trailers;

pub use control::{ControlReader, ControlWriter, MAX_LINE_BYTES, Order, Report, WIRE_VERSION};
pub use error::WireError;
pub use frame::{Frame, FrameHeader, HEADER_BYTES, MAX_FRAME_BYTES, Stream, read_frame, write_frame};
pub use link::{CERTIFICATE_FILE, Greeting, LINK_NAME, TICKET_FILE};
pub use preamble::{MAX_PREAMBLE_BYTES, Preamble};
pub use token::Token;
pub use trailers::missing_trailer;

/// Where the gateway's socket is mounted in a sandbox.
pub const DEFAULT_SOCKET: &str = "/run/cofferdam/gateway.sock";
