//! The AWS side: load balancers with listeners and rules, target groups with targets, and security groups, by stack.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use aws_sdk_ec2::types::{IpPermission, SecurityGroup};
use aws_sdk_elasticloadbalancingv2::types::{
    EnablePrefixForIpv6SourceNatEnum, Listener, LoadBalancer, LoadBalancerTypeEnum, ProtocolEnum, TargetGroup,
    TargetHealthStateEnum,
};
use serde_json::{Map, Value, json};

use super::rules::{actions, conditions, fields, transform};
use super::{Snapshot, Symbols, without_hash};
use crate::lab::Lab;
use crate::lab::aws::Aws;
use crate::lab::world::{CONTROLLER_TAG, NODE_SECURITY_GROUP};

type Tags = BTreeMap<String, String>;

/// The tag of the stacks of Services. Their names hash a UID, which differs from run to run.
const SERVICE_STACK: &str = "service.k8s.aws/stack";
/// The tag that repeats a rule's priority, which is the controller's own choice.
const RESOURCE: &str = "ingress.k8s.aws/resource";

pub(super) async fn read(lab: &Lab, mut symbols: Symbols) -> Result<Snapshot> {
    let aws = &lab.aws;
    let groups = security_groups(aws).await?;
    let balancers = aws.elb.describe_load_balancers().into_paginator().items().send();
    let balancers = balancers.collect::<Result<Vec<_>, _>>().await?;
    let target_groups = aws.elb.describe_target_groups().into_paginator().items().send();
    let target_groups = target_groups.collect::<Result<Vec<_>, _>>().await?;
    let balancer_arns = balancers.iter().filter_map(LoadBalancer::load_balancer_arn);
    let arns = balancer_arns.chain(target_groups.iter().filter_map(TargetGroup::target_group_arn));
    let tags = tags_of(aws, arns.map(str::to_owned).collect()).await?;
    let tags_of = |arn: Option<&str>| arn.and_then(|arn| tags.get(arn)).cloned().unwrap_or_default();

    for group in &groups {
        let name = unhashed(group.group_name().unwrap_or_default(), &security_group_tags(group));
        symbols.insert(group.group_id().unwrap_or_default(), format!("sg:{name}"));
    }
    let mut hosts = BTreeMap::new();
    for balancer in &balancers {
        let arn = balancer.load_balancer_arn();
        let name = unhashed(balancer.load_balancer_name().unwrap_or_default(), &tags_of(arn));
        symbols.insert(arn.unwrap_or_default(), format!("lb:{name}"));
        hosts.insert(balancer.dns_name().unwrap_or_default().to_lowercase(), name);
        for zone in balancer.availability_zones() {
            let addresses = zone.load_balancer_addresses().iter().filter_map(|address| address.ipv6_address());
            for address in addresses.chain(zone.source_nat_ipv6_prefixes().iter().map(String::as_str)) {
                let (start, length) = address.split_once('/').unwrap_or((address, ""));
                if let Some(symbol) = lab.world.ipv6_symbol(start) {
                    let length = if length.is_empty() { String::new() } else { format!("/{length}") };
                    symbols.insert(address, symbol + &length);
                }
            }
        }
    }
    for group in &target_groups {
        let tags = tags_of(group.target_group_arn());
        let ending = |end: &str| tags.iter().find(|(key, _)| key.ends_with(end)).map(|(_, value)| value.as_str());
        let symbol = match ending("k8s.aws/resource") {
            Some(resource) => format!("tg:{}|{resource}", ending("k8s.aws/stack").unwrap_or_default()),
            None => format!("tg:{}", group.target_group_name().unwrap_or_default()),
        };
        symbols.insert(group.target_group_arn().unwrap_or_default(), symbol);
    }

    let mut stacks = Stacks::default();
    for balancer in &balancers {
        let tags = tags_of(balancer.load_balancer_arn());
        let name = unhashed(balancer.load_balancer_name().unwrap_or_default(), &tags);
        let state = load_balancer(aws, &symbols, balancer, &name, &tags).await?;
        stacks.add(&tags, "loadBalancers", name, state);
    }
    for group in &target_groups {
        let tags = tags_of(group.target_group_arn());
        let symbol = symbols.text(group.target_group_arn().unwrap_or_default()).to_owned();
        let state = target_group(aws, &symbols, group, &tags).await?;
        stacks.add(&tags, "targetGroups", symbol, state);
    }
    for group in &groups {
        let tags = security_group_tags(group);
        let name = group.group_name().unwrap_or_default();
        if tags.contains_key(CONTROLLER_TAG) || name == NODE_SECURITY_GROUP {
            let state = security_group(&symbols, group, &tags);
            stacks.add(&tags, "securityGroups", unhashed(name, &tags), state);
        }
    }
    let stacks = stacks.0.into_iter().map(|(stack, kinds)| (stack, json!(kinds))).collect();
    Ok(Snapshot { stacks, symbols, load_balancers: hosts })
}

