use super::super::types::KeyValue;
use super::*;

fn put(mod_revision: i64) -> Event {
    Event::Put(KeyValue { key: "/a".into(), value: Vec::new(), create_revision: 1, mod_revision, version: 1, lease: 0 })
}

fn revisions(batch: Option<Batch>) -> Vec<i64> {
    batch.map(|batch| batch.events.iter().map(Event::mod_revision).collect()).unwrap_or_default()
}

#[test]
fn a_part_of_a_message_holds_its_last_revision_back() {
    let mut one = One::new(&Watched { prefix: "/".into(), from: 3 });
    assert_eq!(revisions(one.changes(vec![put(3), put(4), put(4)], true)), [3]);
    assert_eq!(one.position, 4);
    assert_eq!(revisions(one.changes(vec![put(4)], true)), [] as [i64; 0]);
    assert_eq!(revisions(one.changes(vec![put(4), put(6)], false)), [4, 4, 4, 4, 6]);
    assert_eq!((one.position, one.held.len()), (7, 0));
}

#[test]
fn what_lies_before_the_position_is_not_seen_again() {
    let mut one = One::new(&Watched { prefix: "/".into(), from: 5 });
    assert_eq!(revisions(one.changes(vec![put(3), put(5)], false)), [5]);
    assert_eq!(one.changes(vec![put(5)], false), None);
}
