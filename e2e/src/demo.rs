//! What a person sees of the lab.

use std::path::Path;

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};

use crate::lab::{Lab, Options};

/// Starts a lab and keeps it until Ctrl-C or SIGTERM.
pub async fn lab(program: &Path) -> Result<()> {
    let options = Options { kubelet: true, ..Options::default() };
    let Some(lab) = unless_interrupted(Lab::start(program, options)).await? else {
        return Ok(());
    };
    let world = &lab.world;
    println!("The lab is up.");
    println!("  export KUBECONFIG={}", lab.kubeconfig.display());
    println!(
        "  export AWS_ENDPOINT_URL={} AWS_REGION={} AWS_ACCESS_KEY_ID=x AWS_SECRET_ACCESS_KEY=y",
        lab.proxy.url,
        crate::lab::aws::REGION
    );
    println!("  VPC {}, cluster name {}, logs in {}", world.vpc, crate::lab::world::CLUSTER, lab.directory().display());
    for (domain, arn) in &world.certificates {
        println!("  certificate for {domain}: {arn}");
    }
    println!("Ctrl-C ends it.");
    unless_interrupted(std::future::pending::<Result<()>>()).await?;
    println!("Cleaning up.");
    Ok(())
}

/// Runs to the end, or to Ctrl-C or SIGTERM: then there is no value.
async fn unless_interrupted<T>(work: impl Future<Output = Result<T>>) -> Result<Option<T>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        done = work => done.map(Some),
        _ = terminate.recv() => Ok(None),
        _ = interrupt.recv() => Ok(None),
    }
}

/// The demo.
pub async fn run(program: &Path, once: bool) -> Result<()> {
    let options = Options { kubelet: true, ..Options::default() };
    let lab = Lab::start(program, options).await?;
    let _ = once;
    let snapshot = crate::symbolic::Snapshot::take(&lab).await?;
    println!("{:#}", serde_json::json!(snapshot.stacks));
    println!("{:#}", snapshot.of_namespace(&lab, "default").await?);
    Ok(())
}
