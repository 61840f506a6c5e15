//! The commands of docs/migrate.md, as they stand there: an installation of aws-load-balancer-controller is taken over, and
//! comes back. Helm is Helm; what a command of kubectl does to the cluster, and what kubelet does then, is done here.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, bail, ensure};
use e2e::lab::cluster::{documents, items, text};
use e2e::lab::controller::Controller;
use e2e::lab::helm::Helm;
use e2e::lab::{wait_until, workspace};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::chart::helm;
use crate::support::{SOON, Stage, gone, run};

const NAMESPACE: &str = "kube-system";
const THEIRS: &str = "aws-load-balancer-controller";
const LEASE: &str = "aws-load-balancer-controller-leader";
const IMAGE: &str = "example.com/albatross";

/// A stand-in for the chart of aws-load-balancer-controller, with the objects that it makes of its default values, as far as
/// they matter when it gives way. Its webhooks refuse what they are asked about while none of its pods answers.
pub(crate) fn other_chart(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder.join("templates"))?;
    fs::write(
        folder.join("Chart.yaml"),
        "{apiVersion: v2, name: aws-load-balancer-controller, version: 3.5.0, appVersion: v3.5.0}\n",
    )?;
    fs::write(
        folder.join("values.yaml"),
        "{image: {repository: public.ecr.aws/eks/aws-load-balancer-controller, tag: v3.5.0}, ingressClass: taken-over, replicaCount: 0}\n",
    )?;
    fs::write(
        folder.join("templates/_helpers.tpl"),
        r#"{{- define "labels" -}}
{helm.sh/chart: aws-load-balancer-controller-3.5.0, app.kubernetes.io/name: aws-load-balancer-controller, app.kubernetes.io/instance: {{ .Release.Name }}, app.kubernetes.io/version: v3.5.0, app.kubernetes.io/managed-by: Helm}
{{- end -}}
{{- define "selector" -}}
{app.kubernetes.io/name: aws-load-balancer-controller, app.kubernetes.io/instance: {{ .Release.Name }}}
{{- end -}}
"#,
    )?;
    fs::write(
        folder.join("templates/all.yaml"),
        r#"
{apiVersion: elbv2.k8s.aws/v1beta1, kind: IngressClassParams, metadata: {name: {{ .Values.ingressClass }}, labels: {{ include "labels" . }}}}
---
{apiVersion: networking.k8s.io/v1, kind: IngressClass, metadata: {name: {{ .Values.ingressClass }}, labels: {{ include "labels" . }}}, spec: {controller: ingress.k8s.aws/alb}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: aws-load-balancer-controller, namespace: {{ .Release.Namespace }}, labels: {{ include "labels" . }}, annotations: {eks.amazonaws.com/role-arn: "arn:aws:iam::111122223333:role/lbc"}}}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: aws-load-balancer-controller-role, labels: {{ include "labels" . }}}, rules: [{apiGroups: [""], resources: [nodes], verbs: [get, list, watch]}]}
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: aws-load-balancer-webhook, labels: {{ include "labels" . }}}
webhooks: []
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: aws-load-balancer-webhook, labels: {{ include "labels" . }}}
webhooks:
- name: vingressclassparams.elbv2.k8s.aws
  admissionReviewVersions: [v1]
  sideEffects: None
  failurePolicy: Fail
  clientConfig: {service: {name: aws-load-balancer-webhook-service, namespace: {{ .Release.Namespace }}, path: /validate-elbv2-k8s-aws-v1beta1-ingressclassparams}}
  objectSelector: {matchExpressions: [{key: app.kubernetes.io/name, operator: NotIn, values: [aws-load-balancer-controller]}]}
  rules: [{apiGroups: [elbv2.k8s.aws], apiVersions: [v1beta1], operations: [CREATE, UPDATE], resources: [ingressclassparams]}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: aws-load-balancer-controller, namespace: {{ .Release.Namespace }}, labels: {{ include "labels" . }}}
