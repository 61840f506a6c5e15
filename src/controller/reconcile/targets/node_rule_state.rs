//! The rules on the security groups of nodes and pods, for all bindings together.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::Ordering,
    time::Duration,
};

use futures::future::join_all;

use albatross_aws::{AwsError, AwsErrorKind};
use albatross_core::{
    api::crd::target_group_binding::TargetType,
    model::{
        ObjectName, ObservedSecurityGroup, SecurityGroupId, SecurityGroupRule, Source, Target, TargetGroupArn,
        tags::BINDING_FINALIZER,
    },
    snapshot::{PodPort, Snapshot, TargetGroupBinding},
};

use self::leaving::{LeavingRules, SparedRules};
use super::{
    Cloud, Cluster, Problem, Stage, Subject, Targets, TargetsError,
    network_interfaces::{InterfaceLookup, KnownGroups, Located, NetworkInterfaces, interface_lookup, read_groups},
};
use albatross_core::targets::{
    binding_owners::{ByGroup, KnownArn, Owner, has_had_targets},
    endpoints::{Resolution, SilentNodes, TargetOwner, resolve},
    node_rules::{RuleChange, RulesByGroup, TargetEndpoint, changes, combine, covers, of_binding, sources},
    role::Role,
};

/// The maximum number of concurrent reads from the API server.
const PROOFS_AT_ONCE: usize = 16;
/// The code of EC2's error for one rule too many.
const TOO_MANY_RULES: &str = "RulesPerSecurityGroupLimitExceeded";

/// The cached security groups and network interfaces.
#[derive(Debug, Default)]
pub(crate) struct State {
    interfaces: NetworkInterfaces,
    groups: KnownGroups,
    /// All groups that may have rules of the controller, including groups that must be read again.
    seen: BTreeSet<SecurityGroupId>,
    /// True if the groups with the cluster's tag were read, which may have rules from before the start.
    swept: bool,
    /// The rules that each binding requested when it was last valid: they stay while the binding is not valid.
    understood: BTreeMap<ObjectName, RulesByGroup>,
    leaving: LeavingRules,
}

/// The result of reconciling the node rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeRulesOutcome {
    /// The rules added in this pass.
    pub authorized: Vec<(SecurityGroupId, SecurityGroupRule)>,
    /// The rules removed in this pass.
    pub revoked: Vec<(SecurityGroupId, SecurityGroupRule)>,
    /// The time until rules may go that stay for targets that have just gone.
    pub again: Option<Duration>,
}

/// The failures of a pass over the node rules.
#[derive(Debug)]
pub struct NodeRulesError {
    /// At least one.
    pub problems: Vec<TargetsError>,
    /// As in [`NodeRulesOutcome`].
    pub again: Option<Duration>,
}

/// A target of a binding: its network interface, its named ports and its owner.
type TargetLocation = (InterfaceLookup, Vec<PodPort>, TargetOwner);

/// The direction of a pass over all groups. All rules are added to all groups before any rule is removed, since targets
/// may move from one group to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    Authorize,
    Revoke,
}

/// A group in one pass, with its desired rules.
struct Task<'a> {
    id: &'a SecurityGroupId,
    shall_have: &'a BTreeSet<SecurityGroupRule>,
    pass: Pass,
    /// The rules that stay.
    keep: Vec<Pin>,
    /// The rules that stay as long as the group has room.
    spared: &'a SparedRules,
}

/// A set of rules that stay, because a rule of their source could not be added, or because they may belong to a binding
/// whose rules are unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pin {
    /// The source of the rules; `None` means every source.
    source: Option<Source>,
    /// The groups of the rules; `None` means every group.
    groups: Option<BTreeSet<SecurityGroupId>>,
}

impl Pin {
    fn everywhere(source: Option<Source>) -> Self {
        Self { source, groups: None }
    }

    fn holds(&self, group: &SecurityGroupId, rule: &SecurityGroupRule) -> bool {
        self.source.as_ref().is_none_or(|source| *source == rule.source)
            && self.groups.as_ref().is_none_or(|groups| groups.contains(group))
    }
}

