//! The answers that clients get from the load balancers of Ingresses and Services, in a lab whose load balancers answer: each node
//! of each is asked.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aws_sdk_elasticloadbalancingv2::types::TargetHealthStateEnum;
use e2e::lab::cluster::{documents, put_in_namespace, text};
use e2e::lab::{Lab, wait_until};
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::{Stage, WITH_RETRIES, deployment, run, service};

const NAMESPACE: &str = "answers";
/// The namespace of a group's last member.
const OTHER: &str = "answers-too";
/// The most that an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most connections on which all Services of a listener have to have answered.
const MANY: usize = 200;

/// A request, and the right answers.
struct Question {
    /// The object by kind and name, in [`NAMESPACE`] or in the one that the name begins with. `Front` is the second of the load
    /// balancers that an Ingress tells.
    of: &'static str,
    /// Method and URL, in which `-` is the load balancer's own host name, and a header, if any.
    asked: &'static str,
    /// Each of them has to be given at some time, and no other: status, then the whole body, or the location of a redirect. A
    /// status alone is of the load balancer's own, or of a request for the head.
    right: &'static [&'static str],
}

const fn ask(of: &'static str, asked: &'static str, right: &'static [&'static str]) -> Question {
    Question { of, asked, right }
}

const OF_INGRESSES: &[Question] = &[
    ask("Ingress class-ip", "GET http://-/path", HELLO),
    ask("Ingress class-instance", "GET http://-/path", HELLO),
    ask("Ingress word-ip", "GET http://-/path", HELLO),
    ask("Ingress word-instance", "GET http://-/path", HELLO),
    ask("Ingress named", "GET http://-/path", HELLO),
    ask("Ingress port-by-name", "GET http://-/path", HELLO),
    ask("Ingress ipv4", "GET http://-/path", HELLO),
    ask("Ingress listener-attributes", "GET http://-/path", HELLO),
    ask("Ingress listener-attributes", "GET http://-/other", NONE),
    ask("Ingress in-front", "GET http://-/path", HELLO),
    ask("Front in-front", "GET http://-/path", HELLO),
    // Actions.
    ask("Ingress actions", "GET http://-/unavailable", &["503 not now"]),
    ask("Ingress actions", "GET http://-/away", &["302 https://elsewhere.example.net:443/there/?k=v"]),
    ask("Ingress actions", "GET http://-/one", &["200 blue"]),
    ask("Ingress actions", "GET http://-/both", &["200 blue", "200 green"]),
    // Conditions.
    ask("Ingress conditions", "GET http://www.example.com/host", &["200 host"]),
    ask("Ingress conditions", "GET http://other.example.com/host", &["200 host"]),
    ask("Ingress conditions", "GET http://third.example.com/host", NONE),
    ask("Ingress conditions", "GET http://www.example.com/path", &["200 path"]),
    ask("Ingress conditions", "GET http://www.example.com/other/path", &["200 path"]),
    ask("Ingress conditions", "GET http://www.example.com/third/path", NONE),
    ask("Ingress conditions", "GET http://www.example.com/header Name: one", &["200 header"]),
    ask("Ingress conditions", "GET http://www.example.com/header Name: two", &["200 header"]),
    ask("Ingress conditions", "GET http://www.example.com/header Name: three", NONE),
    ask("Ingress conditions", "GET http://www.example.com/header", NONE),
    ask("Ingress conditions", "GET http://www.example.com/method", &["200 method"]),
    ask("Ingress conditions", "HEAD http://www.example.com/method", &["200"]),
    ask("Ingress conditions", "POST http://www.example.com/method", NONE),
    ask("Ingress conditions", "GET http://www.example.com/query?a=1", &["200 query"]),
    ask("Ingress conditions", "GET http://www.example.com/query?a=2", &["200 query"]),
    ask("Ingress conditions", "GET http://www.example.com/query?a=3", NONE),
    ask("Ingress conditions", "GET http://www.example.com/source", NONE),
    ask("Ingress conditions", "GET http://www.example.com/several?a=1&b=2 Name: one", &["200 several"]),
    ask("Ingress conditions", "GET http://www.example.com/several?a=1&b=2 Name: two", NONE),
    ask("Ingress conditions", "GET http://www.example.com/several?a=2&b=2 Name: one", NONE),
    // The server tells the host and the path that it was asked for.
    ask("Ingress transforms", "GET http://www.example.com/api/users?page=2", &["200 www.example.org /users?page=2"]),
    ask("Ingress transforms", "GET http://www.example.com/api", &["200 www.example.org /api"]),
    // These load balancers do not know how to validate tokens, and let nobody pass where it is to be done.
    ask("Ingress tokens", "GET https://www.example.com/path", &["501"]),
    // Several paths, alone and in a group.
    ask("Ingress alone", "GET http://-/blue", &["200 blue"]),
    ask("Ingress alone", "GET http://-/green", &["200 green"]),
    ask("Ingress first", "GET http://-/blue", &["200 blue"]),
    ask("Ingress first", "GET http://-/green", &["200 green"]),
    ask("Ingress first", "GET http://-/hello", HELLO),
    ask("Ingress first", "GET http://-/red", &["200 red"]),
    ask("Ingress first", "GET http://-/white", &["200 white"]),
    ask("Ingress second", "GET http://-/red", &["200 red"]),
    ask("Ingress answers-too/third", "GET http://-/hello", HELLO),
    // Certificates that were requested.
    ask("Ingress requested", "GET https://requested.example.com/path", HELLO),
    ask("Ingress requested", "GET http://requested.example.com/path", HELLO),
    ask("Ingress wildcard", "GET https://wild.example.com/path", HELLO),
    ask("Ingress wildcard", "GET https://any.wild.example.com/path", HELLO),
    ask("Ingress private", "GET https://private.example.invalid/path", HELLO),
];

