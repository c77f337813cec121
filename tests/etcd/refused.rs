//! What the daemon does of a fleet: nothing, and it says so.

use std::process::Command;

use crate::netns::in_netns;

#[test]
fn a_daemon_of_a_fleet_does_not_start() {
    in_netns(|| {
        for (text, said) in [
            (
                "[fleet]\nendpoints = [\"http://192.0.2.1\"]\n",
                "fleet.endpoints = http://192.0.2.1 is refused: a fleet is not built yet",
            ),
            ("[tunnel]\naddress = \"192.0.2.1\"\n", "tunnel.address = 192.0.2.1 is refused: a fleet is not built yet"),
            ("[fleet]\nname = \"x\"\n", "fleet.name = x cannot be used: with it fleet.endpoints is expected"),
        ] {
            std::fs::write("/run/nicd.toml", text).unwrap();
            for more in [&["check-config"][..], &["--state-dir", "/run/state", "--socket", "/run/nicd.sock"]] {
                let mut command = Command::new(env!("CARGO_BIN_EXE_nicd"));
                let output = command.args(["--config", "/run/nicd.toml"]).args(more).output().unwrap();
                let error = String::from_utf8_lossy(&output.stderr).into_owned();
                assert_eq!(output.status.code(), Some(78), "{error}");
                assert!(error.contains(said), "{error}");
            }
        }
    });
}
