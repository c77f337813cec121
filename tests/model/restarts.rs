//! x
use crate::scene::*;
#[test]
fn gone() {
    let scene = Scene::with_networks();
    for i in 0..60 {
        eprintln!("{i}");
        let r = scene.attach(VM, on(1)).unwrap();
        scene.perform(detach(VM, r.port.id)).unwrap();
    }
}
