//! `GET metrics`: on the sockets a route as any other, and on loopback TCP for a Prometheus that speaks no Unix sockets.
//!
//! TCP does not say who calls, so these numbers are all that is served there. It is bounded by itself: one request a
//! connection, whole within [`LIMIT`], at most [`CONNECTIONS`] at a time; who comes beyond waits in the kernel's backlog.

use std::io;
use std::net::TcpListener as StdListener;
use std::sync::Arc;
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
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::telemetry::meters;

use super::Desk;

/// How many are served at the same time on TCP.
pub const CONNECTIONS: usize = 16;

/// What a connection on TCP may take, from its start to the last byte of its answer.
pub const LIMIT: Duration = Duration::from_secs(10);

/// Request line and header fields on TCP, in bytes.
const HEADER_BYTES: usize = 16 << 10;

/// How long accepting rests after it failed for want of descriptors or memory.
const BACKOFF: Duration = Duration::from_millis(100);

pub(super) async fn show(State(desk): State<Desk>) -> Response {
    ([(CONTENT_TYPE, meters::CONTENT_TYPE), (CACHE_CONTROL, "no-store")], desk.metrics()).into_response()
}

/// Serves the numbers on a bound loopback address until `shutdown` is cancelled.
///
/// # Errors
/// The socket cannot be registered with the event loop; nothing was served.
pub async fn serve(listener: StdListener, desk: Desk, shutdown: CancellationToken) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let app = Router::new().route("/metrics", get(show)).fallback(super::no_route);
    let app = app.layer(middleware::from_fn(super::finish)).with_state(desk);
    let seats = Arc::new(Semaphore::new(CONNECTIONS));
    let mut serving = JoinSet::new();
    loop {
        let next = async { (Arc::clone(&seats).acquire_owned().await, listener.accept().await) };
        let (seat, accepted) = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            next = next => next,
        };
        while serving.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) => {
                let app = app.clone();
                serving.spawn(async move {
                    // A client that is late is told nothing: it is a scraper, and tries again by itself.
                    let _ = timeout(LIMIT, answer(stream, app)).await;
                    drop(seat);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a connection for metrics could not be accepted");
                let _ = timeout(BACKOFF, shutdown.cancelled()).await;
            }
        }
    }
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