spec:
  replicas: {{ .Values.replicaCount }}
  selector: {matchLabels: {{ include "selector" . }}}
  template:
    metadata: {labels: {{ include "selector" . }}}
    spec: {serviceAccountName: aws-load-balancer-controller, containers: [{name: aws-load-balancer-controller, image: "{{ .Values.image.repository }}:{{ .Values.image.tag }}"}]}
"#,
    )?;
    Ok(())
}

/// The blocks of code below a heading of the document, with their languages.
fn blocks(heading: &str) -> Result<Vec<(String, String)>> {
    let document = fs::read_to_string(workspace().join("docs/migrate.md"))?;
    let (mut inside, mut block, mut blocks) = (false, None::<(String, String)>, Vec::new());
    for line in document.lines() {
        let fence = line.trim_start().strip_prefix("```");
        match (&mut block, fence) {
            (Some(_), Some(_)) => blocks.extend(block.take().filter(|_| inside)),
            (None, Some(language)) => block = Some((language.to_owned(), String::new())),
            (Some((_, text)), None) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, None) if line.starts_with('#') => inside = line.trim_start_matches('#').trim() == heading,
            (None, None) => {}
        }
    }
    ensure!(!blocks.is_empty(), "docs/migrate.md has no code below `{heading}`");
    Ok(blocks)
}

/// aws-load-balancer-controller as far as it matters here: it has the Lease while its Deployment runs its image.
struct Other {
    runs: Arc<AtomicBool>,
}

impl Other {
    async fn hold_lease(stage: &Stage, holder: &str) -> Result<()> {
        let now = format!("{:.6}", Timestamp::now());
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": LEASE, "namespace": NAMESPACE},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 3600, "acquireTime": now, "renewTime": now, "leaseTransitions": 1},
        });
        stage.cluster.apply(&[lease]).await
    }
}

/// A shell with Helm and kubectl.
struct Shell<'a> {
    stage: &'a Stage,
    helm: Helm,
    directory: TempDir,
    other: Other,
    /// The controllers that run, by their Deployment.
    running: BTreeMap<String, Controller>,
    /// The templates of Deployments before `set image`.
    undo: BTreeMap<String, Value>,
    revision: String,
}

