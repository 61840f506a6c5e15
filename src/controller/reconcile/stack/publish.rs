//! The writes to the API server before and after a plan, finalizers and status, and the release of leaving members.
//! None asks for the permit: a write that is withheld fails, so that the pass is tried again.

use std::{collections::BTreeSet, time::Duration};

use super::{
    PassError,
    report::foreign_labels,
    whereabouts::{Publication, Published, publication},
};
use crate::controller::{
    Controller,
    cluster::{
        events::{EventType, Subject},
        kubernetes::KubernetesError,
    },
    reconcile::pass::Change,
    runtime::queue::Outcome,
};
use albatross_core::{
    dependents::{self, Key},
    desired::{self, Membership, sources::service},
    model::{AddOn, ObjectKind, ObjectName, ObservedLoadBalancer, ObservedStack, ResourceId, Stack, StackId},
    plan::{self, Planned, Wait},
};

impl Controller {
    /// Adds the stack's finalizer to its members, before any resource is created for them.
    pub(super) async fn ensure_finalizer(
        &self,
        stack: &StackId,
        membership: &Membership,
        frozen: &BTreeSet<ObjectName>,
    ) -> Result<(), KubernetesError> {
        let finalizer = stack.finalizer();
        for name in membership.served().filter(|name| !frozen.contains(name)) {
            let held = self.with_snapshot(|s| {
                desired::member(s, stack, name).is_some_and(|member| member.finalizers.contains(&finalizer))
            });
            if !held {
                self.kubernetes.add_finalizer(&stack.member(name), &finalizer).await?;
            }
        }
        Ok(())
    }

    /// Publishes the load balancer's host name on the members whose status differs. A member that waits for targets gets it
    /// when its rules are there, and one that another load balancer serves when they are everywhere: clients come with the
    /// name, and another group lets go of a member that has moved. Returns the waits for that.
    pub(super) async fn write_status(
        &self,
        change: &Change<'_>,
        observed: &ObservedStack,
    ) -> Result<BTreeSet<Wait>, KubernetesError> {
        let Change { stack, plan, .. } = *change;
        let mut arriving = BTreeSet::new();
        let Some(wanted) = &stack.load_balancer else { return Ok(arriving) };
        let Some(balancer) = observed.published(wanted) else { return Ok(arriving) };
        let is_current = observed.current(wanted).is_some_and(|current| current.arn == balancer.arn);
        let published = match is_current {
            true => Published::Current { active: balancer.is_active() },
            false => Published::Former,
        };
        let hostname = balancer.dns_name.to_lowercase();
        let front = match &stack.frontend {
            Some(front) => observed.frontend.published(front),
            // It may be a frozen member's, unless it has never served.
            None => {
                let mut all = observed.frontend.load_balancers.iter();
                let serves =
                    |front: &&ObservedLoadBalancer| front.listeners.as_ref().is_none_or(|known| !known.is_empty());
                all.find(serves).filter(|_| !stack.frozen.is_empty())
            }
        };
        let front = front.map(|balancer| balancer.dns_name.to_lowercase());
        let kept = balancer.known_listeners().map(|l| l.port).filter(|_| !stack.frozen.is_empty());
        let ports: BTreeSet<u16> = stack.listeners.keys().copied().chain(kept).collect();
        let is_exposed = observed.is_exposed(wanted);
        // Until targets let the load balancer in, no rule changes.
        let lets_in = plan.waits().iter().any(|wait| matches!(wait, Wait::LetIn(_)));
        for (name, place) in change.whereabouts {
            let lacks_rules = lets_in || is_exposed || plan.held_members().contains(&stack.id.member(name));
            let arrived = Wait::Arrived(name.clone());
            match publication(place, lacks_rules, published) {
                Publication::Later => {}
                Publication::Everywhere if self.waits.runs(&stack.id, &arrived) => drop(arriving.insert(arrived)),
                Publication::Now | Publication::Everywhere => {
                    let front = self.front_to_publish(stack, name, front.clone(), observed, &mut arriving);
                    self.write_member_status(stack, name, (hostname.as_str(), front.as_deref()), &ports).await?
                }
            }
        }
        Ok(arriving)
    }

