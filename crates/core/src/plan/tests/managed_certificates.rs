//! The certificates that ACM issues for Ingresses, from manifests to plans.

use std::collections::BTreeSet;

use super::aws::{Aws, BACKEND_GROUP};
use crate::{
    desired::{Built, Membership, sources::ingress},
    facts::{ExistingLoadBalancer, Fact, FactQuery, Facts, hosted_zones::HostedZone},
    model::*,
    plan::{Plan, Planned, StepAction, Wait, member_resources, plan, tag_keys},
    testing::{build_config, discovered_subnets, snapshot},
};

const SERVICE: &str = r"
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop, uid: 11111111-1111-1111-1111-111111111111}
spec:
  ports: [{port: 80, targetPort: 8080}]
";

const AUTHORITY: &str = "arn:aws:acm-pca:us-west-2:111122223333:certificate-authority/a";

fn web() -> ObjectName {
    ObjectName::new("shop", "web")
}

/// Returns an Ingress on both ports, for these hosts.
fn manifest(annotations: &[(&str, &str)], hosts: &[&str]) -> String {
    let mut text = format!(
        "{SERVICE}---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: web\n  namespace: shop\n  generation: 3\n  annotations:\n    alb.ingress.kubernetes.io/target-type: ip\n"
    );
    for (key, value) in annotations {
        text.push_str(&format!("    alb.ingress.kubernetes.io/{key}: {}\n", serde_json::Value::from(*value)));
    }
    let backend = "{service: {name: web, port: {number: 80}}}";
    text.push_str(&format!("spec:\n  ingressClassName: alb\n  defaultBackend: {backend}\n"));
    if !hosts.is_empty() {
        text.push_str("  rules:\n");
    }
    for host in hosts {
        let path = format!("{{path: /, pathType: Prefix, backend: {backend}}}");
        text.push_str(&format!("  - host: {}\n    http:\n      paths: [{path}]\n", serde_json::Value::from(*host)));
    }
    text
}

