//! What people see of the daemon's objects: which columns a table has, as data. Pure; `-o json` never comes here.
//!
//! A view is a list of columns, each with the widths it appears in. A list is one row to an object; showing one object
//! is the same columns, all of them, one to a line.

mod agent;
mod event;
mod group;
mod host;
mod network;
mod port;
mod server;
mod subnet;
mod trunk;

pub use agent::{counters, deviations, duration, facts, findings, health, leases, leftovers, passed, steps, times, versions};
pub use event::line as event_line;
pub use group::{GROUP, RULE};
pub use host::{BINDING, FLEET, HOST};
pub use network::NETWORK;
pub use port::PORT;
pub use server::SERVER;
pub use subnet::SUBNET;
pub use trunk::TRUNK;

use std::collections::HashMap;
use std::net::IpAddr;

use serde_json::Value;

use super::client::{Client, ClientError};
use super::failure::Failure;
use super::names::Kind;
use super::table::{Cell, Table};

/// How many digits of an id a narrow table shows: enough to be given back as a prefix.
const SHORT_ID: usize = 8;

/// How much room there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Width {
    /// A table without colours and with short ids.
    Narrow,
    /// A table with everything that fits on a line.
    Wide,
    /// A line to each column.
    Full,
}

/// A kind of object and its columns.
#[derive(Debug)]
pub struct View {
    /// The columns, in order.
    pub columns: &'static [Column],
    /// The columns that refer to things by id, and the things' kind: their names are shown.
    pub refers_to: &'static [(&'static str, Kind)],
}

/// One column.
#[derive(Debug)]
pub struct Column {
    title: &'static str,
    /// The least width it appears in.
    from: Width,
    cell: fn(&Look) -> Cell,
}

/// The order of a list.
#[derive(Debug, Clone, Copy)]
pub enum Order {
    /// By name; what has none is last, by creation.
    ByName,
    /// By a column's text.
    Up(&'static Column),
    /// The same from the last to the first.
    Down(&'static Column),
}

/// Where a cell is in the order of its column: numbers and addresses by their value, then all else as text.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Number(u64),
    Address(IpAddr),
    Text(String),
}

impl Rank {
    fn of(text: String) -> Self {
        // Of several addresses the first decides.
        let first = text.split([',', '/']).next().unwrap_or_default();
        match (text.parse(), first.parse()) {
            (Ok(number), _) => Self::Number(number),
            (_, Ok(address)) => Self::Address(address),
            _ => Self::Text(text),
        }
    }
}

/// One object being looked at.
#[derive(Debug, Clone, Copy)]
pub struct Look<'a> {
    object: &'a Value,
    labels: &'a Labels,
    width: Width,
}

/// What people call the things that objects refer to by id.
#[derive(Debug, Default)]
pub struct Labels(HashMap<String, String>);

