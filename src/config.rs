//! Settings: the file as written, then the settings as used.
//!
//! ```text
//!  nicd.toml ──► file::File (as written, all optional) ─┐
//!  flags, environment ──► Overrides ────────────────────┴─► Settings (as used, all valid)
//! ```
//!
//! This module does not read the host: the users of a setting check that a group or a bridge exists. Values in [`Settings`] are
//! valid and are not checked again.

use std::path::{Path, PathBuf};
use std::{fs, io};

mod bridges;
mod file;
mod fleet;
mod listen;
mod notify;
pub mod page;
pub mod reference;
mod segments;
mod settings;

pub use bridges::{AllowedBridges, BridgePattern, BridgeRule};
pub use fleet::{FleetSettings, FleetTls, TunnelSettings};
pub use listen::{ListenSettings, TlsSettings};
pub use notify::{NovaSettings, Url, WebhookSettings};
pub use segments::SegmentSettings;
pub use settings::{
    ConflictProbe, DbusSettings, FilterSettings, GuestDefaults, LimitSettings, LinkSettings, LogFormat, LogSettings,
    MetricsSettings, Settings, SocketSettings, StoreSettings,
};

/// The default path of the configuration file.
pub const DEFAULT_FILE: &str = "/etc/nicd/nicd.toml";

/// What the command line and the environment set; it wins over the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `socket.path`.
    pub socket: Option<PathBuf>,
    /// `store.dir`.
    pub state_dir: Option<PathBuf>,
    /// `log.level`.
    pub log: Option<String>,
}

/// Why the configuration cannot be used. The program ends with 78.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read, or one that was named is missing.
    #[error("the configuration {} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The file is no TOML, or has a key or a type that is not known.
    #[error("{}, line {line} ({text}): {message}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The line as written, cut to 80 characters: it has the key.
        text: String,
        /// What is wrong with it.
        message: String,
    },
    /// A value that cannot be used.
    #[error("{key} = {value} cannot be used: {expected}")]
    Value {
        /// The key with its section.
        key: &'static str,
        /// What was set, cut to 80 characters.
        value: String,
        /// What would be right.
        expected: String,
    },
    /// A key whose feature is not built yet. It is refused, so that an operator does not rely on it.
    #[error("{key} = {value} is refused: {what} is not built yet; remove the key")]
    NotBuilt {
        /// The key with its section.
        key: &'static str,
        /// What was set.
        value: String,
        /// The mechanism.
        what: &'static str,
    },
}

impl Settings {
    /// Reads `file`, or the default file when none is named, and lays `overrides` over it.
    ///
    /// # Errors
    /// A named file that is missing, any file that cannot be read, and any key or value that is not right.
    pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Self, ConfigError> {
        let path = file.unwrap_or(Path::new(DEFAULT_FILE));
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            // Without a file the defaults apply.
            Err(error) if error.kind() == io::ErrorKind::NotFound && file.is_none() => String::new(),
            Err(source) => return Err(ConfigError::Read { path: path.to_owned(), source }),
        };
        Self::from_text(path, &text, overrides)
    }

    /// The settings of a start without a file and without flags.
    ///
    /// # Errors
    /// None: every default is right.
    pub fn defaults() -> Result<Self, ConfigError> {
        Self::from_text(Path::new(DEFAULT_FILE), "", &Overrides::default())
    }

    /// The settings as a file that gives the same settings.
    ///
    /// # Errors
    /// None that a setting can cause.
    pub fn as_file(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }

    /// Makes settings of a file's text; `path` is only for messages.
    ///
    /// # Errors
    /// Any key or value that is not right.
    pub fn from_text(path: &Path, text: &str, overrides: &Overrides) -> Result<Self, ConfigError> {
        let mut written = toml::from_str::<file::File>(text).map_err(|error| locate(path, text, &error))?;
        written.lay_over(overrides);
        settings::as_used(written)
    }
}

/// Names the place of a TOML error.
fn locate(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let start = error.span().map_or(0, |span| span.start).min(text.len());
    let line = text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count();
    ConfigError::Parse {
        path: path.to_owned(),
        line: line + 1,
        text: clip(text.lines().nth(line).unwrap_or_default().trim()),
        message: error.message().replace('\n', " "),
    }
}

/// A value for a message: no longer than a line, and on one.
fn clip(text: &str) -> String {
    text.chars().take(80).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn bad(key: &'static str, value: impl ToString, expected: impl Into<String>) -> ConfigError {
    ConfigError::Value { key, value: clip(&value.to_string()), expected: expected.into() }
}

#[cfg(test)]
mod tests;
