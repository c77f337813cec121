//! The rate of what a guest gets: a token bucket at the root of its port's device (`tbf`, net/sched/sch_tbf.c).
//!
//! nicd's is known from an operator's by its handle, which the kernel never gives by itself: it counts from 8000:. One of the same
//! kind and handle is changed in place, and what waits in its queue stays there.

use netlink_packet_core::{DecodeError, DefaultNla, NLM_F_CREATE, NLM_F_ECHO, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcHeader, TcMessage, TcOption};
use nix::errno::Errno;

use super::answer::{Failure, Request};
use super::message::{Batch, find, text};
use super::socket::Netlink;
use crate::plan::{LinkState, TokenBucket};

/// The kind, as in `IFLA_QDISC` and `TCA_KIND`.
pub(super) const KIND: &str = "tbf";

/// The module of the kind.
pub(super) const MODULE: &str = "sch_tbf";

/// The handle of nicd's.
const HANDLE: TcHandle = TcHandle { major: 0x6e69, minor: 0 };

/// Length of `struct tcmsg`.
pub(super) const TCMSG: usize = 20;

/// `linux/rtnetlink.h`.
pub(super) const TCA_KIND: u16 = 1;
pub(super) const TCA_OPTIONS: u16 = 2;
const TCA_STATS2: u16 = 7;
/// `linux/gen_stats.h`.
const TCA_STATS_QUEUE: u16 = 3;
/// `linux/pkt_sched.h`.
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
const TC_LINKLAYER_ETHERNET: u8 = 1;

/// Length of `struct tc_ratespec`.
const RATESPEC: usize = 12;
/// Length of `struct tc_tbf_qopt`: two of these, the queue's limit, the burst as a time, and the peak rate's burst.
const TBF_QOPT: usize = 2 * RATESPEC + 12;

/// The kernel tells times in units of 64 ns (`PSCHED_SHIFT`, net/pkt_sched.h).
const TICK: u32 = 6;

impl Batch {
    /// Sets the rate of what a link sends, in place of whatever is at its root; none takes nicd's away.
    pub(super) fn token_bucket(&mut self, index: u32, bucket: Option<TokenBucket>) {
        match bucket {
            Some(bucket) => {
                let options = TcAttribute::Options(options(bucket).into_iter().map(TcOption::Other).collect());
                let attributes = vec![TcAttribute::Kind(KIND.to_owned()), options];
                let message = at_root(index, HANDLE, attributes);
                self.add(Request::RateLimit, NLM_F_CREATE | NLM_F_REPLACE, RouteNetlinkMessage::NewQueueDiscipline(message));
            }
            None => {
                let message = at_root(index, HANDLE, Vec::new());
                self.add(Request::NoRateLimit, 0, RouteNetlinkMessage::DelQueueDiscipline(message));
            }
        }
    }
}

fn at_root(index: u32, handle: TcHandle, attributes: Vec<TcAttribute>) -> TcMessage {
    let header = TcHeader { index: index.cast_signed(), handle, parent: TcHandle::ROOT, ..TcHeader::default() };
    TcMessage::from_parts(header, attributes)
}

/// How many octets wait for their turn: as many as may come at once, and 50 ms of the rate.
fn queue(bucket: TokenBucket) -> u32 {
    bucket.burst.saturating_add(waiting(bucket.rate))
}

fn waiting(rate: u64) -> u32 {
    u32::try_from(rate / 20).unwrap_or(u32::MAX)
}

