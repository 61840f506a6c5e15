//! The settings of the load balancer that other services of AWS hold: its web ACL and its protection (reference: ingress
//! §5.7, §5.8). That such a service cannot be asked, or is switched off, holds up nothing else: the setting stays as it is,
//! and its requesters get a warning.

use std::collections::BTreeSet;

use super::{
    super::{
        Builder, Member, cause,
        class::{Ownership, ownership},
        member_spec::MemberSpec,
        settings::FieldRef,
    },
    Unmerged,
};
use crate::{
    api::annotations::{
        Key,
        registry::ingress::{self as keys, merged},
    },
    diagnostics::{Code, Severity},
    facts::{Fact, FactQuery},
    model::{
        AddOn, AddOns, Association, InvalidWebAclArn, ObjectName, ObservedAddOns, ObservedStack, Protection, Requested,
        Value, WebAclArn,
    },
};

/// The word that requests no web ACL.
const NONE: &str = "none";

/// The request of a group for its web ACL.
enum WebAcl {
    /// None: the association stays as it is.
    Unasked,
    /// It cannot be told now.
    Unknown,
    /// This one; `None` within if there must be none.
    Requested(Requested<Option<Value<WebAclArn>>>),
}

/// Returns the web ACL that a text requests by its ARN; `None` within for none.
fn asked_arn(written: &str) -> Result<Option<WebAclArn>, InvalidWebAclArn> {
    match written {
        "" | NONE => Ok(None),
        arn => WebAclArn::new(arn).map(Some),
    }
}

/// Returns the web ACL that a member requests by its ARN; `None` within for none.
fn requested_arn(spec: &MemberSpec<'_>) -> Option<Result<Option<WebAclArn>, InvalidWebAclArn>> {
    Some(asked_arn(&spec.web_acl_arn.as_ref()?.value))
}

fn requested_name<'s>(spec: &'s MemberSpec<'_>) -> Option<&'s str> {
    spec.web_acl_name.as_ref().map(|name| name.value.as_str())
}

/// Returns the add-ons of the current load balancer, as far as they are known.
fn current(observed: &ObservedStack) -> Option<&ObservedAddOns> {
    observed.load_balancers.first().map(|balancer| &balancer.add_ons)
}

/// Returns true if the current web ACL is known and `is` it.
fn is_associated(observed: &ObservedStack, is: impl Fn(&Association) -> bool) -> bool {
    current(observed).and_then(|known| known.web_acl.as_ref()).is_some_and(is)
}

fn differ<T: PartialEq>(values: impl IntoIterator<Item = T>) -> bool {
    let mut values = values.into_iter();
    values.next().is_some_and(|first| values.any(|other| other != first))
}

