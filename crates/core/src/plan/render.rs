//! Plans for people: one line a step, its cause, and the values that are known only after apply.

use std::{
    collections::BTreeSet,
    fmt::{self, Write as _},
    mem,
};

use super::{
    action::StepAction,
    step::{AttributesOf, ListenerReference, Plan, RuleReference, SecurityGroupTarget, Wait},
};
use crate::model::tags::CLUSTER;
use crate::model::{
    Action, Authentication, CapacityUnits, Condition, IpAddressType, Listener, LoadBalancer, LoadBalancerTarget,
    SecurityGroupReference, SecurityGroupRule, SubnetMapping, Tags, TargetGroup, TargetGroupReference, Transform,
    Value,
};

/// Returns how many steps of which kind a plan has: `7 to create, 1 to change, 2 to delete`. A change of what the same plan
/// creates is part of the creation.
#[must_use]
pub fn summary(plan: &Plan) -> String {
    let (mut create, mut change, mut delete) = (0, 0, 0);
    for step in &plan.steps {
        match &step.action {
            action if action.is_destructive() => delete += 1,
            StepAction::CreateSecurityGroup(_)
            | StepAction::CreateTargetGroup(_)
            | StepAction::CreateFrontendTargetGroup(_)
            | StepAction::RegisterLoadBalancer { .. }
            | StepAction::CreateBinding(_)
            | StepAction::CreateLoadBalancer(_)
            | StepAction::CreateListener { .. }
            | StepAction::CreateRule { .. }
            | StepAction::CreateProtection { .. } => create += 1,
            action if changes_new(action, plan) => create += 1,
            _ => change += 1,
        }
    }
    format!("{create} to create, {change} to change, {delete} to delete")
}

/// Returns true if a step changes a resource that the plan creates.
fn changes_new(action: &StepAction, plan: &Plan) -> bool {
    match action {
        StepAction::AuthorizeIngress { group: SecurityGroupTarget::Created, .. }
        | StepAction::AddListenerCertificates { listener: ListenerReference::Created(_), .. }
        | StepAction::ModifyAttributes {
            of: AttributesOf::LoadBalancer(None) | AttributesOf::Listener(ListenerReference::Created(_)),
            ..
        }
        | StepAction::AssociateWebAcl { load_balancer: None, .. } => true,
        StepAction::ModifyAttributes { of: AttributesOf::TargetGroup(TargetGroupReference::Own(resource)), .. } => plan
            .steps
            .iter()
            .any(|step| matches!(&step.action, StepAction::CreateTargetGroup(group) if group.resource == *resource)),
        _ => false,
    }
}

/// A whole plan: every step with its details and its cause.
#[must_use]
pub fn render(plan: &Plan) -> String {
    let mut out = String::new();
    for step in &plan.steps {
        let sign = match &step.action {
            action if action.is_destructive() => '-',
            StepAction::CreateSecurityGroup(_)
            | StepAction::CreateTargetGroup(_)
            | StepAction::CreateBinding(_)
            | StepAction::CreateLoadBalancer(_)
            | StepAction::CreateListener { .. }
            | StepAction::CreateRule { .. }
            | StepAction::CreateProtection { .. } => '+',
            _ => '~',
        };
        let _ = writeln!(out, "  {sign} {}", step.action);
        for (name, value) in details(&step.action) {
            let _ = writeln!(out, "      {name:<16} {value}");
        }
        let _ = writeln!(out, "      {:<16} {}", "because of", step.cause);
    }
    for wait in until(&plan.waits) {
        let _ = writeln!(out, "  then wait {wait}");
    }
    out
}

