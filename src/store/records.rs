//! Converts between records and rows: writes changes, and loads the whole store.

use std::collections::BTreeSet;
use std::net::IpAddr;

use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::failpoints;
use crate::model::idempotency::{CallerId, Key, StoredRequest};
use crate::model::notice::StoredNotice;
use crate::model::{
    Group, GroupId, Held, Job, Lent, Network, NetworkId, NotedMember, Port, PortId, Server, Subnet, SubnetId, Trunk,
};

use super::schema::ROW_VERSION;
use super::{Change, Loaded, StoreError, failed};

/// Writes a transaction's changes.
pub(super) fn apply(connection: &Connection, changes: &[Change]) -> Result<(), StoreError> {
    changes.iter().try_for_each(|change| failpoints::call(("store", change.word()), || write(connection, change), StoreError::of))
}

fn write(connection: &Connection, change: &Change) -> Result<(), StoreError> {
    let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| -> Result<(), StoreError> {
        connection.prepare_cached(sql).and_then(|mut statement| statement.execute(values)).map(|_| ()).map_err(failed)
    };
    match change {
        Change::PutNetwork(network) => run(
            "INSERT INTO networks (id, body, version) VALUES (?1, ?2, ?3) ON CONFLICT (id) DO UPDATE SET body = ?2, version = ?3",
            params![network.id.to_string(), json(network)?, ROW_VERSION],
        ),
        Change::DeleteNetwork(id) => run("DELETE FROM networks WHERE id = ?1", params![id.to_string()]),
        Change::PutSubnet(subnet) => run(
            "INSERT INTO subnets (id, network_id, body, version) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (id) DO UPDATE SET body = ?3, version = ?4",
            params![subnet.id.to_string(), subnet.network_id.to_string(), json(subnet)?, ROW_VERSION],
        ),
        Change::DeleteSubnet(id) => run("DELETE FROM subnets WHERE id = ?1", params![id.to_string()]),
        Change::PutGroup(group) => run(
            "INSERT INTO security_groups (id, body, version) VALUES (?1, ?2, ?3)
             ON CONFLICT (id) DO UPDATE SET body = ?2, version = ?3",
            params![group.id.to_string(), json(group)?, ROW_VERSION],
        ),
        Change::DeleteGroup(id) => run("DELETE FROM security_groups WHERE id = ?1", params![id.to_string()]),
        Change::PutServer(server) => run(
            "INSERT INTO servers (id, body, version) VALUES (?1, ?2, ?3) ON CONFLICT (id) DO UPDATE SET body = ?2, version = ?3",
            params![server.id.to_string(), json(server)?, ROW_VERSION],
        ),
        Change::DeleteServer(id) => run("DELETE FROM servers WHERE id = ?1", params![id.to_string()]),
        Change::PutPort(port) => put_port(connection, port),
        Change::NoteGuestDevice(id, commit, name) => {
            // If the port was detached or attached again since, the name belongs to a device that no longer exists.
            let Some(mut record) = port(connection, *id)? else { return Ok(()) };
            let Some(binding) = record.binding.as_mut().filter(|binding| binding.commit == *commit) else { return Ok(()) };
            binding.guest_device = Some(name.clone());
            run("UPDATE ports SET body = ?2, version = ?3 WHERE id = ?1", params![id.to_string(), json(&record)?, ROW_VERSION])
        }
        Change::DeletePort(id) => {
            if let Some(port) = port(connection, *id)? {
                port.held_ips().try_for_each(|ip| free(connection, &port, ip.ip_address))?;
            }
            run("DELETE FROM ports WHERE id = ?1", params![id.to_string()])
        }
        Change::PutTrunk(trunk) => run(
            "INSERT INTO trunks (id, port_id, body, version) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (id) DO UPDATE SET body = ?3, version = ?4",
            params![trunk.id.to_string(), trunk.port_id.to_string(), json(trunk)?, ROW_VERSION],
        ),
        Change::DeleteTrunk(id) => run("DELETE FROM trunks WHERE id = ?1", params![id.to_string()]),
        Change::Remember(remembered) => run(
            "INSERT INTO remembered (uid, key, body, version) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (uid, key) DO UPDATE SET body = ?3, version = ?4",
            params![columns(&remembered.key).0, columns(&remembered.key).1, json(remembered)?, ROW_VERSION],
        ),
        Change::ForgetKey(key) => {
            run("DELETE FROM remembered WHERE uid = ?1 AND key = ?2", params![columns(key).0, columns(key).1])
        }
        Change::PutJob(job) => run(
            "INSERT INTO jobs (id, body, version) VALUES (?1, ?2, ?3) ON CONFLICT (id) DO UPDATE SET body = ?2, version = ?3",
            params![job.id.to_string(), json(job)?, ROW_VERSION],
        ),
        Change::DeleteJob(id) => run("DELETE FROM jobs WHERE id = ?1", params![id.to_string()]),
        Change::PutNotice(notice) => run(
            "INSERT INTO notices (recipient, about, body, version) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (recipient, about) DO UPDATE SET body = ?3, version = ?4",
            params![notice.recipient().as_str(), notice.about().text(), json(notice)?, ROW_VERSION],
        ),
        Change::ForgetNotice(recipient, about) => {
            run("DELETE FROM notices WHERE recipient = ?1 AND about = ?2", params![recipient.as_str(), about.text()])
        }
        Change::NoteRegistration(registration) => put_meta(connection, "registration", &json(registration)?),
        Change::PutClaim(held) => run(
            "INSERT INTO claims (claim, body, version) VALUES (?1, ?2, ?3) ON CONFLICT (claim) DO UPDATE SET body = ?2, version = ?3",
            params![json(&held.claim)?, json(held)?, ROW_VERSION],
        ),
        Change::DeleteClaim(claim) => run("DELETE FROM claims WHERE claim = ?1", params![json(claim)?]),
        Change::PutMember(noted) => run(
            "INSERT INTO members (network_id, host, port_id, body, version) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (network_id, host, port_id) DO UPDATE SET body = ?4, version = ?5",
            params![noted.network.to_string(), noted.id.host, noted.id.port.to_string(), json(noted)?, ROW_VERSION],
        ),
        Change::DeleteMember(network, id) => run(
            "DELETE FROM members WHERE network_id = ?1 AND host = ?2 AND port_id = ?3",
            params![network.to_string(), id.host, id.port.to_string()],
        ),
        Change::PutLent(lent) => run(
            "INSERT INTO lent (claim, body, version) VALUES (?1, ?2, ?3) ON CONFLICT (claim) DO UPDATE SET body = ?2, version = ?3",
            params![json(&lent.claim)?, json(lent)?, ROW_VERSION],
        ),
        Change::DeleteLent(claim) => run("DELETE FROM lent WHERE claim = ?1", params![json(claim)?]),
        Change::NoteLost(lost) => put_meta(connection, "lost", &json(lost)?),
        Change::ReserveEvents(next) => put_meta(connection, "next_event", &i64::try_from(*next).unwrap_or(i64::MAX)),
    }
}

