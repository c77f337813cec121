//! The fleet: what hosts share through etcd.
//!
//! ```text
//!  service ── hosts, redefine, acquire, call ──► agent ──► member, roster ──► kv ──► etcd ──► POST /v3/…
//!     ▲                                            │
//!     └── Local: adopt, hold, take_in_remote ──────┘   one task on the daemon's event loop
//! ```
//!
//! etcd holds what no single host may decide; everything else stays in the host's own [`store`](crate::store). What a host has of the
//! fleet it notes there before it acts on it, so that it can start and work without etcd.
//!
//! [`agent`] joins and takes part: it tells that the host is alive, makes [`claims`] ahead, follows what others define and have
//! ([`follow`], [`remotes`]), and tells of its own servers and ports ([`publish`]). Requests define networks, subnets and security
//! groups ([`definitions`]), read what is on other hosts ([`elsewhere`], [`ports_watch`]), and are passed on ([`calls`]).
//!
//! # Keys
//!
//! All are under `nicd/<fleet>/` ([`keys::Names`]). Values are JSON. Those of records have the version of their format in `v`: a nicd
//! that finds a newer one leaves the fleet alone. *Registered* is the guard that the host's record is the one that it registered.
//!
//! | key | value | written by | guard | lease |
//! |---|---|---|---|---|
//! | `epoch` | [`Epoch`](crate::model::Epoch) | the first host; each that sees that a backup was put back | absent; as read | none |
//! | `host/<host>` | [`member::HostRecord`] | that host | absent, and the epoch as read; to change it, as read | none |
//! | `alive/<host>` | [`roster::Sign`] | that host, at a join | registered | [`roster::LIFE`] |
//! | `seen/<host>` | [`roster::Sign`] | that host, each minute and when its ports are more or fewer | registered | none |
//! | `block/<network>/4/<address>`, `…/6/…` | who claims these 16 addresses | a host | registered, the epoch as registered; absent | none |
//! | `mac/<octets>/all`, `mac/<octets>/<octet>` | who claims these 256 MACs, or this one | a host | the same, and not another's part of it | none |
//! | `one/<network>/4/<address>`, `…/6/…` | who claims this address of another's block, of a port that has moved | the host that hands it over | registered, the epoch as registered; its block or its claim as claimed | none |
//! | `lent/<rest of a claim's key>` | that one of a block may be another host's | the block's host, after a backup was put back | the same | none |
//! | `held/<host>/<rest of a claim's key>` | the same as the claim | in the claim's transaction | the same | none |
//! | `def/net/<network>`, `def/subnet/<network>/<subnet>`, `def/group/<group>` | [`Definition`](crate::model::definition::Definition), a group's with its rules | the host that was asked | registered; absent, or nothing of it newer than what was followed; to delete a network, no port of it; to delete a group, no member, and nothing of any group newer; for a rule that names a group, that one present | none |
//! | `segment/vxlan/<number>`, `segment/vlan/<vlan>/<physical network>` | the network that has it | in its network's transaction | absent | none |
//! | `default/<project>` | the security group that is the project's own | in its group's transaction | absent | none |
//! | `port/<network>/<host>/<port>` | [`published::Published`] | that host | registered, its sign of life as at its join, its own entry as told | none |
//! | `where/<port>` | its network and host | in the same transaction | the same | none |
//! | `member/<group>/<host>/<port>` | nothing: the port is in the group | in the same transaction | the same | none |
//! | `binding/<port>/<host>` | what is shown of a silent device | that host | as for `port/` | none |
//! | `server/<server>/<host>` | what is shown of it | that host | the same | none |
//! | `own/<host>/port/<port>`, `own/<host>/server/<server>` | a digest of what was told | in the same transaction | the same | none |
//! | `call/<host>/<call>` | [`calls::Call`] | the host that asks | registered, and the other host is there; to answer or withdraw it, present | none |
//! | `answer/<host>/<call>` | [`calls::Answer`] | the host that was asked, with the call's end | the call is present | none |
//!
//! A port moves by one transaction of the host that has it, which hands over its `port/`, `where/` and `member/`, and what it claims, and
//! calls the other host ([`moving`]).
//!
//! A host is forgotten by a transaction that deletes its record while it has no `alive`; after it none of that host's guards holds, and
//! its claims are deleted one by one, each if it is still that host's; then what it has told of, and what it was asked to do.
//!
//! # What can go wrong
//!
//! - A lost answer ([`etcd::Error::Unknown`]): the transaction is not repeated. Joining reads what there is; a claim that was made is
//!   found in the host's list, and one that is made later than its host gave up is the host's all the same, and unused. What was defined is
//!   followed, as what other hosts define is.
//! - Another revision than was seen, another epoch, an empty etcd: [`member`]. Definitions that are missing then are put again, and what
//!   was known of other hosts' ports stays until all had the time to tell of theirs.
//! - A lost watch goes on where it was. Where that is compacted, or etcd refuses it, the host joins again and reads all at one revision.
//! - Etcd is full (`NOSPACE`): transactions fail as with an etcd that is away, and `fleet_unreachable` says so.
//! - Etcd is slow: each request has [`etcd::LIMIT`], and at most [`etcd::MAX_REQUESTS`] are under way.
//! - Nothing is concluded from what etcd lacks, but by a read of all of it at one revision after a join in the same epoch, or by the
//!   event that it was deleted; and what ports of this host use is then defined again.
//!
//! The protocol of claims is run by the ten thousand in `schedules` against a store in memory that loses, delays and cuts; all of it is run there
//! with real hosts and members of etcd that are killed, stopped and cut off.

pub mod agent;
pub mod calls;
pub mod claims;
pub mod definitions;
pub mod elsewhere;
pub mod etcd;
pub mod follow;
pub mod keys;
pub mod kv;
mod lag;
pub mod member;
mod members;
pub mod moving;
pub mod ports_watch;
pub mod publish;
pub mod published;
pub mod remotes;
pub mod roster;
