//! Files in PEM: certificates and private keys.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::pem::{Error, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Why a file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path} cannot be used: {why}")]
pub struct FileError {
    /// The file.
    pub path: String,
    /// Why.
    pub why: String,
}

impl FileError {
    pub(crate) fn new(path: &Path, why: impl ToString) -> Self {
        Self { path: path.display().to_string(), why: why.to_string() }
    }

    /// An error of the reader, where `nothing` is said of a file without what is looked for.
    fn read(path: &Path, error: Error, nothing: &str) -> Self {
        match error {
            Error::NoItemsFound => Self::new(path, nothing),
            Error::Io(error) => Self::new(path, error),
            error => Self::new(path, format!("it is no PEM: {error}")),
        }
    }
}

/// Checks that a file with a secret is not open to every user.
///
/// # Errors
/// It is, or there is none.
pub fn is_private(path: &Path) -> Result<(), FileError> {
    let file = fs::metadata(path).map_err(|error| FileError::new(path, error))?;
    if file.permissions().mode() & 0o007 != 0 {
        return Err(FileError::new(path, "every user of this host can read or change it: chmod o= and chgrp nicd are expected"));
    }
    Ok(())
}

/// All certificates of a file, of which there is at least one.
///
/// # Errors
/// There is none, or the file cannot be read.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    const NOTHING: &str = "it has no certificate in PEM";
    let failed = |error| FileError::read(path, error, NOTHING);
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(failed)?.collect();
    let found = found.map_err(failed)?;
    if found.is_empty() { Err(FileError::new(path, NOTHING)) } else { Ok(found) }
}

/// The private key of a file.
///
/// # Errors
/// There is none, or the file cannot be read.
pub fn key(path: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    const NOTHING: &str = "it has no private key in PEM; one that is encrypted cannot be used";
    PrivateKeyDer::from_pem_file(path).map_err(|error| FileError::read(path, error, NOTHING))
}

/// The certificates of a file, for others to be checked against.
///
/// # Errors
/// One of them cannot be used, or there is none.
pub fn roots(path: &Path) -> Result<RootCertStore, FileError> {
    roots_of(path, certificates(path)?)
}

/// The same of certificates that were read.
///
/// # Errors
/// One of them cannot be used.
pub fn roots_of(path: &Path, certificates: Vec<CertificateDer<'static>>) -> Result<RootCertStore, FileError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(|error| FileError::new(path, error))?;
    }
    Ok(roots)
}
