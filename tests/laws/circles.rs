//! In these rooms no file uses another one that uses it, directly or through others: read off the sources themselves.
//!
//! A file uses another one by a path to it or to an item that it defines, and by a call of a method that it defines on a type
//! whose methods are in several files. A file that lists others as its modules does not use them by that.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::rooms::{Source, sources};

/// The rooms whose files are looked at.
const ROOMS: &[&str] = &["inventory", "plan", "reconcile", "service"];

#[test]
fn no_files_of_a_room_use_each_other_in_a_circle() {
    for name in ROOMS {
        let room = Room::read(name);
        assert!(room.files.len() > 5, "the sources of {name} were not found");
        let arrows = room.arrows();
        let circle: Vec<_> = arrows.iter().filter(|((from, to), _)| reaches(&arrows, to, from)).collect();
        assert!(circle.is_empty(), "{name}: {circle:#?}");
    }
}

/// From a file to one that it uses, and one of the words by which it does.
type Arrows = BTreeMap<(PathBuf, PathBuf), String>;

fn reaches(arrows: &Arrows, from: &Path, to: &Path) -> bool {
    let (mut open, mut seen) = (vec![from], BTreeSet::new());
    while let Some(file) = open.pop() {
        if file == to {
            return true;
        }
        if seen.insert(file) {
            open.extend(arrows.keys().filter(|(start, _)| start == file).map(|(_, end)| end.as_path()));
        }
    }
    false
}

struct Room {
    name: &'static str,
    files: BTreeMap<PathBuf, File>,
}

/// What a file defines and what it names.
#[derive(Default)]
struct File {
    items: BTreeSet<String>,
    /// Its methods, by their type.
    methods: BTreeSet<(String, String)>,
    /// Paths that begin with `super`, `crate`, or a name of the file's own.
    paths: Vec<Vec<String>>,
    /// Calls of methods, by the type that is called.
    calls: BTreeSet<(String, String)>,
}

impl Room {
    fn read(name: &'static str) -> Self {
        let own = sources().into_iter().filter(|source| source.room == name);
        Self { name, files: own.map(|Source { path, code, .. }| (path, File::read(&code))).collect() }
    }

    fn arrows(&self) -> Arrows {
        let mut arrows = Arrows::new();
        for (from, file) in &self.files {
            let mut add = |to: &PathBuf, word: &str| {
                if to != from {
                    arrows.insert((from.clone(), to.clone()), word.to_owned());
                }
            };
            for path in &file.paths {
                self.target(path).into_iter().for_each(|to| add(to, &path.join("::")));
            }
            for call in &file.calls {
                let definer = self.files.iter().find(|(_, other)| other.methods.contains(call));
                definer.into_iter().for_each(|(to, _)| add(to, &call.1));
            }
        }
        arrows
    }

    /// The file that a path leads to, if it is one of this room.
    fn target(&self, path: &[String]) -> Option<&PathBuf> {
        let words = match path.first().map(String::as_str) {
            Some("crate") if path.get(1).is_none_or(|room| room != self.name) => return None,
            Some("crate") => &path[2..],
            _ => path,
        };
        let mut words = words.iter().skip_while(|word| *word == "super").peekable();
        let mut file = None;
        while let Some(module) = words.peek().and_then(|word| self.module(word)) {
            file = Some(module);
            words.next();
        }
        let Some(item) = words.next() else { return file };
        let defines = |path: &&PathBuf| self.files[*path].items.contains(item);
        let mut definers = self.files.keys().filter(defines);
        file.filter(defines).or_else(|| definers.next().filter(|_| definers.next().is_none())).or(file)
    }

    fn module(&self, name: &str) -> Option<&PathBuf> {
        self.files.keys().find(|path| path.file_stem().is_some_and(|stem| stem == name && stem != "mod"))
    }
}

