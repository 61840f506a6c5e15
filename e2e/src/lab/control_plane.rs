//! A Kubernetes control plane: etcd, kube-apiserver and the part of kube-controller-manager that load balancing needs.
//! No scheduler and no kubelet: [`super::kubelet`] plays them.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::json;
use tokio::net::TcpStream;

use super::cluster::Cluster;
use super::go::GoProgram;
use super::processes::{Process, Processes, free_ports};
use super::wait_until;

const LINKED: GoProgram = GoProgram {
    name: "controlplane",
    what: "the lab's Kubernetes control plane",
    otherwise: ", or set KUBEBUILDER_ASSETS to a folder with etcd, kube-apiserver and kube-controller-manager",
    sources: &[
        ("go.mod", include_str!("../../controlplane/go.mod")),
        ("go.sum", include_str!("../../controlplane/go.sum")),
        ("main.go", include_str!("../../controlplane/main.go")),
    ],
    module: "k8s.io/kubernetes",
    package: ".",
};
/// By the names that every version knows: newer ones have them as aliases.
const CONTROLLERS: &str = "endpoint,endpointslice,endpointslicemirroring,namespace,garbagecollector,deployment,replicaset,statefulset,job,ttl-after-finished,disruption,serviceaccount,root-ca-cert-publisher";
/// Where an offset of 10,000 is added, the highest one is still a port.
const NODE_PORTS: &str = "10000-55000";
const TOKEN: &str = "admintoken";
/// The audit policy: only requests of ServiceAccounts are recorded, neither the lab's nor those of Kubernetes' own parts.
const AUDIT_POLICY: &str = r#"{
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "userGroups": ["system:serviceaccounts"]}, {"level": "None"}]
}"#;

/// Returns the version of Kubernetes.
pub(super) fn version() -> &'static str {
    LINKED.version()
}

/// The file with the requests of ServiceAccounts, a line of JSON each.
pub(super) const AUDIT_LOG: &str = "audit.log";

/// The location of the control plane's programs.
enum Programs {
    /// A folder with `etcd`, `kube-apiserver` and `kube-controller-manager`, named by KUBEBUILDER_ASSETS.
    Assets(PathBuf),
    /// One program whose first argument says which of them it is to be, built from `e2e/controlplane`.
    Linked(PathBuf),
}

impl Programs {
    /// Finds the programs, or builds them once into `cache`.
    fn find(cache: &Path) -> Result<Self> {
        if let Some(assets) = std::env::var_os("KUBEBUILDER_ASSETS") {
            let assets = PathBuf::from(assets);
            for name in ["etcd", "kube-apiserver", "kube-controller-manager"] {
                let program = assets.join(name);
                ensure!(
                    program.is_file(),
                    "KUBEBUILDER_ASSETS is set, but {} is missing: put it there, or unset KUBEBUILDER_ASSETS to have the control plane built with Go",
                    program.display()
                );
            }
            return Ok(Self::Assets(assets));
        }
        let version = format!("-X k8s.io/component-base/version.gitVersion={}", LINKED.version());
        Ok(Self::Linked(LINKED.build(cache, &version)?))
    }

    fn spawn(&self, processes: &Processes, name: &str, arguments: Vec<OsString>) -> Result<Process> {
        match self {
            Self::Assets(folder) => processes.spawn(name, &folder.join(name), arguments, &[]),
            Self::Linked(program) => {
                let arguments = std::iter::once(OsString::from(name)).chain(arguments);
                processes.spawn(name, program, arguments, &[])
            }
        }
    }
}

/// A running control plane. Dropping it ends its processes.
pub struct ControlPlane {
    /// Access to it with all rights.
    pub kubeconfig: PathBuf,
    // In the order in which they are dropped: clients before what they talk to.
    processes: Mutex<Vec<Process>>,
}

