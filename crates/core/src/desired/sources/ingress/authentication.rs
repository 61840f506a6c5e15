//! The authentication of clients before an action, on HTTPS listeners (reference: ingress §2.4, §3.4).

use super::{
    Builder, Failed, Member,
    backend::unavailable,
    listeners::{Answer, ListenerContext},
};
use crate::{
    api::annotations::{self, Annotations, registry::ingress as keys},
    diagnostics::Code,
    facts::FactQuery,
    model::{
        Action, Authentication, CognitoProvider, ListenerProtocol, ObjectName, ObjectReference, OidcProvider, Session,
        TargetGroupArn, TargetGroupReference,
    },
    snapshot::Service,
};

const AUTH_TYPE: &str = keys::AUTH_TYPE.as_str();
const COGNITO: &str = keys::AUTH_IDP_COGNITO.as_str();
const OIDC: &str = keys::AUTH_IDP_OIDC.as_str();
const JWT: &str = keys::JWT_VALIDATION.as_str();
const UNAUTHENTICATED: &str = keys::AUTH_ON_UNAUTHENTICATED_REQUEST.as_str();
const ANSWERS: [&str; 3] = ["authenticate", "allow", "deny"];

/// The values of the annotations, before it is known if they apply.
struct Written {
    kind: &'static str,
    cognito: Option<annotations::CognitoProvider>,
    oidc: Option<annotations::OidcProvider>,
    tokens: Option<annotations::JwtValidation>,
    session: Session,
}

impl<'a> Builder<'a> {
    /// Returns `action`, which was built from a backend of the member, with the authentication before it. On listeners other than
    /// HTTPS the annotations are read, so that their mistakes are reported, and have no effect, but where HTTP stands in for HTTPS:
    /// clients that have to log in there do not get to targets that they could not reach before.
    pub(super) fn answer(
        &mut self,
        member: Member<'a>,
        listener: ListenerContext,
        action: Action<TargetGroupReference>,
    ) -> Result<Answer, Failed> {
        let service = self.lone_service(&action);
        let written = self.written(member, service)?;
        if listener.protocol == ListenerProtocol::Https {
            return Ok((action, self.authentication(member, service, written)?));
        }
        let lets_all_in = written.kind == "none" || written.session.on_unauthenticated_request == ANSWERS[1];
        let is_guarded = !lets_all_in || written.tokens.is_some();
        if listener.awaits_https && is_guarded && !self.is_reached(listener.port, &action)? {
            return Ok((unavailable("The certificate for HTTPS is not issued yet"), None));
        }
        Ok((action, None))
    }

    /// Returns true if requests on a port already reach all targets of an action.
    fn is_reached(&mut self, port: u16, action: &Action<TargetGroupReference>) -> Result<bool, Failed> {
        let observed = self.current().map_err(|_| Failed)?;
        let listener = observed.and_then(|observed| observed.load_balancers.first()?.listener(port));
        let leads_to = |arn: &TargetGroupArn| listener.is_some_and(|it| it.target_groups().any(|known| known == arn));
        let is_reached = |group: &TargetGroupReference| match group {
            TargetGroupReference::Own(id) => {
                let mut known = observed.into_iter().flat_map(|observed| &observed.target_groups);
                known.any(|group| group.resource().as_ref() == Some(id) && leads_to(&group.arn))
            }
            TargetGroupReference::Foreign(arn) => leads_to(arn),
            TargetGroupReference::Named(_) => false,
        };
        Ok(action.target_groups().all(is_reached))
    }

    fn authentication(
        &mut self,
        member: Member<'a>,
        service: Option<&'a Service>,
        written: Written,
    ) -> Result<Option<Authentication>, Failed> {
        let Written { kind, cognito, oidc, tokens, session } = written;
        let member_service = (member, service);
        let user = match kind {
            "cognito" => Some(self.cognito(member_service, cognito, session)?),
            "oidc" => Some(self.oidc(member_service, oidc, session)?),
            _ => None,
        };
        match (user, tokens) {
            (Some(_), Some(_)) => {
                let message =
                    format!("`{AUTH_TYPE}` is `{kind}`, and `{JWT}` is set too; AWS accepts only one of them");
                let fix = format!("remove `{JWT}`, or set `{AUTH_TYPE}` to `none`");
                Err(self.error(&member.ingress.name, Code::InvalidValue, JWT, &message, &fix))
            }
            (user, tokens) => Ok(user.or(tokens.map(Authentication::Jwt))),
        }
    }

