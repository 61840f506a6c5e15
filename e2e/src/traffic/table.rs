//! The results of scenarios, for people and as JSON.

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::{Value, json};

use super::scenarios::Scenario;
use super::stage::Measured;

/// The result of a scenario.
pub(super) struct Row {
    pub(super) scenario: &'static Scenario,
    pub(super) measured: Measured,
    /// Why it could not be carried out.
    errors: Vec<String>,
}

impl Row {
    pub(super) fn new(scenario: &'static Scenario) -> Self {
        Self { scenario, measured: Measured::default(), errors: Vec::new() }
    }

    /// Records an error.
    pub(super) fn failed(&mut self, result: Result<()>) {
        if let Err(error) = result {
            self.errors.push(format!("{error:#}"));
        }
    }

    /// Returns true if nothing was lost or wrong, and the scenario was carried out.
    pub(super) fn is_clean(&self) -> bool {
        let figures = &self.measured.sum.figures;
        self.errors.is_empty() && figures.lost == 0 && figures.wrong == 0
    }

    fn seconds(&self) -> String {
        self.measured.everywhere.map_or_else(|| "-".to_owned(), |time| format!("{:.1}", time.as_secs_f64()))
    }

    fn cells(&self) -> [String; 5] {
        let figures = &self.measured.sum.figures;
        let name = match self.errors.is_empty() {
            true => self.scenario.name.to_owned(),
            false => format!("{} (failed)", self.scenario.name),
        };
        [name, figures.requests.to_string(), figures.lost.to_string(), figures.wrong.to_string(), self.seconds()]
    }
}

const HEAD: [&str; 5] = ["scenario", "requests", "lost", "wrong", "seconds until everywhere"];

/// Returns the names of scenarios and what they do.
pub(super) fn list(scenarios: &[&Scenario]) -> String {
    let width = scenarios.iter().map(|scenario| scenario.name.len()).max().unwrap_or_default();
    let mut text = String::new();
    for scenario in scenarios {
        let _ = writeln!(text, "{:width$}  {}", scenario.name, scenario.about);
    }
    text
}

/// Returns a row as it is told when the scenario ends.
pub(super) fn line(row: &Row) -> String {
    let [name, requests, lost, wrong, seconds] = row.cells();
    format!("{name}: {requests} requests, {lost} lost, {wrong} wrong, everywhere after {seconds} s")
}

/// Returns the table, the details of what was lost or wrong, and the sums.
pub(super) fn report(rows: &[Row]) -> String {
    let cells: Vec<[String; 5]> = rows.iter().map(Row::cells).collect();
    let mut widths = HEAD.map(str::len);
    for row in &cells {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len());
        }
    }
    let mut text = "\n".to_owned();
    let mut write = |row: [&str; 5]| {
        let [name, requests, lost, wrong, seconds] = row;
        let [a, b, c, d, e] = widths;
        let _ = writeln!(text, "{name:a$} | {requests:>b$} | {lost:>c$} | {wrong:>d$} | {seconds:>e$}");
    };
    write(HEAD);
    for row in &cells {
        write(row.each_ref().map(String::as_str));
    }
    for row in rows.iter().filter(|row| !row.is_clean()) {
        details(&mut text, row);
    }
    let sum = |of: fn(&Row) -> u64| rows.iter().map(of).sum::<u64>();
    let (requests, lost, wrong) = (
        sum(|row| row.measured.sum.figures.requests),
        sum(|row| row.measured.sum.figures.lost),
        sum(|row| row.measured.sum.figures.wrong),
    );
    let failed = rows.iter().filter(|row| !row.errors.is_empty()).count();
    let _ = writeln!(text);
    if failed > 0 {
        let _ = writeln!(text, "{failed} scenarios could not be carried out.");
    }
    let _ = writeln!(text, "{} scenarios, {requests} requests, {lost} lost, {wrong} wrong", rows.len());
    text
}

