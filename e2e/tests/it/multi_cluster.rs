//! Two clusters feed one target group: each registers and deregisters its own targets, whatever happens in the other. Each
//! cluster is a namespace with a controller of its own, under a cluster's name of its own and with a proxy of its own, so that
//! each controller's calls are known.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aws_sdk_elasticloadbalancingv2::types::{TargetDescription, TargetTypeEnum};
use e2e::lab::aws::REGION;
use e2e::lab::cluster::text;
use e2e::lab::controller::Controller;
use e2e::lab::proxy::Proxy;
use e2e::lab::wait_until;
use serde_json::{Value, json};

use crate::bindings::{BINDING, binding, delete, pods, target_group, targets, targets_become};
use crate::support::{
    QUIET, SOON, Stage, WITH_RETRIES, account_is_empty, apply, deployment, run, service, warnings_are,
};

const REGISTER: &str = "elasticloadbalancing:RegisterTargets";
const DEREGISTER: &str = "elasticloadbalancing:DeregisterTargets";
/// The random changes of both clusters.
const CHANGES: usize = 100;
/// A target that neither cluster has registered.
const FOREIGN: &str = "10.0.102.250:8080";

/// A cluster: a namespace, and the controller that watches it.
struct Cluster {
    namespace: &'static str,
    proxy: Proxy,
    controller: Option<Controller>,
}

impl Cluster {
    async fn start(stage: &Stage, namespace: &'static str) -> Result<Self> {
        stage.cluster.namespace(namespace).await?;
        let proxy = stage.another_proxy().await?;
        proxy.keep_bodies(true);
        let mut cluster = Self { namespace, proxy, controller: None };
        cluster.start_controller(stage).await?;
        Ok(cluster)
    }

    async fn start_controller(&mut self, stage: &Stage) -> Result<()> {
        let environment = [
            ("AWS_ACCESS_KEY_ID", "x"),
            ("AWS_SECRET_ACCESS_KEY", "y"),
            ("AWS_REGION", REGION),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_ENDPOINT_URL", self.proxy.url.as_str()),
        ];
        let of_namespace = |flag: &str| format!("--{flag}={}", self.namespace);
        let flags = ["cluster-name", "watch-namespace", "leader-election-id"].map(of_namespace);
        let mut controller = stage.controller_in(&environment, &flags.each_ref().map(String::as_str))?;
        controller.ready(SOON).await?;
        self.controller = Some(controller);
        Ok(())
    }

    /// The binding of the cluster to the target group.
    async fn bind(&self, stage: &Stage, arn: &str) -> Result<()> {
        let spec = json!({
            "targetGroupARN": arn, "targetType": "ip", "multiClusterTargetGroup": true,
            "serviceRef": {"name": "web", "port": 80},
        });
        apply(stage, self.namespace, &[service("web"), deployment("web", 2), binding("web", &spec)]).await
    }

    /// Changes the pods in a random way.
    async fn change(&self, stage: &Stage, random: &mut fastrand::Rng) -> Result<()> {
        let pods = stage.cluster.list("v1", "Pod", Some(self.namespace)).await?;
        if random.bool() && !pods.is_empty() {
            let pod = text(&pods[random.usize(..pods.len())], "/metadata/name").to_owned();
            return stage.cluster.delete("v1", "Pod", Some(self.namespace), &pod).await;
        }
        let patch = json!({"spec": {"replicas": random.usize(0..6)}});
        stage.cluster.merge("apps/v1", "Deployment", Some(self.namespace), "web", &patch).await
    }

    /// The targets of the pods, once there are as many as the Deployment asks for.
    async fn pods(&self, stage: &Stage) -> Result<BTreeSet<String>> {
        let deployment = stage.cluster.get("apps/v1", "Deployment", Some(self.namespace), "web").await?;
        let replicas = deployment.context("no Deployment")?["spec"]["replicas"].as_u64().context("no replicas")?;
        pods(stage, self.namespace, "web", replicas.try_into()?).await
    }

