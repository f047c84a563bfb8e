//! The frames of a stdio connection: `[stream: u8][length: u32, big-endian][payload]`. An empty frame ends its stream.
//! Nothing here buffers more than one frame: the socket is the flow control.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::WireError;

/// The longest payload of one frame.
pub const MAX_FRAME_BYTES: usize = 65_536;
/// How many bytes stand before each payload.
pub const HEADER_BYTES: usize = 5;

/// Which of a process's streams a frame belongs to. The worker sends only stdin, `inside` only the other two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard input, 0.
    Stdin,
    /// Standard output, 1.
    Stdout,
    /// Standard error, 2.
    Stderr,
}

impl Stream {
    /// The number on the wire, which is also the usual file descriptor.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Stdin => 0,
            Self::Stdout => 1,
            Self::Stderr => 2,
        }
    }
}

impl TryFrom<u8> for Stream {
    type Error = WireError;

    fn try_from(number: u8) -> Result<Self, WireError> {
        match number {
            0 => Ok(Self::Stdin),
            1 => Ok(Self::Stdout),
            2 => Ok(Self::Stderr),
            other => Err(WireError::ParseFrameStream(other)),
        }
    }
}

/// What stands before a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    stream: Stream,
    length: u32,
}

impl FrameHeader {
    /// The header of a payload of `length` bytes; 0 ends the stream.
    ///
    /// # Errors
    ///
    /// [`WireError::FrameTooLong`] over [`MAX_FRAME_BYTES`].
    pub fn new(stream: Stream, length: usize) -> Result<Self, WireError> {
        match u32::try_from(length) {
            Ok(length) if length as usize <= MAX_FRAME_BYTES => Ok(Self { stream, length }),
            Ok(length) => Err(WireError::FrameTooLong(length)),
            Err(_) => Err(WireError::FrameTooLong(u32::MAX)),
        }
    }

    /// Parses the bytes that [`FrameHeader::encode`] makes.
    ///
    /// # Errors
    ///
    /// [`WireError::ParseFrameStream`] or [`WireError::FrameTooLong`].
    pub fn decode(bytes: [u8; HEADER_BYTES]) -> Result<Self, WireError> {
        let [stream, length @ ..] = bytes;
        let stream = Stream::try_from(stream)?;
        let length = u32::from_be_bytes(length);
        if length as usize > MAX_FRAME_BYTES {
            return Err(WireError::FrameTooLong(length));
        }
        Ok(Self { stream, length })
    }

    /// The bytes on the wire.
    #[must_use]
    pub fn encode(self) -> [u8; HEADER_BYTES] {
        let [first, second, third, fourth] = self.length.to_be_bytes();
        [self.stream.number(), first, second, third, fourth]
    }

    /// The stream that the payload belongs to.
    #[must_use]
    pub const fn stream(self) -> Stream {
        self.stream
    }

    /// How many payload bytes follow; at most [`MAX_FRAME_BYTES`].
    #[must_use]
    pub const fn length(self) -> usize {
        self.length as usize
    }
}

/// One frame, read whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The stream that it belongs to.
    pub stream: Stream,
    /// The bytes; empty at the stream's end.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Takes the first frame off `bytes`: the frame and how many bytes it took, or `None` when it is not all there.
    ///
    /// # Errors
    ///
    /// As [`FrameHeader::decode`]; the bytes cannot be resynchronised after that.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, WireError> {
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let header = FrameHeader::decode(*header)?;
        Ok(rest.get(..header.length()).map(|payload| {
            (
                Self {
                    stream: header.stream(),
                    payload: payload.to_vec(),
                },
                HEADER_BYTES + header.length(),
            )
        }))
    }

    /// Appends the bytes on the wire to `bytes`. A payload over [`MAX_FRAME_BYTES`] becomes several frames.
    pub fn encode(stream: Stream, payload: &[u8], bytes: &mut Vec<u8>) {
        let mut rest = payload;
        loop {
            let (now, later) = rest.split_at(rest.len().min(MAX_FRAME_BYTES));
            let length = u32::try_from(now.len()).unwrap_or(0);
            bytes.extend_from_slice(&FrameHeader { stream, length }.encode());
            bytes.extend_from_slice(now);
            rest = later;
            if rest.is_empty() {
                return;
            }
        }
    }
}

