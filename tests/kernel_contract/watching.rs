//! The watch: every change is told, soon, and the last thing told is true.

use std::time::{Duration, Instant};

use nicd::kernel::{Kernel, Notice};
use nicd::model::names;
use nicd::plan::{Kind, LinkChange, LinkState, Op, Switch, TokenBucket};
use tokio::sync::mpsc::{Receiver, channel};

use crate::host::*;

on_both!(
    changes_by_anybody_are_told,
    a_ports_life_is_told,
    leaving_a_bridge_is_seen_and_is_no_end,
    a_ports_carrier_is_told,
    a_bridges_end_is_told_of_its_ports,
    a_guests_mac_that_another_takes_is_told,
);

/// How long a notice may take.
const SOON: Duration = Duration::from_secs(5);

fn watch(fixture: &Fixture<impl TestHost>) -> Receiver<Notice> {
    let (sender, receiver) = channel(1024);
    fixture.kernel.watch(sender).unwrap();
    receiver
}

/// Waits for a notice.
fn until(notices: &mut Receiver<Notice>, limit: Duration, wanted: impl Fn(&Notice) -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        match notices.try_recv() {
            Ok(notice) if wanted(&notice) => return true,
            Ok(_) => {}
            Err(_) => std::thread::yield_now(),
        }
    }
    false
}

fn seen(index: u32, right: impl Fn(&LinkState) -> bool) -> impl Fn(&Notice) -> bool {
    move |notice| matches!(notice, Notice::Seen { link, .. } if link.index == index && right(link))
}

fn gone(index: u32) -> impl Fn(&Notice) -> bool {
    move |notice| matches!(notice, Notice::Gone { index: gone, .. } if *gone == index)
}

fn changes_by_anybody_are_told(fixture: &mut Fixture<impl TestHost>) {
    let mut notices = watch(fixture);
    let index = fixture.host_under_test.add("foreign", Kind::Veth, 1500);
    assert!(until(&mut notices, SOON, seen(index, |link| link.name == "foreign" && link.up)), "made");
    fixture.host_under_test.change("foreign", Change::Name("renamed"));
    assert!(until(&mut notices, SOON, seen(index, |link| link.name == "renamed")), "renamed");
    fixture.host_under_test.change("renamed", Change::Altname("second"));
    assert!(until(&mut notices, SOON, seen(index, |link| link.altnames == ["second"])), "altname");
    fixture.host_under_test.change("renamed", Change::Mtu(1400));
    assert!(until(&mut notices, SOON, seen(index, |link| link.mtu == 1400)), "MTU");
    fixture.host_under_test.delete("renamed");
    assert!(until(&mut notices, SOON, gone(index)), "gone");
}

fn a_ports_life_is_told(fixture: &mut Fixture<impl TestHost>) {
    fixture.bridge(1500);
    let mut notices = watch(fixture);
    let port = port(1);
    fixture.attach_tap(port, DEVICE, BRIDGE);
    let whole = |link: &LinkState| {
        link.up && link.master == Some(BRIDGE) && link.alias == Some(alias()) && link.entry(mac(port), 0).is_some()
    };
    assert!(until(&mut notices, SOON, seen(DEVICE, whole)), "built");
    fixture.apply(&configure(port, [LinkChange::Learning(true)]));
    assert!(until(&mut notices, SOON, seen(DEVICE, |link| link.bridge_port.is_some_and(|port| port.learning))), "learning");
    fixture.apply(&configure(port, [LinkChange::ToGuest(Some(TokenBucket { rate: 8_000, burst: 2_000 }))]));
    assert!(until(&mut notices, SOON, seen(DEVICE, |link| link.to_guest.is_some())), "rate");
    let name = fixture.device(port).name;
    fixture.host_under_test.change(&name, Change::NoQdisc);
    assert!(until(&mut notices, SOON, seen(DEVICE, |link| link.to_guest.is_none())), "no rate");
    // Of a link that is down the kernel may tell nothing (`netdev_state_change`, net/core/dev.c).
    fixture.apply(&Op::SetLink { port, switch: Switch::Down });
    assert!(until(&mut notices, SOON, seen(DEVICE, |link| !link.up)), "down");
    fixture.apply(&Op::DeleteLink { port, store: STORE });
    assert!(until(&mut notices, SOON, gone(DEVICE)), "gone");
}

fn leaving_a_bridge_is_seen_and_is_no_end(fixture: &mut Fixture<impl TestHost>) {
    fixture.bridge(1500);
    fixture.attach_tap(port(1), DEVICE, BRIDGE);
    let mut notices = watch(fixture);
    fixture.apply(&Op::Unbind { port: port(1) });
    assert!(until(&mut notices, SOON, seen(DEVICE, |link| link.master.is_none())), "out");
    assert!(!until(&mut notices, Duration::from_millis(200), gone(DEVICE)));
}

fn a_ports_carrier_is_told(fixture: &mut Fixture<impl TestHost>) {
    fixture.bridge(1500);
    let port = port(1);
    fixture.attach_tap(port, DEVICE, BRIDGE);
    let mut notices = watch(fixture);
    for _ in 0..2 {
        fixture.host_under_test.open_tap(port);
        assert!(until(&mut notices, SOON, seen(DEVICE, |link| link.lower_up && link.is_held())), "carrier");
        fixture.host_under_test.close_tap(port);
        assert!(until(&mut notices, SOON, seen(DEVICE, |link| !link.lower_up && !link.is_held())), "none");
    }
}

fn a_bridges_end_is_told_of_its_ports(fixture: &mut Fixture<impl TestHost>) {
    fixture.bridge(1500);
    fixture.attach_tap(port(1), DEVICE, BRIDGE);
    let mut notices = watch(fixture);
    fixture.host_under_test.delete(&bridge_name());
    assert!(until(&mut notices, SOON, seen(DEVICE, |link| link.master.is_none())), "its port");
    assert!(until(&mut watch_again(fixture, notices), SOON, |_| true), "it goes on");
}

/// Makes one more change, which is told as well.
fn watch_again(fixture: &mut Fixture<impl TestHost>, notices: Receiver<Notice>) -> Receiver<Notice> {
    fixture.apply(&Op::SetLink { port: port(1), switch: Switch::Down });
    notices
}

fn a_guests_mac_that_another_takes_is_told(fixture: &mut Fixture<impl TestHost>) {
    fixture.bridge(1500);
    let port = port(1);
    let name = fixture.attach_tap(port, DEVICE, BRIDGE);
    let greedy = fixture.host_under_test.add("greedy", Kind::Veth, 1500);
    fixture.host_under_test.change("greedy", Change::In(&bridge_name()));
    fixture.host_under_test.change("greedy", Change::Down);
    let mut notices = watch(fixture);
    fixture.host_under_test.change("greedy", Change::Mac(mac(port)));
    let told =
        |notice: &Notice| matches!(notice, Notice::MacTaken { index, mac: taken, .. } if (*index, *taken) == (greedy, mac(port)));
    let shown = seen(DEVICE, |link| link.entry(mac(port), 0).is_none());
    assert!(until(&mut notices, SOON, |notice| told(notice) || shown(notice)), "{name}, {}", names::port_altname(port));
}
