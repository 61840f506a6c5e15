//! Hostile conduct that no controller can prevent: tenants that claim load balancers of others, floods of annotations,
//! limits of the account that leave no room, watches that stall, and users who change AWS by hand.

use std::{collections::BTreeMap, time::Duration};

use serde_json::json;

use tokio::time::Instant;

use super::{World, objects::NAMESPACE};
use albatross_core::model::{DELETION_PROTECTION, tags::BINDING_FINALIZER};
use albatross_simulation::aws::{Call, Limits, Outcome};

/// The namespace of a tenant that claims target groups of others.
const RIVAL: &str = "rival";
/// The address of the rival's only endpoint, in the VPC and on a node.
const RIVAL_ADDRESS: &str = "10.0.99.9";
/// The number of unknown annotations that a tenant writes at once.
const FLOOD: usize = 400;
/// The number of events that one flooded object may make: ten warnings and one that counts the rest, for each of some edits.
const MAX_EVENTS: usize = 60;
/// The number of events about one object that each process may write at once, which knows of no earlier one's.
const AT_ONCE: usize = 25;
/// The period of audits in worlds in which AWS is changed by hand.
const ATTRIBUTES: &str = "alb.ingress.kubernetes.io/load-balancer-attributes";
const PROTECTS: &str = "deletion_protection.enabled=true";
/// The time for which the controller may know nothing of a change, of an object as of AWS.
const UNSEEN: Duration = Duration::from_secs(480);
/// The period of audits in worlds in which AWS is changed by hand.
pub(crate) const AUDIT: Duration = Duration::from_secs(3600);

impl World {
    /// Returns the limits of the account: in every ninth world so low that each state fits and no two states fit together.
    pub(crate) fn limits(seed: u64) -> Option<Limits> {
        let (rules, unique_target_groups, certificates, security_group_rules) = (24, 9, 2, 4);
        let tight = Limits { rules, unique_target_groups, certificates, security_group_rules, ..Limits::default() };
        (seed % 9 == 7 && seed % 5 != 4).then_some(tight)
    }

    /// Does something hostile in some worlds. Draws from a separate generator, so that users act the same.
    pub(crate) fn mischief(&mut self) {
        match self.seed % 6 {
            // Members of a group have one scheme.
            1 if self.seed % 5 == 4 => {}
            5 if self.hostile.chance(0.4) => self.rival_binds(),
            3 if self.hostile.chance(0.2) => self.flood(),
            0 | 4 if self.hostile.chance(0.5) => self.protect_or_delete(),
            1 if self.hostile.chance(0.4) => self.flip_scheme(),
            2 if self.shape.cluster_faults && self.hostile.chance(0.2) => {
                let longest = Duration::from_secs(240);
                let (plural, time) = (self.hostile.below(9), self.hostile.up_to(longest));
                let plural = self.cluster.stall(plural, time);
                self.tell(format!("the watches of {plural} stall for {time:?}"));
            }
            _ => {}
        }
    }

    /// A tenant writes a binding to another owner's target group, by the name that it can guess.
    fn rival_binds(&mut self) {
        let names: Vec<String> =
            self.aws.state().target_groups.into_keys().filter(|name| name.starts_with("k8s-")).collect();
        let Some(group) = self.hostile.pick(&names).cloned() else { return };
        if self.cluster.get("services", RIVAL, "back-0").is_none() {
            self.aws.add_pod_address(RIVAL_ADDRESS, 0);
            let service = json!({
                "kind": "Service", "metadata": { "name": "back-0", "namespace": RIVAL },
                "spec": { "type": "ClusterIP", "ports": [{ "name": "web", "port": 80, "targetPort": 8080, "protocol": "TCP" }], "ipFamilies": ["IPv4"] },
            });
            let slice = json!({
                "kind": "EndpointSlice",
                "metadata": { "name": "back-0-slice", "namespace": RIVAL, "labels": { "kubernetes.io/service-name": "back-0" } },
                "addressType": "IPv4", "ports": [{ "name": "web", "port": 8080, "protocol": "TCP" }],
                "endpoints": [{ "addresses": [RIVAL_ADDRESS], "conditions": { "ready": true, "serving": true, "terminating": false }, "nodeName": "node-0" }],
            });
            self.cluster.create(service).unwrap();
            self.cluster.create(slice).unwrap();
        }
        let name = format!("rival-{}", self.hostile.below(3));
        // Any user can write labels and finalizers: those of the binding that the group has.
        let victim =
            self.cluster.list("targetgroupbindings").into_iter().find(|o| o["metadata"]["name"] == group.as_str());
        let labels = victim.map_or_else(|| json!({}), |victim| victim["metadata"]["labels"].clone());
        let binding = json!({
            "kind": "TargetGroupBinding",
            "metadata": { "name": name, "namespace": RIVAL, "labels": labels, "finalizers": [BINDING_FINALIZER] },
            "spec": { "targetGroupName": group, "targetType": "ip", "ipAddressType": "ipv4", "serviceRef": { "name": "back-0", "port": 80 } },
        });
        let created = self.cluster.create(binding).is_ok();
        self.tell(format!(
            "binding {RIVAL}/{name} reaches for {group}{}",
            if created { "" } else { ", but stands already" }
        ));
    }

