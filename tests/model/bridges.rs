//! The operator's bridge, which others change.

use nicd::manager::Error;
use nicd::plan::{Kind, PlanError};

use crate::scene::{BR0, OPERATORS, Scene, VM, on};

#[test]
fn an_attach_is_decided_on_what_the_bridge_is_now() {
    let mut scene = Scene::with_networks();
    // Each time the attach is handed in before the daemon can have taken in what the watch saw.
    scene.fake.meddle(BR0, |bridge| bridge.mtu = 1400);
    let error = scene.attach(VM, on(OPERATORS)).unwrap_err();
    assert!(matches!(error, Error::Plan(PlanError::MtuAboveBridge { mtu: 1500, bridge_mtu: 1400, .. })), "{error}");
    scene.fake.meddle(BR0, |bridge| bridge.mtu = 9000);
    let wide = scene.attach(VM, on(OPERATORS)).unwrap();
    assert_eq!(scene.fake.device(wide.port.id).unwrap().mtu, 9000);
    scene.fake.delete_link(BR0);
    let error = scene.attach(VM, on(OPERATORS)).unwrap_err();
    assert!(matches!(error, Error::Plan(PlanError::NoSuchBridge(_))), "{error}");
    scene.fake.add_link(BR0, Kind::Other, 1500);
    let error = scene.attach(VM, on(OPERATORS)).unwrap_err();
    assert!(matches!(error, Error::Plan(PlanError::NotABridge(_))), "{error}");
    scene.fake.delete_link(BR0);
    let index = scene.fake.add_link(BR0, Kind::Bridge, 1500);
    let anew = scene.attach(VM, on(OPERATORS)).unwrap();
    let device = scene.fake.device(anew.port.id).unwrap();
    assert_eq!((device.master, device.mtu), (Some(index), 1500));
    assert_eq!(scene.manager().ports(nicd::manager::PortFilter::default()).len(), 2, "what was refused left nothing");
    scene.stop();
}
