//! Parses JSON objects strictly: each attribute is taken once with its type and range, and the remaining ones are unknown.
//!
//! Errors have Nova's wording, which clients know (nova/api/validation/validators.py): `Invalid input for
//! field/attribute F. Value: V. reason`, where F is the innermost name; about the body's top only the reason.

use std::fmt::Display;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use ipnetwork::IpNetwork;
use serde_json::{Map, Value};

use super::json;

/// Why a body is invalid. Displays a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The body is no JSON, or nested too deeply.
    #[error("Malformed request body: {0}")]
    Json(String),
    /// An object in the body has a key twice.
    #[error("Malformed request body: {0}; give it once")]
    Twice(String),
    /// The body's top is not what the route takes.
    #[error("{0}")]
    Top(String),
    /// One attribute does not fit.
    #[error("Invalid input for field/attribute {field}. Value: {value}. {why}")]
    Field {
        /// Which.
        field: String,
        /// What was given, cut to 256 characters.
        value: String,
        /// What is wrong with it, and what would be right.
        why: String,
    },
    /// An attribute names a mechanism that is not built yet.
    #[error("{0} is not built yet; leave it out")]
    NotBuilt(String),
}

impl BodyError {
    /// The stable word that scripts match on.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Json(_) => "malformed_body",
            Self::Twice(_) => "duplicate_key",
            Self::Top(_) => "invalid_body",
            Self::Field { .. } => "invalid_value",
            Self::NotBuilt(_) => "not_built",
        }
    }
}

/// An object whose attributes are being taken.
#[derive(Debug)]
pub struct Fields {
    /// The object's own name; none at the top.
    name: Option<String>,
    /// The object as given, for refusals.
    whole: String,
    left: Map<String, Value>,
}

/// The most objects of one bulk create.
pub(super) const BULK: usize = 256;

/// Whether a body has one object or a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `{"port": {…}}`
    One,
    /// `{"ports": [{…}]}`
    Many,
}

impl Shape {
    /// The shape of a body that was parsed before.
    pub fn of(body: &[u8], many: &str) -> Self {
        match Fields::top(body) {
            Ok(top) if top.left.contains_key(many) => Self::Many,
            _ => Self::One,
        }
    }

    /// Wraps created objects in the shape of the request.
    pub fn wrap(self, one: &str, many: &str, mut made: impl Iterator<Item = Value>) -> Value {
        let (key, value) = match self {
            Self::One => (one, made.next().unwrap_or_default()),
            Self::Many => (many, Value::Array(made.collect())),
        };
        Value::Object(Map::from_iter([(key.to_owned(), value)]))
    }
}

/// Reads a whole body.
///
/// # Errors
/// It is not JSON, or has a key twice. An empty body reads as `{}`.
pub fn parse(body: &[u8]) -> Result<Value, BodyError> {
    if body.is_empty() {
        return Ok(Value::Object(Map::new()));
    }
    json::read(body)
}

impl Fields {
    /// The object inside the envelope `{"<key>": {…}}`, and nothing beside it.
    ///
    /// # Errors
    /// There is no such envelope.
    pub fn envelope(body: &[u8], key: &str) -> Result<Self, BodyError> {
        let mut top = Self::top(body)?;
        let inner = top.left.remove(key);
        top.end()?;
        match inner {
            Some(inner) => Self::object(key, inner),
            None => Err(BodyError::Top(format!("'{key}' is a required property: {{\"{key}\": {{…}}}} is expected"))),
        }
    }

    /// One object under `one`, or a list of at most 256 of them under `many`: Neutron's bulk create.
    ///
    /// # Errors
    /// There is neither, or both.
    pub fn one_or_many(body: &[u8], one: &str, many: &str) -> Result<(Vec<Self>, Shape), BodyError> {
        let mut top = Self::top(body)?;
        if !top.left.contains_key(many) {
            return Self::envelope(body, one).map(|fields| (vec![fields], Shape::One));
        }
        let list = top.list(many, BULK)?.unwrap_or_default();
        top.end()?;
        if list.is_empty() {
            return Err(wrong(many, &Value::Array(Vec::new()), "[] is too short: at least one entry is expected"));
        }
        let fields = list.into_iter().map(|(name, value)| Self::object(&name, value)).collect::<Result<_, _>>()?;
        Ok((fields, Shape::Many))
    }

    /// The body's top object.
    ///
    /// # Errors
    /// It is no object.
    pub fn top(body: &[u8]) -> Result<Self, BodyError> {
        match parse(body)? {
            Value::Object(left) => Ok(Self { name: None, whole: String::new(), left }),
            other => Err(BodyError::Top(format!("{} is not of type 'object'", shown(&other)))),
        }
    }

