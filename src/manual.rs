//! The manual pages and completions of a program, from the definition of its command line. A package installs them.
//!
//! Both programs share this file, as they share the HTTP client.

use std::path::Path;
use std::{fs, io};

use clap::Command;
use clap::builder::Resettable;
use clap_complete::Shell;
use clap_mangen::Man;

/// The shells that a package has completions for.
pub const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

/// The line of a help behind which its examples are, one to a line.
pub const EXAMPLES: &str = "Examples:";

/// Writes the pages of `command` and its sub-commands below `into/man`, and the completions of [`SHELLS`] below `bash`, `zsh` and `fish`.
///
/// # Errors
/// A file cannot be written.
pub fn write(command: Command, section: &str, completions: [Vec<u8>; 3], into: &Path) -> io::Result<()> {
    let name = command.get_name().to_owned();
    let mut documented = command.disable_help_subcommand(true);
    documented.build();
    pages(&documented, section, &into.join("man"))?;
    let files = [("bash", name.clone()), ("zsh", format!("_{name}")), ("fish", format!("{name}.fish"))];
    for ((folder, file), script) in files.into_iter().zip(completions) {
        put(&into.join(folder), &file, &script)?;
    }
    Ok(())
}

fn pages(command: &Command, section: &str, into: &Path) -> io::Result<()> {
    for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        pages(command, section, into)?;
    }
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let (notes, examples) = help.split_once(EXAMPLES).unwrap_or((&help, ""));
    let notes = Some(notes.trim_end().to_owned()).filter(|notes| !notes.is_empty());
    let command = command.clone().after_help(notes.map_or(Resettable::Reset, |notes| Resettable::Value(notes.into())));
    let man = Man::new(command).section(section).date(date()).manual("nicd");
    let mut page = Vec::new();
    man.render(&mut page)?;
    let page = String::from_utf8_lossy(&page);
    // A break beside a space is one too many for mandoc(1), and the heading would say nothing.
    let page = page.replace("\n.br\n\n.br\n", "\n.sp\n").replace("\n.SH EXTRA\n", "\n.SH NOTES\n");
    put(into, &man.get_filename(), (page + &example_section(examples)).as_bytes())
}

/// The section of a page with these command lines.
fn example_section(lines: &str) -> String {
    let escaped = |line: &str| line.trim().replace('\\', "\\e").replace('-', "\\-");
    let lines: Vec<String> = lines.lines().filter(|line| !line.trim().is_empty()).map(escaped).collect();
    if lines.is_empty() { String::new() } else { format!(".SH EXAMPLES\n.nf\n{}\n.fi\n", lines.join("\n")) }
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
