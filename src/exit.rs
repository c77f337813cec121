//! The exit codes of the manual page. They follow sysexits(3) where it defines a fitting code.

use std::error::Error;
use std::process::ExitCode;

/// Why `nicd` ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Success, or an orderly stop.
    Ok = 0,
    /// A bug in nicd.
    Internal = 1,
    /// The command line was wrong (`EX_USAGE`).
    Usage = 64,
    /// Another nicd, or another program, holds the state, the socket or this network namespace, or a program that the demo runs is
    /// not installed (`EX_UNAVAILABLE`).
    Unavailable = 69,
    /// The store cannot be opened, read or written (`EX_IOERR`).
    Store = 74,
    /// A permission or capability is missing (`EX_NOPERM`).
    Permission = 77,
    /// The configuration cannot be used (`EX_CONFIG`).
    Config = 78,
}

impl Exit {
    /// The number the parent process sees.
    pub fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// An error with every cause, on one line.
pub fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line = format!("{line}: {error}");
        cause = error.source();
    }
    line
}