/// A binding with networking, and its targets.
struct Demand {
    binding: TargetGroupBinding,
    target_locations: Vec<TargetLocation>,
}

/// The bindings with networking, by the state of their targets.
#[derive(Default)]
struct Demands {
    /// The bindings with targets.
    clear: Vec<Demand>,
    /// The bindings without known targets.
    empty: Vec<(TargetGroupBinding, Resolution)>,
    /// The bindings that are not valid or not complete yet, with the targets that are known nevertheless.
    obscure: Vec<Demand>,
    /// The bindings among `obscure` that wait for their own first pass or for the creation of another binding.
    waiting: BTreeSet<ObjectName>,
}

impl<C: Cloud, K: Cluster> Targets<C, K> {
    /// Adds the rules that allow load balancers to reach the nodes and pods of all bindings with `spec.networking`, and
    /// removes the rules that no binding requests, unless they may belong to a binding whose rules are unknown. If
    /// nothing has changed, AWS is not called.
    ///
    /// # Errors
    /// Returns all failures, at least one; everything else is done. A binding that is not valid keeps its last rules.
    /// If those are unknown, all rules of its sources stay on the groups of its targets or, if those are unknown too
    /// and it has had targets, on all groups. The caller tries again.
    pub async fn reconcile_node_rules(&self) -> Result<NodeRulesOutcome, NodeRulesError> {
        let mut state = self.node_rules.lock().await;
        self.node_rules_due.store(false, Ordering::Release);
        let mut outcome = NodeRulesOutcome::default();
        let mut problems = Vec::new();
        if let Err(error) = self.authorize_sources(&mut state, &mut outcome, &mut problems).await {
            let (subject, stage) = (Subject::NodeRules, Stage::Network);
            problems.push(TargetsError { subject, stage, problem: Problem::Aws(error) });
        }
        for (group, rule) in &outcome.authorized {
            tracing::info!(%group, %rule, "rule added");
        }
        for (group, rule) in &outcome.revoked {
            tracing::info!(%group, %rule, "rule removed");
        }
        if problems.is_empty() {
            return Ok(outcome);
        }
        Err(NodeRulesError { problems, again: outcome.again })
    }

    /// Invalidates the cached security groups and network interfaces, so that the next pass finds drift. The last valid
    /// rules of bindings stay known.
    pub async fn invalidate_node_rules(&self) {
        let mut state = self.node_rules.lock().await;
        let (understood, leaving) = (std::mem::take(&mut state.understood), std::mem::take(&mut state.leaving));
        *state = State { understood, leaving, ..State::default() };
        drop(state);
        self.node_rules_due.store(true, Ordering::Release);
    }

