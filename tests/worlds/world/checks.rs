//! The invariants of a world that has come to rest.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;
use tokio::time::Instant;

use super::{
    Shape, World,
    compare::{compared, is_made, made_of, names, record_of, text_of},
    in_role, objects,
};
use albatross_core::dry_run_plan;
use albatross_simulation::{
    aws::Call,
    cluster::{Change, Request, is_deleting},
};

/// The kinds of objects that users write, and parties other than the controller.
const OTHERS: [&str; 7] =
    ["ingressclasses", "nodes", "pods", "services", "endpointslices", "ingresses", "targetgroupbindings"];

impl World {
    /// The same objects in a cluster and an AWS that have no past, without faults.
    async fn without_past(&self) -> Result<World, String> {
        let calm = Shape { cluster_faults: false, aws_faults: false, ..self.shape.clone() };
        let mut fresh = World::new(self.seed, calm);
        for plural in OTHERS {
            for object in self.cluster.list(plural) {
                if plural == "ingressclasses" || plural == "nodes" || is_made(&object) || is_deleting(&object) {
                    continue;
                }
                let mut copy = Value::clone(&object);
                copy["metadata"].as_object_mut().unwrap().remove("finalizers");
                if let Some(annotations) = copy["metadata"]["annotations"].as_object_mut() {
                    annotations.remove(dry_run_plan::KEY);
                }
                let (name, status) = (copy["metadata"]["name"].as_str().unwrap().to_owned(), copy["status"].clone());
                fresh.cluster.create(copy).unwrap();
                if plural == "pods" {
                    fresh.aws.add_pod_address(
                        status["podIP"].as_str().unwrap(),
                        object["spec"]["nodeName"].as_str().and_then(|n| n.rsplit('-').next()?.parse().ok()).unwrap(),
                    );
                    fresh.cluster.set_status(plural, objects::NAMESPACE, &name, status);
                }
            }
        }
        fresh.start();
        fresh.settle().await.map_err(|error| format!("the world without a past: {error}"))?;
        fresh.kill();
        Ok(fresh)
    }

    /// All that must be true in the end.
    pub(crate) async fn judge(&mut self) -> Result<(), String> {
        let fresh = self.without_past().await?;
        let (is, shall_be) = (self.aws.state(), fresh.aws.state());
        if !is.is_sound() {
            return Err(format!("AWS was asked for what is not simulated: {:?}", is.not_simulated));
        }
        compared("what AWS has", &text_of(&is), &text_of(&shall_be))?;
        let made = made_of(&self.cluster, &names(&is));
        compared("what the cluster has", &made, &made_of(&fresh.cluster, &names(&shall_be)))?;
        self.nothing_to_do_after_a_restart().await?;
        if self.shape.deleted {
            self.nothing_left_after_deletion().await?;
        }
        self.every_deletion_has_its_cause()?;
        self.mischief_had_no_effect()?;
        self.protection_holds()?;
        self.nothing_lasting_is_called_a_repetition()?;
        self.nothing_is_written_without_the_lease()
    }

    fn nothing_is_written_without_the_lease(&self) -> Result<(), String> {
        // What was on its way arrives.
        let late = |at: Instant| self.deposed.iter().any(|(lost, gone)| (*lost + ON_ITS_WAY..*gone).contains(&at));
        let to_aws = self.calls.iter().filter(|call| call.is_write && late(call.at)).map(ToString::to_string);
        let written = |r: &&Request| r.is_write() && !r.path.ends_with("/events") && late(r.at);
        let to_cluster = self.requests.iter().filter(written).map(|r| format!("{} {}", r.method, r.path));
        match to_aws.chain(to_cluster).next() {
            Some(write) => Err(format!("it is written without the lease: {write}")),
            None => Ok(()),
        }
    }

    /// Checks that, where no request fails, every write lasts, also with a policy engine that changes objects as they are written.
    fn nothing_lasting_is_called_a_repetition(&self) -> Result<(), String> {
        let calm = !self.shape.cluster_faults && !self.shape.aws_faults;
        match self.requests.iter().find(|request| request.body["reason"] == "ChangeDoesNotLast") {
            Some(event) if calm => Err(format!("a step is said not to last: {}", event.body["message"])),
            _ => Ok(()),
        }
    }

