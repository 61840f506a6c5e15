//! IAM, as far as the controller's policy needs it: whether a call that the proxy sees is allowed by the policy that
//! `albatross iam-policy` prints, its conditions on tags included.

use std::collections::{BTreeMap, BTreeSet};

use albatross_core::permissions::{Feature, Partition, policy};
use serde_json::Value;

use super::aws::Aws;
use super::proxy::Call;

const ACCOUNT: &str = "123456789012";

/// The values that IAM evaluates for one action of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    action: String,
    resource: String,
    /// Values by key, such as `aws:RequestTag/team`.
    context: BTreeMap<String, String>,
}

/// A policy.
pub struct Policy(Value);

impl Policy {
    /// All that the controller is allowed in a region.
    pub fn of_controller(region: &str) -> serde_json::Result<Self> {
        let document = policy(&Feature::ALL.into(), Partition::of_region(region));
        Ok(Self(serde_json::to_value(document)?))
    }

    fn statements(&self) -> impl Iterator<Item = &Value> {
        self.0.get("Statement").and_then(Value::as_array).into_iter().flatten()
    }

    fn allows(&self, asked: &Asked) -> bool {
        self.statements().any(|statement| allowed(statement, asked))
    }

    /// Returns true if the policy depends on the tags of this action's resource.
    fn looks_at_resource(&self, action: &str) -> bool {
        let of_action = |statement: &&Value| texts(&statement["Action"]).any(|own| own == action);
        self.statements().filter(of_action).any(|statement| {
            let keys = statement["Condition"].as_object().into_iter().flatten();
            keys.filter_map(|(_, keys)| keys.as_object()).flatten().any(|(key, _)| key.starts_with("aws:ResourceTag/"))
        })
    }

    /// Returns the actions of a call that are not allowed, in words. `aws` gives the tags of existing resources.
    pub async fn refuses(&self, call: &Call, region: &str, aws: &Aws) -> Vec<String> {
        let mut refused = Vec::new();
        for mut asked in asked_of(call, region) {
            if self.looks_at_resource(&asked.action) && !asked.resource.ends_with("/new") {
                let Some(tags) = tags_of(&asked.resource, aws).await else {
                    // What is not there is not protected either: AWS says that it is not found.
                    continue;
                };
                asked.context.extend(tags.into_iter().map(|(key, value)| (format!("aws:ResourceTag/{key}"), value)));
            }
            if !self.allows(&asked) {
                refused.push(format!("{} on {} with {:?}", asked.action, asked.resource, asked.context));
            }
        }
        refused
    }
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn allowed(statement: &Value, asked: &Asked) -> bool {
    let conditions = statement["Condition"].as_object().into_iter().flatten();
    statement["Effect"] == "Allow"
        && texts(&statement["Action"]).any(|action| action == asked.action)
        && texts(&statement["Resource"]).any(|pattern| matches(pattern, &asked.resource))
        && conditions.into_iter().all(|(operator, keys)| {
            keys.as_object().into_iter().flatten().all(|(key, values)| holds(operator, asked.context.get(key), values))
        })
}

fn holds(operator: &str, found: Option<&String>, values: &Value) -> bool {
    texts(values).any(|value| match operator {
        "Null" => found.is_none() == (value == "true"),
        "StringEquals" => found.is_some_and(|found| found == value),
        "ForAllValues:StringEquals" => found.is_none_or(|found| found == value),
        // A condition that is not understood allows nothing.
        _ => false,
    })
}

/// Returns true if a text matches a pattern, whose `*` stands for any characters.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len()).filter(|end| rest.is_char_boundary(*end)).any(|end| matches(after, &rest[end..]))
        }),
    }
}