    /// The object that is the attribute `name`.
    ///
    /// # Errors
    /// It is no object.
    pub fn object(name: &str, value: Value) -> Result<Self, BodyError> {
        let whole = shown(&value);
        match value {
            Value::Object(left) => Ok(Self { name: Some(name.to_owned()), whole, left }),
            other => Err(not_of_type(name, &other, "object")),
        }
    }

    /// Takes an attribute as raw JSON; `null` counts as present.
    pub fn value(&mut self, name: &str) -> Option<Value> {
        self.left.remove(name)
    }

    /// Takes a text of at most `limit` characters without control characters.
    ///
    /// # Errors
    /// It is no text, or does not fit.
    pub fn text(&mut self, name: &str, limit: usize) -> Result<Option<String>, BodyError> {
        self.left.remove(name).map(|value| text_value(name, &value, limit)).transpose()
    }

    /// As `text`, where `null` is the same as nothing.
    ///
    /// # Errors
    /// As for `text`.
    pub fn text_or_null(&mut self, name: &str, limit: usize) -> Result<Option<String>, BodyError> {
        match self.left.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => text_value(name, &value, limit).map(Some),
        }
    }

    /// Takes a text that parses as `T`. The parser's message says what would be right.
    ///
    /// # Errors
    /// It is no text, or does not parse.
    pub fn parsed<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, BodyError>
    where
        T::Err: Display,
    {
        let Some(value) = self.left.remove(name) else { return Ok(None) };
        parse_value(name, &value).map(Some)
    }

    /// As `parsed`, where `null` is a value of its own: `Some(None)`.
    ///
    /// # Errors
    /// As for `parsed`.
    pub fn parsed_or_null<T: FromStr>(&mut self, name: &str) -> Result<Option<Option<T>>, BodyError>
    where
        T::Err: Display,
    {
        match self.left.remove(name) {
            None => Ok(None),
            Some(Value::Null) => Ok(Some(None)),
            Some(value) => parse_value(name, &value).map(|parsed| Some(Some(parsed))),
        }
    }

    /// Takes a whole number in a range.
    ///
    /// # Errors
    /// It is none, or outside.
    pub fn number(&mut self, name: &str, range: RangeInclusive<u32>) -> Result<Option<u32>, BodyError> {
        let Some(value) = self.left.remove(name) else { return Ok(None) };
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        within(name, &value, number, range).map(Some)
    }

    /// As `number`, also as text, which is how Neutron's clients send what was typed (`convert_to_int`,
    /// neutron_lib/api/converters.py).
    ///
    /// # Errors
    /// As for `number`.
    pub fn number_or_text(&mut self, name: &str, range: RangeInclusive<u32>) -> Result<Option<u32>, BodyError> {
        match self.left.get(name).and_then(Value::as_str).map(digits) {
            Some(number) => within(name, &self.left.remove(name).unwrap_or_default(), number, range).map(Some),
            None => self.number(name, range),
        }
    }

    /// As `number_or_text`, where `null` is the same as nothing.
    ///
    /// # Errors
    /// As for `number`.
    pub fn number_or_null(&mut self, name: &str, range: RangeInclusive<u32>) -> Result<Option<u32>, BodyError> {
        match self.left.get(name) {
            Some(Value::Null) => Ok(self.left.remove(name).and(None)),
            _ => self.number_or_text(name, range),
        }
    }

    /// Takes true or false; Neutron's clients also send them as text or as 1 and 0 (neutron_lib/api/converters.py).
    ///
    /// # Errors
    /// It is neither.
    pub fn truth(&mut self, name: &str) -> Result<Option<bool>, BodyError> {
        let Some(value) = self.left.remove(name) else { return Ok(None) };
        let truth = match &value {
            Value::Bool(truth) => Some(*truth),
            Value::String(text) => truth_of(text),
            Value::Number(number) => truth_of(&number.to_string()),
            _ => None,
        };
        truth.map(Some).ok_or_else(|| wrong(name, &value, "true or false is expected"))
    }

    /// As `truth`, where `null` is a value of its own: `Some(None)`.
    ///
    /// # Errors
    /// As for `truth`.
    pub fn truth_or_null(&mut self, name: &str) -> Result<Option<Option<bool>>, BodyError> {
        match self.left.get(name) {
            Some(Value::Null) => Ok(self.left.remove(name).map(|_| None)),
            _ => Ok(self.truth(name)?.map(Some)),
        }
    }

    /// Takes true or false that must be absent, or what reads as "not used".
    ///
    /// # Errors
    /// It is neither, or asks for a mechanism that is not built.
    pub fn only_truth(&mut self, name: &str, possible: bool) -> Result<(), BodyError> {
        match self.truth(name)? {
            Some(truth) if truth != possible => Err(BodyError::NotBuilt(format!("{name} = {truth}"))),
            _ => Ok(()),
        }
    }

    /// Takes a list of at most `limit` entries, each with its index as its name.
    ///
    /// # Errors
    /// It is no list, or too long.
    pub fn list(&mut self, name: &str, limit: usize) -> Result<Option<Vec<(String, Value)>>, BodyError> {
        let Some(value) = self.left.remove(name) else { return Ok(None) };
        match value {
            Value::Array(entries) if entries.len() <= limit => {
                Ok(Some(entries.into_iter().enumerate().map(|(n, entry)| (n.to_string(), entry)).collect()))
            }
            Value::Array(entries) => {
                let value = Value::from(format!("[{} entries]", entries.len()));
                Err(wrong(name, &value, &format!("it is too long: at most {limit} entries are possible")))
            }
            other => Err(not_of_type(name, &other, "array")),
        }
    }

    /// As `list`, where `null` is the empty list (`convert_none_to_empty_list`, neutron_lib/api/converters.py).
    ///
    /// # Errors
    /// As for `list`.
    pub fn list_or_null(&mut self, name: &str, limit: usize) -> Result<Option<Vec<(String, Value)>>, BodyError> {
        match self.left.get(name) {
            Some(Value::Null) => Ok(self.left.remove(name).map(|_| Vec::new())),
            _ => self.list(name, limit),
        }
    }

    /// Takes an attribute that must be absent, or equal to what reads as "not used".
    ///
    /// # Errors
    /// It asks for a mechanism that is not built.
    pub fn only(&mut self, name: &str, possible: &[Value]) -> Result<(), BodyError> {
        match self.left.remove(name) {
            Some(value) if !possible.contains(&value) => Err(BodyError::NotBuilt(format!("{name} = {}", shown(&value)))),
            _ => Ok(()),
        }
    }

    /// Takes an attribute that must be absent, or one of a few values.
    ///
    /// # Errors
    /// It is another value; `why` says what is expected.
    pub fn must_be(&mut self, name: &str, possible: &[Value], why: &str) -> Result<(), BodyError> {
        match self.left.remove(name) {
            Some(value) if !possible.contains(&value) => Err(wrong(name, &value, why)),
            _ => Ok(()),
        }
    }

    /// Returns the value of a required attribute.
    ///
    /// # Errors
    /// It is not there.
    pub fn required<T>(&self, name: &str, taken: Option<T>) -> Result<T, BodyError> {
        taken.ok_or_else(|| self.about_all(format!("'{name}' is a required property")))
    }

    /// A refusal of the object as a whole.
    pub fn refused(&self, why: &str) -> BodyError {
        self.about_all(why.to_owned())
    }

    /// Ends the parsing: no unknown attribute may be left.
    ///
    /// # Errors
    /// An attribute is left.
    pub fn end(self) -> Result<(), BodyError> {
        match self.left.keys().next() {
            None => Ok(()),
            Some(unknown) => {
                let unknown: String = unknown.chars().take(64).collect();
                let unknown = unknown.escape_debug();
                Err(self.about_all(format!("Additional properties are not allowed ('{unknown}' was unexpected)")))
            }
        }
    }

    /// Ends the parsing of a change. The error distinguishes read-only attributes from unknown ones.
    ///
    /// # Errors
    /// Something is left.
    pub fn end_of_change(self, known: &[&str]) -> Result<(), BodyError> {
        match self.left.iter().find(|(name, _)| known.contains(&name.as_str())) {
            Some((name, value)) => Err(wrong(name, value, "Cannot update read-only attribute: leave it out")),
            None => self.end(),
        }
    }

    /// A refusal of the object as such.
    fn about_all(&self, why: String) -> BodyError {
        match &self.name {
            None => BodyError::Top(why),
            Some(name) => BodyError::Field { field: name.clone(), value: self.whole.clone(), why },
        }
    }
}

