//! TargetGroupBindings: the checks that need no AWS call.

use crate::{
    api::{
        admission::{AdmissionResponse, Request},
        crd::{
            self, TargetGroupBindingSpec,
            target_group_binding::{IpAddressType, TargetType},
        },
    },
    desired::BuildConfig,
    model::{ObjectName, StackId, Value},
    snapshot::{Snapshot, TargetGroupBinding},
    targets::{endpoints::is_quic, role::Role, shared::is_shared},
};

pub(super) fn answer(request: &Request, snapshot: &Snapshot, config: &BuildConfig) -> AdmissionResponse {
    let read = |value: &serde_json::Value| serde_json::from_value::<crd::TargetGroupBinding>(value.clone()).ok();
    // The schema reports objects that are not TargetGroupBindings at all.
    let Some(new) = read(&request.object).map(TargetGroupBinding::from) else { return AdmissionResponse::allowed() };
    // Nothing may hold up one that goes.
    if new.deleting {
        return AdmissionResponse::allowed();
    }
    let name = ObjectName::new(&request.namespace, &new.name.name);
    let old = if request.creates() { None } else { read(&request.old_object).map(TargetGroupBinding::from) };
    // The controller's own writes of finalizers and annotations are not checked.
    if old.as_ref().is_some_and(|old| old.spec == new.spec) {
        return AdmissionResponse::allowed();
    }
    let mut wrong = mistakes(&new);
    if let Some(old) = &old {
        wrong.extend(changes(old, &new, config));
    }
    wrong.extend(taken(snapshot, &name, &new));
    if wrong.is_empty() { AdmissionResponse::allowed() } else { AdmissionResponse::denied(wrong.join("; ")) }
}

fn given(text: Option<&String>) -> Option<&str> {
    text.map(String::as_str).filter(|text| !text.is_empty())
}

fn mistakes(binding: &TargetGroupBinding) -> Vec<String> {
    let spec = &binding.spec;
    let mut wrong = Vec::new();
    if given(spec.target_group_arn.as_ref()).is_none() && given(spec.target_group_name.as_ref()).is_none() {
        wrong.push("it names no target group; set spec.targetGroupARN or spec.targetGroupName".to_owned());
    }
    if spec.node_selector.is_some() && spec.target_type == Some(TargetType::Ip) {
        wrong.push(
            "spec.nodeSelector selects nodes, and with the target type ip the targets are pods; remove it".to_owned(),
        );
    }
    let instance = spec.target_type == Some(TargetType::Instance);
    if instance && given(spec.iam_role_arn_to_assume.as_ref()).is_some() {
        wrong.push(
            "spec.iamRoleArnToAssume: nodes cannot be registered in another account; use the target type ip".to_owned(),
        );
    }
    if let Err(error) = Role::of(spec) {
        wrong.push(format!("spec.{}: {error}; {}", error.field(), error.fix()));
    }
    if instance && is_quic(spec) {
        wrong.push("spec.targetGroupProtocol: QUIC needs the target type ip".to_owned());
    }
    if let Some(vpc) = given(spec.vpc_id.as_ref()).filter(|vpc| !is_vpc(vpc)) {
        wrong.push(format!("spec.vpcID: `{vpc}` is not the id of a VPC; write an id, vpc-…"));
    }
    wrong
}

/// `vpc-` and 8, 17 or 32 hexadecimal digits.
fn is_vpc(text: &str) -> bool {
    let digits = text.strip_prefix("vpc-").unwrap_or_default();
    matches!(digits.len(), 8 | 17 | 32) && digits.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
}

/// Returns the error for a change of immutable fields: it would leave targets behind that no binding deregisters.
fn changes(old: &TargetGroupBinding, new: &TargetGroupBinding, config: &BuildConfig) -> Option<String> {
    let (old, new) = (&old.spec, &new.spec);
    let mut fields = Vec::new();
    if given(old.target_group_arn.as_ref()).is_some_and(|arn| given(new.target_group_arn.as_ref()) != Some(arn)) {
        fields.push("targetGroupARN");
    }
    if old.target_type.is_some() && old.target_type != new.target_type {
        fields.push("targetType");
    }
    let address_type = |kind: Option<IpAddressType>| kind.unwrap_or(IpAddressType::Ipv4);
    if old.ip_address_type.is_some() && address_type(old.ip_address_type) != address_type(new.ip_address_type) {
        fields.push("ipAddressType");
    }
    let ours = match &config.vpc {
        Value::Known(vpc) => Some(vpc.as_str()),
        Value::AfterApply(_) => None,
    };
    match (given(old.vpc_id.as_ref()), given(new.vpc_id.as_ref())) {
        (Some(before), after) if after != Some(before) => fields.push("vpcID"),
        (None, Some(after)) if ours.is_some_and(|ours| ours != after) => fields.push("vpcID"),
        _ => {}
    }
    let fields: Vec<String> = fields.into_iter().map(|field| format!("spec.{field}")).collect();
    (!fields.is_empty())
        .then(|| format!("{} cannot be changed; delete the TargetGroupBinding and create another", fields.join(", ")))
}

/// Returns true if two specs name the same target group. Its name is in its ARN, and unique in an account's region.
fn names_same(one: &TargetGroupBindingSpec, other: &TargetGroupBindingSpec) -> bool {
    let arn = |spec: &TargetGroupBindingSpec| given(spec.target_group_arn.as_ref()).map(str::to_owned);
    let name = |spec: &TargetGroupBindingSpec| match arn(spec) {
        Some(arn) => arn.split('/').nth(1).map(str::to_owned),
        None => given(spec.target_group_name.as_ref()).map(str::to_owned),
    };
    match (arn(one), arn(other)) {
        (Some(one), Some(other)) => one == other,
        // A name is one of an account.
        _ => name(one).is_some() && name(one) == name(other) && Role::of(one) == Role::of(other),
    }
}

/// Two bindings of one target group would each deregister the other's targets, unless both share it with other clusters. What
/// carries a stack's labels where its Ingress or Service is passes: which binding holds a stack's target group, the controller
/// decides, and no object of a user's may keep it from writing its own.
fn taken(snapshot: &Snapshot, name: &ObjectName, new: &TargetGroupBinding) -> Option<String> {
    let of_stack = StackId::of_labels(&new.labels).is_some_and(|stack| match stack {
        StackId::Ingress(object) | StackId::Service(object) => object.namespace == name.namespace,
        StackId::Group(_) => true,
    });
    if of_stack {
        return None;
    }
    let arn = given(new.spec.target_group_arn.as_ref());
    let group = arn.or_else(|| given(new.spec.target_group_name.as_ref()))?;
    let other = snapshot.target_group_bindings.values().find(|other| {
        let share = is_shared(&new.spec) && is_shared(&other.spec);
        other.name != *name && !other.deleting && names_same(&new.spec, &other.spec) && !share
    })?;
    Some(format!(
        "the target group {group} already has the TargetGroupBinding {}; delete that first, or bind another",
        other.name
    ))
}
