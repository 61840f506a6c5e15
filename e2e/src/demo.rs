//! The output of the lab for people.

#![expect(clippy::print_stdout, reason = "the lab and the demo show a person what happens")]

mod table;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use crate::lab::aws::REGION;
use crate::lab::cluster::{documents, text};
use crate::lab::proxy::is_read;
use crate::lab::world::CLUSTER;
use crate::lab::{Lab, Options, wait_until, workspace};

const NAMESPACE: &str = "default";
/// The domain whose certificate of the lab takes the place of the one that the examples name.
const DOMAIN: &str = "example.com";
/// The ARNs in the examples.
const CERTIFICATES: [&str; 2] = [
    "/metadata/annotations/alb.ingress.kubernetes.io~1certificate-arn",
    "/metadata/annotations/service.beta.kubernetes.io~1aws-load-balancer-ssl-cert",
];
const DEADLINE: Duration = Duration::from_secs(120);

/// Starts a lab and keeps it until Ctrl-C or SIGTERM.
pub async fn lab(program: &Path) -> Result<()> {
    let options = Options { kubelet: true, ..Options::default() };
    let Some(lab) = unless_interrupted(Lab::start(program, options)).await? else {
        return Ok(());
    };
    println!("The lab is up: cluster {CLUSTER}, VPC {}, logs in {}", lab.world.vpc, lab.directory().display());
    for (domain, arn) in &lab.world.certificates {
        println!("  certificate for {domain}: {arn}");
    }
    println!("\nFor a controller of your own, and for kubectl:\n");
    println!("  export KUBECONFIG={}", lab.kubeconfig.display());
    println!("  export AWS_ENDPOINT_URL={} AWS_REGION={REGION}", lab.proxy.url);
    println!("  export AWS_ACCESS_KEY_ID=x AWS_SECRET_ACCESS_KEY=y AWS_EC2_METADATA_DISABLED=true");
    println!("\nCtrl-C ends it.");
    unless_interrupted(std::future::pending::<Result<()>>()).await?;
    println!("Cleaning up.");
    Ok(())
}

/// Starts a lab and the controller, applies `examples/` and shows what comes of it. Then, with `once`, deletes the Ingresses
/// and ends when everything is gone; else stays until Ctrl-C or SIGTERM.
pub async fn run(program: &Path, once: bool) -> Result<()> {
    // Whichever way this ends, dropping the lab cleans up.
    unless_interrupted(show(program, once)).await?;
    println!("Cleaning up.");
    Ok(())
}

