//! Actions and conditions: parsed from requests, completed as AWS does, and written in the form of responses.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::{
    account::{Balancer, Session, not_found, not_simulated},
    wire::{Refusal, Request, element, members, optional, refusal, text, texts},
};
use albatross_core::model::{Action, Condition, QueryStringValue, Stickiness, WeightedTargetGroup};

/// The maximum number of values in the conditions of a rule.
const VALUES: usize = 5;
/// The maximum number of target groups in one action.
const GROUPS: usize = 5;

fn invalid(message: impl Into<String>) -> Refusal {
    refusal("ValidationError", message)
}

/// Parses the single action of a listener or rule.
pub(super) fn read_action(request: &Request, list: &str) -> Result<Option<Action<String>>, Refusal> {
    let items = request.items(list);
    let item = match items.as_slice() {
        [] => return Ok(None),
        [item] => item,
        _ => return Err(not_simulated(format!("more than one of {list}"))),
    };
    // The order of a single action has no meaning.
    let _: Option<i32> = request.within(&format!("{item}.Order"), 1..=50000)?;
    let part = |config: &str, name: &str| request.text(&format!("{item}.{config}.{name}")).map(str::to_owned);
    Ok(Some(match request.need(&format!("{item}.Type"))? {
        "forward" => forward(request, item)?,
        "redirect" => {
            let redirect = |name| part("RedirectConfig", name);
            let or = |value: Option<String>, default: &str| Some(value.unwrap_or_else(|| default.to_owned()));
            let status_code = redirect("StatusCode").ok_or_else(|| invalid("A redirect must have a status code"))?;
            if !matches!(status_code.as_str(), "HTTP_301" | "HTTP_302") {
                return Err(invalid(format!("'{status_code}' is not a status code of redirects")));
            }
            let action = Action::Redirect {
                host: or(redirect("Host"), "#{host}"),
                path: or(redirect("Path"), "/#{path}"),
                port: or(redirect("Port"), "#{port}"),
                protocol: or(redirect("Protocol"), "#{protocol}"),
                query: or(redirect("Query"), "#{query}"),
                status_code,
            };
            if let Action::Redirect { host, path, port, protocol, .. } = &action {
                let kept = [(host, "#{host}"), (path, "/#{path}"), (port, "#{port}"), (protocol, "#{protocol}")];
                if kept.iter().all(|(value, default)| value.as_deref() == Some(default)) {
                    let message = "The redirect configuration is not valid because it creates a loop";
                    return Err(refusal("InvalidLoadBalancerAction", message));
                }
            }
            action
        }
        "fixed-response" => {
            let response = |name| part("FixedResponseConfig", name);
            let status_code =
                response("StatusCode").ok_or_else(|| invalid("A fixed response must have a status code"))?;
            if status_code.len() != 3 || !status_code.starts_with(['2', '4', '5']) {
                return Err(invalid(format!("'{status_code}' is not a status code of fixed responses")));
            }
            let message_body = response("MessageBody");
            if message_body.as_ref().is_some_and(|body| body.len() > 1024) {
                return Err(invalid("The body of a fixed response has at most 1024 bytes"));
            }
            Action::FixedResponse { content_type: response("ContentType"), message_body, status_code }
        }
        other => return Err(not_simulated(format!("actions of type '{other}'"))),
    }))
}

