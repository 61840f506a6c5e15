//! `actions.<name>`: what to do with a request, for backends whose port is named `use-annotation`.

use std::collections::BTreeSet;

use super::json::{Document, Node};

/// The most target groups that one action can name (AWS).
const MAX_TARGET_GROUPS: usize = 5;
/// The largest weight of a target group (AWS).
const LARGEST_WEIGHT: i32 = 999;
/// The longest time for which a client can stay with a target group, in seconds (AWS).
const LONGEST_STICKINESS: i32 = 604_800;

/// An action of a listener rule, checked as far as it can be without looking at the cluster or at AWS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A fixed response. The status code is text, not empty, and otherwise left for AWS to judge.
    FixedResponse { content_type: Option<String>, message_body: Option<String>, status_code: String },
    /// A redirect. Fields that are absent keep the request's own value. The status code (`HTTP_301`, `HTTP_302`) is not empty and
    /// otherwise left for AWS to judge.
    Redirect {
        host: Option<String>,
        path: Option<String>,
        port: Option<String>,
        protocol: Option<String>,
        query: Option<String>,
        status_code: String,
    },
    /// A forward to one to five target groups; with more than one, each has a weight.
    Forward { target_groups: Vec<ForwardTarget>, stickiness: Option<Stickiness> },
}

/// The Services that the value of an action may name. Values are not read as actions here, so that one that cannot be built counts
/// too, and one too many may be found.
pub struct NamesInAction<'a> {
    value: &'a str,
    /// JSON may escape the letters, digits and hyphens of a name as `\u`. `None` where such a value cannot be read: it may then
    /// name every Service.
    escaped: Option<BTreeSet<String>>,
}

impl<'a> NamesInAction<'a> {
    /// Reads the value of an action.
    #[must_use]
    pub fn of(value: &'a str) -> Self {
        let mut strings = BTreeSet::new();
        if value.contains(r"\u") {
            let Ok(document) = Document::parse(value) else { return Self { value, escaped: None } };
            collect_strings(document, &mut strings);
        }
        Self { value, escaped: Some(strings) }
    }

    /// Returns true if the action may name this Service.
    #[must_use]
    pub fn may_name(&self, service: &str) -> bool {
        self.value.contains(service) || self.escaped.as_ref().is_none_or(|strings| strings.contains(service))
    }
}

fn collect_strings(document: Document, strings: &mut BTreeSet<String>) {
    match document {
        Document::String(string) => drop(strings.insert(string)),
        Document::Array(items) => items.into_iter().for_each(|item| collect_strings(item, strings)),
        Document::Object(fields) => fields.into_iter().for_each(|(_, field)| collect_strings(field, strings)),
        Document::Null | Document::Bool(_) | Document::Integer(_) | Document::Number(_) => {}
    }
}

/// The time for which a client stays with the target group it was first sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stickiness {
    pub enabled: Option<bool>,
    /// In seconds; AWS takes 1 to 604800.
    pub duration_seconds: Option<i32>,
}

/// A target group of a forward, and its share of the requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardTarget {
    pub backend: ForwardBackend,
    /// AWS takes 0 to 999.
    pub weight: Option<i32>,
}

/// The destination of a forward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForwardBackend {
    /// A port of a Service in the namespace of the Ingress.
    Service { name: String, port: ServicePort },
    /// A target group that exists already, by its ARN. If a name is given too, the ARN wins.
    TargetGroupArn(String),
    /// A target group that exists already, by its name.
    TargetGroupName(String),
}

/// A port of a Service, by name or by number. A string of decimal digits is a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServicePort {
    Name(String),
    Number(i32),
}

