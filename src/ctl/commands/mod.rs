//! What each command does, one file to a noun: resolve names, make the calls, print the answer.

mod agent;
mod doctor;
mod graph;
mod group;
mod host;
mod network;
mod nic;
mod port;
mod server;
mod subnet;
#[cfg(test)]
mod tests;
mod top;
mod trunk;
mod watch;

use std::cell::RefCell;

use serde_json::{Map, Value};
use uuid::Uuid;

use agent::Leftovers;

use super::args::{Command, Format};
use super::client::Client;
use super::failure::Failure;
use super::names::{self, Kind};
use super::out::Out;
use super::table::{Table, harmless};
use super::views::{Labels, View, Width};
use super::wording;

/// A daemon to ask and somewhere to print.
pub struct Session {
    /// The daemon.
    pub client: Client,
    /// Where answers go.
    pub out: Out,
    /// What ids were called on the command line, for errors.
    pub called: RefCell<Vec<(Uuid, String)>>,
}

/// Runs the command; a person at a terminal sees what takes long.
pub async fn run(session: &mut Session, command: Command) -> Result<(), Failure> {
    let progress = session.out.progress().clone();
    progress.say(match &command {
        // They print as things happen, and need no line.
        Command::Watch { .. } | Command::Top { once: false, .. } => return perform(session, command).await,
        Command::Attach(_) => "attaching",
        Command::Detach(_) => "detaching",
        Command::Gc { apply: true, .. } => "deleting what is left over",
        Command::Gc { .. } | Command::Verify => "comparing records with the kernel",
        Command::Top { .. } => "counting",
        _ => "waiting for nicd",
    });
    progress.beside(perform(session, command)).await
}

async fn perform(session: &mut Session, command: Command) -> Result<(), Failure> {
    match command {
        Command::Network(command) => network::run(session, command).await,
        Command::Subnet(command) => subnet::run(session, command).await,
        Command::Group(command) => group::run(session, command).await,
        Command::Rule(command) => group::run_rule(session, command).await,
        Command::Server(command) => server::run(session, command).await,
        Command::Port(command) => port::run(session, command).await,
        Command::Trunk(command) => trunk::run(session, command).await,
        Command::Host(command) => host::run(session, command).await,
        Command::Fleet(command) => host::fleet(session, command).await,
        Command::Attach(attach) => nic::attach(session, attach).await,
        Command::Detach(detach) => nic::detach(session, detach).await,
        Command::Plan(planned) => nic::plan(session, planned).await,
        Command::List { server } => port::list(session, None, server.as_deref()).await,
        Command::Show { port } => port::show_counted(session, &port).await,
        Command::Watch { json } => watch::run(session, if json { Format::Json } else { session.out.format() }).await,
        Command::Explain { port } => agent::explain(session, &port).await,
        Command::Counters { port } => agent::counters(session, &port).await,
        Command::Leases { port } => agent::leases(session, port.as_deref()).await,
        Command::Verify => agent::verify(session).await,
        Command::Gc { apply: true, store } => agent::gc(session, Leftovers::Remove, store).await,
        Command::Gc { apply: false, store } => agent::gc(session, Leftovers::List, store).await,
        Command::Graph { format, network } => graph::draw(session, format, network.as_deref()).await,
        Command::Doctor => doctor::run(session).await,
        Command::Top { once, interval } => top::run(session, once, interval.0).await,
        Command::Status => agent::status(session).await,
        Command::Version => agent::version(session).await,
        // It needs no daemon, so it runs before the session is opened.
        Command::Completion { .. } | Command::Manual { .. } => Ok(()),
    }
}

impl Session {
    /// A session with nothing asked yet.
    pub fn new(client: Client, out: Out) -> Self {
        Self { client, out, called: RefCell::default() }
    }

    /// The id of what `text` stands for.
    async fn id_of(&self, kind: Kind, text: &str) -> Result<Uuid, Failure> {
        let id = names::resolve(&self.client, kind, text).await?;
        self.note(id, text);
        Ok(id)
    }

    /// Notes what an id was called, so that an error says it so.
    fn note(&self, id: Uuid, text: &str) {
        self.called.borrow_mut().push((id, text.to_owned()));
    }

    /// A failure in one sentence, with names as they were typed and without words of HTTP.
    pub fn sentence(&self, failure: &Failure) -> String {
        let called = self.called.borrow();
        let sentence = wording::of_commands(&failure.sentence());
        let typed = called.iter().map(|(id, text)| (id.to_string(), harmless(text)));
        typed.fold(sentence, |sentence, (id, text)| sentence.replace(&id, &text))
    }

    /// Prints a list: the objects themselves, or a table of them.
    async fn print_list(&mut self, view: &View, objects: Vec<Value>) -> Result<(), Failure> {
        let width = match self.out.format() {
            Format::Json | Format::Yaml => return self.out.object(&Value::Array(objects)),
            Format::Table => Width::Narrow,
            Format::Wide | Format::Csv | Format::Value => Width::Wide,
        };
        let listing = self.out.listing();
        let columns = view.chosen(&listing.columns, width)?;
        let order = view.order(listing.sort.as_deref())?;
        let labels = Labels::fetch(&self.client, &view.kinds(columns.iter().chain(order.column()))).await?;
        let table = View::list(&columns, order, objects, &labels, width);
        self.out.list(table)
    }

    /// Prints one object: itself, or all that is known of it, a line to each.
    async fn print_one(&mut self, view: &View, object: &Value) -> Result<(), Failure> {
        self.print_with(view, object, None).await
    }

    /// The same, with a table below it for people.
    async fn print_with(&mut self, view: &View, object: &Value, below: Option<Table>) -> Result<(), Failure> {
        if self.out.format().is_objects() {
            return self.out.object(object);
        }
        let columns = view.chosen(&self.out.listing().columns, Width::Full)?;
        let labels = Labels::fetch(&self.client, &view.kinds(&columns)).await?;
        let tables: Vec<Table> = std::iter::once(View::detail(&columns, object, &labels)).chain(below).collect();
        self.out.tables(tables)
    }
}

/// A JSON object of the members that have a value; what was not asked for is left to the daemon, not sent as null.
fn members<const N: usize>(pairs: [(&str, Option<Value>); N]) -> Map<String, Value> {
    pairs.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
}

/// A switch of two flags, if either is given.
fn switch(on: bool, off: bool) -> Option<Value> {
    (on || off).then_some(Value::Bool(on))
}

/// The query of a removal, by force or not.
fn forced(force: bool) -> Vec<(&'static str, &'static str)> {
    force.then_some(("force", "true")).into_iter().collect()
}

/// An array to send, unless it is empty.
fn unless_empty(items: Vec<Value>) -> Option<Value> {
    (!items.is_empty()).then_some(Value::Array(items))
}