/// Returns a text for each kind of wait, in their order, about all that is waited for.
fn by_kind<'a>(waits: impl IntoIterator<Item = &'a Wait>, text: impl Fn(&[&'a Wait]) -> String) -> Vec<String> {
    let mut waits: Vec<&Wait> = waits.into_iter().collect();
    waits.sort();
    waits.chunk_by(|one, other| mem::discriminant(*one) == mem::discriminant(*other)).map(text).collect()
}

/// Returns what waits are about, each as `name` has it.
fn named<'a>(waits: &[&'a Wait], name: impl Fn(&'a Wait) -> Option<String>) -> String {
    let names: Vec<String> = waits.iter().filter_map(|wait| name(wait)).collect();
    names.join(", ")
}

/// Returns what a wait is about, without its kind.
fn subject(wait: &Wait) -> Option<String> {
    match wait {
        Wait::BindingGone(name) | Wait::LetIn(name) | Wait::Arrived(name) | Wait::Moved(name) => Some(name.to_string()),
        Wait::Mended(arn) | Wait::RetainOld(arn) | Wait::Protected(arn) | Wait::ProtectedInFront(arn) => {
            Some(arn.to_string())
        }
        Wait::Ready(resource) | Wait::CertificateIssued(resource) => Some(resource.to_string()),
        Wait::RetainListener(port) | Wait::Opened(port) => Some(port.to_string()),
        Wait::LoadBalancerActive => None,
    }
}

/// Returns the ends of waits: `until …`, one for each kind.
fn until(waits: &BTreeSet<Wait>) -> Vec<String> {
    by_kind(waits, |waits| {
        match waits.first() {
        Some(Wait::BindingGone(_)) => format!("until the TargetGroupBindings are gone: {}", named(waits, subject)),
        Some(Wait::Mended(_)) => {
            "until members that are frozen or wait for targets are served, and the new load balancer has its web ACL, before the old one goes".to_owned()
        }
        Some(Wait::Protected(_)) => "until the old load balancer is no longer protected from deletion".to_owned(),
        Some(Wait::ProtectedInFront(_)) => {
            "until the Network Load Balancer in front is no longer protected from deletion".to_owned()
        }
        Some(Wait::RetainOld(_)) => "before the old load balancer goes, for clients to find the new one".to_owned(),
        Some(Wait::LetIn(_)) => format!(
            "until the targets of these TargetGroupBindings allow the new security groups: {}",
            named(waits, subject)
        ),
        Some(Wait::Ready(_)) => format!(
            "until the targets of these target groups are healthy, before rules lead to them: {}",
            named(waits, subject)
        ),
        Some(Wait::RetainListener(_)) => {
            format!("before the old listeners go, for clients to use the new ones: {}", named(waits, subject))
        }
        Some(Wait::Opened(_)) => {
            format!(
                "until these listeners are everywhere, before requests are redirected to them: {}",
                named(waits, subject)
            )
        }
        Some(Wait::Arrived(_)) => {
            format!("until the rules of members from other load balancers are everywhere: {}", named(waits, subject))
        }
        Some(Wait::Moved(_)) => {
            format!("before the rules of members that have moved go, for clients to follow: {}", named(waits, subject))
        }
        Some(Wait::CertificateIssued(_)) => {
            format!("until ACM has issued these certificates, before listeners get them: {}", named(waits, subject))
        }
        Some(Wait::LoadBalancerActive) | None => "until the new load balancer serves".to_owned(),
    }
    })
}

