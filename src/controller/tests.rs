use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::controller::runtime::{lease::Leadership, queue::QueueReason, write_permit::WriteClient};
use albatross_aws::{AwsWriter, WritePermit};
use albatross_core::{
    model::{ResourceId, StackId, VpcId, tags},
    snapshot::{Loaded, TargetGroupBinding, from_documents},
};
use albatross_simulation::fake::{Call, Fake, ec2, elb, elb_error};

const MANIFESTS: &str = r#"
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: alb}
spec: {controller: ingress.k8s.aws/alb}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: shop, uid: "1", finalizers: [ingress.k8s.aws/resources]}
spec: {ingressClassName: alb}
---
apiVersion: elbv2.k8s.aws/v1beta1
kind: TargetGroupBinding
metadata:
  namespace: shop
  name: k8s-shop-front
  finalizers: [elbv2.k8s.aws/resources]
  labels: {ingress.k8s.aws/stack-namespace: shop, ingress.k8s.aws/stack-name: web}
spec:
  targetGroupARN: arn:aws:elasticloadbalancing:us-west-2:111122223333:targetgroup/k8s-shop-front/1
  targetType: ip
  ipAddressType: ipv4
  serviceRef: {name: front, port: 80}
"#;

fn web() -> ObjectName {
    ObjectName::new("shop", "web")
}

fn group() -> StackId {
    StackId::Ingress(web())
}

fn manifests() -> Snapshot {
    albatross_core::testing::snapshot(MANIFESTS)
}

/// Returns the manifests with these objects in the place of the Ingress.
fn with_instead(text: &str) -> Snapshot {
    let mut loaded = Loaded { snapshot: manifests(), ..Loaded::default() };
    loaded.snapshot.ingresses.clear();
    from_documents(&mut loaded, "test", text).unwrap();
    loaded.snapshot
}

/// AWS with the load balancer of an Ingress without rules, all in its desired state.
fn settled(call: &Call) -> Option<(u16, String)> {
    let action = call.action.as_str();
    let (balancer, listener) = ("arn:loadbalancer/app/web/1", "arn:listener/app/web/1/80");
    let tag = |item: &str, key: &str, value: &str| match item {
        "member" => format!("<member><Key>{key}</Key><Value>{value}</Value></member>"),
        _ => format!("<item><key>{key}</key><value>{value}</value></item>"),
    };
    let tags = |item: &str, resource: &str| {
        [(tags::CLUSTER, "demo"), (tags::INGRESS_STACK, "shop/web"), (tags::INGRESS_RESOURCE, resource)]
            .map(|(key, value)| tag(item, key, value))
            .concat()
    };
    Some(match action {
        "DescribeLoadBalancers" => elb(
            action,
            &format!(
                "<LoadBalancers><member><LoadBalancerArn>{balancer}</LoadBalancerArn><LoadBalancerName>web</LoadBalancerName><DNSName>Web.example</DNSName><Scheme>internal</Scheme><Type>application</Type><VpcId>vpc-1</VpcId><State><Code>active</Code></State><SecurityGroups><member>sg-web</member></SecurityGroups></member></LoadBalancers>"
            ),
        ),
        "DescribeTags" => {
            let described = call.list("ResourceArns").into_iter().map(|arn| {
                let resource = if arn == balancer { ResourceId::load_balancer() } else { ResourceId::listener(80) };
                format!(
                    "<member><ResourceArn>{arn}</ResourceArn><Tags>{}</Tags></member>",
                    tags("member", resource.as_str())
                )
            });
            elb(action, &format!("<TagDescriptions>{}</TagDescriptions>", described.collect::<String>()))
        }
        "DescribeSecurityGroups" => ec2(
            action,
            &format!(
                "<securityGroupInfo><item><groupId>sg-web</groupId><groupName>web</groupName><tagSet>{}</tagSet><ipPermissions><item><ipProtocol>tcp</ipProtocol><fromPort>80</fromPort><toPort>80</toPort><ipRanges><item><cidrIp>0.0.0.0/0</cidrIp></item></ipRanges></item></ipPermissions></item></securityGroupInfo>",
                tags("item", ResourceId::managed_security_group().as_str())
            ),
        ),
        "DescribeListeners" => elb(
            action,
            &format!(
                "<Listeners><member><ListenerArn>{listener}</ListenerArn><Port>80</Port><Protocol>HTTP</Protocol><DefaultActions><member><Type>fixed-response</Type><FixedResponseConfig><StatusCode>404</StatusCode><ContentType>text/plain</ContentType></FixedResponseConfig></member></DefaultActions></member></Listeners>"
            ),
        ),
        "DescribeRules" => elb(action, "<Rules/>"),
        _ => return None,
    })
}

