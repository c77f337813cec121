//! One attacker: sends, reads what comes back, and takes away again what was in truth valid and made something.

use std::collections::VecDeque;
use std::io::{BufReader, ErrorKind, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::Value;

use crate::answer::{Heard, hear, judge};
use crate::attack::{Attack, Pace, Want};
use crate::attacker::{Orders, Tally};
use crate::dice::Dice;
use crate::{content, framing};

/// Longer than any answer may take: the daemon's own limits are shorter.
const PATIENCE: Duration = Duration::from_secs(20);

/// Failures beyond these say nothing new.
const ENOUGH: usize = 50;

/// See the module.
#[derive(Debug)]
pub struct Hand<'a> {
    orders: &'a Orders,
    dice: Dice,
    kept: Option<BufReader<UnixStream>>,
    /// Paths of what was made.
    made: VecDeque<String>,
    tally: Tally,
}

impl<'a> Hand<'a> {
    pub fn new(orders: &'a Orders, number: u64) -> Self {
        let dice = Dice::new(orders.seed.wrapping_add(number.wrapping_mul(0x0001_0000_0001)));
        Self { orders, dice, kept: None, made: VecDeque::new(), tally: Tally::default() }
    }

    /// Attacks until all requests are made, and tells what came back.
    pub fn run(mut self) -> Tally {
        while self.orders.take().is_some() {
            let attack = self.choose();
            self.carry_out(&attack);
            self.clean_up();
        }
        self.tally
    }

    fn choose(&mut self) -> Attack {
        if let Some(key) = self.orders.key(&mut self.dice) {
            return content::keyed(&mut self.dice, key);
        }
        if self.dice.chance(50) { framing::any(&mut self.dice) } else { content::any(&mut self.dice) }
    }

    fn carry_out(&mut self, attack: &Attack) {
        let outcome = match attack.pace {
            Pace::Kept => self.ask(attack),
            Pace::Whole | Pace::Bytewise | Pace::Dropped => self.send(attack),
        };
        let Err(wrong) = outcome else { return };
        if self.tally.wrong.len() < ENOUGH {
            let start = String::from_utf8_lossy(&attack.bytes[..attack.bytes.len().min(600)]).into_owned();
            self.tally.wrong.push(format!("{}: {wrong}\n  {start:?}", attack.kind));
        }
    }

