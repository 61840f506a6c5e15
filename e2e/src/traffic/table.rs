//! The results of scenarios, for people and as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::scenarios::Scenario;
use super::stage::Measured;

/// The most by which requests may go out late. Beyond it, the machine was too busy, and the figures are its own.
const BEHIND: Duration = Duration::from_millis(500);

/// The result of a scenario.
pub struct Row {
    pub(super) scenario: &'static Scenario,
    measured: Measured,
    /// Why it could not be carried out, or not be measured.
    errors: Vec<String>,
    /// The requests that clients send in the mean time until a node sees a change.
    sent_unseen: u64,
}

impl Row {
    pub(super) fn new(scenario: &'static Scenario, sent_unseen: u64) -> Self {
        Self { scenario, measured: Measured::default(), errors: Vec::new(), sent_unseen }
    }

    /// Records what was measured.
    pub(super) fn measured(&mut self, measured: Measured) {
        let behind = measured.sum.behind;
        if behind > BEHIND {
            let (seconds, most) = (behind.as_secs_f64(), BEHIND.as_secs_f64());
            self.errors.push(format!(
                "requests went out up to {seconds:.1} s late, and {most} s is the most that counts: the machine is too busy; ask less \
                 often (--rate) or run fewer scenarios at a time (--jobs)"
            ));
        }
        self.measured = measured;
    }

    /// Records an error.
    pub(super) fn failed(&mut self, result: Result<()>) {
        if let Err(error) = result {
            self.errors.push(format!("{error:#}"));
        }
    }

    /// The scenario's name.
    pub fn name(&self) -> &'static str {
        self.scenario.name
    }

    /// The number of requests.
    pub fn requests(&self) -> u64 {
        self.measured.sum.figures.requests
    }

    /// The number of requests that were lost.
    pub fn lost(&self) -> u64 {
        self.measured.sum.figures.lost
    }

    /// The number of requests that were answered wrongly.
    pub fn wrong(&self) -> u64 {
        self.measured.sum.figures.wrong
    }

    /// Why the scenario could not be carried out, or not be measured.
    pub fn errors(&self) -> &[String] {
        &self.errors
    }

    /// The number of lost requests that no controller can save: all, or none if they are more than is allowed.
    fn allowed(&self) -> u64 {
        if self.lost() <= self.most_allowed() { self.lost() } else { 0 }
    }

    /// The most lost requests that are allowed.
    fn most_allowed(&self) -> u64 {
        self.scenario.allowance.map_or(0, |allowance| self.sent_unseen * allowance.percent / 100)
    }

    /// Returns true if the scenario was carried out, nothing was wrong, and nothing was lost that may not be.
    pub fn is_clean(&self) -> bool {
        self.errors.is_empty() && self.lost() == self.allowed() && self.wrong() == 0
    }

    fn seconds(&self) -> String {
        self.measured.everywhere.map_or_else(|| "-".to_owned(), |time| format!("{:.1}", time.as_secs_f64()))
    }

    fn cells(&self) -> [String; 6] {
        let name = match self.errors.is_empty() {
            true => self.scenario.name.to_owned(),
            false => format!("{} (failed)", self.scenario.name),
        };
        let [requests, lost, allowed, wrong] =
            [self.requests(), self.lost(), self.allowed(), self.wrong()].map(|number| number.to_string());
        [name, requests, lost, allowed, wrong, self.seconds()]
    }
}

/// The most lost or wrong requests of a scenario that are shown.
const SHOWN: usize = 5;

const HEAD: [&str; 6] = ["scenario", "requests", "lost", "allowed", "wrong", "seconds until everywhere"];

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
    let [name, requests, lost, _, wrong, seconds] = row.cells();
    format!("{name}: {requests} requests, {lost} lost, {wrong} wrong, everywhere after {seconds} s")
}

/// Returns the table, the details of what was lost or wrong, and the sums.
pub fn report(rows: &[Row]) -> String {
    let cells: Vec<[String; 6]> = rows.iter().map(Row::cells).collect();
    let mut widths = HEAD.map(str::len);
    for row in &cells {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len());
        }
    }
    let mut text = "\n".to_owned();
    let mut write = |row: [&str; 6]| {
        let [name, requests, lost, allowed, wrong, seconds] = row;
        let [a, b, c, d, e, f] = widths;
        let _ = writeln!(text, "{name:a$} | {requests:>b$} | {lost:>c$} | {allowed:>d$} | {wrong:>e$} | {seconds:>f$}");
    };
    write(HEAD);
    for row in &cells {
        write(row.each_ref().map(String::as_str));
    }
    for row in rows.iter().filter(|row| !row.is_clean() || row.lost() > 0) {
        details(&mut text, row);
    }
    let sum = |of: fn(&Row) -> u64| rows.iter().map(of).sum::<u64>();
    let [requests, lost, allowed, wrong] = [Row::requests, Row::lost, Row::allowed, Row::wrong].map(sum);
    let failed = rows.iter().filter(|row| !row.errors.is_empty()).count();
    let _ = writeln!(text);
    if failed > 0 {
        let _ = writeln!(text, "{failed} scenarios could not be carried out or measured.");
    }
    let of_them = if allowed > 0 { format!(" ({allowed} of them allowed)") } else { String::new() };
    let _ = writeln!(text, "{} scenarios, {requests} requests, {lost} lost{of_them}, {wrong} wrong", rows.len());
    text
}

