//! Taps: made, finished, shared with nobody, given back.

use std::io::Write as _;
use std::process::{Command, Stdio};

use nicd::kernel::tap;
use nicd::kernel::{Host, LinkSelector, OpErrorKind};
use nicd::model::{Owner, names};
use nicd::plan::{Kind, Op};

use crate::host::{BRIDGE, DEVICE, LinuxFixture, create_tap, ip_link, mac, port, v6_addresses};
use crate::netns::{in_netns, json, run};

#[test]
fn an_attach_makes_what_was_asked_and_no_more() {
    in_netns(|| {
        let mut host = LinuxFixture::open();
        host.bridge(1500);
        let port = port(1);
        let name = host.attach_tap(port, DEVICE, BRIDGE);
        drop(std::mem::take(&mut host.context));

        let shown = ip_link(name.as_str());
        assert_eq!(shown["ifindex"], DEVICE);
        assert_eq!(shown["altnames"][0], names::port_altname(port));
        assert_eq!(shown["ifalias"], "store 1");
        assert_eq!(shown["address"], mac(port).host_side().to_string());
        assert_eq!(shown["mtu"], 1500);
        assert_eq!(shown["inet6_addr_gen_mode"], "none");
        assert_eq!(shown["master"], "nbr3cb9bc595699");
        let tun = &shown["linkinfo"]["info_data"];
        assert_eq!((&tun["type"], &tun["persist"], &tun["user"]), (&"tap".into(), &true.into(), &"root".into()));
        assert_eq!(tun["vnet_hdr"], true);
        let ports = json("bridge -j -d link");
        assert_eq!(ports[0]["learning"], false, "{ports}");
        let fdb = json(&format!("bridge -j fdb show dev {name}"));
        let entry = fdb.as_array().unwrap().iter().find(|entry| entry["mac"] == mac(port).to_string()).unwrap();
        assert_eq!(entry["state"], "static");
        assert_eq!(v6_addresses(), 0);

        let seen = host.get_link(port).unwrap();
        assert_eq!((seen.index, seen.kind, seen.up, seen.lower_up), (DEVICE, Kind::Tap, true, false));
        assert!(!seen.v6_autoconf && !seen.bridge_port.unwrap().learning && seen.tap.unwrap().persist);
        assert_eq!(seen.tap.unwrap().uid, Some(0));
    });
}

#[test]
fn a_tap_is_opened_by_its_owner_only() {
    in_netns(|| {
        let mut host = LinuxFixture::open();
        for (index, (owner, by, opens)) in [
            (Owner::default(), "0:0", true),
            (Owner::default(), "65534:65534", false),
            (Owner { uid: Some(65_534), gid: None }, "65534:65534", true),
            (Owner { uid: None, gid: Some(36) }, "65534:36", true),
            (Owner { uid: None, gid: Some(36) }, "65534:65534", false),
            (Owner { uid: Some(65_534), gid: Some(36) }, "65534:36", true),
            (Owner { uid: Some(65_534), gid: Some(36) }, "65534:65534", false),
            (Owner { uid: Some(65_534), gid: Some(36) }, "65533:36", false),
        ]
        .into_iter()
        .enumerate()
        {
            let (port, index) = (port(index as u128), DEVICE + u32::try_from(index).unwrap());
            let name = names::port_device(port, 0);
            host.apply(&Op::CreateTap { port, index, name: name.clone(), queues: 1, vnet_hdr: false, owner });
            host.apply(&Op::Persist { port });
            assert_eq!(opens_as(by, name.as_str()), opens, "{owner:?} opened by {by}");
            let seen = host.kernel.get_link(LinkSelector::Index(index)).unwrap().unwrap().tap.unwrap();
            assert_eq!((seen.uid, seen.gid), (owner.uid.or(owner.gid.is_none().then_some(0)), owner.gid));
        }
    });
}

/// Whether a process of that uid and gid gets the tap. Python's runtime is on every host that runs these tests, and it
/// drops its rights after it has opened the node, as that is root's here.
fn opens_as(who: &str, name: &str) -> bool {
    let (uid, gid) = who.split_once(':').unwrap();
    let script = format!(
        "import fcntl,os,struct,sys\nf=os.open('/dev/net/tun',os.O_RDWR)\nos.setgroups([])\nos.setgid({gid})\nos.setuid({uid})\n\
         try:\n fcntl.ioctl(f,0x400454ca,struct.pack('16sH22x',b'{name}',0x1002))\nexcept PermissionError:\n sys.exit(3)\n"
    );
    let mut python = Command::new("python3").stdin(Stdio::piped()).spawn().unwrap();
    python.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    match python.wait().unwrap().code() {
        Some(0) => true,
        Some(3) => false,
        other => panic!("{other:?}"),
    }
}

#[test]
fn queues_are_as_asked_and_one_queue_has_one_holder() {
    in_netns(|| {
        let mut host = LinuxFixture::open();
        let names = [names::port_device(port(1), 0), names::port_device(port(2), 0)];
        for (number, queues) in [(1, 1), (2, 4)] {
            let name = names[number - 1].clone();
            let (port, index) = (port(number as u128), DEVICE + u32::try_from(number).unwrap());
            host.apply(&Op::CreateTap { port, index, name, queues, vnet_hdr: true, owner: Owner::default() });
            host.apply(&Op::Persist { port });
            assert_eq!(host.kernel.get_link(LinkSelector::Index(index)).unwrap().unwrap().tap.unwrap().multi_queue, queues > 1);
        }
        let _held = tap::attach(&names[0], 1, true).unwrap();
        assert_eq!(tap::attach(&names[0], 1, true).unwrap_err().errno, nix::errno::Errno::EBUSY);
        let _queues = [tap::attach(&names[1], 4, true).unwrap(), tap::attach(&names[1], 4, true).unwrap()];
    });
}

#[test]
fn a_missing_node_is_told_with_what_would_be_right() {
    in_netns(|| {
        run("mount -t tmpfs none /dev/net");
        let error = LinuxFixture::open().refused(&create_tap(port(1), DEVICE), OpErrorKind::Permission);
        assert!(error.said.contains("/dev/net/tun") && error.said.contains("mknod"), "{error}");
    });
}