fn text_value(name: &str, value: &Value, limit: usize) -> Result<String, BodyError> {
    let Value::String(text) = value else { return Err(not_of_type(name, value, "string")) };
    if text.chars().count() > limit {
        let why = format!("'{}' is too long: at most {limit} characters are possible", shown(value));
        return Err(wrong(name, value, &why));
    }
    match text.contains(|c: char| c.is_control()) {
        true => Err(wrong(name, value, "it contains control characters")),
        false => Ok(text.clone()),
    }
}

/// Reads a text as `T`, naming the attribute when it does not fit.
///
/// # Errors
/// It is no text, or does not parse.
pub fn parse_value<T: FromStr>(name: &str, value: &Value) -> Result<T, BodyError>
where
    T::Err: Display,
{
    let Value::String(text) = value else { return Err(not_of_type(name, value, "string")) };
    text.parse().map_err(|error: T::Err| wrong(name, value, &error.to_string()))
}

/// A number's text: digits alone.
fn digits(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// True or false as Neutron's clients write them in bodies and queries.
pub(super) fn truth_of(text: &str) -> Option<bool> {
    match text {
        "1" => Some(true),
        "0" => Some(false),
        _ if text.eq_ignore_ascii_case("true") => Some(true),
        _ if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

fn within(name: &str, value: &Value, number: Option<u32>, range: RangeInclusive<u32>) -> Result<u32, BodyError> {
    number
        .filter(|number| range.contains(number))
        .ok_or_else(|| wrong(name, value, &format!("a whole number from {} to {} is expected", range.start(), range.end())))
}

/// A refusal of an attribute's value.
pub fn wrong(name: &str, value: &Value, why: &str) -> BodyError {
    BodyError::Field { field: name.to_owned(), value: shown(value), why: why.to_owned() }
}

/// A refusal of an attribute's type.
pub fn not_of_type(name: &str, value: &Value, kind: &str) -> BodyError {
    wrong(name, value, &format!("{} is not of type '{kind}'", shown(value)))
}

/// An address whose refusal says what would be one.
#[derive(Debug, Clone, Copy)]
pub struct Ip(pub IpAddr);

impl FromStr for Ip {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text: String = text.chars().take(64).collect();
        text.parse().map(Self).map_err(|_| format!("'{}' is not an IPv4 or IPv6 address", text.escape_debug()))
    }
}

/// An address, or a range of them without host bits, whose refusal says what would be one.
#[derive(Debug, Clone, Copy)]
pub struct AddressOrRange(pub IpNetwork);

impl FromStr for AddressOrRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text: String = text.chars().take(64).collect();
        let given: IpNetwork = text.parse().map_err(|_| {
            format!("'{}' is neither an IPv4 or IPv6 address nor a range such as 10.0.0.0/24", text.escape_debug())
        })?;
        match IpNetwork::new(given.network(), given.prefix()) {
            Ok(range) if range != given => Err(format!("'{given}' isn't a recognized IP subnet cidr, '{range}' is recommended")),
            _ => Ok(Self(given)),
        }
    }
}

