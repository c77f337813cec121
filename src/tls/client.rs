//! The client's side: whose certificates it accepts, and which one it shows.

use std::path::Path;

use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::pem::{self, FileError};
use super::provider;

/// How a client speaks TLS: servers' certificates are checked against those in `ca`, or against the host's; `identity` is the client's own
/// certificate and key. The files are read now, which blocks.
///
/// # Errors
/// A file cannot be used.
pub fn client_config(ca: Option<&Path>, identity: Option<(&Path, &Path)>) -> Result<ClientConfig, FileError> {
    let roots = match ca {
        Some(path) => pem::roots(path)?,
        None => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            roots
        }
    };
    let builder = ClientConfig::builder_with_provider(provider());
    let named = ca.or(identity.map(|(cert, _)| cert)).unwrap_or(Path::new("TLS"));
    let versions = builder.with_safe_default_protocol_versions().map_err(|error| FileError::new(named, error))?;
    let checked = versions.with_root_certificates(roots);
    let mut config = match identity {
        Some((cert, key)) => {
            pem::is_private(key)?;
            let own = checked.with_client_auth_cert(pem::certificates(cert)?, pem::key(key)?);
            own.map_err(|error| FileError::new(cert, format!("with {}: {error}", key.display())))?
        }
        None => checked.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
