//! Request targets. Paths are put together from UUIDs and constants and need no care; query values come from people.

use std::fmt::Write;

/// `path` with `pairs` as its query, the values percent-encoded.
pub fn with_query(path: &str, pairs: &[(&str, &str)]) -> String {
    let mut target = path.to_owned();
    for (place, (key, value)) in pairs.iter().enumerate() {
        target.push(if place == 0 { '?' } else { '&' });
        target.push_str(key);
        target.push('=');
        encode(&mut target, value);
    }
    target
}

/// Everything but RFC 3986's unreserved characters is encoded.
fn encode(target: &mut String, value: &str) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            target.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(target, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_cannot_leave_their_place() {
        assert_eq!(with_query("/v2.0/ports", &[]), "/v2.0/ports");
        assert_eq!(with_query("/v2.0/ports", &[("a", "x-1._~"), ("b", "")]), "/v2.0/ports?a=x-1._~&b=");
        assert_eq!(with_query("/p", &[("name", "a b&c=d#e?/%é")]), "/p?name=a%20b%26c%3Dd%23e%3F%2F%25%C3%A9");
    }
}
