//! The common query of Neutron's lists: filters by any scalar field, `fields`, sorting, pagination.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::model::Mac;

use super::error::ApiError;
use super::fields::truth_of;
use super::links::escaped;

/// The maximum number of entries of an answer.
const LIMIT: usize = 1_000_000;

/// A list's query, as given.
#[derive(Debug, Default)]
pub(super) struct Listing {
    filters: Filters,
    /// By attribute that is a list of objects: what one and the same of them must have.
    within: BTreeMap<String, Filters>,
    fields: BTreeSet<String>,
    sort: Vec<(String, Direction)>,
    limit: Option<usize>,
    marker: Option<String>,
    reverse: bool,
    /// The query as it came but for the page, for links to other pages: `name=a&` or nothing.
    kept: String,
}

/// By attribute, the values that fit: a query of thousands of them costs a row one look each.
type Filters = BTreeMap<String, BTreeSet<String>>;

/// What the values of an attribute are, wherever it occurs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// True or false.
    Truth,
    /// A whole number.
    Number,
    /// Objects that each have `ip_address` and `subnet_id`; asked for by `fixed_ips=ip_address=10.0.0.1`.
    Addresses,
    /// Any other value, compared as text.
    Text,
}

impl Kind {
    /// Of the attribute with this name.
    pub fn of(attribute: &str) -> Self {
        match attribute {
            "admin_state_up" | "enable_dhcp" | "port_security_enabled" | "router:external" | "shared" | "stateful" => Self::Truth,
            "ip_version" | "mtu" | "port_range_min" | "port_range_max" | "revision_number" => Self::Number,
            "fixed_ips" => Self::Addresses,
            _ => Self::Text,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

impl Listing {
    /// Reads the query string; `known` are the attributes one can filter by.
    pub fn read(query: Option<&str>, known: &[&str]) -> Result<Self, ApiError> {
        let mut listing = Self { kept: kept(query.unwrap_or_default()), ..Self::default() };
        let (mut keys, mut directions) = (Vec::new(), Vec::new());
        for (key, value) in form(query.unwrap_or_default()) {
            match key.as_str() {
                "fields" if value.is_empty() => {}
                "fields" => drop(listing.fields.insert(value)),
                "sort_key" => keys.push(known_key(&value, known)?),
                "sort_dir" => directions.push(direction(&value)?),
                "limit" => {
                    let bad = || ApiError::Query(format!("limit={}: a whole number from 0 is expected", cut(&value)));
                    listing.limit = Some(value.parse().map_err(|_| bad())?);
                }
                "marker" => listing.marker = Some(value),
                "page_reverse" => listing.reverse = value.eq_ignore_ascii_case("true"),
                _ => listing.filter(known_key(&key, known)?, value)?,
            }
        }
        if directions.len() > keys.len() {
            return Err(ApiError::Query("every sort_dir needs a sort_key".to_owned()));
        }
        directions.resize(keys.len(), Direction::Up);
        // Sorting by a key again changes nothing.
        let mut seen = BTreeSet::new();
        listing.sort = keys.into_iter().zip(directions).filter(|(key, _)| seen.insert(key.clone())).collect();
        Ok(listing)
    }

    /// Takes one filter, if it is of its attribute's kind.
    fn filter(&mut self, key: String, value: String) -> Result<(), ApiError> {
        let refuse = |expected: &str| Err(ApiError::Query(format!("{key}={}: {expected} is expected", cut(&value))));
        match Kind::of(&key) {
            Kind::Truth if truth_of(&value).is_none() => return refuse("true or false"),
            Kind::Number if value.parse::<u64>().is_err() => return refuse("a whole number"),
            Kind::Addresses => match value.split_once('=') {
                Some((member @ ("ip_address" | "subnet_id"), wanted)) => {
                    let within = self.within.entry(key).or_default();
                    within.entry(member.to_owned()).or_default().extend(spellings(wanted.to_owned()));
                }
                _ => return refuse("ip_address=… or subnet_id=…"),
            },
            Kind::Truth | Kind::Number | Kind::Text => self.filters.entry(key).or_default().extend(spellings(value)),
        }
        Ok(())
    }

    /// Reads of a query string which page it asks for, and nothing else of it.
    pub fn page(query: Option<&str>) -> Result<Self, ApiError> {
        let query = query.unwrap_or_default();
        let of_page = |pair: &&str| form(pair).iter().any(|(key, _)| matches!(key.as_str(), "limit" | "marker"));
        let paging: Vec<&str> = query.split('&').filter(of_page).collect();
        Ok(Self { kept: kept(query), ..Self::read(Some(&paging.join("&")), &[])? })
    }

    /// The one value asked for of an attribute, for an index to use.
    pub fn only(&self, name: &str) -> Option<&str> {
        let values = self.filters.get(name).filter(|values| values.len() == 1)?;
        values.first().map(String::as_str)
    }

    /// The answer: filtered, sorted, cut to a page with links to the next ones; `here` is the list's own address.
    pub fn answer(&self, collection: &str, here: &str, all: Vec<Value>) -> Result<Value, ApiError> {
        let mut rows: Vec<Value> = all.into_iter().filter(|row| self.fits(row)).collect();
        // Ids give pages a fixed order where nothing else does.
        rows.sort_by(|a, b| self.compare(a, b));
        if self.reverse {
            rows.reverse();
        }
        if let Some(marker) = &self.marker {
            let at = rows.iter().position(|row| row["id"] == marker.as_str());
            let at = at.ok_or_else(|| ApiError::Query(format!("marker={}: no such entry in this list", cut(marker))))?;
            rows.drain(..=at);
        }
        let limit = self.limit.filter(|limit| *limit > 0).unwrap_or(LIMIT);
        let more = rows.len() > limit;
        rows.truncate(limit);
        if self.reverse {
            rows.reverse();
        }
        let mut links = Vec::new();
        let mut link = |rel: &str, marker: &Value, reverse: bool| {
            let marker = marker.as_str().unwrap_or_default();
            let reverse = if reverse { "&page_reverse=True" } else { "" };
            let href = format!("{here}?{}limit={limit}&marker={marker}{reverse}", escaped(&self.kept));
            links.push(json!({"rel": rel, "href": href}));
        };
        // Of the two ends of a page one is where it was cut, the other the marker, if there is one.
        let marked = self.marker.is_some();
        let (after, before) = if self.reverse { (marked, more) } else { (more, marked) };
        if let (Some(first), Some(last), true) = (rows.first(), rows.last(), self.limit.is_some()) {
            if after {
                link("next", &last["id"], false);
            }
            if before {
                link("previous", &first["id"], true);
            }
        }
        let rows: Vec<Value> = rows.into_iter().map(|row| self.cut(row)).collect();
        let mut answer = Map::new();
        answer.insert(collection.to_owned(), Value::Array(rows));
        if !links.is_empty() {
            answer.insert(format!("{collection}_links"), Value::Array(links));
        }
        Ok(Value::Object(answer))
    }

    /// One object with only the fields asked for.
    pub fn cut(&self, row: Value) -> Value {
        match row {
            Value::Object(row) if !self.fields.is_empty() => {
                row.into_iter().filter(|(key, _)| self.fields.contains(key)).collect::<Map<_, _>>().into()
            }
            row => row,
        }
    }

    /// Several values of one key are alternatives; several keys must all fit.
    fn fits(&self, row: &Value) -> bool {
        let rows = |key: &str| row[key].as_array().into_iter().flatten();
        all_fit(row, &self.filters) && self.within.iter().all(|(key, wanted)| rows(key).any(|row| all_fit(row, wanted)))
    }

    fn compare(&self, a: &Value, b: &Value) -> Ordering {
        let by_keys = self.sort.iter().map(|(key, direction)| {
            let order = order(&a[key.as_str()], &b[key.as_str()]);
            if *direction == Direction::Up { order } else { order.reverse() }
        });
        by_keys.fold(Ordering::Equal, Ordering::then).then_with(|| order(&a["id"], &b["id"]))
    }
}

/// A value as given and, where that is an id, a MAC or an address spelt otherwise than answers spell it, as they do.
fn spellings(value: String) -> BTreeSet<String> {
    let usual = match (Uuid::try_parse(&value), value.parse::<Mac>(), value.parse::<IpAddr>()) {
        (Ok(id), ..) => Some(id.to_string()),
        (_, Ok(mac), _) => Some(mac.to_string()),
        (.., Ok(ip)) => Some(ip.to_string()),
        _ => None,
    };
    usual.into_iter().chain([value]).collect()
}

/// A query without what names a page. The pairs stay encoded as they came.
fn kept(query: &str) -> String {
    let of_page = |pair: &&str| form(pair).iter().any(|(key, _)| matches!(key.as_str(), "limit" | "marker" | "page_reverse"));
    query.split('&').filter(|pair| !pair.is_empty() && !of_page(pair)).map(|pair| format!("{pair}&")).collect()
}

/// Key and value pairs of a query string (application/x-www-form-urlencoded).
pub(super) fn form(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(key), decoded(value))
        })
        .collect()
}