    async fn nothing_to_do_after_a_restart(&mut self) -> Result<(), String> {
        self.kill();
        self.tell("everything is as it shall be; from here on nothing is to be written");
        let (calls, begun) = (self.calls.len(), Instant::now());
        self.keep_requests();
        self.start();
        self.settle().await?;
        self.keep_requests();
        let read = self.calls.len();
        tokio::time::sleep(Duration::from_secs(900)).await;
        self.keep_requests();
        // The audit reads.
        if let Some(call) = self.calls.get(read).filter(|_| !self.shape.tampered) {
            return Err(format!("it asks AWS though nothing happens: {call}"));
        }
        let writes = self.calls[calls..].iter().filter(|call| call.is_write).map(|call| call.to_string());
        // A new process puts its name on the records.
        let of_process = |r: &Request| r.path.contains("/configmaps") && record_of(&r.body).is_none();
        let apart = |r: &Request| r.path.ends_with("/events") || of_process(r);
        let requests = self.requests.iter().filter(|r| r.at >= begun && r.is_write() && !apart(r));
        let writes: Vec<String> =
            writes.chain(requests.map(|r| format!("{} {} {}", r.method, r.path, r.body))).collect();
        if writes.is_empty() {
            Ok(())
        } else {
            Err(format!("it writes though nothing has changed:\n{}", writes.join("\n")))
        }
    }

    async fn nothing_left_after_deletion(&mut self) -> Result<(), String> {
        self.delete_everything();
        self.settle().await?;
        let before = World::new(self.seed, self.shape.clone());
        let mut known = before.aws.state();
        // A binding that does not share its target group takes it over whole, and leaves it empty.
        for (name, group) in &mut known.target_groups {
            let bound = if in_role(self.seed) { "abroad" } else { "others" };
            if name.starts_with(bound) && !self.shares_groups() {
                group.targets.clear();
            }
        }
        compared("what AWS has after all was deleted", &text_of(&self.aws.state()), &text_of(&known))?;
        for plural in ["ingresses", "targetgroupbindings", "configmaps"] {
            let mut left = self.cluster.list(plural);
            left.retain(|object| plural != "configmaps" || record_of(object).is_some());
            if !left.is_empty() {
                return Err(format!("{plural} are left after all was deleted: {left:?}"));
            }
        }
        Ok(())
    }

