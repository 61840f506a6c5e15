//! What a client has to show before an action: compared with what AWS has.

use crate::model::{Action, Authentication, JwtValidation, TargetGroupArn};

/// The order of claims, and of the values of one, means nothing.
fn normal(tokens: &JwtValidation) -> JwtValidation {
    let mut tokens = tokens.clone();
    tokens.claims.iter_mut().for_each(|claim| claim.values.sort());
    tokens.claims.sort();
    tokens
}

/// Whether AWS asks for just what is wanted. Which Secret's content it was given is another question: [`is_outdated`].
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

/// Whether AWS was given another content of the Secret, or we do not know which.
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