/// `?force=`: whether a device is to go also while a process holds it open. Other parameters are their readers' own.
pub(super) fn forced(query: Option<&str>) -> Result<bool, ApiError> {
    let given = form(query.unwrap_or_default()).into_iter().rfind(|(key, _)| key == "force");
    match given.map(|(_, value)| value.to_ascii_lowercase()).as_deref() {
        None | Some("false" | "0") => Ok(false),
        Some("true" | "1" | "") => Ok(true),
        Some(other) => {
            let other: String = other.escape_debug().take(64).collect();
            Err(ApiError::Query(format!("force={other}: true or false is expected")))
        }
    }
}

/// Whether a path is UTF-8 once its escapes are undone.
pub(super) fn is_text(path: &str) -> bool {
    String::from_utf8(unescaped(path, b'+')).is_ok()
}

fn decoded(text: &str) -> String {
    String::from_utf8_lossy(&unescaped(text, b' ')).into_owned()
}

/// The bytes of a percent-encoded text; `plus` is the meaning of `+`.
fn unescaped(text: &str, plus: u8) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = after.first_chunk::<2>().and_then(|hex| {
            let hex = std::str::from_utf8(hex).ok().filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
            u8::from_str_radix(hex, 16).ok()
        });
        match (first, escaped) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            (b'+', _) => {
                bytes.push(plus);
                rest = after;
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    bytes
}

