use std::fmt::Write as _;

use clap::Parser;

use super::*;
use crate::snapshot::{Scope, from_documents};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    plan: PlanArguments,
}

fn config(arguments: &[&str]) -> BuildConfig {
    let arguments = Line::parse_from(["plan", "-"].iter().chain(arguments)).plan;
    arguments.build.config(&arguments.cluster_name, Value::AfterApply("the cluster's VPC")).unwrap()
}

fn loaded(text: &str) -> Loaded {
    let mut loaded = Loaded::default();
    loaded.snapshot.scope = Scope::Files;
    let _ = from_documents(&mut loaded, "shop.yaml", text);
    loaded
}

/// Everything that the command prints, errors first, and how it ends.
fn printed(text: &str, arguments: &[&str], json: bool) -> (String, bool) {
    let loaded = loaded(text);
    let mut out: Vec<u8> = Vec::new();
    for problem in &loaded.problems {
        writeln!(out, "error: {problem}").unwrap();
    }
    let well = write(&mut out, loaded, &config(arguments), json).unwrap();
    (String::from_utf8(out).unwrap(), well)
}

/// Returns the output without the steps, which other tests look at.
fn report(text: &str) -> String {
    let (printed, well) = printed(text, &[], false);
    let step = |line: &&str| !["  + ", "  ~ ", "      "].iter().any(|start| line.starts_with(start));
    let mut lines: Vec<&str> = printed.lines().filter(step).filter(|line| !line.is_empty()).collect();
    let exit = if well { "exit 0" } else { "exit 1" };
    lines.push(exit);
    lines.join("\n")
}

#[test]
fn manifests_as_people_have_them_are_all_answered() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/plan/tests/manifests.txt");
    let text = std::fs::read_to_string(&file).unwrap();
    let mut expected = String::new();
    let mut found = String::new();
    let mut count = 0;
    for case in text.split("=== ").skip(1) {
        let (title, rest) = case.split_once('\n').unwrap();
        let (manifest, wanted) = rest.split_once(">>>\n").unwrap();
        let report = report(manifest);
        assert!(report.lines().count() > 1, "{title}: no word");
        write!(found, "=== {title}\n{manifest}>>>\n{report}\n").unwrap();
        write!(expected, "=== {title}\n{manifest}>>>\n{wanted}").unwrap();
        count += 1;
    }
    assert!(count >= 40, "{count}");
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        std::fs::write(&file, &found).unwrap();
    } else {
        pretty(&expected, &found);
    }
}

/// Compares by line, and shows the first that differs.
fn pretty(expected: &str, found: &str) {
    for (place, (expected, found)) in expected.lines().zip(found.lines()).enumerate() {
        assert_eq!(expected, found, "line {} of manifests.txt", place + 1);
    }
    assert_eq!(expected.lines().count(), found.lines().count());
}

const NLB: &str = "\
apiVersion: v1
kind: Service
metadata:
  name: web
  namespace: shop
spec:
  type: LoadBalancer
  loadBalancerClass: service.k8s.aws/nlb
  ports:
  - port: 80
    targetPort: 8080
";

#[test]
fn a_service_without_a_node_port_is_planned_with_a_port_that_is_known_after_apply() {
    let (text, well) = printed(NLB, &[], false);
    assert!(well);
    insta::assert_snapshot!(text);
}

#[test]
fn the_flags_of_the_controller_decide_in_a_plan_too() {
    let other_class = NLB.replace("service.k8s.aws/nlb", "example.com/nlb");
    assert!(printed(&other_class, &[], false).0.contains("is of another controller"));
    assert!(
        printed(&other_class, &["--load-balancer-class=example.com/nlb"], false).0.starts_with("Service shop/web\n")
    );
    let tagged = printed(NLB, &["--default-tags=team=shop"], false).0;
    assert!(tagged.contains("team=shop"), "{tagged}");
    let (switched_off, well) = printed(
        NLB.replace("LoadBalancer", "NodePort").as_str(),
        &["--feature-gates=ServiceTypeLoadBalancerOnly=true"],
        false,
    );
    assert!(switched_off.contains("Service shop/web: it is of type NodePort"), "{switched_off}");
    assert!(well);
}

#[test]
fn json_names_what_is_planned_and_what_is_not() {
    let text = format!("{NLB}---\napiVersion: v1\nkind: Service\nmetadata: {{name: db, namespace: shop}}\n");
    let (text, well) = printed(&text, &[], true);
    assert!(well);
    let plans: serde_json::Value = serde_json::from_str(&text).unwrap();
    let of = |index: usize, key: &str| plans[index][key].clone();
    assert_eq!(plans.as_array().map(Vec::len), Some(2));
    assert_eq!((of(0, "object"), of(1, "object")), ("Service shop/web".into(), "Service shop/db".into()));
    assert_eq!(of(1, "not_planned"), serde_json::Value::from("it is of type ClusterIP"));
    assert_eq!(of(0, "not_planned"), serde_json::Value::Null);
    assert_eq!(printed("", &[], true).0, "[]\n");
}