    async fn authorize_sources(
        &self,
        state: &mut State,
        outcome: &mut NodeRulesOutcome,
        problems: &mut Vec<TargetsError>,
    ) -> Result<(), AwsError> {
        if !state.swept {
            let tagged = self.cloud.cluster_security_groups().await?;
            state.seen.extend(tagged.iter().map(|group| group.id.clone()));
            state.groups.extend(tagged.into_iter().map(|group| (group.id.clone(), group)));
            state.swept = true;
        }
        let asked = self.generations();
        let Demands { clear, empty, mut obscure, waiting } = self.demands(problems).await?;
        let refused = self.refused();
        let all = clear.iter().chain(&obscure).chain(&refused);
        let wanted: BTreeSet<InterfaceLookup> =
            all.flat_map(|demand| demand.target_locations.iter().map(|(place, ..)| place.clone())).collect();
        let State { interfaces, groups, seen, understood, leaving, .. } = state;
        let tags = &self.settings.endpoint_group_tags;
        let located = interfaces.locate(&self.cloud, groups, &wanted, &self.settings.cluster, tags).await?;
        let mut rules: BTreeMap<ObjectName, RulesByGroup> = BTreeMap::new();
        for demand in clear {
            let before = problems.len();
            let of_binding = rules_of(&demand, &located, problems);
            let name = demand.binding.name.clone();
            if problems.len() == before {
                understood.insert(name.clone(), of_binding.clone());
            } else {
                obscure.push(demand);
            }
            rules.insert(name, of_binding);
        }
        let unclear: BTreeSet<&ObjectName> = obscure.iter().map(|demand| &demand.binding.name).collect();
        understood.retain(|name, _| rules.contains_key(name) || unclear.contains(name));
        let mut failed: Vec<Pin> = refused.iter().flat_map(|demand| pins(demand, &located)).collect();
        // Their rules stay, so their groups must be known, including invalidated ones.
        let had = obscure.iter().filter_map(|demand| understood.get(&demand.binding.name));
        seen.extend(had.flat_map(|rules| rules.keys().cloned()));
        read_groups(&self.cloud, groups, &*seen).await?;
        seen.retain(|id| groups.contains_key(id));
        for demand in &obscure {
            match understood.get(&demand.binding.name) {
                Some(had) => {
                    let kept = rules.entry(demand.binding.name.clone()).or_default();
                    for (group, rules) in had.iter().filter(|(group, _)| groups.contains_key(*group)) {
                        kept.entry(group.clone()).or_default().extend(rules.iter().cloned());
                    }
                }
                None => failed.extend(pins(demand, &located)),
            }
        }
        let spared = leaving.spare(&rules, &self.snapshot(), self.settings.propagation);
        outcome.again = spared.left;
        let rule_requesters = rule_requesters(&rules);
        let wanted = combine(rules.into_values(), self.settings.restricted_rules);
        seen.extend(groups.keys().chain(wanted.keys()).cloned());
        read_groups(&self.cloud, groups, &*seen).await?;
        seen.retain(|id| groups.contains_key(id));
        for group in wanted.iter().filter(|(id, rules)| !rules.is_empty() && !seen.contains(*id)).map(|(id, _)| id) {
            fail(problems, &rule_requesters, group, None, &Problem::SecurityGroupGone(group.clone()));
            // The new groups of their targets are unknown, so the old rules stay.
            let sources = rule_requesters.get(group).into_iter().flatten().flat_map(|(_, sources)| sources);
            failed.extend(sources.cloned().map(Some).map(Pin::everywhere));
        }
        let none = BTreeSet::new();
        let mut known = seen.iter().filter_map(|id| groups.get(id));
        let revokes = known.any(|group| {
            let surplus = changes(wanted.get(&group.id).unwrap_or(&none), &group.ingress).revoke;
            surplus.iter().any(|rule| !keeps(&failed, &group.id, rule) && !spared.spares(&group.id, rule))
        });
        if revokes {
            failed.extend(self.prove_unasked(empty, problems).await);
        }
        for pass in [Pass::Authorize, Pass::Revoke] {
            for id in &*seen {
                // A source that could not be allowed keeps its old rules.
                let task = Task {
                    id,
                    shall_have: wanted.get(id).unwrap_or(&none),
                    pass,
                    keep: failed.clone(),
                    spared: &spared,
                };
                if let Err(failure) = self.change_group(groups, &task, outcome).await {
                    if failure.error.kind == AwsErrorKind::Withheld {
                        return Err(failure.error);
                    }
                    fail(problems, &rule_requesters, id, failure.source.as_ref(), &Problem::Aws(failure.error));
                    // A rule that could not be removed from one group does not keep rules on other groups.
                    failed.extend((pass == Pass::Authorize).then(|| Pin::everywhere(failure.source)));
                }
            }
            if pass == Pass::Authorize {
                self.remember_opened(&asked, problems, &waiting);
            }
        }
        Ok(())
    }

    fn generations(&self) -> BTreeMap<ObjectName, i64> {
        let snapshot = self.snapshot();
        snapshot.target_group_bindings.values().map(|binding| (binding.name.clone(), binding.generation)).collect()
    }

