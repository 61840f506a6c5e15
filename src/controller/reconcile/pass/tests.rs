use std::sync::{Arc, Mutex};

use super::*;
use crate::controller::reconcile::MANIFESTS;
use albatross_aws::{Inventory, facts::FactStore};
use albatross_core::{
    model::{ObjectName, VpcId},
    testing::{build_config, plan_of, snapshot},
};
use albatross_simulation::aws::SimulatedAws;

/// Manifests and a simulated account, as a command would compare them.
struct Account {
    aws: SimulatedAws,
    snapshot: Snapshot,
    config: BuildConfig,
    facts: FactStore,
    inventory: Inventory,
    /// All fact queries that building has made.
    asked: Mutex<BTreeSet<FactQuery>>,
}

fn account() -> Account {
    let (aws, vpc) = (SimulatedAws::new(1), VpcId::new("vpc-1"));
    let reader = Arc::new(albatross_aws::testing::over(aws.client()));
    Account {
        snapshot: snapshot(MANIFESTS),
        config: build_config(),
        facts: FactStore::new(Arc::clone(&reader), "demo".to_owned(), vpc.clone()),
        inventory: Inventory::new(reader, "demo", vpc),
        asked: Mutex::default(),
        aws,
    }
}

impl ClusterView for Account {
    fn config(&self) -> &BuildConfig {
        &self.config
    }

    fn with_snapshot<T>(&self, read: impl FnOnce(&Snapshot) -> T) -> T {
        read(&self.snapshot)
    }
}

impl FactSource for Account {
    type Error = AwsError;

    async fn answer(&self, _: &StackId, want: &FactQuery, facts: &mut Facts) {
        self.facts.answer(want, facts).await;
    }

    async fn backend_security_group(
        &self,
        _: &StackId,
        _: &Membership,
        _: &BTreeSet<ObjectName>,
    ) -> Result<Fact<SecurityGroupId>, AwsError> {
        Ok(Fact::Known(SecurityGroupId::new("sg-backend")))
    }

    fn resolved(&self, _: &StackId, _: &Facts, asked: &BTreeSet<FactQuery>) {
        self.asked.lock().unwrap().extend(asked.iter().cloned());
    }
}

impl StackReader for Account {
    async fn observe(&self, stack: &StackId) -> Result<ObservedStack, AwsError> {
        self.inventory.observe(stack).await
    }

    async fn observe_whole(&self, stack: &StackId) -> Result<ObservedStack, AwsError> {
        self.inventory.observe_whole(stack).await
    }

    async fn read(&self, stack: &StackId, reads: &Reads) -> Result<(), AwsError> {
        self.inventory.read(stack, reads).await
    }

    async fn read_states(&self, stack: &StackId) -> Result<(), AwsError> {
        self.inventory.read_states(stack).await
    }

    fn assume_secrets(&self, _: &StackId, assumed: &[AssumedSecret]) {
        self.inventory.assume_secrets(assumed);
    }
}

fn web() -> StackId {
    StackId::Ingress(ObjectName::new("shop", "web"))
}

/// Builds and plans the stack against the account.
async fn planned(account: &Account) -> (Membership, Built, ObservedStack, Plan) {
    let membership = desired::membership(&account.snapshot, &account.config, &web());
    let built = resolve(account, &web(), &membership, &BTreeMap::new()).await.unwrap().unwrap();
    let stack = built.stack.as_ref().unwrap_or_else(|| panic!("{:?}", built.diagnostics));
    let observed = observe(account, &web(), KnownLimits::default()).await.unwrap();
    let (plan, observed) = plan(account, stack, observed).await.unwrap();
    (membership, built, observed, plan)
}

#[tokio::test(start_paused = true)]
async fn a_stack_is_planned_against_an_account_without_a_controller_and_without_a_write() {
    let account = account();
    let (_, _, observed, plan) = planned(&account).await;
    let kinds: Vec<&str> = plan.steps().iter().map(|step| step.action.kind()).collect();
    for wanted in ["CreateSecurityGroup", "CreateTargetGroup", "CreateLoadBalancer", "CreateListener", "CreateRule"] {
        assert!(kinds.contains(&wanted), "{wanted} in {kinds:?}");
    }
    assert!(observed.is_empty());
    assert!(account.asked.lock().unwrap().iter().any(|want| matches!(want, FactQuery::Subnets(_))));
    let calls = account.aws.calls();
    assert!(!calls.is_empty() && calls.iter().all(|call| !call.is_write), "{:?}", calls.last().map(|c| &c.operation));
}

/// Records its calls, and proves objects deleted or not.
struct Applier {
    proved: bool,
    log: Mutex<Vec<&'static str>>,
}

impl Applier {
    async fn note(&self, what: &'static str) -> Result<(), AwsError> {
        self.log.lock().unwrap().push(what);
        Ok(())
    }
}

impl PlanApplier for Applier {
    type Error = AwsError;

    async fn prove(&self, _: &Change<'_>) -> Result<bool, AwsError> {
        self.note("prove").await.map(|()| self.proved)
    }

    async fn ensure_finalizer(&self, _: &Change<'_>) -> Result<(), AwsError> {
        self.note("finalizer").await
    }

    async fn mark_dirty(&self, _: &Change<'_>) -> Result<(), AwsError> {
        self.note("dirty").await
    }

    async fn apply(&self, _: &Change<'_>) -> Result<(), AwsError> {
        self.note("apply").await
    }
}

#[tokio::test(start_paused = true)]
async fn a_plan_is_carried_out_once_it_is_proved_and_remembered() {
    let account = account();
    let (membership, built, observed, full) = planned(&account).await;
    for (plan, proved, result, log) in [
        (&full, true, CarriedOut::Applied, &["prove", "finalizer", "dirty", "apply"][..]),
        (&full, false, CarriedOut::Unproved, &["prove"]),
        (&plan_of(Vec::new(), None), true, CarriedOut::Nothing, &["finalizer"]),
    ] {
        let applier = Applier { proved, log: Mutex::default() };
        let (stack, frozen, absent) = (built.stack.as_ref().unwrap(), &built.frozen, &built.absent);
        let change = Change { membership: &membership, stack, frozen, absent, observed: &observed, plan };
        assert_eq!(carry_out(&applier, &change).await, Ok(result));
        assert_eq!(*applier.log.lock().unwrap(), log);
    }
}
