//! What can go wrong at a point, as values and as the environment spells them.

use std::fmt;
use std::str::FromStr;

use nix::errno::Errno;

use super::Name;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The process dies, and the work is not done.
    KillBefore,
    /// The work is done, and the process dies before it learns of it.
    KillAfter,
    /// The work is refused and not done.
    Fail(Errno),
    /// The work is done and reported as refused.
    AppliedButFail(Errno),
    /// The work is done and its answer never comes; of an answer, that it is never given.
    LoseReply,
    /// A panic, which no list of what can go wrong has: it is a bug's doing. For a real process alone.
    Panic,
}

/// What kind of place a point is, which decides what can go wrong there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A call that can fail. Everything can go wrong.
    Call,
    /// One message of a send. It is refused alone; the process dies around the whole send.
    Message,
    /// An answer. It can be lost, but not fail.
    Reply,
    /// Something that only a death can interrupt.
    Moment,
}

/// Which of a point's passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The n-th, from 1.
    Only(usize),
    /// The n-th and all behind it.
    From(usize),
}

/// One pass of a point, as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pass {
    /// Its kind.
    pub kind: Kind,
    /// Its name, `room.what`.
    pub name: String,
}

/// That something is to go wrong at a pass of a point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The point's name, `room.what`.
    pub name: String,
    /// Which pass.
    pub which: Which,
    /// What goes wrong.
    pub fault: Fault,
}

impl Kind {
    const ALL: [(Self, &'static str); 4] =
        [(Self::Call, "call"), (Self::Message, "message"), (Self::Reply, "reply"), (Self::Moment, "moment")];

    /// Its word in a list.
    pub fn as_str(self) -> &'static str {
        Self::ALL.into_iter().find_map(|(kind, word)| (kind == self).then_some(word)).unwrap_or("call")
    }

    /// What can go wrong at such a place, when a refusal there says one of `errnos`.
    pub fn faults(self, errnos: &[Errno]) -> Vec<Fault> {
        let refusals = || errnos.iter().flat_map(|errno| [Fault::Fail(*errno), Fault::AppliedButFail(*errno)]);
        let deaths = [Fault::KillBefore, Fault::KillAfter];
        match self {
            Self::Call => deaths.into_iter().chain(refusals()).chain([Fault::LoseReply]).collect(),
            Self::Message => refusals().collect(),
            Self::Reply => deaths.into_iter().chain([Fault::LoseReply]).collect(),
            Self::Moment => deaths.to_vec(),
        }
    }
}

impl Fault {
    /// Whether the process dies of it.
    pub fn is_death(self) -> bool {
        matches!(self, Self::KillBefore | Self::KillAfter)
    }
}

impl Which {
    /// Whether it means the n-th pass.
    pub fn is(self, n: usize) -> bool {
        match self {
            Self::Only(only) => n == only,
            Self::From(first) => n >= first,
        }
    }
}

impl Order {
    /// Whether it means the n-th pass of the point of this name.
    pub fn means(&self, (room, what): Name, n: usize) -> bool {
        let rest = self.name.strip_prefix(room).and_then(|rest| rest.strip_prefix('.'));
        rest == Some(what) && self.which.is(n)
    }
}

impl fmt::Display for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.name)
    }
}

impl FromStr for Pass {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let wrong = || format!("{line:?} is no pass; KIND NAME is expected");
        let (kind, name) = line.split_once(' ').ok_or_else(wrong)?;
        let kind = Kind::ALL.into_iter().find_map(|(one, word)| (word == kind).then_some(one)).ok_or_else(wrong)?;
        Ok(Self { kind, name: name.to_owned() })
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.which {
            Which::Only(n) => write!(f, "{}:{n}:{}", self.name, self.fault),
            Which::From(n) => write!(f, "{}:{n}+:{}", self.name, self.fault),
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

impl FromStr for Order {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no order; NAME:NTH:FAULT is expected, as in store.commit:2:fail=EIO");
        let [name, nth, fault] = text.split(':').collect::<Vec<_>>()[..] else { return Err(wrong()) };
        let which = match nth.strip_suffix('+') {
            Some(first) => Which::From(first.parse().map_err(|_| wrong())?),
            None => Which::Only(nth.parse().map_err(|_| wrong())?),
        };
        Ok(Self { name: name.to_owned(), which, fault: fault.parse()? })
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
            Some(("fail", errno)) => named(errno).map(Self::Fail),
            Some(("applied-but-fail", errno)) => named(errno).map(Self::AppliedButFail),
            _ => {
                let known = "kill-before, kill-after, fail=ERRNO, applied-but-fail=ERRNO, lose-reply or panic";
                Err(format!("{text:?} is no fault; {known} is"))
            }
        }
    }
}

/// The errno of a name, or of a number: the highest one on Linux is 133.
fn named(text: &str) -> Result<Errno, String> {
    let mut known = (1..=133).map(Errno::from_raw);
    let found = known.find(|errno| format!("{errno:?}") == text || (*errno as i32).to_string() == text);
    found.ok_or_else(|| format!("{text:?} is no errno"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read_as_they_are_written() {
        for text in [
            "store.commit:1:kill-before",
            "op.create_tap:2+:fail=EBUSY",
            "event.port.created:3:kill-after",
            "netlink.send:1:applied-but-fail=ENOBUFS",
            "reply.http:1:lose-reply",
            "watch.events:5:panic",
        ] {
            assert_eq!(text.parse::<Order>().unwrap().to_string(), text);
        }
        for wrong in ["", "a:1", "a:0x1:kill-before", "a:1:fail", "a:1:fail=EWHAT", "a:1:die"] {
            assert!(wrong.parse::<Order>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_order_means_its_own_point_alone() {
        let order: Order = "event.port.created:2+:kill-after".parse().unwrap();
        assert!(order.means(("event", "port.created"), 2) && order.means(("event", "port.created"), 9));
        assert!(!order.means(("event", "port.created"), 1) && !order.means(("event", "port"), 2));
    }

    #[test]
    fn passes_are_read_as_they_are_listed() {
        let pass = Pass { kind: Kind::Reply, name: "reply.http".to_owned() };
        assert_eq!(pass.to_string().parse(), Ok(pass));
    }
}