impl<'a> Builder<'a> {
    pub(super) fn merge_add_ons(
        &mut self,
        specs: &[MemberSpec<'a>],
        frozen: &BTreeSet<ObjectName>,
    ) -> Result<AddOns, Unmerged> {
        // The facts that both need are requested together.
        let web_acl = self.merge_web_acl(specs, frozen);
        let protection = self.merge_protection(specs, frozen);
        let (web_acl, protection) = (web_acl?, protection?);
        let web_acl_is_unknown = matches!(web_acl, WebAcl::Unknown);
        let web_acl = if let WebAcl::Requested(web_acl) = web_acl { Some(web_acl) } else { None };
        Ok(AddOns { web_acl, web_acl_is_unknown, protection })
    }

    /// Returns the frozen member that keeps the add-on of the current load balancer as it is: one that has resources there,
    /// and that may request what there is. `has` returns true if it does; it is called with `None` for a member that cannot
    /// be read. Who requests only that there is none keeps nothing.
    fn kept_by(
        &mut self,
        frozen: &BTreeSet<ObjectName>,
        add_on: AddOn,
        has: impl Fn(Option<Member<'a>>, Option<&ObservedAddOns>) -> bool,
    ) -> Result<Option<ObjectName>, Unmerged> {
        let Some(observed) = self.observed_if_frozen(frozen)?.filter(|observed| !observed.load_balancers.is_empty())
        else {
            return Ok(None);
        };
        // If no resources are recorded for any member, a frozen one may own everything.
        let is_served = |name: &ObjectName| {
            let mut its = observed.member_resources.iter().filter_map(|resources| resources.member.as_ingress());
            observed.member_resources.is_empty() || its.any(|member| member == name)
        };
        let (snapshot, config) = (self.snapshot, self.config);
        let readable = |member: &Member<'a>| {
            let is_broken = matches!(ownership(member.ingress, snapshot, config), Ownership::Broken(_));
            (!is_broken).then_some(*member)
        };
        let served = self.members.iter().filter(|member| frozen.contains(member.name()) && is_served(member.name()));
        let may_keep: Vec<Member<'a>> = served.filter(|member| has(readable(member), None)).copied().collect();
        let Some(first) = may_keep.first() else { return Ok(None) };
        if !self.knows_current(add_on)? {
            return Ok(Some(first.name().clone()));
        }
        let known = current(observed);
        let keeps = may_keep.iter().find(|member| has(readable(member), known));
        Ok(keeps.map(|member| member.name().clone()))
    }

    /// Reports to the requesters of an add-on that it stays because of a frozen member.
    fn stays_for(
        &mut self,
        specs: &[MemberSpec<'a>],
        add_on: AddOn,
        member: &ObjectName,
        place: impl Fn(&MemberSpec<'a>) -> Option<FieldRef>,
    ) {
        let message = format!(
            "the {add_on} of the load balancer stays as it is while Ingress {member} has mistakes: it is served as before, and may request another"
        );
        let fix = format!("correct Ingress {member}, or put this Ingress in another group");
        for (spec, place) in specs.iter().filter_map(|spec| Some((spec, place(spec)?))) {
            self.has_no_effect(spec, &place, &message, &fix);
        }
    }

    /// Returns the web ACL of the group. A name anywhere takes precedence over every ARN.
    fn merge_web_acl(&mut self, specs: &[MemberSpec<'a>], frozen: &BTreeSet<ObjectName>) -> Result<WebAcl, Unmerged> {
        if !self.config.enable_wafv2 {
            for spec in specs {
                for given in [&spec.web_acl_name, &spec.web_acl_arn].into_iter().flatten() {
                    let message = "the controller runs with `--enable-wafv2=false`, so that the web ACL of the load balancer stays as it is";
                    let fix = "start the controller with `--enable-wafv2=true`, or remove the setting";
                    self.has_no_effect(spec, &given.place, message, fix);
                }
            }
            return Ok(WebAcl::Unasked);
        }
        match specs.iter().any(|spec| spec.web_acl_name.is_some()) {
            true => self.merge_web_acl_name(specs, frozen),
            false if specs.iter().any(|spec| spec.web_acl_arn.is_some()) => self.merge_web_acl_arn(specs, frozen),
            false => Ok(WebAcl::Unasked),
        }
    }

    fn merge_web_acl_name(
        &mut self,
        specs: &[MemberSpec<'a>],
        frozen: &BTreeSet<ObjectName>,
    ) -> Result<WebAcl, Unmerged> {
        let place = |spec: &MemberSpec<'a>| spec.web_acl_name.as_ref().map(|name| name.place.clone());
        let key = merged::WAFV2_ACL_NAME;
        if differ(specs.iter().filter_map(requested_name)) && !self.knows_current(AddOn::WebAcl)? {
            self.stays_unread(specs, AddOn::WebAcl, place);
            return Ok(WebAcl::Unasked);
        }
        let name = self.merge_exclusive_or_weak(
            specs,
            key,
            "the web ACL",
            |spec| requested_name(spec).map(str::to_owned),
            |name| name == NONE,
            |observed, name| is_associated(observed, |association| association.name() == Some(name)),
            |name| format!("`{name}`"),
        )?;
        let Some(name) = name else { return Ok(WebAcl::Unasked) };
        let has = |member: Option<Member<'a>>, known: Option<&ObservedAddOns>| {
            let association = known.and_then(|known| known.web_acl.as_ref());
            let is_its = |of: &str| association.is_none_or(|association| association.name() == Some(of));
            let differs = association.is_none_or(|association| association.name().is_some_and(|of| of != name));
            differs
                && match member.map(|member| member.web_acl_name()) {
                    Some(Ok(other)) => other.is_some_and(|other| other.value != NONE && is_its(&other.value)),
                    Some(Err(_)) | None => true,
                }
        };
        if let Some(member) = self.kept_by(frozen, AddOn::WebAcl, has)? {
            self.stays_for(specs, AddOn::WebAcl, &member, place);
            return Ok(WebAcl::Unasked);
        }
        if name == NONE {
            return Ok(requested_web_acl(specs, keys::WAFV2_ACL_NAME, None, |spec| spec.web_acl_name.is_some()));
        }
        let web_acl = match self.facts.web_acl(&name) {
            Some(Fact::Known(web_acl)) => Value::Known(web_acl),
            Some(Fact::AfterApply(why)) => Value::AfterApply(why),
            Some(Fact::Absent { message, fix }) => {
                self.sink.lacking = true;
                let mut to_freeze = BTreeSet::new();
                for (spec, given) in specs.iter().filter_map(|spec| Some((spec, spec.web_acl_name.as_ref()?))) {
                    let ingress = spec.member.ingress;
                    self.wrong(ingress, Code::MissingWebAcl, &given.place, Severity::Error, &message, &fix);
                    to_freeze.insert(ingress.name.clone());
                }
                return Err(Unmerged::Freeze(to_freeze));
            }
            Some(Fact::Unavailable(why)) => {
                self.sink.lacking = true;
                let message = format!(
                    "the web ACL `{name}` cannot be looked up, so that the association of the load balancer stays as it is, and a new one is \
                     not published before it serves: {why}"
                );
                for (spec, given) in specs.iter().filter_map(|spec| Some((spec, spec.web_acl_name.as_ref()?))) {
                    self.has_no_effect(spec, &given.place, &message, "it is looked up again");
                }
                return Ok(WebAcl::Unknown);
            }
            None => {
                self.sink.wants.insert(FactQuery::WebAcl(name));
                return Err(Unmerged::Failed);
            }
        };
        Ok(requested_web_acl(specs, keys::WAFV2_ACL_NAME, Some(web_acl), |spec| spec.web_acl_name.is_some()))
    }

    fn merge_web_acl_arn(
        &mut self,
        specs: &[MemberSpec<'a>],
        frozen: &BTreeSet<ObjectName>,
    ) -> Result<WebAcl, Unmerged> {
        let place = |spec: &MemberSpec<'a>| spec.web_acl_arn.as_ref().map(|arn| arn.place.clone());
        let mut to_freeze = BTreeSet::new();
        for (spec, given) in specs.iter().filter_map(|spec| Some((spec, spec.web_acl_arn.as_ref()?))) {
            if let Some(Err(invalid)) = requested_arn(spec) {
                let (ingress, message) = (spec.member.ingress, invalid.to_string());
                self.wrong(ingress, Code::InvalidValue, &given.place, Severity::Error, &message, invalid.fix());
                to_freeze.insert(ingress.name.clone());
            }
        }
        if !to_freeze.is_empty() {
            return Err(Unmerged::Freeze(to_freeze));
        }
        let arn = |spec: &MemberSpec<'a>| requested_arn(spec)?.ok();
        if differ(specs.iter().filter_map(arn)) && !self.knows_current(AddOn::WebAcl)? {
            self.stays_unread(specs, AddOn::WebAcl, place);
            return Ok(WebAcl::Unasked);
        }
        let web_acl = self.merge_exclusive_or_weak(
            specs,
            merged::WAFV2_ACL_ARN,
            "the web ACL",
            arn,
            Option::is_none,
            |observed, web_acl| {
                is_associated(observed, |association| match web_acl {
                    Some(web_acl) => association.is(web_acl),
                    None => *association == Association::None,
                })
            },
            |web_acl| format!("`{}`", web_acl.as_ref().map_or(NONE, WebAclArn::as_str)),
        )?;
        let Some(web_acl) = web_acl else { return Ok(WebAcl::Unasked) };
        // A name would take precedence.
        let has = |member: Option<Member<'a>>, known: Option<&ObservedAddOns>| {
            let association = known.and_then(|known| known.web_acl.as_ref());
            let is_its = |of: &str| association.is_none_or(|association| association.name() == Some(of));
            let differs = association.is_none_or(|association| match &web_acl {
                Some(web_acl) => *association != Association::None && !association.is(web_acl),
                None => *association != Association::None,
            });
            differs
                && match member.map(|member| (member.web_acl_name(), member.web_acl_arn())) {
                    // A name takes precedence.
                    Some((Ok(Some(other)), _)) => other.value != NONE && is_its(&other.value),
                    Some((Ok(None), Ok(other))) => match other.map(|other| asked_arn(&other.value)) {
                        Some(Ok(Some(other))) => association.is_none_or(|association| association.is(&other)),
                        Some(Ok(None)) | None => false,
                        Some(Err(_)) => true,
                    },
                    Some(_) | None => true,
                }
        };
        if let Some(member) = self.kept_by(frozen, AddOn::WebAcl, has)? {
            self.stays_for(specs, AddOn::WebAcl, &member, place);
            return Ok(WebAcl::Unasked);
        }
        let web_acl = web_acl.map(Value::Known);
        Ok(requested_web_acl(specs, keys::WAFV2_ACL_ARN, web_acl, |spec| spec.web_acl_arn.is_some()))
    }

    fn merge_protection(
        &mut self,
        specs: &[MemberSpec<'a>],
        frozen: &BTreeSet<ObjectName>,
    ) -> Result<Option<Requested<bool>>, Unmerged> {
        let key = keys::SHIELD_ADVANCED_PROTECTION;
        let asks = |spec: &MemberSpec<'a>| spec.protection.is_some();
        if !specs.iter().any(asks) {
            return Ok(None);
        }
        let place = |spec: &MemberSpec<'a>| FieldRef::annotation(spec.member.ingress, key);
        if !self.config.enable_shield {
            let message = "the controller runs with `--enable-shield=false`, so that the protection of the load balancer stays as it is";
            let fix = "start the controller with `--enable-shield=true`, or remove the annotation";
            for spec in specs.iter().filter(|spec| asks(spec)) {
                self.has_no_effect(spec, &place(spec), message, fix);
            }
            return Ok(None);
        }
        if differ(specs.iter().filter_map(|spec| spec.protection)) && !self.knows_current(AddOn::Protection)? {
            self.stays_unread(specs, AddOn::Protection, |spec| asks(spec).then(|| place(spec)));
            return Ok(None);
        }
        let protection = self.merge_exclusive_or_weak(
            specs,
            merged::SHIELD_ADVANCED_PROTECTION,
            "the protection by Shield Advanced",
            |spec| spec.protection,
            |protection| !protection,
            |observed, wanted| {
                let known = current(observed).and_then(|known| known.protection.as_ref());
                known.is_some_and(|known| (*known != Protection::None) == *wanted)
            },
            |protection| format!("`{protection}`"),
        )?;
        let Some(protection) = protection else { return Ok(None) };
        let has = |member: Option<Member<'a>>, known: Option<&ObservedAddOns>| {
            let known = known.and_then(|known| known.protection.as_ref());
            !protection
                && known.is_none_or(|known| *known != Protection::None)
                && match member.map(|member| member.annotations.bool(key)) {
                    Some(Ok(other)) => other == Some(true),
                    Some(Err(_)) | None => true,
                }
        };
        if let Some(member) = self.kept_by(frozen, AddOn::Protection, has)? {
            self.stays_for(specs, AddOn::Protection, &member, |spec| asks(spec).then(|| place(spec)));
            return Ok(None);
        }
        let unavailable = match self.facts.shield_subscription() {
            None => {
                self.sink.wants.insert(FactQuery::ShieldSubscription);
                return Err(Unmerged::Failed);
            }
            Some(Fact::Known(true) | Fact::AfterApply(_)) => return Ok(requested(specs, key, protection, asks)),
            Some(Fact::Known(false)) => None,
            Some(Fact::Absent { message: why, .. } | Fact::Unavailable(why)) => Some(why),
        };
        let (message, fix) = match unavailable {
            // Without a subscription nothing is protected.
            None if !protection => return Ok(None),
            None => (
                "the account is not subscribed to Shield Advanced, so that it does not protect the load balancer"
                    .to_owned(),
                "subscribe the account to Shield Advanced, or remove the annotation",
            ),
            Some(why) => {
                self.sink.lacking = true;
                let message = format!(
                    "it is not known if the account is subscribed to Shield Advanced, so that the protection of the load balancer stays as it is: {why}"
                );
                (message, "it is asked again")
            }
        };
        for spec in specs.iter().filter(|spec| asks(spec)) {
            self.has_no_effect(spec, &place(spec), &message, fix);
        }
        Ok(None)
    }

    /// Ensures, where members disagree, that the add-on of the current load balancer was read, since its value wins. Returns
    /// false if it could not be.
    fn knows_current(&mut self, add_on: AddOn) -> Result<bool, Unmerged> {
        let Some(observed) = self.current()? else { return Ok(true) };
        let Some(known) = current(observed) else { return Ok(true) };
        let is_known = match add_on {
            AddOn::WebAcl => known.web_acl.is_some(),
            AddOn::Protection => known.protection.is_some(),
            // No two members request the same one.
            AddOn::Certificates => true,
        };
        if is_known || self.facts.current_add_ons.contains(&add_on) {
            return Ok(is_known);
        }
        self.sink.wants.insert(FactQuery::CurrentAddOn(add_on));
        Err(Unmerged::Failed)
    }

    /// Reports to the members which disagree on an add-on that it stays, because it cannot be read.
    fn stays_unread(
        &mut self,
        specs: &[MemberSpec<'a>],
        add_on: AddOn,
        place: impl Fn(&MemberSpec<'a>) -> Option<FieldRef>,
    ) {
        self.sink.lacking = true;
        let message = format!(
            "members of the group request different values, and the {add_on} that the load balancer has cannot be read, so that it stays"
        );
        let fix = "make them agree, and allow the controller to read it (the log has the error)";
        for (spec, place) in specs.iter().filter_map(|spec| Some((spec, place(spec)?))) {
            self.has_no_effect(spec, &place, &message, fix);
        }
    }

    /// Warns that a setting has no effect; everything else of the member is served.
    fn has_no_effect(&mut self, spec: &MemberSpec<'a>, place: &FieldRef, message: &str, fix: &str) {
        self.wrong(spec.member.ingress, Code::NoEffect, place, Severity::Warning, message, fix);
    }
}

fn requested_web_acl<'a>(
    specs: &[MemberSpec<'a>],
    key: Key,
    web_acl: Option<Value<WebAclArn>>,
    asks: impl Fn(&MemberSpec<'a>) -> bool,
) -> WebAcl {
    requested(specs, key, web_acl, asks).map_or(WebAcl::Unasked, WebAcl::Requested)
}

/// Returns the request with its cause: the first member that has it.
fn requested<'a, T>(
    specs: &[MemberSpec<'a>],
    key: Key,
    value: T,
    asks: impl Fn(&MemberSpec<'a>) -> bool,
) -> Option<Requested<T>> {
    let spec = specs.iter().find(|spec| asks(spec))?;
    let field = match spec.member.place_in_class(key) {
        Some(place) => format!("{} of {}", place.field, place.object),
        None => key.as_str().to_owned(),
    };
    Some(Requested { value, cause: cause(spec.member.ingress, field) })
}
