//! Steps that were executed and are planned again, though no object has requested anything else since: AWS or the API server
//! returns other values than were written, or another program changes them back each time. One repetition may come from a
//! list that was behind, or from a change by hand; from then on such a step waits, longer each time, and is reported. The
//! rest of the plan goes on.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    hash::{DefaultHasher, Hasher},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use albatross_core::{
    model::{Action, ResourceId, SecurityGroupReference, Stack, StackId, TargetGroupReference},
    plan::{AttributesOf, ListenerReference, Plan, RuleReference, SecurityGroupTarget, Step, StepAction},
};

/// The number of times that a step may be carried out before a repetition counts.
const FREE: u32 = 2;

/// The pause before a step that is planned again the second time; then twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_secs(30);

/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// A step that was executed so long ago proves nothing about the present: a user has changed something by hand since.
const RETENTION: Duration = Duration::from_secs(2 * 3600);

/// The most steps remembered of one stack; the oldest is removed first.
const MOST: usize = 256;

/// The steps carried out recently, by stack.
#[derive(Debug, Default)]
pub(crate) struct StepHistory(Mutex<BTreeMap<StackId, Memory>>);

#[derive(Debug, Default)]
struct Memory {
    /// The hash of the desired stack when these were carried out.
    wanted: u64,
    done: BTreeMap<u64, Done>,
}

#[derive(Clone, Copy, Debug)]
struct Done {
    last: Instant,
    times: u32,
}

impl Done {
    fn next(&self) -> Option<Instant> {
        let more = self.times.checked_sub(FREE)?;
        Some(self.last + FIRST_PAUSE.saturating_mul(1 << more.min(16)).min(LONGEST_PAUSE))
    }
}

/// A step that waits, because it was carried out before without lasting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Repeated {
    /// The step.
    pub step: Step,
    /// The number of times that it was carried out.
    pub times: u32,
    /// Until it is carried out once more.
    pub pause: Duration,
}

impl Repeated {
    /// Returns the message: the step, the field that requests it, and the fix.
    #[must_use]
    pub(crate) fn message(&self) -> String {
        let Self { step, times, .. } = self;
        let Step { action, cause } = step;
        let fix = match action {
            StepAction::CreateBinding(_) | StepAction::UpdateBinding { .. } | StepAction::DeleteBinding(_) => {
                "see in its managedFields and events what else writes the TargetGroupBinding (a policy engine, a GitOps tool), and make it leave the object unchanged"
            }
            _ => "see in CloudTrail what else changes it; if nothing does, write the value as AWS shows it",
        };
        format!(
            "{action}: applied {times} times, but AWS or the API server does not show it afterwards; requested by {cause}; {fix}; it is retried with growing pauses"
        )
    }
}

/// Writes into a hash.
struct Hash(DefaultHasher);

impl std::fmt::Write for Hash {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

/// A number that differs where what is printed for debugging differs: that names the state of a Secret, and not its content.
fn hash(of: &dyn std::fmt::Debug) -> u64 {
    let mut hash = Hash(DefaultHasher::new());
    let _ = write!(hash, "{of:?}");
    hash.0.finish()
}

/// The step's action, target and values. How a binding is at the moment is none of those.
fn fingerprint(action: &StepAction) -> u64 {
    match action {
        StepAction::UpdateBinding { existing, target_group, keeps_networking } => {
            hash(&("UpdateBinding", &existing.name, target_group, keeps_networking))
        }
        action => hash(action),
    }
}

/// The resources that the steps that wait would have made.
#[derive(Debug, Default)]
struct MissingResources {
    load_balancer: bool,
    security_group: bool,
    target_groups: BTreeSet<ResourceId>,
    listeners: BTreeSet<u16>,
    rules: BTreeSet<(u16, usize)>,
    /// The ports of listeners whose rules are not in their desired state.
    ports: BTreeSet<u16>,
    /// True if requests are answered by some of it.
    serves: bool,
}

impl MissingResources {
    fn add(&mut self, action: &StepAction) {
        self.serves |= matches!(
            action,
            StepAction::CreateSecurityGroup(_)
                | StepAction::AuthorizeIngress { .. }
                | StepAction::CreateTargetGroup(_)
                | StepAction::CreateFrontendTargetGroup(_)
                | StepAction::RegisterLoadBalancer { .. }
                | StepAction::CreateBinding(_)
                | StepAction::CreateLoadBalancer(_)
                | StepAction::SetSecurityGroups { .. }
                | StepAction::CreateListener { .. }
                | StepAction::ModifyListener { .. }
                | StepAction::AddListenerCertificates { .. }
                | StepAction::CreateRule { .. }
                | StepAction::SetRulePriorities { .. }
                | StepAction::ModifyRule { .. }
        );
        match action {
            StepAction::CreateLoadBalancer(_) => self.load_balancer = true,
            StepAction::CreateSecurityGroup(_) => self.security_group = true,
            StepAction::CreateTargetGroup(group) => drop(self.target_groups.insert(group.resource.clone())),
            StepAction::CreateListener { listener, .. } => drop(self.listeners.insert(listener.port)),
            StepAction::CreateRule { port, index, .. } => {
                self.rules.insert((*port, *index));
                self.ports.insert(*port);
            }
            StepAction::SetRulePriorities { port, .. } | StepAction::ModifyRule { port, .. } => {
                self.ports.insert(*port);
            }
            _ => {}
        }
    }

