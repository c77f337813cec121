//! Resolves a UUID, a prefix of a UUID, a name or a subnet's range to an id.
//!
//! A full UUID is used without a lookup; the daemon reports an unknown one. A name has precedence over a prefix, so that a script's
//! names do not depend on the UUIDs of other objects.

use nicd_client::http::with_query;
use serde_json::Value;
use uuid::Uuid;

use super::client::{self, Client, ClientError};
use super::failure::Failure;
use super::table::harmless;

/// The minimum length of a prefix, so that short names are not taken for prefixes.
const FEWEST_DIGITS: usize = 4;

/// How many candidates an error lists before it only counts.
const MOST_LISTED: usize = 10;

/// What a name can stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A network.
    Network,
    /// A subnet.
    Subnet,
    /// A security group.
    Group,
    /// A rule of a security group.
    Rule,
    /// A server.
    Server,
    /// A port.
    Port,
    /// A trunk.
    Trunk,
}

impl Kind {
    /// One of it.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Subnet => "subnet",
            Self::Group => "group",
            Self::Rule => "rule",
            Self::Server => "server",
            Self::Port => "port",
            Self::Trunk => "trunk",
        }
    }

    /// Several.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Network => "networks",
            Self::Subnet => "subnets",
            Self::Group => "groups",
            Self::Rule => "rules",
            Self::Server => "servers",
            Self::Port => "ports",
            Self::Trunk => "trunks",
        }
    }

    /// The list's member in an answer.
    fn member(self) -> &'static str {
        match self {
            Self::Group => "security_groups",
            Self::Rule => "security_group_rules",
            other => other.plural(),
        }
    }

    /// The path of all of them.
    pub fn collection(self) -> &'static str {
        match self {
            Self::Network => "/v2.0/networks",
            Self::Subnet => "/v2.0/subnets",
            Self::Group => "/v2.0/security-groups",
            Self::Rule => "/v2.0/security-group-rules",
            Self::Server => "/nicd/v1/servers",
            Self::Port => "/v2.0/ports",
            Self::Trunk => "/v2.0/trunks",
        }
    }

    /// The path of one of them.
    pub fn item(self, id: Uuid) -> String {
        format!("{}/{id}", self.collection())
    }

    /// All of them, or those the query lets through.
    pub async fn list(self, client: &Client, query: &[(&str, &str)]) -> Result<Vec<Value>, ClientError> {
        let answer = match client.get(&with_query(self.collection(), query)).await {
            Err(error) if error.reason() == Some("fleet_unreachable") => self.list_here(client, query).await?,
            answer => answer?,
        };
        match client::member(answer, self.member())? {
            Value::Array(objects) => Ok(objects),
            _ => Err(ClientError::Incomplete { key: self.member() }),
        }
    }

    /// Those of this host alone, which it knows without its fleet.
    async fn list_here(self, client: &Client, query: &[(&str, &str)]) -> Result<Value, ClientError> {
        let here = match self {
            Self::Server => ("scope", "host".to_owned()),
            _ => {
                let fleet = client::member(client.get("/nicd/v1/fleet").await?, "fleet")?;
                ("binding:host_id", client::id_of(&fleet, "host")?)
            }
        };
        let query: Vec<(&str, &str)> = query.iter().copied().chain([(here.0, here.1.as_str())]).collect();
        client.get(&with_query(self.collection(), &query)).await
    }
}

/// Something that may be meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    id: Uuid,
    name: String,
    /// A subnet's range.
    range: Option<String>,
}

impl Candidate {
    /// Reads an object of a list; one without a UUID cannot be meant.
    pub fn read(object: &Value) -> Option<Self> {
        let id = Uuid::try_parse(object["id"].as_str()?).ok()?;
        let name = object["name"].as_str().unwrap_or_default().to_owned();
        Some(Self { id, name, range: object["cidr"].as_str().map(str::to_owned) })
    }
}

