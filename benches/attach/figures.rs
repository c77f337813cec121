//! Figures, and the table they go into.

use std::time::{Duration, Instant};

/// Durations in microseconds.
#[derive(Debug, Default, Clone)]
pub struct Sample(Vec<f64>);

impl Sample {
    /// Adds how long `work` takes.
    pub fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let done = work();
        self.add(start.elapsed());
        done
    }

    /// Adds one.
    pub fn add(&mut self, took: Duration) {
        self.0.push(took.as_secs_f64() * 1e6);
    }

    /// All of them together.
    pub fn sum(&self) -> Duration {
        Duration::from_secs_f64(self.0.iter().sum::<f64>() / 1e6)
    }

    /// The value below which this part of them lies.
    pub fn quantile(&self, part: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len() - 1;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let place = (part * last as f64).round() as usize;
        sorted[place.min(last)]
    }

    /// The middle one.
    pub fn p50(&self) -> f64 {
        self.quantile(0.5)
    }

    /// All but one in a hundred lie below.
    pub fn p99(&self) -> f64 {
        self.quantile(0.99)
    }
}

/// What a row is judged by.
#[derive(Debug, Clone, Copy)]
pub enum Aim {
    /// The ratio of nicd's figure to the floor's may be at most so much: superb, acceptable.
    AtMost(f64, f64),
    /// It is to be at least so much.
    AtLeast(f64, f64),
    /// nicd's own figure may be at most so much, in the row's unit.
    Own(f64, f64),
    /// Nothing.
    Nothing,
}

/// The table.
#[derive(Debug, Default)]
pub struct Table(Vec<[String; 7]>);

impl Table {
    /// Adds a row, and says it at once.
    pub fn row(&mut self, what: &str, unit: &str, floor: Option<f64>, nicd: f64, aim: Aim) {
        let ratio = floor.map(|floor| nicd / floor);
        let verdict = |superb, fair| match (superb, fair) {
            (true, _) => "superb",
            (false, true) => "acceptable",
            (false, false) => "MISSED",
        };
        let by = ratio.unwrap_or(nicd);
        let (superb, fair, verdict) = match aim {
            Aim::AtMost(s, f) => (format!("≤ {s}"), format!("≤ {f}"), verdict(by <= s, by <= f)),
            Aim::AtLeast(s, f) => (format!("≥ {s}"), format!("≥ {f}"), verdict(by >= s, by >= f)),
            Aim::Own(s, f) => {
                (format!("≤ {} {unit}", digits(s)), format!("≤ {} {unit}", digits(f)), verdict(nicd <= s, nicd <= f))
            }
            Aim::Nothing => (String::new(), String::new(), ""),
        };
        let figure = |value: f64| format!("{} {unit}", digits(value)).trim_end().to_owned();
        let ratio = ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"));
        let row =
            [what.to_owned(), floor.map_or_else(String::new, figure), figure(nicd), ratio, superb, fair, verdict.to_owned()];
        eprintln!("  {}", row.iter().filter(|cell| !cell.is_empty()).cloned().collect::<Vec<_>>().join(" · "));
        self.0.push(row);
    }

    /// Prints it.
    pub fn print(&self) {
        println!("| what | floor | nicd | ratio | superb | acceptable | verdict |");
        println!("|---|---|---|---|---|---|---|");
        for row in &self.0 {
            println!("| {} |", row.join(" | "));
        }
    }
}

fn digits(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        value if value < 1.0 => format!("{value:.3}"),
        value if value < 100.0 => format!("{value:.1}").trim_end_matches(".0").to_owned(),
        value => format!("{value:.0}"),
    }
}
