//! The owner of an Ingress, and the members of a group.

use super::{
    super::class::{Ownership, ownership},
    *,
};
use crate::desired::{
    Membership,
    sources::ingress::{groups_of, membership},
};

fn class(name: &str, controller: &str, rest: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {{name: {name}{}}}\nspec: {{controller: {controller}{rest}}}\n",
        if rest.contains("default") { ", annotations: {ingressclass.kubernetes.io/is-default-class: 'true'}" } else { "" }
    )
    .replace(", default", "")
}

fn object(metadata: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: web, namespace: shop{metadata}}}\nspec: {{{spec}}}\n"
    )
}

const OURS: &str = "ingress.k8s.aws/alb";
const PARAMETERS: &str = ", parameters: {apiGroup: elbv2.k8s.aws, kind: IngressClassParams, name: p}";
const NAMESPACE: &str = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {team: web}}\n";

fn params(spec: &str) -> String {
    format!("---\napiVersion: elbv2.k8s.aws/v1beta1\nkind: IngressClassParams\nmetadata: {{name: p}}\nspec: {spec}\n")
}

#[test]
fn the_class_decides() {
    let annotated = |value: &str| format!(", annotations: {{kubernetes.io/ingress.class: '{value}'}}");
    let default_flag = config();
    let other_flag = BuildConfig { ingress_class: "edge".to_owned(), ..config() };
    let empty_flag = BuildConfig { ingress_class: String::new(), ..config() };
    let named = |name: &str| format!("ingressClassName: {name}");
    for (what, metadata, spec, classes, flags, expected) in [
        // Only the annotation decides.
        ("annotation", annotated("alb"), String::new(), String::new(), &default_flag, "ours"),
        ("annotation beats spec", annotated("alb"), named("nginx"), class("nginx", "nginx", ""), &default_flag, "ours"),
        ("annotation of another", annotated("nginx"), named("alb"), class("alb", OURS, ""), &default_flag, "foreign"),
        ("annotation and flag", annotated("edge"), String::new(), String::new(), &other_flag, "ours"),
        ("annotation against flag", annotated("alb"), String::new(), String::new(), &other_flag, "foreign"),
        ("annotation alb, flag empty", annotated("alb"), String::new(), String::new(), &empty_flag, "ours"),
        ("annotation empty, flag empty", annotated(""), String::new(), String::new(), &empty_flag, "ours"),
        ("annotation empty", annotated(""), String::new(), String::new(), &default_flag, "foreign"),
        // The class that the spec names; its controller counts, and not its name or the flag.
        ("spec", String::new(), named("alb"), class("alb", OURS, ""), &default_flag, "ours"),
        ("spec, any name", String::new(), named("public"), class("public", OURS, ""), &default_flag, "ours"),
        ("spec, any flag", String::new(), named("alb"), class("alb", OURS, ""), &other_flag, "ours"),
        (
            "spec of another",
            String::new(),
            named("nginx"),
            class("nginx", "k8s.io/nginx", ""),
            &default_flag,
            "foreign",
        ),
        (
            "spec names one of two",
            String::new(),
            named("a"),
            class("a", OURS, ", default") + &class("b", OURS, ", default"),
            &default_flag,
            "ours",
        ),
        // The default class.
        ("default", String::new(), String::new(), class("alb", OURS, ", default"), &default_flag, "ours"),
        (
            "default of another",
            String::new(),
            String::new(),
            class("nginx", "nginx", ", default"),
            &default_flag,
            "foreign",
        ),
        ("no default", String::new(), String::new(), class("alb", OURS, ""), &default_flag, "foreign"),
        ("no default, flag empty", String::new(), String::new(), class("alb", OURS, ""), &empty_flag, "ours"),
        (
            "default of another, flag empty",
            String::new(),
            String::new(),
            class("nginx", "nginx", ", default"),
            &empty_flag,
            "foreign",
        ),
        // Selectors that cannot be evaluated.
        ("missing", String::new(), named("alb"), String::new(), &default_flag, "broken"),
        (
            "two defaults",
            String::new(),
            String::new(),
            class("a", OURS, ", default") + &class("b", "nginx", ", default"),
            &default_flag,
            "broken",
        ),
        (
            "parameters",
            String::new(),
            named("alb"),
            class("alb", OURS, ", parameters: {apiGroup: elbv2.k8s.aws, kind: IngressClassParams, name: p}"),
            &default_flag,
            "broken",
        ),
        (
            "parameters that exist",
            String::new(),
            named("alb"),
            class("alb", OURS, PARAMETERS) + &params("{}"),
            &default_flag,
            "ours",
        ),
        (
            "parameters for this namespace",
            String::new(),
            named("alb"),
            class("alb", OURS, PARAMETERS) + &params("{namespaceSelector: {matchLabels: {team: web}}}") + NAMESPACE,
            &default_flag,
            "ours",
        ),
        (
            "parameters for every namespace",
            String::new(),
            named("alb"),
            class("alb", OURS, PARAMETERS) + &params("{namespaceSelector: {}}") + NAMESPACE,
            &default_flag,
            "ours",
        ),
        (
            "parameters for other namespaces",
            String::new(),
            named("alb"),
            class("alb", OURS, PARAMETERS) + &params("{namespaceSelector: {matchLabels: {team: api}}}") + NAMESPACE,
            &default_flag,
            "broken",
        ),
        (
            "the annotation knows no parameters",
            annotated("alb"),
            named("alb"),
            class("alb", OURS, PARAMETERS) + &params("{namespaceSelector: {matchLabels: {team: api}}}"),
            &default_flag,
            "ours",
        ),
        (
            "parameters of another",
            String::new(),
            named("nginx"),
            class("nginx", "nginx", ", parameters: {apiGroup: g, kind: K, name: p}"),
            &default_flag,
            "foreign",
        ),
    ] {
        let snapshot = snapshot(&format!("{}{classes}", object(&metadata, &spec)));
        let found = match ownership(&snapshot.ingresses[&web()], &snapshot, flags) {
            Ownership::Ours(_) => "ours",
            Ownership::Foreign => "foreign",
            Ownership::Broken(_) => "broken",
        };
        assert_eq!(found, expected, "{what}");
    }
}

