//! What security groups cost: packets of an established flow, a rule's change, attaches. The kernel has to track the connections of
//! bridges, and `nft` must be there.

use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::Effort;
use crate::daemon::{Daemon, Fleet, Nic};
use crate::figures::{Aim, Sample, Table};
use crate::filtering::{rate, send};
use crate::http::{Client, request};
use crate::restarting;

/// Rules of a group, beside the two that it begins with.
const RULES: usize = 50;

/// Different sets of groups.
const PROFILES: usize = 200;

/// Rows: packets of an established flow with ports in many sets of groups, over none in a group and no rules of groups, which is
/// measured before and after; and a rule's change with all ports in its group.
pub fn packets(table: &mut Table, effort: Effort, dir: &Path, daemon: &mut Daemon) {
    let mut taps = Fleet::new(daemon, Nic::Tap, 23);
    taps.grow(effort.many);
    let mut veths = Fleet::new(daemon, Nic::Veth, 24);
    // The last is the first NIC of its guest, by which that answers.
    veths.grow(9);
    let (sender, receiver) = restarting::pair(&mut veths);
    let measure = |sample: &mut Sample| {
        establish(&sender, &receiver);
        (0..effort.samples / 10).for_each(|_| send(sample, &sender, &receiver));
    };
    let (mut with, mut without) = (Sample::default(), Sample::default());
    measure(&mut without);
    taps.reconnect(daemon);
    let profiles: Vec<Value> = (0..PROFILES).map(|_| json!([group(&mut taps.client, 1)])).collect();
    let in_profiles = |place: usize| profiles[place % PROFILES].clone();
    [&mut taps, &mut veths].into_iter().for_each(|fleet| fleet.put_groups(daemon, in_profiles));
    measure(&mut with);
    change(table, daemon, &mut taps);
    [&mut taps, &mut veths].into_iter().for_each(|fleet| fleet.put_groups(daemon, |_| json!([])));
    // The rules of groups go with a start that finds no port in any.
    daemon.stop(Signal::SIGTERM);
    *daemon = Daemon::start(dir);
    measure(&mut without);
    let mut tracked = Sample::default();
    nft(
        "add table bridge bench; add chain bridge bench tracked { type filter hook prerouting priority -150; }; add rule bridge bench tracked ct state established accept",
    );
    measure(&mut tracked);
    nft("delete table bridge bench");
    table.row(
        "the same with the kernel's connection tracking and one rule over none",
        "/s",
        Some(rate(&without)),
        rate(&tracked),
        Aim::Nothing,
    );
    let what = format!(
        "packets a second of an established flow, {} ports with {PROFILES} sets of groups over none",
        taps.ports.len() + veths.ports.len()
    );
    table.row(&what, "/s", Some(rate(&without)), rate(&with), Aim::AtLeast(0.95, 0.85));
    for fleet in [&mut taps, &mut veths] {
        fleet.reconnect(daemon);
        fleet.shrink(0);
    }
}

/// Has the kernel track connections of bridges by rules that are not nicd's.
fn nft(rules: &str) {
    assert!(Command::new("nft").arg(rules).status().expect("nft").success());
}

/// The flow has had an answer.
fn establish(sender: &UdpSocket, receiver: &UdpSocket) {
    sender.set_read_timeout(Some(Duration::from_secs(5))).expect("a limit");
    let back = sender.local_addr().expect("an address");
    sender.send(b"ask").expect("a packet");
    receiver.recv(&mut [0; 64]).expect("the way there");
    receiver.send_to(b"answer", back).expect("a packet");
    sender.recv(&mut [0; 64]).expect("the way back");
}

/// Rows: a rule is made, and deleted, with all ports of a fleet in its group. It is in force when that is answered.
fn change(table: &mut Table, daemon: &Daemon, fleet: &mut Fleet) {
    fleet.reconnect(daemon);
    let group = group(&mut fleet.client, RULES);
    fleet.put_groups(daemon, |_| json!([group]));
    let (mut made, mut deleted) = (Sample::default(), Sample::default());
    for _ in 0..50 {
        let rule = json!({ "security_group_rules": [rule(&group, RULES)] });
        let make = request("POST", "/v2.0/security-group-rules", Some(&rule));
        let answer = made.time(|| fleet.client.ask(&make)).json();
        let id = answer["security_group_rules"][0]["id"].as_str().expect("an id");
        let delete = request("DELETE", &format!("/v2.0/security-group-rules/{id}"), None);
        assert!(deleted.time(|| fleet.client.ask(&delete)).status < 300);
    }
    for (what, sample) in [("made", made), ("deleted", deleted)] {
        let what = format!("a rule is {what} → in force for the {} ports of its group, p50", fleet.ports.len());
        table.row(&what, "ms", None, sample.p50() / 1000.0, Aim::Nothing);
    }
}

/// Row: an attach of a port that was made in a group of many rules, over one in none, in turns.
pub fn attach(table: &mut Table, effort: Effort, daemon: &Daemon) {
    let mut fleets = [21, 22].map(|octet| Fleet::new(daemon, Nic::Tap, octet));
    let groups = [json!([]), json!([group(&mut fleets[1].client, RULES)])];
    let mut took = [Sample::default(), Sample::default()];
    for number in 0..effort.samples {
        for side in [number % 2, 1 - number % 2] {
            took[side].add(fleets[side].grow_by_made(&groups[side]));
        }
    }
    let [without, with] = took.map(|sample| sample.p50());
    let what = format!("attach tap, p50, in a group of {RULES} rules over in none");
    table.row(&what, "µs", Some(without), with, Aim::AtMost(1.05, 1.1));
}

/// Makes a group with so many rules of its own; its id.
fn group(client: &mut Client, rules: usize) -> String {
    let new = json!({"security_group": {"name": "bench"}});
    let made = client.ask(&request("POST", "/v2.0/security-groups", Some(&new))).json();
    let id = made["security_group"]["id"].as_str().expect("an id").to_owned();
    let rules: Vec<Value> = (0..rules).map(|number| rule(&id, number)).collect();
    let rules = json!({ "security_group_rules": rules });
    client.ask(&request("POST", "/v2.0/security-group-rules", Some(&rules))).json();
    id
}

/// The first is of the port that the packets here are for.
fn rule(group: &str, number: usize) -> Value {
    let port = 9 + 2 * number;
    json!({
        "security_group_id": group, "direction": "ingress", "protocol": "udp", "port_range_min": port, "port_range_max": port,
        "remote_ip_prefix": "10.0.0.0/8",
    })
}