fn details(text: &mut String, row: &Row) {
    let sum = &row.measured.sum;
    let _ = writeln!(text, "\n{}: {}", row.scenario.name, row.scenario.about);
    for error in &row.errors {
        let _ = writeln!(text, "  failed: {error}");
    }
    if let Some(allowance) = row.scenario.allowance {
        let (most, sent, reason) = (row.most_allowed(), row.sent_unseen, allowance.reason);
        let _ = writeln!(
            text,
            "  up to {most} lost are allowed, {} % of the {sent} that are sent in the mean time until a node sees a change, as no \
             controller can save them: {reason}",
            allowance.percent
        );
    }
    let kinds: Vec<String> = sum.kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    if !kinds.is_empty() {
        let _ = writeln!(text, "  {}", kinds.join(", "));
    }
    let shown = sum.failures.iter().take(SHOWN);
    let more = sum.figures.lost + sum.figures.wrong - shown.len() as u64;
    for failure in shown {
        let _ = writeln!(text, "  {failure}");
    }
    if let Some(failed) = sum.failed.filter(|_| more > 0) {
        let _ = writeln!(text, "  and {more} more, the last one sent at {:.3} s", failed.last_sent.as_secs_f64());
    }
}

/// Returns all that was found.
pub(super) fn json(rows: &[Row]) -> Value {
    let row = |row: &Row| {
        json!({
            "name": row.scenario.name,
            "about": row.scenario.about,
            "secondsUntilEverywhere": row.measured.everywhere.map(|time| time.as_secs_f64()),
            "allowance": row.scenario.allowance.map(|it| json!({"most": row.most_allowed(), "reason": it.reason})),
            "errors": row.errors,
            "sum": row.measured.sum,
            "writes": row.measured.writes.iter().map(|(at, name)| json!({"at": at, "call": name})).collect::<Vec<_>>(),
            "clients": row.measured.clients,
        })
    };
    json!({"scenarios": rows.iter().map(row).collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use albatross_fabric::load::{Failure, Figures, Report, Seen};

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
        let (first, last) = (Duration::from_secs(2), Duration::from_secs(4));
        let failed = Seen { count: lost, first, last, first_sent: first, last_sent: last };
        let kinds = if lost > 0 { BTreeMap::from([("reset".to_owned(), lost)]) } else { BTreeMap::new() };
        let sum = Report {
            figures: Figures { requests: 1000, lost, ..Figures::default() },
            failures,
            failed: (lost > 0).then_some(failed),
            kinds,
            ..Report::default()
        };
        let everywhere = everywhere.map(Duration::from_secs_f64);
        Row { measured: Measured { sum, everywhere, ..Measured::default() }, ..Row::new(&ALL[place], 1000) }
    }

    fn place(name: &str) -> usize {
        ALL.iter().position(|scenario| scenario.name == name).unwrap()
    }

    #[test]
    fn the_table_ends_with_the_sums_and_tells_what_was_lost() {
        let mut failed = row(2, 0, None);
        failed.failed(Err(anyhow::anyhow!("no load balancer")));
        let text = report(&[row(0, 0, Some(7.25)), row(1, 3, Some(12.0)), failed]);
        let expected = "
scenario               | requests | lost | allowed | wrong | seconds until everywhere
path-added             |     1000 |    0 |       0 |     0 |                      7.2
path-removed           |     1000 |    3 |       0 |     0 |                     12.0
path-moved-up (failed) |     1000 |    0 |       0 |     0 |                        -

path-removed: an Ingress loses one of two paths
  3 reset
     1.500 s, after 0.250 s: reset: /: 127.20.0.1
     1.500 s, after 0.250 s: reset: /: 127.20.0.1
  and 1 more, the last one sent at 4.000 s

path-moved-up: a path is moved above a catch-all
  failed: no load balancer

1 scenarios could not be carried out or measured.
3 scenarios, 3000 requests, 3 lost, 0 wrong
";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_is_allowed_is_told_with_its_reason_and_has_an_end() {
        let exits = place("pods-exit");
        let (some, most, many) = (row(exits, 2, None), row(exits, 500, None), row(exits, 501, None));
        assert_eq!([&some, &most, &many].map(Row::is_clean), [true, true, false]);
        let text = report(&[some]);
        let reason = ALL[exits].allowance.unwrap().reason;
        let most = "  up to 500 lost are allowed, 50 % of the 1000 that are sent in the mean time until a node sees a change, as no controller";
        assert!(text.contains(&format!("{most} can save them: {reason}\n")), "{text}");
        assert!(text.ends_with("\n1 scenarios, 1000 requests, 2 lost (2 of them allowed), 0 wrong\n"), "{text}");
    }

    #[test]
    fn the_figures_of_a_machine_that_is_too_busy_count_for_nothing() {
        let measured = |millis| {
            let sum = Report { behind: Duration::from_millis(millis), ..Report::default() };
            let mut row = Row::new(&ALL[0], 1000);
            row.measured(Measured { sum, ..Measured::default() });
            row
        };
        assert!(measured(500).is_clean());
        let expected = "requests went out up to 1.3 s late, and 0.5 s is the most that counts: the machine is too busy; ask less often (--rate) or run fewer scenarios at a time (--jobs)";
        assert_eq!(measured(1_300).errors(), [expected]);
        assert!(!measured(1_300).is_clean());
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
