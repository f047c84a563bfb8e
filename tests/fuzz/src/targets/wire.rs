//! The wire between `inside` and the worker, from both ends: an agent runs as the same user as `inside`.

use cofferdam_inside::{
    ControlReader, Frame, FrameHeader, HEADER_BYTES, MAX_FRAME_BYTES, MAX_LINE_BYTES, MAX_PREAMBLE_BYTES, Order,
    Preamble, Report, WireError, read_frame,
};

use crate::judge::now;

/// A stdio connection, read at once and as a stream.
pub fn frames(data: &[u8]) {
    let (mut rest, mut stream) = (data, data);
    loop {
        let whole = Frame::decode(rest);
        let streamed = now(read_frame(&mut stream));
        match (whole, streamed) {
            (Ok(Some((frame, taken))), Ok(Some(read))) => {
                assert_eq!(frame, read);
                assert!(frame.payload.len() <= MAX_FRAME_BYTES && taken == HEADER_BYTES + frame.payload.len());
                let mut again = Vec::new();
                Frame::encode(frame.stream, &frame.payload, &mut again);
                assert_eq!(again, rest[..taken]);
                rest = &rest[taken..];
                assert_eq!(rest, stream);
            }
            (Ok(None), Ok(None)) => return assert!(rest.is_empty()),
            (Ok(None), Err(WireError::Ended { .. })) => return,
            (Err(one), Err(other)) => return assert_eq!(one.to_string(), other.to_string()),
            (whole, streamed) => panic!("{whole:?} and {streamed:?}"),
        }
        if let Some(header) = rest.first_chunk::<HEADER_BYTES>()
            && let Ok(header) = FrameHeader::decode(*header)
        {
            assert_eq!(header.encode(), rest[..HEADER_BYTES]);
        }
    }
}

/// The first line of a connection.
pub fn preamble(data: &[u8]) {
    let mut source = data;
    let read = now(Preamble::read(&mut source));
    let end = data.iter().take(MAX_PREAMBLE_BYTES).position(|byte| *byte == b'\n');
    match read {
        Ok(preamble) => {
            let end = end.expect("a line has an end");
            assert_eq!(preamble.to_string().as_bytes(), &data[..=end]);
            assert_eq!(
                source,
                &data[end + 1..],
                "what follows belongs to whoever takes the connection"
            );
        }
        Err(_) => {
            if let Some(end) = end {
                assert!(Preamble::parse(&data[..end]).is_err());
            }
        }
    }
}

/// A control connection, line by line.
pub fn control(data: &[u8]) {
    let mut reader = ControlReader::new(data);
    for line in data.split_inclusive(|byte| *byte == b'\n') {
        let whole = line.strip_suffix(b"\n");
        match now(reader.read_line()) {
            Ok(Some(read)) => {
                assert_eq!(Some(read), whole);
                orders(read);
            }
            Ok(None) => panic!("a line was lost"),
            Err(WireError::LineTooLong) => assert!(line.len() > MAX_LINE_BYTES),
            Err(WireError::Ended { .. }) => return assert!(whole.is_none()),
            Err(other) => panic!("{other}"),
        }
    }
    assert!(matches!(now(reader.read_line()), Ok(None)));
}

/// What was understood is written as what is understood to be the same.
fn orders(line: &[u8]) {
    match Order::parse(line) {
        Ok(order) => {
            let text = serde_json::to_vec(&order).expect("an order can be written");
            assert_eq!(Order::parse(&text).expect("an order can be read"), order);
        }
        Err(error) => assert!(error.to_string().len() < 4_000),
    }
    if let Ok(report) = Report::parse(line) {
        let text = serde_json::to_vec(&report).expect("a report can be written");
        assert_eq!(Report::parse(&text).expect("a report can be read"), report);
    }
}