/// Reads an action. Every field is read before any is judged, so a field of the wrong type is an error also where it would not be used.
pub fn parse_action(value: &str) -> Result<Action, String> {
    let document = Document::parse(value)?;
    let root = Node::root(&document);
    let kind = root.optional_string("type")?.unwrap_or_default();
    let target_group = existing_target_group(&root)?;
    let fixed_response = root.field("fixedResponseConfig")?.map(|node| fixed_response(&node)).transpose()?;
    let redirect = root.field("redirectConfig")?.map(|node| redirect(&node)).transpose()?;
    let forward = root.field("forwardConfig")?.map(|node| Forward::read(&node)).transpose()?;
    match kind.as_str() {
        "fixed-response" => with_status_code(fixed_response, "fixedResponseConfig"),
        "redirect" => with_status_code(redirect, "redirectConfig"),
        "forward" => match (target_group, forward) {
            (Some(backend), None) => {
                Ok(Action::Forward { target_groups: vec![ForwardTarget { backend, weight: None }], stickiness: None })
            }
            (None, Some(forward)) => forward.check(),
            (None, None) => Err("a forward needs targetGroupARN, targetGroupName or forwardConfig".into()),
            (Some(_), Some(_)) => {
                Err("a forward takes either targetGroupARN or targetGroupName, or forwardConfig, not both".into())
            }
        },
        "" => Err("type is missing".into()),
        "authenticate-cognito" | "authenticate-oidc" | "jwt-validation" => {
            Err(format!("type `{kind}` is not set here but by the annotations `auth-type` and `jwt-validation`"))
        }
        other => Err(format!("type `{}` is not `fixed-response`, `redirect` or `forward`", super::shorten(other))),
    }
}

fn existing_target_group(node: &Node) -> Result<Option<ForwardBackend>, String> {
    let (arn, name) = (node.optional_string("targetGroupARN")?, node.optional_string("targetGroupName")?);
    Ok(arn.map(ForwardBackend::TargetGroupArn).or(name.map(ForwardBackend::TargetGroupName)))
}

fn fixed_response(node: &Node) -> Result<Action, String> {
    Ok(Action::FixedResponse {
        content_type: node.optional_string("contentType")?,
        message_body: node.optional_string("messageBody")?,
        status_code: node.optional_string("statusCode")?.unwrap_or_default(),
    })
}

fn redirect(node: &Node) -> Result<Action, String> {
    Ok(Action::Redirect {
        host: node.optional_string("host")?,
        path: node.optional_string("path")?,
        port: node.optional_string("port")?,
        protocol: node.optional_string("protocol")?,
        query: node.optional_string("query")?,
        status_code: node.optional_string("statusCode")?.unwrap_or_default(),
    })
}

fn with_status_code(action: Option<Action>, config: &str) -> Result<Action, String> {
    match action {
        None => Err(format!("{config} is missing")),
        Some(Action::FixedResponse { status_code, .. } | Action::Redirect { status_code, .. })
            if status_code.is_empty() =>
        {
            Err(format!("{config}.statusCode is missing"))
        }
        Some(action) => Ok(action),
    }
}

/// `forwardConfig` as it is written, before it is judged.
struct Forward {
    targets: Vec<WrittenTarget>,
    stickiness: Option<Stickiness>,
}

struct WrittenTarget {
    place: String,
    target_group: Option<ForwardBackend>,
    service: Option<String>,
    port: Option<ServicePort>,
    weight: Option<i32>,
}

impl Forward {
    fn read(node: &Node) -> Result<Self, String> {
        let targets = match node.field("targetGroups")? {
            None => Vec::new(),
            Some(targets) => targets.items()?.iter().map(WrittenTarget::read).collect::<Result<_, _>>()?,
        };
        let stickiness = match node.field("targetGroupStickinessConfig")? {
            None => None,
            Some(node) => Some(Stickiness {
                enabled: node.field("enabled")?.map(|node| node.bool()).transpose()?,
                duration_seconds: node.field("durationSeconds")?.map(|node| node.i32()).transpose()?,
            }),
        };
        Ok(Self { targets, stickiness })
    }

