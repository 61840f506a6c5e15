//! Measures what clients see of changes: `traffic` runs scenarios on load balancers that answer, with open-loop load.

#![expect(clippy::print_stdout, reason = "the table is for a person")]

mod behind;
pub(crate) mod client;
pub(crate) mod controllers;
mod manifests;
mod published;
mod scenarios;
mod stage;
mod table;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;

use crate::lab::kubelet::{Kubelet, Runs};
use crate::lab::proxy::Faults;
use crate::lab::{Lab, Options, fabric};
use controllers::Controllers;
use scenarios::{ALL, Scenario};
use stage::Stage;

pub use table::{Row, report};

/// The most that a scenario may take.
const SCENARIO_WITHIN: Duration = Duration::from_secs(30 * 60);
/// The time that a new load balancer is not active, beyond the one that its nodes take to see its listeners.
const PROVISIONING: Duration = Duration::from_secs(3);
/// The most that clients wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The options of `traffic`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Run only scenarios whose name is this, or begins with it where it ends in `*`; may be given several times
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// List the scenarios and end
    #[arg(long)]
    list: bool,
    /// Measure another controller: its command, in which {kubeconfig}, {endpoint}, {region}, {vpc} and {cluster} are filled
    #[arg(long, value_name = "COMMAND")]
    controller: Option<String>,
    /// Write all that was found to a file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Requests a second, of all clients of a scenario together
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// The seed of all random numbers
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The shortest and the longest time, in milliseconds, until a load balancer's node sees a change
    #[arg(long, default_value = "1000..10000", value_name = "MIN..MAX", value_parser = range)]
    delay: (u64, u64),
    /// The factor for the seconds of AWS's settings (draining, intervals of checks)
    #[arg(long, default_value_t = 1.0)]
    time_scale: f64,
    /// For how many seconds clients use a load balancer's name that is no longer published
    #[arg(long, default_value_t = 0)]
    dns_ttl: u64,
    /// The number of scenarios that run at a time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    jobs: u32,
    /// Count a request as lost that got no byte of an answer on a kept connection, even where clients would repeat it
    #[arg(long)]
    strict: bool,
}

/// Reads `MIN..MAX`.
fn range(text: &str) -> Result<(u64, u64), String> {
    let ends = text.split_once("..").and_then(|(least, most)| Some((least.parse().ok()?, most.parse().ok()?)));
    match ends {
        Some((least, most)) if least <= most => Ok((least, most)),
        _ => Err("it is to be MIN..MAX, in milliseconds".to_owned()),
    }
}

/// Runs the scenarios, and prints what they found. Returns true if nothing was lost or wrong and none failed.
pub async fn run(program: &Path, arguments: &Arguments) -> Result<bool> {
    let chosen = chosen(&arguments.only)?;
    if arguments.list {
        print!("{}", table::list(&chosen));
        return Ok(true);
    }
    let bench = Bench::start(program, &arguments.settings()).await?;
    println!("The lab's logs are in {} until it ends.", bench.lab.directory().display());
    let rows = bench.measure_all(&chosen).await;
    bench.stop().await?;
    print!("{}", report(&rows));
    if let Some(file) = &arguments.json {
        let text = serde_json::to_string_pretty(&table::json(&rows))?;
        std::fs::write(file, text + "\n").with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(rows.iter().all(Row::is_clean))
}

impl Arguments {
    fn settings(&self) -> Settings {
        Settings {
            controller: self.controller.clone(),
            rate: self.rate,
            seed: self.seed,
            delay_millis: self.delay,
            time_scale: self.time_scale,
            dns_ttl: Duration::from_secs(self.dns_ttl),
            timeout: TIMEOUT,
            jobs: self.jobs as usize,
            strict: self.strict,
        }
    }
}

/// Returns the scenarios of these names; all if there are none.
fn chosen<S: AsRef<str>>(names: &[S]) -> Result<Vec<&'static Scenario>> {
    let fits = |scenario: &Scenario, name: &str| match name.strip_suffix('*') {
        Some(start) => scenario.name.starts_with(start),
        None => scenario.name == name,
    };
    for name in names {
        let name = name.as_ref();
        ensure!(ALL.iter().any(|scenario| fits(scenario, name)), "there is no scenario `{name}`: see --list");
    }
    let is_chosen = |scenario: &&Scenario| names.is_empty() || names.iter().any(|name| fits(scenario, name.as_ref()));
    Ok(ALL.iter().filter(is_chosen).collect())
}

/// The settings of a bench.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The command of the controller that is measured; the project's own if `None`.
    pub controller: Option<String>,
    /// Requests a second, of all clients of a scenario together.
    pub rate: u32,
    /// The seed of all random numbers.
    pub seed: u64,
    /// The shortest and the longest time, in milliseconds, until a load balancer's node sees a change.
    pub delay_millis: (u64, u64),
    /// The factor for the seconds of AWS's settings.
    pub time_scale: f64,
    /// For how long clients use a load balancer's name that is no longer published.
    pub dns_ttl: Duration,
    /// The most that clients wait for an answer.
    pub timeout: Duration,
    /// The number of scenarios that run at a time.
    pub jobs: usize,
    /// True if a request is lost that got no byte of an answer on a kept connection, even where clients would repeat it.
    pub strict: bool,
}

