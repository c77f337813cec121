//! `nicctl watch`: the event stream on the terminal, until interrupted or the daemon stops.

use jiff::tz::TimeZone;

use super::Session;
use crate::ctl::args::Format;
use crate::ctl::failure::Failure;
use crate::ctl::views::{Width, event_line};

/// Prints events as they come, one line each.
pub async fn run(session: &mut Session, format: Format) -> Result<(), Failure> {
    let zone = TimeZone::system();
    let mut stream = session.client.events().await?;
    loop {
        let event = stream.next().await?;
        match format {
            Format::Json | Format::Yaml => session.out.json_line(&event.sent)?,
            Format::Table => session.out.say(&event_line(&event, Width::Narrow, &zone))?,
            Format::Wide | Format::Csv | Format::Value => session.out.say(&event_line(&event, Width::Wide, &zone))?,
        }
    }
}
