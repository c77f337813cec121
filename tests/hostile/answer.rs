//! Answers as bytes on a connection: read strictly, and judged.

use std::io::{self, BufRead, Read};

use serde_json::Value;

use crate::attack::Want;

/// One answer.
#[derive(Debug)]
pub struct Heard {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Whether it has no end, as a stream of events.
    pub endless: bool,
}

impl Heard {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// Reads the next answer that is not a mere 100; none when the connection ended before it.
///
/// # Errors
/// What came is no HTTP, or broke off, or nothing came in time.
pub fn hear(stream: &mut impl BufRead, is_head: bool) -> io::Result<Option<Heard>> {
    loop {
        let Some(mut heard) = head(stream)? else { return Ok(None) };
        if heard.status == 100 {
            continue;
        }
        if heard.endless || is_head || heard.status == 204 {
            return Ok(Some(heard));
        }
        let length = heard.header("content-length").and_then(|length| length.parse().ok());
        heard.body = vec![0; length.ok_or_else(|| bad("an answer without a length"))?];
        stream.read_exact(&mut heard.body)?;
        return Ok(Some(heard));
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn head(stream: &mut impl BufRead) -> io::Result<Option<Heard>> {
    let Some(line) = line(stream)? else { return Ok(None) };
    let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).and_then(|digits| digits.parse().ok());
    let status = status.ok_or_else(|| bad(&format!("no status line: {line:?}")))?;
    let mut headers = Vec::new();
    loop {
        let line = line_or_end(stream)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| bad(&format!("no header field: {line:?}")))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let endless = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
    Ok(Some(Heard { status, headers, body: Vec::new(), endless }))
}

/// A line without its CRLF; none at the end.
fn line(stream: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    if stream.take(64 << 10).read_until(b'\n', &mut bytes)? == 0 {
        return Ok(None);
    }
    let text = String::from_utf8(bytes).map_err(|_| bad("a head that is no UTF-8"))?;
    text.strip_suffix("\r\n").map(|line| Some(line.to_owned())).ok_or_else(|| bad(&format!("a line broke off: {text:?}")))
}

fn line_or_end(stream: &mut impl BufRead) -> io::Result<String> {
    line(stream)?.ok_or_else(|| bad("a head broke off"))
}

/// Whether an answer is one that may be given: else what is wrong with it.
pub fn judge(heard: &Heard, want: Want, is_head: bool) -> Result<(), String> {
    let id = heard.header("x-compute-request-id").unwrap_or_default();
    if id.strip_prefix("req-").is_none_or(|id| uuid::Uuid::parse_str(id).is_err()) {
        return Err(format!("X-Compute-Request-Id is '{id}'"));
    }
    if ["x-openstack-request-id", "x-request-id"].iter().any(|name| heard.header(name) != Some(id)) {
        return Err("the request ids differ".to_owned());
    }
    if heard.header("x-injected").is_some() {
        return Err("a header was injected".to_owned());
    }
    match (heard.status, want) {
        (200..=299, Want::Refused) => Err("accepted".to_owned()),
        (200..=299, _) => Ok(()),
        (400..=499 | 501 | 503, Want::Fine) if heard.status != 503 => Err("refused what is valid".to_owned()),
        (400..=499 | 501 | 503, _) => envelope(heard, is_head),
        _ => Err("a status that may not be".to_owned()),
    }
}

/// A refusal's body: one key, and inside a message and a stable word.
fn envelope(heard: &Heard, is_head: bool) -> Result<(), String> {
    if heard.status == 503 && heard.header("retry-after").is_none() {
        return Err("503 without Retry-After".to_owned());
    }
    if is_head {
        return Ok(());
    }
    if heard.header("content-type") != Some("application/json") {
        return Err(format!("a refusal of type {:?}", heard.header("content-type")));
    }
    let json = heard.json();
    let inner = json.as_object().filter(|envelope| envelope.len() == 1).and_then(|envelope| envelope.values().next());
    let said = |key: &str| inner.and_then(|inner| inner[key].as_str()).is_some_and(|text| !text.is_empty());
    if said("message") && said("reason") { Ok(()) } else { Err("a refusal without envelope".to_owned()) }
}
