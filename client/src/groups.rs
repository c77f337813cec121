//! Security groups and their rules.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A security group: its ports have the connections that its rules allow.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SecurityGroup {
    /// Its id.
    pub id: Uuid,
    /// Its name; `default` is a project's own group.
    #[serde(default)]
    pub name: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// The project; nicd only stores it.
    #[serde(default)]
    pub project_id: String,
    /// Its rules.
    #[serde(rename = "security_group_rules", default)]
    pub rules: Vec<SecurityGroupRule>,
    /// Counts its changes, also of its rules.
    #[serde(default)]
    pub revision_number: u64,
    /// When it was created.
    #[serde(default)]
    pub created_at: String,
    /// When it, or one of its rules, was last changed.
    #[serde(default)]
    pub updated_at: String,
}

/// A security group to create. What is `None` is nicd's default.
#[derive(Debug, Clone, Default, Serialize)]
pub struct NewSecurityGroup {
    /// Its id, for a control plane that has ids of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
    /// Its project.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project_id: Option<String>,
    /// What it shares with a change.
    #[serde(flatten)]
    pub settings: SecurityGroupChange,
}

/// What to change of a security group. What is `None` stays.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SecurityGroupChange {
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// A rule of a security group: it allows what it matches.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SecurityGroupRule {
    /// Its id.
    pub id: Uuid,
    /// What it allows.
    #[serde(flatten)]
    pub allows: Allows,
    /// When it was created.
    #[serde(default)]
    pub created_at: String,
}

/// A rule to create.
#[derive(Debug, Clone, Serialize)]
pub struct NewSecurityGroupRule {
    /// Its id, for a control plane that has ids of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
    /// What it allows.
    #[serde(flatten)]
    pub allows: Allows,
}

/// What a rule allows. What is `None` is not restricted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allows {
    /// The group.
    pub security_group_id: Uuid,
    /// `ingress` or `egress`.
    pub direction: String,
    /// `IPv4` or `IPv6`.
    pub ethertype: String,
    /// A name such as `tcp`, or a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// The first port, or the type of ICMP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_range_min: Option<u16>,
    /// The last port, or the code of ICMP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_range_max: Option<u16>,
    /// The addresses that the guest may speak with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_ip_prefix: Option<String>,
    /// The group with whose ports the guest may speak.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_group_id: Option<Uuid>,
    /// Free text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

impl NewSecurityGroup {
    /// A group with this name.
    pub fn named(name: impl Into<String>) -> Self {
        let settings = SecurityGroupChange { name: Some(name.into()), ..SecurityGroupChange::default() };
        Self { settings, ..Self::default() }
    }
}

impl NewSecurityGroupRule {
    /// A rule that lets everything of IPv4 in.
    pub fn ingress(security_group_id: Uuid) -> Self {
        let allows = Allows {
            security_group_id,
            direction: "ingress".to_owned(),
            ethertype: "IPv4".to_owned(),
            protocol: None,
            port_range_min: None,
            port_range_max: None,
            remote_ip_prefix: None,
            remote_group_id: None,
            description: String::new(),
        };
        Self { id: None, allows }
    }
}
