//! The state of ELB v2, EC2 and ACM as far as it decides where a request goes: plain data, as the emulator sends it.
//!
//! Field names in JSON are those of this module in camelCase. Maps have ARNs or ids as keys.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Everything in the account that carries traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Account {
    /// Grows with each change.
    pub version: u64,
    /// By ARN.
    pub load_balancers: BTreeMap<String, LoadBalancer>,
    /// By ARN.
    pub target_groups: BTreeMap<String, TargetGroup>,
    /// By ARN.
    pub certificates: BTreeMap<String, Certificate>,
    /// Certificate authorities in PEM, by the ARN of the trust store.
    pub trust_stores: BTreeMap<String, String>,
    /// By id.
    pub security_groups: BTreeMap<String, SecurityGroup>,
    /// By id.
    pub subnets: BTreeMap<String, Subnet>,
    /// By id.
    pub instances: BTreeMap<String, Instance>,
    /// CIDR blocks by the id of the prefix list.
    pub prefix_lists: BTreeMap<String, BTreeSet<IpNet>>,
    /// The security groups of each private address in the VPC: of instances, and of pods on their interfaces.
    pub addresses: BTreeMap<IpAddr, BTreeSet<String>>,
}

/// A load balancer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancer {
    /// The name.
    pub name: String,
    /// The host name that clients resolve.
    pub dns_name: String,
    /// The kind.
    pub kind: Kind,
    /// `active` or `provisioning`; only an active one answers.
    pub active: bool,
    /// True if `internet-facing`.
    pub public: bool,
    /// Ids; there is a node in each.
    pub subnets: BTreeSet<String>,
    /// Ids; empty for a Network Load Balancer without any, which lets everything in.
    pub security_groups: BTreeSet<String>,
    /// As `DescribeLoadBalancerAttributes` returns them.
    pub attributes: BTreeMap<String, String>,
    /// By port.
    pub listeners: BTreeMap<u16, Listener>,
}

/// The kind of a load balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// HTTP and HTTPS.
    Application,
    /// TCP, TLS, UDP, TCP_UDP.
    Network,
}

/// A protocol of listeners and target groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "AWS's names")]
pub enum Protocol {
    Http,
    Https,
    Tcp,
    Tls,
    Udp,
    #[serde(rename = "TCP_UDP")]
    TcpUdp,
}

/// The transport of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// HTTP, HTTPS, TCP and TLS.
    #[default]
    Tcp,
    /// UDP, and so QUIC.
    Udp,
}

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// The ARN.
    pub arn: String,
    /// The protocol.
    pub protocol: Protocol,
    /// ARNs; the first one is the default, the others are chosen by SNI.
    #[serde(default)]
    pub certificates: Vec<String>,
    /// `HTTP1Only`, `HTTP2Only`, `HTTP2Optional`, `HTTP2Preferred` or `None`.
    #[serde(default)]
    pub alpn: Option<String>,
    /// Mutual authentication, if not `off`.
    #[serde(default)]
    pub client_certificates: Option<ClientCertificates>,
    /// As `DescribeListenerAttributes` returns them.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    /// The actions where no rule matches.
    pub default_actions: Vec<Action>,
    /// In any order; the one with the lowest priority that matches applies. Without the default rule.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

/// Mutual authentication of a listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientCertificates {
    /// True for `verify`, false for `passthrough`.
    pub verify: bool,
    /// The ARN of the trust store, for `verify`.
    #[serde(default)]
    pub trust_store: Option<String>,
    /// True if an expired certificate is accepted.
    #[serde(default)]
    pub ignore_expiry: bool,
}

/// A rule of a listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// The ARN.
    pub arn: String,
    /// 1 to 50000.
    pub priority: u32,
    /// All must hold.
    pub conditions: Vec<Condition>,
    /// The last one answers.
    pub actions: Vec<Action>,
    /// Run before the request is forwarded.
    #[serde(default)]
    pub transforms: Vec<Transform>,
}

/// A condition. One of its values must match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase", tag = "field")]
pub enum Condition {
    /// The header `Host`, without case.
    HostHeader {
        /// With `*` and `?`.
        #[serde(default)]
        values: Vec<String>,
        /// Regular expressions.
        #[serde(default)]
        regex_values: Vec<String>,
    },
    /// The path, with case.
    PathPattern {
        /// With `*` and `?`.
        #[serde(default)]
        values: Vec<String>,
        /// Regular expressions.
        #[serde(default)]
        regex_values: Vec<String>,
    },
    /// A header.
    HttpHeader {
        /// The name, without case.
        name: String,
        /// With `*` and `?`, without case.
        #[serde(default)]
        values: Vec<String>,
        /// Regular expressions.
        #[serde(default)]
        regex_values: Vec<String>,
    },
    /// The method, with case.
    HttpRequestMethod {
        /// Exact.
        values: Vec<String>,
    },
    /// A parameter of the query.
    QueryString {
        /// With `*` and `?`, without case.
        values: Vec<QueryValue>,
    },
    /// The address of the connection, not of `X-Forwarded-For`.
    SourceIp {
        /// CIDR blocks.
        values: Vec<IpNet>,
    },
}