    /// Records the bindings of these generations whose sources are all allowed, except bindings with transient problems or
    /// with a rule that AWS refused. A full security group does not count as a problem: it has room after the removal of old
    /// rules.
    fn remember_opened(
        &self,
        asked: &BTreeMap<ObjectName, i64>,
        problems: &[TargetsError],
        waiting: &BTreeSet<ObjectName>,
    ) {
        let holds_up = |error: &&TargetsError| match &error.problem {
            Problem::Aws(aws) => aws.code() != Some(TOO_MANY_RULES),
            _ => error.is_transient(),
        };
        let lacking: BTreeSet<&ObjectName> =
            problems.iter().filter(holds_up).filter_map(TargetsError::binding).collect();
        let complete = asked.iter().filter(|(name, _)| !lacking.contains(name) && !waiting.contains(*name));
        *self.opened() = complete.map(|(name, generation)| (name.clone(), *generation)).collect();
    }

    /// Reads from the API server before rules are removed because no binding requests them, since a watch may wrongly
    /// show nothing. Returns the rules that stay because the API server does not confirm it.
    async fn prove_unasked(
        &self,
        empty: Vec<(TargetGroupBinding, Resolution)>,
        problems: &mut Vec<TargetsError>,
    ) -> Vec<Pin> {
        let mut unproved = Vec::new();
        let mut proofs = Vec::with_capacity(empty.len());
        for some in empty.chunks(PROOFS_AT_ONCE) {
            proofs.extend(
                join_all(some.iter().map(|(binding, resolution)| self.prove_nothing(binding, resolution))).await,
            );
        }
        for ((binding, _), proof) in empty.iter().zip(proofs) {
            if let Err(problem) = proof {
                let sources = binding.spec.networking.iter().flat_map(sources);
                unproved.extend(sources.map(Some).map(Pin::everywhere));
                problems.push(TargetsError::of_binding(&binding.name, Stage::Network, problem));
            }
        }
        let no_bindings = self.snapshot().target_group_bindings.is_empty();
        if no_bindings {
            let problem = match self.cluster.has_bindings().await {
                Ok(false) => return unproved,
                Ok(true) => Problem::Behind("a TargetGroupBinding".to_owned()),
                Err(error) => error.into(),
            };
            problems.push(TargetsError { subject: Subject::NodeRules, stage: Stage::Network, problem });
            unproved.push(Pin::everywhere(None));
        }
        unproved
    }

    /// Returns the bindings whose role is not valid: their rules stay until they are corrected.
    fn refused(&self) -> Vec<Demand> {
        let snapshot = self.snapshot();
        let refused = snapshot.target_group_bindings.values().filter(|binding| Role::of(&binding.spec).is_err());
        let demand = |binding: &TargetGroupBinding| Demand {
            target_locations: target_locations(&snapshot, binding, self.settings.silent_nodes),
            binding: binding.clone(),
        };
        refused.filter(|binding| binding.spec.networking.is_some()).map(demand).collect()
    }

    /// Returns the targets of bindings with networking, without AWS calls about the bindings: the pass over a binding
    /// completes its spec. Bindings that are not valid become problems.
    async fn demands(&self, problems: &mut Vec<TargetsError>) -> Result<Demands, AwsError> {
        let asks = |binding: &&TargetGroupBinding| {
            let held = binding.finalizers.iter().any(|finalizer| finalizer == BINDING_FINALIZER);
            binding.spec.networking.is_some()
                && Role::of(&binding.spec).is_ok()
                // The targets of a deleted binding stay registered, and then drain, until it is released.
                && (!binding.deleting || held)
        };
        let bindings: Vec<_> = self.snapshot().target_group_bindings.values().filter(asks).cloned().collect();
        let mut completed = Vec::new();
        for binding in bindings {
            let known = self.completed(&binding);
            let owner = match &known {
                Ok(Some((_, arn))) => self.owner(arn).await?,
                Ok(None) | Err(_) => None,
            };
            completed.push((binding, known, owner));
        }
        let snapshot = self.snapshot();
        let by_group = ByGroup::of(&snapshot);
        let mut demands = Demands::default();
        let silent = self.settings.silent_nodes;
        let obscure = |binding: TargetGroupBinding| Demand {
            target_locations: target_locations(&snapshot, &binding, silent),
            binding,
        };
        for (binding, known, owner) in completed {
            let name = binding.name.clone();
            match demand_of(&snapshot, &by_group, &|named| self.known_arn(named), known, owner.as_ref(), silent) {
                Ok(BindingDemand::Nothing) => {}
                Ok(BindingDemand::Clear(demand)) => demands.clear.push(demand),
                Ok(BindingDemand::Empty(binding, resolution)) => demands.empty.push((binding, resolution)),
                Ok(BindingDemand::Waits) => {
                    demands.obscure.push(obscure(binding));
                    demands.waiting.insert(name);
                }
                Err(problem) => {
                    problems.push(TargetsError::of_binding(&name, Stage::Network, problem));
                    demands.obscure.push(obscure(binding));
                }
            }
        }
        Ok(demands)
    }

