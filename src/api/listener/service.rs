//! Between hyper and the handlers: the caller, the request's id, its body, and its answer's headers.
//!
//! A handler gets only requests that are complete and that the caller may make. On the sockets [`Caller`] is in the request's
//! extensions.

use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderName, Method, Request, Response};
use futures_util::StreamExt;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as HttpBody, Incoming};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::Instrument;

use super::Limits;
use super::conn::ConnState;
use super::limiter::Permit;
use super::refusal::{ApiError, ID_HEADERS, RequestId};
use crate::access::Access;
use crate::api::dialect::Dialect;
use crate::model::PortId;
use crate::model::idempotency::{CallerId, Key};
use crate::telemetry::meters;
use crate::threads::{Panicked, caught};
use crate::tls::{Names, Tls};

/// Who made a request, and the request's id.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who it was when it connected.
    pub id: CallerId,
    /// The id in the answer's headers and in the log.
    pub request_id: RequestId,
    /// The key under which the answer is stored, if the request has one.
    pub key: Option<Key>,
    /// The id of the port that it makes, where another host of the fleet has drawn it.
    pub makes: Option<PortId>,
}

/// The service of one connection.
#[derive(Debug, Clone)]
pub(super) struct Service {
    app: Router,
    /// None on TCP without TLS, which does not say who connects.
    client: Option<Client>,
    pub limits: Limits,
    pub state: Arc<ConnState>,
    pub shutdown: CancellationToken,
}

/// The peer of a connection.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub id: CallerId,
    pub rights: Rights,
    pub permit: Arc<Permit>,
}

/// What a peer may do.
#[derive(Debug, Clone)]
pub(super) enum Rights {
    /// On a socket: what the peer might do when it connected.
    Socket(Access),
    /// On TLS: everything, as long as one of the names in its certificate is allowed.
    Tls(Arc<Names>, watch::Receiver<Arc<Tls>>),
}

impl Rights {
    /// Returns once the peer may do nothing more; never for a peer on a socket.
    async fn withdrawn(self) {
        if let Self::Tls(names, mut tls) = self
            && tls.wait_for(|tls| !tls.allows(&names)).await.is_ok()
        {
            return;
        }
        pending().await
    }
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let began = self.state.begin();
        let service = self.clone();
        let id = RequestId::draw();
        let path: String = request.uri().path().chars().take(200).collect();
        let dialect = Dialect::word(request.uri().path());
        let (uid, client) = match self.client.as_ref().map(|client| &client.id) {
            Some(CallerId::Uid(uid)) => (Some(*uid), None),
            Some(CallerId::Client(name)) => (None, Some(&**name)),
            None => (None, None),
        };
        let span = tracing::info_span!("request", request_id = %id, method = %request.method(), path, uid, client);
        let answer = async move {
            let response = service.answer(request, id, began).await;
            let (status, took) = (response.status().as_u16(), began.elapsed());
            tracing::debug!(status, ?took, "request answered");
            meters().requested(dialect, status / 100, took);
            Ok(service.send(response, id))
        };
        Box::pin(answer.instrument(span))
    }
}

impl Service {
    /// For one new connection.
    pub(super) fn new(app: Router, client: Option<Client>, limits: Limits, shutdown: CancellationToken) -> Self {
        Self { app, client, limits, state: ConnState::new(), shutdown }
    }

