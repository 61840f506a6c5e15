//! The rules on the security groups of nodes and pods, for all bindings together.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::Ordering,
};

use crate::{
    api::crd::target_group_binding::TargetType,
    aws::{AwsError, AwsErrorKind},
    build::tags::BINDING_FINALIZER,
    model::{ObjectName, ObservedSecurityGroup, SecurityGroupId, SecurityGroupRule, Source},
    snapshot::{PodPort, TargetGroupBinding},
};

use super::{
    Cloud, Cluster, MayWrite, Problem, Stage, Subject, Targets, TargetsError, binding, check,
    endpoints::{Resolution, TargetOwner, resolve},
    network_interfaces::{KnownGroups, Located, NetworkInterfaces, Whereabouts, read_groups, whereabouts},
    node_rules::{Place, RuleChange, RulesByGroup, changes, combine, of_binding, sources},
};

/// The code of EC2's refusal of one rule too many.
const TOO_MANY_RULES: &str = "RulesPerSecurityGroupLimitExceeded";

/// What is known of security groups and network interfaces.
#[derive(Debug, Default)]
pub(super) struct State {
    interfaces: NetworkInterfaces,
    groups: KnownGroups,
    /// All groups that may have rules of ours, also those that have to be read again.
    seen: BTreeSet<SecurityGroupId>,
    /// Whether the cluster's groups were read, where rules from before the start may be.
    swept: bool,
    /// The rules that each binding asked for when it was last understood: they stay while it is not.
    understood: BTreeMap<ObjectName, RulesByGroup>,
}

/// What was done about the node rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeRulesOutcome {
    /// Added just now.
    pub authorized: Vec<(SecurityGroupId, SecurityGroupRule)>,
    /// Taken away just now.
    pub revoked: Vec<(SecurityGroupId, SecurityGroupRule)>,
}

/// A target of a binding: where it is, its named ports, and who it is.
type Spot = (Whereabouts, Vec<PodPort>, TargetOwner);

/// Everything is let in on all groups before anything is taken away on any: targets may go from one group to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    Authorize,
    Revoke,
}

/// One group in one pass.
struct Task<'a> {
    id: &'a SecurityGroupId,
    shall_have: &'a BTreeSet<SecurityGroupRule>,
    pass: Pass,
    /// Sources whose rules are not revoked, because a rule of theirs was not added or may be a binding's that is not
    /// understood; `None` is every source.
    keep: Vec<Option<Source>>,
}

/// What one binding asks for.
struct Demand {
    binding: TargetGroupBinding,
    spots: Vec<Spot>,
}

type Demands = (Vec<Demand>, Vec<(TargetGroupBinding, Resolution)>, Vec<TargetGroupBinding>);

impl<C: Cloud, K: Cluster> Targets<C, K> {
    /// Lets load balancers in to the nodes and pods behind all bindings with `spec.networking`, and takes away the rules that
    /// no binding asks for any more, once every one of them is understood. Where nothing has changed, nobody is asked.
    ///
    /// # Errors
    /// All that could not be done, never empty; what could be done is done. A binding that is not understood keeps the rules
    /// that it had, or where those are not known, all rules of the sources that it lets in. The caller tries again.
    pub async fn reconcile_node_rules(&self, may_write: MayWrite<'_>) -> Result<NodeRulesOutcome, Vec<TargetsError>> {
        let mut state = self.node_rules.lock().await;
        self.node_rules_due.store(false, Ordering::Release);
        let mut outcome = NodeRulesOutcome::default();
        let mut problems = Vec::new();
        if let Err(error) = self.let_in(&mut state, &mut outcome, &mut problems, may_write).await {
            let (subject, stage) = (Subject::NodeRules, Stage::Network);
            problems.push(TargetsError { subject, stage, problem: Problem::Aws(error) });
        }
        for (group, rule) in &outcome.authorized {
            tracing::info!(%group, %rule, "let in");
        }
        for (group, rule) in &outcome.revoked {
            tracing::info!(%group, %rule, "no longer let in");
        }
        if problems.is_empty() {
            return Ok(outcome);
        }
        Err(problems)
    }

