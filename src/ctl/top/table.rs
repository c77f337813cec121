//! The rows of `top` and their order. Pure: times are handed in.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::ctl::views::plain;

/// What rows are sorted by.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// ERROR, then contested, then DOWN though the guest is not waited for, then dropping, then by rate.
    #[default]
    Trouble,
    /// What passes, both directions together.
    Rate,
    /// Dropped frames.
    Drops,
    /// The port's name.
    Name,
    /// The server's name.
    Server,
}

/// All keys, in the order in which a press of `s` takes them.
pub const KEYS: [Key; 5] = [Key::Trouble, Key::Rate, Key::Drops, Key::Name, Key::Server];

/// The order of the rows.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// By what.
    pub key: Key,
    /// From the last to the first.
    pub reversed: bool,
}

/// What passed and what was dropped, since the port was attached.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Counters {
    /// What the guest sent.
    pub from_guest: Passed,
    /// What the guest got.
    pub to_guest: Passed,
    /// Dropped frames, by reason.
    pub dropped: BTreeMap<String, u64>,
}

/// What passed in one direction.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What happens in a second.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub struct Rates {
    /// What the guest sends.
    pub from_guest: Rate,
    /// What the guest gets.
    pub to_guest: Rate,
    /// Dropped frames, by reason; reasons without any are left out.
    pub dropped: BTreeMap<String, f64>,
}

/// What passes in one direction in a second.
#[derive(Debug, Default, Clone, Copy, PartialEq, Serialize)]
pub struct Rate {
    /// Packets.
    pub packets: f64,
    /// Bits.
    pub bits: f64,
}

/// One attached port.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Its id.
    pub id: String,
    /// Its name, or the first digits of its id.
    pub name: String,
    /// Its server's name.
    pub server: String,
    /// Its network's name.
    pub network: String,
    /// Its link on the host.
    pub device: String,
    /// Its status.
    pub status: String,
    /// The daemon's word for why it has it.
    pub reason: String,
    /// The daemon's word, if another program keeps changing it.
    pub contested: String,
    /// What it sends at most, in kbit/s.
    pub limit_from_guest: Option<u64>,
    /// What it gets at most, in kbit/s.
    pub limit_to_guest: Option<u64>,
    /// Whether it is set down by its record.
    #[serde(skip)]
    pub set_down: bool,
    /// Dropped frames since it was attached, once they were read.
    pub dropped: Option<u64>,
    /// None until its counters were read twice.
    pub rates: Option<Rates>,
}

/// All attached ports.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Rows {
    rows: BTreeMap<String, Row>,
    /// The counters last read, with their time.
    read: BTreeMap<String, (Duration, Counters)>,
}

impl Counters {
    /// As the daemon says them.
    pub fn of(said: &Value) -> Self {
        let passed = |direction: &str| Passed {
            packets: said[direction]["packets"].as_u64().unwrap_or_default(),
            bytes: said[direction]["bytes"].as_u64().unwrap_or_default(),
        };
        let dropped = said["dropped"].as_object().into_iter().flatten();
        Self {
            from_guest: passed("from_guest"),
            to_guest: passed("to_guest"),
            dropped: dropped.filter_map(|(reason, frames)| Some((reason.clone(), frames.as_u64()?))).collect(),
        }
    }
}

impl Rates {
    /// What happened between two readings; none where the later one is of another attachment, or at the same time.
    pub fn between(before: &Counters, now: &Counters, time: Duration) -> Option<Self> {
        let seconds = time.as_secs_f64();
        if seconds <= 0.0 {
            return None;
        }
        let per_second = |before: u64, now: u64| now.checked_sub(before).map(|more| more as f64 / seconds);
        let rate = |before: Passed, now: Passed| {
            Some(Rate { packets: per_second(before.packets, now.packets)?, bits: per_second(before.bytes, now.bytes)? * 8.0 })
        };
        let mut dropped = BTreeMap::new();
        for (reason, frames) in &now.dropped {
            let more = per_second(before.dropped.get(reason).copied().unwrap_or_default(), *frames)?;
            if more > 0.0 {
                dropped.insert(reason.clone(), more);
            }
        }
        let [from_guest, to_guest] = [rate(before.from_guest, now.from_guest)?, rate(before.to_guest, now.to_guest)?];
        Some(Self { from_guest, to_guest, dropped })
    }

