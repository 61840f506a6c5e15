//! The parts that desired and observed resources are both made of.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    CertificateArn,
    authentication::{ClientId, CognitoProvider, JwtValidation, OidcProvider, SecretVersion},
};

macro_rules! string_enum {
    ($($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$variant_doc])* #[serde(rename = $word)] $variant),* }

        impl $name {
            /// Every word, in the order of declaration.
            pub const WORDS: &'static [&'static str] = &[$($word),*];

            /// The word that AWS's API uses.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }

            /// The value that AWS's API writes so, if there is one.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)* _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    )*};
}

string_enum! {
    /// The reach of the load balancer.
    Scheme {
        /// Only from inside the VPC.
        Internal = "internal",
        /// From the internet.
        InternetFacing = "internet-facing",
    }
    /// The types of load balancer that are made here.
    LoadBalancerKind {
        /// Application Load Balancer: HTTP and HTTPS, with rules.
        Application = "application",
        /// Network Load Balancer: TCP, UDP and TLS.
        Network = "network",
    }
    /// The address families of a load balancer or target group.
    IpAddressType {
        /// Only IPv4.
        Ipv4 = "ipv4",
        /// IPv6 targets.
        Ipv6 = "ipv6",
        /// Both.
        Dualstack = "dualstack",
        /// IPv6 from the internet, IPv4 inside.
        DualstackWithoutPublicIpv4 = "dualstack-without-public-ipv4",
    }
    /// The protocol of a listener.
    ListenerProtocol {
        /// Plain HTTP.
        Http = "HTTP",
        /// HTTP over TLS; needs a certificate.
        Https = "HTTPS",
        /// TCP, passed on as it is.
        Tcp = "TCP",
        /// TLS, ended at the load balancer; needs a certificate.
        Tls = "TLS",
        /// UDP.
        Udp = "UDP",
        /// TCP and UDP on one port.
        TcpUdp = "TCP_UDP",
        /// QUIC over UDP, passed on as it is: packets go to the target whose server id is in their connection id.
        Quic = "QUIC",
        /// TCP and QUIC on one port.
        TcpQuic = "TCP_QUIC",
    }
    /// The protocol from the load balancer to targets.
    TargetGroupProtocol {
        /// Plain HTTP.
        Http = "HTTP",
        /// HTTP over TLS; certificates are not checked by AWS.
        Https = "HTTPS",
        /// TCP.
        Tcp = "TCP",
        /// TLS; certificates are not checked by AWS.
        Tls = "TLS",
        /// UDP.
        Udp = "UDP",
        /// TCP and UDP on one port.
        TcpUdp = "TCP_UDP",
        /// QUIC over UDP, passed on as it is: packets go to the target whose server id is in their connection id.
        Quic = "QUIC",
        /// TCP and QUIC on one port.
        TcpQuic = "TCP_QUIC",
    }
    /// The protocol of health checks.
    HealthCheckProtocol {
        /// Plain HTTP.
        Http = "HTTP",
        /// HTTP over TLS; certificates are not checked by AWS.
        Https = "HTTPS",
        /// A connection that is accepted is healthy: only Network Load Balancers.
        Tcp = "TCP",
    }
    /// The version of HTTP towards targets.
    ProtocolVersion {
        /// HTTP/1.1
        Http1 = "HTTP1",
        /// HTTP/2
        Http2 = "HTTP2",
        /// gRPC
        Grpc = "GRPC",
    }
    /// The type of a group's targets.
    TargetType {
        /// EC2 instances, at the Service's node port.
        Instance = "instance",
        /// Addresses, of pods.
        Ip = "ip",
    }
}

impl IpAddressType {
    /// The types that an Application Load Balancer can have.
    pub const OF_LOAD_BALANCERS: &'static [&'static str] = &["ipv4", "dualstack", "dualstack-without-public-ipv4"];

    /// The types that a Network Load Balancer can have.
    pub const OF_NETWORK_LOAD_BALANCERS: &'static [&'static str] = &["ipv4", "dualstack"];

    /// Returns true if a load balancer of this type has IPv6 addresses.
    #[must_use]
    pub fn has_ipv6(self) -> bool {
        self != Self::Ipv4
    }

    /// Returns the type that holds where AWS reports none.
    pub fn unsaid() -> Self {
        Self::Ipv4
    }
}

impl ListenerProtocol {
    /// Returns true if clients use TLS, so that there are certificates and a policy.
    #[must_use]
    pub fn is_secure(self) -> bool {
        matches!(self, Self::Https | Self::Tls)
    }

