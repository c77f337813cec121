//! What clients of HTTP servers share: a connection over TCP, with TLS where it is wanted, an answer of bounded length, and secrets in files.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::{Bytes, Incoming};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::exit::chain;
use crate::tls::pem::FileError;

/// How much of an answer is repeated in a sentence, in characters.
const SHOWN: usize = 200;

/// Connects to a server within a limit.
///
/// # Errors
/// There is no connection.
pub async fn connect(host: &str, port: u16, limit: Duration) -> Result<TcpStream, String> {
    match timeout(limit, TcpStream::connect((host, port))).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(format!("no connection: {error}")),
        Err(_) => Err(format!("no connection in {} s", limit.as_secs())),
    }
}

/// Speaks TLS on a connection to `host`, whose certificate is checked.
///
/// # Errors
/// The server does not, or is another one.
pub async fn secure(host: &str, config: ClientConfig, stream: TcpStream) -> Result<TlsStream<TcpStream>, String> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| "its name cannot be in a certificate".to_owned())?;
    let secured = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    secured.map_err(|error| format!("no TLS: {error}"))
}

/// Why an answer has no body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoBody {
    /// It is longer than it may be.
    #[error("its answer is longer than {0} bytes")]
    TooLong(usize),
    /// It does not come whole.
    #[error("{0}")]
    Broken(String),
}

/// Reads the body of an answer, of at most `max` bytes.
///
/// # Errors
/// It is longer, or does not come whole.
pub async fn read_body(body: Incoming, max: usize) -> Result<Bytes, NoBody> {
    let body = Limited::new(body, max).collect().await.map_err(|error| match error.downcast::<hyper::Error>() {
        Ok(error) => NoBody::Broken(chain(&*error)),
        Err(_) => NoBody::TooLong(max),
    })?;
    Ok(body.to_bytes())
}

/// The beginning of an answer, for a sentence.
pub fn begins(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(4 * SHOWN)]);
    text.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The content of a file with a secret, without the end of its line. It blocks.
///
/// # Errors
/// It cannot be read, is empty, or is no text.
pub fn secret(path: &Path) -> Result<String, FileError> {
    let text = fs::read_to_string(path).map_err(|error| FileError::new(path, error))?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() { Err(FileError::new(path, "it is empty")) } else { Ok(secret.to_owned()) }
}