/// A text that stands for no one thing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing is called so.
    #[error(
        "no {} is called '{text}' or has a UUID beginning so (a prefix has {FEWEST_DIGITS} digits or more); `nicctl {} list` shows all",
        kind.noun(),
        kind.noun()
    )]
    Unknown {
        /// What was looked for.
        kind: Kind,
        /// What was given.
        text: String,
    },
    /// No port of a server is, whatever others are.
    #[error("no port of server {server} is called '{text}' or has a UUID beginning so; `nicctl list {server}` shows them")]
    NotIts {
        /// The server.
        server: Uuid,
        /// What was given.
        text: String,
    },
    /// Several things have a UUID beginning so.
    #[error("'{text}' may be any of {} {}: {}; give more of the UUID", candidates.len(), kind.plural(), listed(candidates))]
    AmbiguousPrefix {
        /// What was looked for.
        kind: Kind,
        /// What was given.
        text: String,
        /// What it may stand for.
        candidates: Vec<Candidate>,
    },
    /// Several things are called so.
    #[error(
        "the name '{text}' is ambiguous: {} {} have it: {}; give the UUID of the one that is meant",
        candidates.len(),
        kind.plural(),
        listed(candidates)
    )]
    Ambiguous {
        /// What was looked for.
        kind: Kind,
        /// What was given.
        text: String,
        /// What it may stand for.
        candidates: Vec<Candidate>,
    },
}

/// The id of what `text` stands for.
pub async fn resolve(client: &Client, kind: Kind, text: &str) -> Result<Uuid, Failure> {
    resolve_among(client, kind, text, &[]).await
}

/// The id of the port that `text` stands for among `server`'s.
pub async fn resolve_port_of(client: &Client, server: Uuid, text: &str) -> Result<Uuid, Failure> {
    let its = resolve_among(client, Kind::Port, text, &[("device_id", &server.to_string())]).await;
    its.map_err(|failure| match failure {
        Failure::Name(NameError::Unknown { text, .. }) => NameError::NotIts { server, text }.into(),
        failure => failure,
    })
}

async fn resolve_among(client: &Client, kind: Kind, text: &str, query: &[(&str, &str)]) -> Result<Uuid, Failure> {
    if let Some(id) = full_uuid(text) {
        return Ok(id);
    }
    let candidates: Vec<Candidate> = kind.list(client, query).await?.iter().filter_map(Candidate::read).collect();
    Ok(choose(kind, text, &candidates)?)
}

/// The servers called so.
pub async fn servers_called(client: &Client, name: &str) -> Result<Vec<Uuid>, ClientError> {
    let servers = Kind::Server.list(client, &[]).await?;
    Ok(servers.iter().filter_map(Candidate::read).filter(|server| server.name == name).map(|server| server.id).collect())
}

/// The UUID in `text`, with or without hyphens; no other way of writing one is taken.
pub fn full_uuid(text: &str) -> Option<Uuid> {
    if matches!(text.len(), 32 | 36) { Uuid::try_parse(text).ok() } else { None }
}

fn choose(kind: Kind, text: &str, candidates: &[Candidate]) -> Result<Uuid, NameError> {
    // What has no name is not called "", as an unset variable of a script would.
    if text.is_empty() {
        return Err(NameError::Unknown { kind, text: String::new() });
    }
    let mut meant: Vec<Candidate> = candidates.iter().filter(|candidate| candidate.name == text).cloned().collect();
    if meant.is_empty() {
        meant = candidates.iter().filter(|candidate| candidate.range.as_deref() == Some(text)).cloned().collect();
    }
    if meant.is_empty()
        && let Some(digits) = prefix(text)
    {
        let begins = |candidate: &&Candidate| candidate.id.simple().to_string().starts_with(&digits);
        let begin: Vec<Candidate> = candidates.iter().filter(begins).cloned().collect();
        if begin.len() > 1 {
            return Err(NameError::AmbiguousPrefix { kind, text: text.to_owned(), candidates: begin });
        }
        meant = begin;
    }
    match meant.as_slice() {
        [] => Err(NameError::Unknown { kind, text: text.to_owned() }),
        [one] => Ok(one.id),
        _ => Err(NameError::Ambiguous { kind, text: text.to_owned(), candidates: meant }),
    }
}

