//! Whole stacks, arbitrary ones: a plan leads to the desired stack, and from any stack there is a way to any other.

use std::collections::BTreeSet;

use indexmap::IndexMap;
use proptest::prelude::*;

use super::{aws::Aws, plan, steps::built};
use crate::{model::*, plan::Plan};

pub(super) const SAMPLE: &str = r"
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: shop, annotations: {alb.ingress.kubernetes.io/target-type: ip}}
spec:
  ingressClassName: alb
  defaultBackend: {service: {name: web, port: {number: 80}}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop, uid: 11111111-1111-1111-1111-111111111111}
spec:
  ports: [{port: 80, targetPort: 8080}]
";

fn certificate(number: u8) -> CertificateArn {
    CertificateArn::new(format!("arn:aws:acm:eu-west-1:111122223333:certificate/{number}"))
}

/// The parts of a stack that are chosen freely.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    groups: Vec<GroupChoice>,
    listeners: Vec<(u16, ListenerChoice)>,
    owner: Option<u8>,
    ports_open: bool,
}

#[derive(Clone, Debug)]
struct GroupChoice {
    protocol: TargetGroupProtocol,
    version: ProtocolVersion,
    path: u8,
    restricted: bool,
}

#[derive(Clone, Debug)]
struct ListenerChoice {
    certificates: Vec<u8>,
    policy: bool,
    default: ActionChoice,
    rules: Vec<(u8, ActionChoice)>,
    owner: Option<u8>,
}

#[derive(Clone, Debug)]
enum ActionChoice {
    Forward(prop::sample::Index),
    Weighted(prop::sample::Index, prop::sample::Index),
    Foreign(u8),
    Redirect(Option<u8>),
    Fixed(u8),
}

fn action() -> impl Strategy<Value = ActionChoice> {
    prop_oneof![
        4 => any::<prop::sample::Index>().prop_map(ActionChoice::Forward),
        1 => any::<(prop::sample::Index, prop::sample::Index)>().prop_map(|(a, b)| ActionChoice::Weighted(a, b)),
        1 => (0..3_u8).prop_map(ActionChoice::Foreign),
        1 => prop::option::of(0..3_u8).prop_map(ActionChoice::Redirect),
        1 => (0..3_u8).prop_map(ActionChoice::Fixed),
    ]
}

pub(super) fn choice() -> impl Strategy<Value = Choice> {
    let group = (any::<bool>(), 0..3_usize, 0..3_u8, any::<bool>()).prop_map(|(tls, version, path, restricted)| {
        let versions = [ProtocolVersion::Http1, ProtocolVersion::Http2, ProtocolVersion::Grpc];
        let protocol = if tls { TargetGroupProtocol::Https } else { TargetGroupProtocol::Http };
        GroupChoice { protocol, version: versions[version], path, restricted }
    });
    let listener = (
        prop::collection::vec(0..5_u8, 0..4),
        any::<bool>(),
        action(),
        prop::collection::vec((0..6_u8, action()), 0..6),
        prop::option::of(0..3_u8),
    )
        .prop_map(|(certificates, policy, default, rules, owner)| ListenerChoice {
            certificates,
            policy,
            default,
            rules,
            owner,
        });
    let port = prop::sample::select(vec![80_u16, 443, 8080]);
    (
        prop::collection::vec(group, 1..4),
        prop::collection::vec((port, listener), 0..4),
        prop::option::of(0..3_u8),
        any::<bool>(),
    )
        .prop_map(|(groups, listeners, owner, ports_open)| Choice { groups, listeners, owner, ports_open })
}

fn tagged(tags: &Tags, owner: Option<u8>) -> Tags {
    let mut tags = tags.clone();
    tags.extend(owner.map(|owner| ("Owner".to_owned(), owner.to_string())));
    tags
}

impl ActionChoice {
    /// The action, with the target groups that it names.
    fn action(&self, groups: &[ResourceId]) -> Action<TargetGroupReference> {
        let own = |index: &prop::sample::Index| TargetGroupReference::Own(index.get(groups).clone());
        let forward = |target_groups| Action::Forward { target_groups, stickiness: None };
        match self {
            Self::Forward(index) => forward(vec![WeightedTargetGroup { group: own(index), weight: None }]),
            Self::Weighted(a, b) => forward(vec![
                WeightedTargetGroup { group: own(a), weight: Some(90) },
                WeightedTargetGroup { group: own(b), weight: Some(10) },
            ]),
            Self::Foreign(number) => {
                let group = TargetGroupReference::Foreign(TargetGroupArn::new(format!("arn:foreign/{number}")));
                forward(vec![WeightedTargetGroup { group, weight: None }])
            }
            Self::Redirect(port) => Action::Redirect {
                host: None,
                path: None,
                port: port.map(|port| port.to_string()),
                protocol: Some("HTTPS".to_owned()),
                query: None,
                status_code: "HTTP_301".to_owned(),
            },
            Self::Fixed(number) => Action::FixedResponse {
                content_type: None,
                message_body: Some(number.to_string()),
                status_code: "200".to_owned(),
            },
        }
    }
}

