use std::sync::{Arc, Mutex};

use super::*;
use crate::controller::reconcile::MANIFESTS;
use albatross_aws::{Inventory, facts::FactStore};
use albatross_core::{
    model::{
        CertificateArn, DELETION_PROTECTION, IpAddressType, LoadBalancerKind, LoadBalancerState, ObjectName,
        ObservedAddOns, ObservedNetworkSettings, ObservedPools, Requested, ResourceId, Scheme, Tags, VpcId,
    },
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

    async fn healthy(&self, group: &TargetGroupArn) -> Result<usize, AwsError> {
        self.inventory.healthy(group).await
    }

    async fn read_states(&self, stack: &StackId) -> Result<(), AwsError> {
        self.inventory.read_states(stack).await
    }

    fn was_protected(&self, load_balancer: &LoadBalancerArn) -> bool {
        self.inventory.was_protected(load_balancer)
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
    let Planning { plan, observed, .. } = plan(account, stack, observed).await.unwrap();
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

#[tokio::test(start_paused = true)]
async fn an_add_on_that_was_left_out_is_not_tried_again_in_the_same_pass() {
    let account = account();
    let (_, built, observed, _) = planned(&account).await;
    let mut stack = built.stack.unwrap();
    let balancer = stack.load_balancer.as_mut().unwrap();
    let cause = balancer.cause.clone();
    balancer.add_ons.protection = Some(Requested { value: true, cause });
    for (left_out, steps) in [(BTreeSet::new(), 1), (BTreeSet::from([AddOn::Protection]), 0)] {
        let observed = ObservedStack { left_out: left_out.clone(), ..observed.clone() };
        let Planning { plan, observed, unread } = plan(&account, &stack, observed).await.unwrap();
        assert_eq!(plan.steps().iter().filter(|step| step.action.add_on().is_some()).count(), steps);
        assert!(observed.left_out == left_out && unread.is_empty());
    }
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
    type LeftOut = AddOn;

    async fn prove(&self, _: &Change<'_>) -> Result<bool, AwsError> {
        self.note("prove").await.map(|()| self.proved)
    }

    async fn ensure_finalizer(&self, _: &Change<'_>) -> Result<(), AwsError> {
        self.note("finalizer").await
    }

    async fn mark_dirty(&self, _: &Change<'_>) -> Result<(), AwsError> {
        self.note("dirty").await
    }

    async fn apply(&self, _: &Change<'_>) -> Result<Vec<AddOn>, AwsError> {
        self.note("apply").await.map(|()| vec![AddOn::WebAcl])
    }
}

#[tokio::test(start_paused = true)]
async fn a_plan_is_carried_out_once_it_is_proved_and_remembered() {
    let account = account();
    let (membership, built, observed, full) = planned(&account).await;
    let action = plan::StepAction::DeleteCertificate {
        arn: CertificateArn::new("arn:certificate/1"),
        resource: ResourceId::of_tag("amazon_issued/a.example.com-00000000"),
    };
    let step = plan::Step::new(action, full.steps()[0].cause.clone());
    let deletion = plan_of(vec![step.clone()], None);
    let with_deletion = plan_of([full.steps(), &[step]].concat(), None);
    for (plan, proved, result, log) in [
        (&full, true, CarriedOut::Applied(vec![AddOn::WebAcl]), &["prove", "finalizer", "dirty", "apply"][..]),
        (&full, false, CarriedOut::Unproved, &["prove"]),
        (&plan_of(Vec::new(), None), true, CarriedOut::Nothing, &["finalizer"]),
        // What is left to delete is in the record, which is written for nothing else.
        (&deletion, true, CarriedOut::Applied(vec![AddOn::WebAcl]), &["prove", "finalizer", "apply"]),
        (&with_deletion, true, CarriedOut::Applied(vec![AddOn::WebAcl]), &["prove", "finalizer", "dirty", "apply"]),
    ] {
        let applier = Applier { proved, log: Mutex::default() };
        let (stack, frozen, absent) = (built.stack.as_ref().unwrap(), &built.frozen, &built.absent);
        let (membership, whereabouts) = (&membership, &BTreeMap::new());
        let change = Change { membership, stack, frozen, absent, observed: &observed, whereabouts, plan };
        assert_eq!(carry_out(&applier, &change).await, Ok(result));
        assert_eq!(*applier.log.lock().unwrap(), log);
    }
}

/// Load balancers of a stack, with the attributes that AWS has, and those that are known.
struct Balancers {
    in_aws: Vec<bool>,
    known: Mutex<Vec<Option<bool>>>,
    was_protected: bool,
    reads: Mutex<usize>,
}

impl Balancers {
    fn arn(number: usize) -> LoadBalancerArn {
        LoadBalancerArn::new(format!("arn:b/{number}"))
    }
}

impl StackReader for Balancers {
    async fn observe(&self, _: &StackId) -> Result<ObservedStack, AwsError> {
        let known = self.known.lock().unwrap();
        let load_balancers = known.iter().enumerate().map(|(number, protected)| ObservedLoadBalancer {
            arn: Self::arn(number),
            name: format!("lb-{number}"),
            dns_name: format!("lb-{number}.elb.amazonaws.com"),
            kind: LoadBalancerKind::Application,
            scheme: Scheme::Internal,
            ip_address_type: IpAddressType::Ipv4,
            network: ObservedNetworkSettings::default(),
            pools: ObservedPools::default(),
            state: LoadBalancerState::Active,
            subnets: BTreeSet::new(),
            security_groups: BTreeSet::new(),
            attributes: protected.map(|on| [(DELETION_PROTECTION.to_owned(), on.to_string())].into()),
            tags: Tags::new(),
            listeners: None,
            add_ons: ObservedAddOns::default(),
        });
        Ok(ObservedStack { load_balancers: load_balancers.collect(), ..ObservedStack::default() })
    }

    async fn observe_whole(&self, stack: &StackId) -> Result<ObservedStack, AwsError> {
        self.observe(stack).await
    }

    async fn read(&self, _: &StackId, reads: &Reads) -> Result<(), AwsError> {
        *self.reads.lock().unwrap() += 1;
        for (number, known) in self.known.lock().unwrap().iter_mut().enumerate() {
            if reads.load_balancer.as_ref() == Some(&Self::arn(number)) {
                *known = Some(self.in_aws[number]);
            }
        }
        Ok(())
    }

    async fn healthy(&self, _: &TargetGroupArn) -> Result<usize, AwsError> {
        Ok(0)
    }

    async fn read_states(&self, _: &StackId) -> Result<(), AwsError> {
        Ok(())
    }

    fn was_protected(&self, _: &LoadBalancerArn) -> bool {
        self.was_protected
    }

    fn assume_secrets(&self, _: &StackId, _: &[AssumedSecret]) {}
}

#[tokio::test]
async fn protection_is_read_where_aws_alone_would_not_keep_the_stack_together() {
    for (in_aws, known, was_protected, reads, found) in [
        // AWS refuses to delete the only one.
        (vec![true], vec![None], false, 0, vec![]),
        (vec![true], vec![Some(false)], false, 0, vec![]),
        // It is known, and a user may have switched it off.
        (vec![true], vec![Some(true)], false, 1, vec!["lb-0"]),
        (vec![false], vec![Some(true)], false, 1, vec![]),
        (vec![true], vec![None], true, 1, vec!["lb-0"]),
        // The first would be gone when AWS refuses the second.
        (vec![false, true], vec![None, None], false, 2, vec!["lb-1"]),
        (vec![true, false], vec![Some(false), Some(false)], false, 2, vec!["lb-0"]),
        (vec![], vec![], false, 0, vec![]),
    ] {
        let case = format!("{in_aws:?} {known:?} {was_protected}");
        let balancers = Balancers { in_aws, known: Mutex::new(known), was_protected, reads: Mutex::default() };
        let names = protected(&balancers, &web()).await.unwrap();
        assert_eq!(names.into_iter().collect::<Vec<_>>(), found, "{case}");
        assert_eq!(*balancers.reads.lock().unwrap(), reads, "{case}");
    }
}
