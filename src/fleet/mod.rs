//! The fleet: what hosts share through etcd.
//!
//! ```text
//!  service ── hosts, forget ──► agent ──► member, roster ──► kv ──► etcd ──► POST /v3/…
//!     ▲                           │
//!     └── ports, note, tell ──────┘   one task on the daemon's event loop
//! ```
//!
//! etcd holds what no single host may decide; everything else stays in the host's own [`store`](crate::store). What a host has of the
//! fleet it notes there before it acts on it, so that it can start and work without etcd.
//!
//! # Keys
//!
//! All are under `nicd/<fleet>/` ([`keys::Names`]). Values are JSON. Those of records have the version of their format in `v`: a nicd
//! that finds a newer one leaves the fleet alone.
//!
//! | key | value | written by | guard | lease |
//! |---|---|---|---|---|
//! | `epoch` | [`Epoch`](crate::model::Epoch) | the first host; each that sees that a backup was put back | absent; as read | none |
//! | `host/<host>` | [`member::HostRecord`] | that host | absent, and the epoch as read; to change it, as read | none |
//! | `alive/<host>` | [`roster::Sign`] | that host | its record is the one that it registered | [`roster::LIFE`] |
//! | `seen/<host>` | [`roster::Sign`] | that host, each minute | the same | none |
//! | `block/<network>/4/<address>`, `…/6/…` | who claims these 16 addresses | a host | record and epoch as registered; absent | none |
//! | `mac/<octets>/all`, `mac/<octets>/<octet>` | who claims these 256 MACs, or this one | a host | the same, and not another's part of it | none |
//! | `held/<host>/<rest of a claim's key>` | the same as the claim | in the claim's transaction | the same | none |
//!
//! A host is forgotten by a transaction that deletes its record while it has no `alive`; after it none of that host's guards holds, and
//! its claims are deleted one by one, each if it is still that host's.
//!
//! # What can go wrong
//!
//! - A lost answer ([`etcd::Error::Unknown`]): the transaction is not repeated. Joining reads what there is; a claim that was made is
//!   found in the host's list, and one that is made later than its host gave up is the host's all the same, and unused.
//! - Another revision than was seen, another epoch, an empty etcd: [`member`].
//! - Nothing is concluded from what etcd lacks, but by a read of all of it at one revision, and never before the host has joined in the
//!   same epoch.
//!
//! The protocol is run by the thousand in `tests/fleet` against a store in memory that loses, delays and cuts. Claims are not given to
//! ports yet: networks are each host's own.

pub mod abroad;
pub mod agent;
pub mod calls;
pub mod claims;
pub mod definitions;
pub mod elsewhere;
pub mod etcd;
pub mod follow;
pub mod keys;
pub mod kv;
pub mod member;
pub mod ports_watch;
pub mod publish;
pub mod published;
pub mod roster;