impl Shell<'_> {
    fn path(&self, file: &str) -> String {
        self.directory.path().join(file).display().to_string()
    }

    fn helm(&self, arguments: &[&str]) -> Result<String> {
        let kubeconfig = format!("--kubeconfig={}", self.stage.kubeconfig.display());
        let said = self.helm.run(&[arguments, &[kubeconfig.as_str()]].concat(), None)?;
        ensure!(said.success, "helm {arguments:?}: {}", said.errors);
        Ok(said.output)
    }

    async fn deployment(&self, name: &str) -> Result<Value> {
        let found = self.stage.cluster.get("apps/v1", "Deployment", Some(NAMESPACE), name).await?;
        found.with_context(|| format!("there is no Deployment {name}"))
    }

    fn image(deployment: &Value) -> &str {
        text(deployment, "/spec/template/spec/containers/0/image")
    }

    /// Runs the commands below a heading.
    async fn run_section(&mut self, heading: &str) -> Result<()> {
        for (language, block) in blocks(heading)? {
            match language.as_str() {
                "" => {
                    for line in block.replace("\\\n", " ").lines() {
                        self.run_line(line).await.with_context(|| format!("{heading}: {line}"))?;
                    }
                }
                "yaml" => self.add_values(&block)?,
                other => bail!("{heading}: a block of {other}"),
            }
        }
        Ok(())
    }

    /// Returns the lines that the document says to add to values.yaml.
    fn add_values(&self, block: &str) -> Result<()> {
        let file = self.path("values.yaml");
        let mut values = documents(&fs::read_to_string(&file)?)?.pop().context("no values")?;
        let added = documents(&block.replace("REPOSITORY", IMAGE))?.pop().context("an empty block")?;
        let (values_map, added) = (values.as_object_mut().context("no map")?, added);
        values_map.remove("image");
        values_map.extend(added.as_object().context("no map")?.clone());
        Ok(fs::write(file, values.to_string())?)
    }

    async fn run_line(&mut self, line: &str) -> Result<()> {
        let line = line.replace("REVISION", &self.revision).replace("REPOSITORY", IMAGE);
        let (line, file) = match line.split_once(" > ") {
            Some((line, file)) => (line.to_owned(), Some(file.trim().to_owned())),
            None => (line, None),
        };
        let words: Vec<String> = line
            .split_whitespace()
            .map(|word| if word == "values.yaml" { self.path(word) } else { word.to_owned() })
            .collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let said = match words.as_slice() {
            ["helm", arguments @ ..] => {
                let said = self.helm(arguments)?;
                self.after_a_change().await?;
                said
            }
            ["kubectl", "get", kinds, rest @ ..] => self.get(kinds, rest).await?,
            ["kubectl", "delete", kinds, name] => {
                for (api_version, kind) in resolve(kinds)? {
                    self.stage.cluster.delete(api_version, kind, None, name).await?;
                }
                String::new()
            }
            ["kubectl", "--namespace", NAMESPACE, "rollout", "status", deployment] => {
                self.rolled_out(deployment.trim_start_matches("deployment/")).await?;
                String::new()
            }
            ["kubectl", "--namespace", NAMESPACE, "rollout", "undo", deployment] => {
                let name = deployment.trim_start_matches("deployment/");
                let before = self.undo.remove(name).context("nothing to undo")?;
                self.set_containers(name, before).await?;
                String::new()
            }
            ["kubectl", "--namespace", NAMESPACE, "set", "image", deployment, image] => {
                let name = deployment.trim_start_matches("deployment/");
                let (container, image) = image.split_once('=').context("no image")?;
                let mut containers = self.deployment(name).await?["spec"]["template"]["spec"]["containers"].take();
                self.undo.insert(name.to_owned(), containers.clone());
                let of_name = containers.as_array_mut().into_iter().flatten().find(|found| found["name"] == container);
                of_name.with_context(|| format!("no container {container}"))?["image"] = image.into();
                self.set_containers(name, containers).await?;
                String::new()
            }
            ["grep", "-v", "resourceVersion:", file, "|", "kubectl", "create", "--filename", "-"] => {
                let list: Value = serde_json::from_slice(&fs::read(self.path(file))?)?;
                for object in items(&list, "/items") {
                    let mut object = object.clone();
                    for field in ["resourceVersion", "managedFields"] {
                        object["metadata"].as_object_mut().context("no metadata")?.remove(field);
                    }
                    // As kubectl does: the API server gives it a new UID.
                    let api = self.stage.cluster.api(text(&object, "/apiVersion"), text(&object, "/kind"), None);
                    api.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
                }
                String::new()
            }
            _ => bail!("this shell does not know the command"),
        };
        if let Some(file) = file {
            fs::write(self.path(&file), said)?;
        }
        Ok(())
    }

    async fn get(&self, kinds: &str, rest: &[&str]) -> Result<String> {
        let name = match rest {
            ["--output", "yaml"] => None,
            [name, "--output", "yaml"] => Some(*name),
            _ => bail!("this shell does not know the arguments {rest:?}"),
        };
        let mut items = Vec::new();
        for (api_version, kind) in resolve(kinds)? {
            let listed = self.stage.cluster.list(api_version, kind, None).await?;
            items.extend(listed.into_iter().filter(|o| name.is_none_or(|name| text(o, "/metadata/name") == name)).map(
                |mut object| {
                    object["apiVersion"] = api_version.into();
                    object["kind"] = kind.into();
                    object
                },
            ));
        }
        ensure!(!items.is_empty(), "there is nothing");
        Ok(json!({"kind": "List", "apiVersion": "v1", "items": items}).to_string())
    }

    async fn set_containers(&mut self, name: &str, containers: Value) -> Result<()> {
        let patch = json!({"spec": {"template": {"spec": {"containers": containers}}}});
        self.stage.cluster.merge("apps/v1", "Deployment", Some(NAMESPACE), name, &patch).await?;
        self.after_a_change().await
    }

    /// Does what kubelet does when Deployments come, change and go: it starts and ends their processes.
    async fn after_a_change(&mut self) -> Result<()> {
        for name in [THEIRS, "albatross"] {
            let found = self.stage.cluster.get("apps/v1", "Deployment", Some(NAMESPACE), name).await?;
            let image = found.as_ref().map(Self::image).unwrap_or_default();
            if image.starts_with(IMAGE) && !self.running.contains_key(name) {
                let deployment = found.as_ref().context("no Deployment")?;
                let account = text(deployment, "/spec/template/spec/serviceAccountName");
                let kubeconfig = self.stage.kubeconfig_of(NAMESPACE, account).await?;
                let given = items(deployment, "/spec/template/spec/containers/0/args").iter().filter_map(Value::as_str);
                let mut flags: Vec<String> = given.filter(|flag| flag.starts_with("--")).map(str::to_owned).collect();
                flags.extend([
                    format!("--kubeconfig={}", kubeconfig.display()),
                    "--enable-leader-election=true".to_owned(),
                ]);
                let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
                self.running.insert(name.to_owned(), self.stage.controller(&flags)?);
            }
            if name == THEIRS {
                let theirs = image.contains("eks/aws-load-balancer-controller");
                if self.other.runs.swap(theirs, Ordering::SeqCst) && !theirs {
                    // It gives the Lease back as its pod ends, which is when the new one is ready.
                    if let Some(new) = self.running.get_mut(THEIRS) {
                        new.ready(SOON).await?;
                    }
                    Other::hold_lease(self.stage, "").await?;
                }
            }
            if !image.starts_with(IMAGE)
                && let Some(ended) = self.running.remove(name)
            {
                ended.stop().await?;
            }
            if name == THEIRS && self.other.runs.load(Ordering::SeqCst) {
                Other::hold_lease(self.stage, "aws-load-balancer-controller-1").await?;
            }
        }
        Ok(())
    }

    async fn rolled_out(&mut self, name: &str) -> Result<()> {
        let deployment = self.deployment(name).await?;
        if Self::image(&deployment).starts_with(IMAGE) {
            self.running.get_mut(name).context("it does not run")?.ready(SOON).await?;
        } else {
            ensure!(self.other.runs.load(Ordering::SeqCst), "aws-load-balancer-controller does not run");
        }
        Ok(())
    }

    async fn leads(&self, name: &str) -> Result<bool> {
        let state: Value = serde_json::from_str(&self.running.get(name).context("it does not run")?.state().await?)?;
        Ok(state["leader"] == true)
    }

    /// The identity and the content of an object.
    async fn identity(
        &self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<(String, Value)> {
        let found = self.stage.cluster.get(api_version, kind, namespace, name).await?;
        let found = found.with_context(|| format!("the {kind} {name} is gone"))?;
        Ok((text(&found, "/metadata/uid").to_owned(), found["spec"].clone()))
    }

    /// The class, its parameters and the ServiceAccount, which have to be the same objects all the time.
    async fn kept(&self) -> Result<Vec<(String, Value)>> {
        Ok(vec![
            self.identity("networking.k8s.io/v1", "IngressClass", None, "taken-over").await?,
            self.identity("elbv2.k8s.aws/v1beta1", "IngressClassParams", None, "taken-over").await?,
            self.identity("v1", "ServiceAccount", Some(NAMESPACE), THEIRS).await?,
        ])
    }
}

