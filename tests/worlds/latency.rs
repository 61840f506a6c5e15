//! The order of calls while every binding is queued and AWS's quota limits the calls: the target of a pod that ends is
//! deregistered at once. `ALBATROSS_SIMULATION_BINDINGS` sets the number of bindings of each world.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use tokio::time::Instant;

use albatross_core::{model::Target, record::CHECKPOINT};
use albatross_simulation::{
    aws::{Call, GivenTargetGroup, Outcome, SimulatedAws},
    cluster::SimulatedCluster,
};

use crate::{
    in_a_world,
    process::{Election, Process},
    world::objects,
};

/// The pods that end in one world, and the time from one end to the next.
const ENDS: usize = 40;
const PAUSE: Duration = Duration::from_millis(600);
/// The time within which the target of a pod that ends is deregistered.
const SOON: Duration = Duration::from_secs(1);
/// The time within which a world comes to rest.
const DEADLINE: Duration = Duration::from_secs(3600);
const NEVER: Duration = Duration::from_secs(100 * 86_400);
const NAMESPACE: &str = objects::NAMESPACE;

fn bindings(count: usize) -> usize {
    std::env::var("ALBATROSS_SIMULATION_BINDINGS").map_or(count, |count| count.parse().expect("a number"))
}

fn name(binding: usize) -> String {
    format!("b-{binding}")
}

fn arn(binding: usize) -> String {
    format!("arn:aws:elasticloadbalancing:us-west-2:123456789012:targetgroup/b-{binding}/1")
}

fn pod_name(binding: usize, pod: usize) -> String {
    format!("b-{binding}-{pod}")
}

fn address(binding: usize, pod: usize) -> String {
    format!("10.0.{}.{}", pod * 64 + binding / 200, 1 + binding % 200)
}

/// The endpoint of a pod in an EndpointSlice.
fn endpoint(binding: usize, pod: usize, ready: bool, terminating: bool) -> Value {
    json!({
        "addresses": [address(binding, pod)],
        "conditions": { "ready": ready, "serving": true, "terminating": terminating },
        "nodeName": "node-0",
        "targetRef": { "kind": "Pod", "namespace": NAMESPACE, "name": pod_name(binding, pod) },
    })
}

/// Many bindings, each with two pods, in one namespace, and the controller.
struct Many {
    count: usize,
    gated: bool,
    cluster: SimulatedCluster,
    aws: SimulatedAws,
    process: Option<Process>,
    terms: i32,
}

impl Many {
    /// Returns a world in which every target is registered and nothing is left to do.
    async fn settled(count: usize, gated: bool) -> Self {
        let (cluster, aws) = (SimulatedCluster::new(1), SimulatedAws::new(1));
        objects::foundation(&cluster);
        let mut many = Self { count, gated, cluster, aws, process: None, terms: 0 };
        for binding in 0..many.count {
            many.create(binding);
        }
        many.start();
        many.rest().await;
        many
    }

    fn create(&self, binding: usize) {
        let name = name(binding);
        self.aws.put_target_group(GivenTargetGroup::new(&arn(binding), &name, "ip"));
        self.cluster
            .create(json!({
                "kind": "Service", "metadata": { "name": name, "namespace": NAMESPACE },
                "spec": { "type": "ClusterIP", "ports": [{ "name": "web", "port": 80, "targetPort": 8080, "protocol": "TCP" }] },
            }))
            .unwrap();
        (0..2).for_each(|pod| self.create_pod(binding, pod));
        self.cluster
            .create(json!({
                "kind": "EndpointSlice",
                "metadata": { "name": name, "namespace": NAMESPACE, "labels": { "kubernetes.io/service-name": name } },
                "addressType": "IPv4", "ports": [{ "name": "web", "port": 8080, "protocol": "TCP" }],
                "endpoints": (0..2).map(|pod| endpoint(binding, pod, !self.gated, false)).collect::<Vec<_>>(),
            }))
            .unwrap();
        self.cluster
            .create(json!({
                "kind": "TargetGroupBinding", "metadata": { "name": name, "namespace": NAMESPACE },
                "spec": {
                    "targetGroupARN": arn(binding), "targetType": "ip", "ipAddressType": "ipv4",
                    "serviceRef": { "name": name, "port": 80 },
                },
            }))
            .unwrap();
    }

    fn create_pod(&self, binding: usize, pod: usize) {
        let name = pod_name(binding, pod);
        let gates = if self.gated { json!([{ "conditionType": gate(binding) }]) } else { json!([]) };
        self.cluster
            .create(json!({
                "kind": "Pod",
                // It ends some time after its deletion.
                "metadata": { "name": name, "namespace": NAMESPACE, "finalizers": ["kubelet"] },
                "spec": { "nodeName": "node-0", "containers": [{ "ports": [] }], "readinessGates": gates },
            }))
            .unwrap();
        let address = address(binding, pod);
        self.aws.set_health(&arn(binding), &Target { id: address.clone(), port: 8080 }, "initial");
        self.cluster.set_status(
            "pods",
            NAMESPACE,
            &name,
            json!({
                "podIP": address, "podIPs": [{ "ip": address }],
                "conditions": [{ "type": "ContainersReady", "status": "True" }],
            }),
        );
    }

