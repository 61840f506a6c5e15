//! The choice among the bindings of one target group of the one that holds it.

use std::collections::BTreeMap;

use crate::{
    api::crd::TargetGroupBindingSpec,
    model::{ObjectName, StackId, TargetGroupArn, tags::BINDING_FINALIZER},
    snapshot::{Snapshot, TargetGroupBinding},
};

use super::{TargetGroupKey, role::Role, shared::is_shared, status};

/// The reason why a binding does not get the target group that it names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Another binding has the target group.
    #[error(
        "the target group {arn} already has the TargetGroupBinding {holder}, and each would deregister the targets of the other"
    )]
    Taken {
        /// The group.
        arn: TargetGroupArn,
        /// The binding that has it.
        holder: ObjectName,
    },
    /// The target group was created for a stack, and only the stack's binding holds it.
    #[error(
        "the target group {arn} was made for {object} and belongs to its TargetGroupBinding {holder}, so nothing is registered or deregistered for this one"
    )]
    OfStack {
        /// The group.
        arn: TargetGroupArn,
        /// The Ingress, group or Service.
        object: String,
        /// The binding that has it.
        holder: ObjectName,
    },
}

/// The ARN or name by which a binding names its target group; the ARN wins.
pub fn key_of(spec: &TargetGroupBindingSpec) -> Option<TargetGroupKey> {
    let given = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
    given(&spec.target_group_arn)
        .map(|arn| TargetGroupKey::Arn(TargetGroupArn::new(arn)))
        .or_else(|| given(&spec.target_group_name).map(TargetGroupKey::Name))
}

/// The name in a target group's ARN, unique in its account and region.
fn group_name(arn: &str) -> Option<&str> {
    arn.split('/').nth(1)
}

/// Returns the name of the target group that a binding names; text that does not have the form of an ARN is the name itself.
#[must_use]
pub fn group_of(spec: &TargetGroupBindingSpec) -> Option<&str> {
    match spec.target_group_arn.as_deref().filter(|arn| !arn.is_empty()) {
        Some(arn) => Some(group_name(arn).unwrap_or(arn)),
        None => spec.target_group_name.as_deref().filter(|name| !name.is_empty()),
    }
}

/// The account in an ARN.
fn account(arn: &str) -> Option<&str> {
    arn.split(':').nth(4)
}

/// Returns the ARN of the target group that a binding names by its name, if AWS has said so.
pub type KnownArn<'a> = dyn Fn(&TargetGroupBinding) -> Option<TargetGroupArn> + 'a;

/// Returns true if a binding names a target group. A name is compared with the one in the ARN as long as its own ARN is not
/// known, so no pass has to reconcile the binding first: right after a start the younger of two bindings may come first. Two
/// accounts may have groups of the same name: then the known ARN decides.
fn leads_to(binding: &TargetGroupBinding, arn: &TargetGroupArn, known: &KnownArn<'_>) -> bool {
    match key_of(&binding.spec) {
        Some(TargetGroupKey::Arn(named)) => named == *arn,
        Some(TargetGroupKey::Name(name)) => {
            let role = Role::of(&binding.spec).ok().flatten();
            group_name(arn.as_str()) == Some(&*name)
                && role.is_none_or(|role| account(role.arn()) == account(arn.as_str()))
                && known(binding).is_none_or(|known| known == *arn)
        }
        None => false,
    }
}

/// Returns the binding that holds a target group which was created for a stack, among the bindings in `home`, the namespace
/// of the Service. It has the name of the group. If no binding has that name, it is the oldest one with the stack's labels
/// and the group's ARN: aws-load-balancer-controller names a binding after the group that it would create, and finds it by
/// the ARN.
#[must_use]
pub fn holder<'a>(
    stack: &StackId,
    home: &str,
    arn: &TargetGroupArn,
    snapshot: &'a Snapshot,
) -> Option<&'a TargetGroupBinding> {
    let at_home = crate::snapshot::in_namespace(&snapshot.target_group_bindings, home);
    let at_home = at_home.map(|(_, binding)| binding).filter(|binding| leads_to(binding, arn, &|_| None));
    holder_among(stack, home, arn, at_home)
}

/// Returns the holder among the bindings that name the target group.
fn holder_among<'a>(
    stack: &StackId,
    home: &str,
    arn: &TargetGroupArn,
    bindings: impl Iterator<Item = &'a TargetGroupBinding>,
) -> Option<&'a TargetGroupBinding> {
    let is_named_so = |binding: &TargetGroupBinding| group_name(arn.as_str()) == Some(&binding.name.name);
    let is_by_labels = |binding: &TargetGroupBinding| {
        binding.spec.target_group_arn.as_deref() == Some(arn.as_str()) && stack.is_named_by(&binding.labels)
    };
    bindings
        .filter(|binding| binding.name.namespace == home)
        .filter(|binding| is_named_so(binding) || is_by_labels(binding))
        .min_by(|one, other| {
            let place = |binding: &TargetGroupBinding| (!is_named_so(binding), binding.deleting);
            place(one).cmp(&place(other)).then_with(|| (&one.created, &one.name).cmp(&(&other.created, &other.name)))
        })
}

