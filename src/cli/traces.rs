//! Traces over OTLP: one for each pass over a key, with its calls of AWS as parts. They are sent where the environment names
//! an endpoint, by OpenTelemetry's own variables (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_RESOURCE_ATTRIBUTES` and so on).

use opentelemetry::{KeyValue, trace::TracerProvider as _};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    runtime::Tokio,
    trace::{SdkTracerProvider, span_processor_with_async_runtime::BatchSpanProcessor},
};
use tracing::Subscriber;
use tracing_subscriber::{Layer, filter::Targets, registry::LookupSpan};

/// The variables that name an endpoint, the special one first.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// Returns the environment's variable and endpoint for traces, if there is one.
fn endpoint() -> Option<(&'static str, String)> {
    ENDPOINTS.into_iter().find_map(|name| Some((name, std::env::var(name).ok().filter(|value| !value.is_empty())?)))
}

/// Returns the sender of traces; there is none where the environment names no endpoint. Needs a running tokio runtime.
///
/// # Errors
/// When the endpoint cannot be used, with the variable and the fix.
pub(super) fn provider(cluster: &str) -> Result<Option<SdkTracerProvider>, String> {
    let Some((variable, url)) = endpoint() else { return Ok(None) };
    if !url.starts_with("http://") {
        return Err(format!(
            "{variable} is `{url}`, and traces are sent without TLS: give the address of a collector in the cluster, http://…:4318"
        ));
    }
    let exporter = SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary).build();
    let exporter = exporter.map_err(|error| format!("{variable} is `{url}`, which cannot be used: {error}"))?;
    let resource = Resource::builder()
        .with_service_name("albatross")
        .with_attribute(KeyValue::new("k8s.cluster.name", cluster.to_owned()))
        .build();
    let processor = BatchSpanProcessor::builder(exporter, Tokio).build();
    Ok(Some(SdkTracerProvider::builder().with_resource(resource).with_span_processor(processor).build()))
}

/// The layer that turns the spans of [`crate::TRACES`] into traces.
pub(super) fn layer<S>(provider: &SdkTracerProvider) -> impl Layer<S> + use<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let spans = Targets::new().with_target(crate::TRACES, tracing::Level::INFO);
    tracing_opentelemetry::layer().with_tracer(provider.tracer("albatross")).with_filter(spans)
}
