//! The authentication before an action, compared with that in AWS.

use super::rules::same_conditions;
use crate::model::{
    Action, Authentication, JwtValidation, ListenerArn, ObservedStack, RuleArn, SecretVersion, Stack, TargetGroupArn,
};

/// The order of claims, and of the values of one, means nothing.
fn normal(tokens: &JwtValidation) -> JwtValidation {
    let mut tokens = tokens.clone();
    tokens.claims.iter_mut().for_each(|claim| claim.values.sort());
    tokens.claims.sort();
    tokens
}

/// Returns true if the existing authentication is the desired one. The content of its Secret is another question: [`is_outdated`].
pub(super) fn same(wanted: Option<&Authentication>, existing: &[Action<TargetGroupArn>]) -> bool {
    match (wanted, existing) {
        (None, []) => true,
        (Some(Authentication::Cognito(wanted)), [Action::AuthenticateCognito(existing)]) => wanted == existing,
        (Some(Authentication::Oidc { provider, .. }), [Action::AuthenticateOidc { provider: existing, .. }]) => {
            provider == existing
        }
        (Some(Authentication::Jwt(wanted)), [Action::JwtValidation(existing)]) => normal(wanted) == normal(existing),
        _ => false,
    }
}

/// Returns true if AWS was given another content of the Secret, or the content it was given is not known.
pub(super) fn is_outdated(wanted: Option<&Authentication>, existing: &[Action<TargetGroupArn>]) -> bool {
    let Some(secret) = wanted.and_then(Authentication::secret) else { return false };
    existing.iter().any(|action| match action {
        Action::AuthenticateOidc { client_id, secret_version, .. } => {
            secret_version.as_ref() != Some(&secret.version)
                || client_id.as_ref().is_some_and(|id| *id != secret.client_id)
        }
        _ => false,
    })
}

/// The rule, or default action, of a listener that is taken to have a Secret's content as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssumedSecret {
    /// The listener.
    pub listener: ListenerArn,
    /// Its rule; `None` is the default action.
    pub rule: Option<RuleArn>,
    /// The state of the Secret.
    pub version: SecretVersion,
}

/// Returns the rules and default actions of which it is not known which state of their Secret AWS has, although AWS has
/// all other desired values, the client's id included. AWS never returns the client's secret (DescribeRules). Where a stack is taken over from
/// another controller, that controller is taken to have kept it up to date; then nothing is written before the Secret
/// changes.
#[must_use]
pub fn assumed_secrets(stack: &Stack, observed: &ObservedStack) -> Vec<AssumedSecret> {
    let balancer = stack.load_balancer.as_ref().and_then(|wanted| observed.current(wanted));
    let mut assumed = Vec::new();
    for wanted in stack.listeners.values() {
        let Some(existing) = balancer.and_then(|balancer| balancer.listener(wanted.port)) else { continue };
        let mut assume = |rule: Option<&RuleArn>, version: Option<&SecretVersion>| {
            assumed.extend(version.map(|version| AssumedSecret {
                listener: existing.arn.clone(),
                rule: rule.cloned(),
                version: version.clone(),
            }));
        };
        assume(None, unknown(wanted.default_authentication.as_ref(), &existing.default_actions));
        for observed in &existing.rules {
            let of_rule = wanted.rules.iter().filter(|rule| same_conditions(rule, observed));
            let version = of_rule.filter_map(|rule| unknown(rule.authentication.as_ref(), &observed.actions)).next();
            assume(Some(&observed.arn), version);
        }
    }
    assumed
}

/// The state of the Secret, where AWS has all else of it and has been given an unknown state.
fn unknown<'a>(wanted: Option<&'a Authentication>, existing: &[Action<TargetGroupArn>]) -> Option<&'a SecretVersion> {
    let secret = wanted.and_then(Authentication::secret)?;
    let (_, before) = existing.split_last()?;
    let is_unknown = before.iter().any(|action| {
        matches!(action, Action::AuthenticateOidc { client_id: Some(id), secret_version: None, .. } if *id == secret.client_id)
    });
    (is_unknown && same(wanted, before)).then_some(&secret.version)
}