    /// The targets of all calls of this kind.
    fn called(&self, name: &str) -> BTreeSet<String> {
        let log = self.proxy.log();
        let calls = log.iter().filter(|call| call.name == name);
        calls
            .flat_map(|call| {
                let (ids, ports) = (call.members("Targets.member", "Id"), call.members("Targets.member", "Port"));
                ids.into_iter()
                    .zip(ports)
                    .map(|(id, port)| format!("{}:{}", id.unwrap_or_default(), port.unwrap_or_default()))
            })
            .collect()
    }

    /// The record of the binding's own targets.
    async fn record(&self, stage: &Stage) -> Result<Option<BTreeSet<String>>> {
        let map = stage.cluster.get("v1", "ConfigMap", Some(self.namespace), "aws-lbc-targets-web").await?;
        let targets = |map: Value| {
            let words = text(&map, "/data/targets").split(',').filter(|word| !word.is_empty()).map(str::to_owned);
            words.collect()
        };
        Ok(map.map(targets))
    }

    async fn record_becomes(&self, stage: &Stage, expected: Option<&BTreeSet<String>>) -> Result<()> {
        wait_until(SOON, &format!("the record of {} to be {expected:?}", self.namespace), async || {
            let found = self.record(stage).await?;
            ensure!(found.as_ref() == expected, "it is {found:?}");
            Ok(true)
        })
        .await
    }

    /// Fails if the controller has touched a target that the other one has registered.
    fn left_alone(&self, other: &Self) -> Result<()> {
        let (own, others) = (self.called(REGISTER), other.called(REGISTER));
        ensure!(own.is_disjoint(&others), "{} and {} registered the same", self.namespace, other.namespace);
        let gone = self.called(DEREGISTER);
        let foreign: Vec<_> = gone.difference(&own).collect();
        ensure!(foreign.is_empty(), "{} deregistered {foreign:?}, which it has not registered", self.namespace);
        Ok(())
    }

    fn calls(&self) -> u64 {
        self.proxy.counts().total
    }
}

/// Registers a target as somebody else does.
async fn register_foreign(stage: &Stage, arn: &str) -> Result<()> {
    let (id, port) = FOREIGN.split_once(':').context("a target")?;
    let target = TargetDescription::builder().id(id).port(port.parse()?).build();
    stage.aws.elb.register_targets().target_group_arn(arn).targets(target).send().await?;
    Ok(())
}

/// Deletes what is left, and finds the account as before.
async fn leave(stage: Stage, arn: &str, namespaces: &[&str]) -> Result<()> {
    stage.aws.elb.delete_target_group().target_group_arn(arn).send().await?;
    wait_until(WITH_RETRIES, "the account to be empty", async || account_is_empty(&stage).await).await?;
    for namespace in namespaces {
        stage.cluster.delete("v1", "Namespace", None, namespace).await?;
    }
    stage.leave_clean();
    Ok(())
}