    /// Gives up what is known of security groups and network interfaces, so that drift is found the next time.
    pub async fn forget_node_rules(&self) {
        *self.node_rules.lock().await = State::default();
        self.node_rules_due.store(true, Ordering::Release);
    }

    async fn let_in(
        &self,
        state: &mut State,
        outcome: &mut NodeRulesOutcome,
        problems: &mut Vec<TargetsError>,
        may_write: MayWrite<'_>,
    ) -> Result<(), AwsError> {
        if !state.swept {
            let tagged = self.cloud.cluster_security_groups().await?;
            state.seen.extend(tagged.iter().map(|group| group.id.clone()));
            state.groups.extend(tagged.into_iter().map(|group| (group.id.clone(), group)));
            state.swept = true;
        }
        let (demands, empty, mut obscure) = self.demands(problems).await;
        let wanted: BTreeSet<Whereabouts> =
            demands.iter().flat_map(|demand| demand.spots.iter().map(|(place, ..)| place.clone())).collect();
        let State { interfaces, groups, seen, understood, .. } = state;
        let tags = &self.settings.endpoint_group_tags;
        let located = interfaces.locate(&self.cloud, groups, &wanted, &self.settings.cluster, tags).await?;
        let mut rules: BTreeMap<ObjectName, RulesByGroup> = BTreeMap::new();
        for demand in demands {
            let binding = demand.binding.clone();
            let before = problems.len();
            let of_binding = rules_of(demand, &located, problems);
            if problems.len() == before {
                understood.insert(binding.name.clone(), of_binding.clone());
            } else {
                obscure.push(binding.clone());
            }
            rules.insert(binding.name, of_binding);
        }
        understood.retain(|name, _| rules.contains_key(name) || obscure.iter().any(|binding| binding.name == *name));
        let mut failed = self.untouched();
        for binding in obscure {
            match understood.get(&binding.name) {
                Some(had) => {
                    let kept = rules.entry(binding.name).or_default();
                    for (group, rules) in had.iter().filter(|(group, _)| groups.contains_key(*group)) {
                        kept.entry(group.clone()).or_default().extend(rules.iter().cloned());
                    }
                }
                None => failed.extend(binding.spec.networking.iter().flat_map(sources)),
            }
        }
        let askers = askers(&rules);
        let wanted = combine(rules.into_values(), self.settings.restricted_rules);
        seen.extend(groups.keys().chain(wanted.keys()).cloned());
        read_groups(&self.cloud, groups, &*seen).await?;
        seen.retain(|id| groups.contains_key(id));
        for group in wanted.iter().filter(|(id, rules)| !rules.is_empty() && !seen.contains(*id)).map(|(id, _)| id) {
            fail(problems, &askers, group, None, &Problem::SecurityGroupGone(group.clone()));
            // Where their targets are instead is not known yet.
            let sources = askers.get(group).into_iter().flatten().flat_map(|(_, sources)| sources);
            failed.extend(sources.cloned().map(Some));
        }
        let none = BTreeSet::new();
        let mut known = seen.iter().filter_map(|id| groups.get(id));
        let revokes = known.any(|group| {
            let surplus = changes(wanted.get(&group.id).unwrap_or(&none), &group.ingress).revoke;
            surplus.iter().any(|rule| !keeps(&failed, rule))
        });
        if revokes {
            failed.extend(self.prove_unasked(empty, problems).await);
        }
        for pass in [Pass::Authorize, Pass::Revoke] {
            for id in &*seen {
                // What was not let in keeps its old way in.
                let task = Task { id, shall_have: wanted.get(id).unwrap_or(&none), pass, keep: failed.clone() };
                if let Err(failure) = self.change_group(groups, &task, outcome, may_write).await {
                    if failure.error.kind == AwsErrorKind::Withheld {
                        return Err(failure.error);
                    }
                    fail(problems, &askers, id, failure.source.as_ref(), &Problem::Aws(failure.error));
                    failed.push(failure.source);
                }
            }
        }
        Ok(())
    }

