//! `GET nicd/v1/openapi.json`: the OpenAPI 3.1 document of all routes.
//!
//! ```text
//!   routes ── path, method ──► operation ◄── page: parameters, bodies, answers, what it does
//!                                  ▲
//!                  status ─────────┘  its errors, by what it does
//! ```
//!
//! The document is generated from the code's own tables: operations from the route table, errors from the status table, and
//! examples from the renderers of the answers.

use std::sync::LazyLock;

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use utoipa::openapi::header::Header;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn, PathsBuilder};
use utoipa::openapi::response::Response as Documented;
use utoipa::openapi::server::ServerBuilder;
use utoipa::openapi::{Components, ComponentsBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, Ref, Required};

use super::routes;

pub(super) mod agent;
pub(super) mod bindings;
pub(super) mod discovery;
mod entry;
pub(super) mod flavors;
pub(super) mod groups;
pub(super) mod hosts;
mod lists;
pub(super) mod maintenance;
pub(super) mod networks;
pub(super) mod nova;
pub(super) mod otc;
pub(super) mod ports;
pub(super) mod rackspace;
mod samples;
pub(super) mod schema;
pub(super) mod subnets;
#[cfg(test)]
mod tests;
pub(super) mod trunks;
pub(super) mod versions;

pub(super) use entry::Entry;

use entry::{Must, header, parameter, segment};
use schema::{any_uuid, like, words};

const ABOUT: &str = "nicd builds the NICs of guests on a compute node. HTTP/1.1 and JSON over a Unix socket; HEAD works wherever \
GET does; a slash at a path's end changes nothing; a known route with another method is 405 with Allow, an unknown one 404. `reason` \
inside a refusal is a stable word to match on. X-Auth-Token is accepted and ignored.";

/// Built once; it depends on nothing but the program.
static TEXT: LazyLock<String> = LazyLock::new(|| build().to_json().unwrap_or_default());

pub(super) async fn serve() -> Response {
    let mut response = Response::new(Body::from(TEXT.as_str()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn build() -> OpenApi {
    let mut kept = Kept::default();
    let mut paths = PathsBuilder::new().build();
    for group in routes::groups() {
        for prefix in group.prefixes {
            for route in &group.routes {
                let path = format!("{prefix}{}", route.path);
                // The same as without the slash.
                if path.len() > 1 && path.ends_with('/') {
                    continue;
                }
                let parameters: Vec<Parameter> = names(&path).map(in_path).collect();
                let operation =
                    (route.describe)().operation(&suffix(prefix), &parameters, |status, refusal| kept.keep(status, refusal));
                paths.add_path_operation(path, vec![route.method.clone()], operation);
            }
        }
    }
    let info = InfoBuilder::new()
        .title("nicd")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(ABOUT))
        .license(Some(LicenseBuilder::new().name("Apache-2.0 OR MIT").identifier(Some("Apache-2.0 OR MIT")).build()));
    let server = ServerBuilder::new().url("http://localhost").description(Some("The socket; Host is ignored.")).build();
    let about = OpenApiBuilder::new().info(info).servers(Some([server]));
    // The caller is identified by the socket; requests carry no credentials.
    about.security(Some([])).paths(paths).components(Some(components(kept))).build()
}

/// Errors that several operations share.
#[derive(Default)]
struct Kept(Vec<(String, Documented)>);

impl Kept {
    fn keep(&mut self, status: u16, refusal: Documented) -> Ref {
        let known = self.0.iter().find(|(_, kept)| *kept == refusal).map(|(name, _)| name.clone());
        let name = known.unwrap_or_else(|| {
            let alike = self.0.iter().filter(|(name, _)| name.starts_with(&format!("refused_{status}_"))).count();
            let name = format!("refused_{status}_{}", alike + 1);
            self.0.push((name.clone(), refusal));
            name
        });
        Ref::from_response_name(name)
    }
}

fn components(kept: Kept) -> Components {
    let schemas = [
        nova::schemas(),
        flavors::schemas(),
        rackspace::schemas(),
        otc::schemas(),
        networks::schemas(),
        subnets::schemas(),
        groups::schemas(),
        ports::schemas(),
        trunks::schemas(),
        agent::schemas(),
        maintenance::schemas(),
        hosts::schemas(),
    ];
    let builder = ComponentsBuilder::new().schemas_from_iter(schemas.into_iter().flatten());
    let builder = kept.0.into_iter().fold(builder, |builder, (name, refusal)| builder.response(name, refusal));
    let builder = headers().into_iter().fold(builder, |builder, (name, header)| builder.header(name, header));
    asked_versions().into_iter().fold(builder, |builder, asked| builder.parameter(asked.name.clone(), asked)).build()
}

fn headers() -> [(&'static str, Header); 6] {
    let id = like("^req-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$");
    [
        ("Request-Id", header("The request's id, as in the log.", id, Must::Yes)),
        ("OpenStack-API-Version", header("The version the answer speaks.", like("^compute 2\\.[0-9]+$"), Must::Yes)),
        ("X-OpenStack-Nova-API-Version", header("The same, in Nova's own header.", like("^2\\.[0-9]+$"), Must::Yes)),
        ("Vary", header("The headers that decide the version.", words(), Must::Yes)),
        ("Retry-After", header("Seconds.", like("^[0-9]+$"), Must::Yes)),
        ("WWW-Authenticate", header("Who calls is read off the socket.", words(), Must::Yes)),
    ]
}

/// The headers that request a microversion.
fn asked_versions() -> [Parameter; 2] {
    let asked = |parameter: ParameterBuilder, what, example: &str| {
        let parameter = parameter.parameter_in(ParameterIn::Header).required(Required::False);
        parameter.description(Some(what)).example(Some(example.into())).build()
    };
    [
        asked(
            parameter("OpenStack-API-Version", words()),
            "`compute 2.1` to `compute 2.70`, or `compute latest`.",
            "compute 2.70",
        ),
        asked(
            parameter("X-OpenStack-Nova-API-Version", words()),
            "`2.1` to `2.70`, or `latest`; the other header wins, and this one is then not looked at.",
            "2.70",
        ),
    ]
}

/// The parameters of a path template.
fn names(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

fn in_path(name: &str) -> Parameter {
    let parameter = match name {
        "flavor" => parameter(name, segment()).example(Some(crate::api::flavors::ID.into())),
        "alias" => parameter(name, segment()).example(Some("port-security".into())),
        "host" => parameter(name, segment()).description(Some("A host's name.")).example(Some("compute-1".into())),
        "project" => parameter(name, segment()).description(Some("Not stored; any text.")).example(Some("demo".into())),
        name => parameter(name, any_uuid()),
    };
    parameter.parameter_in(ParameterIn::Path).required(Required::True).build()
}

/// The suffix that makes an operation's id unique under several prefixes.
fn suffix(prefix: &str) -> String {
    match prefix {
        "" | "/v1/{project}" | "/v2.0" | "/nicd/v1" => String::new(),
        prefix => prefix.replace('/', "_").replace(['.', '{', '}'], ""),
    }
}