    /// Returns true if a step names something of it, or leads requests to where it should be.
    fn is_named_by(&self, action: &StepAction) -> bool {
        let group =
            |reference: &SecurityGroupReference| self.security_group && *reference == SecurityGroupReference::Managed;
        match action {
            StepAction::AuthorizeIngress { group, .. } => self.security_group && *group == SecurityGroupTarget::Created,
            StepAction::CreateLoadBalancer(balancer) => balancer.security_groups.iter().any(group),
            StepAction::SetSecurityGroups { load_balancer, groups, .. } => {
                self.load_balancer && load_balancer.is_none() || groups.iter().any(group)
            }
            StepAction::CreateBinding(group) => self.target_groups.contains(&group.resource),
            StepAction::ModifyAttributes { of, .. } => match of {
                AttributesOf::LoadBalancer(balancer) => self.load_balancer && balancer.is_none(),
                AttributesOf::Listener(listener) => self.has_listener(listener),
                AttributesOf::TargetGroup(group) => self.has_target_group(group),
            },
            StepAction::CreateListener { load_balancer, listener } => {
                self.load_balancer && load_balancer.is_none() || self.is_led_to(&listener.default_action)
            }
            StepAction::ModifyListener { port, change, .. } => {
                change.default_action.as_ref().is_some_and(|to| self.ports.contains(port) || self.is_led_to(to))
            }
            StepAction::AssociateWebAcl { load_balancer, .. } | StepAction::CreateProtection { load_balancer, .. } => {
                self.load_balancer && load_balancer.is_none()
            }
            StepAction::AddListenerCertificates { listener, .. } => self.has_listener(listener),
            StepAction::CreateRule { listener, rule, .. } => {
                self.has_listener(listener) || self.is_led_to(&rule.action)
            }
            StepAction::ModifyRule { rule, .. } => self.is_led_to(&rule.action),
            StepAction::SetRulePriorities { priorities, .. } => priorities.iter().any(|(rule, _)| match rule {
                RuleReference::Existing(_) => false,
                RuleReference::Created(port, index) => self.rules.contains(&(*port, *index)),
            }),
            _ => false,
        }
    }

    fn has_listener(&self, listener: &ListenerReference) -> bool {
        matches!(listener, ListenerReference::Created(port) if self.listeners.contains(port))
    }

    fn has_target_group(&self, group: &TargetGroupReference) -> bool {
        matches!(group, TargetGroupReference::Own(resource) if self.target_groups.contains(resource))
    }

    fn is_led_to(&self, action: &Action<TargetGroupReference>) -> bool {
        let redirected = match action {
            Action::Redirect { port: Some(port), .. } => port.parse().is_ok_and(|port| self.listeners.contains(&port)),
            _ => false,
        };
        redirected || action.target_groups().any(|group| self.has_target_group(group))
    }
}

impl StepHistory {
    fn memories(&self) -> MutexGuard<'_, BTreeMap<StackId, Memory>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a pass: if the desired stack differs from the one of the last pass, the steps executed then prove nothing.
    pub(crate) fn begin(&self, stack: &Stack) {
        let (mut memories, wanted) = (self.memories(), hash(stack));
        let memory = memories.entry(stack.id.clone()).or_default();
        if memory.wanted != wanted {
            *memory = Memory { wanted, done: BTreeMap::new() };
        }
    }

