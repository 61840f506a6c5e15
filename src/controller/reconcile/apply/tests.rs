mod add_ons;
mod authentication;
mod bindings;
mod certificates;
mod frontend;
mod network;
mod security_groups;
mod transforms;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value as Json, json};

use super::*;
use crate::controller::reconcile::MANIFESTS;
use albatross_aws::{AwsErrorKind, WritePermit};
use albatross_core::{
    api::crd::TargetGroupBinding,
    desired::{Membership, sources::ingress},
    facts::{Fact, Facts},
    model::{
        Cause, LoadBalancerArn, ObjectName, ObjectReference, ObservedBinding, ObservedStack, ResourceId,
        SecurityGroupId, Stack, SubnetId, Tags, TargetGroupArn, Value, VpcId,
    },
    plan::{self, Step, StepAction},
    testing::{build_config, plan_of, snapshot},
};
use albatross_simulation::fake::{Call, Fake, ec2, ec2_error, elb, elb_error};

fn group() -> StackId {
    StackId::Ingress(ObjectName::new("shop", "web"))
}

fn stack(manifests: &str, members: &[ObjectName], config: &BuildConfig, subnets: &[SubnetId]) -> Stack {
    let facts = Facts {
        subnets: albatross_core::testing::discovered_subnets(subnets),
        backend_security_group: Some(Fact::Known(SecurityGroupId::new("sg-backend"))),
        ..Facts::default()
    };
    let built = ingress::build(
        &snapshot(manifests),
        config,
        &facts,
        &group(),
        &Membership { members: members.to_vec(), ..Default::default() },
    );
    built.stack.unwrap_or_else(|| panic!("{:?}", built.diagnostics))
}

fn wanted() -> Stack {
    let config = build_config();
    stack(
        MANIFESTS,
        &[ObjectName::new("shop", "web")],
        &config,
        &[SubnetId::new("subnet-1"), SubnetId::new("subnet-2")],
    )
}

/// The API server's TargetGroupBindings, by path.
#[derive(Clone, Default)]
struct Bindings(Arc<Mutex<BTreeMap<String, Json>>>);

const PATH: &str = "/apis/elbv2.k8s.aws/v1beta1/namespaces/shop/targetgroupbindings";

impl Bindings {
    fn answer(&self, call: &Call) -> (u16, String) {
        let status = |code: u16, reason: &str| {
            let text = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": format!("{reason} by the test"), "reason": reason, "code": code});
            (code, text.to_string())
        };
        let (method, path) = call.action.split_once(' ').unwrap();
        let mut objects = self.0.lock().unwrap();
        let body: Json = serde_json::from_str(&call.body).unwrap_or_default();
        let stored = |mut body: Json, version: u64| {
            body["metadata"]["resourceVersion"] = json!(version.to_string());
            body
        };
        match method {
            "POST" => {
                let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap());
                if objects.contains_key(&path) {
                    return status(409, "AlreadyExists");
                }
                objects.insert(path.clone(), stored(body, 1));
                (201, objects[&path].to_string())
            }
            "PUT" => match objects.get(path) {
                None => status(404, "NotFound"),
                Some(old) if old["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"] => {
                    status(409, "Conflict")
                }
                Some(_) => {
                    objects.insert(path.to_owned(), stored(body, 2));
                    (200, objects[path].to_string())
                }
            },
            "GET" => objects.get(path).map_or_else(|| status(404, "NotFound"), |object| (200, object.to_string())),
            "DELETE" => {
                objects.remove(path).map_or_else(|| status(404, "NotFound"), |object| (200, object.to_string()))
            }
            other => panic!("{other}"),
        }
    }

    /// Returns the bindings as the controller's watch would show them.
    fn observed(&self) -> Vec<ObservedBinding> {
        let objects = self.0.lock().unwrap();
        objects
            .values()
            .map(|object| {
                let binding: TargetGroupBinding = serde_json::from_value(object.clone()).unwrap();
                let metadata = binding.metadata;
                ObservedBinding {
                    name: ObjectName::new(metadata.namespace.unwrap(), metadata.name.unwrap()),
                    target_group: TargetGroupArn::new(binding.spec.target_group_arn.clone().unwrap()),
                    resource_version: metadata.resource_version.unwrap(),
                    labels: metadata.labels.unwrap_or_default(),
                    spec: binding.spec,
                    deleting: false,
                    allows_sources: true,
                    registered: None,
                }
            })
            .collect()
    }
}