    /// Bits in a second, both directions together.
    pub fn bits(&self) -> f64 {
        self.from_guest.bits + self.to_guest.bits
    }

    /// Dropped frames in a second.
    pub fn drops(&self) -> f64 {
        // The sum of nothing is -0.
        self.dropped.values().sum::<f64>() + 0.0
    }
}

impl Row {
    /// An attached port as the daemon shows it; none for one that no server has. `called` gives the names of servers and networks.
    pub fn of(port: &Value, called: impl Fn(&str) -> String) -> Option<Self> {
        let server = port["device_id"].as_str().filter(|id| !id.is_empty())?;
        let id = port["id"].as_str()?.to_owned();
        let limit = |direction: &str| port["nicd:limits"][direction]["rate_kbps"].as_u64();
        let name = plain(&port["name"]);
        Some(Self {
            name: if name.is_empty() { called(&id) } else { name },
            server: called(server),
            network: called(port["network_id"].as_str().unwrap_or_default()),
            device: plain(&port["binding:vif_details"]["device"]),
            status: plain(&port["status"]),
            reason: plain(&port["nicd:reason"]),
            limit_from_guest: limit("from_guest"),
            limit_to_guest: limit("to_guest"),
            set_down: port["admin_state_up"] == false,
            id,
            ..Self::default()
        })
    }

    /// Dropped frames in a second, as far as known.
    pub fn drops(&self) -> f64 {
        self.rates.as_ref().map_or(0.0, Rates::drops)
    }

    fn bits(&self) -> f64 {
        self.rates.as_ref().map_or(0.0, Rates::bits)
    }

    /// 0 is the worst.
    fn trouble(&self) -> u8 {
        match () {
            () if self.status == "ERROR" => 0,
            () if !self.contested.is_empty() => 1,
            () if self.is_down() => 2,
            () if self.drops() > 0.0 => 3,
            () => 4,
        }
    }

    /// Whether it is DOWN for a reason that is neither its record's nor that its guest is not there yet.
    fn is_down(&self) -> bool {
        self.status == "DOWN" && !self.set_down && !["", "admin_down", "no_carrier"].contains(&self.reason.as_str())
    }

    /// What is wrong with it, in the daemon's words.
    pub fn why(&self) -> String {
        let mut words = Vec::new();
        if self.status != "ACTIVE" && !self.reason.is_empty() {
            words.push(self.reason.clone());
        }
        if !self.contested.is_empty() && self.contested != self.reason {
            words.push(self.contested.clone());
        }
        let mut reasons: Vec<(&String, &f64)> = self.rates.iter().flat_map(|rates| &rates.dropped).collect();
        reasons.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        if !reasons.is_empty() {
            let reasons: Vec<&str> = reasons.into_iter().map(|(reason, _)| reason.as_str()).collect();
            words.push(format!("drops {}", reasons.join(", ")));
        }
        words.join("; ")
    }

    fn compare(&self, other: &Self, key: Key) -> Ordering {
        let by_rate = || other.bits().total_cmp(&self.bits());
        let by_status = || (self.status == "ACTIVE").cmp(&(other.status == "ACTIVE"));
        let by_name = || (&self.name, &self.id).cmp(&(&other.name, &other.id));
        let first = match key {
            Key::Trouble => self.trouble().cmp(&other.trouble()).then_with(by_rate).then_with(by_status),
            Key::Rate => by_rate(),
            Key::Drops => other.drops().total_cmp(&self.drops()),
            Key::Name => Ordering::Equal,
            Key::Server => self.server.cmp(&other.server),
        };
        first.then_with(by_name)
    }
}

