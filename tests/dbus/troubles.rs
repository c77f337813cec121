//! The bus is away, restarted, stopped: ports do not notice, and the bus finds everything when it is back.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

use crate::bus::{ADDRESS, Bus, Lines, NAME, Policy, ROOT, ask, path, property, wait_for_name, with_bus};
use crate::fixture::{Fixture, interfaces, server_path};
use crate::netns::in_netns;

const MANAGER: &str = "org.nicd.Agent1.Manager";

fn port_count() -> Value {
    ask(ROOT, &format!("org.freedesktop.DBus.Properties Get ss {MANAGER} PortCount"))[0]["data"].clone()
}

fn connected(fixture: &mut Fixture) -> bool {
    fixture.api.get("/metrics").text.contains("\nnicd_dbus_connected 1\n")
}

#[test]
fn without_a_bus_everything_else_goes_on_and_one_that_comes_later_is_found() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (_guest, _server, port) = fixture.active_guest("a", &network);
        assert!(!connected(&mut fixture));
        let bus = Bus::start(Policy::Shipped);
        wait_for_name();
        assert_eq!(property(&port, "Status"), json!("ACTIVE"));
        assert!(connected(&mut fixture));
        let log = fixture.daemon.log();
        assert_eq!(log.matches("no bus: ").count(), 1, "{log}");
        drop(bus);
    });
}

#[test]
fn a_bus_that_is_killed_and_started_again_finds_everything_as_it_is() {
    in_netns(|| {
        let (bus, mut fixture) = with_bus(Policy::Shipped, "");
        let network = fixture.usual_network();
        let (guest, server) = fixture.guest("a");
        let before = fixture.attach_to(&server, &network);
        let gone = fixture.attach_to(&server, &network);
        fixture.wait_status(&before, "ACTIVE");
        bus.kill();
        let meanwhile = fixture.attach_to(&server, &network);
        fixture.detach(&server, &gone);
        guest.ip("link set eth0 down");
        fixture.wait_status(&before, "DOWN");
        let _bus = Bus::start(Policy::Shipped);
        wait_for_name();
        assert_eq!(property(&before, "Status"), json!("DOWN"));
        assert_eq!(property(&meanwhile, "Status"), json!("ACTIVE"));
        let listed = ask(ROOT, &format!("{MANAGER} ListPorts uu 0 0"));
        let listed: Vec<&Value> = listed[0].as_array().unwrap().iter().map(|row| &row[1]).collect();
        assert_eq!(listed, fixture.port_ids().iter().map(|id| json!(id)).collect::<Vec<_>>().iter().collect::<Vec<_>>());
        // And it goes on from there.
        let mut monitor = Lines::monitor();
        guest.ip("link set eth0 up");
        assert_eq!(monitor.signal("StatusChanged")["path"], json!(path(&before)));
    });
}

#[test]
fn a_bus_that_stands_still_delays_no_port() {
    in_netns(|| {
        let (bus, mut fixture) = with_bus(Policy::Shipped, "");
        let network = fixture.usual_network();
        let server = fixture.vm();
        fixture.api.put(&server_path(&server), &json!({"server": {"guest": {"kind": "vm"}, "nic_limit": 1000}})).expect(200);
        let attach = |fixture: &mut Fixture| {
            let began = Instant::now();
            let how = json!({"interfaceAttachment": {"net_id": network}});
            fixture.api.post(&interfaces(&server), &how).expect(200);
            began.elapsed()
        };
        kill(bus.pid(), Signal::SIGSTOP).unwrap();
        // What these signal is more than the bus's socket takes while nobody reads it.
        let mut times: Vec<Duration> = (0..250).map(|_| attach(&mut fixture)).collect();
        times.sort();
        println!("attaches while the bus stands still: {:?} in the middle, {:?} at most", times[125], times[249]);
        assert!(times[125] < Duration::from_millis(50) && times[249] < Duration::from_secs(2), "{times:?}");
        assert!(connected(&mut fixture), "it stands still and is not gone");
        kill(bus.pid(), Signal::SIGCONT).unwrap();
        assert_eq!(port_count(), json!(250));
    });
}

#[test]
fn a_daemon_that_ends_leaves_the_bus_also_one_that_stands_still() {
    in_netns(|| {
        let (bus, mut fixture) = with_bus(Policy::Shipped, "");
        fixture.daemon.term();
        let owned = || {
            crate::bus::call(
                "org.freedesktop.DBus",
                "/org/freedesktop/DBus",
                "org.freedesktop.DBus NameHasOwner s org.nicd.Agent1",
            )
        };
        assert_eq!(owned().trim(), "b false");
        fixture.launch();
        wait_for_name();
        kill(bus.pid(), Signal::SIGSTOP).unwrap();
        let began = Instant::now();
        fixture.daemon.term();
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        kill(bus.pid(), Signal::SIGCONT).unwrap();
    });
}

#[test]
fn a_name_that_is_taken_is_waited_for() {
    in_netns(|| {
        let _bus = Bus::start(Policy::Shipped);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let holder = runtime.block_on(async {
            let connection = zbus::connection::Builder::address(ADDRESS).build().await.unwrap();
            connection.request_name(NAME).await.unwrap();
            connection
        });
        let mut fixture = Fixture::start();
        fixture.usual_network();
        assert!(!connected(&mut fixture));
        drop(holder);
        drop(runtime);
        wait_for_name();
        assert!(connected(&mut fixture), "{}", fixture.daemon.log());
    });
}

#[test]
fn the_config_says_which_bus_or_none() {
    in_netns(|| {
        let _bus = Bus::start(Policy::Shipped);
        let mut daemon = crate::daemon::Daemon::prepared("/run/nicd");
        std::fs::write(daemon.config(), "[dbus]\nenabled = false\n").unwrap();
        daemon.launch();
        daemon.term();
        assert!(!daemon.log().contains("bus"), "{}", daemon.log());
        std::fs::write(daemon.config(), format!("[dbus]\naddress = \"{ADDRESS}\"\n")).unwrap();
        daemon.launch();
        wait_for_name();
    });
}