/// AWS that has nothing, and creates what is requested; `special` answers first where it has an answer.
fn aws(call: &Call, special: impl Fn(&Call) -> Option<(u16, String)>) -> (u16, String) {
    if let Some(answer) = special(call) {
        return answer;
    }
    let (action, name) = (call.action.as_str(), call.param("Name"));
    let default = "<DefaultActions/>";
    match action {
        "DescribeLoadBalancers" | "DescribeTargetGroups" | "DescribeTags" => elb(action, ""),
        "DescribeSecurityGroups" => ec2(action, "<securityGroupInfo/>"),
        "CreateSecurityGroup" => ec2(action, "<groupId>sg-made</groupId>"),
        "CreateTargetGroup" => elb(
            action,
            &format!(
                "<TargetGroups><member><TargetGroupArn>arn:t/{name}</TargetGroupArn><TargetGroupName>{name}</TargetGroupName></member></TargetGroups>"
            ),
        ),
        "CreateLoadBalancer" => elb(
            action,
            &format!(
                "<LoadBalancers><member><LoadBalancerArn>arn:b/{name}</LoadBalancerArn><LoadBalancerName>{name}</LoadBalancerName><Type>application</Type><Scheme>internal</Scheme></member></LoadBalancers>"
            ),
        ),
        "CreateListener" => elb(
            action,
            &format!(
                "<Listeners><member><ListenerArn>arn:l/{0}</ListenerArn><Port>{0}</Port><Protocol>HTTP</Protocol>{default}</member></Listeners>",
                call.param("Port")
            ),
        ),
        "CreateRule" => elb(
            action,
            &format!(
                "<Rules><member><RuleArn>arn:r/{0}</RuleArn><Priority>{0}</Priority><IsDefault>false</IsDefault></member></Rules>",
                call.param("Priority")
            ),
        ),
        _ => elb(action, ""),
    }
}

struct Room {
    fake: Fake,
    bindings: Bindings,
    inventory: Arc<Inventory>,
    applier: Applier,
    bindings_client: WriteClient,
}

async fn kubernetes(endpoint: &str) -> WriteClient {
    // The HTTP stack is built for TLS, too, though none is used here.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = kube::Client::try_from(kube::Config::new(endpoint.parse().unwrap())).unwrap();
    WriteClient::new(client, WritePermit::without_election())
}

async fn room(special: impl Fn(&Call) -> Option<(u16, String)> + Clone + Send + Sync + 'static) -> Room {
    let bindings = Bindings::default();
    let answering = bindings.clone();
    let fake = Fake::start(move |call| {
        let answer = if call.action.contains(' ') && !call.action.contains("/2013-") {
            answering.answer(&call)
        } else {
            aws(&call, &special)
        };
        async move { answer }
    })
    .await;
    let aws = Arc::new(albatross_aws::testing::at(&fake.endpoint, None));
    let inventory = Arc::new(Inventory::new(aws.clone(), "demo", VpcId::new("vpc-1")));
    let bindings_client = kubernetes(&fake.endpoint).await;
    let aws = AwsWriter::new(aws, WritePermit::without_election());
    let applier = Applier::new(aws, inventory.clone(), &bindings_client);
    Room { fake, bindings, inventory, applier, bindings_client }
}

impl Room {
    async fn observe(&self) -> ObservedStack {
        let mut observed = self.inventory.observe_whole(&group()).await.unwrap();
        observed.bindings = self.bindings.observed();
        observed
    }

    async fn apply(&self, plan: &Plan) -> Result<Applied, ApplyError> {
        self.applier.apply(&group(), plan).await
    }

    /// Runs one step.
    async fn step(&self, action: StepAction) -> Result<Applied, ApplyError> {
        self.apply(&plan_for_ingress([action])).await
    }
}

fn plan_for_ingress(actions: impl IntoIterator<Item = StepAction>) -> Plan {
    let object = ObjectReference::ingress(&ObjectName::new("shop", "web"));
    let cause = Cause { object, generation: 1, field: "spec".into() };
    let steps = actions.into_iter().map(|action| Step::new(action, cause.clone()));
    plan_of(steps.collect(), None)
}