    async fn change_group(
        &self,
        groups: &mut KnownGroups,
        task: &Task<'_>,
        outcome: &mut NodeRulesOutcome,
    ) -> Result<(), RuleFailure> {
        // A second attempt, after another read, covers changes by other clients in the meantime.
        for last in [false, true] {
            read_groups(&self.cloud, groups, [task.id]).await?;
            let Some(group) = groups.get_mut(task.id) else { return Ok(()) };
            let mut change = changes(task.shall_have, &group.ingress);
            // A rule that another rule covers, such as one with a wider range, may go.
            let stands = |rule: &SecurityGroupRule| {
                task.pass == Pass::Authorize || group.ingress.iter().any(|there| there.identity() == rule.identity())
            };
            let instead: Vec<_> = task.shall_have.iter().filter(|rule| stands(rule)).cloned().collect();
            change.revoke.retain(|rule| {
                // A full group needs the room of those that are spared.
                let spared = task.pass == Pass::Revoke && task.spared.spares(task.id, rule);
                !spared && !keeps(&task.keep, task.id, rule) || instead.iter().any(|instead| covers(instead, rule))
            });
            match task.pass {
                // The rules to remove are known in this pass too, since a full group needs them.
                Pass::Authorize if change.authorize.is_empty() => return Ok(()),
                Pass::Authorize => {}
                Pass::Revoke => change.authorize.clear(),
            }
            match self.change_rules(group, change, task.pass, outcome).await {
                Err(failure) if failure.error.asks_to_read_again() => {
                    groups.remove(task.id);
                    if last {
                        return Err(failure);
                    }
                }
                answer => return answer,
            }
        }
        Ok(())
    }

    async fn change_rules(
        &self,
        group: &mut ObservedSecurityGroup,
        change: RuleChange,
        pass: Pass,
        outcome: &mut NodeRulesOutcome,
    ) -> Result<(), RuleFailure> {
        let RuleChange { authorize, revoke } = change;
        let mut late = Vec::new();
        let (mut refused, mut failed) = (Vec::new(), None);
        if !authorize.is_empty() {
            self.permit.check("AuthorizeSecurityGroupIngress")?;
            match self.cloud.authorize(&group.id, &authorize).await {
                Ok(()) => outcome.authorized(group, authorize),
                // The group is full, so rules must be removed first.
                Err(error) if error.code() == Some(TOO_MANY_RULES) && !revoke.is_empty() => late = authorize,
                // A single rule with a deleted source fails the whole call.
                Err(AwsError { kind: AwsErrorKind::Refused { .. } | AwsErrorKind::NotFound { .. }, .. })
                    if authorize.len() > 1 =>
                {
                    for rule in authorize {
                        self.permit.check("AuthorizeSecurityGroupIngress")?;
                        match self.cloud.authorize(&group.id, std::slice::from_ref(&rule)).await {
                            Ok(()) => outcome.authorized(group, vec![rule]),
                            Err(error) => {
                                refused.push(rule);
                                failed.get_or_insert(error);
                            }
                        }
                    }
                }
                Err(error) => return Err((only_source(&authorize), error).into()),
            }
        }
        if !revoke.is_empty() && (pass == Pass::Revoke || !late.is_empty()) {
            self.permit.check("RevokeSecurityGroupIngress")?;
            self.cloud.revoke(&group.id, &revoke).await?;
            group.ingress.retain(|rule| !revoke.contains(rule));
            outcome.revoked.extend(revoke.into_iter().map(|rule| (group.id.clone(), rule)));
        }
        if !late.is_empty() {
            self.permit.check("AuthorizeSecurityGroupIngress")?;
            self.cloud.authorize(&group.id, &late).await?;
            outcome.authorized(group, late);
        }
        match failed {
            Some(error) => Err((only_source(&refused), error).into()),
            None => Ok(()),
        }
    }
}

