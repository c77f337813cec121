//! The store's files taken away or overwritten under a running daemon: nothing is answered as durable that no start would
//! find.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::bench::{Bench, interfaces};
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
fn bench() -> (Bench, String, String, String) {
    let mut bench = Bench::start();
    let network = bench.usual_network();
    let server = bench.server_with(json!({"guest": {"kind": "vm"}, "nic_limit": 1000}));
    bench.daemon.term();
    sh("cp -r /run/nicd/state /run/older");
    bench.launch();
    let port = bench.attach_to(&server, &network);
    // The database alone has the port now; what comes next is in the log.
    sh("sqlite3 /run/nicd/state/nicd.db 'PRAGMA wal_checkpoint(TRUNCATE)' > /dev/null");
    bench.create_port(json!({ "network_id": network, "name": "in the log" }));
    (bench, network, server, port)
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
            let (mut bench, network, server, port) = bench();
            bench.leaves_deviations();
            eprintln!("{}", loss.how);
            sh(loss.how);
            let refused = attach(&mut bench.api, &server, &network);
            refused.refused(503, "store_replaced");
            assert!(refused.header("retry-after").is_some(), "{}", loss.how);
            // What was cut off would be there again after a start: this cannot be promised either.
            bench.api.delete(&format!("{}/{port}", interfaces(&server))).refused(503, "store_replaced");
            bench.api.post("/v2.0/networks", &json!({"network": {}})).refused(503, "store_replaced");
            bench.events.wait_for(loss.how, |event| is(event, "agent.degraded", "store_replaced"));
            assert!(problems(&mut bench).contains(&"store_replaced".to_owned()), "{}", loss.how);
            assert_eq!(bench.port_ids().len(), 2, "{}", loss.how);
            let Some(back) = loss.back else {
                bench.daemon.kill();
                return;
            };
            sh(back);
            bench.events.wait_for(back, |event| is(event, "agent.recovered", "store_replaced"));
            let late = bench.attach_to(&server, &network);
            bench.detach(&server, &port);
            bench.daemon.kill();
            bench.launch();
            assert!(bench.port_ids().contains(&late) && bench.port_ids().len() == 2, "{}", loss.how);
        });
    }
}

#[test]
fn a_store_that_was_moved_is_whole_where_it_is() {
    in_netns(|| {
        let (mut bench, network, server, port) = bench();
        sh("mv /run/nicd/state/nicd.db /run/away");
        attach(&mut bench.api, &server, &network).refused(503, "store_replaced");
        bench.leaves_deviations();
        bench.daemon.term();
        sh("mv /run/away /run/nicd/state/nicd.db");
        bench.launch();
        assert!(bench.port_ids().contains(&port) && bench.port_ids().len() == 2);
    });
}

#[test]
fn a_log_that_is_taken_away_is_made_anew_without_loss() {
    for how in ["rm /run/nicd/state/nicd.db-wal", "rm /run/nicd/state/nicd.db-shm", "rm /run/nicd/state/nicd.db-*"] {
        in_netns(move || {
            let (mut bench, network, server, port) = bench();
            sh(how);
            let late = bench.attach_to(&server, &network);
            assert!(Path::new("/run/nicd/state/nicd.db-wal").exists());
            bench.daemon.kill();
            bench.launch();
            let ports = bench.port_ids();
            assert!(ports.len() == 3 && ports.contains(&port) && ports.contains(&late), "{how}");
            assert!(problems(&mut bench).is_empty());
        });
    }
}

#[test]
fn what_other_programs_do_with_sqlite_is_no_replacement() {
    in_netns(|| {
        let (mut bench, network, server, _) = bench();
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
            bench.attach_to(&server, &network);
            assert!(problems(&mut bench).is_empty(), "{what}");
        }
        let ports = bench.port_ids();
        bench.daemon.kill();
        bench.launch();
        assert_eq!(bench.port_ids(), ports);
    });
}
