//! `actions.<PROTOCOL>-<port>` of a Service: the target groups that a listener of a Network Load Balancer forwards to besides
//! that of the Service itself.

use super::json::{Document, Node};

/// The most target groups that one action can name (AWS); that of the Service itself is one of them.
const MAX_TARGET_GROUPS: usize = 5;
/// The largest weight of a target group (AWS).
const LARGEST_WEIGHT: i32 = 999;

/// A forward, checked as far as it can be without looking at the cluster or at AWS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkForward {
    /// The share of the Service that has the annotation.
    pub base_weight: Option<i32>,
    /// The other target groups, at most four.
    pub target_groups: Vec<NetworkForwardTarget>,
    /// True if a client stays with the target group that it was first sent to; absent is AWS's default.
    pub sticky: Option<bool>,
}

/// A target group of a forward, and its share of the connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkForwardTarget {
    pub backend: NetworkBackend,
    pub weight: Option<i32>,
    /// True if the targets of a TLS listener get TCP.
    pub decrypt: bool,
}

/// The destination of a forward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkBackend {
    /// A port of a Service in the same namespace, by number.
    Number { service: String, port: u16 },
    /// A port of a Service in the same namespace, by name. A name of digits may also be meant as a number.
    Name { service: String, port: String },
    /// A target group that exists already.
    TargetGroupArn(String),
}

/// Reads an action of a listener of a Network Load Balancer.
pub fn parse_network_action(value: &str) -> Result<NetworkForward, String> {
    let document = Document::parse(value)?;
    let root = Node::root(&document);
    let kind = root.optional_string("type")?.unwrap_or_default();
    let config = root.field("forwardConfig")?;
    match kind.as_str() {
        "forward" => {}
        "" => return Err("type is missing".into()),
        other => return Err(format!("type `{}` is not `forward`", super::shorten(other))),
    }
    let config = config.ok_or("forwardConfig is missing")?;
    let base_weight = weight(&config, "baseServiceWeight")?;
    let entries = config.field("targetGroups")?.map_or_else(|| Ok(Vec::new()), |entries| entries.items())?;
    let sticky = match config.field("targetGroupStickinessConfig")? {
        None => None,
        Some(node) => Some(node.field("enabled")?.map(|node| node.bool()).transpose()?.unwrap_or_default()),
    };
    let target_groups: Vec<NetworkForwardTarget> =
        entries.iter().map(|node| target(node, entries.len() > 1)).collect::<Result<_, _>>()?;
    if target_groups.len() >= MAX_TARGET_GROUPS {
        let (count, most) = (target_groups.len(), MAX_TARGET_GROUPS - 1);
        return Err(format!(
            "forwardConfig has {count} target groups, and besides the Service's own AWS takes at most {most}"
        ));
    }
    Ok(NetworkForward { base_weight, target_groups, sticky })
}

fn weight(node: &Node, field: &str) -> Result<Option<i32>, String> {
    let Some(node) = node.field(field)? else { return Ok(None) };
    let weight = node.i32()?;
    if (0..=LARGEST_WEIGHT).contains(&weight) {
        return Ok(Some(weight));
    }
    Err(format!("{} is {weight}, and AWS takes 0 to {LARGEST_WEIGHT}", node.place()))
}