/// Returns sentences about waits, one for each kind.
#[must_use]
pub fn waits_text<'a>(waits: impl IntoIterator<Item = &'a Wait>) -> Vec<String> {
    let binding = |wait: &Wait| subject(wait).map(|name| format!("TargetGroupBinding {name}"));
    by_kind(waits, |waits| match waits.first() {
        Some(Wait::BindingGone(_)) => format!("waiting for {} to be gone", named(waits, binding)),
        Some(Wait::Mended(_)) => format!(
            "waiting for members that are frozen or wait for targets, or for the web ACL of the new load balancer, before {}, which it replaces, goes",
            named(waits, subject)
        ),
        Some(Wait::Protected(_)) => format!(
            "{}, replaced by another load balancer, stays: it is protected from deletion",
            named(waits, subject)
        ),
        Some(Wait::ProtectedInFront(_)) => format!(
            "the Network Load Balancer in front, {}, which nobody requests any more, stays: it is protected from deletion",
            named(waits, subject)
        ),
        Some(Wait::RetainOld(_)) => {
            format!("waiting for clients to find the new load balancer before {} goes", named(waits, subject))
        }
        Some(Wait::LetIn(_)) => format!(
            "waiting for the targets of {} to allow the load balancer's new security groups",
            named(waits, binding)
        ),
        Some(Wait::Ready(_)) => {
            format!("waiting for the targets of target group {} to be healthy", named(waits, subject))
        }
        Some(Wait::RetainListener(_)) => {
            format!("waiting for clients to use the new listener before the one on port {} goes", named(waits, subject))
        }
        Some(Wait::Opened(_)) => format!(
            "waiting for the listener on port {}, as it is now, to be on all nodes of the load balancer before requests are redirected to it",
            named(waits, subject)
        ),
        Some(Wait::Arrived(_)) => format!(
            "waiting for the rules of {} to be on all nodes of the load balancer before its host name is published",
            named(waits, subject)
        ),
        Some(Wait::Moved(_)) => {
            format!(
                "waiting for clients to find the other load balancer of {} before its rules here go",
                named(waits, subject)
            )
        }
        Some(Wait::CertificateIssued(_)) => {
            format!("waiting for ACM to issue the certificate {}", named(waits, subject))
        }
        Some(Wait::LoadBalancerActive) | None => "waiting for the new load balancer to serve".to_owned(),
    })
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        waits_text([self]).iter().try_for_each(|text| f.write_str(text))
    }
}

fn details(action: &StepAction) -> Vec<(&'static str, String)> {
    match action {
        StepAction::CreateSecurityGroup(group) => vec![("tags", tags(&group.tags))],
        StepAction::CreateTargetGroup(group) => target_group(group),
        StepAction::CreateLoadBalancer(balancer) => load_balancer(balancer),
        StepAction::RequestCertificate { certificate, .. } => {
            let hosts: Vec<&str> = certificate.hosts.iter().map(String::as_str).collect();
            let issuer = certificate.authority.as_ref().map_or("Amazon", |authority| authority.as_str());
            vec![("for", hosts.join(", ")), ("issued by", issuer.to_owned()), ("tags", tags(&certificate.tags))]
        }
        StepAction::CreateListener { listener, .. } => listener_details(listener),
        StepAction::CreateRule { rule, .. } => {
            let mut details = vec![("then", answer_text(rule.authentication.as_ref(), &rule.action))];
            details.extend(rewriting(&rule.transforms));
            details
        }
        StepAction::ModifyRule { rule, reset_transforms, .. } => {
            let mut details =
                vec![("when", rule.conditions.iter().map(condition_text).collect::<Vec<_>>().join(" and "))];
            details.extend(rewriting(&rule.transforms));
            details.extend(reset_transforms.then(|| ("rewriting", "nothing any more".to_owned())));
            details
        }
        _ => vec![],
    }
}

fn rewriting(transforms: &[Transform]) -> Option<(&'static str, String)> {
    let each = transforms.iter().flat_map(|transform| {
        let what = match transform {
            Transform::HostHeaderRewrite(_) => "host",
            Transform::UrlRewrite(_) => "URL",
            Transform::Other(kind) => kind,
        };
        transform.rewrites().iter().map(move |r| format!("{what} /{}/ to `{}`", r.regex, r.replace))
    });
    (!transforms.is_empty()).then(|| ("rewriting", each.collect::<Vec<_>>().join(", ")))
}

fn tags(tags: &Tags) -> String {
    let value = |key: &str, value: &str| {
        // Only a plan without a cluster has no name for it.
        let unknown = key == CLUSTER && value.is_empty();
        if unknown { "(known after apply: see --cluster-name)".to_owned() } else { value.to_owned() }
    };
    tags.iter().map(|(key, text)| format!("{key}={}", value(key, text))).collect::<Vec<_>>().join(", ")
}

