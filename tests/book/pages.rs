//! What the pages hold: blocks of commands, links, headings.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

/// One document.
#[derive(Debug)]
pub struct Page {
    /// Its path in the repository.
    pub name: String,
    pub blocks: Vec<Block>,
    /// The targets of its links.
    pub links: Vec<String>,
    /// The anchors of its headings.
    pub anchors: BTreeSet<String>,
    /// What stands between single backquotes.
    pub code: Vec<String>,
}

/// A fenced block.
#[derive(Debug)]
pub struct Block {
    /// The first word behind the fence.
    pub language: String,
    /// The second one: where its commands are tested instead.
    pub elsewhere: Option<String>,
    pub text: String,
    pub commands: Vec<Command>,
}

/// A command, and what it is shown to print.
#[derive(Debug)]
pub struct Command {
    pub text: String,
    pub shown: Vec<String>,
}

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The names of the pages: README and what is in `docs`.
pub fn names() -> Vec<String> {
    let files = std::fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = files.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}")).collect();
    names.push("README.md".to_owned());
    names.sort();
    names
}

impl Page {
    pub fn read(name: &str) -> Self {
        let text = std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut page = Self { name: name.to_owned(), blocks: vec![], links: vec![], anchors: BTreeSet::new(), code: vec![] };
        let (mut block, mut heading) = (None::<(Vec<String>, String)>, None::<String>);
        for event in Parser::new_ext(&text, Options::ENABLE_TABLES) {
            match event {
                Event::Start(Tag::CodeBlock(kind)) => {
                    let info = if let CodeBlockKind::Fenced(info) = kind { info } else { "indented".into() };
                    block = Some((info.split_whitespace().map(str::to_owned).collect(), String::new()));
                }
                Event::End(TagEnd::CodeBlock) => {
                    page.blocks.extend(block.take().map(|(info, text)| Block::new(name, info, &text)))
                }
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => page.anchors.extend(heading.take().map(|text| anchor(&text))),
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => page.links.push(dest_url.to_string()),
                Event::Text(text) => match (&mut block, &mut heading) {
                    (Some((_, lines)), _) => lines.push_str(&text),
                    (None, Some(heading)) => heading.push_str(&text),
                    (None, None) => {}
                },
                Event::Code(code) => {
                    page.code.push(code.to_string());
                    if let Some(heading) = &mut heading {
                        heading.push_str(&code);
                    }
                }
                _ => {}
            }
        }
        page
    }

    /// The file that a link of this page leads to, and the anchor there; none for another host's.
    pub fn target(&self, link: &str) -> Option<(PathBuf, Option<String>)> {
        if link.contains("://") {
            return None;
        }
        let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor.to_owned())));
        let own = root().join(&self.name);
        let file = if file.is_empty() { own } else { own.parent()?.join(file) };
        Some((file, anchor))
    }
}

impl Block {
    fn new(page: &str, info: Vec<String>, text: &str) -> Self {
        let mut info = info.into_iter();
        let language = info.next().unwrap_or_else(|| panic!("{page}: a fence without a language:\n{text}"));
        let mut commands: Vec<Command> = Vec::new();
        let mut continues = false;
        for line in text.lines().filter(|_| language == "console") {
            match (continues, line.strip_prefix("# ").or_else(|| line.strip_prefix("$ ")), commands.last_mut()) {
                (true, _, Some(command)) => command.text = format!("{}\n{line}", command.text),
                (_, Some(text), _) => commands.push(Command { text: text.to_owned(), shown: vec![] }),
                (_, None, Some(command)) => command.shown.push(line.to_owned()),
                (_, None, None) => panic!("{page}: a block begins with no command: {line}"),
            }
            continues = line.ends_with('\\');
        }
        Self { language, elsewhere: info.next(), text: text.to_owned(), commands }
    }
}

/// The anchor of a heading, as GitHub and mdBook make it.
fn anchor(heading: &str) -> String {
    let kept = |char: &char| char.is_alphanumeric() || matches!(char, ' ' | '-' | '_');
    heading.trim().to_lowercase().chars().filter(kept).map(|char| if char == ' ' { '-' } else { char }).collect()
}
