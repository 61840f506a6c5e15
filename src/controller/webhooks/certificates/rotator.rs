//! Stores the webhooks' certificate in its Secret, and its authority in the configurations of the API server. Every replica
//! does; the Secret's version decides between them.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, ObjectMeta, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
};
use serde_json::{Value, json};

use super::{Step, StoredCertificates, Timing, decide, served::Served, take, unix};
use crate::controller::cluster::deadline::with_deadline;
use crate::controller::cluster::kubernetes::describe;

/// The kinds of configurations that name webhooks.
const KINDS: [&str; 2] = ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"];

/// Keeps a certificate.
pub(crate) struct CertificateRotator {
    pub(crate) client: Client,
    /// The controller's own namespace.
    pub(crate) namespace: String,
    /// `--webhook-secret-name`
    pub(crate) secret: String,
    /// `--webhook-configuration-name`
    pub(crate) configuration: String,
    /// The names in the certificate.
    pub(crate) names: Vec<String>,
    pub(crate) timing: Timing,
    pub(crate) served: Arc<Served>,
}

/// An error, with its fix.
type Problem = String;

/// A configuration as it was read.
struct Configuration {
    kind: &'static str,
    version: String,
    /// The bundle that each of its webhooks trusts, as base64.
    bundles: Vec<String>,
}

impl CertificateRotator {
    /// Maintains it for ever. An error is reported once, and retried.
    pub(crate) async fn run(self) {
        let mut reported: Vec<Problem> = Vec::new();
        loop {
            let problems = self.pass(SystemTime::now()).await;
            for problem in problems.iter().filter(|problem| !reported.contains(problem)) {
                tracing::warn!("{problem}");
            }
            reported = problems;
            // A replica that has just started is of no use before it serves.
            let pause =
                if self.served.is_empty() { self.timing.poll.min(Duration::from_secs(2)) } else { self.timing.poll };
            tokio::time::sleep(pause).await;
        }
    }