impl ControlPlane {
    /// Starts it on free loopback ports and waits until it serves. Built programs are kept in `cache`.
    pub async fn start(processes: &Processes, cache: &Path) -> Result<(Self, Cluster)> {
        let cache = cache.to_owned();
        let programs = tokio::task::spawn_blocking(move || Programs::find(&cache)).await??;
        let directory = processes.directory();
        let [etcd_port, peer_port, api_port, manager_port] = free_ports()?;
        let kubeconfig = directory.join("kubeconfig");
        write_secrets(directory)?;
        let certificates = directory.join("certificates");
        let authority = certificates.join("apiserver.crt");
        fs::write(&kubeconfig, kubeconfig_text(api_port, &authority))?;

        let etcd_url = format!("http://127.0.0.1:{etcd_port}");
        let mut arguments = Arguments::default();
        arguments.path("--data-dir", &directory.join("etcd"));
        arguments.text("--listen-client-urls", &etcd_url).text("--advertise-client-urls", &etcd_url);
        arguments.text("--listen-peer-urls", &format!("http://127.0.0.1:{peer_port}"));
        arguments.flag("--unsafe-no-fsync").text("--log-level", "error");
        let mut etcd = programs.spawn(processes, "etcd", arguments.0)?;
        wait_until(Duration::from_secs(30), "etcd to listen", async || {
            etcd.check_running()?;
            Ok(TcpStream::connect(("127.0.0.1", etcd_port)).await.is_ok())
        })
        .await?;

        let mut arguments = Arguments::default();
        arguments.text("--etcd-servers", &etcd_url);
        arguments.path("--service-account-key-file", &directory.join("service-account.pub"));
        arguments.path("--service-account-signing-key-file", &directory.join("service-account.key"));
        arguments.text("--service-account-issuer", "https://kubernetes.default.svc");
        arguments.path("--token-auth-file", &directory.join("tokens.csv")).text("--authorization-mode", "RBAC");
        arguments
            .text("--service-cluster-ip-range", "10.96.0.0/14,fd00:10:96::/112")
            .text("--service-node-port-range", NODE_PORTS);
        arguments.text("--secure-port", &api_port.to_string()).text("--bind-address", "127.0.0.1");
        arguments.path("--cert-dir", &certificates).flag("--allow-privileged");
        arguments.text("--disable-admission-plugins", "ServiceAccount");
        let policy = directory.join("audit-policy.json");
        fs::write(&policy, AUDIT_POLICY)?;
        arguments.path("--audit-policy-file", &policy).path("--audit-log-path", &directory.join(AUDIT_LOG));
        let mut server = programs.spawn(processes, "kube-apiserver", arguments.0)?;
        // The server makes its own certificate and authority, which the client trusts.
        wait_until(Duration::from_secs(30), "kube-apiserver's certificate", async || {
            server.check_running()?;
            Ok(fs::read_to_string(&authority)?.trim_end().ends_with("-----END CERTIFICATE-----"))
        })
        .await?;
        let cluster = Cluster::connect(&kubeconfig).await?;
        wait_until(Duration::from_secs(90), "kube-apiserver to be ready", async || {
            server.check_running()?;
            cluster.ready().await
        })
        .await
        .with_context(|| format!("kube-apiserver's log ends:\n{}", server.log_tail(20)))?;

        let mut arguments = Arguments::default();
        arguments.path("--kubeconfig", &kubeconfig).flag("--leader-elect=false");
        arguments.path("--root-ca-file", &authority);
        arguments.text("--controllers", CONTROLLERS).text("--secure-port", &manager_port.to_string());
        arguments.text("--bind-address", "127.0.0.1").path("--cert-dir", &directory.join("manager-certificates"));
        let manager = programs.spawn(processes, "kube-controller-manager", arguments.0)?;

        Ok((Self { kubeconfig, processes: Mutex::new(vec![manager, server, etcd]) }, cluster))
    }

    /// Fails when one of its programs has ended.
    pub fn check_running(&self) -> Result<()> {
        let mut processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
        // What ended first is the reason for the others' end.
        processes.iter_mut().rev().try_for_each(Process::check_running)
    }
}

#[derive(Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    fn text(&mut self, flag: &str, value: &str) -> &mut Self {
        self.0.push(format!("{flag}={value}").into());
        self
    }

    fn path(&mut self, flag: &str, value: &Path) -> &mut Self {
        let mut argument = OsString::from(flag);
        argument.push("=");
        argument.push(value);
        self.0.push(argument);
        self
    }

    fn flag(&mut self, flag: &str) -> &mut Self {
        self.0.push(flag.into());
        self
    }
}

/// The key that signs service account tokens, and the one user.
fn write_secrets(directory: &Path) -> Result<()> {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)?;
    let public: PublicKeyX509Der<'_> = key.public_key().as_der()?;
    let private = pem::encode(&pem::Pem::new("PRIVATE KEY", key.to_pkcs8v1()?.as_ref()));
    fs::write(directory.join("service-account.key"), private)?;
    fs::write(directory.join("service-account.pub"), pem::encode(&pem::Pem::new("PUBLIC KEY", public.as_ref())))?;
    fs::write(directory.join("tokens.csv"), format!("{TOKEN},admin,admin,\"system:masters\"\n"))?;
    Ok(())
}

fn kubeconfig_text(port: u16, authority: &Path) -> String {
    // JSON is YAML, and every client reads it.
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "lab", "cluster": {"server": format!("https://127.0.0.1:{port}"), "certificate-authority": authority}}],
        "users": [{"name": "lab", "user": {"token": TOKEN}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
        "current-context": "lab",
    });
    format!("{config:#}\n")
}
