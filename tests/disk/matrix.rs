//! Every file call that some attaches at the same time make on the store's files fails once: what was answered with success
//! is there after a kill, what was answered with an error is not.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::daemon::Daemon;
use crate::fixture::{Fixture, text};
use crate::kernel_view::marked_ports;
use crate::netns::{in_netns, run};
use crate::{attach, problems};

/// How many attach at the same time, where several do.
const AT_ONCE: usize = 6;

/// What the loaded library goes by: `armed`, `first`, `number`, `error`, `count`.
struct Control(File);

impl Control {
    fn set(&self, values: [i32; 5]) {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
        self.0.write_all_at(&bytes, 0).unwrap();
    }

    /// Calls so far.
    fn count(&self) -> i32 {
        let mut bytes = [0; 4];
        self.0.read_exact_at(&mut bytes, 16).unwrap();
        i32::from_ne_bytes(bytes)
    }
}

/// A daemon in which file calls can be made to fail.
fn fixture() -> (Fixture, Control) {
    fs::write("/run/fault.c", include_str!("fault.c")).unwrap();
    run("gcc -shared -fPIC -O1 -o /run/fault.so /run/fault.c -ldl");
    let file = File::options().create(true).truncate(true).read(true).write(true).open("/run/fault").unwrap();
    file.set_len(4096).unwrap();
    let mut daemon = Daemon::prepared("/run/nicd");
    daemon.environment = vec![("LD_PRELOAD", "/run/fault.so".into()), ("STORE_FAULT", "/run/fault".into())];
    daemon.launch();
    (Fixture::of(daemon), Control(file))
}

/// Has the daemon's cache dropped, so that it reads pages again, as one does with more ports than fit.
fn drop_cache(state: &Path) {
    let other = Connection::open(state.join("nicd.db")).unwrap();
    other.execute("INSERT INTO meta (key, value) VALUES ('other', 1) ON CONFLICT DO UPDATE SET value = value + 1", []).unwrap();
}

/// Attaches at the same time; the ports of those that succeed.
fn attach_all(fixture: &Fixture, server: &str, network: &str, at_once: usize) -> BTreeSet<String> {
    let one = || {
        let mut api = fixture.daemon.client();
        move || {
            let answer = attach(&mut api, server, network);
            assert!([200, 503, 507].contains(&answer.status), "{}", answer.text);
            (answer.status == 200).then(|| text(&answer.json()["interfaceAttachment"]["port_id"]))
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..at_once).map(|_| scope.spawn(one())).collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
    })
}

fn every_call_fails(error: i32, number: i32, at_once: usize) {
    in_netns(move || {
        let (mut fixture, control) = fixture();
        let network = fixture.usual_network();
        let server = fixture.server_with(serde_json::json!({"guest": {"kind": "vm"}, "nic_limit": 1000}));
        let (mut first, mut failed, until) = (1, 0, Instant::now() + Duration::from_secs(25));
        loop {
            drop_cache(&fixture.daemon.state());
            control.set([1, first, number, error, 0]);
            let made = attach_all(&fixture, &server, &network, at_once);
            let count = control.count();
            fixture.daemon.kill();
            control.set([0; 5]);
            fixture.launch();
            let there: BTreeSet<String> = fixture.port_ids().into_iter().collect();
            assert_eq!(there, made, "call {first} of {count} failed with {error}");
            failed += usize::from(made.len() < at_once);
            for port in &there {
                fixture.detach(&server, port);
            }
            assert!(marked_ports().is_empty(), "call {first}: something is left");
            if first > count {
                break;
            }
            // Where the machine is slow a sample of them has to do.
            first += if Instant::now() < until { 1 } else { 7 };
        }
        assert!(first > 3 * i32::try_from(at_once).unwrap() && failed > 0, "{first} calls, {failed} times something failed");
        assert!(problems(&mut fixture).is_empty());
    });
}

#[test]
fn a_file_call_that_fails_leaves_what_was_answered() {
    every_call_fails(libc::EIO, 1, AT_ONCE);
}

#[test]
fn a_disk_that_is_full_for_a_moment_leaves_what_was_answered() {
    every_call_fails(libc::ENOSPC, 2, AT_ONCE);
}

#[test]
fn several_file_calls_that_fail_leave_what_was_answered() {
    every_call_fails(libc::EIO, 9, AT_ONCE);
}

/// Nobody's commit comes after it that would overwrite in the log what was refused.
#[test]
fn several_file_calls_of_one_attach_that_fail_leave_what_was_answered() {
    every_call_fails(libc::EIO, 9, 1);
}
