//! The lab: everything listens on loopback, lives in one temporary directory, and is gone when [`Lab`] is dropped.

pub mod aws;
pub mod cluster;
pub mod control_plane;
pub mod controller;
pub mod fabric;
pub mod forward_proxy;
pub mod go;
pub mod helm;
pub mod kubelet;
pub mod moto;
pub mod node_ports;
pub mod policy;
pub mod processes;
pub mod proxy;
pub mod stand_in;
pub mod webhooks;
pub mod world;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use serde_json::{Value, json};
use tokio::time::Instant;

use aws::Aws;
use cluster::Cluster;
use control_plane::ControlPlane;
use controller::Controller;
use fabric::Traffic;
use kubelet::{Kubelet, Runs};
use moto::Moto;
use processes::Processes;
use proxy::Proxy;
use world::World;

/// The file with the authority of the account's certificates, where load balancers answer.
const AUTHORITY: &str = "ca.pem";

/// A control plane, an AWS account with a VPC and three nodes, and a proxy through which a controller talks to it.
pub struct Lab {
    // Fields are dropped in this order: first what talks, then what is talked to, the directory last.
    /// Acts as scheduler and kubelet, if the options request it.
    pub kubelet: Option<Kubelet>,
    /// The load balancers that answer, if the options request them.
    pub traffic: Option<Traffic>,
    /// Counts and disturbs the controller's AWS calls.
    pub proxy: Proxy,
    /// The AWS account's things.
    pub world: World,
    /// AWS without the proxy.
    pub aws: Aws,
    /// The Kubernetes API with all rights.
    pub cluster: Cluster,
    /// A kubeconfig file for the cluster.
    pub kubeconfig: PathBuf,
    program: PathBuf,
    control_plane: ControlPlane,
    moto: Moto,
    processes: Processes,
}

/// The options of a lab.
#[derive(Clone, Default)]
pub struct Options {
    /// Run the stand-in for scheduler and kubelet. Without it, pods are as their manifests say. Pods run only with `traffic`.
    pub kubelet: bool,
    /// Settings of the emulator, as `moto_aws.py` lists them.
    pub emulator: Vec<(&'static str, String)>,
    /// Run the load balancers, with these settings. Without it, nothing answers, and the emulator alone says how healthy
    /// targets are.
    pub traffic: Option<albatross_fabric::node::Options>,
}

impl Lab {
    /// Starts a lab with an `alb` IngressClass and the project's custom resource definitions. `program` is the lab's own
    /// program: it runs as guard and, unless `ALBATROSS_BIN` names another, as the controller.
    pub async fn start(program: &Path, options: Options) -> Result<Self> {
        // Fails only when a provider is installed already, which is as good.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let cache = cache_directory(program)?;
        let processes = Processes::start(program)?;
        let settings: Vec<_> = options.emulator.iter().map(|(name, value)| (*name, value.as_str())).collect();
        tracing::info!("starting etcd, kube-apiserver, kube-controller-manager and moto");
        let ((control_plane, cluster), moto) =
            tokio::try_join!(ControlPlane::start(&processes, &cache), Moto::start(&processes, &cache, &settings))?;
        let proxy = Proxy::start(&moto.url).await?;
        let aws = Aws::new(&moto.url);
        tracing::info!("making a VPC with subnets, certificates and three nodes");
        let world = World::make(&aws, 3).await?;
        cluster.apply(&world.node_objects()).await?;
        for node in &world.nodes {
            // The API server taints a new node until a kubelet reports.
            cluster.merge("v1", "Node", None, &node.name, &json!({"spec": {"taints": null}})).await?;
        }
        cluster.install_custom_resource_definitions(&custom_resource_definitions()).await?;
        cluster
            .apply(&[json!({
                "apiVersion": "networking.k8s.io/v1",
                "kind": "IngressClass",
                "metadata": {"name": "alb"},
                "spec": {"controller": "ingress.k8s.aws/alb"},
            })])
            .await?;
        let traffic = match options.traffic {
            Some(settings) => Some(Traffic::start(&moto.url, settings).await?),
            None => None,
        };
        if let Some(traffic) = &traffic {
            std::fs::write(processes.directory().join(AUTHORITY), &traffic.authority)?;
        }
        let kubelet = options.kubelet.then(|| match options.traffic {
            None => Kubelet::start(&cluster, &world, &aws),
            Some(settings) => {
                let runs = Runs { port_offset: settings.port_offset, time_scale: settings.time_scale };
                Kubelet::start_running(&cluster, &world, &aws, runs)
            }
        });
        Ok(Self {
            kubelet,
            traffic,
            proxy,
            world,
            aws,
            cluster,
            kubeconfig: control_plane.kubeconfig.clone(),
            program: program.to_owned(),
            control_plane,
            moto,
            processes,
        })
    }

    /// Makes the emulator of AWS tell lies from now on, as `moto_aws.py` lists them; none of `{}`.
    pub async fn lie(&self, lies: &Value) -> Result<()> {
        self.moto.lie(lies).await
    }

    /// Fails when a program of the control plane or the emulator has ended.
    pub fn check_running(&self) -> Result<()> {
        self.control_plane.check_running()?;
        self.moto.check_running()
    }

