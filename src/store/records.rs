//! Records as rows: writing changes, and reading everything back.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::model::memory::Remembered;
use crate::model::{FixedIp, Network, Port, Server, Subnet};

use super::{Change, Loaded, StoreError, failed};

/// Writes a transaction's changes.
pub(super) fn apply(connection: &Connection, changes: &[Change]) -> Result<(), StoreError> {
    changes.iter().try_for_each(|change| write(connection, change))
}

fn write(connection: &Connection, change: &Change) -> Result<(), StoreError> {
    let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| -> Result<(), StoreError> {
        connection.prepare_cached(sql).and_then(|mut statement| statement.execute(values)).map(|_| ()).map_err(failed)
    };
    match change {
        Change::PutNetwork(network) => run(
            "INSERT INTO networks (id, body) VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET body = ?2",
            params![network.id.to_string(), json(network)?],
        ),
        Change::DeleteNetwork(id) => run("DELETE FROM networks WHERE id = ?1", params![id.to_string()]),
        Change::PutSubnet(subnet) => run(
            "INSERT INTO subnets (id, network_id, body) VALUES (?1, ?2, ?3) ON CONFLICT (id) DO UPDATE SET body = ?3",
            params![subnet.id.to_string(), subnet.network_id.to_string(), json(subnet)?],
        ),
        Change::DeleteSubnet(id) => run("DELETE FROM subnets WHERE id = ?1", params![id.to_string()]),
        Change::PutServer(server) => run(
            "INSERT INTO servers (id, body) VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET body = ?2",
            params![server.id.to_string(), json(server)?],
        ),
        Change::DeleteServer(id) => run("DELETE FROM servers WHERE id = ?1", params![id.to_string()]),
        Change::PutPort(port) => put_port(connection, port),
        Change::DeletePort(id) => run("DELETE FROM ports WHERE id = ?1", params![id.to_string()]),
        Change::Remember(remembered) => run(
            "INSERT INTO remembered (uid, key, body) VALUES (?1, ?2, ?3) ON CONFLICT (uid, key) DO UPDATE SET body = ?3",
            params![remembered.key.uid, remembered.key.key, json(remembered)?],
        ),
        Change::ForgetKey(key) => run("DELETE FROM remembered WHERE uid = ?1 AND key = ?2", params![key.uid, key.key]),
        Change::NoteLost(lost) => put_meta(connection, "lost", &json(lost)?),
        Change::ReserveEvents(next) => put_meta(connection, "next_event", &i64::try_from(*next).unwrap_or(i64::MAX)),
    }
}

fn put_port(connection: &Connection, port: &Port) -> Result<(), StoreError> {
    let id = port.id.to_string();
    let server = port.binding.as_ref().map(|binding| binding.server_id.to_string());
    let mut put = connection
        .prepare_cached(
            "INSERT INTO ports (id, network_id, server_id, mac, body) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (id) DO UPDATE SET server_id = ?3, mac = ?4, body = ?5",
        )
        .map_err(failed)?;
    put.execute(params![id, port.network_id.to_string(), server, port.mac.to_string(), json(port)?]).map_err(failed)?;
    let mut forget = connection.prepare_cached("DELETE FROM addresses WHERE port_id = ?1").map_err(failed)?;
    forget.execute(params![id]).map_err(failed)?;
    let mut add = connection
        .prepare_cached("INSERT INTO addresses (network_id, address, port_id, subnet_id) VALUES (?1, ?2, ?3, ?4)")
        .map_err(failed)?;
    for ip in port.held_ips() {
        let row = params![port.network_id.to_string(), ip.ip_address.to_string(), id, ip.subnet_id.to_string()];
        add.execute(row).map_err(failed)?;
    }
    Ok(())
}

/// Notes the number of the last commit.
pub(super) fn set_commit(connection: &Connection, number: u64) -> Result<(), StoreError> {
    put_meta(connection, "commit", &i64::try_from(number).unwrap_or(i64::MAX))
}