impl Rows {
    /// Takes what was listed: ports that are gone go, the others keep what was counted.
    pub fn list(&mut self, listed: Vec<Row>) {
        let mut before = std::mem::take(&mut self.rows);
        for mut row in listed {
            if let Some(known) = before.remove(&row.id) {
                (row.dropped, row.rates) = (known.dropped, known.rates);
            }
            self.rows.insert(row.id.clone(), row);
        }
        self.read.retain(|id, _| self.rows.contains_key(id));
    }

    /// Takes a port's counters, read at this time.
    pub fn count(&mut self, id: &str, at: Duration, now: Counters) {
        let Some(row) = self.rows.get_mut(id) else { return };
        row.dropped = Some(now.dropped.values().sum());
        let before = self.read.get(id);
        row.rates = before.and_then(|(then, before)| Rates::between(before, &now, at.saturating_sub(*then)));
        self.read.insert(id.to_owned(), (at, now));
    }

    /// The rows in this order.
    pub fn sorted(&self, order: Order) -> Vec<&Row> {
        let mut rows: Vec<&Row> = self.rows.values().collect();
        rows.sort_by(|one, other| {
            let by_key = one.compare(other, order.key);
            if order.reversed { by_key.reverse() } else { by_key }
        });
        rows
    }

    /// The ids to read the counters of in a round: those that are seen, then others after the last one that was read in turn, `most`
    /// in all. Which was the last is noted in `turn`.
    pub fn next(&self, seen: &[String], most: usize, turn: &mut String) -> Vec<String> {
        let mut ids: Vec<String> = seen.iter().filter(|id| self.rows.contains_key(*id)).take(most).cloned().collect();
        let after = self.rows.range::<str, _>((std::ops::Bound::Excluded(turn.as_str()), std::ops::Bound::Unbounded));
        let others = after.chain(self.rows.iter()).map(|(id, _)| id).take(self.rows.len());
        let others: Vec<String> = others.filter(|id| !seen.contains(id)).take(most.saturating_sub(ids.len())).cloned().collect();
        if let Some(last) = others.last() {
            turn.clone_from(last);
        }
        ids.extend(others);
        ids
    }

    /// How many there are.
    pub fn number(&self) -> usize {
        self.rows.len()
    }

    /// What is dropped and passes in a second, of all ports together.
    pub fn sum(&self) -> Rates {
        let mut sum = Rates::default();
        for rates in self.rows.values().filter_map(|row| row.rates.as_ref()) {
            for (all, one) in [(&mut sum.from_guest, rates.from_guest), (&mut sum.to_guest, rates.to_guest)] {
                all.packets += one.packets;
                all.bits += one.bits;
            }
            for (reason, frames) in &rates.dropped {
                *sum.dropped.entry(reason.clone()).or_default() += frames;
            }
        }
        sum
    }

    /// How many ports have each status.
    pub fn statuses(&self) -> BTreeMap<&str, usize> {
        let mut statuses = BTreeMap::new();
        for row in self.rows.values() {
            *statuses.entry(row.status.as_str()).or_default() += 1;
        }
        statuses
    }
}

impl Key {
    /// As `--sort` takes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trouble => "trouble",
            Self::Rate => "rate",
            Self::Drops => "drops",
            Self::Name => "name",
            Self::Server => "server",
        }
    }

    /// The one after it.
    pub fn next(self) -> Self {
        let place = KEYS.iter().position(|key| *key == self).unwrap_or_default();
        KEYS[(place + 1) % KEYS.len()]
    }
}

impl Order {
    /// As `--sort` is given; none if there is no such key.
    pub fn read(text: &str) -> Option<Self> {
        let (text, reversed) = text.strip_prefix('-').map_or((text, false), |text| (text, true));
        let key = KEYS.into_iter().find(|key| key.as_str().eq_ignore_ascii_case(text))?;
        Some(Self { key, reversed })
    }
}
