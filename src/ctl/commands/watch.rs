//! `nicctl watch`: the event stream on the terminal, until interrupted. It goes on after a restart of the daemon.

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
        let line = |width| format!("{}\n", event_line(&event, width, &zone));
        match format {
            Format::Json | Format::Yaml => session.out.json_line(&event.sent)?,
            Format::Table => session.out.raw(line(Width::Narrow).as_bytes())?,
            Format::Wide | Format::Csv | Format::Value => session.out.raw(line(Width::Wide).as_bytes())?,
        }
    }
}
