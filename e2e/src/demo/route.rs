//! The requests that the load balancers of the examples answer.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use albatross_fabric::load::{Answer, Load, LoadSpec, Resolve, Scheme, Tls};
use anyhow::{Context as _, Result, bail};
use rustls::RootCertStore;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::lab::cluster::{Cluster, items, text};

const ALB: &str = "alb.ingress.kubernetes.io/";
const NLB: &str = "service.beta.kubernetes.io/aws-load-balancer-";
const HOST_NAME: &str = "/status/loadBalancer/ingress/0/hostname";
/// Between two looks at a request that may have failed.
const LOOK: Duration = Duration::from_millis(20);

/// An object that has a load balancer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Object {
    pub(super) kind: &'static str,
    pub(super) name: String,
}

impl Object {
    /// Returns those among these objects.
    pub(super) fn among(objects: &[Value]) -> Vec<Self> {
        let of = |object: &Value| {
            let kind = match text(object, "/kind") {
                "Ingress" => "Ingress",
                "Service" if text(object, "/spec/type") == "LoadBalancer" => "Service",
                _ => return None,
            };
            Some(Self { kind, name: text(object, "/metadata/name").to_owned() })
        };
        objects.iter().filter_map(of).collect()
    }

    pub(super) fn api_version(&self) -> &'static str {
        if self.kind == "Ingress" { "networking.k8s.io/v1" } else { "v1" }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// The host names that objects publish.
#[derive(Clone, Debug, Default)]
pub(super) struct Names(Arc<Mutex<BTreeMap<String, String>>>);

impl Names {
    fn locked(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the name of an object, which is written as [`Object`] shows itself; empty if none is published.
    pub(super) fn of(&self, object: &str) -> String {
        self.locked().get(object).cloned().unwrap_or_default()
    }

    /// Reads the objects anew. Returns true if each has a name. One that is gone or has none now keeps its last one.
    pub(super) async fn refresh(&self, cluster: &Cluster, namespace: &str, objects: &[Object]) -> Result<bool> {
        for object in objects {
            let found = cluster.get(object.api_version(), object.kind, Some(namespace), &object.name).await?;
            let name = found.as_ref().map_or("", |found| text(found, HOST_NAME));
            if !name.is_empty() {
                self.locked().insert(object.to_string(), name.to_owned());
            }
        }
        let names = self.locked();
        Ok(objects.iter().all(|object| names.contains_key(&object.to_string())))
    }
}

/// The right answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Expect {
    /// 200 of a pod of this Deployment.
    Pod(String),
    /// A redirect to this URL.
    Redirect(String),
}

/// A request to a load balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// For people.
    pub(super) about: String,
    /// The object that the load balancer is for.
    pub(super) of: Object,
    /// The port that clients dial.
    port: u16,
    is_secure: bool,
    /// The host that is asked for, which TLS verifies.
    host: String,
    path: String,
    expect: Expect,
}

/// Returns the requests to all load balancers of these objects. Where an object names no host, `host` is asked for.
/// `port_offset` is added to ports.
///
/// # Errors
/// Returns an error if a Service selects the pods of no Deployment, or an annotation cannot be read.
pub(super) fn of_objects(objects: &[Value], host: &str, port_offset: u16) -> Result<Vec<Route>> {
    let mut routes = Vec::new();
    for object in objects {
        match text(object, "/kind") {
            "Ingress" => routes.extend(of_ingress(objects, object, host, port_offset)?),
            "Service" if text(object, "/spec/type") == "LoadBalancer" => {
                routes.extend(of_service(objects, object, host, port_offset)?);
            }
            _ => {}
        }
    }
    Ok(routes)
}

fn annotation<'a>(object: &'a Value, prefix: &str, name: &str) -> Option<&'a str> {
    object.pointer("/metadata/annotations")?.get(format!("{prefix}{name}"))?.as_str()
}