    /// The Service whose annotations count in addition to the Ingress's: that of an action which forwards to it and to nothing else.
    fn lone_service(&self, action: &Action<TargetGroupReference>) -> Option<&'a Service> {
        let Action::Forward { target_groups, .. } = action else { return None };
        let [only] = target_groups.as_slice() else { return None };
        let TargetGroupReference::Own(id) = &only.group else { return None };
        let binding = &self.target_groups.get(id)?.binding;
        self.snapshot.services.get(&ObjectName::new(&binding.namespace, &binding.service))
    }

    fn written(&mut self, member: Member<'a>, service: Option<&'a Service>) -> Result<Written, Failed> {
        let annotations: Annotations<'a> = member.layered(service);
        let ingress = member.ingress;
        let kind = self.value(ingress, service, annotations.enumerated(keys::AUTH_TYPE, &["none", "oidc", "cognito"]));
        let cognito = self.value(ingress, service, annotations.cognito_provider());
        let oidc = self.value(ingress, service, annotations.oidc_provider());
        let on_unauthenticated =
            self.value(ingress, service, annotations.string(keys::AUTH_ON_UNAUTHENTICATED_REQUEST));
        let scope = self.value(ingress, service, annotations.string(keys::AUTH_SCOPE));
        let cookie = self.value(ingress, service, annotations.string(keys::AUTH_SESSION_COOKIE));
        let timeout = self.value(ingress, service, annotations.i64(keys::AUTH_SESSION_TIMEOUT));
        let tokens = self.value(ingress, service, annotations.jwt_validation());
        let or = |text: Option<String>, default: &str| text.unwrap_or_else(|| default.to_owned());
        Ok(Written {
            kind: kind?.unwrap_or("none"),
            cognito: cognito?,
            oidc: oidc?,
            tokens: tokens?,
            session: Session {
                cookie: or(cookie?, "AWSELBAuthSessionCookie"),
                scope: or(scope?, "openid"),
                timeout_seconds: timeout?.unwrap_or(604_800),
                on_unauthenticated_request: or(on_unauthenticated?, ANSWERS[0]),
                extra_parameters: std::collections::BTreeMap::new(),
            },
        })
    }

    fn cognito(
        &mut self,
        of: (Member<'a>, Option<&'a Service>),
        provider: Option<annotations::CognitoProvider>,
        session: Session,
    ) -> Result<Authentication, Failed> {
        let provider = provider.ok_or_else(|| self.no_provider(of.0, "cognito", COGNITO))?;
        let fields = [
            ("userPoolARN", &provider.user_pool_arn),
            ("userPoolClientID", &provider.user_pool_client_id),
            ("userPoolDomain", &provider.user_pool_domain),
        ];
        self.complete(of, COGNITO, &fields, &session)?;
        Ok(Authentication::Cognito(CognitoProvider {
            user_pool_arn: provider.user_pool_arn,
            user_pool_client_id: provider.user_pool_client_id,
            user_pool_domain: provider.user_pool_domain,
            session: Session { extra_parameters: provider.extra_parameters, ..session },
        }))
    }

    fn oidc(
        &mut self,
        of: (Member<'a>, Option<&'a Service>),
        provider: Option<annotations::OidcProvider>,
        session: Session,
    ) -> Result<Authentication, Failed> {
        let provider = provider.ok_or_else(|| self.no_provider(of.0, "oidc", OIDC))?;
        let fields = [
            ("issuer", &provider.issuer),
            ("authorizationEndpoint", &provider.authorization_endpoint),
            ("tokenEndpoint", &provider.token_endpoint),
            ("userInfoEndpoint", &provider.user_info_endpoint),
            ("secretName", &provider.secret_name),
        ];
        self.complete(of, OIDC, &fields, &session)?;
        let ingress = &of.0.ingress.name;
        let secret_name = ObjectName::new(&ingress.namespace, &provider.secret_name);
        let (fact, object) = (self.facts.secret(&secret_name), ObjectReference::ingress(ingress));
        let secret =
            self.sink.resolve(fact, FactQuery::Secret(secret_name.clone()), object, Code::MissingSecret, OIDC)?;
        let provider = OidcProvider {
            issuer: provider.issuer,
            authorization_endpoint: provider.authorization_endpoint,
            token_endpoint: provider.token_endpoint,
            user_info_endpoint: provider.user_info_endpoint,
            session: Session { extra_parameters: provider.extra_parameters, ..session },
        };
        Ok(Authentication::Oidc { provider, secret_name, secret })
    }

    fn no_provider(&mut self, member: Member<'a>, kind: &str, key: &str) -> Failed {
        let message = format!("`{AUTH_TYPE}` is `{kind}`, and there is no `{key}`");
        self.error(&member.ingress.name, Code::InvalidValue, key, &message, "add it, or set the type to `none`")
    }

    /// Sees to it that what AWS needs is there.
    fn complete(
        &mut self,
        (member, service): (Member<'a>, Option<&'a Service>),
        key: &str,
        fields: &[(&str, &String)],
        session: &Session,
    ) -> Result<(), Failed> {
        let missing: Vec<String> =
            fields.iter().filter(|(_, value)| value.is_empty()).map(|(name, _)| format!("`{name}`")).collect();
        let answer = &session.on_unauthenticated_request;
        let (key, message, fix) = if !missing.is_empty() {
            (key, format!("annotation `{key}` lacks {}", missing.join(", ")), "add it".to_owned())
        } else if !ANSWERS.contains(&answer.as_str()) {
            let allowed = ANSWERS.map(|answer| format!("`{answer}`")).join(", ");
            (
                UNAUTHENTICATED,
                format!("annotation `{UNAUTHENTICATED}` has the value `{answer}`"),
                format!("write one of {allowed}"),
            )
        } else {
            return Ok(());
        };
        let object = match service {
            Some(service) if service.annotations.contains_key(key) => ObjectReference::service(&service.name),
            _ => ObjectReference::ingress(&member.ingress.name),
        };
        Err(self.sink.report(crate::diagnostics::Severity::Error, object, Code::InvalidValue, key, &message, &fix))
    }
}
