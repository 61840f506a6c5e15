use std::fmt::Write as _;

use clap::Parser;

use super::*;
use albatross_core::snapshot::from_documents;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    plan: PlanArguments,
}

fn config(arguments: &[&str]) -> BuildConfig {
    let arguments = Line::parse_from(["plan", "-"].iter().chain(arguments)).plan;
    arguments.build.config(&arguments.cluster_name, Value::AfterApply("the cluster's VPC")).unwrap()
}

fn loaded(text: &str, arguments: &[&str]) -> Loaded {
    let mut loaded = Loaded::default();
    loaded.snapshot.scope = Line::parse_from(["plan", "-"].iter().chain(arguments)).plan.scope();
    let _ = from_documents(&mut loaded, "shop.yaml", text);
    loaded
}

/// Returns the whole output of the command, errors first, and its result.
fn printed(text: &str, arguments: &[&str], json: bool) -> (String, bool) {
    let loaded = loaded(text, arguments);
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
    pretty(&expected, &found);
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
        printed(&other_class, &["--load-balancer-class=example.com/nlb"], false)
            .0
            .starts_with("Service shop/web (shop.yaml:1)\n")
    );
    let tagged = printed(NLB, &["--default-tags=team=shop"], false).0;
    assert!(tagged.contains("team=shop"), "{tagged}");
    let (switched_off, well) = printed(
        NLB.replace("LoadBalancer", "NodePort").as_str(),
        &["--feature-gates=ServiceTypeLoadBalancerOnly=true"],
        false,
    );
    assert!(switched_off.contains("Service shop/web (shop.yaml:1): it is of type NodePort, and with `--feature-gates=ServiceTypeLoadBalancerOnly=true` only Services of type LoadBalancer are served"), "{switched_off}");
    assert!(well);
    let (without, well) = printed(NLB, &["--feature-gates=EnableServiceController=false"], false);
    assert!(
        without.contains(
            "Service shop/web (shop.yaml:1): `--feature-gates=EnableServiceController=false`: Services are not served"
        ),
        "{without}"
    );
    assert!(well);
    let action = "\
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: shop}
spec:
  ingressClassName: alb
  defaultBackend: {service: {name: sign-in, port: {name: use-annotation}}}
";
    let strict = "--tolerate-non-existent-backend-action=false";
    let (noted, well) = printed(action, &[strict], false);
    assert!(
        noted
            .contains("without it the controller refuses the Ingress (`--tolerate-non-existent-backend-action=false`)"),
        "{noted}"
    );
    assert!(well);
    let class = "---\n{apiVersion: networking.k8s.io/v1, kind: IngressClass, metadata: {name: alb}, spec: {controller: ingress.k8s.aws/alb}}\n";
    let complete = |text: &str, arguments: &[&str]| {
        printed(&format!("{text}{class}"), &[&["--complete"], arguments].concat(), false)
    };
    let (refused, well) = complete(action, &[strict]);
    assert!(refused.contains("error: Ingress shop/web: ") && refused.contains("does not exist"), "{refused}");
    assert!(!well);
    let forward = action.replace("name: use-annotation", "number: 80");
    let (reported, well) = complete(&forward, &[]);
    assert!(reported.contains("warning: Ingress shop/web: spec.defaultBackend.service: the Service `sign-in` does not exist in the namespace `shop`"), "{reported}");
    assert!(well);
    let (reported, well) = complete(&forward, &["--tolerate-non-existent-backend-service=false"]);
    assert!(
        reported.contains("error: Ingress shop/web: spec.defaultBackend.service: the Service `sign-in` does not exist"),
        "{reported}"
    );
    assert!(!well);
    // The API server gives node ports all the same, and no class is assumed.
    assert!(complete(NLB, &[]).1);
    let (reported, _) = printed(&forward, &["--complete"], false);
    assert!(reported.contains("  Ingress shop/web (shop.yaml:1): spec.ingressClassName: the IngressClass `alb` does not exist; create it, or name another class\n"), "{reported}");
}

#[test]
fn json_names_what_is_planned_and_what_is_not() {
    let text = format!("{NLB}---\napiVersion: v1\nkind: Service\nmetadata: {{name: db, namespace: shop}}\n");
    let (text, well) = printed(&text, &[], true);
    assert!(well);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    let of = |index: usize, key: &str| report["plans"][index][key].clone();
    assert_eq!(report["plans"].as_array().map(Vec::len), Some(2));
    assert_eq!(of(0, "place"), serde_json::json!({"file": "shop.yaml", "line": 1}));
    assert_eq!((of(0, "object"), of(1, "object")), ("Service shop/web".into(), "Service shop/db".into()));
    assert_eq!(of(1, "not_planned"), serde_json::Value::from("it is of type ClusterIP"));
    assert_eq!(of(0, "not_planned"), serde_json::Value::Null);
    let text = "{apiVersion: v1, kind: Ingres, metadata: {name: web}}\n---\n{kind: Service, apiVersion: v2, metadata: {name: web}}\n";
    let (text, well) = printed(text, &[], true);
    assert!(!well);
    // The first line is what goes to standard error.
    let (_, text) = text.split_once('\n').unwrap();
    insta::assert_snapshot!(text, @r#"
    {
      "plans": [],
      "notes": [],
      "problems": [
        {
          "file": "shop.yaml",
          "line": 3,
          "object": "Service web",
          "field": "apiVersion",
          "message": "there is no Service of `v2`; write `v1`"
        }
      ],
      "passed_over": {
        "Ingres": 1
      }
    }
    "#);
}

#[test]
fn a_binding_that_the_controller_refuses_is_an_error() {
    let binding = |spec: &str| {
        format!(
            "{{apiVersion: elbv2.k8s.aws/v1beta1, kind: TargetGroupBinding, metadata: {{name: web, namespace: shop}}, spec: {{serviceRef: {{name: web, port: 80}}, {spec}}}}}"
        )
    };
    insta::assert_snapshot!(report(&binding("iamRoleArnToAssume: 'arn:aws:iam::1:role/x'")), @r"
    TargetGroupBinding shop/web (shop.yaml:1)
      error: TargetGroupBinding shop/web: spec.iamRoleArnToAssume: `arn:aws:iam::1:role/x` is not the ARN of an IAM role; write it as arn:aws:iam::ACCOUNT:role/NAME
      no changes until the errors are fixed
    exit 1
    ");
    insta::assert_snapshot!(report(&binding("targetType: ip, iamRoleArnToAssume: 'arn:aws:iam::111122223333:role/x'")), @r"
    No Ingress and no Service in these manifests: no load balancer would be created.
    TargetGroupBindings: 1; the controller registers their targets, which no plan shows.
    exit 0
    ");
}

#[test]
fn a_flag_whose_value_cannot_be_used_is_a_wrong_command_line() {
    let arguments = Line::parse_from(["plan", "-", "--default-tags=elbv2.k8s.aws/cluster=x"]).plan;
    assert_eq!(format!("{:?}", run(&arguments)), format!("{:?}", ExitCode::from(2)));
}