    fn check(self) -> Result<Action, String> {
        let weights_needed = self.targets.len() > 1;
        let target_groups: Vec<ForwardTarget> =
            self.targets.into_iter().map(|target| target.check(weights_needed)).collect::<Result<_, _>>()?;
        if target_groups.is_empty() {
            return Err("forwardConfig.targetGroups is missing or empty".into());
        }
        if target_groups.len() > MAX_TARGET_GROUPS {
            let count = target_groups.len();
            return Err(format!("forwardConfig has {count} target groups, and AWS takes at most {MAX_TARGET_GROUPS}"));
        }
        if let Some(seconds) = self.stickiness.as_ref().and_then(|stickiness| stickiness.duration_seconds)
            && !(1..=LONGEST_STICKINESS).contains(&seconds)
        {
            return Err(format!(
                "forwardConfig.targetGroupStickinessConfig.durationSeconds is {seconds}, and AWS takes 1 to {LONGEST_STICKINESS}"
            ));
        }
        Ok(Action::Forward { target_groups, stickiness: self.stickiness })
    }
}

impl WrittenTarget {
    fn read(node: &Node) -> Result<Self, String> {
        let port = node.field("servicePort")?.map(|node| node.i32_or_string()).transpose()?;
        Ok(Self {
            place: node.place().into(),
            target_group: existing_target_group(node)?,
            service: node.optional_string("serviceName")?,
            port: port.map(|port| match port.or_else(|text| text.parse().map_err(|_| text)) {
                Ok(number) => ServicePort::Number(number),
                Err(name) => ServicePort::Name(name),
            }),
            weight: node.field("weight")?.map(|node| node.i32()).transpose()?,
        })
    }

