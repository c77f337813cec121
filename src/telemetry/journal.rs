//! The log in systemd's journal: each line with its priority and its fields, so that `journalctl -p warning` and
//! `journalctl NICD_PORT=…` find it.
//!
//! An entry is sent by the journal's own protocol (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL>). One that cannot be sent, or is
//! longer than a datagram, goes to standard error with its priority before it (sd-daemon(3)).

use std::fmt::{self, Debug, Write};
use std::os::unix::net::UnixDatagram;

use nix::sys::stat::fstat;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::stderr;

/// Where the journal takes entries.
const SOCKET: &str = "/run/systemd/journal/socket";

/// The priority of what ends the process (syslog(3)).
pub(super) const ERROR: u8 = 3;

/// Whether standard error is a stream of the journal (`JOURNAL_STREAM` in systemd.exec(5)). It is not where a program that the
/// journal listens to started nicd with another standard error.
pub(super) fn is_on_stderr() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    fstat(std::io::stderr()).is_ok_and(|file| stream == format!("{}:{}", file.st_dev, file.st_ino))
}

/// Sends an entry; false when the journal does not take it.
pub(super) fn send(socket: &UnixDatagram, entry: &[u8]) -> bool {
    socket.send_to(entry, SOCKET).is_ok()
}

/// A text with its priority before each of its lines.
pub(super) fn prefixed(priority: u8, text: &str) -> Vec<u8> {
    text.lines().map(|line| format!("<{priority}>{line}\n")).collect::<String>().into_bytes()
}

/// Writes events as entries, with the text that another format gives them.
#[derive(Debug)]
pub(super) struct Entries<E>(pub E);

impl<S, N, E> FormatEvent<S, N> for Entries<E>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'writer> FormatFields<'writer> + 'static,
    E: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, _: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut text = String::new();
        self.0.format_event(context, Writer::new(&mut text), event)?;
        let text = text.trim();
        let priority = match *event.metadata().level() {
            Level::ERROR => ERROR,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        let mut fields = Fields::default();
        fields.put("MESSAGE", text);
        fields.put("PRIORITY", &priority.to_string());
        fields.put("SYSLOG_IDENTIFIER", "nicd");
        for span in context.event_scope().into_iter().flatten() {
            if let Some(Fields(of_span)) = span.extensions().get() {
                fields.0.extend_from_slice(of_span);
            }
        }
        event.record(&mut fields);
        stderr::write_entry(prefixed(priority, text), fields.0);
        Ok(())
    }
}

/// Keeps the fields of spans for the entries of their events.
#[derive(Debug)]
pub(super) struct OfSpans;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for OfSpans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }
}

/// Fields of an entry, as they are sent.
#[derive(Debug, Default)]
struct Fields(Vec<u8>);

impl Fields {
    fn put(&mut self, name: &str, value: &str) {
        self.0.extend_from_slice(name.as_bytes());
        if value.contains('\n') {
            self.0.push(b'\n');
            self.0.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            self.0.push(b'=');
        }
        self.0.extend_from_slice(value.as_bytes());
        self.0.push(b'\n');
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() != "message" {
            self.put(&name(field.name()), value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut text = String::new();
        if write!(text, "{value:?}").is_ok() {
            self.record_str(field, &text);
        }
    }
}

/// `request_id` is `NICD_REQUEST_ID`. The journal takes capital letters, digits and `_`.
fn name(field: &str) -> String {
    let plain = field.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' });
    "NICD_".chars().chain(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_several_lines_has_its_length_before_it() {
        let mut fields = Fields::default();
        fields.put(&name("request_id"), "req-1");
        fields.put("MESSAGE", "a\nb");
        assert_eq!(fields.0, b"NICD_REQUEST_ID=req-1\nMESSAGE\n\x03\0\0\0\0\0\0\0a\nb\n");
    }

    #[test]
    fn each_line_of_a_text_has_the_priority() {
        assert_eq!(prefixed(3, "nicd: a\nb"), b"<3>nicd: a\n<3>b\n");
    }
}