#[test]
fn a_class_that_cannot_be_followed_is_explained() {
    let message = |spec: &str, classes: &str| {
        let snapshot = snapshot(&format!("{}{classes}", object("", spec)));
        match ownership(&snapshot.ingresses[&web()], &snapshot, &config()) {
            Ownership::Broken(diagnostic) => diagnostic.to_string(),
            other => panic!("{other:?}"),
        }
    };
    insta::assert_snapshot!(message("ingressClassName: alb", ""), @"spec.ingressClassName: the IngressClass `alb` does not exist; create it, or name another class");
    insta::assert_snapshot!(message("", &(class("a", OURS, ", default") + &class("b", "nginx", ", default"))), @"spec.ingressClassName: no class is named, and several IngressClasses are the default: `a` and `b`; name the class, or remove the annotation `ingressclass.kubernetes.io/is-default-class` from all but one");
    let named = |rest: &str| message("ingressClassName: alb", &(class("alb", OURS, PARAMETERS) + rest));
    insta::assert_snapshot!(named(""), @"spec.ingressClassName: the IngressClass `alb` has parameters (IngressClassParams `p`), which do not exist; create them, or name another class");
    insta::assert_snapshot!(message("ingressClassName: alb", &class("alb", OURS, ", parameters: {kind: ConfigMap, name: p}")), @"spec.ingressClassName: the IngressClass `alb` has parameters of a kind that is not known: ConfigMap `p`; name an IngressClassParams of elbv2.k8s.aws in its `spec.parameters`");
    insta::assert_snapshot!(message("ingressClassName: alb", &class("alb", OURS, ", parameters: {apiGroup: example.com, kind: IngressClassParams, name: p}")), @"spec.ingressClassName: the IngressClass `alb` has parameters of a kind that is not known: IngressClassParams.example.com `p`; name an IngressClassParams of elbv2.k8s.aws in its `spec.parameters`");
    let others = params("{namespaceSelector: {matchExpressions: [{key: team, operator: NotIn, values: [web]}]}}");
    insta::assert_snapshot!(named(&(others.clone() + NAMESPACE)), @"spec.ingressClassName: the IngressClass `alb` is not for the namespace `shop`: the `spec.namespaceSelector` of IngressClassParams `p` does not match its labels; name another class, or ask the owner of the class to allow this namespace");
    insta::assert_snapshot!(named(&others), @"spec.ingressClassName: IngressClassParams `p` select namespaces by their labels, and those of the Namespace `shop` are not known; add the Namespace to the manifests");
    let wrong = params("{namespaceSelector: {matchExpressions: [{key: team, operator: Like}]}}");
    insta::assert_snapshot!(named(&(wrong + NAMESPACE)), @"spec.ingressClassName: the `spec.namespaceSelector` of IngressClassParams `p` cannot be evaluated: `Like` is not an operator of a label selector; write In, NotIn, Exists or DoesNotExist; correct the IngressClassParams");
    let mut snapshot = snapshot(&format!("{}{}", object("", "ingressClassName: alb"), class("alb", OURS, PARAMETERS)));
    snapshot.unreadable.insert("IngressClassParams", "install the CustomResourceDefinition".to_owned());
    let Ownership::Broken(unreadable) = ownership(&snapshot.ingresses[&web()], &snapshot, &config()) else { panic!() };
    insta::assert_snapshot!(unreadable, @"spec.ingressClassName: the IngressClass `alb` has parameters (IngressClassParams `p`), which cannot be read; install the CustomResourceDefinition");
}

