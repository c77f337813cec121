//! Events, one line each: they come one at a time, so there is no table to line them up in.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

use super::{Width, plain, short};
use crate::ctl::events::Event;
use crate::ctl::table::harmless;

/// An event as a line: time, kind, port, old and new status, reason.
pub fn line(event: &Event, width: Width, zone: &TimeZone) -> String {
    let id = |id: &Option<String>| match (id, width) {
        (Some(id), Width::Narrow) => short(id).to_owned(),
        (Some(id), Width::Wide | Width::Full) => id.clone(),
        (None, _) => String::new(),
    };
    let labelled = |label: &str, text: String| if text.is_empty() { text } else { format!("{label} {text}") };
    let mut parts = vec![
        clock(&event.at, zone),
        format!("{:<14}", event.event),
        labelled("port", id(&event.port_id)),
        labelled("server", id(&event.server_id)),
        change(event),
        event.phase.clone().unwrap_or_default(),
        event.reason.clone().unwrap_or_default(),
    ];
    if event.event == "lost" {
        parts.push("events were missed: list again to see how things are now".to_owned());
    }
    if width == Width::Wide {
        parts.push(labelled("network", id(&event.network_id)));
        parts.push(event.request_id.clone().unwrap_or_default());
    }
    parts.retain(|part| !part.is_empty());
    harmless(parts.join("  ").trim_end())
}

/// The status now, and the one before if it was another.
fn change(event: &Event) -> String {
    match (event.old.as_deref(), event.new.as_deref()) {
        (Some(old), Some(new)) if old != new => format!("{old} -> {new}"),
        (_, Some(new)) => new.to_owned(),
        (Some(old), None) => format!("was {old}"),
        (None, None) => String::new(),
    }
}

/// The local time, as in the journal beside it; what is not a time is shown as it came.
fn clock(at: &Value, zone: &TimeZone) -> String {
    let said = plain(at);
    match said.parse::<Timestamp>() {
        Ok(time) => time.to_zoned(zone.clone()).strftime("%F %T%.3f").to_string(),
        Err(_) => said,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event() -> Event {
        Event {
            event: "port.status".to_owned(),
            at: json!("2026-03-01T12:00:01.25Z"),
            port_id: Some("ce531f90-199f-48c0".to_owned()),
            server_id: Some("99999999-1699-4588".to_owned()),
            network_id: Some("3cb9bc59-5699-4588".to_owned()),
            old: Some("BUILD".to_owned()),
            new: Some("ERROR".to_owned()),
            phase: Some("error".to_owned()),
            reason: Some("bridge_full".to_owned()),
            request_id: Some("req-1".to_owned()),
        }
    }

    #[test]
    fn a_change_is_one_line() {
        assert_eq!(
            line(&event(), Width::Narrow, &TimeZone::UTC),
            "2026-03-01 12:00:01.250  port.status     port ce531f90  server 99999999  BUILD -> ERROR  error  bridge_full"
        );
        assert!(line(&event(), Width::Wide, &TimeZone::UTC).ends_with("  network 3cb9bc59-5699-4588  req-1"));
    }

    #[test]
    fn what_is_not_there_takes_no_room() {
        let lost = Event { event: "lost".to_owned(), at: json!(17), ..Event::default() };
        assert_eq!(
            line(&lost, Width::Narrow, &TimeZone::UTC),
            "17  lost            events were missed: list again to see how things are now"
        );
    }

    #[test]
    fn only_a_change_has_an_arrow() {
        let with = |old: Option<&str>, new: Option<&str>| {
            change(&Event { old: old.map(str::to_owned), new: new.map(str::to_owned), ..Event::default() })
        };
        assert_eq!(with(None, Some("DOWN")), "DOWN");
        assert_eq!(with(Some("DOWN"), Some("DOWN")), "DOWN");
        assert_eq!(with(Some("DOWN"), None), "was DOWN");
        assert_eq!(with(None, None), "");
    }
}
