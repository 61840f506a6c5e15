//! The connection to the API server.

use std::{path::Path, sync::Arc, time::Duration};

use k8s_openapi::apimachinery::pkg::version::Info;
use kube::{
    Client, Config,
    client::ClientBuilder,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};

use super::StartError;
use crate::controller::{
    cluster::{
        counted_requests::CountedRequests,
        kubernetes::{describe, with_causes},
        watch_activity::WatchActivity,
    },
    runtime::metrics::Metrics,
};
use albatross_aws::proxies::Proxies;

/// The API server ends a watch after 290 s; longer silence, also during a list, means a dead connection.
const SILENCE: Duration = Duration::from_secs(320);
const API_SERVER_DEADLINE: Duration = Duration::from_secs(10);

/// Returns the client of the API server, and the version that the API server has.
pub(super) async fn connect_to_cluster(
    kubeconfig: Option<&Path>,
    proxies: &Proxies,
    activity: &WatchActivity,
    metrics: &Arc<Metrics>,
) -> Result<(Client, Info), StartError> {
    let mut named = None;
    let mut config = match kubeconfig.filter(|path| !path.as_os_str().is_empty()) {
        Some(path) => {
            let unusable = |error: KubeconfigError| StartError::NoCluster {
                reason: format!(
                    "the kubeconfig `{}` cannot be used: {}",
                    path.display(),
                    describe_kubeconfig_error(&error)
                ),
            };
            let kubeconfig = Kubeconfig::read_from(path).map_err(unusable)?;
            named = proxy_of(&kubeconfig);
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(unusable)?
        }
        None => match Config::from_kubeconfig(&KubeConfigOptions::default()).await {
            Ok(config) => {
                named = Kubeconfig::read().ok().as_ref().and_then(proxy_of);
                config
            }
            Err(kubeconfig) => Config::incluster().map_err(|in_cluster| StartError::NoCluster {
                reason: format!(
                    "there is neither a default kubeconfig ({}) nor a ServiceAccount ({})",
                    describe_kubeconfig_error(&kubeconfig),
                    with_causes(&in_cluster)
                ),
            })?,
        },
    };
    (config.read_timeout, config.reset_reader_on_write) = (Some(SILENCE), true);
    let address = config.cluster_url.clone();
    let url = address.to_string();
    // kube compares NO_PROXY with the proxy's own address instead of the API server's.
    let proxy = named.or_else(|| proxies.for_url(&url).map(|proxy| proxy.secret_url().to_owned()));
    config.proxy_url = proxy.and_then(|proxy| proxy.parse().ok());
    let failed = |reason: String| StartError::ApiServer { url: url.clone(), reason };
    let builder = ClientBuilder::try_from(config).map_err(|error| failed(describe(&error)))?;
    let client = builder.with_layer(activity).with_layer(&CountedRequests::new(metrics, &address)).build();
    match tokio::time::timeout(API_SERVER_DEADLINE, client.apiserver_version()).await {
        Ok(Ok(version)) => {
            tracing::debug!(version = version.git_version, "the API server answers");
            Ok((client, version))
        }
        Ok(Err(error)) => Err(failed(describe(&error))),
        Err(_) => Err(failed(format!("no answer within {} s", API_SERVER_DEADLINE.as_secs()))),
    }
}

/// Returns the proxy that a kubeconfig names for the cluster of its current context.
fn proxy_of(kubeconfig: &Kubeconfig) -> Option<String> {
    let current = kubeconfig.current_context.as_ref()?;
    let context = kubeconfig.contexts.iter().find(|context| context.name == *current)?.context.as_ref()?;
    let cluster = kubeconfig.clusters.iter().find(|cluster| cluster.name == context.cluster)?.cluster.as_ref()?;
    cluster.proxy_url.clone().filter(|url| !url.is_empty())
}

fn describe_kubeconfig_error(error: &KubeconfigError) -> String {
    match error {
        KubeconfigError::ReadConfig(error, _) => error.to_string(),
        // The text after the first line is an excerpt of the file, which may contain secrets.
        error => with_causes(error).lines().next().unwrap_or_default().to_owned(),
    }
}