/// AWS without anything, and an API server that knows one Ingress, as `ingress` says it is.
fn answer(call: &Call, ingress: Option<&serde_json::Value>) -> (u16, String) {
    match call.action.as_str() {
        action @ ("DescribeLoadBalancers" | "DescribeTargetGroups") => elb(action, ""),
        action @ "DescribeSecurityGroups" => ec2(action, "<securityGroupInfo/>"),
        "DescribeTargetHealth" => elb_error(400, "TargetGroupNotFound", "One or more target groups not found"),
        "GET /apis/networking.k8s.io/v1/namespaces/shop/ingresses/web"
        | "PATCH /apis/networking.k8s.io/v1/namespaces/shop/ingresses/web" => match ingress {
            Some(ingress) => (200, ingress.to_string()),
            None => {
                (404, json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}).to_string())
            }
        },
        _ => (500, String::new()),
    }
}

/// A controller that leads, with this snapshot.
async fn controller(
    snapshot: Snapshot,
    ingress: Option<serde_json::Value>,
    special: impl Fn(&Call) -> Option<(u16, String)> + Clone + Send + Sync + 'static,
) -> (Fake, Controller) {
    controller_under(None, snapshot, ingress, special).await
}

/// The same under another permit than that of its term.
async fn controller_under(
    permit: Option<WritePermit>,
    snapshot: Snapshot,
    ingress: Option<serde_json::Value>,
    special: impl Fn(&Call) -> Option<(u16, String)> + Clone + Send + Sync + 'static,
) -> (Fake, Controller) {
    // The HTTP stack is built for TLS, too, though none is used here.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let fake = Fake::start(move |call| {
        let answer = special(&call).unwrap_or_else(|| answer(&call, ingress.as_ref()));
        async move { answer }
    })
    .await;
    let client = kube::Client::try_from(kube::Config::new(fake.endpoint.parse().unwrap())).unwrap();
    let aws = Arc::new(albatross_aws::testing::at(&fake.endpoint, None));
    let (vpc, cluster) = (VpcId::new("vpc-1"), "demo".to_owned());
    let inventory = Arc::new(Inventory::new(Arc::clone(&aws), &cluster, vpc.clone()));
    let snapshot = Arc::new(RwLock::new(snapshot));
    // Without the sender the last value stays.
    let term = Term::new(tokio::sync::watch::channel(Leadership::Leader { epoch: 1 }).1, None);
    term.begin(1);
    let permit = permit.unwrap_or_else(|| term.permit());
    let writer = AwsWriter::new(Arc::clone(&aws), permit.clone());
    let writes = WriteClient::new(client.clone(), permit.clone());
    let header = albatross_core::record::Header {
        format: albatross_core::record::FORMAT,
        cluster: cluster.clone(),
        region: aws.region().to_owned(),
        vpc: vpc.to_string(),
        holder: "test".to_owned(),
        term: 0,
        since: 0,
    };
    let records = Records::new(&writes, "kube-system", "lease", header);
    let controller = Controller {
        config: albatross_core::testing::build_config(),
        snapshot: Arc::clone(&snapshot),
        queue: Arc::default(),
        synced: Arc::new(Synced::new([])),
        kubernetes: Kubernetes::new(&writes),
        events: Events::new(client.clone(), Arc::new(metrics::Metrics::new())),
        applier: Applier::new(writer.clone(), Arc::clone(&inventory), &writes),
        targets: Targets::new(
            writer,
            Arc::clone(&inventory),
            &writes,
            snapshot,
            cluster.clone(),
            BTreeMap::new(),
            true,
        ),
        facts: FactStore::new(aws, cluster, vpc),
        fact_subscribers: FactSubscribers::default(),
        secrets: Secrets::new(client.clone(), Arc::default(), None),
        records,
        waits: Waits::new(crate::controller::reconcile::Holds::NONE),
        step_history: StepHistory::default(),
        plan_annotations: PlanAnnotations::default(),
        inventory,
        metrics: Arc::new(metrics::Metrics::new()),
        permit,
        term,
        backend_group_gate: tokio::sync::RwLock::new(()),
        watch_namespace: String::new(),
    };
    (fake, controller)
}

#[tokio::test]
async fn the_shared_security_group_holds_up_nobody_while_it_is_needed() {
    let (fake, controller) = controller(manifests(), None, |_| None).await;
    // A group that is being reconciled, for minutes.
    let _pass = controller.backend_group_gate.read().await;
    let looked = controller.reconcile_backend_security_group();
    assert_eq!(tokio::time::timeout(Duration::from_secs(10), looked).await, Ok(Outcome::Done));
    assert!(controller.backend_group_gate.try_read().is_ok());
    assert!(fake.calls().is_empty());
}

