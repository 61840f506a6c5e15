//! The settings of the load balancer that are changed apart from it.
//!
//! A web ACL and a protection come before everything that the load balancer begins to serve, and go after it. Capacity is reserved
//! when everything else is in place, and AWS takes that only for a load balancer that serves.

use super::Planner;
use crate::model::{AddOn, Association, Cause, LoadBalancer, ObservedAddOns, ObservedLoadBalancer, Protection, Value};
use crate::plan::{
    action::StepAction,
    step::{Step, Wait},
};

impl Planner<'_> {
    /// Plans the add-ons of a load balancer that exists, or that an earlier step creates.
    pub(super) fn add_ons(&mut self, wanted: &LoadBalancer, existing: Option<&ObservedLoadBalancer>) {
        let new = ObservedAddOns::of_new();
        let known = existing.map_or(&new, |existing| &existing.add_ons);
        let arn = existing.map(|existing| existing.arn.clone());
        let name = existing.map_or_else(|| wanted.name.to_string(), |existing| existing.name.clone());
        let is_left_out = |add_on| self.observed.left_out.contains(&add_on);
        let (web_acl, protection) = (!is_left_out(AddOn::WebAcl), !is_left_out(AddOn::Protection));
        if let (true, Some(requested), Some(association)) = (web_acl, &wanted.add_ons.web_acl, &known.web_acl) {
            match (&requested.value, association) {
                // Without AWS it is not known which one it is to be.
                (Some(Value::AfterApply(_)), _) if existing.is_some() => {}
                (Some(Value::Known(web_acl)), association) if association.is(web_acl) => {}
                (Some(web_acl), _) => {
                    let (load_balancer, name, web_acl) = (arn.clone(), name.clone(), web_acl.clone());
                    self.push(StepAction::AssociateWebAcl { load_balancer, name, web_acl }, &requested.cause);
                }
                (None, Association::WebAcl(web_acl)) => {
                    if let Some(arn) = arn.clone() {
                        let (name, web_acl) = (name.clone(), web_acl.clone());
                        self.push_last(StepAction::DisassociateWebAcl { arn, name, web_acl }, &requested.cause);
                    }
                }
                (None, Association::None) => {}
            }
        }
        if let (true, Some(requested), Some(known)) = (protection, &wanted.add_ons.protection, &known.protection) {
            match (requested.value, known) {
                (true, Protection::None) => {
                    self.push(StepAction::CreateProtection { load_balancer: arn, name }, &requested.cause);
                }
                (false, known) => {
                    if let (Some(arn), Some(id)) = (arn, known.own_id()) {
                        let id = id.to_owned();
                        self.push_last(StepAction::DeleteProtection { arn, name, id }, &requested.cause);
                    }
                }
                (true, Protection::Exists { .. }) => {}
            }
        }
    }

    /// Plans the reserved capacity, or waits until the load balancer serves.
    pub(super) fn capacity(&mut self, wanted: &LoadBalancer, existing: Option<&ObservedLoadBalancer>) {
        let Some(requested) = &wanted.add_ons.capacity else { return };
        let new = ObservedAddOns::of_new();
        let known = existing.map_or(new.capacity, |existing| existing.add_ons.capacity);
        if known == Some(requested.value) || self.observed.left_out.contains(&AddOn::Capacity) {
            return;
        }
        match existing.filter(|existing| existing.is_active()) {
            Some(existing) => {
                let (arn, name, units) = (existing.arn.clone(), existing.name.clone(), requested.value);
                self.push_last(StepAction::ModifyCapacityReservation { arn, name, units }, &requested.cause);
            }
            None => drop(self.plan.waits.insert(Wait::LoadBalancerActive)),
        }
    }

    fn push_last(&mut self, action: StepAction, cause: &Cause) {
        self.last.push(Step::new(action, cause.clone()));
    }
}
