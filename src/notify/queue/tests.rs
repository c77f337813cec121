use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::model::notice::{NovaFact, NovaState};
use crate::model::{ServerId, Status};

fn key(port: u128, server: u128) -> NoticeKey {
    NoticeKey { port_id: PortId(Uuid::from_u128(port)), server_id: Some(ServerId(Uuid::from_u128(server))) }
}

fn fact(state: NovaState) -> NovaFact {
    NovaFact { state, nic: "fa:16:3e:00:00:01 192.0.2.1".into() }
}

fn time(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn seen(about: NoticeKey, fact: NovaFact, last: bool, number: i64) -> Seen<NovaFact> {
    let occasion = Occasion { at: time(number), seq: number.unsigned_abs(), request_id: None };
    Seen { about, fact, last, occasion, id: Uuid::from_u128(number.unsigned_abs().into()), now: time(number) }
}

fn states(batch: &[Sending<NovaFact>]) -> Vec<NovaState> {
    batch.iter().map(|sent| sent.notice.wanted.state).collect()
}

/// What a start would find.
fn stored(queue: &mut Queue<NovaFact>, store: &mut BTreeMap<NoticeKey, Notice<NovaFact>>) {
    for save in queue.unsaved(usize::MAX) {
        match save {
            Save::Put(notice) => _ = store.insert(notice.about, notice),
            Save::Forget(key) => _ = store.remove(&key),
        }
    }
}

#[test]
fn what_waits_is_replaced_and_what_is_undone_before_it_was_sent_is_not_told() {
    let (mut queue, now) = (Queue::new(vec![], LIMIT), Instant::now());
    queue.observe(seen(key(1, 1), fact(NovaState::Nothing), false, 1));
    assert_eq!((queue.len(), queue.due(now)), (0, None), "an attached port that is DOWN is nothing to tell");
    queue.observe(seen(key(1, 1), fact(NovaState::Plugged), false, 2));
    let batch = queue.batch(10, now);
    assert_eq!(states(&batch), [NovaState::Plugged]);
    queue.ended(&batch[0], Outcome::Accepted);
    for (number, state) in (3..).zip([NovaState::Unplugged, NovaState::Plugged, NovaState::Unplugged, NovaState::Plugged]) {
        queue.observe(seen(key(1, 1), fact(state), false, number));
    }
    assert_eq!(queue.batch(10, now), vec![], "Nova knows that it is plugged");
    queue.observe(seen(key(1, 1), fact(NovaState::Unplugged), false, 7));
    queue.observe(seen(key(1, 1), fact(NovaState::Deleted), true, 8));
    assert_eq!(states(&queue.batch(10, now)), [NovaState::Deleted], "the deletion says all");
}

#[test]
fn after_an_attempt_without_an_answer_the_last_state_is_told_whatever_it_is() {
    let (mut queue, now) = (Queue::new(vec![], LIMIT), Instant::now());
    queue.observe(seen(key(1, 1), fact(NovaState::Plugged), false, 1));
    let batch = queue.batch(10, now);
    queue.ended(&batch[0], Outcome::Accepted);
    queue.observe(seen(key(1, 1), fact(NovaState::Unplugged), false, 2));
    let lost = queue.batch(10, now);
    queue.observe(seen(key(1, 1), fact(NovaState::Plugged), false, 3));
    assert_eq!(queue.batch(10, now), vec![], "of each notice one thing is under way at a time");
    queue.ended(&lost[0], Outcome::Unknown);
    queue.postpone(&lost[0], now + Duration::from_secs(9));
    assert_eq!(states(&queue.batch(10, now)), [NovaState::Plugged], "something new is not put off");
}

#[test]
fn an_address_that_may_have_been_told_is_told_again_when_the_port_has_its_old_one() {
    let (mut queue, now) = (Queue::new(vec![], LIMIT), Instant::now());
    let with = |nic: &str| NovaFact { state: NovaState::Plugged, nic: nic.to_owned() };
    queue.observe(seen(key(1, 1), with("a"), false, 1));
    let batch = queue.batch(10, now);
    queue.ended(&batch[0], Outcome::Accepted);
    queue.observe(seen(key(1, 1), with("b"), false, 2));
    let batch = queue.batch(10, now);
    assert_eq!(batch[0].notice.known, Some(with("a")));
    queue.ended(&batch[0], Outcome::NotAccepted);
    let batch = queue.batch(10, now);
    assert_eq!(batch[0].notice.known, Some(with("a")), "it was not told");
    queue.ended(&batch[0], Outcome::Unknown);
    queue.observe(seen(key(1, 1), with("a"), false, 3));
    assert_eq!(queue.batch(10, now)[0].notice.known, Some(with("")));
}

#[test]
fn what_is_put_off_waits_for_its_time_and_holds_nothing_up() {
    let (mut queue, now) = (Queue::new(vec![], LIMIT), Instant::now());
    for port in 1..=3 {
        queue.observe(seen(key(port, 1), fact(NovaState::Plugged), false, 1));
    }
    let batch = queue.batch(1, now);
    queue.ended(&batch[0], Outcome::Unknown);
    let later = now + Duration::from_secs(5);
    queue.postpone(&batch[0], later);
    let rest = queue.batch(10, now);
    assert_eq!(rest.len(), 2);
    rest.iter().for_each(|sent| queue.ended(sent, Outcome::Accepted));
    assert_eq!((queue.due(now), queue.oldest(), queue.len()), (Some(later), None, 1));
    let again = queue.batch(10, later);
    assert_eq!((again.len(), again[0].tries, again[0].notice.id), (1, 1, batch[0].notice.id));
}

#[test]
fn only_so_many_that_nothing_can_follow_are_kept_and_the_oldest_is_lost() {
    let (mut queue, now) = (Queue::new(vec![], 3), Instant::now());
    let lost: Vec<_> = (1..=5)
        .filter_map(|port| queue.observe(seen(key(port.try_into().unwrap(), 1), fact(NovaState::Deleted), true, port)))
        .collect();
    assert_eq!(lost.iter().map(|notice| notice.about).collect::<Vec<_>>(), [key(1, 1), key(2, 1)]);
    for port in 6..=20 {
        assert_eq!(queue.observe(seen(key(port, 1), fact(NovaState::Plugged), false, 9)), None, "ports that exist have room");
    }
    assert_eq!(queue.batch(100, now).len(), 18);
}

#[derive(Debug, Clone)]
enum Step {
    Status(u128, u128, Status),
    Address(u128, u128, u8),
    Ended(u128, u128, bool),
    Send(usize),
    /// What becomes of all that is under way: accepted; arrived without an answer; did not arrive; not accepted.
    Answer(u8),
    /// The process is killed, and begins with what was last written.
    Crash,
    Write,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let status = prop_oneof![Just(Status::Active), Just(Status::Down), Just(Status::Build), Just(Status::Error)];
    let (port, server) = (1..3_u128, 1..3_u128);
    let step = prop_oneof![
        4 => (port.clone(), server.clone(), status).prop_map(|(port, server, status)| Step::Status(port, server, status)),
        1 => (port.clone(), server.clone(), 0..3_u8).prop_map(|(port, server, nic)| Step::Address(port, server, nic)),
        1 => (port, server, any::<bool>()).prop_map(|(port, server, deleted)| Step::Ended(port, server, deleted)),
        2 => (1..4_usize).prop_map(Step::Send),
        2 => (0..4_u8).prop_map(Step::Answer),
        1 => Just(Step::Crash),
        2 => Just(Step::Write),
    ];
    proptest::collection::vec(step, 1..60)
}

/// A port as it is: the fact about it, and whether its notice ends with it.
type Ports = BTreeMap<NoticeKey, (NovaFact, bool)>;

proptest! {
    /// However sending fails and whenever the process is killed, the recipient knows in the end what holds, and the queue and the
    /// store keep nothing of what is over.
    #[test]
    fn the_recipient_knows_the_last_state_in_the_end(steps in steps()) {
        let (mut queue, now) = (Queue::new(vec![], LIMIT), Instant::now());
        let (mut ports, mut heard, mut store) = (Ports::new(), BTreeMap::<NoticeKey, NovaFact>::new(), BTreeMap::new());
        let (mut under_way, mut number) = (Vec::new(), 0);
        let observe = |queue: &mut Queue<NovaFact>, ports: &Ports, key: NoticeKey, number: i64| {
            let (fact, last) = ports[&key].clone();
            queue.observe(seen(key, fact, last, number));
        };
        for step in steps {
            number += 1;
            match step {
                Step::Status(port, server, status) => {
                    let key = key(port, server);
                    let (before, _) = ports.get(&key).cloned().unwrap_or((fact(NovaState::Nothing), false));
                    ports.insert(key, (NovaFact { state: before.state.after(status), ..before }, false));
                    observe(&mut queue, &ports, key, number);
                }
                Step::Address(port, server, nic) => {
                    if let Some((fact, _)) = ports.get_mut(&key(port, server)) {
                        fact.nic = nic.to_string();
                        observe(&mut queue, &ports, key(port, server), number);
                    }
                }
                Step::Ended(port, server, deleted) => {
                    if let Some((fact, last)) = ports.get_mut(&key(port, server)) {
                        fact.state = if deleted { NovaState::Deleted } else { fact.state.after(Status::Down) };
                        *last = true;
                        observe(&mut queue, &ports, key(port, server), number);
                    }
                }
                Step::Send(most) => {
                    let batch = queue.batch(most, now);
                    // As the courier does: what is sent is durable before.
                    stored(&mut queue, &mut store);
                    under_way.extend(batch);
                }
                Step::Answer(kind) => {
                    for sent in under_way.drain(..) {
                        if kind < 2 {
                            heard.insert(sent.notice.about, sent.notice.wanted.clone());
                        }
                        let outcomes = [Outcome::Accepted, Outcome::Unknown, Outcome::Unknown, Outcome::NotAccepted];
                        queue.ended(&sent, outcomes[usize::from(kind)]);
                    }
                }
                Step::Write => stored(&mut queue, &mut store),
                Step::Crash => {
                    // What is under way may have arrived.
                    under_way.drain(..).for_each(|sent| _ = heard.insert(sent.notice.about, sent.notice.wanted));
                    queue = Queue::new(store.values().cloned().collect(), LIMIT);
                    // A start compares: ports with notices, and notices with ports.
                    for key in ports.keys().copied().collect::<Vec<_>>() {
                        number += 1;
                        observe(&mut queue, &ports, key, number);
                    }
                }
            }
            prop_assert!(queue.sending.len() == under_way.len());
            // A port that is over and comes back is a new one: what was said of the silent one that was there is not held against it.
            heard.retain(|key, fact| queue.entries.contains_key(key) || fact.state != NovaState::Nothing);
        }
        under_way.drain(..).for_each(|sent| queue.ended(&sent, Outcome::Unknown));
        loop {
            let batch = queue.batch(2, now);
            if batch.is_empty() {
                break;
            }
            for sent in batch {
                heard.insert(sent.notice.about, sent.notice.wanted.clone());
                queue.ended(&sent, Outcome::Accepted);
            }
        }
        stored(&mut queue, &mut store);
        prop_assert_eq!((queue.len(), queue.due(now), queue.oldest()), (0, None, None));
        for (key, (fact, last)) in &ports {
            let silent = NovaFact { state: NovaState::Nothing, ..fact.clone() };
            let has = heard.get(key).unwrap_or(&silent);
            prop_assert!(has == fact || fact.state == NovaState::Nothing && *last, "{key:?}: {has:?} and not {fact:?}");
            prop_assert_eq!(store.contains_key(key), !last, "{:?}", key);
        }
    }
}
