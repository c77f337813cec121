//! A token of Keystone's API, version 3, and Nova's address in its catalog.

use std::time::Duration;

use hyper::header::HeaderName;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::clock;
use crate::config::{NovaSettings, Url};

use super::failure::Failure;
use super::http::{Http, NoAnswer, secret};

/// The header of a token.
pub const SUBJECT_TOKEN: HeaderName = HeaderName::from_static("x-subject-token");

/// How long before its end a token is not used any more.
const MARGIN: SignedDuration = SignedDuration::from_secs(60);

/// The shortest use of a token that ends within [`MARGIN`] or has no end that can be read.
const SHORTEST: Duration = Duration::from_secs(60);

/// A token, and where Nova is.
#[derive(Clone)]
pub struct Token {
    /// The token. A secret.
    pub text: String,
    /// Nova's address.
    pub compute: Url,
    until: Timestamp,
}

impl Token {
    /// Whether it can still be used.
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        now < self.until
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("compute", &self.compute).field("until", &self.until).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Issued {
    token: IssuedToken,
}

#[derive(Deserialize)]
struct IssuedToken {
    #[serde(default)]
    expires_at: String,
    #[serde(default)]
    catalog: Vec<Service>,
}

#[derive(Deserialize)]
struct Service {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    endpoints: Vec<Endpoint>,
}

#[derive(Deserialize)]
struct Endpoint {
    interface: String,
    #[serde(default)]
    region_id: Option<String>,
    #[serde(default)]
    region: Option<String>,
    url: String,
}

/// Asks Keystone for a token.
///
/// # Errors
/// There is none, or nothing says where Nova is.
pub async fn token(http: &Http, settings: &NovaSettings) -> Result<Token, Failure> {
    let auth_url = settings.auth_url.as_ref().ok_or_else(|| Failure::misused("nova.auth_url is not set"))?;
    let body = json!({ "auth": credentials(settings).await? }).to_string();
    let answer = http.post(&auth_url.below("auth/tokens"), &[], body).await?;
    match answer.status {
        200 | 201 => {}
        401 | 403 => {
            return Err(Failure::refused(format!("Keystone answers {}: {}", answer.status, answer.begins())));
        }
        _ => return Err(Failure::answered("Keystone", &answer)),
    }
    let text = answer.headers.get(SUBJECT_TOKEN).and_then(|token| token.to_str().ok());
    let text = text.ok_or_else(|| Failure::misused("Keystone's answer has no X-Subject-Token"))?.to_owned();
    let issued: Issued = serde_json::from_slice(&answer.body)
        .map_err(|error| Failure::misused(format!("Keystone's answer cannot be read: {error}")))?;
    let compute = match &settings.endpoint {
        Some(endpoint) => endpoint.clone(),
        None => found(&issued.token.catalog, settings)?,
    };
    let now = clock::now();
    let ends = issued.token.expires_at.parse::<Timestamp>().ok().and_then(|end| end.checked_sub(MARGIN).ok());
    let shortest = now.checked_add(SHORTEST).unwrap_or(now);
    Ok(Token { text, compute, until: ends.map_or(shortest, |end| end.max(shortest)) })
}

/// Who nicd is, as Keystone reads it.
async fn credentials(settings: &NovaSettings) -> Result<Value, NoAnswer> {
    if let (Some(id), Some(file)) = (&settings.application_credential_id, &settings.application_credential_secret_file) {
        let secret = secret(file).await?;
        return Ok(json!({ "identity": {
            "methods": ["application_credential"],
            "application_credential": { "id": id, "secret": secret },
        }}));
    }
    let password = match &settings.password_file {
        Some(file) => secret(file).await?,
        None => String::new(),
    };
    Ok(json!({
        "identity": {
            "methods": ["password"],
            "password": { "user": {
                "name": settings.username,
                "domain": { "name": settings.user_domain_name },
                "password": password,
            }},
        },
        "scope": { "project": {
            "name": settings.project_name,
            "domain": { "name": settings.project_domain_name },
        }},
    }))
}

/// Nova's address in the catalog.
fn found(catalog: &[Service], settings: &NovaSettings) -> Result<Url, Failure> {
    let endpoints = catalog.iter().filter(|service| service.kind == "compute").flat_map(|service| &service.endpoints);
    let in_region = |endpoint: &&Endpoint| {
        let is = |region: &Option<String>| *region == settings.region;
        settings.region.is_none() || is(&endpoint.region_id) || is(&endpoint.region)
    };
    let mut fitting = endpoints.filter(|endpoint| endpoint.interface == settings.interface).filter(in_region);
    let Some(endpoint) = fitting.next() else {
        let region = settings.region.as_deref().map_or_else(String::new, |region| format!(" in region {region}"));
        let interface = &settings.interface;
        return Err(Failure::misused(format!("Keystone's catalog has no {interface} endpoint of type compute{region}")));
    };
    Url::read(&endpoint.url).map_err(|_| Failure::misused("Nova's endpoint in Keystone's catalog is no HTTP address"))
}