    /// Returns the host name in front to publish for a member. One that takes over from another one that the member publishes is
    /// published when its listeners have had the time to be everywhere, which is a wait in `arriving` until then.
    fn front_to_publish(
        &self,
        stack: &Stack,
        name: &ObjectName,
        wanted: Option<String>,
        observed: &ObservedStack,
        arriving: &mut BTreeSet<Wait>,
    ) -> Option<String> {
        let shown: BTreeSet<String> = self.with_snapshot(|s| {
            let entries = desired::published(s, &stack.id, name).iter();
            entries.map(|entry| entry.hostname.to_lowercase()).collect()
        });
        let all = observed.frontend.load_balancers.iter().map(|balancer| balancer.dns_name.to_lowercase());
        let former = all.filter(|host| Some(host) != wanted.as_ref()).find(|host| shown.contains(host));
        let arrived = Wait::Arrived(name.clone());
        match former {
            Some(former) if wanted.is_some() && self.waits.runs(&stack.id, &arrived) => {
                arriving.insert(arrived);
                Some(former)
            }
            _ => wanted,
        }
    }

    async fn write_member_status(
        &self,
        stack: &Stack,
        name: &ObjectName,
        hostnames: (&str, Option<&str>),
        ports: &BTreeSet<u16>,
    ) -> Result<(), KubernetesError> {
        match stack.id {
            StackId::Group(_) | StackId::Ingress(_) => self.write_ingress_status(name, hostnames, ports).await,
            StackId::Service(_) => self.write_service_status(name, hostnames.0).await,
        }
    }

    /// Publishes the load balancer's host name on an Ingress, and that of what stands in front of it.
    async fn write_ingress_status(
        &self,
        name: &ObjectName,
        (hostname, front): (&str, Option<&str>),
        ports: &BTreeSet<u16>,
    ) -> Result<(), KubernetesError> {
        let current = self.with_snapshot(|s| s.ingresses.get(name).map(|i| i.status.clone())).unwrap_or_default();
        let shown: Vec<&str> = current.iter().map(|entry| entry.hostname.as_str()).collect();
        let wanted: Vec<&str> = std::iter::once(hostname).chain(front).collect();
        let shown_ports: BTreeSet<i32> = current.iter().take(1).flat_map(|entry| entry.ports.iter().copied()).collect();
        if shown != wanted || shown_ports != ports.iter().map(|port| i32::from(*port)).collect() {
            let ports: Vec<u16> = ports.iter().copied().collect();
            self.kubernetes.write_ingress_status(name, hostname, &ports, front).await?;
        }
        Ok(())
    }

    /// Clears the status of a released member, if the object stays and its kind requires that.
    async fn clear_status(&self, stack: &StackId, name: &ObjectName) -> Result<(), KubernetesError> {
        if !self.with_snapshot(|snapshot| desired::clears_status(snapshot, stack, name)) {
            return Ok(());
        }
        match stack {
            StackId::Group(_) | StackId::Ingress(_) => Ok(()),
            StackId::Service(_) => self.kubernetes.clear_service_status(name).await,
        }
    }

    /// Publishes the load balancer's host name on a Service. Only the type LoadBalancer has a status field for it, and
    /// the API server rejects the field on other types; those get an event.
    async fn write_service_status(&self, name: &ObjectName, hostname: &str) -> Result<(), KubernetesError> {
        let Some(service) = self.with_snapshot(|s| s.services.get(name).cloned()) else { return Ok(()) };
        if !service::has_status(&service) {
            let subject = Subject { kind: ObjectKind::Service, name: name.clone(), uid: service.uid.clone() };
            let message = format!("The load balancer's host name is {hostname}");
            self.events.record(EventType::Normal, &subject, "LoadBalancerHostname", &message);
            return Ok(());
        }
        let ports: Vec<(u16, &str)> = service.ports.iter().map(|port| (port.port, port.protocol.as_str())).collect();
        let numbers: BTreeSet<i32> = ports.iter().map(|(port, _)| i32::from(*port)).collect();
        let same = matches!(service.status.as_slice(), [entry] if entry.hostname == hostname
            && entry.ports.iter().copied().collect::<BTreeSet<i32>>() == numbers);
        if !same {
            self.kubernetes.write_service_status(name, hostname, &ports).await?;
        }
        Ok(())
    }

