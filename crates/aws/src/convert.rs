//! Between the SDK's types and [`albatross_core::model`].

mod authentication;

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::types as ec2;
use aws_sdk_elasticloadbalancingv2::types as elb;

pub(super) use self::authentication::to_mutual_authentication;
use albatross_core::model::{
    Action, Authentication, CertificateArn, Condition, HealthCheck, HealthCheckProtocol, HealthState, IpAddressType,
    ListenerArn, ListenerProtocol, LoadBalancerArn, LoadBalancerKind, LoadBalancerState, LoadBalancerTarget, Matcher,
    ObservedAddOns, ObservedListener, ObservedLoadBalancer, ObservedNetworkSettings, ObservedPools, ObservedRule,
    ObservedTargetGroup, QueryStringValue, Rewrite, RuleArn, Scheme, SecurityGroupId, SecurityGroupRule, Source,
    Stickiness, SubnetId, SubnetMapping, Tags, Target, TargetGroupArn, TargetHealth, Transform, WeightedTargetGroup,
};

fn texts(values: Option<&Vec<String>>) -> Vec<String> {
    values.cloned().unwrap_or_default()
}

/// Tags of ELB v2.
pub(super) fn elb_tags(tags: &[elb::Tag]) -> Tags {
    tags.iter().filter_map(|t| Some((t.key()?.to_owned(), t.value().unwrap_or_default().to_owned()))).collect()
}

/// Tags for ELB v2; `None` for none, since it refuses an empty list.
pub(crate) fn to_elb_tags(tags: &Tags) -> Option<Vec<elb::Tag>> {
    let tags: Vec<_> = tags.iter().map(|(key, value)| elb::Tag::builder().key(key).value(value).build()).collect();
    (!tags.is_empty()).then_some(tags)
}

/// Tags of EC2.
pub(super) fn ec2_tags(tags: &[ec2::Tag]) -> Tags {
    tags.iter().filter_map(|t| Some((t.key()?.to_owned(), t.value().unwrap_or_default().to_owned()))).collect()
}

/// Tags for EC2.
pub(super) fn to_ec2_tags(tags: &Tags) -> Vec<ec2::Tag> {
    tags.iter().map(|(key, value)| ec2::Tag::builder().key(key).value(value).build()).collect()
}

/// An action. The lone target group of a forward may stand outside its configuration.
pub(super) fn action(action: &elb::Action) -> Action<TargetGroupArn> {
    let kind = action.r#type().map_or("unknown", elb::ActionTypeEnum::as_str);
    match kind {
        "forward" => {
            let config = action.forward_config();
            let mut target_groups: Vec<_> = config
                .map(elb::ForwardActionConfig::target_groups)
                .unwrap_or_default()
                .iter()
                .filter_map(|t| {
                    Some(WeightedTargetGroup { group: TargetGroupArn::new(t.target_group_arn()?), weight: t.weight() })
                })
                .collect();
            if target_groups.is_empty() {
                let lone = action.target_group_arn().map(TargetGroupArn::new);
                target_groups.extend(lone.map(|group| WeightedTargetGroup { group, weight: None }));
            }
            let stickiness = config.and_then(elb::ForwardActionConfig::target_group_stickiness_config);
            Action::Forward {
                target_groups,
                stickiness: stickiness.map(|s| Stickiness {
                    enabled: s.enabled().unwrap_or_default(),
                    duration_seconds: s.duration_seconds(),
                }),
            }
        }
        "redirect" => action.redirect_config().map_or_else(
            || Action::Other(kind.to_owned()),
            |r| Action::Redirect {
                host: r.host.clone(),
                path: r.path.clone(),
                port: r.port.clone(),
                protocol: r.protocol.clone(),
                query: r.query.clone(),
                status_code: r.status_code().map(|c| c.as_str().to_owned()).unwrap_or_default(),
            },
        ),
        "fixed-response" => action.fixed_response_config().map_or_else(
            || Action::Other(kind.to_owned()),
            |r| Action::FixedResponse {
                content_type: r.content_type.clone(),
                message_body: r.message_body.clone(),
                status_code: r.status_code.clone().unwrap_or_default(),
            },
        ),
        "authenticate-cognito" => action.authenticate_cognito_config().map_or_else(
            || Action::Other(kind.to_owned()),
            |c| Action::AuthenticateCognito(authentication::cognito(c)),
        ),
        "authenticate-oidc" => {
            action.authenticate_oidc_config().map_or_else(|| Action::Other(kind.to_owned()), authentication::oidc)
        }
        "jwt-validation" => action
            .jwt_validation_config()
            .map_or_else(|| Action::Other(kind.to_owned()), |c| Action::JwtValidation(authentication::jwt(c))),
        other => Action::Other(other.to_owned()),
    }
}

