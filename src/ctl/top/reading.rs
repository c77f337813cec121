//! What `top` asks the daemon, and what it makes of a daemon that does not answer.

use std::time::{Duration, Instant};

use jiff::Zoned;
use nicd_client::http::with_query;
use nicd_client::{Client, Error as ClientError, Events, Retry};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

use super::draw::{Agent, Picture};
use super::table::{Counters, Row, Rows};
use crate::ctl::failure::Failure;
use crate::ctl::names::Kind;
use crate::ctl::views::{Labels, duration, plain, short};

/// The most ports whose counters are read in a round.
const MOST_COUNTED: usize = 128;

/// How long a list is good without an event, in seconds: no event tells of a change of limits or names.
const LIST_AGE: Duration = Duration::from_secs(10);

/// How long a round may take, in seconds; a daemon that takes longer counts as gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is shown of a port.
const FIELDS: [(&str, &str); 9] = [
    ("fields", "id"),
    ("fields", "name"),
    ("fields", "device_id"),
    ("fields", "network_id"),
    ("fields", "status"),
    ("fields", "admin_state_up"),
    ("fields", "nicd:reason"),
    ("fields", "nicd:limits"),
    ("fields", "binding:vif_details"),
];

/// Reads ports and counters, round by round.
#[derive(Debug)]
pub struct Reader {
    client: Client,
    /// None while the daemon cannot be reached.
    stream: Option<Events>,
    rows: Rows,
    agent: Agent,
    /// When the ports were listed; none when they are to be listed again.
    listed: Option<Instant>,
    /// Which of the ports that are not seen was read last.
    turn: String,
    began: Instant,
}

impl Reader {
    /// Lists the ports for the first time.
    ///
    /// # Errors
    /// The daemon cannot be reached.
    pub async fn open(client: &Client) -> Result<Self, ClientError> {
        // What does not answer is told at once, and asked again in the next round.
        let client = client.clone().with_retry(Retry::NONE);
        let stream = Some(client.events().await?);
        let (rows, agent, turn) = (Rows::default(), Agent::default(), String::new());
        let mut reader = Self { client, stream, rows, agent, listed: None, turn, began: Instant::now() };
        reader.list().await?;
        Ok(reader)
    }

    /// Reads a round in each interval and shows it, without an end. `seen` has the ids on the screen.
    pub async fn work(&mut self, every: Duration, seen: watch::Receiver<Vec<String>>, shown: &watch::Sender<Picture>) {
        let mut rounds = interval(every);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.wait(&mut rounds).await;
            let seen = seen.borrow().clone();
            self.round(&seen).await;
            shown.send_replace(self.picture());
        }
    }

    /// Reads the counters of all ports, one after the other.
    ///
    /// # Errors
    /// The daemon cannot be reached any more.
    pub async fn count_all(&mut self) -> Result<(), ClientError> {
        let all = self.rows.next(&[], usize::MAX, &mut String::new());
        self.count(all).await
    }

    /// What was read so far.
    pub fn picture(&self) -> Picture {
        Picture { agent: self.agent.clone(), rows: self.rows.clone(), at: Some(Zoned::now()) }
    }

    /// Waits for the next round, and notes the events that come meanwhile.
    async fn wait(&mut self, rounds: &mut Interval) {
        loop {
            let event = async {
                match self.stream.as_mut() {
                    Some(stream) => stream.next().await.map(drop),
                    None => std::future::pending().await,
                }
            };
            let said: Result<(), ClientError> = tokio::select! {
                _ = rounds.tick() => return,
                said = event => said,
            };
            self.listed = None;
            if let Err(error) = said {
                self.lose(Failure::from(error).sentence());
            }
        }
    }

    async fn round(&mut self, seen: &[String]) {
        match timeout(PATIENCE, self.read(seen)).await {
            Ok(Ok(())) => self.agent.gone = None,
            Ok(Err(error)) => self.lose(Failure::from(error).sentence()),
            Err(_) => self.lose(format!("nothing was answered within {} s", PATIENCE.as_secs())),
        }
    }

    async fn read(&mut self, seen: &[String]) -> Result<(), ClientError> {
        if self.stream.is_none() {
            self.stream = Some(self.client.events().await?);
            self.listed = None;
        }
        if self.listed.is_none_or(|listed| listed.elapsed() > LIST_AGE) {
            self.list().await?;
        }
        let ids = self.rows.next(seen, MOST_COUNTED, &mut self.turn);
        self.count(ids).await
    }

    async fn list(&mut self) -> Result<(), ClientError> {
        let health: Value = self.client.get("/nicd/v1/health").await?;
        let listed: Value = self.client.get(&with_query(Kind::Port.collection(), &FIELDS)).await?;
        let labels = Labels::fetch(&self.client, &[Kind::Network, Kind::Server]).await?;
        let called = |id: &str| labels.get(id).unwrap_or(short(id)).to_owned();
        let rows = listed["ports"].as_array().into_iter().flatten().filter_map(|port| Row::of(port, called));
        self.agent = agent(&health);
        let fought: Vec<&(String, String)> =
            self.agent.problems.iter().filter(|(reason, _)| reason.starts_with("contested_")).collect();
        let rows = rows.map(|row| {
            let its = fought.iter().find(|(_, detail)| detail.contains(&row.id));
            Row { contested: its.map(|(reason, _)| reason.clone()).unwrap_or_default(), ..row }
        });
        self.rows.list(rows.collect());
        self.listed = Some(Instant::now());
        Ok(())
    }

    async fn count(&mut self, ids: Vec<String>) -> Result<(), ClientError> {
        for id in ids {
            match self.client.get::<Value>(&format!("/nicd/v1/ports/{id}/counters")).await {
                Ok(said) => self.rows.count(&id, self.began.elapsed(), Counters::of(&said)),
                // It is gone, or the kernel is busy with others: the next list and the next round show it.
                Err(ClientError::Refused(_)) => self.listed = None,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Notes that the daemon cannot be reached; the next round tries again.
    fn lose(&mut self, error: String) {
        self.stream = None;
        let since = self.agent.gone.take().map_or_else(|| Zoned::now().strftime("%H:%M:%S").to_string(), |(since, _)| since);
        self.agent.gone = Some((since, error));
    }
}

fn agent(health: &Value) -> Agent {
    let problems = health["problems"].as_array().into_iter().flatten();
    Agent {
        status: plain(&health["status"]),
        version: plain(&health["version"]),
        host: plain(&health["host"]),
        up: health["uptime_s"].as_u64().map(duration).unwrap_or_default(),
        problems: problems.map(|problem| (plain(&problem["reason"]), plain(&problem["detail"]))).collect(),
        gone: None,
    }
}
