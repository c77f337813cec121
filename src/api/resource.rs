//! The common handlers of Neutron's networks, subnets, ports, trunks, security groups and their rules: list, show, create, update, delete.
//!
//! Each resource parses and renders in its own file. The order of a request's steps and the status of its success are here.

use std::str::FromStr;

use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::header::IF_MATCH;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::{Extension, Json};
use serde_json::{Map, Value};

use crate::model::action::Action;
use crate::service::{Context, Error, Reply};

use super::dialect::NETWORK;
use super::error::{ApiError, ObjectKind};
use super::fields::Fields;
use super::links::Site;
use super::listener::Caller;
use super::listing::{Listing, forced};
use super::{AppState, context, id, json_body, respond, slip};

/// One kind of thing, as the reconciler gives it out.
pub(super) trait Resource: Sized + Send + Sync {
    /// The key around one in a body.
    const ONE: &'static str;
    /// The key around several, which is also the name of the list.
    const MANY: &'static str;
    /// What its id is the id of.
    const WHAT: ObjectKind;
    /// What one can filter and sort by.
    const KNOWN: &'static [&'static str];
    /// Its id.
    type Id: FromStr + Send;

    /// Those that a list may hold: at least all that fit.
    fn all(state: &AppState, listing: &Listing) -> Vec<Self>;

    /// One.
    fn find(state: &AppState, id: Self::Id) -> Result<Self, Error>;

    /// Those of other hosts of the fleet that a list may hold.
    fn elsewhere(_: &AppState, _: &Listing) -> impl Future<Output = Result<Vec<Self>, Error>> + Send {
        async { Ok(Vec::new()) }
    }

    /// One of another host's.
    fn find_elsewhere(_: &AppState, _: Self::Id) -> impl Future<Output = Result<Option<Self>, Error>> + Send {
        async { Ok(None) }
    }

    /// As Neutron shows it.
    fn shown(&self) -> Value;

    /// Parses a create request.
    fn create(state: &AppState, bodies: Vec<Fields>) -> Result<Action, ApiError>;

    /// Builds the delete action.
    fn delete(id: Self::Id) -> Action;

    /// What was made or changed; none when the reply is of another kind.
    fn of(reply: Reply) -> Option<Vec<Self>>;
}

/// A kind of thing that can be changed.
pub(super) trait Changeable: Resource {
    /// Parses an update request.
    fn change(state: &AppState, id: Self::Id, body: Fields) -> Result<Action, ApiError>;
}

pub(super) async fn list<R: Resource>(State(state): State<AppState>, site: Site, RawQuery(query): RawQuery) -> Response {
    let listed = async {
        let listing = Listing::read(query.as_deref(), R::KNOWN)?;
        let elsewhere = R::elsewhere(&state, &listing).await?;
        let mut rows: Vec<Value> = R::all(&state, &listing).iter().chain(&elsewhere).map(R::shown).collect();
        if !elsewhere.is_empty() {
            rows.sort_by(|one, other| one["id"].as_str().cmp(&other["id"].as_str()));
        }
        listing.answer(R::MANY, &site.to(&format!("/v2.0/{}", R::MANY.replace('_', "-"))), rows)
    };
    respond(listed.await.map(Json), NETWORK)
}

pub(super) async fn show<R: Resource>(
    State(state): State<AppState>,
    Path(text): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let found = async {
        let listing = Listing::read(query.as_deref(), R::KNOWN)?;
        let found = match R::find(&state, id(R::WHAT, &text)?) {
            Ok(found) => found,
            Err(unknown) => R::find_elsewhere(&state, id(R::WHAT, &text)?).await?.ok_or(unknown)?,
        };
        Ok(wrapped::<R>(listing.cut(found.shown())))
    };
    respond(found.await, NETWORK)
}

pub(super) async fn create<R: Resource>(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let made = async {
        let (bodies, shape) = Fields::one_or_many(json_body(&headers, &body)?, R::ONE, R::MANY)?;
        let action = R::create(&state, bodies)?;
        let made = R::of(state.perform(action, context(&caller)).await?).ok_or_else(slip)?;
        Ok((StatusCode::CREATED, Json(shape.wrap(R::ONE, R::MANY, made.iter().map(R::shown)))))
    };
    respond(made.await, NETWORK)
}

pub(super) async fn update<R: Changeable>(request: ChangeRequest) -> Response {
    let changed = changed::<R>(request, |state, id, body| R::change(state, id, Fields::envelope(body, R::ONE)?)).await;
    respond(changed.map(wrapped::<R>), NETWORK)
}

/// A request that changes one.
pub(super) type ChangeRequest = (State<AppState>, Path<String>, Extension<Caller>, HeaderMap, Bytes);

/// Carries out what a request's body says; one as it then is.
pub(super) async fn changed<R: Resource>(
    (State(state), Path(text), Extension(caller), headers, body): ChangeRequest,
    read: impl FnOnce(&AppState, R::Id, &[u8]) -> Result<Action, ApiError>,
) -> Result<Value, ApiError> {
    let action = read(&state, id(R::WHAT, &text)?, json_body(&headers, &body)?)?;
    let changed = R::of(state.perform(action, conditional(&caller, &headers)?).await?).ok_or_else(slip)?;
    changed.first().map(R::shown).ok_or_else(slip)
}

pub(super) async fn delete<R: Resource>(
    State(state): State<AppState>,
    Path(text): Path<String>,
    RawQuery(query): RawQuery,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Response {
    let deleted = async {
        let action = R::delete(id(R::WHAT, &text)?);
        let force = matches!(action, Action::DeletePort(_)) && forced(query.as_deref())?;
        state.perform(action, Context { force, ..conditional(&caller, &headers)? }).await?;
        Ok::<_, ApiError>(StatusCode::NO_CONTENT)
    };
    respond(deleted.await, NETWORK)
}

/// With the condition that Neutron's clients may send, `If-Match: revision_number=N` (its `revision-if-match`): a change
/// that was made for another revision is not carried out.
fn conditional(caller: &Caller, headers: &HeaderMap) -> Result<Context, ApiError> {
    let context = context(caller);
    let Some(given) = headers.get(IF_MATCH) else { return Ok(context) };
    let text = given.to_str().unwrap_or("?").trim();
    if text == "*" {
        return Ok(context);
    }
    let revision = text.trim_matches('"').strip_prefix("revision_number=").and_then(|number| number.parse().ok());
    let refuse = || ApiError::BadCondition(text.escape_debug().take(64).collect());
    Ok(Context { revision: Some(revision.ok_or_else(refuse)?), ..context })
}

fn wrapped<R: Resource>(shown: Value) -> Json<Value> {
    Json(Map::from_iter([(R::ONE.to_owned(), shown)]).into())
}
