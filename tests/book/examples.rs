//! Compares what a command prints with what a page shows of it.
//!
//! `…` stands for anything: in a line for a part of it, as a line for any lines. A UUID, the first digits of one, a MAC, the name of
//! a device or bridge of nicd's and a time are examples: each stands for what the run has in its place, from then on in later commands as
//! well. Everything else is compared as it is; how many spaces stand in a row does not matter.

use std::collections::BTreeMap;

/// What is elided.
const ANYTHING: char = '…';

/// The examples of a page so far, each with what the run has in its place.
#[derive(Debug, Clone, Default)]
pub struct Examples(BTreeMap<String, String>);

/// What can be an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A UUID, also with underscores as in D-Bus paths.
    Uuid,
    /// The first eight digits of one.
    Short,
    Mac,
    /// A tap, veth or bridge of nicd's.
    Link,
    /// A point in time, which stands for any other.
    Time,
}

impl Examples {
    /// A command as the run is to have it.
    pub fn put_into(&self, command: &str) -> String {
        let chars: Vec<char> = command.chars().collect();
        let (mut text, mut at) = (String::new(), 0);
        while at < chars.len() {
            let example = token(&chars, at).map(|(_, length)| chars[at..at + length].iter().collect::<String>());
            let known = example.as_ref().and_then(|example| self.0.get(example));
            match (known, example) {
                (Some(real), Some(example)) => {
                    text.push_str(real);
                    at += example.chars().count();
                }
                _ => {
                    text.push(chars[at]);
                    at += 1;
                }
            }
        }
        text
    }

    /// What is known after these lines were printed where those were shown; none where they differ.
    pub fn after(&self, shown: &[String], printed: &[String]) -> Option<Self> {
        let Some((first, rest)) = shown.split_first() else { return printed.is_empty().then(|| self.clone()) };
        if first.trim() == ANYTHING.to_string() {
            return (0..=printed.len()).find_map(|skipped| self.after(rest, &printed[skipped..]));
        }
        let (line, others) = printed.split_first()?;
        self.after_line(&spaced(first), &spaced(line))?.after(rest, others)
    }

    fn after_line(&self, shown: &[char], printed: &[char]) -> Option<Self> {
        let mut known = self.clone();
        let (mut at, mut there) = (0, 0);
        while at < shown.len() {
            if shown[at] == ANYTHING {
                return (there..=printed.len()).find_map(|next| known.after_line(&shown[at + 1..], &printed[next..]));
            }
            if let Some((kind, length)) = token(shown, at) {
                let (real_kind, real_length) = token(printed, there)?;
                let example: String = shown[at..at + length].iter().collect();
                let real: String = printed[there..there + real_length].iter().collect();
                if real_kind != kind || !known.learn(kind, &example, &real) {
                    return None;
                }
                (at, there) = (at + length, there + real_length);
            } else {
                if printed.get(there) != Some(&shown[at]) {
                    return None;
                }
                (at, there) = (at + 1, there + 1);
            }
        }
        (there == printed.len()).then_some(known)
    }

    /// Notes what an example stands for; whether it does not stand for something else already.
    fn learn(&mut self, kind: Kind, example: &str, real: &str) -> bool {
        let mut pairs = vec![(example.to_owned(), real.to_owned())];
        if kind == Kind::Time {
            return true;
        }
        if kind == Kind::Uuid {
            pairs.extend(derived(example).into_iter().zip(derived(real)));
        }
        pairs.into_iter().all(|(example, real)| self.0.entry(example).or_insert_with(|| real.clone()) == &real)
    }
}

/// What nicd derives from a UUID.
fn derived(uuid: &str) -> Vec<String> {
    let uuid = uuid.replace('_', "-");
    let digits = uuid.replace('-', "");
    vec![
        uuid.clone(),
        uuid.replace('-', "_"),
        digits[..8].to_owned(),
        format!("nicd{}", &digits[..11]),
        format!("nbr{}", &digits[..12]),
    ]
}

