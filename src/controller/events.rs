//! Events in the core API group, as aws-load-balancer-controller records them, so that its RBAC suffices.
//! A warning that was said is not said again, word for word, for an hour.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{Api, Client, api::PostParams};
use tokio::time::Instant;

use super::kubernetes::words;
use crate::model::{ObjectKind, ObjectName};

/// The object that an event is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subject {
    /// Its kind.
    pub kind: ObjectKind,
    /// Its name.
    pub name: ObjectName,
    /// `metadata.uid`
    pub uid: String,
}

/// Normal or Warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// All is well.
    Normal,
    /// Somebody should look.
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

const REPEAT_AFTER: Duration = Duration::from_secs(3600);
/// The API server refuses longer messages.
const LONGEST_MESSAGE: usize = 1024;

/// What was said: by object and reason, the last message and when.
type Said = HashMap<(Subject, String), (String, Instant)>;

/// Writes events.
#[derive(Clone)]
pub struct Events {
    client: Client,
    said: Arc<Mutex<Said>>,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

fn api_version(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::Ingress | ObjectKind::IngressClass => "networking.k8s.io/v1",
        ObjectKind::Service => "v1",
        ObjectKind::IngressClassParams | ObjectKind::TargetGroupBinding => "elbv2.k8s.aws/v1beta1",
    }
}

fn component(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::Ingress | ObjectKind::IngressClass | ObjectKind::IngressClassParams => "ingress",
        ObjectKind::Service => "service",
        ObjectKind::TargetGroupBinding => "targetGroupBinding",
    }
}

fn shortened(message: &str) -> String {
    if message.len() <= LONGEST_MESSAGE {
        return message.to_owned();
    }
    let mut end = LONGEST_MESSAGE - '…'.len_utf8();
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &message[..end])
}

impl Events {
    /// Writes through this client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, said: Arc::default() }
    }

    /// Records an event on an object, in the background: whoever asks never waits, and a lost event loses nothing else.
    pub fn record(&self, kind: EventType, subject: &Subject, reason: &str, message: &str) {
        if subject.uid.is_empty() {
            return;
        }
        let message = shortened(message);
        {
            let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            said.retain(|_, (_, at)| now.duration_since(*at) < REPEAT_AFTER);
            // Several messages of one reason stand side by side (two unknown annotations, say).
            let key = (subject.clone(), format!("{reason} {}", if kind == EventType::Warning { &message } else { "" }));
            if said.get(&key).is_some_and(|(last, _)| *last == message) && kind == EventType::Warning {
                return;
            }
            said.insert(key, (message.clone(), now));
        }
        let event = event(kind, subject, reason, message, Time(k8s_openapi::jiff::Timestamp::now()));
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace_of(subject));
        tokio::spawn(async move {
            let written =
                tokio::time::timeout(Duration::from_secs(10), api.create(&PostParams::default(), &event)).await;
            match written {
                Ok(Ok(_)) => {}
                // A namespace that is going away takes no new objects.
                Ok(Err(kube::Error::Api(status))) if status.code == 403 || status.code == 404 => {
                    tracing::debug!(message = %status.message, "an event was not taken");
                }
                Ok(Err(error)) => tracing::warn!("cannot write an event: {}", words(&error)),
                Err(_) => tracing::warn!("cannot write an event: no answer from the API server within 10 s"),
            }
        });
    }
}

fn namespace_of(subject: &Subject) -> String {
    if subject.name.namespace.is_empty() { "default".to_owned() } else { subject.name.namespace.clone() }
}

fn event(kind: EventType, subject: &Subject, reason: &str, message: String, now: Time) -> Event {
    let namespace = namespace_of(subject);
    Event {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}.", subject.name.name)),
            namespace: Some(namespace.clone()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some(api_version(subject.kind).to_owned()),
            kind: Some(subject.kind.as_str().to_owned()),
            namespace: Some(subject.name.namespace.clone()).filter(|n| !n.is_empty()),
            name: Some(subject.name.name.clone()),
            uid: Some(subject.uid.clone()),
            ..ObjectReference::default()
        },
        type_: Some(kind.as_str().to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message),
        source: Some(EventSource { component: Some(component(subject.kind).to_owned()), host: None }),
        first_timestamp: Some(now.clone()),
        last_timestamp: Some(now),
        count: Some(1),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_are_cut_between_characters() {
        assert_eq!(shortened("short"), "short");
        let cut = shortened(&"ä".repeat(600));
        assert!(cut.len() <= LONGEST_MESSAGE && cut.ends_with("ä…"), "{} bytes", cut.len());
    }

    #[test]
    fn an_event_names_its_object_as_the_core_group_does() {
        let subject =
            Subject { kind: ObjectKind::Ingress, name: ObjectName::new("shop", "web"), uid: "uid-1".to_owned() };
        let now = Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH);
        let event = event(EventType::Warning, &subject, "FailedBuildModel", "no".to_owned(), now);
        assert_eq!(
            serde_json::to_value(event).unwrap(),
            serde_json::json!({
                "apiVersion": "v1", "kind": "Event",
                "metadata": {"generateName": "web.", "namespace": "shop"},
                "involvedObject": {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "namespace": "shop", "name": "web", "uid": "uid-1"},
                "type": "Warning", "reason": "FailedBuildModel", "message": "no", "source": {"component": "ingress"},
                "firstTimestamp": "1970-01-01T00:00:00Z", "lastTimestamp": "1970-01-01T00:00:00Z", "count": 1,
            })
        );
    }
}
