//! The agent's answers about itself and the host: health, facts about a port, its counters, leases, deviations, leftovers.

use serde_json::Value;

use super::plain;
use crate::ctl::table::{Cell, Table, Tone};
use crate::ctl::wording::of_commands;

/// How the daemon is, and under it what is wrong, one problem to a row.
pub fn health(health: &Value) -> Vec<Table> {
    let mut daemon = Table::default();
    let uptime = health["uptime_s"].as_u64().map_or_else(|| plain(&health["uptime_s"]), duration);
    // The first line names the first problem: they are listed in the order in which one may be the cause of another.
    let status = match &health["problems"][0] {
        Value::Null => Cell::status(&plain(&health["status"])),
        first => {
            let parts = [plain(&health["status"]), plain(&first["reason"]), plain(&first["detail"])];
            Cell::new(&parts.join(": ")).toned(Tone::Bad)
        }
    };
    daemon.push(vec![Cell::new("status"), status]);
    daemon.push(vec![Cell::new("version"), Cell::new(&plain(&health["version"]))]);
    daemon.push(vec![Cell::new("host"), Cell::new(&plain(&health["host"]))]);
    daemon.push(vec![Cell::new("up"), Cell::new(&uptime)]);
    daemon.push(vec![Cell::new("ports"), Cell::new(&ports(health))]);
    let problems = rows(&health["problems"], &["PROBLEM", "DETAIL", "REMEDY"], |problem| {
        vec![
            Cell::new(&plain(&problem["reason"])).toned(Tone::Bad),
            Cell::new(&of_commands(&plain(&problem["detail"]))),
            Cell::new(&of_commands(&plain(&problem["remedy"]))),
        ]
    });
    std::iter::once(daemon).chain(problems).collect()
}

/// How many ports have each status; those without a server are DOWN too, and are counted apart.
fn ports(health: &Value) -> String {
    let mut attached = health["ports"].clone();
    let without = health["unattached"].as_u64().unwrap_or(0);
    if let Some(down) = attached.get_mut("DOWN") {
        *down = down.as_u64().unwrap_or(0).saturating_sub(without).into();
    }
    match without {
        0 => counts(&attached),
        without => format!("{}, not attached {without}", counts(&attached)),
    }
}

/// The facts about a port, in the order in which they decide, under what they make of it.
pub fn facts(explained: &Value) -> Vec<Table> {
    let mut verdict = Table::default();
    let all = explained["facts"].as_array().map(Vec::as_slice).unwrap_or_default();
    if let Some(cause) = all.iter().find(|fact| fact["ok"] == false) {
        let why = [plain(&cause["fact"]), of_commands(&plain(&cause["detail"]))].into_iter().filter(|part| !part.is_empty());
        verdict.push(vec![Cell::new("cause"), Cell::new(&why.collect::<Vec<_>>().join(": "))]);
    }
    verdict.push(vec![Cell::new("port"), Cell::new(&plain(&explained["port_id"]))]);
    verdict.push(vec![Cell::new("status"), Cell::status(&plain(&explained["status"]))]);
    verdict.push(vec![Cell::new("phase"), Cell::new(&plain(&explained["phase"]))]);
    let facts = rows(&explained["facts"], &["FACT", "OK", "DETAIL"], |fact| {
        let tone = if fact["ok"] == true { Tone::Good } else { Tone::Bad };
        vec![
            Cell::new(&plain(&fact["fact"])),
            Cell::new(&plain(&fact["ok"])).toned(tone),
            Cell::new(&of_commands(&plain(&fact["detail"]))),
        ]
    });
    std::iter::once(verdict).chain(facts).collect()
}