impl View {
    /// The columns with these names, or those that there is room for.
    ///
    /// # Errors
    /// There is no column so named.
    pub fn chosen(&self, names: &[String], width: Width) -> Result<Vec<&'static Column>, Failure> {
        match names.is_empty() {
            true => Ok(self.columns.iter().filter(|column| column.from <= width).collect()),
            false => names.iter().map(|name| self.column(name)).collect(),
        }
    }

    /// The order of a list: a column's name, with a - before it from the last to the first.
    ///
    /// # Errors
    /// There is no column so named.
    pub fn order(&self, by: Option<&str>) -> Result<Order, Failure> {
        let Some(by) = by else { return Ok(Order::ByName) };
        match by.strip_prefix('-') {
            Some(name) => Ok(Order::Down(self.column(name)?)),
            None => Ok(Order::Up(self.column(by)?)),
        }
    }

    /// The kinds of things whose names these columns show.
    pub fn kinds<'a>(&self, columns: impl IntoIterator<Item = &'a &'static Column>) -> Vec<Kind> {
        let titles: Vec<&str> = columns.into_iter().map(|column| column.title).collect();
        let mut kinds = Vec::new();
        for (title, kind) in self.refers_to {
            if titles.contains(title) && !kinds.contains(kind) {
                kinds.push(*kind);
            }
        }
        kinds
    }

    /// Titles are compared without case, and with a hyphen or an underline for a space.
    fn column(&self, name: &str) -> Result<&'static Column, Failure> {
        let wanted = name.trim().to_uppercase().replace(['-', '_'], " ");
        let known = || self.columns.iter().map(|column| column.title).collect();
        let found = self.columns.iter().find(|column| column.title == wanted);
        found.ok_or_else(|| Failure::NoColumn { given: name.to_owned(), known: known() })
    }

    /// A row to each object.
    pub fn list(columns: &[&Column], order: Order, mut objects: Vec<Value>, labels: &Labels, width: Width) -> Table {
        let text = |column: &Column, object: &Value| (column.cell)(&Look { object, labels, width }).text().to_owned();
        match order {
            Order::ByName => objects.sort_by_cached_key(|object| {
                let text = |key: &str| object[key].as_str().unwrap_or_default().to_owned();
                let name = text("name");
                (name.is_empty(), name, text("created_at"))
            }),
            Order::Up(column) => objects.sort_by_cached_key(|object| Rank::of(text(column, object))),
            Order::Down(column) => objects.sort_by_cached_key(|object| std::cmp::Reverse(Rank::of(text(column, object)))),
        }
        let mut table = Table::titled(columns.iter().map(|column| column.title));
        for object in &objects {
            let look = Look { object, labels, width };
            table.push(columns.iter().map(|column| (column.cell)(&look)).collect());
        }
        table
    }

    /// A line to each column.
    pub fn detail(columns: &[&Column], object: &Value, labels: &Labels) -> Table {
        let look = Look { object, labels, width: Width::Full };
        let mut table = Table::default();
        for column in columns {
            table.push(vec![Cell::new(&column.title.to_lowercase()), (column.cell)(&look)]);
        }
        table
    }
}

impl Order {
    /// The column that decides.
    pub fn column(&self) -> Option<&&'static Column> {
        match self {
            Self::ByName => None,
            Self::Up(column) | Self::Down(column) => Some(column),
        }
    }
}

impl Labels {
    /// Asks the daemon for the names of all things of these kinds.
    pub async fn fetch(client: &Client, kinds: &[Kind]) -> Result<Self, ClientError> {
        let mut labels = HashMap::new();
        for &kind in kinds {
            for object in kind.list(client, &[]).await? {
                labels.insert(plain(&object["id"]), plain(&object[label_of(kind)]));
            }
        }
        Ok(Self(labels))
    }

    /// What an id is called, if it has a name.
    pub fn get(&self, id: &str) -> Option<&str> {
        self.0.get(id).map(String::as_str).filter(|label| !label.is_empty())
    }
}

/// The member people call a thing by: a subnet is known by its range.
fn label_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Subnet => "cidr",
        // A rule has none.
        Kind::Network | Kind::Group | Kind::Rule | Kind::Server | Kind::Port | Kind::Trunk => "name",
    }
}

