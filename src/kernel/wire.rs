//! Netlink's bytes: messages and their attributes, written and read (`linux/netlink.h`, `net/netlink.h`).
//!
//! Reading trusts nothing: a length that does not fit ends the iteration, and what is unknown is skipped by whoever
//! reads.

use super::answer::Part;
use super::uapi::{NLA_F_NESTED, NLA_TYPE_MASK, NLM_F_ACK, NLM_F_REQUEST, NLMSG_NOOP};

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Length of `struct nlattr`.
const FIELD: usize = 4;

/// Messages that go to the kernel in one send, which carries them out in order and does not stop at a refused one.
#[derive(Debug, Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    /// Where each message starts, and what it is about.
    starts: Vec<(usize, Part)>,
    /// The place of the message whose answer ends the wait.
    acknowledged: usize,
    too_long: bool,
}

/// The attributes of a message being written.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    bytes: &'a mut Vec<u8>,
    too_long: &'a mut bool,
}

impl Batch {
    /// Appends a request: its type, its flags beside `NLM_F_REQUEST`, its fixed part, and what `fill` adds.
    pub(super) fn add(&mut self, part: Part, kind: u16, flags: u16, fixed: &[u8], fill: impl FnOnce(&mut Fields<'_>)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 8]);
        self.bytes.extend_from_slice(fixed);
        pad(&mut self.bytes);
        fill(&mut Fields { bytes: &mut self.bytes, too_long: &mut self.too_long });
        let length = self.bytes.len() - start;
        match u32::try_from(length) {
            Ok(length) => self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes()),
            Err(_) => self.too_long = true,
        }
        self.starts.push((start, part));
    }

    /// What its messages are about, in order.
    pub(super) fn parts(&self) -> impl ExactSizeIterator<Item = Part> + '_ {
        self.starts.iter().map(|(_, part)| *part)
    }

    /// Makes a message one that the kernel passes by (`netlink_rcv_skb`, net/netlink/af_netlink.c).
    pub(super) fn blank(&mut self, position: usize) {
        if let Some((start, _)) = self.starts.get(position) {
            self.bytes[start + 4..start + 6].copy_from_slice(&NLMSG_NOOP.to_ne_bytes());
        }
    }

    /// Has the last message so far answered although it succeeds.
    pub(super) fn acknowledge_last(&mut self) {
        if let Some((start, _)) = self.starts.last() {
            let at = start + 6;
            let flags = u16::from_ne_bytes([self.bytes[at], self.bytes[at + 1]]) | NLM_F_ACK;
            self.bytes[at..at + 2].copy_from_slice(&flags.to_ne_bytes());
            self.acknowledged = self.starts.len() - 1;
        }
    }

    /// The place of the message that [`Batch::acknowledge_last`] was last told of.
    pub(super) fn acknowledged(&self) -> usize {
        self.acknowledged
    }

    /// The bytes to send, with consecutive sequence numbers from `first`; with `acknowledge`, the last asks for an
    /// answer although it succeeds. None when a value was too long for its field.
    pub(super) fn finish(&mut self, first: u32, acknowledge: bool) -> Option<&[u8]> {
        let mut seq = first;
        for (start, _) in &self.starts {
            self.bytes[start + 8..start + 12].copy_from_slice(&seq.to_ne_bytes());
            seq = seq.wrapping_add(1);
        }
        if acknowledge {
            self.acknowledge_last();
        }
        (!self.too_long).then_some(&self.bytes)
    }
}

impl Fields<'_> {
    /// Appends one attribute.
    pub(super) fn put(&mut self, kind: u16, value: &[u8]) {
        self.field(kind, |inner| inner.bytes.extend_from_slice(value));
    }

    /// Appends an octet.
    pub(super) fn u8(&mut self, kind: u16, value: u8) {
        self.put(kind, &[value]);
    }

    /// Appends half a word in the host's order.
    pub(super) fn u16(&mut self, kind: u16, value: u16) {
        self.put(kind, &value.to_ne_bytes());
    }

    /// Appends a word in the host's order.
    pub(super) fn u32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_ne_bytes());
    }

    /// Appends a text with the NUL that ends it.
    pub(super) fn text(&mut self, kind: u16, value: &str) {
        self.field(kind, |inner| {
            inner.bytes.extend_from_slice(value.as_bytes());
            inner.bytes.push(0);
        });
    }

    /// Appends a fixed structure without a head of its own, as inside `VETH_INFO_PEER`.
    pub(super) fn bare(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
        pad(self.bytes);
    }

    /// Appends an attribute made of the attributes that `fill` adds.
    pub(super) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Fields<'_>)) {
        self.field(kind | NLA_F_NESTED, fill);
    }

    fn field(&mut self, kind: u16, fill: impl FnOnce(&mut Fields<'_>)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        fill(&mut Fields { bytes: self.bytes, too_long: self.too_long });
        match u16::try_from(self.bytes.len() - start) {
            Ok(length) => self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes()),
            Err(_) => *self.too_long = true,
        }
        pad(self.bytes);
    }
}