#[derive(Debug, PartialEq)]
enum Is {
    Member,
    Leaving,
    Broken,
    Nothing,
}

fn standing(membership: &Membership) -> Is {
    assert_eq!(membership.is_empty(), *membership == Membership::default());
    match (membership.members.len(), membership.leaving.len(), membership.broken.len()) {
        (1, 0, 0) => Is::Member,
        (0, 1, 0) => Is::Leaving,
        (1, 0, 1) if membership.frozen.len() == 1 => Is::Broken,
        (0, 0, 1) => Is::Broken,
        (0, 0, 0) => Is::Nothing,
        _ => panic!("{membership:?}"),
    }
}

#[test]
fn membership_follows_class_finalizer_and_deletion() {
    let held = ", finalizers: [ingress.k8s.aws/resources]";
    let deleting = ", deletionTimestamp: '2026-01-01T00:00:00Z'";
    let ours = || class("alb", OURS, "");
    let foreign = || class("alb", "nginx", "");
    let parameters =
        || class("alb", OURS, ", parameters: {apiGroup: elbv2.k8s.aws, kind: IngressClassParams, name: p}");
    for (what, metadata, classes, expected) in [
        ("new", String::new(), ours(), Is::Member),
        ("held", held.to_owned(), ours(), Is::Member),
        ("deleted and held", format!("{held}{deleting}"), ours(), Is::Leaving),
        (
            "deleted, held and protected",
            format!(
                "{held}{deleting}, annotations: {{alb.ingress.kubernetes.io/load-balancer-attributes: 'deletion_protection.enabled=True'}}"
            ),
            ours(),
            Is::Broken,
        ),
        (
            "deleted, held, protection taken off",
            format!(
                "{held}{deleting}, annotations: {{alb.ingress.kubernetes.io/load-balancer-attributes: 'deletion_protection.enabled=false'}}"
            ),
            ours(),
            Is::Leaving,
        ),
        (
            "class changed away, protected",
            format!(
                "{held}, annotations: {{alb.ingress.kubernetes.io/load-balancer-attributes: 'deletion_protection.enabled=true'}}"
            ),
            foreign(),
            Is::Leaving,
        ),
        ("deleted and held by others", deleting.to_owned(), ours(), Is::Nothing),
        ("deleted and held, class gone", format!("{held}{deleting}"), String::new(), Is::Leaving),
        ("foreign", String::new(), foreign(), Is::Nothing),
        ("class changed away", held.to_owned(), foreign(), Is::Leaving),
        ("class gone, never ours", String::new(), String::new(), Is::Nothing),
        (
            "class gone, meant for us",
            ", annotations: {alb.ingress.kubernetes.io/scheme: internal}".to_owned(),
            String::new(),
            Is::Broken,
        ),
        ("class gone, held", held.to_owned(), String::new(), Is::Broken),
        ("parameters, new", String::new(), parameters(), Is::Broken),
        ("parameters, held", held.to_owned(), parameters(), Is::Broken),
        ("held by an explicit group", ", finalizers: [group.ingress.k8s.aws/edge]".to_owned(), foreign(), Is::Nothing),
    ] {
        let snapshot = snapshot(&format!("{}{classes}", object(&metadata, "ingressClassName: alb")));
        let found = membership(&snapshot, &config(), &StackId::Ingress(web()));
        assert_eq!(standing(&found), expected, "{what}");
        let of_edge = membership(&snapshot, &config(), &StackId::Group("edge".to_owned()));
        assert_eq!(of_edge.leaving.len(), usize::from(what == "held by an explicit group"));
        assert!(of_edge.members.is_empty());
    }
    let nobody = membership(&Snapshot::default(), &config(), &StackId::Ingress(web()));
    assert!(nobody.is_empty());
}

