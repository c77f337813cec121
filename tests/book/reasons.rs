//! The words that nicd gives as a reason are those that `docs/reasons.md` explains.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::pages::root;

/// The page's tables: of ports, of the agent, of refusals; the first cell of each row.
fn explained() -> [BTreeSet<String>; 3] {
    let text = std::fs::read_to_string(root().join("docs/reasons.md")).unwrap();
    let mut parts = text.split("\n## ").skip(1).map(|part| {
        let rows = part.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
        rows.map(|(word, _)| word.to_owned()).collect()
    });
    [(); 3].map(|()| parts.next().expect("a part for ports, for the agent and for refusals"))
}

/// The source of a file without its tests.
fn source(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    text.split("\n#[cfg(test)]\nmod ").next().unwrap().to_owned()
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// The words between `before` and the next quote.
fn after(text: &str, before: &str) -> BTreeSet<String> {
    let words = text.split(before).skip(1).filter_map(|rest| rest.split_once('"'));
    words.map(|(word, _)| word.to_owned()).filter(|word| is_word(word)).collect()
}

/// The words that a function answers with.
fn answered(file: &str, function: &str) -> BTreeSet<String> {
    let text = source(&root().join("src").join(file));
    let start = text.find(function).unwrap_or_else(|| panic!("{file} has no {function}"));
    let indent = text[..start].rsplit('\n').next().unwrap().len();
    let body = text[start..].split(&format!("\n{}}}\n", " ".repeat(indent))).next().unwrap();
    after(body, "=> \"")
}

/// What the files of a room name beside: constants, and reasons in place.
fn named(room: &str) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    for file in std::fs::read_dir(root().join("src").join(room)).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "rs") {
            let text = source(&path);
            let constants = text.lines().filter(|line| line.contains("const ")).collect::<Vec<_>>().join("\n");
            words.extend(after(&constants, ": &str = \""));
            words.extend(["reason: \"", "reason = \""].iter().flat_map(|before| after(&text, before)));
        }
    }
    words
}

/// A function's words by the variant that it answers them for, behind `from`.
fn by_variant(from: &str, function: &str) -> BTreeMap<String, String> {
    let text = source(&root().join("src/plan/diff.rs"));
    let body = text.split(from).nth(1).unwrap().split(function).nth(1).unwrap().split("\n    }\n").next().unwrap();
    let arms = body.lines().filter_map(|line| line.trim().strip_prefix("Self::")?.split_once(" => \""));
    arms.map(|(variant, word)| (variant.to_owned(), word.trim_end_matches("\",").to_owned())).collect()
}

/// The page that says how to read `explain` has each fact, with the reason that it gives.
#[test]
fn every_fact_is_explained_with_its_reason() {
    let page = std::fs::read_to_string(root().join("docs/operate.md")).unwrap();
    let facts = by_variant("impl FactName", "pub fn as_str");
    let reasons = by_variant("impl FactName", "pub fn reason");
    assert!(facts.len() > 12 && facts.len() == reasons.len(), "{facts:?} {reasons:?}");
    for (variant, fact) in &facts {
        let row =
            page.lines().find(|line| line.starts_with(&format!("| `{fact}` |"))).unwrap_or_else(|| panic!("no row of {fact}"));
        let reason = &reasons[variant];
        let is_told = ["failed", "unbound"].contains(&reason.as_str()) || row.contains(&format!("`{reason}`"));
        assert!(is_told, "{row}: the reason is {reason}");
    }
}

#[test]
fn every_reason_is_explained_and_every_explained_one_is_given() {
    let [ports, agent, refusals] = explained();
    assert_eq!(refusals, after(&source(&root().join("src/api/status.rs")), "row(\""), "of refusals");
    let facts = answered("plan/diff.rs", "pub fn reason");
    // Explain has these two where a port has the cause of the failure, or none.
    let facts: BTreeSet<String> = facts.into_iter().filter(|word| word != "failed" && word != "unbound").collect();
    let problems = after(&source(&root().join("src/reconcile/problems.rs")), " = \"");
    assert!(facts.len() > 12 && problems.len() > 30, "{facts:?} {problems:?}");
    assert!(facts.is_subset(&ports), "of ports: {:?}", facts.difference(&ports));
    assert_eq!(agent, problems, "of the agent");
    let mut given: BTreeSet<String> =
        ["reconcile", "inventory", "daemon", "service"].iter().flat_map(|room| named(room)).collect();
    given.extend(facts.into_iter().chain(problems));
    let of_both: BTreeSet<String> = &ports | &agent;
    let explained = &of_both | &refusals;
    assert!(given.is_subset(&explained), "not explained: {:?}", given.difference(&explained));
    let known = &given | &refusals;
    assert!(of_both.is_subset(&known), "given by nothing: {:?}", of_both.difference(&known));
}
