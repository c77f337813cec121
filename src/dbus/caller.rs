//! Identifies callers: the uid and groups with which the caller connected to the bus, reported by the bus. A caller is never
//! looked up by its pid, because the kernel may have reused the pid.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use zbus::connection::Connection;
use zbus::fdo::ConnectionCredentials;
use zbus::names::UniqueName;

use crate::access::Peer;

use super::error::CallError;

/// The capacity of the cache of callers.
const REMEMBERED: usize = 1024;

/// The callers met on one connection to the bus, which gives no unique name twice.
#[derive(Debug, Default)]
pub(super) struct Callers {
    known: Mutex<HashMap<String, Arc<Peer>>>,
}

impl Callers {
    /// Looks up the owner of a unique name.
    ///
    /// # Errors
    /// The bus does not report the caller; an unknown caller is refused.
    pub(super) async fn who(&self, connection: &Connection, name: Option<&UniqueName<'_>>) -> Result<Arc<Peer>, CallError> {
        let Some(name) = name else { return Err(CallError::AccessDenied("the message names no sender".to_owned())) };
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(name.as_str()).cloned();
        if let Some(peer) = known {
            return Ok(peer);
        }
        let peer = Arc::new(ask(connection, name).await?);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(name.to_string(), Arc::clone(&peer));
        Ok(peer)
    }
}

async fn ask(connection: &Connection, name: &UniqueName<'_>) -> Result<Peer, CallError> {
    const BUS: &str = "org.freedesktop.DBus";
    let refuse = |why: String| CallError::AccessDenied(format!("who {name} is cannot be told: {why}"));
    let answer = connection.call_method(Some(BUS), "/org/freedesktop/DBus", Some(BUS), "GetConnectionCredentials", name).await;
    let answer = answer.map_err(|error| refuse(error.to_string()))?;
    let body = answer.body();
    let credentials: ConnectionCredentials = body.deserialize().map_err(|error| refuse(error.to_string()))?;
    let uid = credentials.unix_user_id().ok_or_else(|| refuse("the bus gives no uid".to_owned()))?;
    Ok(Peer::on_bus(uid, credentials.into_unix_group_ids()))
}
