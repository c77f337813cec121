//! Frames of any content: no codec panics on one, recurses without bound, or answers it wrongly. They are made of those in
//! `corpus/<codec>`, each in hexadecimal. Another codec is one more entry of [`CODECS`] with a reference of its own.
//!
//! `NICD_FUZZ=600` goes on for so many seconds instead of one a codec, `NICD_SEED` repeats a run.

mod dhcp4;
mod dhcp6;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::dice::Dice;

/// A codec under test.
struct Codec {
    /// Its corpus.
    name: &'static str,
    /// Has a frame answered, and judges that by a reading of its own; whether it was answered.
    check: fn(&[u8]) -> bool,
    /// Sets lengths and checksums right, so that what is behind them is looked at.
    mend: fn(&mut [u8]),
    /// Makes an option.
    option: fn(&mut Dice) -> Vec<u8>,
}

const CODECS: [Codec; 2] = [
    Codec { name: "dhcp4", check: dhcp4::check, mend: dhcp4::mend, option: dhcp4::option },
    Codec { name: "dhcp6", check: dhcp6::check, mend: dhcp6::mend, option: dhcp6::option },
];

/// The longest frame: a jumbo frame with a tag.
const LONGEST: usize = 9_018;

/// Little: what recurses with its input's length ends here.
const STACK: usize = 256 << 10;

#[test]
fn no_frame_is_answered_wrongly_or_ends_the_responder() {
    let seed = std::env::var("NICD_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random::<u64>);
    let limit = std::env::var("NICD_FUZZ").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(1);
    for codec in CODECS {
        let run = move || fuzz(&codec, Duration::from_secs(limit), seed);
        let ended = std::thread::Builder::new().stack_size(STACK).spawn(run).unwrap().join();
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
}

fn fuzz(codec: &Codec, limit: Duration, seed: u64) {
    let corpus = corpus(codec.name);
    for frame in &corpus {
        (codec.check)(frame);
        (0..frame.len()).for_each(|length| _ = (codec.check)(&frame[..length]));
    }
    let (mut dice, began, mut frames, mut answered) = (Dice::new(seed), Instant::now(), 0_u64, 0_u64);
    while began.elapsed() < limit {
        for _ in 0..100 {
            let mut frame = mutated(&mut dice, &corpus, codec.option);
            if dice.chance(85) {
                (codec.mend)(&mut frame);
            }
            let checked = std::panic::catch_unwind(|| (codec.check)(&frame));
            frames += 1;
            answered += u64::from(checked.unwrap_or_else(|panic| {
                let octets: String = frame.iter().map(|octet| format!("{octet:02x}")).collect();
                eprintln!("NICD_SEED={seed}, {}: {octets}", codec.name);
                std::panic::resume_unwind(panic)
            }));
        }
    }
    eprintln!("NICD_SEED={seed}: {frames} frames of {}, {answered} answered", codec.name);
    assert!(answered > frames / 20, "{answered} of {frames} were answered");
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/leases/corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let octets = |text: String| {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
    };
    files.iter().map(|file| octets(fs::read_to_string(file).unwrap())).collect()
}

/// The sum of RFC 1071, which is 0xffff over what has its checksum in it.
fn sum(octets: &[u8]) -> u64 {
    let mut sum: u64 = octets.chunks(2).map(|two| u64::from(two[0]) << 8 | u64::from(*two.get(1).unwrap_or(&0))).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

/// Octets that say much.
const VALUES: [u8; 12] = [0, 1, 2, 3, 4, 6, 50, 52, 53, 54, 127, 255];

/// A frame made of others.
fn mutated(dice: &mut Dice, corpus: &[Vec<u8>], option: fn(&mut Dice) -> Vec<u8>) -> Vec<u8> {
    let mut frame = dice.of(corpus);
    for _ in 0..dice.below(6) {
        let end = frame.len() + 1;
        // Most of what matters is not behind the first 350 octets.
        let at = if dice.chance(80) { dice.below(end.min(350)) } else { dice.below(end) };
        let length = dice.below(40);
        match dice.below(7) {
            0 => frame.truncate(at),
            1 => frame.splice(at..at, dice.bytes(length)).for_each(drop),
            2 => frame.splice(at..at, option(dice)).for_each(drop),
            3 => {
                let other = dice.of(corpus);
                let from = dice.below(other.len() + 1);
                frame.truncate(at);
                frame.extend(&other[from..]);
            }
            4 => {
                let again = frame[at..].to_vec();
                (0..dice.below(30)).for_each(|_| frame.extend(&again));
            }
            5 => frame.get_mut(at).into_iter().for_each(|octet| *octet ^= 1 << dice.below(8)),
            _ => frame.get_mut(at).into_iter().for_each(|octet| *octet = dice.of(&VALUES)),
        }
    }
    frame.truncate(LONGEST);
    frame
}