/// Returns the text for users.
fn reported(result: Result<Applied, ApplyError>) -> String {
    let error = result.unwrap_err();
    let (fix, transient) = (error.fix().unwrap_or_else(|| "-".into()), error.is_transient());
    format!("{error}\nblame: {}\nfix: {fix}\ntransient: {transient}", error.blame())
}

/// Returns the parameters that name other resources, without the parameters that describe a resource.
fn references(call: &Call) -> String {
    let named =
        |key: &str| ["Arn", "GroupId", "SubnetId", "SecurityGroups.member", "Priority"].iter().any(|w| key.contains(w));
    let kept = call.params.iter().filter(|(key, _)| named(key)).map(|(key, value)| format!(" {key}={value}"));
    format!("{}{}", call.action, kept.collect::<String>())
}

#[tokio::test]
async fn later_steps_name_what_earlier_ones_made() {
    let room = room(|_| None).await;
    let plan = plan::plan(&wanted(), &room.observe().await).ready().unwrap();
    room.fake.calls();
    let applied = room.apply(&plan).await.unwrap();
    assert_eq!(applied.carried_out.len(), plan.steps().len());
    let calls: Vec<_> = room.fake.calls().iter().map(references).collect();
    insta::assert_snapshot!(calls.join("\n"), @"
    CreateSecurityGroup
    CreateTargetGroup
    POST /apis/elbv2.k8s.aws/v1beta1/namespaces/shop/targetgroupbindings
    CreateLoadBalancer SecurityGroups.member.1=sg-made SecurityGroups.member.2=sg-backend SubnetMappings.member.1.SubnetId=subnet-1 SubnetMappings.member.2.SubnetId=subnet-2
    CreateListener LoadBalancerArn=arn:b/k8s-shop-web-63400ea3d5
    CreateRule Actions.member.1.ForwardConfig.TargetGroups.member.1.TargetGroupArn=arn:t/k8s-shop-api-33b1a54ac0 ListenerArn=arn:l/80 Priority=1
    AuthorizeSecurityGroupIngress GroupId=sg-made
    ");

    let bindings = room.bindings.0.lock().unwrap().clone();
    insta::assert_snapshot!(serde_json::to_string_pretty(&bindings).unwrap(), @r#"
    {
      "/apis/elbv2.k8s.aws/v1beta1/namespaces/shop/targetgroupbindings/k8s-shop-api-33b1a54ac0": {
        "apiVersion": "elbv2.k8s.aws/v1beta1",
        "kind": "TargetGroupBinding",
        "metadata": {
          "labels": {
            "ingress.k8s.aws/stack-name": "web",
            "ingress.k8s.aws/stack-namespace": "shop"
          },
          "name": "k8s-shop-api-33b1a54ac0",
          "namespace": "shop",
          "resourceVersion": "1"
        },
        "spec": {
          "ipAddressType": "ipv4",
          "networking": {
            "ingress": [
              {
                "from": [
                  {
                    "securityGroup": {
                      "groupID": "sg-backend"
                    }
                  }
                ],
                "ports": [
                  {
                    "port": 31380,
                    "protocol": "TCP"
                  }
                ]
              }
            ]
          },
          "serviceRef": {
            "name": "api",
            "port": 80
          },
          "targetGroupARN": "arn:t/k8s-shop-api-33b1a54ac0",
          "targetGroupProtocol": "HTTP",
          "targetType": "instance",
          "vpcID": "vpc-1"
        }
      }
    }
    "#);

    // Created resources are known, without a read.
    let observed = room.observe().await;
    let tags: Vec<_> = observed.load_balancers[0].listener(80).unwrap().rules.iter().map(|rule| &rule.tags).collect();
    assert_eq!(tags[0][tags::INGRESS_RESOURCE], "80:1");
    assert!(room.fake.actions().is_empty());
}

#[tokio::test]
async fn nothing_is_written_without_the_lease() {
    let room = room(|_| None).await;
    let plan = plan::plan(&wanted(), &ObservedStack::default()).ready().unwrap();
    let reader = room.applier.aws.reader().clone();
    let aws = AwsWriter::new(reader, albatross_aws::testing::permit(|| None));
    let applier = Applier::new(aws, room.inventory.clone(), &room.bindings_client);
    let result = applier.apply(&group(), &plan).await;
    assert!(matches!(result, Err(ApplyError { source: StepError::NotLeader, .. })), "{result:?}");
    assert!(room.fake.actions().is_empty());
}

#[tokio::test]
async fn a_plan_ends_where_its_permit_ends_and_tells_what_was_carried_out() {
    let plan = plan::plan(&wanted(), &ObservedStack::default()).ready().unwrap();
    let (mut between_steps, mut within_a_step) = (0, 0);
    for asks in 1.. {
        let room = room(|_| None).await;
        let asked = AtomicUsize::new(0);
        let permit = albatross_aws::testing::permit(move || {
            (asked.fetch_add(1, Ordering::SeqCst) < asks).then_some(Duration::MAX)
        });
        let aws = AwsWriter::new(room.applier.aws.reader().clone(), permit);
        let applier = Applier::new(aws, room.inventory.clone(), &room.bindings_client);
        let Err(error) = applier.apply(&group(), &plan).await else { break };
        match &error.source {
            StepError::NotLeader => between_steps += 1,
            StepError::Aws(error) if error.kind == AwsErrorKind::Withheld => within_a_step += 1,
            other => panic!("{other}"),
        }
        assert!(error.is_transient());
        assert_eq!(error.carried_out, (0..error.carried_out.len()).collect::<Vec<_>>());
        let kinds: Vec<&str> = plan.steps().iter().map(|step| step.action.kind()).collect();
        assert!(
            kinds
                .iter()
                .skip(error.carried_out.len() + 1)
                .all(|kind| !room.fake.actions().contains(&(*kind).to_owned()))
        );
    }
    assert!(between_steps > 0 && within_a_step > 0, "{between_steps}, {within_a_step}");
}

#[tokio::test]
async fn a_deletion_that_has_to_wait_holds_up_no_other() {
    let room = room(|call| match call.action.as_str() {
        "DeleteSecurityGroup" => Some(ec2_error(400, "DependencyViolation", "resource sg-1 has a dependent object")),
        "DeleteTargetGroup" if call.param("TargetGroupArn") == "arn:t/used" => Some(elb_error(
            400,
            "ResourceInUse",
            "Target group 'arn:t/used' is currently in use by a listener or a rule",
        )),
        _ => None,
    })
    .await;
    let target_group = |name: &str| StepAction::DeleteTargetGroup {
        arn: TargetGroupArn::new(format!("arn:t/{name}")),
        name: name.into(),
    };
    let rule = StepAction::DeleteRule { arn: albatross_core::model::RuleArn::new("arn:r/1"), port: 80, priority: 1 };
    let security_group = StepAction::DeleteSecurityGroup(SecurityGroupId::new("sg-1"));
    let plan = plan_for_ingress([rule, target_group("used"), target_group("free"), security_group]);
    let result = room.apply(&plan).await;
    assert!(result.as_ref().is_err_and(ApplyError::is_not_yet));
    insta::assert_snapshot!(reported(result), @"
    delete target group used: DeleteTargetGroup has to wait: Target group 'arn:t/used' is currently in use by a listener or a rule (ResourceInUse)
    blame: Ingress shop/web generation 1, spec
    fix: remove the listeners and rules of other load balancers, and the services of VPC Lattice or ECS, that use the target group
    transient: true
    ");
    assert_eq!(room.fake.actions(), ["DeleteRule", "DeleteSecurityGroup", "DeleteTargetGroup", "DeleteTargetGroup"]);
}

#[tokio::test]
async fn what_a_load_balancer_leads_to_stays_while_aws_does_not_delete_it() {
    for (code, message) in [
        ("ResourceInUse", "Load balancer 'web' is currently associated with another service"),
        ("OperationNotPermitted", "Load balancer 'web' cannot be deleted because deletion protection is enabled"),
        ("LoadBalancerNotFound", "One or more load balancers not found"),
        ("Throttling", "Rate exceeded"),
    ] {
        let room = room(move |call| match call.action.as_str() {
            "DeleteLoadBalancer" => Some(elb_error(400, code, message)),
            _ => None,
        })
        .await;
        let balancer = LoadBalancerArn::new("arn:b/web");
        let target_group = TargetGroupArn::new("arn:t/web");
        let plan = plan_for_ingress([
            StepAction::DeleteLoadBalancer { arn: balancer, name: "web".into() },
            StepAction::DeleteBinding(ObjectName::new("shop", "k8s-shop-web")),
            StepAction::DeleteTargetGroup { arn: target_group, name: "web".into() },
            StepAction::DeleteSecurityGroup(SecurityGroupId::new("sg-1")),
        ]);
        let error = room.apply(&plan).await.unwrap_err();
        assert_eq!(error.step, "delete load balancer web with its listeners and rules");
        assert_eq!(error.carried_out, Vec::<usize>::new());
        let actions = room.fake.actions();
        let removes = |action: &&String| action.starts_with("Delete") || action.starts_with("DELETE");
        assert!(actions.iter().filter(removes).all(|action| action == "DeleteLoadBalancer"), "{code}: {actions:?}");
    }
}

#[tokio::test]
async fn what_is_not_there_to_be_deleted_is_looked_for_again() {
    let room = room(|call| match call.action.as_str() {
        "DeleteSecurityGroup" => {
            Some(ec2_error(400, "InvalidGroup.NotFound", "The security group 'sg-1' does not exist"))
        }
        _ => None,
    })
    .await;
    room.observe().await;
    room.fake.calls();
    let rule = StepAction::DeleteRule { arn: albatross_core::model::RuleArn::new("arn:r/1"), port: 80, priority: 1 };
    let plan = plan_for_ingress([StepAction::DeleteSecurityGroup(SecurityGroupId::new("sg-1")), rule]);
    let result = room.apply(&plan).await;
    assert!(result.as_ref().is_err_and(ApplyError::is_not_yet), "{result:?}");
    assert_eq!(room.fake.actions(), ["DeleteRule", "DeleteSecurityGroup"]);
    room.fake.calls();
    room.observe().await;
    assert!(room.fake.actions().contains(&"DescribeSecurityGroups".to_owned()));
}

#[tokio::test]
async fn nothing_is_adopted_by_its_name() {
    let owners = [
        // A resource of another owner, with other settings; without them, if AWS answers with the existing one; and the
        // stack's own.
        ("shop/other", true),
        ("shop/other", false),
        ("shop/web", true),
    ];
    let mut texts = Vec::new();
    for (owner, differs) in owners {
        let room = room(move |call| {
            let name = "k8s-shop-api-x";
            let member = format!("<member><TargetGroupArn>arn:t/{name}</TargetGroupArn><TargetGroupName>{name}</TargetGroupName><VpcId>vpc-1</VpcId></member>");
            match call.action.as_str() {
                "CreateTargetGroup" if differs => Some(elb_error(400, "DuplicateTargetGroupName", "A target group with the same name exists")),
                "CreateTargetGroup" | "DescribeTargetGroups" => Some(elb(&call.action, &format!("<TargetGroups>{member}</TargetGroups>"))),
                "DescribeTags" => Some(elb("DescribeTags", &format!("<TagDescriptions><member><ResourceArn>arn:t/{name}</ResourceArn><Tags><member><Key>elbv2.k8s.aws/cluster</Key><Value>demo</Value></member><member><Key>ingress.k8s.aws/stack</Key><Value>{owner}</Value></member></Tags></member></TagDescriptions>"))),
                _ => None,
            }
        })
        .await;
        room.observe().await;
        let mut target_group = wanted().target_groups[0].clone();
        target_group.name = Value::Known(albatross_core::model::TargetGroupName::new("k8s-shop-api-x").unwrap());
        texts.push(reported(room.step(StepAction::CreateTargetGroup(Box::new(target_group))).await));
    }
    assert_eq!(texts[0], texts[1]);
    texts.remove(1);
    insta::assert_snapshot!(texts.join("\n"), @"
    create target group k8s-shop-api-x for shop/web-api:80: the target group `k8s-shop-api-x` exists and belongs to shop/other of cluster demo, not to shop/web of cluster demo
    blame: Ingress shop/web generation 1, spec
    fix: choose another name, or delete or rename the target group `k8s-shop-api-x`: it is never taken over by its name
    transient: false
    create target group k8s-shop-api-x for shop/web-api:80: the target group `k8s-shop-api-x` already exists
    blame: Ingress shop/web generation 1, spec
    fix: -
    transient: true
    ");
}

#[tokio::test]
async fn an_answer_that_was_lost_has_the_group_read_again() {
    let room =
        room(|call| (call.action == "SetRulePriorities").then(|| elb_error(500, "InternalFailure", "words"))).await;
    room.observe().await;
    room.fake.calls();
    let rule = plan::RuleReference::Existing(albatross_core::model::RuleArn::new("arn:r/1"));
    let result = room.step(StepAction::SetRulePriorities { port: 80, priorities: vec![(rule, 1)] }).await;
    insta::assert_snapshot!(reported(result), @"
    put 1 rules of listener 80 in order (0 of them new): SetRulePriorities ended without a clear answer and may have taken effect: status 500, InternalFailure: words
    blame: Ingress shop/web generation 1, spec
    fix: -
    transient: true
    ");
    assert_eq!(room.fake.actions(), ["SetRulePriorities"]);
    room.observe().await;
    // Nothing of it is known by an ARN.
    assert_eq!(room.fake.actions(), ["DescribeSecurityGroups"]);
}

#[tokio::test]
async fn a_refusal_is_told_with_cause_and_cure_and_changes_nothing_known() {
    let room = room(|call| {
        (call.action == "CreateTargetGroup").then(|| elb_error(400, "TooManyTargetGroups", "You've reached the limit"))
    })
    .await;
    room.observe().await;
    room.fake.calls();
    let target_group = wanted().target_groups[0].clone();
    insta::assert_snapshot!(reported(room.step(StepAction::CreateTargetGroup(Box::new(target_group))).await), @"
    create target group k8s-shop-api-33b1a54ac0 for shop/web-api:80: AWS refuses CreateTargetGroup: You've reached the limit (TooManyTargetGroups)
    blame: Ingress shop/web generation 1, spec
    fix: ask AWS to raise the quota `Target Groups per Region`, or use fewer
    transient: false
    ");
    room.observe().await;
    assert_eq!(room.fake.actions(), ["CreateTargetGroup"]);
}

#[tokio::test]
async fn a_step_of_all_that_one_is_known_to_ask_for_is_refused_to_that_one() {
    let room = room(|call| match call.action.as_str() {
        "SetSubnets" | "CreateLoadBalancer" => Some(elb_error(400, "InvalidSubnet", "no route")),
        "SetSecurityGroups" => Some(elb_error(400, "InvalidSecurityGroup", "of another VPC")),
        "CreateListener" => Some(elb_error(400, "UnsupportedProtocol", "not here")),
        _ => None,
    })
    .await;
    let arn = || LoadBalancerArn::new("arn:lb");
    let of = |member: &str, field: &str| Cause {
        object: ObjectReference::ingress(&ObjectName::new("shop", member)),
        generation: 1,
        field: field.to_owned(),
    };
    let requesters = albatross_core::model::Requesters {
        subnets: Some(of("b", "subnets")),
        security_groups: Some(of("c", "security-groups")),
        listeners: [(80, of("d", "listen-ports"))].into(),
        ..Default::default()
    };
    let mut balancer = wanted().load_balancer.unwrap();
    balancer.security_groups.clear();
    let subnets = StepAction::SetSubnets {
        arn: arn(),
        subnets: balancer.subnets.known().unwrap().clone(),
        ip_address_type: None,
        ipv6_source_nat: None,
    };
    let load_balancer = Some(arn());
    let groups = StepAction::SetSecurityGroups { load_balancer, groups: Vec::new(), private_link_rules: None };
    let create = StepAction::CreateLoadBalancer(Box::new(balancer));
    let in_front = |action| Step { in_front: true, ..Step::new(action, of("a", "enable-frontend-nlb")) };
    let steps_in_front = [subnets.clone(), groups.clone(), create.clone()].map(in_front);
    let mut listener = wanted().listeners[&80].clone();
    listener.default_action = albatross_core::model::Action::FixedResponse {
        content_type: None,
        message_body: None,
        status_code: "404".to_owned(),
    };
    let listener = StepAction::CreateListener { load_balancer: Some(arn()), listener: Box::new(listener) };
    for step in steps_in_front.into_iter().chain([in_front(listener.clone())]) {
        let error = room.apply(&plan_of(vec![step], None)).await.unwrap_err().attributed(&requesters);
        assert!(error.is_attributable() && error.in_front, "{error}");
        assert_eq!(*error.blame(), of("a", "enable-frontend-nlb"), "{error}");
    }
    for (action, cause, expected) in [
        (subnets.clone(), of("b", "subnets"), Some("b")),
        (groups, of("c", "security-groups"), Some("c")),
        (create, of("a", "spec"), Some("b")),
        (listener, of("a", "spec"), Some("d")),
        // No member is known to ask.
        (subnets, of("a", "spec"), None),
    ] {
        let plan = plan_of(vec![Step::new(action, cause)], None);
        let error = room.apply(&plan).await.unwrap_err().attributed(&requesters);
        let blamed = error.is_attributable().then(|| error.blame().object.name.name.clone());
        assert_eq!(blamed.as_deref(), expected, "{error}");
    }
}

#[tokio::test]
async fn a_quota_that_may_be_kept_to_in_smaller_steps_is_told_as_such() {
    let room =
        room(|call| (call.action == "CreateRule").then(|| elb_error(400, "TooManyRules", "You've reached the limit")))
            .await;
    let mut rule = wanted().listeners[&80].rules[0].clone();
    let theirs = || albatross_core::model::TargetGroupReference::Foreign(TargetGroupArn::new("arn:t/theirs"));
    rule.action = rule.action.try_map(|_| Ok::<_, ()>(theirs())).unwrap();
    let create = StepAction::CreateRule {
        listener: plan::ListenerReference::Existing(albatross_core::model::ListenerArn::new("arn:l/80")),
        port: 80,
        index: 0,
        priority: 1,
        rule: Box::new(rule),
    };
    let error = room.step(create).await.unwrap_err();
    let quota = error.quota().unwrap();
    insta::assert_snapshot!(error.goes_on_in_steps(quota), @"create rule 1 of listener 80: host is shop.example and path is /api or /api/*: AWS refuses CreateRule: You've reached the limit (TooManyRules); the change that spec asks for goes on in smaller steps, in which rules that go make room for those that come; ask AWS to raise the quota `Rules per Application Load Balancer`, or use fewer, so that changes need no smaller steps");
}

/// A load balancer and a listener stand for what ELB v2 has.
#[tokio::test]
async fn tags_go_by_their_keys_and_are_known_to_be_gone() {
    let room = room(|_| None).await;
    let mut tagged = wanted();
    let both: Tags = ["cost", "team"].map(|key| (key.to_owned(), "1".to_owned())).into();
    tagged.load_balancer.as_mut().unwrap().tags.extend(both.clone());
    tagged.security_group.as_mut().unwrap().tags.extend(both.clone());
    tagged.listeners.get_mut(&80).unwrap().tags.extend(both);
    let plan = plan::plan(&tagged, &room.observe().await).ready().unwrap();
    room.apply(&plan).await.unwrap();
    room.fake.calls();
    // Without a record, as after a takeover.
    let plan = plan::plan(&wanted(), &room.observe().await).ready().unwrap();
    let untag = |step: &&Step| matches!(step.action, StepAction::RemoveTags { .. });
    for step in plan.steps().iter().filter(untag) {
        room.step(step.action.clone()).await.unwrap();
    }
    let keys = |call: &Call| {
        let kept = call.params.iter().filter(|(key, _)| key.as_str() != "Action" && key.as_str() != "Version");
        format!("{}{}", call.action, kept.map(|(key, value)| format!(" {key}={value}")).collect::<String>())
    };
    let calls: Vec<_> = room.fake.calls().iter().map(keys).collect();
    insta::assert_snapshot!(calls.join("\n"), @"
    DeleteTags ResourceId.1=sg-made Tag.1.Key=cost Tag.2.Key=team
    RemoveTags ResourceArns.member.1=arn:b/k8s-shop-web-63400ea3d5 TagKeys.member.1=cost TagKeys.member.2=team
    RemoveTags ResourceArns.member.1=arn:l/80 TagKeys.member.1=cost TagKeys.member.2=team
    ");
    let plan = plan::plan(&wanted(), &room.observe().await).ready().unwrap();
    assert_eq!(plan.steps().iter().find(untag), None);
}