#[tokio::test]
async fn a_target_group_that_is_gone_is_looked_for_by_its_group() {
    let mut snapshot = manifests();
    let binding = ObjectName::new("shop", "k8s-shop-front");
    // AWS has listed the group of the stack once.
    let listed = |call: &Call| {
        let arn = snapshot_arn();
        let action = call.action.as_str();
        let tag = |(key, value): (&str, &str)| format!("<member><Key>{key}</Key><Value>{value}</Value></member>");
        let tags =
            [(tags::CLUSTER, "demo"), (tags::INGRESS_STACK, "shop/web"), (tags::INGRESS_RESOURCE, "shop/web-front:80")];
        Some(match action {
            "DescribeTargetGroups" => elb(
                action,
                &format!(
                    "<TargetGroups><member><TargetGroupArn>{arn}</TargetGroupArn><TargetGroupName>k8s-shop-front</TargetGroupName><VpcId>vpc-1</VpcId></member></TargetGroups>"
                ),
            ),
            "DescribeTags" => elb(
                action,
                &format!(
                    "<TagDescriptions><member><ResourceArn>{arn}</ResourceArn><Tags>{}</Tags></member></TagDescriptions>",
                    tags.map(tag).concat()
                ),
            ),
            _ => return None,
        })
    };
    let (fake, controller) = controller(snapshot.clone(), None, listed).await;
    controller.inventory.observe(&group()).await.unwrap();
    fake.calls();
    assert!(matches!(controller.reconcile(&Key::Binding(binding.clone())).await, Outcome::Failed(_)));
    let mut next = Vec::new();
    for _ in 0..2 {
        let key = tokio::time::timeout(Duration::from_secs(10), controller.queue.next()).await.unwrap();
        controller.queue.done(&key.0, &Outcome::Done);
        next.push(key);
    }
    assert!(next.contains(&(Key::Stack(group()), QueueReason::Change)), "{next:?}");
    fake.calls();
    controller.inventory.observe(&group()).await.unwrap();
    assert!(fake.actions().contains(&"DescribeTargetGroups".to_owned()), "what AWS has is not read again");

    // A user's own binding belongs to no group.
    let mut own: TargetGroupBinding = snapshot.target_group_bindings.remove(&binding).unwrap();
    own.labels.clear();
    controller.snapshot.write().unwrap().apply(own);
    assert!(matches!(controller.reconcile(&Key::Binding(binding)).await, Outcome::Failed(_)));
    let queue = controller.queue.snapshot();
    let wanted: Vec<&String> = queue.waiting.iter().chain(queue.pausing.keys()).collect();
    assert_eq!(wanted, [&Key::NodeRules.to_string()]);
}

fn snapshot_arn() -> String {
    manifests().target_group_bindings.values().next().unwrap().spec.target_group_arn.clone().unwrap()
}

#[tokio::test]
async fn a_strangers_binding_has_no_stack_looked_at() {
    let mut snapshot = manifests();
    let own = snapshot.target_group_bindings.remove(&ObjectName::new("shop", "k8s-shop-front")).unwrap();
    let stranger = ObjectName::new("evil", "k8s-shop-front");
    snapshot.apply(TargetGroupBinding { name: stranger.clone(), ..own });
    let (_fake, controller) = controller(snapshot, None, |_| None).await;
    assert!(matches!(controller.reconcile(&Key::Binding(stranger)).await, Outcome::Failed(_)));
    let waiting = controller.queue.snapshot().waiting;
    assert!(!waiting.iter().any(|key| key.contains("shop/web")), "{waiting:?}");
}

#[tokio::test]
async fn what_an_object_has_to_be_corrected_for_is_not_tried_again_and_again() {
    let mut snapshot = manifests();
    let binding = ObjectName::new("shop", "k8s-shop-front");
    let spec = &mut snapshot.target_group_bindings.get_mut(&binding).unwrap().spec;
    spec.iam_role_arn_to_assume = Some("arn:aws:iam::1:role/x".to_owned());
    let is_refused = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let (_fake, controller) = controller(snapshot, None, move |call| {
        let is_status = call.action.ends_with("/targetgroupbindings/k8s-shop-front/status");
        is_status.then(|| match is_refused.swap(false, std::sync::atomic::Ordering::SeqCst) {
            true => (500, "{}".to_owned()),
            false => (200, json!({"metadata": {}, "spec": {"serviceRef": {"name": "front", "port": 80}}}).to_string()),
        })
    })
    .await;
    let outcome = controller.reconcile(&Key::Binding(binding.clone())).await;
    assert!(matches!(&outcome, Outcome::Failed(_)), "nothing else has its status written: {outcome:?}");
    let outcome = controller.reconcile(&Key::Binding(binding.clone())).await;
    assert!(
        matches!(&outcome, Outcome::NeedsCorrection(message) if message.contains("iamRoleArnToAssume")),
        "{outcome:?}"
    );
    {
        let mut snapshot = controller.snapshot.write().unwrap();
        let spec = &mut snapshot.target_group_bindings.get_mut(&binding).unwrap().spec;
        (spec.iam_role_arn_to_assume, spec.target_group_arn) = (None, None);
        spec.networking = Some(albatross_core::api::crd::Networking::default());
    }
    let outcome = controller.reconcile(&Key::NodeRules).await;
    assert!(matches!(outcome, Outcome::NeedsCorrection(_)), "{outcome:?}");
}