    /// The handler's answer, or a refusal.
    async fn answer(&self, request: Request<Incoming>, id: RequestId, began: Instant) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let answer = async {
            self.may(request.method())?;
            let request = self.receive(request, began).await?;
            self.handle(request, id).await
        };
        answer.await.unwrap_or_else(|refusal| {
            tracing::debug!(?refusal, "request refused");
            refusal.response(&path)
        })
    }

    fn may(&self, method: &Method) -> Result<(), ApiError> {
        let Some(client) = &self.client else { return Ok(()) };
        match (&client.rights, &client.id) {
            (Rights::Socket(Access::Full), _) => Ok(()),
            (Rights::Socket(Access::ReadOnly), _) if method == Method::GET || method == Method::HEAD => Ok(()),
            (Rights::Socket(Access::ReadOnly), _) => Err(ApiError::ReadOnly { method: method.clone() }),
            (Rights::Socket(Access::Denied), id) => Err(ApiError::Unauthorized(id.clone())),
            (Rights::Tls(names, tls), _) if tls.borrow().allows(names) => Ok(()),
            (Rights::Tls(names, _), _) => Err(ApiError::ClientNotAllowed { name: names.first() }),
        }
    }

    /// Reads the whole body, within the time and length a request may have.
    async fn receive(&self, request: Request<Incoming>, began: Instant) -> Result<Request<Body>, ApiError> {
        let limit = self.limits.body_bytes;
        let too_large = || ApiError::BodyTooLarge { limit };
        let (head, body) = request.into_parts();
        // What is announced too long is refused before it is sent: no 100 Continue, nothing read (RFC 9110 §10.1.1).
        if usize::try_from(body.size_hint().lower()).map_or(true, |length| length > limit) {
            return Err(too_large());
        }
        match timeout_at(began + self.limits.arrival, Limited::new(body, limit).collect()).await {
            Ok(Ok(body)) => Ok(Request::from_parts(head, Body::from(body.to_bytes()))),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
            Ok(Err(_)) => Err(ApiError::Malformed),
            Err(_) => Err(ApiError::TooSlow { limit: self.limits.arrival }),
        }
    }

    async fn handle(&self, mut request: Request<Body>, id: RequestId) -> Result<Response<Body>, ApiError> {
        if let Some(Client { id: caller, .. }) = &self.client {
            let caller = Caller { id: caller.clone(), request_id: id, key: None, makes: None };
            request.extensions_mut().insert(caller);
        }
        let mut handled = pin!(self.app.clone().oneshot(request));
        // A panic in a handler costs this request its answer and nothing else: what changes something runs in a task of its own.
        let outcome = poll_fn(|cx| match caught(|| handled.as_mut().poll(cx)) {
            Ok(poll) => poll.map(Ok),
            Err(panicked) => Poll::Ready(Err(panicked)),
        });
        let response = match outcome.await {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(Panicked) => return Err(ApiError::Internal),
        };
        match &self.client {
            Some(client) if is_endless(&response) && !client.permit.may_stream() => Err(ApiError::ManyReaders),
            _ => Ok(response),
        }
    }

    /// Gives the answer the request's id, and notes when hyper has all of it. An answer of unknown length ends when the daemon
    /// does, or when its reader may read no more.
    fn send(&self, mut response: Response<Body>, id: RequestId) -> Response<Body> {
        for name in ID_HEADERS {
            response.headers_mut().insert(HeaderName::from_static(name), id.value());
        }
        let answered = Answered(Arc::clone(&self.state));
        if is_endless(&response) {
            self.state.streams();
            let (stopped, rights) =
                (self.shutdown.clone().cancelled_owned(), self.client.as_ref().map(|client| client.rights.clone()));
            let end = Box::pin(async move {
                tokio::select! {
                    () = stopped => {}
                    () = async { if let Some(rights) = rights { rights.withdrawn().await } else { pending().await } } => {}
                }
            });
            response = response.map(|body| Body::from_stream(body.into_data_stream().take_until(end)));
        }
        // hyper drops the body, and with it the closure, once it has all of it.
        response.map(|body| {
            Body::new(body.map_err(move |error| {
                let _held = &answered;
                error
            }))
        })
    }
}

/// Events: their length is not known.
fn is_endless(response: &Response<Body>) -> bool {
    response.body().size_hint().exact().is_none()
}

/// Tells the connection's state when it is dropped.
struct Answered(Arc<ConnState>);

impl Drop for Answered {
    fn drop(&mut self) {
        self.0.answered();
    }
}
