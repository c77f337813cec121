//! `[fleet]` and `[tunnel]`: the etcd that hosts share, and this host among them, as used.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use serde::Serialize;

use super::settings::{absolute, is_domain};
use super::{ConfigError, Url, bad, file};

/// The TCP port of an endpoint that names none: etcd's own for clients.
const PORT: u16 = 2379;

/// How many endpoints there may be. A cluster of etcd has three to seven members.
const MAX_ENDPOINTS: usize = 16;

/// The longest name of a fleet, in characters.
const MAX_NAME: usize = 63;

const ENDPOINT: &str = "addresses of etcd's clients such as http://192.0.2.10:2379 or https://etcd-1.example:2379 are expected";

/// `[fleet]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FleetSettings {
    /// The members of etcd, in the order in which they are tried. There is at least one.
    pub endpoints: Vec<Url>,
    /// The name of the fleet, below which all its keys are.
    pub name: String,
    /// The name of this host in the fleet; none for the name that it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// How TLS is spoken; none for the host's authorities and no certificate.
    #[serde(skip_serializing_if = "FleetTls::is_default")]
    pub tls: FleetTls,
    /// The user that nicd is to etcd.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The file with the user's password. It is there if the user is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
}

/// `fleet.tls`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct FleetTls {
    /// The file with the certificates that etcd's are checked against; none for the host's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// The file with this host's certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// The file with its key. It is there if the certificate is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
}

impl FleetTls {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// `[tunnel]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct TunnelSettings {
    /// The address of this host that others send tunnelled frames to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
}

pub(super) fn fleet_as_used(written: file::Fleet) -> Result<Option<FleetSettings>, ConfigError> {
    let file::Fleet { endpoints, name, host, tls, user, password_file } = written;
    let Some(endpoints) = endpoints else {
        let others = [
            ("fleet.name", name),
            ("fleet.host", host),
            ("fleet.tls", tls.map(|_| "{…}".to_owned())),
            ("fleet.user", user),
            ("fleet.password_file", password_file.map(|path| path.display().to_string())),
        ];
        let alone = others.into_iter().find_map(|(key, value)| value.map(|value| (key, value)));
        return match alone {
            Some((key, value)) => Err(bad(key, value, "with it fleet.endpoints is expected")),
            None => Ok(None),
        };
    };
    let endpoints = endpoints_as_used(endpoints)?;
    let (user, password_file) = user_as_used(user, password_file)?;
    Ok(Some(FleetSettings {
        tls: tls_as_used(tls.unwrap_or_default(), &endpoints)?,
        endpoints,
        name: name_as_used(name)?,
        host: host.map(host_as_used).transpose()?,
        user,
        password_file,
    }))
}

fn endpoints_as_used(written: Vec<String>) -> Result<Vec<Url>, ConfigError> {
    if !(1..=MAX_ENDPOINTS).contains(&written.len()) {
        return Err(bad("fleet.endpoints", format!("{written:?}"), format!("1 to {MAX_ENDPOINTS} {ENDPOINT}")));
    }
    let endpoints: Vec<Url> = written.iter().map(|text| endpoint(text)).collect::<Result<_, _>>()?;
    let mut seen = BTreeSet::new();
    match endpoints.iter().find(|url| !seen.insert((url.host.clone(), url.port))) {
        Some(twice) => Err(bad("fleet.endpoints", twice, "each endpoint is expected once")),
        None => Ok(endpoints),
    }
}

fn endpoint(text: &str) -> Result<Url, ConfigError> {
    let shown = if text.contains('@') { "an address with a user" } else { text };
    let refused = || bad("fleet.endpoints", shown, ENDPOINT);
    let url = Url::read_with_port(text, Some(PORT)).map_err(|_| refused())?;
    if url.path == "/" && url.port != 0 { Ok(url) } else { Err(refused()) }
}

fn name_as_used(written: Option<String>) -> Result<String, ConfigError> {
    let name = written.unwrap_or_else(|| "default".to_owned());
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(plain) {
        return Ok(name);
    }
    Err(bad("fleet.name", format!("\"{name}\""), format!("1 to {MAX_NAME} of a-z, 0-9 and - are expected")))
}

fn host_as_used(host: String) -> Result<String, ConfigError> {
    if is_domain(&host) {
        return Ok(host);
    }
    Err(bad(
        "fleet.host",
        format!("\"{host}\""),
        "a host's name such as compute-1 or compute-1.example is expected (RFC 1123 §2.1)",
    ))
}

fn tls_as_used(written: file::FleetTls, endpoints: &[Url]) -> Result<FleetTls, ConfigError> {
    let path = |key, path: Option<PathBuf>| path.map(|path| absolute(key, Some(path), "/etc/nicd/etcd.pem")).transpose();
    let tls = FleetTls {
        ca: path("fleet.tls.ca", written.ca)?,
        cert: path("fleet.tls.cert", written.cert)?,
        key: path("fleet.tls.key", written.key)?,
    };
    match (&tls.cert, &tls.key) {
        (Some(cert), None) => return Err(bad("fleet.tls.cert", cert.display(), "with it fleet.tls.key is expected")),
        (None, Some(key)) => return Err(bad("fleet.tls.key", key.display(), "with it fleet.tls.cert is expected")),
        _ => {}
    }
    match endpoints.iter().find(|url| !url.tls) {
        Some(plain) if !tls.is_default() => {
            Err(bad("fleet.endpoints", plain, "with fleet.tls only addresses that begin with https:// are expected"))
        }
        _ => Ok(tls),
    }
}

fn user_as_used(user: Option<String>, file: Option<PathBuf>) -> Result<(Option<String>, Option<PathBuf>), ConfigError> {
    let file = file.map(|path| absolute("fleet.password_file", Some(path), "/etc/nicd/etcd.password")).transpose()?;
    match (&user, &file) {
        (Some(name), _) if name.is_empty() || name.contains(char::is_control) => {
            Err(bad("fleet.user", format!("\"{name}\""), "the name of a user of etcd is expected"))
        }
        (Some(name), None) => Err(bad("fleet.user", name, "with it fleet.password_file is expected")),
        (None, Some(path)) => Err(bad("fleet.password_file", path.display(), "with it fleet.user is expected")),
        _ => Ok((user, file)),
    }
}

pub(super) fn tunnel_as_used(written: file::Tunnel, fleet: Option<&FleetSettings>) -> Result<TunnelSettings, ConfigError> {
    let read = |text: String| {
        let address: Option<IpAddr> = text.parse().ok();
        let right = address.filter(|ip| {
            let of_one_host = !ip.is_loopback() && !ip.is_unspecified() && !ip.is_multicast();
            of_one_host && *ip != IpAddr::V4(Ipv4Addr::BROADCAST)
        });
        right.ok_or_else(|| {
            let expected = "an address of this host that other hosts reach, such as 192.0.2.10 or 2001:db8::10, is expected";
            bad("tunnel.address", &text, expected)
        })
    };
    let address = written.address.map(read).transpose()?;
    match (address, fleet) {
        (Some(alone), None) => Err(bad("tunnel.address", alone, "with it fleet.endpoints is expected")),
        _ => Ok(TunnelSettings { address }),
    }
}