fn target_group(group: &TargetGroup) -> Vec<(&'static str, String)> {
    let check = &group.health_check;
    let mut details = vec![
        (
            "targets",
            format!(
                "{}{} of Service {}/{} port {}, {}{}",
                group.target_type,
                if group.ip_address_type == IpAddressType::Ipv6 { " (IPv6)" } else { "" },
                group.binding.namespace,
                group.binding.service,
                group.binding.service_port,
                group.protocol,
                group.protocol_version.map(|version| format!(" {version}")).unwrap_or_default()
            ),
        ),
        (
            "health check",
            format!(
                "{}{} on {}, every {} s, timeout {} s, healthy after {}, unhealthy after {}",
                check.protocol,
                check.path.as_ref().map(|path| format!(" {path}")).unwrap_or_default(),
                check.port,
                check.interval_seconds,
                check.timeout_seconds,
                check.healthy_threshold,
                check.unhealthy_threshold
            ),
        ),
        ("tags", tags(&group.tags)),
    ];
    if group.port.known().is_none() {
        details.insert(1, ("target port", group.port.to_string()));
    }
    details
}

fn load_balancer(balancer: &LoadBalancer) -> Vec<(&'static str, String)> {
    let subnets = match &balancer.subnets {
        Value::Known(subnets) => subnets.iter().map(subnet_mapping).collect::<Vec<_>>().join(", "),
        Value::AfterApply(why) => format!("(known after apply: {why})"),
    };
    let mut details = vec![
        ("scheme", format!("{}, {}", balancer.scheme, balancer.ip_address_type)),
        ("subnets", subnets),
        ("security groups", security_groups(&balancer.security_groups)),
    ];
    let pools = [
        ("IPAM pool", balancer.pools.ipam.as_ref().map(ToString::to_string)),
        ("customer-owned pool", balancer.pools.customer_owned.as_ref().map(ToString::to_string)),
    ];
    details.extend(pools.into_iter().filter_map(|(name, pool)| Some((name, pool?))));
    if balancer.network.ipv6_source_nat {
        details.push(("IPv6 source translation", "on".to_owned()));
    }
    details.push(("tags", tags(&balancer.tags)));
    details
}

fn subnet_mapping(mapping: &SubnetMapping) -> String {
    let addresses = [&mapping.allocation, &mapping.private_ipv4, &mapping.ipv6].into_iter().flatten().cloned();
    let prefix = mapping.source_nat_prefix.as_ref().map(|prefix| format!("source translation {prefix}"));
    let details: Vec<String> = addresses.chain(prefix).collect();
    match details.is_empty() {
        true => mapping.subnet.to_string(),
        false => format!("{} ({})", mapping.subnet, details.join(", ")),
    }
}

fn security_groups(groups: &[SecurityGroupReference]) -> String {
    if groups.is_empty() {
        return "none".to_owned();
    }
    groups
        .iter()
        .map(|group| match group {
            SecurityGroupReference::Managed => "its own".to_owned(),
            SecurityGroupReference::SharedBackend(id) => format!("the shared backend group {id}"),
            SecurityGroupReference::Given(id) => id.to_string(),
        })
        .collect::<Vec<_>>()
        .join(", ")
}

fn listener_details(listener: &Listener) -> Vec<(&'static str, String)> {
    let mut details =
        vec![("default", answer_text(listener.default_authentication.as_ref(), &listener.default_action))];
    if let Some(why) = listener.certificates_after_apply {
        details.push(("certificate", format!("(known after apply: {why})")));
    }
    if let Some(certificate) = &listener.default_certificate {
        details.push(("certificate", certificate.to_string()));
    }
    if let Some(policy) = &listener.ssl_policy {
        details.push(("TLS policy", policy.clone()));
    }
    if let Some(policy) = &listener.alpn_policy {
        details.push(("ALPN policy", policy.clone()));
    }
    if let Some(clients) = &listener.mutual_authentication {
        details.push(("client certs", clients.to_string()));
    }
    details.push(("tags", tags(&listener.tags)));
    details
}