#[derive(Default)]
struct Stacks(BTreeMap<String, BTreeMap<&'static str, Map<String, Value>>>);

impl Stacks {
    fn add(&mut self, tags: &Tags, kind: &'static str, mut name: String, state: Value) {
        let stack = tags.iter().find(|(key, _)| key.ends_with(".k8s.aws/stack"));
        let stack = stack.map_or_else(
            || "none".to_owned(),
            |(key, value)| format!("{}:{value}", key.split('.').next().unwrap_or_default()),
        );
        let kinds = self.0.entry(stack).or_default().entry(kind).or_default();
        // Two of one name: an old one that has not gone yet.
        while kinds.contains_key(&name) {
            name.push_str(" (again)");
        }
        kinds.insert(name, state);
    }
}

fn unhashed(name: &str, tags: &Tags) -> String {
    if tags.contains_key(SERVICE_STACK) { without_hash(name) } else { name.to_owned() }
}

/// The tags of ELB v2 resources by ARN, read twenty at a time, the most that the API accepts.
async fn tags_of(aws: &Aws, arns: Vec<String>) -> Result<BTreeMap<String, Tags>> {
    let mut all = BTreeMap::new();
    for some in arns.chunks(20) {
        let answer = aws.elb.describe_tags().set_resource_arns(Some(some.to_vec())).send().await?;
        for description in answer.tag_descriptions() {
            let tags = description.tags().iter();
            let tags = tags.map(|tag| (tag.key().unwrap_or_default(), tag.value().unwrap_or_default()));
            let tags = tags.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            all.insert(description.resource_arn().unwrap_or_default().to_owned(), tags);
        }
    }
    Ok(all)
}

async fn load_balancer(
    aws: &Aws,
    symbols: &Symbols,
    balancer: &LoadBalancer,
    name: &str,
    tags: &Tags,
) -> Result<Value> {
    let arn = balancer.load_balancer_arn().context("a load balancer without ARN")?;
    let zones = balancer.availability_zones();
    let mut subnets: Vec<_> = zones.iter().filter_map(|zone| zone.subnet_id()).map(|id| symbols.text(id)).collect();
    subnets.sort_unstable();
    let addresses = zones.iter().flat_map(|zone| zone.load_balancer_addresses());
    let addresses = addresses.flat_map(|address| {
        let ipv4 = address.allocation_id().or_else(|| address.private_ipv4_address());
        ipv4.into_iter().chain(address.ipv6_address())
    });
    let mut addresses: Vec<_> = addresses.map(|address| symbols.text(address)).collect();
    addresses.sort_unstable();
    let mut groups: Vec<_> = balancer.security_groups().iter().map(|id| symbols.text(id)).collect();
    groups.sort_unstable();
    let answer = aws.elb.describe_load_balancer_attributes().load_balancer_arn(arn).send().await?;
    let attributes: Tags = answer.attributes().iter().map(|it| pair(it.key(), it.value())).collect();
    let answered = aws.elb.describe_listeners().load_balancer_arn(arn).into_paginator().items().send();
    let mut listeners = Map::new();
    for one in answered.collect::<Result<Vec<_>, _>>().await? {
        let has_rules = balancer.r#type == Some(LoadBalancerTypeEnum::Application);
        listeners.insert(one.port().unwrap_or_default().to_string(), listener(aws, symbols, &one, has_rules).await?);
    }
    let mut state = json!({
        "name": name,
        "type": balancer.r#type.as_ref().map(|it| it.as_str()),
        "scheme": balancer.scheme().map(|it| it.as_str()),
        "ipAddressType": balancer.ip_address_type().map(|it| it.as_str()),
        "subnets": subnets,
        "addresses": addresses,
        "securityGroups": groups,
        "tags": tags,
        "attributes": attributes,
        "listeners": listeners,
    });
    // What AWS has by default is left out.
    if let Some(pool) = balancer.ipam_pools().and_then(|pools| pools.ipv4_ipam_pool_id()) {
        state["ipamPool"] = pool.into();
    }
    if let Some(pool) = balancer.customer_owned_ipv4_pool() {
        state["customerOwnedPool"] = pool.into();
    }
    let reserved = aws.elb.describe_capacity_reservation().load_balancer_arn(arn).send().await?;
    if let Some(units) = reserved.minimum_load_balancer_capacity().and_then(|minimum| minimum.capacity_units()) {
        state["capacityUnits"] = units.into();
    }
    if balancer.enforce_security_group_inbound_rules_on_private_link_traffic() == Some("off") {
        state["privateLinkEnforcement"] = "off".into();
    }
    if balancer.enable_prefix_for_ipv6_source_nat() == Some(&EnablePrefixForIpv6SourceNatEnum::On) {
        let prefixes = zones.iter().flat_map(|zone| zone.source_nat_ipv6_prefixes());
        state["sourceNatPrefixes"] = prefixes.map(|prefix| symbols.text(prefix)).collect();
    }
    if balancer.r#type == Some(LoadBalancerTypeEnum::Application) {
        let answer = aws.wafv2.get_web_acl_for_resource().resource_arn(arn).send().await?;
        if let Some(web_acl) = answer.web_acl() {
            state["webAcl"] = json!(symbols.text(web_acl.arn()));
        }
        if let Some(protection) = protection(aws, arn).await? {
            state["shieldProtection"] = json!(protection);
        }
    }
    Ok(state)
}