/// Writes a port, and only those rows of its addresses that change, because each written page makes the flush longer.
fn put_port(connection: &Connection, record: &Port) -> Result<(), StoreError> {
    let id = record.id.to_string();
    let server = record.binding.as_ref().map(|binding| binding.server_id.to_string());
    let before = port(connection, record.id)?;
    let mut put = connection
        .prepare_cached(
            "INSERT INTO ports (id, network_id, server_id, mac, body, version) SELECT ?1, ?2, ?3, ?4, ?5, ?6
             WHERE EXISTS (SELECT 1 FROM networks WHERE id = ?2) AND (?3 IS NULL OR EXISTS (SELECT 1 FROM servers WHERE id = ?3))
             ON CONFLICT (id) DO UPDATE SET server_id = ?3, mac = ?4, body = ?5, version = ?6",
        )
        .map_err(failed)?;
    let row = params![id, record.network_id.to_string(), server, record.mac.to_string(), json(record)?, ROW_VERSION];
    if put.execute(row).map_err(failed)? == 0 {
        return Err(StoreError::Conflict(format!("port {id} has a network or a server that does not exist")));
    }
    let held = |port: &Port| port.held_ips().map(|ip| ip.ip_address).collect::<Vec<_>>();
    let (had, has) = (before.as_ref().map(held).unwrap_or_default(), held(record));
    for ip in record.held_ips().filter(|ip| !had.contains(&ip.ip_address)) {
        let mut of = connection.prepare_cached("SELECT 1 FROM subnets WHERE id = ?1 AND network_id = ?2").map_err(failed)?;
        if !of.exists(params![ip.subnet_id.to_string(), record.network_id.to_string()]).map_err(failed)? {
            let address = ip.ip_address;
            return Err(StoreError::Conflict(format!(
                "port {id} has {address} of subnet {}, which does not exist",
                ip.subnet_id
            )));
        }
    }
    let before = before.map(|port| port.groups).unwrap_or_default();
    for group in record.groups.difference(&before) {
        let mut known = connection.prepare_cached("SELECT 1 FROM security_groups WHERE id = ?1").map_err(failed)?;
        if !known.exists(params![group.to_string()]).map_err(failed)? {
            return Err(StoreError::Conflict(format!("port {id} is in security group {group}, which does not exist")));
        }
    }
    had.iter().filter(|ip| !has.contains(ip)).try_for_each(|ip| free(connection, record, *ip))?;
    let mut add =
        connection.prepare_cached("INSERT INTO addresses (network_id, address, port_id) VALUES (?1, ?2, ?3)").map_err(failed)?;
    has.iter()
        .filter(|ip| !had.contains(ip))
        .try_for_each(|ip| add.execute(params![record.network_id.to_string(), ip.to_string(), id]).map(drop).map_err(failed))
}