    /// No load balancer is deleted whose object exists, and no target deregistered that serves.
    fn every_deletion_has_its_cause(&self) -> Result<(), String> {
        let log = self.cluster.log();
        for call in self.calls.iter().filter(|call| call.took_effect) {
            match call.operation.as_str() {
                "DeleteLoadBalancer" => self.load_balancer_may_go(call, &log)?,
                "DeregisterTargets" => {
                    targets_may_go(call, &log, if self.shape.cluster_faults { VERY_OLD } else { OLD })?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn load_balancer_may_go(&self, call: &Call, log: &[Change]) -> Result<(), String> {
        let plain = |name: &str| name.replace('-', "");
        let group_of = |object: &Value| {
            let name = &object["metadata"]["annotations"]["alb.ingress.kubernetes.io/group.name"];
            name.as_str().map(str::to_owned)
        };
        // …:loadbalancer/app/k8s-<namespace>-<name>-<hash>/<id>, or k8s-<group>-<hash>
        let arn = &call.params["LoadBalancerArn"];
        let parts: Vec<&str> = arn.split('/').nth(2).map(|name| name.split('-').collect()).unwrap_or_default();
        let [_, _, owner, _] = parts.as_slice() else {
            // A member that joins as the last one leaves may come too late.
            let group = parts.get(1).copied().unwrap_or_default();
            let ingresses = lately(log, call.at, OLD, |change| change.plural == "ingresses");
            let asks = |change: &&&Change| {
                let stands = change.verb != "DELETED" && !is_deleting(&change.object);
                stands && change.at + OLD < call.at && group_of(&change.object).as_deref() == Some(group)
            };
            let name = |change: &Change| change.object["metadata"]["name"].clone();
            let only = |change: &&&Change| ingresses.iter().filter(|other| name(other) == name(change)).count() == 1;
            return match ingresses.iter().filter(asks).find(only) {
                Some(member) => Err(format!("a load balancer is deleted that {} asks for: {call}", name(member))),
                None => Ok(()),
            };
        };
        let named = |object: &Value| object["metadata"]["name"].as_str().is_some_and(|name| plain(name) == *owner);
        let of_owner = |change: &&Change| {
            matches!(change.plural, "ingresses" | "services") && change.at <= call.at && named(&change.object)
        };
        match log.iter().rev().find(of_owner) {
            Some(last)
                if last.verb != "DELETED"
                    && !is_deleting(&last.object)
                    && group_of(&last.object).is_none()
                    && !self.is_replaced(call, log, &named) =>
            {
                Err(format!("a load balancer is deleted whose object stands: {call}"))
            }
            Some(_) => Ok(()),
            None => Err(format!("a load balancer is deleted that nobody has asked for: {call}")),
        }
    }
}

impl World {
    /// Returns true if the owner of a load balancer lately requested one of another scheme.
    fn is_replaced(&self, call: &Call, log: &[Change], named: &dyn Fn(&Value) -> bool) -> bool {
        let name = call.params["LoadBalancerArn"].split('/').nth(2).unwrap_or_default();
        let makes = |made: &&Call| {
            made.operation == "CreateLoadBalancer"
                && made.took_effect
                && made.at <= call.at
                && made.params["Name"] == name
        };
        let Some(made) = self.calls.iter().rev().find(makes) else { return false };
        let owners = lately(log, call.at, OLD, |change| {
            matches!(change.plural, "ingresses" | "services") && named(&change.object)
        });
        owners.iter().any(|change| {
            let annotations = &change.object["metadata"]["annotations"];
            let keys = ["alb.ingress.kubernetes.io/scheme", "service.beta.kubernetes.io/aws-load-balancer-scheme"];
            keys.iter().filter_map(|key| annotations[*key].as_str()).any(|scheme| scheme != made.params["Scheme"])
        })
    }
}

/// The most time until a write is carried out, with the requests one after another whose answers decide about it.
const ON_ITS_WAY: Duration = Duration::from_millis(1000);

/// The maximum age of the controller's knowledge where no watch is disturbed: as long as a throttled call is repeated.
const OLD: Duration = Duration::from_secs(60);
/// The same where watches are disturbed: a connection that goes silent is noticed after 320 s, and read again.
const VERY_OLD: Duration = Duration::from_secs(450);

/// Returns the states of some objects at any moment of the time `old` before `until`.
fn lately<'a>(log: &'a [Change], until: Instant, old: Duration, of: impl Fn(&Change) -> bool + 'a) -> Vec<&'a Change> {
    let before = log.iter().filter(|change| change.at <= until && of(change));
    // The last state of each object before that time, and all within it.
    let mut states: BTreeMap<&str, Vec<&Change>> = BTreeMap::new();
    for change in before {
        let states = states.entry(change.object["metadata"]["name"].as_str().unwrap_or_default()).or_default();
        if change.at + old < until {
            states.clear();
        }
        states.push(change);
    }
    states.into_values().flatten().collect()
}

/// A pod that is ready all the time, behind a Service and a binding that stand all the time, stays registered.
fn targets_may_go(call: &Call, log: &[Change], old: Duration) -> Result<(), String> {
    let group = &call.params["TargetGroupArn"];
    let stands = |change: &&Change| change.verb != "DELETED" && !is_deleting(&change.object);
    let bindings = lately(log, call.at, old, |change| {
        change.plural == "targetgroupbindings" && change.object["spec"]["targetGroupARN"] == **group
    });
    let [first, ..] = bindings.as_slice() else { return Ok(()) };
    let (service, port) = (&first.object["spec"]["serviceRef"]["name"], &first.object["spec"]["serviceRef"]["port"]);
    let has_port = |change: &&Change| {
        let mut ports = change.object["spec"]["ports"].as_array().into_iter().flatten();
        stands(change) && ports.any(|has| has["port"] == *port || has["name"] == *port)
    };
    let services = lately(log, call.at, old, |change| {
        change.plural == "services" && change.object["metadata"]["name"] == *service
    });
    if !bindings.iter().all(stands) || !services.iter().all(has_port) || first.at + old > call.at {
        return Ok(());
    }
    let slices = lately(log, call.at, old, |change| {
        change.plural == "endpointslices"
            && change.object["metadata"]["labels"]["kubernetes.io/service-name"] == *service
    });
    for (field, address) in call.params.iter().filter(|(field, _)| field.ends_with(".Id")) {
        let serves = |change: &&Change| {
            let endpoints = change.object["endpoints"].as_array().into_iter().flatten();
            let mut of_pod = endpoints.filter(|endpoint| endpoint["addresses"][0] == **address);
            change.verb != "DELETED" && of_pod.any(|endpoint| endpoint["conditions"]["ready"] == true)
        };
        if !slices.is_empty() && slices.iter().all(serves) {
            return Err(format!("a target is deregistered that serves, {field}={address}: {call}"));
        }
    }
    Ok(())
}