fn forward(request: &Request, item: &str) -> Result<Action<String>, Refusal> {
    let lone = request.text(&format!("{item}.TargetGroupArn"));
    let config = format!("{item}.ForwardConfig");
    let mut target_groups = Vec::new();
    for tuple in request.items(&format!("{config}.TargetGroups")) {
        let group = request.need(&format!("{tuple}.TargetGroupArn"))?.to_owned();
        let weight = request.within(&format!("{tuple}.Weight"), 0..=999)?;
        target_groups.push(WeightedTargetGroup { group, weight: weight.or(Some(1)) });
    }
    if let (Some(lone), true) = (lone, target_groups.is_empty()) {
        target_groups.push(WeightedTargetGroup { group: lone.to_owned(), weight: Some(1) });
    }
    let named: BTreeSet<_> = target_groups.iter().map(|t| &t.group).collect();
    if named.len() < target_groups.len() || target_groups.is_empty() {
        return Err(invalid("A forward action names each target group once, and at least one"));
    }
    if named.len() > GROUPS {
        return Err(refusal("TooManyActions", format!("An action names at most {GROUPS} target groups")));
    }
    let sticky = format!("{config}.TargetGroupStickinessConfig");
    let enabled = request.text(&format!("{sticky}.Enabled")) == Some("true");
    let duration_seconds = request.within(&format!("{sticky}.DurationSeconds"), 1..=604_800)?;
    // API reference, TargetGroupStickinessConfig: the duration is one of Application Load Balancers.
    let of_network = ["LoadBalancerArn", "ListenerArn"].iter().filter_map(|name| request.text(name));
    let of_network = of_network.into_iter().any(|arn| arn.contains("/net/"));
    if enabled && duration_seconds.is_none() && !of_network {
        return Err(invalid("Stickiness of target groups must have a duration"));
    }
    Ok(Action::Forward { target_groups, stickiness: Some(Stickiness { enabled, duration_seconds }) })
}

/// Returns an action in the form of responses.
pub(super) fn action_xml(action: &Action<String>) -> String {
    let (kind, config) = match action {
        Action::Forward { target_groups, stickiness } => {
            let tuple =
                |t: &WeightedTargetGroup<String>| text("TargetGroupArn", &t.group) + &optional("Weight", t.weight);
            let stickiness = stickiness.as_ref().map(|s| {
                let inner = text("Enabled", s.enabled) + &optional("DurationSeconds", s.duration_seconds);
                element("TargetGroupStickinessConfig", &inner)
            });
            let config = members("TargetGroups", target_groups.iter().map(tuple)) + &stickiness.unwrap_or_default();
            let lone = match target_groups.as_slice() {
                [lone] => text("TargetGroupArn", &lone.group),
                _ => String::new(),
            };
            ("forward", lone + &element("ForwardConfig", &config))
        }
        Action::Redirect { host, path, port, protocol, query, status_code } => {
            let parts = [("Host", host), ("Path", path), ("Port", port), ("Protocol", protocol), ("Query", query)];
            let parts: String = parts.into_iter().map(|(name, value)| optional(name, value.as_ref())).collect();
            ("redirect", element("RedirectConfig", &(parts + &text("StatusCode", status_code))))
        }
        Action::FixedResponse { content_type, message_body, status_code } => {
            let parts =
                [optional("ContentType", content_type.as_ref()), optional("MessageBody", message_body.as_ref())];
            ("fixed-response", element("FixedResponseConfig", &(parts.concat() + &text("StatusCode", status_code))))
        }
        // Authentication is not simulated: requests for it are refused.
        Action::AuthenticateCognito(_) | Action::AuthenticateOidc { .. } | Action::JwtValidation(_) => {
            ("unknown", String::new())
        }
        Action::Other(kind) => (kind.as_str(), String::new()),
    };
    text("Type", kind) + &text("Order", 1) + &config
}