/// The stored record of a port.
fn port(connection: &Connection, id: PortId) -> Result<Option<Port>, StoreError> {
    let mut get = connection.prepare_cached("SELECT body FROM ports WHERE id = ?1").map_err(failed)?;
    let body: Option<String> = get.query_row(params![id.to_string()], |row| row.get(0)).optional().map_err(failed)?;
    body.map(|body| record("ports", &body)).transpose()
}

/// Frees an address of a port.
fn free(connection: &Connection, port: &Port, ip: IpAddr) -> Result<(), StoreError> {
    let mut forget = connection
        .prepare_cached("DELETE FROM addresses WHERE network_id = ?1 AND address = ?2 AND port_id = ?3")
        .map_err(failed)?;
    forget.execute(params![port.network_id.to_string(), ip.to_string(), port.id.to_string()]).map(drop).map_err(failed)
}

/// Writes the number of the last commit.
pub(super) fn set_commit(connection: &Connection, number: u64) -> Result<(), StoreError> {
    put_meta(connection, "commit", &i64::try_from(number).unwrap_or(i64::MAX))
}

/// The number of the last commit; 0 before the first.
pub(super) fn commit(connection: &Connection) -> Result<u64, StoreError> {
    meta::<i64>(connection, "commit").map(|found| found.map_or(0, i64::unsigned_abs))
}

/// The store's id, if it has one.
pub(super) fn store_id(connection: &Connection) -> Result<Option<String>, StoreError> {
    meta(connection, "store_id")
}

/// Generates the store's id, if it has none.
pub(super) fn draw_store_id(connection: &Connection) -> Result<(), StoreError> {
    match store_id(connection)? {
        Some(_) => Ok(()),
        None => put_meta(connection, "store_id", &Uuid::new_v4().to_string()),
    }
}

/// How many ports there are.
pub(super) fn count_ports(connection: &Connection) -> Result<u64, StoreError> {
    let count: i64 = connection.query_row("SELECT count(*) FROM ports", [], |row| row.get(0)).map_err(failed)?;
    Ok(count.unsigned_abs())
}

