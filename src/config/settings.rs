//! The settings as used: complete and valid, and how they are made of the file as written.

use std::net::{IpAddr, SocketAddr};
use std::path::{Component, Path, PathBuf};

use serde::{Serialize, Serializer};
use tracing_subscriber::EnvFilter;

use super::fleet::{FleetSettings, TunnelSettings, fleet_as_used, tunnel_as_used};
use super::listen::{ListenSettings, listen_as_used};
use super::notify::{NovaSettings, WebhookSettings, nova_as_used, webhook_as_used};
use super::segments::{SegmentSettings, physical_as_used, segments_as_used};
use super::{AllowedBridges, ConfigError, bad, file};
use crate::model::network::{MAX_MTU, MIN_MTU};
use crate::model::{MacPrefix, PhysicalNetworks};

/// The longest path a Unix socket can be bound to, in bytes (`sun_path` of unix(7), less its NUL).
const MAX_SOCKET_PATH: usize = 107;

/// All settings. Serialises to a file that yields the same settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Settings {
    /// The sockets and their groups.
    pub socket: SocketSettings,
    /// The API for remote control planes.
    pub listen: ListenSettings,
    /// The store's location.
    pub store: StoreSettings,
    /// How links are made.
    pub links: LinkSettings,
    /// What leads to networks of other machines.
    #[serde(skip_serializing_if = "PhysicalNetworks::is_empty")]
    pub physical_networks: PhysicalNetworks,
    /// The ids of networks' segments.
    pub segments: SegmentSettings,
    /// The etcd that hosts share; none: this host is in no fleet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fleet: Option<FleetSettings>,
    /// How other hosts of the fleet reach this one.
    pub tunnel: TunnelSettings,
    /// What one server may have.
    pub limits: LimitSettings,
    /// How guests' connections are restricted.
    pub filters: FilterSettings,
    /// Defaults for guests.
    pub guest: GuestDefaults,
    /// What is logged, and how.
    pub log: LogSettings,
    /// The TCP address of the metrics.
    pub metrics: MetricsSettings,
    /// Which bus ports are shown on.
    pub dbus: DbusSettings,
    /// How Nova is told of ports.
    pub nova: NovaSettings,
    /// Which webhook is told of ports.
    pub notify: WebhookSettings,
}

/// `[socket]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SocketSettings {
    /// The socket for everything. An absolute path.
    pub path: PathBuf,
    /// The read-only socket beside it; it follows from `path`.
    #[serde(skip)]
    pub view_path: PathBuf,
    /// The permission bits of both sockets.
    #[serde(serialize_with = "octal")]
    pub mode: u32,
    /// The group whose members may do everything.
    pub group: String,
    /// The group whose members may read, on the read-only socket.
    pub view_group: String,
    /// How many connections are served at the same time, on both sockets together.
    pub max_connections: usize,
    /// How many of them are kept for uid 0.
    pub root_reserve: usize,
}

/// `[store]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StoreSettings {
    /// The directory of the database. An absolute path.
    pub dir: PathBuf,
}

/// `[links]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LinkSettings {
    /// The prefix of generated MACs.
    pub mac_prefix: MacPrefix,
    /// Which existing bridges a network may use.
    #[serde(skip_serializing_if = "AllowedBridges::is_default")]
    pub allowed_bridges: AllowedBridges,
    /// The MTU of an agent-made bridge whose network names none, in bytes.
    pub mtu: u32,
    /// The interval of the periodic comparison of all ports, in seconds.
    pub sweep_s: u32,
    /// Whether an agent-made bridge that cannot be closed to the host is refused.
    pub require_host_closed: bool,
    /// What is done about a fixed IP that another machine on the network has.
    pub conflict_probe: ConflictProbe,
}

/// What is done about a fixed IP that another machine on the network has, before a port is first given it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ConflictProbe {
    /// Nothing: no probe is sent.
    Off,
    /// The port is told of, and has it.
    #[default]
    Warn,
    /// The port is not given it.
    Refuse,
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LimitSettings {
    /// How many NICs a server without a limit of its own may have.
    pub nics_per_server: u32,
}

/// `[filters]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct FilterSettings {
    /// Whether each project has a security group of its own, for ports that name none.
    pub default_group: bool,
    /// How many connections a port in security groups may have at a time.
    pub connections: u32,
}

/// `[guest]`: defaults for guests of a subnet without its own settings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct GuestDefaults {
    /// Resolvers.
    pub dns_nameservers: Vec<IpAddr>,
    /// The DNS search domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogSettings {
    /// A level, or a filter as `tracing_subscriber::EnvFilter` reads it.
    pub level: String,
    /// What a line looks like.
    pub format: LogFormat,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::default() }
    }
}

