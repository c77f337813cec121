//! Identifies the peer of a connection and decides what the peer may do, for the Unix sockets and for D-Bus.
//!
//! The credentials are those at the time of `connect`, read once at accept. A peer is never looked up by its pid, because the
//! kernel may have reused the pid. The kernel translates the credentials into the daemon's user namespace: root of another
//! user namespace is not uid 0 here, and a uid without a translation is the overflow uid (user_namespaces(7)).

use std::io;
use std::os::fd::AsFd;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::{Group, geteuid};

use crate::config::SocketSettings;
use crate::sys::socket::peer_groups;

/// A gid that no group has (credentials(7)).
const NO_GID: u32 = u32::MAX;

/// The credentials of a peer at the time it connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its effective uid.
    pub uid: u32,
    /// Its effective gid.
    pub gid: u32,
    /// Its supplementary groups.
    pub groups: Vec<u32>,
}

/// One of the two sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SocketKind {
    /// `nicd.sock`, for everything.
    Main,
    /// `nicd-view.sock`, for GET and HEAD.
    View,
}

/// The uid and the gids that may connect: the configured groups, resolved on this host.
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

/// Why a peer or a group cannot be identified.
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

    /// A peer on D-Bus. The bus lists the peer's own gid among `groups`; `None` when the bus does not report groups.
    pub fn on_bus(uid: u32, groups: Option<Vec<u32>>) -> Self {
        Self { uid, gid: NO_GID, groups: groups.unwrap_or_default() }
    }

    /// Whether the peer is in `group`; false for a group that does not exist on the host.
    pub fn is_in(&self, group: Option<u32>) -> bool {
        group.is_some_and(|group| self.gid == group || self.groups.contains(&group))
    }
}

impl AllowedPeers {
    /// Resolves the configured groups on this host. A missing group is logged and admits no peer.
    ///
    /// # Errors
    /// The host's list of groups cannot be read.
    pub fn resolve(settings: &SocketSettings) -> Result<Self, PeerError> {
        Ok(Self { own_uid: geteuid().as_raw(), group: gid_of(&settings.group)?, view_group: gid_of(&settings.view_group)? })
    }

    /// The group that owns the file of `socket`.
    pub fn group_of(&self, socket: SocketKind) -> Option<u32> {
        match socket {
            SocketKind::Main => self.group,
            SocketKind::View => self.view_group,
        }
    }
}

impl Access {
    /// What `peer` may do on `socket`. The file modes of the sockets allow the same; this check also holds if the modes were changed.
    pub fn of(peer: &Peer, socket: SocketKind, admitted: &AllowedPeers) -> Self {
        let trusted = peer.uid == 0 || peer.uid == admitted.own_uid || peer.is_in(admitted.group);
        match socket {
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
            "group is missing on this host: it admits no user, and its socket keeps the group nicd runs as"
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
    fn each_socket_admits_its_own_peers() {
        use Access::{Denied, Full, ReadOnly};
        for (peer, main, view) in [
            (peer(0, 0, &[]), Full, ReadOnly),
            (peer(500, 500, &[]), Full, ReadOnly),
            (peer(1000, 50, &[]), Full, ReadOnly),
            (peer(1000, 1000, &[7, 50]), Full, ReadOnly),
            (peer(1000, 60, &[]), Denied, ReadOnly),
            (peer(1000, 1000, &[60]), Denied, ReadOnly),
            (peer(1000, 1000, &[]), Denied, Denied),
            // Membership in root's group grants nothing, nor does the overflow uid.
            (peer(1000, 0, &[0]), Denied, Denied),
            (peer(65534, 65534, &[65534]), Denied, Denied),
        ] {
            assert_eq!(Access::of(&peer, SocketKind::Main, &ADMITTED), main, "{peer:?}");
            assert_eq!(Access::of(&peer, SocketKind::View, &ADMITTED), view, "{peer:?}");
        }
    }

    #[test]
    fn a_group_the_host_has_not_admits_nobody() {
        let none = AllowedPeers { own_uid: 500, group: None, view_group: None };
        for socket in [SocketKind::Main, SocketKind::View] {
            assert_eq!(Access::of(&peer(1000, 50, &[50, 60, 0]), socket, &none), Access::Denied);
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
