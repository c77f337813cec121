//! The programs that the demo of a fleet runs.

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::page::{Context, Failure};

/// Each with Debian's package of it.
const PROGRAMS: [(&str, &str); 3] = [("etcd", "etcd-server"), ("ip", "iproute2"), ("bridge", "iproute2")];

/// Checks that all of them are there.
pub(super) fn check() -> Result<(), Failure> {
    for (program, package) in PROGRAMS {
        if find(program).is_none() {
            let remedy = format!("Install it: apt install {package}. Or put the directory that has it into PATH.");
            return Err(Failure::NotInstalled(format!("the demo of a fleet runs {program}, which is not in PATH."), remedy));
        }
    }
    Ok(())
}

/// Where a program is, by PATH.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
    std::env::split_paths(&std::env::var_os("PATH")?).map(|directory| directory.join(program)).find(is_program)
}

/// Runs a command line, split at white space, in the namespaces of the calling thread; answers its output.
pub(super) fn run(line: &str) -> Result<String, Failure> {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap_or_default()).args(words).output().context(line)?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(Failure::new(line, String::from_utf8_lossy(&output.stderr).trim())),
    }
}

/// The same, for a program that answers in JSON.
fn json(line: &str) -> Result<Value, Failure> {
    let said = run(line)?;
    // `bridge -j` says nothing at all where there is nothing.
    if said.trim().is_empty() { Ok(Value::Array(Vec::new())) } else { serde_json::from_str(&said).context(line) }
}

/// The tunnel address that the kernel sends frames for a MAC to; none when it has no such entry.
pub(super) fn far_end(mac: &str) -> Result<Option<IpAddr>, Failure> {
    let entries = json("bridge -j fdb show")?;
    let of = |entry: &Value| (entry["mac"] == mac).then(|| entry["dst"].as_str()?.parse().ok()).flatten();
    Ok(entries.as_array().and_then(|entries| entries.iter().find_map(of)))
}

/// The VXLAN devices: name, number (VNI) and own tunnel address.
pub(super) fn tunnels() -> Result<Vec<(String, u64, String)>, Failure> {
    let links = json("ip -j -d link show type vxlan")?;
    let read = |link: &Value| {
        let data = &link["linkinfo"]["info_data"];
        Some((link["ifname"].as_str()?.to_owned(), data["id"].as_u64()?, data["local"].as_str()?.to_owned()))
    };
    Ok(links.as_array().map(|links| links.iter().filter_map(read).collect()).unwrap_or_default())
}

/// The MTU of a link.
pub(super) fn mtu(link: &str) -> Result<u64, Failure> {
    let line = format!("ip -j link show {link}");
    json(&line)?.pointer("/0/mtu").and_then(Value::as_u64).ok_or_else(|| Failure::new(&line, "it shows no MTU"))
}
