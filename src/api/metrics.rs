//! `GET metrics`: a route on the sockets, and a separate server on loopback TCP for a Prometheus without Unix sockets.
//!
//! TCP does not identify the caller, so the TCP server serves only the metrics. It has its own limits: one request per
//! connection, complete within [`LIMIT`], and at most [`CONNECTIONS`] connections. A further connection replaces the oldest: a
//! scrape takes some milliseconds, so the oldest connection sends no request, or does not read its answer.

use std::io;
use std::net::TcpListener as StdListener;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::yield_now;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::telemetry::meters;

use super::AppState;
use super::listener::{BACKOFF, Newest, serve_anonymous};

/// The maximum number of TCP connections.
pub const CONNECTIONS: usize = 32;

/// The time limit of a TCP connection, from accept to the last byte of the answer.
pub const LIMIT: Duration = Duration::from_secs(10);

pub(super) async fn show(State(state): State<AppState>) -> Response {
    state.count_drops().await;
    ([(CONTENT_TYPE, meters::CONTENT_TYPE), (CACHE_CONTROL, "no-store")], state.metrics()).into_response()
}

/// Has the event loop wait for connections on a bound loopback address.
///
/// # Errors
/// The system refuses.
pub fn register(listener: StdListener) -> io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Serves the metrics until `shutdown` is cancelled.
pub async fn serve(listener: TcpListener, state: AppState, shutdown: CancellationToken) {
    let app = Router::new().route("/metrics", get(show)).fallback(super::no_route);
    let one_request = middleware::map_response(async |response| ([(CONNECTION, "close")], response).into_response());
    let app = app.layer(middleware::from_fn(super::finish)).layer(one_request).with_state(state);
    let mut served = Newest::new(CONNECTIONS);
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = timeout(LIMIT, serve_anonymous(stream, app.clone(), shutdown.clone()));
                served.run(async { _ = connection.await });
                // A connection that has asked already is answered before the next one is taken.
                yield_now().await;
            }
            Err(error) => {
                tracing::debug!(%error, "a connection for metrics could not be accepted");
                let _ = timeout(BACKOFF, shutdown.cancelled()).await;
            }
        }
    }
}
