//! nicd builds the NICs of guests on a compute node: taps for virtual machines, veths for network namespaces, bound into
//! a bridge, with their MAC and fixed IPs, over netlink. This page is the architecture; each room's own page goes deeper.
//!
//! ```text
//!   curl, nicctl, a control plane        a VMM, system tools
//!          HTTP/JSON, Unix socket              D-Bus
//!                  │                             │
//!                  │                           dbus/ ── views, events, OpenTap ──┐
//!                  │                                                             ▼
//!               api/ ── Action ──► service ──► reconcile ◄── Notice: "this link looks like that now" ── kernel/watch
//!                                     │            │
//!                                     ▼            ▼
//!                           inventory: desired + observed, claims
//!                                  │
//!                                  ▼
//!                             plan/ (pure) ──► Plan = [Step { op, undo }]
//!                                  │
//!                  ┌───────────────┴───────────────┐
//!                  ▼         joined                ▼
//!         store/: commit the intent        exec on kernel/worker: what ends with the process; namespaces on one of their own
//!                  └───────────────┬───────────────┘
//!                                  ▼
//!                   exec on kernel/worker: the rest, or the undo
//!                                  │
//!                                  ▼
//!                        reply, and events ──► SSE, NDJSON, D-Bus signals · counted ──► metrics
//! ```
//!
//! # Laws
//!
//! Each has a test (`tests/laws.rs`, `tests/model.rs`, `tests/restart.rs`).
//!
//! 1. The [`store`] says what should be, the [`kernel`] says what is; everything else is derived. One function,
//!    `Reconciler::build`, serves attach, drift and restart: observe, plan, exec. They differ in the [`plan::Reason`].
//! 2. [`plan::plan`] is pure and deterministic. Planning again after applying gives the empty plan; a quiet host sees no
//!    write, also after a restart.
//! 3. [`plan::Op`] is a closed list, and the daemon's whole power over the host.
//! 4. A step knows its undo from what it was planned on. A failure at step k undoes k…1; what cannot be undone is an
//!    outcome of its own, and the port is ERROR and tried again. Every op may run twice.
//! 5. Identity is the altname `nicd-<uuid>`. While a link is being made it is addressed by the ifindex chosen for it,
//!    afterwards by its altname, never by its name. One that lost it is known again by its seal. What has no mark of ours is
//!    never changed.
//! 6. Nothing is concluded from an absence unless a complete dump, or the kernel's word about that very link, shows it.
//!    Events are hints to look.
//! 7. One port's trouble is one port's trouble. Every queue is bounded, by a number or, for what gives something back, by the
//!    ports that there are; every wait has a limit, every retry has jitter.
//! 8. An answer with success means durable and built; an answer with an error means no trace.
//!
//! # The attach
//!
//! 1. `api::nova::attach` reads the body; `Service::perform` takes the action to `Service::attach`.
//! 2. `Service::bind` checks all that the inventory can tell, draws MAC and addresses, and claims the port.
//! 3. `Reconciler::build` claims the network's bridge where that has to be made, and plans: [`plan::plan`].
//! 4. `Reconciler::carry_out_beside` hands the plan to the worker (`KernelHandle::run_beside`) and its intent to the store
//!    (`Store::commit_and_tell`): the worker does the steps that end with the process, and looks at the device, while the intent becomes durable.
//! 5. The worker polls the commit itself, so that no third thread stands between them. Durable: it does the rest. Refused, or a step failed: it has
//!    the plan undone, and `Service::roll_back` takes back the record.
//! 6. `Reconciler::transition` tells of the new phase, `Reconciler::readiness` decides which; the reply is the port as it stands.
//!
//! The two halves overlap because nothing outlives the process before its record is durable: until `TUNSETPERSIST` a tap dies
//! with the process, and that is the step that waits ([`plan::Op::outlives_the_process`]). All else is done before; but a tap of
//! several queues, which another process may open and keep meanwhile, is sealed behind it. The last message about the host's side seals
//! the device: it writes the alias (the store's id and the commit's number) and sets it up. A device without its seal is finished by the
//! next start; one with it is left alone. The seal comes last rather than with the mark, so that "up" is free to be the port's
//! admin state and an unfinished guest is told from one that its owner changed.
//!
//! A tap is made without carrier, looked at, and only then set up: set up before, it would owe an RCU grace period under
//! RTNL for the carrier that is not there. The kernel may hold the carrier of a VMM's open back for up to a second, so every
//! event about a link without carrier leads to one look at it at once, which makes the kernel process what it has queued.
//!
//! A veth outlives the process at once, so its intent comes first; the guest's namespace is entered meanwhile. The guest's
//! end is set up before the host's goes into its bridge and is sealed. What enters namespaces has a worker of its own, as a
//! path may hang: taps and bridges do not wait for it.
//!
//! A detach commits the intent, sets the device down, answers, and leaves the deletion to a second thread, which has it done
//! in groups: one RCU barrier (16 ms) serves all that wait. A hand that the kernel keeps is left alone and another goes on.
//!
//! # What goes wrong
//!
//! Every difference that the watch or a slow sweep sees is mended by the same function; one that somebody keeps making is
//! named and mended less often. `service/verify` compares everything, `service/gc` knows what nobody wants, and nothing is
//! removed for want of a record unless a client says so: an older store put back looks just so (`reconcile/rollback`).
//!
//! # Rooms
//!
//! Arrows point down: `main → daemon → {api, dbus} → service → reconcile → {inventory, exec, store, kernel} → plan → model`; `client`, `clock`, `events`, `failpoints`,
//! `queue`, `rate_limit`, `sys`, `systemd`, `telemetry`, `threads` and `config` are leaves.
//!
//! | room | what lives there |
//! |---|---|
//! | [`model`] | the words: ids, names, MACs, networks, subnets, ports, servers, the phase machine, address pools |
//! | [`plan`] | desired and observed are compared once (`diff`); ordered ops with undo, the facts behind ACTIVE, deviations and drift come of it |
//! | [`exec`] | runs a plan, unwinds it |
//! | [`kernel`] | the only code that touches the host: `linux`, `fake`, workers, reaper, watch |
//! | [`store`] | SQLite: schema, records, one writer with group commit |
//! | `inventory` | what should be and what is: records, indexes, pools, segments, and the claims on them; no I/O, no waiting |
//! | `reconcile` | the loop: what differs from its record is found, planned and brought back; schedule, drift that comes back, health |
//! | [`service`] | what clients ask for: attach, detach, networks, ports, servers, maintenance, views |
//! | [`access`] | who is at the other end of a socket or the bus, and what they may do |
//! | [`api`] | the sockets, the listener, one file per dialect, `status`: the one file with status codes |
//! | [`dbus`] | ports on the system bus: properties, signals, descriptors; a thread of its own |
//! | [`events`] | the sequence, its ring, its readers |
//! | [`rate_limit`] | limits how often an action runs that a guest or a client can trigger without end |
//! | [`queue`] | a bounded queue into a thread |
//! | [`telemetry`] | the log, and what is counted |
//! | [`kernel::netns`] | entering guests' namespaces, and `nicd-netns`, the helper that may: the only power beyond CAP_NET_ADMIN |
//! | [`sys`] | every line of `unsafe`: the system calls that no crate wraps |
//! | [`systemd`] | what the service manager is told: readiness, status, reloads, signs of life |
//! | [`clock`] | the wall's clock, whatever it says, and what has passed since the boot |
//! | [`failpoints`] | where a test kills the process or makes a call fail; nothing in a release build |
//! | [`daemon`] | the order of start and stop |
//! | [`threads`] | the threads' processors, and what ends when one panics: the process |
//! | [`client`], [`blocking_client`] | HTTP over the daemon's socket: for `nicctl`; for the demo, tests and benchmarks |
//! | `src/ctl` | `nicctl`: a pure client, which uses nothing of this library but `client` |
//!
//! # Dependencies
//!
//! | for | crate | why this one |
//! |---|---|---|
//! | event loop, log | `tokio`, `tokio-util`, `tracing`, `tracing-subscriber`, `futures-util` | the field's own |
//! | data | `serde`, `serde_json`, `toml`, `uuid`, `jiff`, `thiserror` | the field's own; `jiff` for RFC 3339 |
//! | command line | `clap`, `clap_complete` | env, help and completion from one declaration |
//! | netlink | `rtnetlink` (its builders), `netlink-packet-route`, `netlink-packet-core`, `netlink-sys` | the field's own types, which encode and decode every message that they have. The transport is our own (`kernel/socket`), as `rtnetlink`'s sends no two messages in one; so is the walk through a message (`kernel/message`), as theirs gives up a whole message for one attribute. `kernel/untyped` has what they lack |
//! | system calls | `nix`, `libc` | safe wrappers; what has none is in `sys` |
//! | addresses | `macaddr`, `ipnetwork` | parsing and ranges |
//! | HTTP | `axum` over `hyper`, `hyper-util`, `http-body-util`, `tower` | Unix listeners with our own limits around hyper |
//! | idempotency | `sha2` | a request's digest that is the same after a restart |
//! | `openapi.json` | `utoipa`, its builders alone | the document is made of the routes and the refusals themselves |
//! | store | `rusqlite` (bundled) | the longest crash record; any operator can open the file |
//! | service | `sd-notify`, `listenfd` | readiness, passed sockets |
//! | metrics | `prometheus`, without its protobuf | counting is an atomic step, and the text is the format every scraper reads (0.0.4); the official `prometheus-client` writes OpenMetrics alone |
//! | the bus | `zbus`, on tokio, without its object server | connecting, messages and their types; calls are dispatched here, as every one is answered by who makes it |
//! | drawn values | `rand` | MACs, indexes, jitter |
//! | the demo's guest | `smoltcp` | a second IP stack that is not this kernel's |

pub mod access;
pub mod api;
pub mod args;
pub mod blocking_client;
pub mod client;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod dbus;
pub mod demo;
pub mod events;
pub mod exec;
pub mod exit;
pub mod failpoints;
mod inventory;
pub mod kernel;
pub mod model;
pub mod plan;
pub mod queue;
pub mod rate_limit;
mod reconcile;
pub mod service;
pub mod store;
pub mod sys;
pub mod systemd;
pub mod telemetry;
pub mod threads;
