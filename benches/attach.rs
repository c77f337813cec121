//! nicd against the kernel's floor, measured in the same run and in namespaces of its own.
//!
//! `cargo bench --bench attach` as root; `-- --quick` for a look of some 20 s, `-- --filters` for what the filters cost alone, `-- --dhcp` for DHCP,
//! `-- --groups` for security groups, `-- --fleet` for a fleet (with an etcd from the path), `-- --cycles N` for memory over N cycles, `-- --dir DIR` for the state elsewhere: a tmpfs takes the disk out.
//! What is measured how, and the table, are in `benches/README.md`.

#[path = "attach/bare.rs"]
mod bare;
#[path = "attach/daemon.rs"]
mod daemon;
#[path = "attach/figures.rs"]
mod figures;
#[path = "attach/http.rs"]
mod http;
#[path = "attach/nft.rs"]
mod nft;
#[path = "attach/place.rs"]
mod place;

#[path = "attach/attaching.rs"]
mod attaching;
#[allow(clippy::unwrap_used, dead_code)] // a test's, of which this uses a part
#[path = "../tests/frames/bytes.rs"]
mod bytes;
#[path = "attach/detaching.rs"]
mod detaching;
#[path = "attach/filtering.rs"]
mod filtering;
#[path = "attach/grouping.rs"]
mod grouping;
#[path = "attach/leasing.rs"]
mod leasing;
#[path = "attach/opening.rs"]
mod opening;
#[path = "attach/restarting.rs"]
mod restarting;
#[path = "attach/sharing.rs"]
mod sharing;

use std::path::{Path, PathBuf};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use daemon::{Daemon, Fleet, Nic};
use figures::{Aim, Table};

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Ports at the largest.
    pub many: usize,
    /// Samples of an attach at each size, in blocks of [`Effort::block`].
    pub samples: usize,
    /// Samples in a row.
    pub block: usize,
    /// Networks of that many at the very largest; a bridge has no room for more.
    pub fleets: u8,
    /// Attach and detach cycles over which memory is watched.
    pub cycles: usize,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Everything,
    Filters,
    Dhcp,
    Groups,
    Fleet,
}

fn arguments() -> Option<(Effort, Scope, PathBuf)> {
    let full = Effort { many: 1000, samples: 200, block: 20, fleets: 4, cycles: 2000 };
    let (mut effort, mut scope, mut dir) = (full, Scope::Everything, PathBuf::from(env!("CARGO_TARGET_TMPDIR")));
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => effort = Effort { many: 300, samples: 40, block: 20, fleets: 0, cycles: 0 },
            "--filters" => scope = Scope::Filters,
            "--dhcp" => scope = Scope::Dhcp,
            "--groups" => scope = Scope::Groups,
            "--fleet" => scope = Scope::Fleet,
            "--cycles" => effort.cycles = arguments.next()?.parse().ok()?,
            "--dir" => dir = arguments.next()?.into(),
            // What cargo adds.
            "--bench" => {}
            _ => return None,
        }
    }
    Some((effort, scope, dir))
}

fn main() {
    let Some((effort, scope, dir)) = arguments() else {
        eprintln!(
            "usage: cargo bench --bench attach -- [--quick] [--filters] [--dhcp] [--groups] [--fleet] [--cycles N] [--dir DIR]"
        );
        std::process::exit(64);
    };
    place::leave();
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("limits");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("a descriptor for each tap");
    let dir = tempfile::tempdir_in(dir).expect("a state directory");
    let table = match scope {
        Scope::Everything => measure(effort, dir.path()),
        Scope::Filters => measure_filters(effort, dir.path()),
        Scope::Dhcp => measure_dhcp(effort, dir.path()),
        Scope::Groups => measure_groups(effort, dir.path()),
        Scope::Fleet => measure_fleet(effort, dir.path()),
    };
    table.print();
}

/// What the filters cost, and a restart with those of many ports.
fn measure_filters(effort: Effort, dir: &Path) -> Table {
    let mut table = Table::default();
    let mut daemon = Daemon::start(dir);
    let mut fleets = [Fleet::new(&daemon, Nic::Tap, 1), Fleet::new(&daemon, Nic::Veth, 2)];
    fleets[1].grow(16);
    filters(&mut table, effort, dir, &mut daemon, &mut fleets);
    fleets[0].grow(effort.many);
    restarting::restart(&mut table, dir, &mut daemon, &mut fleets[..1]);
    table
}

