//! The reference of the configuration: every key with its default and what it does.
//!
//! The file as installed (`packaging/nicd.toml`, `nicd check-config --reference`) and the manual page nicd.toml(5) are written
//! from this table. Tests compare it with the keys that the file may have, with their defaults, and with what a reload changes.

/// When a changed key takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applies {
    /// With `systemctl reload nicd`.
    Reload,
    /// With the next start.
    Restart,
}

/// A section of the file.
#[derive(Debug, Clone, Copy)]
pub struct Section {
    /// Its name.
    pub name: &'static str,
    /// What its keys are about.
    pub about: &'static str,
    /// Its keys, in the order of the file.
    pub keys: &'static [Key],
}

/// A key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name within its section.
    pub name: &'static str,
    /// Its default as TOML; none when leaving it out means what no value says.
    pub default: Option<&'static str>,
    /// Another value that is right.
    pub example: &'static str,
    /// When a change takes effect.
    pub applies: Applies,
    /// What it does.
    pub about: &'static str,
}

const fn key(
    name: &'static str,
    default: Option<&'static str>,
    example: &'static str,
    applies: Applies,
    about: &'static str,
) -> Key {
    Key { name, default, example, applies, about }
}

use Applies::{Reload, Restart};

/// All sections.
pub const SECTIONS: &[Section] = &[
    Section {
        name: "socket",
        about: "The two sockets of the API: one for everything, one for reading.",
        keys: &[
            key(
                "path",
                Some("\"/run/nicd/nicd.sock\""),
                "\"/run/nicd/api.sock\"",
                Restart,
                "The socket for everything, an absolute path. The read-only socket is beside it and has -view before the ending: \
                 /run/nicd/nicd-view.sock. When systemd passes the sockets, nicd.socket decides their paths instead.",
            ),
            key(
                "mode",
                Some("\"0660\""),
                "\"0600\"",
                Restart,
                "The permission bits of both sockets, in octal, where nicd makes them itself.",
            ),
            key(
                "group",
                Some("\"nicd\""),
                "\"cloud\"",
                Restart,
                "The group whose members may do everything, beside root. Change it in nicd.socket and in the D-Bus policy too.",
            ),
            key(
                "view_group",
                Some("\"nicd-view\""),
                "\"monitoring\"",
                Restart,
                "The group whose members may read, on the read-only socket. Change it in nicd.socket and in the D-Bus policy too.",
            ),
            key(
                "max_connections",
                Some("256"),
                "64",
                Restart,
                "How many connections are served at the same time, on both sockets together: 2 to 65536. One more is answered 503 \
                 too_many_connections.",
            ),
            key(
                "root_reserve",
                Some("16"),
                "4",
                Restart,
                "How many of them only root can use: 0 to one less than max_connections. Unset, it is no more than half of them.",
            ),
        ],
    },
    Section {
        name: "listen",
        about: "The API for control planes on other hosts, over TLS with client certificates; nothing else is served to other hosts. \
                nicd.service is reached by no other host until a drop-in names it: IPAddressAllow=.",
        keys: &[
            key(
                "tls",
                None,
                "\"192.0.2.10:8443\"",
                Restart,
                "The address and port that serve HTTPS. With it cert, key, client_ca and allow are needed. An address that this host \
                 does not have yet is served once it has it. Unset, none.",
            ),
            key(
                "cert",
                None,
                "\"/etc/nicd/tls/cert.pem\"",
                Reload,
                "The file (PEM) with the certificate of this host, and behind it those between it and the authority's.",
            ),
            key(
                "key",
                None,
                "\"/etc/nicd/tls/key.pem\"",
                Reload,
                "The file (PEM) with its private key, not encrypted, which user nicd can read and others cannot.",
            ),
            key(
                "client_ca",
                None,
                "\"/etc/nicd/tls/client-ca.pem\"",
                Reload,
                "The file (PEM) with the certificates of the authorities that clients' certificates are verified against.",
            ),
            key(
                "allow",
                Some("[]"),
                "[\"control.example\", \"spiffe://example/nova\"]",
                Reload,
                "The clients that may do everything, by the common name of their certificate or one of its alternative names (DNS name, \
                 URI, mail address, IP address). Others are answered 403 client_not_allowed. A name taken out is refused from its \
                 next request on.",
            ),
            key(
                "max_connections",
                Some("256"),
                "64",
                Restart,
                "How many connections are served at the same time, of which one client has at most three quarters: 2 to 65536. One \
                 more is answered 503 too_many_connections.",
            ),
        ],
    },
    Section {
        name: "store",
        about: "The records of networks, subnets, servers and ports.",
        keys: &[key(
            "dir",
            Some("\"/var/lib/nicd\""),
            "\"/srv/nicd\"",
            Restart,
            "The directory of the database nicd.db, an absolute path. nicd.service may write to /var/lib/nicd alone: another place \
             needs StateDirectory= or ReadWritePaths= in a drop-in.",
        )],
    },
    Section {
        name: "links",
        about: "How devices and bridges are made.",
        keys: &[
            key(
                "mac_prefix",
                Some("\"fa:16:3e\""),
                "\"02:aa:bb\"",
                Reload,
                "The first three octets of the MACs that nicd gives to new ports; the other three are random. The first octet is even \
                 and is not fe.",
            ),
            key(
                "allowed_bridges",
                None,
                "[\"br-*\", \"lan0\"]",
                Reload,
                "The operator's bridges that a network may use (nicd:bridge): names, in which * stands for any number of characters; [] \
                 for none. Unset, a network may use every bridge but those that carry a default route of the host.",
            ),
            key(
                "mtu",
                Some("1500"),
                "9000",
                Reload,
                "The MTU of a network that names none and has a bridge of nicd's, in bytes: 1280 to 65521.",
            ),
            key(
                "sweep_s",
                Some("60"),
                "300",
                Reload,
                "How often all ports are compared with the kernel although it reported no change, in seconds: 1 to 86400.",
            ),
            key(
                "require_host_closed",
                Some("true"),
                "false",
                Reload,
                "Whether an attach is refused (503 host_not_closed) when the kernel cannot close the bridge to the host's own stack.",
            ),
            key(
                "conflict_probe",
                Some("\"warn\""),
                "\"refuse\"",
                Reload,
                "What is done about an address of a port that another machine on the network has already: \"warn\" gives it and reports it, \
                 \"refuse\" does not give it, \"off\" does not ask.",
            ),
        ],
    },
    Section {
        name: "physical_networks",
        about: "What leads from this host to networks of other machines, by names of your choice, which flat and vlan networks name.",
        keys: &[key(
            "physnet1",
            None,
            "\"eth1\"",
            Reload,
            "A link, on which nicd makes the VLAN devices of vlan networks; its addresses, MAC and MTU stay as they are. Or a table: { device = \"eth1\", adopt = true } \
             lets nicd put the link itself into the bridge of a flat network, as long as the host has no address and no route on it; qinq = true beside has VLANs \
             tagged by 802.1ad; { bridge = \"br-x\" } names a bridge that you made and that the uplink is in, which vlan networks use if it filters VLANs.",
        )],
    },
    Section {
        name: "segments",
        about: "The ids of segments that networks are given.",
        keys: &[
            key(
                "vlan",
                None,
                "[\"100-199\", \"300\"]",
                Reload,
                "The VLANs that vlan networks are given which name none, the lowest free one first: a range such as \"100-199\", or a list of ranges. Unset, a network has to \
             name its VLAN.",
            ),
            key(
                "vxlan",
                None,
                "[\"4096-8191\"]",
                Reload,
                "The same for the numbers (VNI) of vxlan networks, of 1 to 16777215. Only a host in a fleet has such networks.",
            ),
        ],
    },
    Section {
        name: "fleet",
        about: "The etcd (3.4 or newer) by which hosts are a fleet. Networks and subnets are all hosts', and ports and servers are shown at \
                each; security groups are each host's own. nicd.service reaches no other host until a drop-in names etcd's addresses: IPAddressAllow=.",
        keys: &[
            key(
                "endpoints",
                None,
                "[\"https://etcd-1.example:2379\", \"https://etcd-2.example:2379\"]",
                Restart,
                "The addresses at which etcd's members serve clients, 1 to 16, tried in turn; the port is 2379 where none is named. Unset, \
                 this host is in no fleet, and no other key of this section may be set.",
            ),
            key(
                "name",
                None,
                "\"rack-7\"",
                Restart,
                "The name of the fleet: one etcd may serve several. 1 to 63 of a-z, 0-9 and -. Unset, it is default.",
            ),
            key(
                "host",
                None,
                "\"compute-1\"",
                Restart,
                "The name of this host, which no other host of the fleet has. Unset, it is the host's own name (hostname).",
            ),
            key(
                "tls",
                None,
                "{ ca = \"/etc/nicd/etcd-ca.pem\", cert = \"/etc/nicd/etcd.pem\", key = \"/etc/nicd/etcd.key\" }",
                Restart,
                "The files (PEM) for endpoints with https: ca has the certificates that etcd's are checked against, unset those of the \
                 host; cert and key are this host's certificate and its private key, which user nicd can read and others cannot. They \
                 are read for each connection.",
            ),
            key(
                "user",
                None,
                "\"nicd\"",
                Restart,
                "The user that nicd is to etcd, where etcd knows users. It needs password_file.",
            ),
            key(
                "password_file",
                None,
                "\"/etc/nicd/etcd.password\"",
                Restart,
                "The file with the user's password, which user nicd can read and others cannot. It is read each time that a token is asked for.",
            ),
        ],
    },
    Section {
        name: "tunnel",
        about: "How other hosts of the fleet reach this one.",
        keys: &[key(
            "address",
            None,
            "\"192.0.2.10\"",
            Restart,
            "The address of this host, IPv4 or IPv6, that other hosts send the frames of vxlan networks to. Unset, none.",
        )],
    },
    Section {
        name: "limits",
        about: "What clients may ask for.",
        keys: &[
            key(
                "nics_per_server",
                Some("12"),
                "8",
                Reload,
                "How many NICs a server may have that has no nic_limit of its own: 1 to 1023.",
            ),
            key(
                "requests",
                Some("\"off\""),
                "false",
                Reload,
                "Limiting the rate of requests. It is not built yet: \"off\" (or false) is the only value that is accepted.",
            ),
        ],
    },
    Section {
        name: "filters",
        about: "How the connections of guests are restricted.",
        keys: &[
            key(
                "default_group",
                Some("false"),
                "true",
                Reload,
                "Whether each project has a security group named default, made on its first use, for ports that name none: it lets \
                 out everything, and in only what comes from its own ports. Otherwise such ports are in no group.",
            ),
            key(
                "connections",
                Some("65536"),
                "20000",
                Restart,
                "How many connections a port in security groups may have at a time, so that one guest cannot fill the kernel's table of \
                 connections, which is all guests': 16 to 10000000. What would begin another one is dropped, and counted as group.",
            ),
        ],
    },
    Section {
        name: "guest",
        about: "What guests are told by DHCP and router advertisements when their subnet does not say.",
        keys: &[
            key(
                "dns_nameservers",
                Some("[]"),
                "[\"192.0.2.53\", \"2001:db8::53\"]",
                Reload,
                "The DNS servers of guests in subnets without dns_nameservers: IPv4 and IPv6 addresses.",
            ),
            key("domain", None, "\"cloud.example\"", Reload, "The DNS search domain of guests. Unset, guests are told none."),
        ],
    },
    Section {
        name: "log",
        about: "The log, on standard error; in a service it is in the journal (journalctl --unit nicd).",
        keys: &[
            key(
                "level",
                Some("\"info\""),
                "\"info,nicd::api=debug\"",
                Reload,
                "off, error, warn, info, debug or trace, or a filter by module. --log and NICD_LOG win over it.",
            ),
            key("format", Some("\"text\""), "\"json\"", Restart, "What a line looks like: text, or json for one object a line."),
        ],
    },
    Section {
        name: "metrics",
        about: "The metrics for Prometheus; GET /metrics on the sockets always has them.",
        keys: &[key(
            "listen",
            None,
            "\"127.0.0.1:9632\"",
            Restart,
            "A loopback address and port that serve GET /metrics to every process on this host, and nothing else. Unset, none.",
        )],
    },
    Section {
        name: "dbus",
        about: "Ports on D-Bus (org.nicd.Agent1).",
        keys: &[
            key("enabled", Some("true"), "false", Restart, "Whether ports are shown on a bus."),
            key(
                "address",
                None,
                "\"unix:path=/run/dbus/system_bus_socket\"",
                Restart,
                "The bus's address (D-Bus specification, \"Server Addresses\"). Unset, it is the system bus.",
            ),
        ],
    },
    Section {
        name: "nova",
        about: "Telling Nova of ports (os-server-external-events). nicd.service reaches no other host until a drop-in names Keystone's \
                and Nova's addresses: IPAddressAllow=.",
        keys: &[
            key(
                "send",
                Some("false"),
                "false",
                Reload,
                "Whether Nova is told. It needs auth_url, and a user or an application credential.",
            ),
            key("auth_url", None, "\"https://controller.example:5000/v3\"", Reload, "The address of Keystone's API, version 3."),
            key(
                "endpoint",
                None,
                "\"https://controller.example:8774/v2.1\"",
                Reload,
                "The address of Nova's API. Unset, it is the endpoint of the service of type compute in Keystone's catalog.",
            ),
            key("region", None, "\"RegionOne\"", Reload, "The region of that endpoint. Unset, it is the first in the catalog."),
            key(
                "interface",
                Some("\"public\""),
                "\"internal\"",
                Reload,
                "The interface of that endpoint: public, internal or admin.",
            ),
            key(
                "username",
                None,
                "\"nicd\"",
                Reload,
                "The user that nicd is to Keystone. Nova's policy lets only administrators send events, unless it says otherwise.",
            ),
            key("user_domain_name", Some("\"Default\""), "\"cloud\"", Reload, "The domain of that user."),
            key("project_name", None, "\"service\"", Reload, "The project that the token is for."),
            key("project_domain_name", Some("\"Default\""), "\"cloud\"", Reload, "The domain of that project."),
            key(
                "password_file",
                None,
                "\"/etc/nicd/nova.password\"",
                Reload,
                "The file with the password, which user nicd can read. It is read each time that a token is asked for.",
            ),
            key(
                "application_credential_id",
                None,
                "\"423f19a4ac1e4f48bbb4180756e6eb6c\"",
                Reload,
                "An application credential, in place of a user with a password.",
            ),
            key(
                "application_credential_secret_file",
                None,
                "\"/etc/nicd/nova.secret\"",
                Reload,
                "The file with its secret, which user nicd can read.",
            ),
            key(
                "ca_file",
                None,
                "\"/etc/nicd/ca.pem\"",
                Reload,
                "The certificates (PEM) that Keystone's and Nova's are checked against. Unset, they are the host's.",
            ),
            key(
                "unreachable_after_s",
                Some("60"),
                "300",
                Reload,
                "For how many seconds something may wait for Nova before health shows nova_unreachable: 1 to 86400.",
            ),
        ],
    },
    Section {
        name: "notify",
        about: "Telling a webhook of ports. nicd.service reaches no other host until a drop-in names its address: IPAddressAllow=.",
        keys: &[
            key(
                "url",
                None,
                "\"https://controller.example/nicd\"",
                Reload,
                "The address that events are sent to by POST. Unset, none.",
            ),
            key(
                "ca_file",
                None,
                "\"/etc/nicd/ca.pem\"",
                Reload,
                "The certificates (PEM) that the webhook's is checked against. Unset, they are the host's.",
            ),
            key(
                "token_file",
                None,
                "\"/etc/nicd/notify.token\"",
                Reload,
                "The file with the token that is sent (Authorization: Bearer), which user nicd can read.",
            ),
            key(
                "unreachable_after_s",
                Some("60"),
                "300",
                Reload,
                "For how many seconds something may wait for the webhook before health shows webhook_unreachable: 1 to 86400.",
            ),
        ],
    },
];

