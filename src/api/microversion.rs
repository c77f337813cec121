//! Nova's microversions: parses a request's version, and sets the answer's header.
//!
//! Sources: nova/api/openstack/{wsgi,api_version_request}.py and the API SIG's microversion specification.

use std::fmt;

use axum::extract::Request;
use axum::http::header::VARY;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;

use super::dialect::COMPUTE;
use super::error::{self, ApiError};

/// The standard header, `compute 2.70`, and Nova's own, `2.70`.
const HEADERS: [&str; 2] = ["openstack-api-version", "x-openstack-nova-api-version"];

/// The compute API's version 2.`minor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Microversion(u32);

impl Microversion {
    /// What a request without the headers speaks.
    pub const MIN: Self = Self(1);
    /// A server shows what its flavor was, instead of where it is, from here on.
    pub const FLAVOR_EMBEDDED: Self = Self(47);
    /// A flavor has a description from here on.
    pub const FLAVOR_DESCRIPTION: Self = Self(55);
    /// A flavor shows its extra specs from here on.
    pub const FLAVOR_EXTRA_SPECS: Self = Self(61);
    /// Attach takes a `tag` from here on.
    pub const TAG: Self = Self(49);
    /// Answers show the `tag` from here on; also the last one known.
    pub const TAG_SHOWN: Self = Self(70);
    /// The last one known.
    pub const MAX: Self = Self(70);
}

impl fmt::Display for Microversion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "2.{}", self.0)
    }
}

/// Reads the version into the request's extensions, and marks the answer with it.
pub(super) async fn speak(mut request: Request, next: Next) -> Response {
    let (version, mut response) = match asked(request.headers()) {
        Ok(version) => {
            request.extensions_mut().insert(version);
            (version, next.run(request).await)
        }
        Err(refusal) => (Microversion::MIN, error::answer(&refusal, COMPUTE)),
    };
    let headers = response.headers_mut();
    for (name, text) in HEADERS.into_iter().zip([format!("compute {version}"), version.to_string()]) {
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(HeaderName::from_static(name), value);
        }
        headers.append(VARY, HeaderValue::from_static(name));
    }
    response
}

pub(super) fn asked(headers: &HeaderMap) -> Result<Microversion, ApiError> {
    let text = |name: &str| headers.get_all(name).iter().map(|value| value.to_str().unwrap_or("?").trim().to_owned());
    // Of several services the compute one counts, and of several of those the last.
    let standard = text(HEADERS[0]).flat_map(|value| value.split(',').map(|one| one.trim().to_owned()).collect::<Vec<_>>());
    let mut compute = standard.filter_map(|one| {
        let (service, version) = one.split_once(char::is_whitespace)?;
        service.eq_ignore_ascii_case("compute").then(|| version.trim().to_owned())
    });
    match compute.next_back().or_else(|| text(HEADERS[1]).next_back()) {
        Some(version) => parse(&version),
        None => Ok(Microversion::MIN),
    }
}

fn parse(text: &str) -> Result<Microversion, ApiError> {
    if text.eq_ignore_ascii_case("latest") {
        return Ok(Microversion::MAX);
    }
    let malformed = || ApiError::MicroversionMalformed(text.chars().take(64).collect());
    let number = |part: &str| {
        let plain = part == "0" || part.bytes().all(|byte| byte.is_ascii_digit()) && !part.starts_with('0');
        part.parse::<u32>().ok().filter(|_| plain)
    };
    let (major, minor) = text.split_once('.').ok_or_else(malformed)?;
    let (major, minor) = number(major).zip(number(minor)).filter(|(major, _)| *major > 0).ok_or_else(malformed)?;
    match (major, minor) {
        (2, minor) if (Microversion::MIN.0..=Microversion::MAX.0).contains(&minor) => Ok(Microversion(minor)),
        _ => Err(ApiError::MicroversionUnsupported {
            asked: format!("{major}.{minor}"),
            min: Microversion::MIN.to_string(),
            max: Microversion::MAX.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(pairs: &[(&'static str, &str)]) -> Result<u32, &'static str> {
        let headers = pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
        asked(&headers.collect()).map(|version| version.0).map_err(|refusal| match refusal {
            ApiError::MicroversionMalformed(_) => "400",
            ApiError::MicroversionUnsupported { .. } => "406",
            _ => "?",
        })
    }

    #[test]
    fn both_headers_are_understood_and_the_standard_one_wins() {
        let [standard, own] = HEADERS;
        assert_eq!(ask(&[]), Ok(1));
        assert_eq!(ask(&[(own, "2.49")]), Ok(49));
        assert_eq!(ask(&[(standard, "compute 2.70")]), Ok(70));
        assert_eq!(ask(&[(own, "2.49"), (standard, "compute 2.50")]), Ok(50));
        assert_eq!(ask(&[(standard, "identity 3.0, compute 2.60")]), Ok(60));
        assert_eq!(ask(&[(standard, "identity 3.0")]), Ok(1));
        assert_eq!(ask(&[(own, "latest")]), Ok(70));
        assert_eq!(ask(&[(standard, "COMPUTE latest")]), Ok(70));
    }

    #[test]
    fn malformed_is_400_and_unsupported_406() {
        for bad in ["2", "x", "2.", ".1", "2.x", "02.1", "2.01", "2.1.1", "-2.1", "", "2.+1"] {
            assert_eq!(ask(&[(HEADERS[1], bad)]), Err("400"), "{bad}");
        }
        for far in ["2.0", "2.71", "3.1", "1.1", "2.4294967295"] {
            assert_eq!(ask(&[(HEADERS[1], far)]), Err("406"), "{far}");
        }
    }
}