/// Reads everything; draws the store's id when it has none yet.
pub(super) fn load(connection: &mut Connection) -> Result<Loaded, StoreError> {
    let store_id = match meta::<String>(connection, "store_id")? {
        Some(text) => Uuid::try_parse(&text).map_err(|_| damaged("meta", "store_id", "is no UUID"))?,
        None => {
            let drawn = Uuid::new_v4();
            put_meta(connection, "store_id", &drawn.to_string())?;
            drawn
        }
    };
    let number = |key| meta::<i64>(connection, key).map(|found| found.map_or(0, i64::unsigned_abs));
    Ok(Loaded {
        store_id,
        commit: number("commit")?,
        next_event: number("next_event")?.max(1),
        lost: match meta::<String>(connection, "lost")? {
            Some(text) => serde_json::from_str(&text).map_err(|error| damaged("meta", "lost", &error.to_string()))?,
            None => None,
        },
        networks: all(connection, "networks", "id", |network: &Network| vec![network.id.to_string()])?,
        subnets: all(connection, "subnets", "id, network_id", |subnet: &Subnet| {
            vec![subnet.id.to_string(), subnet.network_id.to_string()]
        })?,
        servers: all(connection, "servers", "id", |server: &Server| vec![server.id.to_string()])?,
        ports: ports(connection)?,
        remembered: all(connection, "remembered", "key", |remembered: &Remembered| vec![remembered.key.key.clone()])?,
    })
}

fn ports(connection: &Connection) -> Result<Vec<Port>, StoreError> {
    let ports: Vec<Port> = all(connection, "ports", "id, network_id, mac, coalesce(server_id, '')", |port: &Port| {
        let server = port.binding.as_ref().map(|binding| binding.server_id.to_string()).unwrap_or_default();
        vec![port.id.to_string(), port.network_id.to_string(), port.mac.to_string(), server]
    })?;
    let mut held: BTreeSet<[String; 4]> = BTreeSet::new();
    for port in &ports {
        let row = |ip: &FixedIp| {
            [port.network_id.to_string(), ip.ip_address.to_string(), port.id.to_string(), ip.subnet_id.to_string()]
        };
        held.extend(port.held_ips().map(row));
    }
    let mut statement = connection.prepare("SELECT network_id, address, port_id, subnet_id FROM addresses").map_err(failed)?;
    let rows = statement.query_map([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?])).map_err(failed)?;
    let reserved = rows.collect::<Result<BTreeSet<[String; 4]>, _>>().map_err(failed)?;
    match held.symmetric_difference(&reserved).next() {
        Some([_, address, port, _]) => Err(damaged("addresses", address, &format!("it is not as port {port} has it"))),
        None => Ok(ports),
    }
}

/// All records of a table. What stands in `columns` too must be as in the body: what one bit changed is not what was
/// written.
fn all<T: DeserializeOwned>(
    connection: &Connection,
    table: &str,
    columns: &str,
    named: impl Fn(&T) -> Vec<String>,
) -> Result<Vec<T>, StoreError> {
    let mut statement = connection.prepare(&format!("SELECT body, {columns} FROM {table}")).map_err(failed)?;
    let width = statement.column_count();
    let mut rows = statement.query([]).map_err(failed)?;
    let mut records = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        let body: String = row.get(0).map_err(failed)?;
        let begins = || body.chars().take(60).collect::<String>();
        let record: T = serde_json::from_str(&body).map_err(|error| damaged(table, &begins(), &error.to_string()))?;
        let beside = (1..width).map(|column| row.get(column)).collect::<Result<Vec<String>, _>>().map_err(failed)?;
        if named(&record) != beside {
            return Err(damaged(table, &begins(), &format!("beside it stands {}", beside.join(", "))));
        }
        records.push(record);
    }
    Ok(records)
}

fn damaged(table: &str, id: &str, what: &str) -> StoreError {
    StoreError::Damaged(format!("a record in table {table} cannot be read ({id}): {what}"))
}

fn json<T: Serialize>(record: &T) -> Result<String, StoreError> {
    serde_json::to_string(record).map_err(|error| StoreError::Failed(error.to_string()))
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