    /// Asks the API server itself before rules go because no binding asks for them: a watch that shows nothing may be wrong.
    /// Answers whose rules stay because there is no proof.
    async fn prove_unasked(
        &self,
        empty: Vec<(TargetGroupBinding, Resolution)>,
        problems: &mut Vec<TargetsError>,
    ) -> Vec<Option<Source>> {
        let mut unproved = Vec::new();
        for (binding, resolution) in empty {
            if let Err(problem) = self.prove_nothing(&binding, &resolution).await {
                unproved.extend(binding.spec.networking.iter().flat_map(sources));
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
            unproved.push(None);
        }
        unproved
    }

    /// Whom the bindings let in that are refused as a whole: what another controller has set up for them stays as it is.
    fn untouched(&self) -> Vec<Option<Source>> {
        let snapshot = self.snapshot();
        let refused = snapshot.target_group_bindings.values().filter(|b| binding::unsupported(&b.spec).is_some());
        refused.filter_map(|binding| binding.spec.networking.as_ref()).flat_map(sources).collect()
    }

    /// All bindings that ask for rules, with their targets; those of which no target is known; and those that are not
    /// understood, which are problems.
    async fn demands(&self, problems: &mut Vec<TargetsError>) -> Demands {
        let asks = |binding: &&TargetGroupBinding| {
            let held = binding.finalizers.iter().any(|finalizer| finalizer == BINDING_FINALIZER);
            binding.spec.networking.is_some()
                && binding::unsupported(&binding.spec).is_none()
                // Until it is cleaned up, its targets are registered, and drain.
                && (!binding.deleting || held)
        };
        let bindings: Vec<_> = self.snapshot().target_group_bindings.values().filter(asks).cloned().collect();
        let mut demands = Vec::new();
        let mut empty = Vec::new();
        let mut obscure = Vec::new();
        for binding in bindings {
            let mut fail = |problem| {
                problems.push(TargetsError::of_binding(&binding.name, Stage::Network, problem));
                obscure.push(binding.clone());
            };
            let (completed, arn) = match self.complete(&binding).await {
                Ok(completed) => completed,
                Err(problem) => {
                    fail(problem);
                    continue;
                }
            };
            let owner = match self.owner(&arn).await {
                Ok(owner) => owner,
                Err(error) => {
                    fail(error.into());
                    continue;
                }
            };
            let snapshot = self.snapshot();
            if self.denied(&snapshot, &completed, &arn, owner.as_ref()).is_some() {
                continue;
            }
            match resolve(&snapshot, &completed) {
                Ok(Resolution::Targets { targets, .. }) if !targets.is_empty() => {
                    let spot = |(target, owner): (crate::aws::Target, TargetOwner)| {
                        let ports = match &owner {
                            TargetOwner::Pod(name) => snapshot.pods.get(name).map(|pod| pod.ports.clone()),
                            TargetOwner::Node(_) => None,
                        };
                        Some((whereabouts(&snapshot, &target.id, &owner)?, ports.unwrap_or_default(), owner))
                    };
                    demands.push(Demand { binding: completed, spots: targets.into_iter().filter_map(spot).collect() });
                }
                Ok(nothing) => empty.push((completed, nothing)),
                Err(error) => fail(error.into()),
            }
        }
        (demands, empty, obscure)
    }

    async fn change_group(
        &self,
        groups: &mut KnownGroups,
        task: &Task<'_>,
        outcome: &mut NodeRulesOutcome,
        may_write: MayWrite<'_>,
    ) -> Result<(), RuleFailure> {
        // A second try, after reading again, for what somebody else has changed meanwhile.
        for last in [false, true] {
            read_groups(&self.cloud, groups, [task.id]).await?;
            let Some(group) = groups.get_mut(task.id) else { return Ok(()) };
            let mut change = changes(task.shall_have, &group.ingress);
            change.revoke.retain(|rule| !keeps(&task.keep, rule));
            match task.pass {
                // What is to be revoked is known here too: a full group needs it.
                Pass::Authorize if change.authorize.is_empty() => return Ok(()),
                Pass::Authorize => {}
                Pass::Revoke => change.authorize.clear(),
            }
            match self.change_rules(group, change, task.pass, outcome, may_write).await {
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
        may_write: MayWrite<'_>,
    ) -> Result<(), RuleFailure> {
        let RuleChange { authorize, revoke } = change;
        let mut late = Vec::new();
        let mut failed = None;
        if !authorize.is_empty() {
            check(may_write, "AuthorizeSecurityGroupIngress")?;
            match self.cloud.authorize(&group.id, &authorize).await {
                Ok(()) => outcome.authorized(group, authorize),
                // The group is full: what goes has to make room first.
                Err(error) if error.code() == Some(TOO_MANY_RULES) && !revoke.is_empty() => late = authorize,
                // One rule from a group that is gone fails the whole call.
                Err(AwsError { kind: AwsErrorKind::Refused { .. } | AwsErrorKind::NotFound { .. }, .. })
                    if authorize.len() > 1 =>
                {
                    for rule in authorize {
                        check(may_write, "AuthorizeSecurityGroupIngress")?;
                        match self.cloud.authorize(&group.id, std::slice::from_ref(&rule)).await {
                            Ok(()) => outcome.authorized(group, vec![rule]),
                            Err(error) => failed = failed.or(Some((Some(rule.source), error))),
                        }
                    }
                }
                Err(error) => return Err((authorize.into_iter().next().map(|rule| rule.source), error).into()),
            }
        }
        if !revoke.is_empty() && (pass == Pass::Revoke || !late.is_empty()) {
            check(may_write, "RevokeSecurityGroupIngress")?;
            self.cloud.revoke(&group.id, &revoke).await?;
            group.ingress.retain(|rule| !revoke.contains(rule));
            outcome.revoked.extend(revoke.into_iter().map(|rule| (group.id.clone(), rule)));
        }
        if !late.is_empty() {
            check(may_write, "AuthorizeSecurityGroupIngress")?;
            self.cloud.authorize(&group.id, &late).await?;
            outcome.authorized(group, late);
        }
        failed.map_or(Ok(()), |failed| Err(failed.into()))
    }
}

/// Returns whether a rule stays because of its source.
fn keeps(sources: &[Option<Source>], rule: &SecurityGroupRule) -> bool {
    sources.iter().any(|source| source.as_ref().is_none_or(|source| *source == rule.source))
}

/// A change that AWS did not make, and the source of the rule that it is about, where it is about one.
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

/// The rules that one binding asks for. A target that is not located keeps no other from its rules.
fn rules_of(demand: Demand, located: &Located, problems: &mut Vec<TargetsError>) -> RulesByGroup {
    let Demand { binding, spots } = demand;
    let mut places = Vec::new();
    let mut problem = None;
    for (place, ports, owner) in &spots {
        match located.get(place) {
            Some(Ok(group)) => places.push(Place { security_group: group.clone(), ports }),
            Some(Err(error)) if problem.is_none() => {
                problem = Some(Problem::NotLocated { what: owner.to_string(), problem: error.clone() });
            }
            Some(Err(_)) | None => {}
        }
    }
    // Many pods on one node are one place, but for their ports.
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

/// Which bindings ask for rules on a security group, with the sources that they let in.
type Askers = BTreeMap<SecurityGroupId, BTreeMap<ObjectName, BTreeSet<Source>>>;

fn askers(rules: &BTreeMap<ObjectName, RulesByGroup>) -> Askers {
    let mut askers = Askers::new();
    for (binding, groups) in rules {
        for (group, rules) in groups.iter().filter(|(_, rules)| !rules.is_empty()) {
            let sources = rules.iter().map(|rule| rule.source.clone()).collect();
            askers.entry(group.clone()).or_default().insert(binding.clone(), sources);
        }
    }
    askers
}

/// Tells the bindings that ask for rules on a group, and let in the source where it is about one, or else nobody in
/// particular.
fn fail(
    problems: &mut Vec<TargetsError>,
    askers: &Askers,
    group: &SecurityGroupId,
    source: Option<&Source>,
    problem: &Problem,
) {
    let error = |subject| TargetsError { subject, stage: Stage::Network, problem: problem.clone() };
    let concerned = askers.get(group).into_iter().flatten();
    let concerned = concerned.filter(|(_, sources)| source.is_none_or(|source| sources.contains(source)));
    let mut concerned: Vec<Subject> = concerned.map(|(binding, _)| Subject::Binding(binding.clone())).collect();
    if concerned.is_empty() {
        concerned.push(Subject::SecurityGroup(group.clone()));
    }
    problems.extend(concerned.into_iter().map(error));
}

#[cfg(test)]
mod tests;
