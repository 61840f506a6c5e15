//! Which servers a pod has.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio_rustls::TlsAcceptor;

use super::{
    ContainerPort, ContainerSpec, PodSpec, Transport,
    echo_basic::{self, Context, EchoBasic, Part},
    tls::{self, Material},
};

/// A server of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) port: u16,
    pub(super) transport: Transport,
    pub(super) serves: Serves<Material>,
}

/// The behaviour of a server, with certificates and keys as `T`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Serves<T> {
    /// Whatever a client speaks is echoed.
    Echo {
        /// For clients that speak TLS.
        tls: T,
    },
    /// HTTP with this body.
    Text(String),
    /// gRPC: `Echo` echoes, and `FixedResponse` answers with this text.
    Grpc {
        /// The text.
        fixed: String,
    },
    /// A server of the Gateway API's conformance tests.
    EchoBasic(Arc<EchoBasic>, Option<T>),
}

/// A certificate that is ready for use.
pub(super) type Ready = Serves<TlsAcceptor>;

impl Serves<Material> {
    /// Reads certificates and keys.
    pub(super) fn prepare(self) -> Result<Ready, String> {
        Ok(match self {
            Self::Echo { tls } => Serves::Echo { tls: tls::acceptor(&tls)? },
            Self::Text(text) => Serves::Text(text),
            Self::Grpc { fixed } => Serves::Grpc { fixed },
            Self::EchoBasic(server, tls) => Serves::EchoBasic(server, tls.as_ref().map(tls::acceptor).transpose()?),
        })
    }
}

/// Returns the name that decides how an image behaves: the last element, without tag and digest.
fn kind(image: &str) -> &str {
    let image = image.split_once('@').map_or(image, |(name, _)| name);
    let last = image.rsplit_once('/').map_or(image, |(_, last)| last);
    last.split_once(':').map_or(last, |(name, _)| name)
}

/// Returns true if an image is of a server whose behaviour is known by its name.
#[must_use]
pub fn is_known(image: &str) -> bool {
    ["echo-basic", "colorteller", "hello-multi", "udp-echoserver", "grpc-echoserver"].contains(&kind(image))
}

/// Returns the servers of a pod. Of two at the same port, the pod has the first one.
pub(super) fn servers(pod: &PodSpec) -> Vec<Server> {
    let mut taken = BTreeSet::new();
    let all = pod.containers.iter().flat_map(|container| of_container(pod, container));
    all.filter(|server| taken.insert((server.transport, server.port))).collect()
}

fn of_container(pod: &PodSpec, container: &ContainerSpec) -> Vec<Server> {
    let tcp = |number| ContainerPort { number, transport: Transport::Tcp };
    let udp = |number| ContainerPort { number, transport: Transport::Udp };
    let or = |others: &[ContainerPort]| match container.ports.as_slice() {
        [] => others.to_vec(),
        ports => ports.to_vec(),
    };
    let at = |ports: Vec<ContainerPort>, serves: Serves<Material>| {
        let server =
            |port: ContainerPort| Server { port: port.number, transport: port.transport, serves: serves.clone() };
        ports.into_iter().map(server).collect::<Vec<_>>()
    };
    let variable = |name: &str| container.environment.get(name).cloned().filter(|value| !value.is_empty());
    let port = |name: &str, otherwise: u16| variable(name).and_then(|value| value.parse().ok()).unwrap_or(otherwise);
    let echo = || Serves::Echo { tls: tls_files(&container.files) };
    match kind(&container.image) {
        "echo-basic" => echo_basic_servers(pod, container),
        "colorteller" => {
            let color = Serves::Text(variable("COLOR").unwrap_or_default());
            at(vec![tcp(port("SERVER_PORT", 8080))], color)
        }
        "hello-multi" => {
            let hello = Serves::Text(format!("Hello from {}\n", pod.name));
            at([tcp(80)].into_iter().chain(container.ports.iter().copied()).collect(), hello)
        }
        "udp-echoserver" => at(or(&[udp(8080), tcp(8080)]), echo()),
        "grpc-echoserver" => {
            let fixed = container.arguments.first().cloned().unwrap_or_default();
            at(or(&[tcp(50051)]), Serves::Grpc { fixed })
        }
        _ => at(or(&[tcp(80), tcp(8080)]), echo()),
    }
}