/// What DHCP takes and costs.
fn measure_dhcp(effort: Effort, dir: &Path) -> Table {
    let mut table = Table::default();
    let daemon = Daemon::start(dir);
    leasing::leases(&mut table, effort, &daemon);
    table
}

/// What security groups cost.
fn measure_groups(effort: Effort, dir: &Path) -> Table {
    let mut table = Table::default();
    let mut daemon = Daemon::start(dir);
    grouping::packets(&mut table, effort, dir, &mut daemon);
    grouping::attach(&mut table, effort, &daemon);
    table
}

/// What a fleet costs.
fn measure_fleet(effort: Effort, dir: &Path) -> Table {
    let mut table = Table::default();
    sharing::rows(&mut table, effort, dir);
    table
}

/// Rows of taps and some veths. Leaves none.
fn filters(table: &mut Table, effort: Effort, dir: &Path, daemon: &mut Daemon, [taps, veths]: &mut [Fleet; 2]) {
    eprintln!("filters");
    taps.reconnect(daemon);
    taps.grow(effort.many);
    filtering::packets(table, effort, dir, daemon, veths);
    filtering::restore(table, effort);
    taps.reconnect(daemon);
    taps.shrink(0);
    veths.shrink(0);
    filtering::attach(table, effort, dir, daemon);
    filtering::elements(table, effort);
}

fn measure(effort: Effort, dir: &Path) -> Table {
    let mut table = Table::default();
    let mut daemon = Daemon::start(dir);
    let empty = daemon.memory();
    eprintln!("attach");
    let mut taps = Fleet::new(&daemon, Nic::Tap, 1);
    let mut floor = attaching::Floor::new(dir);
    attaching::serial(&mut table, effort, &mut taps, &mut floor, Nic::Tap);
    detaching::cut(&mut table, &mut taps, &mut floor, effort.many);
    table.row("memory at 0 ports", "MiB", None, empty, Aim::Own(8.0, 16.0));
    table.row(&format!("memory at {} ports", effort.many), "MiB", None, daemon.memory(), Aim::Own(20.0, 40.0));
    let one = std::slice::from_mut(&mut taps);
    restarting::restart(&mut table, dir, &mut daemon, one);
    restarting::rebuild(&mut table, dir, &mut daemon, one, &mut floor);
    taps.shrink(10);
    floor.shrink(Nic::Tap, 10);
    attaching::kernel_phase(&mut table, effort, &mut floor);
    attaching::throughput(&mut table, effort, &daemon, &mut taps, &mut floor);
    attaching::flushes(&mut table, effort, &daemon, &mut taps);
    eprintln!("detach");
    detaching::cut(&mut table, &mut taps, &mut floor, 10);
    detaching::together(&mut table, &daemon, &mut taps, &mut floor);
    detaching::among(&mut table, effort, &daemon, &mut taps);
    eprintln!("open");
    opening::status(&mut table, effort, &daemon, &mut taps);
    opening::drift(&mut table, &mut taps);
    taps.shrink(0);
    eprintln!("veth");
    let mut veths = Fleet::new(&daemon, Nic::Veth, 2);
    attaching::serial(&mut table, effort, &mut veths, &mut floor, Nic::Veth);
    veths.shrink(16);
    restarting::packets(&mut table, dir, &mut daemon, &mut veths);
    let mut both = [taps, veths];
    filters(&mut table, effort, dir, &mut daemon, &mut both);
    let [mut taps, _] = both;
    if effort.fleets > 0 {
        eprintln!("many");
        let mut fleets: Vec<Fleet> = (0..effort.fleets).map(|n| Fleet::new(&daemon, Nic::Tap, 11 + n)).collect();
        fleets.iter_mut().for_each(|fleet| fleet.grow(effort.many));
        restarting::restart(&mut table, dir, &mut daemon, &mut fleets);
        restarting::rebuild(&mut table, dir, &mut daemon, &mut fleets, &mut floor);
        fleets.iter_mut().for_each(|fleet| fleet.shrink(0));
        taps.reconnect(&daemon);
    }
    if effort.cycles > 0 {
        eprintln!("memory");
        restarting::growth(&mut table, effort.cycles, &daemon, &mut taps);
    }
    table
}