/// Returns the authentication and the action, as text.
fn answer_text(before: Option<&Authentication>, action: &Action<TargetGroupReference>) -> String {
    let action = action_text(action);
    match before {
        None => action,
        Some(Authentication::Cognito(provider)) => {
            format!("sign in with Cognito user pool {}, then {action}", provider.user_pool_arn)
        }
        Some(Authentication::Oidc { provider, secret_name, .. }) => {
            format!("sign in with {} (Secret {secret_name}), then {action}", provider.issuer)
        }
        Some(Authentication::Jwt(tokens)) => format!("accept only tokens of {}, then {action}", tokens.issuer),
    }
}

fn condition_text(condition: &Condition) -> String {
    let either = |values: &[String], regex_values: &[String]| {
        let regular = regex_values.iter().map(|value| format!("/{value}/"));
        values.iter().cloned().chain(regular).collect::<Vec<_>>().join(" or ")
    };
    match condition {
        Condition::HostHeader { values, regex_values } => format!("host is {}", either(values, regex_values)),
        Condition::PathPattern { values, regex_values } => format!("path is {}", either(values, regex_values)),
        Condition::HttpHeader { name, values, regex_values } => {
            format!("header {name} is {}", either(values, regex_values))
        }
        Condition::HttpRequestMethod { values } => format!("method is {}", values.join(" or ")),
        Condition::SourceIp { values } => format!("client is in {}", values.join(" or ")),
        Condition::QueryString { values } => {
            let pairs: Vec<String> = values
                .iter()
                .map(|pair| pair.key.as_ref().map_or_else(|| pair.value.clone(), |key| format!("{key}={}", pair.value)))
                .collect();
            format!("query has {}", pairs.join(" or "))
        }
        Condition::Other(field) => format!("{field} holds"),
    }
}

fn action_text(action: &Action<TargetGroupReference>) -> String {
    match action {
        Action::Forward { target_groups, stickiness } => {
            let groups: Vec<String> = target_groups
                .iter()
                .map(|target| {
                    let group = match &target.group {
                        TargetGroupReference::Own(id) => id.to_string(),
                        TargetGroupReference::Foreign(arn) => arn.to_string(),
                        TargetGroupReference::Named(name) => {
                            format!("`{name}` (known after apply: the target group's ARN)")
                        }
                    };
                    target.weight.map_or(group.clone(), |weight| format!("{group} (weight {weight})"))
                })
                .collect();
            let sticky = stickiness.as_ref().filter(|s| s.enabled).map(|s| match s.duration_seconds {
                Some(seconds) => format!(", sticky for {seconds} s"),
                None => ", sticky".to_owned(),
            });
            format!("forward to {}{}", groups.join(", "), sticky.unwrap_or_default())
        }
        Action::Redirect { host, path, port, protocol, query, status_code } => {
            let part = |part: &Option<String>, keep: &str| part.clone().unwrap_or_else(|| keep.to_owned());
            format!(
                "redirect to {}://{}:{}{}?{} ({status_code})",
                part(protocol, "#{protocol}"),
                part(host, "#{host}"),
                part(port, "#{port}"),
                part(path, "/#{path}"),
                part(query, "#{query}")
            )
        }
        Action::FixedResponse { content_type, message_body, status_code } => {
            let mut text = format!("answer {status_code}");
            if let Some(body) = message_body {
                let _ = write!(text, " `{body}`");
            }
            if let Some(kind) = content_type {
                let _ = write!(text, " ({kind})");
            }
            text
        }
        // `answer_text` shows the authentication before an action.
        Action::AuthenticateCognito(_) | Action::AuthenticateOidc { .. } | Action::JwtValidation(_) => {
            "sign in".to_owned()
        }
        Action::Other(kind) => kind.clone(),
    }
}

