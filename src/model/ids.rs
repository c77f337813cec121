//! Typed UUIDs, so that the compiler rejects a network's id in place of a port's.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A text that is not a UUID. Displays the value and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{value}' is not a 'uuid': 32 hexadecimal digits, usually written 8-4-4-4-12, are expected")]
pub struct BadId {
    /// What was given, cut to 64 characters.
    pub value: String,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                parse(text).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadId;

            fn try_from(text: String) -> Result<Self, BadId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.to_string()
            }
        }
    };
}

id!(
    /// A network: one L2 segment, one bridge on this host.
    NetworkId
);
id!(
    /// A subnet of a network.
    SubnetId
);
id!(
    /// A port: one NIC.
    PortId
);
id!(
    /// A server: a guest on this host.
    ServerId
);
id!(
    /// A security group.
    GroupId
);
id!(
    /// A rule of a security group.
    RuleId
);
id!(
    /// A job, or a part of one.
    JobId
);
id!(
    /// A trunk: a port that carries other ports' traffic by VLAN.
    TrunkId
);

/// Accepts the hyphenated and the plain form, in either case; not the braced or URN forms, which no API here sends.
fn parse(text: &str) -> Result<Uuid, BadId> {
    let bad = || BadId { value: text.chars().take(64).collect() };
    match text.len() {
        32 | 36 => Uuid::try_parse(text).map_err(|_| bad()),
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_hyphenated_plain_and_upper_case() {
        let id: PortId = "CE531F90-199f-48c0-816c-13e38010b442".parse().unwrap();
        assert_eq!(id.to_string(), "ce531f90-199f-48c0-816c-13e38010b442");
        assert_eq!("ce531f90199f48c0816c13e38010b442".parse::<PortId>().unwrap(), id);
    }

    #[test]
    fn refuses_what_is_not_a_uuid_and_repeats_it() {
        for bad in
            ["", "x", " ce531f90-199f-48c0-816c-13e38010b442", "{ce531f90-199f-48c0-816c-13e38010b44}", "é".repeat(16).as_str()]
        {
            let error = bad.parse::<PortId>().unwrap_err();
            assert!(error.to_string().contains("is not a 'uuid'"), "{error}");
        }
        assert!("9".repeat(1000).parse::<PortId>().unwrap_err().value.len() <= 64);
    }
}