#[test]
fn two_default_classes_are_told_to_those_without_a_class() {
    let classes = class("a", OURS, ", default") + &class("b", OURS, ", default");
    let snapshot = snapshot(&format!("{}{classes}", object("", "")));
    assert_eq!(standing(&membership(&snapshot, &config(), &StackId::Ingress(web()))), Is::Broken);
}

#[test]
fn an_ingress_has_to_do_with_its_own_group_and_those_that_hold_it() {
    let snapshot =
        snapshot(&object(", finalizers: [group.ingress.k8s.aws/edge, ingress.k8s.aws/resources, other/one]", ""));
    assert_eq!(
        groups_of(&snapshot.ingresses[&web()], &snapshot),
        [StackId::Group("edge".to_owned()), StackId::Ingress(web())].into()
    );
}

#[test]
fn what_keeps_a_deleted_ingress_is_told_with_the_way_out() {
    let reported = |attributes: &str| {
        let metadata = format!(
            ", finalizers: [ingress.k8s.aws/resources], deletionTimestamp: '2026-01-01T00:00:00Z', annotations: {{alb.ingress.kubernetes.io/load-balancer-attributes: '{attributes}'}}"
        );
        let snapshot = snapshot(&format!("{}{}", object(&metadata, ""), class("alb", OURS, "")));
        membership(&snapshot, &config(), &StackId::Ingress(web())).broken[0].to_string()
    };
    insta::assert_snapshot!(reported("deletion_protection.enabled=true"), @"alb.ingress.kubernetes.io/load-balancer-attributes: the Ingress is deleted, but `deletion_protection.enabled` keeps its load balancer; set `deletion_protection.enabled=false` in the annotation, and the load balancer goes with the Ingress");
    insta::assert_snapshot!(reported("deletion_protection.enabled"), @r"annotation `alb.ingress.kubernetes.io/load-balancer-attributes` has the value `deletion_protection.enabled`: `deletion_protection.enabled` is not a pair `key=value`; allowed: pairs `key=value` separated by commas; a comma inside a value is written `\,`");
}