    /// Takes out of a plan the steps that wait because they were carried out before, and returns them. Steps that stand on what
    /// they make wait with them; where that is something that answers requests, so does all that is taken away.
    pub(crate) fn withhold(&self, stack: &StackId, plan: &mut Plan) -> Vec<Repeated> {
        let (mut memories, now) = (self.memories(), Instant::now());
        let Some(memory) = memories.get_mut(stack) else { return Vec::new() };
        memory.done.retain(|_, done| now.duration_since(done.last) < RETENTION);
        if memory.done.is_empty() {
            return Vec::new();
        }
        let mut withheld = Vec::new();
        let mut lacking = MissingResources::default();
        plan.retain_steps(|step| {
            let done = memory.done.get(&fingerprint(&step.action));
            match done.and_then(|done| Some((done.times, done.next().filter(|next| *next > now)?))) {
                Some((times, next)) => {
                    withheld.push(Repeated { step: step.clone(), times, pause: next.duration_since(now) });
                }
                None if lacking.is_named_by(&step.action) => {}
                None => return true,
            }
            lacking.add(&step.action);
            false
        });
        let stays = |repeated: &Repeated| matches!(repeated.step.action, StepAction::DeleteLoadBalancer { .. });
        if lacking.serves || withheld.iter().any(stays) {
            plan.withhold_deletions();
        }
        withheld
    }

    /// Remembers that these steps were carried out.
    pub(crate) fn remember(&self, stack: &StackId, steps: &[Step]) {
        if steps.is_empty() {
            return;
        }
        let fingerprints: BTreeSet<u64> = steps.iter().map(|step| fingerprint(&step.action)).collect();
        let (mut memories, now) = (self.memories(), Instant::now());
        let memory = memories.entry(stack.clone()).or_default();
        for fingerprint in fingerprints {
            let done = memory.done.entry(fingerprint).or_insert(Done { last: now, times: 0 });
            *done = Done { last: now, times: done.times.saturating_add(1) };
        }
        while memory.done.len() > MOST {
            let Some(oldest) = memory.done.iter().min_by_key(|(_, done)| done.last).map(|(key, _)| *key) else { break };
            memory.done.remove(&oldest);
        }
    }