    fn check(self, weight_needed: bool) -> Result<ForwardTarget, String> {
        let Self { place, target_group, service, port, weight } = self;
        let backend = match (target_group, service, port) {
            (Some(_), Some(_), _) => {
                return Err(format!(
                    "{place} takes either a target group (targetGroupARN, targetGroupName) or serviceName, not both"
                ));
            }
            (None, None, _) => {
                return Err(format!("{place} needs targetGroupARN, targetGroupName or serviceName"));
            }
            (None, Some(_), None) => return Err(format!("{place}.servicePort is missing")),
            (None, Some(name), Some(port)) => ForwardBackend::Service { name, port },
            (Some(target_group), None, _) => target_group,
        };
        if weight_needed && weight.is_none() {
            return Err(format!("{place}.weight is missing; with more than one target group each needs a weight"));
        }
        if let Some(weight) = weight
            && !(0..=LARGEST_WEIGHT).contains(&weight)
        {
            return Err(format!("{place}.weight is {weight}, and AWS takes 0 to {LARGEST_WEIGHT}"));
        }
        Ok(ForwardTarget { backend, weight })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(value: &str) -> Option<String> {
        Some(value.into())
    }

    fn forward(targets: Vec<(ForwardBackend, Option<i32>)>, stickiness: Option<Stickiness>) -> Action {
        Action::Forward {
            target_groups: targets.into_iter().map(|(backend, weight)| ForwardTarget { backend, weight }).collect(),
            stickiness,
        }
    }

    fn service(name: &str, port: ServicePort) -> ForwardBackend {
        ForwardBackend::Service { name: name.into(), port }
    }

    #[test]
    fn services_are_found_however_json_writes_them() {
        let action = |name: &str| format!(r#"{{"forwardConfig": {{"targetGroups": [{{"serviceName": "{name}"}}]}}}}"#);
        for (value, found) in [
            (action("cart"), true),
            (action(r"c\u0061rt"), true),
            (action(r"c\u0061rd"), false),
            (r#"{"messageBody": "a\nb"}"#.to_owned(), false),
            (r#"{"serviceName": "c\u0061rt", "serviceName": null}"#.to_owned(), true),
            (r#"{"serviceName": "c\u0061rt""#.to_owned(), true),
        ] {
            assert_eq!(NamesInAction::of(&value).may_name("cart"), found, "{value}");
        }
    }

    #[test]
    fn actions() {
        let arn = || ForwardBackend::TargetGroupArn("arn:aws:tg".into());
        let cases = [
            (
                r#"{"type":"fixed-response","fixedResponseConfig":{"contentType":"text/plain","statusCode":"503","messageBody":"503 error text"}}"#,
                Action::FixedResponse {
                    content_type: text("text/plain"),
                    message_body: text("503 error text"),
                    status_code: "503".into(),
                },
            ),
            (
                r#"{"Type":"fixed-response","FixedResponseConfig":{"StatusCode":"200","messageBody":null,"unknown":[1]},"else":true}"#,
                Action::FixedResponse { content_type: None, message_body: None, status_code: "200".into() },
            ),
            (
                r#"{"type":"redirect","redirectConfig":{"host":"h","path":"/p","port":"443","protocol":"HTTPS","query":"","statusCode":"HTTP_301"}}"#,
                Action::Redirect {
                    host: text("h"),
                    path: text("/p"),
                    port: text("443"),
                    protocol: text("HTTPS"),
                    query: text(""),
                    status_code: "HTTP_301".into(),
                },
            ),
            (
                r#"{"Type": "redirect", "RedirectConfig": { "Protocol": "HTTPS", "Port": "443", "StatusCode": "HTTP_301"}}"#,
                Action::Redirect {
                    host: None,
                    path: None,
                    port: text("443"),
                    protocol: text("HTTPS"),
                    query: None,
                    status_code: "HTTP_301".into(),
                },
            ),
            (r#"{"type":"forward","targetGroupARN":"arn:aws:tg"}"#, forward(vec![(arn(), None)], None)),
            (
                r#"{"type":"forward","targetGroupName":"n","TargetGroupArn":"arn:aws:tg"}"#,
                forward(vec![(arn(), None)], None),
            ),
            (
                r#"{"type":"forward","targetGroupName":"n"}"#,
                forward(vec![(ForwardBackend::TargetGroupName("n".into()), None)], None),
            ),
            (
                r#"{"type":"forward","forwardConfig":{"targetGroups":[{"serviceName":"a","servicePort":"http"}]}}"#,
                forward(vec![(service("a", ServicePort::Name("http".into())), None)], None),
            ),
            (
                r#"{"type":"forward","forwardConfig":{"targetGroups":[{"serviceName":"a","servicePort":"80","weight":20},
                    {"serviceName":"b","servicePort":80,"weight":0},{"targetGroupARN":"arn:aws:tg","weight":60}],
                    "TargetGroupStickinessConfig":{"Enabled":true,"durationSeconds":200}}}"#,
                forward(
                    vec![
                        (service("a", ServicePort::Number(80)), Some(20)),
                        (service("b", ServicePort::Number(80)), Some(0)),
                        (arn(), Some(60)),
                    ],
                    Some(Stickiness { enabled: Some(true), duration_seconds: Some(200) }),
                ),
            ),
            (
                r#"{"type":"forward","forwardConfig":{"targetGroups":[{"targetGroupARN":"arn:aws:tg"}],"targetGroupStickinessConfig":{}}}"#,
                forward(vec![(arn(), None)], Some(Stickiness { enabled: None, duration_seconds: None })),
            ),
        ];
        for (value, expected) in cases {
            assert_eq!(parse_action(value), Ok(expected), "{value}");
        }
    }

    #[test]
    fn malformed_actions() {
        for (value, reason) in [
            ("", "it is not JSON: EOF while parsing a value at line 1 column 0"),
            ("[]", "the value is an array, not an object"),
            ("null", "type is missing"),
            ("{}", "type is missing"),
            (r#"{"type":"Forward"}"#, "type `Forward` is not `fixed-response`, `redirect` or `forward`"),
            (
                r#"{"type":"authenticate-oidc"}"#,
                "type `authenticate-oidc` is not set here but by the annotations `auth-type` and `jwt-validation`",
            ),
            (r#"{"type":"fixed-response"}"#, "fixedResponseConfig is missing"),
            (r#"{"type":"fixed-response","fixedResponseConfig":{}}"#, "fixedResponseConfig.statusCode is missing"),
            (
                r#"{"type":"fixed-response","fixedResponseConfig":{"statusCode":503}}"#,
                "fixedResponseConfig.statusCode is a whole number, not a string",
            ),
            (r#"{"type":"redirect"}"#, "redirectConfig is missing"),
            (r#"{"type":"redirect","redirectConfig":{"statusCode":""}}"#, "redirectConfig.statusCode is missing"),
            (
                r#"{"type":"redirect","redirectConfig":{"port":443,"statusCode":"HTTP_301"}}"#,
                "redirectConfig.port is a whole number, not a string",
            ),
            // A field of the wrong type is an error also in a part that the type does not use.
            (
                r#"{"type":"forward","targetGroupARN":"a","redirectConfig":{"port":443}}"#,
                "redirectConfig.port is a whole number, not a string",
            ),
            (r#"{"type":"forward","forwardConfig":{}}"#, "forwardConfig.targetGroups is missing or empty"),
            (
                r#"{"type":"forward","forwardConfig":{"targetGroups":[{"targetGroupName":"a","weight":1000}]}}"#,
                "forwardConfig.targetGroups[0].weight is 1000, and AWS takes 0 to 999",
            ),
            (
                r#"{"type":"forward","forwardConfig":{"targetGroups":[{"targetGroupName":"a","weight":1},{"targetGroupName":"b","weight":1},
                    {"targetGroupName":"c","weight":1},{"targetGroupName":"d","weight":1},{"targetGroupName":"e","weight":1},
                    {"targetGroupName":"f","weight":1}]}}"#,
                "forwardConfig has 6 target groups, and AWS takes at most 5",
            ),
            (
                r#"{"type":"forward","forwardConfig":{"targetGroups":[{"targetGroupName":"a"}],"targetGroupStickinessConfig":{"enabled":true,"durationSeconds":0}}}"#,
                "forwardConfig.targetGroupStickinessConfig.durationSeconds is 0, and AWS takes 1 to 604800",
            ),
            (r#"{"type":"forward"}"#, "a forward needs targetGroupARN, targetGroupName or forwardConfig"),
            (
                r#"{"type":"forward","targetGroupARN":"a","forwardConfig":{}}"#,
                "a forward takes either targetGroupARN or targetGroupName, or forwardConfig, not both",
            ),
            (
                r#"{"type":"forward","forwardConfig":{"targetGroups":[{}]}}"#,
                "forwardConfig.targetGroups[0] needs targetGroupARN, targetGroupName or serviceName",
            ),
            (
                r#"{"type":"forward","forwardConfig":{"targetGroups":[{"targetGroupName":"a","serviceName":"b","servicePort":80}]}}"#,
                "forwardConfig.targetGroups[0] takes either a target group (targetGroupARN, targetGroupName) or serviceName, not both",
            ),
            (
                r#"{"type":"forward","forwardConfig":{"targetGroups":[{"serviceName":"b"}]}}"#,
                "forwardConfig.targetGroups[0].servicePort is missing",
            ),
            (
                r#"{"type":"forward","forwardConfig":{"targetGroups":[{"serviceName":"b","servicePort":8.5}]}}"#,
                "forwardConfig.targetGroups[0].servicePort is a number, not a whole number or a string",
            ),
            (
                r#"{"type":"forward","forwardConfig":{"targetGroups":[{"targetGroupARN":"a","weight":1},{"targetGroupARN":"b"}]}}"#,
                "forwardConfig.targetGroups[1].weight is missing; with more than one target group each needs a weight",
            ),
            (
                r#"{"type":"forward","forwardConfig":{"targetGroups":[{"targetGroupARN":"a","weight":"1"}]}}"#,
                "forwardConfig.targetGroups[0].weight is a string, not a whole number",
            ),
        ] {
            assert_eq!(parse_action(value), Err(reason.into()), "{value}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(value in any::<String>(), inner in r#"[\[\]{}":,a0-9]{0,16}"#) {
            let _ = parse_action(&value);
            let _ = parse_action(&format!(r#"{{"type":"forward","forwardConfig":{{"targetGroups":{inner}}}}}"#));
        }
    }
}
