//! Faults and the rules that inject them, as values and as text in `NICD_FAILPOINTS`.

use std::fmt;
use std::str::FromStr;

use nix::errno::Errno;

use super::Name;

/// What is injected at a failpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The process is killed before the work is done.
    KillBefore,
    /// The process is killed after the work is done, before it sees the result.
    KillAfter,
    /// The work is not done, and the call fails.
    Fail(Errno),
    /// The work is done, and the call fails all the same.
    AppliedButFail(Errno),
    /// A call is done and times out. At a reply, the answer is never given.
    LoseReply,
    /// The thread panics. Only for a real process; [`FailpointKind::faults`] does not list it, as only a bug causes a panic.
    Panic,
}

/// What a failpoint guards. Decides which faults can be injected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FailpointKind {
    /// A call that can fail. Every fault can be injected.
    Call,
    /// One message of a netlink send. It can fail alone; kills are injected at the send as a whole.
    Message,
    /// An answer to a client. It can be lost, but cannot fail.
    Reply,
    /// A step that cannot fail. Only a kill can interrupt it.
    Step,
}

/// Which hits of a failpoint a rule selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hits {
    /// The n-th, from 1.
    Only(usize),
    /// The n-th and all later ones.
    From(usize),
}

/// One recorded hit of a failpoint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hit {
    /// The failpoint's kind.
    pub kind: FailpointKind,
    /// The failpoint's name, `component.action`.
    pub name: String,
}

/// Injects a fault at the selected hits of a failpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultRule {
    /// The failpoint's name, `component.action`.
    pub name: String,
    /// The selected hits.
    pub hits: Hits,
    /// The fault.
    pub fault: Fault,
}

impl FailpointKind {
    const ALL: [(Self, &'static str); 4] =
        [(Self::Call, "call"), (Self::Message, "message"), (Self::Reply, "reply"), (Self::Step, "step")];

    /// Its word in the log.
    pub fn as_str(self) -> &'static str {
        Self::ALL.into_iter().find_map(|(kind, word)| (kind == self).then_some(word)).unwrap_or("call")
    }

    /// The faults that can be injected at a failpoint of this kind, whose calls can fail with `errnos`.
    pub fn faults(self, errnos: &[Errno]) -> Vec<Fault> {
        let failures = || errnos.iter().flat_map(|errno| [Fault::Fail(*errno), Fault::AppliedButFail(*errno)]);
        let kills = [Fault::KillBefore, Fault::KillAfter];
        match self {
            Self::Call => kills.into_iter().chain(failures()).chain([Fault::LoseReply]).collect(),
            Self::Message => failures().collect(),
            Self::Reply => kills.into_iter().chain([Fault::LoseReply]).collect(),
            Self::Step => kills.to_vec(),
        }
    }
}

impl Fault {
    /// Whether it kills the process.
    pub fn is_kill(self) -> bool {
        matches!(self, Self::KillBefore | Self::KillAfter)
    }
}

impl Hits {
    /// Whether it selects the n-th hit.
    pub fn select(self, n: usize) -> bool {
        match self {
            Self::Only(only) => n == only,
            Self::From(first) => n >= first,
        }
    }
}

impl FaultRule {
    /// Whether it injects its fault at the n-th hit of this failpoint.
    pub fn matches(&self, (component, action): Name, n: usize) -> bool {
        let rest = self.name.strip_prefix(component).and_then(|rest| rest.strip_prefix('.'));
        rest == Some(action) && self.hits.select(n)
    }
}

impl fmt::Display for Hit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.name)
    }
}

impl FromStr for Hit {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let wrong = || format!("{line:?} is not a hit; expected KIND NAME");
        let (kind, name) = line.split_once(' ').ok_or_else(wrong)?;
        let kind = FailpointKind::ALL.into_iter().find_map(|(one, word)| (word == kind).then_some(one)).ok_or_else(wrong)?;
        Ok(Self { kind, name: name.to_owned() })
    }
}

impl fmt::Display for FaultRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.hits {
            Hits::Only(n) => write!(f, "{}:{n}:{}", self.name, self.fault),
            Hits::From(n) => write!(f, "{}:{n}+:{}", self.name, self.fault),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KillBefore => f.write_str("kill-before"),
            Self::KillAfter => f.write_str("kill-after"),
            Self::Fail(errno) => write!(f, "fail={errno:?}"),
            Self::AppliedButFail(errno) => write!(f, "applied-but-fail={errno:?}"),
            Self::LoseReply => f.write_str("lose-reply"),
            Self::Panic => f.write_str("panic"),
        }
    }
}

impl FromStr for FaultRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a failpoint rule; expected NAME:NTH:FAULT, for example store.commit:2:fail=EIO");
        let [name, nth, fault] = text.split(':').collect::<Vec<_>>()[..] else { return Err(wrong()) };
        let hits = match nth.strip_suffix('+') {
            Some(first) => Hits::From(first.parse().map_err(|_| wrong())?),
            None => Hits::Only(nth.parse().map_err(|_| wrong())?),
        };
        Ok(Self { name: name.to_owned(), hits, fault: fault.parse()? })
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            None if text == "kill-before" => Ok(Self::KillBefore),
            None if text == "kill-after" => Ok(Self::KillAfter),
            None if text == "lose-reply" => Ok(Self::LoseReply),
            None if text == "panic" => Ok(Self::Panic),
            Some(("fail", errno)) => parse_errno(errno).map(Self::Fail),
            Some(("applied-but-fail", errno)) => parse_errno(errno).map(Self::AppliedButFail),
            _ => {
                let known = "kill-before, kill-after, fail=ERRNO, applied-but-fail=ERRNO, lose-reply or panic";
                Err(format!("{text:?} is not a fault; expected {known}"))
            }
        }
    }
}

/// An errno by its name or its number. The highest errno on Linux is 133.
fn parse_errno(text: &str) -> Result<Errno, String> {
    let mut known = (1..=133).map(Errno::from_raw);
    let found = known.find(|errno| format!("{errno:?}") == text || (*errno as i32).to_string() == text);
    found.ok_or_else(|| format!("{text:?} is not an errno"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_survives_printing_and_parsing() {
        for text in [
            "store.commit:1:kill-before",
            "op.create_tap:2+:fail=EBUSY",
            "event.port.created:3:kill-after",
            "netlink.send:1:applied-but-fail=ENOBUFS",
            "reply.http:1:lose-reply",
            "watch.events:5:panic",
        ] {
            assert_eq!(text.parse::<FaultRule>().unwrap().to_string(), text);
        }
        for wrong in ["", "a:1", "a:0x1:kill-before", "a:1:fail", "a:1:fail=EWHAT", "a:1:die"] {
            assert!(wrong.parse::<FaultRule>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_rule_matches_its_own_failpoint_alone() {
        let rule: FaultRule = "event.port.created:2+:kill-after".parse().unwrap();
        assert!(rule.matches(("event", "port.created"), 2) && rule.matches(("event", "port.created"), 9));
        assert!(!rule.matches(("event", "port.created"), 1) && !rule.matches(("event", "port"), 2));
    }

    #[test]
    fn a_hit_survives_printing_and_parsing() {
        let hit = Hit { kind: FailpointKind::Reply, name: "reply.http".to_owned() };
        assert_eq!(hit.to_string().parse(), Ok(hit));
    }
}