/// Reads the next frame; `None` when the connection ended between two frames.
///
/// Not cancel-safe: a frame that was read in part is lost and the stream out of step. Give it a task of its own.
///
/// # Errors
///
/// [`WireError::Read`], [`WireError::Ended`], or as [`FrameHeader::decode`].
pub async fn read_frame<R: AsyncRead + Unpin>(source: &mut R) -> Result<Option<Frame>, WireError> {
    let mut header = [0_u8; HEADER_BYTES];
    if source.read(&mut header[..1]).await.map_err(WireError::Read)? == 0 {
        return Ok(None);
    }
    read_exact(source, &mut header[1..]).await?;
    let header = FrameHeader::decode(header)?;
    let mut payload = vec![0; header.length()];
    read_exact(source, &mut payload).await?;
    Ok(Some(Frame {
        stream: header.stream(),
        payload,
    }))
}

/// Writes a payload as one frame, or several when it is over [`MAX_FRAME_BYTES`]. An empty payload ends the stream.
///
/// Not cancel-safe: a frame that was written in part leaves the stream out of step.
///
/// # Errors
///
/// [`WireError::Write`].
pub async fn write_frame<W: AsyncWrite + Unpin>(sink: &mut W, stream: Stream, payload: &[u8]) -> Result<(), WireError> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
    Frame::encode(stream, payload, &mut bytes);
    sink.write_all(&bytes).await.map_err(WireError::Write)?;
    sink.flush().await.map_err(WireError::Write)
}

async fn read_exact<R: AsyncRead + Unpin>(source: &mut R, into: &mut [u8]) -> Result<(), WireError> {
    match source.read_exact(into).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(WireError::Ended { within: "frame" }),
        Err(error) => Err(WireError::Read(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reads_what_it_writes() {
        let payload: Vec<u8> = (0..150_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        let mut bytes = Vec::new();
        write_frame(&mut bytes, Stream::Stderr, &payload).await.unwrap();
        write_frame(&mut bytes, Stream::Stderr, b"").await.unwrap();
        let (mut source, mut read) = (bytes.as_slice(), Vec::new());
        let mut sizes = Vec::new();
        while let Some(frame) = read_frame(&mut source).await.unwrap() {
            assert_eq!(frame.stream, Stream::Stderr);
            sizes.push(frame.payload.len());
            read.extend(frame.payload);
        }
        assert_eq!(read, payload);
        assert_eq!(
            sizes,
            [MAX_FRAME_BYTES, MAX_FRAME_BYTES, 150_000 - 2 * MAX_FRAME_BYTES, 0]
        );
    }

    #[test]
    fn decodes_only_whole_frames() {
        let mut bytes = Vec::new();
        Frame::encode(Stream::Stdin, b"abc", &mut bytes);
        for short in 0..bytes.len() {
            assert_eq!(Frame::decode(&bytes[..short]).unwrap(), None);
        }
        bytes.push(9);
        let (frame, taken) = Frame::decode(&bytes).unwrap().unwrap();
        assert_eq!((frame.payload.as_slice(), taken), (b"abc".as_slice(), 8));
    }

    #[tokio::test]
    async fn refuses_absurd_frames_before_reading_them() {
        assert!(matches!(
            Frame::decode(&[3, 0, 0, 0, 0]),
            Err(WireError::ParseFrameStream(3))
        ));
        assert!(matches!(
            Frame::decode(&[1, 0, 1, 0, 1]),
            Err(WireError::FrameTooLong(65_537))
        ));
        assert!(matches!(
            read_frame(&mut [1, 0xff, 0xff, 0xff, 0xff].as_slice()).await,
            Err(WireError::FrameTooLong(_))
        ));
        assert!(matches!(
            read_frame(&mut [1, 0, 0].as_slice()).await,
            Err(WireError::Ended { .. })
        ));
        assert!(matches!(
            read_frame(&mut [1, 0, 0, 0, 2, 7].as_slice()).await,
            Err(WireError::Ended { .. })
        ));
        assert!(FrameHeader::new(Stream::Stdin, MAX_FRAME_BYTES + 1).is_err());
    }
}
