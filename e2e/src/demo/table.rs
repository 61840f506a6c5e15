//! A table of the account, for people: load balancers, their listeners and rules in order, target groups with their
//! targets, and the objects that they are for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::Result;
use aws_sdk_elasticloadbalancingv2::types::{
    Action, Listener, LoadBalancer, Rule, RuleCondition, TargetGroup, TargetHealthStateEnum,
};

use crate::lab::aws::Aws;
use crate::lab::world::CONTROLLER_TAG;

const STACK: &str = "ingress.k8s.aws/stack";
const RESOURCE: &str = "ingress.k8s.aws/resource";
const SERVICE_STACK: &str = "service.k8s.aws/stack";
const SERVICE_RESOURCE: &str = "service.k8s.aws/resource";

type Tags = BTreeMap<String, String>;

/// The account's load balancing as text.
pub(super) async fn of_account(aws: &Aws) -> Result<String> {
    let balancers = aws.elb.describe_load_balancers().send().await?;
    let groups = target_groups(aws).await?;
    let names: BTreeMap<&str, &str> = groups
        .iter()
        .filter_map(|(group, _)| Some((group.target_group_arn()?, group.target_group_name().unwrap_or_default())))
        .collect();
    let mut text = String::new();
    for balancer in balancers.load_balancers() {
        text.push_str(&load_balancer(aws, balancer, &names).await?);
    }
    let mut rows = vec![["TARGET GROUP", "PORT", "TARGET", "HEALTH", "FOR"].map(str::to_owned)];
    for (group, tags) in &groups {
        let mut first = [
            group.target_group_name().unwrap_or_default().to_owned(),
            format!("{} {}", group.protocol().map_or("", |it| it.as_str()), group.port().unwrap_or_default()),
        ];
        let mut cause = cause(tags);
        let arn = group.target_group_arn().unwrap_or_default();
        let health = aws.elb.describe_target_health().target_group_arn(arn).send().await?;
        let targets = health.target_health_descriptions();
        for description in targets {
            let target = description.target();
            let address = target.and_then(|it| it.id()).unwrap_or_default();
            let port = target.and_then(|it| it.port()).unwrap_or_default();
            let state = description.target_health().and_then(|it| it.state()).map_or("", |it| it.as_str());
            let [name, protocol] = std::mem::take(&mut first);
            rows.push([name, protocol, format!("{address}:{port}"), state.to_owned(), std::mem::take(&mut cause)]);
        }
        if targets.is_empty() {
            let [name, protocol] = first;
            rows.push([name, protocol, "none".to_owned(), String::new(), cause]);
        }
    }
    text.push_str(&columns(&rows));
    Ok(text)
}

/// Returns the number of healthy targets of the controller's target groups.
pub(super) async fn healthy_targets(aws: &Aws) -> Result<usize> {
    let mut healthy = 0;
    for (group, _) in target_groups(aws).await? {
        let arn = group.target_group_arn().unwrap_or_default();
        let health = aws.elb.describe_target_health().target_group_arn(arn).send().await?;
        let states = health.target_health_descriptions().iter().filter_map(|it| it.target_health()?.state());
        healthy += states.filter(|state| **state == TargetHealthStateEnum::Healthy).count();
    }
    Ok(healthy)
}

/// The names of everything in the account that a controller has made.
pub(super) async fn made_by_controller(aws: &Aws) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    let balancers = aws.elb.describe_load_balancers().send().await?;
    names.extend(balancers.load_balancers().iter().filter_map(|it| it.load_balancer_name()).map(str::to_owned));
    let groups = target_groups(aws).await?;
    names.extend(groups.iter().filter_map(|(group, _)| group.target_group_name()).map(str::to_owned));
    let groups = aws.ec2.describe_security_groups().send().await?;
    let ours = |tags: &[aws_sdk_ec2::types::Tag]| tags.iter().any(|tag| tag.key() == Some(CONTROLLER_TAG));
    let groups = groups.security_groups().iter().filter(|group| ours(group.tags()));
    names.extend(groups.filter_map(|group| group.group_name()).map(str::to_owned));
    Ok(names)
}

/// The target groups that a controller has made, with their tags.
async fn target_groups(aws: &Aws) -> Result<Vec<(TargetGroup, Tags)>> {
    let mut ours = Vec::new();
    for group in aws.elb.describe_target_groups().send().await?.target_groups() {
        let tags = tags(aws, group.target_group_arn().unwrap_or_default()).await?;
        if tags.contains_key(CONTROLLER_TAG) {
            ours.push((group.clone(), tags));
        }
    }
    Ok(ours)
}

