//! ICMP and ICMPv6 echo, as far as a ping needs it (RFC 792, RFC 4443).

use std::net::IpAddr;

/// How long a message is: the header, and as much data again.
pub(super) const LENGTH: usize = 16;

/// What tells one echo from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Echo {
    /// Whose it is.
    pub(super) ident: u16,
    /// Which of them.
    pub(super) number: u16,
}

/// A request for `to`. ICMPv6's checksum covers addresses and is left to whoever knows both.
pub(super) fn request(to: IpAddr, echo: Echo) -> [u8; LENGTH] {
    let mut message = *b"\0\0\0\0\0\0\0\0nicddemo";
    message[0] = if to.is_ipv4() { 8 } else { 128 };
    message[4..6].copy_from_slice(&echo.ident.to_be_bytes());
    message[6..8].copy_from_slice(&echo.number.to_be_bytes());
    if to.is_ipv4() {
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    message
}

/// The echo that a message from `from` replies to; none when it is something else.
pub(super) fn reply(from: IpAddr, message: &[u8]) -> Option<Echo> {
    let kind = if from.is_ipv4() { 0 } else { 129 };
    match message {
        [first, 0, _, _, a, b, c, d, ..] if *first == kind => {
            Some(Echo { ident: u16::from_be_bytes([*a, *b]), number: u16::from_be_bytes([*c, *d]) })
        }
        _ => None,
    }
}

/// A raw IPv4 socket gives the packet with its header.
pub(super) fn without_header(from: IpAddr, packet: &[u8]) -> &[u8] {
    let length = match packet.first() {
        Some(first) if from.is_ipv4() => usize::from(first & 0x0f) * 4,
        _ => 0,
    };
    packet.get(length..).unwrap_or_default()
}

/// RFC 1071.
fn checksum(message: &[u8; LENGTH]) -> u16 {
    let words = message.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum = words.sum::<u32>();
    let folded = (sum & 0xffff) + (sum >> 16);
    let [_, _, high, low] = ((folded & 0xffff) + (folded >> 16)).to_be_bytes();
    !u16::from_be_bytes([high, low])
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const ECHO: Echo = Echo { ident: 0x1234, number: 0xfffe };

    #[test]
    fn a_request_sums_to_nothing() {
        assert_eq!(checksum(&request(Ipv4Addr::LOCALHOST.into(), ECHO)), 0);
    }

    #[test]
    fn replies_are_told_from_requests_and_rubbish() {
        for (ip, kind) in [(IpAddr::from(Ipv4Addr::LOCALHOST), 0), (Ipv6Addr::LOCALHOST.into(), 129)] {
            let mut message = request(ip, ECHO);
            assert_eq!(reply(ip, &message), None);
            message[0] = kind;
            assert_eq!(reply(ip, &message), Some(ECHO));
            assert_eq!(reply(ip, &message[..7]), None);
        }
    }

    #[test]
    fn only_the_older_family_comes_with_a_header() {
        let packet = [0x45; 24];
        assert_eq!(without_header(Ipv4Addr::LOCALHOST.into(), &packet).len(), 4);
        assert_eq!(without_header(Ipv6Addr::LOCALHOST.into(), &packet).len(), 24);
        assert_eq!(without_header(Ipv4Addr::LOCALHOST.into(), &[0x4f]).len(), 0);
    }
}