/// The certificate of a Secret that is mounted, as Kubernetes names its files.
fn tls_files(files: &BTreeMap<String, Vec<u8>>) -> Material {
    let found = files.iter().find_map(|(path, certificate)| {
        let folder = path.strip_suffix("/tls.crt")?;
        Some((certificate.clone(), files.get(&format!("{folder}/tls.key"))?.clone()))
    });
    match found {
        Some((certificate, key)) => Material::Pem { certificate, key, clients: None },
        None => Material::SelfSigned,
    }
}

fn echo_basic_servers(pod: &PodSpec, container: &ContainerSpec) -> Vec<Server> {
    let variable = |name: &str| container.environment.get(name).cloned().unwrap_or_default();
    let is_set = |name: &str| !variable(name).is_empty();
    let port = |name: &str, otherwise: u16| variable(name).parse().unwrap_or(otherwise);
    let file = |name: &str| container.files.get(&variable(name)).cloned();
    // Its servers name the variable of the key differently.
    let key = || ["TLS_SERVER_PRIVKEY", "TLS_SERVER_PRIV_KEY"].into_iter().find_map(file);
    let material = file("TLS_SERVER_CERT").zip(key());
    let material =
        material.map(|(certificate, key)| Material::Pem { certificate, key, clients: file("TLS_CLIENT_CACERTS") });
    let or_name = |value: String| if value.is_empty() { pod.name.clone() } else { value };
    let context = Context {
        namespace: variable("NAMESPACE"),
        ingress: variable("INGRESS_NAME"),
        service: variable("SERVICE_NAME"),
        pod: or_name(variable("POD_NAME")),
    };
    let server = |part: Part, port: u16, tls: Option<Material>| {
        let transport = if part == Part::Udp { Transport::Udp } else { Transport::Tcp };
        let ports = match part {
            Part::Tcp => {
                vec![echo_basic::number(&variable("TCP_PORT"), 3000), echo_basic::number(&variable("TLS_PORT"), 8443)]
            }
            _ => vec![echo_basic::number(&variable("HTTP_PORT"), 3000)],
        };
        let server = Arc::new(EchoBasic::new(part, context.clone(), ports));
        Server { port, transport, serves: Serves::EchoBasic(server, tls) }
    };
    let with_tls = |part: Part, name: &str| {
        let own = material.clone();
        own.map(|material| server(part, port(name, 8443), Some(material)))
    };
    if is_set("GRPC_ECHO_SERVER") {
        let plain = server(Part::Grpc, port("HTTP_PORT", 3000), None);
        return [plain].into_iter().chain(with_tls(Part::Grpc, "HTTPS_PORT")).collect();
    }
    let both = is_set("L4_ECHO_SERVER");
    if both || is_set("TCP_ECHO_SERVER") || is_set("UDP_ECHO_SERVER") {
        let mut servers = Vec::new();
        let of_tcp = both || is_set("TCP_ECHO_SERVER");
        if of_tcp {
            servers.push(server(Part::Tcp, port("TCP_PORT", 3000), None));
            servers.extend(with_tls(Part::Tcp, "TLS_PORT"));
        }
        if both || !of_tcp {
            servers.push(server(Part::Udp, port("UDP_PORT", 8080), None));
        }
        return servers;
    }
    let plain = server(Part::Http, port("HTTP_PORT", 3000), None);
    let h2c = server(Part::H2c, port("H2C_PORT", 3001), None);
    [plain, h2c].into_iter().chain(with_tls(Part::Http, "HTTPS_PORT")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(image: &str, environment: &[(&str, &str)], ports: &[(u16, Transport)]) -> PodSpec {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let file = |path: &str| (path.to_owned(), b"pem".to_vec());
        let container = ContainerSpec {
            image: image.to_owned(),
            ports: ports
                .iter()
                .map(|(number, transport)| ContainerPort { number: *number, transport: *transport })
                .collect(),
            environment: environment.iter().map(owned).collect(),
            files: [file("/c/crt"), file("/c/key")].into(),
            ..ContainerSpec::default()
        };
        PodSpec { name: "web".to_owned(), containers: vec![container], ..PodSpec::default() }
    }

    /// The servers as `port/protocol what`.
    fn lines(pod: &PodSpec) -> Vec<String> {
        let line = |server: Server| {
            let transport = if server.transport == Transport::Tcp { "tcp" } else { "udp" };
            let what = match server.serves {
                Serves::Echo { .. } => "echo".to_owned(),
                Serves::Text(text) => text,
                Serves::Grpc { .. } => "grpc".to_owned(),
                Serves::EchoBasic(server, tls) => {
                    format!("{:?}{}", server.part, if tls.is_some() { " with TLS" } else { "" })
                }
            };
            format!("{}/{transport} {what}", server.port)
        };
        servers(pod).into_iter().map(line).collect()
    }

    #[test]
    fn the_image_decides_which_servers_a_pod_has() {
        let (tcp, udp) = (Transport::Tcp, Transport::Udp);
        let tls = [("TLS_SERVER_CERT", "/c/crt"), ("TLS_SERVER_PRIVKEY", "/c/key")];
        let named = [("TLS_SERVER_CERT", "/c/crt"), ("TLS_SERVER_PRIV_KEY", "/c/key")];
        let with = |name: &'static str| [&[(name, "1")], named.as_slice()].concat();
        type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [(u16, Transport)], &'a [&'a str]);
        let rows: [Row<'_>; 13] = [
            ("nginx", &[], &[], &["80/tcp echo", "8080/tcp echo"]),
            ("r.example:5000/a/b:1@sha256:0", &[], &[(53, udp), (81, tcp)], &["53/udp echo", "81/tcp echo"]),
            ("x/colorteller:latest", &[("SERVER_PORT", "81"), ("COLOR", "blue")], &[(1, tcp)], &["81/tcp blue"]),
            ("colorteller", &[], &[], &["8080/tcp "]),
            ("hello-multi", &[], &[(80, tcp), (443, tcp)], &["80/tcp Hello from web\n", "443/tcp Hello from web\n"]),
            ("udp-echoserver", &[], &[], &["8080/udp echo", "8080/tcp echo"]),
            ("grpc-echoserver@sha256:0", &[], &[], &["50051/tcp grpc"]),
            ("gcr.io/k8s/echo-basic:v1", &[], &[(3000, tcp)], &["3000/tcp Http", "3001/tcp H2c"]),
            ("echo-basic", &tls, &[], &["3000/tcp Http", "3001/tcp H2c", "8443/tcp Http with TLS"]),
            ("echo-basic", &with("GRPC_ECHO_SERVER"), &[], &["3000/tcp Grpc", "8443/tcp Grpc with TLS"]),
            ("echo-basic", &with("TCP_ECHO_SERVER"), &[], &["3000/tcp Tcp", "8443/tcp Tcp with TLS"]),
            ("echo-basic", &[("UDP_ECHO_SERVER", "1"), ("UDP_PORT", "53")], &[], &["53/udp Udp"]),
            ("echo-basic", &[("L4_ECHO_SERVER", "1")], &[], &["3000/tcp Tcp", "8080/udp Udp"]),
        ];
        for (image, environment, ports, expected) in rows {
            assert_eq!(lines(&pod(image, environment, ports)), expected, "{image} {environment:?}");
        }
    }

    #[test]
    fn of_two_servers_at_a_port_there_is_one() {
        let mut pod = pod("nginx", &[], &[(80, Transport::Tcp)]);
        pod.containers.extend(self::pod("colorteller", &[("SERVER_PORT", "80")], &[]).containers);
        assert_eq!(lines(&pod), ["80/tcp echo"]);
    }

    #[test]
    fn a_mounted_certificate_is_used() {
        let files = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), name.as_bytes().to_vec())).collect();
        assert_eq!(tls_files(&files(&["/a/tls.crt", "/b/tls.key"])), Material::SelfSigned);
        let pem = Material::Pem { certificate: b"/a/tls.crt".to_vec(), key: b"/a/tls.key".to_vec(), clients: None };
        assert_eq!(tls_files(&files(&["/a/tls.crt", "/a/tls.key"])), pem);
    }
}