/// Loads all records.
pub(super) fn load(connection: &Connection) -> Result<Loaded, StoreError> {
    let store_id = store_id(connection)?.and_then(|text| Uuid::try_parse(&text).ok());
    let store_id = store_id.ok_or_else(|| damaged("meta", "store_id", "is no UUID"))?;
    let number = |key| meta::<i64>(connection, key).map(|found| found.map_or(0, i64::unsigned_abs));
    let subnets = all(connection, "subnets", "id, network_id", |subnet: &Subnet| {
        vec![subnet.id.to_string(), subnet.network_id.to_string()]
    })?;
    let groups = all(connection, "security_groups", "id", |group: &Group| vec![group.id.to_string()])?;
    let ports = ports(connection, &subnets, &groups)?;
    Ok(Loaded {
        store_id,
        commit: commit(connection)?,
        next_event: number("next_event")?.max(1),
        lost: noted(connection, "lost")?,
        registration: noted(connection, "registration")?,
        claims: all(connection, "claims", "claim", |held: &Held| vec![json(&held.claim).unwrap_or_default()])?,
        members: all(connection, "members", "network_id, host, port_id", |noted: &NotedMember| {
            vec![noted.network.to_string(), noted.id.host.clone(), noted.id.port.to_string()]
        })?,
        lent: all(connection, "lent", "claim", |lent: &Lent| vec![json(&lent.claim).unwrap_or_default()])?,
        networks: all(connection, "networks", "id", |network: &Network| vec![network.id.to_string()])?,
        servers: all(connection, "servers", "id", |server: &Server| vec![server.id.to_string()])?,
        trunks: trunks(connection, &ports)?,
        ports,
        subnets,
        groups,
        remembered: all(connection, "remembered", "key", |remembered: &StoredRequest| vec![columns(&remembered.key).1])?,
        jobs: all(connection, "jobs", "id", |job: &Job| vec![job.id.to_string()])?,
        notices: all(connection, "notices", "recipient, about", |notice: &StoredNotice| {
            vec![notice.recipient().as_str().to_owned(), notice.about().text()]
        })?,
    })
}

/// The columns of a key. A client's are uid -1, which no user has, and its name with the key, which has no line feed.
fn columns(key: &Key) -> (i64, String) {
    match &key.caller {
        CallerId::Uid(uid) => (i64::from(*uid), key.key.clone()),
        CallerId::Client(name) => (-1, format!("{name}\n{}", key.key)),
    }
}

fn ports(connection: &Connection, subnets: &[Subnet], groups: &[Group]) -> Result<Vec<Port>, StoreError> {
    let ports: Vec<Port> = all(connection, "ports", "id, network_id, mac, coalesce(server_id, '')", |port: &Port| {
        let server = port.binding.as_ref().map(|binding| binding.server_id.to_string()).unwrap_or_default();
        vec![port.id.to_string(), port.network_id.to_string(), port.mac.to_string(), server]
    })?;
    let known: BTreeSet<(NetworkId, SubnetId)> = subnets.iter().map(|subnet| (subnet.network_id, subnet.id)).collect();
    let there: BTreeSet<GroupId> = groups.iter().map(|group| group.id).collect();
    let mut held: BTreeSet<[String; 3]> = BTreeSet::new();
    for port in &ports {
        // What it holds only until its guest has lost it may be of a subnet that is gone.
        if let Some(ip) = port.fixed_ips.iter().find(|ip| !known.contains(&(port.network_id, ip.subnet_id))) {
            return Err(damaged("ports", &port.id.to_string(), &format!("there is no subnet {} on its network", ip.subnet_id)));
        }
        if let Some(group) = port.groups.difference(&there).next() {
            return Err(damaged("ports", &port.id.to_string(), &format!("there is no security group {group}")));
        }
        let ips = port.held_ips().map(|ip| ip.ip_address.to_string());
        held.extend(ips.map(|ip| [port.network_id.to_string(), ip, port.id.to_string()]));
    }
    let mut statement = connection.prepare("SELECT network_id, address, port_id FROM addresses").map_err(failed)?;
    let rows = statement.query_map([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?])).map_err(failed)?;
    let reserved = rows.collect::<Result<BTreeSet<[String; 3]>, _>>().map_err(failed)?;
    match held.symmetric_difference(&reserved).next() {
        Some([_, address, port]) => Err(damaged("addresses", address, &format!("port {port} has another address"))),
        None => Ok(ports),
    }
}

