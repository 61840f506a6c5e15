//! The permissions that the chart gives the controller in the cluster: no more than aws-load-balancer-controller's own RBAC, and no
//! more than it uses. The conformance cases run with them, and the API server's audit log shows the requests.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use e2e::lab::cluster::{documents, items, text};
use e2e::lab::helm::Helm;
use e2e::lab::{Lab, wait_until, workspace};
use serde_json::{Value, json};

use crate::chart::{CHART, helm, rendered};
use crate::support::{SOON, Stage, run};

const RELEASE: &str = "albatross";
const SERVICE_ACCOUNT: &str = "albatross";
const NAMESPACE: &str = "kube-system";

/// The permissions that the conformance cases do not need and the controller has all the same, with the reason.
const NOT_IN_CASES: &[(&str, &str)] = &[
    ("ingressclassparams.elbv2.k8s.aws get", "parameters that a class names and that seem to be gone are asked for"),
    ("namespaces get", "a namespace that class parameters select by its labels and that seems to be gone is asked for"),
    ("pods/status patch", "readiness gates, which no pod of the cases has"),
    (
        "gateways.gateway.networking.k8s.io list",
        "asked for where there is a class of aws-load-balancer-controller's, to say that it is not served",
    ),
];

/// The permissions of aws-load-balancer-controller's ClusterRole and Role that concern Ingresses, Services and bindings: a
/// line for each kind of object. The names of the Role's objects are left out.
const THEIRS: &str = "
configmaps create delete get update
endpoints get list watch
endpointslices.discovery.k8s.io get list watch
events create patch
gatewayclasses.gateway.networking.k8s.io list
gateways.gateway.networking.k8s.io list
globalaccelerators.aga.k8s.aws list
ingressclasses.networking.k8s.io get list watch
ingressclassparams.elbv2.k8s.aws get list watch
ingresses.networking.k8s.io get list patch update watch
ingresses/status.networking.k8s.io patch update
leases.coordination.k8s.io create get patch update
namespaces get list watch
nodes get list watch
pods get list watch
pods/status patch update
services get list patch update watch
services/status patch update
targetgroupbindings.elbv2.k8s.aws create delete get list patch update watch
targetgroupbindings/status.elbv2.k8s.aws patch update
";

/// A kind of object and a verb, as `ingresses/status.networking.k8s.io patch`.
fn right(group: &str, resource: &str, verb: &str) -> String {
    let dot = if group.is_empty() { "" } else { "." };
    format!("{resource}{dot}{group} {verb}")
}

/// All that roles among the objects allow.
fn granted(objects: &[Value]) -> BTreeSet<String> {
    let roles = objects.iter().filter(|object| matches!(text(object, "/kind"), "ClusterRole" | "Role"));
    let mut rights = BTreeSet::new();
    for rule in roles.flat_map(|role| items(role, "/rules")) {
        let list = |field: &str| items(rule, field).iter().filter_map(Value::as_str);
        for group in list("/apiGroups") {
            for resource in list("/resources") {
                rights.extend(list("/verbs").map(|verb| right(group, resource, verb)));
            }
        }
    }
    rights
}

fn theirs() -> BTreeSet<String> {
    let lines = THEIRS.lines().filter_map(|line| line.split_once(' '));
    lines.flat_map(|(kind, verbs)| verbs.split(' ').map(move |verb| format!("{kind} {verb}"))).collect()
}

/// The rules of a role, without the names that differ between installations.
fn rules(objects: &[Value], kind: &str) -> Result<Value> {
    let role = objects.iter().find(|object| text(object, "/kind") == kind).with_context(|| format!("no {kind}"))?;
    Ok(role["rules"].clone())
}