/// The stack that a target group was made for, and the namespace of the binding that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub stack: StackId,
    pub home: String,
}

/// All bindings of one target group.
pub struct Bindings<'a> {
    arn: &'a TargetGroupArn,
    bindings: Vec<&'a TargetGroupBinding>,
}

impl<'a> Bindings<'a> {
    pub fn of(
        arn: &'a TargetGroupArn,
        among: impl IntoIterator<Item = &'a TargetGroupBinding>,
        known: &KnownArn<'_>,
    ) -> Self {
        Self { arn, bindings: among.into_iter().filter(|binding| leads_to(binding, arn, known)).collect() }
    }

    /// Returns the binding that holds the target group for its stack.
    pub fn holder(&self, owner: &Owner) -> Option<&'a TargetGroupBinding> {
        holder_among(&owner.stack, &owner.home, self.arn, self.bindings.iter().copied())
    }

    /// Returns all other bindings that are not deleted.
    pub fn others(&self, name: &ObjectName) -> impl Iterator<Item = &'a TargetGroupBinding> {
        self.bindings.iter().copied().filter(move |other| other.name != *name && !other.deleting)
    }

    /// Returns why a binding may not use the target group, if it may not: the group belongs to a stack, and only the stack's
    /// binding may use it, or another binding has it by [`precedence`] and the two do not share it.
    pub fn denied(&self, binding: &TargetGroupBinding, owner: Option<&Owner>) -> Option<Denied> {
        let arn = self.arn;
        if let Some(owner) = owner {
            let own = || ObjectName::new(&owner.home, group_name(arn.as_str()).unwrap_or_default());
            let holder = self.holder(owner).map_or_else(own, |holder| holder.name.clone());
            let object = owner.stack.object().to_string();
            return (holder != binding.name).then(|| Denied::OfStack { arn: arn.clone(), object, holder });
        }
        let first = self.others(&binding.name).min_by(|a, b| precedence(a, arn).cmp(&precedence(b, arn)))?;
        let share = is_shared(&first.spec) && is_shared(&binding.spec);
        let taken = !share && precedence(first, arn) < precedence(binding, arn);
        taken.then(|| Denied::Taken { arn: arn.clone(), holder: first.name.clone() })
    }
}

/// All bindings by the target group that they name, so that each does not have to look through all others.
pub struct ByGroup<'a>(BTreeMap<&'a str, Vec<&'a TargetGroupBinding>>);

impl<'a> ByGroup<'a> {
    pub fn of(snapshot: &'a Snapshot) -> Self {
        let mut groups: BTreeMap<&str, Vec<&TargetGroupBinding>> = BTreeMap::new();
        for binding in snapshot.target_group_bindings.values() {
            if let Some(group) = group_of(&binding.spec) {
                groups.entry(group).or_default().push(binding);
            }
        }
        Self(groups)
    }

    pub fn bindings(&self, arn: &'a TargetGroupArn, known: &KnownArn<'_>) -> Bindings<'a> {
        let group = group_name(arn.as_str()).unwrap_or(arn.as_str());
        Bindings::of(arn, self.0.get(group).into_iter().flatten().copied(), known)
    }
}

/// Returns true if this controller or aws-load-balancer-controller has reconciled the targets of a binding: any user may
/// write the finalizer, but only few may write the status.
pub fn has_had_targets(binding: &TargetGroupBinding) -> bool {
    binding.finalizers.iter().any(|finalizer| finalizer == BINDING_FINALIZER)
        && binding.status.as_ref().is_some_and(|status| status.observed_generation.is_some())
}

/// Returns the precedence among bindings of one target group that belong to no stack. A binding that has held the group keeps it:
/// a new object, or an older one that is changed to name this group, takes no traffic from it. The status shows it, which users
/// do not set on objects they create: the target group that it holds, or, as aws-load-balancer-controller writes it, that
/// the present spec has been carried out. Then an ARN comes before a name, which may have been written before the group
/// existed; then the older binding.
pub fn precedence<'a>(binding: &'a TargetGroupBinding, arn: &TargetGroupArn) -> impl Ord + use<'a> {
    let by_arn = matches!(key_of(&binding.spec), Some(TargetGroupKey::Arn(_)));
    let has_held = has_had_targets(binding)
        && match binding.status.as_ref().and_then(status::held) {
            Some(held) => held == arn.as_str(),
            None => binding.status.as_ref().and_then(|status| status.observed_generation) == Some(binding.generation),
        };
    (!has_held, !by_arn, &binding.created, &binding.name)
}
