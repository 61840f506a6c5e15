//! The annotations of Ingresses, and of the Services behind them.

use super::{Annotation, Group::*, INGRESS_PREFIX, Key, ObjectKind, Parameter, Status::*};
use crate::api::annotations::{
    Grammar::{self, *},
    JsonShape::*,
    values::FALSE,
};

const INGRESS: &[ObjectKind] = &[ObjectKind::Ingress];
const BOTH: &[ObjectKind] = &[ObjectKind::Ingress, ObjectKind::Service];
const ANY_INT32: Grammar = Grammar::ANY_INT32;
const PORT: Grammar = Int32 { min: 1, max: 65535 };
const SCHEMES: &[&str] = &["internal", "internet-facing"];
const PROTOCOLS: &[&str] = &["HTTP", "HTTPS"];

pub(super) const ANNOTATIONS: &[Annotation] = annotations! {
    "ingress §2.1", INGRESS_PREFIX; {
        "group.name", String, INGRESS, PerIngress, Built, "none: the Ingress has a load balancer of its own",
            "The group of Ingresses that share one load balancer: at most 63 of `a-z`, `0-9`, `-` and `.`, beginning and ending with a letter or digit.";
        "group.order", Int32 { min: -1000, max: 1000 }, INGRESS, PerIngress, Built, "0",
            "The place of this Ingress among those of its group: a lower number comes first, equal ones are in the order of namespace and name.";
        "load-balancer-name", Text { most_bytes: 32 }, INGRESS, Exclusive, Built, "made from the group or from the namespace and name",
            "The name of the load balancer. It counts when the load balancer is created; AWS cannot rename one.";
        "scheme", Enum(SCHEMES), INGRESS, Exclusive, Built, "`internal`, or what `--default-load-balancer-scheme` says",
            "Whether the load balancer has public addresses. A change makes another load balancer, which takes over when it serves.";
        "ip-address-type", Enum(&["ipv4", "dualstack", "dualstack-without-public-ipv4"]), INGRESS, Exclusive, Built, "`ipv4`",
            "The kinds of addresses of the load balancer.";
        "subnets", StringList, INGRESS, Exclusive, Built, "discovered by their tags",
            "The subnets of the load balancer, by identifier or by `Name` tag, one to an availability zone.";
        "customer-owned-ipv4-pool", String, INGRESS, Exclusive, Refused, "none",
            "The pool of customer-owned addresses on an Outpost.";
        "ipam-ipv4-pool-id", String, INGRESS, Exclusive, Later, "none: addresses of Amazon",
            "The address manager's pool that public addresses are taken from.";
        "load-balancer-attributes", StringMap, INGRESS, Merged, Built, "none: attributes stay as they are",
            "Attributes of the load balancer. Only those named here are set; removing one does not reset it.";
        "minimum-load-balancer-capacity", StringMap, INGRESS, Merged, Later, "none: the reservation stays as it is",
            "The capacity to reserve, as `CapacityUnits=<number>`; 0 ends the reservation.";
        "tags", StringMap, BOTH, Merged, Built, "none",
            "Tags for the AWS resources made for the Ingress. On a Service they are for its target groups, and win key by key. One that is removed here is removed from AWS.";
        "wafv2-acl-arn", String, INGRESS, Exclusive, Refused, "none: the association stays as it is",
            "The web ACL (WAFv2) to associate, by ARN; `none` removes the association.";
        "wafv2-acl-name", String, INGRESS, Exclusive, Refused, "none: the association stays as it is",
            "The web ACL (WAFv2) to associate, by name; `none` removes the association. A name wins over an ARN.";
        "waf-acl-id", String, INGRESS, Exclusive, Refused, "none: the association stays as it is",
            "The web ACL of WAF Classic (regional) to associate; `none` removes the association.";
        "web-acl-id", String, INGRESS, Exclusive, Refused, "none: the association stays as it is",
            "The former name of `waf-acl-id`, read where that one is absent.";
        "shield-advanced-protection", Bool, INGRESS, Exclusive, Later, "none: the protection stays as it is",
            "Whether Shield Advanced protects the load balancer.";
        "security-groups", StringList, INGRESS, Exclusive, Built, "a security group that the controller manages",
            "The security groups of the load balancer, by identifier or by `Name` tag, in place of a managed one.";
        "manage-backend-security-group-rules", Bool, INGRESS, Exclusive, Built, "`false`, or what `--enable-manage-backend-security-group-rules` says",
            "With `security-groups`: whether the controller also opens the way from the load balancer to the targets.";
        "security-group-prefix-lists", StringList, INGRESS, Exclusive, Built, "none",
            "The prefix lists that the managed security group lets in.";
        "inbound-cidrs", CidrList, INGRESS, Exclusive, Built, "`0.0.0.0/0`, and `::/0` where the load balancer has IPv6",
            "The address ranges that the managed security group lets in.";
        "dry-run-plan", Json(Plan), INGRESS, PerIngress, Later, "none",
            "An output: the plan that a dry run found for the group of the Ingress.";
    }
    "ingress §2.2", INGRESS_PREFIX; {
        "listen-ports", Json(ListenPorts), INGRESS, Merged, Built, r#"`[{"HTTPS":443}]` where the Ingress names a certificate, otherwise `[{"HTTP":80}]`"#,
            "The ports to listen on, with their protocols. The rules of an Ingress apply to its own ports.";
        "ssl-redirect", PORT, INGRESS, Exclusive, Built, "none: no redirect",
            "The HTTPS port to which every HTTP listener of the load balancer redirects. It must be one of the HTTPS ports.";
        "certificate-arn", StringList, INGRESS, Merged, Built, "found in ACM by the host names of the rules",
            "The certificates of the HTTPS listeners, by ARN; the first one is the default certificate.";
        "ssl-policy", String, INGRESS, Exclusive, Built, "`ELBSecurityPolicy-2016-08`, or what `--default-ssl-policy` says",
            "The security policy of the HTTPS listeners: protocol versions and ciphers.";
        "mutual-authentication", Json(MutualAuthentication), INGRESS, Exclusive, Built, "none: the setting stays as it is",
            "Whether and how HTTPS listeners ask clients for a certificate: `mode` is `off`, `passthrough` or `verify`, which needs a `trustStore` by name or ARN. Without an entry the listener stays as it is.";
        "listener-attributes".Listener, StringMap, INGRESS, Merged, Built, "none: attributes stay as they are",
            "Attributes of the listener with this protocol and port. Only those named here are set; removing one does not reset it.";
        "create-acm-cert", Bool, INGRESS, PerIngress, Later, "`false`",
            "Whether to request certificates from ACM for the host names of the Ingress. It counts with the gate `EnableCertificateManagement` alone; without, certificates that ACM has are found by host name.";
        "acm-pca-arn", String, INGRESS, PerIngress, Later, "what `--default-pca-arn` says",
            "With `create-acm-cert`: the private certificate authority that issues the certificates.";
    }
    "ingress §2.3", INGRESS_PREFIX; {
        "actions".Name, Json(Action), INGRESS, PerIngress, Built, "none",
            "What to do with requests for the backend of this name whose port is named `use-annotation`: forward, redirect or answer.";
        "conditions".Name, Json(Conditions), INGRESS, PerIngress, Built, "none",
            "Further conditions of the rules that lead to the backend of this name. Hosts and paths are alternatives to those of the rule.";
        "transforms".Name, Json(Transforms), INGRESS, PerIngress, Built, "none",
            "Rewrites of host and path in the rules that lead to the backend of this name.";
        "use-regex-path-match", Bool, INGRESS, PerIngress, Built, "`false`",
            "Whether paths of type `ImplementationSpecific` are regular expressions, after the slash that they begin with.";
    }
    "ingress §2.4", INGRESS_PREFIX; {
        "auth-type", Enum(&["none", "oidc", "cognito"]), BOTH, PerIngress, Built, "`none`",
            "How users are authenticated before a request is acted on, on HTTPS listeners.";
        "auth-idp-cognito", Json(CognitoProvider), BOTH, PerIngress, Built, "none",
            "The Cognito user pool for `auth-type` `cognito`.";
        "auth-idp-oidc", Json(OidcProvider), BOTH, PerIngress, Built, "none",
            "The OpenID Connect provider for `auth-type` `oidc`. The Secret that it names is in the namespace of the Ingress and holds `clientID` and `clientSecret`; the controller needs the permission to read it. AWS does not tell which secret it has: after a takeover it is taken to have the Secret's, until that changes; any change of this or another `auth-` annotation writes it.";
        "auth-on-unauthenticated-request", String, BOTH, PerIngress, Built, "`authenticate`",
            "What happens to a request without a session: `authenticate`, `allow` or `deny`.";
        "auth-scope", String, BOTH, PerIngress, Built, "`openid`",
            "The claims to ask the identity provider for, separated by spaces.";
        "auth-session-cookie", String, BOTH, PerIngress, Built, "`AWSELBAuthSessionCookie`",
            "The name of the cookie that holds the session.";
        "auth-session-timeout", Int64, BOTH, PerIngress, Built, "604800",
            "How long a session lasts, in seconds.";
        "jwt-validation", Json(JwtValidation), INGRESS, PerIngress, Built, "none",
            "The tokens that requests must carry: issuer, keys and claims, on HTTPS listeners. It does not go together with `auth-type`.";
    }
    "ingress §2.5", INGRESS_PREFIX; {
        "target-type", Enum(&["instance", "ip"]), BOTH, PerIngress, Built, "`instance`, or what `--default-target-type` says",
            "What is registered as a target: nodes (by the Service's node port) or the pods' own addresses.";
        "backend-protocol", Enum(PROTOCOLS), BOTH, PerIngress, Built, "`HTTP`",
            "The protocol between the load balancer and the targets.";
        "backend-protocol-version", Enum(&["HTTP1", "HTTP2", "GRPC"]), BOTH, PerIngress, Built, "`HTTP1`",
            "The version of the protocol between the load balancer and the targets. A change needs another target group.";
        "target-group-attributes", StringMap, BOTH, PerIngress, Built, "none: attributes stay as they are",
            "Attributes of the target groups. Only those named here are set; removing one does not reset it.";
        "healthcheck-port", HealthCheckPort { service_port_names: true }, BOTH, PerIngress, Built, "`traffic-port`",
            "The port that health checks go to.";
        "healthcheck-protocol", Enum(PROTOCOLS), BOTH, PerIngress, Built, "the backend protocol",
            "The protocol of health checks.";
        "healthcheck-path", String, BOTH, PerIngress, Built, "`/`, for gRPC `/AWS.ALB/healthcheck`",
            "The path that health checks ask for.";
        "healthcheck-interval-seconds", ANY_INT32, BOTH, PerIngress, Built, "15",
            "The time between two health checks of a target, in seconds; AWS takes 5 to 300.";
        "healthcheck-timeout-seconds", ANY_INT32, BOTH, PerIngress, Built, "5",
            "The time after which a health check without an answer has failed, in seconds; AWS takes 2 to 120.";
        "healthy-threshold-count", ANY_INT32, BOTH, PerIngress, Built, "2",
            "How many health checks in a row must succeed before a target is healthy; AWS takes 2 to 10.";
        "unhealthy-threshold-count", ANY_INT32, BOTH, PerIngress, Built, "2",
            "How many health checks in a row must fail before a target is unhealthy; AWS takes 2 to 10.";
        "success-codes", String, BOTH, PerIngress, Built, "`200`, for gRPC `12`",
            "The status codes of a successful health check, such as `200,301` or `200-299`.";
        "target-node-labels", StringMap, BOTH, PerIngress, Built, "all nodes",
            "With instance targets: the labels of the nodes to register.";
        "multi-cluster-target-group", Bool, BOTH, PerIngress, BuiltFor(FALSE), "`false`",
            "Whether other clusters register targets in the same target group.";
        "target-control-port".ServicePort, PORT, BOTH, PerIngress, Later, "none",
            "The port on which the targets of this Service port tell the load balancer how much they can take. It needs targets of type `ip`.";
    }
    "ingress §2.6", INGRESS_PREFIX; {
        "enable-frontend-nlb", Bool, INGRESS, Exclusive, BuiltFor(FALSE), "`false`",
            "Whether a Network Load Balancer stands before the Application Load Balancer.";
        "frontend-nlb-scheme", Enum(SCHEMES), INGRESS, Exclusive, Refused, "`internal`, or what `--default-load-balancer-scheme` says",
            "Whether the Network Load Balancer in front has public addresses.";
        "frontend-nlb-subnets", StringList, INGRESS, Exclusive, Refused, "discovered by their tags",
            "The subnets of the Network Load Balancer in front.";
        "frontend-nlb-security-groups", StringList, INGRESS, Exclusive, Refused, "those of the Application Load Balancer",
            "The security groups of the Network Load Balancer in front.";
        "frontend-nlb-listener-port-mapping", StringMap, INGRESS, Merged, Refused, "every port to the same port",
            "The ports of the Network Load Balancer in front and the ports they lead to, as `<port in front>=<port behind>`.";
        "frontend-nlb-eip-allocations", StringList, INGRESS, Exclusive, Refused, "none: addresses of Amazon",
            "The elastic addresses of the Network Load Balancer in front, one to a subnet.";
        "frontend-nlb-healthcheck-port", HealthCheckPort { service_port_names: false }, INGRESS, Exclusive, Refused, "`traffic-port`",
            "The port that the health checks of the Network Load Balancer in front go to.";
        "frontend-nlb-healthcheck-protocol", Enum(PROTOCOLS), INGRESS, Exclusive, Refused, "`HTTP`",
            "The protocol of the health checks of the Network Load Balancer in front.";
        "frontend-nlb-healthcheck-path", String, INGRESS, Exclusive, Refused, "`/`",
            "The path that the health checks of the Network Load Balancer in front ask for.";
        "frontend-nlb-healthcheck-interval-seconds", ANY_INT32, INGRESS, Exclusive, Refused, "15",
            "The time between two health checks of the Network Load Balancer in front, in seconds.";
        "frontend-nlb-healthcheck-timeout-seconds", ANY_INT32, INGRESS, Exclusive, Refused, "5",
            "The time after which a health check of the Network Load Balancer in front has failed, in seconds.";
        "frontend-nlb-healthcheck-healthy-threshold-count", ANY_INT32, INGRESS, Exclusive, Refused, "2",
            "How many health checks in a row must succeed before the Application Load Balancer is healthy.";
        "frontend-nlb-healthcheck-unhealthy-threshold-count", ANY_INT32, INGRESS, Exclusive, Refused, "2",
            "How many health checks in a row must fail before the Application Load Balancer is unhealthy.";
        "frontend-nlb-healthcheck-success-codes", String, INGRESS, Exclusive, Refused, "`200`",
            "The status codes of a successful health check of the Network Load Balancer in front.";
        "frontend-nlb-attributes", StringMap, INGRESS, Exclusive, Refused, "none: attributes stay as they are",
            "Attributes of the Network Load Balancer in front.";
        "frontend-nlb-tags", StringMap, INGRESS, Exclusive, Refused, "those of the Application Load Balancer",
            "Tags of the Network Load Balancer in front, in place of those of the Application Load Balancer.";
    }
    "ingress §1.1", "kubernetes.io/"; {
        "ingress.class", String, INGRESS, PerIngress, Built, "none: `spec.ingressClassName` decides",
            "The class of the Ingress, as it was set before `spec.ingressClassName` existed. Where it is present it decides alone.";
    }
};
