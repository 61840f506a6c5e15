//! The policy as IAM reads it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{Feature, Partition, Scope, needed};
use crate::model::tags;

/// IAM's language of policies, of which there is no newer one.
const VERSION: &str = "2012-10-17";

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Document {
    version: &'static str,
    /// The permissions.
    pub statement: Vec<Statement>,
}

/// Actions that are allowed on the same things under the same condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Statement {
    sid: &'static str,
    effect: &'static str,
    /// In the order of their names.
    pub action: Vec<&'static str>,
    /// ARNs with wildcards.
    pub resource: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    condition: Condition,
}

/// Key and value by operator; all have to hold.
type Condition = BTreeMap<&'static str, BTreeMap<String, Vec<&'static str>>>;

impl Document {
    /// Returns the policy as formatted JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        // There is nothing in it that JSON cannot have.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}

/// The least policy for these features.
#[must_use]
pub fn policy(features: &BTreeSet<Feature>, partition: Partition) -> Document {
    let mut by_scope: BTreeMap<Scope, Vec<&'static str>> = BTreeMap::new();
    for action in needed(features) {
        for scope in action.scopes {
            by_scope.entry(*scope).or_default().push(action.name);
        }
    }
    let statement = by_scope.into_iter().map(|(scope, action)| statement(scope, action, partition)).collect();
    Document { version: VERSION, statement }
}

fn statement(scope: Scope, action: Vec<&'static str>, partition: Partition) -> Statement {
    let groups = &["ec2:*:*:security-group/*"][..];
    let balancers = [
        "elasticloadbalancing:*:*:loadbalancer/app/*/*",
        "elasticloadbalancing:*:*:loadbalancer/net/*/*",
        "elasticloadbalancing:*:*:targetgroup/*/*",
    ];
    let listeners = [
        "elasticloadbalancing:*:*:listener/app/*/*/*",
        "elasticloadbalancing:*:*:listener/net/*/*/*",
        "elasticloadbalancing:*:*:listener-rule/app/*/*/*",
        "elasticloadbalancing:*:*:listener-rule/net/*/*/*",
    ];
    let made_with_tag = || null(&[("RequestTag", "false")]);
    let has_tag = || null(&[("ResourceTag", "false")]);
    let keeps_tag = || null(&[("RequestTag", "true"), ("ResourceTag", "false")]);
    let (sid, resources, condition) = match scope {
        Scope::Anything => ("Anything", &[][..], Condition::new()),
        Scope::ServiceLinkedRole => (
            "RoleOfElasticLoadBalancing",
            &[][..],
            equals("iam:AWSServiceName", &["elasticloadbalancing.amazonaws.com"]),
        ),
        Scope::NewSecurityGroup => {
            let mut condition = equals("ec2:CreateAction", &["CreateSecurityGroup"]);
            condition.extend(made_with_tag());
            ("TagsOfNewSecurityGroups", groups, condition)
        }
        Scope::TagsOfSecurityGroup => ("TagsOfOwnSecurityGroups", groups, keeps_tag()),
        Scope::OwnSecurityGroup => ("OwnSecurityGroups", groups, has_tag()),
        Scope::New => ("New", &[][..], made_with_tag()),
        Scope::NewTags => {
            let created = &["CreateLoadBalancer", "CreateTargetGroup"];
            let mut condition = equals("elasticloadbalancing:CreateAction", created);
            condition.extend(made_with_tag());
            ("TagsOfNew", &balancers[..], condition)
        }
        Scope::Tags => ("TagsOfOwn", &balancers[..], keeps_tag()),
        Scope::TagsOfListeners => ("TagsOfListeners", &listeners[..], Condition::new()),
        Scope::Own => ("Own", &[][..], has_tag()),
        Scope::TargetGroup => ("Targets", &balancers[2..], Condition::new()),
        Scope::NewCertificate => ("NewCertificates", &[][..], made_with_tag()),
        Scope::OwnCertificate => ("OwnCertificates", &["acm:*:*:certificate/*"][..], has_tag()),
        Scope::Cname => {
            let types = equals("route53:ChangeResourceRecordSetsRecordTypes", &["CNAME"]);
            let types = types.into_values().map(|keys| ("ForAllValues:StringEquals", keys));
            ("RecordsOfCertificates", &["route53:::hostedzone/*"][..], types.collect())
        }
        Scope::Role => ("RolesOfOtherAccounts", &["iam::*:role/*"][..], Condition::new()),
    };
    let resource = if resources.is_empty() {
        vec!["*".to_owned()]
    } else {
        resources.iter().map(|rest| format!("arn:{}:{rest}", partition.name())).collect()
    };
    Statement { sid, effect: "Allow", action, resource, condition }
}

/// Returns the condition that the cluster's tag is absent (`true`) or present (`false`) in the request or on the resource.
fn null(keys: &[(&str, &'static str)]) -> Condition {
    let keys = keys.iter().map(|(kind, missing)| (format!("aws:{kind}/{}", tags::CLUSTER), vec![*missing]));
    BTreeMap::from([("Null", keys.collect())])
}

fn equals(key: &str, values: &[&'static str]) -> Condition {
    BTreeMap::from([("StringEquals", BTreeMap::from([(key.to_owned(), values.to_vec())]))])
}
