//! `[listen]`: the API for remote control planes, as used.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Serialize;

use super::settings::{absolute, number};
use super::{ConfigError, bad, file};

/// The longest name of a client, in bytes: a DNS name has no more (RFC 1035 §2.3.4).
const MAX_NAME: usize = 255;

/// `[listen]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ListenSettings {
    /// Where clients with certificates are served over TLS; none: only the sockets are served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<SocketAddr>,
    /// The file with the server's certificate, and those between it and its authority's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// The file with its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// The file with the certificates that clients' are verified against.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
    /// The names of the clients that are allowed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// How many connections there may be.
    pub max_connections: usize,
}

/// `[listen]` with `tls`: complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// As in [`ListenSettings`], like all of these.
    pub address: SocketAddr,
    /// The server's certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// What clients' certificates are verified against.
    pub client_ca: PathBuf,
    /// Which clients are allowed.
    pub allow: Vec<String>,
}

impl ListenSettings {
    /// What is served over TLS, if anything is.
    pub fn served(&self) -> Option<TlsSettings> {
        let Self { tls, cert, key, client_ca, allow, .. } = self.clone();
        Some(TlsSettings { address: tls?, cert: cert?, key: key?, client_ca: client_ca?, allow })
    }
}

pub(super) fn listen_as_used(written: file::Listen) -> Result<ListenSettings, ConfigError> {
    let path = |key, path: Option<PathBuf>| path.map(|path| absolute(key, Some(path), "/etc/nicd/tls/file.pem")).transpose();
    let settings = ListenSettings {
        tls: written.tls.map(address).transpose()?,
        cert: path("listen.cert", written.cert)?,
        key: path("listen.key", written.key)?,
        client_ca: path("listen.client_ca", written.client_ca)?,
        allow: written.allow.unwrap_or_default().into_iter().map(name).collect::<Result<_, _>>()?,
        max_connections: number("listen.max_connections", written.max_connections, 256, 2, 65_536)?,
    };
    let Some(address) = settings.tls else { return Ok(settings) };
    let missing = |what: &str| Err(bad("listen.tls", address, format!("with it listen.{what} is expected")));
    match &settings {
        ListenSettings { cert: None, .. } => missing("cert"),
        ListenSettings { key: None, .. } => missing("key"),
        ListenSettings { client_ca: None, .. } => missing("client_ca"),
        ListenSettings { allow, .. } if allow.is_empty() => Err(bad(
            "listen.allow",
            "[]",
            "with listen.tls the names of clients are expected: without any, none could do anything",
        )),
        _ => Ok(settings),
    }
}

fn address(text: String) -> Result<SocketAddr, ConfigError> {
    let address: Option<SocketAddr> = text.parse().ok();
    let right = address.filter(|address| address.port() != 0 && !address.ip().is_multicast());
    right.ok_or_else(|| bad("listen.tls", &text, "an address with a port such as 192.0.2.10:8443 or [::]:8443 is expected"))
}

fn name(text: String) -> Result<String, ConfigError> {
    if text.contains('*') {
        return Err(bad("listen.allow", text, "whole names are expected: * does not stand for others"));
    }
    let right = (1..=MAX_NAME).contains(&text.len()) && text.trim() == text && !text.contains(char::is_control);
    let expected = "the common name or an alternative name of a client's certificate is expected, such as cloud-1.example";
    if right { Ok(text) } else { Err(bad("listen.allow", format!("\"{text}\""), expected)) }
}