fn trunks(connection: &Connection, ports: &[Port]) -> Result<Vec<Trunk>, StoreError> {
    let trunks: Vec<Trunk> =
        all(connection, "trunks", "id, port_id", |trunk: &Trunk| vec![trunk.id.to_string(), trunk.port_id.to_string()])?;
    let mut free: BTreeSet<PortId> = ports.iter().map(|port| port.id).collect();
    for trunk in &trunks {
        let members = [trunk.port_id].into_iter().chain(trunk.sub_ports.iter().map(|sub| sub.port_id));
        if let Some(port) = members.into_iter().find(|port| !free.remove(port)) {
            let what = format!("there is no port {port}, or it is in the trunk twice, or in another one");
            return Err(damaged("trunks", &trunk.id.to_string(), &what));
        }
    }
    Ok(trunks)
}

/// All records of a table. The values in `columns` must equal those in the body; a difference shows that the file is damaged.
fn all<T: DeserializeOwned>(
    connection: &Connection,
    table: &str,
    columns: &str,
    named: impl Fn(&T) -> Vec<String>,
) -> Result<Vec<T>, StoreError> {
    let mut statement = connection.prepare(&format!("SELECT body, version, {columns} FROM {table}")).map_err(failed)?;
    let width = statement.column_count();
    let mut rows = statement.query([]).map_err(failed)?;
    let mut records = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        let body: String = row.get(0).map_err(failed)?;
        let version: u32 = row.get(1).map_err(failed)?;
        if version > ROW_VERSION {
            let what = format!("its format version is {version}, and this nicd knows up to {ROW_VERSION}");
            return Err(StoreError::NewerRecord(format!("{what} (table {table}, {})", begins(&body))));
        }
        let read = record(table, &body)?;
        let beside = (2..width).map(|column| row.get(column)).collect::<Result<Vec<String>, _>>().map_err(failed)?;
        if named(&read) != beside {
            return Err(damaged(table, &begins(&body), &format!("the columns have {} instead", beside.join(", "))));
        }
        records.push(read);
    }
    Ok(records)
}

fn record<T: DeserializeOwned>(table: &str, body: &str) -> Result<T, StoreError> {
    serde_json::from_str(body).map_err(|error| match error.to_string() {
        // serde reports an unknown attribute or word: a newer nicd wrote the record.
        what if what.starts_with("unknown ") => StoreError::NewerRecord(format!("{what} (table {table}, {})", begins(body))),
        what => damaged(table, &begins(body), &what),
    })
}

fn begins(body: &str) -> String {
    body.chars().take(60).collect()
}

pub(super) fn damaged(table: &str, id: &str, what: &str) -> StoreError {
    StoreError::Damaged(format!("a record in table {table} cannot be read ({id}): {what}"))
}

fn json<T: Serialize>(record: &T) -> Result<String, StoreError> {
    serde_json::to_string(record).map_err(|error| StoreError::Failed(error.to_string()))
}

/// What is noted as JSON under a key, if it is.
fn noted<T: DeserializeOwned>(connection: &Connection, key: &str) -> Result<Option<T>, StoreError> {
    let Some(text) = meta::<String>(connection, key)? else { return Ok(None) };
    serde_json::from_str(&text).map_err(|error| damaged("meta", key, &error.to_string()))
}

fn meta<T: rusqlite::types::FromSql>(connection: &Connection, key: &str) -> Result<Option<T>, StoreError> {
    connection.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).optional().map_err(failed)
}

fn put_meta<T: rusqlite::ToSql>(connection: &Connection, key: &str, value: &T) -> Result<(), StoreError> {
    connection
        .prepare_cached("INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2")
        .and_then(|mut statement| statement.execute(params![key, value]))
        .map(|_| ())
        .map_err(failed)
}
