//! Parses JSON (RFC 8259) and refuses duplicate keys. Parsers differ in which of two values they use (§4), so a proxy in front of nicd
//! might check another value than nicd uses.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::{Map, Value};

use super::fields::BodyError;

/// Reads a whole text in one pass.
///
/// # Errors
/// It is no JSON, is nested more than 127 deep, or an object in it has a key twice, however that is spelt.
pub(super) fn read(text: &[u8]) -> Result<Value, BodyError> {
    let read = serde_json::from_slice(text).map(|Strict(value)| value);
    read.map_err(|error| match error.classify() {
        // `Strict` takes every type there is, and refuses nothing but a key given twice.
        Category::Data => BodyError::Twice(error.to_string()),
        Category::Io | Category::Syntax | Category::Eof => BodyError::Json(error.to_string()),
    })
}

/// Any JSON, with each key of each object once.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader).map(Self)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(entry)) = entries.next_element()? {
            list.push(entry);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if object.contains_key(&key) {
                let key: String = key.chars().take(64).collect();
                return Err(A::Error::custom(format!("the key '{}' is given twice", key.escape_debug())));
            }
            let Strict(value) = entries.next_value()?;
            object.insert(key, value);
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whatever_is_json_is_read_as_serde_json_reads_it() {
        let all = r#" {"a": [null, true, -1, 18446744073709551615, 1.5, 1e3, "é\u00e9\ud83d\ude00", [], {}], "b": {"a": 1}} "#;
        assert_eq!(read(all.as_bytes()).unwrap(), serde_json::from_str::<Value>(all).unwrap());
        assert_eq!(read(b"1").unwrap(), json!(1));
    }

    #[test]
    fn a_key_given_twice_is_named_wherever_it_is_and_however_it_is_spelt() {
        for body in [
            r#"{"mtu": 1, "mtu": 1}"#,
            r#"{"network": {"mtu": 1, "name": "a", "mtu": 2}}"#,
            r#"{"networks": [{}, {"mtu": 1, "m\u0074u": 2}]}"#,
            r#"{"a": {"b": [{"c": {"mtu": {}, "mtu": {}}}]}}"#,
        ] {
            let Err(BodyError::Twice(why)) = read(body.as_bytes()) else { panic!("{body}") };
            assert!(why.contains("the key 'mtu' is given twice"), "{why}");
        }
        assert!(read(br#"{"a": {"b": 1}, "c": {"b": 1}, "A": 1}"#).is_ok());
        let long = format!(
            "{{\"{0}\": 1, \"{0}\": 2}}",
            "\u{0}".repeat(10_000).escape_unicode().to_string().replace("\\u{0}", "\\u0000")
        );
        let Err(BodyError::Twice(why)) = read(long.as_bytes()) else { panic!("a long key") };
        assert!(why.len() < 1000 && !why.contains('\u{0}'), "{why}");
    }

    #[test]
    fn what_is_no_json_is_told_from_it() {
        for body in [
            &b"{"[..],
            b"{\"a\": 1e999}",
            b"-1e999",
            b"\"\\ud800\"",
            b"\"\\udc00\\ud800\"",
            b"{\"a\": \"\x00\"}",
            b"\"\xff\"",
            b"{\"a\": 1} {}",
            b"{\"a\": 1, \"a\"",
        ] {
            let error = read(body).unwrap_err();
            assert!(matches!(error, BodyError::Json(_)) || body.ends_with(b"\"a\""), "{error}");
        }
        for open in ["[", "{\"a\":"] {
            assert!(matches!(read(open.repeat(128).as_bytes()), Err(BodyError::Json(_))));
            assert!(matches!(read(open.repeat(1_000_000).as_bytes()), Err(BodyError::Json(_))));
        }
    }
}
