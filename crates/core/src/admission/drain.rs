//! Pods that end behind a load balancer: their containers get a `preStop` hook that sleeps, where their namespace or they
//! ask for it by [`LABEL`].

#[cfg(test)]
mod tests;

use std::str::FromStr;

use serde_json::{Value, json};

use super::{MAX_WARNINGS, Rules, Texts, excerpt, shortened, texts};
use crate::{
    api::admission::{AdmissionResponse, Request},
    desired::BuildConfig,
    drain::{self, Container, INJECTED, LABEL, SECONDS, Seconds, Switch},
    model::ObjectName,
    snapshot::{Namespace, Snapshot},
};

/// The annotation of pods that show a static pod: the kubelet runs that from a file, whatever the API server says of it.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// The warning of an API server that does not know the action (KEP-3960: on by default since Kubernetes 1.30).
const TOO_OLD: &str = "the pod ends without a wait for its load balancers: its containers cannot sleep in `preStop` hooks before Kubernetes 1.30; \
                       upgrade the cluster, or give them a hook that runs `sleep`";
/// The most characters of a value in a warning.
const LONGEST_VALUE: usize = 40;

pub(super) fn answer(request: &Request, snapshot: &Snapshot, config: &BuildConfig, rules: Rules) -> AdmissionResponse {
    if !request.creates() {
        return AdmissionResponse::allowed();
    }
    let pod = Pod {
        object: &request.object,
        labels: texts(&request.object, "/metadata/labels"),
        annotations: texts(&request.object, "/metadata/annotations"),
        namespace: snapshot.namespaces.get(&ObjectName::new("", &request.namespace)),
    };
    if pod.annotations.contains_key(MIRROR) {
        return AdmissionResponse::allowed();
    }
    let by_itself = pod.labels.contains_key(LABEL);
    match pod.switch() {
        Ok(Some(Switch::Enabled)) => {}
        Ok(Some(Switch::Disabled) | None) => return AdmissionResponse::allowed(),
        Err(warning) => return AdmissionResponse { warnings: vec![warning], ..AdmissionResponse::default() },
    }
    let ways = drain::ways(snapshot, config, &request.namespace, &pod.labels);
    if ways.is_empty() && !by_itself && !pod.runs_always() {
        return AdmissionResponse::allowed();
    }
    if rules.no_sleep {
        return AdmissionResponse { warnings: vec![TOO_OLD.to_owned()], ..AdmissionResponse::default() };
    }
    let mut warnings = Vec::new();
    let seconds = pod.seconds(drain::needed(&ways), &mut warnings);
    let patch = pod.patch(seconds, &mut warnings);
    AdmissionResponse { warnings, patch, ..AdmissionResponse::default() }
}

/// A pod that is created.
struct Pod<'a> {
    object: &'a Value,
    labels: Texts,
    annotations: Texts,
    /// Its namespace, where that is known.
    namespace: Option<&'a Namespace>,
}