async fn tags(aws: &Aws, arn: &str) -> Result<Tags> {
    let answer = aws.elb.describe_tags().resource_arns(arn).send().await?;
    let tags = answer.tag_descriptions().iter().flat_map(|description| description.tags());
    let tags = tags.map(|tag| (tag.key().unwrap_or_default(), tag.value().unwrap_or_default()));
    Ok(tags.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
}

/// The Kubernetes objects that a resource is for, from its tags.
fn cause(tags: &Tags) -> String {
    if let Some(service) = tags.get(SERVICE_STACK) {
        // A target group's resource is `namespace/service:port`.
        let port = tags.get(SERVICE_RESOURCE).and_then(|resource| resource.strip_prefix(service.as_str()));
        return format!("Service {service}{}", port.unwrap_or_default());
    }
    let (Some(stack), resource) = (tags.get(STACK), tags.get(RESOURCE)) else {
        return String::new();
    };
    // A target group's resource is `namespace/ingress-service:port`.
    match resource.and_then(|resource| resource.strip_prefix(stack.as_str())?.strip_prefix('-')) {
        Some(service) => format!("Service {service} of Ingress {stack}"),
        None => format!("Ingress {stack}"),
    }
}

async fn load_balancer(aws: &Aws, balancer: &LoadBalancer, names: &BTreeMap<&str, &str>) -> Result<String> {
    let arn = balancer.load_balancer_arn().unwrap_or_default();
    let state = balancer.state().and_then(|state| state.code()).map_or("", |code| code.as_str());
    let scheme = balancer.scheme().map_or("", |scheme| scheme.as_str());
    let zones: Vec<&str> = balancer.availability_zones().iter().filter_map(|zone| zone.zone_name()).collect();
    let mut text = String::new();
    writeln!(
        text,
        "LOAD BALANCER  {} for {}",
        balancer.load_balancer_name().unwrap_or_default(),
        cause(&tags(aws, arn).await?)
    )?;
    writeln!(text, "               {scheme}, {state}, in {}", zones.join(", "))?;
    writeln!(text, "               {}\n", balancer.dns_name().unwrap_or_default())?;
    let mut rows = vec![["LISTENER", "RULE", "WHEN", "THEN"].map(str::to_owned)];
    let answer = aws.elb.describe_listeners().load_balancer_arn(arn).send().await?;
    let mut listeners: Vec<&Listener> = answer.listeners().iter().collect();
    listeners.sort_by_key(|listener| listener.port());
    for listener in listeners {
        let protocol = listener.protocol().map_or("", |it| it.as_str());
        let mut title = format!("{protocol} {}", listener.port().unwrap_or_default());
        let arn = listener.listener_arn().unwrap_or_default();
        let answer = aws.elb.describe_rules().listener_arn(arn).send().await?;
        let mut rules: Vec<&Rule> = answer.rules().iter().collect();
        rules.sort_by_key(|rule| rule.priority().and_then(|it| it.parse().ok()).unwrap_or(u32::MAX));
        // A Network Load Balancer has no rules.
        if rules.is_empty() {
            let then: Vec<String> = listener.default_actions().iter().map(|it| action(it, names)).collect();
            rows.push([std::mem::take(&mut title), String::new(), "anything".to_owned(), then.join(", then ")]);
        }
        for rule in rules {
            let when: Vec<String> = rule.conditions().iter().map(condition).collect();
            let when = if when.is_empty() { "anything else".to_owned() } else { when.join(" and ") };
            let then: Vec<String> = rule.actions().iter().map(|it| action(it, names)).collect();
            let priority = rule.priority().unwrap_or_default().to_owned();
            rows.push([std::mem::take(&mut title), priority, when, then.join(", then ")]);
        }
    }
    text.push_str(&columns(&rows));
    text.push('\n');
    Ok(text)
}

fn condition(condition: &RuleCondition) -> String {
    let field = condition.field().unwrap_or_default();
    let paths = condition.path_pattern_config().map(|it| ("path", it.values()));
    let hosts = condition.host_header_config().map(|it| ("host", it.values()));
    let (name, values) = paths.or(hosts).unwrap_or((field, condition.values()));
    format!("{name} {}", values.join(" or "))
}

fn action(action: &Action, names: &BTreeMap<&str, &str>) -> String {
    let name = |arn: &str| names.get(arn).map_or_else(|| arn.to_owned(), |name| (*name).to_owned());
    if let Some(forward) = action.forward_config() {
        let groups = forward.target_groups().iter().filter_map(|it| it.target_group_arn()).map(name);
        return format!("forward to {}", groups.collect::<Vec<_>>().join(" and "));
    }
    if let Some(arn) = action.target_group_arn() {
        return format!("forward to {}", name(arn));
    }
    if let Some(redirect) = action.redirect_config() {
        let code = redirect.status_code().map_or("", |code| code.as_str());
        let (protocol, port) = (redirect.protocol().unwrap_or_default(), redirect.port().unwrap_or_default());
        return format!("redirect to {protocol} on port {port} ({code})");
    }
    if let Some(fixed) = action.fixed_response_config() {
        return format!(
            "answer {} {}",
            fixed.status_code().unwrap_or_default(),
            fixed.message_body().unwrap_or_default()
        )
        .trim_end()
        .to_owned();
    }
    action.r#type.as_ref().map_or("", |kind| kind.as_str()).to_owned()
}

/// Rows as aligned columns, two spaces apart.
fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(pairs: &[(&str, &str)]) -> Tags {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_cause_is_read_from_the_tags() {
        let causes = [
            tags(&[(STACK, "default/shop"), (RESOURCE, "default/shop-service1:9376")]),
            tags(&[(STACK, "default/shop"), (RESOURCE, "LoadBalancer")]),
            tags(&[(SERVICE_STACK, "default/dns"), (SERVICE_RESOURCE, "default/dns:53")]),
            tags(&[(SERVICE_STACK, "default/dns"), (SERVICE_RESOURCE, "LoadBalancer")]),
            tags(&[("other", "tag")]),
        ]
        .map(|tags| cause(&tags));
        let expected = [
            "Service service1:9376 of Ingress default/shop",
            "Ingress default/shop",
            "Service default/dns:53",
            "Service default/dns",
            "",
        ];
        assert_eq!(causes, expected);
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["A", "B"], ["long", "x"], ["", "y"]].map(|row| row.map(str::to_owned));
        assert_eq!(columns(&rows), "A     B\nlong  x\n      y\n");
    }
}