/// A parameter of the query that a condition asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryValue {
    /// Without it, any key.
    #[serde(default)]
    pub key: Option<String>,
    /// The value.
    pub value: String,
}

/// A change of the request before it is forwarded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase", tag = "type")]
pub enum Transform {
    /// Of the header `Host`.
    HostHeaderRewrite {
        /// The regular expression.
        regex: String,
        /// With `$1` and so on.
        replace: String,
    },
    /// Of the path and the query.
    UrlRewrite {
        /// The regular expression.
        regex: String,
        /// With `$1` and so on.
        replace: String,
    },
}

/// An action of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase", tag = "type")]
pub enum Action {
    /// To one of several target groups.
    Forward {
        /// With their weights, 0 to 999.
        target_groups: Vec<WeightedTargetGroup>,
        /// For how many seconds a client stays with a target group.
        #[serde(default)]
        stickiness_seconds: Option<u32>,
    },
    /// An answer with a `Location`.
    Redirect {
        /// `HTTP`, `HTTPS` or `#{protocol}`.
        protocol: String,
        /// A number or `#{port}`.
        port: String,
        /// With `#{host}`.
        host: String,
        /// With `#{host}`, `#{path}`, `#{port}`.
        path: String,
        /// With `#{host}`, `#{path}`, `#{port}`, `#{query}`.
        query: String,
        /// 301 or 302.
        status: u16,
    },
    /// An answer of the load balancer's own.
    FixedResponse {
        /// The status.
        status: u16,
        /// The media type.
        #[serde(default)]
        content_type: Option<String>,
        /// The body.
        #[serde(default)]
        body: String,
    },
    /// Authentication with OpenID Connect, with Cognito, or by a token: not built here, so it answers 501.
    Authenticate,
}

/// A target group and its weight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightedTargetGroup {
    /// The ARN.
    pub arn: String,
    /// 0 to 999.
    pub weight: u32,
}

/// A target group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetGroup {
    /// The name.
    pub name: String,
    /// The protocol.
    pub protocol: Protocol,
    /// `HTTP1`, `HTTP2` or `GRPC`; none for TCP, TLS and UDP.
    #[serde(default)]
    pub protocol_version: Option<String>,
    /// `ip`, `instance` or `alb`.
    pub target_type: TargetType,
    /// The health check.
    pub health_check: HealthCheck,
    /// As `DescribeTargetGroupAttributes` returns them.
    pub attributes: BTreeMap<String, String>,
    /// The registered targets. One that is deregistered is gone from here at once; the fabric drains it.
    pub targets: BTreeSet<Target>,
}

/// The kind of targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "AWS's names")]
pub enum TargetType {
    Ip,
    Instance,
    Alb,
}

/// A target.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Target {
    /// An address, the id of an instance, or the ARN of a load balancer.
    pub id: String,
    /// The port.
    pub port: u16,
}

/// A health check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    /// HTTP, HTTPS or TCP.
    pub protocol: Protocol,
    /// `None` for `traffic-port`.
    #[serde(default)]
    pub port: Option<u16>,
    /// The path of an HTTP check.
    #[serde(default)]
    pub path: Option<String>,
    /// `200`, `200-299`, `200,301`, or codes of gRPC.
    #[serde(default)]
    pub matcher: Option<String>,
    /// Between two checks.
    pub interval_seconds: u32,
    /// For an answer.
    pub timeout_seconds: u32,
    /// Passed checks in a row. A new target serves after one.
    pub healthy_threshold: u32,
    /// Failed checks in a row.
    pub unhealthy_threshold: u32,
}

/// A certificate with its key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// The certificate and its chain, in PEM.
    pub certificate: String,
    /// The key, in PEM.
    pub key: String,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// A security group. All that leaves is allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecurityGroup {
    /// Each allows some sources.
    pub ingress: Vec<Permission>,
}

/// A rule of a security group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Permission {
    /// `tcp`, `udp`, or `-1` for all.
    pub protocol: String,
    /// The first port, where the protocol has any.
    #[serde(default)]
    pub from_port: Option<u16>,
    /// The last port.
    #[serde(default)]
    pub to_port: Option<u16>,
    /// Sources by address.
    #[serde(default)]
    pub cidrs: Vec<IpNet>,
    /// Sources by security group.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Sources by prefix list.
    #[serde(default)]
    pub prefix_lists: Vec<String>,
}

/// A subnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// The IPv4 CIDR block.
    pub cidr: IpNet,
    /// The Availability Zone.
    pub zone: String,
}

/// An instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Its private address.
    pub address: IpAddr,
    /// The Availability Zone.
    pub zone: String,
    /// True if it runs.
    pub running: bool,
}

/// The health of a target, as the fabric tells the emulator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// `initial`, `healthy`, `unhealthy`, `unused`, `draining`.
    pub state: String,
    /// As `DescribeTargetHealth` returns it: `Elb.RegistrationInProgress`, `Target.FailedHealthChecks`, …
    #[serde(default)]
    pub reason: Option<String>,
    /// For people.
    #[serde(default)]
    pub description: Option<String>,
}