    /// Writes the status of the members, releases leaving members, and records the event of success. Returns also the waits
    /// that go on besides those of the plan.
    pub(super) async fn publish(&self, change: &Change<'_>) -> Result<(Outcome, BTreeSet<Wait>), PassError> {
        let observed = self.observe_after(change).await?;
        let mut kept = self.write_status(change, &observed).await?;
        kept.extend(change.membership.followed.iter().cloned().map(Wait::Moved));
        // The targets of who arrives are looked at until it is published.
        let arriving = &observed.arriving;
        let is_its = |id: &&ResourceId| arriving.iter().any(|m| m.kind == ObjectKind::Service || id.may_be_of(m));
        let looks = change.stack.target_groups.keys().filter(is_its).cloned().map(Wait::Ready);
        kept.extend(looks.filter(|look| self.waits.has(&change.stack.id, look)));
        let outcome = self.finish(change, &kept, observed).await?;
        Ok((outcome, kept))
    }

    /// Records the state, if no more is to be done in AWS, and releases leaving members.
    async fn finish(
        &self,
        change: &Change<'_>,
        kept: &BTreeSet<Wait>,
        mut observed: ObservedStack,
    ) -> Result<Outcome, PassError> {
        let Change { membership, stack, plan, .. } = *change;
        let group = &stack.id;
        observed.states_are_read = change.observed.states_are_read;
        let left_out = &change.observed.left_out;
        let is_left_out = |step: &plan::Step| step.action.add_on().is_some_and(|add_on| left_out.contains(&add_on));
        let mut next = plan::plan(stack, &observed);
        let mut keeps_certificate = left_out.contains(&AddOn::Certificates);
        if let Planned::Ready(next) = &mut next {
            keeps_certificate |= next.withhold_paused(&observed);
            next.retain_steps(|step| !is_left_out(step));
        }
        let waits = kept.iter().any(Wait::is_of_plan);
        let complete = !waits && !stack.interim && matches!(&next, Planned::Ready(next) if next.is_complete());
        // What waits keeps nobody's resources without an owner.
        let is_done = matches!(&next, Planned::Ready(next) if next.steps().is_empty());
        if !membership.members.is_empty() && is_done && group.is_shared() {
            observed.member_resources = plan::member_resources(stack, &observed, plan.held_members());
            self.inventory.remember_member_resources(group, observed.member_resources.clone());
        }
        // A record without certificates says that there are none. One that could not be deleted is in it as AWS has it.
        let unknown = plan::certificates_are_unknown(stack, &observed);
        let is_known = !unknown && left_out.iter().all(|add_on| *add_on == AddOn::Certificates);
        if !membership.members.is_empty() && complete && is_known {
            let tag_keys = plan::tag_keys(stack, &observed);
            self.records.mark_clean(group, &observed, tag_keys);
        } else if !membership.members.is_empty() {
            self.records.remember(group, &observed);
        }
        if !plan.steps().iter().all(is_left_out) {
            let frozen = &stack.frozen.members;
            let add_ons = stack.load_balancer.as_ref().map(|balancer| &balancer.add_ons);
            let left_out = left_out.iter().filter_map(|add_on| Some(&add_ons?.cause(*add_on)?.object));
            let lacking: BTreeSet<_> = left_out.chain(add_ons.iter().flat_map(|add_ons| &add_ons.lacking)).collect();
            let is_done = |name: &&ObjectName| {
                let member = group.member(name);
                let waits = lacking.contains(&&member)
                    || plan.held_members().contains(&member)
                    || kept.contains(&Wait::Arrived((*name).clone()));
                !frozen.contains(&member) && !waits
            };
            let served: Vec<_> = membership.served().filter(is_done).cloned().collect();
            for subject in self.subjects(group, &served) {
                self.events.record(EventType::Normal, &subject, "SuccessfullyReconciled", "Successfully reconciled");
            }
        }
        if !membership.leaving.is_empty() && !membership.members.is_empty() {
            self.release(group, membership, stack, &observed).await?;
        } else if !membership.leaving.is_empty() {
            if unknown {
                // The pass reports what it could not read, and comes again. If a failure in it has made them unknown, the next one
                // reads them.
                let is_reported = observed.left_out.contains(&AddOn::Certificates);
                return Ok(if is_reported { Outcome::Done } else { Outcome::Again(Duration::from_secs(1)) });
            }
            let has_certificates = observed.certificates.as_ref().is_some_and(|all| !all.is_empty());
            if !observed.is_empty() || has_certificates && stack.certificates.enabled {
                // A certificate that AWS has not deleted is reported, and the pass comes again.
                if observed.is_empty() && keeps_certificate {
                    return Ok(Outcome::Done);
                }
                // The watch queues the stack again when a binding is deleted; everything else is deleted already, or is now that
                // what stands in front is.
                let front_is_gone = observed.frontend.is_empty() && !change.observed.frontend.is_empty();
                return Ok(if observed.bindings.is_empty() || front_is_gone || !observed.frontend.is_empty() {
                    Outcome::Again(Duration::from_secs(1))
                } else {
                    Outcome::Done
                });
            }
            if let Some(left) = self.inventory.uncertain_for(group) {
                return Ok(Outcome::Again(left));
            }
            if let Some(outcome) = self.release_stack(group, membership, &observed).await? {
                return Ok(outcome);
            }
        }
        // A step may have waited for the result of this plan: a front-end security group is deleted after its load
        // balancer.
        let has_next = stack.interim || !matches!(&next, Planned::Ready(next) if next.steps().is_empty());
        let more = !plan.steps().is_empty() && has_next;
        Ok(if more { Outcome::Again(Duration::from_secs(1)) } else { Outcome::Done })
    }