/// A line with one space wherever it has several, none at its end, and none beside what stands for anything.
fn spaced(line: &str) -> Vec<char> {
    let mut chars: Vec<char> = Vec::new();
    for char in line.trim_end().chars() {
        if char == ANYTHING && chars.last() == Some(&' ') {
            chars.pop();
        }
        if char != ' ' || ![Some(&' '), Some(&ANYTHING)].contains(&chars.last()) {
            chars.push(char);
        }
    }
    chars
}

/// The example that begins here, and its length.
fn token(text: &[char], at: usize) -> Option<(Kind, usize)> {
    let joins = |char: &char| char.is_ascii_alphanumeric();
    if at > 0 && joins(&text[at - 1]) {
        return None;
    }
    let lengths = [uuid(&text[at..]), mac(&text[at..]), link(&text[at..]), time(&text[at..]), short(&text[at..])];
    let kinds = [Kind::Uuid, Kind::Mac, Kind::Link, Kind::Time, Kind::Short];
    let found = kinds.into_iter().zip(lengths).find_map(|(kind, length)| Some((kind, length?)))?;
    text.get(at + found.1).is_none_or(|next| !joins(next)).then_some(found)
}

fn is_hex(char: char) -> bool {
    char.is_ascii_digit() || ('a'..='f').contains(&char)
}

/// The length of groups of so many hexadecimal digits, with one of these between.
fn groups(text: &[char], sizes: &[usize], between: &[char]) -> Option<usize> {
    between.iter().find_map(|between| {
        let mut at = 0;
        for (number, size) in sizes.iter().enumerate() {
            if number > 0 {
                (text.get(at) == Some(between)).then_some(())?;
                at += 1;
            }
            text.get(at..at + size)?.iter().all(|char| is_hex(*char)).then_some(())?;
            at += size;
        }
        Some(at)
    })
}

fn uuid(text: &[char]) -> Option<usize> {
    groups(text, &[8, 4, 4, 4, 12], &['-', '_'])
}

fn mac(text: &[char]) -> Option<usize> {
    groups(text, &[2; 6], &[':'])
}

fn link(text: &[char]) -> Option<usize> {
    [("nicd", 11), ("nbr", 12)].into_iter().find_map(|(prefix, digits)| {
        let length = prefix.len();
        prefix.chars().eq(text.get(..length)?.iter().copied()).then_some(())?;
        Some(length + groups(&text[length..], &[digits], &[' '])?)
    })
}

fn short(text: &[char]) -> Option<usize> {
    groups(text, &[8], &[' '])
}

/// As 2026-01-01T00:00:00Z, with parts of a second or without.
fn time(text: &[char]) -> Option<usize> {
    let shape = "0000-00-00T00:00:00";
    let fits = |(want, have): (char, &char)| if want == '0' { have.is_ascii_digit() } else { want == *have };
    shape.chars().zip(text.get(..shape.len())?).all(fits).then_some(())?;
    let rest = &text[shape.len()..];
    let fraction = rest.iter().take_while(|char| char.is_ascii_digit() || **char == '.').count();
    (rest.get(fraction) == Some(&'Z')).then_some(shape.len() + fraction + 1)
}

#[test]
fn examples_stand_for_what_the_run_has() {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let shown =
        lines("id    96ba0aa0-557c-450f-a0f0-455445851336 (web)\n…\nmac fa:16:3e:b4:6d:0b at 2026-01-01T00:00:00Z, … ms\n");
    let printed =
        lines("id 0123abcd-557c-450f-a0f0-455445851337 (web)\nx\ny\nmac fa:16:3e:00:00:01 at 2026-11-29T18:00:00.123Z, 17 ms\n");
    let known = Examples::default().after(&shown, &printed).unwrap();
    assert_eq!(known.put_into("show 96ba0aa0 nicd96ba0aa0557"), "show 0123abcd nicd0123abcd557");
    assert!(known.after(&lines("nicd96ba0aa0557 up"), &lines("nicd0123abcd557 up")).is_some());
    assert!(known.after(&lines("nicd96ba0aa0557 up"), &lines("nicd0123abcd558 up")).is_none());
    assert!(Examples::default().after(&lines("a … c"), &lines("a b d")).is_none());
    assert!(Examples::default().after(&lines("a"), &[]).is_none());
}