/// A rate above 32 bits stands in an attribute of its own. The kernel needs no table of transmission times where the link layer is
/// named.
fn options(bucket: TokenBucket) -> Vec<DefaultNla> {
    let TokenBucket { rate, burst } = bucket;
    let mut parameters = [0; TBF_QOPT];
    parameters[1] = TC_LINKLAYER_ETHERNET;
    parameters[8..RATESPEC].copy_from_slice(&u32::try_from(rate).unwrap_or(u32::MAX).to_ne_bytes());
    parameters[2 * RATESPEC..2 * RATESPEC + 4].copy_from_slice(&queue(bucket).to_ne_bytes());
    let mut options = vec![DefaultNla::new(TCA_TBF_PARMS, parameters.to_vec())];
    if u32::try_from(rate).is_err() {
        options.push(DefaultNla::new(TCA_TBF_RATE64, rate.to_ne_bytes().to_vec()));
    }
    options.push(DefaultNla::new(TCA_TBF_BURST, burst.to_ne_bytes().to_vec()));
    options
}

/// Decodes an RTM_NEWQDISC or RTM_DELQDISC: the link it is about, and the bucket where it is nicd's.
pub(super) fn read(body: &[u8]) -> Result<(u32, Option<TokenBucket>), DecodeError> {
    let header = TcHeader::parse(body)?;
    let is_ours = header.handle == HANDLE && find(body, TCMSG, TCA_KIND).is_some_and(|kind| text(kind) == KIND);
    let bucket = find(body, TCMSG, TCA_OPTIONS).filter(|_| is_ours).and_then(read_options);
    Ok((header.index.cast_unsigned(), bucket))
}

/// `tbf_dump`. The kernel tells the burst as a time alone, which is not exact; the limit of the queue tells it in octets. Where the
/// two differ, or there is a peak rate, it is not as nicd sets it: a burst of 0.
fn read_options(options: &[u8]) -> Option<TokenBucket> {
    let parameters = find(options, 0, TCA_TBF_PARMS)?;
    let number = |at: usize| parameters.get(at..)?.first_chunk().map(|octets| u32::from_ne_bytes(*octets));
    let wide = find(options, 0, TCA_TBF_RATE64).and_then(|value| value.first_chunk());
    let rate = wide.map_or(u64::from(number(8)?), |octets| u64::from_ne_bytes(*octets));
    let (peak, limit, time) = (number(RATESPEC + 8)?, number(2 * RATESPEC)?, number(2 * RATESPEC + 4)?);
    let burst = limit.saturating_sub(waiting(rate));
    let plain = peak == 0 && takes(rate, burst, time);
    Some(TokenBucket { rate, burst: if plain { burst } else { 0 } })
}

/// Whether a burst at a rate takes this time, which the kernel computes with 31 bits and tells with 32.
fn takes(rate: u64, burst: u32, time: u32) -> bool {
    const SECOND: u64 = 1_000_000_000;
    let Some(expected) = (u64::from(burst) * SECOND).checked_div(rate).map(|time| time >> TICK) else { return false };
    let (low, slack) = (expected & u64::from(u32::MAX), 2 + (expected >> 29));
    low.abs_diff(u64::from(time)) <= slack
}

/// Notes on links that are said to have a token bucket whether it is nicd's, and its rate. A dump would be of every link's qdiscs,
/// so each is asked for; the kernel answers who asks with `NLM_F_ECHO` alone.
pub(super) fn note(netlink: &mut Netlink, links: &mut [LinkState]) -> Result<(), Failure> {
    let asked: Vec<usize> = links.iter().enumerate().filter(|(_, link)| link.to_guest.is_some()).map(|(at, _)| at).collect();
    let indexes: Vec<u32> = asked.iter().map(|at| links[*at].index).collect();
    for (at, bucket) in asked.into_iter().zip(ask(netlink, &indexes)?) {
        links[at].to_guest = bucket;
    }
    Ok(())
}

/// The rate of what a link sends, where it is nicd's.
pub(super) fn get(netlink: &mut Netlink, index: u32) -> Result<Option<TokenBucket>, Failure> {
    Ok(ask(netlink, &[index])?.pop().flatten())
}