/// `[metrics]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct MetricsSettings {
    /// A loopback address and port that serve `GET /metrics` to every client; none: only the sockets serve it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
}

/// `[dbus]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DbusSettings {
    /// Whether ports are shown on a bus at all.
    pub enabled: bool,
    /// The bus's address (D-Bus specification, "Server Addresses"); none: the system bus, which the environment's
    /// `DBUS_SYSTEM_BUS_ADDRESS` may place elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// What a line of the log looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl Settings {
    /// Applies the settings that can change at runtime; returns the changed keys that need a restart.
    pub fn take_over(&mut self, new: Self) -> Vec<&'static str> {
        let Self {
            socket,
            listen,
            store,
            links,
            physical_networks,
            segments,
            fleet,
            tunnel,
            limits,
            filters,
            guest,
            log,
            metrics,
            dbus,
            nova,
            notify,
        } = new;
        let in_fleet = fleet.as_ref().zip(self.fleet.as_ref());
        let fixed = [
            ("socket.path", socket.path != self.socket.path),
            ("socket.mode", socket.mode != self.socket.mode),
            ("socket.group", socket.group != self.socket.group),
            ("socket.view_group", socket.view_group != self.socket.view_group),
            ("socket.max_connections", socket.max_connections != self.socket.max_connections),
            ("socket.root_reserve", socket.root_reserve != self.socket.root_reserve),
            ("listen.tls", listen.tls != self.listen.tls),
            ("listen.max_connections", listen.max_connections != self.listen.max_connections),
            ("store.dir", store != self.store),
            ("fleet.endpoints", fleet.as_ref().map(|new| &new.endpoints) != self.fleet.as_ref().map(|old| &old.endpoints)),
            ("fleet.name", in_fleet.is_some_and(|(new, old)| new.name != old.name)),
            ("fleet.host", in_fleet.is_some_and(|(new, old)| new.host != old.host)),
            ("fleet.tls", in_fleet.is_some_and(|(new, old)| new.tls != old.tls)),
            ("fleet.user", in_fleet.is_some_and(|(new, old)| new.user != old.user)),
            ("fleet.password_file", in_fleet.is_some_and(|(new, old)| new.password_file != old.password_file)),
            ("tunnel.address", tunnel != self.tunnel),
            ("filters.connections", filters.connections != self.filters.connections),
            ("log.format", log.format != self.log.format),
            ("metrics.listen", metrics != self.metrics),
            ("dbus.enabled", dbus.enabled != self.dbus.enabled),
            ("dbus.address", dbus.address != self.dbus.address),
        ];
        (self.links, self.limits, self.guest) = (links, limits, guest);
        self.filters.default_group = filters.default_group;
        self.listen = ListenSettings { tls: self.listen.tls, max_connections: self.listen.max_connections, ..listen };
        (self.nova, self.notify) = (nova, notify);
        (self.physical_networks, self.segments) = (physical_networks, segments);
        self.log.level = log.level;
        fixed.into_iter().filter_map(|(key, differs)| differs.then_some(key)).collect()
    }
}

/// Validates each value and fills in the defaults.
pub(super) fn as_used(written: file::File) -> Result<Settings, ConfigError> {
    let file::File {
        socket,
        listen,
        store,
        links,
        physical_networks,
        segments,
        fleet,
        tunnel,
        limits,
        filters,
        guest,
        log,
        metrics,
        dbus,
        nova,
        notify,
    } = written;
    let fleet = fleet_as_used(fleet)?;
    Ok(Settings {
        socket: socket_as_used(socket)?,
        listen: listen_as_used(listen)?,
        store: StoreSettings { dir: absolute("store.dir", store.dir, "/var/lib/nicd")? },
        links: links_as_used(links)?,
        physical_networks: physical_as_used(physical_networks)?,
        segments: segments_as_used(segments)?,
        tunnel: tunnel_as_used(tunnel, fleet.as_ref())?,
        fleet,
        limits: limits_as_used(limits)?,
        filters: FilterSettings {
            default_group: filters.default_group.unwrap_or(false),
            connections: number("filters.connections", filters.connections, 65_536, 16, 10_000_000)?,
        },
        guest: guest_as_used(guest)?,
        log: log_as_used(log)?,
        metrics: metrics_as_used(metrics)?,
        dbus: dbus_as_used(dbus)?,
        nova: nova_as_used(nova)?,
        notify: webhook_as_used(notify)?,
    })
}

