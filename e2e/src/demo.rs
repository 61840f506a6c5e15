//! The output of the lab for people.

#![expect(clippy::print_stdout, reason = "the lab and the demo show a person what happens")]

mod figures;
mod outside;
mod route;
mod screen;
mod table;

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use albatross_fabric::load::Resolve;
use albatross_fabric::node::Options as Settings;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::lab::cluster::{documents, items, text};
use crate::lab::controller::Controller;
use crate::lab::fabric::{Traffic, like_aws};
use crate::lab::proxy::is_read;
use crate::lab::{Lab, Options, wait_until, workspace};
use figures::{Figures, RATE};
use route::{Names, Object, Route, quoted};
use screen::Screen;

pub use outside::{Arguments as LabArguments, run as lab};

const NAMESPACE: &str = "default";
/// The domain whose certificate of the lab takes the place of the one that the examples name.
const DOMAIN: &str = "example.com";
/// The ARNs in the examples.
const CERTIFICATES: [&str; 2] = [
    "/metadata/annotations/alb.ingress.kubernetes.io~1certificate-arn",
    "/metadata/annotations/service.beta.kubernetes.io~1aws-load-balancer-ssl-cert",
];
const DEADLINE: Duration = Duration::from_secs(120);
/// Between two looks at the AWS calls, and between two lines of figures on a terminal.
const LOOK: Duration = Duration::from_millis(200);
const REFRESH: Duration = Duration::from_secs(1);

/// The options of `demo`.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Arguments {
    /// Send each request once, check the answers, delete the Ingress and the Service, and end when everything is gone
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    ports: Ports,
}

/// The ports of load balancers, nodes and pods.
#[derive(Clone, Copy, Debug, clap::Args)]
struct Ports {
    /// Added to all ports; by default 0 where programs may use ports below 1024, else 10000
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(..=10_000))]
    port_offset: Option<u16>,
}

impl Ports {
    /// Returns settings with AWS's own times.
    fn settings(self) -> Settings {
        let settings = like_aws();
        Settings { port_offset: self.port_offset.unwrap_or(settings.port_offset), ..settings }
    }
}

/// Starts a lab whose load balancers answer and the controller, applies `examples/` and shows what comes of it. Then, with
/// `once`, sends each request, deletes the Ingresses and ends when everything is gone; else shows what clients notice until
/// Ctrl-C or SIGTERM.
pub async fn run(program: &Path, arguments: &Arguments) -> Result<()> {
    // Whichever way this ends, dropping the lab cleans up.
    unless_interrupted(show(program, arguments)).await?;
    println!("Cleaning up.");
    Ok(())
}

async fn show(program: &Path, arguments: &Arguments) -> Result<()> {
    let mut demo = Demo::start(program, arguments.ports.settings()).await?;
    demo.apply().await?;
    println!("\n{}", table::of_account(&demo.lab.aws).await?);
    let counts = demo.lab.proxy.counts();
    println!("It took {} AWS calls, {} of them writing.", counts.total, counts.writes);
    println!("\nPods of 10.0.A.B are on 127.10.A.B of this machine. Ask the load balancers, in another shell:");
    demo.print_requests(arguments.once).await?;
    if arguments.once { demo.delete().await } else { demo.watch().await }
}

/// A lab with the examples.
struct Demo {
    // Dropped in this order: the controller talks to the lab.
    controller: Controller,
    lab: Arc<Lab>,
    objects: Vec<Value>,
    /// Those among them that have a load balancer.
    balanced: Vec<Object>,
    routes: Vec<Route>,
    names: Names,
    screen: Screen,
    /// The number of AWS calls that were printed, or passed over.
    reported: usize,
}

impl Demo {
    async fn start(program: &Path, settings: Settings) -> Result<Self> {
        println!("Starting a Kubernetes control plane, an AWS emulator and load balancers on this machine");
        let options = Options { kubelet: true, traffic: Some(settings), ..Options::default() };
        let lab = Arc::new(Lab::start(program, options).await?);
        println!("Starting albatross; its log is {}", lab.directory().join("controller.log").display());
        let mut controller = lab.controller(&[])?;
        let started = controller.ready(DEADLINE).await;
        started.with_context(|| format!("albatross's log ends:\n{}", lab.controller_log(20)))?;
        let objects = examples(&workspace().join("examples"), &lab)?;
        let (balanced, routes) = (Object::among(&objects), route::of_objects(&objects, DOMAIN, settings.port_offset)?);
        let (names, screen) = (Names::default(), Screen::stdout());
        Ok(Self { controller, lab, objects, balanced, routes, names, screen, reported: 0 })
    }

    fn traffic(&self) -> Result<&Traffic> {
        self.lab.traffic.as_ref().context("the lab has no load balancers")
    }

    /// Applies the examples, and waits until every node of their load balancers answers.
    async fn apply(&mut self) -> Result<()> {
        let folder = workspace().join("examples");
        println!("Applying {}\n\nWhat albatross changes in AWS:", folder.display());
        self.lab.cluster.apply(&self.objects).await?;
        let wanted = wanted_targets(&self.objects)?;
        wait_until(DEADLINE, "the load balancers to answer", async || {
            self.look()?;
            if !self.names.refresh(&self.lab.cluster, NAMESPACE, &self.balanced).await? {
                return Ok(false);
            }
            let healthy = table::healthy_targets(&self.lab.aws).await?;
            ensure!(healthy >= wanted, "{healthy} of {wanted} targets are healthy");
            self.ask_all().await?;
            Ok(true)
        })
        .await
        .with_context(|| format!("albatross's log ends:\n{}", self.lab.controller_log(20)))?;
        self.lab.settle(Duration::from_secs(1), DEADLINE).await?;
        self.look()
    }