    fn connect(&mut self) -> Result<UnixStream, String> {
        let view = self.dice.chance(5);
        let path = if view { &self.orders.view } else { &self.orders.socket };
        let stream = UnixStream::connect(path).map_err(|error| format!("connect: {error}"))?;
        stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.set_write_timeout(Some(PATIENCE))).expect("timeouts");
        Ok(stream)
    }

    /// One request, one answer, on a connection that is kept.
    fn ask(&mut self, attack: &Attack) -> Result<(), String> {
        let mut stream = match self.kept.take() {
            Some(stream) => stream,
            None => BufReader::new(UnixStream::connect(&self.orders.socket).map_err(|error| format!("connect: {error}"))?),
        };
        stream.get_ref().set_read_timeout(Some(PATIENCE)).expect("a timeout");
        // The daemon may refuse and close before all is sent.
        let _ = stream.get_mut().write_all(&attack.bytes);
        let Some(heard) = self.heard(attack, &mut stream)? else {
            self.tally.count(attack.kind, 0);
            return Ok(());
        };
        if !heard.endless && heard.header("connection") != Some("close") {
            self.kept = Some(stream);
        }
        judge(&heard, attack.want, attack.is_head()).map_err(|wrong| wrong + &told(&heard))?;
        self.note_made(attack, &heard)
    }

    /// A connection for one attack, to its end.
    fn send(&mut self, attack: &Attack) -> Result<(), String> {
        let mut stream = self.connect()?;
        if attack.pace == Pace::Bytewise {
            let _ = attack.bytes.chunks(1).try_for_each(|byte| stream.write_all(byte));
        } else {
            let _ = stream.write_all(&attack.bytes);
        }
        if attack.pace == Pace::Dropped {
            self.tally.count(attack.kind, 0);
            return Ok(());
        }
        let _ = stream.shutdown(Shutdown::Write);
        let mut stream = BufReader::new(stream);
        let mut last = None;
        while let Some(heard) = self.heard(attack, &mut stream)? {
            let want = if attack.want == Want::RefusedAtLast { Want::Any } else { attack.want };
            judge(&heard, want, attack.is_head()).map_err(|wrong| wrong + &told(&heard))?;
            self.note_made(attack, &heard)?;
            // After a stream, and after an answer that says so, nothing is to come.
            let is_last = heard.endless || heard.header("connection") == Some("close");
            last = Some(heard);
            if is_last {
                break;
            }
        }
        if last.is_none() {
            self.tally.count(attack.kind, 0);
        }
        match last {
            Some(heard) if attack.want == Want::RefusedAtLast && heard.status < 400 => Err("accepted".to_owned() + &told(&heard)),
            _ => Ok(()),
        }
    }

    /// The next answer; none when the connection was closed, which an attacker must expect.
    fn heard(&mut self, attack: &Attack, stream: &mut BufReader<UnixStream>) -> Result<Option<Heard>, String> {
        match hear(stream, attack.is_head()) {
            Ok(Some(heard)) => {
                self.tally.count(attack.kind, heard.status);
                Ok(Some(heard))
            }
            Ok(None) => Ok(None),
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => Ok(None),
            Err(error) => Err(format!("reading: {error}")),
        }
    }

    /// Remembers what a request made, and compares a stored name with the one sent.
    fn note_made(&mut self, attack: &Attack, heard: &Heard) -> Result<(), String> {
        if !matches!(heard.status, 200 | 201) || attack.bytes.starts_with(b"GET") {
            return Ok(());
        }
        let answer = heard.json();
        for (one, many) in [("network", "networks"), ("subnet", "subnets"), ("port", "ports")] {
            let several = answer[many].as_array().cloned().unwrap_or_default();
            let ids = several.iter().chain([&answer[one]]).filter_map(|thing| thing["id"].as_str());
            self.made.extend(ids.filter(|id| !is_shared(id)).map(|id| format!("/v2.0/{many}/{id}")));
        }
        if let Some(id) = answer["interfaceAttachment"]["port_id"].as_str() {
            self.made.push_back(format!("/v2.0/ports/{id}"));
        }
        if let Some(id) = answer["server"]["id"].as_str().filter(|id| !is_shared(id)) {
            self.made.push_back(format!("/nicd/v1/servers/{id}?detach=true"));
        }
        let sent = (attack.kind == "names").then(|| body(attack)).flatten().unwrap_or_default();
        let differs = |key: &str| !sent["network"][key].is_null() && sent["network"][key] != answer["network"][key];
        if ["name", "description", "provider:physical_network"].into_iter().any(differs) {
            return Err("what came back is not what was stored".to_owned() + &told(heard));
        }
        Ok(())
    }

    /// Deletes one of the things made; one still in use is tried again later.
    fn clean_up(&mut self) {
        let Some(path) = self.made.pop_front() else { return };
        let delete = Attack::request("clean-up", "DELETE", &path, &[], b"", Want::Any);
        let in_use = |tally: &Tally| tally.answers.get(&("clean-up", 409)).copied().unwrap_or_default();
        let before = in_use(&self.tally);
        self.carry_out(&delete);
        if in_use(&self.tally) > before {
            self.made.push_back(path);
        }
    }
}

fn body(attack: &Attack) -> Option<Value> {
    let at = attack.bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    serde_json::from_slice(&attack.bytes[at + 4..]).ok()
}

/// Whether an id is one of the few that attackers share; those stay.
fn is_shared(id: &str) -> bool {
    id.starts_with("0bad0bad-0bad-4bad-8000-00000000000")
}

fn told(heard: &Heard) -> String {
    let body = String::from_utf8_lossy(&heard.body[..heard.body.len().min(600)]).into_owned();
    format!("\n  {} {:?} {body}", heard.status, heard.headers)
}
