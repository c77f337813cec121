//! A client of nicd, over its Unix socket, or over TLS from another host.
//!
//! [`Client`] has a method for each operation that a control plane needs, with typed requests and answers, and `get`, `post`, `put`
//! and `delete` for the rest of the API. Calls are repeated as [`Retry`] says; [`Error`] says how a call failed; [`Events`] is the
//! event stream.
//!
//! ```no_run
//! use nicd_client::{Attachment, Client, EventKind};
//! # async fn example(server: uuid::Uuid, network: uuid::Uuid) -> Result<(), nicd_client::Error> {
//! let nicd = Client::new("/run/nicd/nicd.sock");
//! let mut events = nicd.events().await?;
//! let nic = nicd.attach(server, &Attachment::to_network(network)).await?;
//! loop {
//!     let event = events.next().await?;
//!     match event.kind {
//!         EventKind::Lost => println!("events were missed: list again"),
//!         _ if event.port_id == Some(nic.port_id) => println!("{:?}", event.new),
//!         _ => {}
//!     }
//! }
//! # }
//! ```
//!
//! Each call opens a connection of its own; opening one on a Unix socket takes microseconds, and one on TLS some milliseconds.
//!
//! | module | content |
//! |---|---|
//! | [`http`] | HTTP/1.1 over a Unix socket or TLS: connections, requests, answers, lines |
//! | `daemon` | [`Remote`]: a daemon on another host, and the certificates |
//! | [`blocking`] | the same without a runtime: one kept connection, and the event stream on a thread |
//! | `client`, `operations` | [`Client`]: calls with time limit and repeats; its typed operations |
//! | `error` | [`Error`] and [`Refusal`] |
//! | `events` | [`Events`] and [`Event`] |
//! | `retry` | [`Retry`] |
//! | [`types`], [`groups`] | what requests and answers contain |

pub mod blocking;
mod client;
mod daemon;
mod error;
mod events;
pub mod groups;
pub mod http;
mod operations;
mod retry;
pub mod types;

pub use client::{Client, member};
pub use daemon::{Credentials, Remote, RemoteError};
pub use error::{Call, Error, Refusal};
pub use events::{Event, EventKind, Events};
pub use groups::{Allows, NewSecurityGroup, NewSecurityGroupRule, SecurityGroup, SecurityGroupChange, SecurityGroupRule};
pub use operations::Nics;
pub use retry::{FirstContact, Refusals, Retry};
pub use types::*;