#[tokio::test]
async fn a_strangers_binding_with_a_groups_labels_and_a_finalizer_holds_up_no_deletion() {
    let edge = StackId::Group("edge".to_owned());
    let finalizer = edge.finalizer();
    let mut snapshot = manifests();
    let mut stranger = snapshot.target_group_bindings.pop_first().unwrap().1;
    stranger.name = ObjectName::new("evil", "k8s-shop-front");
    stranger.labels = edge.binding_labels();
    snapshot.apply(stranger);
    let member = snapshot.ingresses.get_mut(&web()).unwrap();
    (member.finalizers, member.deleting) = (vec![finalizer.clone()], true);
    // An Ingress of the stranger's own, with a finalizer written by hand.
    let theirs =
        albatross_core::snapshot::Ingress { name: ObjectName::new("evil", "web"), deleting: false, ..member.clone() };
    let theirs = albatross_core::snapshot::Ingress { finalizers: Vec::new(), ..theirs };
    snapshot.apply(theirs);
    let ingress = json!({
        "metadata": {
            "name": "web", "namespace": "shop", "resourceVersion": "7", "finalizers": [finalizer],
            "deletionTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": { "ingressClassName": "alb" },
    });
    let (fake, mut controller) = controller(snapshot, Some(ingress), |call| {
        let listed = json!({
            "kind": "TargetGroupBindingList", "apiVersion": "elbv2.k8s.aws/v1beta1", "metadata": {},
            "items": [{
                "metadata": {
                    "name": "k8s-shop-front", "namespace": "evil", "uid": "9", "finalizers": [tags::BINDING_FINALIZER],
                    "labels": { "ingress.k8s.aws/stack": "edge" },
                },
                "spec": { "targetGroupARN": snapshot_arn(), "serviceRef": { "name": "front", "port": 80 } },
            }],
        });
        let lists = call.action.starts_with("GET /apis/elbv2.k8s.aws/v1beta1/targetgroupbindings");
        lists.then(|| (200, listed.to_string()))
    })
    .await;
    controller.config.enable_backend_security_group = false;
    assert_eq!(controller.reconcile(&Key::Stack(edge)).await, Outcome::Done);
    let patched = fake.actions().contains(&"PATCH /apis/networking.k8s.io/v1/namespaces/shop/ingresses/web".to_owned());
    assert!(patched, "the finalizer is not removed");
}

/// Within one term the permit is absent for a moment where a renewal is late, or the wall clock has jumped.
#[tokio::test]
async fn a_member_is_released_although_the_permit_was_absent_for_a_moment() {
    let mut snapshot = manifests();
    snapshot.target_group_bindings.clear();
    snapshot.ingresses.get_mut(&web()).unwrap().deleting = true;
    let ingress = json!({
        "metadata": {
            "name": "web", "namespace": "shop", "resourceVersion": "7", "finalizers": ["ingress.k8s.aws/resources"],
            "deletionTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": { "ingressClassName": "alb" },
    });
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let permit = albatross_aws::testing::permit(move || {
        (asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) > 0).then_some(Duration::MAX)
    });
    let (fake, mut controller) = controller_under(Some(permit), snapshot, Some(ingress), |call| {
        let none = json!({
            "kind": "TargetGroupBindingList", "apiVersion": "elbv2.k8s.aws/v1beta1", "metadata": {}, "items": [],
        });
        let lists = call.action.starts_with("GET /apis/elbv2.k8s.aws/v1beta1/");
        lists.then(|| (200, none.to_string()))
    })
    .await;
    controller.config.enable_backend_security_group = false;
    let outcome = controller.reconcile(&Key::Stack(group())).await;
    assert!(matches!(outcome, Outcome::Failed(_)), "nothing tries again: {outcome:?}");
    assert_eq!(patches(&fake), Vec::<serde_json::Value>::new());
    assert_eq!(controller.reconcile(&Key::Stack(group())).await, Outcome::Done);
    assert_eq!(patches(&fake), [json!({ "metadata": { "resourceVersion": "7", "finalizers": [] } })]);
}

/// The bodies that are sent to the API server for an Ingress.
fn patches(fake: &Fake) -> Vec<serde_json::Value> {
    let calls = fake.calls().into_iter().filter(|call| call.action.starts_with("PATCH "));
    calls.map(|call| serde_json::from_str(&call.body).unwrap()).collect()
}

/// Returns the snapshot with only the Ingress, without its finalizer, and the API server's object.
fn unheld() -> (Snapshot, serde_json::Value) {
    let mut snapshot = manifests();
    snapshot.target_group_bindings.clear();
    snapshot.ingresses.get_mut(&web()).unwrap().finalizers.clear();
    let ingress = json!({ "metadata": { "name": "web", "namespace": "shop", "resourceVersion": "7" }, "spec": { "ingressClassName": "alb" } });
    (snapshot, ingress)
}

/// The same with the finalizer, and the Ingress being deleted.
fn deleted() -> (Snapshot, serde_json::Value) {
    let (mut snapshot, mut ingress) = unheld();
    let web = snapshot.ingresses.get_mut(&web()).unwrap();
    web.finalizers.push("ingress.k8s.aws/resources".to_owned());
    web.deleting = true;
    ingress["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    (snapshot, ingress)
}

#[tokio::test]
async fn an_ingress_that_lost_its_finalizer_gets_it_back_although_nothing_else_is_to_do() {
    let (mut snapshot, ingress) = unheld();
    snapshot.ingresses.get_mut(&web()).unwrap().status =
        vec![albatross_core::snapshot::StatusEntry { hostname: "web.example".to_owned(), ports: vec![80] }];
    let (fake, mut controller) = controller(snapshot, Some(ingress), settled).await;
    controller.config.enable_backend_security_group = false;
    assert_eq!(controller.reconcile(&Key::Stack(group())).await, Outcome::Done);
    let held = json!({ "metadata": { "resourceVersion": "7", "finalizers": ["ingress.k8s.aws/resources"] } });
    assert_eq!(patches(&fake), [held]);
}

#[tokio::test]
async fn the_status_is_written_also_while_a_deletion_has_to_wait() {
    let (mut snapshot, ingress) = unheld();
    snapshot.ingresses.get_mut(&web()).unwrap().finalizers.push("ingress.k8s.aws/resources".to_owned());
    let (fake, mut controller) = controller(snapshot, Some(ingress), |call| {
        // A target group that no stack needs, and that another owner's load balancer uses.
        let group = "<TargetGroups><member><TargetGroupArn>arn:targetgroup/old/1</TargetGroupArn><TargetGroupName>old</TargetGroupName><VpcId>vpc-1</VpcId></member></TargetGroups>";
        match call.action.as_str() {
            action @ "DescribeTargetGroups" => Some(elb(action, group)),
            "DeleteTargetGroup" => Some(elb_error(400, "ResourceInUse", "It is in use")),
            action if action.ends_with("/ingresses/web/status") => Some((200, json!({ "metadata": {}, "spec": {} }).to_string())),
            _ => settled(call),
        }
    })
    .await;
    controller.config.enable_backend_security_group = false;
    assert_eq!(controller.reconcile(&Key::Stack(group())).await, Outcome::NotYet);
    assert_eq!(controller.waits.count_blocked(), 0);
    let ports = json!([{ "port": 80, "protocol": "" }]);
    let status =
        json!({ "status": { "loadBalancer": { "ingress": [{ "hostname": "web.example", "ports": ports }] } } });
    assert_eq!(patches(&fake), [status]);
}

/// The messages of the warnings on an object, as they come, one for each that is named.
async fn warnings(fake: &Fake, reasons: usize) -> Vec<String> {
    let mut warnings = Vec::new();
    let all = async {
        while warnings.len() < reasons {
            for call in fake.calls().into_iter().filter(|call| call.action.ends_with("/events")) {
                let event: serde_json::Value = serde_json::from_str(&call.body).unwrap();
                if event["type"] == "Warning" {
                    let text = |field: &str| event[field].as_str().unwrap().to_owned();
                    warnings.push(format!("{}: {}", text("reason"), text("message")));
                }
            }
            tokio::task::yield_now().await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(10), all).await;
    assert!(in_time.is_ok(), "{warnings:?}");
    warnings
}

#[tokio::test]
async fn a_load_balancer_that_something_else_uses_is_told_with_what_to_do() {
    let (snapshot, gone) = deleted();
    let (fake, mut controller) = controller(snapshot, Some(gone), |call| match call.action.as_str() {
        action @ "DescribeLoadBalancerAttributes" => Some(elb(action, "<Attributes></Attributes>")),
        "DeleteLoadBalancer" => Some(elb_error(
            400,
            "ResourceInUse",
            "Load balancer 'web' cannot be deleted because it is currently associated with another service",
        )),
        "DeleteSecurityGroup" => {
            Some(albatross_simulation::fake::ec2_error(400, "DependencyViolation", "It has a dependent object"))
        }
        _ => settled(call),
    })
    .await;
    controller.config.enable_backend_security_group = false;
    let outcome = controller.reconcile(&Key::Stack(group())).await;
    let Outcome::Failed(message) = outcome else { panic!("{outcome:?}") };
    insta::assert_snapshot!(message, @"Deletion is blocked: delete load balancer web with its listeners and rules: DeleteLoadBalancer has to wait: Load balancer 'web' cannot be deleted because it is currently associated with another service (ResourceInUse); detach the load balancer from what uses it: a VPC endpoint service, a VPC link of API Gateway, an accelerator, or a target group of another load balancer");
    assert_eq!(warnings(&fake, 1).await, [format!("DeletionBlocked: {message}")]);
    controller.measure();
    assert!(controller.metrics.encode().unwrap().contains("albatross_deletion_blocked 1\n"));
}

#[tokio::test]
async fn a_load_balancer_that_somebody_protected_in_aws_stays_with_all_that_serves_behind_it() {
    let (snapshot, gone) = deleted();
    let attributes =
        "<Attributes><member><Key>deletion_protection.enabled</Key><Value>true</Value></member></Attributes>";
    let (fake, mut controller) = controller(snapshot, Some(gone), move |call| match call.action.as_str() {
        action @ "DescribeLoadBalancerAttributes" => Some(elb(action, attributes)),
        "DeleteLoadBalancer" => Some(elb_error(
            400,
            "OperationNotPermitted",
            "Load balancer 'web' cannot be deleted because deletion protection is enabled",
        )),
        _ => settled(call),
    })
    .await;
    controller.config.enable_backend_security_group = false;
    let outcome = controller.reconcile(&Key::Stack(group())).await;
    assert!(matches!(&outcome, Outcome::Failed(message) if message.contains("deletion protection")), "{outcome:?}");
    let deletions = |calls: Vec<albatross_simulation::fake::Call>| -> Vec<String> {
        calls.into_iter().map(|call| call.action).filter(|action| action.starts_with("Delete")).collect()
    };
    assert_eq!(deletions(fake.calls()), ["DeleteLoadBalancer"]);
    // Known to be protected, it is not tried again, also when all else is read again; what the user has to do is told once.
    controller.inventory.invalidate(&group());
    assert!(matches!(controller.reconcile(&Key::Stack(group())).await, Outcome::Failed(_)));
    // The event is written after all calls of the pass.
    let mut calls = Vec::new();
    let told = tokio::time::timeout(Duration::from_secs(10), async {
        while !calls.iter().any(|call: &albatross_simulation::fake::Call| call.action.ends_with("/events")) {
            calls.extend(fake.calls());
            tokio::task::yield_now().await;
        }
    });
    assert!(told.await.is_ok(), "{calls:?}");
    let event: serde_json::Value = serde_json::from_str(&calls.last().unwrap().body).unwrap();
    assert_eq!(deletions(calls), Vec::<String>::new());
    insta::assert_snapshot!(format!("{}: {}", event["reason"].as_str().unwrap(), event["message"].as_str().unwrap()), @"FailedBuildModel: Failed build model due to alb.ingress.kubernetes.io/load-balancer-attributes: the load balancer `web` is protected from deletion in AWS (`deletion_protection.enabled`), so it stays, and the Ingress with it; write `deletion_protection.enabled=false` in the annotation, or switch the protection off in AWS, if the load balancer may be deleted");
}

#[tokio::test]
async fn a_change_that_does_not_last_is_told_and_waits_while_the_rest_goes_on() {
    let (mut snapshot, ingress) = unheld();
    let web = snapshot.ingresses.get_mut(&web()).unwrap();
    web.finalizers.push("ingress.k8s.aws/resources".to_owned());
    web.annotations.insert(
        "alb.ingress.kubernetes.io/load-balancer-attributes".to_owned(),
        "routing.http2.enabled=false".to_owned(),
    );
    let (fake, mut controller) = controller(snapshot, Some(ingress), |call| {
        // Whatever is sent, the attribute stays what it was.
        let stays = "<Attributes><member><Key>routing.http2.enabled</Key><Value>true</Value></member></Attributes>";
        match call.action.as_str() {
            action @ ("DescribeLoadBalancerAttributes" | "ModifyLoadBalancerAttributes") => Some(elb(action, stays)),
            action if action.ends_with("/ingresses/web/status") => {
                Some((200, json!({ "metadata": {}, "spec": {} }).to_string()))
            }
            _ => settled(call),
        }
    })
    .await;
    controller.config.enable_backend_security_group = false;
    let mut writes = Vec::new();
    for _ in 0..4 {
        let outcome = controller.reconcile(&Key::Stack(group())).await;
        let calls = fake.calls();
        writes.push((calls.iter().filter(|call| call.action == "ModifyLoadBalancerAttributes").count(), outcome));
    }
    let Outcome::Failed(message) = &writes[3].1 else { panic!("{writes:?}") };
    insta::assert_snapshot!(message, @"set attributes of load balancer web: routing.http2.enabled=false: applied 2 times, but AWS or the API server does not show it afterwards; requested by Ingress shop/web, spec; see in CloudTrail what else changes it; if nothing does, write the value as AWS shows it; it is retried with growing pauses");
    let failed = || Outcome::Failed(message.clone());
    let again = || Outcome::Again(Duration::from_secs(1));
    assert_eq!(writes, [(1, again()), (1, again()), (0, failed()), (0, failed())]);
    assert!(
        controller
            .metrics
            .encode()
            .unwrap()
            .contains("albatross_repeated_steps_total{action=\"ModifyAttributes\"} 2\n")
    );
}

#[tokio::test]
async fn who_asks_for_what_is_not_there_costs_nobody_else_what_is_known() {
    let (mut snapshot, ingress) = unheld();
    let web = snapshot.ingresses.get_mut(&web()).unwrap();
    web.annotations.insert("alb.ingress.kubernetes.io/security-groups".to_owned(), "nobodys".to_owned());
    let (fake, controller) = controller(snapshot, Some(ingress), |call| match call.action.as_str() {
        action @ "DescribeSubnets" => Some(ec2(
            action,
            "<subnetSet><item><subnetId>subnet-1</subnetId><availabilityZone>z-a</availabilityZone><cidrBlock>10.0.0.0/24</cidrBlock></item></subnetSet>",
        )),
        action @ "DescribeAvailabilityZones" => Some(ec2(action, "<availabilityZoneInfo/>")),
        _ => settled(call),
    })
    .await;
    let kind = albatross_core::model::LoadBalancerKind::Network;
    let query = albatross_core::facts::SubnetQuery::Named { kind, names: vec!["subnet-1".to_owned()], ipv6: false };
    let mut facts = albatross_core::facts::Facts::default();
    for _ in 0..3 {
        controller.facts.answer(&albatross_core::facts::FactQuery::Subnets(query.clone()), &mut facts).await;
        assert!(matches!(facts.subnets(&query), Some(albatross_core::facts::Fact::Known(_))));
        let outcome = controller.reconcile(&Key::Stack(group())).await;
        assert!(matches!(&outcome, Outcome::Failed(why) if why.contains("`nobodys`")), "{outcome:?}");
    }
    assert_eq!(fake.actions().iter().filter(|action| *action == "DescribeSubnets").count(), 1);
}

/// Returns the reason and the object of the warnings recorded so far.
async fn warned(fake: &Fake, calls: &mut Vec<Call>, reason: &str) -> Vec<String> {
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(2)).await;
        calls.extend(fake.calls());
    }
    let events = calls.iter().filter(|call| call.action.ends_with("/events"));
    let events = events.map(|call| serde_json::from_str::<serde_json::Value>(&call.body).unwrap());
    let of_reason = events.filter(|event| event["reason"] == reason);
    of_reason.map(|event| event["involvedObject"]["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_change_for_which_a_quota_leaves_no_room_goes_on_in_steps_and_only_its_member_is_told() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let mut snapshot = with_instead(
        r#"
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: web
  namespace: shop
  uid: "1"
  finalizers: [group.ingress.k8s.aws/edge]
  annotations:
    alb.ingress.kubernetes.io/group.name: edge
    alb.ingress.kubernetes.io/actions.answer: '{"type":"fixed-response","fixedResponseConfig":{"contentType":"text/plain","statusCode":"503"}}'
spec:
  ingressClassName: alb
  rules: [{host: web.example.com, http: {paths: [{path: /new, pathType: Exact, backend: {service: {name: answer, port: {name: use-annotation}}}}]}}]
status: {loadBalancer: {ingress: [{hostname: web.example, ports: [{port: 80, protocol: TCP}]}]}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: other
  namespace: shop
  uid: "2"
  finalizers: [group.ingress.k8s.aws/edge]
  annotations: {alb.ingress.kubernetes.io/group.name: edge}
spec: {ingressClassName: alb}
status: {loadBalancer: {ingress: [{hostname: web.example, ports: [{port: 80, protocol: TCP}]}]}}
"#,
    );
    snapshot.target_group_bindings.clear();
    let refused = Arc::new(AtomicBool::new(false));
    let rule = |path: &str, status: &str| {
        format!(
            "<Rules><member><RuleArn>arn:listener-rule/app/web/1/80/{status}</RuleArn><Priority>1</Priority><IsDefault>false</IsDefault>\
             <Conditions><member><Field>path-pattern</Field><PathPatternConfig><Values><member>{path}</member></Values></PathPatternConfig></member></Conditions>\
             <Actions><member><Type>fixed-response</Type><FixedResponseConfig><StatusCode>{status}</StatusCode></FixedResponseConfig></member></Actions></member></Rules>"
        )
    };
    let (fake, mut controller) = controller(snapshot, None, move |call| match call.action.as_str() {
        action @ "DescribeRules" => Some(elb(action, &rule("/old", "404"))),
        // The account allows one rule, and the old one is there when this comes for the first time.
        "CreateRule" if !refused.swap(true, Ordering::SeqCst) => {
            Some(elb_error(400, "TooManyRules", "You've reached the limit"))
        }
        action @ "CreateRule" => Some(elb(action, &rule("/new", "503"))),
        action @ "DescribeAccountLimits" => Some(elb(action, "<Limits/>")),
        action @ ("DeleteRule" | "AddTags" | "RemoveTags" | "SetRulePriorities") => Some(elb(action, "")),
        _ => settled(call).map(|(status, body)| (status, body.replace("shop/web", "edge"))),
    })
    .await;
    controller.config.enable_backend_security_group = false;
    let outcome = controller.reconcile(&Key::Stack(StackId::Group("edge".to_owned()))).await;
    let mut calls = Vec::new();
    let reported = warned(&fake, &mut calls, "QuotaReached").await;
    let rules = |call: &&Call| ["CreateRule", "DeleteRule"].contains(&call.action.as_str());
    let writes: Vec<&str> = calls.iter().filter(rules).map(|call| call.action.as_str()).collect();
    assert!(matches!(outcome, Outcome::Done | Outcome::Again(_)), "{outcome:?}");
    assert_eq!(writes, ["CreateRule", "DeleteRule", "CreateRule"]);
    assert_eq!(reported, ["web"]);
}

#[tokio::test]
async fn a_binding_that_is_gone_leaves_no_metrics() {
    let (_fake, controller) = controller(manifests(), None, |_| None).await;
    let binding = ObjectName::new("shop", "k8s-shop-front");
    controller.metrics.readiness_gate_ready("shop", "k8s-shop-front", Duration::from_secs(1));
    let is_shown = || controller.metrics.encode().unwrap().contains("name=\"k8s-shop-front\"");
    controller.reconcile(&Key::Binding(binding.clone())).await;
    assert!(is_shown());
    controller.snapshot.write().unwrap().target_group_bindings.remove(&binding);
    controller.reconcile(&Key::Binding(binding)).await;
    assert!(!is_shown());
}

#[tokio::test]
async fn secrets_that_an_ingress_named_before_are_forgotten_although_nothing_came_of_it() {
    let (_, ingress) = unheld();
    let mut snapshot = with_instead(
        "
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: front}
spec: {type: NodePort, selector: {app: front}, ports: [{port: 80, nodePort: 30080}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: web
  namespace: shop
  uid: '1'
  annotations:
    alb.ingress.kubernetes.io/auth-type: oidc
    alb.ingress.kubernetes.io/listen-ports: '[{\"HTTPS\": 443}]'
    alb.ingress.kubernetes.io/certificate-arn: arn:aws:acm:us-west-2:111122223333:certificate/a
spec:
  ingressClassName: alb
  rules: [{http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: front, port: {number: 80}}}}]}}]
",
    );
    snapshot.target_group_bindings.clear();
    let (_fake, mut controller) = controller(snapshot, Some(ingress), |call| {
        let is_secret = call.action.contains("/secrets/");
        let missing = json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404});
        if is_secret { Some((404, missing.to_string())) } else { settled(call) }
    })
    .await;
    controller.config.enable_backend_security_group = false;
    for number in 0..10 {
        let provider = json!({"issuer": "https://idp", "authorizationEndpoint": "https://idp/a", "tokenEndpoint": "https://idp/t",
            "userInfoEndpoint": "https://idp/u", "secretName": format!("oidc-{number}")});
        let key = "alb.ingress.kubernetes.io/auth-idp-oidc".to_owned();
        {
            let mut snapshot = controller.snapshot.write().unwrap();
            snapshot.ingresses.get_mut(&web()).unwrap().annotations.insert(key, provider.to_string());
        }
        let outcome = controller.reconcile(&Key::Stack(group())).await;
        assert_ne!(outcome, Outcome::Done);
        assert_eq!(controller.secrets.counts().0, 1, "after {number} edits: {outcome:?}");
    }
}

mod certificates;
