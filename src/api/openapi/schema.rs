//! Short constructors for JSON Schema (2020-12) of bodies, values and answers.

use std::ops::RangeInclusive;

use serde_json::Value;
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::schema::{AdditionalProperties, AnyOf, ArrayBuilder, ObjectBuilder, OneOf, SchemaFormat, SchemaType, Type};
use utoipa::openapi::{Ref, RefOr, Schema};

use crate::model::{Mode, Phase, Status};

/// A schema, or a reference to one among the components.
pub(in crate::api) type Shape = RefOr<Schema>;

/// Hyphenated or plain, in either case: what `model::ids` reads.
const UUID: &str = "^([0-9a-fA-F]{32}|[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12})$";

/// Six octets, in either case, with colons, hyphens or dots between them or some of them, of one kind: what `model::mac` reads.
const MAC: &str = "^[0-9a-fA-F]{2}([:.-]?[0-9a-fA-F]{2}){5}$";

/// What `model::names::LinkName` reads.
const LINK: &str = "^[^/:%\\s\\u0000-\\u001f\\u007f-\\u009f]{1,15}$";

/// No control characters, as `Fields::text` has it.
const PLAIN: &str = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$";

/// The component of that name.
pub(in crate::api) fn named(name: &str) -> Shape {
    Ref::from_schema_name(name).into()
}

fn string() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

fn formatted(format: &str) -> ObjectBuilder {
    string().format(Some(SchemaFormat::Custom(format.to_owned())))
}

/// Any value.
pub(in crate::api) fn anything() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::AnyValue)
}

/// Any text.
pub(in crate::api) fn words() -> ObjectBuilder {
    string()
}

/// A text of at most `longest` characters without control characters.
pub(in crate::api) fn text(longest: usize) -> ObjectBuilder {
    string().max_length(Some(longest)).pattern(Some(PLAIN))
}

/// A text that fits a pattern.
pub(in crate::api) fn like(pattern: &str) -> ObjectBuilder {
    string().pattern(Some(pattern))
}

/// A UUID as nicd writes it.
pub(in crate::api) fn uuid() -> ObjectBuilder {
    formatted("uuid")
}

/// A UUID as nicd reads it.
pub(in crate::api) fn any_uuid() -> ObjectBuilder {
    formatted("uuid").pattern(Some(UUID))
}

/// A MAC as nicd writes it.
pub(in crate::api) fn mac() -> ObjectBuilder {
    like("^([0-9a-f]{2}:){5}[0-9a-f]{2}$")
}

/// A MAC as nicd reads it.
pub(in crate::api) fn any_mac() -> ObjectBuilder {
    like(MAC)
}

/// An interface's name.
pub(in crate::api) fn link() -> ObjectBuilder {
    like(LINK)
}

/// An address of either family.
pub(in crate::api) fn ip() -> Shape {
    AnyOf::builder().item(formatted("ipv4")).item(formatted("ipv6")).build().into_shape()
}

/// A range of addresses as nicd writes it.
pub(in crate::api) fn range() -> ObjectBuilder {
    like("^[0-9a-f:.]+/[0-9]{1,3}$")
}

/// RFC 3339.
pub(in crate::api) fn time() -> ObjectBuilder {
    formatted("date-time")
}

/// True or false, as nicd writes it.
pub(in crate::api) fn truth() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Boolean)
}

/// True or false, as nicd reads it: clients also send it as text.
pub(in crate::api) fn any_truth() -> Shape {
    AnyOf::builder().item(truth()).item(like("^([Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee])$")).build().into_shape()
}

/// A whole number in a range.
pub(in crate::api) fn number(range: RangeInclusive<u32>) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(*range.start())).maximum(Some(*range.end()))
}

/// A whole number in a range, as Neutron's readers take it: clients also send it as text.
pub(in crate::api) fn any_number(range: RangeInclusive<u32>) -> Shape {
    AnyOf::builder().item(number(range)).item(like("^[0-9]+$")).build().into_shape()
}

/// A boolean with only one supported value, as nicd reads it: clients also send it as text.
pub(in crate::api) fn only_truth(possible: bool) -> Shape {
    let text = if possible { "^[Tt][Rr][Uu][Ee]$" } else { "^[Ff][Aa][Ll][Ss][Ee]$" };
    AnyOf::builder().item(only(possible)).item(like(text)).build().into_shape()
}

/// A whole number from 0.
pub(in crate::api) fn count() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0u32))
}

/// One of a few texts.
pub(in crate::api) fn one_of_words<'a>(words: impl IntoIterator<Item = &'a str>) -> ObjectBuilder {
    string().enum_values(Some(words))
}

/// One of a few whole numbers.
pub(in crate::api) fn one_of_numbers(numbers: impl IntoIterator<Item = u32>) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Integer).enum_values(Some(numbers))
}

/// A port's status.
pub(in crate::api) fn status() -> ObjectBuilder {
    one_of_words(Status::ALL.map(Status::as_str))
}

/// A port's phase.
pub(in crate::api) fn phase() -> ObjectBuilder {
    let phases = [Phase::Unbound, Phase::Building, Phase::Wired, Phase::Active, Phase::Detaching, Phase::Error];
    one_of_words(phases.map(Phase::as_str))
}