    /// Removes a stack that no longer exists.
    pub(crate) fn remove(&self, stack: &StackId) {
        self.memories().remove(stack);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use albatross_core::{
        model::{
            Cause, CertificateArn, Listener, ListenerArn, ListenerProtocol, ObjectKind, ObjectName, ObjectReference,
            Rule, RuleArn, TargetGroupArn,
        },
        plan::ListenerChange,
        testing::plan_of,
    };

    fn stack() -> Stack {
        Stack::empty(StackId::Ingress(ObjectName::new("shop", "web")))
    }

    fn step(arn: &str) -> Step {
        let object = ObjectReference { kind: ObjectKind::Ingress, name: ObjectName::new("shop", "web") };
        let action = StepAction::DeleteRule { arn: RuleArn::new(arn), port: 80, priority: 3 };
        Step { action, cause: Cause { object, generation: 4, field: "spec.rules".to_owned() } }
    }

    fn plan() -> Plan {
        plan_of(vec![step("a"), step("b")], None)
    }

    /// Runs passes for so long, one a second; answers when the first step was carried out.
    async fn passes(step_history: &StepHistory, seconds: u64, wanted: impl Fn(u64) -> Stack) -> Vec<u64> {
        let mut carried_out = Vec::new();
        for second in 0..seconds {
            let (stack, mut plan) = (wanted(second), plan_of(vec![step("a")], None));
            step_history.begin(&stack);
            step_history.withhold(&stack.id, &mut plan);
            if !plan.steps().is_empty() {
                carried_out.push(second);
            }
            step_history.remember(&stack.id, plan.steps());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        carried_out
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_that_does_not_last_is_carried_out_less_and_less_often_and_the_rest_goes_on() {
        let step_history = StepHistory::default();
        assert_eq!(passes(&step_history, 600, |_| stack()).await, [0, 1, 31, 91, 211, 451]);
        let mut with_another = plan();
        let withheld = step_history.withhold(&stack().id, &mut with_another);
        assert_eq!(with_another.steps(), [step("b")]);
        assert_eq!(withheld, [Repeated { step: step("a"), times: 6, pause: Duration::from_secs(480 - 149) }]);
        insta::assert_snapshot!(withheld[0].message(), @"delete rule 3 of listener 80: applied 6 times, but AWS or the API server does not show it afterwards; requested by Ingress shop/web generation 4, spec.rules; see in CloudTrail what else changes it; if nothing does, write the value as AWS shows it; it is retried with growing pauses");
        // It never takes longer than an hour, and is never abandoned.
        let mut carried_out = passes(&step_history, 40_000, |_| stack()).await;
        carried_out.insert(0, 0);
        carried_out.push(40_000);
        assert!(carried_out.windows(2).all(|pair| pair[1] - pair[0] <= 3600), "{carried_out:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_stands_on_a_step_that_waits_waits_with_it_and_nothing_is_taken_away_meanwhile() {
        let listener = |port: u16, default_action| Listener {
            port,
            protocol: ListenerProtocol::Https,
            default_action,
            default_authentication: None,
            default_certificate: None,
            certificates: BTreeSet::new(),
            certificates_after_apply: None,
            mutual_authentication: None,
            ssl_policy: None,
            alpn_policy: None,
            attributes: BTreeMap::new(),
            attribute_causes: BTreeMap::new(),
            rules: Vec::new(),
            shares: BTreeMap::new(),
            tags: BTreeMap::new(),
            cause: step("a").cause,
        };
        let to = |port: &str| Action::Redirect {
            host: None,
            path: None,
            port: Some(port.to_owned()),
            protocol: Some("HTTPS".to_owned()),
            query: None,
            status_code: "HTTP_301".to_owned(),
        };
        let rule = || Rule {
            conditions: Vec::new(),
            authentication: None,
            action: Action::FixedResponse { content_type: None, message_body: None, status_code: "200".to_owned() },
            transforms: Vec::new(),
            tags: BTreeMap::new(),
            cause: step("a").cause,
        };
        let create_rule =
            |listener, port| StepAction::CreateRule { listener, port, index: 0, priority: 1, rule: Box::new(rule()) };
        let modify = |port, to| StepAction::ModifyListener {
            arn: ListenerArn::new("arn:l"),
            port,
            change: Box::new(ListenerChange { default_action: Some(to), ..ListenerChange::default() }),
        };
        let create = |listener| StepAction::CreateListener { load_balancer: None, listener: Box::new(listener) };
        let certificates = vec![CertificateArn::new("arn:c")];
        let doomed = TargetGroupArn::new("arn:t");
        let actions = [
            create(listener(443, to("8443"))),
            StepAction::AddListenerCertificates { listener: ListenerReference::Created(443), certificates },
            create_rule(ListenerReference::Created(443), 443),
            StepAction::SetRulePriorities { port: 443, priorities: vec![(RuleReference::Created(443, 0), 2)] },
            modify(80, to("443")),
            create_rule(ListenerReference::Existing(ListenerArn::new("arn:l")), 81),
            modify(81, to("9443")),
            StepAction::DeleteTargetGroup { arn: doomed.clone(), name: "t".to_owned() },
            step("b").action,
        ];
        let steps: Vec<Step> = actions.map(|action| Step { action, cause: step("a").cause }).into();
        let step_history = StepHistory::default();
        for _ in 0..FREE {
            step_history.remember(&stack().id, &steps[..1]);
        }
        let mut plan = plan_of(steps.clone(), None);
        let withheld = step_history.withhold(&stack().id, &mut plan);
        assert_eq!(withheld.iter().map(|repeated| &repeated.step).collect::<Vec<_>>(), [&steps[0]]);
        assert_eq!(plan.steps(), &steps[5..7]);
        assert_eq!(*plan.passed_over(), [doomed].into());
        // A default action does not change before the rules that come before it.
        let step_history = StepHistory::default();
        for _ in 0..FREE {
            step_history.remember(&stack().id, &steps[5..6]);
        }
        let mut plan = plan_of(steps.clone(), None);
        step_history.withhold(&stack().id, &mut plan);
        assert_eq!(plan.steps(), &steps[..5]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_somebody_asks_for_anew_is_no_repetition() {
        let step_history = StepHistory::default();
        let wanted = |second| {
            let mut stack = stack();
            if second % 2 == 1 {
                stack.frozen.members.insert(ObjectReference::ingress(&ObjectName::new("shop", "other")));
            }
            stack
        };
        assert_eq!(passes(&step_history, 6, wanted).await, [0, 1, 2, 3, 4, 5]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_changed_by_hand_now_and_then_is_put_right_each_time() {
        let step_history = StepHistory::default();
        for _ in 0..5 {
            let mut plan = plan();
            assert_eq!(step_history.withhold(&stack().id, &mut plan), []);
            step_history.remember(&stack().id, plan.steps());
            tokio::time::advance(RETENTION).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_stack_is_remembered_without_bound() {
        let step_history = StepHistory::default();
        for number in 0..2 * MOST {
            step_history.remember(&stack().id, &[step(&number.to_string())]);
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        let memories = step_history.memories();
        assert_eq!(memories[&stack().id].done.len(), MOST);
    }
}