/// Parses the conditions of a rule.
pub(super) fn read_conditions(request: &Request) -> Result<Vec<Condition>, Refusal> {
    let mut conditions = Vec::new();
    let mut count = 0;
    for item in request.items("Conditions") {
        let values_of = |config: &str, list: &str| -> Vec<String> {
            request.list(&format!("{item}.{config}.{list}")).into_iter().map(str::to_owned).collect()
        };
        let both = |config| (values_of(config, "Values"), values_of(config, "RegexValues"));
        let condition = match request.need(&format!("{item}.Field"))? {
            "host-header" => {
                let (values, regex_values) = both("HostHeaderConfig");
                Condition::HostHeader { values, regex_values }
            }
            "path-pattern" => {
                let (values, regex_values) = both("PathPatternConfig");
                Condition::PathPattern { values, regex_values }
            }
            "http-header" => {
                let (values, regex_values) = both("HttpHeaderConfig");
                let name = request.need(&format!("{item}.HttpHeaderConfig.HttpHeaderName"))?.to_owned();
                Condition::HttpHeader { name, values, regex_values }
            }
            "http-request-method" => {
                Condition::HttpRequestMethod { values: values_of("HttpRequestMethodConfig", "Values") }
            }
            "source-ip" => Condition::SourceIp { values: values_of("SourceIpConfig", "Values") },
            "query-string" => {
                let items = request.items(&format!("{item}.QueryStringConfig.Values"));
                let value = |pair: String| {
                    let key = request.text(&format!("{pair}.Key")).map(str::to_owned);
                    Ok(QueryStringValue { key, value: request.need(&format!("{pair}.Value"))?.to_owned() })
                };
                Condition::QueryString { values: items.into_iter().map(value).collect::<Result<_, Refusal>>()? }
            }
            other => return Err(not_simulated(format!("conditions on '{other}'"))),
        };
        count += checked(&condition)?;
        conditions.push(condition);
    }
    if conditions.is_empty() {
        return Err(invalid("A rule must have at least one condition"));
    }
    if count > VALUES {
        return Err(invalid(format!("A rule can only have '{VALUES}' condition values")));
    }
    for field in ["host-header", "path-pattern", "http-request-method", "source-ip"] {
        if conditions.iter().filter(|condition| condition.field() == field).count() > 1 {
            return Err(invalid(format!("A rule can only have one '{field}' condition")));
        }
    }
    Ok(conditions)
}

/// Returns the number of values of a valid condition.
fn checked(condition: &Condition) -> Result<usize, Refusal> {
    let texts: Vec<&String> = match condition {
        Condition::HostHeader { values, regex_values }
        | Condition::PathPattern { values, regex_values }
        | Condition::HttpHeader { values, regex_values, .. } => values.iter().chain(regex_values).collect(),
        Condition::HttpRequestMethod { values } => values.iter().collect(),
        Condition::SourceIp { values } => {
            if let Some(bad) = values.iter().find(|value| value.parse::<IpNet>().is_err()) {
                return Err(invalid(format!("The source IP '{bad}' must be in CIDR format")));
            }
            values.iter().collect()
        }
        Condition::QueryString { values } => values.iter().map(|pair| &pair.value).collect(),
        Condition::Other(_) => Vec::new(),
    };
    if texts.is_empty() || texts.iter().any(|text| text.is_empty() || text.len() > 128) {
        let field = condition.field();
        return Err(invalid(format!("The values of a '{field}' condition must have 1 to 128 characters")));
    }
    Ok(texts.len())
}

/// Returns a condition in the form of responses.
pub(super) fn condition_xml(condition: &Condition) -> String {
    let lists = |values: &Vec<String>, regex: &Vec<String>| {
        let regex = if regex.is_empty() { String::new() } else { texts("RegexValues", regex) };
        let values = if values.is_empty() { String::new() } else { texts("Values", values) };
        values + &regex
    };
    let (config, inner, repeated) = match condition {
        Condition::HostHeader { values, regex_values } => {
            ("HostHeaderConfig", lists(values, regex_values), Some(values))
        }
        Condition::PathPattern { values, regex_values } => {
            ("PathPatternConfig", lists(values, regex_values), Some(values))
        }
        Condition::HttpHeader { name, values, regex_values } => {
            ("HttpHeaderConfig", text("HttpHeaderName", name) + &lists(values, regex_values), None)
        }
        Condition::HttpRequestMethod { values } => ("HttpRequestMethodConfig", texts("Values", values), None),
        Condition::SourceIp { values } => ("SourceIpConfig", texts("Values", values), None),
        Condition::QueryString { values } => {
            let pair = |v: &QueryStringValue| optional("Key", v.key.as_ref()) + &text("Value", &v.value);
            ("QueryStringConfig", members("Values", values.iter().map(pair)), None)
        }
        Condition::Other(_) => ("Unknown", String::new(), None),
    };
    // The two oldest fields repeat their values.
    let repeated = repeated.map(|values| texts("Values", values)).unwrap_or_default();
    text("Field", condition.field()) + &repeated + &element(config, &inner)
}

