//! Every fault that can be injected at the failpoints that a run has hit.

#![allow(dead_code)] // each test target uses its part

use std::collections::BTreeMap;

use nicd::failpoints::{FaultRule, Hit, Hits};
use nix::errno::Errno;

/// The errnos that any write to the kernel may fail with.
const KERNEL: &[Errno] = &[
    Errno::EBUSY,
    Errno::EEXIST,
    Errno::ENODEV,
    Errno::ENOENT,
    Errno::EPERM,
    Errno::EINVAL,
    Errno::ENOBUFS,
    Errno::ENOMEM,
    Errno::EINTR,
    Errno::EAGAIN,
    Errno::ENOSPC,
    Errno::EXFULL,
    Errno::ETIMEDOUT,
    Errno::EOPNOTSUPP,
    Errno::ENOTUNIQ,
    Errno::EMFILE,
];

/// The errnos that a write to the disk may fail with.
const DISK: &[Errno] = &[Errno::ENOSPC, Errno::EDQUOT, Errno::EIO, Errno::EROFS, Errno::EBUSY];

/// The errnos that a read of the kernel, or a read from a socket, may fail with.
const READ: &[Errno] = &[Errno::ENOBUFS, Errno::ENOMEM, Errno::EINTR, Errno::EAGAIN, Errno::ETIMEDOUT];

/// The errnos that a call at this failpoint may fail with.
pub fn errnos(name: &str) -> &'static [Errno] {
    if name == "filter.read" {
        return READ;
    }
    match name.split_once('.').expect("a component and an action").0 {
        "store" => DISK,
        "netlink" | "watch" | "entries" => READ,
        _ => KERNEL,
    }
}

/// One rule for each pair of a hit and a fault.
pub fn pairs(hits: &[Hit], mut errnos: impl FnMut(&str) -> Vec<Errno>) -> Vec<FaultRule> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut rules = Vec::new();
    for Hit { kind, name } in hits {
        let n = counts.entry(name).or_default();
        *n += 1;
        let rule = |fault| FaultRule { name: name.clone(), hits: Hits::Only(*n), fault };
        rules.extend(kind.faults(&errnos(name)).into_iter().map(rule));
    }
    rules
}

/// How many different failpoints were hit.
pub fn failpoints(hits: &[Hit]) -> usize {
    hits.iter().collect::<std::collections::BTreeSet<_>>().len()
}