    /// A user changes the scheme of a load balancer.
    fn flip_scheme(&mut self) {
        let prefixed = |key: &str, prefix: &str| format!("{prefix}{key}");
        let schemes = [
            ("ingresses", prefixed("scheme", "alb.ingress.kubernetes.io/"), self.ingresses.clone()),
            ("services", prefixed("scheme", "service.beta.kubernetes.io/aws-load-balancer-"), self.services.clone()),
        ];
        let all: Vec<(&str, String, String)> = schemes
            .into_iter()
            .flat_map(|(plural, key, names)| names.into_iter().map(move |name| (plural, key.clone(), name)))
            .collect();
        let Some((plural, key, name)) = self.hostile.pick(&all).cloned() else { return };
        self.tell(format!("{plural} {name}: the other scheme"));
        self.cluster.edit(plural, NAMESPACE, &name, |object| {
            let scheme = &mut object["metadata"]["annotations"][&key];
            *scheme = json!(if *scheme == "internal" { "internet-facing" } else { "internal" });
        });
    }

    /// Protects a load balancer from deletion, by an annotation or by hand; the next time all Ingresses are deleted in
    /// one moment, the members of each group together.
    fn protect_or_delete(&mut self) {
        if std::mem::take(&mut self.to_be_deleted) {
            for name in self.ingresses.clone() {
                self.delete("ingresses", &name);
            }
            return;
        }
        self.to_be_deleted = true;
        if self.hostile.chance(0.5) {
            let Some(name) = self.hostile.pick(&self.ingresses).cloned() else { return };
            self.tell(format!("ingress {name} protects its load balancer from deletion"));
            self.cluster.edit("ingresses", NAMESPACE, &name, |object| {
                let attributes = &mut object["metadata"]["annotations"][ATTRIBUTES];
                let others = attributes.as_str().map(|others| format!("{others},")).unwrap_or_default();
                *attributes = json!(format!("{others}{PROTECTS}"));
            });
            return;
        }
        let names: Vec<String> =
            self.aws.state().load_balancers.into_keys().filter(|name| name.starts_with("k8s-")).collect();
        let Some(name) = self.hostile.pick(&names).cloned() else { return };
        self.tell(format!("by hand, somebody protects load balancer {name} from deletion"));
        self.aws.protect(&name, true);
        self.protected.push((Instant::now(), name, self.terms));
    }

    /// Takes the protection off everywhere: first in the objects that request it, and in AWS once the controller knows that.
    pub(crate) async fn end_protection(&mut self) {
        if !matches!(self.seed % 6, 0 | 4) {
            return;
        }
        for name in self.ingresses.clone() {
            self.cluster.edit("ingresses", NAMESPACE, &name, |object| {
                let Some(annotations) = object["metadata"]["annotations"].as_object_mut() else { return };
                let Some(written) = annotations.get(ATTRIBUTES).and_then(|written| written.as_str()) else { return };
                let others: Vec<&str> = written.split(',').filter(|attribute| *attribute != PROTECTS).collect();
                match others.join(",") {
                    none if none.is_empty() => drop(annotations.remove(ATTRIBUTES)),
                    others => drop(annotations.insert(ATTRIBUTES.to_owned(), json!(others))),
                }
            });
        }
        self.pass(UNSEEN).await;
        self.tell("nothing is protected from deletion any more");
        for name in self.aws.state().load_balancers.into_keys().filter(|name| name.starts_with("k8s-")) {
            self.aws.protect(&name, false);
        }
    }

