//! A server on the loopback interface that gives a test's responses, so that the SDK's requests, retries and parsing
//! are tested.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{
    body::Bytes,
    http::{HeaderMap, Method, StatusCode, Uri},
};

use crate::form::form;

/// A request to AWS's query protocols or to the API server.
#[derive(Clone, Debug)]
pub struct Call {
    /// AWS's `Action`, the operation of a JSON protocol, or the method and path.
    pub action: String,
    /// The fields of the form.
    pub params: BTreeMap<String, String>,
    /// The unparsed body.
    pub body: String,
}

impl Call {
    pub fn param(&self, name: &str) -> &str {
        self.params.get(name).map_or("", String::as_str)
    }

    /// Returns the values of a list, for example `ResourceArns`.
    pub fn list(&self, name: &str) -> Vec<&str> {
        (1..).map_while(|i| self.params.get(&format!("{name}.member.{i}"))).map(String::as_str).collect()
    }
}

/// The server and its recorded calls.
pub struct Fake {
    pub endpoint: String,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Fake {
    /// Starts a server that responds with the status and body of `answer`.
    pub async fn start<F>(answer: impl Fn(Call) -> F + Clone + Send + Sync + 'static) -> Self
    where
        F: Future<Output = (u16, String)> + Send,
    {
        let calls = Arc::new(Mutex::new(Vec::new()));
        let log = calls.clone();
        let handler = move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| {
            let body = String::from_utf8_lossy(&body).into_owned();
            let params = form(&body);
            let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok()?.rsplit('.').next());
            let action = params.get("Action").map(String::as_str).or(target).map(str::to_owned);
            let action = action.unwrap_or_else(|| format!("{method} {}", uri.path()));
            let call = Call { action, params, body };
            log.lock().expect("no panic while it is held").push(call.clone());
            let answer = answer.clone();
            async move {
                let (status, body) = answer(call).await;
                (StatusCode::from_u16(status).expect("a status of HTTP"), body)
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("the address that it listens on"));
        let app = axum::Router::new().fallback(handler);
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { endpoint, calls }
    }

    /// Returns the calls since the last call of this function, in order.
    pub fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.calls.lock().expect("no panic while it is held"))
    }

    /// Returns only the names of the calls, sorted, since concurrent calls come in any order.
    pub fn actions(&self) -> Vec<String> {
        let mut actions: Vec<_> = self.calls().into_iter().map(|call| call.action).collect();
        actions.sort();
        actions
    }
}

/// Returns a response of ELB v2.
pub fn elb(action: &str, result: &str) -> (u16, String) {
    let result = format!("<{action}Result>{result}</{action}Result>");
    (
        200,
        format!(
            "<{action}Response>{result}<ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></{action}Response>"
        ),
    )
}

/// Returns a response of EC2.
pub fn ec2(action: &str, result: &str) -> (u16, String) {
    (200, format!("<{action}Response><requestId>1</requestId>{result}</{action}Response>"))
}

/// Returns an error response of ELB v2.
pub fn elb_error(status: u16, code: &str, message: &str) -> (u16, String) {
    let error = format!("<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>");
    (status, format!("<ErrorResponse>{error}<RequestId>1</RequestId></ErrorResponse>"))
}

/// Returns an error response of EC2.
pub fn ec2_error(status: u16, code: &str, message: &str) -> (u16, String) {
    let error = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
    (status, format!("<Response><Errors>{error}</Errors><RequestID>1</RequestID></Response>"))
}