/// Returns the Deployment whose pods a Service selects.
fn deployment(objects: &[Value], service: &str) -> Result<String> {
    let named = |object: &&Value| (text(object, "/kind"), text(object, "/metadata/name")) == ("Service", service);
    let found = objects.iter().find(named).with_context(|| format!("no Service {service}"))?;
    let selector = found.pointer("/spec/selector").and_then(Value::as_object);
    let selector = selector.with_context(|| format!("Service {service} selects no pods"))?;
    let is_selected = |object: &&Value| {
        let labels = object.pointer("/spec/template/metadata/labels");
        text(object, "/kind") == "Deployment"
            && selector.iter().all(|(key, value)| labels.and_then(|it| it.get(key)) == Some(value))
    };
    let found = objects.iter().find(is_selected).with_context(|| format!("no Deployment for Service {service}"))?;
    Ok(text(found, "/metadata/name").to_owned())
}

fn of_ingress(objects: &[Value], ingress: &Value, host: &str, port_offset: u16) -> Result<Vec<Route>> {
    let of = Object { kind: "Ingress", name: text(ingress, "/metadata/name").to_owned() };
    let ports = annotation(ingress, ALB, "listen-ports").unwrap_or(r#"[{"HTTP": 80}]"#);
    let ports: Vec<BTreeMap<String, u16>> = serde_json::from_str(ports).context("listen-ports")?;
    let redirect =
        annotation(ingress, ALB, "ssl-redirect").map(str::parse::<u16>).transpose().context("ssl-redirect")?;
    let mut paths = Vec::new();
    for rule in items(ingress, "/spec/rules") {
        let own = text(rule, "/host");
        for path in items(rule, "/http/paths") {
            let app = deployment(objects, text(path, "/backend/service/name"))?;
            paths.push((if own.is_empty() { host } else { own }, text(path, "/path"), app));
        }
    }
    let mut routes = Vec::new();
    for (protocol, port) in ports.iter().flatten() {
        let route = |about: String, (host, path): (&str, &str), expect| Route {
            about,
            of: of.clone(),
            port: port.saturating_add(port_offset),
            is_secure: protocol == "HTTPS",
            host: host.to_owned(),
            path: path.to_owned(),
            expect,
        };
        if let (Some(to), "HTTP", Some((host, path, _))) = (redirect, protocol.as_str(), paths.first()) {
            let expect = Expect::Redirect(format!("https://{host}:{}{path}", to.saturating_add(port_offset)));
            routes.push(route("HTTP sends clients to HTTPS".to_owned(), (host, path), expect));
            continue;
        }
        for (host, path, app) in &paths {
            let about = format!("{protocol} {path}, answered by pods of {app}");
            routes.push(route(about, (host, path), Expect::Pod(app.clone())));
        }
    }
    Ok(routes)
}

fn of_service(objects: &[Value], service: &Value, host: &str, port_offset: u16) -> Result<Vec<Route>> {
    let of = Object { kind: "Service", name: text(service, "/metadata/name").to_owned() };
    let app = deployment(objects, &of.name)?;
    let has_certificate = annotation(service, NLB, "ssl-cert").is_some();
    let secure = annotation(service, NLB, "ssl-ports").unwrap_or("*");
    let mut routes = Vec::new();
    for port in items(service, "/spec/ports") {
        let number = port.get("port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok());
        let number = number.with_context(|| format!("{of} has a port without a number"))?;
        let is_named = |word: &str| word == "*" || word == text(port, "/name") || word == number.to_string();
        let is_secure = has_certificate && secure.split(',').map(str::trim).any(is_named);
        let protocol = if is_secure { "TLS" } else { "TCP" };
        routes.push(Route {
            about: format!("{protocol} port {number} of {of}, answered by pods of {app}"),
            of: of.clone(),
            port: number.saturating_add(port_offset),
            is_secure,
            host: host.to_owned(),
            path: "/".to_owned(),
            expect: Expect::Pod(app.clone()),
        });
    }
    Ok(routes)
}

impl Route {
    /// Returns the command that sends the request to a node of the load balancer.
    pub(super) fn curl(&self, at: Ipv4Addr, authority: &Path) -> String {
        // The answer of a redirect is in its headers.
        let headers = if matches!(self.expect, Expect::Redirect(_)) { " -i" } else { "" };
        let authority = quoted(&authority.display().to_string());
        let authority = if self.is_secure { format!(" --cacert {authority}") } else { String::new() };
        // All ports of the host are the node's, so that curl can follow a redirect.
        format!("curl -sS{headers} --noproxy '*'{authority} --connect-to ::{at}: {}", self.url())
    }

    fn url(&self) -> String {
        format!("{}://{}{}", if self.is_secure { "https" } else { "http" }, self.authority(), self.path)
    }

    /// Returns the host with its port, unless that is the scheme's own.
    fn authority(&self) -> String {
        let own = if self.is_secure { 443 } else { 80 };
        if self.port == own { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }

    /// Returns the request as a load, whose host is resolved by the object's name.
    pub(super) fn load(&self, resolve: Resolve, roots: &Arc<RootCertStore>) -> LoadSpec {
        let tls = Tls { server_name: self.host.clone(), roots: Some(roots.clone()) };
        LoadSpec {
            title: self.about.clone(),
            scheme: if self.is_secure { Scheme::Https(tls) } else { Scheme::Http },
            host: Some(self.authority()),
            path: self.path.clone(),
            ..LoadSpec::new(&self.of.to_string(), self.port, resolve)
        }
    }

    /// Sends the request to a node of the load balancer.
    pub(super) async fn ask(&self, at: Ipv4Addr, roots: &Arc<RootCertStore>) -> Result<Answer> {
        let resolve: Resolve = Arc::new(move |_| vec![at]);
        let (tell, mut told) = mpsc::unbounded_channel();
        let load = Load::start(LoadSpec {
            rate: 1,
            new_connections: 1.0,
            judge: Arc::new(move |answer| {
                // The receiver is gone when the first answer has come.
                let _ = tell.send(answer.clone());
                Ok("answered".into())
            }),
            ..self.load(resolve, roots)
        })?;
        let failed = async {
            while load.figures().lost + load.figures().wrong == 0 {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            Some(answer) = told.recv() => Ok(answer),
            () = failed => {
                let report = load.report();
                let why = report.failures.first().map(|failure| format!("{}: {}", failure.kind, failure.detail));
                bail!("{} at {at}: {}", self.url(), why.unwrap_or_default())
            }
        }
    }

    /// Returns an answer in a line for people.
    ///
    /// # Errors
    /// Returns an error if it is not the right one.
    pub(super) fn checked(&self, answer: &Answer) -> Result<String> {
        let (pod, location) = (answer.pod().unwrap_or_default(), answer.header("location"));
        match &self.expect {
            Expect::Pod(app) if answer.status == 200 && pod.starts_with(&format!("{app}-")) => {
                Ok(answer.text().trim_end().to_owned())
            }
            Expect::Redirect(to) if answer.status == 301 && answer.is_of_load_balancer() && location == to => {
                Ok(format!("{} {location}", answer.status))
            }
            expect => bail!(
                "{}: expected {expect}, and got {} of {}, location `{location}`: {}",
                self.url(),
                answer.status,
                if pod.is_empty() { "no pod" } else { pod },
                answer.text().trim_end(),
            ),
        }
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(app) => write!(f, "200 of a pod of {app}"),
            Self::Redirect(to) => write!(f, "301 of the load balancer to {to}"),
        }
    }
}

/// Returns a word as a shell reads it.
pub(super) fn quoted(word: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./:=@%+,".contains(letter);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::lab::cluster::documents;
    use crate::lab::workspace;
    use crate::traffic::client::tests::answer;

    fn routes(port_offset: u16) -> Vec<Route> {
        let mut objects = Vec::new();
        for file in ["ingress.yaml", "service.yaml"] {
            let yaml = std::fs::read_to_string(workspace().join("examples").join(file)).unwrap();
            objects.extend(documents(&yaml).unwrap());
        }
        of_objects(&objects, "example.com", port_offset).unwrap()
    }

    #[test]
    fn each_request_of_the_examples_has_a_command() {
        let commands = |port_offset| -> Vec<String> {
            let command = |route: &Route| {
                let command = route.curl(Ipv4Addr::new(127, 20, 0, 1), Path::new("/tmp/lab/ca.pem"));
                format!("{}: {command}", route.about)
            };
            routes(port_offset).iter().map(command).collect()
        };
        let expected = [
            "HTTP sends clients to HTTPS: curl -sS -i --noproxy '*' --connect-to ::127.20.0.1: http://example.com/path1",
            "HTTPS /path1, answered by pods of service1: curl -sS --noproxy '*' --cacert /tmp/lab/ca.pem --connect-to ::127.20.0.1: https://example.com/path1",
            "HTTPS /path2, answered by pods of service2: curl -sS --noproxy '*' --cacert /tmp/lab/ca.pem --connect-to ::127.20.0.1: https://example.com/path2",
            "TCP port 9376 of Service shop-direct, answered by pods of service1: curl -sS --noproxy '*' --connect-to ::127.20.0.1: http://example.com:9376/",
            "TLS port 443 of Service shop-direct, answered by pods of service1: curl -sS --noproxy '*' --cacert /tmp/lab/ca.pem --connect-to ::127.20.0.1: https://example.com/",
        ];
        assert_eq!(commands(0), expected);
        let urls = |commands: Vec<String>| -> Vec<String> {
            commands.iter().filter_map(|command| command.rsplit_once(' ')).map(|(_, url)| url.to_owned()).collect()
        };
        let expected = [
            "http://example.com:10080/path1",
            "https://example.com:10443/path1",
            "https://example.com:10443/path2",
            "http://example.com:19376/",
            "https://example.com:10443/",
        ];
        assert_eq!(urls(commands(10_000)), expected);
    }

    #[test]
    fn an_answer_is_right_for_its_request_only() {
        let of_pod = answer(200, &[("x-pod", "service1-a-b")], "pod service1-a-b GET /path1\n");
        let other = answer(200, &[("x-pod", "service11-a-b")], "pod service11-a-b GET /path1\n");
        let location = ("location", "https://example.com:443/path1");
        let redirect = answer(301, &[("server", "awselb/2.0"), location], "moved");
        let not_found = answer(404, &[("server", "awselb/2.0")], "");
        let routes = routes(0);
        let judged = |number: usize| {
            [&of_pod, &other, &redirect, &not_found]
                .map(|answer| routes[number].checked(answer).map_err(|it| it.to_string()))
        };
        let wrong = |what: &str, expected: &str, got: &str| {
            Err(format!("{what}://example.com/path1: expected {expected}, and got {got}"))
        };
        let expected = "301 of the load balancer to https://example.com:443/path1";
        let no_redirect = |got: &str| wrong("http", expected, got);
        let to = "301 of no pod, location `https://example.com:443/path1`: moved";
        assert_eq!(
            judged(0),
            [
                no_redirect("200 of service1-a-b, location ``: pod service1-a-b GET /path1"),
                no_redirect("200 of service11-a-b, location ``: pod service11-a-b GET /path1"),
                Ok("301 https://example.com:443/path1".to_owned()),
                no_redirect("404 of no pod, location ``: "),
            ]
        );
        let no_pod = |got: &str| wrong("https", "200 of a pod of service1", got);
        assert_eq!(
            judged(1),
            [
                Ok("pod service1-a-b GET /path1".to_owned()),
                no_pod("200 of service11-a-b, location ``: pod service11-a-b GET /path1"),
                no_pod(to),
                no_pod("404 of no pod, location ``: "),
            ]
        );
    }

    #[test]
    fn a_service_without_pods_is_an_error() {
        let service = json!({"kind": "Service", "metadata": {"name": "web"}, "spec": {"type": "LoadBalancer", "selector": {"app": "web"}}});
        let error = of_objects(&[service], "example.com", 0).unwrap_err().to_string();
        assert_eq!(error, "no Deployment for Service web");
    }

    #[test]
    fn a_word_is_quoted_where_a_shell_would_split_it() {
        let words = ["/tmp/lab-1/ca.pem", "/a b", "it's", ""].map(quoted);
        assert_eq!(words, ["/tmp/lab-1/ca.pem", "'/a b'", r"'it'\''s'", "''"]);
    }
}