    /// Checks that a protected load balancer stays so, and that no process keeps trying to delete it.
    pub(crate) fn protection_holds(&self) -> Result<(), String> {
        for call in &self.calls {
            let switches_off = call.operation == "ModifyLoadBalancerAttributes"
                && call.params.iter().any(|(field, value)| {
                    let value_field = field.replace(".Key", ".Value");
                    value == DELETION_PROTECTION && call.params.get(&value_field).is_some_and(|value| value != "true")
                });
            if switches_off {
                return Err(format!("the protection from deletion is switched off, and nobody asks for it: {call}"));
            }
        }
        // AWS's refusal is how a leader learns of a protection that was switched on by hand: once, unless it cannot read the
        // attributes then.
        for (since, name, before) in &self.protected {
            let of_it = |call: &&Call| {
                call.at >= *since
                    && call
                        .params
                        .get("LoadBalancerArn")
                        .is_some_and(|arn| arn.split('/').nth(2) == Some(name.as_str()))
            };
            let refused = |call: &&Call| {
                call.operation == "DeleteLoadBalancer"
                    && call.outcome == Outcome::Refused("OperationNotPermitted".to_owned())
            };
            let unread =
                |call: &&Call| call.operation == "DescribeLoadBalancerAttributes" && call.outcome != Outcome::Answered;
            let refused = self.calls.iter().filter(of_it).filter(refused).count();
            let unread = self.calls.iter().filter(of_it).filter(unread).count();
            let terms = usize::try_from(self.terms - before).unwrap_or_default() + 1;
            let allowed = terms + unread;
            if refused > allowed {
                return Err(format!(
                    "it tries {refused} times to delete {name}, which is protected, and {allowed} are enough"
                ));
            }
        }
        Ok(())
    }

    /// A tenant writes many unknown annotations.
    fn flood(&mut self) {
        let Some(name) = self.hostile.pick(&self.ingresses).cloned() else { return };
        self.tell(format!("ingress {name} is flooded with annotations"));
        self.cluster.edit("ingresses", NAMESPACE, &name, |object| {
            for number in 0..FLOOD {
                object["metadata"]["annotations"][format!("alb.ingress.kubernetes.io/unknown-{number}")] = json!("x");
            }
        });
    }

    /// Tenants remove the hostile objects and annotations, and nothing stalls any more.
    pub(crate) fn end_mischief(&mut self) {
        for number in 0..3 {
            self.cluster.delete("targetgroupbindings", RIVAL, &format!("rival-{number}"));
        }
        for name in self.ingresses.clone() {
            self.cluster.edit("ingresses", NAMESPACE, &name, |object| {
                if let Some(annotations) = object["metadata"]["annotations"].as_object_mut() {
                    annotations.retain(|key, _| !key.starts_with("alb.ingress.kubernetes.io/unknown-"));
                }
            });
        }
        self.cluster.stall_no_more();
    }

    /// Changes AWS by hand several times, and waits until the audit has run twice.
    pub(crate) async fn tampered(&mut self) -> Result<(), String> {
        if !self.shape.tampered {
            return Ok(());
        }
        for _ in 0..3 {
            let mut random = albatross_simulation::random::Random::new(self.hostile.number());
            if let Some(what) = self.aws.tamper(&mut random) {
                self.tell(format!("by hand, somebody {what}"));
            }
        }
        self.pass(2 * AUDIT + Duration::from_secs(60)).await;
        self.settle().await
    }

    /// Checks that no tenant's mischief had an effect on others.
    pub(crate) fn mischief_had_no_effect(&self) -> Result<(), String> {
        let reached = |call: &&super::Call| {
            call.operation == "RegisterTargets" && call.params.values().any(|value| value == RIVAL_ADDRESS)
        };
        if let Some(call) = self.calls.iter().find(reached) {
            return Err(format!("a tenant's target is in somebody else's target group: {call}"));
        }
        let mut events: BTreeMap<&str, usize> = BTreeMap::new();
        for request in self.requests.iter().filter(|r| r.method == "POST" && r.path.ends_with("/events")) {
            *events
                .entry(
                    request.body["regarding"]["name"]
                        .as_str()
                        .or(request.body["involvedObject"]["name"].as_str())
                        .unwrap_or_default(),
                )
                .or_default() += 1;
        }
        let most = MAX_EVENTS.max(AT_ONCE * self.processes);
        match events.into_iter().find(|(name, count)| self.seed % 6 == 3 && name.starts_with("web-") && *count > most) {
            Some((name, count)) => Err(format!("{count} events are written about {name}")),
            None => Ok(()),
        }
    }
}