    fn start(&mut self) {
        self.terms += 1;
        let election = Election::Given(self.terms);
        let number = usize::try_from(self.terms).unwrap();
        let clients = albatross_aws::testing::retrying_over;
        self.process = Some(Process::start_with(&self.cluster, &self.aws, number, election, (NEVER, false), clients));
    }

    /// Waits until every target is registered and, unless pods wait for their health, nothing is left to do.
    async fn rest(&self) {
        let deadline = Instant::now() + DEADLINE;
        let process = self.process.as_ref().unwrap();
        let registered = || (0..self.count).all(|binding| self.aws.registrations(&arn(binding)).len() >= 2);
        while !(registered() && (self.gated || process.is_idle()) && self.cluster.has_heard(process.life())) {
            assert!(Instant::now() < deadline, "{}", process.controller().state());
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        // The last checkpoints are written a second after the last change.
        tokio::time::sleep(Duration::from_secs(3)).await;
    }

    /// A pod begins to end. Every other time its EndpointSlice shows it first, as the pod's own deletion may be seen late.
    fn end(&self, binding: usize) {
        if binding.is_multiple_of(2) {
            self.cluster.delete("pods", NAMESPACE, &pod_name(binding, 0));
        } else {
            self.cluster.edit("endpointslices", NAMESPACE, &name(binding), |slice| {
                slice["endpoints"][0] = endpoint(binding, 0, false, true);
            });
        }
    }

    /// Lets pods end, one after the other, and returns the time that each target waits until it is deregistered.
    async fn latencies(&self) -> Vec<Duration> {
        let mut ends = BTreeMap::new();
        for end in 0..ENDS {
            // Bindings from all places in the queue, also some that are being worked on.
            let binding = (end * 617) % self.count;
            ends.insert(address(binding, 0), Instant::now());
            self.end(binding);
            tokio::time::sleep(PAUSE).await;
        }
        tokio::time::sleep(Duration::from_secs(30)).await;
        let calls = self.aws.calls();
        let latency = |(address, at): (&String, &Instant)| {
            let latency = deregistered(&calls, address, *at);
            if latency > SOON {
                let meanwhile = calls.iter().filter(|call| call.at >= *at && call.at - *at <= latency);
                println!("{address} ends, and then");
                meanwhile.for_each(|call| println!("  {:.3} s {call}", (call.at - *at).as_secs_f64()));
            }
            latency
        };
        ends.iter().map(latency).collect()
    }
}

/// Returns the time from an end until AWS has accepted the deregistration of an address.
fn deregistered(calls: &[Call], address: &str, end: Instant) -> Duration {
    let of_address = |call: &&Call| {
        call.operation == "DeregisterTargets" && call.params.values().any(|value| value == address) && call.at >= end
    };
    let call = calls.iter().filter(of_address).find(|call| call.outcome == Outcome::Answered);
    call.map_or(Duration::MAX, |call| call.at - end)
}

fn gate(binding: usize) -> String {
    format!("target-health.elbv2.k8s.aws/{}", name(binding))
}

/// Returns the median, the value that 99 of 100 do not exceed, and the highest value.
fn quantiles(mut times: Vec<Duration>) -> [Duration; 3] {
    times.sort();
    let at = |share: usize| times[(times.len() * share).div_ceil(100).max(1) - 1];
    [at(50), at(99), at(100)]
}

/// Begins the load, and after `pause` checks the latencies.
fn departures_are_soon(count: usize, gated: bool, pause: Duration, load: fn(&mut Many)) {
    let count = bindings(count);
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let times = in_a_world(1, move || {
        Box::pin(async move {
            let mut many = Many::settled(count, gated).await;
            many.aws.calls();
            many.aws.limit_calls();
            load(&mut many);
            tokio::time::sleep(pause).await;
            many.latencies().await
        })
    });
    let [median, most, all] = quantiles(times);
    println!("of {ENDS} ends among {count} bindings: p50 {median:?}, p99 {most:?}, at most {all:?}");
    assert!(all <= SOON, "a target is deregistered after {all:?}");
}

#[test]
fn a_target_departs_before_a_thousand_registrations() {
    departures_are_soon(1000, false, Duration::from_secs(8), |many| {
        for binding in 0..many.count {
            many.create_pod(binding, 2);
            many.cluster.edit("endpointslices", NAMESPACE, &name(binding), |slice| {
                slice["endpoints"].as_array_mut().unwrap().push(endpoint(binding, 2, true, false));
            });
        }
    });
}

#[test]
fn a_target_departs_before_resyncs() {
    // The first five seconds belong to the lists with which each process begins.
    departures_are_soon(300, false, Duration::from_secs(5), |many| {
        many.process.take().unwrap().kill();
        // Without checkpoints the targets of every binding are read.
        for binding in 0..many.count {
            many.cluster.edit("targetgroupbindings", NAMESPACE, &name(binding), |object| {
                object["metadata"]["annotations"].as_object_mut().unwrap().remove(CHECKPOINT);
            });
        }
        many.start();
    });
}

#[test]
fn a_target_departs_before_queries_for_health() {
    departures_are_soon(300, true, Duration::from_secs(8), |_| {});
}