/// Returns the source that all rules have in common.
fn only_source(rules: &[SecurityGroupRule]) -> Option<Source> {
    let source = &rules.first()?.source;
    rules.iter().all(|rule| rule.source == *source).then(|| source.clone())
}

/// The targets of one binding.
enum BindingDemand {
    /// Another binding has the target group.
    Nothing,
    Clear(Demand),
    Empty(TargetGroupBinding, Resolution),
    /// The targets are not known yet.
    Waits,
}

/// Returns the targets of a binding, which is complete if its target group is known.
fn demand_of(
    snapshot: &Snapshot,
    by_group: &ByGroup<'_>,
    known_arn: &KnownArn<'_>,
    known: Result<Option<(TargetGroupBinding, TargetGroupArn)>, Problem>,
    owner: Option<&Owner>,
    silent: SilentNodes,
) -> Result<BindingDemand, Problem> {
    let Some((binding, arn)) = known? else { return Ok(BindingDemand::Waits) };
    let bindings = by_group.bindings(&arn, known_arn);
    if bindings.denied(&binding, owner).is_some() {
        // Until the stack has written the binding that takes over, the targets of this one serve.
        let has_holder = owner.is_none_or(|owner| bindings.holder(owner).is_some());
        return Ok(if has_holder { BindingDemand::Nothing } else { BindingDemand::Waits });
    }
    Ok(match resolve(snapshot, &binding, silent)? {
        Resolution::Targets { targets, .. } if !targets.is_empty() => {
            BindingDemand::Clear(Demand { target_locations: target_locations_of(snapshot, targets), binding })
        }
        nothing => BindingDemand::Empty(binding, nothing),
    })
}

/// Returns the targets of a binding with their network interfaces, as far as they are known.
fn target_locations(snapshot: &Snapshot, binding: &TargetGroupBinding, silent: SilentNodes) -> Vec<TargetLocation> {
    if binding.spec.target_type.is_none() {
        return Vec::new();
    }
    match resolve(snapshot, binding, silent) {
        Ok(Resolution::Targets { targets, .. }) => target_locations_of(snapshot, targets),
        Ok(Resolution::BackendMissing { .. }) | Err(_) => Vec::new(),
    }
}

fn target_locations_of(snapshot: &Snapshot, targets: BTreeMap<Target, TargetOwner>) -> Vec<TargetLocation> {
    let spot = |(target, owner): (Target, TargetOwner)| {
        let ports = owner.pod(snapshot).map(|pod| pod.ports.clone());
        Some((interface_lookup(snapshot, &target.id, &owner)?, ports.unwrap_or_default(), owner))
    };
    targets.into_iter().filter_map(spot).collect()
}

/// Returns true if a rule on a group stays.
fn keeps(pins: &[Pin], group: &SecurityGroupId, rule: &SecurityGroupRule) -> bool {
    pins.iter().any(|pin| pin.holds(group, rule))
}

/// Returns the rules that may belong to a binding whose rules are unknown: those of its sources on the groups of its
/// targets. If the groups are unknown, a binding that has never had targets has no rules.
fn pins(demand: &Demand, located: &Located) -> Vec<Pin> {
    let places = demand.target_locations.iter().map(|(place, ..)| located.get(place)?.as_ref().ok().cloned());
    let groups: Option<BTreeSet<SecurityGroupId>> = places.collect();
    let groups = groups.filter(|groups| !groups.is_empty());
    if groups.is_none() && !has_had_targets(&demand.binding) {
        return Vec::new();
    }
    let sources = demand.binding.spec.networking.iter().flat_map(sources);
    sources.map(|source| Pin { source: Some(source), groups: groups.clone() }).collect()
}

