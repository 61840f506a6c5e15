//! The redirect from HTTP to HTTPS (reference: ingress §3.8).

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::{Builder, Member, is_of, member_spec::MemberSpec},
    Unmerged, in_listener,
};
use crate::{
    api::annotations::registry::ingress::{self as keys, merged},
    diagnostics::{Code, Severity},
    model::{Action, ListenerProtocol, ObjectName, ObservedListener, ObservedStack},
};

impl<'a> Builder<'a> {
    /// Returns the HTTPS port that all HTTP listeners redirect to.
    pub(super) fn merge_redirect(
        &mut self,
        specs: &[MemberSpec<'a>],
        frozen: &BTreeSet<ObjectName>,
        ports: &BTreeMap<u16, ListenerProtocol>,
    ) -> Result<Option<u16>, Unmerged> {
        let leads_to = |observed: &ObservedStack, port: &i32| {
            let mut defaults =
                observed.load_balancers.iter().flat_map(|b| b.known_listeners()).flat_map(|l| &l.default_actions);
            defaults.any(|action| matches!(action, Action::Redirect { port: Some(to), .. } if *to == port.to_string()))
        };
        let requested = self.merge_exclusive(
            specs,
            merged::SSL_REDIRECT,
            "the port to redirect to",
            |spec| Some(spec.redirect.as_ref()?.value),
            leads_to,
            ToString::to_string,
        )?;
        let retained = self.observed_if_frozen(frozen)?;
        // A listener that only a frozen member requests exists as well.
        let is_secure = |port: &u16| match ports.get(port) {
            Some(protocol) => *protocol == ListenerProtocol::Https,
            None => retained.is_some_and(|o| {
                in_listener(o, *port, |l| l.protocol == Some(ListenerProtocol::Https))
                    && has_frozen_listener(o, frozen, *port)
            }),
        };
        let Some(port) = requested else {
            // If the member that redirects HTTP requests is frozen, they are still redirected.
            let may_redirect = |member: &Member<'_>| member.ssl_redirect().map_or(true, |redirect| redirect.is_some());
            let somebody = self.frozen_members(frozen).any(|member| member.is_none_or(|member| may_redirect(&member)));
            return Ok(retained.and_then(current_redirect).filter(|port| somebody && is_secure(port)));
        };
        let withholds = |spec: &MemberSpec<'_>| spec.withheld.iter().any(|withheld| i32::from(*withheld) == port);
        // Until the certificate is issued, the port of others serves nobody who asks for the redirect.
        if specs.iter().filter(|spec| spec.redirect.is_some()).all(withholds) {
            return self.redirect_meanwhile(ports);
        }
        if let Some(port) = u16::try_from(port).ok().filter(is_secure) {
            return Ok(Some(port));
        }
        // The listener is made when its certificate is issued; until then requests are served without it.
        if specs.iter().any(withholds) {
            return self.redirect_meanwhile(ports);
        }
        let alone = specs.len() == 1;
        let whose = if alone { "this Ingress" } else { "this group" };
        let message = format!("requests would be redirected to port {port}, which is not an HTTPS listener of {whose}");
        let fix = format!("add {{\"HTTPS\": {port}}} to `{}`, or name one of its HTTPS ports", keys::LISTEN_PORTS);
        let mut requesters = BTreeSet::new();
        for (spec, requested) in specs.iter().filter_map(|spec| Some((spec, spec.redirect.as_ref()?))) {
            self.wrong(spec.member.ingress, Code::InvalidValue, &requested.place, Severity::Error, &message, &fix);
            requesters.insert(spec.member.name().clone());
        }
        Err(Unmerged::Freeze(requesters))
    }

    /// Returns the redirect that stays while the requested one waits for a certificate: the one in force, if its port stays.
    fn redirect_meanwhile(&mut self, ports: &BTreeMap<u16, ListenerProtocol>) -> Result<Option<u16>, Unmerged> {
        let current = self.current()?.and_then(current_redirect);
        Ok(current.filter(|port| ports.get(port) == Some(&ListenerProtocol::Https)))
    }
}

/// Returns true if the plan keeps a listener that no other member requests: it is recorded for a frozen member, or for
/// no member, or has a rule that is.
pub(in super::super) fn has_frozen_listener(
    observed: &ObservedStack,
    frozen: &BTreeSet<ObjectName>,
    port: u16,
) -> bool {
    let mut holders =
        observed.member_resources.iter().filter(|resources| resources.ports.contains_key(&port)).peekable();
    holders.peek().is_none()
        || holders.any(|resources| is_of(resources, frozen))
        || observed.has_rule_without_owner(Some(port))
}

/// Returns the HTTPS port that all HTTP listeners of the load balancer redirect to without other rules, if an HTTPS
/// listener exists there.
fn current_redirect(observed: &ObservedStack) -> Option<u16> {
    let listeners = observed.load_balancers.first()?.known_listeners();
    let mut plain = listeners.filter(|listener| listener.protocol == Some(ListenerProtocol::Http));
    let leads_to = |listener: &ObservedListener| match listener.default_actions.as_slice() {
        [Action::Redirect { protocol: Some(protocol), port: Some(port), .. }]
            if protocol == "HTTPS" && listener.rules.is_empty() =>
        {
            port.parse().ok()
        }
        _ => None,
    };
    let port = leads_to(plain.next()?)?;
    let answers = in_listener(observed, port, |listener| listener.protocol == Some(ListenerProtocol::Https));
    (answers && plain.all(|listener| leads_to(listener) == Some(port))).then_some(port)
}
