//! Who is at the other end of a connection, and what they may do: on the sockets, and on the bus.
//!
//! The sockets' credentials are those of the moment of `connect`, read once at accept, and never by pid: a pid may be another
//! process by the time it is looked up. The kernel translates them into our user namespace, so that the root of another
//! one is not uid 0 here, and what has no translation is the overflow uid (user_namespaces(7)).

use std::io;
use std::os::fd::AsFd;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::{Group, geteuid};

use crate::config::SocketSettings;
use crate::sys::socket::peer_groups;

/// No group's number (credentials(7)).
const NO_GID: u32 = u32::MAX;

/// The peer of a connection when it connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its effective uid.
    pub uid: u32,
    /// Its effective gid.
    pub gid: u32,
    /// Its supplementary groups.
    pub groups: Vec<u32>,
}

/// Which of the two sockets a connection came in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SocketKind {
    /// `nicd.sock`, for everything.
    Main,
    /// `nicd-view.sock`, for GET and HEAD.
    View,
}

/// Whom to let in: the configured groups as this host numbers them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedPeers {
    /// The daemon's own effective uid.
    pub own_uid: u32,
    /// The group that may do everything; none when this host has no such group.
    pub group: Option<u32>,
    /// The group that may read; none when this host has no such group.
    pub view_group: Option<u32>,
}

/// What a peer may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everything.
    Full,
    /// GET and HEAD; anything else is 403.
    ReadOnly,
    /// Nothing: 401.
    Denied,
}

/// Why it cannot be told who is who.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The kernel did not say who the peer is.
    #[error("the peer's uid and gid cannot be read (SO_PEERCRED)")]
    Credentials(#[source] io::Error),
    /// The kernel did not say which groups the peer is in.
    #[error("the peer's groups cannot be read (SO_PEERGROUPS)")]
    Groups(#[source] io::Error),
    /// The host's list of groups cannot be read.
    #[error("the group {name} cannot be looked up")]
    Lookup {
        /// The group.
        name: String,
        /// The system's answer.
        source: io::Error,
    },
}

impl Peer {
    /// Reads the credentials of a connection's other end.
    ///
    /// # Errors
    /// The descriptor is no connected Unix socket.
    pub fn of(connection: &impl AsFd) -> Result<Self, PeerError> {
        let user = getsockopt(connection, PeerCredentials).map_err(|errno| PeerError::Credentials(errno.into()))?;
        let groups = peer_groups(connection.as_fd()).map_err(PeerError::Groups)?;
        Ok(Self { uid: user.uid(), gid: user.gid(), groups })
    }

    /// One as the bus knows it, whose groups include its own gid. A bus that does not tell groups leaves it without any.
    pub fn on_bus(uid: u32, groups: Option<Vec<u32>>) -> Self {
        Self { uid, gid: NO_GID, groups: groups.unwrap_or_default() }
    }

    /// Whether it is in a group; in none that the host has not.
    pub fn is_in(&self, group: Option<u32>) -> bool {
        group.is_some_and(|group| self.gid == group || self.groups.contains(&group))
    }
}

impl AllowedPeers {
    /// Looks the configured groups up on this host. One that is missing admits nobody, and is logged.
    ///
    /// # Errors
    /// The host's list of groups cannot be read.
    pub fn resolve(settings: &SocketSettings) -> Result<Self, PeerError> {
        Ok(Self { own_uid: geteuid().as_raw(), group: gid_of(&settings.group)?, view_group: gid_of(&settings.view_group)? })
    }

    /// Who gets the socket file of `door`.
    pub fn group_of(&self, door: SocketKind) -> Option<u32> {
        match door {
            SocketKind::Main => self.group,
            SocketKind::View => self.view_group,
        }
    }
}

impl Access {
    /// What `peer` may do that came in by `door`. The sockets' modes say the same; this holds even if they were loosened.
    pub fn of(peer: &Peer, door: SocketKind, admitted: &AllowedPeers) -> Self {
        let trusted = peer.uid == 0 || peer.uid == admitted.own_uid || peer.is_in(admitted.group);
        match door {
            SocketKind::Main if trusted => Self::Full,
            SocketKind::View if trusted || peer.is_in(admitted.view_group) => Self::ReadOnly,
            SocketKind::Main | SocketKind::View => Self::Denied,
        }
    }
}

fn gid_of(name: &str) -> Result<Option<u32>, PeerError> {
    let found = Group::from_name(name).map_err(|errno| PeerError::Lookup { name: name.to_owned(), source: errno.into() })?;
    if found.is_none() {
        tracing::warn!(
            group = name,
            "group is missing on this host: it admits nobody, and its socket keeps the group nicd runs as"
        );
    }
    Ok(found.map(|group| group.gid.as_raw()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    const ADMITTED: AllowedPeers = AllowedPeers { own_uid: 500, group: Some(50), view_group: Some(60) };

    fn peer(uid: u32, gid: u32, groups: &[u32]) -> Peer {
        Peer { uid, gid, groups: groups.to_vec() }
    }

    #[test]
    fn each_door_lets_in_whom_it_is_for() {
        use Access::{Denied, Full, ReadOnly};
        for (who, main, view) in [
            (peer(0, 0, &[]), Full, ReadOnly),
            (peer(500, 500, &[]), Full, ReadOnly),
            (peer(1000, 50, &[]), Full, ReadOnly),
            (peer(1000, 1000, &[7, 50]), Full, ReadOnly),
            (peer(1000, 60, &[]), Denied, ReadOnly),
            (peer(1000, 1000, &[60]), Denied, ReadOnly),
            (peer(1000, 1000, &[]), Denied, Denied),
            // A group of root's does not make root, nor does the overflow uid.
            (peer(1000, 0, &[0]), Denied, Denied),
            (peer(65534, 65534, &[65534]), Denied, Denied),
        ] {
            assert_eq!(Access::of(&who, SocketKind::Main, &ADMITTED), main, "{who:?}");
            assert_eq!(Access::of(&who, SocketKind::View, &ADMITTED), view, "{who:?}");
        }
    }

    #[test]
    fn a_group_the_host_has_not_admits_nobody() {
        let none = AllowedPeers { own_uid: 500, group: None, view_group: None };
        for door in [SocketKind::Main, SocketKind::View] {
            assert_eq!(Access::of(&peer(1000, 50, &[50, 60, 0]), door, &none), Access::Denied);
        }
    }

    #[test]
    fn the_other_end_of_a_pair_is_ourselves() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let peer = Peer::of(&ours).unwrap();
        assert_eq!((peer.uid, peer.gid), (geteuid().as_raw(), nix::unistd::getegid().as_raw()));
        assert!(Peer::of(&std::fs::File::open("/dev/null").unwrap()).is_err());
    }

    #[test]
    fn groups_are_looked_up_by_name() {
        assert_eq!(gid_of("root").unwrap(), Some(0));
        assert_eq!(gid_of("no-such-group-here").unwrap(), None);
    }
}
