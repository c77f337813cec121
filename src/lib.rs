//! nicd builds the NICs of guests on a compute node: taps for virtual machines and veths for network namespaces, bound into
//! a bridge, with their MAC and fixed IPs, over netlink. This page describes the architecture; each module's page has the details.
//!
//! ```text
//!   curl, nicctl, a control plane        a VMM, system tools
//!     HTTP/JSON, Unix socket or TLS            D-Bus
//!                  │                             │
//!                  │                           dbus/ ── views, events, OpenTap ──┐
//!                  │                                                             ▼
//!               api/ ── Action ──► service ──► reconcile ◄── Notice: "the link has this state" ── kernel/watch
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
//!                        reply, and events ──► SSE, NDJSON, D-Bus signals, Nova, webhook · counted ──► metrics
//! ```
//!
//! # Laws
//!
//! Each law has a test (`tests/laws`, `tests/model`, `tests/restart.rs`).
//!
//! 1. The [`store`] holds the desired state, the [`kernel`] the actual state; everything else is derived. One function,
//!    `Reconciler::build`, serves attach, drift repair and restart: observe, plan, execute. They differ in the [`plan::Reason`].
//! 2. [`plan::plan`] is pure and deterministic. After a plan was applied, planning again gives the empty plan. On a host without
//!    drift nicd writes nothing, also after a restart.
//! 3. [`plan::Op`] is a closed enum of all changes that the daemon can make to the host.
//! 4. A step gets its undo from the observed state it was planned on. A failure at step k undoes steps k to 1. If an undo fails
//!    too, the port becomes ERROR and is retried. Every op is idempotent.
//! 5. A link is identified by its altname `nicd-<uuid>`. While nicd creates the link, it addresses it by the chosen ifindex,
//!    afterwards by the altname, never by its name. A link that lost its altname is recognised by its ownership tag (the alias).
//!    nicd never changes a link without its altname or its tag.
//! 6. A link counts as missing only if a complete dump lacks it, or if the kernel reports its deletion. An event is only a hint
//!    to read the link again.
//! 7. The failure of one port does not affect other ports. Every queue is bounded: by a constant, or, for operations that free
//!    something, by the number of ports. Every wait has a time limit, every retry has jitter.
//! 8. A success answer means that the change is durable and built. An error answer means that no trace of the request is left.
//!
//! # The attach
//!
//! 1. `api::nova::attach` parses the body; `Service::perform` dispatches the action to `Service::attach`.
//! 2. `Service::bind` checks the request against the inventory, allocates MAC and addresses, and claims the port.
//! 3. `Reconciler::build` claims the network's bridge if it has to be created, and plans: [`plan::plan`].
//! 4. `Reconciler::carry_out_beside` gives the plan to the worker (`KernelHandle::run_beside`) and its intent to the store
//!    (`Store::commit_and_tell`). While the intent becomes durable, the worker runs the steps that end with the process, and reads
//!    the device.
//! 5. The worker polls the commit itself, so that no third thread is involved. After the commit it runs the remaining steps. If
//!    the commit or a step fails, the plan is undone, and `Service::roll_back` removes the record.
//! 6. `Reconciler::readiness` decides the new phase and `Reconciler::transition` publishes it; the reply shows the port.
//!
//! The two halves may overlap because nothing outlives the process before its record is durable: until `TUNSETPERSIST` the kernel
//! deletes a tap when the process ends, so that step waits for the commit ([`plan::Op::outlives_the_process`]). All other steps run
//! before it. There is one exception: another process may open a tap with several queues and keep it, so such a tap gets its
//! ownership tag after the commit. The last message for the host's side finalizes the device: it writes the ownership tag into the
//! alias (the store's id and the commit's number) and sets the device up. The next start finishes a device without a tag, and
//! leaves a device with a tag alone. The tag is written last and not together with the altname. So the flag "up" can hold the
//! port's admin state, and a device that was never finished differs from one whose guest was changed by its owner.
//!
//! nicd creates a tap without carrier, reads it, and only then sets it up. Set up earlier, the missing carrier would cost an RCU
//! grace period under RTNL. When a VMM opens the tap, the kernel may delay the carrier event for up to a second. So nicd reads a
//! link without carrier once after every event, which makes the kernel process its queued carrier changes.
//!
//! What a port may send is in the kernel before its device is: the first step of a new device sets the elements of
//! `table bridge nicd` for the index that it is to have (`Op::SetFilter`, `kernel/filter`), in one transaction. A device of nicd's
//! without elements is not heard. They are removed once the kernel has reported the device's deletion, by the watch.
//!
//! A veth outlives the process at once, so its intent is committed first, while the worker enters the guest's namespace. The
//! guest's end is set up before the host's end joins its bridge and gets its tag. Work in namespaces has a worker of its own: a
//! namespace path on a dead file server may block, and taps and bridges must not wait for it.
//!
//! A port of a server with a monitor is plugged into its machine by a step of its plan ([`plan::Op::PlugNic`]). The kernel's threads leave it
//! out, because a machine may take its time: the reconciler has found a free slot before the rest of the plan, and plugs the NIC in behind it
//! (`reconcile/machines`). What machines say of their NICs is part of the observed state.
//!
//! A detach commits the intent, sets the device down, answers, and leaves the deletion to the reaper threads. They delete in
//! groups, so that one RCU barrier (16 ms) serves all waiting deletions. If the kernel blocks a reaper thread, another takes over.
//!
//! # Drift and leftovers
//!
//! The watch and a slow sweep detect differences between desired and observed state, and the same function repairs them. If
//! another program keeps making the same change, health reports it and nicd repairs it less often. `service/verify` compares
//! everything, `service/gc` lists devices without a record. nicd deletes a device without a record only on a client's request: after
//! an older store was restored, devices in use have no record either (`reconcile/rollback`).
//!
//! # Networks over tunnels
//!
//! A VXLAN network learns nothing from frames. What of it is on other hosts is desired state, an [`plan::Overlay`] of hosts and ports, which the
//! inventory holds and shares with the watch. A change of it is compared with what the kernel was last seen to have, for its own entries alone,
//! and is one plan with one [`plan::Op::SetEntries`] (`reconcile/overlays`); so a port that comes to another host costs the same whatever ports
//! there are. All entries are looked at and compared after a start, when a VXLAN device was made, at a sweep, for a verification, and after an
//! event that tells of an entry that nicd does not want. Until nicd was told what is on other hosts, it leaves what is there.
//!
//! Of a shared network's ports on other hosts that are in security groups the groups and addresses are noted in the store, and then told to
//! the kernel by one [`plan::Op::SetMembers`] (`reconcile/members`), so that rules which name a group let them in, also after a restart
//! without the fleet.
//!
//! # Modules
//!
//! Dependencies point down:
//! `main → daemon → {api, dbus, notify} → service → {reconcile, fleet} → {inventory, store, kernel, monitor} → {plan, lease, neighbours} → model`;
//! `clock`, `events`, `failpoints`, `http`, `queue`, `rate_limit`, `sys`, `systemd`, `telemetry`, `threads`, `tls`, `uplink` and `config` are leaves.
//! Inside `inventory`, `plan`, `reconcile` and `service` no two files use each other either.
//!
//! | module | content |
//! |---|---|
//! | [`model`] | the data types: ids, names, MACs, networks, subnets, ports, servers, the phase machine, address pools |
//! | [`plan`] | compares desired and observed state once (`diff`); derives ordered ops with undo, the facts behind ACTIVE, deviations and drift |
//! | [`neighbours`] | ARP and neighbour discovery as nicd speaks them: probes for an address, announces a port's |
//! | [`lease`] | what a guest is told by DHCP of both families and by router advertisements: messages, options, and what is said to what; nothing is remembered |
//! | [`kernel::exec`] | runs a plan, and undoes it after a failure |
//! | [`kernel`] | the only code that touches the host: `linux`, `fake`, workers, reaper, watch |
//! | `monitor` | a client of QMP: plugs NICs into virtual machines that run, and unplugs them |
//! | [`store`] | SQLite: schema, records, one writer with group commit |
//! | `inventory` | desired and observed state: records, indexes, pools, segments, and claims of objects; no I/O, no waiting |
//! | `reconcile` | the loop: detects deviations from records, plans and repairs them; schedule, recurring drift, health |
//! | [`service`] | the clients' operations: attach, detach, networks, ports, servers, maintenance, views |
//! | [`access`] | identifies the peer of a socket or of D-Bus, and decides what the peer may do |
//! | [`api`] | HTTP: the sockets, the listener, which also serves TLS, one file per dialect, and `status`, the only file with status codes |
//! | [`dbus`] | ports on the system bus: properties, signals, `OpenTap`; runs on its own thread |
//! | [`notify`] | tells Nova and a webhook of ports, over TCP; runs on its own thread |
//! | [`fleet`] | what hosts share through etcd: its client, the register of hosts, claims |
//! | [`http`] | what clients of HTTP servers share: connections over TCP and TLS, answers of bounded length, secrets in files |
//! | [`events`] | the numbered event stream, its ring buffer, its readers |
//! | [`rate_limit`] | limits how often an action runs that a guest or a client can trigger without end |
//! | [`queue`] | a bounded queue into a thread |
//! | [`telemetry`] | log and metrics |
//! | [`kernel::netns`] | enters guests' namespaces, directly or by the helper `nicd-netns`; the only privilege beyond CAP_NET_ADMIN |
//! | [`sys`] | all `unsafe` code: the system calls that no crate wraps |
//! | [`systemd`] | notifies the service manager: readiness, status, reloads, watchdog |
//! | [`clock`] | the wall clock, and the time since boot |
//! | [`failpoints`] | where a test kills the process or makes a call fail; nothing in a release build |
//! | [`daemon`] | start and stop, in order |
//! | [`threads`] | starts threads; a panic ends the process |
//! | [`tls`] | certificates and keys in PEM, the names in a certificate, the client's side, the server's side with client certificates; no connections |
//! | [`uplink`] | whether a bridge carries the host's default route; no I/O. The daemon and `nicctl doctor` judge by it |
//! | `src/ctl` | `nicctl`: a client that uses nothing of this library but `uplink` and what makes manual pages |
//! | `client/` | the crate `nicd-client`: HTTP over the daemon's socket, for `nicctl`, the demo, the tests and authors of control planes |
//!
//! # Dependencies
//!
//! | for | crate | why this one |
//! |---|---|---|
//! | event loop, log | `tokio`, `tokio-util`, `tracing`, `tracing-subscriber`, `futures-util` | the standard crates |
//! | data | `serde`, `serde_json`, `toml`, `uuid`, `jiff`, `thiserror` | the standard crates; `jiff` for RFC 3339 |
//! | command line | `clap`, `clap_complete` (its dynamic engine, which `nicctl` completes names with), `clap_mangen` | env, help, manual pages and completion from one declaration |
//! | nicctl on a terminal | `crossterm`, `ratatui`, `indicatif` | `top` draws only what has changed; a line that says what is waited for |
//! | nicctl's formats | `csv`, `serde_norway` | quoting by RFC 4180; the YAML that other tools read |
//! | netlink | `rtnetlink` (its builders), `netlink-packet-route`, `netlink-packet-netfilter`, `netlink-packet-core`, `netlink-sys` | the standard types encode and decode every message that they cover. The transport is our own (`kernel/socket`), because `rtnetlink` cannot send two messages in one system call. So is the attribute parser (`kernel/message`), because theirs drops a whole message for one unreadable attribute. `kernel/untyped` has the attributes that the crates lack |
//! | system calls | `nix`, `libc` | safe wrappers; calls without a wrapper are in `sys` |
//! | addresses | `macaddr`, `ipnetwork` | parsing and ranges |
//! | HTTP | `axum` over `hyper`, `hyper-util`, `http-body-util`, `tower` | Unix listeners with our own limits around hyper |
//! | idempotency | `sha2` | a request digest that is stable across restarts |
//! | `openapi.json` | `utoipa`, its builders alone | the document is generated from the routes and the error table |
//! | store | `rusqlite` (bundled) | the longest crash record; any operator can open the file |
//! | service | `sd-notify`, `listenfd` | readiness, passed sockets |
//! | metrics | `prometheus`, without its protobuf | a count is one atomic operation, and every scraper reads its text format (0.0.4); the official `prometheus-client` writes only OpenMetrics |
//! | the bus | `zbus`, on tokio, without its object server | connections, messages and types; nicd dispatches calls itself, because it checks the caller of every call |
//! | frames of DHCP and router advertisements | `etherparse` | headers and checksums. The messages are our own (`lease/message`, `lease/v6`, `lease/advert`): `dhcproto` brings 40 crates for domain names, and its readers panic on a MAC length above 16 (`chaddr`) or stop at the first option that they cannot read |
//! | TLS of remote control planes, and to Keystone, Nova and the webhook | `tokio-rustls` with `ring`, `rustls-native-certs` | no C library of the host and no cmake; HTTP is `hyper`'s own connection, because a pool and proxies are not needed |
//! | etcd | its JSON gateway over the HTTP and TLS above, with `base64` | clients of its gRPC need `protoc` to be built |
//! | names in certificates | `x509-cert` | `rustls-webpki` verifies them and tells no names; `x509-parser` brings twice as many crates |
//! | random values | `rand` | MACs, indexes, jitter |
//! | the demo's guest | `smoltcp` | a second IP stack that is not this kernel's |

pub mod access;
pub mod api;
pub mod args;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod dbus;
pub mod demo;
pub mod events;
pub mod exit;
pub mod failpoints;
pub mod fleet;
pub mod http;
mod inventory;
pub mod kernel;
pub mod lease;
pub mod manual;
pub mod model;
mod monitor;
pub mod neighbours;
pub mod notify;
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
pub mod tls;
pub mod uplink;