/// Actions by their order.
pub(super) fn actions(actions: &[elb::Action]) -> Vec<Action<TargetGroupArn>> {
    let mut sorted: Vec<_> = actions.iter().collect();
    sorted.sort_by_key(|a| a.order().unwrap_or_default());
    sorted.into_iter().map(action).collect()
}

/// Converts the authentication and action of a listener or rule to AWS's form. `None` for actions that the controller does not make,
/// and for a Secret that is not known.
pub(crate) fn to_actions(before: Option<&Authentication>, action: &Action<TargetGroupArn>) -> Option<Vec<elb::Action>> {
    let mut action = to_action(action)?;
    let Some(before) = before else { return Some(vec![action]) };
    action.order = Some(2);
    Some(vec![authentication::to_authentication(before)?, action])
}

/// The one action of a listener or rule, as AWS takes it. `None` for a kind that is not made here, or by [`to_actions`].
pub(crate) fn to_action(action: &Action<TargetGroupArn>) -> Option<elb::Action> {
    let builder = elb::Action::builder().order(1);
    Some(match action {
        Action::Forward { target_groups, stickiness } => {
            let target_groups = target_groups.iter().map(|t| {
                elb::TargetGroupTuple::builder().target_group_arn(t.group.as_str()).set_weight(t.weight).build()
            });
            let stickiness = stickiness.as_ref().map(|s| {
                elb::TargetGroupStickinessConfig::builder()
                    .enabled(s.enabled)
                    .set_duration_seconds(s.duration_seconds)
                    .build()
            });
            let config = elb::ForwardActionConfig::builder()
                .set_target_groups(Some(target_groups.collect()))
                .set_target_group_stickiness_config(stickiness)
                .build();
            builder.r#type(elb::ActionTypeEnum::Forward).forward_config(config).build()
        }
        Action::Redirect { host, path, port, protocol, query, status_code } => {
            let config = elb::RedirectActionConfig::builder()
                .set_host(host.clone())
                .set_path(path.clone())
                .set_port(port.clone())
                .set_protocol(protocol.clone())
                .set_query(query.clone())
                .status_code(elb::RedirectActionStatusCodeEnum::from(status_code.as_str()))
                .build();
            builder.r#type(elb::ActionTypeEnum::Redirect).redirect_config(config).build()
        }
        Action::FixedResponse { content_type, message_body, status_code } => {
            let config = elb::FixedResponseActionConfig::builder()
                .set_content_type(content_type.clone())
                .set_message_body(message_body.clone())
                .status_code(status_code)
                .build();
            builder.r#type(elb::ActionTypeEnum::FixedResponse).fixed_response_config(config).build()
        }
        Action::AuthenticateCognito(_)
        | Action::AuthenticateOidc { .. }
        | Action::JwtValidation(_)
        | Action::Other(_) => return None,
    })
}

