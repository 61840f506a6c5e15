//! The attribution of steps that AWS refuses. A setting that several members of a group share becomes one step for each
//! requester, so that a refusal freezes that one only.

use super::{
    action::StepAction,
    step::{ListenerChange, Plan, Step, TaggedResource},
};
use crate::model::{Cause, ObservedStack, SecurityGroupRule, Source, Stack, Tags};

/// Returns the plan with each step attributed to its requester. The order stays.
pub(super) fn attributed(stack: &Stack, observed: &ObservedStack, mut plan: Plan) -> Plan {
    let steps = std::mem::take(&mut plan.steps);
    plan.steps = steps.into_iter().flat_map(|step| split(stack, observed, step)).collect();
    plan
}

fn split(stack: &Stack, observed: &ObservedStack, step: Step) -> Vec<Step> {
    let Step { action, cause, in_front: _ } = step;
    let requesters = &stack.requesters;
    let one = |action, requester: &Option<Cause>, cause| vec![Step::new(action, requester.clone().unwrap_or(cause))];
    match action {
        StepAction::SetSubnets { .. } => one(action, &requesters.subnets, cause),
        StepAction::SetSecurityGroups { .. } => one(action, &requesters.security_groups, cause),
        StepAction::ModifyIpPools { .. } => one(action, &requesters.ipam_pool, cause),
        StepAction::SetIpAddressType { .. } => one(action, &requesters.ip_address_type, cause),
        StepAction::AuthorizeIngress { group, rules } => {
            let asks = |rule: &SecurityGroupRule| {
                let Source::PrefixList(list) = &rule.source else { return None };
                let port = rule.from_port.and_then(|port| u16::try_from(port).ok())?;
                requesters.prefix_lists.get(&(port, list.clone()))
            };
            by_cause(rules, |rule| asks(rule).unwrap_or(&cause).clone())
                .into_iter()
                .map(|(cause, rules)| Step::new(StepAction::AuthorizeIngress { group: group.clone(), rules }, cause))
                .collect()
        }
        StepAction::AddTags { resource, name, tags } if is_of_all(observed, &resource) => {
            by_cause(tags, |(key, _)| requesters.tags.get(key).unwrap_or(&cause).clone())
                .into_iter()
                .map(|(cause, tags)| {
                    let (resource, name) = (resource.clone(), name.clone());
                    Step::new(StepAction::AddTags { resource, name, tags: Tags::from_iter(tags) }, cause)
                })
                .collect()
        }
        // Another protocol needs its certificate and its policy with it.
        StepAction::ModifyListener { arn, port, change } if change.protocol.is_none() => {
            listener_changes(stack, port, *change, &cause)
                .into_iter()
                .map(|(cause, change)| {
                    let (arn, change) = (arn.clone(), Box::new(change));
                    Step::new(StepAction::ModifyListener { arn, port, change }, cause)
                })
                .collect()
        }
        action => vec![Step::new(action, cause)],
    }
}

/// Returns true for the load balancer, its listeners and its security group, which all members tag.
fn is_of_all(observed: &ObservedStack, resource: &TaggedResource) -> bool {
    match resource {
        TaggedResource::SecurityGroup(_) => true,
        TaggedResource::Elb(arn) => observed.load_balancers.iter().any(|balancer| {
            balancer.arn.as_str() == arn || balancer.known_listeners().any(|listener| listener.arn.as_str() == arn)
        }),
    }
}

/// Returns the items in groups of one cause, in the order in which causes first come.
fn by_cause<T>(items: impl IntoIterator<Item = T>, cause: impl Fn(&T) -> Cause) -> Vec<(Cause, Vec<T>)> {
    let mut groups: Vec<(Cause, Vec<T>)> = Vec::new();
    for item in items {
        let cause = cause(&item);
        match groups.iter_mut().find(|(known, _)| *known == cause) {
            Some((_, group)) => group.push(item),
            None => groups.push((cause, vec![item])),
        }
    }
    groups
}

