//! The owner of a Service, and the release of one that another controller owns.

use super::*;

fn of(manifest: &str, config: &BuildConfig) -> Ownership {
    ownership(&snapshot(manifest).services[&web()], config)
}

#[test]
fn class_and_annotations_decide() {
    use Ownership::{Foreign, Ours};
    const TYPE: &str = "aws-load-balancer-type";
    let plain = "  type: LoadBalancer\n";
    let node_port = "  type: NodePort\n";
    let other = "  type: LoadBalancer\n  loadBalancerClass: example.com/x\n";
    for (annotations, spec, expected) in [
        (&[][..], CLASS, Ours),
        (&[(TYPE, "nlb")], CLASS, Ours),
        (&[(TYPE, "nlb-ip")], other, Foreign),
        (&[], plain, Foreign),
        (&[(TYPE, "nlb")], plain, Foreign),
        (&[(TYPE, "nlb"), IP], plain, Foreign),
        (&[(TYPE, "nlb-ip")], plain, Ours),
        (&[(TYPE, "nlb-ip")], node_port, Ours),
        (&[(TYPE, "external")], plain, Foreign),
        (&[(TYPE, "external"), IP], plain, Ours),
        (&[(TYPE, "external"), ("aws-load-balancer-nlb-target-type", "instance")], node_port, Ours),
        (&[(TYPE, "external"), ("aws-load-balancer-nlb-target-type", "IP")], plain, Foreign),
        (&[(TYPE, " nlb-ip")], plain, Foreign),
    ] {
        assert_eq!(of(&service(annotations, spec), &config()), expected, "{annotations:?} {spec}");
    }
    let only = BuildConfig { service_type_load_balancer_only: true, ..config() };
    assert_eq!(of(&service(&[(TYPE, "nlb-ip")], node_port), &only), Foreign);
    assert_eq!(of(&service(&[(TYPE, "nlb-ip")], plain), &only), Ours);
    let own = BuildConfig { load_balancer_class: "example.com/x".to_owned(), ..config() };
    assert_eq!((of(&service(&[], other), &own), of(&service(&[], CLASS), &own)), (Ours, Foreign));
}

#[test]
fn a_service_of_another_type_publishes_no_status_although_it_keeps_one() {
    const TYPE: (&str, &str) = ("aws-load-balancer-type", "nlb-ip");
    let with_status =
        |manifest: &str| format!("{manifest}status: {{loadBalancer: {{ingress: [{{hostname: NLB.example.com}}]}}}}\n");
    let published = |manifest: &str| -> Vec<String> {
        let snapshot = snapshot(manifest);
        let status = crate::desired::published(&snapshot, &StackId::Service(web()), &web());
        status.iter().map(|entry| entry.hostname.clone()).collect()
    };
    let shown = ["NLB.example.com".to_owned()];
    assert_eq!(published(&with_status(&service(&[TYPE], "  type: LoadBalancer\n"))), shown);
    assert_eq!(published(&with_status(&service(&[TYPE], "  type: NodePort\n"))), [""; 0]);
    assert_eq!(published(&service(&[], CLASS)), [""; 0]);
}

fn held(annotations: &[(&str, &str)], spec: &str) -> String {
    service(annotations, spec).replace("  generation: 3\n", "  finalizers: [service.k8s.aws/resources]\n")
}

#[test]
fn what_is_not_ours_any_more_goes() {
    let empty = Some(Stack::empty(StackId::Service(web())));
    let plain = "  type: LoadBalancer\n";
    let going =
        held(&[], CLASS).replace("  annotations:", "  deletionTimestamp: '2026-01-01T00:00:00Z'\n  annotations:");
    for (manifest, expected) in [
        (held(&[], plain), &empty),
        (held(&[("aws-load-balancer-attributes", "deletion_protection.enabled=false")], plain), &empty),
        (going, &empty),
        (service(&[("aws-load-balancer-scheme", "nonsense")], plain), &None),
        ("apiVersion: v1\nkind: Service\nmetadata: {name: other, namespace: shop}\n".to_owned(), &None),
    ] {
        let built = build_with(&manifest, &config(), &Facts::default());
        assert_eq!((&built.stack, &*messages(&built)), (expected, ""), "{manifest}");
    }
}

#[test]
fn a_protected_load_balancer_stays() {
    let protected = |value: &str| {
        let manifest = held(
            &[("aws-load-balancer-attributes", &format!("deletion_protection.enabled={value}"))],
            "  type: LoadBalancer\n",
        );
        let built = build_with(&manifest, &config(), &Facts::default());
        assert_eq!(built.stack, None);
        messages(&built)
    };
    insta::assert_snapshot!(protected("true"), @"Error invalid-value on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-attributes: the load balancer is protected from deletion, so it stays, and the Service with it; write `deletion_protection.enabled=false` in the annotation if it may be deleted");
    insta::assert_snapshot!(protected("yes"), @"Error invalid-value on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-attributes: `deletion_protection.enabled=yes`: it is not a boolean, so the load balancer stays; write `deletion_protection.enabled=false` in the annotation if it may be deleted");
}