fn known_key(key: &str, known: &[&str]) -> Result<String, ApiError> {
    match known.contains(&key) {
        true => Ok(key.to_owned()),
        false => {
            let key: String = key.chars().take(64).collect();
            Err(ApiError::Query(format!(
                "'{}' is not an attribute of this resource; there are {}",
                key.escape_debug(),
                known.join(", ")
            )))
        }
    }
}

/// Shortens a value for an error message.
fn cut(text: &str) -> String {
    text.escape_debug().take(64).collect()
}

fn direction(text: &str) -> Result<Direction, ApiError> {
    match text {
        "asc" => Ok(Direction::Up),
        "desc" => Ok(Direction::Down),
        other => Err(ApiError::Query(format!("sort_dir={}: asc or desc is expected", cut(other)))),
    }
}

fn all_fit(row: &Value, filters: &Filters) -> bool {
    filters.iter().all(|(key, values)| any_of(&row[key.as_str()], values))
}

fn any_of(value: &Value, texts: &BTreeSet<String>) -> bool {
    match value {
        Value::String(own) => texts.contains(own),
        Value::Number(own) => texts.contains(&own.to_string()),
        other => texts.iter().any(|text| same(other, text)),
    }
}

fn same(value: &Value, text: &str) -> bool {
    match value {
        Value::String(own) => own == text,
        Value::Bool(own) => truth_of(text) == Some(*own),
        Value::Number(own) => own.to_string() == text,
        Value::Null => text.is_empty() || text == "null",
        Value::Array(own) => own.iter().any(|one| same(one, text)),
        Value::Object(_) => false,
    }
}

