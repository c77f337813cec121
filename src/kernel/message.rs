//! Netlink messages: batches to send, and the parser of received messages.
//!
//! `rtnetlink` builds messages, `netlink-packet-route` has the types of received ones, and `netlink-packet-core` encodes and decodes.
//! This module adds two things: several messages in one send, and decoding attribute by attribute. The crates decode a
//! message completely or not at all, so one unreadable attribute would hide all others.

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, NLA_F_NESTED, NLA_HEADER_SIZE, NLA_TYPE_MASK, NLM_F_ACK, NLM_F_REQUEST, NLMSG_NOOP,
    NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable, NlaBuffer, NlasIterator,
};

use super::answer::Request;

/// Messages for one send. The kernel executes them in order and continues after a failed one.
#[derive(Debug, Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    /// The offset and the request of each message.
    starts: Vec<(usize, Request)>,
    /// The index of the message whose answer ends the wait.
    acknowledged: usize,
    too_long: bool,
}

/// A message of a type that the crates do not have: its fixed part, and its attributes.
#[derive(Debug)]
pub(super) struct Untyped {
    pub(super) kind: u16,
    pub(super) fixed: Vec<u8>,
    pub(super) attributes: Vec<DefaultNla>,
}

impl NetlinkSerializable for Untyped {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.fixed.len() + self.attributes.as_slice().buffer_len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let (fixed, attributes) = buffer.split_at_mut(self.fixed.len());
        fixed.copy_from_slice(&self.fixed);
        self.attributes.as_slice().emit(attributes);
    }
}

impl Batch {
    /// Appends a request with these flags beside `NLM_F_REQUEST`. A message may be no longer than an attribute: the lengths of all
    /// attributes in it fit their fields.
    pub(super) fn add(&mut self, request: Request, flags: u16, message: impl NetlinkSerializable) {
        let mut header = NetlinkHeader::default();
        header.flags = flags | NLM_F_REQUEST;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        let (start, length) = (self.bytes.len(), message.buffer_len());
        self.starts.push((start, request));
        if u16::try_from(length).is_err() {
            self.too_long = true;
            return;
        }
        message.finalize();
        self.bytes.resize(start + length.next_multiple_of(4), 0);
        message.serialize(&mut self.bytes[start..start + length]);
    }

    /// The requests of its messages, in order.
    pub(super) fn requests(&self) -> impl ExactSizeIterator<Item = Request> + '_ {
        self.starts.iter().map(|(_, request)| *request)
    }

    /// Turns a message into one that the kernel skips (`netlink_rcv_skb`, net/netlink/af_netlink.c).
    pub(super) fn blank(&mut self, position: usize) {
        if let Some(mut message) = self.message(position) {
            message.set_message_type(NLMSG_NOOP);
        }
    }

    /// Requests an acknowledgement of the last message.
    pub(super) fn acknowledge_last(&mut self) {
        self.acknowledged = self.starts.len().saturating_sub(1);
        if let Some(mut message) = self.message(self.acknowledged) {
            message.set_flags(message.flags() | NLM_F_ACK);
        }
    }

    /// The index of the last message that [`Batch::acknowledge_last`] was called for.
    pub(super) fn acknowledged(&self) -> usize {
        self.acknowledged
    }

    /// The bytes to send, with consecutive sequence numbers from `first`. `None` when a message is too long.
    pub(super) fn finish(&mut self, first: u32) -> Option<&[u8]> {
        let mut seq = first;
        for position in 0..self.starts.len() {
            self.message(position)?.set_sequence_number(seq);
            seq = seq.wrapping_add(1);
        }
        Some(&self.bytes)
    }

    fn message(&mut self, position: usize) -> Option<NetlinkBuffer<&mut [u8]>> {
        let (start, _) = self.starts.get(position).filter(|_| !self.too_long)?;
        NetlinkBuffer::new_checked(&mut self.bytes[*start..]).ok()
    }
}

/// A text with a terminating NUL.
pub(super) fn text_nla(kind: u16, text: &str) -> DefaultNla {
    DefaultNla::new(kind, [text.as_bytes(), &[0]].concat())
}

/// A nested attribute.
pub(super) fn nested(kind: u16, attributes: &[DefaultNla]) -> DefaultNla {
    let mut value = vec![0; attributes.buffer_len()];
    attributes.emit(&mut value);
    DefaultNla::new(kind | NLA_F_NESTED, value)
}

/// One message as received.
pub(super) type Message<'a> = NetlinkBuffer<&'a [u8]>;

/// The decoded body of a message; `None` when it is about another kind of object.
pub(super) type Read<T> = Result<Option<T>, DecodeError>;

/// The messages in one datagram. A message with an invalid length ends the iteration with an error.
pub(super) fn messages(mut rest: &[u8]) -> impl Iterator<Item = Result<Message<'_>, DecodeError>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let message = NetlinkBuffer::new_checked(rest);
        let length = message.as_ref().ok().and_then(|message| usize::try_from(message.length()).ok());
        rest = length.and_then(|length| rest.get(length.next_multiple_of(4)..)).unwrap_or_default();
        Some(message)
    })
}

/// The attributes after a header of `fixed` bytes, up to the first truncated one.
pub(super) fn attributes(body: &[u8], fixed: usize) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
    NlasIterator::new(body.get(fixed..).unwrap_or_default()).map_while(Result::ok)
}

/// Checks that a message is at least as long as its header, for messages that the crates do not cover.
///
/// # Errors
/// It is shorter.
pub(super) fn check(body: &[u8], fixed: usize) -> Result<(), DecodeError> {
    if body.len() < fixed { Err(DecodeError::buffer_too_small(body.len(), fixed)) } else { Ok(()) }
}

