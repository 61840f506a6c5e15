//! Steps that were carried out and are planned again, though nobody has asked for anything else since: AWS or the API server
//! answers other than what was written, or something else changes it back each time. One repetition may come of a list that
//! was behind, or of a change by hand; from then on such a step waits, longer each time, and people are told. The rest of
//! the plan goes on.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    hash::{DefaultHasher, Hasher},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    model::{Stack, StackId},
    plan::{Plan, Step, StepAction},
};

/// How often a step may be carried out before its repetition counts as one.
const FREE: u32 = 2;

/// How long a step waits when it is planned again the second time; then twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_secs(30);

/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// A step that was carried out so long ago says nothing about the present: somebody has changed something by hand since.
const FORGOTTEN: Duration = Duration::from_secs(2 * 3600);

/// How many steps are remembered of one stack; the oldest goes first.
const MOST: usize = 256;

/// What was carried out lately, by stack.
#[derive(Debug, Default)]
pub struct Repeats(Mutex<BTreeMap<StackId, Memory>>);

#[derive(Debug, Default)]
struct Memory {
    /// What the stack was to be when these were carried out.
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
pub struct Repeated {
    /// The step.
    pub step: Step,
    /// How often it was carried out.
    pub times: u32,
    /// Until it is carried out once more.
    pub pause: Duration,
}

impl Repeated {
    /// What people are told: the step, the field that asks for it, and what to do.
    #[must_use]
    pub fn message(&self) -> String {
        let Self { step, times, .. } = self;
        let Step { action, cause } = step;
        let fix = match action {
            StepAction::CreateBinding(_) | StepAction::UpdateBinding { .. } | StepAction::DeleteBinding(_) => {
                "see in its managedFields and events what else writes the TargetGroupBinding (a policy engine, a GitOps tool), and have that leave it alone"
            }
            _ => "see in CloudTrail what else changes it; if nothing does, write the value as AWS shows it",
        };
        format!(
            "{action}: carried out {times} times, and not in force afterwards; asked for by {cause}; {fix}; it is tried again with growing pauses"
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

impl Repeats {
    fn memories(&self) -> MutexGuard<'_, BTreeMap<StackId, Memory>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a pass: where the stack is to be something else than in the last one, what was carried out then says nothing.
    pub fn begin(&self, stack: &Stack) {
        let (mut memories, wanted) = (self.memories(), hash(stack));
        let memory = memories.entry(stack.id.clone()).or_default();
        if memory.wanted != wanted {
            *memory = Memory { wanted, done: BTreeMap::new() };
        }
    }

    /// Takes out of a plan the steps that wait because they were carried out before, and returns them.
    pub fn withhold(&self, stack: &StackId, plan: &mut Plan) -> Vec<Repeated> {
        let (mut memories, now) = (self.memories(), Instant::now());
        let Some(memory) = memories.get_mut(stack) else { return Vec::new() };
        memory.done.retain(|_, done| now.duration_since(done.last) < FORGOTTEN);
        if memory.done.is_empty() {
            return Vec::new();
        }
        let mut withheld = Vec::new();
        plan.steps.retain(|step| {
            let Some(done) = memory.done.get(&fingerprint(&step.action)) else { return true };
            let Some(next) = done.next().filter(|next| *next > now) else { return true };
            withheld.push(Repeated { step: step.clone(), times: done.times, pause: next.duration_since(now) });
            false
        });
        withheld
    }

    /// Remembers that these steps were carried out.
    pub fn remember(&self, stack: &StackId, steps: &[Step]) {
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

    /// Forgets a stack that is no more.
    pub fn forget(&self, stack: &StackId) {
        self.memories().remove(stack);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Cause, ObjectKind, ObjectName, ObjectReference, RuleArn};

    fn stack() -> Stack {
        Stack::empty(StackId::Ingress(ObjectName::new("shop", "web")))
    }

    fn step(arn: &str) -> Step {
        let object = ObjectReference { kind: ObjectKind::Ingress, name: ObjectName::new("shop", "web") };
        let action = StepAction::DeleteRule { arn: RuleArn::new(arn), port: 80, priority: 3 };
        Step { action, cause: Cause { object, generation: 4, field: "spec.rules".to_owned() } }
    }

    fn plan() -> Plan {
        Plan { steps: vec![step("a"), step("b")], ..Plan::default() }
    }

    /// Runs passes for so long, one a second; answers when the first step was carried out.
    async fn passes(repeats: &Repeats, seconds: u64, wanted: impl Fn(u64) -> Stack) -> Vec<u64> {
        let mut carried_out = Vec::new();
        for second in 0..seconds {
            let (stack, mut plan) = (wanted(second), Plan { steps: vec![step("a")], ..Plan::default() });
            repeats.begin(&stack);
            repeats.withhold(&stack.id, &mut plan);
            if !plan.steps.is_empty() {
                carried_out.push(second);
            }
            repeats.remember(&stack.id, &plan.steps);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        carried_out
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_that_does_not_last_is_carried_out_less_and_less_often_and_the_rest_goes_on() {
        let repeats = Repeats::default();
        assert_eq!(passes(&repeats, 600, |_| stack()).await, [0, 1, 31, 91, 211, 451]);
        let mut with_another = plan();
        let withheld = repeats.withhold(&stack().id, &mut with_another);
        assert_eq!(with_another.steps, [step("b")]);
        assert_eq!(withheld, [Repeated { step: step("a"), times: 6, pause: Duration::from_secs(480 - 149) }]);
        insta::assert_snapshot!(withheld[0].message(), @"delete rule 3 of listener 80: carried out 6 times, and not in force afterwards; asked for by Ingress shop/web generation 4, spec.rules; see in CloudTrail what else changes it; if nothing does, write the value as AWS shows it; it is tried again with growing pauses");
        // It never takes longer than an hour, and is never given up.
        let mut carried_out = passes(&repeats, 40_000, |_| stack()).await;
        carried_out.insert(0, 0);
        carried_out.push(40_000);
        assert!(carried_out.windows(2).all(|pair| pair[1] - pair[0] <= 3600), "{carried_out:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_somebody_asks_for_anew_is_no_repetition() {
        let repeats = Repeats::default();
        let wanted = |second| {
            let mut stack = stack();
            if second % 2 == 1 {
                stack.set_aside.members.insert(ObjectName::new("shop", "other"));
            }
            stack
        };
        assert_eq!(passes(&repeats, 6, wanted).await, [0, 1, 2, 3, 4, 5]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_changed_by_hand_now_and_then_is_put_right_each_time() {
        let repeats = Repeats::default();
        for _ in 0..5 {
            let mut plan = plan();
            assert_eq!(repeats.withhold(&stack().id, &mut plan), []);
            repeats.remember(&stack().id, &plan.steps);
            tokio::time::advance(FORGOTTEN).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_stack_is_remembered_without_bound() {
        let repeats = Repeats::default();
        for number in 0..2 * MOST {
            repeats.remember(&stack().id, &[step(&number.to_string())]);
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        let memories = repeats.memories();
        assert_eq!(memories[&stack().id].done.len(), MOST);
    }
}