    /// The lab's directory, with the logs.
    pub fn directory(&self) -> &Path {
        self.processes.directory()
    }

    /// Returns the file with the certificate, in PEM, of the authority of the account's certificates. It is there where load
    /// balancers answer.
    pub fn authority_file(&self) -> PathBuf {
        self.directory().join(AUTHORITY)
    }

    /// Starts the controller under test. It appends to the same log each time.
    pub fn controller(&self, extra_flags: &[&str]) -> Result<Controller> {
        Controller::start(self, extra_flags)
    }

    /// [`Self::controller`] with these variables in its environment in the place of the lab's, so that it may have no
    /// credentials, region or endpoint.
    pub fn controller_in(&self, environment: &[(&str, &str)], extra_flags: &[&str]) -> Result<Controller> {
        Controller::start_in(self, environment, extra_flags)
    }

    /// Lets only these roles be assumed from now on: `{ARN: external id or null}`.
    pub async fn trust_roles(&self, roles: &Value) -> Result<()> {
        self.moto.trust_roles(roles).await
    }

    /// The clients of another account, in a role of it.
    pub async fn aws_in_role(&self, arn: &str) -> Result<Aws> {
        Aws::in_role(&self.moto.url, arn).await
    }

    /// Starts a proxy of its own in front of AWS, for a second controller.
    pub async fn another_proxy(&self) -> Result<Proxy> {
        Proxy::start(&self.moto.url).await
    }

    /// Starts another program, whose output is appended to `NAME.log` in the lab's directory.
    pub fn spawn(
        &self,
        name: &str,
        program: &Path,
        arguments: &[String],
        environment: &[(&str, &str)],
    ) -> Result<processes::Process> {
        self.processes.spawn(name, program, arguments, environment)
    }

    /// Has the emulator report these healths of targets: `{ARN: [{id, port, state, reason, description}]}`. From the first
    /// time on, other registered targets are `initial`.
    pub async fn report_health(&self, healths: &Value) -> Result<()> {
        self.moto.report_health(healths).await
    }

    /// The end of the controller's log.
    pub fn controller_log(&self, lines: usize) -> String {
        processes::tail(&self.directory().join(format!("{}.log", controller::NAME)), lines)
    }

    /// A kubeconfig file of a ServiceAccount, with a token that the API server issues for it.
    pub async fn kubeconfig_of(&self, namespace: &str, service_account: &str) -> Result<PathBuf> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{service_account}/token");
        let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
        let request = hyper::Request::post(path).header("content-type", "application/json");
        let answer: Value = self.cluster.client.request(request.body(serde_json::to_vec(&body)?)?).await?;
        let mut kubeconfig: Value = serde_json::from_slice(&std::fs::read(&self.kubeconfig)?)?;
        let user = kubeconfig.pointer_mut("/users/0/user").context("a kubeconfig without a user")?;
        *user = json!({"token": answer.pointer("/status/token")});
        let file = self.directory().join(format!("kubeconfig-{namespace}-{service_account}"));
        std::fs::write(&file, kubeconfig.to_string())?;
        Ok(file)
    }

    /// Returns the requests of ServiceAccounts to the API server since the lab began, as audit events.
    pub fn audit(&self) -> Result<Vec<Value>> {
        let log = std::fs::read_to_string(self.directory().join(control_plane::AUDIT_LOG))?;
        log.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    /// Waits until the controller has made no AWS call for `quiet`.
    pub async fn settle(&self, quiet: Duration, deadline: Duration) -> Result<()> {
        let mut last = (self.proxy.counts().total, Instant::now());
        wait_until(deadline, "the AWS calls to stop", async || {
            let total = self.proxy.counts().total;
            if total != last.0 {
                last = (total, Instant::now());
            }
            Ok(last.1.elapsed() >= quiet)
        })
        .await
    }
}

/// The custom resource definitions of the checkout, unless `ALBATROSS_CRDS` names another folder.
fn custom_resource_definitions() -> PathBuf {
    std::env::var_os("ALBATROSS_CRDS").map_or_else(|| workspace().join("config/crd"), PathBuf::from)
}

/// The checkout that this program was built from.
pub fn workspace() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_owned()
}

/// Returns the directory of files that take long to make: `lab` in the target directory that contains `program`.
pub fn cache_directory(program: &Path) -> Result<PathBuf> {
    let target = program.parent().and_then(Path::parent);
    Ok(target.with_context(|| format!("{} is in no target directory", program.display()))?.join("lab"))
}

/// Calls `condition` until it answers with a value, for `deadline` at most. An error counts as "not yet" and is reported when
/// the time is up; only [`processes::Ended`] ends the wait at once.
pub async fn wait_for<T>(
    deadline: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        let why = match condition().await {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => None,
            Err(error) if error.is::<processes::Ended>() => return Err(error),
            Err(error) => Some(error),
        };
        if Instant::now() >= end {
            let message = format!("waited {} s for {what}", deadline.as_secs());
            return Err(why.map_or_else(|| anyhow!(message.clone()), |why| why.context(message.clone())));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// [`wait_for`] a condition to hold.
pub async fn wait_until(
    deadline: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> Result<bool>,
) -> Result<()> {
    wait_for(deadline, what, async || Ok(condition().await?.then_some(()))).await
}
