//! The examples of the documentation, built against an account that has all that they name.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use super::*;
use crate::{
    api::annotations::{
        ANNOTATIONS, Annotation, Example, Key, ObjectKind, SERVICE_PREFIX, Status, find,
        registry::{ingress as alb, service as nlb},
    },
    diagnostics::{Diagnostic, Severity},
    facts::{Fact, FactQuery, Subnet, SubnetQuery, hosted_zones::HostedZone, limits::Limits},
    model::*,
    plan,
    snapshot::{Loaded, from_documents},
};

const CLASS: &str = "
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: alb}
spec: {controller: ingress.k8s.aws/alb}
";

const CERTIFICATE: &str = "arn:aws:acm:eu-west-1:111122223333:certificate/00000000-0000-0000-0000-000000000000";

const WEB_ACL: &str = "arn:aws:wafv2:eu-west-1:111122223333:regional/webacl/other/12345678-1234-1234-1234-123456789012";

fn config() -> BuildConfig {
    let vpc = Value::Known(VpcId::new("vpc-0123456789abcdef0"));
    BuildConfig { manage_certificates: true, ..BuildConfig::new("demo", vpc) }
}

/// Returns two subnets, or those that are named.
fn subnets(query: &SubnetQuery) -> Fact<Vec<Subnet>> {
    let found = ["subnet-a".to_owned(), "subnet-b".to_owned()].to_vec();
    let ids = if let SubnetQuery::Named { names, .. } = query { names } else { &found };
    let subnet = |(index, id): (usize, &String)| Subnet {
        id: SubnetId::new(id),
        ipv4_blocks: vec![format!("10.0.{index}.0/24")],
        ipv6_blocks: vec![format!("2001:db8:0:{:x}::/64", 10 + index)],
    };
    Fact::Known(ids.iter().enumerate().map(subnet).collect())
}

fn answer(facts: &mut Facts, query: FactQuery) {
    match query {
        FactQuery::Subnets(query) => {
            let found = subnets(&query);
            facts.subnets.insert(query, found);
        }
        FactQuery::SecurityGroups(names) => {
            let ids = names.iter().map(|name| SecurityGroupId::new(format!("sg-{name}"))).collect();
            facts.security_groups.insert(names, Fact::Known(ids));
        }
        FactQuery::Certificates(hosts) => {
            facts.certificates.insert(hosts, Fact::Known(vec![CertificateArn::new(CERTIFICATE)]));
        }
        FactQuery::TrustStore(name) => {
            facts.trust_stores.insert(name, Fact::Known(TrustStoreArn::new("arn:aws:store")));
        }
        FactQuery::Secret(name) => {
            let (version, client_id) = (
                SecretVersion { uid: "u-1".to_owned(), resource_version: "1".to_owned() },
                ClientId("shop".to_owned()),
            );
            let secret = OidcSecret { version, client_id, client_secret: "s3cret".to_owned() };
            facts.secrets.insert(name, Fact::Known(secret));
        }
        FactQuery::VpcBlocks => {
            let (ipv4, ipv6) = (vec!["10.0.0.0/16".to_owned()], vec!["2001:db8::/56".to_owned()]);
            facts.vpc_blocks = Some(Fact::Known(VpcBlocks { ipv4, ipv6 }));
        }
        FactQuery::BackendSecurityGroup => {
            facts.backend_security_group = Some(Fact::Known(SecurityGroupId::new("sg-shared")));
        }
        FactQuery::TargetGroup(name) => {
            facts.target_groups.insert(name, Fact::Known(TargetGroupArn::new("arn:aws:group")));
        }
        FactQuery::Limits => facts.limits = Some(Fact::Known(Limits::default())),
        FactQuery::WebAcl(name) => {
            facts.web_acls.insert(name, Fact::Known(WebAclArn::new(WEB_ACL).unwrap()));
        }
        FactQuery::ShieldSubscription => facts.shield_subscription = Some(Fact::Known(true)),
        FactQuery::ManagedCertificates => facts.managed_certificates = Some(Fact::Known(Vec::new())),
        FactQuery::HostedZones => {
            let (id, name) = (HostedZoneId::new("Z1"), "example.com".to_owned());
            facts.hosted_zones = Some(Fact::Known(vec![HostedZone { id, name }]));
        }
        FactQuery::Current | FactQuery::CurrentAddOn(_) | FactQuery::Protection => {
            panic!("nothing is there yet, but the build asks for {query:?}")
        }
    }
}