fn listed(rules: &[SecurityGroupRule]) -> String {
    rules.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The step in one line, without its cause.
impl fmt::Display for StepAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateSecurityGroup(group) => write!(f, "create security group {}", group.name),
            Self::AuthorizeIngress { group, rules } => match group {
                SecurityGroupTarget::Existing(id) => write!(f, "open security group {id}: {}", listed(rules)),
                SecurityGroupTarget::Created => write!(f, "open the new security group: {}", listed(rules)),
            },
            Self::RevokeIngress { group, rules } => write!(f, "close security group {group}: {}", listed(rules)),
            Self::DeleteSecurityGroup(id) => write!(f, "delete security group {id}"),
            Self::CreateTargetGroup(group) => write!(f, "create target group {} for {}", group.name, group.resource),
            Self::CreateFrontendTargetGroup(group) => {
                write!(f, "create target group {} for {}", group.name, group.resource)
            }
            Self::RegisterLoadBalancer { name, target, .. } => {
                write!(
                    f,
                    "register port {} of load balancer {} in target group {name}",
                    target.port, target.load_balancer
                )
            }
            Self::DeregisterLoadBalancer { name, target, .. } => {
                let LoadBalancerTarget { load_balancer, port } = target;
                write!(f, "deregister port {port} of load balancer {load_balancer} from target group {name}")
            }
            Self::ModifyTargetGroup { resource, .. } => write!(f, "change the health check of target group {resource}"),
            Self::DeleteTargetGroup { name, .. } => write!(f, "delete target group {name}"),
            Self::CreateBinding(group) => {
                write!(f, "create TargetGroupBinding {}/{}", group.binding.namespace, group.name)
            }
            Self::UpdateBinding { existing, .. } => write!(f, "update TargetGroupBinding {}", existing.name),
            Self::DeleteBinding(name) => write!(f, "delete TargetGroupBinding {name}"),
            Self::CreateLoadBalancer(balancer) => write!(f, "create load balancer {}", balancer.name),
            Self::SetSecurityGroups { groups, private_link_rules, .. } => {
                write!(f, "put the load balancer into security groups: {}", security_groups(groups))?;
                match private_link_rules {
                    Some(true) => f.write_str("; rules for PrivateLink: on"),
                    Some(false) => f.write_str("; rules for PrivateLink: off"),
                    None => Ok(()),
                }
            }
            Self::SetIpAddressType { kind, .. } => write!(f, "give the load balancer addresses: {kind}"),
            Self::SetSubnets { subnets, ip_address_type, ipv6_source_nat, .. } => {
                let subnets: Vec<String> = subnets.iter().map(subnet_mapping).collect();
                write!(f, "put the load balancer into subnets: {}", subnets.join(", "))?;
                if let Some(kind) = ip_address_type {
                    write!(f, "; addresses: {kind}")?;
                }
                match ipv6_source_nat {
                    Some(true) => f.write_str("; IPv6 source translation: on"),
                    Some(false) | None => Ok(()),
                }
            }
            Self::ModifyAttributes { name, attributes, .. } => {
                let pairs: Vec<String> = attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
                write!(f, "set attributes of {name}: {}", pairs.join(", "))
            }
            Self::AssociateWebAcl { name, web_acl, .. } => {
                write!(f, "associate web ACL {web_acl} with load balancer {name}")
            }
            Self::DisassociateWebAcl { name, web_acl, .. } => {
                write!(f, "disassociate web ACL {web_acl} from load balancer {name}")
            }
            Self::CreateProtection { name, .. } => {
                write!(f, "create the protection of Shield Advanced for load balancer {name}")
            }
            Self::DeleteProtection { name, .. } => {
                write!(f, "delete the protection of Shield Advanced of load balancer {name}")
            }
            Self::ModifyIpPools { name, pool: Some(pool), .. } => {
                write!(f, "take the public addresses of load balancer {name} from IPAM pool {pool}")
            }
            Self::ModifyIpPools { name, pool: None, .. } => {
                write!(f, "take the public addresses of load balancer {name} from Amazon's")
            }
            Self::ModifyCapacityReservation { name, units: CapacityUnits::NONE, .. } => {
                write!(f, "end the reservation of capacity for load balancer {name}")
            }
            Self::ModifyCapacityReservation { name, units, .. } => {
                write!(f, "reserve {units} capacity units for load balancer {name}")
            }
            Self::RequestCertificate { certificate, .. } => {
                write!(f, "request certificate {}", certificate.resource)
            }
            Self::CreateValidationRecord { zone, record, .. } => {
                write!(f, "create record {} for {} in hosted zone {zone}", record.name, record.host)
            }
            Self::DeleteCertificate { arn, resource } => {
                write!(f, "delete certificate {resource} ({arn}) with its records")
            }
            Self::DeleteLoadBalancer { name, .. } => {
                write!(f, "delete load balancer {name} with its listeners and rules")
            }
            Self::CreateListener { listener, .. } => {
                write!(f, "create listener {} {}", listener.protocol, listener.port)
            }
            Self::ModifyListener { port, change, .. } => {
                let mut changes = Vec::new();
                changes.extend(change.protocol.map(|p| format!("protocol {p}")));
                changes.extend(change.ssl_policy.as_ref().map(|p| format!("TLS policy {p}")));
                changes.extend(change.alpn_policy.as_ref().map(|p| format!("ALPN policy {p}")));
                changes.extend(change.default_certificate.as_ref().map(|c| format!("default certificate {c}")));
                changes.extend(change.mutual_authentication.as_ref().map(|m| format!("client certificates {m}")));
                let before = change.default_authentication.as_ref();
                changes.extend(change.default_action.as_ref().map(|a| format!("default {}", answer_text(before, a))));
                write!(f, "change listener {port}: {}", changes.join(", "))
            }
            Self::DeleteListener { port, .. } => write!(f, "delete listener {port} with its rules"),
            Self::AddListenerCertificates { listener, certificates } => {
                let certificates: Vec<&str> = certificates.iter().map(|c| c.as_str()).collect();
                let listener = match listener {
                    ListenerReference::Existing(arn) => arn.to_string(),
                    ListenerReference::Created(port) => port.to_string(),
                };
                write!(f, "add certificates to listener {listener}: {}", certificates.join(", "))
            }
            Self::RemoveListenerCertificates { port, certificates, .. } => {
                let certificates: Vec<&str> = certificates.iter().map(|c| c.as_str()).collect();
                write!(f, "remove certificates from listener {port}: {}", certificates.join(", "))
            }
            Self::CreateRule { port, priority, rule, .. } => {
                let conditions: Vec<String> = rule.conditions.iter().map(condition_text).collect();
                write!(f, "create rule {priority} of listener {port}: {}", conditions.join(" and "))
            }
            Self::SetRulePriorities { port, priorities } => {
                let created = priorities.iter().filter(|(rule, _)| matches!(rule, RuleReference::Created(..))).count();
                write!(f, "put {} rules of listener {port} in order ({created} of them new)", priorities.len())
            }
            Self::ModifyRule { port, rule, .. } => {
                let answer = answer_text(rule.authentication.as_ref(), &rule.action);
                write!(f, "change a rule of listener {port} to: {answer}")
            }
            Self::DeleteRule { port, priority, .. } => write!(f, "delete rule {priority} of listener {port}"),
            Self::AddTags { name, tags: added, .. } => write!(f, "tag {name}: {}", tags(added)),
            Self::RemoveTags { name, keys, .. } => {
                let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
                write!(f, "remove tags of {name}: {}", keys.join(", "))
            }
        }
    }
}
