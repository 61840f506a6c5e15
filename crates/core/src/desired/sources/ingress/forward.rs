//! Forwards that `actions.<name>` requests: to Services and to foreign target groups, by weight (reference: ingress §3.4).

use super::{Builder, Failed, Member, backend::unavailable};
use crate::{
    api::annotations::{self, ForwardBackend, ForwardTarget},
    diagnostics::Code,
    facts::FactQuery,
    model::{
        Action, ObjectReference, PortReference, Stickiness, TargetGroupArn, TargetGroupName, TargetGroupReference,
        Value, WeightedTargetGroup,
    },
};

impl<'a> Builder<'a> {
    /// Returns a forward. `key` is the annotation that requests it. A Service may be missing only if it is the single
    /// target.
    pub(super) fn forward(
        &mut self,
        member: Member<'a>,
        key: &str,
        targets: &[ForwardTarget],
        stickiness: Option<&annotations::Stickiness>,
    ) -> Result<Action<TargetGroupReference>, Failed> {
        let alone = targets.len() == 1;
        let mut target_groups: Vec<WeightedTargetGroup<TargetGroupReference>> = Vec::new();
        let mut failed = false;
        for target in targets {
            let group = match self.forward_target(member, key, &target.backend, alone) {
                Ok(Some(group)) => group,
                Ok(None) => return Ok(unavailable("Backend service does not exist")),
                Err(Failed) => {
                    failed = true;
                    continue;
                }
            };
            if target_groups.iter().any(|earlier| earlier.group == group) {
                let what = match &group {
                    TargetGroupReference::Own(id) => id.as_str(),
                    TargetGroupReference::Foreign(arn) => arn.as_str(),
                    TargetGroupReference::Named(name) => name,
                };
                let message = format!("the forward names the target group `{what}` twice");
                self.error(&member.ingress.name, Code::InvalidValue, key, &message, "name it once, with one weight");
                failed = true;
            }
            target_groups.push(WeightedTargetGroup { group, weight: target.weight });
        }
        if failed {
            return Err(Failed);
        }
        let stickiness = stickiness.map(|stickiness| Stickiness {
            enabled: stickiness.enabled.unwrap_or_default(),
            duration_seconds: stickiness.duration_seconds,
        });
        Ok(Action::Forward { target_groups, stickiness })
    }

    /// Returns a target group of a forward. `None` for a missing Service that is tolerated.
    fn forward_target(
        &mut self,
        member: Member<'a>,
        key: &str,
        backend: &ForwardBackend,
        alone: bool,
    ) -> Result<Option<TargetGroupReference>, Failed> {
        let ingress = &member.ingress.name;
        match backend {
            ForwardBackend::Service { name, port } => {
                let port = match port {
                    annotations::ServicePort::Name(name) => PortReference::Name(name.clone()),
                    annotations::ServicePort::Number(number) => match u16::try_from(*number) {
                        Ok(number) => PortReference::Number(number),
                        Err(_) => {
                            let message = format!("{number} is not a valid port");
                            return Err(self.error(ingress, Code::InvalidValue, key, &message, "write 1 to 65535"));
                        }
                    },
                };
                self.target_group_of_service(member, name, &port, key, alone)
            }
            ForwardBackend::TargetGroupArn(arn) => Ok(Some(TargetGroupReference::Foreign(TargetGroupArn::new(arn)))),
            ForwardBackend::TargetGroupName(name) => {
                if let Err(invalid) = TargetGroupName::new(name.clone()) {
                    let fix = "write the name of a target group, or its ARN as `targetGroupARN`";
                    return Err(self.error(ingress, Code::InvalidValue, key, &invalid.to_string(), fix));
                }
                let fact = self.facts.target_group(name);
                let object = ObjectReference::ingress(ingress);
                let want = FactQuery::TargetGroup(name.clone());
                Ok(Some(match self.sink.resolve(fact, want, object, Code::MissingTargetGroup, key)? {
                    Value::Known(arn) => TargetGroupReference::Foreign(arn),
                    Value::AfterApply(_) => TargetGroupReference::Named(name.clone()),
                }))
            }
        }
    }
}