fn built(snapshot: &Snapshot, stack: &StackId, membership: &Membership) -> Built {
    let mut facts = Facts::default();
    for _ in 0..10 {
        let built = build(snapshot, &config(), &facts, stack, membership);
        if built.wants.is_empty() {
            assert!(built.unavailable.is_empty(), "{:?}", built.unavailable);
            return built;
        }
        built.wants.into_iter().for_each(|want| answer(&mut facts, want));
    }
    panic!("the build of {stack:?} asks for ever more");
}

/// The result of building manifests.
struct Outcome {
    stacks: Vec<Stack>,
    diagnostics: Vec<Diagnostic>,
    /// The Ingresses, and the Services of type `LoadBalancer`, that have no load balancer, with the reason.
    unserved: String,
}

/// Builds manifests. Every stack can be planned.
fn outcome(manifests: &str) -> Outcome {
    let mut loaded = Loaded::default();
    from_documents(&mut loaded, "class", CLASS).unwrap();
    from_documents(&mut loaded, "manifests", manifests).unwrap();
    assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
    let snapshot = loaded.snapshot;
    let mut planned = BTreeSet::new();
    let mut outcome = Outcome { stacks: Vec::new(), diagnostics: Vec::new(), unserved: String::new() };
    for (id, membership) in stacks(&snapshot, &config()).filter(|(_, membership)| !membership.is_empty()) {
        planned.extend(membership.members.iter().map(|name| id.member(name)));
        let built = built(&snapshot, &id, &membership);
        outcome.diagnostics.extend([membership.broken, built.diagnostics].concat());
        if let Some(stack) = built.stack {
            let nothing = ObservedStack { certificates: Some(Vec::new()), ..ObservedStack::default() };
            let plan = plan::plan(&stack, &nothing).ready().unwrap();
            assert!(!plan.steps().is_empty(), "{id:?} has no plan");
            outcome.stacks.push(stack);
        }
    }
    let behind = |object: &ObjectReference| {
        let service = snapshot.services.get(&object.name).filter(|_| *object == ObjectReference::service(&object.name));
        service.is_some_and(|service| service.kind != "LoadBalancer")
    };
    for (object, why) in unplanned(&snapshot, &config(), &planned).filter(|(object, _)| !behind(object)) {
        let _ = writeln!(outcome.unserved, "{object}: {why}");
    }
    outcome
}

fn describe(diagnostics: &[Diagnostic]) -> String {
    diagnostics.iter().fold(String::new(), |mut text, d| {
        let _ = writeln!(text, "{:?} on {}: {d}", d.severity, d.object);
        text
    })
}

/// An annotation with its value.
type Pair = (String, String);

fn pair(annotation: &Annotation, example: &Example) -> Pair {
    (example.key(annotation.key).to_string(), example.value.to_owned())
}

fn with(key: Key, value: &str) -> Pair {
    (key.to_string(), value.to_owned())
}

/// Returns the first example of another annotation.
fn example(key: Key) -> Pair {
    let annotation = find(key.as_str()).unwrap();
    pair(annotation, &annotation.examples[0])
}