#[test]
fn a_load_balancer_that_is_protected_in_aws_stays_until_its_service_or_aws_lets_it_go() {
    let of = |annotations: &[(&str, &str)], protected: Option<&[&str]>| {
        let protected = protected.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        let facts = Facts { protected, ..existing(Scheme::Internal, true) };
        build_with(&held(annotations, "  type: LoadBalancer\n"), &config(), &facts)
    };
    let unknown = of(&[], None);
    assert_eq!((unknown.stack, unknown.wants), (None, [crate::facts::FactQuery::Protection].into()));
    let empty = Stack::empty(StackId::Service(web()));
    assert_eq!(of(&[], Some(&[])).stack, Some(empty.clone()));
    let refused = of(&[], Some(&["k8s-shop-web"]));
    assert!(refused.stack.is_none() && refused.lacking);
    insta::assert_snapshot!(messages(&refused), @"Error refused on Service shop/web: service.beta.kubernetes.io/aws-load-balancer-attributes: the load balancer `k8s-shop-web` is protected from deletion in AWS (`deletion_protection.enabled`), so it stays, and the Service with it; write `deletion_protection.enabled=false` in the annotation, or switch the protection off in AWS, if the load balancer may be deleted");
    let off = [("aws-load-balancer-attributes", "deletion_protection.enabled=false")];
    assert_eq!(of(&off, Some(&["k8s-shop-web"])).stack, Some(Stack { unprotect: true, ..empty }));
}

#[test]
fn our_own_load_balancer_is_not_taken_for_the_cloud_providers() {
    const HOST: &str = "k8s-shop-web-1.elb.eu-west-1.amazonaws.com";
    let status = format!("{CLASS}{PORT}status: {{loadBalancer: {{ingress: [{{hostname: {HOST}}}]}}}}\n");
    let finalizers = "  finalizers: [service.kubernetes.io/load-balancer-cleanup]\n";
    let manifest = service(&[], &status).replace("  generation: 3\n", finalizers);
    let ours = Facts { hostnames: [HOST.to_owned()].into(), ..existing(Scheme::Internal, true) };
    let built = build_with(&manifest, &config(), &ours);
    assert_eq!((messages(&built), built.stack.is_some()), (String::new(), true));
    assert_eq!(build_with(&manifest, &config(), &existing(Scheme::Internal, true)).stack, None);
}

#[test]
fn listeners_have_no_tags_where_the_gate_says_so() {
    let untagged = BuildConfig { tag_listeners_and_rules: false, ..config() };
    let tags = |config: &BuildConfig| {
        let built = build_with(&service(&[], &format!("{CLASS}{PORT}")), config, &facts());
        built.stack.unwrap().listeners[&80].tags.len()
    };
    assert_eq!((tags(&untagged), tags(&config()) > 0), (0, true));
}

#[test]
fn a_load_balancer_of_the_cloud_provider_is_not_orphaned_silently() {
    const HOST: &str = "a1b2-123.eu-west-1.elb.amazonaws.com";
    let classic = |annotations: &[(&str, &str)]| {
        let status = format!("{CLASS}{PORT}status: {{loadBalancer: {{ingress: [{{hostname: {HOST}}}]}}}}\n");
        let finalizers = "  finalizers: [service.kubernetes.io/load-balancer-cleanup]\n";
        let manifest = service(annotations, &status).replace("  generation: 3\n", finalizers);
        build_with(&manifest, &config(), &facts())
    };
    insta::assert_snapshot!(messages(&classic(&[])), @"Error replacement-needed on Service shop/web: status.loadBalancer.ingress: the Service still has the load balancer `a1b2-123.eu-west-1.elb.amazonaws.com` of the cloud provider built into Kubernetes (finalizer `service.kubernetes.io/load-balancer-cleanup`); if this controller took the Service, no controller would manage or delete that load balancer; make a second Service for the Network Load Balancer and delete this one when clients have moved; or write `service.beta.kubernetes.io/albatross-acknowledge-orphaned-load-balancer: a1b2-123.eu-west-1.elb.amazonaws.com` to let this controller take it all the same, then delete the old load balancer in AWS and remove that finalizer yourself");
    assert_eq!(classic(&[]).stack, None);
    let key = "albatross-acknowledge-orphaned-load-balancer";
    assert_eq!(classic(&[(key, "another.elb.amazonaws.com")]).stack, None);
    let taken = classic(&[(key, HOST)]);
    assert_eq!((messages(&taken), taken.stack.is_some()), (String::new(), true));
}
