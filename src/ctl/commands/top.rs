//! `nicctl top`.

use std::time::Duration;

use serde_json::json;

use super::Session;
use crate::ctl::args::Format;
use crate::ctl::failure::Failure;
use crate::ctl::top::{self, KEYS, Order};

/// Characters to a line where no terminal says how many: enough for all columns.
const WIDTH: u16 = 200;

/// Shows the ports until it is quit, or prints one frame.
pub async fn run(session: &mut Session, once: bool, interval: Duration) -> Result<(), Failure> {
    let asked = session.out.listing().sort.as_deref();
    let no_key = |given: &str| Failure::NoColumn { given: given.to_owned(), known: KEYS.map(|key| key.as_str()).to_vec() };
    let order = asked.map_or(Ok(Order::default()), |text| Order::read(text).ok_or_else(|| no_key(text)))?;
    let is_object = session.out.format().is_objects();
    let listing = session.out.listing();
    let is_list = matches!(session.out.format(), Format::Csv | Format::Value) || !listing.columns.is_empty() || listing.no_header;
    if once && is_list {
        return Err(Failure::NotAList);
    }
    if !once && (is_object || session.out.room().is_none()) {
        return Err(Failure::NotLive);
    }
    if !once {
        return top::run(&session.client, order, interval).await;
    }
    let picture = top::once(&session.client, interval).await?;
    if is_object {
        return session.out.object(&json!({ "ports": picture.rows.sorted(order) }));
    }
    let width = session.out.room().and_then(|room| u16::try_from(room).ok()).unwrap_or(WIDTH);
    session.out.raw(top::text(&picture, order, width)?.as_bytes())
}
