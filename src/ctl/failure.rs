//! The errors of commands, with their exit codes and messages.
//!
//! A `Display` says what failed and leaves out its source; the chain is joined here, once, and advice is put after it.

use std::error::Error;
use std::io;

use hyper::{Method, StatusCode};
use nicd_client::{Call, RemoteError};

use super::client::ClientError;
use super::names::NameError;
use super::table;
use super::wait::WaitError;

/// The command line is wrong; clap uses the same code.
pub const USAGE: u8 = 2;

const FAILED: u8 = 1;
const WAIT_TIMED_OUT: u8 = 3;
const UNREACHABLE: u8 = 4;

/// A command that did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A call on the daemon failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The daemon of another host cannot be called at all.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// `doctor` of another host.
    #[error("doctor looks at the host that it runs on: run it there, without --host")]
    LocalOnly,
    /// A name stands for nothing, or for too much.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Waiting did not end as hoped.
    #[error(transparent)]
    Wait(#[from] WaitError),
    /// `server add` with a name that is taken: two servers with the same name differ only by UUID.
    #[error("a server named '{name}' exists already, with id {id}: to change it, give that id")]
    ServerExists {
        /// The name given.
        name: String,
        /// Whose it is.
        id: String,
    },
    /// `server add` with two names.
    #[error("'{given}' is not a UUID and so is the server's name already: give a UUID, or leave out --name")]
    NamedTwice {
        /// What stands in the UUID's place.
        given: String,
    },
    /// A network's subnet was refused and the network could not be taken back.
    #[error("network {network} was made, its subnet was not, and deleting the network again failed too ({undo})")]
    HalfMade {
        /// The network left behind.
        network: String,
        /// Why deleting it failed.
        undo: Box<ClientError>,
        /// Why the subnet was not made.
        source: ClientError,
    },
    /// `attach` made a port that could not be attached, and could not be deleted again.
    #[error("port {port} was made, could not be attached, and deleting it again failed too ({undo})")]
    PortLeft {
        /// The port left behind.
        port: String,
        /// Why deleting it failed.
        undo: Box<ClientError>,
        /// Why it was not attached.
        source: ClientError,
    },
    /// `status` shows problems.
    #[error("nicd is degraded; problems: {0}, each listed with its remedy")]
    Degraded(usize),
    /// `fleet status` of a host that does not reach its fleet.
    #[error("etcd is not reached")]
    FleetUnreached,
    /// `doctor` cannot look at the host.
    #[error("this host cannot be looked at over netlink")]
    Host(#[source] io::Error),
    /// `doctor` found what stops attaches.
    #[error("what stops attaches on this host: {0}, each listed with its remedy")]
    Findings(usize),
    /// A list has no such column.
    #[error("there is no column '{given}'; there are: {}", known.join(", "))]
    NoColumn {
        /// What was given.
        given: String,
        /// The columns there are.
        known: Vec<&'static str>,
    },
    /// `verify` found something.
    #[error("records and kernel differ in {0}: each is listed")]
    Deviations(usize),
    /// `top` without a terminal.
    #[error("a live table needs a terminal and no -o: `nicctl top --once` prints one frame, also as -o json")]
    NotLive,
    /// `top` in a form that lists have.
    #[error("a frame has no list's form: `nicctl top --once` prints the frame, and objects as -o json or -o yaml")]
    NotAList,
    /// A signal ended it.
    #[error("signal {0}")]
    Signal(u8),
    /// The answer could not be written.
    #[error("the answer could not be written")]
    Output(#[source] io::Error),
    /// The process could not be set up.
    #[error("the client could not be started")]
    Runtime(#[source] io::Error),
}

impl Failure {
    /// The exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            // As a shell has it.
            Self::Signal(number) => 128 + number,
            _ if self.is_quiet() => 0,
            Self::Client(error) => client_code(error),
            Self::Wait(WaitError::TimedOut { .. }) => WAIT_TIMED_OUT,
            Self::Wait(WaitError::Client(error)) => client_code(error),
            Self::NamedTwice { .. } | Self::NoColumn { .. } | Self::NotLive | Self::NotAList => USAGE,
            Self::Remote(_) | Self::LocalOnly => USAGE,
            Self::Wait(_) | Self::Name(_) | Self::ServerExists { .. } | Self::HalfMade { .. } | Self::Deviations(_) => FAILED,
            Self::PortLeft { .. } | Self::Degraded(_) | Self::FleetUnreached => FAILED,
            Self::Host(_) | Self::Findings(_) => FAILED,
            Self::Output(_) | Self::Runtime(_) => FAILED,
        }
    }

    /// Whether to print no error, because the reader closed the pipe, or a signal ended it.
    pub fn is_quiet(&self) -> bool {
        match self {
            Self::Signal(_) => true,
            Self::Output(error) => error.kind() == io::ErrorKind::BrokenPipe,
            _ => false,
        }
    }

    /// The failure, its causes and what would help, on one line.
    pub fn sentence(&self) -> String {
        let mut sentence = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            sentence.push_str(": ");
            sentence.push_str(&error.to_string());
            cause = error.source();
        }
        // The method and the target of the request mean nothing to a person who typed a command.
        if let Some(call) = self.client().and_then(call_of) {
            sentence = sentence.replace(&call.to_string(), "the request");
        }
        let request = self.client().and_then(|error| error.refusal()?.request_id.as_deref());
        let advice = self.client().and_then(client_advice).map(str::to_owned);
        for more in advice.into_iter().chain(request.map(|id| format!("request {id}"))) {
            sentence.push_str("; ");
            sentence.push_str(&more);
        }
        table::harmless(&sentence)
    }

    /// The failed call, if it is one.
    fn client(&self) -> Option<&ClientError> {
        match self {
            Self::Client(error) | Self::Wait(WaitError::Client(error)) => Some(error),
            Self::HalfMade { source, .. } | Self::PortLeft { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// What was called, where the error says so.
fn call_of(error: &ClientError) -> Option<&Call> {
    match error {
        ClientError::Unanswered { call, .. }
        | ClientError::Silent { call, .. }
        | ClientError::Unsendable { call, .. }
        | ClientError::Unreadable { call, .. } => Some(call),
        _ => None,
    }
}

fn client_code(error: &ClientError) -> u8 {
    match error {
        ClientError::Unreachable { .. }
        | ClientError::Unanswered { .. }
        | ClientError::Silent { .. }
        | ClientError::StreamEnded { .. } => UNREACHABLE,
        ClientError::Refused(_)
        | ClientError::Unsendable { .. }
        | ClientError::Unreadable { .. }
        | ClientError::Incomplete { .. } => FAILED,
    }
}

fn client_advice(error: &ClientError) -> Option<&'static str> {
    match error {
        ClientError::Unreachable { at, source } if at.starts_with("https://") => remote_advice(source.kind()),
        ClientError::Unreachable { source, .. } => connect_advice(source.kind()),
        ClientError::Unanswered { call, .. } | ClientError::Silent { call, .. } if call.method != Method::GET => {
            Some("it may or may not have been carried out: `nicctl list` shows which")
        }
        ClientError::Refused(refusal) if refusal.status == StatusCode::UNAUTHORIZED => {
            Some("only root and members of the group nicd may use this socket")
        }
        _ => None,
    }
}

fn remote_advice(kind: io::ErrorKind) -> Option<&'static str> {
    match kind {
        io::ErrorKind::ConnectionRefused => Some("does nicd run there, with this address as tls in [listen]?"),
        io::ErrorKind::InvalidData => {
            Some("has --cacert the authority of that host's certificate, and is --cert of an authority in its client_ca?")
        }
        _ => None,
    }
}

fn connect_advice(kind: io::ErrorKind) -> Option<&'static str> {
    match kind {
        io::ErrorKind::NotFound => {
            Some("is nicd running (systemctl status nicd), and is this its socket (--socket or NICD_SOCKET names another)?")
        }
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => {
            Some("the socket is there but nothing listens on it: is nicd running (systemctl status nicd)?")
        }
        io::ErrorKind::PermissionDenied => {
            Some("are you in its group? root and members of nicd may use it; members of nicd-view may read at nicd-view.sock")
        }
        io::ErrorKind::WouldBlock => Some("nicd is running but does not take new connections: try again"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use hyper::HeaderMap;
    use nicd_client::Refusal;

    use super::*;

    fn unreachable(errno: i32) -> Failure {
        let source = io::Error::from_raw_os_error(errno);
        ClientError::Unreachable { at: "/run/nicd/nicd.sock".to_owned(), source }.into()
    }

    #[test]
    fn an_unreachable_daemon_is_told_with_the_path_the_error_and_a_remedy() {
        for (errno, said) in [
            (libc::ENOENT, "No such file or directory (os error 2); is nicd running"),
            (libc::ECONNREFUSED, "Connection refused (os error 111); the socket is there but nothing listens on it"),
            (libc::EACCES, "Permission denied (os error 13); are you in its group?"),
            (libc::EAGAIN, "Resource temporarily unavailable (os error 11); nicd is running but"),
        ] {
            let failure = unreachable(errno);
            assert_eq!(failure.exit_code(), 4);
            let sentence = failure.sentence();
            assert!(sentence.starts_with("nicd cannot be reached at /run/nicd/nicd.sock: "), "{sentence}");
            assert!(sentence.contains(said), "{sentence}");
        }
    }

    #[test]
    fn a_failure_is_one_harmless_line() {
        let body = br#"{"badRequest": {"code": 400, "message": "a\nb\u001b[31m"}}"#;
        let error = Refusal::from_answer(StatusCode::BAD_REQUEST, &HeaderMap::new(), body);
        assert_eq!(Failure::from(ClientError::from(error)).sentence(), "a\\nb\\u{1b}[31m");
        let headers = HeaderMap::from_iter([("x-request-id".parse().unwrap(), "req-1".parse().unwrap())]);
        let error =
            Refusal::from_answer(StatusCode::BAD_REQUEST, &headers, br#"{"badRequest": {"message": "no", "reason": "why"}}"#);
        assert_eq!(Failure::from(ClientError::from(error)).sentence(), "no (why); request req-1");
    }

    #[test]
    fn a_request_is_not_told_in_words_of_http() {
        let call = Call { method: Method::POST, target: "/v2.0/ports".to_owned() };
        let limit = std::time::Duration::from_secs(7);
        let sentence = Failure::from(ClientError::Silent { at: "/s".to_owned(), call, limit }).sentence();
        assert!(sentence.starts_with("nicd at /s did not answer the request within 7 s; it may or may not"), "{sentence}");
    }

    #[test]
    fn a_closed_pipe_is_a_quiet_end_and_a_full_disk_is_not() {
        assert!(Failure::Output(io::ErrorKind::BrokenPipe.into()).is_quiet());
        assert!(!Failure::Output(io::ErrorKind::StorageFull.into()).is_quiet());
    }
}
