//! Where a daemon is: at a socket of this host, or at an address of another one, reached by TLS with a certificate.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::Uri;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::{Error as PemError, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{AlertDescription, ClientConfig, Error as TlsError, RootCertStore, crypto};

/// The port of an address that names none.
const PORT: u16 = 443;

/// Where a daemon is.
#[derive(Debug, Clone)]
pub(crate) enum Daemon {
    /// At a socket.
    Socket(PathBuf),
    /// On another host.
    Remote(Remote),
}

impl fmt::Display for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "{}", path.display()),
            Self::Remote(remote) => f.write_str(&remote.url),
        }
    }
}

/// The files in PEM by which two hosts know each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The client's certificate.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The certificates that the daemon's is verified against.
    pub cacert: PathBuf,
}

/// A daemon on another host, as `[listen] tls` of its configuration has it served.
#[derive(Clone)]
pub struct Remote {
    url: String,
    host: String,
    port: u16,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
}

/// Why a daemon on another host cannot be called at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoteError {
    /// The address is none.
    #[error("{given} is no address of a nicd: one such as https://host-1.example:8443 is expected")]
    Url {
        /// As given.
        given: String,
    },
    /// A file cannot be used.
    #[error("{} cannot be used: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

impl Remote {
    /// The daemon at `url` (`https://HOST:PORT`). The files are read here, once.
    ///
    /// # Errors
    /// The address is none, or a file cannot be used.
    pub fn new(url: &str, credentials: &Credentials) -> Result<Self, RemoteError> {
        let bad = || RemoteError::Url { given: url.to_owned() };
        let uri: Uri = url.parse().map_err(|_| bad())?;
        let is_bare = uri.path_and_query().is_none_or(|path| path.as_str() == "/");
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(bad)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if uri.scheme_str() != Some("https") || !is_bare || host.is_empty() {
            return Err(bad());
        }
        let name = ServerName::try_from(host.clone()).map_err(|_| bad())?;
        let config = Arc::new(config(credentials)?);
        Ok(Self { url: url.trim_end_matches('/').to_owned(), port: authority.port_u16().unwrap_or(PORT), host, name, config })
    }

    /// Connects, up to the end of the handshake.
    pub(crate) async fn connect(&self) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        TlsConnector::from(Arc::clone(&self.config)).connect(self.name.clone(), stream).await
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("url", &self.url).finish_non_exhaustive()
    }
}

fn config(credentials: &Credentials) -> Result<ClientConfig, RemoteError> {
    let Credentials { cert, key, cacert } = credentials;
    let mut roots = RootCertStore::empty();
    for certificate in certificates(cacert)? {
        roots.add(certificate).map_err(|error| unusable(cacert, error))?;
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| match error {
        PemError::NoItemsFound => unusable(key, "it has no private key in PEM; one that is encrypted cannot be used"),
        error => unread(key, error),
    })?;
    ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(cert, error))?
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates(cert)?, private)
        .map_err(|error| match error {
            TlsError::InconsistentKeys(_) => unusable(key, format!("it is not the key of {}", cert.display())),
            error => unusable(cert, error),
        })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, RemoteError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(|error| unread(path, error))?.collect();
    let found = found.map_err(|error| unread(path, error))?;
    if found.is_empty() { Err(unusable(path, "it has no certificate in PEM")) } else { Ok(found) }
}

fn unusable(path: &Path, why: impl ToString) -> RemoteError {
    RemoteError::File { path: path.to_owned(), why: why.to_string() }
}

fn unread(path: &Path, error: PemError) -> RemoteError {
    match error {
        PemError::Io(error) => unusable(path, error),
        error => unusable(path, format!("it is no PEM: {error}")),
    }
}

/// The daemon's alert, if it refused the handshake. In TLS 1.3 a client reads it only when it waits for its first answer; no request was
/// read then.
pub(crate) fn refused_handshake(error: &hyper::Error) -> Option<io::Error> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let tls =
            error.downcast_ref::<io::Error>().and_then(io::Error::get_ref).and_then(|inner| inner.downcast_ref::<TlsError>());
        if let Some(TlsError::AlertReceived(
            AlertDescription::AccessDenied
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRequired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::HandshakeFailure
            | AlertDescription::UnknownCA
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::DecryptError,
        )) = tls
        {
            return tls.map(|tls| io::Error::new(io::ErrorKind::InvalidData, tls.clone()));
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_address_or_no_file_is_told_with_the_value() {
        let none = || PathBuf::from("/no-such-file.pem");
        let credentials = Credentials { cert: none(), key: none(), cacert: none() };
        let said = |url: &str| Remote::new(url, &credentials).unwrap_err().to_string();
        for url in ["", "host-1", "http://host-1:8443", "https://", "https://host-1/v2.0", "https://u:p@host-1", "https://a b"] {
            assert!(said(url).contains("https://host-1.example:8443 is expected"), "{url}: {}", said(url));
        }
        for url in ["https://host-1.example:8443", "https://192.0.2.10:8443/", "https://[2001:db8::10]:8443", "https://host-1"] {
            assert!(said(url).starts_with("/no-such-file.pem cannot be used: No such file"), "{url}: {}", said(url));
        }
    }
}