/// What passed a port, what was dropped of it for each reason, and the last frames that were.
pub fn counters(counted: &Value) -> Vec<Table> {
    let mut passed = Table::titled(["DIRECTION", "PACKETS", "BYTES"]);
    for (direction, title) in [("from_guest", "from guest"), ("to_guest", "to guest")] {
        let numbers = ["packets", "bytes"].map(|unit| Cell::new(&plain(&counted[direction][unit])));
        passed.push(std::iter::once(Cell::new(title)).chain(numbers).collect());
    }
    let mut dropped = Table::titled(["DROPPED", "PACKETS"]);
    for (reason, packets) in counted["dropped"].as_object().into_iter().flatten() {
        let tone = if *packets == 0 { Tone::Plain } else { Tone::Bad };
        dropped.push(vec![Cell::new(reason), Cell::new(&plain(packets)).toned(tone)]);
    }
    let last = rows(&counted["last_dropped"], &["AT", "REASON", "SRC MAC", "SRC IP", "ETHERTYPE"], |frame| {
        ["at", "reason", "src_mac", "src_ip", "ethertype"].map(|member| Cell::new(&plain(&frame[member]))).into()
    });
    [passed, dropped].into_iter().chain(last).collect()
}

/// The same in three lines, for below a port.
pub fn passed(counted: &Value) -> Table {
    let mut table = Table::default();
    for (direction, title) in [("from_guest", "from guest"), ("to_guest", "to guest")] {
        let [packets, bytes] = ["packets", "bytes"].map(|unit| plain(&counted[direction][unit]));
        table.push(vec![Cell::new(title), Cell::new(&format!("{packets} packets, {bytes} bytes"))]);
    }
    let dropped = counted["dropped"].as_object().into_iter().flatten().filter(|(_, packets)| **packets != 0);
    let dropped: Vec<String> = dropped.map(|(reason, packets)| format!("{reason} {}", plain(packets))).collect();
    table
        .push(vec![Cell::new("dropped"), Cell::new(&if dropped.is_empty() { "nothing".to_owned() } else { dropped.join(", ") })]);
    table
}

/// When each step of an attach began and how long it took, in microseconds.
pub fn times(receipt: &Value) -> Table {
    let mut table = Table::titled(["STEP", "AT µs", "TOOK µs"]);
    for step in receipt.as_array().into_iter().flatten() {
        table.push(["step", "at_us", "took_us"].map(|key| Cell::new(&plain(&step[key]))).into());
    }
    table
}

/// A plan's steps in their order, each with what takes it back.
pub fn steps(said: &Value) -> Vec<Table> {
    let mut table = Table::titled(["STEP", "OP", "UNDO"]);
    for (number, step) in said["plan"]["steps"].as_array().into_iter().flatten().enumerate() {
        let cells = [plain(&Value::from(number + 1)), op(&step["op"]), op(&step["undo"])];
        table.push(cells.map(|cell| Cell::new(&cell)).into());
    }
    vec![table]
}

/// An op: its name, then what it is about.
fn op(op: &Value) -> String {
    let Value::Object(members) = op else { return plain(op) };
    let about = members.iter().filter(|(key, _)| *key != "op").map(|(key, value)| format!("{key}={}", plain(value)));
    std::iter::once(plain(&op["op"])).chain(about).collect::<Vec<_>>().join(" ")
}

/// What a look at the host found, under the first thing that is wrong.
pub fn findings(said: &Value) -> Vec<Table> {
    let mut verdict = Table::default();
    let first = &said["findings"][0];
    let cause = match first["level"] == "ok" {
        true => Cell::new("nothing").toned(Tone::Good),
        false => Cell::new(&[plain(&first["check"]), plain(&first["detail"])].join(": ")).toned(Tone::Bad),
    };
    verdict.push(vec![Cell::new("cause"), cause]);
    let all = rows(&said["findings"], &["LEVEL", "CHECK", "DETAIL", "REMEDY"], |finding| {
        let level = plain(&finding["level"]);
        let tone = match level.as_str() {
            "fail" => Tone::Bad,
            "warn" => Tone::Waiting,
            _ => Tone::Good,
        };
        let rest = ["check", "detail", "remedy"].map(|key| Cell::new(&plain(&finding[key])));
        std::iter::once(Cell::new(&level).toned(tone)).chain(rest).collect()
    });
    std::iter::once(verdict).chain(all).collect()
}

/// The versions of programs.
pub fn versions(said: &Value) -> Vec<Table> {
    let mut table = Table::default();
    for (program, version) in said.as_object().into_iter().flatten() {
        table.push(vec![Cell::new(program), Cell::new(&plain(version))]);
    }
    vec![table]
}

