//! The default actions of listeners, for requests that no rule takes (reference: ingress §3.6, §3.8).

use super::{Builder, Failed, Member};
use crate::model::{Action, Authentication, ListenerProtocol, TargetGroupReference};

/// An action, after what a client has to show.
pub(super) type Answer = (Action<TargetGroupReference>, Option<Authentication>);

/// The values on which a listener's rules depend.
#[derive(Clone, Copy, Debug)]
pub(super) struct ListenerContext {
    pub(super) port: u16,
    pub(super) protocol: ListenerProtocol,
    /// True on a listener of HTTP whose requests are to be redirected to HTTPS, which waits for a certificate.
    pub(super) awaits_https: bool,
}

impl<'a> Builder<'a> {
    /// The default action that the member gives to a listener. A default rule has neither conditions nor transforms; what is
    /// wrong with them is reported all the same.
    pub(super) fn default_action(
        &mut self,
        member: Member<'a>,
        listener: ListenerContext,
    ) -> Result<Option<Answer>, Failed> {
        let Some(backend) = &member.ingress.default_backend else { return Ok(None) };
        let conditions = self.annotated_conditions(member, backend);
        let transforms = self.transforms(member, backend);
        let action = self.action(member, backend, "spec.defaultBackend")?;
        let answer = self.answer(member, listener, action);
        let _ = (conditions?, transforms?);
        answer.map(Some)
    }
}

/// The default action of a listener without a default backend.
pub(super) fn not_found() -> Action<TargetGroupReference> {
    Action::FixedResponse {
        content_type: Some("text/plain".to_owned()),
        message_body: None,
        status_code: "404".to_owned(),
    }
}

pub(super) fn redirect_to(port: u16) -> Action<TargetGroupReference> {
    Action::Redirect {
        host: None,
        path: None,
        port: Some(port.to_string()),
        protocol: Some("HTTPS".to_owned()),
        query: None,
        status_code: "HTTP_301".to_owned(),
    }
}
