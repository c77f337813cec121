//! The protocol of `nicd-netns`: one request per connection, ended by the sender's shutdown, and one answer.
//!
//! | request | |
//! |---|---|
//! | `P` and a path's bytes | the namespace the path names |
//! | `C` and eight bytes, native order | the namespace with this `SO_NETNS_COOKIE` |
//!
//! | answer | |
//! |---|---|
//! | `S` with a descriptor (SCM_RIGHTS) | a netlink socket inside |
//! | `P` with a descriptor | the same, and the path names a process |
//! | `M` `N` `O` `U` | it is missing · it is no network namespace · it is the host's own · the path names nicd itself |
//! | `H` | it does not open in time |
//! | `D` and a text | there is no file descriptor to enter it by |
//! | `R` and a text | why it cannot be entered |

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

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

/// A request as sent; none when the path is too long to exist.
pub(super) fn request(named: &Named) -> Option<Vec<u8>> {
    let (letter, rest) = match named {
        Named::Path(path) => (b'P', path.as_os_str().as_bytes().to_vec()),
        Named::Cookie(cookie) => (b'C', cookie.to_ne_bytes().to_vec()),
    };
    (rest.len() < REQUEST).then(|| [vec![letter], rest].concat())
}

/// A request as received; none when it is not one. A relative path would mean another place to each of us.
pub(super) fn read_request(bytes: &[u8]) -> Option<Named> {
    match bytes.split_first()? {
        (b'P', path) if path.len() < REQUEST && path.first() == Some(&b'/') && !path.contains(&0) => {
            Some(Named::Path(Path::new(OsStr::from_bytes(path)).to_owned()))
        }
        (b'C', cookie) => cookie.try_into().ok().map(|cookie| Named::Cookie(u64::from_ne_bytes(cookie))),
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
pub(super) fn read_refusal(bytes: &[u8], named: &Named) -> Option<NetnsError> {
    let path = named.shown().display().to_string();
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
            let _ = read_refusal(&bytes, &Named::Cookie(1));
            if let Some(named) = read_request(&bytes) {
                prop_assert_eq!(request(&named), Some(bytes));
            }
        }
    }

    #[test]
    fn what_is_sent_is_what_is_read() {
        for named in [Named::Path("/run/netns/a".into()), Named::Cookie(u64::MAX)] {
            assert_eq!(read_request(&request(&named).unwrap()), Some(named.clone()));
            let path = named.shown().display().to_string();
            for error in [
                NetnsError::Missing(path.clone()),
                NetnsError::NotNetns(path.clone()),
                NetnsError::Own(path.clone()),
                NetnsError::OwnProcess(path.clone()),
                NetnsError::Hanging(path.clone()),
                NetnsError::NoDescriptors { path: path.clone(), said: "why".into() },
                NetnsError::Refused { path: path.clone(), said: "why".into() },
            ] {
                assert_eq!(read_refusal(&refusal(&error), &named), Some(error));
            }
        }
    }

    #[test]
    fn what_is_no_request_is_none() {
        for bad in [&b""[..], b"P", b"Prelative", b"P/a\0b", b"C1234567", b"C123456789", b"X/run", &[b'/'; REQUEST + 1]] {
            assert_eq!(read_request(bad), None, "{bad:?}");
        }
        let long = Named::Path("/".repeat(REQUEST).into());
        assert_eq!(request(&long), None);
    }
}
