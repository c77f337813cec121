//! `nicctl`, the command-line client of nicd. All it does is done through the daemon's socket; everything about it is
//! in the `ctl` module, which uses nothing of the daemon's own library but the files named here.

use std::process::ExitCode;

#[path = "../ctl/mod.rs"]
mod ctl;
#[path = "../manual.rs"]
mod manual;
#[path = "../uplink.rs"]
mod uplink;

fn main() -> ExitCode {
    ctl::main()
}