const BOTH: (&str, &str) = ("listen-ports", r#"[{"HTTP": 80}, {"HTTPS": 443}]"#);
const REDIRECTED: (&str, &str) = ("ssl-redirect", "443");
const REQUESTED: (&str, &str) = ("create-acm-cert", "true");

fn zones() -> Vec<HostedZone> {
    vec![HostedZone { id: HostedZoneId::new("Z1"), name: "example.com.".to_owned() }]
}

/// Builds an Ingress with everything that AWS has.
fn built_with(manifest: &str, aws: &Aws, change: impl FnOnce(&mut BuildSetting)) -> Built {
    let observed = &aws.observed;
    let existing = observed.load_balancers.first().map(|balancer| ExistingLoadBalancer {
        kind: balancer.kind,
        scheme: balancer.scheme,
        has_security_groups: true,
        has_ipv6: false,
        has_quic: false,
        subnets: balancer.subnets.clone(),
        customer_owned_pool: None,
    });
    let mut setting = BuildSetting {
        config: build_config(),
        facts: Facts {
            subnets: discovered_subnets(&[SubnetId::new("subnet-a"), SubnetId::new("subnet-b")]),
            backend_security_group: Some(Fact::Known(SecurityGroupId::new(BACKEND_GROUP))),
            managed_certificates: Some(Fact::Known(observed.certificates.clone().unwrap_or_default())),
            hosted_zones: Some(Fact::Known(zones())),
            existing,
            current: Some(Box::new(observed.clone())),
            ..Facts::default()
        },
    };
    setting.config.manage_certificates = true;
    change(&mut setting);
    let membership = Membership { members: vec![web()], ..Membership::default() };
    ingress::build(&snapshot(manifest), &setting.config, &setting.facts, &StackId::Ingress(web()), &membership)
}

struct BuildSetting {
    config: crate::desired::BuildConfig,
    facts: Facts,
}

fn built(manifest: &str, aws: &Aws) -> Stack {
    let built = built_with(manifest, aws, |_| {});
    assert_eq!(built.diagnostics, []);
    built.stack.unwrap()
}

fn planned(stack: &Stack, aws: &Aws) -> Plan {
    match plan(stack, &aws.observed) {
        Planned::Ready(plan) => plan,
        Planned::Need(reads) => panic!("{reads:?}"),
    }
}

/// Returns the steps that concern certificates and listeners, a line each, and runs the plan.
fn run(manifest: &str, aws: &mut Aws) -> String {
    let stack = built(manifest, aws);
    let plan = planned(&stack, aws);
    aws.run(&stack, &plan);
    aws.observed.bindings.retain(|binding| !binding.deleting);
    aws.observed.bindings.iter_mut().for_each(|binding| binding.allows_sources = true);
    aws.observed.tag_keys = Some(tag_keys(&stack, &aws.observed));
    let shown = plan.steps.iter().filter(|step| {
        let kind = step.action.kind();
        kind.contains("Certificate") || kind.contains("Record") || kind.contains("Listener")
    });
    let mut lines: Vec<String> = shown.map(|step| step.action.to_string()).collect();
    lines.extend(plan.waits.iter().map(ToString::to_string));
    lines.join("\n")
}

/// Returns AWS that knows that it has no certificate.
fn empty() -> Aws {
    let mut aws = Aws::default();
    aws.observed.certificates = Some(Vec::new());
    aws
}

fn settled(manifest: &str) -> Aws {
    let mut aws = empty();
    while !run(manifest, &mut aws).is_empty() {}
    aws
}

fn on_443(aws: &Aws) -> Vec<String> {
    let listener = aws.observed.load_balancers.first().and_then(|balancer| balancer.listener(443));
    listener.into_iter().flat_map(managed_certificate::on_listener).map(ToString::to_string).collect()
}

#[test]
fn a_listener_follows_its_certificate() {
    let (manifest, mut aws) =
        (manifest(&[BOTH, REDIRECTED, REQUESTED], &["b.example.com", "*.a.example.com"]), empty());
    insta::assert_snapshot!(run(&manifest, &mut aws), @"
    request certificate amazon_issued/wildcard.a.example.com-97375646
    create listener HTTP 80
    waiting for ACM to issue the certificate amazon_issued/wildcard.a.example.com-97375646
    ");
    // ACM waits for the proof; everything else is served, and nothing redirects to a port that is not there.
    let ports: Vec<u16> = aws.observed.load_balancers[0].known_listeners().map(|listener| listener.port).collect();
    assert_eq!(ports, [80]);
    insta::assert_snapshot!(run(&manifest, &mut aws), @"
    create record _a.example.com for *.a.example.com in hosted zone Z1
    create record _b.example.com for b.example.com in hosted zone Z1
    waiting for ACM to issue the certificate amazon_issued/wildcard.a.example.com-97375646
    ");
    insta::assert_snapshot!(run(&manifest, &mut aws), @"
    create listener HTTPS 443
    change listener 80: default redirect to HTTPS://#{host}:443/#{path}?#{query} (HTTP_301)
    ");
    insta::assert_snapshot!(run(&manifest, &mut aws), @"");
    assert_eq!(on_443(&aws).len(), 1);
}

#[test]
fn a_redirect_stays_while_another_one_waits_for_its_certificate() {
    let arn = ("certificate-arn", "arn:aws:acm:us-west-2:111122223333:certificate/own");
    let served = settled(&manifest(&[BOTH, REDIRECTED, arn], &["a.example.com"]));
    let ports = ("listen-ports", r#"[{"HTTP": 80}, {"HTTPS": 8443}]"#);
    let stack = built(&manifest(&[ports, ("ssl-redirect", "8443"), REQUESTED], &["a.example.com"]), &served);
    let to = |listener: &Listener| match &listener.default_action {
        Action::Redirect { port, .. } => port.clone(),
        _ => None,
    };
    assert_eq!(stack.listeners.keys().copied().collect::<Vec<_>>(), [80, 443]);
    assert_eq!(to(&stack.listeners[&80]).as_deref(), Some("443"));
}

/// Clients that have to show a token do not get in without one while there is no HTTPS.
#[test]
fn what_is_guarded_is_not_served_without_its_certificate() {
    let tokens = r#"{"jwksEndpoint": "https://a.example.com/keys", "issuer": "https://a.example.com"}"#;
    let guarded = [BOTH, REDIRECTED, REQUESTED, ("jwt-validation", tokens)];
    let (text, mut aws) = (manifest(&guarded, &["a.example.com"]), empty());
    let stack = built(&text, &aws);
    let listener = stack.listeners.get(&80).unwrap();
    let actions = listener.rules.iter().map(|rule| &rule.action).chain([&listener.default_action]);
    let codes: Vec<_> = actions
        .map(|action| match action {
            Action::FixedResponse { status_code, .. } => status_code.as_str(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!((codes, stack.target_groups.len()), (vec!["503"; 2], 0));
    while !run(&text, &mut aws).is_empty() {}
    assert_eq!(built(&text, &aws).target_groups.len(), 1);
    assert!(built(&text, &aws).listeners[&443].rules[0].authentication.is_some());
    assert_eq!(built(&text, &aws).listeners[&80].rules.len(), 0);
    // Those that get in already go on, until HTTPS is there.
    let served = settled(&manifest(&[("jwt-validation", tokens)], &["a.example.com"]));
    let stack = built(&text, &served);
    assert!(matches!(stack.listeners[&80].rules[0].action, Action::Forward { .. }));
    assert_eq!(stack.target_groups.len(), 1);
    // Without a redirect, HTTP is served as it is written.
    let plain = [BOTH, REQUESTED, ("jwt-validation", tokens)];
    assert_eq!(built(&manifest(&plain, &["a.example.com"]), &empty()).target_groups.len(), 1);
}

/// Returns the listeners, each with its protocol and the number of its rules.
fn listeners(aws: &Aws) -> String {
    let listeners = aws.observed.load_balancers[0].known_listeners();
    let shown =
        listeners.map(|l| format!("{} {}: {} rules", l.protocol.unwrap(), l.port, l.rules.len())).collect::<Vec<_>>();
    shown.join(", ")
}

#[test]
fn what_serves_stays_until_the_listener_with_the_requested_certificate_is_there() {
    let hosts = ["b.example.com"];
    for (before, requested) in
        [(&[][..], &[REQUESTED][..]), (&[], &[REQUESTED, ("listen-ports", r#"[{"HTTPS": 443}]"#), REDIRECTED])]
    {
        for is_recorded in [false, true] {
            let mut aws = settled(&manifest(before, &hosts));
            aws.observed.retains_listeners = true;
            let first = built(&manifest(before, &hosts), &aws);
            if is_recorded {
                aws.observed.member_resources = member_resources(&first, &aws.observed, &Default::default());
            }
            let serving = (listeners(&aws), aws.observed.target_groups.clone(), aws.observed.security_groups.clone());
            assert_eq!(serving.0, "HTTP 80: 1 rules");
            let requested = manifest(requested, &hosts);
            insta::allow_duplicates! {
                insta::assert_snapshot!(run(&requested, &mut aws), @"
                request certificate amazon_issued/b.example.com-97375646
                waiting for ACM to issue the certificate amazon_issued/b.example.com-97375646
                ");
                insta::assert_snapshot!(run(&requested, &mut aws), @"
                create record _b.example.com for b.example.com in hosted zone Z1
                waiting for ACM to issue the certificate amazon_issued/b.example.com-97375646
                ");
                let now = (listeners(&aws), aws.observed.target_groups.clone(), aws.observed.security_groups.clone());
                assert_eq!(now, serving);
                insta::assert_snapshot!(run(&requested, &mut aws), @"
                create listener HTTPS 443
                waiting for clients to use the new listener before the one on port 80 goes
                ");
                assert_eq!(listeners(&aws), "HTTP 80: 1 rules, HTTPS 443: 1 rules");
                insta::assert_snapshot!(run(&requested, &mut aws), @"delete listener 80 with its rules");
            }
        }
    }
}

#[test]
fn other_https_ports_stay_with_their_settings_until_the_certificate_is_issued() {
    let named = "arn:aws:acm:eu-west-1:111122223333:certificate/a";
    let before = manifest(
        &[
            ("certificate-arn", named),
            ("ssl-policy", "ELBSecurityPolicy-TLS13-1-2-2021-06"),
            ("listen-ports", r#"[{"HTTP": 443}, {"HTTPS": 8443}]"#),
            ("mutual-authentication", r#"[{"port": 8443, "mode": "passthrough"}]"#),
        ],
        &["b.example.com"],
    );
    let mut aws = settled(&before);
    let serving = aws.observed.load_balancers.clone();
    let requested = manifest(&[REQUESTED], &["b.example.com"]);
    run(&requested, &mut aws);
    run(&requested, &mut aws);
    assert_eq!(aws.observed.load_balancers, serving);
    run(&requested, &mut aws);
    while !run(&requested, &mut aws).is_empty() {}
    assert_eq!(listeners(&aws), "HTTPS 443: 1 rules");
}

#[test]
fn a_member_keeps_its_rules_on_a_port_of_others_and_a_new_one_gets_none_there() {
    let group = |name: &str, requested: bool| {
        let certificate = if requested { ", alb.ingress.kubernetes.io/create-acm-cert: 'true'" } else { "" };
        format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {name}, namespace: shop, generation: 1, annotations: {{alb.ingress.kubernetes.io/target-type: ip, alb.ingress.kubernetes.io/group.name: g{certificate}}}}}\nspec:\n  ingressClassName: alb\n  rules: [{{host: {name}.example.com, http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}]}}}}]\n"
        )
    };
    let id = StackId::Group("g".to_owned());
    let rules = |requested: bool, names: &[&str], observed: Option<&ObservedStack>| {
        let mut text = SERVICE.to_owned();
        names.iter().for_each(|name| text.push_str(&group(name, requested && *name == "a")));
        let mut config = build_config();
        config.manage_certificates = requested;
        let facts = Facts {
            subnets: discovered_subnets(&[SubnetId::new("subnet-a"), SubnetId::new("subnet-b")]),
            backend_security_group: Some(Fact::Known(SecurityGroupId::new(BACKEND_GROUP))),
            managed_certificates: Some(Fact::Known(Vec::new())),
            hosted_zones: Some(Fact::Known(zones())),
            existing: observed.map(|observed| ExistingLoadBalancer {
                kind: observed.load_balancers[0].kind,
                scheme: observed.load_balancers[0].scheme,
                has_security_groups: true,
                has_ipv6: false,
                has_quic: false,
                subnets: observed.load_balancers[0].subnets.clone(),
                customer_owned_pool: None,
            }),
            current: observed.cloned().map(Box::new),
            ..Facts::default()
        };
        let members = names.iter().map(|name| ObjectName::new("shop", *name)).collect();
        let membership = Membership { members, ..Membership::default() };
        let built = ingress::build(&snapshot(&text), &config, &facts, &id, &membership);
        assert_eq!(built.diagnostics, []);
        built.stack.unwrap()
    };
    let ports = |stack: &Stack| {
        let of = |l: &Listener| (l.port, l.rules.iter().map(|r| r.cause.object.name.name.clone()).collect::<Vec<_>>());
        stack.listeners.values().map(of).collect::<Vec<_>>()
    };
    let before = rules(false, &["a", "b"], None);
    let mut aws = Aws::with(&before);
    aws.observed.member_resources = member_resources(&before, &aws.observed, &Default::default());
    let both = vec![(80, vec!["a".to_owned(), "b".to_owned()])];
    assert_eq!(ports(&rules(true, &["a", "b"], Some(&aws.observed))), both);
    // One that comes anew, with a record of the others or without any.
    let before = rules(false, &["b"], None);
    let mut aws = Aws::with(&before);
    for _ in 0..2 {
        assert_eq!(ports(&rules(true, &["a", "b"], Some(&aws.observed))), [(80, vec!["b".to_owned()])]);
        aws.observed.member_resources = member_resources(&before, &aws.observed, &Default::default());
    }
}

#[test]
fn nothing_is_asked_where_nothing_is_requested() {
    let aws = Aws::default();
    let built = built_with(&manifest(&[], &["a.example.com"]), &aws, |setting| {
        setting.facts.managed_certificates = None;
        setting.facts.hosted_zones = None;
    });
    assert!(built.wants.is_empty());
    assert!(matches!(plan(&built.stack.unwrap(), &aws.observed), Planned::Ready(_)));
    // An issued certificate needs no hosted zone.
    let manifest = manifest(&[REQUESTED], &["a.example.com"]);
    let aws = settled(&manifest);
    let built = built_with(&manifest, &aws, |setting| {
        setting.facts.hosted_zones = None;
        setting.facts.current = None;
    });
    assert!(built.wants.is_empty());
    assert_eq!(planned(&built.stack.unwrap(), &aws), Plan::empty());
}

#[test]
fn other_hosts_get_another_certificate_before_the_first_goes() {
    let mut aws = settled(&manifest(&[REQUESTED], &["b.example.com"]));
    let first = on_443(&aws);
    let changed = manifest(&[REQUESTED], &["b.example.com", "c.example.com"]);
    insta::assert_snapshot!(run(&changed, &mut aws), @"
    request certificate amazon_issued/b.example.com-97375646
    waiting for ACM to issue the certificate amazon_issued/b.example.com-97375646
    ");
    assert_eq!(on_443(&aws), first);
    insta::assert_snapshot!(run(&changed, &mut aws), @"
    create record _b.example.com for b.example.com in hosted zone Z1
    create record _c.example.com for c.example.com in hosted zone Z1
    waiting for ACM to issue the certificate amazon_issued/b.example.com-97375646
    ");
    assert_eq!(on_443(&aws), first);
    insta::assert_snapshot!(run(&changed, &mut aws), @"
    change listener 443: default certificate arn:certificate/10
    delete certificate amazon_issued/b.example.com-97375646 (arn:certificate/2) with its records
    ");
    assert_ne!(on_443(&aws), first);
    assert_eq!(run(&changed, &mut aws), "");
    assert_eq!(aws.observed.certificates.unwrap().len(), 1);
}

#[test]
fn a_named_certificate_stays_until_the_requested_one_is_issued() {
    let named = "arn:aws:acm:eu-west-1:111122223333:certificate/a";
    let mut aws = settled(&manifest(&[("certificate-arn", named)], &["b.example.com"]));
    let requested = manifest(&[REQUESTED], &["b.example.com"]);
    for _ in 0..2 {
        run(&requested, &mut aws);
        assert_eq!(on_443(&aws), [named]);
    }
    run(&requested, &mut aws);
    assert_ne!(on_443(&aws), [named]);
    // And back: the requested one goes when no listener has it.
    let back = manifest(&[("certificate-arn", named)], &["b.example.com"]);
    insta::assert_snapshot!(run(&back, &mut aws), @"
    change listener 443: default certificate arn:aws:acm:eu-west-1:111122223333:certificate/a
    delete certificate amazon_issued/b.example.com-97375646 (arn:certificate/8) with its records
    ");
    assert_eq!(on_443(&aws), [named]);
    assert_eq!(run(&back, &mut aws), "");
}

#[test]
fn who_comes_from_another_load_balancer_stays_there_until_the_certificate_is_issued() {
    let (manifest, mut aws) = (manifest(&[BOTH, REQUESTED], &["b.example.com"]), empty());
    for expected in [true, true, false] {
        aws.observed.arriving = [ObjectReference::ingress(&web())].into();
        aws.observed.states_are_read = true;
        let stack = built(&manifest, &aws);
        let held = !planned(&stack, &aws).held_members.is_empty();
        assert_eq!(held, expected);
        aws.observed.arriving.clear();
        // One that comes from nowhere is shown at once.
        assert!(planned(&stack, &aws).held_members.is_empty());
        run(&manifest, &mut aws);
    }
}

#[test]
fn all_goes_with_the_stack_and_is_found_again_by_what_is_noted() {
    let manifest = manifest(&[REQUESTED], &["b.example.com"]);
    let mut aws = settled(&manifest);
    let stack = Stack {
        certificates: DesiredCertificates { enabled: true, ..DesiredCertificates::default() },
        ..Stack::empty(StackId::Ingress(web()))
    };
    let known = aws.observed.certificates.take();
    let Planned::Need(reads) = plan(&stack, &aws.observed) else { panic!("certificates are noted") };
    assert!(reads.certificates);
    // So it is where a lost answer may have made one, or nothing is noted because the stack was never as desired.
    let keys = aws.observed.tag_keys.replace(TagKeys::default());
    assert!(matches!(plan(&stack, &aws.observed), Planned::Ready(_)));
    aws.observed.may_have_certificates = true;
    assert!(matches!(plan(&stack, &aws.observed), Planned::Need(reads) if reads.certificates));
    aws.observed.may_have_certificates = false;
    aws.observed.tag_keys = None;
    assert!(matches!(plan(&stack, &aws.observed), Planned::Need(reads) if reads.certificates));
    aws.observed.tag_keys = keys;
    // Without the gate nothing of them is touched or read.
    let disabled = Stack::empty(StackId::Ingress(web()));
    let Planned::Ready(plan_without) = plan(&disabled, &aws.observed) else { panic!("nothing to read") };
    assert!(!plan_without.steps.iter().any(|step| step.action.kind().contains("Certificate")));
    aws.observed.certificates = known;
    let last = planned(&stack, &aws).steps.last().unwrap().action.to_string();
    insta::assert_snapshot!(last, @"delete certificate amazon_issued/b.example.com-97375646 (arn:certificate/2) with its records");
    // A certificate is kept for a frozen member, and while it cannot be read.
    let frozen = FrozenMembers { members: [ObjectReference::ingress(&web())].into(), ..FrozenMembers::default() };
    let unread = DesiredCertificates { enabled: true, unread: [web()].into(), ..DesiredCertificates::default() };
    for stack in [Stack { frozen, ..stack.clone() }, Stack { certificates: unread, ..stack }] {
        let plan = planned(&stack, &aws);
        assert!(!plan.steps.iter().any(|step| step.action.kind() == "DeleteCertificate"), "{plan:?}");
    }
}

#[test]
fn a_takeover_changes_nothing_and_a_second_request_waits_after_a_refusal() {
    let manifest = manifest(&[REQUESTED], &["b.example.com"]);
    let mut aws = settled(&manifest);
    aws.observed.tag_keys = None;
    assert_eq!(planned(&built(&manifest, &aws), &aws), Plan::empty());
    let mut aws = empty();
    let stack = built(&manifest, &aws);
    let token = stack.certificates.wanted[0].token(&BTreeSet::new());
    aws.observed.refused_requests = [token].into();
    let plan = planned(&stack, &aws);
    assert!(!plan.steps.iter().any(|step| step.action.kind() == "RequestCertificate"));
    let resource = ResourceId::certificate(&web(), "b.example.com", false);
    assert!(plan.waits.contains(&Wait::CertificateIssued(resource)));
}

#[test]
fn a_request_after_a_deletion_is_another_one_and_a_repetition_is_the_same() {
    let manifest = manifest(&[REQUESTED], &["b.example.com"]);
    let resource = ResourceId::certificate(&web(), "b.example.com", false);
    let mut aws = settled(&manifest);
    let stack = built(&manifest, &empty());
    let known = aws.observed.certificates.take().unwrap();
    let before = |known: &[ObservedCertificate], deleted: &[&str]| {
        let certificates = Some(known.to_vec());
        let deleted = deleted.iter().map(|arn| CertificateArn::new(*arn)).collect();
        let deleted = [(resource.clone(), deleted)].into();
        let recent_certificates = RecentCertificates { deleted, ..RecentCertificates::default() };
        let observed = ObservedStack { certificates, recent_certificates, ..aws.observed.clone() };
        let Planned::Ready(plan) = plan(&stack, &observed) else { panic!("nothing to read") };
        let tokens = plan.steps.iter().filter_map(|step| match &step.action {
            StepAction::RequestCertificate { token, .. } => Some(token.clone()),
            _ => None,
        });
        let [token] = tokens.collect::<Vec<_>>().try_into().unwrap();
        token
    };
    let [one] = known.as_slice() else { panic!("{known:?}") };
    let failed = |arn: &str| {
        let status = CertificateStatus::Unusable("CAA_ERROR".to_owned());
        ObservedCertificate { arn: CertificateArn::new(arn), status, hosts: BTreeSet::new(), ..one.clone() }
    };
    let gone = |arn: &str| ObservedCertificate { status: CertificateStatus::Deleted, ..failed(arn) };
    let others: BTreeSet<String> = [before(&[], &[]), before(&[], &["a"]), before(&[], &["a", "b"])].into();
    assert_eq!(others.len(), 3);
    // An answer is lost, and of the earlier ones some are deleted until the request is repeated, or ACM lists them in another order.
    let both = before(&[], &["a", "b"]);
    assert_eq!(before(&[failed("a"), failed("b")], &[]), both);
    assert_eq!(before(&[failed("b"), failed("a")], &[]), both);
    assert_eq!(before(&[failed("b")], &["a"]), both);
    assert_eq!(before(&[failed("b"), gone("a")], &["a"]), both);
}

#[test]
fn hosts_that_change_all_the_time_wait_for_another_request() {
    let mut aws = settled(&manifest(&[REQUESTED], &["b.example.com"]));
    let stack = built(&manifest(&[REQUESTED], &["a.example.com"]), &aws);
    let requests = |aws: &Aws| {
        let plan = planned(&stack, aws);
        let resource = ResourceId::certificate(&web(), "a.example.com", false);
        assert!(plan.waits.contains(&Wait::CertificateIssued(resource)));
        let kinds = |kind: &str| plan.steps.iter().filter(|step| step.action.kind() == kind).count();
        (kinds("RequestCertificate"), kinds("DeleteCertificate"))
    };
    let owner = |name: &str| BTreeSet::from([ObjectReference::ingress(&ObjectName::new("shop", name))]);
    aws.observed.recent_certificates.paused = owner("other");
    assert_eq!(requests(&aws), (1, 0));
    aws.observed.recent_certificates.paused = owner("web");
    assert_eq!(requests(&aws), (0, 0), "the certificate that serves stays");
    // One that is requested is validated.
    aws.observed.recent_certificates.paused = BTreeSet::new();
    aws.run(&stack, &planned(&stack, &aws));
    aws.observed.recent_certificates.paused = owner("web");
    assert_eq!(requests(&aws), (0, 0));
    let kinds: Vec<_> = planned(&stack, &aws).steps.iter().map(|step| step.action.kind()).collect();
    assert_eq!(kinds, ["CreateValidationRecord"]);
}

#[test]
fn a_deletion_that_aws_has_not_carried_out_waits_and_no_other_step_does() {
    let mut aws = settled(&manifest(&[REQUESTED], &["b.example.com"]));
    let stack = built(&manifest(&[], &["b.example.com"]), &aws);
    let withheld = |aws: &Aws| {
        let mut plan = planned(&stack, aws);
        let all: Vec<_> = plan.steps.iter().map(|step| step.action.kind()).collect();
        assert_eq!(all.last(), Some(&"DeleteCertificate"));
        let is_withheld = plan.withhold_paused(&aws.observed);
        (is_withheld, all.len() - plan.steps.len(), plan.steps.iter().any(|s| s.action.kind() == "DeleteCertificate"))
    };
    let arn = aws.observed.certificates.as_ref().unwrap()[0].arn.to_string();
    aws.observed.refused_requests = ["other".to_owned()].into();
    assert_eq!(withheld(&aws), (false, 0, true));
    aws.observed.refused_requests = [arn].into();
    assert_eq!(withheld(&aws), (true, 1, false));
}

#[test]
fn what_aws_has_not_accepted_in_a_pass_is_not_requested_again_in_it() {
    let mut aws = empty();
    let stack = built(&manifest(&[REQUESTED], &["b.example.com"]), &aws);
    let requests = |aws: &Aws| {
        let plan = planned(&stack, aws);
        let waits = plan.waits.iter().filter(|wait| matches!(wait, Wait::CertificateIssued(_))).count();
        (plan.steps.iter().filter(|step| step.action.kind() == "RequestCertificate").count(), waits)
    };
    assert_eq!(requests(&aws), (1, 1));
    aws.observed.left_out = [AddOn::Certificates].into();
    assert_eq!(requests(&aws), (0, 1));
}

#[test]
fn a_certificate_of_no_use_is_replaced_when_it_is_given_up() {
    let (manifest, mut aws) = (manifest(&[REQUESTED], &["b.example.com"]), empty());
    run(&manifest, &mut aws);
    let certificate = &mut aws.observed.certificates.as_mut().unwrap()[0];
    certificate.status = CertificateStatus::Unusable("CAA_ERROR".to_owned());
    let arn = certificate.arn.clone();
    let built = built_with(&manifest, &aws, |_| {});
    insta::assert_snapshot!(built.diagnostics[0], @"alb.ingress.kubernetes.io/create-acm-cert: ACM has not issued the certificate arn:certificate/2, or it can no longer be used: CAA_ERROR; add a CAA record that allows `amazon.com` to the domain, or remove those that allow only other authorities; another one is requested after half a day, after twice the time with each failure, or minutes after this one is deleted in ACM");
    let stack = built.stack.unwrap();
    let plan = planned(&stack, &aws);
    assert!(plan.steps.is_empty() && plan.waits.len() == 1, "{plan:?}");
    aws.observed.given_up = [arn].into();
    let kinds: Vec<&str> = planned(&stack, &aws).steps.iter().map(|step| step.action.kind()).collect();
    assert_eq!(kinds, ["RequestCertificate", "DeleteCertificate"]);
}

#[test]
fn an_authority_issues_without_proof() {
    let requested = |authority: &str| manifest(&[REQUESTED, ("acm-pca-arn", authority)], &["b.example.com"]);
    let aws = empty();
    let certificate = |manifest: &str, default: Option<&str>| {
        let built = built_with(manifest, &aws, |setting| {
            setting.facts.hosted_zones = None;
            setting.config.default_certificate_authority =
                default.map(|arn| CertificateAuthorityArn::new(arn).unwrap());
        });
        built.stack.unwrap().certificates.wanted.remove(0)
    };
    let by_flag = certificate(&requested(""), Some(AUTHORITY));
    assert_eq!(by_flag.authority.as_ref().map(CertificateAuthorityArn::as_str), Some(AUTHORITY));
    insta::assert_snapshot!(by_flag.resource, @"private/b.example.com-97375646");
    let other = AUTHORITY.replace("authority/a", "authority/b");
    let by_annotation = certificate(&requested(&other), Some(AUTHORITY));
    assert_eq!(by_annotation.authority.as_ref().map(CertificateAuthorityArn::as_str), Some(other.as_str()));
    assert_eq!(by_annotation.resource, by_flag.resource);
}

fn message(annotations: &[(&str, &str)], hosts: &[&str], change: impl FnOnce(&mut BuildSetting)) -> String {
    let built = built_with(&manifest(annotations, hosts), &empty(), change);
    let served = if built.stack.is_some() { "served" } else { "not served" };
    let lacking = if built.lacking { ", asked again" } else { "" };
    let messages: Vec<String> =
        built.diagnostics.iter().map(|d| format!("{:?} on {}: {d}", d.severity, d.object)).collect();
    format!("{}\n{served}{lacking}", messages.join("\n"))
}

#[test]
fn messages() {
    fn unavailable<T>() -> Option<Fact<T>> {
        Some(Fact::Unavailable("AWS does not allow it; allow it".to_owned()))
    }
    let long = format!("{}.example.com", "a".repeat(60));
    insta::assert_snapshot!(message(&[REQUESTED], &["a.net"], |_| {}), @"
    Warning on Ingress shop/web: alb.ingress.kubernetes.io/create-acm-cert: Route 53 has no public hosted zone for the host `a.net`, so that ACM is not asked for the certificate; create the hosted zone in the controller's account, or name a certificate with `alb.ingress.kubernetes.io/certificate-arn`
    served, asked again
    ");
    insta::assert_snapshot!(message(&[REQUESTED], &[], |_| {}), @"
    Error on Ingress shop/web: alb.ingress.kubernetes.io/create-acm-cert: the Ingress has no host that ACM could issue a certificate for; add hosts in spec.rules or spec.tls, or name a certificate with `alb.ingress.kubernetes.io/certificate-arn`
    not served
    ");
    insta::assert_snapshot!(message(&[REQUESTED], &[&long], |_| {}), @"
    Error on Ingress shop/web: alb.ingress.kubernetes.io/create-acm-cert: each host is longer than 64 characters, and the first name of a certificate must not be; add a shorter host, such as a wildcard, to spec.tls
    not served
    ");
    let many: Vec<String> = (0..101).map(|number| format!("{number}.example.com")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    insta::assert_snapshot!(message(&[REQUESTED], &many, |_| {}), @"
    Error on Ingress shop/web: alb.ingress.kubernetes.io/create-acm-cert: the Ingress has 101 hosts, and a certificate has at most 100 names; spread the hosts over several Ingresses of a group, or use a wildcard
    not served
    ");
    insta::assert_snapshot!(message(&[REQUESTED, ("acm-pca-arn", "internal")], &["a.example.com"], |_| {}), @"
    Error on Ingress shop/web: alb.ingress.kubernetes.io/acm-pca-arn: `internal` is not the ARN of a private certificate authority; write the ARN that AWS Private CA shows: arn:aws:acm-pca:<region>:<account>:certificate-authority/<id>
    not served
    ");
    insta::assert_snapshot!(message(&[BOTH, REQUESTED], &["a.example.com"], |s| s.facts.managed_certificates = unavailable()), @"
    Warning on Ingress shop/web: alb.ingress.kubernetes.io/create-acm-cert: the certificates that were requested from ACM cannot be read, so that none is requested or deleted, and listeners keep those that they have: AWS does not allow it; allow it; they are read again
    served, asked again
    ");
    insta::assert_snapshot!(message(&[BOTH, REQUESTED], &["a.example.com"], |s| s.facts.hosted_zones = unavailable()), @"
    Warning on Ingress shop/web: alb.ingress.kubernetes.io/create-acm-cert: the hosted zones of Route 53 cannot be read, so that ACM is not asked for the certificate: AWS does not allow it; allow it; they are read again
    served, asked again
    ");
    insta::assert_snapshot!(message(&[("listen-ports", r#"[{"HTTP": 80}]"#), REQUESTED], &["a.example.com"], |s| s.config.manage_certificates = false), @"
    Warning on Ingress shop/web: alb.ingress.kubernetes.io/create-acm-cert: the feature gate `EnableCertificateManagement` is off, so that no certificate is requested: those of ACM are found by host name; start the controller with `--feature-gates=EnableCertificateManagement=true`, or remove the annotation
    served
    ");
}

#[test]
fn the_facts_are_asked_one_after_the_other() {
    let manifest = manifest(&[REQUESTED], &["a.example.com"]);
    let wants = |change: fn(&mut BuildSetting)| built_with(&manifest, &empty(), change).wants;
    assert_eq!(wants(|s| s.facts.managed_certificates = None), [FactQuery::ManagedCertificates].into());
    assert_eq!(wants(|s| s.facts.hosted_zones = None), [FactQuery::HostedZones].into());
}

#[test]
fn in_front_no_port_leads_to_a_listener_that_waits_for_its_certificate() {
    let front = ("enable-frontend-nlb", "true");
    let mapping = ("frontend-nlb-listener-port-mapping", "80=80,443=443,8443=8443");
    let hosts = ["a.example.com"];
    let in_front = |annotations: &[(&str, &str)], aws: &Aws| {
        let built = built_with(&manifest(annotations, &hosts), aws, |_| {});
        let listeners = built.stack.unwrap().frontend.unwrap().listeners;
        let told: Vec<String> = built.diagnostics.iter().map(ToString::to_string).collect();
        (listeners.into_keys().collect::<Vec<u16>>(), told.join("\n"))
    };
    let (ports, told) = in_front(&[BOTH, REQUESTED, front, mapping], &empty());
    assert_eq!(ports, [80]);
    // The port that has no listener even then has no effect.
    insta::assert_snapshot!(told, @"alb.ingress.kubernetes.io/frontend-nlb-listener-port-mapping: `8443=8443` has no effect: the Ingress has no listener on port 8443; it has `80`; map to one of its listeners, or add the port to `listen-ports`");
    assert_eq!(in_front(&[BOTH, REQUESTED, front], &empty()), (vec![80], String::new()));
    // What serves before stays in front, too.
    let serving = settled(&manifest(&[], &hosts));
    assert_eq!(in_front(&[REQUESTED, front], &serving), (vec![80], String::new()));
    let issued = settled(&manifest(&[BOTH, REQUESTED], &hosts));
    assert_eq!(in_front(&[BOTH, REQUESTED, front], &issued), (vec![80, 443], String::new()));
    assert_eq!(in_front(&[BOTH, REQUESTED, front, mapping], &issued).0, [80, 443]);
}
