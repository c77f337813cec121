//! Completion: a shell asks this program with each press of the key, and names come from the daemon.
//!
//! It must be fast and say nothing of its own: without a daemon, or with a slow one, there are just no names.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap_complete::env::Shells;
use clap_complete::{ArgValueCompleter, CompleteEnv, CompletionCandidate};
use nicd_client::{Client, Credentials, Remote, Retry};
use serde_json::Value;

use super::args::{self, SOCKET};
use super::names::Kind;

/// The variable by which a shell's script says that it asks.
const VARIABLE: &str = "NICCTL_COMPLETE";

/// How long the daemon is waited for, in milliseconds.
const PATIENCE: Duration = Duration::from_millis(200);

/// Answers a shell, if one asks; whether it did.
///
/// # Errors
/// The shell is not known, or its script cannot be written to.
pub fn answer() -> Result<bool, clap::Error> {
    CompleteEnv::with_factory(args::command).var(VARIABLE).try_complete(std::env::args_os(), None)
}

/// The script by which a shell asks.
pub fn script(shell: clap_complete::Shell) -> Vec<u8> {
    let mut script = Vec::new();
    // Writing to memory cannot fail, and there is a script for each of these shells.
    if let Some(completer) = Shells::builtins().completer(&shell.to_string()) {
        let _ = completer.write_registration(VARIABLE, NAME, NAME, NAME, &mut script);
    }
    if shell == clap_complete::Shell::Zsh {
        // Loaded from a directory of completions, the file itself is called for the first one.
        script.extend(b"if [[ $funcstack[1] = _nicctl ]]; then _clap_dynamic_completer_nicctl \"$@\"; fi\n");
    }
    script
}

const NAME: &str = "nicctl";

/// Completes the names of networks.
pub fn networks() -> ArgValueCompleter {
    of(Kind::Network)
}

/// Completes the names and ranges of subnets.
pub fn subnets() -> ArgValueCompleter {
    of(Kind::Subnet)
}

/// Completes the names of security groups.
pub fn groups() -> ArgValueCompleter {
    of(Kind::Group)
}

/// Completes the ids of rules of security groups.
pub fn rules() -> ArgValueCompleter {
    of(Kind::Rule)
}

/// Completes the names of servers.
pub fn servers() -> ArgValueCompleter {
    of(Kind::Server)
}

/// Completes the names of ports.
pub fn ports() -> ArgValueCompleter {
    of(Kind::Port)
}

/// Completes the names of trunks.
pub fn trunks() -> ArgValueCompleter {
    of(Kind::Trunk)
}

fn of(kind: Kind) -> ArgValueCompleter {
    ArgValueCompleter::new(move |begun: &OsStr| {
        let begun = begun.to_string_lossy();
        let texts = listed(kind).into_iter().filter(|(text, _)| text.starts_with(&*begun));
        texts.map(|(text, about)| CompletionCandidate::new(text).help(Some(about.into()))).collect::<Vec<_>>()
    })
}

/// What objects can be called on the command line, each with a short description.
fn listed(kind: Kind) -> Vec<(String, String)> {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return Vec::new() };
    let Some(client) = daemon() else { return Vec::new() };
    let client = client.with_retry(Retry::NONE);
    let answer = runtime.block_on(async { tokio::time::timeout(PATIENCE, kind.list(&client, &[])).await });
    let objects = answer.ok().and_then(Result::ok).unwrap_or_default();
    texts(kind, &objects)
}

fn texts(kind: Kind, objects: &[Value]) -> Vec<(String, String)> {
    let (names, ranges) = (counted(objects, "name"), counted(objects, "cidr"));
    let mut texts: Vec<_> = objects.iter().filter_map(|object| text(kind, object, &names, &ranges)).collect();
    texts.sort();
    texts
}

/// How many objects have each value of this member.
fn counted<'a>(objects: &'a [Value], member: &str) -> HashMap<&'a str, usize> {
    let mut counts = HashMap::new();
    for value in objects.iter().filter_map(|object| object[member].as_str()) {
        *counts.entry(value).or_default() += 1;
    }
    counts
}

/// A name, if no other object has it and no character of it is special to a shell; a subnet's range; else the id.
fn text(kind: Kind, object: &Value, names: &HashMap<&str, usize>, ranges: &HashMap<&str, usize>) -> Option<(String, String)> {
    let id = object["id"].as_str()?;
    let is_plain = |text: &&str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte);
        text.bytes().all(plain) && !text.is_empty() && !text.starts_with('-')
    };
    let name = object["name"].as_str().filter(is_plain).filter(|name| names[name] == 1);
    let about = match kind {
        Kind::Network | Kind::Subnet => object["cidr"].as_str().unwrap_or(id),
        Kind::Group => object["description"].as_str().filter(|about| !about.is_empty()).unwrap_or(id),
        Kind::Rule => object["direction"].as_str().unwrap_or(id),
        Kind::Server => object["guest"]["kind"].as_str().unwrap_or(id),
        Kind::Port | Kind::Trunk => object["status"].as_str().unwrap_or(id),
    };
    let range = object["cidr"].as_str().filter(|cidr| ranges[cidr] == 1);
    Some((name.or(range).unwrap_or(id).to_owned(), about.to_owned()))
}

/// The daemon that the command line that is completed, or the environment, names; none when it cannot be called.
fn daemon() -> Option<Client> {
    let words: Vec<OsString> = std::env::args_os().collect();
    let typed = |flag: &str| {
        let apart = words.iter().position(|word| word == flag).and_then(|place| words.get(place + 1).cloned());
        let joined = || words.iter().find_map(|word| word.to_str()?.strip_prefix(flag)?.strip_prefix('=').map(OsString::from));
        apart.or_else(joined).filter(|value| !value.is_empty())
    };
    let given = |flag, variable| typed(flag).or_else(|| std::env::var_os(variable));
    let socket = typed("--socket");
    let host = typed("--host").or_else(|| std::env::var_os("NICD_HOST").filter(|_| socket.is_none()));
    let Some(host) = host else {
        return Some(Client::new(socket.or_else(|| std::env::var_os("NICD_SOCKET")).unwrap_or_else(|| SOCKET.into())));
    };
    let file = |flag, variable| given(flag, variable).map(PathBuf::from);
    let (cert, key, cacert) = (file("--cert", "NICD_CERT")?, file("--key", "NICD_KEY")?, file("--cacert", "NICD_CACERT")?);
    Remote::new(host.to_str()?, &Credentials { cert, key, cacert }).ok().map(Client::remote)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use serde_json::json;

    use super::*;

    #[test]
    fn a_name_that_two_objects_have_is_not_offered_and_many_names_cost_little() {
        let object = |number: usize, name: &str| json!({"id": format!("id-{number}"), "name": name, "status": "ACTIVE"});
        let mut objects: Vec<Value> = (0..30_000).map(|number| object(number, &format!("port-{number}"))).collect();
        objects.extend([object(30_000, "twice"), object(30_001, "twice"), object(30_002, "not plain")]);
        let began = Instant::now();
        let offered = texts(Kind::Port, &objects);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        let ids: Vec<_> = offered.iter().filter(|(text, _)| text.starts_with("id-")).map(|(text, _)| text.as_str()).collect();
        assert_eq!((offered.len(), ids), (objects.len(), vec!["id-30000", "id-30001", "id-30002"]));
    }
}