fn socket_as_used(written: file::Socket) -> Result<SocketSettings, ConfigError> {
    let path = absolute("socket.path", written.path, "/run/nicd/nicd.sock")?;
    let view_path = view_beside(&path)?;
    let max_connections = number("socket.max_connections", written.max_connections, 256, 2, 65_536)?;
    let reserve_below = i64::try_from(max_connections).unwrap_or(i64::MAX) - 1;
    // A host that lowers the first alone gets a reserve that fits.
    let default_reserve = 16.min(reserve_below / 2);
    let root_reserve = number("socket.root_reserve", written.root_reserve, default_reserve, 0, reserve_below)?;
    Ok(SocketSettings {
        path,
        view_path,
        mode: permission_bits(written.mode)?,
        group: group("socket.group", written.group, "nicd")?,
        view_group: group("socket.view_group", written.view_group, "nicd-view")?,
        max_connections,
        root_reserve,
    })
}

fn links_as_used(written: file::Links) -> Result<LinkSettings, ConfigError> {
    let mac_prefix = match written.mac_prefix {
        Some(text) => {
            text.parse().map_err(|error: crate::model::mac::MacError| bad("links.mac_prefix", &text, error.to_string()))?
        }
        None => MacPrefix::default(),
    };
    let allowed_bridges = match written.allowed_bridges {
        Some(patterns) => AllowedBridges::Listed(
            patterns
                .iter()
                .map(|text| {
                    text.parse().map_err(|_| {
                        bad("links.allowed_bridges", text, "names of bridges are expected, or patterns such as br-*")
                    })
                })
                .collect::<Result<_, _>>()?,
        ),
        None => AllowedBridges::default(),
    };
    let mtu = number("links.mtu", written.mtu, 1500, MIN_MTU.into(), MAX_MTU.into())?;
    let sweep_s = number("links.sweep_s", written.sweep_s, 60, 1, 86_400)?;
    let require_host_closed = written.require_host_closed.unwrap_or(true);
    let conflict_probe = match written.conflict_probe.as_deref() {
        None => ConflictProbe::default(),
        Some("off") => ConflictProbe::Off,
        Some("warn") => ConflictProbe::Warn,
        Some("refuse") => ConflictProbe::Refuse,
        Some(other) => return Err(bad("links.conflict_probe", other, "off, warn or refuse is expected")),
    };
    Ok(LinkSettings { mac_prefix, allowed_bridges, mtu, sweep_s, require_host_closed, conflict_probe })
}

fn limits_as_used(written: file::Limits) -> Result<LimitSettings, ConfigError> {
    match written.requests {
        None | Some(toml::Value::Boolean(false)) => {}
        Some(toml::Value::String(word)) if word == "off" => {}
        Some(value) => return Err(not_built("limits.requests", &value, "limiting the rate of requests")),
    }
    // A bridge has 1023 ports (BR_MAX_PORTS), so no server can use more on one network.
    Ok(LimitSettings { nics_per_server: number("limits.nics_per_server", written.nics_per_server, 12, 1, 1023)? })
}

fn guest_as_used(written: file::Guest) -> Result<GuestDefaults, ConfigError> {
    let domain = written.domain.filter(|domain| !domain.is_empty());
    if let Some(domain) = domain.as_deref().filter(|domain| !is_domain(domain)) {
        return Err(bad("guest.domain", domain, "a domain such as cloud.example is expected (RFC 1123 §2.1)"));
    }
    let address = |text: String| {
        text.parse().map_err(|_| bad("guest.dns_nameservers", &text, "addresses such as 192.0.2.53 or 2001:db8::53 are expected"))
    };
    let dns_nameservers = written.dns_nameservers.unwrap_or_default().into_iter().map(address).collect::<Result<_, _>>()?;
    Ok(GuestDefaults { dns_nameservers, domain })
}

fn log_as_used(written: file::Log) -> Result<LogSettings, ConfigError> {
    let level = written.level.unwrap_or_else(|| LogSettings::default().level);
    const EXPECTED: &str = "off, error, warn, info, debug or trace is expected, or a filter such as info,nicd::api=debug";
    // `EnvFilter` reads a single unknown word as the name of a module and switches all other logging off.
    let simple = !level.contains([',', '=', ':', '[']);
    let known = ["off", "error", "warn", "info", "debug", "trace"].iter().any(|word| level.eq_ignore_ascii_case(word));
    if (simple && !known) || EnvFilter::try_new(&level).is_err() {
        return Err(bad("log.level", level, EXPECTED));
    }
    let format = match written.format.as_deref() {
        None | Some("text") => LogFormat::Text,
        Some("json") => LogFormat::Json,
        Some(other) => return Err(bad("log.format", other, "text or json is expected")),
    };
    Ok(LogSettings { level, format })
}