/// A mode of an IPv6 subnet, or null.
pub(in crate::api) fn mode() -> Shape {
    or_null(one_of_words(Mode::ALL.map(Mode::as_str)))
}

/// Exactly this value, with its type, because client generators ignore a value without one.
pub(in crate::api) fn only(value: impl Into<Value>) -> ObjectBuilder {
    let value = value.into();
    let kind = match &value {
        Value::Null => Type::Null,
        Value::Bool(_) => Type::Boolean,
        Value::Number(_) => Type::Integer,
        Value::String(_) => Type::String,
        Value::Array(_) => Type::Array,
        Value::Object(_) => Type::Object,
    };
    // utoipa has no `const`; its extensions become members of the schema unchanged.
    ObjectBuilder::new().schema_type(kind).extensions(Some(Extensions::from_iter([("const", value)])))
}

/// A number that need not be whole.
pub(in crate::api) fn fraction() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Number)
}

/// The given schema, or null.
pub(in crate::api) fn or_null(shape: impl Into<Shape>) -> Shape {
    AnyOf::builder().item(shape).item(null()).build().into_shape()
}

/// Null.
pub(in crate::api) fn null() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Null)
}

/// Exactly one of several.
pub(in crate::api) fn either(shapes: impl IntoIterator<Item = Shape>) -> Shape {
    shapes.into_iter().fold(OneOf::builder(), |one, shape| one.item(shape)).build().into_shape()
}

/// At least one of several.
pub(in crate::api) fn any(shapes: impl IntoIterator<Item = Shape>) -> Shape {
    shapes.into_iter().fold(AnyOf::builder(), |one, shape| one.item(shape)).build().into_shape()
}

/// A list.
pub(in crate::api) fn list(of: impl Into<Shape>) -> ArrayBuilder {
    ArrayBuilder::new().items(of.into())
}

/// An empty list.
pub(in crate::api) fn empty_list() -> ArrayBuilder {
    list(words()).max_items(Some(0))
}

/// `{}`
pub(in crate::api) fn empty_map() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Object).additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(false)))
}

/// Names to values of one kind.
pub(in crate::api) fn map(of: impl Into<AdditionalProperties<Schema>>) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Object).additional_properties(Some(of))
}

trait IntoShape {
    fn into_shape(self) -> Shape;
}

impl<T: Into<Schema>> IntoShape for T {
    fn into_shape(self) -> Shape {
        RefOr::T(self.into())
    }
}

/// The schema of an attribute, with what the attribute is.
fn described(mut shape: Shape, what: &str) -> Shape {
    let description = match &mut shape {
        RefOr::Ref(reference) => {
            reference.description = what.to_owned();
            return shape;
        }
        RefOr::T(Schema::Array(array)) => &mut array.description,
        RefOr::T(Schema::Object(object)) => &mut object.description,
        RefOr::T(Schema::OneOf(one)) => &mut one.description,
        RefOr::T(Schema::AllOf(all)) => &mut all.description,
        RefOr::T(Schema::AnyOf(any)) => &mut any.description,
        RefOr::T(_) => return shape,
    };
    *description = Some(what.to_owned());
    shape
}

/// An object that has the attributes named and no others.
#[derive(Clone)]
pub(in crate::api) struct Record {
    members: Vec<(String, Shape)>,
    required: Vec<String>,
}

impl Record {
    pub(in crate::api) fn new() -> Self {
        Self { members: Vec::new(), required: Vec::new() }
    }

    /// An attribute that is always there.
    pub(in crate::api) fn must(mut self, name: &str, what: &str, shape: impl Into<Shape>) -> Self {
        self.required.push(name.to_owned());
        self.may(name, what, shape)
    }

    /// An attribute that may be left out.
    pub(in crate::api) fn may(mut self, name: &str, what: &str, shape: impl Into<Shape>) -> Self {
        self.members.push((name.to_owned(), described(shape.into(), what)));
        self
    }

    /// Whether it has an attribute.
    pub(in crate::api) fn has(&self, name: &str) -> bool {
        self.members.iter().any(|(member, _)| member == name)
    }

    /// The attributes of both.
    pub(in crate::api) fn and(mut self, other: Self) -> Self {
        self.members.extend(other.members);
        self.required.extend(other.required);
        self
    }

    /// The same with every attribute optional, as an answer to `fields` is.
    pub(in crate::api) fn cut(self) -> Self {
        Self { required: Vec::new(), ..self }
    }

    /// One attribute in an object of its own.
    pub(in crate::api) fn wrapping(name: &str, what: &str, shape: impl Into<Shape>) -> Shape {
        Self::new().must(name, what, shape).into()
    }
}

impl From<Record> for Shape {
    fn from(record: Record) -> Self {
        let closed = ObjectBuilder::new()
            .schema_type(Type::Object)
            .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(false)));
        let members = record.members.into_iter().fold(closed, |object, (name, shape)| object.property(name, shape));
        record.required.into_iter().fold(members, ObjectBuilder::required).into()
    }
}