/// How wide the lines of the file are.
const WIDTH: usize = 100;

/// The file with every key explained, and commented out at its default, or at an example where no value is the default.
pub fn file() -> String {
    let mut text = String::from(
        "# The configuration of nicd; nicd.toml(5). Every key is here, at its default:\n\
         # remove its # to change it.\n\
         # After a change: systemctl reload nicd. It checks the file; so does nicd check-config.\n\
         # Keys marked (restart) change at the next start: systemctl restart nicd. No restart loses a packet.\n",
    );
    for section in SECTIONS {
        text += &format!("\n{}[{}]\n", comment(section.about), section.name);
        for key in section.keys {
            let mark = if key.applies == Restart { " (restart)" } else { "" };
            let example = if key.default.is_none() { " For example:" } else { "" };
            text += &format!("\n{}", comment(&format!("{}{mark}{example}", key.about)));
            text += &format!("#{} = {}\n", key.name, key.default.unwrap_or(key.example));
        }
    }
    text
}

/// A text as lines of a comment.
fn comment(text: &str) -> String {
    let mut lines = vec![String::from("#")];
    for word in text.split_whitespace() {
        if lines.last().is_some_and(|line| line.len() + 1 + word.len() > WIDTH) {
            lines.push(String::from("#"));
        }
        if let Some(line) = lines.last_mut() {
            *line += " ";
            *line += word;
        }
    }
    lines.join("\n") + "\n"
}
