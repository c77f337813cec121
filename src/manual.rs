//! The manual pages and completions of a program, from the definition of its command line. A package installs them.
//!
//! Both programs share this file, as they share the HTTP client.

use std::path::Path;
use std::{fs, io};

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

/// Writes the pages of `command` and its sub-commands below `into/man`, and its completions below `bash`, `zsh` and `fish`.
///
/// # Errors
/// A file cannot be written.
pub fn write(mut command: Command, section: &str, into: &Path) -> io::Result<()> {
    let name = command.get_name().to_owned();
    // Before the completions, which give each command a help of its own.
    let mut documented = command.clone().disable_help_subcommand(true);
    documented.build();
    pages(&documented, section, &into.join("man"))?;
    let completions = [
        (Shell::Bash, "bash", name.clone()),
        (Shell::Zsh, "zsh", format!("_{name}")),
        (Shell::Fish, "fish", format!("{name}.fish")),
    ];
    for (shell, folder, file) in completions {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command, &name, &mut script);
        put(&into.join(folder), &file, &script)?;
    }
    Ok(())
}

fn pages(command: &Command, section: &str, into: &Path) -> io::Result<()> {
    for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        pages(command, section, into)?;
    }
    let man = Man::new(command.clone()).section(section).date(date()).manual("nicd");
    let mut page = Vec::new();
    man.render(&mut page)?;
    let page = String::from_utf8_lossy(&page);
    // A break beside a space is one too many for mandoc(1), and the heading would say nothing.
    let page = page.replace("\n.br\n\n.br\n", "\n.sp\n").replace("\n.SH EXTRA\n", "\n.SH NOTES\n");
    put(into, &man.get_filename(), page.as_bytes())
}

/// Writes a file, and makes its folder.
///
/// # Errors
/// It cannot be written.
pub fn put(folder: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join(name), content)
}

/// The date of the pages: that of the source (`SOURCE_DATE_EPOCH`), so that one source gives the same pages.
pub fn date() -> String {
    let seconds = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|seconds| seconds.parse().ok());
    jiff::Timestamp::from_second(seconds.unwrap_or_default()).unwrap_or_default().strftime("%Y-%m-%d").to_string()
}
