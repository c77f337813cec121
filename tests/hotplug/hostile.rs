//! What listens where a monitor is expected, and is none, or a bad one: each is refused with its words, in bounded time, and costs
//! others nothing.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::fixture::{Fixture, interfaces};
use crate::kernel_view::marked;
use crate::netns::in_netns;
use crate::stopped::server;

const GREETING: &str = r#"{"QMP": {"version": {}, "capabilities": []}}"#;

/// Serves a socket in its own way.
fn listen(path: &str, mode: u32, serve: impl Fn(UnixStream) + Send + 'static) {
    let listener = UnixListener::bind(path).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    thread::spawn(move || listener.incoming().for_each(|client| serve(client.unwrap())));
}

/// Greets, and answers each command with what `answer` makes of its id.
fn answering(answer: impl Fn(&Value) -> String) -> impl Fn(UnixStream) {
    move |client| {
        let mut to = client.try_clone().unwrap();
        let _ = writeln!(to, "{GREETING}");
        for line in BufReader::new(client).lines().map_while(Result::ok) {
            let id = serde_json::from_str::<Value>(&line).unwrap()["id"].clone();
            if writeln!(to, "{}", answer(&id)).is_err() {
                return;
            }
        }
    }
}

/// Writes this without end, or until nobody reads it.
fn without_end(first: &'static str, then: &'static str) -> impl Fn(UnixStream) {
    // Much at a time, so that there is always something to read.
    let then = then.repeat((64 << 10) / then.len());
    move |mut client| {
        let _ = client.write_all(first.as_bytes());
        while client.write_all(then.as_bytes()).is_ok() {}
    }
}

/// Says something, and then nothing.
fn saying(words: &'static str) -> impl Fn(UnixStream) {
    move |mut client| {
        let _ = client.write_all(words.as_bytes());
        // Until the client has enough of it.
        let _ = BufReader::new(client).lines().map_while(Result::ok).count();
    }
}

#[test]
fn what_is_no_monitor_is_refused_in_bounded_time_and_costs_others_nothing() {
    in_netns(|| {
        let mut daemon = Daemon::prepared("/run/nicd");
        daemon.confine();
        daemon.launch();
        let mut fixture = Fixture::of(daemon);
        let network = fixture.usual_network();
        let nested: &'static str = Box::leak(format!("{}\n", "[".repeat(100_000)).into_boxed_str());
        listen("/run/closed", 0o600, saying(GREETING));
        listen("/run/silent", 0o666, saying(""));
        listen("/run/mute", 0o666, saying(concat!(r#"{"QMP": {}}"#, "\n")));
        listen("/run/garbage", 0o666, saying("220 mail.example.org ESMTP\r\n"));
        listen("/run/nested", 0o666, saying(nested));
        listen("/run/endless", 0o666, without_end("", "xxxxxxxxxxxxxxxx"));
        listen("/run/flood", 0o666, without_end("{\"QMP\": {}}\n", "{\"event\": \"STOP\", \"data\": {}}\n"));
        listen("/run/ended", 0o666, drop);
        listen("/run/other", 0o666, answering(|_| json!({"id": "no", "return": {}}).to_string()));
        listen(
            "/run/refusing",
            0o666,
            answering(|id| json!({"id": id, "error": {"class": "GenericError", "desc": "no"}}).to_string()),
        );
        listen("/run/odd", 0o666, answering(|id| json!({"id": id, "return": 7}).to_string()));
        fs::write("/run/file", "").unwrap();
        fs::set_permissions("/run/file", fs::Permissions::from_mode(0o666)).unwrap();
        let cases = [
            ("closed", "monitor_denied", "write permission"),
            ("silent", "monitor_busy", "did not greet in 2 s"),
            ("mute", "monitor_unreachable", "did not answer qmp_capabilities in 5 s"),
            ("garbage", "monitor_unreachable", "does not speak QMP"),
            ("nested", "monitor_unreachable", "does not speak QMP: recursion limit"),
            ("endless", "monitor_unreachable", "a line has no end"),
            ("flood", "monitor_unreachable", "it says too much"),
            ("ended", "monitor_unreachable", "it closed the connection"),
            ("other", "monitor_unreachable", "an answer belongs to no command"),
            ("refusing", "monitor_refused", "refused qmp_capabilities: no"),
            ("odd", "monitor_unreachable", "does not speak QMP: qom-list: invalid type"),
            ("file", "monitor_unreachable", "Connection refused"),
            ("missing", "monitor_unreachable", "No such file or directory"),
        ];
        let asking: Vec<_> = cases
            .into_iter()
            .map(|(what, reason, says)| {
                let vm = server(&mut fixture, &format!("/run/{what}"), 1);
                let (mut api, network) = (fixture.daemon.client(), network.clone());
                thread::spawn(move || {
                    let began = Instant::now();
                    let error =
                        api.post(&interfaces(&vm), &json!({"interfaceAttachment": {"net_id": network}})).refused(409, reason);
                    let message = error["message"].as_str().unwrap();
                    assert!(message.contains(says) && message.contains(&format!("/run/{what}")), "{message}");
                    assert!(began.elapsed() < Duration::from_secs(7), "{what}: {:?}", began.elapsed());
                })
            })
            .collect();
        // Meanwhile.
        let (vm, mut took) = (fixture.vm(), Vec::new());
        for _ in 0..8 {
            let began = Instant::now();
            let port = fixture.attach_to(&vm, &network);
            took.push(began.elapsed());
            fixture.detach(&vm, &port);
        }
        took.sort();
        assert!(took[4] < Duration::from_millis(500), "{took:?}");
        asking.into_iter().for_each(|asking| asking.join().unwrap());
        assert!(fixture.ports().is_empty());
        assert!(marked().iter().all(|name| name.starts_with("nbr")), "{:?}", marked());
    });
}