/// Returns the name of the protection of Shield Advanced that a resource has.
async fn protection(aws: &Aws, arn: &str) -> Result<Option<String>> {
    match aws.shield.describe_protection().resource_arn(arn).send().await {
        Ok(answer) => Ok(answer.protection().and_then(|protection| protection.name()).map(str::to_owned)),
        Err(error) if error.as_service_error().is_some_and(|error| error.is_resource_not_found_exception()) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn listener(aws: &Aws, symbols: &Symbols, listener: &Listener, has_rules: bool) -> Result<Value> {
    let arn = listener.listener_arn().context("a listener without ARN")?;
    let certificate = |arn: Option<&str>| arn.map(|arn| symbols.text(arn).to_owned());
    let default: Vec<_> = listener.certificates().iter().filter_map(|it| certificate(it.certificate_arn())).collect();
    let mut certificates = BTreeSet::new();
    if matches!(listener.protocol(), Some(ProtocolEnum::Https | ProtocolEnum::Tls)) {
        let answer = aws.elb.describe_listener_certificates().listener_arn(arn).send().await?;
        certificates.extend(answer.certificates().iter().filter_map(|it| certificate(it.certificate_arn())));
    }
    let mut rules = Vec::new();
    if has_rules {
        let answered = aws.elb.describe_rules().listener_arn(arn).into_paginator().items().send();
        rules = answered.collect::<Result<Vec<_>, _>>().await?;
        rules.retain(|rule| rule.is_default() != Some(true));
        rules.sort_by_key(|rule| rule.priority().and_then(|priority| priority.parse::<u32>().ok()));
    }
    let arns = std::iter::once(arn).chain(rules.iter().filter_map(|rule| rule.rule_arn())).map(str::to_owned);
    let tags = tags_of(aws, arns.collect()).await?;
    let mut states = Vec::new();
    for rule in &rules {
        let mut tags = rule.rule_arn().and_then(|arn| tags.get(arn)).cloned().unwrap_or_default();
        tags.remove(RESOURCE);
        let mut state = json!({
            "conditions": conditions(rule.conditions()),
            "actions": actions(symbols, rule.actions()),
            "tags": tags,
        });
        if !rule.transforms().is_empty() {
            state["transforms"] = rule.transforms().iter().map(transform).collect();
        }
        states.push(state);
    }
    let mutual = listener.mutual_authentication().filter(|it| it.mode() != Some("off")).map(|it| {
        symbols.value(&fields([
            ("Mode", it.mode().map(Value::from)),
            ("TrustStoreArn", it.trust_store_arn().map(Value::from)),
            ("IgnoreClientCertificateExpiry", it.ignore_client_certificate_expiry().map(Value::from)),
            ("TrustStoreAssociationStatus", it.trust_store_association_status().map(|it| it.as_str().into())),
            ("AdvertiseTrustStoreCaNames", it.advertise_trust_store_ca_names().map(|it| it.as_str().into())),
        ]))
    });
    let mut state = json!({
        "protocol": listener.protocol().map(|it| it.as_str()),
        "defaultCertificate": default,
        "certificates": certificates,
        "sslPolicy": listener.ssl_policy(),
        "alpn": listener.alpn_policy(),
        "mutualAuthentication": mutual,
        "defaultActions": actions(symbols, listener.default_actions()),
        "tags": tags.get(arn).cloned().unwrap_or_default(),
        "rules": states,
    });
    // The emulator knows no attributes of some listeners and answers with an error then.
    if let Ok(answer) = aws.elb.describe_listener_attributes().listener_arn(arn).send().await {
        let attributes: Tags = answer.attributes().iter().map(|it| pair(it.key(), it.value())).collect();
        state["attributes"] = json!(attributes);
    }
    Ok(state)
}

async fn target_group(aws: &Aws, symbols: &Symbols, group: &TargetGroup, tags: &Tags) -> Result<Value> {
    let arn = group.target_group_arn().context("a target group without ARN")?;
    let answer = aws.elb.describe_target_health().target_group_arn(arn).send().await?;
    let mut targets = Vec::new();
    for description in answer.target_health_descriptions() {
        let draining = description.target_health().and_then(|health| health.state());
        if let (Some(target), false) = (description.target(), draining == Some(&TargetHealthStateEnum::Draining)) {
            let port = target.port().map_or_else(|| "None".to_owned(), |port| number(symbols, port));
            let zone = target.availability_zone().map(|zone| format!(" in {zone}")).unwrap_or_default();
            let server_id = target.quic_server_id().map(|id| format!(" as {id}")).unwrap_or_default();
            targets.push(format!("{}:{port}{zone}{server_id}", symbols.text(target.id().unwrap_or_default())));
        }
    }
    targets.sort_unstable();
    let answer = aws.elb.describe_target_group_attributes().target_group_arn(arn).send().await?;
    let attributes: Tags = answer.attributes().iter().map(|it| pair(it.key(), it.value())).collect();
    let matcher = group.matcher().map(|it| {
        fields([("HttpCode", it.http_code().map(Value::from)), ("GrpcCode", it.grpc_code().map(Value::from))])
    });
    let described = symbols.value(&json!({
        "Protocol": group.protocol().map(|it| it.as_str()),
        "Port": group.port(),
        "TargetType": group.target_type().map(|it| it.as_str()),
        "ProtocolVersion": group.protocol_version(),
        "IpAddressType": group.ip_address_type().map(|it| it.as_str()),
        "HealthCheckEnabled": group.health_check_enabled(),
        "HealthCheckProtocol": group.health_check_protocol().map(|it| it.as_str()),
        "HealthCheckPort": group.health_check_port(),
        "HealthCheckPath": group.health_check_path(),
        "HealthCheckIntervalSeconds": group.health_check_interval_seconds(),
        "HealthCheckTimeoutSeconds": group.health_check_timeout_seconds(),
        "HealthyThresholdCount": group.healthy_threshold_count(),
        "UnhealthyThresholdCount": group.unhealthy_threshold_count(),
        "Matcher": matcher,
    }));
    let mut state = described;
    state["name"] = without_hash(group.target_group_name().unwrap_or_default()).into();
    state["attributes"] = json!(attributes);
    state["targets"] = json!(targets);
    state["tags"] = json!(tags);
    Ok(state)
}

async fn security_groups(aws: &Aws) -> Result<Vec<SecurityGroup>> {
    let answered = aws.ec2.describe_security_groups().into_paginator().items().send();
    Ok(answered.collect::<Result<Vec<_>, _>>().await?)
}

fn security_group_tags(group: &SecurityGroup) -> Tags {
    group.tags().iter().map(|it| pair(it.key(), it.value())).collect()
}

fn security_group(symbols: &Symbols, group: &SecurityGroup, tags: &Tags) -> Value {
    let mut ingress: Vec<String> = group.ip_permissions().iter().flat_map(|it| permission(symbols, it)).collect();
    ingress.sort_unstable();
    json!({"description": group.description(), "ingress": ingress, "tags": tags})
}

/// A permission as one line for each of its sources: `tcp 80-80 cidr:0.0.0.0/0 description`.
pub(crate) fn permission(symbols: &Symbols, permission: &IpPermission) -> Vec<String> {
    let port = |port: Option<i32>| port.map_or_else(|| "None".to_owned(), |port| number(symbols, port));
    let (from, to) = (port(permission.from_port()), port(permission.to_port()));
    let start = format!("{} {from}-{to}", permission.ip_protocol().unwrap_or_default());
    let line = |kind: &str, source: Option<&str>, description: Option<&str>| {
        let source = symbols.text(source.unwrap_or_default());
        format!("{start} {kind}:{source} {}", description.unwrap_or_default()).trim().to_owned()
    };
    let cidrs = permission.ip_ranges().iter().map(|it| line("cidr", it.cidr_ip(), it.description()));
    let cidrs6 = permission.ipv6_ranges().iter().map(|it| line("cidr6", it.cidr_ipv6(), it.description()));
    let groups = permission.user_id_group_pairs().iter().map(|it| line("sg", it.group_id(), it.description()));
    let lists = permission.prefix_list_ids().iter().map(|it| line("pl", it.prefix_list_id(), it.description()));
    cidrs.chain(cidrs6).chain(groups).chain(lists).collect()
}

fn number(symbols: &Symbols, number: i32) -> String {
    symbols.text(&number.to_string()).to_owned()
}

fn pair(key: Option<&str>, value: Option<&str>) -> (String, String) {
    (key.unwrap_or_default().to_owned(), value.unwrap_or_default().to_owned())
}
