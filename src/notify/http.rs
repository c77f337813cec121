//! One HTTP request over TCP, with TLS where the address says so. Each request has a connection of its own, so that none meets a
//! connection that its server has just closed. All of a request has one time limit, and its answer one size limit.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use crate::config::Url;
use crate::exit::chain;
use crate::http;
use crate::tls::client_config;
use crate::tls::pem::FileError;

/// How long a connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// How long all of a request may take.
const LIMIT: Duration = Duration::from_secs(20);

/// The longest answer, in bytes. Keystone's catalog is the longest there is.
const MAX_BODY: usize = 1 << 20;

/// The longest wait that a server may ask for (`Retry-After`).
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// Why there is no answer. It names the server by host and port, and holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// A file of the configuration cannot be used.
    #[error("{path} cannot be used: {why}")]
    File {
        /// The file.
        path: String,
        /// Why.
        why: String,
    },
    /// The server cannot be reached, or does not speak HTTP or TLS as it should.
    #[error("{server}: {why}")]
    Server {
        /// Host and port.
        server: String,
        /// Why.
        why: String,
    },
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    /// How long the server asks to wait, as far as it says so in seconds.
    pub fn retry_after(&self) -> Option<Duration> {
        let seconds: u64 = self.headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
        Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
    }

    /// The beginning of its body, for the log.
    pub fn begins(&self) -> String {
        http::begins(&self.body)
    }
}

/// Makes requests, and checks servers' certificates.
#[derive(Debug, Clone)]
pub struct Http {
    ca_file: Option<PathBuf>,
}

impl Http {
    /// Checks certificates against those in `ca_file`, or against the host's. The file is read for each connection.
    pub fn new(ca_file: Option<PathBuf>) -> Self {
        Self { ca_file }
    }

    /// Sends JSON by POST and waits for the answer.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn post(&self, url: &Url, headers: &[(HeaderName, String)], body: String) -> Result<Answer, NoAnswer> {
        let failed = |why: String| NoAnswer::Server { server: format!("{}:{}", url.host, url.port), why };
        let answered = timeout(LIMIT, self.exchange(url, headers, body)).await;
        answered.unwrap_or_else(|_| Err(failed(format!("no answer in {} s", LIMIT.as_secs()))))
    }

    async fn exchange(&self, url: &Url, headers: &[(HeaderName, String)], body: String) -> Result<Answer, NoAnswer> {
        let failed = |why: String| NoAnswer::Server { server: format!("{}:{}", url.host, url.port), why };
        let stream = http::connect(&url.host, url.port, CONNECT_LIMIT).await.map_err(failed)?;
        let uri: Uri = url.path.parse().map_err(|error| failed(format!("{error}")))?;
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(uri)
            .header(HOST, &url.authority)
            .header(CONTENT_TYPE, "application/json")
            .header(CONNECTION, "close")
            .header(USER_AGENT, concat!("nicd/", env!("CARGO_PKG_VERSION")));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        // The error could repeat a header, and with it a secret.
        let request = request
            .body(Full::new(Bytes::from(body)))
            .map_err(|_| failed("the request has a header that HTTP forbids".into()))?;
        let answered = match url.tls {
            true => {
                let ca_file = self.ca_file.clone();
                let config = tokio::task::spawn_blocking(move || client_config(ca_file.as_deref(), None)).await;
                let config = config.map_err(|error| failed(error.to_string()))??;
                speak(http::secure(&url.host, config, stream).await.map_err(failed)?, request).await
            }
            false => speak(stream, request).await,
        };
        answered.map_err(failed)
    }
}

/// Sends a request on a connection and reads the answer.
async fn speak(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Answer, String> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| chain(&error))?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(|error| chain(&error))?;
        let (head, body) = answer.into_parts();
        let body = http::read_body(body, MAX_BODY).await.map_err(|error| error.to_string())?;
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
    };
    tokio::pin!(connection);
    tokio::pin!(exchange);
    tokio::select! {
        answered = &mut exchange => answered,
        ended = &mut connection => {
            // What was read before the end may be a whole answer.
            let answered = exchange.await;
            answered.map_err(|why| ended.err().map_or(why, |error| chain(&error)))
        }
    }
}

/// The content of a file with a secret, without the end of its line.
///
/// # Errors
/// It cannot be read, is empty, or is no text.
pub async fn secret(path: &Path) -> Result<String, NoAnswer> {
    let (shown, file) = (path.display().to_string(), path.to_owned());
    let read = tokio::task::spawn_blocking(move || http::secret(&file)).await;
    Ok(read.map_err(|error| NoAnswer::File { path: shown, why: error.to_string() })??)
}

impl From<FileError> for NoAnswer {
    fn from(FileError { path, why }: FileError) -> Self {
        Self::File { path, why }
    }
}
