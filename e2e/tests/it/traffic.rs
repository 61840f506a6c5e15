//! A few scenarios of `traffic`, with little load: changes lose nothing, and wrong orders are found out.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::traffic::{Bench, Row, Settings, report};
use serde_json::json;

use crate::support::{run, turn};

/// Little load, short delays, and AWS's seconds in a quarter of their time.
fn settings() -> Settings {
    Settings {
        controller: None,
        rate: 50,
        seed: 1,
        delay_millis: (100, 500),
        time_scale: 0.25,
        dns_ttl: Duration::ZERO,
        timeout: Duration::from_secs(3),
        jobs: 6,
        strict: false,
    }
}

async fn bench() -> Result<Bench> {
    Bench::start(Path::new(env!("CARGO_BIN_EXE_e2e")), &settings()).await
}

const CHANGES: [&str; 6] =
    ["path-moved-up", "path-widened", "host-renamed", "backend-swapped", "certificate-rotated", "rollout-single"];

#[test]
fn changes_lose_no_request_and_answer_none_wrongly() {
    run(async {
        // Whoever has a lab has the loopback addresses.
        let mut turn = turn().await;
        turn.take();
        let bench = bench().await?;
        let rows = bench.measure(&CHANGES).await?;
        ensure!(rows.len() == CHANGES.len() && rows.iter().all(Row::is_clean), "{}", report(&rows));
        ensure!(rows.iter().all(|row| row.requests() > 300), "{}", report(&rows));
        bench.stop().await
    });
}

/// Returns true if a scenario was carried out, and lost requests or answered them wrongly.
fn is_found_out(row: &Row) -> bool {
    row.errors().is_empty() && row.lost() + row.wrong() > 0
}

#[test]
fn wrong_orders_and_a_missing_wait_are_found_out() {
    run(async {
        let mut turn = turn().await;
        turn.take();
        let bench = bench().await?;
        // As if targets were deregistered, and rules deleted, before those that take their places are there.
        bench.lab().lie(&json!({"hide_new_targets_for": 3, "hide_new_rules_for": 3})).await?;
        let rows = bench.measure(&["path-widened", "rollout-single"]).await?;
        ensure!(rows.len() == 2 && rows.iter().all(is_found_out), "{}", report(&rows));
        // As if nobody waited until the targets of a rule are healthy.
        bench.lab().lie(&json!({"health": "always healthy"})).await?;
        let rows = bench.measure(&["backend-blocked"]).await?;
        ensure!(rows.len() == 1 && rows.iter().all(is_found_out), "{}", report(&rows));
        bench.stop().await
    });
}