fn metrics_as_used(written: file::Metrics) -> Result<MetricsSettings, ConfigError> {
    let read = |text: String| {
        let address: Option<SocketAddr> = text.parse().ok();
        // TCP does not identify the client, so only loopback addresses are allowed.
        let right = address.filter(|address| address.ip().is_loopback() && address.port() != 0);
        right.ok_or_else(|| {
            bad("metrics.listen", &text, "a loopback address with a port such as 127.0.0.1:9632 or [::1]:9632 is expected")
        })
    };
    Ok(MetricsSettings { listen: written.listen.map(read).transpose()? })
}

fn dbus_as_used(written: file::Dbus) -> Result<DbusSettings, ConfigError> {
    let plain = |text: &str| text.contains(':') && !text.contains(|c: char| c.is_control() || c.is_whitespace());
    if let Some(text) = written.address.as_deref().filter(|text| !plain(text)) {
        return Err(bad("dbus.address", text, "an address such as unix:path=/run/dbus/system_bus_socket is expected"));
    }
    Ok(DbusSettings { enabled: written.enabled.unwrap_or(true), address: written.address })
}

/// A whole number within limits.
pub(super) fn number<T: TryFrom<i64>>(
    key: &'static str,
    written: Option<file::Whole>,
    default: i64,
    min: i64,
    max: i64,
) -> Result<T, ConfigError> {
    let value = written.map_or(default, |file::Whole(value)| value);
    let refused = || bad(key, value, format!("{min} to {max} is expected"));
    if !(min..=max).contains(&value) {
        return Err(refused());
    }
    T::try_from(value).map_err(|_| refused())
}

/// An absolute path without `..`, so that it does not depend on the working directory.
pub(super) fn absolute(key: &'static str, written: Option<PathBuf>, default: &str) -> Result<PathBuf, ConfigError> {
    let path = written.unwrap_or_else(|| PathBuf::from(default));
    let plain = path.is_absolute() && !path.components().any(|part| part == Component::ParentDir);
    if plain && path.file_name().is_some() && !path.as_os_str().as_encoded_bytes().contains(&0) {
        return Ok(path);
    }
    Err(bad(key, path.display(), format!("an absolute path such as {default} is expected")))
}

/// `X.sock` → `X-view.sock` in the same directory.
fn view_beside(path: &Path) -> Result<PathBuf, ConfigError> {
    let name =
        path.file_name().unwrap_or_default().to_str().ok_or_else(|| bad("socket.path", path.display(), "UTF-8 is expected"))?;
    let view = path.with_file_name(format!("{}-view.sock", name.strip_suffix(".sock").unwrap_or(name)));
    let length = view.as_os_str().len();
    if length > MAX_SOCKET_PATH {
        let expected =
            format!("with the read-only socket's name it is {length} bytes long, and {MAX_SOCKET_PATH} is the most (unix(7))");
        return Err(bad("socket.path", path.display(), expected));
    }
    Ok(view)
}

/// `"0660"`, `"0o660"` or `0o660`.
fn permission_bits(written: Option<toml::Value>) -> Result<u32, ConfigError> {
    let bits = match &written {
        None => Some(0o660),
        Some(toml::Value::Integer(bits)) => u32::try_from(*bits).ok(),
        Some(toml::Value::String(text)) => {
            let digits = text.strip_prefix("0o").unwrap_or(text);
            digits.bytes().all(|digit| digit.is_ascii_digit()).then(|| u32::from_str_radix(digits, 8).ok()).flatten()
        }
        Some(_) => None,
    };
    bits.filter(|bits| *bits <= 0o777).ok_or_else(|| {
        let value = written.map(|value| value.to_string()).unwrap_or_default();
        bad("socket.mode", value, "permission bits in octal such as \"0660\" are expected")
    })
}

fn group(key: &'static str, written: Option<String>, default: &str) -> Result<String, ConfigError> {
    let name = written.unwrap_or_else(|| default.to_owned());
    let right = (1..=32).contains(&name.len()) && !name.contains([':', ',', '/', '\0', '\n', ' ']);
    if right { Ok(name) } else { Err(bad(key, format!("\"{name}\""), format!("a group's name such as {default} is expected"))) }
}

/// Whether a text is a name of a host or a domain (RFC 1123 §2.1).
pub(super) fn is_domain(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

fn not_built(key: &'static str, value: &toml::Value, what: &'static str) -> ConfigError {
    ConfigError::NotBuilt { key, value: super::clip(&value.to_string()), what }
}

fn octal<S: Serializer>(mode: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format!("{mode:04o}"))
}