/// A change that AWS refused, and the source of its rules if they have only one.
struct RuleFailure {
    source: Option<Source>,
    error: AwsError,
}

impl From<AwsError> for RuleFailure {
    fn from(error: AwsError) -> Self {
        Self { source: None, error }
    }
}

impl From<(Option<Source>, AwsError)> for RuleFailure {
    fn from((source, error): (Option<Source>, AwsError)) -> Self {
        Self { source, error }
    }
}

impl NodeRulesOutcome {
    fn authorized(&mut self, group: &mut ObservedSecurityGroup, rules: Vec<SecurityGroupRule>) {
        group.ingress.extend(rules.iter().cloned());
        self.authorized.extend(rules.into_iter().map(|rule| (group.id.clone(), rule)));
    }
}

/// Returns the rules that one binding requests. A target without a known security group does not affect the others.
fn rules_of(demand: &Demand, located: &Located, problems: &mut Vec<TargetsError>) -> RulesByGroup {
    let Demand { binding, target_locations } = demand;
    let mut places = Vec::new();
    let mut problem = None;
    for (place, ports, owner) in target_locations {
        match located.get(place) {
            Some(Ok(group)) => places.push(TargetEndpoint { security_group: group.clone(), ports }),
            Some(Err(error)) if problem.is_none() => {
                problem = Some(Problem::NotLocated { what: owner.to_string(), problem: error.clone() });
            }
            Some(Err(_)) | None => {}
        }
    }
    // Pods on one node count once, unless their ports differ.
    places.sort_by(|a, b| (&a.security_group, a.ports.len()).cmp(&(&b.security_group, b.ports.len())));
    places.dedup();
    let to_pods = binding.spec.target_type == Some(TargetType::Ip);
    let networking = binding.spec.networking.clone().unwrap_or_default();
    let rules = of_binding(&networking, &places, to_pods).unwrap_or_else(|error| {
        problem.get_or_insert(error.into());
        RulesByGroup::new()
    });
    problems.extend(problem.map(|problem| TargetsError::of_binding(&binding.name, Stage::Network, problem)));
    rules
}

/// The bindings that request rules on a security group, with the sources that they allow.
type RuleRequesters = BTreeMap<SecurityGroupId, BTreeMap<ObjectName, BTreeSet<Source>>>;

fn rule_requesters(rules: &BTreeMap<ObjectName, RulesByGroup>) -> RuleRequesters {
    let mut rule_requesters = RuleRequesters::new();
    for (binding, groups) in rules {
        for (group, rules) in groups.iter().filter(|(_, rules)| !rules.is_empty()) {
            let sources = rules.iter().map(|rule| rule.source.clone()).collect();
            rule_requesters.entry(group.clone()).or_default().insert(binding.clone(), sources);
        }
    }
    rule_requesters
}

/// Reports a problem on the bindings that request rules on a group and allow the source (any source if it is `None`),
/// or on the group if there is no such binding.
fn fail(
    problems: &mut Vec<TargetsError>,
    rule_requesters: &RuleRequesters,
    group: &SecurityGroupId,
    source: Option<&Source>,
    problem: &Problem,
) {
    let error = |subject| TargetsError { subject, stage: Stage::Network, problem: problem.clone() };
    let concerned = rule_requesters.get(group).into_iter().flatten();
    let concerned = concerned.filter(|(_, sources)| source.is_none_or(|source| sources.contains(source)));
    let mut concerned: Vec<Subject> = concerned.map(|(binding, _)| Subject::Binding(binding.clone())).collect();
    if concerned.is_empty() {
        concerned.push(Subject::SecurityGroup(group.clone()));
    }
    problems.extend(concerned.into_iter().map(error));
}

mod leaving;
#[cfg(test)]
mod tests;
