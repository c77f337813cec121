//! `GET metrics`: on the sockets a route as any other, and on loopback TCP for a Prometheus that speaks no Unix sockets.
//!
//! TCP does not say who calls, so these numbers are all that is served there. It is bounded by itself: one request a
//! connection, whole within [`LIMIT`], at most [`CONNECTIONS`] at a time. Who comes beyond takes the place of the one that is
//! there for longest: a scrape takes some milliseconds, so that is one that does not ask, or does not read.

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener as StdListener;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, yield_now};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::telemetry::meters;

use super::Desk;

/// How many are served at the same time on TCP.
pub const CONNECTIONS: usize = 32;

/// What a connection on TCP may take, from its start to the last byte of its answer.
pub const LIMIT: Duration = Duration::from_secs(10);

/// Request line and header fields on TCP, in bytes.
const HEADER_BYTES: usize = 16 << 10;

/// How long accepting rests after it failed for want of descriptors or memory.
const BACKOFF: Duration = Duration::from_millis(100);

pub(super) async fn show(State(desk): State<Desk>) -> Response {
    ([(CONTENT_TYPE, meters::CONTENT_TYPE), (CACHE_CONTROL, "no-store")], desk.metrics()).into_response()
}

/// Has the event loop wait for connections on a bound loopback address.
///
/// # Errors
/// The system refuses.
pub fn register(listener: StdListener) -> io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Serves the numbers until `shutdown` is cancelled.
pub async fn serve(listener: TcpListener, desk: Desk, shutdown: CancellationToken) {
    let app = Router::new().route("/metrics", get(show)).fallback(super::no_route);
    let app = app.layer(middleware::from_fn(super::finish)).with_state(desk);
    // The oldest first.
    let mut served: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        served.retain(|connection| !connection.is_finished());
        match accepted {
            Ok((stream, _)) => {
                let oldest = if served.len() < CONNECTIONS { None } else { served.pop_front() };
                oldest.iter().for_each(AbortHandle::abort);
                // A client that is late is told nothing: it is a scraper, and tries again by itself.
                let connection = timeout(LIMIT, answer(stream, app.clone()));
                served.push_back(tokio::spawn(connection).abort_handle());
                // Who has asked already is answered before the next is let in.
                yield_now().await;
            }
            Err(error) => {
                tracing::debug!(%error, "a connection for metrics could not be accepted");
                let _ = timeout(BACKOFF, shutdown.cancelled()).await;
            }
        }
    }
    served.iter().for_each(AbortHandle::abort);
}

/// One request, and its answer.
async fn answer(stream: TcpStream, app: Router) -> hyper::Result<()> {
    let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| app.clone().oneshot(request.map(Body::new)));
    http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .max_buf_size(HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .await
}