/// What guests asked last by DHCP.
pub fn leases(said: &Value) -> Table {
    let mut table = Table::titled(["PORT", "ADDRESS", "STATE", "MESSAGE", "AT", "HOSTNAME", "CLIENT ID"]);
    for lease in said["leases"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let members = ["port_id", "address", "state", "message", "at", "hostname", "client_id"];
        table.push(members.map(|member| Cell::new(&plain(&lease[member]))).into());
    }
    table
}

/// What is not as recorded; where there is nothing, what was checked.
pub fn deviations(verified: &Value) -> Vec<Table> {
    let found = rows(&verified["deviations"], &["DEVIATION", "OBJECT", "WANT", "HAVE"], |deviation| {
        vec![
            Cell::new(&plain(&deviation["kind"])).toned(Tone::Bad),
            Cell::new(&plain(&deviation["object"])),
            Cell::new(&plain(&deviation["want"])),
            Cell::new(&plain(&deviation["have"])),
        ]
    });
    let mut checked = Table::default();
    let number = verified["deviations"].as_array().map_or(0, Vec::len);
    checked.push(vec![Cell::new("checked"), Cell::new(&counts(&verified["checked"]))]);
    checked.push(vec![Cell::new("deviations"), Cell::new(&number.to_string())]);
    std::iter::once(checked).chain(found).collect()
}

/// The leftovers, and those that were deleted.
pub fn leftovers(collected: &Value) -> Table {
    let mut table = Table::titled(["STATE", "OBJECT", "KIND", "REASON", "ALTNAME", "ALIAS"]);
    for (key, state) in [("removed", "removed"), ("leftovers", "left over")] {
        for leftover in collected[key].as_array().map(Vec::as_slice).unwrap_or_default() {
            let said = ["object", "kind", "reason", "altname", "alias"].map(|member| Cell::new(&plain(&leftover[member])));
            table.push(std::iter::once(Cell::new(state)).chain(said).collect());
        }
    }
    table
}

/// A table with a row to each item, or none if there are no items.
fn rows(items: &Value, titles: &[&str], row: impl Fn(&Value) -> Vec<Cell>) -> Option<Table> {
    let items = items.as_array().filter(|items| !items.is_empty())?;
    let mut table = Table::titled(titles.iter().copied());
    items.iter().for_each(|item| table.push(row(item)));
    Some(table)
}

/// `{"ACTIVE": 3, "DOWN": 1}` as "ACTIVE 3, DOWN 1".
fn counts(counts: &Value) -> String {
    let Some(members) = counts.as_object() else { return plain(counts) };
    members.iter().map(|(key, count)| format!("{key} {}", plain(count))).collect::<Vec<_>>().join(", ")
}