/// Returns the annotations without which an example on an Ingress, or on a Service behind it, has no effect.
fn companions_on_ingress(key: Key) -> Vec<Pair> {
    let oidc = || vec![with(alb::AUTH_TYPE, "oidc"), example(alb::AUTH_IDP_OIDC)];
    let https =
        vec![with(alb::LISTEN_PORTS, r#"[{"HTTP": 80}, {"HTTPS": 443}]"#), with(alb::CERTIFICATE_ARN, CERTIFICATE)];
    let further = match key {
        alb::LISTEN_PORTS => return vec![with(alb::CERTIFICATE_ARN, CERTIFICATE)],
        alb::CREATE_ACM_CERT => return vec![],
        alb::ACM_PCA_ARN => return vec![example(alb::CREATE_ACM_CERT)],
        alb::AUTH_TYPE => vec![example(alb::AUTH_IDP_OIDC)],
        alb::AUTH_ON_UNAUTHENTICATED_REQUEST
        | alb::AUTH_SCOPE
        | alb::AUTH_SESSION_COOKIE
        | alb::AUTH_SESSION_TIMEOUT => oidc(),
        alb::AUTH_IDP_OIDC => vec![with(alb::AUTH_TYPE, "oidc")],
        alb::AUTH_IDP_COGNITO => vec![with(alb::AUTH_TYPE, "cognito")],
        alb::MANAGE_BACKEND_SECURITY_GROUP_RULES => vec![example(alb::SECURITY_GROUPS)],
        alb::IPAM_IPV4_POOL_ID => vec![example(alb::SCHEME)],
        alb::FRONTEND_NLB_EIP_ALLOCATIONS => vec![example(alb::ENABLE_FRONTEND_NLB), example(alb::FRONTEND_NLB_SCHEME)],
        alb::FRONTEND_NLB_LISTENER_PORT_MAPPING => {
            vec![example(alb::ENABLE_FRONTEND_NLB), example(alb::FRONTEND_NLB_SECURITY_GROUPS)]
        }
        key if key.name().starts_with("frontend-nlb-") => vec![example(alb::ENABLE_FRONTEND_NLB)],
        _ => vec![],
    };
    [https, further].concat()
}

fn annotations(pairs: &[Pair]) -> String {
    let written: BTreeMap<_, _> = pairs.iter().map(|(key, value)| (key, value)).collect();
    serde_json::to_string(&written).unwrap()
}

/// Returns an Ingress in front of Services. The annotations stand on it, or as far as they may on one of the Services.
fn ingress(on: ObjectKind, key: Key, pairs: &[Pair]) -> String {
    let on_service = |(key, _): &Pair| on == ObjectKind::Service && find(key).unwrap().is_read_on(on);
    let (on_service, on_ingress): (Vec<Pair>, Vec<Pair>) = pairs.iter().cloned().partition(on_service);
    let service = |name: &str, pairs: &[Pair]| {
        let annotations = annotations(pairs);
        format!(
            "apiVersion: v1
kind: Service
metadata: {{namespace: default, name: {name}, annotations: {annotations}}}
spec: {{type: NodePort, ports: [{{port: 80, targetPort: 8080, nodePort: 30080}}]}}
---
"
        )
    };
    let services = [service("shop", &on_service), service("shop-v1", &[]), service("shop-v2", &[])].concat();
    // The annotation of the class goes without the field.
    let class = if key == alb::INGRESS_CLASS { "" } else { "ingressClassName: alb, " };
    let action = on_ingress.iter().find_map(|(key, _)| key.strip_prefix("alb.ingress.kubernetes.io/actions."));
    let (backend, port) = action.map_or(("shop-v1", "number: 80"), |action| (action, "name: use-annotation"));
    format!(
        "{services}apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{namespace: default, name: shop, annotations: {}}}
spec: {{{class}rules: [{{host: shop.example.com, http: {{paths: [
  {{path: '/v[12]', pathType: ImplementationSpecific, backend: {{service: {{name: {backend}, port: {{{port}}}}}}}}},
  {{path: /, pathType: Prefix, backend: {{service: {{name: shop, port: {{number: 80}}}}}}}}]}}}}]}}
",
        annotations(&on_ingress)
    )
}

/// Returns the annotations without which an example on a Service has no effect.
fn companions_on_service(key: Key) -> Vec<Pair> {
    let tls = || vec![with(nlb::SSL_CERT, CERTIFICATE)];
    let dualstack = || vec![example(nlb::IP_ADDRESS_TYPE), example(nlb::NLB_TARGET_TYPE)];
    match key {
        nlb::TYPE => vec![example(nlb::NLB_TARGET_TYPE)],
        nlb::EIP_ALLOCATIONS => vec![example(nlb::SCHEME)],
        nlb::IPV6_ADDRESSES => dualstack(),
        nlb::ENABLE_PREFIX_FOR_IPV6_SOURCE_NAT => dualstack(),
        nlb::SOURCE_NAT_IPV6_PREFIXES => [dualstack(), vec![example(nlb::ENABLE_PREFIX_FOR_IPV6_SOURCE_NAT)]].concat(),
        nlb::QUIC_ENABLED_PORTS => vec![example(nlb::NLB_TARGET_TYPE), example(nlb::DISABLE_NLB_SG)],
        nlb::ACCESS_LOG_S3_BUCKET_NAME | nlb::ACCESS_LOG_S3_BUCKET_PREFIX => vec![example(nlb::ACCESS_LOG_ENABLED)],
        nlb::SSL_PORTS | nlb::SSL_NEGOTIATION_POLICY | nlb::BACKEND_PROTOCOL | nlb::ALPN_POLICY => tls(),
        nlb::HEALTHCHECK_PATH | nlb::HEALTHCHECK_SUCCESS_CODES => vec![example(nlb::HEALTHCHECK_PROTOCOL)],
        nlb::MANAGE_BACKEND_SECURITY_GROUP_RULES => vec![example(nlb::SECURITY_GROUPS)],
        _ => vec![],
    }
}

/// Returns a Service with a Network Load Balancer.
fn service(key: Key, pairs: &[Pair]) -> String {
    // The cloud provider has a load balancer for a Service that it is taken from.
    let (finalizers, status) = match key {
        nlb::ALBATROSS_ACKNOWLEDGE_ORPHANED_LOAD_BALANCER => {
            ("service.kubernetes.io/load-balancer-cleanup", format!("{{hostname: {}}}", example(key).1))
        }
        _ => ("", String::new()),
    };
    let class = if key == nlb::TYPE { "" } else { "loadBalancerClass: service.k8s.aws/nlb, " };
    let ports = match key {
        nlb::ENABLE_PREFIX_FOR_IPV6_SOURCE_NAT | nlb::SOURCE_NAT_IPV6_PREFIXES => {
            "{name: dns, port: 53, protocol: UDP, nodePort: 30053}"
        }
        nlb::QUIC_ENABLED_PORTS => "{name: quic, port: 443, protocol: UDP, nodePort: 30443}",
        nlb::ENABLE_TCP_UDP_LISTENER => {
            "{name: tcp, port: 80, nodePort: 30080}, {name: udp, port: 80, protocol: UDP, nodePort: 30080}"
        }
        _ => {
            "{name: http, port: 80, nodePort: 30080}, {name: https, port: 443, nodePort: 30443}, {name: amqps, port: 5671, nodePort: 30671}"
        }
    };
    format!(
        "apiVersion: v1
kind: Service
metadata: {{namespace: default, name: shop-v2}}
spec: {{type: NodePort, ports: [{{port: 80, nodePort: 30081}}]}}
---
apiVersion: v1
kind: Service
metadata: {{namespace: default, name: broker, finalizers: [{finalizers}], annotations: {}}}
spec: {{type: LoadBalancer, {class}ports: [{ports}]}}
status: {{loadBalancer: {{ingress: [{status}]}}}}
",
        annotations(pairs)
    )
}

/// The annotations whose examples leave the load balancer of one object as it is without them: the order among several
/// Ingresses, an output of the controller, the default under its former name.
const CHANGE_NOTHING: [Key; 3] = [alb::GROUP_ORDER, alb::DRY_RUN_PLAN, nlb::INTERNAL];

/// Returns the reason why an example does not do what the status of the annotation says.
fn problem(annotation: &Annotation, example: &Pair, without: &str, manifests: &str) -> Option<String> {
    let Outcome { stacks, diagnostics, unserved } = outcome(manifests);
    let on_it = |severity| matches!(&*diagnostics, [one] if one.severity == severity && one.field == example.0);
    let (as_expected, works) = match annotation.status {
        status if status.refuses(&example.1) => (on_it(Severity::Error), false),
        Status::Later | Status::Ended { .. } => (on_it(Severity::Warning), false),
        _ => (diagnostics.is_empty() && unserved.is_empty(), true),
    };
    if !as_expected {
        let status = annotation.status;
        return Some(format!("`{}` with {status:?}:\n{unserved}{}", example.0, describe(&diagnostics)));
    }
    let changes = stacks != outcome(without).stacks || CHANGE_NOTHING.contains(&annotation.key);
    (works && !changes).then(|| format!("`{}` changes nothing", example.0))
}

#[test]
fn each_example_does_what_the_status_of_its_annotation_says() {
    let mut problems = Vec::new();
    for annotation in ANNOTATIONS {
        for (example, on) in annotation.examples.iter().flat_map(|e| annotation.objects.iter().map(move |on| (e, *on)))
        {
            let (key, example) = (annotation.key, pair(annotation, example));
            let (without, manifests) = if key.prefix() == SERVICE_PREFIX {
                let companions = companions_on_service(key);
                (service(key, &companions), service(key, &[&*companions, std::slice::from_ref(&example)].concat()))
            } else {
                let companions = companions_on_ingress(key);
                (
                    ingress(on, key, &companions),
                    ingress(on, key, &[&*companions, std::slice::from_ref(&example)].concat()),
                )
            };
            problems.extend(problem(annotation, &example, &without, &manifests));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn the_manifests_of_the_document_are_served_without_a_remark() {
    let document = include_str!("../../../../docs/examples.md");
    let sections: Vec<_> = document.split("\n## ").skip(1).collect();
    assert!(sections.len() > 10, "{sections:?}");
    let mut problems = String::new();
    for section in sections {
        let title = section.lines().next().unwrap();
        let blocks: Vec<_> = section.split("```").collect();
        assert!(blocks.len() >= 3 && blocks.len() % 2 == 1, "{title} has no block, or one without an end");
        for block in blocks.iter().skip(1).step_by(2) {
            let Outcome { stacks, diagnostics, unserved } = outcome(block.strip_prefix("yaml\n").unwrap());
            let found = !stacks.is_empty() || !diagnostics.is_empty() || !unserved.is_empty();
            assert!(found, "{title} has no Ingress and no Service");
            for line in [unserved, describe(&diagnostics)].iter().flat_map(|text| text.lines()) {
                let _ = writeln!(problems, "{title}: {line}");
            }
        }
    }
    assert_eq!(problems, "");
}