fn details(text: &mut String, row: &Row) {
    let sum = &row.measured.sum;
    let _ = writeln!(text, "\n{}: {}", row.scenario.name, row.scenario.about);
    for error in &row.errors {
        let _ = writeln!(text, "  failed: {error}");
    }
    if let Some(allowance) = row.scenario.allowance {
        let _ = writeln!(text, "  no controller can prevent it: {allowance}");
    }
    let kinds: Vec<String> = sum.kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    if !kinds.is_empty() {
        let _ = writeln!(text, "  {}", kinds.join(", "));
    }
    for failure in &sum.failures {
        let _ = writeln!(text, "  {failure}");
    }
    let bad = sum.figures.lost + sum.figures.wrong;
    let shown = sum.failures.len() as u64;
    if bad > shown {
        let _ = writeln!(text, "  and {} more", bad - shown);
    }
}

/// Returns all that was found.
pub(super) fn json(rows: &[Row]) -> Value {
    let row = |row: &Row| {
        json!({
            "name": row.scenario.name,
            "about": row.scenario.about,
            "secondsUntilEverywhere": row.measured.everywhere.map(|time| time.as_secs_f64()),
            "allowance": row.scenario.allowance,
            "errors": row.errors,
            "sum": row.measured.sum,
            "clients": row.measured.clients,
        })
    };
    json!({"scenarios": rows.iter().map(row).collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use albatross_fabric::load::{Failure, Figures, Report};

    use super::super::scenarios::ALL;
    use super::*;

    fn row(place: usize, lost: u64, everywhere: Option<f64>) -> Row {
        let failure = Failure {
            sent: Duration::from_millis(1500),
            failed: Duration::from_millis(1750),
            kind: "reset".to_owned(),
            detail: "/: 127.20.0.1".to_owned(),
        };
        let failures = (0..lost.min(2)).map(|_| failure.clone()).collect();
        let kinds = if lost > 0 { BTreeMap::from([("reset".to_owned(), lost)]) } else { BTreeMap::new() };
        let sum = Report {
            figures: Figures { requests: 1000, lost, ..Figures::default() },
            failures,
            kinds,
            ..Report::default()
        };
        let everywhere = everywhere.map(Duration::from_secs_f64);
        Row { measured: Measured { sum, everywhere, ..Measured::default() }, ..Row::new(&ALL[place]) }
    }

    #[test]
    fn the_table_ends_with_the_sums_and_tells_what_was_lost() {
        let mut failed = row(2, 0, None);
        failed.failed(Err(anyhow::anyhow!("no load balancer")));
        let text = report(&[row(0, 0, Some(7.25)), row(1, 3, Some(12.0)), failed]);
        let expected = "
scenario               | requests | lost | wrong | seconds until everywhere
path-added             |     1000 |    0 |     0 |                      7.2
path-removed           |     1000 |    3 |     0 |                     12.0
path-moved-up (failed) |     1000 |    0 |     0 |                        -

path-removed: an Ingress loses one of two paths
  3 reset
     1.500 s, after 0.250 s: reset: /: 127.20.0.1
     1.500 s, after 0.250 s: reset: /: 127.20.0.1
  and 1 more

path-moved-up: a path is moved above a catch-all
  failed: no load balancer

1 scenarios could not be carried out.
3 scenarios, 3000 requests, 3 lost, 0 wrong
";
        assert_eq!(text, expected);
    }

    #[test]
    fn only_a_scenario_without_loss_and_error_is_clean() {
        let mut failed = row(0, 0, None);
        failed.failed(Err(anyhow::anyhow!("?")));
        assert_eq!([row(0, 0, None), row(0, 1, None), failed].map(|row| row.is_clean()), [true, false, false]);
        let all = json(&[row(1, 1, Some(2.0))]);
        assert_eq!(all["scenarios"][0]["secondsUntilEverywhere"], 2.0);
        assert_eq!(all["scenarios"][0]["sum"]["figures"]["lost"], 1);
        assert_eq!(all["scenarios"][0]["sum"]["failures"][0]["kind"], "reset");
    }
}
