//! Groups in which a member waits for the certificate that ACM is to issue for it.

use super::aws::{Aws, BACKEND_GROUP};
use crate::{
    desired::{Membership, sources::ingress},
    diagnostics::Diagnostic,
    facts::{ExistingLoadBalancer, Fact, Facts, hosted_zones::HostedZone},
    model::*,
    plan::member_resources,
    testing::{build_config, discovered_subnets, snapshot},
};

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: svc, namespace: shop, uid: 11111111-1111-1111-1111-111111111111}\nspec:\n  ports: [{port: 80, targetPort: 8080}]\n";
const HOST: &str = "lb.example.com";
const NAMED: (&str, &str) = ("certificate-arn", "arn:aws:acm:eu-west-1:111122223333:certificate/a");
const REQUESTED: (&str, &str) = ("create-acm-cert", "true");
const PLAIN: (&str, &str) = ("listen-ports", r#"[{"HTTP": 80}]"#);
const SECURE: (&str, &str) = ("listen-ports", r#"[{"HTTPS": 443}]"#);
const BOTH: (&str, &str) = ("listen-ports", r#"[{"HTTP": 80}, {"HTTPS": 443}]"#);
const ON_8443: (&str, &str) = ("listen-ports", r#"[{"HTTPS": 8443}]"#);
const TEN: (&str, &str) = ("inbound-cidrs", "10.0.0.0/8");
const ELEVEN: (&str, &str) = ("inbound-cidrs", "11.0.0.0/8");
const LISTED: (&str, &str) = ("security-group-prefix-lists", "pl-1");
const REDIRECTED: (&str, &str) = ("ssl-redirect", "443");
const OLD_POLICY: (&str, &str) = ("ssl-policy", "ELBSecurityPolicy-TLS13-1-2-2021-06");
const VERIFIED: (&str, &str) = (
    "mutual-authentication",
    r#"[{"port": 443, "mode": "verify", "trustStore": "arn:aws:elasticloadbalancing:eu-west-1:111122223333:truststore/t/1"}]"#,
);

/// A member, by name, with its annotations. All show the load balancer in their status.
type Requested<'t> = (&'t str, &'t [(&'t str, &'t str)]);

fn manifest(members: &[Requested<'_>]) -> String {
    let mut text = SERVICE.to_owned();
    for (name, annotations) in members {
        text.push_str(&format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: {name}\n  namespace: shop\n  generation: 1\n  annotations:\n    alb.ingress.kubernetes.io/target-type: ip\n    alb.ingress.kubernetes.io/group.name: g\n"
        ));
        for (key, value) in *annotations {
            text.push_str(&format!("    alb.ingress.kubernetes.io/{key}: {}\n", serde_json::Value::from(*value)));
        }
        text.push_str(&format!(
            "spec:\n  ingressClassName: alb\n  rules: [{{host: {name}.example.com, http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: svc, port: {{number: 80}}}}}}}}]}}}}]\nstatus: {{loadBalancer: {{ingress: [{{hostname: {HOST}}}]}}}}\n"
        ));
    }
    text
}

/// Returns the desired state of the group beside what AWS has, without a diagnostic.
fn desired(members: &[Requested<'_>], aws: &Aws) -> Stack {
    let (stack, diagnostics) = built(members, aws);
    assert_eq!(diagnostics, Vec::<String>::new());
    stack
}

/// Returns the desired state of the group beside what AWS has, and each diagnostic with its object.
fn built(members: &[Requested<'_>], aws: &Aws) -> (Stack, Vec<String>) {
    let mut config = build_config();
    config.manage_certificates = members.iter().any(|(_, annotations)| annotations.contains(&REQUESTED));
    let balancer = aws.observed.load_balancers.first();
    let facts = Facts {
        subnets: discovered_subnets(&[SubnetId::new("subnet-a"), SubnetId::new("subnet-b")]),
        backend_security_group: Some(Fact::Known(SecurityGroupId::new(BACKEND_GROUP))),
        managed_certificates: Some(Fact::Known(Vec::new())),
        hosted_zones: Some(Fact::Known(vec![HostedZone {
            id: HostedZoneId::new("Z1"),
            name: "example.com.".to_owned(),
        }])),
        hostnames: [HOST.to_owned()].into(),
        existing: balancer.map(|balancer| ExistingLoadBalancer {
            has_ipv6: balancer.ip_address_type.has_ipv6(),
            has_quic: balancer.has_quic(),
            kind: balancer.kind,
            scheme: balancer.scheme,
            has_security_groups: true,
            subnets: balancer.subnets.clone(),
            customer_owned_pool: None,
        }),
        current: Some(Box::new(aws.observed.clone())),
        ..Facts::default()
    };
    let members_of_group = members.iter().map(|(name, _)| ObjectName::new("shop", *name)).collect();
    let membership = Membership { members: members_of_group, ..Membership::default() };
    let id = StackId::Group("g".to_owned());
    let built = ingress::build(&snapshot(&manifest(members)), &config, &facts, &id, &membership);
    let shown = |d: &Diagnostic| format!("{}: {}: {}; {}", d.object.name.name, d.field, d.message, d.fix);
    let diagnostics = built.diagnostics.iter().map(shown).collect();
    (built.stack.unwrap_or_else(|| panic!("{diagnostics:?}")), diagnostics)
}

/// Returns AWS with all that the members request.
fn served(members: &[Requested<'_>]) -> Aws {
    let before = desired(members, &Aws::default());
    Aws::with(&before)
}

/// Returns AWS with all that the members request, and with a record of who has what.
fn recorded(members: &[Requested<'_>]) -> Aws {
    let before = desired(members, &Aws::default());
    let mut aws = Aws::with(&before);
    aws.observed.member_resources = member_resources(&before, &aws.observed, &Default::default());
    aws
}

/// Returns the listeners of a stack, each with the members whose rules and whose certificates it has.
fn listeners(stack: &Stack) -> Vec<String> {
    let of = |listener: &Listener| {
        let rules: Vec<&str> = listener.rules.iter().map(|rule| rule.cause.object.name.name.as_str()).collect();
        let shares = listener.shares.iter().filter(|(_, share)| !share.certificates.is_empty());
        let certified: Vec<&str> = shares.map(|(member, _)| member.name.name.as_str()).collect();
        let (protocol, port) = (listener.protocol, listener.port);
        format!("{protocol} {port}: rules of {}; certificates of {}", rules.join(" "), certified.join(" "))
    };
    stack.listeners.values().map(of).collect()
}

/// Returns the sources that the load balancer's own security group allows.
fn allowed(stack: &Stack) -> Vec<String> {
    let group = stack.security_group.as_ref().unwrap();
    group.ingress.iter().map(|rule| rule.source.to_string()).collect()
}

#[test]
fn without_a_record_a_waiting_member_is_served_only_where_rules_lead_to_it() {
    // Its status names the load balancer, and it was served on no port, or on one.
    let waits: &[(&str, &str)] = &[SECURE, REQUESTED, ("inbound-cidrs", "10.0.0.0/8")];
    let other: Requested<'_> = ("b", &[BOTH, NAMED]);
    let only_the_other = ["HTTP 80: rules of b; certificates of ", "HTTPS 443: rules of b; certificates of b"];
    let mut aws = served(&[other]);
    assert_eq!(listeners(&desired(&[("a", waits), other], &aws)), only_the_other);
    // With a record of the other, too.
    aws.observed.member_resources = recorded(&[other]).observed.member_resources;
    assert_eq!(listeners(&desired(&[("a", waits), other], &aws)), only_the_other);

    let aws = served(&[("a", &[PLAIN]), other]);
    assert_eq!(
        listeners(&desired(&[("a", &[SECURE, REQUESTED]), other], &aws)),
        ["HTTP 80: rules of a b; certificates of ", "HTTPS 443: rules of b; certificates of b"]
    );
    // A certificate that it was served with stays.
    let aws = served(&[("a", &[SECURE, NAMED]), other]);
    assert_eq!(
        listeners(&desired(&[("a", &[SECURE, REQUESTED]), other], &aws)),
        ["HTTP 80: rules of b; certificates of ", "HTTPS 443: rules of a b; certificates of a b"]
    );
}

#[test]
fn a_redirect_is_in_force_for_who_has_its_port() {
    let waits: Requested<'_> = ("a", &[BOTH, REQUESTED, REDIRECTED]);
    let on_443 = "HTTPS 443: rules of b; certificates of b";
    // The listener is another member's, and the one that waits would have no rules at all.
    let plain: Requested<'_> = ("b", &[BOTH, NAMED]);
    let aws = recorded(&[("a", &[PLAIN]), plain]);
    assert_eq!(listeners(&desired(&[waits, plain], &aws)), ["HTTP 80: rules of a b; certificates of ", on_443]);
    // Who redirects with a certificate goes on.
    let redirects: Requested<'_> = ("b", &[BOTH, NAMED, REDIRECTED]);
    let aws = recorded(&[redirects]);
    let stack = desired(&[waits, redirects], &aws);
    assert_eq!(listeners(&stack), ["HTTP 80: rules of ; certificates of ", on_443]);
    assert!(matches!(stack.listeners[&80].default_action, Action::Redirect { .. }));
    // Who has no such port of its own leads to that of others, once it is there.
    let follows: Requested<'_> = ("b", &[PLAIN, REDIRECTED]);
    let aws = recorded(&[("a", &[PLAIN]), ("b", &[PLAIN])]);
    assert_eq!(listeners(&desired(&[waits, follows], &aws)), ["HTTP 80: rules of a b; certificates of "]);
}

#[test]
fn a_port_that_stays_keeps_the_settings_that_aws_has() {
    let aws = recorded(&[("a", &[SECURE, NAMED, OLD_POLICY, VERIFIED]), ("b", &[SECURE, NAMED, OLD_POLICY, VERIFIED])]);
    let waits: Requested<'_> = ("a", &[ON_8443, REQUESTED]);
    let keeps = |stack: &Stack| {
        let listener = &stack.listeners[&443];
        assert_eq!(listener.ssl_policy.as_deref(), Some(OLD_POLICY.1));
        assert!(listener.mutual_authentication.as_ref().is_some_and(|clients| clients.mode() == "verify"));
    };
    // Alone, where nobody requests anything else, and where somebody says the same.
    let both = "HTTPS 443: rules of a b; certificates of a b";
    let others: [(&[Requested<'_>], _); 3] = [
        (&[], "HTTPS 443: rules of a; certificates of a"),
        (&[("b", &[SECURE, NAMED])], both),
        (&[("b", &[SECURE, NAMED, OLD_POLICY, VERIFIED])], both),
    ];
    for (others, expected) in others {
        let stack = desired(&[&[waits], others].concat(), &aws);
        assert_eq!(listeners(&stack), [expected]);
        keeps(&stack);
    }
    // Whoever requests something else waits too.
    let cases = [
        (
            ("mutual-authentication", r#"[{"port": 443, "mode": "off"}]"#),
            "the mutual authentication on port 443 should be `off`, but a group has only one: `verify by trust store arn:aws:elasticloadbalancing:eu-west-1:111122223333:truststore/t/1`",
        ),
        (
            ("ssl-policy", "ELBSecurityPolicy-2016-08"),
            "the TLS policy of port 443 should be `ELBSecurityPolicy-2016-08`, but a group has only one: `ELBSecurityPolicy-TLS13-1-2-2021-06`",
        ),
    ];
    for (setting, message) in cases {
        let (stack, diagnostics) = built(&[waits, ("b", &[SECURE, NAMED, setting])], &aws);
        assert_eq!(diagnostics, [conflict(setting.0, message)]);
        assert_eq!(stack.frozen.members, [ObjectReference::ingress(&ObjectName::new("shop", "b"))].into());
        keeps(&stack);
    }
}

/// Returns the diagnostic of `b`, whose setting differs from that of a port on which `a` is served until its certificate is issued.
fn conflict(key: &str, message: &str) -> String {
    format!(
        "b: alb.ingress.kubernetes.io/{key}: {message}, which the load balancer of the group has, and with which it serves Ingress shop/a until the certificate of that is issued; wait until that certificate is issued, which frees the port, make them agree, or put this Ingress in another group; until then nothing of this Ingress changes"
    )
}

#[test]
fn a_port_that_stays_keeps_its_protocol() {
    let waits: Requested<'_> = ("a", &[SECURE, REQUESTED]);
    // Whoever comes first in the group.
    for other in ["b", "0-first"] {
        let aws = recorded(&[("a", &[PLAIN]), (other, &[ON_8443, NAMED])]);
        let other: Requested<'_> = (other, &[("listen-ports", r#"[{"HTTPS": 80}]"#), NAMED]);
        let (stack, diagnostics) = built(&[waits, other], &aws);
        let message = "the protocol of port 80 should be `HTTPS`, but a group has only one: `HTTP`";
        assert_eq!(diagnostics, [conflict("listen-ports", message).replace("b: ", &format!("{}: ", other.0))]);
        assert_eq!(listeners(&stack), ["HTTP 80: rules of a; certificates of "]);
    }
    let aws = recorded(&[("a", &[SECURE, NAMED])]);
    let (stack, diagnostics) =
        built(&[("a", &[ON_8443, REQUESTED]), ("b", &[("listen-ports", r#"[{"HTTP": 443}]"#)])], &aws);
    let message = "the protocol of port 443 should be `HTTP`, but a group has only one: `HTTPS`";
    assert_eq!(diagnostics, [conflict("listen-ports", message)]);
    assert_eq!(listeners(&stack), ["HTTPS 443: rules of a; certificates of a"]);
}

#[test]
fn whoever_requests_what_a_port_that_stays_has_is_named_as_the_reason() {
    let aws = recorded(&[("a", &[SECURE, NAMED, OLD_POLICY]), ("c", &[SECURE, NAMED, OLD_POLICY])]);
    let (waits, other): (Requested<'_>, Requested<'_>) =
        (("a", &[ON_8443, REQUESTED]), ("c", &[SECURE, NAMED, OLD_POLICY]));
    let differs: Requested<'_> = ("b", &[SECURE, NAMED, ("ssl-policy", "ELBSecurityPolicy-2016-08")]);
    let (_, diagnostics) = built(&[waits, differs, other], &aws);
    assert_eq!(
        diagnostics,
        [
            "b: alb.ingress.kubernetes.io/ssl-policy: the TLS policy of port 443 should be `ELBSecurityPolicy-2016-08`, but a group has only one: `ELBSecurityPolicy-TLS13-1-2-2021-06`, which the load balancer of the group has, and Ingress shop/c requests; make them agree, or put this Ingress in another group; until then nothing of this Ingress changes"
        ]
    );
}

#[test]
fn a_port_that_stays_is_open_as_before() {
    type Settings = &'static [(&'static str, &'static str)];
    // What `a` and `b` named, what they name now, and from where the port can be reached then.
    let cases: Vec<([Settings; 2], [Settings; 2], &[&str])> = vec![
        ([&[TEN], &[]], [&[TEN], &[]], &["10.0.0.0/8"]),
        ([&[TEN], &[]], [&[("inbound-cidrs", "10.0.0.0/8,192.168.0.0/16")], &[]], &["10.0.0.0/8"]),
        ([&[TEN], &[]], [&[("inbound-cidrs", "10.1.0.0/16")], &[]], &["10.0.0.0/8"]),
        ([&[TEN], &[]], [&[("inbound-cidrs", "10.0.0.0/8,fd00::/8")], &[]], &["10.0.0.0/8"]),
        ([&[TEN], &[]], [&[], &[]], &["10.0.0.0/8"]),
        ([&[TEN], &[]], [&[LISTED], &[]], &["10.0.0.0/8"]),
        ([&[LISTED], &[]], [&[TEN], &[]], &["pl-1"]),
        ([&[TEN], &[LISTED]], [&[TEN], &[LISTED]], &["10.0.0.0/8", "pl-1"]),
        ([&[TEN], &[LISTED]], [&[("inbound-cidrs", "10.1.0.0/16")], &[LISTED]], &["10.0.0.0/8", "pl-1"]),
        ([&[TEN], &[]], [&[TEN], &[LISTED]], &["10.0.0.0/8", "pl-1"]),
        ([&[], &[TEN]], [&[], &[]], &["10.0.0.0/8"]),
        ([&[], &[TEN]], [&[], &[ELEVEN]], &["11.0.0.0/8"]),
        ([&[], &[]], [&[TEN], &[]], &["0.0.0.0/0"]),
        ([&[], &[]], [&[TEN], &[ELEVEN]], &["11.0.0.0/8"]),
    ];
    for (before, now, expected) in cases {
        let aws =
            recorded(&[("a", &[&[SECURE, NAMED], before[0]].concat()), ("b", &[&[SECURE, NAMED], before[1]].concat())]);
        let waits = [&[ON_8443, REQUESTED], now[0]].concat();
        let (stack, diagnostics) = built(&[("a", &waits), ("b", &[&[SECURE, NAMED], now[1]].concat())], &aws);
        let of_ipv6 = |text: &&String| !text.contains("the load balancer has only IPv4 addresses");
        assert_eq!(diagnostics.iter().filter(of_ipv6).collect::<Vec<_>>(), Vec::<&String>::new());
        assert_eq!(listeners(&stack), ["HTTPS 443: rules of a b; certificates of a b"]);
        assert_eq!(allowed(&stack), expected, "{before:?} {now:?}");
    }
    // Alone, a member decides.
    let aws = recorded(&[("a", &[SECURE, NAMED, TEN])]);
    assert_eq!(allowed(&desired(&[("a", &[ON_8443, REQUESTED, ELEVEN])], &aws)), ["11.0.0.0/8"]);
    // Of several that wait there, none does.
    let aws = recorded(&[("a", &[SECURE, NAMED, TEN]), ("b", &[SECURE, NAMED])]);
    let stack = desired(&[("a", &[ON_8443, REQUESTED, ELEVEN]), ("b", &[ON_8443, REQUESTED])], &aws);
    assert_eq!(allowed(&stack), ["10.0.0.0/8"]);
    // Whoever names others waits too.
    let (stack, diagnostics) = built(&[("a", &[ON_8443, REQUESTED, TEN]), ("b", &[SECURE, NAMED, ELEVEN])], &aws);
    let message = "the access to port 443 should be `11.0.0.0/8`, but a group has only one: `10.0.0.0/8`";
    assert_eq!(diagnostics, [conflict("inbound-cidrs", message)]);
    assert_eq!(allowed(&stack), ["10.0.0.0/8"]);
    // Beside who is frozen, nothing changes either.
    for edited in [("inbound-cidrs", "0.0.0.0/0"), ELEVEN] {
        let (stack, diagnostics) =
            built(&[("a", &[ON_8443, REQUESTED, edited]), ("b", &[SECURE, NAMED, ("scheme", "nowhere")])], &aws);
        assert_eq!((diagnostics.len(), allowed(&stack)), (1, vec!["10.0.0.0/8".to_owned()]));
    }
}