    /// Returns true if packets of UDP are taken.
    #[must_use]
    pub fn has_udp(self) -> bool {
        matches!(self, Self::Udp | Self::TcpUdp | Self::Quic | Self::TcpQuic)
    }

    /// Returns true if it is QUIC, of which a load balancer has one listener and none of UDP beside it.
    #[must_use]
    pub fn is_quic(self) -> bool {
        matches!(self, Self::Quic | Self::TcpQuic)
    }
}

impl TargetGroupProtocol {
    /// The protocols from Application Load Balancers to targets.
    pub const OF_APPLICATION_LOAD_BALANCERS: &'static [&'static str] = &["HTTP", "HTTPS"];

    /// Returns true if UDP is forwarded, which QUIC runs over.
    #[must_use]
    pub fn has_udp(self) -> bool {
        matches!(self, Self::Udp | Self::TcpUdp | Self::Quic | Self::TcpQuic)
    }

    /// Returns true if TCP is forwarded, so that its port also answers health checks.
    #[must_use]
    pub fn has_tcp(self) -> bool {
        !matches!(self, Self::Udp | Self::Quic)
    }

    /// Returns true if AWS takes only targets with a QUIC server id.
    #[must_use]
    pub fn is_quic(self) -> bool {
        matches!(self, Self::Quic | Self::TcpQuic)
    }
}

/// An action of a listener or a rule. `G` names a target group: a reference in the desired state, an ARN in the observed one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Action<G> {
    /// To target groups, by weight.
    Forward {
        /// In the order in which they were given.
        target_groups: Vec<WeightedTargetGroup<G>>,
        /// The stickiness of a client to one group; absent is AWS's default, off.
        stickiness: Option<Stickiness>,
    },
    /// To another URL. An absent part is kept (`#{host}` and so on).
    Redirect {
        /// Host of the new URL.
        host: Option<String>,
        /// Path, with its leading slash.
        path: Option<String>,
        /// Port 1 to 65535, or `#{port}`.
        port: Option<String>,
        /// `HTTP`, `HTTPS` or `#{protocol}`.
        protocol: Option<String>,
        /// Query without the question mark.
        query: Option<String>,
        /// `HTTP_301` or `HTTP_302`.
        status_code: String,
    },
    /// An answer of the load balancer's own.
    FixedResponse {
        /// For example `text/plain`.
        content_type: Option<String>,
        /// At most 1,024 bytes.
        message_body: Option<String>,
        /// 2XX, 4XX or 5XX.
        status_code: String,
    },
    /// Lets signed-in users of a Cognito user pool pass to the next action.
    AuthenticateCognito(CognitoProvider),
    /// Lets signed-in users of another provider pass to the next action.
    AuthenticateOidc {
        /// The provider.
        provider: OidcProvider,
        /// The value that AWS reports; `None` where AWS has not been asked.
        #[serde(skip)]
        client_id: Option<ClientId>,
        /// The state of the Secret that the controller has sent to AWS; `None` where that is not known.
        secret_version: Option<SecretVersion>,
    },
    /// Lets requests with a valid token pass to the next action.
    JwtValidation(JwtValidation),
    /// A kind of action that is not known here, by its type. Never equal to one that is wanted.
    Other(String),
}

impl<G> Action<G> {
    /// Returns true if it is the answer of a listener without a default backend.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::FixedResponse { status_code, message_body, .. } if status_code == "404" && message_body.is_none())
    }

    /// Returns the same action with its target groups named in another way.
    ///
    /// # Errors
    /// Returns the error of `name` for a group that it does not know.
    pub fn try_map<H, E>(&self, mut name: impl FnMut(&G) -> Result<H, E>) -> Result<Action<H>, E> {
        Ok(match self {
            Self::Forward { target_groups, stickiness } => Action::Forward {
                target_groups: target_groups
                    .iter()
                    .map(|t| Ok(WeightedTargetGroup { group: name(&t.group)?, weight: t.weight }))
                    .collect::<Result<_, E>>()?,
                stickiness: stickiness.clone(),
            },
            Self::Redirect { host, path, port, protocol, query, status_code } => Action::Redirect {
                host: host.clone(),
                path: path.clone(),
                port: port.clone(),
                protocol: protocol.clone(),
                query: query.clone(),
                status_code: status_code.clone(),
            },
            Self::FixedResponse { content_type, message_body, status_code } => Action::FixedResponse {
                content_type: content_type.clone(),
                message_body: message_body.clone(),
                status_code: status_code.clone(),
            },
            Self::AuthenticateCognito(provider) => Action::AuthenticateCognito(provider.clone()),
            Self::AuthenticateOidc { provider, client_id, secret_version } => Action::AuthenticateOidc {
                provider: provider.clone(),
                client_id: client_id.clone(),
                secret_version: secret_version.clone(),
            },
            Self::JwtValidation(tokens) => Action::JwtValidation(tokens.clone()),
            Self::Other(kind) => Action::Other(kind.clone()),
        })
    }

    /// The target groups that the action names.
    pub fn target_groups(&self) -> impl Iterator<Item = &G> {
        match self {
            Self::Forward { target_groups, .. } => target_groups.as_slice(),
            _ => &[],
        }
        .iter()
        .map(|t| &t.group)
    }
}

