//! What can go wrong on the wire. No variant carries what the other side sent, beyond a number: such text may be
//! long, hostile or secret.

use std::io;

/// A failure to read, write, parse or format something on the wire.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Reading from the connection failed.
    #[error("reading from the connection failed")]
    Read(#[source] io::Error),
    /// Writing to the connection failed.
    #[error("writing to the connection failed")]
    Write(#[source] io::Error),
    /// The connection ended in the middle of something.
    #[error("the connection ended within a {within}")]
    Ended {
        /// What was incomplete.
        within: &'static str,
    },
    /// The first line of a connection is not a preamble of this version.
    #[error("the connection does not begin with a known preamble")]
    ParsePreamble,
    /// A token is not 32 lower-case hexadecimal digits.
    #[error("a stdio token is 32 lower-case hexadecimal digits")]
    ParseToken,
    /// A control line is longer than [`crate::MAX_LINE_BYTES`]. Read: it has been skipped and the next can be read.
    /// Written: nothing of it was sent.
    #[error("a control line is longer than {} bytes", crate::MAX_LINE_BYTES)]
    LineTooLong,
    /// A control line is not an order of this version. The next line can be read.
    #[error("a control line is not a known order")]
    ParseOrder {
        /// The id by which the order can be refused, where one could be read.
        id: Option<u32>,
        /// What the parser found.
        #[source]
        source: serde_json::Error,
    },
    /// A control line is not a report of this version. The next line can be read.
    #[error("a control line is not a known report")]
    ParseReport(#[source] serde_json::Error),
    /// A message could not be written as JSON.
    #[error("a control message could not be written as JSON")]
    FormatLine(#[source] serde_json::Error),
    /// A frame names a stream that does not exist.
    #[error("a frame names stream {0}")]
    ParseFrameStream(u8),
    /// A frame claims to be longer than [`crate::MAX_FRAME_BYTES`].
    #[error("a frame claims {0} bytes")]
    FrameTooLong(u32),
}
