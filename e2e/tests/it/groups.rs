//! Groups of Ingresses: one that is broken keeps what it has, and harms no other.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use e2e::lab::cluster::{items, text};
use e2e::lab::proxy::{Faults, Refusal};
use e2e::lab::wait_until;
use e2e::symbolic::Snapshot;
use serde_json::{Value, json};

use crate::support::{
    QUIET, SOON, Stage, WITH_RETRIES, apply, deployment, finish, gone, ingress, run, served_within, service,
};

const INGRESS: (&str, &str) = ("networking.k8s.io/v1", "Ingress");
const PREFIX: &str = "alb.ingress.kubernetes.io/";
const MEMBERS: usize = 50;

fn name(number: usize) -> String {
    format!("m{number:02}")
}

/// A member of a group: its own host, and a path for each Service.
fn member(group: &str, name: &str, annotations: &[(&str, &str)], services: &[&str]) -> Value {
    let group_name = format!("{PREFIX}group.name");
    ingress(name, &[&[(group_name.as_str(), group)], annotations].concat(), services)
}

/// The group's rules on a port, in their order, as `host path`.
async fn rules(stage: &Stage, group: &str, port: u16) -> Result<Vec<String>> {
    let snapshot = Snapshot::take(stage).await?;
    let stack = snapshot.stacks.get(&format!("ingress:{group}")).context("the group has no stack")?;
    let balancers = stack["loadBalancers"].as_object().context("it has no load balancer")?;
    ensure!(balancers.len() == 1, "it has {} load balancers", balancers.len());
    let rules = balancers.values().flat_map(|balancer| items(balancer, &format!("/listeners/{port}/rules")));
    let values = |rule: &Value, field: &str| {
        let conditions = items(rule, "/conditions").iter();
        let values = conditions.flat_map(|c| items(c, &format!("/{field}/Values")));
        values.filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>().join("|")
    };
    let line = |rule| format!("{} {}", values(rule, "HostHeaderConfig"), values(rule, "PathPatternConfig"));
    Ok(rules.map(line).collect())
}

async fn rules_become(stage: &Stage, group: &str, expected: &[String]) -> Result<()> {
    wait_until(WITH_RETRIES, &format!("the rules of group {group} to be as expected"), async || {
        let found = rules(stage, group, 80).await?;
        let differ = || found.iter().zip(expected).position(|(a, b)| a != b);
        ensure!(
            found == expected,
            "there are {} and not {}; the first that differ: {:?}",
            found.len(),
            expected.len(),
            differ().map(|place| (&found[place], &expected[place]))
        );
        Ok(true)
    })
    .await
}

/// Returns the number of times that each of the controller's Warnings was given, by object.
async fn warnings(stage: &Stage, namespace: &str) -> Result<BTreeMap<(String, String), i64>> {
    let events = stage.cluster.list("v1", "Event", Some(namespace)).await?;
    let ours = events.iter().filter(|event| {
        ["ingress", "service", "targetGroupBinding"].contains(&text(event, "/source/component"))
            && text(event, "/type") == "Warning"
    });
    let key = |event: &Value| {
        let object = text(event, "/involvedObject/name").to_owned();
        (object, format!("{}: {}", text(event, "/reason"), text(event, "/message")))
    };
    let mut counts = BTreeMap::new();
    for event in ours {
        *counts.entry(key(event)).or_default() += event["count"].as_i64().unwrap_or(1);
    }
    Ok(counts)
}

/// A way in which a member breaks.
struct Way {
    what: &'static str,
    annotations: Vec<(String, String)>,
    change: fn(&mut Value),
    refusal: Option<Refusal>,
    /// A part of the Warning.
    reported: &'static str,
}

fn way(what: &'static str, annotations: &[(&str, &str)], reported: &'static str) -> Way {
    let annotations = annotations.iter().map(|(key, value)| (format!("{PREFIX}{key}"), (*value).to_owned())).collect();
    Way { what, annotations, change: |_| (), refusal: None, reported }
}

fn refused(call: &'static str, containing: &str, code: &'static str) -> Option<Refusal> {
    Some(Refusal { call, containing: containing.to_owned(), code })
}