/// The lab with the controller that is measured.
pub struct Bench {
    // Dropped first: the controllers talk to the lab.
    controllers: Arc<Controllers>,
    lab: Arc<Lab>,
    settings: stage::Settings,
    jobs: usize,
    /// The requests that clients send in the mean time until a node sees a change.
    sent_unseen: u64,
}

impl Bench {
    /// Starts the lab, and the controller in it. `program` is the lab's own.
    pub async fn start(program: &Path, settings: &Settings) -> Result<Self> {
        let options = albatross_fabric::node::Options {
            seed: settings.seed,
            delay_millis: settings.delay_millis,
            time_scale: settings.time_scale,
            ..fabric::like_aws()
        };
        let longest_delay = Duration::from_millis(settings.delay_millis.1);
        // A load balancer is active once all of its nodes serve.
        let provisioning = longest_delay + PROVISIONING;
        let emulator = vec![("AWS_PROVISIONING", provisioning.as_secs_f64().to_string())];
        let mut lab = Lab::start(program, Options { traffic: Some(options), emulator, ..Options::default() }).await?;
        let runs = Runs { port_offset: options.port_offset, time_scale: options.time_scale };
        lab.kubelet = Some(Kubelet::start_running(&lab.cluster, &lab.world, &lab.aws, runs));
        let lab = Arc::new(lab);
        let controllers = Arc::new(Controllers::start(lab.clone(), settings.controller.clone()).await?);
        let of_stages = stage::Settings {
            rate: settings.rate,
            seed: settings.seed,
            strict: settings.strict,
            longest_delay,
            dns_ttl: settings.dns_ttl,
            time_scale: settings.time_scale,
            timeout: settings.timeout,
        };
        let (shortest, longest) = settings.delay_millis;
        let sent_unseen = u64::from(settings.rate) * (shortest + longest) / 2 / 1000;
        Ok(Self { controllers, lab, settings: of_stages, jobs: settings.jobs.max(1), sent_unseen })
    }

    /// The lab.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Runs the scenarios of these names, and returns what they found, in their own order.
    pub async fn measure(&self, names: &[&str]) -> Result<Vec<Row>> {
        Ok(self.measure_all(&chosen(names)?).await)
    }

    /// Ends the controller as a rollout does.
    pub async fn stop(&self) -> Result<()> {
        self.controllers.stop().await
    }

    /// Runs the scenarios: first those that may run beside others, then each of the others for itself.
    async fn measure_all(&self, scenarios: &[&'static Scenario]) -> Vec<Row> {
        let (alone, together): (Vec<_>, Vec<_>) =
            scenarios.iter().copied().partition(|scenario| scenario.is_alone || self.jobs == 1);
        let beside = together.into_iter().map(|scenario| self.measure_one(scenario));
        let mut rows: Vec<Row> = futures::stream::iter(beside).buffer_unordered(self.jobs).collect().await;
        for scenario in alone {
            rows.push(self.measure_one(scenario).await);
        }
        rows.sort_by_key(|row| ALL.iter().position(|scenario| scenario.name == row.name()));
        rows
    }

    async fn measure_one(&self, scenario: &'static Scenario) -> Row {
        tracing::info!("{}: {}", scenario.name, scenario.about);
        let mut row = Row::new(scenario, self.sent_unseen);
        let namespace = format!("traffic-{}", scenario.name);
        let (lab, controllers) = (self.lab.clone(), self.controllers.clone());
        match Stage::new(lab, controllers, namespace, self.settings, scenario.disturbance).await {
            Ok(stage) => {
                let result = tokio::time::timeout(SCENARIO_WITHIN, (scenario.run)(&stage)).await;
                row.measured(stage.end().await);
                let result = result.unwrap_or_else(|_| Err(anyhow::anyhow!("it did not end in half an hour")));
                if result.is_err() {
                    row.failed(result);
                    let warnings = stage.warnings().await.unwrap_or_default();
                    warnings.into_iter().for_each(|warning| row.failed(Err(anyhow::anyhow!("Warning on {warning}"))));
                }
                if scenario.is_alone {
                    self.lab.proxy.set_faults(Faults::default());
                    row.failed(self.controllers.reset().await);
                    row.failed(stage.uncordon().await);
                }
                row.failed(stage.clean().await);
            }
            Err(error) => row.failed(Err(error)),
        }
        println!("{}", table::line(&row));
        row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_are_chosen_by_name_and_by_the_start_of_a_name() {
        let names = |only: &[&str]| {
            let only: Vec<String> = only.iter().map(ToString::to_string).collect();
            chosen(&only).map(|chosen| chosen.iter().map(|scenario| scenario.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&["weights", "path-a*"]).unwrap(), ["path-added", "weights"]);
        assert_eq!(names(&[]).unwrap().len(), ALL.len());
        assert_eq!(names(&["path"]).unwrap_err().to_string(), "there is no scenario `path`: see --list");
    }

    #[test]
    fn a_range_has_two_ends_in_order() {
        let refused = Err("it is to be MIN..MAX, in milliseconds".to_owned());
        assert_eq!(range("1..20"), Ok((1, 20)));
        for text in ["20..1", "1", "a..b", ""] {
            assert_eq!(range(text), refused, "{text}");
        }
    }
}