const OF_SERVICES: &[Question] = &[
    ask("Service instances", "GET http://-/any", HELLO),
    ask("Service pods", "GET http://-/any", HELLO),
    ask("Service named", "GET http://-/any", HELLO),
    ask("Service tls-pods", "GET http://-/any", HELLO),
    ask("Service tls-pods", "GET https://www.example.com/any", HELLO),
    ask("Service tls-pods", "GET https://www.example.com:8443/any", HELLO),
    ask("Service tls-instances", "GET https://www.example.com/any", HELLO),
    ask("Service weighted", "GET http://-/any", ALL_THREE),
    ask("Service weighted-too", "GET http://-/any", ALL_THREE),
    ask("Service weighted-instances", "GET http://-/any", ALL_THREE),
];

const HELLO: &[&str] = &["200 Hello World!"];
/// No rule takes the request.
const NONE: &[&str] = &["404"];
const ALL_THREE: &[&str] = &["200 Hello World!", "200 blue", "200 green"];

/// A Deployment whose pods answer with a text, and a Service for it.
fn color(name: &str, answer: &str, replicas: usize) -> Vec<Value> {
    let environment = json!([{"name": "COLOR", "value": answer}]);
    with_container(name, replicas, &json!({"image": "example.com/colorteller:v1", "env": environment}))
}

fn with_container(name: &str, replicas: usize, container: &Value) -> Vec<Value> {
    let mut container = container.clone();
    container["name"] = "app".into();
    container["ports"] = json!([{"name": "web", "containerPort": 8080}]);
    let (mut deployment, mut service) = (deployment(name, replicas), service(name));
    deployment["spec"]["template"]["spec"]["containers"] = json!([container]);
    service["spec"]["type"] = "NodePort".into();
    vec![deployment, service]
}