/// The kinds that a command of kubectl names.
fn resolve(kinds: &str) -> Result<Vec<(&'static str, &'static str)>> {
    kinds
        .split(',')
        .map(|kind| match kind {
            "ingressclass" => Ok(("networking.k8s.io/v1", "IngressClass")),
            "ingressclassparams" => Ok(("elbv2.k8s.aws/v1beta1", "IngressClassParams")),
            "mutatingwebhookconfiguration" => Ok(("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration")),
            "validatingwebhookconfiguration" => {
                Ok(("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration"))
            }
            other => bail!("this shell does not know the kind {other}"),
        })
        .collect()
}

async fn shell<'a>(stage: &'a Stage, values: &Value) -> Result<Shell<'a>> {
    let directory = tempfile::tempdir()?;
    other_chart(&directory.path().join("other"))?;
    fs::write(directory.path().join("first.yaml"), values.to_string())?;
    let other = Other { runs: Arc::new(AtomicBool::new(false)) };
    let mut shell = Shell {
        stage,
        helm: helm()?,
        directory,
        other,
        running: BTreeMap::new(),
        undo: BTreeMap::new(),
        revision: "1".to_owned(),
    };
    let (chart, first) = (shell.path("other"), shell.path("first.yaml"));
    shell.helm(&["install", THEIRS, &chart, "--namespace", NAMESPACE, "--values", &first])?;
    shell.after_a_change().await?;
    Ok(shell)
}

