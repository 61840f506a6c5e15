//! IngressClassParams: their settings, their precedence over annotations, and the messages about their mistakes.

use super::*;
use crate::{
    desired::{Membership, sources::ingress::membership},
    facts::{ExistingLoadBalancer, FactQuery},
};

fn with(spec: &str, annotations: &[(&str, &str)], config: &BuildConfig, facts: &Facts) -> Built {
    let class = SERVICES.replace(
        "spec: {controller: ingress.k8s.aws/alb}",
        "spec:\n  controller: ingress.k8s.aws/alb\n  parameters: {apiGroup: elbv2.k8s.aws, kind: IngressClassParams, name: team}",
    );
    let params = format!(
        "apiVersion: elbv2.k8s.aws/v1beta1\nkind: IngressClassParams\nmetadata: {{name: team}}\nspec: {spec}\n"
    );
    build_with(&format!("{class}\n---\n{params}---\n{}", ingress(annotations, &everything())), config, facts)
}

fn reported(spec: &str) -> String {
    messages(&with(spec, &[("target-type", "ip")], &config(), &facts()))
}

fn map(pairs: &[(&str, &str)]) -> Attributes {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

const CERTIFICATE: &str = "arn:aws:acm:us-west-2:123456789012:certificate/class";
const ANNOTATIONS: &[(&str, &str)] = &[
    ("scheme", "internet-facing"),
    ("load-balancer-name", "of-ingress"),
    ("certificate-arn", "arn:aws:acm:us-west-2:123456789012:certificate/ingress"),
    ("listen-ports", r#"[{"HTTP": 80}, {"HTTPS": 443}, {"HTTPS": 8443}]"#),
    ("ssl-policy", "OfIngress"),
    ("ssl-redirect", "443"),
    ("inbound-cidrs", "0.0.0.0/0"),
    ("security-group-prefix-lists", "pl-1"),
    ("tags", "by=ingress, also=ingress"),
    ("target-type", "instance"),
    ("load-balancer-attributes", "idle_timeout.timeout_seconds=5, routing.http2.enabled=false"),
    ("listener-attributes.HTTPS-443", "a=ingress, b=ingress"),
    ("listener-attributes.HTTPS-8443", "a=ingress"),
];

#[test]
fn the_class_wins_over_annotations_field_by_field() {
    let spec = format!(
        r#"{{
        scheme: internal, loadBalancerName: of-class, certificateArn: ["{CERTIFICATE}"], sslPolicy: OfClass,
        sslRedirectPort: "8443", inboundCIDRs: [172.16.0.0/12], prefixListsIDs: [pl-2], targetType: ip,
        tags: [{{key: by, value: class}}],
        loadBalancerAttributes: [{{key: idle_timeout.timeout_seconds, value: "77"}}],
        listeners: [
          {{protocol: HTTP, port: 443, listenerAttributes: [{{key: a, value: other}}]}},
          {{protocol: HTTPS, port: 443, listenerAttributes: [{{key: a, value: class}}]}},
          {{protocol: HTTPS, port: 443, listenerAttributes: [{{key: b, value: later}}]}}]}}"#
    );
    let built = with(&spec, ANNOTATIONS, &config(), &facts());
    assert_eq!(messages(&built), "");
    let stack = built.stack.unwrap();
    let balancer = stack.load_balancer.unwrap();
    assert_eq!((balancer.scheme, balancer.name.to_string().as_str()), (Scheme::Internal, "of-class"));
    assert_eq!(balancer.attributes, map(&[("idle_timeout.timeout_seconds", "77"), ("routing.http2.enabled", "false")]));
    let tags = |tags: &Tags| [tags["by"].clone(), tags["also"].clone()];
    let merged = ["class".to_owned(), "ingress".to_owned()];
    let group = &stack.target_groups[0];
    let security_group = stack.security_group.unwrap();
    assert_eq!(group.target_type, TargetType::Ip);
    for found in [&balancer.tags, &security_group.tags, &stack.listeners[&443].tags, &group.tags] {
        assert_eq!(tags(found), merged);
    }
    let https = &stack.listeners[&443];
    assert_eq!(https.default_certificate, Some(CertificateArn::new(CERTIFICATE)));
    assert_eq!(https.ssl_policy.as_deref(), Some("OfClass"));
    assert_eq!(https.attributes, map(&[("a", "class"), ("b", "ingress")]));
    assert_eq!(stack.listeners[&8443].attributes, map(&[("a", "ingress")]));
    assert_eq!(answer(&stack.listeners[&80].default_action), "HTTP_301 HTTPS - 8443 - -");
    let sources: std::collections::BTreeSet<String> =
        security_group.ingress.iter().map(|rule| rule.source.to_string()).collect();
    assert_eq!(sources, ["172.16.0.0/12", "pl-2"].map(str::to_owned).into());
}

