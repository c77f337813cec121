//! The manual page nicd.toml(5), from the reference.

use clap_mangen::roff::{Roff, bold, roman};

use super::reference::{Applies, SECTIONS};

/// The page, with its date.
pub fn page(date: &str) -> String {
    let mut page = Roff::new();
    page.control("TH", ["nicd.toml", "5", date, concat!("nicd ", env!("CARGO_PKG_VERSION"))]);
    page.control("SH", ["NAME"]);
    page.text([roman("nicd.toml - the configuration of nicd(8)")]);
    page.control("SH", ["SYNOPSIS"]);
    page.text([roman("/etc/nicd/nicd.toml")]);
    page.control("SH", ["DESCRIPTION"]);
    page.text([roman(
        "A TOML file of sections with keys. A missing file, section or key means the default, which is right on a stock Debian host. A \
         key that is not listed here is refused, with its line.",
    )]);
    for text in [
        "After a change run systemctl reload nicd. A file with a mistake changes nothing: the reload fails, and the log and nicctl status \
         say why. nicd check-config checks the file and prints the settings that it gives; nicd check-config --reference prints a file \
         with every key at its default. Keys marked (restart) change at the next start.",
        "The flags and environment variables of nicd(8) win over the file.",
    ] {
        page.control("PP", []);
        page.text([roman(text)]);
    }
    for section in SECTIONS {
        page.control("SH", [format!("[{}]", section.name).as_str()]);
        page.text([roman(section.about)]);
        for key in section.keys {
            page.control("TP", []);
            page.text([
                bold(key.name),
                roman(match key.applies {
                    Applies::Reload => "",
                    Applies::Restart => " (restart)",
                }),
            ]);
            page.text([roman(key.about)]);
            page.control("RS", []);
            page.control("PP", []);
            page.text([roman(match key.default {
                Some(default) => format!("Default: {default}. For example: {}", key.example),
                None => format!("For example: {}", key.example),
            })]);
            page.control("RE", []);
        }
    }
    page.control("SH", ["SEE ALSO"]);
    page.text([roman("nicd(8), nicctl(1)")]);
    page.to_roff()
}