fn ways(certificate: &str) -> Vec<Way> {
    let secure = r#"[{"HTTP": 80}, {"HTTPS": 443}]"#;
    let oidc = r#"{"issuer":"https://id.example.com","authorizationEndpoint":"https://id.example.com/a","tokenEndpoint":"https://id.example.com/t","userInfoEndpoint":"https://id.example.com/u","secretName":"nobody"}"#;
    vec![
        way(
            "an annotation does not parse",
            &[("healthcheck-interval-seconds", "often")],
            "healthcheck-interval-seconds",
        ),
        Way {
            refusal: refused("elasticloadbalancing:CreateListener", "certificate%2Fmissing", "CertificateNotFound"),
            ..way(
                "a certificate is missing",
                &[
                    ("certificate-arn", "arn:aws:acm:eu-west-1:123456789012:certificate/missing"),
                    ("listen-ports", r#"[{"HTTP": 80}, {"HTTPS": 8443}]"#),
                ],
                "CertificateNotFound",
            )
        },
        way(
            "the secret of OIDC is missing",
            &[
                ("auth-type", "oidc"),
                ("auth-idp-oidc", oidc),
                ("listen-ports", secure),
                ("certificate-arn", certificate),
            ],
            "nobody",
        ),
        way("the scheme conflicts", &[("scheme", "internal")], "internet-facing"),
        way(
            "a listener conflicts",
            &[("listen-ports", r#"[{"HTTPS": 80}]"#), ("certificate-arn", certificate)],
            "the protocol of port 80",
        ),
        Way {
            change: |object| {
                object["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["port"] = json!({"number": 81});
            },
            ..way("a port is missing", &[], "has no port `81`")
        },
        Way {
            change: |object| object["spec"]["ingressClassName"] = json!("gone"),
            ..way("the class is gone", &[], "the IngressClass `gone` does not exist")
        },
        Way {
            change: |object| object["spec"]["rules"][0]["host"] = json!("refused.example.com"),
            refusal: refused("elasticloadbalancing:CreateRule", "refused.example.com", "ValidationError"),
            ..way("AWS refuses a rule", &[], "ValidationError")
        },
        Way {
            refusal: refused("elasticloadbalancing:ModifyTargetGroupAttributes", "nonsense", "ValidationError"),
            ..way("AWS refuses an attribute", &[("target-group-attributes", "nonsense=1")], "ValidationError")
        },
        Way {
            change: |object| {
                object["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"] = json!("extra");
            },
            refusal: refused("elasticloadbalancing:CreateTargetGroup", "extra", "TooManyTargetGroups"),
            ..way("there is no room for a target group", &[], "TooManyTargetGroups")
        },
        Way {
            refusal: refused("elasticloadbalancing:CreateListener", "ELBSecurityPolicy-Refused", "SSLPolicyNotFound"),
            ..way(
                "a TLS policy is missing",
                &[
                    ("certificate-arn", certificate),
                    ("listen-ports", r#"[{"HTTP": 80}, {"HTTPS": 8443}]"#),
                    ("ssl-policy", "ELBSecurityPolicy-Refused"),
                ],
                "SSLPolicyNotFound",
            )
        },
        Way {
            refusal: refused("ec2:AuthorizeSecurityGroupIngress", "pl-refused", "InvalidPrefixListID.NotFound"),
            ..way(
                "a prefix list is missing",
                &[("security-group-prefix-lists", "pl-refused")],
                "InvalidPrefixListID.NotFound",
            )
        },
        Way {
            refusal: refused("elasticloadbalancing:SetSubnets", "Action=SetSubnets", "InvalidSubnet"),
            ..way("AWS refuses other subnets", &[("subnets", "public-a,public-b")], "InvalidSubnet")
        },
    ]
}

#[test]
fn of_fifty_one_that_breaks_in_any_way_harms_no_other() {
    run(async {
        let mut stage = Stage::shared().await?;
        let (namespace, group) = ("many", "many");
        stage.cluster.namespace(namespace).await?;
        apply(&stage, namespace, &[service("web"), service("other"), service("extra"), deployment("web", 1)]).await?;
        let all: BTreeSet<usize> = (1..=MEMBERS).collect();
        let healthy: Vec<Value> = all.iter().map(|number| member(group, &name(*number), &[], &["web"])).collect();
        apply(&stage, namespace, &healthy).await?;
        let certificate = stage.world.certificates.values().next().context("no certificate")?.clone();
        let line = |number: &usize| format!("{}.example.com /web", name(*number));
        for (round, way) in ways(&certificate).into_iter().enumerate() {
            breaks(&mut stage, namespace, group, &way, round).await.with_context(|| way.what)?;
            // Healed, and back again.
            stage.proxy.set_faults(Faults::default());
            apply(&stage, namespace, &healthy).await?;
            rules_become(&stage, group, &all.iter().map(line).collect::<Vec<_>>()).await?;
            stage.settle(QUIET, WITH_RETRIES).await?;
        }
        for number in &all {
            stage.cluster.delete(INGRESS.0, INGRESS.1, Some(namespace), &name(*number)).await?;
        }
        finish(stage, namespace).await
    });
}

/// The 17th breaks as a neighbour changes; then the 18th goes, and the 17th.
async fn breaks(stage: &mut Stage, namespace: &str, group: &str, way: &Way, round: usize) -> Result<()> {
    let line = |number: usize, path: &str| format!("{}.example.com {path}", name(number));
    let mut expected: Vec<String> = (1..=MEMBERS).map(|number| line(number, "/web")).collect();
    rules_become(stage, group, &expected).await?;
    served_within(stage, namespace, &name(17), WITH_RETRIES).await?;
    stage.settle(QUIET, WITH_RETRIES).await?;
    let before = warnings(stage, namespace).await?;
    stage.proxy.set_faults(Faults { refuse: way.refusal.clone(), ..Faults::default() });

    let annotations: Vec<(&str, &str)> = way.annotations.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let mut broken = member(group, &name(17), &annotations, &["web"]);
    (way.change)(&mut broken);
    let neighbour = 20 + round;
    let changed = member(group, &name(neighbour), &[], &["web", "other"]);
    apply(stage, namespace, &[broken, changed]).await?;
    let place = expected.iter().position(|rule| *rule == line(neighbour, "/web")).context("no neighbour")?;
    expected.insert(place + 1, line(neighbour, "/other"));
    rules_become(stage, group, &expected).await?;
    wait_until(SOON, "the 17th to be told", async || {
        let now = warnings(stage, namespace).await?;
        let new: Vec<_> =
            now.iter().filter(|(key, count)| before.get(*key) != Some(count)).map(|(key, _)| key).collect();
        ensure!(new.iter().all(|(object, _)| *object == name(17)), "others are told: {new:?}");
        ensure!(new.iter().any(|(_, message)| message.contains(way.reported)), "told is {new:?}");
        Ok(true)
    })
    .await?;

    for number in [18, 17] {
        stage.cluster.delete(INGRESS.0, INGRESS.1, Some(namespace), &name(number)).await?;
        gone(stage, INGRESS.0, INGRESS.1, Some(namespace), &name(number)).await?;
        expected.retain(|rule| *rule != line(number, "/web"));
        rules_become(stage, group, &expected).await?;
    }
    Ok(())
}

/// The host name in the status.
async fn host(stage: &Stage, namespace: &str, name: &str) -> Result<String> {
    let object = stage.cluster.get(INGRESS.0, INGRESS.1, Some(namespace), name).await?.context("no Ingress")?;
    Ok(text(&object, "/status/loadBalancer/ingress/0/hostname").to_owned())
}

#[test]
fn who_moves_to_another_group_is_served_by_the_old_one_until_clients_have_found_the_new_one() {
    run(async {
        let mut stage = Stage::without_controller().await?;
        // Long enough to be seen.
        stage.start_controller(&["--replaced-load-balancer-hold=8s", "--propagation-time=4s"]).await?;
        let namespace = "movers";
        stage.cluster.namespace(namespace).await?;
        apply(&stage, namespace, &[service("web"), deployment("web", 1)]).await?;
        let members =
            [member("old", "a", &[], &["web"]), member("old", "b", &[], &["web"]), member("new", "c", &[], &["web"])];
        apply(&stage, namespace, &members).await?;
        let line = |name: &str| format!("{name}.example.com /web");
        rules_become(&stage, "old", &[line("a"), line("b")]).await?;
        rules_become(&stage, "new", &[line("c")]).await?;
        served_within(&stage, namespace, "b", WITH_RETRIES).await?;
        stage.settle(QUIET, WITH_RETRIES).await?;
        let before = host(&stage, namespace, "b").await?;

        // The new group cannot have it yet: the old one continues.
        stage.proxy.set_faults(Faults {
            refuse: refused("elasticloadbalancing:CreateRule", "b.example.com", "ValidationError"),
            ..Faults::default()
        });
        apply(&stage, namespace, &[member("new", "b", &[], &["web"])]).await?;
        wait_until(SOON, "the mover to be told", async || {
            let reported = warnings(&stage, namespace).await?;
            Ok(reported.keys().any(|(object, message)| object == "b" && message.contains("ValidationError")))
        })
        .await?;
        ensure!(rules(&stage, "old", 80).await? == [line("a"), line("b")], "the old group has let go");
        ensure!(host(&stage, namespace, "b").await? == before, "the status names another host");

        stage.proxy.set_faults(Faults::default());
        rules_become(&stage, "new", &[line("b"), line("c")]).await?;
        ensure!(host(&stage, namespace, "b").await? == before, "the name is published before the rule is everywhere");
        let after = host(&stage, namespace, "c").await?;
        wait_until(SOON, "the new name to be published", async || Ok(host(&stage, namespace, "b").await? == after))
            .await?;
        ensure!(rules(&stage, "old", 80).await? == [line("a"), line("b")], "clients that know the old name are lost");
        rules_become(&stage, "old", &[line("a")]).await?;

        // The last member takes the old group with it, in its time.
        apply(&stage, namespace, &[member("new", "a", &[], &["web"])]).await?;
        wait_until(WITH_RETRIES, "the last one to be published", async || {
            Ok(host(&stage, namespace, "a").await? == after)
        })
        .await?;
        ensure!(rules(&stage, "old", 80).await? == [line("a")], "the old load balancer is gone at once");
        wait_until(WITH_RETRIES, "the old group to be gone", async || {
            Ok(!Snapshot::take(&stage).await?.stacks.contains_key("ingress:old"))
        })
        .await?;
        for name in ["a", "b", "c"] {
            stage.cluster.delete(INGRESS.0, INGRESS.1, Some(namespace), name).await?;
        }
        finish(stage, namespace).await
    });
}
