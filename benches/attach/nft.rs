//! nf_tables beside nicd, in bare messages: the host's rules are taken away or not asked, and heard of; or there are none at all.

#![allow(unsafe_code)] // a process's own seccomp filter has no safe wrapper

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Instant;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;

use crate::bare::{Request, half, word};

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEWTABLE: u16 = 0xa00;
const DELTABLE: u16 = 0xa02;
const NEWGEN: u16 = 0xa0f;
const BRIDGE: u8 = 7;
const NFTABLES: u8 = 10;
const DORMANT: u32 = 1;

/// Changes the host's rules.
pub struct Rules {
    socket: Socket,
    port_number: u32,
}

impl Rules {
    /// Opens a socket here.
    pub fn open() -> Self {
        let mut socket = Socket::new(NETLINK_NETFILTER).expect("nf_tables");
        let port_number = socket.bind_auto().expect("bind").port_number();
        Self { socket, port_number }
    }

    /// Has the kernel ask the rules of nicd's table, or not.
    pub fn ask(&mut self, asked: bool) {
        let mut table = Request::new(NEWTABLE, 0, &[BRIDGE, 0, 0, 0]);
        let flags: u32 = if asked { 0 } else { DORMANT };
        table.text(1, "nicd").put(2, &flags.to_be_bytes());
        self.commit(table);
    }

    /// Deletes all tables.
    pub fn flush(&mut self) {
        self.commit(Request::new(DELTABLE, 0, &[0; 4]));
    }

    fn commit(&mut self, change: Request) {
        let mark = |kind| Request::new(kind, 0, &[0, 0, 0, NFTABLES]);
        let mut all = Vec::new();
        for (Request(mut bytes), answered) in [(mark(BATCH_BEGIN), 0), (change, 4), (mark(BATCH_END), 0)] {
            let length = u32::try_from(bytes.len()).expect("short");
            bytes[0..4].copy_from_slice(&length.to_ne_bytes());
            bytes[6] |= answered; // NLM_F_ACK
            all.extend_from_slice(&bytes);
        }
        self.socket.send_to(&all, &SocketAddr::new(0, 0), 0).expect("a transaction");
        let mut answer = [0; 4096];
        self.socket.recv_from(&mut &mut answer[..], 0).expect("an answer");
        assert_eq!(word(&answer, 16), 0, "refused");
    }
}

/// The kernel's events about rules, in the namespace it was opened in.
pub struct Changes {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Changes {
    /// Subscribes here.
    pub fn open() -> Self {
        let mut socket = Socket::new(NETLINK_NETFILTER).expect("nf_tables");
        setsockopt(&socket, sockopt::RcvBufForce, &(256 << 20)).expect("a large buffer");
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(20, 0)).expect("a limit");
        socket.bind_auto().expect("bind");
        socket.add_membership(7).expect("NFNLGRP_NFTABLES");
        Self { socket, buffer: vec![0; 1 << 20] }
    }

    /// How many transactions there were so far.
    pub fn count(&mut self) -> u32 {
        let mut transactions = 0;
        while let Ok(events) = self.next(libc::MSG_DONTWAIT) {
            transactions += events.iter().map(|event| u32::from(event.kind == NEWGEN)).sum::<u32>();
        }
        transactions
    }

    /// Waits until another program has made a table for bridges; when the transaction was heard of.
    pub fn wait_for_table(&mut self, but: &Rules) -> Instant {
        let mut made = false;
        loop {
            let events = self.next(0).expect("the table is made again");
            let others = events.iter().filter(|event| event.port_number != but.port_number);
            for event in others {
                made |= event.kind == NEWTABLE && event.family == BRIDGE;
                if made && event.kind == NEWGEN {
                    return Instant::now();
                }
            }
        }
    }

    fn next(&mut self, flags: i32) -> io::Result<Vec<Event>> {
        let (length, _) = self.socket.recv_from(&mut &mut self.buffer[..], flags)?;
        let mut rest = &self.buffer[..length];
        let mut events = Vec::new();
        while rest.len() > 16 {
            let length = usize::try_from(word(rest, 0)).expect("a length");
            events.push(Event { kind: half(rest, 4), port_number: word(rest, 12), family: rest[16] });
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(events)
    }
}

struct Event {
    kind: u16,
    /// The socket that the change was sent by.
    port_number: u32,
    family: u8,
}

/// Starts a program as if the kernel had no nf_tables: it gets no socket to it (EPROTONOSUPPORT).
pub fn without_nf_tables(command: &mut Command) {
    const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const UNLESS: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06;
    let step = |code, jf, k| libc::sock_filter { code, jt: 0, jf, k };
    let number = |value: i64| u32::try_from(value).expect("small");
    // `struct seccomp_data`: the call's number, and its arguments from octet 16 on.
    let filter = [
        step(LOAD, 0, 0),
        step(UNLESS, 5, number(libc::SYS_socket)),
        step(LOAD, 0, 16),
        step(UNLESS, 3, number(libc::AF_NETLINK.into())),
        step(LOAD, 0, 32),
        step(UNLESS, 1, number(libc::NETLINK_NETFILTER.into())),
        step(RETURN, 0, libc::SECCOMP_RET_ERRNO | number(libc::EPROTONOSUPPORT.into())),
        step(RETURN, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let refuse = move || {
        let mut filter = filter;
        let length = libc::c_ushort::try_from(filter.len()).unwrap_or_default();
        let program = libc::sock_fprog { len: length, filter: filter.as_mut_ptr() };
        // SAFETY: the first call takes numbers, the second reads a program that outlives it.
        let answers = unsafe {
            [
                libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
                libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program),
            ]
        };
        if answers == [0, 0] { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: between fork and exec it makes two system calls and allocates nothing.
    unsafe { command.pre_exec(refuse) };
}
