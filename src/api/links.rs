//! Links in answers, as URLs that the client can follow.
//!
//! A link starts with the host in the client's request, so that it works through the same proxy or socket. Clients of a Unix socket
//! may send an invalid host, such as the socket's path; then the link starts with `localhost`. Other headers, also those that a
//! proxy adds, are ignored.

use std::convert::Infallible;
use std::net::{Ipv4Addr, Ipv6Addr};

use axum::extract::{FromRequestParts, OriginalUri};
use axum::http::header::HOST;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Uri};

/// The host of a link for a client that has named none.
const LOCALHOST: &str = "localhost";

/// The longest name of a host, in characters (RFC 1035 §2.3.4).
const LONGEST_NAME: usize = 253;

/// The longest part of such a name between two dots.
const LONGEST_LABEL: usize = 63;

/// Where a client has found us, and the path it has asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Site {
    base: String,
    path: String,
}

impl<S: Sync> FromRequestParts<S> for Site {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        // Under a prefix the request itself has only the rest of its path.
        let original = parts.extensions.get::<OriginalUri>().map(|original| &original.0);
        Ok(Self::of(original.unwrap_or(&parts.uri), &parts.headers))
    }
}

impl Site {
    fn of(uri: &Uri, headers: &HeaderMap) -> Self {
        let host = named(uri, headers).and_then(authority);
        Self { base: format!("http://{}", host.as_deref().unwrap_or(LOCALHOST)), path: escaped(uri.path()) }
    }

    /// The address of the root, without a slash at its end.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The address that was asked for.
    pub fn here(&self) -> String {
        self.to(&self.path)
    }

    /// The address one level above the one that was asked for.
    pub fn above(&self) -> String {
        self.to(self.path.rsplit_once('/').map_or("", |(above, _)| above))
    }

    /// The address of a path of ours.
    pub fn to(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }
}

/// The host that a request names: that of its target where it has one, or else the one in its only `Host` field
/// (RFC 9112 §3.2.2).
fn named<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    if let Some(authority) = uri.authority() {
        return Some(authority.as_str());
    }
    let mut fields = headers.get_all(HOST).iter();
    let first = fields.next().filter(|_| fields.next().is_none())?;
    first.to_str().ok()
}

/// A host, and possibly a port, as it stands in a link; none when a client could not follow it.
fn authority(text: &str) -> Option<String> {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => (format!("[{}]", address.parse::<Ipv6Addr>().ok()?), port),
        None => {
            let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            (is_name(host).then(|| host.to_owned())?, port)
        }
    };
    match port.strip_prefix(':') {
        None if port.is_empty() => Some(host),
        // An empty port is the usual one (RFC 3986 §3.2.3).
        Some("") => Some(host),
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse::<u16>().ok().filter(|port| *port > 0).map(|port| format!("{host}:{port}"))
        }
        _ => None,
    }
}

/// Whether a text is a host's name or an IPv4 address: letters, digits, hyphens, and the underscores that some names have.
fn is_name(text: &str) -> bool {
    let labels = text.strip_suffix('.').unwrap_or(text);
    let last = labels.rsplit('.').next().unwrap_or_default();
    // What ends in a number is read as an IPv4 address.
    let number = last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x") || last.starts_with("0X");
    text.len() <= LONGEST_NAME && labels.split('.').all(is_label) && (!number || text.parse::<Ipv4Addr>().is_ok())
}

fn is_label(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=LONGEST_LABEL).contains(&text.len()) && text.bytes().all(known) && !text.starts_with('-') && !text.ends_with('-')
}

/// A path or a query as it stands in a link: what no URI may contain is escaped (RFC 3986 §3.3, §3.4), and what is escaped
/// already stays.
pub(super) fn escaped(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut safe = String::with_capacity(text.len());
    for (n, byte) in bytes.iter().copied().enumerate() {
        let escape = || bytes.get(n + 1..n + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
        if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?".contains(&byte) || byte == b'%' && escape() {
            safe.push(char::from(byte));
        } else {
            safe.push_str(&format!("%{byte:02X}"));
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn base(target: &str, hosts: &[&[u8]]) -> String {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_bytes(host).unwrap());
        }
        Site::of(&target.parse().unwrap(), &headers).base
    }

    #[test]
    fn a_host_that_can_be_followed_is_given_back() {
        for (host, link) in [
            ("localhost", "localhost"),
            ("localhost:8774", "localhost:8774"),
            ("localhost:", "localhost"),
            ("node-1.example.org:09696", "node-1.example.org:9696"),
            ("node_1.example.org.", "node_1.example.org."),
            ("192.0.2.1:80", "192.0.2.1:80"),
            ("[2001:db8::1]", "[2001:db8::1]"),
            ("[2001:DB8:0::1]:8774", "[2001:db8::1]:8774"),
            ("nicd.sock", "nicd.sock"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ] {
            assert_eq!(base("/v2.0", &[host.as_bytes()]), format!("http://{link}"), "{host}");
        }
    }

    #[test]
    fn what_is_no_host_is_not() {
        let long = "x".repeat(LONGEST_LABEL + 1);
        let longer = "x.".repeat(LONGEST_NAME / 2 + 1);
        for host in [
            "",
            " ",
            ".",
            ":80",
            "/run/nicd/nicd.sock",
            "%2Frun%2Fnicd%2Fnicd.sock",
            "unix:/run/nicd/nicd.sock",
            "http://localhost",
            "localhost/",
            "localhost/v2.1",
            "localhost?x",
            "localhost#x",
            "root@localhost",
            "root:secret@localhost:80",
            "local host",
            "local\thost",
            "localhost:http",
            "localhost:0",
            "localhost:65536",
            "localhost:-1",
            "localhost:+80",
            "localhost:80:80",
            "localhost,other",
            "localhost\\x",
            "\"localhost\"",
            "<localhost>",
            "{localhost}",
            "a..b",
            ".a",
            "-a",
            "a-",
            "::1",
            "2001:db8::1",
            "[::1",
            "[::1]x",
            "[fe80::1%25eth0]",
            "[localhost]",
            "[]",
            "]",
            "256.0.0.1",
            "192.0.2",
            "0x7f.1",
            "*",
            &long,
            &longer,
        ] {
            assert_eq!(base("/v2.0", &[host.as_bytes()]), "http://localhost", "{host}");
        }
        assert_eq!(base("/v2.0", &["b\u{fc}cher.example".as_bytes()]), "http://localhost");
        assert_eq!(base("/v2.0", &[b"\xff"]), "http://localhost");
    }

    #[test]
    fn a_target_with_a_host_wins_and_several_hosts_are_none() {
        assert_eq!(base("http://proxy.example:8774/v2.0", &[b"localhost:80"]), "http://proxy.example:8774");
        assert_eq!(base("http://root@proxy.example/v2.0", &[b"other"]), "http://localhost");
        assert_eq!(base("/v2.0", &[b"a", b"b"]), "http://localhost");
        assert_eq!(base("/v2.0", &[]), "http://localhost");
    }

    #[test]
    fn what_no_uri_may_contain_is_escaped() {
        assert_eq!(escaped("/v2.1/a%20b/servers"), "/v2.1/a%20b/servers");
        assert_eq!(escaped("/v2.1/{a}\"\u{e9}|/servers"), "/v2.1/%7Ba%7D%22%C3%A9%7C/servers");
        assert_eq!(escaped("name=100%&x=%4"), "name=100%25&x=%254");
    }
}
