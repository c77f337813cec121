//! One operation as a dialect's page describes it, and as OpenAPI has it.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::StatusCode;
use axum::http::header::WWW_AUTHENTICATE;
use serde_json::{Value, json};
use utoipa::openapi::content::{Content, ContentBuilder};
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::path::{Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::{Ref, Required};

use super::schema::{Record, Shape, like, list, one_of_words, only, words};
use crate::api::dialect::{Dialect, Envelope};
use crate::api::error;
use crate::api::status::{self, In, RequestStep, Row};

const JSON: &str = "application/json";

/// What a route does, as its page describes it.
pub(in crate::api) struct Entry {
    id: &'static str,
    tag: &'static str,
    summary: &'static str,
    about: Option<&'static str>,
    dialect: Dialect,
    parameters: Vec<Parameter>,
    body: Option<Body>,
    answers: Vec<Answer>,
    acts: Vec<RequestStep>,
}

struct Body {
    shape: Shape,
    needed: Required,
    examples: Vec<(&'static str, Value)>,
}

struct Answer {
    status: u16,
    what: &'static str,
    content: Vec<(&'static str, Content)>,
}

impl Entry {
    pub(super) fn new(dialect: Dialect, tag: &'static str, id: &'static str, summary: &'static str) -> Self {
        let (parameters, answers, acts) = (Vec::new(), Vec::new(), Vec::new());
        Self { id, tag, summary, about: None, dialect, parameters, body: None, answers, acts }
    }

    /// The description, which follows the summary.
    pub(super) fn about(self, about: &'static str) -> Self {
        Self { about: Some(about), ..self }
    }

    /// What it does, which decides the errors that it can answer.
    pub(super) fn does(mut self, acts: &[RequestStep]) -> Self {
        self.acts.extend_from_slice(acts);
        self
    }

    /// A query parameter.
    pub(super) fn query(mut self, parameter: ParameterBuilder) -> Self {
        self.parameters.push(parameter.parameter_in(ParameterIn::Query).required(Required::False).build());
        self
    }

    /// A header it reads.
    pub(super) fn header(mut self, parameter: ParameterBuilder) -> Self {
        self.parameters.push(parameter.parameter_in(ParameterIn::Header).required(Required::False).build());
        self
    }

    /// A POST that creates: it takes a key under which its answer is remembered.
    pub(super) fn once(self) -> Self {
        let key = parameter("Idempotency-Key", like("^[\\x20-\\x7e]{1,64}$"))
            .description(Some("The same key from the same uid gives the same answer for 24 h and does nothing twice."))
            .example(Some("attach-7f3a".into()));
        self.does(&[RequestStep::Key]).header(key)
    }

    /// A change that may be asked for on the condition of a revision.
    pub(super) fn if_match(self) -> Self {
        let condition = parameter("If-Match", like("^(\\*|\"?revision_number=[0-9]+\"?)$"))
            .description(Some("`revision_number=N`: only if that is its revision; else 412."))
            .example(Some("revision_number=1".into()));
        self.does(&[RequestStep::Conditional]).header(condition)
    }

    /// The body it reads.
    pub(super) fn body(self, shape: impl Into<Shape>, examples: &[(&'static str, Value)]) -> Self {
        self.reads(shape, Required::True, examples)
    }

    /// The body it reads when there is one.
    pub(super) fn may_have_body(self, shape: impl Into<Shape>, examples: &[(&'static str, Value)]) -> Self {
        self.reads(shape, Required::False, examples)
    }

    fn reads(mut self, shape: impl Into<Shape>, needed: Required, examples: &[(&'static str, Value)]) -> Self {
        self.body = Some(Body { shape: shape.into(), needed, examples: examples.to_vec() });
        self.does(&[RequestStep::Body])
    }

    /// An answer in JSON when all goes well.
    pub(super) fn answers(self, status: u16, what: &'static str, shape: impl Into<Shape>, example: Value) -> Self {
        self.answers_as(status, what, &[(JSON, shape.into(), example)])
    }

    /// An answer in one of several forms.
    pub(super) fn answers_as(mut self, status: u16, what: &'static str, forms: &[(&'static str, Shape, Value)]) -> Self {
        let content =
            |shape: &Shape, example: &Value| Content::builder().schema(Some(shape.clone())).example(Some(example.clone()));
        let content = forms.iter().map(|(kind, shape, example)| (*kind, content(shape, example).build())).collect();
        self.answers.push(Answer { status, what, content });
        self
    }

    /// An answer without a body.
    pub(super) fn answers_nothing(mut self, status: u16, what: &'static str) -> Self {
        self.answers.push(Answer { status, what, content: Vec::new() });
        self
    }

    /// The OpenAPI operation for one path. `keep` stores a response for errors as a component and returns its name.
    pub(super) fn operation(self, suffix: &str, path: &[Parameter], mut keep: impl FnMut(u16, Response) -> Ref) -> Operation {
        let mut acts = self.acts;
        if !path.is_empty() {
            acts.push(RequestStep::Path);
        }
        let versions = acts.contains(&RequestStep::Version);
        let mut operation = OperationBuilder::new()
            .operation_id(Some(format!("{}{suffix}", self.id)))
            .tag(self.tag)
            .summary(Some(self.summary))
            .description(self.about)
            .parameters(Some(path.iter().cloned().chain(self.parameters)));
        if versions {
            operation = ["OpenStack-API-Version", "X-OpenStack-Nova-API-Version"]
                .into_iter()
                .fold(operation, |operation, name| operation.parameter_ref(component("parameters", name)));
        }
        for answer in self.answers {
            operation = operation.response(answer.status.to_string(), answer.response(versions));
        }
        for (status, refused) in by_status(&acts, self.dialect) {
            let refusal = refusal(status, &refused, self.dialect, versions);
            operation = operation.response(status.as_str(), keep(status.as_u16(), refusal));
        }
        operation.request_body(self.body.map(|body| body.request())).build()
    }
}

impl Body {
    fn request(self) -> utoipa::openapi::request_body::RequestBody {
        let examples = self.examples.into_iter().map(|(name, value)| (name, ExampleBuilder::new().value(Some(value)).build()));
        let content = Content::builder().schema(Some(self.shape)).examples_from_iter(examples).build();
        RequestBodyBuilder::new().required(Some(self.needed)).content(JSON, content).build()
    }
}

impl Answer {
    fn response(self, versions: bool) -> Response {
        let response = marked(ResponseBuilder::new().description(self.what));
        let response = if versions { versioned(response) } else { response };
        self.content.into_iter().fold(response, |response, (kind, content)| response.content(kind, content)).build()
    }
}

/// A parameter by name.
pub(super) fn parameter(name: &str, shape: impl Into<Shape>) -> ParameterBuilder {
    ParameterBuilder::new().name(name).schema(Some(shape))
}

/// `?force=` of a removal.
pub(super) fn force() -> ParameterBuilder {
    parameter("force", like("^([Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee]|0|1)?$"))
        .description(Some(
            "True deletes a tap also while a process holds it open, which makes some VMMs read from it without end; \
             without it the port stays `detaching` with reason `guest_keeps_device` until that closes it.",
        ))
        .example(Some("false".into()))
}

/// A reference to a component that is no schema.
fn component(kind: &str, name: &str) -> Ref {
    Ref::new(format!("#/components/{kind}/{name}"))
}

/// Every answer has its request's id in three headers.
fn marked(response: ResponseBuilder) -> ResponseBuilder {
    ["X-Compute-Request-Id", "X-Openstack-Request-Id", "X-Request-Id"]
        .into_iter()
        .fold(response, |response, name| response.header_ref(name, component("headers", "Request-Id")))
}

fn versioned(response: ResponseBuilder) -> ResponseBuilder {
    ["OpenStack-API-Version", "X-OpenStack-Nova-API-Version", "Vary"]
        .into_iter()
        .fold(response, |response, name| response.header_ref(name, component("headers", name)))
}

/// The errors of one status, with the envelope of each.
type Refused = Vec<(&'static Row, Envelope)>;

/// Every error that a request of a dialect that does `acts` can get.
fn by_status(acts: &[RequestStep], dialect: Dialect) -> BTreeMap<StatusCode, Refused> {
    let mut all: BTreeMap<StatusCode, Refused> = BTreeMap::new();
    for row in status::TABLE.iter().filter(|row| row.met_by.iter().any(|act| *act == RequestStep::Any || acts.contains(act))) {
        let refused = all.entry(row.status(dialect)).or_default();
        if row.envelope != In::Nova {
            refused.push((row, dialect.envelope));
        }
        if row.envelope == In::Nova || row.envelope == In::Either && dialect.envelope != Envelope::Compute {
            refused.push((row, Envelope::Compute));
        }
    }
    all
}

/// All errors of one status as one response: each envelope with its reasons and an example of each.
fn refusal(status: StatusCode, refused: &Refused, dialect: Dialect, versions: bool) -> Response {
    let rows = |of| refused.iter().filter(move |(_, envelope)| *envelope == of).map(|(row, _)| *row).collect::<Vec<_>>();
    let shapes = [Envelope::Network, Envelope::Otc, Envelope::Compute].map(|of| (of, rows(of)));
    let shapes = shapes.iter().filter(|(_, rows)| !rows.is_empty()).map(|(of, rows)| envelope(*of, status, rows));
    let shape = match <[Shape; 1]>::try_from(shapes.collect::<Vec<_>>()) {
        Ok([one]) => one,
        Err(several) => super::schema::any(several),
    };
    let examples = refused.iter().map(|(row, of)| {
        // One reason can come in two envelopes.
        let early = if dialect.envelope == *of { "" } else { "_early" };
        let body = error::envelope(row, status, status::meaning(status), *of);
        (format!("{}{early}", row.reason), ExampleBuilder::new().value(Some(body)).build())
    });
    let content: ContentBuilder = Content::builder().schema(Some(shape)).examples_from_iter(examples);
    let response = marked(ResponseBuilder::new().description(status::meaning(status)).content(JSON, content.build()));
    let response = match status::header(status) {
        Some((name, _)) if name == WWW_AUTHENTICATE => {
            response.header_ref("WWW-Authenticate", component("headers", "WWW-Authenticate"))
        }
        Some(_) => response.header_ref("Retry-After", component("headers", "Retry-After")),
        None => response,
    };
    // The listener answers errors before it reads a version, so these headers may be missing there.
    let response = match versions {
        true => ["OpenStack-API-Version", "X-OpenStack-Nova-API-Version"]
            .into_iter()
            .fold(response, |response, name| response.header(name, header("The version the answer speaks.", words(), Must::No))),
        false => response,
    };
    response.build()
}

fn envelope(envelope: Envelope, status: StatusCode, rows: &[&Row]) -> Shape {
    let all = |of: fn(&Row) -> &'static str| one_of_words(rows.iter().map(|row| of(row)).collect::<BTreeSet<_>>());
    let (key, inner) = match envelope {
        Envelope::Network => (
            "NeutronError",
            Record::new()
                .must("type", "Neutron's name of the error.", all(|row| row.kind))
                .must("message", "What was wrong, and what would be right.", words())
                .must("detail", "Always empty.", only("")),
        ),
        Envelope::Otc => {
            let code = || all(status::ecs);
            let detail = Record::new().must("code", "The same code.", code()).must("message", "The same message.", words());
            (
                "error",
                Record::new()
                    .must("code", "OTC's code.", code())
                    .must("message", "What was wrong, and what would be right.", words())
                    .must("details", "The same as a list of one.", list(detail)),
            )
        }
        Envelope::Compute => (
            status::key(status),
            Record::new().must("code", "The status.", only(status.as_u16())).must(
                "message",
                "What was wrong, and what would be right.",
                words(),
            ),
        ),
    };
    Record::wrapping(key, "What was wrong.", inner.must("reason", "A stable word to match on.", all(|row| row.reason)))
}

/// Whether a header is on every answer of its kind.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Must {
    Yes,
    No,
}

/// A header of an answer.
pub(super) fn header(what: &str, shape: impl Into<Shape>, must: Must) -> Header {
    let header = HeaderBuilder::new().description(Some(what)).schema(Some(shape));
    // utoipa's header has no `required` of its own.
    let required = (must == Must::Yes).then(|| Extensions::from_iter([("required", json!(true))]));
    header.extensions(required).build()
}

/// A project id in the path. It is not stored, and any text is accepted.
pub(super) fn segment() -> Shape {
    words().min_length(Some(1)).into()
}