/// How many frames wait at the root of a link.
pub(super) fn queued(netlink: &mut Netlink, index: u32) -> Result<u32, Failure> {
    let mut batch = Batch::default();
    let message = at_root(index, TcHandle::UNSPEC, Vec::new());
    batch.add(Request::Look, NLM_F_ECHO, RouteNetlinkMessage::GetQueueDiscipline(message));
    let length = |body: &[u8]| find(find(body, TCMSG, TCA_STATS2)?, 0, TCA_STATS_QUEUE)?.first_chunk().copied();
    Ok(netlink.ask(batch, |body| Ok(length(body)))?.map(u32::from_ne_bytes).unwrap_or_default())
}

fn ask(netlink: &mut Netlink, indexes: &[u32]) -> Result<Vec<Option<TokenBucket>>, Failure> {
    let ask = |batch: &mut Batch, index: &u32| {
        let message = at_root(*index, TcHandle::UNSPEC, Vec::new());
        batch.add(Request::Look, NLM_F_ECHO, RouteNetlinkMessage::GetQueueDiscipline(message));
    };
    let answers = netlink.ask_all(indexes, ask, |body| read(body).map(|(_, bucket)| bucket))?;
    let said = |answer: Result<Option<TokenBucket>, Failure>| match answer {
        // There is none; what the kernel puts in its place it does not tell of.
        Err(failure) if failure.errno == Some(Errno::EINVAL) => Ok(None),
        answer => answer,
    };
    answers.into_iter().map(said).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernel::message::nested;
    use crate::kernel::message::tests::body;

    /// As the kernel tells of a bucket that was set so.
    fn told(bucket: TokenBucket, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut options = options(bucket);
        options.retain(|option| netlink_packet_core::Nla::kind(option) != TCA_TBF_BURST);
        let mut parameters = body_of(&options[0]);
        let time = (u64::from(bucket.burst) * 1_000_000_000 / bucket.rate) >> TICK;
        let low = u32::try_from(time & u64::from(u32::MAX)).unwrap();
        parameters[2 * RATESPEC + 4..2 * RATESPEC + 8].copy_from_slice(&low.to_ne_bytes());
        change(&mut parameters);
        options[0] = DefaultNla::new(TCA_TBF_PARMS, parameters);
        let attributes = vec![TcAttribute::Kind(KIND.to_owned()), TcAttribute::Other(nested(TCA_OPTIONS, &options))];
        body(RouteNetlinkMessage::NewQueueDiscipline(at_root(7, HANDLE, attributes)))
    }

    fn body_of(option: &DefaultNla) -> Vec<u8> {
        use netlink_packet_core::Nla;
        let mut value = vec![0; option.value_len()];
        option.emit_value(&mut value);
        value
    }

    proptest! {
        #[test]
        fn arbitrary_qdiscs_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = (read(&bytes), read_options(&bytes));
        }

        #[test]
        fn what_is_set_is_what_is_read(rate in 8_000_u64..12_500_000_001, burst in 1_u32..=TokenBucket::MAX_BURST) {
            let bucket = TokenBucket { rate, burst };
            prop_assert_eq!(read(&told(bucket, |_| {})).unwrap(), (7, Some(bucket)));
        }
    }

    #[test]
    fn a_bucket_that_another_program_changed_is_another() {
        let bucket = TokenBucket { rate: 1_250_000, burst: 100_000 };
        let changed = |at: usize| read(&told(bucket, |parameters| parameters[at] ^= 0x80)).unwrap().1;
        for (what, at) in [("rate", 8), ("peak rate", RATESPEC + 8), ("limit", 2 * RATESPEC), ("burst", 2 * RATESPEC + 4)] {
            assert!(changed(at).is_some_and(|seen| seen != bucket), "{what}");
        }
    }

    #[test]
    fn an_operators_is_none_of_ours() {
        let mut bytes = told(TokenBucket { rate: 8_000, burst: 2_000 }, |_| {});
        bytes[8] ^= 1;
        assert_eq!(read(&bytes).unwrap(), (7, None));
    }
}