/// A condition. Rules made long ago have their values outside the configuration.
pub(super) fn condition(condition: &elb::RuleCondition) -> Condition {
    let field = condition.field().unwrap_or("unknown");
    let legacy = || texts(condition.values.as_ref());
    let legacy_regex = || texts(condition.regex_values.as_ref());
    match field {
        "host-header" => {
            let config = condition.host_header_config();
            Condition::HostHeader {
                values: config.map_or_else(legacy, |c| texts(c.values.as_ref())),
                regex_values: config.map_or_else(legacy_regex, |c| texts(c.regex_values.as_ref())),
            }
        }
        "path-pattern" => {
            let config = condition.path_pattern_config();
            Condition::PathPattern {
                values: config.map_or_else(legacy, |c| texts(c.values.as_ref())),
                regex_values: config.map_or_else(legacy_regex, |c| texts(c.regex_values.as_ref())),
            }
        }
        "http-header" => {
            let config = condition.http_header_config();
            Condition::HttpHeader {
                name: config.and_then(|c| c.http_header_name()).unwrap_or_default().to_owned(),
                values: config.map_or_else(legacy, |c| texts(c.values.as_ref())),
                regex_values: config.map_or_else(legacy_regex, |c| texts(c.regex_values.as_ref())),
            }
        }
        "http-request-method" => {
            let config = condition.http_request_method_config();
            Condition::HttpRequestMethod { values: config.map_or_else(legacy, |c| texts(c.values.as_ref())) }
        }
        "query-string" => {
            let pairs = condition.query_string_config().map(elb::QueryStringConditionConfig::values);
            let pair = |p: &elb::QueryStringKeyValuePair| QueryStringValue {
                key: p.key.clone(),
                value: p.value.clone().unwrap_or_default(),
            };
            Condition::QueryString { values: pairs.unwrap_or_default().iter().map(pair).collect() }
        }
        "source-ip" => {
            let config = condition.source_ip_config();
            Condition::SourceIp { values: config.map_or_else(legacy, |c| texts(c.values.as_ref())) }
        }
        other => Condition::Other(other.to_owned()),
    }
}

/// A condition as AWS takes it. `None` for a field that is not known here.
pub(crate) fn to_condition(condition: &Condition) -> Option<elb::RuleCondition> {
    let filled = |values: &Vec<String>| (!values.is_empty()).then(|| values.clone());
    let builder = elb::RuleCondition::builder().field(condition.field());
    Some(
        match condition {
            Condition::HostHeader { values, regex_values } => builder.host_header_config(
                elb::HostHeaderConditionConfig::builder()
                    .set_values(filled(values))
                    .set_regex_values(filled(regex_values))
                    .build(),
            ),
            Condition::PathPattern { values, regex_values } => builder.path_pattern_config(
                elb::PathPatternConditionConfig::builder()
                    .set_values(filled(values))
                    .set_regex_values(filled(regex_values))
                    .build(),
            ),
            Condition::HttpHeader { name, values, regex_values } => builder.http_header_config(
                elb::HttpHeaderConditionConfig::builder()
                    .http_header_name(name)
                    .set_values(filled(values))
                    .set_regex_values(filled(regex_values))
                    .build(),
            ),
            Condition::HttpRequestMethod { values } => builder.http_request_method_config(
                elb::HttpRequestMethodConditionConfig::builder().set_values(filled(values)).build(),
            ),
            Condition::QueryString { values } => {
                let pairs = values
                    .iter()
                    .map(|v| elb::QueryStringKeyValuePair::builder().set_key(v.key.clone()).value(&v.value).build());
                builder.query_string_config(
                    elb::QueryStringConditionConfig::builder().set_values(Some(pairs.collect())).build(),
                )
            }
            Condition::SourceIp { values } => {
                builder.source_ip_config(elb::SourceIpConditionConfig::builder().set_values(filled(values)).build())
            }
            Condition::Other(_) => return None,
        }
        .build(),
    )
}

fn rewrites(rewrites: &[elb::RewriteConfig]) -> Vec<Rewrite> {
    let part = |part: Option<&str>| part.unwrap_or_default().to_owned();
    rewrites.iter().map(|r| Rewrite { regex: part(r.regex()), replace: part(r.replace()) }).collect()
}

/// A transform.
pub(super) fn transform(transform: &elb::RuleTransform) -> Transform {
    match transform.r#type().map_or("unknown", elb::TransformTypeEnum::as_str) {
        "host-header-rewrite" => Transform::HostHeaderRewrite(rewrites(
            transform.host_header_rewrite_config().map(elb::HostHeaderRewriteConfig::rewrites).unwrap_or_default(),
        )),
        "url-rewrite" => Transform::UrlRewrite(rewrites(
            transform.url_rewrite_config().map(elb::UrlRewriteConfig::rewrites).unwrap_or_default(),
        )),
        other => Transform::Other(other.to_owned()),
    }
}