fn order(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (a, b) => a.to_string().cmp(&b.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["id", "name", "mtu", "up", "fixed_ips", "shared"];

    fn rows() -> Vec<Value> {
        vec![
            json!({"id": "a", "name": "x", "mtu": 1500, "up": true, "fixed_ips": [{"ip_address": "10.0.0.1"}]}),
            json!({"id": "b", "name": "y", "mtu": 9000, "up": false, "fixed_ips": []}),
            json!({"id": "c", "name": "x y", "mtu": 1400, "up": true, "fixed_ips": []}),
        ]
    }

    fn ids(query: &str) -> Vec<String> {
        let answer = Listing::read(Some(query), KNOWN).unwrap().answer("rows", "http://localhost/rows", rows()).unwrap();
        answer["rows"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn filters_alternate_within_a_key_and_add_up_over_keys() {
        assert_eq!(ids("name=x&name=y"), ["a", "b"]);
        assert_eq!(ids("name=x&up=false"), [""; 0]);
        assert_eq!(ids("name=x+y"), ["c"]);
        assert_eq!(ids("name=x%20y"), ["c"]);
        assert_eq!(ids("mtu=9000"), ["b"]);
        assert_eq!(ids("fixed_ips=ip_address%3D10.0.0.1"), ["a"]);
        assert_eq!(ids("fixed_ips=ip_address%3D10.0.0.1&fixed_ips=ip_address%3D10.0.0.2"), ["a"]);
        assert_eq!(ids("fixed_ips=ip_address%3D10.0.0.1&fixed_ips=subnet_id%3Dx"), [""; 0], "of one and the same address");
    }

    #[test]
    fn no_fields_are_all_fields() {
        let answer = Listing::read(Some("fields="), KNOWN).unwrap().answer("rows", "http://localhost/rows", rows()).unwrap();
        assert_eq!(answer["rows"], Value::from(rows()));
    }

    #[test]
    fn a_value_that_its_attribute_cannot_have_is_refused() {
        for bad in ["shared=maybe", "shared=", "mtu=large", "mtu=", "mtu=-1", "fixed_ips=10.0.0.1", "fixed_ips=colour%3Dred"] {
            let Err(ApiError::Query(why)) = Listing::read(Some(bad), KNOWN) else { panic!("{bad}") };
            assert!(why.ends_with("is expected"), "{why}");
        }
        for good in ["shared=True", "shared=0", "mtu=1500", "name=maybe"] {
            assert!(Listing::read(Some(good), KNOWN).is_ok(), "{good}");
        }
    }

    #[test]
    fn sorts_and_pages_with_links() {
        assert_eq!(ids("sort_key=mtu&sort_dir=desc"), ["b", "a", "c"]);
        assert_eq!(ids("limit=2"), ["a", "b"]);
        assert_eq!(ids("limit=2&marker=b"), ["c"]);
        assert_eq!(ids("limit=1&marker=c&page_reverse=True"), ["b"]);
        let page = Listing::read(Some("limit=1"), KNOWN).unwrap().answer("rows", "http://localhost/rows", rows()).unwrap();
        assert_eq!(page["rows_links"][0]["href"], "http://localhost/rows?limit=1&marker=a");
    }

    #[test]
    fn pages_lead_to_both_ends_and_no_further() {
        let walk = |first: &str, rel: &str| {
            let (mut query, mut seen) = (Some(first.to_owned()), Vec::new());
            while let Some(asked) = query {
                let page = Listing::read(Some(&asked), KNOWN).unwrap().answer("rows", "", rows()).unwrap();
                let ids: Vec<_> =
                    page["rows"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect();
                assert!(!ids.is_empty(), "{asked}");
                seen.push(ids.concat());
                let links = page["rows_links"].as_array().cloned().unwrap_or_default();
                let link = links.iter().find(|link| link["rel"] == rel).and_then(|link| link["href"].as_str()?.strip_prefix('?'));
                query = link.map(str::to_owned);
            }
            seen
        };
        assert_eq!(walk("limit=2", "next"), ["ab", "c"]);
        assert_eq!(walk("limit=2&page_reverse=True", "previous"), ["bc", "a"]);
        assert_eq!(walk("limit=2&marker=b", "previous"), ["c", "ab"]);
        assert_eq!(walk("limit=1&page_reverse=True&marker=b", "next"), ["a", "b", "c"]);
        assert_eq!(walk("limit=3", "next"), ["abc"]);
        assert_eq!(walk("limit=3", "previous"), ["abc"]);
    }

    #[test]
    fn the_next_page_is_of_the_same_list() {
        let query = "name=x+y&limit=1&name=x&sort_key=mtu&marker=c&fields=id";
        let page = Listing::read(Some(query), KNOWN).unwrap().answer("rows", "http://localhost/rows", rows()).unwrap();
        let hrefs: Vec<&str> = page["rows_links"].as_array().unwrap().iter().map(|link| link["href"].as_str().unwrap()).collect();
        assert_eq!(hrefs, ["http://localhost/rows?name=x+y&name=x&sort_key=mtu&fields=id&limit=1&marker=a&page_reverse=True"]);
    }

    #[test]
    fn what_is_unknown_is_named() {
        for bad in ["colour=red", "sort_key=colour", "sort_dir=up&sort_key=id", "limit=-1", "limit=x", "sort_dir=asc"] {
            assert!(Listing::read(Some(bad), KNOWN).is_err(), "{bad}");
        }
        assert!(Listing::read(Some("marker=z"), KNOWN).unwrap().answer("rows", "http://localhost/rows", rows()).is_err());
    }

    #[test]
    fn a_query_full_of_alternatives_costs_a_row_one_look_each() {
        let all = "mtu=1&".repeat(2700) + "mtu=1500&" + &"sort_key=name&".repeat(100);
        let listing = Listing::read(Some(&all), KNOWN).unwrap();
        assert_eq!((listing.filters["mtu"].len(), listing.sort.len()), (2, 1));
        assert_eq!(ids(&all), ["a"]);
    }

    #[test]
    fn odd_escapes_stay_text() {
        assert_eq!(
            form("a=%zz&b=%4&c=%2b&=&d"),
            [("a", "%zz"), ("b", "%4"), ("c", "+"), ("", ""), ("d", "")].map(|(k, v)| (k.to_owned(), v.to_owned()))
        );
    }
}