/// The actions that AWS has IAM judge for a call.
fn asked_of(call: &Call, region: &str) -> Vec<Asked> {
    let Some((service, operation)) = call.name.split_once(':') else { return Vec::new() };
    // A caller that assumes a role by a token has no permissions yet.
    if service == "sts" {
        return Vec::new();
    }
    let partition = Partition::of_region(region).name();
    let group = |id: &str| format!("arn:{partition}:ec2:{region}:{ACCOUNT}:security-group/{id}");
    let balancing = |rest: &str| format!("arn:{partition}:elasticloadbalancing:{region}:{ACCOUNT}:{rest}");
    let keys = ["Tags.member", "TagSpecification.1.Tag", "Tag"];
    let tags: Vec<(String, String)> = keys
        .iter()
        .flat_map(|prefix| call.members(prefix, "Key").into_iter().zip(call.members(prefix, "Value")))
        .filter_map(|(key, value)| Some((key?, value.unwrap_or_default())))
        .collect();
    let context: BTreeMap<String, String> =
        tags.iter().map(|(key, value)| (format!("aws:RequestTag/{key}"), value.clone())).collect();
    let one = |action: &str, resource: String| Asked { action: action.to_owned(), resource, context: context.clone() };
    let field = |name: &str| call.field(name);
    let below =
        |arn: &str, from: &str, to: &str| format!("{}/new", arn.replacen(&format!(":{from}/"), &format!(":{to}/"), 1));
    match (service, operation) {
        (_, "CreateSecurityGroup") => made(one(&call.name, group("new")), &tags, "ec2:CreateTags", "ec2", group("new")),
        (_, "CreateTags" | "DeleteTags") => listed(call, "ResourceId.").map(|id| one(&call.name, group(&id))).collect(),
        (_, "CreateLoadBalancer") => {
            let kind = if field("Type").as_deref() == Some("network") { "net" } else { "app" };
            let arn = balancing(&format!("loadbalancer/{kind}/{}/new", field("Name").unwrap_or_default()));
            made(one(&call.name, arn.clone()), &tags, "elasticloadbalancing:AddTags", service, arn)
        }
        (_, "CreateTargetGroup") => {
            let arn = balancing(&format!("targetgroup/{}/new", field("Name").unwrap_or_default()));
            made(one(&call.name, arn.clone()), &tags, "elasticloadbalancing:AddTags", service, arn)
        }
        (_, "CreateListener") => {
            let arn = below(&field("LoadBalancerArn").unwrap_or_default(), "loadbalancer", "listener");
            made(one(&call.name, arn.clone()), &tags, "elasticloadbalancing:AddTags", service, arn)
        }
        (_, "CreateRule") => {
            let arn = below(&field("ListenerArn").unwrap_or_default(), "listener", "listener-rule");
            made(one(&call.name, arn.clone()), &tags, "elasticloadbalancing:AddTags", service, arn)
        }
        (_, "AddTags" | "RemoveTags") => listed(call, "ResourceArns.member.").map(|arn| one(&call.name, arn)).collect(),
        ("acm", "RequestCertificate") => {
            let tags = body_of(call).pointer("/Tags").and_then(Value::as_array).cloned().unwrap_or_default();
            let tag = |tag: &Value| {
                let text = |key: &str| tag[key].as_str().map(str::to_owned);
                Some((format!("aws:RequestTag/{}", text("Key")?), text("Value").unwrap_or_default()))
            };
            let context: BTreeMap<String, String> = tags.iter().filter_map(tag).collect();
            ["acm:RequestCertificate", "acm:AddTagsToCertificate"]
                .map(|action| Asked { context: context.clone(), ..one(action, "*".to_owned()) })
                .into()
        }
        ("acm", "DeleteCertificate") => {
            vec![one(
                &call.name,
                body_of(call).pointer("/CertificateArn").and_then(Value::as_str).unwrap_or_default().to_owned(),
            )]
        }
        ("route53", "ChangeResourceRecordSets") => {
            let text = call.body.as_deref().unwrap_or_default();
            let types = text.split("<Type>").skip(1).filter_map(|rest| rest.split('<').next());
            let mut asked = one(&call.name, format!("arn:{partition}:route53:::hostedzone/any"));
            asked
                .context
                .extend(types.map(|of| ("route53:ChangeResourceRecordSetsRecordTypes".to_owned(), of.to_owned())));
            vec![asked]
        }
        // AWS judges the load balancer too.
        ("wafv2", "AssociateWebACL" | "DisassociateWebACL") => {
            [call.name.as_str(), "elasticloadbalancing:SetWebAcl"].map(|action| one(action, "*".to_owned())).into()
        }
        ("ec2", _) => vec![one(&call.name, field("GroupId").map_or_else(|| "*".to_owned(), |id| group(&id)))],
        _ => {
            let names = ["LoadBalancerArn", "TargetGroupArn", "ListenerArn", "RuleArn"];
            vec![one(&call.name, names.into_iter().find_map(field).unwrap_or_else(|| "*".to_owned()))]
        }
    }
}

/// Returns the permissions for creating a resource: with tags, the permission to tag is needed, too.
fn made(create: Asked, tags: &[(String, String)], tagging: &str, service: &str, resource: String) -> Vec<Asked> {
    let mut all = vec![create.clone()];
    if !tags.is_empty() {
        let mut context = create.context;
        let operation = create.action.split_once(':').map_or("", |(_, operation)| operation);
        context.insert(format!("{service}:CreateAction"), operation.to_owned());
        all.push(Asked { action: tagging.to_owned(), resource, context });
    }
    all
}

