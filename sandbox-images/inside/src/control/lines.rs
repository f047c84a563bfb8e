//! Reading and writing control lines. At most one line, and what arrived with it, is held; a longer one is skipped
//! without being kept.

use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{MAX_LINE_BYTES, Order, Report};
use crate::WireError;

/// A buffer that grew over this for one long line is given back.
const KEPT_BYTES: usize = 512;

/// Reads control lines. Every method is cancel-safe: what was read is kept for the next call.
#[derive(Debug)]
pub struct ControlReader<R> {
    source: R,
    buffer: Vec<u8>,
    /// Up to here the buffer has no newline.
    scanned: usize,
    /// Up to here the buffer was handed out by the last call.
    taken: usize,
    /// Whether the line being read is already known to be too long.
    skipping: bool,
}

impl<R: AsyncRead + Unpin> ControlReader<R> {
    /// Reads from a connection whose preamble has been read or written.
    pub fn new(source: R) -> Self {
        Self {
            source,
            buffer: Vec::new(),
            scanned: 0,
            taken: 0,
            skipping: false,
        }
    }

    /// The next line without its newline; `None` when the connection ended after a whole line.
    ///
    /// # Errors
    ///
    /// [`WireError::LineTooLong`] (the next line can be read), [`WireError::Read`] or [`WireError::Ended`].
    pub async fn read_line(&mut self) -> Result<Option<&[u8]>, WireError> {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        if self.buffer.len() < KEPT_BYTES {
            self.buffer.shrink_to(KEPT_BYTES);
        }
        loop {
            if let Some(offset) = self.buffer[self.scanned..].iter().position(|byte| *byte == b'\n') {
                let end = self.scanned + offset;
                self.taken = end + 1;
                self.scanned = 0;
                if std::mem::take(&mut self.skipping) || end > MAX_LINE_BYTES {
                    return Err(WireError::LineTooLong);
                }
                return Ok(Some(&self.buffer[..end]));
            }
            if self.buffer.len() > MAX_LINE_BYTES {
                self.skipping = true;
            }
            if self.skipping {
                self.buffer.clear();
            }
            self.scanned = self.buffer.len();
            if self.source.read_buf(&mut self.buffer).await.map_err(WireError::Read)? == 0 {
                let whole = self.buffer.is_empty() && !self.skipping;
                return if whole {
                    Ok(None)
                } else {
                    Err(WireError::Ended { within: "control line" })
                };
            }
        }
    }

    /// The next order; `None` at the end.
    ///
    /// # Errors
    ///
    /// As [`ControlReader::read_line`], or [`WireError::ParseOrder`], after which the next line can be read.
    pub async fn read_order(&mut self) -> Result<Option<Order>, WireError> {
        self.read_line().await?.map(Order::parse).transpose()
    }

    /// The next report; `None` at the end.
    ///
    /// # Errors
    ///
    /// As [`ControlReader::read_line`], or [`WireError::ParseReport`], after which the next line can be read.
    pub async fn read_report(&mut self) -> Result<Option<Report>, WireError> {
        self.read_line().await?.map(Report::parse).transpose()
    }
}

/// Writes control lines. Every method is cancel-safe in this sense: a line that was begun is kept, and completed by
/// the next call.
#[derive(Debug)]
pub struct ControlWriter<W> {
    sink: W,
    buffer: Vec<u8>,
    written: usize,
}

impl<W: AsyncWrite + Unpin> ControlWriter<W> {
    /// Writes to a connection whose preamble has been read or written.
    pub fn new(sink: W) -> Self {
        Self {
            sink,
            buffer: Vec::new(),
            written: 0,
        }
    }

    /// Writes one order.
    ///
    /// # Errors
    ///
    /// [`WireError::LineTooLong`] with nothing written, [`WireError::FormatLine`] or [`WireError::Write`].
    pub async fn write_order(&mut self, order: &Order) -> Result<(), WireError> {
        self.write(order).await
    }

    /// Writes one report.
    ///
    /// # Errors
    ///
    /// As [`ControlWriter::write_order`].
    pub async fn write_report(&mut self, report: &Report) -> Result<(), WireError> {
        self.write(report).await
    }

    /// Puts an order behind what is still to be written, and writes nothing: [`ControlWriter::flush`] does. For those
    /// who write and read in one `select!`.
    ///
    /// # Errors
    ///
    /// [`WireError::LineTooLong`] with nothing added, or [`WireError::FormatLine`].
    pub fn enqueue_order(&mut self, order: &Order) -> Result<(), WireError> {
        self.enqueue(order)
    }