/// Netlink aligns everything to four.
fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// One message as received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message<'a> {
    /// Its type.
    pub(super) kind: u16,
    /// Its flags.
    pub(super) flags: u16,
    /// Which request it answers; 0 for an event.
    pub(super) seq: u32,
    /// What follows the header.
    pub(super) body: &'a [u8],
}

/// The messages in one datagram.
pub(super) fn messages(mut rest: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(rest, 0)?).ok()?;
        let body = rest.get(HEADER..length)?;
        let message = Message { kind: u16_at(rest, 4)?, flags: u16_at(rest, 6)?, seq: u32_at(rest, 8)?, body };
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes in a message's or attribute's body: type without flags, and value.
pub(super) fn fields(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let &[low, high, kind_low, kind_high, ..] = rest else { return None };
        let length = usize::from(u16::from_ne_bytes([low, high]));
        let value = rest.get(FIELD..length)?;
        rest = rest.get((length + 3) & !3..).unwrap_or_default();
        Some((u16::from_ne_bytes([kind_low, kind_high]) & NLA_TYPE_MASK, value))
    })
}

/// The attributes behind a fixed part of `length` octets.
pub(super) fn fields_behind(body: &[u8], length: usize) -> impl Iterator<Item = (u16, &[u8])> {
    fields(body.get(length..).unwrap_or_default())
}

/// The value of the attribute `kind` among those behind a fixed part of `length` octets. A loop, as each of a host's events about
/// links is searched so, and an iterator's steps cost a debug build five times as much.
pub(super) fn field_behind(body: &[u8], length: usize, kind: u16) -> Option<&[u8]> {
    let mut rest = body.get(length..)?;
    while let &[low, high, kind_low, kind_high, ..] = rest {
        let length = usize::from(u16::from_ne_bytes([low, high]));
        let value = rest.get(FIELD..length)?;
        if u16::from_ne_bytes([kind_low, kind_high]) & NLA_TYPE_MASK == kind {
            return Some(value);
        }
        rest = rest.get((length + 3) & !3..)?;
    }
    None
}

/// The value of the attribute `kind` among those in `body`.
pub(super) fn field(body: &[u8], kind: u16) -> Option<&[u8]> {
    field_behind(body, 0, kind)
}

/// A text up to its NUL.
pub(super) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|octet| *octet == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// An octet.
pub(super) fn u8_at(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

/// Two octets in the host's order.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|chunk| u16::from_ne_bytes(*chunk))
}

/// Four octets in the host's order.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_ne_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn reading_arbitrary_bytes_ends(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            for message in messages(&bytes) {
                let _ = fields(message.body).map(|(_, value)| fields(value).count() + text(value).len()).sum::<usize>();
            }
        }

        #[test]
        fn what_is_written_is_read(
            kind in any::<u16>(),
            fixed in proptest::collection::vec(any::<u8>(), 16..=16),
            values in proptest::collection::vec((0..NLA_TYPE_MASK, proptest::collection::vec(any::<u8>(), 0..40)), 0..8),
            seq in any::<u32>(),
        ) {
            let mut batch = Batch::default();
            for _ in 0..2 {
                batch.add(Part::Look, kind, 0, &fixed, |f| for (kind, value) in &values { f.put(*kind, value) });
            }
            let bytes = batch.finish(seq, true).unwrap().to_vec();
            let read: Vec<_> = messages(&bytes).collect();
            prop_assert_eq!(read.len(), 2);
            for (message, number) in read.iter().zip([seq, seq.wrapping_add(1)]) {
                prop_assert_eq!(message.kind, kind);
                prop_assert_eq!(message.seq, number);
                prop_assert_eq!(&message.body[..16], &fixed[..]);
                let back: Vec<_> = fields_behind(message.body, 16).map(|(kind, value)| (kind, value.to_vec())).collect();
                prop_assert_eq!(&back, &values);
            }
            prop_assert_eq!(read[0].flags & NLM_F_ACK, 0);
            prop_assert_eq!(read[1].flags & NLM_F_ACK, NLM_F_ACK);
        }
    }

    #[test]
    fn what_does_not_fit_a_field_is_never_sent() {
        let mut batch = Batch::default();
        batch.add(Part::Look, 1, 0, &[], |f| f.put(1, &vec![0; 70_000]));
        assert_eq!(batch.finish(1, true), None);
    }

    #[test]
    fn a_length_of_nothing_is_no_endless_loop() {
        assert_eq!(fields(&[0; 64]).count(), 0);
        assert_eq!(messages(&[0; 64]).count(), 0);
    }
}
