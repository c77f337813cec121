//! The planner, case by case: `tests/planner/<case>/` has what was `observed` and what is `desired`, and the `plan` and its
//! `undo`, in the order in which each runs; where deletions are deferred, what carries them out in one go, as `merged`; or, as
//! `error.txt`, why nothing can be planned.
//!
//! `NICD_BLESS=1` writes the planner's current output into the folders; read the diff.

use std::fs;
use std::path::{Path, PathBuf};

use nicd::plan::{Desired, Observed, Op, PlanError, Reason, Stage, Step, merge_deletions, plan};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

/// Set to have the answers written instead of compared.
const BLESS: &str = "NICD_BLESS";

/// The store of the nicd that plans, as in the cases' aliases.
const STORE: Uuid = Uuid::from_u128(0x0f0f_0f0f_0000_4000_8000_0000_0000_0001);

/// The files that hold the answer.
const ANSWERS: [&str; 4] = ["plan.json", "undo.json", "merged.json", "error.txt"];

#[test]
fn every_case_is_planned_as_its_folder_says() {
    let cases = cases();
    assert!(cases.len() >= 20, "only {} cases under tests/planner", cases.len());
    for case in cases {
        let said = answer(plan_of(&case));
        for (file, text) in ANSWERS.into_iter().zip(said) {
            let path = case.join(file);
            match (std::env::var_os(BLESS), text) {
                (Some(_), Some(text)) => fs::write(path, text).expect("bless"),
                (Some(_), None) => _ = fs::remove_file(path),
                (None, text) => assert_eq!(text, fs::read_to_string(&path).ok(), "{}", path.display()),
            }
        }
    }
}

/// A step as `plan.json` has it.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    op: Op,
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<Stage>,
}

impl Shown {
    fn of(Step { op, stage, .. }: Step) -> Self {
        Self { op, stage: (stage != Stage::Now).then_some(stage) }
    }
}

/// What a case's plan, its undos and its merged deletions are, as they would run; an error where the planner refuses.
fn plan_of(case: &Path) -> Result<[Option<String>; 3], PlanError> {
    let (want, have): (Desired, Observed) = (read(case, "desired.json"), read(case, "observed.json"));
    let planned = plan(Reason::Attach, &want, &have.seen_by(STORE))?;
    let undos: Vec<Op> = planned.steps.iter().rev().filter_map(|step| step.undo.clone()).collect();
    let deferred = planned.steps.iter().any(|step| step.stage == Stage::Deferred);
    let shown = |steps: Vec<Step>| json(&steps.into_iter().map(Shown::of).collect::<Vec<_>>());
    let steps = planned.steps.clone();
    let merged = deferred.then(|| shown(merge_deletions(planned, &want.absent_ports).steps));
    Ok([Some(shown(steps)), Some(json(&undos)), merged])
}

/// What belongs into each of [`ANSWERS`].
fn answer(planned: Result<[Option<String>; 3], PlanError>) -> [Option<String>; 4] {
    match planned {
        Ok([plan, undo, merged]) => [plan, undo, merged, None],
        Err(error) => [None, None, None, Some(format!("{error}\n"))],
    }
}

/// All case folders, sorted.
fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/planner");
    let entries = fs::read_dir(folder).expect("tests/planner");
    let mut cases: Vec<PathBuf> = entries.map(|entry| entry.expect("entry").path()).filter(|path| path.is_dir()).collect();
    cases.sort();
    cases
}

fn read<T: DeserializeOwned>(case: &Path, file: &str) -> T {
    let path = case.join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).expect("JSON") + "\n"
}