    /// Releases the members of a stack that has no resources in AWS any more. Returns the outcome of the pass if it is
    /// too early.
    async fn release_stack(
        &self,
        group: &StackId,
        membership: &Membership,
        observed: &ObservedStack,
    ) -> Result<Option<Outcome>, PassError> {
        // A binding created just now may be missing from the cache, and no later pass would delete it.
        let labelled = self.kubernetes.labelled_bindings(group).await?;
        let (own, foreign): (Vec<_>, Vec<_>) = self.with_snapshot(|snapshot| {
            labelled.into_iter().partition(|binding| dependents::is_binding_of(group, binding, observed, snapshot))
        });
        if !own.is_empty() {
            return Ok(Some(Outcome::Again(Duration::from_secs(1))));
        }
        for binding in &foreign {
            let subject =
                Subject { kind: ObjectKind::TargetGroupBinding, name: binding.name.clone(), uid: binding.uid.clone() };
            let message = foreign_labels(&binding.name, group);
            self.events.record(EventType::Warning, &subject, "ForeignLabels", &message);
        }
        let finalizer = group.finalizer();
        for name in &membership.leaving {
            self.clear_status(group, name).await?;
            self.kubernetes.remove_finalizer(&group.member(name), &finalizer).await?;
        }
        self.waits.end(group);
        self.records.remove(group);
        self.step_history.remove(group);
        self.inventory.remember_member_resources(group, Vec::new());
        self.inventory.release_certificates(group);
        self.queue.add(Key::NodeRules);
        Ok(None)
    }

    /// Removes the finalizer of members that leave a group with other members, as soon as they have no resources of
    /// their own.
    pub(super) async fn release(
        &self,
        group: &StackId,
        membership: &Membership,
        stack: &Stack,
        observed: &ObservedStack,
    ) -> Result<(), KubernetesError> {
        if membership.leaving.is_empty() || membership.members.is_empty() {
            return Ok(());
        }
        let Planned::Ready(left) = plan::plan(stack, observed) else { return Ok(()) };
        let is_held = |name: &&ObjectName| plan::delays_release(&left, stack, observed, &group.member(name));
        for name in membership.leaving.iter().filter(|name| !is_held(name)) {
            self.kubernetes.remove_finalizer(&group.member(name), &group.finalizer()).await?;
        }
        Ok(())
    }
}