/// Everything that the Ingresses and Services lead to.
fn backends() -> Vec<Value> {
    let echo = with_container(
        "echo",
        1,
        &json!({"image": "example.com/echo-basic:v1", "env": [{"name": "HTTP_PORT", "value": "8080"}]}),
    );
    let mut green = color("green", "green", 2);
    for service in green.iter_mut().filter(|object| object["kind"] == "Service") {
        service["metadata"]["annotations"] = json!({"alb.ingress.kubernetes.io/target-type": "ip"});
    }
    let mut others: Vec<Value> = [color("red", "red", 1), color("white", "white", 1)].concat();
    others.iter_mut().for_each(|object| object["metadata"]["namespace"] = OTHER.into());
    [color("hello", "Hello World!", 3), color("blue", "blue", 2), green, echo, others].concat()
}

/// Applies the manifests, and finds every question answered rightly.
async fn all_are_answered(manifests: &str, questions: &[Question]) -> Result<Stage> {
    let mut stage = Stage::answering().await?;
    stage.start_controller(&["--feature-gates=EnableCertificateManagement=true"]).await?;
    for namespace in [NAMESPACE, OTHER] {
        stage.cluster.namespace(namespace).await?;
    }
    let mut objects = backends();
    objects.extend(documents(&stage.world.substitute(manifests)?)?);
    objects.iter_mut().for_each(|object| put_in_namespace(object, NAMESPACE));
    stage.cluster.apply(&objects).await?;
    for question in questions {
        is_answered(&stage, question).await?;
    }
    Ok(stage)
}

async fn is_answered(lab: &Lab, question: &Question) -> Result<()> {
    let right: BTreeSet<String> = question.right.iter().map(|answer| (*answer).to_owned()).collect();
    let what = format!("the answer of {} to {}", question.of, question.asked);
    wait_until(WITH_RETRIES, &what, async || {
        let host = host_of(lab, question.of).await?;
        let traffic = lab.traffic.as_ref().context("no load balancer answers")?;
        let nodes = traffic.addresses(&host, asked(question.asked)?.port);
        ensure!(!nodes.is_empty(), "DNS does not know {host}");
        for node in nodes {
            let mut found = BTreeSet::new();
            for _ in 0..MANY {
                let answer = tokio::time::timeout(PATIENCE, answer(lab, node, &host, question.asked));
                let answer = answer.await.with_context(|| format!("{node} does not answer"))??;
                ensure!(right.contains(&answer), "{node} answers `{answer}` and not {right:?}");
                found.insert(answer);
                if found == right {
                    break;
                }
            }
            ensure!(found == right, "{node} answers {found:?} and not {right:?}");
        }
        Ok(true)
    })
    .await
}

/// Returns the host name that an object tells.
async fn host_of(lab: &Lab, of: &str) -> Result<String> {
    let (kind, name) = of.split_once(' ').context("an object is of a kind")?;
    let (namespace, name) = name.split_once('/').unwrap_or((NAMESPACE, name));
    let (version, place) = match kind {
        "Service" => ("v1", 0),
        "Front" => ("networking.k8s.io/v1", 1),
        _ => ("networking.k8s.io/v1", 0),
    };
    let kind = if kind == "Front" { "Ingress" } else { kind };
    let object = lab.cluster.get(version, kind, Some(namespace), name).await?.context("it does not exist")?;
    let host = text(&object, &format!("/status/loadBalancer/ingress/{place}/hostname")).to_owned();
    ensure!(!host.is_empty(), "it tells no host name: {}", object["status"]);
    Ok(host)
}

/// The parts of what is asked.
struct Asked<'a> {
    method: &'a str,
    secure: bool,
    host: &'a str,
    port: u16,
    path: String,
    header: Option<(&'a str, &'a str)>,
}

fn asked(text: &str) -> Result<Asked<'_>> {
    let (method, rest) = text.split_once(' ').context("a request has a method")?;
    let (url, header) = rest.split_once(' ').map_or((rest, None), |(url, header)| (url, header.split_once(": ")));
    let (scheme, rest) = url.split_once("://").context("a URL has a scheme")?;
    let (authority, path) = rest.split_once('/').context("a URL has a path")?;
    let secure = scheme == "https";
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, port.parse()?),
        None => (authority, if secure { 443 } else { 80 }),
    };
    Ok(Asked { method, secure, host, port, path: format!("/{path}"), header })
}

