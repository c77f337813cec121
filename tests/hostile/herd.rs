//! Thousands of connections that ask for nothing, for half of something, or for events that nobody reads.

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use crate::attacker::Orders;
use crate::dice::Dice;

/// How many are held open from here, whatever the daemon thinks of them.
pub const HERD: usize = 5_000;

/// Between two that are replaced.
const PACE: Duration = Duration::from_millis(5);

/// Opens all, and replaces one after the other until it is killed.
pub fn keep(orders: &Orders) -> ! {
    let mut dice = Dice::new(orders.seed ^ 0x4845_5244);
    let mut herd: Vec<UnixStream> = Vec::with_capacity(HERD);
    loop {
        let Ok(stream) = UnixStream::connect(if dice.chance(10) { &orders.view } else { &orders.socket }) else { continue };
        say(&stream, &mut dice);
        if herd.len() < HERD {
            herd.push(stream);
        } else {
            let at = dice.below(HERD);
            herd[at] = stream;
            thread::sleep(PACE);
        }
    }
}

/// What one of them says, if anything.
fn say(mut stream: &UnixStream, dice: &mut Dice) {
    let words: &[u8] = match dice.below(10) {
        0..6 => b"",
        6 => b"GET /nicd/v1/hea",
        7 => b"POST /v2.0/ports HTTP/1.1\r\nContent-Length: 60000\r\n\r\n{\"port\"",
        8 => b"GET /nicd/v1/events HTTP/1.1\r\nHost: a\r\nLast-Event-ID: 1\r\n\r\n",
        _ => b"GET /v2.0/ports HTTP/1.1\r\nHost: a\r\n\r\n",
    };
    let _ = stream.write_all(words);
    if dice.chance(10) {
        let _ = stream.shutdown(Shutdown::Write);
    }
}