/// The body of a call of a JSON protocol.
fn body_of(call: &Call) -> Value {
    call.body.as_deref().and_then(|body| serde_json::from_str(body).ok()).unwrap_or_default()
}

/// The fields `prefix1`, `prefix2` and so on of the form that was sent.
fn listed(call: &Call, prefix: &str) -> impl Iterator<Item = String> {
    (1..).map_while(move |number| call.field(&format!("{prefix}{number}")))
}

/// The tags of a resource, or nothing where it is not there.
async fn tags_of(resource: &str, aws: &Aws) -> Option<BTreeMap<String, String>> {
    if let Some((_, id)) = resource.split_once(":security-group/") {
        let found = aws.ec2.describe_security_groups().group_ids(id).send().await.ok()?;
        let group = found.security_groups().first()?;
        return Some(
            group.tags().iter().filter_map(|tag| Some((tag.key()?.to_owned(), tag.value()?.to_owned()))).collect(),
        );
    }
    if resource.contains(":acm:") {
        let found = aws.acm.list_tags_for_certificate().certificate_arn(resource).send().await.ok()?;
        let tags = found.tags().iter();
        return Some(tags.map(|tag| (tag.key().to_owned(), tag.value().unwrap_or_default().to_owned())).collect());
    }
    let found = aws.elb.describe_tags().resource_arns(resource).send().await.ok()?;
    let tags = found.tag_descriptions().first()?.tags().iter();
    Some(tags.filter_map(|tag| Some((tag.key()?.to_owned(), tag.value().unwrap_or_default().to_owned()))).collect())
}

/// The calls that the policy has refused so far, each once.
pub type Refused = BTreeSet<String>;

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(action: &str, resource: &str, context: &[(&str, &str)]) -> Asked {
        let context = context.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Asked { action: action.to_owned(), resource: resource.to_owned(), context }
    }

    #[test]
    fn patterns_stand_for_any_characters() {
        for (pattern, text, expected) in [
            ("*", "x", true),
            ("a:*:c/*/*", "a:b:c/d/e", true),
            ("a:*:c/*/*", "a:b:c/d", false),
            ("a:*:c", "a:b:cc", false),
            ("", "x", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn the_policy_judges_by_the_clusters_tag() {
        let policy = Policy::of_controller("us-west-2").unwrap();
        let balancer = "arn:aws:elasticloadbalancing:us-west-2:1:loadbalancer/app/a/1";
        let listener = "arn:aws:elasticloadbalancing:us-west-2:1:listener/app/a/1/2";
        let (request, resource) =
            (("aws:RequestTag/elbv2.k8s.aws/cluster", "demo"), ("aws:ResourceTag/elbv2.k8s.aws/cluster", "demo"));
        let created = ("elasticloadbalancing:CreateAction", "CreateLoadBalancer");
        for (action, on, context, expected) in [
            ("CreateLoadBalancer", balancer, &[request][..], true),
            ("CreateLoadBalancer", balancer, &[], false),
            ("AddTags", balancer, &[request, created], true),
            ("AddTags", balancer, &[request, resource], false),
            ("AddTags", balancer, &[("aws:RequestTag/team", "web"), resource], true),
            ("AddTags", balancer, &[("aws:RequestTag/team", "web")], false),
            ("AddTags", listener, &[request], true),
            ("DeleteLoadBalancer", balancer, &[resource], true),
            ("DeleteLoadBalancer", balancer, &[], false),
            ("ModifyListenerAttributes", listener, &[], false),
            ("DeleteListener", listener, &[], true),
            ("RegisterTargets", "arn:aws:elasticloadbalancing:us-west-2:1:targetgroup/a/1", &[], true),
            ("RegisterTargets", balancer, &[], false),
            ("RemoveTags", balancer, &[resource], true),
            ("RemoveTags", balancer, &[], false),
            ("RemoveTags", listener, &[], true),
            ("SetWebAcl", balancer, &[], true),
            ("ModifyTrustStore", balancer, &[resource], false),
        ] {
            let asked = asked(&format!("elasticloadbalancing:{action}"), on, context);
            assert_eq!(policy.allows(&asked), expected, "{asked:?}");
        }
        let china = Policy::of_controller("cn-north-1").unwrap();
        assert!(!china.allows(&asked("elasticloadbalancing:AddTags", listener, &[request])));
    }
}
