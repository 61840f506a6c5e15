//! Watches every call, and every HTTP request that the SDK makes for it, for metrics.

use std::{cell::RefCell, fmt, future::Future, sync::Arc, time::Instant};

use aws_sdk_ec2::config::{ConfigBag, Intercept, RuntimeComponents, interceptors};
use aws_smithy_runtime_api::{box_error::BoxError, client::orchestrator::Metadata};
use aws_smithy_types::config_bag::{Storable, StoreReplace};
use tracing::Instrument as _;

/// The result of a request. A failure has the HTTP status and AWS's code; status 0 and the code `NoAnswer` where there was no answer.
pub type RequestResult<'a> = Result<(), (u16, &'a str)>;

/// Observes every call, every request of a call, and its waits. `service` is AWS's service id (`Elastic Load Balancing v2`,
/// `EC2`).
pub trait CallObserver: Send + Sync {
    /// A request has been answered, or has failed.
    fn request(&self, service: &str, operation: &str, seconds: f64, result: RequestResult<'_>);

    /// A call has come to its end, as its last request did, after so many retries; the waits for its turn are in its seconds.
    fn call(&self, _service: &str, _operation: &str, _seconds: f64, _retries: u32, _result: RequestResult<'_>) {}

    /// The budget of a class of calls lets `rate` calls a second through (`None` is no limit); a call has waited for it so
    /// long, or AWS has throttled one.
    fn budget(&self, _class: &'static str, _rate: Option<f64>, _seconds_waited: f64, _throttled: bool) {}
}

/// The totals of a call's requests so far.
#[derive(Default)]
struct Requests {
    made: u32,
    service: String,
    /// The HTTP status and the code of the last request, if it failed.
    failure: Option<(u16, String)>,
}

tokio::task_local! {
    static REQUESTS: RefCell<Requests>;
}

/// Makes a call, and notifies the observer if a request was made. The SDK sends requests in the task of the caller.
pub(super) async fn watched<F: Future>(
    observer: Option<&Arc<dyn CallObserver>>,
    operation: &str,
    call: F,
) -> F::Output {
    let span = tracing::info_span!(target: crate::TRACES, "call", otel.name = operation);
    // The SDK's futures are large, and would be copied with each layer around them.
    let call = Box::pin(call).instrument(span);
    let Some(observer) = observer else { return call.await };
    let started = Instant::now();
    let reporting_call = async {
        let answer = call.await;
        REQUESTS.with(|requests| {
            let requests = requests.borrow();
            if requests.made > 0 {
                let result = requests.failure.as_ref().map_or(Ok(()), |(status, code)| Err((*status, code.as_str())));
                let seconds = started.elapsed().as_secs_f64();
                observer.call(&requests.service, operation, seconds, requests.made - 1, result);
            }
        });
        answer
    };
    REQUESTS.scope(RefCell::default(), reporting_call).await
}

/// The SDK's hook that feeds a [`CallObserver`].
#[derive(Clone)]
pub(super) struct Watch(pub(super) Arc<dyn CallObserver>);

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}

#[derive(Debug)]
struct Started(Instant);

impl Storable for Started {
    type Storer = StoreReplace<Self>;
}

impl Intercept for Watch {
    fn name(&self) -> &'static str {
        "albatross call observer"
    }

    fn read_before_attempt(
        &self,
        _: &interceptors::BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        config.interceptor_state().store_put(Started(Instant::now()));
        Ok(())
    }

    fn read_after_attempt(
        &self,
        context: &interceptors::FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let seconds = config.load::<Started>().map_or(0.0, |started| started.0.elapsed().as_secs_f64());
        let (service, operation) = config.load::<Metadata>().map_or(("", ""), |m| (m.service(), m.name()));
        let failure = match (context.output_or_error(), context.response()) {
            (Some(Ok(_)), _) => None,
            (_, Some(response)) => {
                let body = response.body().bytes().map(String::from_utf8_lossy).unwrap_or_default();
                Some((response.status().as_u16(), code_in(&body).unwrap_or("Unreadable").to_owned()))
            }
            _ => Some((0, "NoAnswer".to_owned())),
        };
        let result = failure.as_ref().map_or(Ok(()), |(status, code)| Err((*status, code.as_str())));
        self.0.request(service, operation, seconds, result);
        let _ = REQUESTS.try_with(|requests| {
            let mut requests = requests.borrow_mut();
            *requests = Requests { made: requests.made + 1, service: service.to_owned(), failure };
        });
        Ok(())
    }
}

/// AWS's code in an error of the query protocols, or of JSON: the SDK has parsed it, but shows it only to the operation's
/// caller.
fn code_in(body: &str) -> Option<&str> {
    if body.starts_with('{') {
        let (_, rest) = body.split_once("\"__type\"")?;
        let (_, rest) = rest.split_once('"')?;
        let (code, _) = rest.split_once('"')?;
        return code.rsplit('#').next();
    }
    let (_, rest) = body.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    Some(code.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_of_an_error_is_found_in_every_protocol() {
        let elb = "<ErrorResponse xmlns=\"x\"><Error><Type>Sender</Type><Code>Throttling</Code><Message>Rate exceeded</Message></Error></ErrorResponse>";
        let ec2 = "<Response><Errors><Error><Code>RequestLimitExceeded</Code><Message>m</Message></Error></Errors></Response>";
        assert_eq!(code_in(elb), Some("Throttling"));
        assert_eq!(code_in(ec2), Some("RequestLimitExceeded"));
        let json = r#"{"__type": "com.amazonaws.acm#ThrottlingException", "message": "Rate exceeded"}"#;
        assert_eq!(code_in(json), Some("ThrottlingException"));
        assert_eq!(code_in("{}"), None);
        assert_eq!(code_in("<html>Bad gateway</html>"), None);
    }
}