fn values() -> Value {
    json!({"clusterName": "demo", "replicaCount": 0, "ingressClass": "taken-over", "podDisruptionBudget": {"maxUnavailable": 1}})
}

#[test]
fn the_commands_of_the_guide_take_over_by_helm_and_go_back() {
    run(async {
        let stage = Stage::without_controller().await?;
        let mut shell = shell(&stage, &values()).await?;
        // The parameters that its chart made were edited by hand, as users do; its webhook is not asked about them.
        let edited = json!({"spec": {"scheme": "internet-facing", "inboundCIDRs": ["10.0.0.0/8"]}});
        stage.cluster.merge("elbv2.k8s.aws/v1beta1", "IngressClassParams", None, "taken-over", &edited).await?;
        let before = shell.kept().await?;
        assert_eq!(before[1].1, edited["spec"]);
        let deployment = shell.identity("apps/v1", "Deployment", Some(NAMESPACE), THEIRS).await?.0;

        shell.run_section("The values").await?;
        shell.run_section("Standing by").await?;
        ensure!(!shell.leads("albatross").await?, "it acts while the other has the Lease");
        assert_eq!(shell.kept().await?, before, "after the standby came");

        shell.run_section("Taking over").await?;
        assert_eq!(shell.kept().await?, before, "after the takeover");
        let rolled = shell.identity("apps/v1", "Deployment", Some(NAMESPACE), THEIRS).await?.0;
        assert_eq!(rolled, deployment, "the Deployment is another one, and was not rolled");
        wait_until(SOON, "the new pods to act", async || shell.leads(THEIRS).await).await?;
        gone(&stage, "apps/v1", "Deployment", Some(NAMESPACE), "albatross").await?;
        gone(&stage, "rbac.authorization.k8s.io/v1", "ClusterRole", None, "aws-load-balancer-controller-role").await?;

        shell.run_section("Going back").await?;
        assert_eq!(shell.kept().await?, before, "after the way back");
        ensure!(shell.running.is_empty(), "albatross still runs");
        for kind in ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"] {
            let back =
                stage.cluster.get("admissionregistration.k8s.io/v1", kind, None, "aws-load-balancer-webhook").await?;
            ensure!(back.is_some(), "its {kind} is not back");
        }
        for kind in ["ClusterRole", "ClusterRoleBinding"] {
            gone(&stage, "rbac.authorization.k8s.io/v1", kind, None, THEIRS).await?;
        }
        leave_kube_system(&shell).await?;
        drop(shell);
        stage.leave_clean();
        Ok(())
    });
}