    /// Puts a report behind what is still to be written, as [`ControlWriter::enqueue_order`].
    ///
    /// # Errors
    ///
    /// As [`ControlWriter::enqueue_order`].
    pub fn enqueue_report(&mut self, report: &Report) -> Result<(), WireError> {
        self.enqueue(report)
    }

    /// Writes what was enqueued, or what a cancelled call left.
    ///
    /// # Errors
    ///
    /// [`WireError::Write`].
    pub async fn flush(&mut self) -> Result<(), WireError> {
        while let Some(rest) = self.buffer.get(self.written..).filter(|rest| !rest.is_empty()) {
            match self.sink.write(rest).await.map_err(WireError::Write)? {
                0 => return Err(WireError::Write(std::io::ErrorKind::WriteZero.into())),
                count => self.written += count,
            }
        }
        self.buffer.clear();
        self.buffer.shrink_to(KEPT_BYTES);
        self.written = 0;
        self.sink.flush().await.map_err(WireError::Write)
    }

    fn enqueue<T: Serialize>(&mut self, message: &T) -> Result<(), WireError> {
        let line = serde_json::to_vec(message).map_err(WireError::FormatLine)?;
        if line.len() > MAX_LINE_BYTES {
            return Err(WireError::LineTooLong);
        }
        self.buffer.extend_from_slice(&line);
        self.buffer.push(b'\n');
        Ok(())
    }

    async fn write<T: Serialize>(&mut self, message: &T) -> Result<(), WireError> {
        // Before the new line is added, so that calls that are cancelled again and again do not pile lines up.
        self.flush().await?;
        self.enqueue(message)?;
        self.flush().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reads_what_it_writes_through_a_narrow_pipe() {
        let (there, here) = tokio::io::duplex(7);
        let orders: Vec<Order> = (0..50).map(|id| Order::Listen { id, port: 80 }).collect();
        let sent = orders.clone();
        let writing = tokio::spawn(async move {
            let mut writer = ControlWriter::new(here);
            for order in &sent {
                writer.write_order(order).await.unwrap();
            }
        });
        let mut reader = ControlReader::new(there);
        let mut read = Vec::new();
        while let Some(order) = reader.read_order().await.unwrap() {
            read.push(order);
        }
        assert_eq!(read, orders);
        writing.await.unwrap();
    }

    #[tokio::test]
    async fn a_cancelled_read_or_write_loses_nothing() {
        let (there, here) = tokio::io::duplex(4);
        let (mut reader, mut writer) = (ControlReader::new(there), ControlWriter::new(here));
        let report = Report::Written { id: 5 };
        // Each side is dropped at every await that is not ready at once.
        let mut got = None;
        tokio::select! { biased; _ = writer.write_report(&report) => panic!("the pipe is too narrow"), () = std::future::ready(()) => {} }
        while got.is_none() {
            tokio::select! { biased; line = reader.read_report() => got = line.unwrap(), () = std::future::ready(()) => {} }
            tokio::select! { biased; done = writer.flush() => done.unwrap(), () = std::future::ready(()) => {} }
        }
        assert_eq!(got, Some(report));
    }

    #[tokio::test]
    async fn skips_what_is_too_long_or_garbage_and_goes_on() {
        let mut bytes = vec![b'x'; MAX_LINE_BYTES * 3];
        bytes.extend_from_slice(b"\n\xff\xfe\n\n{\"written\":{\"id\":1}}\n{\"wri");
        let mut reader = ControlReader::new(bytes.as_slice());
        assert!(matches!(reader.read_report().await, Err(WireError::LineTooLong)));
        assert!(matches!(reader.read_report().await, Err(WireError::ParseReport(_))));
        assert!(matches!(reader.read_report().await, Err(WireError::ParseReport(_))));
        assert_eq!(reader.read_report().await.unwrap(), Some(Report::Written { id: 1 }));
        assert!(matches!(reader.read_report().await, Err(WireError::Ended { .. })));
        let mut exact = vec![b'y'; MAX_LINE_BYTES];
        exact.push(b'\n');
        assert_eq!(
            ControlReader::new(exact.as_slice())
                .read_line()
                .await
                .unwrap()
                .map(<[u8]>::len),
            Some(MAX_LINE_BYTES)
        );
    }

    #[tokio::test]
    async fn sends_nothing_of_a_line_that_is_too_long() {
        let mut sent = Vec::new();
        let mut writer = ControlWriter::new(&mut sent);
        let report = Report::Refused {
            id: 1,
            reason: "x".repeat(MAX_LINE_BYTES),
        };
        assert!(matches!(
            writer.write_report(&report).await,
            Err(WireError::LineTooLong)
        ));
        assert_eq!(sent, b"");
    }
}
