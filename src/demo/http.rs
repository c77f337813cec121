//! As much HTTP/1.1 as a client of nicd's socket needs (RFC 9112), read from a blocking stream.

use std::io::{self, BufRead, Read};

use serde_json::Value;

/// The longest line read, in bytes; nicd's are far shorter.
const LINE: u64 = 16 * 1024;

/// The longest body or chunk read, in bytes.
const BODY: usize = 4 * 1024 * 1024;

/// What comes before a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// The status code.
    pub(super) status: u16,
    /// How the body's end is found.
    pub(super) length: Length,
}

/// How the end of a body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// It is so long.
    Known(usize),
    /// It comes in chunks.
    Chunked,
}

/// A request as it goes over the wire.
pub(super) fn request(method: &str, target: &str, headers: &str, body: Option<&Value>) -> String {
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: nicd\r\n{headers}");
    let body = body.map(Value::to_string);
    if let Some(body) = &body {
        text.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    text.push_str(body.as_deref().unwrap_or_default());
    text
}

/// Reads an answer up to its body.
pub(super) fn head(from: &mut impl BufRead) -> io::Result<Head> {
    let first = line(from)?;
    let status = first.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let mut head = Head { status: status.ok_or_else(|| wrong(&first))?, length: Length::Known(0) };
    loop {
        let header = line(from)?.to_ascii_lowercase();
        match header.split_once(':').map(|(name, value)| (name, value.trim())) {
            None if header.is_empty() => return Ok(head),
            Some(("content-length", value)) => {
                head.length = Length::Known(value.parse().ok().filter(|length| *length <= BODY).ok_or_else(|| wrong(value))?);
            }
            Some(("transfer-encoding", "chunked")) => head.length = Length::Chunked,
            _ => {}
        }
    }
}

/// Reads a whole body.
pub(super) fn body(from: &mut impl BufRead, head: Head) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    match head.length {
        Length::Known(length) => {
            body.resize(length, 0);
            from.read_exact(&mut body)?;
        }
        Length::Chunked => {
            while let Some(chunk) = chunk(from)? {
                body.extend(chunk);
            }
        }
    }
    Ok(body)
}

/// Reads one chunk; none at the end of the body.
pub(super) fn chunk(from: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let size = line(from)?;
    let length = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16).map_err(|_| wrong(&size))?;
    if length > BODY {
        return Err(wrong(&size));
    }
    let mut chunk = vec![0; length];
    from.read_exact(&mut chunk)?;
    let end = line(from)?;
    match (end.is_empty(), length) {
        (false, _) => Err(wrong(&end)),
        (true, 0) => Ok(None),
        (true, _) => Ok(Some(chunk)),
    }
}

fn line(from: &mut impl BufRead) -> io::Result<String> {
    let mut bytes = Vec::new();
    from.by_ref().take(LINE).read_until(b'\n', &mut bytes)?;
    let Some(line) = bytes.strip_suffix(b"\n") else { return Err(io::ErrorKind::UnexpectedEof.into()) };
    Ok(String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)).into_owned())
}

fn wrong(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("'{text}' is not HTTP"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_to_their_end() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 202 Accepted\r\ntransfer-encoding: chunked\r\n\r\n\
                    2\r\nde\r\n0\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n";
        let mut from = text.as_bytes();
        for (status, expected) in [(200, "abc"), (202, "de"), (204, "")] {
            let head = head(&mut from).unwrap();
            assert_eq!(head.status, status);
            assert_eq!(body(&mut from, head).unwrap(), expected.as_bytes());
        }
        assert!(head(&mut from).is_err());
    }

    #[test]
    fn what_is_no_http_is_an_error() {
        for text in ["", "SSH-2.0\r\n\r\n", "HTTP/1.1 2\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"] {
            assert!(head(&mut text.as_bytes()).is_err(), "{text}");
        }
        assert!(chunk(&mut "zz\r\n".as_bytes()).is_err());
        assert!(chunk(&mut "1\r\nabc".as_bytes()).is_err());
    }

    #[test]
    fn requests_say_how_long_they_are() {
        let text = request("PUT", "/x", "", Some(&serde_json::json!({"a": 1})));
        assert!(text.ends_with("Content-Length: 7\r\n\r\n{\"a\":1}"), "{text}");
    }
}
