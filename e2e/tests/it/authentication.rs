//! Users who sign in: the Secret of an OpenID Connect client reaches AWS once for each of its states, and no other place.

use albatross_core::record::{self, Contents, HEADER_KEY};
use anyhow::{Context as _, Result, ensure};
use e2e::lab::wait_until;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};

use crate::support::{
    QUIET, SOON, Stage, WITH_RETRIES, apply, deployment, finish, ingress, run, served, service, warning,
};

const PROVIDER: &str = r#"{"issuer": "https://idp.example.com", "authorizationEndpoint": "https://idp.example.com/a",
    "tokenEndpoint": "https://idp.example.com/t", "userInfoEndpoint": "https://idp.example.com/u", "secretName": "oidc"}"#;

fn secret(id: &str, secret: &str, label: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "oidc", "labels": {"label": label}},
        "stringData": {"clientID": id, "clientSecret": secret},
    })
}

/// An Ingress behind a sign-in, with a rule for each Service.
fn behind_a_sign_in(stage: &Stage, name: &str, services: &[&str]) -> Result<Value> {
    let certificate = stage.world.certificates.get("example.com").context("no certificate")?;
    let annotations = [
        ("alb.ingress.kubernetes.io/certificate-arn", certificate.as_str()),
        ("alb.ingress.kubernetes.io/auth-type", "oidc"),
        ("alb.ingress.kubernetes.io/auth-idp-oidc", PROVIDER),
    ];
    Ok(ingress(name, &annotations, services))
}

/// The secrets that AWS was last given for the rules, by the emulator, which returns them.
async fn given(stage: &Stage) -> Result<Vec<String>> {
    let mut given = Vec::new();
    for balancer in stage.aws.elb.describe_load_balancers().send().await?.load_balancers() {
        let arn = balancer.load_balancer_arn().unwrap_or_default();
        for listener in stage.aws.elb.describe_listeners().load_balancer_arn(arn).send().await?.listeners() {
            let arn = listener.listener_arn().unwrap_or_default();
            for rule in stage.aws.elb.describe_rules().listener_arn(arn).send().await?.rules() {
                let configs = rule.actions().iter().filter_map(|action| action.authenticate_oidc_config());
                given.extend(configs.map(|config| {
                    let [id, secret] = [config.client_id(), config.client_secret()].map(Option::unwrap_or_default);
                    format!("{id}:{secret}")
                }));
            }
        }
    }
    Ok(given)
}

async fn become_given(stage: &Stage, expected: &str, count: usize) -> Result<()> {
    wait_until(SOON, &format!("AWS to have {expected} {count} times"), async || {
        let given = given(stage).await?;
        ensure!(given.len() == count && given.iter().all(|one| one == expected), "it has {given:?}");
        Ok(true)
    })
    .await
}

/// The changes that were asked of AWS since the last reset, by operation.
async fn changes(stage: &mut Stage) -> Result<Vec<(String, u64)>> {
    stage.controller.as_mut().context("no controller")?.idle(WITH_RETRIES).await?;
    stage.settle(QUIET, SOON).await?;
    let counts = stage.proxy.counts();
    let changes = counts.actions.iter().filter(|(action, _)| !e2e::lab::proxy::is_read(action));
    Ok(changes.map(|(action, count)| (action.clone(), *count)).collect())
}

/// All records, as they are before they are packed.
async fn records(stage: &Stage) -> Result<String> {
    let mut records = String::new();
    for map in stage.cluster.list("v1", "ConfigMap", None).await? {
        let map: ConfigMap = serde_json::from_value(map)?;
        let packed = map.binary_data.unwrap_or_default().into_iter().map(|(key, bytes)| (key, bytes.0)).collect();
        let contents = Contents { data: map.data.unwrap_or_default(), packed };
        let Some(header) = contents.data.get(HEADER_KEY) else { continue };
        for record in record::read(&serde_json::from_str(header)?, &contents).records.values() {
            records.push_str(&serde_json::to_string(record)?);
        }
    }
    Ok(records)
}