impl Display for AddressOrRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.prefix() == if self.0.is_ipv4() { 32 } else { 128 } {
            true => self.0.ip().fmt(f),
            false => self.0.fmt(f),
        }
    }
}

/// A value for a message, cut to 256 characters.
pub fn shown(value: &Value) -> String {
    let whole = match value {
        Value::String(text) => text.escape_debug().to_string(),
        other => other.to_string(),
    };
    whole.chars().take(256).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_attributes_are_named() {
        let mut fields = Fields::envelope(br#"{"port": {"name": "a", "nmae": "b"}}"#, "port").unwrap();
        assert_eq!(fields.text("name", 10).unwrap().as_deref(), Some("a"));
        assert!(fields.end().unwrap_err().to_string().contains("'nmae' was unexpected"));
    }

    #[test]
    fn what_is_no_object_is_refused_in_words() {
        for body in [&b"[]"[..], b"1", b"\"x\"", b"{", b"\xff", b"{\"port\": []}", b"{\"port\": {}, \"more\": 1}", b"{}"] {
            assert!(Fields::envelope(body, "port").is_err(), "{}", String::from_utf8_lossy(body));
        }
        assert!(Fields::envelope("[".repeat(100_000).as_bytes(), "port").is_err());
    }

    #[test]
    fn values_are_checked_and_repeated() {
        let mut fields = Fields::object("port", serde_json::json!({"mtu": 70_000, "name": "a\u{0}", "up": "yes"})).unwrap();
        assert!(fields.number("mtu", 1..=65_521).unwrap_err().to_string().contains("Value: 70000"));
        assert!(fields.text("name", 9).is_err());
        assert!(fields.truth("up").is_err());
    }

    #[test]
    fn neutrons_clients_may_write_numbers_and_truths_as_text() {
        let read = |value: Value| Fields::object("x", serde_json::json!({ "x": value })).unwrap();
        for (value, number) in [("1500".into(), Some(1500)), (1500.into(), Some(1500))] {
            assert_eq!(read(value).number_or_text("x", 1280..=65_521).unwrap(), number);
        }
        for bad in ["", "+1500", "1500.0", " 1500", "0x5dc", "99999999999", "1279"] {
            assert!(read(bad.into()).number_or_text("x", 1280..=65_521).is_err(), "{bad}");
        }
        assert!(read("1500".into()).number("x", 1280..=65_521).is_err(), "the agent's own routes take numbers alone");
        for same in [Value::from(false), "False".into(), "false".into(), "0".into(), 0.into()] {
            assert_eq!(read(same).only_truth("x", false), Ok(()));
        }
        assert!(matches!(read("True".into()).only_truth("x", false), Err(BodyError::NotBuilt(_))));
        for bad in [Value::Null, "maybe".into(), 2.into(), serde_json::json!([])] {
            assert!(matches!(read(bad).only_truth("x", false), Err(BodyError::Field { .. })));
        }
    }
}