/// Seconds in the two units that matter.
pub fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        (_, _, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ctl::table::Colour;

    fn text(tables: &[Table]) -> String {
        tables.iter().map(|table| table.render(Colour::None)).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_healthy_daemon_has_no_table_of_problems() {
        let said = json!({"status": "ok", "version": "0.1.0", "uptime_s": 93_784, "host": "n1", "problems": [],
            "ports": {"ACTIVE": 3, "DOWN": 3}, "unattached": 2});
        assert_eq!(
            text(&health(&said)),
            "status   ok\n\
             version  0.1.0\n\
             host     n1\n\
             up       1 d 2 h\n\
             ports    ACTIVE 3, DOWN 1, not attached 2\n"
        );
    }

    #[test]
    fn problems_come_with_remedies() {
        let said =
            json!({"status": "degraded", "problems": [{"reason": "store_full", "detail": "0 bytes", "remedy": "make room"}]});
        assert!(text(&health(&said)).starts_with("status   degraded: store_full: 0 bytes\n"), "{}", text(&health(&said)));
        assert!(text(&health(&said)).ends_with("\n\nPROBLEM     DETAIL   REMEDY\nstore_full  0 bytes  make room\n"));
    }

    #[test]
    fn what_was_dropped_stands_under_what_passed() {
        let said = json!({"from_guest": {"packets": 12, "bytes": 980}, "to_guest": {"packets": 0, "bytes": 0},
            "dropped": {"mac": 0, "arp": 3}, "last_dropped": [{"at": "2026-01-01T00:00:00Z", "reason": "arp",
            "src_mac": "fa:16:3e:00:00:01", "src_ip": null, "ethertype": "0x0806"}]});
        assert_eq!(
            text(&counters(&said)),
            "DIRECTION   PACKETS  BYTES\n\
             from guest  12       980\n\
             to guest    0        0\n\n\
             DROPPED  PACKETS\n\
             arp      3\n\
             mac      0\n\n\
             AT                    REASON  SRC MAC            SRC IP  ETHERTYPE\n\
             2026-01-01T00:00:00Z  arp     fa:16:3e:00:00:01  -       0x0806\n"
        );
        assert_eq!(
            text(&[passed(&said)]),
            "from guest  12 packets, 980 bytes\n\
             to guest    0 packets, 0 bytes\n\
             dropped     arp 3\n"
        );
    }

    #[test]
    fn leases_are_one_to_a_row() {
        let lease = json!({"port_id": "p", "family": "ipv4", "address": "192.0.2.7", "state": "bound", "message": "request",
            "at": "2026-01-01T00:00:00Z", "client_id": null, "hostname": "web-1"});
        assert_eq!(
            text(&[leases(&json!({"leases": [lease]}))]),
            "PORT  ADDRESS    STATE  MESSAGE  AT                    HOSTNAME  CLIENT ID\n\
             p     192.0.2.7  bound  request  2026-01-01T00:00:00Z  web-1     -\n"
        );
    }

    #[test]
    fn the_first_fact_that_is_not_so_is_the_cause() {
        let said = json!({"port_id": "p", "status": "DOWN", "phase": "wired", "facts": [
            {"fact": "device", "ok": true, "detail": "nicdce531f90199"},
            {"fact": "carrier", "ok": false, "detail": "the tap is not open"},
            {"fact": "monitor", "ok": false, "detail": ""}]});
        assert_eq!(
            text(&facts(&said)),
            "cause   carrier: the tap is not open\n\
             port    p\n\
             status  DOWN\n\
             phase   wired\n\
             \n\
             FACT     OK   DETAIL\n\
             device   yes  nicdce531f90199\n\
             carrier  no   the tap is not open\n\
             monitor  no   -\n"
        );
    }

    #[test]
    fn deviations_say_what_is_wanted() {
        let none = json!({"deviations": [], "checked": {"ports": 3, "networks": 1}});
        assert_eq!(text(&deviations(&none)), "checked     networks 1, ports 3\ndeviations  0\n");
        let some =
            json!({"deviations": [{"kind": "mtu", "object": "nicdce531f90199", "want": 1500, "have": 1400}], "checked": {}});
        assert!(
            text(&deviations(&some))
                .ends_with("DEVIATION  OBJECT           WANT  HAVE\nmtu        nicdce531f90199  1500  1400\n")
        );
    }

    #[test]
    fn leftovers_come_after_what_was_removed() {
        let left =
            json!({"object": "nicdce531f90199", "kind": "tap", "reason": "mark_lost", "altname": null, "alias": "nicd s 8"});
        let removed = json!({"object": "nbr3cb9bc595699", "kind": "bridge", "reason": "device_without_record",
            "altname": "nicd-3cb9", "alias": null});
        assert_eq!(
            text(&[leftovers(&json!({"leftovers": [left], "removed": [removed]}))]),
            "STATE      OBJECT           KIND    REASON                 ALTNAME    ALIAS\n\
             removed    nbr3cb9bc595699  bridge  device_without_record  nicd-3cb9  -\n\
             left over  nicdce531f90199  tap     mark_lost              -          nicd s 8\n"
        );
    }

    #[test]
    fn durations_have_two_units() {
        for (seconds, text) in [(0, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (3_660, "1 h 1 min"), (90_000, "1 d 1 h")] {
            assert_eq!(duration(seconds), text);
        }
    }
}
