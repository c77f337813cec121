//! What is shipped for Prometheus and Grafana (`contrib/`): promtool reads and tests it, and it names the metrics that there are.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

#[path = "common/daemon.rs"]
mod daemon;
#[path = "common/fixture.rs"]
mod fixture;
#[path = "common/netns.rs"]
mod netns;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fixture::Fixture;
use netns::in_netns;
use serde_json::{Value, json};

fn contrib(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib").join(file)
}

/// Runs promtool, which reads `input`, and fails unless it finds nothing wrong. Without it this is left to the full command.
fn promtool(arguments: &[&str], input: &str) {
    let there = Command::new("promtool").arg("--version").stderr(Stdio::null()).stdout(Stdio::null()).status().is_ok();
    assert!(there || std::env::var_os("NICD_TEST_FULL").is_none(), "promtool is not there: ./check installs it");
    if !there {
        return eprintln!("left to the full command: promtool is not there");
    }
    let mut command = Command::new("promtool");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(output.status.success(), "promtool {arguments:?}: {said}\n{input}");
}

/// The families that there are: a unit test compares this list with the code.
fn families() -> BTreeSet<&'static str> {
    let rows = include_str!("../docs/metrics.md").lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| row.split('`').next()).filter(|name| name.starts_with("nicd_")).collect()
}

/// Those that a text names.
fn named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|char: char| !char.is_ascii_alphanumeric() && char != '_').filter(|word| word.starts_with("nicd_"));
    let family = |word| ["_bucket", "_count", "_sum"].iter().find_map(|end| str::strip_suffix(word, end)).unwrap_or(word);
    words.map(family).collect()
}

fn all_panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    let panels = |of: &Value| of["panels"].as_array().map(Vec::as_slice).unwrap_or_default().to_vec();
    assert!(panels(dashboard).iter().all(|panel| panels(panel).is_empty()), "rows hold no panels");
    dashboard["panels"].as_array().unwrap().iter()
}

#[test]
fn the_alerts_fire_when_they_are_to_and_name_what_there_is() {
    promtool(&["check", "rules", contrib("prometheus/alerts.yaml").to_str().unwrap()], "");
    promtool(&["test", "rules", contrib("prometheus/alerts_test.yaml").to_str().unwrap()], "");
    let alerts = fs::read_to_string(contrib("prometheus/alerts.yaml")).unwrap();
    let tests = fs::read_to_string(contrib("prometheus/alerts_test.yaml")).unwrap();
    for file in [&alerts, &tests] {
        let unknown: Vec<_> = named(file).difference(&families()).copied().collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }
    for alert in alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(tests.contains(&format!("alertname: {alert}\n")), "{alert} is not tested");
    }
}

#[test]
fn the_dashboard_shows_every_family_by_expressions_that_prometheus_reads() {
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(contrib("grafana/nicd.json")).unwrap()).unwrap();
    let variables: BTreeSet<&str> =
        dashboard["templating"]["list"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(variables, BTreeSet::from(["datasource", "instance"]));
    let (mut ids, mut places, mut rules) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for panel in all_panels(&dashboard) {
        let title = panel["title"].as_str().filter(|title| !title.is_empty()).unwrap_or_else(|| panic!("{panel}"));
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is taken");
        let place = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
        assert!(place[0] + place[2] <= 24 && place[3] > 0, "{title}: Grafana's grid has 24 columns");
        assert!(places.insert((place[0], place[1])), "{title}: another one is there");
        match panel["type"].as_str().unwrap() {
            "row" => continue,
            "stat" | "timeseries" => {}
            other => panic!("{title}: {other}"),
        }
        let mut letters = BTreeSet::new();
        for target in panel["targets"].as_array().filter(|targets| !targets.is_empty()).unwrap() {
            assert!(letters.insert(target["refId"].as_str().unwrap()), "{title}: two expressions with one letter");
            for source in [&panel["datasource"], &target["datasource"]] {
                assert_eq!(source, &json!({"type": "prometheus", "uid": "${datasource}"}), "{title}");
            }
            let expression = target["expr"].as_str().unwrap();
            let filtered = expression.matches("nicd_").count() == expression.matches("instance=~\"$instance\"").count();
            assert!(filtered, "{title}: it does not look at the chosen hosts: {expression}");
            let written = expression.replace("$instance", ".*").replace("$__rate_interval", "5m");
            assert!(!written.contains('$'), "{title}: {written}");
            rules.push(json!({"record": format!("panel:{}", rules.len()), "expr": written}));
        }
    }
    let expressions: String = rules.iter().map(|rule| format!("{}\n", rule["expr"].as_str().unwrap())).collect();
    assert_eq!(named(&expressions), families());
    // JSON is YAML.
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("dashboard-{}.yaml", std::process::id()));
    fs::write(&file, json!({"groups": [{"name": "dashboard", "rules": rules}]}).to_string()).unwrap();
    promtool(&["check", "rules", file.to_str().unwrap()], "");
    fs::remove_file(file).unwrap();
}

#[test]
fn what_the_daemon_tells_is_as_prometheus_wants_it() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (_guest, server, port) = fixture.active_guest("a", &network);
        fixture.api.get("/nowhere");
        let answer = fixture.api.get("/metrics");
        assert_eq!(answer.status, 200);
        promtool(&["check", "metrics"], &answer.text);
        fixture.detach(&server, &port);
    });
}