/// An attribute's value, which lives as long as the message.
pub(super) fn value<'a>(attribute: &NlaBuffer<&'a [u8]>) -> &'a [u8] {
    attribute.into_inner().get(NLA_HEADER_SIZE..usize::from(attribute.length())).unwrap_or_default()
}

/// The value of the attribute `wanted` among those behind a fixed part of `fixed` octets. Passes by the others as their lengths say:
/// each event about a link is read so, and a tap that is opened and closed all the time makes 30,000 a second.
pub(super) fn find(body: &[u8], fixed: usize, wanted: u16) -> Option<&[u8]> {
    let mut rest = body.get(fixed..)?;
    while let [length_0, length_1, kind_0, kind_1, ..] = *rest {
        let length = usize::from(u16::from_ne_bytes([length_0, length_1]));
        let whole = rest.get(..length).filter(|whole| whole.len() >= NLA_HEADER_SIZE)?;
        if u16::from_ne_bytes([kind_0, kind_1]) & NLA_TYPE_MASK == wanted {
            return whole.get(NLA_HEADER_SIZE..);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

/// A text up to its NUL; invalid UTF-8 is replaced.
pub(super) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|octet| *octet == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

#[cfg(test)]
pub(super) mod tests {
    use netlink_packet_core::Nla;
    use proptest::prelude::*;

    use super::*;

    /// A message's body, as the kernel would send it.
    pub(in crate::kernel) fn body(request: impl NetlinkSerializable) -> Vec<u8> {
        let mut body = vec![0; request.buffer_len()];
        request.serialize(&mut body);
        body
    }

    /// A message as the kernel would send it.
    pub(in crate::kernel) fn sent(request: impl NetlinkSerializable) -> Vec<u8> {
        let mut batch = Batch::default();
        batch.add(Request::Look, 0, request);
        batch.finish(0).unwrap().to_vec()
    }

    fn untyped(kind: u16, attributes: Vec<DefaultNla>) -> Untyped {
        Untyped { kind, fixed: vec![7; 16], attributes }
    }

    proptest! {
        #[test]
        fn reading_arbitrary_bytes_ends(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            for message in messages(&bytes).flatten() {
                let length = |attribute| attributes(value(&attribute), 0).count() + text(value(&attribute)).len();
                let _ = attributes(message.payload(), 0).map(length).sum::<usize>();
            }
        }

        #[test]
        fn what_is_written_is_read(
            kind in any::<u16>(),
            values in proptest::collection::vec((0..=NLA_TYPE_MASK, proptest::collection::vec(any::<u8>(), 0..40)), 0..8),
            seq in any::<u32>(),
        ) {
            let written: Vec<_> = values.iter().map(|(kind, value)| DefaultNla::new(*kind, value.clone())).collect();
            let mut batch = Batch::default();
            batch.add(Request::Look, 0, untyped(kind, written.clone()));
            batch.add(Request::Look, 0, untyped(kind, written.clone()));
            batch.acknowledge_last();
            let bytes = batch.finish(seq).unwrap();
            let read: Vec<_> = messages(bytes).map(Result::unwrap).collect();
            prop_assert_eq!(read.len(), 2);
            for (message, number) in read.iter().zip([seq, seq.wrapping_add(1)]) {
                prop_assert_eq!(message.message_type(), kind);
                prop_assert_eq!(message.sequence_number(), number);
                prop_assert_eq!(&message.payload()[..16], &[7; 16]);
                let back = attributes(message.payload(), 16).map(|one| DefaultNla::new(one.kind(), value(&one).to_vec()));
                prop_assert_eq!(&back.collect::<Vec<_>>(), &written);
            }
            prop_assert_eq!(read[0].flags() & NLM_F_ACK, 0);
            prop_assert_eq!(read[1].flags() & NLM_F_ACK, NLM_F_ACK);
        }
    }

    #[test]
    fn what_does_not_fit_a_field_is_never_sent() {
        let mut batch = Batch::default();
        batch.add(Request::Look, 0, untyped(1, vec![DefaultNla::new(1, vec![0; 70_000])]));
        assert_eq!(batch.finish(1), None);
    }

    #[test]
    fn a_blank_message_keeps_its_place() {
        let mut batch = Batch::default();
        batch.add(Request::Stale, 0, untyped(20, Vec::new()));
        batch.add(Request::Stale, 0, untyped(20, Vec::new()));
        batch.blank(0);
        let bytes = batch.finish(5).unwrap();
        let read: Vec<_> = messages(bytes).map(Result::unwrap).collect();
        assert_eq!((read[0].message_type(), read[0].sequence_number()), (NLMSG_NOOP, 5));
        assert_eq!((read[1].message_type(), read[1].sequence_number()), (20, 6));
    }

    #[test]
    fn a_length_of_nothing_is_no_endless_loop() {
        assert_eq!(attributes(&[0; 64], 0).count(), 0);
        assert!(matches!(messages(&[0; 64]).collect::<Vec<_>>()[..], [Err(_)]));
    }

    #[test]
    fn a_message_that_is_cut_short_is_an_error_and_no_end() {
        let bytes = sent(untyped(1, vec![DefaultNla::new(1, vec![0; 8])]));
        assert_eq!(messages(&bytes).filter(Result::is_ok).count(), 1);
        for cut in 1..bytes.len() {
            assert!(messages(&bytes[..cut]).any(|message| message.is_err()), "cut at {cut}");
        }
    }

    #[test]
    fn nested_attributes_say_so() {
        let outer = nested(3, &[text_nla(1, "a")]);
        assert!(outer.is_nested());
        assert_eq!(find(&sent(untyped(1, vec![outer]))[16..], 16, 3).and_then(|inner| find(inner, 0, 1)), Some(&b"a\0"[..]));
    }
}
