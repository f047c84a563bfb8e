//! Just enough HTTP/1.1 to post a message and read the answer: one connection a request, no TLS, no redirects, bounded.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

/// A publish behind a tool may take its time; an agent must not wait for ever all the same.
const TIMEOUT: Duration = Duration::from_secs(120);
const BODY_LIMIT: u64 = 4 * 1024 * 1024;
const LINE_LIMIT: u64 = 16 * 1024;
const HEADER_LIMIT: usize = 100;

/// Where to post to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    authority: String,
    path: String,
}

impl Address {
    /// From an `http://` URL.
    pub(super) fn parse(url: &str) -> anyhow::Result<Self> {
        let Some(rest) = url.strip_prefix("http://") else {
            bail!("only http:// is spoken here: {url}")
        };
        let (authority, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
        ensure!(
            !authority.is_empty() && !authority.contains('@'),
            "no plain host in {url}"
        );
        let authority = if authority.contains(':') {
            authority.to_owned()
        } else {
            format!("{authority}:80")
        };
        Ok(Self {
            authority,
            path: path.to_owned(),
        })
    }
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    /// The status code.
    pub(super) status: u16,
    headers: Vec<(String, String)>,
    /// The whole body.
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// A header, by its name in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

/// Posts `body`.
pub(super) fn post(address: &Address, headers: &[(&str, &str)], body: &[u8]) -> anyhow::Result<Answer> {
    let stream =
        TcpStream::connect(&address.authority).with_context(|| format!("connecting to {}", address.authority))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut head = format!(
        "POST {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n",
        address.path,
        address.authority,
        body.len()
    );
    for (name, value) in headers {
        ensure!(
            !name.contains(['\r', '\n', ':']) && !value.contains(['\r', '\n']),
            "a header that would be two"
        );
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let mut output = &stream;
    output.write_all(head.as_bytes())?;
    output.write_all(body)?;
    read(BufReader::new(&stream))
}

fn read(mut input: impl BufRead) -> anyhow::Result<Answer> {
    let first = line(&mut input)?;
    let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.with_context(|| format!("not an HTTP answer: {first}"))?;
    let mut headers = Vec::new();
    loop {
        let line = line(&mut input)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').with_context(|| format!("not a header: {line}"))?;
        ensure!(headers.len() < HEADER_LIMIT, "too many headers");
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut answer = Answer {
        status,
        headers,
        body: Vec::new(),
    };
    if answer
        .header("transfer-encoding")
        .is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"))
    {
        answer.body = chunks(&mut input)?;
    } else if let Some(length) = answer.header("content-length") {
        let length: u64 = length.parse().context("a content length that is no number")?;
        answer.body = exactly(&mut input, length)?;
    } else {
        input.take(BODY_LIMIT).read_to_end(&mut answer.body)?;
    }
    Ok(answer)
}

fn chunks(input: &mut impl BufRead) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let size = line(input)?;
        let size = u64::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16)
            .context("a chunk without a size")?;
        if size == 0 {
            return Ok(body);
        }
        ensure!(
            (body.len() as u64).saturating_add(size) <= BODY_LIMIT,
            "a body that is too large"
        );
        body.extend(exactly(input, size)?);
        ensure!(line(input)?.is_empty(), "a chunk that is longer than it says");
    }
}

fn exactly(input: &mut impl BufRead, length: u64) -> anyhow::Result<Vec<u8>> {
    ensure!(length <= BODY_LIMIT, "a body that is too large");
    let mut body = Vec::new();
    input.take(length).read_to_end(&mut body)?;
    ensure!(body.len() as u64 == length, "the connection ended inside the body");
    Ok(body)
}

fn line(input: &mut impl BufRead) -> anyhow::Result<String> {
    let mut line = Vec::new();
    input.take(LINE_LIMIT).read_until(b'\n', &mut line)?;
    ensure!(
        line.ends_with(b"\n"),
        "the connection ended inside a line, or the line is too long"
    );
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_in_chunks_is_one_body() {
        let wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n";
        let answer = read(&wire[..]).unwrap();
        assert_eq!(
            (answer.status, answer.header("x-a"), answer.body.as_slice()),
            (200, Some("b"), &b"hello world"[..])
        );
    }

    #[test]
    fn a_torn_or_absurd_answer_is_an_error() {
        for wire in [
            "",
            "HTTP/1.1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab",
        ] {
            assert!(read(wire.as_bytes()).is_err(), "{wire:?}");
        }
    }

    #[test]
    fn an_address_has_a_host_a_port_and_a_path() {
        let address = |authority: &str, path: &str| Address {
            authority: authority.into(),
            path: path.into(),
        };
        assert_eq!(
            Address::parse("http://127.0.0.1:8470/mcp").unwrap(),
            address("127.0.0.1:8470", "/mcp")
        );
        assert_eq!(
            Address::parse("http://localhost").unwrap(),
            address("localhost:80", "/")
        );
        assert!(Address::parse("http://user@localhost/").is_err());
    }
}