#[test]
fn rights_are_those_of_config_rbac_and_of_the_other_controller_at_most() {
    run(async {
        let helm = helm()?;
        let chart = rendered(&helm, &json!({"clusterName": "demo"}))?;
        let mut files = Vec::new();
        for file in ["cluster_role", "cluster_role_binding", "role", "role_binding", "service_account"] {
            let path = workspace().join(format!("config/rbac/{file}.yaml"));
            files.extend(documents(&fs::read_to_string(path)?)?);
        }
        for kind in ["ClusterRole", "Role"] {
            assert_eq!(rules(&chart, kind)?, rules(&files, kind)?, "{kind} of the chart, and of config/rbac");
        }
        let wider = |values: Value| -> Result<Vec<String>> {
            Ok(granted(&rendered(&helm, &values)?).difference(&theirs()).cloned().collect())
        };
        // What the log names as not served has to be seen; the other gets it by name.
        let seen = "albtargetcontrolconfigs.elbv2.k8s.aws list";
        assert_eq!(wider(json!({"clusterName": "demo"}))?, [seen]);
        // The permissions that both charts give on request.
        let secrets = json!({"clusterName": "demo", "clusterSecretsPermissions": {"allowAllSecrets": true}});
        assert_eq!(wider(secrets)?, [seen, "secrets get", "secrets list", "secrets watch"]);
        // The certificate is the controller's to keep, where the other chart makes it. All of it is for objects by their
        // names, and the Secret is in the controller's own namespace.
        let webhooks = json!({"clusterName": "demo", "webhooks": {"enabled": true}});
        assert_eq!(
            wider(webhooks.clone())?,
            [
                seen,
                "mutatingwebhookconfigurations.admissionregistration.k8s.io get",
                "mutatingwebhookconfigurations.admissionregistration.k8s.io patch",
                "secrets get",
                "secrets update",
                "validatingwebhookconfigurations.admissionregistration.k8s.io get",
                "validatingwebhookconfigurations.admissionregistration.k8s.io patch",
            ]
        );
        let objects = rendered(&helm, &webhooks)?;
        for (kind, resource, names) in [
            ("ClusterRole", "mutatingwebhookconfigurations", json!(["albatross-webhook"])),
            ("Role", "secrets", json!(["albatross-certificate"])),
        ] {
            let rules = rules(&objects, kind)?;
            let of_it = items(&rules, "").iter().filter(|rule| items(rule, "/resources").contains(&resource.into()));
            let all: Vec<&Value> = of_it.collect();
            ensure!(all.len() == 1 && all[0]["resourceNames"] == names, "{resource}: {all:?}");
        }
        Ok(())
    });
}

/// The controller's own account in a lab, as the chart makes it.
pub(crate) struct Account {
    helm: Helm,
    values: Value,
    granted: BTreeSet<String>,
    /// A kubeconfig file of it.
    pub kubeconfig: PathBuf,
}

impl Account {
    /// Installs the chart, whose IngressClass the lab has made itself and whose pods are not run.
    pub(crate) async fn install(lab: &Lab, webhooks: bool) -> Result<Self> {
        let values = json!({
            "clusterName": "lab", "createIngressClassResource": false, "replicaCount": 0,
            "webhooks": {"enabled": webhooks},
        });
        let helm = helm()?;
        let granted = granted(&rendered(&helm, &values)?);
        let mut account = Self { helm, values, granted, kubeconfig: PathBuf::new() };
        account.run_helm(lab, &["install", RELEASE, CHART], Some(&account.values))?;
        account.kubeconfig = lab.kubeconfig_of(NAMESPACE, SERVICE_ACCOUNT).await?;
        Ok(account)
    }

    fn run_helm(&self, lab: &Lab, arguments: &[&str], values: Option<&Value>) -> Result<()> {
        let kubeconfig = format!("--kubeconfig={}", lab.kubeconfig.display());
        let namespace = format!("--namespace={NAMESPACE}");
        let said = self.helm.run(&[arguments, &[&namespace, &kubeconfig]].concat(), values)?;
        ensure!(said.success, "helm {arguments:?}: {}", said.errors);
        Ok(())
    }