impl Pod<'_> {
    fn spec(&self) -> &Value {
        self.object.get("spec").unwrap_or(&Value::Null)
    }

    /// Returns true for a pod that is to run until it is deleted. Pods of Jobs, which end by themselves, are none.
    fn runs_always(&self) -> bool {
        self.spec().get("restartPolicy").and_then(Value::as_str).is_none_or(|policy| policy == "Always")
    }

    /// Returns the value of the label that counts; the error is the warning.
    fn switch(&self) -> Result<Option<Switch>, String> {
        let of_pod = self.labels.get(LABEL).map(|value| (value, "the pod".to_owned()));
        let of_namespace = || {
            let namespace = self.namespace?;
            let value = namespace.labels.get(LABEL)?;
            Some((value, format!("Namespace {}", namespace.name.name)))
        };
        let Some((value, of)) = of_pod.or_else(of_namespace) else { return Ok(None) };
        let invalid = |error| {
            shortened(format!(
                "the label `{LABEL}` of {of} has the value {}, so the pod ends without a wait for its load balancers; {error}",
                quoted(value)
            ))
        };
        Switch::from_str(value).map(Some).map_err(invalid)
    }

    /// Returns the time to sleep: that of an earlier call, else that of an annotation, else the computed one.
    fn seconds(&self, computed: Seconds, warnings: &mut Vec<String>) -> Seconds {
        if let Some(seconds) = self.injected() {
            return seconds;
        }
        let of_pod = self.annotations.get(SECONDS).map(|value| (value, "the pod".to_owned()));
        let of_namespace = || {
            let namespace = self.namespace?;
            Some((namespace.drain_seconds.as_ref()?, format!("Namespace {}", namespace.name.name)))
        };
        let Some((value, of)) = of_pod.or_else(of_namespace) else { return computed };
        value.parse().unwrap_or_else(|error: drain::InvalidSeconds| {
            warnings.push(shortened(format!(
                "the annotation `{SECONDS}` of {of} has the value {}; {error}; the pod gets the computed {computed} seconds",
                quoted(value)
            )));
            computed
        })
    }

    /// Returns the time that an earlier call for the same pod has given it. The API server may call again after another
    /// webhook has added a container.
    fn injected(&self) -> Option<Seconds> {
        let seconds = self.annotations.get(INJECTED)?.parse().ok()?;
        drain::sleeps(self.spec(), seconds).then_some(seconds)
    }

    /// Returns the operations that let the containers sleep, with warnings about those that the webhook does not change.
    fn patch(&self, seconds: Seconds, warnings: &mut Vec<String>) -> Vec<Value> {
        let spec = self.spec();
        let found = drain::shortfall(spec, seconds);
        warnings.extend(of_own_hooks(&found.own_hook, seconds));
        if found.without_hook.is_empty() {
            return Vec::new();
        }
        let hook = json!({ "sleep": { "seconds": seconds.get() } });
        // `add` replaces what is there.
        let add = |path: String, value: Value| json!({ "op": "add", "path": path, "value": value });
        let mut patch: Vec<Value> = Vec::new();
        for container in &found.without_hook {
            let path = format!("/spec/containers/{}/lifecycle", container.index);
            let has_lifecycle = self.object.pointer(&path).is_some_and(Value::is_object);
            patch.push(if has_lifecycle {
                add(format!("{path}/preStop"), hook.clone())
            } else {
                add(path, json!({ "preStop": hook }))
            });
        }
        if self.injected().is_none() {
            // The process keeps the time that it had. The sum cannot exceed the field.
            let grace = drain::grace(spec).saturating_add(seconds.get());
            patch.push(add("/spec/terminationGracePeriodSeconds".to_owned(), json!(grace)));
            let mark = json!(seconds.to_string());
            let has_annotations = self.object.pointer("/metadata/annotations").is_some_and(Value::is_object);
            patch.push(if has_annotations {
                add(format!("/metadata/annotations/{}", INJECTED.replace('/', "~1")), mark)
            } else {
                add("/metadata/annotations".to_owned(), json!({ INJECTED: mark }))
            });
        }
        patch
    }
}

/// Returns warnings about containers whose own hooks stay.
fn of_own_hooks(containers: &[Container<'_>], seconds: Seconds) -> Vec<String> {
    // One is left for the seconds, and one for the number of the others.
    let shown = if containers.len() > MAX_WARNINGS - 1 { MAX_WARNINGS - 2 } else { containers.len() };
    let warning = |container: &Container<'_>| {
        shortened(format!(
            "spec.containers[{}].lifecycle.preStop: the container `{}` has a hook of its own, which stays; let it take {seconds} seconds or more, or load balancers still send requests when the container ends",
            container.index, container.name
        ))
    };
    let mut warnings: Vec<String> = containers.iter().take(shown).map(warning).collect();
    if containers.len() > shown {
        warnings.push(format!("and {} more containers with hooks of their own", containers.len() - shown));
    }
    warnings
}

/// Returns a value for a warning.
fn quoted(value: &str) -> String {
    format!("`{}`", excerpt(value, LONGEST_VALUE).as_deref().unwrap_or(value))
}