fn target(node: &Node, needs_weight: bool) -> Result<NetworkForwardTarget, String> {
    let place = node.place();
    let (arn, service) = (node.optional_string("targetGroupARN")?, node.optional_string("serviceName")?);
    let port = node.field("servicePort")?.map(|node| Ok::<_, String>((node.place().to_owned(), node.i32_or_string()?)));
    let backend = match (arn, service, port.transpose()?) {
        (Some(_), Some(_), _) => return Err(format!("{place} takes either targetGroupARN or serviceName, not both")),
        (None, None, _) => return Err(format!("{place} needs targetGroupARN or serviceName")),
        (None, Some(_), None) => return Err(format!("{place}.servicePort is missing")),
        (Some(arn), None, _) => NetworkBackend::TargetGroupArn(arn),
        (None, Some(service), Some((_, Err(port)))) => NetworkBackend::Name { service, port },
        (None, Some(service), Some((place, Ok(number)))) => match u16::try_from(number).ok().filter(|port| *port > 0) {
            Some(port) => NetworkBackend::Number { service, port },
            None => return Err(format!("{place} is {number}, which is not a valid port")),
        },
    };
    let weight = weight(node, "weight")?;
    if needs_weight && weight.is_none() {
        return Err(format!("{place}.weight is missing; with more than one target group each needs a weight"));
    }
    let decrypt = node.field("decrypt")?.map(|node| node.bool()).transpose()?.unwrap_or_default();
    Ok(NetworkForwardTarget { backend, weight, decrypt })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number(service: &str, port: u16) -> NetworkBackend {
        NetworkBackend::Number { service: service.to_owned(), port }
    }

    fn target(backend: NetworkBackend, weight: Option<i32>) -> NetworkForwardTarget {
        NetworkForwardTarget { backend, weight, decrypt: false }
    }

    #[test]
    fn forwards() {
        let arn = NetworkBackend::TargetGroupArn("arn:aws:tg".to_owned());
        let named = |port: &str| NetworkBackend::Name { service: "green".to_owned(), port: port.to_owned() };
        for (value, base_weight, target_groups, sticky) in [
            (r#"{"type":"forward","forwardConfig":{}}"#, None, vec![], None),
            (
                r#"{"type":"forward","forwardConfig":{"baseServiceWeight":0,"targetGroups":null}}"#,
                Some(0),
                vec![],
                None,
            ),
            (
                r#"{"type":"forward","forwardConfig":{"targetGroups":[{"serviceName":"blue","servicePort":80}]}}"#,
                None,
                vec![target(number("blue", 80), None)],
                None,
            ),
            (
                r#"{"Type":"forward","ForwardConfig":{"BaseServiceWeight":10,"targetGroups":[
                    {"serviceName":"green","servicePort":"80","weight":20},{"serviceName":"green","servicePort":"http","weight":0},
                    {"targetGroupARN":"arn:aws:tg","weight":999,"targetGroupName":"ignored"}],
                    "targetGroupStickinessConfig":{"enabled":true}}}"#,
                Some(10),
                vec![target(named("80"), Some(20)), target(named("http"), Some(0)), target(arn, Some(999))],
                Some(true),
            ),
            (
                r#"{"type":"forward","forwardConfig":{"targetGroups":[{"serviceName":"blue","servicePort":80,"decrypt":true}],"targetGroupStickinessConfig":{}}}"#,
                None,
                vec![NetworkForwardTarget { decrypt: true, ..target(number("blue", 80), None) }],
                Some(false),
            ),
        ] {
            let expected = NetworkForward { base_weight, target_groups, sticky };
            assert_eq!(parse_network_action(value), Ok(expected), "{value}");
        }
    }

    #[test]
    fn malformed_forwards() {
        for (value, reason) in [
            ("", "it is not JSON: EOF while parsing a value at line 1 column 0"),
            ("[]", "the value is an array, not an object"),
            ("{}", "type is missing"),
            (r#"{"type":"redirect"}"#, "type `redirect` is not `forward`"),
            (r#"{"type":"forward"}"#, "forwardConfig is missing"),
            (r#"{"type":"forward","forwardConfig":null}"#, "forwardConfig is missing"),
            (r#"{"type":"forward","forwardConfig":[]}"#, "forwardConfig is an array, not an object"),
            (
                r#"{"type":"forward","forwardConfig":{"baseServiceWeight":1000}}"#,
                "forwardConfig.baseServiceWeight is 1000, and AWS takes 0 to 999",
            ),
            (
                r#"{"type":"forward","forwardConfig":{"targetGroups":[{"targetGroupARN":"a","weight":-1}]}}"#,
                "forwardConfig.targetGroups[0].weight is -1, and AWS takes 0 to 999",
            ),
            (
                r#"{"type":"forward","forwardConfig":{"targetGroups":[{"targetGroupARN":"a","weight":1},{"targetGroupARN":"b"}]}}"#,
                "forwardConfig.targetGroups[1].weight is missing; with more than one target group each needs a weight",
            ),
            (
                r#"{"type":"forward","forwardConfig":{"targetGroups":[{"serviceName":"a"}]}}"#,
                "forwardConfig.targetGroups[0].servicePort is missing",
            ),
            (
                r#"{"type":"forward","forwardConfig":{"targetGroups":[{"serviceName":"a","servicePort":0}]}}"#,
                "forwardConfig.targetGroups[0].servicePort is 0, which is not a valid port",
            ),
            (
                r#"{"type":"forward","forwardConfig":{"targetGroups":[{"serviceName":"a","servicePort":8.5}]}}"#,
                "forwardConfig.targetGroups[0].servicePort is a number, not a whole number or a string",
            ),
            (
                r#"{"type":"forward","forwardConfig":{"targetGroups":[{"targetGroupName":"a"}]}}"#,
                "forwardConfig.targetGroups[0] needs targetGroupARN or serviceName",
            ),
            (
                r#"{"type":"forward","forwardConfig":{"targetGroups":[{"targetGroupARN":"a","serviceName":"b"}]}}"#,
                "forwardConfig.targetGroups[0] takes either targetGroupARN or serviceName, not both",
            ),
            (
                r#"{"type":"forward","forwardConfig":{"targetGroups":[{"targetGroupARN":"a","weight":1},{"targetGroupARN":"b","weight":1},
                    {"targetGroupARN":"c","weight":1},{"targetGroupARN":"d","weight":1},{"targetGroupARN":"e","weight":1}]}}"#,
                "forwardConfig has 5 target groups, and besides the Service's own AWS takes at most 4",
            ),
            (
                r#"{"type":"forward","forwardConfig":{"targetGroupStickinessConfig":{"enabled":"yes"}}}"#,
                "forwardConfig.targetGroupStickinessConfig.enabled is a string, not a boolean",
            ),
        ] {
            assert_eq!(parse_network_action(value), Err(reason.into()), "{value}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(value in any::<String>(), inner in r#"[\[\]{}":,a0-9]{0,16}"#) {
            let _ = parse_network_action(&value);
            let _ = parse_network_action(&format!(r#"{{"type":"forward","forwardConfig":{{"targetGroups":{inner}}}}}"#));
        }
    }
}