/// Asks a node, and returns its answer in words.
async fn answer(lab: &Lab, node: SocketAddr, own: &str, text: &str) -> Result<String> {
    let asked = asked(text)?;
    let host = if asked.host == "-" { own } else { asked.host };
    let mut request = Request::builder().method(asked.method).uri(&asked.path).header("Host", host);
    if let Some((name, value)) = asked.header {
        request = request.header(name, value);
    }
    let request = request.body(Empty::new())?;
    let stream = TcpStream::connect(node).await?;
    if !asked.secure {
        return exchange(stream, request).await;
    }
    let roots = lab.traffic.as_ref().context("no load balancer answers")?.roots()?;
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from(host.to_owned())?;
    exchange(TlsConnector::from(Arc::new(config)).connect(name, stream).await?, request).await
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Empty<Bytes>>,
) -> Result<String> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await?;
    let (head, body) = answer.into_parts();
    let body = body.collect().await?.to_bytes();
    connection.abort();
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    let status = head.status.as_u16();
    let body = String::from_utf8_lossy(&body);
    // A page of the load balancer's own; a fixed response is no page.
    if header("server") == Some("awselb/2.0") && header("content-type") == Some("text/html") {
        return Ok(header("location").map_or_else(|| status.to_string(), |location| format!("{status} {location}")));
    }
    if let Ok(echo) = serde_json::from_str::<Value>(&body)
        && echo.is_object()
    {
        return Ok(format!("{status} {} {}", text(&echo, "/host"), text(&echo, "/path")));
    }
    Ok(format!("{status} {body}").trim_end().to_owned())
}

/// Waits until AWS tells that every target is healthy, and that no target group is empty.
async fn all_targets_are_healthy(lab: &Lab) -> Result<()> {
    wait_until(WITH_RETRIES, "all targets to be healthy", async || {
        let groups = lab.aws.elb.describe_target_groups().send().await?;
        for group in groups.target_groups().iter().filter(|group| !group.load_balancer_arns().is_empty()) {
            let (name, arn) = (group.target_group_name().unwrap_or_default(), group.target_group_arn());
            let known =
                lab.aws.elb.describe_target_health().set_target_group_arn(arn.map(str::to_owned)).send().await?;
            let states = known.target_health_descriptions().iter().map(|it| it.target_health()?.state());
            let states: Vec<_> = states.collect();
            let healthy = states.iter().all(|state| *state == Some(&TargetHealthStateEnum::Healthy));
            ensure!(!states.is_empty() && healthy, "those of {name} are {states:?}");
        }
        Ok(true)
    })
    .await
}

/// Finds that each object tells the load balancer that it ought to tell.
async fn tell(lab: &Lab, of: &[&str], same: bool) -> Result<()> {
    let mut hosts = Vec::new();
    for of in of {
        hosts.push(host_of(lab, of).await?);
    }
    let distinct: BTreeSet<&String> = hosts.iter().collect();
    ensure!(distinct.len() == if same { 1 } else { of.len() }, "{of:?} tell {hosts:?}");
    Ok(())
}

#[test]
fn clients_of_ingresses_are_answered_as_their_manifests_say() {
    run(async {
        let stage = all_are_answered(include_str!("answers/ingresses.yaml"), OF_INGRESSES).await?;
        tell(&stage, &["Ingress first", "Ingress second", "Ingress answers-too/third"], true).await?;
        tell(&stage, &["Ingress in-front", "Front in-front", "Ingress alone", "Ingress named"], false).await?;
        all_targets_are_healthy(&stage).await?;
        stage.end_lab();
        Ok(())
    });
}

#[test]
fn clients_of_services_are_answered_as_their_manifests_say() {
    run(async {
        let stage = all_are_answered(include_str!("answers/services.yaml"), OF_SERVICES).await?;
        tell(&stage, &["Service weighted", "Service weighted-too"], false).await?;
        all_targets_are_healthy(&stage).await?;
        stage.end_lab();
        Ok(())
    });
}