    /// Prints the calls that change something in AWS and were made since the last time. Fails if the controller or a program of
    /// the lab has ended.
    fn look(&mut self) -> Result<()> {
        self.lab.check_running()?;
        self.controller.check_running()?;
        let log = self.lab.proxy.log();
        for call in log.iter().skip(self.reported).filter(|call| !is_read(&call.name)) {
            self.screen.line(&format!("  {call}"));
        }
        self.reported = log.len();
        Ok(())
    }

    /// Sends each request to each node.
    async fn ask_all(&self) -> Result<()> {
        let roots = self.traffic()?.roots()?;
        for route in &self.routes {
            for address in self.addresses(route)? {
                route.checked(&route.ask(address, &roots).await?)?;
            }
        }
        Ok(())
    }

    /// Returns the addresses that DNS has for a route's load balancer.
    fn addresses(&self, route: &Route) -> Result<Vec<Ipv4Addr>> {
        let name = self.names.of(&route.of.to_string());
        let addresses = self.traffic()?.fabric.addresses(&name);
        ensure!(!addresses.is_empty(), "DNS has no address for {name}");
        Ok(addresses)
    }

    /// Prints a command for each request. With `ask`, each is sent here too, and its answer is printed and checked.
    async fn print_requests(&self, ask: bool) -> Result<()> {
        let roots = self.traffic()?.roots()?;
        for route in &self.routes {
            let addresses = self.addresses(route)?;
            let address = *addresses.first().context("no address")?;
            println!("\n  # {}\n  {}", route.about, route.curl(address, &self.lab.authority_file()));
            if ask {
                println!("  {}", route.checked(&route.ask(address, &roots).await?)?);
            }
        }
        Ok(())
    }

    /// Asks all the time, and shows the answers and the AWS calls that change something.
    async fn watch(&mut self) -> Result<()> {
        println!("\nChange things in another shell, and see here what clients notice:\n");
        println!("  export KUBECONFIG={}", quoted(&self.lab.kubeconfig.display().to_string()));
        for deployment in names(&self.objects, "Deployment") {
            println!("  kubectl rollout restart deployment {deployment}");
            println!("  kubectl scale deployment {deployment} --replicas=3");
        }
        for ingress in names(&self.objects, "Ingress") {
            println!("  kubectl edit ingress {ingress}");
            println!("  kubectl describe ingress {ingress}");
        }
        println!("\nCtrl-C ends it. The answers to {RATE} requests a second, and the changes in AWS, from here on:");
        let (lab, names) = (self.lab.clone(), self.names.clone());
        let resolve: Resolve = Arc::new(move |object| {
            lab.traffic.as_ref().map(|traffic| traffic.fabric.addresses(&names.of(object))).unwrap_or_default()
        });
        let mut figures = Figures::start(&self.routes, &resolve, &self.traffic()?.roots()?)?;
        let mut refreshed = Instant::now();
        loop {
            self.look()?;
            if refreshed.elapsed() >= REFRESH {
                refreshed = Instant::now();
                // What cannot be read now is read again, and keeps its name until then.
                let _ = self.names.refresh(&self.lab.cluster, NAMESPACE, &self.balanced).await;
                figures.tell(&mut self.screen);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Deletes what has a load balancer, and waits until all that was made for it is gone.
    async fn delete(mut self) -> Result<()> {
        println!("\nDeleting the Ingress and the Service. What albatross changes in AWS:");
        for object in &self.balanced {
            self.lab.cluster.delete(object.api_version(), object.kind, Some(NAMESPACE), &object.name).await?;
        }
        wait_until(DEADLINE, "the Ingress, the Service and all that was made for them to be gone", async || {
            self.look()?;
            is_gone(&self.lab, &self.balanced).await
        })
        .await
        .with_context(|| format!("albatross's log ends:\n{}", self.lab.controller_log(20)))?;
        println!("\nThe Ingress and the Service are gone, and so is everything that was made for them in AWS.");
        self.controller.stop().await
    }
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

/// Returns how many targets the objects have: each pod of the Deployments behind the Ingress, and behind each port of a
/// Service that has a load balancer.
fn wanted_targets(objects: &[Value]) -> Result<usize> {
    let deployments: Vec<&Value> = objects.iter().filter(|object| text(object, "/kind") == "Deployment").collect();
    let replicas = |object: &Value| object.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1);
    let mut wanted: u64 = deployments.iter().map(|object| replicas(object)).sum();
    for service in objects.iter().filter(|object| text(object, "/spec/type") == "LoadBalancer") {
        let app = text(service, "/spec/selector/app");
        let behind = deployments.iter().filter(|object| text(object, "/spec/selector/matchLabels/app") == app);
        let ports = items(service, "/spec/ports").len();
        wanted += behind.map(|object| replicas(object)).sum::<u64>() * u64::try_from(ports)?;
    }
    Ok(usize::try_from(wanted)?)
}

async fn is_gone(lab: &Lab, balanced: &[Object]) -> Result<bool> {
    for object in balanced {
        if lab.cluster.get(object.api_version(), object.kind, Some(NAMESPACE), &object.name).await?.is_some() {
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