#[test]
fn two_clusters_feed_one_target_group_and_neither_removes_the_others_targets() {
    run(async {
        let stage = Stage::without_controller().await?;
        let seed = match std::env::var("E2E_SEED") {
            Ok(seed) => seed.parse()?,
            Err(_) => fastrand::u64(..),
        };
        println!("E2E_SEED={seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let arn = target_group(&stage, "ext-multi-cluster", TargetTypeEnum::Ip).await?;
        register_foreign(&stage, &arn).await?;
        let mut clusters = [Cluster::start(&stage, "multi-one").await?, Cluster::start(&stage, "multi-two").await?];
        for cluster in &clusters {
            cluster.bind(&stage, &arn).await?;
        }
        for number in 0..CHANGES {
            let cluster = &mut clusters[random.usize(..2)];
            cluster.change(&stage, &mut random).await?;
            // Now and then one of the two crashes, and starts again later.
            if number % 25 == 24 {
                cluster.controller.take().context("a controller")?.kill();
                cluster.change(&stage, &mut random).await?;
                cluster.start_controller(&stage).await?;
            }
            tokio::time::sleep(Duration::from_millis(random.u64(0..300))).await;
        }
        let mut expected: BTreeSet<String> = [FOREIGN.to_owned()].into();
        let mut own = Vec::new();
        for cluster in &clusters {
            let pods = cluster.pods(&stage).await?;
            expected.extend(pods.iter().cloned());
            own.push(pods);
        }
        targets_become(&stage, &arn, &expected).await?;
        for (cluster, own) in clusters.iter().zip(&own) {
            cluster.record_becomes(&stage, Some(own)).await?;
            warnings_are(&stage, cluster.namespace, &[]).await?;
        }
        let [one, two] = &clusters;
        one.left_alone(two)?;
        two.left_alone(one)?;
        ensure!(one.called(DEREGISTER).len() > 5 && two.called(DEREGISTER).len() > 5, "hardly anything happened");

        // Without a change, neither calls AWS.
        tokio::time::sleep(QUIET).await;
        let before = clusters.each_ref().map(Cluster::calls);
        tokio::time::sleep(QUIET).await;
        ensure!(clusters.each_ref().map(Cluster::calls) == before, "they call AWS though nothing changes");

        // The binding of one cluster goes, and with it the targets of that cluster.
        let [one, two] = &mut clusters;
        delete(&stage, one.namespace, "web").await?;
        expected.retain(|target| !own[0].contains(target));
        targets_become(&stage, &arn, &expected).await?;
        one.record_becomes(&stage, None).await?;
        one.left_alone(two)?;
        delete(&stage, two.namespace, "web").await?;
        targets_become(&stage, &arn, &[FOREIGN.to_owned()].into()).await?;
        for cluster in &mut clusters {
            let beyond = cluster.proxy.beyond_policy();
            ensure!(beyond.is_empty(), "`albatross iam-policy` does not allow: {beyond:#?}");
            cluster.controller.take().context("a controller")?.stop().await?;
        }
        drop(clusters);
        leave(stage, &arn, &["multi-one", "multi-two"]).await
    });
}

#[test]
fn a_target_group_that_is_shared_no_more_belongs_to_its_binding() {
    run(async {
        let mut stage = Stage::shared().await?;
        let namespace = "multi-switch";
        let arn = target_group(&stage, "ext-multi-switch", TargetTypeEnum::Ip).await?;
        register_foreign(&stage, &arn).await?;
        stage.cluster.namespace(namespace).await?;
        let spec = |shared: bool| {
            json!({
                "targetGroupARN": arn, "targetType": "ip", "multiClusterTargetGroup": shared,
                "serviceRef": {"name": "web", "port": 80},
            })
        };
        apply(&stage, namespace, &[service("web"), deployment("web", 2), binding("web", &spec(true))]).await?;
        let own = pods(&stage, namespace, "web", 2).await?;
        let all: BTreeSet<String> = own.iter().cloned().chain([FOREIGN.to_owned()]).collect();
        targets_become(&stage, &arn, &all).await?;
        // A record that is deleted by hand comes back with the next change, and keeps the foreign target safe.
        stage.cluster.delete("v1", "ConfigMap", Some(namespace), "aws-lbc-targets-web").await?;
        apply(&stage, namespace, &[deployment("web", 1)]).await?;
        let own = pods(&stage, namespace, "web", 1).await?;
        let all: BTreeSet<String> = own.iter().cloned().chain([FOREIGN.to_owned()]).collect();
        targets_become(&stage, &arn, &all).await?;
        // The field goes while no controller runs.
        stage.settle(QUIET, SOON).await?;
        stage.stop_controller().await?;
        apply(&stage, namespace, &[binding("web", &spec(false))]).await?;
        ensure!(targets(&stage, &arn).await? == all, "the targets changed without a controller");
        stage.start_controller(&[]).await?;
        targets_become(&stage, &arn, &own).await?;
        let record = ("v1", "ConfigMap", Some(namespace), "aws-lbc-targets-web");
        wait_until(SOON, "the record to go", async || {
            Ok(stage.cluster.get(record.0, record.1, record.2, record.3).await?.is_none())
        })
        .await?;
        // And it comes back.
        apply(&stage, namespace, &[binding("web", &spec(true))]).await?;
        register_foreign(&stage, &arn).await?;
        wait_until(SOON, "the record", async || {
            Ok(stage.cluster.get(record.0, record.1, record.2, record.3).await?.is_some())
        })
        .await?;
        delete(&stage, namespace, "web").await?;
        targets_become(&stage, &arn, &[FOREIGN.to_owned()].into()).await?;
        ensure!(stage.cluster.list(BINDING.0, BINDING.1, Some(namespace)).await?.is_empty(), "a binding is left");
        leave(stage, &arn, &[namespace]).await
    });
}
