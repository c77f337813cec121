//! The protocol of `nicd-netns`: one request per connection, ended by the sender's shutdown, and one answer.
//!
//! | request | |
//! |---|---|
//! | `P` and a path's bytes | the namespace the path names |
//! | `C` and eight bytes, native order | the namespace with this `SO_NETNS_COOKIE` |
//! | `F` | a new namespace, for the self-check of the filters |
//!
//! | answer | |
//! |---|---|
//! | `S` with a descriptor (SCM_RIGHTS) | a netlink socket inside |
//! | `P` with a descriptor | the same, and the path names a process |
//! | `F` with a descriptor, five times | in a new namespace: a netlink socket, one for nf_tables, and three of the tun driver |
//! | `M` `N` `O` `U` | it is missing · it is no network namespace · it is the host's own · the path names nicd itself |
//! | `H` | it does not open in time |
//! | `D` and a text | there is no file descriptor to enter it by |
//! | `R` and a text | why it cannot be entered |

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::super::NetnsError;
use super::Named;

/// The longest request: a path as long as the kernel takes one (`PATH_MAX` with its NUL), and its letter.
pub(super) const REQUEST: usize = 4096;

/// The longest answer.
pub(super) const ANSWER: usize = 512;

/// The answer that a socket comes with.
pub(super) const SOCKET: &[u8] = b"S";

/// The same, where the path names a process.
pub(super) const BY_PROCESS: &[u8] = b"P";

/// The answer that each of a new namespace's descriptors comes with.
pub(super) const FRESH: &[u8] = b"F";

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// A socket inside a namespace.
    Inside(Named),
    /// A new namespace.
    Fresh,
}

impl Asked {
    /// For messages.
    pub(super) fn shown(&self) -> PathBuf {
        match self {
            Self::Inside(named) => named.shown(),
            Self::Fresh => "a namespace of its own".into(),
        }
    }
}

/// A request as sent; none when the path is too long to exist.
pub(super) fn request(asked: &Asked) -> Option<Vec<u8>> {
    let (letter, rest) = match asked {
        Asked::Inside(Named::Path(path)) => (b'P', path.as_os_str().as_bytes().to_vec()),
        Asked::Inside(Named::Cookie(cookie)) => (b'C', cookie.to_ne_bytes().to_vec()),
        Asked::Fresh => (b'F', Vec::new()),
    };
    (rest.len() < REQUEST).then(|| [vec![letter], rest].concat())
}

/// A request as received; none when it is not one. A relative path would mean another place to each of us.
pub(super) fn read_request(bytes: &[u8]) -> Option<Asked> {
    match bytes.split_first()? {
        (b'P', path) if path.len() < REQUEST && path.first() == Some(&b'/') && !path.contains(&0) => {
            Some(Asked::Inside(Named::Path(Path::new(OsStr::from_bytes(path)).to_owned())))
        }
        (b'C', cookie) => cookie.try_into().ok().map(|cookie| Asked::Inside(Named::Cookie(u64::from_ne_bytes(cookie)))),
        (b'F', []) => Some(Asked::Fresh),
        _ => None,
    }
}

/// A refusal as sent.
pub(super) fn refusal(error: &NetnsError) -> Vec<u8> {
    let (letter, said) = match error {
        NetnsError::Missing(_) => (b'M', ""),
        NetnsError::NotNetns(_) => (b'N', ""),
        NetnsError::Own(_) => (b'O', ""),
        NetnsError::OwnProcess(_) => (b'U', ""),
        NetnsError::Hanging(_) => (b'H', ""),
        NetnsError::NoDescriptors { said, .. } => (b'D', said.as_str()),
        NetnsError::Refused { said, .. } | NetnsError::Helper { said, .. } => (b'R', said.as_str()),
    };
    let said = said.as_bytes();
    [&[letter], &said[..said.len().min(ANSWER - 1)]].concat()
}

/// A refusal as received; none when it is not one.
pub(super) fn read_refusal(bytes: &[u8], asked: &Asked) -> Option<NetnsError> {
    let path = asked.shown().display().to_string();
    Some(match bytes.split_first()? {
        (b'M', []) => NetnsError::Missing(path),
        (b'N', []) => NetnsError::NotNetns(path),
        (b'O', []) => NetnsError::Own(path),
        (b'U', []) => NetnsError::OwnProcess(path),
        (b'H', []) => NetnsError::Hanging(path),
        (b'D', said) => NetnsError::NoDescriptors { path, said: String::from_utf8_lossy(said).into_owned() },
        (b'R', said) => NetnsError::Refused { path, said: String::from_utf8_lossy(said).into_owned() },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..5000)) {
            let _ = read_refusal(&bytes, &Asked::Fresh);
            if let Some(asked) = read_request(&bytes) {
                prop_assert_eq!(request(&asked), Some(bytes));
            }
        }
    }

    #[test]
    fn what_is_sent_is_what_is_read() {
        for asked in [Asked::Inside(Named::Path("/run/netns/a".into())), Asked::Inside(Named::Cookie(u64::MAX)), Asked::Fresh] {
            assert_eq!(read_request(&request(&asked).unwrap()), Some(asked.clone()));
            let path = asked.shown().display().to_string();
            for error in [
                NetnsError::Missing(path.clone()),
                NetnsError::NotNetns(path.clone()),
                NetnsError::Own(path.clone()),
                NetnsError::OwnProcess(path.clone()),
                NetnsError::Hanging(path.clone()),
                NetnsError::NoDescriptors { path: path.clone(), said: "why".into() },
                NetnsError::Refused { path: path.clone(), said: "why".into() },
            ] {
                assert_eq!(read_refusal(&refusal(&error), &asked), Some(error));
            }
        }
    }

    #[test]
    fn what_is_no_request_is_none() {
        for bad in [&b""[..], b"P", b"Prelative", b"P/a\0b", b"C1234567", b"C123456789", b"F/run", b"X/run", &[b'/'; REQUEST + 1]]
        {
            assert_eq!(read_request(bad), None, "{bad:?}");
        }
        let long = Asked::Inside(Named::Path("/".repeat(REQUEST).into()));
        assert_eq!(request(&long), None);
    }
}