async fn show(program: &Path, once: bool) -> Result<()> {
    println!("Starting a Kubernetes control plane and an AWS emulator on this machine");
    let lab = Lab::start(program, Options { kubelet: true, ..Options::default() }).await?;
    println!("Starting albatross; its log is {}", lab.directory().join("controller.log").display());
    let mut controller = lab.controller(&[])?;
    let started = controller.ready(DEADLINE).await;
    started.with_context(|| format!("albatross's log ends:\n{}", lab.controller_log(20)))?;

    let folder = workspace().join("examples");
    let objects = examples(&folder, &lab)?;
    println!("Applying {}\n\nWhat albatross changes in AWS:", folder.display());
    lab.cluster.apply(&objects).await?;
    let ingresses: Vec<&str> = names(&objects, "Ingress");
    let services: Vec<&str> = load_balanced(&objects).map(|service| text(service, "/metadata/name")).collect();
    let mut reported = 0;
    let served = wait_until(DEADLINE, "the load balancers with healthy targets", async || {
        controller.check_running()?;
        tell_writes(&lab, &mut reported);
        is_served(&lab, &objects).await
    })
    .await;
    served.with_context(|| format!("albatross's log ends:\n{}", lab.controller_log(20)))?;
    lab.settle(Duration::from_secs(1), DEADLINE).await?;
    tell_writes(&lab, &mut reported);

    println!("\n{}", table::of_account(&lab.aws).await?);
    let counts = lab.proxy.counts();
    println!("It took {} AWS calls, {} of them writing.", counts.total, counts.writes);
    if !once {
        println!("\nLook around with kubectl, and see the calls in the log as you change things:\n");
        println!("  export KUBECONFIG={}", lab.kubeconfig.display());
        println!("  kubectl describe ingress {}", ingresses.join(" "));
        println!("  kubectl scale deployment service1 --replicas=3");
        println!("\nCtrl-C ends it. Changes in AWS from here on:");
        loop {
            controller.check_running()?;
            tell_writes(&lab, &mut reported);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    println!("\nDeleting the Ingress and the Service. What albatross changes in AWS:");
    for service in &services {
        lab.cluster.delete("v1", "Service", Some(NAMESPACE), service).await?;
    }
    for ingress in &ingresses {
        lab.cluster.delete("networking.k8s.io/v1", "Ingress", Some(NAMESPACE), ingress).await?;
    }
    let gone = wait_until(DEADLINE, "the Ingress, the Service and all that was made for them to be gone", async || {
        controller.check_running()?;
        tell_writes(&lab, &mut reported);
        is_gone(&lab, &ingresses, &services).await
    })
    .await;
    gone.with_context(|| format!("albatross's log ends:\n{}", lab.controller_log(20)))?;
    println!("\nThe Ingress and the Service are gone, and so is everything that was made for them in AWS.");
    controller.stop().await
}

/// The objects of a folder's YAML files, in the namespace of the demo and with a certificate that the lab has.
fn examples(folder: &Path, lab: &Lab) -> Result<Vec<Value>> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    let certificate = lab.world.certificates.get(DOMAIN).context("the lab has no certificate")?;
    let mut objects = Vec::new();
    for file in files {
        for mut object in documents(&fs::read_to_string(&file)?).with_context(|| file.display().to_string())? {
            for annotation in CERTIFICATES {
                if let Some(arn) = object.pointer_mut(annotation) {
                    *arn = certificate.as_str().into();
                }
            }
            objects.push(object);
        }
    }
    ensure!(!names(&objects, "Ingress").is_empty(), "no Ingress in {}", folder.display());
    Ok(objects)
}

fn names<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a str> {
    let of_kind = objects.iter().filter(|object| text(object, "/kind") == kind);
    of_kind.map(|object| text(object, "/metadata/name")).collect()
}

/// Returns the Services that get a load balancer.
fn load_balanced(objects: &[Value]) -> impl Iterator<Item = &Value> {
    objects.iter().filter(|o| text(o, "/kind") == "Service" && text(o, "/spec/type") == "LoadBalancer")
}

/// Prints the calls that change something and were made since the last time.
fn tell_writes(lab: &Lab, reported: &mut usize) {
    let log = lab.proxy.log();
    for call in log.iter().skip(*reported).filter(|call| !is_read(&call.name)) {
        println!("  {call}");
    }
    *reported = log.len();
}

/// Returns true if each load balancer's object has a host name, and each pod of the Deployments is a healthy target behind each.
async fn is_served(lab: &Lab, objects: &[Value]) -> Result<bool> {
    for ingress in names(objects, "Ingress") {
        let object = lab.cluster.get("networking.k8s.io/v1", "Ingress", Some(NAMESPACE), ingress).await?;
        if object.is_none_or(|object| text(&object, "/status/loadBalancer/ingress/0/hostname").is_empty()) {
            return Ok(false);
        }
    }
    let deployments: Vec<&Value> = objects.iter().filter(|object| text(object, "/kind") == "Deployment").collect();
    let replicas = |object: &Value| object.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1);
    let mut wanted: u64 = deployments.iter().map(|object| replicas(object)).sum();
    for service in load_balanced(objects) {
        let name = text(service, "/metadata/name");
        let object = lab.cluster.get("v1", "Service", Some(NAMESPACE), name).await?;
        if object.is_none_or(|object| text(&object, "/status/loadBalancer/ingress/0/hostname").is_empty()) {
            return Ok(false);
        }
        let app = text(service, "/spec/selector/app");
        let behind = deployments.iter().filter(|object| text(object, "/spec/selector/matchLabels/app") == app);
        let ports = service.pointer("/spec/ports").and_then(Value::as_array).map_or(0, Vec::len);
        wanted += behind.map(|object| replicas(object)).sum::<u64>() * u64::try_from(ports)?;
    }
    let wanted = usize::try_from(wanted)?;
    Ok(table::healthy_targets(&lab.aws).await? >= wanted)
}

async fn is_gone(lab: &Lab, ingresses: &[&str], services: &[&str]) -> Result<bool> {
    for ingress in ingresses {
        if lab.cluster.get("networking.k8s.io/v1", "Ingress", Some(NAMESPACE), ingress).await?.is_some() {
            return Ok(false);
        }
    }
    for service in services {
        if lab.cluster.get("v1", "Service", Some(NAMESPACE), service).await?.is_some() {
            return Ok(false);
        }
    }
    let left: BTreeSet<String> = table::made_by_controller(&lab.aws).await?;
    ensure!(left.is_empty(), "AWS still has {left:?}");
    Ok(true)
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