/// Returns the protocols of the target groups that a listener of this protocol can forward to.
fn forwards_to(protocol: &str) -> &'static [&'static str] {
    match protocol {
        "HTTP" | "HTTPS" => &["HTTP", "HTTPS"],
        "TCP" => &["TCP", "TCP_UDP"],
        "TLS" => &["TCP", "TLS"],
        "UDP" => &["UDP", "TCP_UDP"],
        "QUIC" => &["QUIC"],
        "TCP_QUIC" => &["TCP_QUIC"],
        _ => &["TCP_UDP"],
    }
}

impl Session<'_> {
    /// Checks that a listener of this load balancer and protocol can have an action.
    pub(super) fn may_act(&self, balancer: &str, protocol: &str, action: &Action<String>) -> Result<(), Refusal> {
        let web = matches!(protocol, "HTTP" | "HTTPS");
        if !web && !matches!(action, Action::Forward { .. }) {
            let message = format!("Listeners with the protocol '{protocol}' can only forward");
            return Err(refusal("InvalidLoadBalancerAction", message));
        }
        for arn in action.target_groups() {
            let group = self.account.target_groups.get(arn).filter(|group| self.sees(group.made));
            let group = group.ok_or_else(|| not_found(arn))?;
            if !forwards_to(protocol).contains(&group.protocol.as_str()) {
                let message = format!(
                    "Listener protocol '{protocol}' is not supported with a target group with the protocol '{}'",
                    group.protocol
                );
                return Err(refusal("IncompatibleProtocols", message));
            }
            let version = group.protocol_version.as_deref().unwrap_or_default();
            if protocol == "HTTP" && matches!(version, "HTTP2" | "GRPC") {
                let message = format!(
                    "Listener protocol 'HTTP' is not supported with a target group with the protocol-version '{version}'"
                );
                return Err(refusal("InvalidLoadBalancerAction", message));
            }
            let has_ipv6 = self.account.balancers.get(balancer).is_some_and(Balancer::has_ipv6);
            if group.ip_address_type == "ipv6" && !has_ipv6 {
                let message = "Target groups of the IP address type 'ipv6' require a dualstack load balancer";
                return Err(refusal("InvalidConfigurationRequest", message));
            }
            if self.account.users(arn).any(|user| user.arn != balancer) {
                let message =
                    format!("The following target groups cannot be associated with more than one load balancer: {arn}");
                return Err(refusal("TargetGroupAssociationLimit", message));
            }
        }
        let user = self.account.balancers.get(balancer).filter(|balancer| balancer.is_application());
        let mut groups = user.map(Balancer::target_groups).unwrap_or_default();
        groups.extend(action.target_groups());
        if user.is_some() && groups.len() > self.account.limits.unique_target_groups {
            let message = "You've reached the limit on the number of unique target groups per load balancer";
            return Err(refusal("TooManyUniqueTargetGroupsPerLoadBalancer", message));
        }
        Ok(())
    }

    /// Records the time since which target groups are in use.
    pub(super) fn note_use(&mut self, action: &Action<String>) {
        for arn in action.target_groups() {
            let used = self.account.users(arn).next().is_some();
            let now = self.now;
            if let Some(group) = self.account.target_groups.get_mut(arn) {
                let since = group.used_since.filter(|_| used);
                group.used_since = Some(since.unwrap_or(now));
            }
        }
    }
}