    /// Lets it read a Secret, as docs/operations.md says.
    pub(crate) async fn may_read(&self, lab: &Lab, namespace: &str, secret: &str) -> Result<()> {
        let role = |kind: &str| {
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": kind,
                "metadata": {"name": "albatross-oidc", "namespace": namespace},
            })
        };
        let (mut role, mut binding) = (role("Role"), role("RoleBinding"));
        role["rules"] = json!([
            {"apiGroups": [""], "resources": ["secrets"], "resourceNames": [secret], "verbs": ["get", "list", "watch"]}
        ]);
        binding["roleRef"] = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "albatross-oidc"});
        binding["subjects"] = json!([{"kind": "ServiceAccount", "name": SERVICE_ACCOUNT, "namespace": NAMESPACE}]);
        lab.cluster.namespace(namespace).await?;
        lab.cluster.apply(&[role, binding]).await
    }

    /// Fails when any request of the controller was denied. Returns its requests.
    pub(crate) fn used(&self, lab: &Lab) -> Result<BTreeSet<String>> {
        let user = format!("system:serviceaccount:{NAMESPACE}:{SERVICE_ACCOUNT}");
        let events = lab.audit()?;
        let (mut used, mut denied) = (BTreeSet::new(), BTreeSet::new());
        for event in events.iter().filter(|event| text(event, "/user/username") == user) {
            let field = |name: &str| text(event, &format!("/objectRef/{name}"));
            let resource = match field("subresource") {
                "" => field("resource").to_owned(),
                subresource => format!("{}/{subresource}", field("resource")),
            };
            let used_right = right(field("apiGroup"), &resource, text(event, "/verb"));
            if event["responseStatus"]["code"] == 403 {
                denied.insert(format!("{used_right} {}/{}", field("namespace"), field("name")));
            }
            if !resource.is_empty() {
                used.insert(used_right);
            }
        }
        ensure!(denied.is_empty(), "denied: {denied:#?}");
        ensure!(!used.is_empty(), "the audit log has nothing of {user}");
        Ok(used)
    }

    /// Fails when the controller, after all that it does, has a right without use and without a reason, or with a reason
    /// and in use.
    pub(crate) fn has_no_more_than_it_needs(&self, used: &BTreeSet<String>) -> Result<()> {
        let argued: BTreeSet<String> = NOT_IN_CASES.iter().map(|(right, _)| (*right).to_owned()).collect();
        let unused: BTreeSet<String> = self.granted.difference(used).cloned().collect();
        let (without_reason, in_use) = (unused.difference(&argued), argued.difference(&unused));
        let (without_reason, in_use): (Vec<_>, Vec<_>) = (without_reason.collect(), in_use.collect());
        ensure!(without_reason.is_empty(), "granted, not used, and no reason given: {without_reason:#?}");
        ensure!(in_use.is_empty(), "a reason is given for what is in use, or not granted: {in_use:#?}");
        Ok(())
    }
}

/// With webhooks the controller keeps its certificate by the rights of the chart, and an upgrade leaves it.
#[test]
fn with_webhooks_it_keeps_its_certificate() {
    run(async {
        let mut stage = Stage::without_controller().await?;
        let mut account = Account::install(&stage, true).await?;
        let objects = rendered(&account.helm, &account.values)?;
        let deployment =
            objects.iter().find(|object| text(object, "/kind") == "Deployment").context("no Deployment")?;
        let given = items(deployment, "/spec/template/spec/containers/0/args").iter().filter_map(Value::as_str);
        let mut flags: Vec<&str> = given.filter(|flag| flag.starts_with("--webhook-")).collect();
        let kubeconfig = format!("--kubeconfig={}", account.kubeconfig.display());
        flags.extend([kubeconfig.as_str(), "--enable-webhooks"]);
        stage.start_controller(&flags).await?;
        let bundles = async || -> Result<Vec<String>> {
            let mut bundles = Vec::new();
            for kind in ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"] {
                let found =
                    stage.cluster.get("admissionregistration.k8s.io/v1", kind, None, "albatross-webhook").await?;
                let found = found.with_context(|| format!("no {kind}"))?;
                bundles.extend(
                    items(&found, "/webhooks").iter().map(|webhook| text(webhook, "/clientConfig/caBundle").to_owned()),
                );
            }
            Ok(bundles)
        };
        wait_until(SOON, "every webhook to have a caBundle", async || {
            Ok(bundles().await?.iter().all(|bundle| !bundle.is_empty()))
        })
        .await?;
        let before = bundles().await?;
        account.values["additionalLabels"] = json!({"upgraded": "yes"});
        account.values["podMutatorWebhookConfig"] = json!({"failurePolicy": "Fail"});
        account.run_helm(&stage, &["upgrade", RELEASE, CHART], Some(&account.values))?;
        let kind = ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration");
        let upgraded = stage.cluster.get(kind.0, kind.1, None, "albatross-webhook").await?.context("no webhooks")?;
        assert_eq!(text(&upgraded, "/webhooks/0/failurePolicy"), "Fail");
        assert_eq!(bundles().await?, before, "the caBundles after the upgrade");
        stage.stop_controller().await?;
        let used = account.used(&stage)?;
        let of_webhooks = |right: &&String| right.starts_with("secrets") || right.contains("webhookconfigurations");
        let unused: Vec<&String> = account.granted.difference(&used).filter(of_webhooks).collect();
        assert_eq!(unused, [] as [&str; 0]);
        account.run_helm(&stage, &["uninstall", RELEASE], None)?;
        stage.leave_clean();
        Ok(())
    });
}