/// A transform as AWS takes it. `None` for a kind that is not known here.
pub(crate) fn to_transform(transform: &Transform) -> Option<elb::RuleTransform> {
    let rewrites = transform
        .rewrites()
        .iter()
        .map(|r| elb::RewriteConfig::builder().regex(&r.regex).replace(&r.replace).build())
        .collect();
    let builder = elb::RuleTransform::builder();
    Some(match transform {
        Transform::HostHeaderRewrite(_) => builder
            .r#type(elb::TransformTypeEnum::HostHeaderRewrite)
            .host_header_rewrite_config(elb::HostHeaderRewriteConfig::builder().set_rewrites(Some(rewrites)).build())
            .build(),
        Transform::UrlRewrite(_) => builder
            .r#type(elb::TransformTypeEnum::UrlRewrite)
            .url_rewrite_config(elb::UrlRewriteConfig::builder().set_rewrites(Some(rewrites)).build())
            .build(),
        Transform::Other(_) => return None,
    })
}

/// A rule without its tags. `None` for the default rule, which is the listener's default action.
pub(super) fn rule(rule: &elb::Rule) -> Option<ObservedRule> {
    if rule.is_default().unwrap_or_default() {
        return None;
    }
    Some(ObservedRule {
        arn: RuleArn::new(rule.rule_arn()?),
        priority: rule.priority()?.parse().ok()?,
        conditions: rule.conditions().iter().map(condition).collect(),
        actions: actions(rule.actions()),
        transforms: rule.transforms().iter().map(transform).collect(),
        tags: Tags::new(),
    })
}

/// A listener without rules, further certificates and tags.
pub(super) fn listener(listener: &elb::Listener) -> Option<ObservedListener> {
    let protocol = listener.protocol().and_then(|p| ListenerProtocol::from_word(p.as_str()));
    // Listeners that do not use TLS have no policy and no certificate, whatever an answer says.
    let secure = protocol.is_none_or(ListenerProtocol::is_secure);
    let certificate = listener.certificates().iter().find_map(elb::Certificate::certificate_arn);
    Some(ObservedListener {
        arn: ListenerArn::new(listener.listener_arn()?),
        port: u16::try_from(listener.port()?).ok()?,
        protocol,
        default_actions: actions(listener.default_actions()),
        default_certificate: certificate.filter(|_| secure).map(CertificateArn::new),
        certificates: BTreeSet::new(),
        ssl_policy: listener.ssl_policy().filter(|policy| secure && !policy.is_empty()).map(str::to_owned),
        alpn_policy: listener.alpn_policy().first().filter(|_| secure).cloned(),
        mutual_authentication: listener.mutual_authentication().and_then(authentication::mutual_authentication),
        attributes: None,
        tags: Tags::new(),
        rules: Vec::new(),
    })
}

/// The security groups that a load balancer of any type is in.
pub(super) fn security_groups(balancer: &elb::LoadBalancer) -> BTreeSet<SecurityGroupId> {
    balancer.security_groups().iter().map(SecurityGroupId::new).collect()
}

/// A subnet as CreateLoadBalancer and SetSubnets take it.
pub(super) fn to_subnet_mapping(mapping: &SubnetMapping) -> elb::SubnetMapping {
    elb::SubnetMapping::builder()
        .subnet_id(mapping.subnet.as_str())
        .set_allocation_id(mapping.allocation.clone())
        .set_private_ipv4_address(mapping.private_ipv4.clone())
        .set_ipv6_address(mapping.ipv6.clone())
        .set_source_nat_ipv6_prefix(mapping.source_nat_prefix.as_ref().map(ToString::to_string))
        .build()
}

/// The switch for source NAT of IPv6 as CreateLoadBalancer and SetSubnets take it.
pub(super) fn to_source_nat(on: bool) -> elb::EnablePrefixForIpv6SourceNatEnum {
    if on { elb::EnablePrefixForIpv6SourceNatEnum::On } else { elb::EnablePrefixForIpv6SourceNatEnum::Off }
}

/// Returns the prefix for source NAT in each subnet that has one.
pub(super) fn source_nat_prefixes(zones: &[elb::AvailabilityZone]) -> BTreeMap<SubnetId, String> {
    let of_zone = |zone: &elb::AvailabilityZone| {
        Some((SubnetId::new(zone.subnet_id()?), zone.source_nat_ipv6_prefixes().first()?.clone()))
    };
    zones.iter().filter_map(of_zone).collect()
}

