//! The store's files deleted or overwritten under a running daemon: nothing is answered as durable that no start would
//! find.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::fixture::{Fixture, interfaces};
use crate::netns::{in_netns, run};
use crate::{attach, is, problems};

/// How a store's file goes, and whether it can come back.
struct Loss {
    how: &'static str,
    back: Option<&'static str>,
}

const fn lost(how: &'static str) -> Loss {
    Loss { how, back: None }
}

const fn away(how: &'static str, back: &'static str) -> Loss {
    Loss { how, back: Some(back) }
}

fn sh(command: &str) {
    fs::write("/run/script", command).unwrap();
    run("sh -e /run/script");
}

/// A daemon with a port, beside which an older copy and another store lie.
fn fixture() -> (Fixture, String, String, String) {
    let mut fixture = Fixture::start();
    let network = fixture.usual_network();
    let server = fixture.server_with(json!({"guest": {"kind": "vm"}, "nic_limit": 1000}));
    fixture.daemon.term();
    sh("cp -r /run/nicd/state /run/older");
    fixture.launch();
    let port = fixture.attach_to(&server, &network);
    // The database alone has the port now; what comes next is in the log.
    sh("sqlite3 /run/nicd/state/nicd.db 'PRAGMA wal_checkpoint(TRUNCATE)' > /dev/null");
    fixture.create_port(json!({ "network_id": network, "name": "in the log" }));
    (fixture, network, server, port)
}

#[test]
fn a_store_that_is_replaced_is_noticed_before_anything_is_answered() {
    let losses = [
        lost("rm /run/nicd/state/nicd.db"),
        lost("rm /run/nicd/state/nicd.db*"),
        away("mv /run/nicd/state/nicd.db /run/away", "mv /run/away /run/nicd/state/nicd.db"),
        away("mv /run/nicd/state /run/away", "mv /run/away /run/nicd/state"),
        away("mv /run/nicd/state /run/away; mkdir /run/nicd/state", "rm -r /run/nicd/state; mv /run/away /run/nicd/state"),
        lost("mv /run/older/nicd.db /run/nicd/state/nicd.db"),
        away(
            "mv /run/nicd/state/nicd.db /run/away; cp /run/older/nicd.db /run/nicd/state/nicd.db",
            "mv -f /run/away /run/nicd/state/nicd.db",
        ),
        lost("cp /run/older/nicd.db /run/nicd/state/nicd.db"),
        lost("truncate -s 0 /run/nicd/state/nicd.db"),
        lost("truncate -s 5000 /run/nicd/state/nicd.db"),
        lost("dd if=/dev/zero of=/run/nicd/state/nicd.db bs=4096 count=3 conv=notrunc"),
        lost("truncate -s 0 /run/nicd/state/nicd.db-wal"),
    ];
    for loss in losses {
        in_netns(move || {
            let (mut fixture, network, server, port) = fixture();
            fixture.leaves_deviations();
            eprintln!("{}", loss.how);
            sh(loss.how);
            let refused = attach(&mut fixture.api, &server, &network);
            refused.refused(503, "store_replaced");
            assert!(refused.header("retry-after").is_some(), "{}", loss.how);
            // What was cut off would be there again after a start: this cannot be promised either.
            fixture.api.delete(&format!("{}/{port}", interfaces(&server))).refused(503, "store_replaced");
            fixture.api.post("/v2.0/networks", &json!({"network": {}})).refused(503, "store_replaced");
            fixture.events.wait_for(loss.how, |event| is(event, "agent.degraded", "store_replaced"));
            assert!(problems(&mut fixture).contains(&"store_replaced".to_owned()), "{}", loss.how);
            assert_eq!(fixture.port_ids().len(), 2, "{}", loss.how);
            let Some(back) = loss.back else {
                fixture.daemon.kill();
                return;
            };
            sh(back);
            fixture.events.wait_for(back, |event| is(event, "agent.recovered", "store_replaced"));
            let late = fixture.attach_to(&server, &network);
            fixture.detach(&server, &port);
            fixture.daemon.kill();
            fixture.launch();
            assert!(fixture.port_ids().contains(&late) && fixture.port_ids().len() == 2, "{}", loss.how);
        });
    }
}

#[test]
fn a_store_that_was_moved_is_whole_where_it_is() {
    in_netns(|| {
        let (mut fixture, network, server, port) = fixture();
        sh("mv /run/nicd/state/nicd.db /run/away");
        attach(&mut fixture.api, &server, &network).refused(503, "store_replaced");
        fixture.leaves_deviations();
        fixture.daemon.term();
        sh("mv /run/away /run/nicd/state/nicd.db");
        fixture.launch();
        assert!(fixture.port_ids().contains(&port) && fixture.port_ids().len() == 2);
    });
}

#[test]
fn a_log_that_is_taken_away_is_made_anew_without_loss() {
    for how in ["rm /run/nicd/state/nicd.db-wal", "rm /run/nicd/state/nicd.db-shm", "rm /run/nicd/state/nicd.db-*"] {
        in_netns(move || {
            let (mut fixture, network, server, port) = fixture();
            sh(how);
            let late = fixture.attach_to(&server, &network);
            assert!(Path::new("/run/nicd/state/nicd.db-wal").exists());
            fixture.daemon.kill();
            fixture.launch();
            let ports = fixture.port_ids();
            assert!(ports.len() == 3 && ports.contains(&port) && ports.contains(&late), "{how}");
            assert!(problems(&mut fixture).is_empty());
        });
    }
}

#[test]
fn what_other_programs_do_with_sqlite_is_no_replacement() {
    in_netns(|| {
        let (mut fixture, network, server, _) = fixture();
        let sqlite = |what: &str| sh(&format!("sqlite3 /run/nicd/state/nicd.db '{what}'"));
        for what in [
            "PRAGMA wal_checkpoint(PASSIVE)",
            "PRAGMA wal_checkpoint(TRUNCATE)",
            "INSERT INTO meta VALUES (\"other\", 1)",
            "VACUUM",
            "PRAGMA wal_checkpoint(RESTART)",
            "SELECT count(*) FROM ports",
        ] {
            sqlite(what);
            fixture.attach_to(&server, &network);
            assert!(problems(&mut fixture).is_empty(), "{what}");
        }
        let ports = fixture.port_ids();
        fixture.daemon.kill();
        fixture.launch();
        assert_eq!(fixture.port_ids(), ports);
    });
}