/// The release's objects have a different name, as GitOps tools set it, and no `nameOverride`: the selector is another one.
#[test]
fn another_selector_under_the_same_name_is_refused_and_an_equal_one_is_rolled() {
    run(async {
        let stage = Stage::without_controller().await?;
        let shell = shell(&stage, &values()).await?;
        let before = shell.kept().await?;
        let upgrade = |more: &str| {
            let set = format!(
                "fullnameOverride={THEIRS},serviceAccount.name={THEIRS},ingressClass=taken-over,replicaCount=0{more}"
            );
            shell.helm(&[
                "upgrade",
                THEIRS,
                "charts/albatross",
                "--namespace",
                NAMESPACE,
                "--set",
                "clusterName=demo",
                "--set",
                &set,
            ])
        };
        let refused = upgrade("").unwrap_err().to_string();
        ensure!(refused.contains("field is immutable"), "{refused}");
        let other = shell.deployment(THEIRS).await?;
        ensure!(Shell::image(&other).contains("eks/aws-load-balancer-controller"), "the Deployment is changed");
        upgrade(&format!(",nameOverride={THEIRS},image.repository={IMAGE}"))?;
        ensure!(Shell::image(&shell.deployment(THEIRS).await?).starts_with(IMAGE), "the Deployment is not rolled");
        assert_eq!(shell.kept().await?, before);
        leave_kube_system(&shell).await?;
        drop(shell);
        stage.leave_clean();
        Ok(())
    });
}

#[test]
fn the_commands_of_the_guide_take_over_without_helm_and_go_back() {
    run(async {
        let stage = Stage::without_controller().await?;
        let mut shell = shell(&stage, &values()).await?;
        // Its own manifest calls the container by another name than its chart, and its Role is wide enough.
        let own = json!([{"name": "controller", "image": "public.ecr.aws/eks/aws-load-balancer-controller:v3.5.0", "args": ["--cluster-name=demo", "--ingress-class=taken-over"]}]);
        shell.set_containers(THEIRS, own.clone()).await?;
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "lab-theirs"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": THEIRS, "namespace": NAMESPACE}],
        });
        stage.cluster.apply(&[binding]).await?;
        let before = shell.kept().await?;
        shell.run_section("Without Helm").await?;
        wait_until(SOON, "albatross to act", async || shell.leads(THEIRS).await).await?;
        gone(
            &stage,
            "admissionregistration.k8s.io/v1",
            "ValidatingWebhookConfiguration",
            None,
            "aws-load-balancer-webhook",
        )
        .await?;
        shell.run_section("Going back without Helm").await?;
        assert_eq!(shell.kept().await?, before);
        let deployment = shell.deployment(THEIRS).await?;
        assert_eq!(Shell::image(&deployment), text(&own, "/0/image"));
        for kind in ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"] {
            let back =
                stage.cluster.get("admissionregistration.k8s.io/v1", kind, None, "aws-load-balancer-webhook").await?;
            ensure!(back.is_some(), "its {kind} is not back");
        }
        stage.cluster.delete("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", None, "lab-theirs").await?;
        leave_kube_system(&shell).await?;
        drop(shell);
        stage.leave_clean();
        Ok(())
    });
}

/// Takes everything away that these tests made.
async fn leave_kube_system(shell: &Shell<'_>) -> Result<()> {
    shell.helm(&["uninstall", THEIRS, "--namespace", NAMESPACE])?;
    let cluster = &shell.stage.cluster;
    cluster.delete("coordination.k8s.io/v1", "Lease", Some(NAMESPACE), LEASE).await?;
    for map in cluster.list("v1", "ConfigMap", Some(NAMESPACE)).await? {
        let name = text(&map, "/metadata/name");
        if name.starts_with("albatross-records-") {
            cluster.delete("v1", "ConfigMap", Some(NAMESPACE), name).await?;
        }
    }
    gone(shell.stage, "apps/v1", "Deployment", Some(NAMESPACE), THEIRS).await
}