impl File {
    fn read(code: &str) -> Self {
        let (mut file, tokens) = (Self::default(), tokens(code));
        let (mut depth, mut this, mut inherent) = (0, String::new(), false);
        for (at, token) in tokens.iter().enumerate() {
            let next = |n: usize| tokens.get(at + n).copied().unwrap_or_default();
            match *token {
                "{" => depth += 1,
                "}" => depth -= 1,
                "impl" if depth == 0 => (this, inherent) = subject(&tokens[at + 1..]),
                "fn" if depth == 1 && inherent => _ = file.methods.insert((this.clone(), next(1).to_owned())),
                "fn" | "struct" | "enum" | "trait" | "type" | "const" | "static" if depth == 0 => {
                    file.items.insert(next(1).to_owned());
                }
                "use" if depth == 0 => {
                    let public = at > 0 && matches!(tokens[at - 1], "pub" | ")");
                    let lists_its_own = public && !matches!(next(1), "super" | "crate");
                    if !lists_its_own {
                        tree(&tokens[at + 1..], &mut Vec::new(), &mut file.paths);
                    }
                }
                "super" | "crate"
                    if !matches!(tokens[at.saturating_sub(2)..at], [_, "use" | "::"] | ["pub", "("] | ["(", "in"]) =>
                {
                    tree(&tokens[at..], &mut Vec::new(), &mut file.paths);
                }
                "self" if next(1) == "." && next(3) == "(" => _ = file.calls.insert((this.clone(), next(2).to_owned())),
                "Self" if next(1) == "::" => _ = file.calls.insert((this.clone(), next(2).to_owned())),
                variable if next(1) == "." && next(3) == "(" => {
                    file.calls.insert((type_of(variable), next(2).to_owned()));
                }
                _ => {}
            }
        }
        file
    }
}

/// The type of an `impl` block, and whether the block is about the type alone and not about a trait.
fn subject(after: &[&str]) -> (String, bool) {
    let head: Vec<&str> = after.iter().take_while(|token| **token != "{").copied().collect();
    let of_trait = head.iter().position(|token| *token == "for");
    let mut depth = 0;
    for token in &head[of_trait.map_or(0, |at| at + 1)..] {
        match *token {
            "<" => depth += 1,
            ">" => depth -= 1,
            name if depth == 0 && name.starts_with(char::is_alphabetic) => return (name.to_owned(), of_trait.is_none()),
            _ => {}
        }
    }
    (String::new(), false)
}

/// The type that variables of this name have: `reconciler` is a `Reconciler`.
fn type_of(variable: &str) -> String {
    let words = variable.split('_').filter_map(|word| word.split_at_checked(1));
    words.map(|(first, rest)| first.to_uppercase() + rest).collect()
}

/// The paths of a `use` tree, or the one path in an expression.
fn tree(tokens: &[&str], before: &mut Vec<String>, paths: &mut Vec<Vec<String>>) -> usize {
    let (mut at, length) = (0, before.len());
    loop {
        match tokens.get(at).copied().unwrap_or_default() {
            "::" => at += 1,
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|token| *token != "}") {
                    // In an expression the braces may hold fields.
                    at += tree(&tokens[at..], before, paths).max(1);
                    at += usize::from(tokens.get(at) == Some(&","));
                }
                before.truncate(length);
                return at + 1;
            }
            name if name.starts_with(char::is_alphabetic) && (at == 0 || tokens[at - 1] == "::") => {
                before.push(name.to_owned());
                at += 1;
            }
            _ => break,
        }
    }
    paths.push(before.clone());
    before.truncate(length);
    // What another name is given to.
    at + if tokens.get(at) == Some(&"as") { 2 } else { 0 }
}

/// Words, `::`, and single signs, without what is in quotes.
fn tokens(code: &str) -> Vec<&str> {
    let (mut tokens, mut rest) = (Vec::new(), code.trim_start());
    while let Some(first) = rest.chars().next() {
        if first == '"' {
            let quoted = rest[1..].replace("\\\"", "__");
            rest = rest.get(quoted.find('"').map_or(rest.len(), |end| end + 2)..).unwrap_or_default().trim_start();
            continue;
        }
        let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let length = match word {
            0 if rest.starts_with("::") => 2,
            0 => first.len_utf8(),
            word => word,
        };
        let (token, after) = rest.split_at(length);
        tokens.push(token);
        rest = after.trim_start();
    }
    tokens
}