/// A target group of a forward action.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WeightedTargetGroup<G> {
    /// The target group.
    pub group: G,
    /// 0 to 999; without meaning if the action names only one group.
    pub weight: Option<i32>,
}

/// Stickiness between the target groups of one forward action.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stickiness {
    /// On or off.
    pub enabled: bool,
    /// 1 to 604800 seconds.
    pub duration_seconds: Option<i32>,
}

/// A condition of a rule. The order of values is kept by AWS, so it counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Condition {
    /// The Host header: glob patterns, or regular expressions.
    HostHeader {
        /// Glob patterns.
        values: Vec<String>,
        /// Regular expressions.
        regex_values: Vec<String>,
    },
    /// The path of the URL.
    PathPattern {
        /// Glob patterns.
        values: Vec<String>,
        /// Regular expressions.
        regex_values: Vec<String>,
    },
    /// Any other header.
    HttpHeader {
        /// Its name.
        name: String,
        /// Glob patterns.
        values: Vec<String>,
        /// Regular expressions.
        regex_values: Vec<String>,
    },
    /// GET, POST and so on.
    HttpRequestMethod {
        /// Methods, compared exactly.
        values: Vec<String>,
    },
    /// Pairs of the query.
    QueryString {
        /// Glob patterns of keys and values.
        values: Vec<QueryStringValue>,
    },
    /// The client's address.
    SourceIp {
        /// CIDR blocks.
        values: Vec<String>,
    },
    /// A field that is not known here, by its name.
    Other(String),
}

impl Condition {
    /// The name of the field, as AWS writes it.
    #[must_use]
    pub fn field(&self) -> &str {
        match self {
            Self::HostHeader { .. } => "host-header",
            Self::PathPattern { .. } => "path-pattern",
            Self::HttpHeader { .. } => "http-header",
            Self::HttpRequestMethod { .. } => "http-request-method",
            Self::QueryString { .. } => "query-string",
            Self::SourceIp { .. } => "source-ip",
            Self::Other(field) => field,
        }
    }
}

/// A pair of a query-string condition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct QueryStringValue {
    /// Glob pattern of the key; absent matches every key.
    pub key: Option<String>,
    /// Glob pattern of the value.
    pub value: String,
}

/// The health check of a target group. Times are seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// A port number, or `traffic-port`.
    pub port: String,
    /// HTTP or HTTPS; TCP for Network Load Balancers too.
    pub protocol: HealthCheckProtocol,
    /// With its leading slash; for gRPC `/package.service/method`. None for TCP.
    pub path: Option<String>,
    /// Between checks, 5 to 300.
    pub interval_seconds: i32,
    /// For an answer, 2 to 120.
    pub timeout_seconds: i32,
    /// Successes in a row that make a target healthy, 2 to 10.
    pub healthy_threshold: i32,
    /// Failures in a row that make it unhealthy, 2 to 10.
    pub unhealthy_threshold: i32,
    /// The answers that count as success. None for TCP.
    pub matcher: Option<Matcher>,
}

/// Codes that count as healthy, as AWS writes them (`200`, `200-299`, `200,301`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Matcher {
    /// HTTP status codes.
    Http(String),
    /// gRPC status codes.
    Grpc(String),
}

/// The certificates of a listener with TLS.
impl CertificateArn {
    /// Returns true if the text has the form of a certificate's ARN in ACM or IAM, in any partition.
    #[must_use]
    pub fn looks_right(&self) -> bool {
        let mut parts = self.as_str().splitn(6, ':');
        parts.next() == Some("arn")
            && parts.next().is_some_and(|p| p.starts_with("aws"))
            && matches!(parts.next(), Some("acm" | "iam"))
            && parts.nth(2).is_some_and(|r| r.starts_with("certificate/") || r.starts_with("server-certificate/"))
    }
}