/// The digits of a UUID's beginning, hyphens aside.
fn prefix(text: &str) -> Option<String> {
    let digits = text.replace('-', "").to_ascii_lowercase();
    let is_prefix = digits.len() >= FEWEST_DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_prefix.then_some(digits)
}

fn listed(candidates: &[Candidate]) -> String {
    let shown = candidates.iter().take(MOST_LISTED).map(|candidate| match candidate.name.as_str() {
        "" => candidate.id.to_string(),
        name => format!("{} ({})", candidate.id, harmless(name)),
    });
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if candidates.len() > MOST_LISTED {
        text.push_str(&format!(" and {} more", candidates.len() - MOST_LISTED));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLUE: &str = "3cb9bc59-5699-4588-a4b1-b87f96708bc6";
    const RED: &str = "3cb9bc59-0000-4588-a4b1-b87f96708bc6";
    const CAFE: &str = "11111111-5699-4588-a4b1-b87f96708bc6";
    const BEGINS_CAFE: &str = "cafe1111-5699-4588-a4b1-b87f96708bc6";

    fn candidates() -> Vec<Candidate> {
        [(BLUE, "blue"), (RED, "red"), (CAFE, "cafe"), (BEGINS_CAFE, "red")]
            .map(|(id, name)| Candidate { id: id.parse().unwrap(), name: name.to_owned(), range: None })
            .to_vec()
    }

    fn chosen(text: &str) -> Result<String, String> {
        choose(Kind::Network, text, &candidates()).map(|id| id.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn names_and_unambiguous_prefixes_are_found() {
        for (text, id) in [
            ("blue", BLUE),
            ("3cb9bc59-5", BLUE),
            ("3cb9bc595", BLUE),
            ("3CB9BC59-0", RED),
            ("cafe", CAFE),
            ("cafe1", BEGINS_CAFE),
            ("1111", CAFE),
        ] {
            assert_eq!(chosen(text).as_deref(), Ok(id), "{text}");
        }
    }

    #[test]
    fn ambiguous_ones_list_the_candidates() {
        assert_eq!(
            chosen("3cb9"),
            Err(format!("'3cb9' may be any of 2 networks: {BLUE} (blue), {RED} (red); give more of the UUID"))
        );
        assert_eq!(
            chosen("red"),
            Err(format!(
                "the name 'red' is ambiguous: 2 networks have it: {RED} (red), {BEGINS_CAFE} (red); give the UUID of the one that is meant"
            ))
        );
    }

    #[test]
    fn short_prefixes_and_strangers_are_unknown() {
        for text in ["3cb", "", "-", "green", "blu", "3cb9bc59-5699-4588-a4b1-b87f96708bc7", "3cb9bc59xx"] {
            assert!(chosen(text).unwrap_err().starts_with("no network is called"), "{text}");
        }
    }

    #[test]
    fn an_empty_text_is_no_name() {
        let unnamed = [Candidate { id: BLUE.parse().unwrap(), name: String::new(), range: None }];
        assert!(matches!(choose(Kind::Port, "", &unnamed), Err(NameError::Unknown { .. })));
    }

    #[test]
    fn long_lists_of_candidates_are_cut() {
        let id = Uuid::nil();
        let many: Vec<Candidate> = (0..12).map(|_| Candidate { id, name: String::new(), range: None }).collect();
        assert!(listed(&many).ends_with(" and 2 more"));
    }

    #[test]
    fn full_uuids_are_recognised_in_two_spellings() {
        assert_eq!(full_uuid(BLUE), BLUE.parse().ok());
        assert_eq!(full_uuid(&BLUE.replace('-', "")), BLUE.parse().ok());
        for other in ["", "blue", "{3cb9bc59-5699-4588-a4b1-b87f96708bc6}", "urn:uuid:3cb9bc59-5699-4588-a4b1-b87f96708bc6"] {
            assert_eq!(full_uuid(other), None, "{other}");
        }
    }
}