pub(super) fn stack(choice: &Choice) -> Stack {
    let sample = built(SAMPLE);
    let mut stack = sample.clone();
    let (_, group) = sample.target_groups.first().unwrap();
    stack.target_groups = IndexMap::new();
    for (index, chosen) in choice.groups.iter().enumerate() {
        // There is one at least that every listener can lead to.
        let version = if index == 0 { ProtocolVersion::Http1 } else { chosen.version };
        let resource = ResourceId::of_tag(format!("shop/web-service{index}:80"));
        let mut group = group.clone();
        // Like real names, this one contains the properties that cannot be changed in place.
        let name = format!("g{index}-{}-{version}", chosen.protocol);
        group.second_name = Value::Known(TargetGroupName::new(format!("{name}-second")).unwrap());
        group.name = Value::Known(TargetGroupName::new(name).unwrap());
        group.resource = resource.clone();
        group.protocol = chosen.protocol;
        group.protocol_version = Some(version);
        group.health_check.path = Some(format!("/{}", chosen.path));
        group.tags.insert(crate::model::tags::INGRESS_RESOURCE.to_owned(), resource.to_string());
        group.tags = tagged(&group.tags, choice.owner);
        group.attributes.insert("deregistration_delay.timeout_seconds".to_owned(), format!("{}00", chosen.path + 1));
        if !chosen.restricted {
            group.binding.networking = None;
        }
        stack.target_groups.insert(resource, group);
    }
    let groups_behind = |tls: bool| -> Vec<ResourceId> {
        let fits = |group: &TargetGroup| tls || group.protocol_version == Some(ProtocolVersion::Http1);
        stack.target_groups.iter().filter(|(_, group)| fits(group)).map(|(resource, _)| resource.clone()).collect()
    };
    let sample = sample.listeners.values().next().unwrap();
    stack.listeners.clear();
    for (port, chosen) in &choice.listeners {
        let tls = !chosen.certificates.is_empty();
        let groups = groups_behind(tls);
        let all: Vec<CertificateArn> = chosen.certificates.iter().copied().map(certificate).collect();
        let default_certificate = all.first().cloned();
        let certificates: BTreeSet<_> = all.into_iter().filter(|c| Some(c) != default_certificate.as_ref()).collect();
        let policy = if chosen.policy { "ELBSecurityPolicy-2016-08" } else { "ELBSecurityPolicy-TLS13-1-2-2021-06" };
        let rules = chosen
            .rules
            .iter()
            .map(|(pattern, action)| Rule {
                conditions: vec![
                    Condition::HostHeader { values: vec![format!("h{}.test", pattern % 2)], regex_values: vec![] },
                    Condition::PathPattern { values: vec![format!("/{pattern}*")], regex_values: vec![] },
                ],
                action: action.action(&groups),
                authentication: None,
                transforms: vec![],
                tags: tagged(&Tags::new(), chosen.owner),
                cause: sample.cause.clone(),
            })
            .collect();
        let listener = Listener {
            port: *port,
            protocol: if tls { ListenerProtocol::Https } else { ListenerProtocol::Http },
            default_action: chosen.default.action(&groups),
            default_authentication: None,
            certificates_after_apply: None,
            mutual_authentication: None,
            default_certificate,
            certificates,
            ssl_policy: tls.then(|| policy.to_owned()),
            alpn_policy: None,
            attributes: Attributes::from([(
                "routing.http.response.server.enabled".to_owned(),
                chosen.policy.to_string(),
            )]),
            attribute_causes: std::collections::BTreeMap::new(),
            shares: std::collections::BTreeMap::new(),
            rules,
            tags: tagged(&sample.tags, chosen.owner),
            cause: sample.cause.clone(),
        };
        stack.listeners.insert(*port, listener);
    }
    let security_group = stack.security_group.as_mut().unwrap();
    let opened = security_group.ingress[0].clone();
    security_group.ingress = stack
        .listeners
        .keys()
        .filter(|_| choice.ports_open)
        .map(|port| SecurityGroupRule {
            from_port: Some(i32::from(*port)),
            to_port: Some(i32::from(*port)),
            ..opened.clone()
        })
        .collect();
    let balancer = stack.load_balancer.as_mut().unwrap();
    balancer.tags = tagged(&balancer.tags, choice.owner);
    balancer.attributes.insert("routing.http2.enabled".to_owned(), choice.ports_open.to_string());
    stack
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_plan_makes_a_stack_from_nothing(choice in choice()) {
        let stack = stack(&choice);
        let mut aws = Aws::default();
        let made = plan(&stack, &aws.observed);
        prop_assert!(made.steps.iter().all(|step| !step.action.is_destructive()));
        prop_assert_eq!(&made, &plan(&stack, &aws.observed));
        aws.run(&stack, &made);
        prop_assert_eq!(plan(&stack, &aws.observed), Plan::empty());
    }

    #[test]
    fn from_any_stack_two_rounds_lead_to_any_other_and_to_nothing(before in choice(), after in choice()) {
        let (before, after) = (stack(&before), stack(&after));
        let mut aws = Aws::with(&before);
        aws.settle(&after, 2);
        let balancer = &aws.observed.load_balancers[0];
        prop_assert_eq!(balancer.known_listeners().map(|listener| &listener.port).collect::<Vec<_>>(), after.listeners.keys().collect::<Vec<_>>());
        prop_assert_eq!(aws.observed.target_groups.len(), after.target_groups.len());
        prop_assert_eq!(aws.observed.bindings.len(), after.target_groups.len());
        let nothing = Stack::empty(after.id.clone());
        aws.settle(&nothing, 2);
        prop_assert!(aws.observed.is_empty());
    }
}