/// Fails when any of these texts is anywhere that people or other programs look.
async fn is_nowhere(stage: &Stage, texts: &[&str]) -> Result<()> {
    let controller = stage.controller.as_ref().context("no controller")?;
    let mut places = vec![
        ("log", std::fs::read_to_string(stage.directory().join("controller.log"))?),
        ("state", controller.state().await?),
        ("metrics", controller.metrics().await?),
    ];
    for kind in ["ConfigMap", "Event"] {
        let objects = stage.cluster.list("v1", kind, None).await?;
        ensure!(!objects.is_empty(), "there is no {kind}");
        places.push((kind, json!(objects).to_string()));
    }
    places.push(("record", records(stage).await?));
    places.push(("Ingress", json!(stage.cluster.list("networking.k8s.io/v1", "Ingress", None).await?).to_string()));
    // What should be there is, so that looking for the rest means something.
    for (place, text) in
        [("log", "a Secret in use has changed"), ("record", "secret_version"), ("Event", "the Secret `oidc`")]
    {
        ensure!(
            places.iter().any(|(name, found)| *name == place && found.contains(text)),
            "the {place} lacks `{text}`"
        );
    }
    for (place, found) in places {
        for text in texts {
            ensure!(!found.contains(text), "`{text}` stands in the {place}");
        }
    }
    Ok(())
}

#[test]
fn a_rotated_secret_reaches_aws_once_and_nobody_else() {
    run(async {
        let mut stage = Stage::without_controller().await?;
        stage.start_controller(&["--log-level=debug"]).await?;
        let namespace = "sign-in";
        stage.cluster.namespace(namespace).await?;
        apply(&stage, namespace, &[service("web"), service("api"), deployment("web", 1)]).await?;

        // Without its Secret the Ingress gets nothing, and an event reports it; with it all continues by itself.
        let object = behind_a_sign_in(&stage, "web", &["web", "api"])?;
        apply(&stage, namespace, std::slice::from_ref(&object)).await?;
        let reported = warning(&stage, namespace, "Ingress/web", "the Secret `oidc` does not exist").await?;
        ensure!(reported.message.contains("clientSecret"), "the event does not say what to do: {reported:?}");
        apply(&stage, namespace, &[secret("first-client", "first-hush", "a")]).await?;
        served(&stage, namespace, "web").await?;
        become_given(&stage, "first-client:first-hush", 2).await?;
        changes(&mut stage).await?;

        // Nothing is written while the content is the same: not for another label, not for another Ingress annotation.
        stage.proxy.reset();
        apply(&stage, namespace, &[secret("first-client", "first-hush", "b")]).await?;
        let mut edited = object.clone();
        edited["metadata"]["annotations"]["example.com/owner"] = json!("team");
        apply(&stage, namespace, &[edited]).await?;
        ensure!(
            changes(&mut stage).await?.is_empty(),
            "an edit beside the content: {:?}",
            stage.proxy.counts().actions
        );

        // Another content is written to each rule, once, and to nothing else.
        stage.proxy.reset();
        apply(&stage, namespace, &[secret("first-client", "second-hush", "b")]).await?;
        become_given(&stage, "first-client:second-hush", 2).await?;
        let once_each = [("elasticloadbalancing:ModifyRule".to_owned(), 2)];
        ensure!(changes(&mut stage).await? == once_each, "a rotation: {:?}", stage.proxy.counts().actions);
        stage.proxy.reset();
        apply(&stage, namespace, &[secret("second-client", "third-hush", "b")]).await?;
        become_given(&stage, "second-client:third-hush", 2).await?;
        ensure!(changes(&mut stage).await? == once_each, "a rotation: {:?}", stage.proxy.counts().actions);

        // Nor does a restart write anything, whether the process ends by itself or is killed.
        for graceful in [true, false] {
            match graceful {
                true => stage.stop_controller().await?,
                false => stage.controller.take().context("no controller")?.kill(),
            }
            stage.proxy.reset();
            stage.start_controller(&["--log-level=debug"]).await?;
            ensure!(changes(&mut stage).await?.is_empty(), "a restart: {:?}", stage.proxy.counts().actions);
        }
        // A rotation while no controller ran is noticed at the start.
        stage.stop_controller().await?;
        apply(&stage, namespace, &[secret("second-client", "fourth-hush", "b")]).await?;
        stage.proxy.reset();
        stage.start_controller(&["--log-level=debug"]).await?;
        become_given(&stage, "second-client:fourth-hush", 2).await?;
        ensure!(changes(&mut stage).await? == once_each, "a rotation: {:?}", stage.proxy.counts().actions);

        let hidden = ["first-client", "second-client", "first-hush", "second-hush", "third-hush", "fourth-hush"];
        let encoded = ["Zmlyc3QtaHVzaA", "Zm91cnRoLWh1c2"];
        is_nowhere(&stage, &[&hidden[..], &encoded].concat()).await?;
        let state: Value = serde_json::from_str(&stage.controller.as_ref().context("no controller")?.state().await?)?;
        ensure!(state["secrets"] == json!({"inUse": 1, "watched": 1}), "the state says {}", state["secrets"]);
        finish(stage, namespace).await
    });
}