/// Returns the parts of a change of a listener, one for each object that requests a part.
fn listener_changes(stack: &Stack, port: u16, change: ListenerChange, cause: &Cause) -> Vec<(Cause, ListenerChange)> {
    let requesters = &stack.requesters;
    let ListenerChange {
        protocol,
        ssl_policy,
        default_certificate,
        alpn_policy,
        default_action,
        default_authentication,
        mutual_authentication,
    } = change;
    let none = ListenerChange::default;
    let settings = [
        (None, ListenerChange { protocol, alpn_policy, ..none() }),
        (requesters.default_certificate.get(&port), ListenerChange { default_certificate, ..none() }),
        (requesters.ssl_policy.get(&port), ListenerChange { ssl_policy, ..none() }),
        (requesters.mutual_authentication.get(&port), ListenerChange { mutual_authentication, ..none() }),
        (requesters.default_action.get(&port), ListenerChange { default_action, default_authentication, ..none() }),
    ];
    let mut changes: Vec<(Cause, ListenerChange)> = Vec::new();
    for (requester, part) in settings.into_iter().filter(|(_, part)| *part != none()) {
        let cause = requester.unwrap_or(cause);
        match changes.iter_mut().find(|(known, _)| known.object == cause.object) {
            Some((_, known)) => {
                known.protocol = known.protocol.or(part.protocol);
                known.ssl_policy = known.ssl_policy.take().or(part.ssl_policy);
                known.default_certificate = known.default_certificate.take().or(part.default_certificate);
                known.alpn_policy = known.alpn_policy.take().or(part.alpn_policy);
                known.default_action = known.default_action.take().or(part.default_action);
                known.default_authentication = known.default_authentication.take().or(part.default_authentication);
                known.mutual_authentication = known.mutual_authentication.take().or(part.mutual_authentication);
            }
            None => changes.push((cause.clone(), part)),
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ListenerArn, ObjectName, ObjectReference, SecurityGroupId, StackId};
    use crate::plan::SecurityGroupTarget;

    fn of(member: &str, field: &str) -> Cause {
        let object = ObjectReference::ingress(&ObjectName::new("shop", member));
        Cause { object, generation: 1, field: field.to_owned() }
    }

    fn rule(source: Source) -> SecurityGroupRule {
        let protocol = "tcp".to_owned();
        SecurityGroupRule { protocol, from_port: Some(80), to_port: Some(80), source, description: String::new() }
    }

    fn attributed_steps(stack: &Stack, action: StepAction) -> Vec<(String, StepAction)> {
        let plan = Plan::of(vec![Step::new(action, of("a", "spec"))], []);
        let steps = attributed(stack, &ObservedStack::default(), plan).steps;
        steps.into_iter().map(|step| (step.cause.object.name.name, step.action)).collect()
    }

    fn stack(change: impl FnOnce(&mut crate::model::Requesters)) -> Stack {
        let mut stack = Stack::empty(StackId::Group("edge".to_owned()));
        change(&mut stack.requesters);
        stack
    }

    #[test]
    fn a_prefix_list_is_opened_in_a_step_of_who_asks_for_it() {
        let stack = stack(|requesters| {
            requesters.prefix_lists.insert((80, "pl-b".to_owned()), of("b", "lists"));
        });
        let range = rule(Source::Ipv4("10.0.0.0/8".to_owned()));
        let list = |id: &str| rule(Source::PrefixList(id.to_owned()));
        let open = |rules: Vec<SecurityGroupRule>| StepAction::AuthorizeIngress {
            group: SecurityGroupTarget::Existing(SecurityGroupId::new("sg-1")),
            rules,
        };
        assert_eq!(
            attributed_steps(&stack, open(vec![list("pl-b"), range.clone(), list("pl-a")])),
            [("b".to_owned(), open(vec![list("pl-b")])), ("a".to_owned(), open(vec![range, list("pl-a")]))]
        );
    }

    #[test]
    fn settings_of_a_listener_change_in_steps_of_who_asks_for_them() {
        let stack = stack(|requesters| {
            requesters.ssl_policy.insert(443, of("b", "policy"));
            requesters.default_certificate.insert(443, of("b", "certificate"));
        });
        let modify = |change: ListenerChange| StepAction::ModifyListener {
            arn: ListenerArn::new("arn:listener"),
            port: 443,
            change: Box::new(change),
        };
        let policy = ListenerChange { ssl_policy: Some("policy".to_owned()), ..ListenerChange::default() };
        let alpn = ListenerChange { alpn_policy: Some("None".to_owned()), ..ListenerChange::default() };
        let both = ListenerChange { ssl_policy: policy.ssl_policy.clone(), ..alpn.clone() };
        assert_eq!(
            attributed_steps(&stack, modify(both.clone())),
            [("a".to_owned(), modify(alpn)), ("b".to_owned(), modify(policy))]
        );
        // Settings that belong together are not separated.
        let whole = ListenerChange { protocol: Some(crate::model::ListenerProtocol::Https), ..both };
        assert_eq!(attributed_steps(&stack, modify(whole.clone())), [("a".to_owned(), modify(whole))]);
    }
}
