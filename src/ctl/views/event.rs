//! Events, one line each: they come one at a time, so there is no table to line them up in.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use nicd_client::{Event, EventKind};
use uuid::Uuid;

use super::{Width, short};
use crate::ctl::table::harmless;

/// An event as a line: time, kind, port, old and new status, reason.
pub fn line(event: &Event, width: Width, zone: &TimeZone) -> String {
    let id = |id: Option<Uuid>| match (id, width) {
        (Some(id), Width::Narrow) => short(&id.to_string()).to_owned(),
        (Some(id), Width::Wide | Width::Full) => id.to_string(),
        (None, _) => String::new(),
    };
    let labelled = |label: &str, text: String| if text.is_empty() { text } else { format!("{label} {text}") };
    let mut parts = vec![
        clock(&event.at, zone),
        format!("{:<14}", event.kind.as_str()),
        labelled("port", id(event.port_id)),
        labelled("server", id(event.server_id)),
        change(event),
        event.phase.as_ref().map(ToString::to_string).unwrap_or_default(),
        event.reason.clone().unwrap_or_default(),
    ];
    if event.kind == EventKind::Lost {
        parts.push("events were missed: list again to see how things are now".to_owned());
    }
    if width == Width::Wide {
        parts.push(labelled("network", id(event.network_id)));
        parts.push(event.request_id.clone().unwrap_or_default());
    }
    parts.retain(|part| !part.is_empty());
    harmless(parts.join("  ").trim_end())
}

/// The status now, and the one before if it was another.
fn change(event: &Event) -> String {
    match (&event.old, &event.new) {
        (Some(old), Some(new)) if old != new => format!("{old} -> {new}"),
        (_, Some(new)) => new.to_string(),
        (Some(old), None) => format!("was {old}"),
        (None, None) => String::new(),
    }
}

/// The local time, as in the journal beside it; what is not a time is shown as it came.
fn clock(at: &str, zone: &TimeZone) -> String {
    match at.parse::<Timestamp>() {
        Ok(time) => time.to_zoned(zone.clone()).strftime("%F %T%.3f").to_string(),
        Err(_) => at.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use nicd_client::{Phase, PortStatus};

    use super::*;

    fn event() -> Event {
        Event {
            kind: EventKind::PortStatus,
            at: "2026-03-01T12:00:01.25Z".to_owned(),
            port_id: "ce531f90-199f-48c0-816c-13e38010b442".parse().ok(),
            server_id: "99999999-1699-4588-a4b1-b87f96708bc6".parse().ok(),
            network_id: "3cb9bc59-5699-4588-a4b1-b87f96708bc6".parse().ok(),
            old: Some(PortStatus::Build),
            new: Some(PortStatus::Error),
            phase: Some(Phase::Error),
            reason: Some("bridge_full".to_owned()),
            request_id: Some("req-1".to_owned()),
            ..Event::default()
        }
    }

    #[test]
    fn a_change_is_one_line() {
        assert_eq!(
            line(&event(), Width::Narrow, &TimeZone::UTC),
            "2026-03-01 12:00:01.250  port.status     port ce531f90  server 99999999  BUILD -> ERROR  error  bridge_full"
        );
        assert!(line(&event(), Width::Wide, &TimeZone::UTC).ends_with("  network 3cb9bc59-5699-4588-a4b1-b87f96708bc6  req-1"));
    }

    #[test]
    fn what_is_not_there_takes_no_room() {
        let lost = Event { kind: EventKind::Lost, at: "17".to_owned(), ..Event::default() };
        assert_eq!(
            line(&lost, Width::Narrow, &TimeZone::UTC),
            "17  lost            events were missed: list again to see how things are now"
        );
    }

    #[test]
    fn only_a_change_has_an_arrow() {
        let with = |old: Option<&str>, new: Option<&str>| {
            let word = |word: Option<&str>| word.map(|word| PortStatus::from(word.to_owned()));
            change(&Event { old: word(old), new: word(new), ..Event::default() })
        };
        assert_eq!(with(None, Some("DOWN")), "DOWN");
        assert_eq!(with(Some("DOWN"), Some("DOWN")), "DOWN");
        assert_eq!(with(Some("DOWN"), None), "was DOWN");
        assert_eq!(with(None, None), "");
    }
}