    /// Brings everything to its desired state.
    async fn pass(&self, now: SystemTime) -> Vec<Problem> {
        // Each step leads to the next; one of another replica may come between.
        const STEPS: usize = 5;
        for _ in 0..STEPS {
            // The configurations are read before the Secret, so that what is written to them is no older than what another
            // replica has written: their versions show it.
            let (configurations, mut problems) = self.configurations().await;
            let secret = match with_deadline(self.secrets().get_opt(&self.secret)).await {
                Ok(secret) => secret,
                Err(error) => {
                    problems.push(self.secret_problem("read", &error));
                    return problems;
                }
            };
            let held =
                StoredCertificates::read(&secret.as_ref().and_then(|secret| secret.data.clone()).unwrap_or_default());
            if let Some(serving) = &held.serving
                && self.served.set(Arc::clone(&serving.key))
            {
                tracing::info!(
                    "the webhooks are served with the certificate in the Secret {}/{}",
                    self.namespace,
                    self.secret
                );
            }
            let bundle = held.bundle();
            let published = problems.is_empty() && configurations.iter().all(|c| c.trusts(&bundle));
            match decide(unix(now), &held, &self.names, published, self.timing) {
                Step::Keep => {
                    problems.extend(self.publish(&configurations, &bundle).await);
                    return problems;
                }
                step => match self.write(secret, step, now).await {
                    Ok(()) => {}
                    Err(problem) => {
                        problems.push(problem);
                        // The served certificate remains trusted.
                        if !bundle.is_empty() {
                            problems.extend(self.publish(&configurations, &bundle).await);
                        }
                        return problems;
                    }
                },
            }
        }
        Vec::new()
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn secret_problem(&self, verb: &str, error: &kube::Error) -> Problem {
        let Self { namespace, secret, .. } = self;
        let fix = match error {
            kube::Error::Api(status) if status.code == 403 => {
                "; make it where it is missing (`kubectl create secret generic`, empty), and let the ServiceAccount get and update it, or give --webhook-cert-dir"
            }
            _ => "; trying again",
        };
        format!("the webhooks' certificate: cannot {verb} the Secret {namespace}/{secret}: {}{fix}", describe(error))
    }

    /// Writes the Secret after a step. Where another replica was faster, its write counts.
    async fn write(&self, secret: Option<Secret>, step: Step, now: SystemTime) -> Result<(), Problem> {
        let is_new = secret.is_none();
        let mut secret = secret.unwrap_or_else(|| Secret {
            metadata: ObjectMeta { name: Some(self.secret.clone()), ..ObjectMeta::default() },
            type_: Some("kubernetes.io/tls".to_owned()),
            ..Secret::default()
        });
        let data = secret.data.get_or_insert_default();
        take(step, data, &self.names, now, self.timing.validity)
            .map_err(|error| format!("the webhooks' certificate cannot be made: {error}"))?;
        let (api, parameters) = (self.secrets(), PostParams::default());
        let answer = if is_new {
            with_deadline(api.create(&parameters, &secret)).await
        } else {
            with_deadline(api.replace(&self.secret, &parameters, &secret)).await
        };
        match answer {
            Ok(_) => {
                let done = match step {
                    Step::Make => "made",
                    Step::Prepare => "about to be renewed",
                    Step::Switch => "renewed",
                    Step::Prune | Step::Keep => "trusted without its predecessor",
                };
                tracing::info!("the webhooks' certificate in the Secret {}/{} is {done}", self.namespace, self.secret);
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(self.secret_problem(if is_new { "create" } else { "write" }, &error)),
        }
    }

    fn api(&self, kind: &str) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
        Api::all_with(self.client.clone(), &ApiResource::from_gvk(&kind))
    }

    fn configuration_problem(&self, verb: &str, kind: &str, error: &kube::Error) -> Problem {
        let name = &self.configuration;
        let fix = match error {
            kube::Error::Api(status) if status.code == 403 => {
                "; let the ServiceAccount get and patch it, or give --webhook-cert-dir"
            }
            _ => "; trying again",
        };
        format!(
            "the webhooks' certificate: cannot {verb} the {kind} {name}, which names the authority that the API server trusts: {}{fix}",
            describe(error)
        )
    }

    async fn configurations(&self) -> (Vec<Configuration>, Vec<Problem>) {
        let (mut found, mut problems) = (Vec::new(), Vec::new());
        for kind in KINDS {
            match with_deadline(self.api(kind).get_opt(&self.configuration)).await {
                Ok(Some(object)) => found.push(Configuration::read(kind, &object)),
                // Of the two, one may have no webhooks, and then there is none.
                Ok(None) => tracing::debug!("there is no {kind} {}", self.configuration),
                Err(error) => problems.push(self.configuration_problem("read", kind, &error)),
            }
        }
        if found.is_empty() && problems.is_empty() {
            tracing::debug!("no configuration {} sends anything to the webhooks", self.configuration);
        }
        (found, problems)
    }

    /// Makes every configuration trust the bundle.
    async fn publish(&self, configurations: &[Configuration], bundle: &str) -> Vec<Problem> {
        let mut problems = Vec::new();
        for configuration in configurations.iter().filter(|configuration| !configuration.trusts(bundle)) {
            let kind = configuration.kind;
            let Ok(patch) = serde_json::from_value(configuration.patch(bundle)) else { continue };
            let (api, parameters, patch) = (self.api(kind), PatchParams::default(), Patch::Json::<()>(patch));
            match with_deadline(api.patch(&self.configuration, &parameters, &patch)).await {
                Ok(_) => tracing::info!("the {kind} {} trusts the webhooks' certificate", self.configuration),
                // Another replica was faster; the next pass sees the present state.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409 | 422) => {
                    tracing::debug!("the {kind} {} has changed meanwhile", self.configuration);
                }
                Err(error) => problems.push(self.configuration_problem("patch", kind, &error)),
            }
        }
        problems
    }
}

impl Configuration {
    fn read(kind: &'static str, object: &DynamicObject) -> Self {
        let webhooks = object.data.get("webhooks").and_then(Value::as_array).into_iter().flatten();
        let bundle = |webhook: &Value| {
            let bundle = webhook.pointer("/clientConfig/caBundle").and_then(Value::as_str);
            bundle.unwrap_or_default().to_owned()
        };
        Self {
            kind,
            version: object.metadata.resource_version.clone().unwrap_or_default(),
            bundles: webhooks.map(bundle).collect(),
        }
    }

    fn trusts(&self, bundle: &str) -> bool {
        self.bundles.iter().all(|trusted| *trusted == base64(bundle))
    }

    /// A JSON patch, which the API server refuses when the object has changed since it was read.
    fn patch(&self, bundle: &str) -> Value {
        let test = json!({ "op": "test", "path": "/metadata/resourceVersion", "value": self.version });
        let trusted = base64(bundle);
        let differing = self.bundles.iter().enumerate().filter(|(_, known)| **known != trusted);
        let adds = differing.map(|(index, _)| {
            let path = format!("/webhooks/{index}/clientConfig/caBundle");
            json!({ "op": "add", "path": path, "value": trusted })
        });
        Value::Array(std::iter::once(test).chain(adds).collect())
    }
}

/// Encodes bytes as Kubernetes does.
fn base64(text: &str) -> String {
    match serde_json::to_value(ByteString(text.as_bytes().to_vec())) {
        Ok(Value::String(text)) => text,
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests;
