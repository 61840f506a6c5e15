//! Measures how soon the controller acts on pods while it has much to do: `latency` creates many TargetGroupBindings, gives
//! the controller a backlog under AWS's quota of calls, and meanwhile ends pods, or finds their targets healthy.

#![expect(clippy::print_stdout, reason = "the figures are for a person")]

mod departures;
mod field;
mod gates;
mod times;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use serde_json::json;

use crate::lab::{Lab, Options};
use field::Field;

/// The emulator's settings: one load balancer leads to all target groups.
const MOST_TARGET_GROUPS: (&str, &str) = ("AWS_MAX_TARGET_GROUPS", "10000");

/// A measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Case {
    /// Pods end while nothing else is to be done
    Quiet,
    /// Pods end while all Services are edited again and again
    Edit,
    /// Pods end while each binding has another pod to register
    Rollout,
    /// Pods end while a controller that has just started reads the targets of each binding
    Resync,
    /// Many pods end at once
    Burst,
    /// A few pods wait at readiness gates
    Gate,
    /// Each binding has a pod that waits at its readiness gate, and all become healthy at once
    Gates,
}

/// The options of `latency`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// The number of TargetGroupBindings, each with a target group and a Service
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=2000))]
    bindings: u16,
    /// The number of pods of each binding
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=4))]
    pods: u16,
    /// The number of pods that end in each case
    #[arg(long, default_value_t = 120)]
    ends: u16,
    /// The number of pods that end each second
    #[arg(long, default_value_t = 1.0, value_parser = rate)]
    rate: f64,
    /// The number of pods that end at once in the case `burst`
    #[arg(long, default_value_t = 200)]
    burst: u16,
    /// Run only this case; may be given several times
    #[arg(long, value_enum, value_name = "CASE")]
    only: Vec<Case>,
    /// Write all figures to a file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate: &f64| rate.is_finite() && *rate > 0.0);
    rate.ok_or_else(|| "it is to be a number above 0".to_owned())
}

/// The figures of a case.
struct Row {
    text: String,
    json: serde_json::Value,
    /// True if no call was later than the quota of AWS allows, but for a second.
    is_soon: bool,
}

/// Runs the cases, and prints their figures. Returns true if each was as soon as AWS's quota allows.
pub async fn run(program: &Path, arguments: &Arguments) -> Result<bool> {
    let (name, most) = MOST_TARGET_GROUPS;
    let options = Options { emulator: vec![(name, most.to_owned())], ..Options::default() };
    let lab = Lab::start(program, options).await?;
    println!("The lab's logs are in {} until it ends.", lab.directory().display());
    let field = Field::start(lab, usize::from(arguments.bindings), usize::from(arguments.pods)).await?;
    let mut order = departures::Order::new(&field);
    let mut rows = Vec::new();
    for case in Case::value_variants() {
        if !arguments.only.is_empty() && !arguments.only.contains(case) {
            continue;
        }
        let name = case.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        tracing::info!("{name}");
        let row = match case {
            Case::Gate => gates::few(&field).await,
            Case::Gates => gates::all(&field).await,
            _ => departures::measure(&field, *case, &mut order, arguments).await,
        };
        let row =
            row.with_context(|| format!("{name}; the controller's log ends:\n{}", field.lab.controller_log(10)))?;
        println!("{name}\n{}", row.text);
        rows.push((name, row));
    }
    field.stop_controller().await?;
    if let Some(file) = &arguments.json {
        let figures: serde_json::Map<_, _> = rows.iter().map(|(name, row)| (name.clone(), row.json.clone())).collect();
        let bindings = usize::from(arguments.bindings);
        let text = serde_json::to_string_pretty(&json!({"bindings": bindings, "cases": figures}))?;
        std::fs::write(file, text + "\n").with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(rows.iter().all(|(_, row)| row.is_soon))
}