#[test]
fn what_the_class_leaves_empty_the_annotations_say() {
    let empty = r#"{loadBalancerName: "", certificateArn: [], sslPolicy: "", sslRedirectPort: "", inboundCIDRs: [], PrefixListsIDs: [], tags: []}"#;
    for spec in ["{}", empty] {
        let built = with(spec, ANNOTATIONS, &config(), &facts());
        let without = built_from_annotations();
        assert_eq!(messages(&built), "");
        assert_eq!(built.stack, Some(without), "{spec}");
    }
}

fn built_from_annotations() -> Stack {
    stack(&ingress(ANNOTATIONS, &everything()))
}

#[test]
fn certificates_of_the_class_make_https_the_default() {
    let built = with(&format!("{{certificateArn: ['{CERTIFICATE}']}}"), &[("target-type", "ip")], &config(), &facts());
    assert_eq!(built.stack.unwrap().listeners.into_keys().collect::<Vec<_>>(), [443]);
}

#[test]
fn subnets_of_the_class_are_looked_up_even_beside_an_existing_load_balancer() {
    let existing = ExistingLoadBalancer {
        kind: LoadBalancerKind::Application,
        scheme: Scheme::Internal,
        has_security_groups: true,
        has_ipv6: false,
        has_quic: false,
        customer_owned_pool: None,
        subnets: [SubnetId::new("subnet-old")].into(),
    };
    let facts = Facts { existing: Some(existing), ..facts() };
    let kind = LoadBalancerKind::Application;
    let annotations = [("target-type", "ip"), ("subnets", "ignored")];
    let ids = with("{subnets: {ids: [subnet-1, subnet-2]}}", &annotations, &config(), &facts);
    let names = vec!["subnet-1".to_owned(), "subnet-2".to_owned()];
    assert_eq!(ids.wants, [FactQuery::Subnets(SubnetQuery::Named { kind, names, ipv6: false })].into());
    let spec = "{ipAddressType: dualstack, subnets: {tags: {team: [web, api], tier: [front]}}}";
    let query = SubnetQuery::Tagged {
        kind,
        tags: [
            ("team".to_owned(), vec!["web".to_owned(), "api".to_owned()]),
            ("tier".to_owned(), vec!["front".to_owned()]),
        ]
        .into(),
        ipv6: true,
    };
    assert_eq!(with(spec, &annotations, &config(), &facts).wants, [FactQuery::Subnets(query.clone())].into());
    let lack = Fact::Absent { message: "vpc-1 has none".to_owned(), fix: "tag some".to_owned() };
    let facts = Facts { subnets: [(query, lack)].into(), ..facts };
    insta::assert_snapshot!(messages(&with(spec, &annotations, &config(), &facts)), @"
    Error subnets on Ingress shop/web: spec.ingressClassName: IngressClassParams team, spec.subnets.tags: vpc-1 has none; tag some
    Error subnets on IngressClassParams team: spec.subnets.tags: vpc-1 has none; tag some
    ");
}

#[test]
fn mistakes_are_told_on_the_class_and_on_the_ingress() {
    insta::assert_snapshot!(reported("{inboundCIDRs: [10.0.0.1/8, office]}"), @"
    Error invalid-value on Ingress shop/web: spec.ingressClassName: IngressClassParams team, spec.inboundCIDRs[0]: `10.0.0.1/8` has bits behind its prefix; write `10.0.0.1/32` or `10.0.0.0/8`
    Error invalid-value on IngressClassParams team: spec.inboundCIDRs[0]: `10.0.0.1/8` has bits behind its prefix; write `10.0.0.1/32` or `10.0.0.0/8`
    Error invalid-value on Ingress shop/web: spec.ingressClassName: IngressClassParams team, spec.inboundCIDRs[1]: `office` is not an address range; write ranges such as `10.0.0.0/8` or `2001:db8::/32`
    Error invalid-value on IngressClassParams team: spec.inboundCIDRs[1]: `office` is not an address range; write ranges such as `10.0.0.0/8` or `2001:db8::/32`
    ");
    insta::assert_snapshot!(reported("{inboundCIDRs: ['2001:db8::1/32']}"), @"
    Error invalid-value on Ingress shop/web: spec.ingressClassName: IngressClassParams team, spec.inboundCIDRs[0]: `2001:db8::1/32` has bits behind its prefix; write `2001:db8::1/64` or `2001:db8::/32`
    Error invalid-value on IngressClassParams team: spec.inboundCIDRs[0]: `2001:db8::1/32` has bits behind its prefix; write `2001:db8::1/64` or `2001:db8::/32`
    ");
    insta::assert_snapshot!(reported("{subnets: {}}"), @"
    Error invalid-value on Ingress shop/web: spec.ingressClassName: IngressClassParams team, spec.subnets: neither `ids` nor `tags` is set; set exactly one of `ids` and `tags`
    Error invalid-value on IngressClassParams team: spec.subnets: neither `ids` nor `tags` is set; set exactly one of `ids` and `tags`
    ");
    insta::assert_snapshot!(reported("{subnets: {ids: [subnet-1], tags: {team: [web]}}}"), @"
    Error invalid-value on Ingress shop/web: spec.ingressClassName: IngressClassParams team, spec.subnets: both `ids` and `tags` are set; set exactly one of `ids` and `tags`
    Error invalid-value on IngressClassParams team: spec.subnets: both `ids` and `tags` are set; set exactly one of `ids` and `tags`
    ");
    insta::assert_snapshot!(reported("{subnets: {ids: [subnet-1, net-2, subnet-1]}}"), @"
    Error invalid-value on Ingress shop/web: spec.ingressClassName: IngressClassParams team, spec.subnets.ids: `net-2` is not the identifier of a subnet; write identifiers such as `subnet-0123456789abcdef0`
    Error invalid-value on IngressClassParams team: spec.subnets.ids: `net-2` is not the identifier of a subnet; write identifiers such as `subnet-0123456789abcdef0`
    Error invalid-value on Ingress shop/web: spec.ingressClassName: IngressClassParams team, spec.subnets.ids: `subnet-1` is named twice; name each subnet once
    Error invalid-value on IngressClassParams team: spec.subnets.ids: `subnet-1` is named twice; name each subnet once
    ");
    insta::assert_snapshot!(reported("{subnets: {ids: []}}"), @"
    Error invalid-value on Ingress shop/web: spec.ingressClassName: IngressClassParams team, spec.subnets.ids: the list is empty; name subnets such as `subnet-0123456789abcdef0`
    Error invalid-value on IngressClassParams team: spec.subnets.ids: the list is empty; name subnets such as `subnet-0123456789abcdef0`
    ");
    insta::assert_snapshot!(reported("{subnets: {tags: {}}}"), @"
    Error invalid-value on Ingress shop/web: spec.ingressClassName: IngressClassParams team, spec.subnets.tags: it names no tag; name a tag and its values
    Error invalid-value on IngressClassParams team: spec.subnets.tags: it names no tag; name a tag and its values
    ");
    insta::assert_snapshot!(reported("{subnets: {tags: {team: [], tier: [a, a]}}}"), @"
    Error invalid-value on Ingress shop/web: spec.ingressClassName: IngressClassParams team, spec.subnets.tags[team]: it names no value; name the values that the tag may have
    Error invalid-value on IngressClassParams team: spec.subnets.tags[team]: it names no value; name the values that the tag may have
    Error invalid-value on Ingress shop/web: spec.ingressClassName: IngressClassParams team, spec.subnets.tags[tier]: the value `a` is named twice; name each value once
    Error invalid-value on IngressClassParams team: spec.subnets.tags[tier]: the value `a` is named twice; name each value once
    ");
    insta::assert_snapshot!(reported("{prefixListsIDs: [pl-1], PrefixListsIDs: [pl-1]}"), @"
    Error invalid-value on Ingress shop/web: spec.ingressClassName: IngressClassParams team, spec.prefixListsIDs: `PrefixListsIDs` is set too, its old spelling; keep one of the two
    Error invalid-value on IngressClassParams team: spec.prefixListsIDs: `PrefixListsIDs` is set too, its old spelling; keep one of the two
    ");
    insta::assert_snapshot!(reported("{prefixListsIDs: [office]}"), @"
    Error invalid-value on Ingress shop/web: spec.ingressClassName: IngressClassParams team, spec.prefixListsIDs: `office` is not the identifier of a prefix list; write identifiers such as `pl-0123456789abcdef0`, separated by commas
    Error invalid-value on IngressClassParams team: spec.prefixListsIDs: `office` is not the identifier of a prefix list; write identifiers such as `pl-0123456789abcdef0`, separated by commas
    ");
    insta::assert_snapshot!(reported("{sslRedirectPort: https}"), @"
    Error invalid-value on Ingress shop/web: spec.ingressClassName: IngressClassParams team, spec.sslRedirectPort: `https` is not a valid port; write the number of an HTTPS port, such as `443`
    Error invalid-value on IngressClassParams team: spec.sslRedirectPort: `https` is not a valid port; write the number of an HTTPS port, such as `443`
    ");
    insta::assert_snapshot!(reported("{sslRedirectPort: '443'}"), @r#"
    Error invalid-value on Ingress shop/web: spec.ingressClassName: IngressClassParams team, spec.sslRedirectPort: requests would be redirected to port 443, which is not an HTTPS listener of this Ingress; add {"HTTPS": 443} to `alb.ingress.kubernetes.io/listen-ports`, or name one of its HTTPS ports
    Error invalid-value on IngressClassParams team: spec.sslRedirectPort: requests would be redirected to port 443, which is not an HTTPS listener of this Ingress; add {"HTTPS": 443} to `alb.ingress.kubernetes.io/listen-ports`, or name one of its HTTPS ports
    "#);
    insta::assert_snapshot!(reported("{certificateArn: [mine]}"), @"
    Error invalid-value on Ingress shop/web: spec.ingressClassName: IngressClassParams team, spec.certificateArn: `mine` is not the ARN of a certificate; write ARNs of ACM or IAM certificates, separated by commas: arn:aws:acm:<region>:<account>:certificate/<id>
    Error invalid-value on IngressClassParams team: spec.certificateArn: `mine` is not the ARN of a certificate; write ARNs of ACM or IAM certificates, separated by commas: arn:aws:acm:<region>:<account>:certificate/<id>
    ");
    insta::assert_snapshot!(reported("{loadBalancerName: -no-}"), @"
    Error invalid-value on Ingress shop/web: spec.ingressClassName: IngressClassParams team, spec.loadBalancerName: `-no-` is not a valid name: it starts or ends with a hyphen; a name has 1 to 32 letters, digits and hyphens, neither starts nor ends with a hyphen, and does not start with `internal-`; choose another name
    Error invalid-value on IngressClassParams team: spec.loadBalancerName: `-no-` is not a valid name: it starts or ends with a hyphen; a name has 1 to 32 letters, digits and hyphens, neither starts nor ends with a hyphen, and does not start with `internal-`; choose another name
    ");
}

#[test]
fn the_pool_of_the_class_counts_whatever_annotations_say() {
    let pool = |spec: &str, annotations: &[(&str, &str)]| {
        let built = with(spec, &[&[("target-type", "ip")], annotations].concat(), &config(), &facts());
        (messages(&built), built.stack.and_then(|stack| stack.load_balancer.unwrap().pools.ipam))
    };
    let facing = ("scheme", "internet-facing");
    let of_class = "{ipamConfiguration: {ipv4IPAMPoolId: ipam-pool-1}}";
    let wanted = |id: &str| (String::new(), IpamPoolId::new(id).ok());
    assert_eq!(pool(of_class, &[facing, ("ipam-ipv4-pool-id", "nonsense")]), wanted("ipam-pool-1"));
    assert_eq!(pool("{ipamConfiguration: {}}", &[facing, ("ipam-ipv4-pool-id", "ipam-pool-2")]), wanted("ipam-pool-2"));
    assert_eq!(pool("{wafv2AclArn: '', wafv2AclName: '', ipamConfiguration: {}}", &[]), wanted(""));
    insta::assert_snapshot!(pool(of_class, &[]).0, @"
    Warning no-effect on Ingress shop/web: spec.ingressClassName: IngressClassParams team, spec.ipamConfiguration.ipv4IPAMPoolId: the load balancer is internal, and an IPAM pool gives only public addresses; remove the setting, or make the load balancer internet-facing
    Warning no-effect on IngressClassParams team: spec.ipamConfiguration.ipv4IPAMPoolId: the load balancer is internal, and an IPAM pool gives only public addresses; remove the setting, or make the load balancer internet-facing
    ");
    insta::assert_snapshot!(pool("{ipamConfiguration: {ipv4IPAMPoolId: mine}}", &[facing]).0, @"
    Error invalid-value on Ingress shop/web: spec.ingressClassName: IngressClassParams team, spec.ipamConfiguration.ipv4IPAMPoolId: `mine` is not the id of an IPAM pool; write an id such as `ipam-pool-0123456789abcdef0`, or remove the setting
    Error invalid-value on IngressClassParams team: spec.ipamConfiguration.ipv4IPAMPoolId: `mine` is not the id of an IPAM pool; write an id such as `ipam-pool-0123456789abcdef0`, or remove the setting
    ");
}

#[test]
fn a_tag_that_others_manage_is_told_where_it_stands() {
    let config = BuildConfig { external_managed_tags: ["by".to_owned()].into(), ..config() };
    let built = with("{tags: [{key: by, value: class}]}", &[("target-type", "ip")], &config, &facts());
    insta::assert_snapshot!(messages(&built), @"
    Error invalid-value on Ingress shop/web: spec.ingressClassName: IngressClassParams team, spec.tags: the tag `by` is managed outside of the cluster (--external-managed-tags); remove it from the field
    Error invalid-value on IngressClassParams team: spec.tags: the tag `by` is managed outside of the cluster (--external-managed-tags); remove it from the field
    ");
}

/// A group `edge` of two classes: `shop/web` and then `shop/api`, whose class says what `spec` does.
fn group_of_two(web: &[(&str, &str)], spec: &str, facts: &Facts) -> (Built, Membership) {
    let rule = format!("  rules:\n{}", rules("api.example.com", &[("Prefix", "/", "api", "80")]));
    let api = ingress(&[("group.name", "edge"), ("group.order", "1")], &rule)
        .replace("name: web\n  namespace", "name: api\n  namespace")
        .replace("ingressClassName: alb", "ingressClassName: team");
    let web = ingress(&[&[("group.name", "edge"), ("target-type", "ip")], web].concat(), &everything());
    let manifests = format!(
        "{SERVICES}\n---\n{web}\n---\n{api}\n---\napiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {{name: team}}\nspec:\n  controller: ingress.k8s.aws/alb\n  parameters: {{apiGroup: elbv2.k8s.aws, kind: IngressClassParams, name: team}}\n---\napiVersion: elbv2.k8s.aws/v1beta1\nkind: IngressClassParams\nmetadata: {{name: team}}\nspec: {spec}\n"
    );
    let (snapshot, group) = (snapshot(&manifests), StackId::Group("edge".to_owned()));
    let members = membership(&snapshot, &config(), &group);
    (build(&snapshot, &config(), facts, &group, &members), members)
}

#[test]
fn the_class_chooses_the_group_before_the_annotation() {
    let both = vec![web(), ObjectName::new("shop", "api")];
    assert_eq!(group_of_two(&[], "{}", &facts()).1.members, both);
    assert_eq!(group_of_two(&[], "{group: {name: edge}}", &facts()).1.members, both);
    assert_eq!(group_of_two(&[], "{group: {name: other}}", &facts()).1.members, both[..1]);
    // A name that is not valid is reported to the Ingress on its own, as its annotation's would be.
    assert_eq!(group_of_two(&[], "{group: {name: Upper}}", &facts()).1.members, both[..1]);
    let manifests = format!(
        "{}{}{}",
        ingress(&[], &everything()),
        "\n---\napiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {name: alb}\nspec: {controller: ingress.k8s.aws/alb, parameters: {apiGroup: elbv2.k8s.aws, kind: IngressClassParams, name: team}}\n",
        "---\napiVersion: elbv2.k8s.aws/v1beta1\nkind: IngressClassParams\nmetadata: {name: team}\nspec: {group: {name: Upper}}\n"
    );
    let alone = membership(&snapshot(&manifests), &config(), &StackId::Ingress(web()));
    insta::assert_snapshot!(alone.broken[0], @"spec.ingressClassName: IngressClassParams team, spec.group.name: `Upper` is not a valid name of a group; write at most 63 of `a-z`, `0-9`, `-` and `.`, beginning and ending with a letter or digit");
}

#[test]
fn attributes_of_the_class_count_of_the_first_member_alone_and_need_nobodys_consent() {
    let class = "{targetType: ip, loadBalancerAttributes: [{key: idle_timeout.timeout_seconds, value: '9'}]}";
    let (built, _) = group_of_two(&[("load-balancer-attributes", "idle_timeout.timeout_seconds=5")], class, &facts());
    assert_eq!(messages(&built), "");
    let attributes = built.stack.unwrap().load_balancer.unwrap().attributes;
    assert_eq!(attributes, map(&[("idle_timeout.timeout_seconds", "5")]));
}

#[test]
fn who_asks_by_its_class_for_something_else_than_its_group_is_told_there_too() {
    let (built, _) = group_of_two(
        &[("scheme", "internal"), ("subnets", "subnet-1, subnet-2")],
        "{targetType: ip, scheme: internet-facing, subnets: {ids: [subnet-1, subnet-2]}}",
        &facts(),
    );
    insta::assert_snapshot!(messages(&built), @"
    Error conflict on Ingress shop/api: spec.ingressClassName: IngressClassParams team, spec.scheme: the scheme should be `internet-facing`, but a group has only one: `internal`, requested by Ingress shop/web, the first of the group that requests one; make them agree, or put this Ingress in another group; until then nothing of this Ingress changes
    Error conflict on IngressClassParams team: spec.scheme: the scheme should be `internet-facing`, but a group has only one: `internal`, requested by Ingress shop/web, the first of the group that requests one; make them agree, or put this Ingress in another group; until then nothing of this Ingress changes
    ");
}

#[test]
fn the_scheme_does_not_change_while_somebody_is_set_aside() {
    let there = ExistingLoadBalancer {
        kind: LoadBalancerKind::Application,
        scheme: Scheme::Internal,
        has_security_groups: true,
        has_ipv6: false,
        has_quic: false,
        customer_owned_pool: None,
        subnets: [SubnetId::new("subnet-old")].into(),
    };
    let current = Some(Box::new(ObservedStack::default()));
    let facts = Facts { existing: Some(there), current, ..facts() };
    let (built, _) = group_of_two(&[("scheme", "internet-facing")], "{sslRedirectPort: none}", &facts);
    insta::assert_snapshot!(messages(&built), @"
    Error invalid-value on Ingress shop/api: spec.ingressClassName: IngressClassParams team, spec.sslRedirectPort: `none` is not a valid port; write the number of an HTTPS port, such as `443`
    Error invalid-value on IngressClassParams team: spec.sslRedirectPort: `none` is not a valid port; write the number of an HTTPS port, such as `443`
    Error replacement-needed on Ingress shop/web: alb.ingress.kubernetes.io/scheme: the scheme becomes internet-facing, which needs another load balancer, and that would lack the resources of Ingress shop/api, which cannot be built at the moment; wait until that is fixed; until then nothing of this Ingress changes
    ");
    assert_eq!(built.frozen, [web(), ObjectName::new("shop", "api")].into());
}

/// Returns the allowed sources, and the address type of the load balancer.
fn addresses(annotations: &[(&str, &str)]) -> String {
    let six = SubnetQuery::Discovered { kind: LoadBalancerKind::Application, scheme: Scheme::Internal, ipv6: true };
    let mut facts = facts();
    facts.subnets.insert(six, Fact::Known(vec![subnet("subnet-a"), subnet("subnet-b")]));
    let ingress = ingress(&[&[("target-type", "ip")], annotations].concat(), &everything());
    let built = build_with(&format!("{SERVICES}\n---\n{ingress}"), &config(), &facts);
    let mut text = messages(&built);
    if let Some(stack) = built.stack {
        let sources = stack.security_group.iter().flat_map(|group| &group.ingress).map(|rule| rule.source.to_string());
        let sources = sources.collect::<Vec<_>>().join(" ");
        writeln!(text, "{}: {sources}", stack.load_balancer.unwrap().ip_address_type).unwrap();
    }
    text
}

#[test]
fn a_dualstack_load_balancer_lets_in_ipv6_too() {
    let dualstack = ("ip-address-type", "dualstack");
    insta::assert_snapshot!(addresses(&[]), @"ipv4: 0.0.0.0/0");
    insta::assert_snapshot!(addresses(&[dualstack]), @"dualstack: 0.0.0.0/0 ::/0");
    insta::assert_snapshot!(addresses(&[("ip-address-type", "dualstack-without-public-ipv4")]), @"dualstack-without-public-ipv4: 0.0.0.0/0 ::/0");
    insta::assert_snapshot!(addresses(&[dualstack, ("inbound-cidrs", "10.0.0.0/8, 2001:db8::1/32")]), @"dualstack: 10.0.0.0/8 2001:db8::/32");
    insta::assert_snapshot!(addresses(&[dualstack, ("inbound-cidrs", "::/0")]), @"dualstack: ::/0");
    insta::assert_snapshot!(addresses(&[dualstack, ("security-group-prefix-lists", "pl-1")]), @"dualstack: pl-1");
    insta::assert_snapshot!(addresses(&[("ip-address-type", "ipv6")]), @"Error invalid-value on Ingress shop/web: annotation `alb.ingress.kubernetes.io/ip-address-type` has the value `ipv6`; allowed: `ipv4`, `dualstack` or `dualstack-without-public-ipv4`; write `ipv4`");
}

#[test]
fn a_load_balancer_that_becomes_dualstack_keeps_its_subnets_where_they_can_be() {
    let kept = ["subnet-1", "subnet-2"];
    let existing = ExistingLoadBalancer {
        kind: LoadBalancerKind::Application,
        scheme: Scheme::Internal,
        has_security_groups: true,
        has_ipv6: false,
        has_quic: false,
        customer_owned_pool: None,
        subnets: kept.map(SubnetId::new).into(),
    };
    let facts = Facts { existing: Some(existing), ..facts() };
    let ingress = ingress(&[("target-type", "ip"), ("ip-address-type", "dualstack")], &everything());
    let built = build_with(&format!("{SERVICES}\n---\n{ingress}"), &config(), &facts);
    let names = kept.map(str::to_owned).to_vec();
    let query = SubnetQuery::Named { kind: LoadBalancerKind::Application, names, ipv6: true };
    assert_eq!(built.wants, [FactQuery::Subnets(query)].into());
}

#[test]
fn targets_of_a_service_with_ipv6_need_a_dualstack_load_balancer() {
    let services = SERVICES.replacen("type: NodePort", "type: NodePort\n  ipFamilies: [IPv4, IPv6]", 1);
    let six = SubnetQuery::Discovered { kind: LoadBalancerKind::Application, scheme: Scheme::Internal, ipv6: true };
    let mut facts = facts();
    facts.subnets.insert(six, Fact::Known(vec![subnet("subnet-a"), subnet("subnet-b")]));
    let built = |annotations: &[(&str, &str)]| {
        build_with(&format!("{services}\n---\n{}", ingress(annotations, &everything())), &config(), &facts)
    };
    insta::assert_snapshot!(messages(&built(&[("target-type", "ip")])), @"Error unsupported on Ingress shop/web: spec.rules[0].http.paths[0].backend.service: the Service `shop/web` has IPv6 addresses, and its load balancer has only IPv4 addresses; set `alb.ingress.kubernetes.io/ip-address-type: dualstack`, or `spec.ipFamilies: [IPv4]` on the Service");
    for target_type in ["ip", "instance"] {
        let stack = built(&[("target-type", target_type), ("ip-address-type", "dualstack")]).stack.unwrap();
        assert_eq!(stack.target_groups[0].ip_address_type, IpAddressType::Ipv6);
    }
}

#[test]
fn the_capacity_of_the_class_counts_whatever_annotations_say() {
    let built = with(
        "{minimumLoadBalancerCapacity: {capacityUnits: 3000}}",
        &[("target-type", "ip"), ("minimum-load-balancer-capacity", "CapacityUnits=many")],
        &config(),
        &facts(),
    );
    assert_eq!(messages(&built), "");
    let capacity = built.stack.unwrap().load_balancer.unwrap().add_ons.capacity.unwrap();
    assert_eq!(capacity.value.units(), 3000);
    insta::assert_snapshot!(capacity.cause.field, @"spec.minimumLoadBalancerCapacity.capacityUnits of IngressClassParams team");
    insta::assert_snapshot!(reported("{minimumLoadBalancerCapacity: {capacityUnits: -1}}"), @"
    Error invalid-value on Ingress shop/web: spec.ingressClassName: IngressClassParams team, spec.minimumLoadBalancerCapacity.capacityUnits: `-1` is not a number of capacity units; write a number; 0 ends the reservation
    Error invalid-value on IngressClassParams team: spec.minimumLoadBalancerCapacity.capacityUnits: `-1` is not a number of capacity units; write a number; 0 ends the reservation
    ");
    let gate = BuildConfig { capacity_reservation: false, ..config() };
    let built = with("{minimumLoadBalancerCapacity: {capacityUnits: 1}}", &[("target-type", "ip")], &gate, &facts());
    insta::assert_snapshot!(messages(&built), @"
    Warning no-effect on Ingress shop/web: spec.ingressClassName: IngressClassParams team, spec.minimumLoadBalancerCapacity.capacityUnits: the controller runs with `--feature-gates=LBCapacityReservation=false`, so that the reserved capacity of the load balancer stays as it is; start the controller with `--feature-gates=LBCapacityReservation=true`, or remove the setting
    Warning no-effect on IngressClassParams team: spec.minimumLoadBalancerCapacity.capacityUnits: the controller runs with `--feature-gates=LBCapacityReservation=false`, so that the reserved capacity of the load balancer stays as it is; start the controller with `--feature-gates=LBCapacityReservation=true`, or remove the setting
    ");
}