fn network_settings(balancer: &elb::LoadBalancer) -> ObservedNetworkSettings {
    let source_nat = balancer.enable_prefix_for_ipv6_source_nat();
    ObservedNetworkSettings {
        ipv6_source_nat: source_nat == Some(&elb::EnablePrefixForIpv6SourceNatEnum::On),
        source_nat_prefixes: source_nat_prefixes(balancer.availability_zones()),
        private_link_rules: match balancer.enforce_security_group_inbound_rules_on_private_link_traffic() {
            Some("on") => Some(true),
            Some("off") => Some(false),
            _ => None,
        },
    }
}

/// An Application or Network Load Balancer without listeners and tags. `None` for other types.
pub(super) fn load_balancer(balancer: &elb::LoadBalancer) -> Option<ObservedLoadBalancer> {
    let kind = LoadBalancerKind::from_word(balancer.r#type()?.as_str())?;
    let state = balancer.state().and_then(|s| s.code());
    Some(ObservedLoadBalancer {
        arn: LoadBalancerArn::new(balancer.load_balancer_arn()?),
        name: balancer.load_balancer_name()?.to_owned(),
        kind,
        dns_name: balancer.dns_name().unwrap_or_default().to_owned(),
        scheme: Scheme::from_word(balancer.scheme()?.as_str())?,
        ip_address_type: address_type(balancer.ip_address_type().map(elb::IpAddressType::as_str)),
        network: network_settings(balancer),
        pools: ObservedPools {
            ipam: balancer.ipam_pools().and_then(|pools| pools.ipv4_ipam_pool_id()).map(str::to_owned),
            customer_owned: balancer.customer_owned_ipv4_pool().map(str::to_owned),
        },
        state: match state.map_or("", elb::LoadBalancerStateEnum::as_str) {
            "active" => LoadBalancerState::Active,
            "active_impaired" => LoadBalancerState::ActiveImpaired,
            "failed" => LoadBalancerState::Failed,
            _ => LoadBalancerState::Provisioning,
        },
        subnets: balancer.availability_zones().iter().filter_map(|z| Some(SubnetId::new(z.subnet_id()?))).collect(),
        security_groups: security_groups(balancer),
        attributes: None,
        tags: Tags::new(),
        listeners: None,
        add_ons: ObservedAddOns::default(),
    })
}

fn address_type(word: Option<&str>) -> IpAddressType {
    word.and_then(IpAddressType::from_word).unwrap_or_else(IpAddressType::unsaid)
}

/// A target group without tags.
pub(super) fn target_group(group: &elb::TargetGroup) -> Option<ObservedTargetGroup> {
    Some(ObservedTargetGroup {
        arn: TargetGroupArn::new(group.target_group_arn()?),
        name: group.target_group_name()?.to_owned(),
        target_type: group.target_type().map_or("instance", elb::TargetTypeEnum::as_str).to_owned(),
        protocol: group.protocol().map(|p| p.as_str().to_owned()).unwrap_or_default(),
        protocol_version: group.protocol_version().map(str::to_owned),
        ip_address_type: address_type(group.ip_address_type().map(elb::TargetGroupIpAddressTypeEnum::as_str)),
        health_check: health_check(group),
        attributes: None,
        tags: Tags::new(),
    })
}

/// Returns the load balancers that are registered in a target group, without those that drain.
pub(super) fn load_balancer_targets(targets: &BTreeMap<Target, TargetHealth>) -> BTreeSet<LoadBalancerTarget> {
    let drains = |health: &TargetHealth| matches!(health.state, HealthState::Draining | HealthState::UnhealthyDraining);
    let registered = targets.iter().filter(|(_, health)| !drains(health));
    registered
        .map(|(target, _)| LoadBalancerTarget { load_balancer: LoadBalancerArn::new(&target.id), port: target.port })
        .collect()
}

/// Returns load balancers as the targets of a target group, with a health that is not known.
pub(super) fn registered_load_balancers(targets: BTreeSet<LoadBalancerTarget>) -> BTreeMap<Target, TargetHealth> {
    let target = |LoadBalancerTarget { load_balancer, port }| Target { id: load_balancer.to_string(), port };
    targets.into_iter().map(|registered| (target(registered), TargetHealth::registering())).collect()
}

fn health_check(group: &elb::TargetGroup) -> Option<HealthCheck> {
    if group.health_check_enabled() == Some(false) {
        return None;
    }
    let protocol = HealthCheckProtocol::from_word(group.health_check_protocol()?.as_str())?;
    // A check that only connects has neither path nor codes, whatever an answer says.
    let asks = protocol != HealthCheckProtocol::Tcp;
    let matcher = group.matcher().filter(|_| asks).and_then(|m| match (m.grpc_code(), m.http_code()) {
        (Some(code), _) if !code.is_empty() => Some(Matcher::Grpc(code.to_owned())),
        (_, Some(code)) => Some(Matcher::Http(code.to_owned())),
        _ => None,
    });
    Some(HealthCheck {
        port: group.health_check_port()?.to_owned(),
        protocol,
        path: group.health_check_path().filter(|_| asks).map(str::to_owned),
        interval_seconds: group.health_check_interval_seconds()?,
        timeout_seconds: group.health_check_timeout_seconds()?,
        healthy_threshold: group.healthy_threshold_count()?,
        unhealthy_threshold: group.unhealthy_threshold_count()?,
        matcher,
    })
}

/// The codes that count as healthy, as AWS takes them.
pub(crate) fn to_matcher(matcher: &Matcher) -> elb::Matcher {
    match matcher {
        Matcher::Http(code) => elb::Matcher::builder().http_code(code),
        Matcher::Grpc(code) => elb::Matcher::builder().grpc_code(code),
    }
    .build()
}

/// The permissions of a security group, taken apart to one source each.
pub(super) fn permissions(permissions: &[ec2::IpPermission]) -> BTreeSet<SecurityGroupRule> {
    permissions.iter().flat_map(permission).collect()
}

fn permission(permission: &ec2::IpPermission) -> Vec<SecurityGroupRule> {
    let cidrs = permission.ip_ranges().iter().filter_map(|r| Some((Source::Ipv4(r.cidr_ip.clone()?), &r.description)));
    let cidrs6 =
        permission.ipv6_ranges().iter().filter_map(|r| Some((Source::Ipv6(r.cidr_ipv6.clone()?), &r.description)));
    let groups = permission
        .user_id_group_pairs()
        .iter()
        .filter_map(|r| Some((Source::SecurityGroup(SecurityGroupId::new(r.group_id()?)), &r.description)));
    let lists = permission
        .prefix_list_ids()
        .iter()
        .filter_map(|r| Some((Source::PrefixList(r.prefix_list_id.clone()?), &r.description)));
    let protocol = permission.ip_protocol().unwrap_or("-1");
    let ported = protocol != "-1";
    cidrs
        .chain(cidrs6)
        .chain(groups)
        .chain(lists)
        .map(|(source, description)| SecurityGroupRule {
            protocol: protocol.to_owned(),
            from_port: permission.from_port().filter(|_| ported),
            to_port: permission.to_port().filter(|_| ported),
            source,
            description: description.clone().unwrap_or_default(),
        })
        .collect()
}

/// Rules as EC2 takes them: one permission each.
pub(super) fn to_permissions(rules: &[SecurityGroupRule]) -> Vec<ec2::IpPermission> {
    rules.iter().map(to_permission).collect()
}

fn to_permission(rule: &SecurityGroupRule) -> ec2::IpPermission {
    let description = Some(rule.description.clone()).filter(|d| !d.is_empty());
    let builder = ec2::IpPermission::builder()
        .ip_protocol(&rule.protocol)
        .set_from_port(rule.from_port)
        .set_to_port(rule.to_port);
    match &rule.source {
        Source::Ipv4(cidr) => {
            builder.ip_ranges(ec2::IpRange::builder().cidr_ip(cidr).set_description(description).build())
        }
        Source::Ipv6(cidr) => {
            builder.ipv6_ranges(ec2::Ipv6Range::builder().cidr_ipv6(cidr).set_description(description).build())
        }
        Source::SecurityGroup(id) => builder.user_id_group_pairs(
            ec2::UserIdGroupPair::builder().group_id(id.as_str()).set_description(description).build(),
        ),
        Source::PrefixList(id) => builder
            .prefix_list_ids(ec2::PrefixListId::builder().prefix_list_id(id).set_description(description).build()),
    }
    .build()
}

#[cfg(test)]
mod tests;