impl Look<'_> {
    /// The value at a JSON pointer, as text.
    fn text(&self, pointer: &str) -> String {
        self.object.pointer(pointer).map(plain).unwrap_or_default()
    }

    /// The same, as a cell.
    fn cell(&self, pointer: &str) -> Cell {
        Cell::new(&self.text(pointer))
    }

    /// An id, as long as there is room for.
    fn id(&self, pointer: &str) -> Cell {
        let id = self.text(pointer);
        Cell::new(if self.width == Width::Narrow { short(&id) } else { &id })
    }

    /// An id of something else: its name in a narrow table, the id in a wide one, both where there is room.
    fn reference(&self, pointer: &str) -> Cell {
        let id = self.text(pointer);
        match (self.width, self.labels.get(&id)) {
            (Width::Narrow, Some(label)) => Cell::new(label),
            (Width::Narrow, None) => Cell::new(short(&id)),
            (Width::Full, Some(label)) => Cell::new(&format!("{id} ({label})")),
            (Width::Wide | Width::Full, _) => Cell::new(&id),
        }
    }

    /// Ids of other things, each as `reference` shows it.
    fn references(&self, pointer: &str) -> Cell {
        let ids = self.object.pointer(pointer).and_then(Value::as_array).map_or(0, Vec::len);
        let cells = (0..ids).map(|at| self.reference(&format!("{pointer}/{at}")).text().to_owned());
        Cell::new(&cells.collect::<Vec<_>>().join(", "))
    }

    /// What a thing is called, or the beginning of its id.
    fn called(&self, id: &str) -> String {
        self.labels.get(id).unwrap_or(short(id)).to_owned()
    }

    /// What `read` makes of each item of an array, with commas between.
    fn each(&self, pointer: &str, read: impl Fn(&Value) -> String) -> Cell {
        let items = self.object.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        Cell::new(&items.iter().map(read).collect::<Vec<_>>().join(", "))
    }
}

pub fn short(id: &str) -> &str {
    id.get(..SHORT_ID).unwrap_or(id)
}

/// A JSON value as a person would write it: no quotes, no braces, nothing for null.
pub fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Object(members) => {
            members.iter().map(|(key, value)| format!("{key}={}", plain(value))).collect::<Vec<_>>().join(" ")
        }
    }
}

#[cfg(test)]
mod samples {
    use super::*;

    /// Labels as they would have been fetched.
    pub fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels(pairs.iter().map(|(id, label)| ((*id).to_owned(), (*label).to_owned())).collect())
    }

    /// A list as it would be printed without colours.
    pub fn printed(view: &View, objects: &[Value], labels: &Labels, width: Width) -> String {
        let columns = view.chosen(&[], width).unwrap();
        View::list(&columns, Order::ByName, objects.to_vec(), labels, width).render(crate::ctl::table::Colour::None)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_written_plainly() {
        assert_eq!(plain(&json!(null)), "");
        assert_eq!(plain(&json!(["a", 1, true])), "a, 1, yes");
        assert_eq!(plain(&json!({"b": "x", "a": [1, 2]})), "a=1, 2 b=x");
    }

    #[test]
    fn numbers_and_addresses_are_sorted_by_their_value() {
        let sorted = |cells: [&str; 3]| {
            let mut ranks = cells.map(|cell| Rank::of(cell.to_owned()));
            ranks.sort();
            ranks
        };
        assert_eq!(sorted(["1500", "900", "x"]), ["900", "1500", "x"].map(|cell| Rank::of(cell.to_owned())));
        let addresses = ["10.0.0.2", "10.0.0.10, fd00::1", "192.0.2.0/24"];
        assert_eq!(sorted(["192.0.2.0/24", "10.0.0.10, fd00::1", "10.0.0.2"]), addresses.map(|cell| Rank::of(cell.to_owned())));
    }

    #[test]
    fn what_has_no_name_is_called_by_its_id() {
        let labels = samples::labels(&[("3cb9bc59-5699", ""), ("1", "one")]);
        let object = json!({"a": "3cb9bc59-5699", "b": "1", "c": null});
        let at = |width, pointer| Look { object: &object, labels: &labels, width }.reference(pointer);
        assert_eq!(at(Width::Narrow, "/a"), Cell::new("3cb9bc59"));
        assert_eq!(at(Width::Narrow, "/b"), Cell::new("one"));
        assert_eq!(at(Width::Wide, "/b"), Cell::new("1"));
        assert_eq!(at(Width::Full, "/b"), Cell::new("1 (one)"));
        assert_eq!(at(Width::Full, "/c"), Cell::new(""));
    }
}
