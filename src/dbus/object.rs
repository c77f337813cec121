//! The objects and their paths.

use zbus::OwnedObjectPath;

use crate::model::PortId;

/// The object with everything below it.
pub const ROOT: &str = "/org/nicd/Agent1";

/// Below it are the ports.
pub const PORTS: &str = "/org/nicd/Agent1/port";

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Object {
    /// A part of the way to the root: it has one child and nothing else.
    Above(&'static str),
    /// The agent.
    Agent,
    /// The ports' parent.
    Ports,
    /// A port.
    Port(PortId),
}

impl Object {
    /// What a path is the path of; none for one that cannot be any object's.
    pub(super) fn at(path: &str) -> Option<Self> {
        match path {
            "/" => Some(Self::Above("org")),
            "/org" => Some(Self::Above("nicd")),
            "/org/nicd" => Some(Self::Above("Agent1")),
            ROOT => Some(Self::Agent),
            PORTS => Some(Self::Ports),
            _ => {
                let name = path.strip_prefix(PORTS)?.strip_prefix('/')?;
                let port: PortId = name.replace('_', "-").parse().ok()?;
                // Each port has one path, however its id may be spelt.
                (segment(port) == name).then_some(Self::Port(port))
            }
        }
    }
}

/// The last part of a port's path: its id with `_` for `-`, which a path cannot have.
pub(super) fn segment(port: PortId) -> String {
    port.to_string().replace('-', "_")
}

/// A port's path.
pub(super) fn path(port: PortId) -> OwnedObjectPath {
    // Hexadecimal digits and underscores are always a valid part.
    OwnedObjectPath::try_from(format!("{PORTS}/{}", segment(port))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_has_one_path() {
        let port: PortId = "96ba0aa0-557c-450f-a0f0-455445851336".parse().unwrap();
        assert_eq!(path(port).as_str(), "/org/nicd/Agent1/port/96ba0aa0_557c_450f_a0f0_455445851336");
        assert_eq!(Object::at(path(port).as_str()), Some(Object::Port(port)));
        for other in [
            "/org/nicd/Agent1/port/96ba0aa0557c450fa0f0455445851336",
            "/org/nicd/Agent1/port/96BA0AA0_557c_450f_a0f0_455445851336",
            "/org/nicd/Agent1/port/96ba0aa0_557c_450f_a0f0_455445851336/x",
            "/org/nicd/Agent1/port/x",
            "/org/nicd/Agent1/ports",
            "/com",
        ] {
            assert_eq!(Object::at(other), None, "{other}");
        }
    }

    #[test]
    fn the_way_to_the_root_is_whole() {
        let mut path = "/".to_owned();
        while let Some(Object::Above(child)) = Object::at(&path) {
            path = format!("{}/{child}", path.trim_end_matches('/'));
        }
        assert_eq!(path, ROOT);
    }
}
