//! The annotations of Ingresses, and of the Services behind them.

use super::{Annotation, Example, Key, ObjectKind, Parameter, Status, Status::*, examples};
use crate::api::annotations::{
    Grammar::{self, *},
    JsonShape::*,
};

const INGRESS: &[ObjectKind] = &[ObjectKind::Ingress];
const BOTH: &[ObjectKind] = &[ObjectKind::Ingress, ObjectKind::Service];
const ANY_INT32: Grammar = Grammar::ANY_INT32;
const PORT: Grammar = Int32 { min: 1, max: 65535 };
const SCHEMES: &[&str] = &["internal", "internet-facing"];
const PROTOCOLS: &[&str] = &["HTTP", "HTTPS"];
/// AWS ended its support on September 30, 2025 ("AWS WAF Classic", AWS WAF Developer Guide).
const WAF_CLASSIC: Status = Ended {
    service: "AWS WAF Classic",
    fix: "name a web ACL of AWS WAF with `wafv2-acl-arn` or `wafv2-acl-name`, and remove this annotation",
};

annotations! {
    "ingress §2.1", "The load balancer", "alb.ingress.kubernetes.io/"; {
        GROUP_NAME = "group.name", String, INGRESS, PerIngress, Built, "none: the Ingress has a load balancer of its own",
            "The group of Ingresses that share one load balancer: at most 63 of `a-z`, `0-9`, `-` and `.`, beginning and ending with a letter or digit.";
            @example = "storefront";
        GROUP_ORDER = "group.order", Int32 { min: -1000, max: 1000 }, INGRESS, PerIngress, Built, "0",
            "The place of this Ingress among those of its group: a lower number comes first, equal ones are in the order of namespace and name.";
            @example = "10";
        LOAD_BALANCER_NAME = "load-balancer-name", Text { most_bytes: 32 }, INGRESS, Exclusive, Built, "made from the group or from the namespace and name",
            "The name of the load balancer. It takes effect when the load balancer is created; AWS cannot rename one.";
            @example = "storefront";
        SCHEME = "scheme", Enum(SCHEMES), INGRESS, Exclusive, Built, "`internal`, or what `--default-load-balancer-scheme` says",
            "Whether the load balancer has public addresses. A change makes another load balancer, which takes over when it serves.";
            @example = "internet-facing";
        IP_ADDRESS_TYPE = "ip-address-type", Enum(&["ipv4", "dualstack", "dualstack-without-public-ipv4"]), INGRESS, Exclusive, Built, "`ipv4`",
            "The kinds of addresses of the load balancer.";
            @example = "dualstack";
        SUBNETS = "subnets", StringList, INGRESS, Exclusive, Built, "discovered by their tags",
            "The subnets of the load balancer, by identifier or by `Name` tag, one to an availability zone.";
            @example = "subnet-0123456789abcdef0,subnet-0fedcba9876543210";
        CUSTOMER_OWNED_IPV4_POOL = "customer-owned-ipv4-pool", String, INGRESS, Exclusive, Built, "none",
            "The pool of customer-owned addresses on an Outpost. It takes effect when the load balancer is created.";
            @example = "ipv4pool-coip-0123456789abcdef0";
        IPAM_IPV4_POOL_ID = "ipam-ipv4-pool-id", String, INGRESS, Exclusive, Built, "none: addresses of Amazon",
            "The address manager's pool that the public addresses of an internet-facing load balancer are taken from.";
            @example = "ipam-pool-0123456789abcdef0";
        LOAD_BALANCER_ATTRIBUTES = "load-balancer-attributes", StringMap, INGRESS, UnitedByKey, Built, "none: attributes stay as they are",
            "Attributes of the load balancer. Only those named here are set; removing one does not reset it.";
            @example = "idle_timeout.timeout_seconds=120,routing.http.drop_invalid_header_fields.enabled=true";
        MINIMUM_LOAD_BALANCER_CAPACITY = "minimum-load-balancer-capacity", StringMap, INGRESS, UnitedByKey, Built, "none: the reservation stays as it is",
            "The capacity to reserve, as `CapacityUnits=<number>`; 0 ends the reservation. It is reserved once the load balancer serves.";
            @example = "CapacityUnits=500";
        TAGS = "tags", StringMap, BOTH, UnitedByKey, Built, "none",
            "Tags for the AWS resources made for the Ingress. On a Service they are for its target groups, and win key by key. One that is removed here is removed from AWS.";
            @example = "team=shop,environment=production";
        WAFV2_ACL_ARN = "wafv2-acl-arn", String, INGRESS, Exclusive, Built, "none: the association stays as it is",
            "The web ACL (WAFv2) to associate, by ARN; `none`, or an empty value, removes the association. Without the annotation the load balancer keeps the web ACL that it has, and WAF is not asked.";
            @example = "arn:aws:wafv2:eu-west-1:111122223333:regional/webacl/shop/12345678-1234-1234-1234-123456789012";
        WAFV2_ACL_NAME = "wafv2-acl-name", String, INGRESS, Exclusive, Built, "none: the association stays as it is",
            "The web ACL (WAFv2) to associate, by name; `none` removes the association. A name on any Ingress of a group wins over all ARNs. The controller needs the permission `wafv2:ListWebACLs` to look it up.";
            @example = "shop";
        WAF_ACL_ID = "waf-acl-id", String, INGRESS, Exclusive, WAF_CLASSIC, "none",
            "The web ACL of AWS WAF Classic, which AWS has ended.";
            @example = "12345678-1234-1234-1234-123456789012";
        WEB_ACL_ID = "web-acl-id", String, INGRESS, Exclusive, WAF_CLASSIC, "none",
            "The former name of `waf-acl-id`.";
            @example = "12345678-1234-1234-1234-123456789012";
        SHIELD_ADVANCED_PROTECTION = "shield-advanced-protection", Bool, INGRESS, Exclusive, Built, "none: the protection stays as it is",
            "Whether Shield Advanced protects the load balancer. `false` removes only a protection that the controller has created. It has an effect if the account is subscribed to Shield Advanced.";
            @example = "true";
        SECURITY_GROUPS = "security-groups", StringList, INGRESS, Exclusive, Built, "a security group that the controller manages",
            "The security groups of the load balancer, by identifier or by `Name` tag, in place of a managed one.";
            @example = "sg-0123456789abcdef0,shop-clients";
        MANAGE_BACKEND_SECURITY_GROUP_RULES = "manage-backend-security-group-rules", Bool, INGRESS, Exclusive, Built, "`false`, or what `--enable-manage-backend-security-group-rules` says",
            "With `security-groups`: whether the controller also allows traffic from the load balancer to the targets.";
            @example = "true";
        SECURITY_GROUP_PREFIX_LISTS = "security-group-prefix-lists", StringList, INGRESS, ExclusivePerPort, Built, "none",
            "The prefix lists that the managed security group allows.";
            @example = "pl-0123456789abcdef0";
        INBOUND_CIDRS = "inbound-cidrs", CidrList, INGRESS, ExclusivePerPort, Built, "`0.0.0.0/0`, and `::/0` where the load balancer has IPv6",
            "The address ranges that the managed security group allows.";
            @example = "198.51.100.0/24,203.0.113.0/24";
        DRY_RUN_PLAN = "dry-run-plan", Json(Plan), INGRESS, PerIngress, Built, "none",
            "An output: the desired state of the group of the Ingress, as JSON, on its first Ingress. The controller writes it with the gate `IngressPlanAnnotation`, and removes it without. What others write here is not read.";
            @example = examples::PLAN;
    }
    "ingress §2.2", "Listeners and certificates", "alb.ingress.kubernetes.io/"; {
        LISTEN_PORTS = "listen-ports", Json(ListenPorts), INGRESS, UnitedByKey, Built, r#"`[{"HTTPS":443}]` where the Ingress names a certificate, otherwise `[{"HTTP":80}]`"#,
            "The ports to listen on, with their protocols. The rules of an Ingress apply to its own ports.";
            @example = r#"[{"HTTP": 80}, {"HTTPS": 443}]"#;
        SSL_REDIRECT = "ssl-redirect", PORT, INGRESS, Exclusive, Built, "none: no redirect",
            "The HTTPS port to which every HTTP listener of the load balancer redirects. It must be one of the HTTPS ports.";
            @example = "443";
        CERTIFICATE_ARN = "certificate-arn", StringList, INGRESS, United, Built, "found in ACM by the host names of the rules",
            "The certificates of the HTTPS listeners, by ARN; the first one is the default certificate.";
            @example = "arn:aws:acm:eu-west-1:111122223333:certificate/12345678-1234-1234-1234-123456789012";
        SSL_POLICY = "ssl-policy", String, INGRESS, ExclusivePerPort, Built, "`ELBSecurityPolicy-2016-08`, or what `--default-ssl-policy` says",
            "The security policy of the HTTPS listeners: protocol versions and ciphers.";
            @example = "ELBSecurityPolicy-TLS13-1-2-2021-06";
        MUTUAL_AUTHENTICATION = "mutual-authentication", Json(MutualAuthentication), INGRESS, ExclusivePerPort, Built, "none: the setting stays as it is",
            "Whether and how HTTPS listeners ask clients for a certificate: `mode` is `off`, `passthrough` or `verify`, which needs a `trustStore` by name or ARN. Without an entry the listener stays as it is.";
            @example = r#"[{"port": 443, "mode": "verify", "trustStore": "partners"}]"#;
        LISTENER_ATTRIBUTES = "listener-attributes".Listener, StringMap, INGRESS, UnitedByKey, Built, "none: attributes stay as they are",
            "Attributes of the listener with this protocol and port. Only those named here are set; removing one does not reset it.";
            @example."HTTPS-443" = "routing.http.response.server.enabled=false";
        CREATE_ACM_CERT = "create-acm-cert", Bool, INGRESS, PerIngress, Built, "`false`",
            "Whether to request a certificate from ACM for the host names of the Ingress, where no certificate is named. The HTTPS listeners follow when it is issued. It has an effect only with the gate `EnableCertificateManagement`; without it, certificates are found in ACM by host name.";
            @example = "true";
        ACM_PCA_ARN = "acm-pca-arn", String, INGRESS, PerIngress, Built, "what `--default-pca-arn` says, otherwise Amazon",
            "With `create-acm-cert`: the private certificate authority that issues the certificate, by ARN. Another one issues another certificate.";
            @example = "arn:aws:acm-pca:eu-west-1:111122223333:certificate-authority/12345678-1234-1234-1234-123456789012";
    }
    "ingress §2.3", "Rules", "alb.ingress.kubernetes.io/"; {
        ACTIONS = "actions".Name, Json(Action), INGRESS, PerIngress, Built, "none",
            "What to do with requests for the backend of this name whose port is named `use-annotation`: forward, redirect or answer.";
            @example."canary" = examples::WEIGHTED_FORWARD;
            @example."moved" = examples::REDIRECT;
            @example."maintenance" = examples::FIXED_RESPONSE;
        CONDITIONS = "conditions".Name, Json(Conditions), INGRESS, PerIngress, Built, "none",
            "Further conditions of the rules that lead to the backend of this name. Hosts and paths are alternatives to those of the rule.";
            @example."shop" = examples::CONDITIONS;
        TRANSFORMS = "transforms".Name, Json(Transforms), INGRESS, PerIngress, Built, "none",
            "Rewrites of host and path in the rules that lead to the backend of this name.";
            @example."shop" = examples::TRANSFORMS;
        USE_REGEX_PATH_MATCH = "use-regex-path-match", Bool, INGRESS, PerIngress, Built, "`false`",
            "Whether paths of type `ImplementationSpecific` are regular expressions, after the slash that they begin with.";
            @example = "true";
    }
    "ingress §2.4", "Authentication", "alb.ingress.kubernetes.io/"; {
        AUTH_TYPE = "auth-type", Enum(&["none", "oidc", "cognito"]), BOTH, PerIngress, Built, "`none`",
            "How users are authenticated before a request is acted on, on HTTPS listeners.";
            @example = "oidc";
        AUTH_IDP_COGNITO = "auth-idp-cognito", Json(CognitoProvider), BOTH, PerIngress, Built, "none",
            "The Cognito user pool for `auth-type` `cognito`.";
            @example = examples::COGNITO_PROVIDER;
        AUTH_IDP_OIDC = "auth-idp-oidc", Json(OidcProvider), BOTH, PerIngress, Built, "none",
            "The OpenID Connect provider for `auth-type` `oidc`. The Secret that it names is in the namespace of the Ingress and holds `clientID` and `clientSecret`; the controller needs the permission to read it. AWS does not show which secret it has: after a takeover it is taken to have the Secret's, until that changes; any change of this or another `auth-` annotation writes it.";
            @example = examples::OIDC_PROVIDER;
        AUTH_ON_UNAUTHENTICATED_REQUEST = "auth-on-unauthenticated-request", String, BOTH, PerIngress, Built, "`authenticate`",
            "What happens to a request without a session: `authenticate`, `allow` or `deny`.";
            @example = "deny";
        AUTH_SCOPE = "auth-scope", String, BOTH, PerIngress, Built, "`openid`",
            "The claims to ask the identity provider for, separated by spaces.";
            @example = "openid email";
        AUTH_SESSION_COOKIE = "auth-session-cookie", String, BOTH, PerIngress, Built, "`AWSELBAuthSessionCookie`",
            "The name of the cookie that holds the session.";
            @example = "ShopSession";
        AUTH_SESSION_TIMEOUT = "auth-session-timeout", Int64, BOTH, PerIngress, Built, "604800",
            "How long a session lasts, in seconds.";
            @example = "28800";
        JWT_VALIDATION = "jwt-validation", Json(JwtValidation), INGRESS, PerIngress, Built, "none",
            "The tokens that requests must carry: issuer, keys and claims, on HTTPS listeners. It does not go together with `auth-type`.";
            @example = examples::JWT_VALIDATION;
    }
    "ingress §2.5", "Targets and health checks", "alb.ingress.kubernetes.io/"; {
        TARGET_TYPE = "target-type", Enum(&["instance", "ip"]), BOTH, PerIngress, Built, "`instance`, or what `--default-target-type` says",
            "What is registered as a target: nodes (by the Service's node port) or the pods' own addresses.";
            @example = "ip";
        BACKEND_PROTOCOL = "backend-protocol", Enum(PROTOCOLS), BOTH, PerIngress, Built, "`HTTP`",
            "The protocol between the load balancer and the targets.";
            @example = "HTTPS";
        BACKEND_PROTOCOL_VERSION = "backend-protocol-version", Enum(&["HTTP1", "HTTP2", "GRPC"]), BOTH, PerIngress, Built, "`HTTP1`",
            "The version of the protocol between the load balancer and the targets. A change needs another target group.";
            @example = "GRPC";
        TARGET_GROUP_ATTRIBUTES = "target-group-attributes", StringMap, BOTH, PerIngress, Built, "none: attributes stay as they are",
            "Attributes of the target groups. Only those named here are set; removing one does not reset it.";
            @example = "deregistration_delay.timeout_seconds=30,stickiness.enabled=true,stickiness.lb_cookie.duration_seconds=3600";
        HEALTHCHECK_PORT = "healthcheck-port", HealthCheckPort { service_port_names: true }, BOTH, PerIngress, Built, "`traffic-port`",
            "The port that health checks go to.";
            @example = "8081";
        HEALTHCHECK_PROTOCOL = "healthcheck-protocol", Enum(PROTOCOLS), BOTH, PerIngress, Built, "the backend protocol",
            "The protocol of health checks.";
            @example = "HTTPS";
        HEALTHCHECK_PATH = "healthcheck-path", String, BOTH, PerIngress, Built, "`/`, for gRPC `/AWS.ALB/healthcheck`",
            "The path that health checks ask for.";
            @example = "/healthz";
        HEALTHCHECK_INTERVAL_SECONDS = "healthcheck-interval-seconds", ANY_INT32, BOTH, PerIngress, Built, "15",
            "The time between two health checks of a target, in seconds; AWS takes 5 to 300.";
            @example = "10";
        HEALTHCHECK_TIMEOUT_SECONDS = "healthcheck-timeout-seconds", ANY_INT32, BOTH, PerIngress, Built, "5",
            "The time after which a health check without an answer has failed, in seconds; AWS takes 2 to 120.";
            @example = "6";
        HEALTHY_THRESHOLD_COUNT = "healthy-threshold-count", ANY_INT32, BOTH, PerIngress, Built, "2",
            "How many health checks in a row must succeed before a target is healthy; AWS takes 2 to 10.";
            @example = "3";
        UNHEALTHY_THRESHOLD_COUNT = "unhealthy-threshold-count", ANY_INT32, BOTH, PerIngress, Built, "2",
            "How many health checks in a row must fail before a target is unhealthy; AWS takes 2 to 10.";
            @example = "4";
        SUCCESS_CODES = "success-codes", String, BOTH, PerIngress, Built, "`200`, for gRPC `12`",
            "The status codes of a successful health check, such as `200,301` or `200-299`.";
            @example = "200,204";
        TARGET_NODE_LABELS = "target-node-labels", StringMap, BOTH, PerIngress, Built, "all nodes",
            "With instance targets: the labels of the nodes to register.";
            @example = "workload=web,kubernetes.io/arch=arm64";
        MULTI_CLUSTER_TARGET_GROUP = "multi-cluster-target-group", Bool, BOTH, PerIngress, Built, "`false`",
            "Whether other clusters register targets in the same target group: then only those are deregistered that this cluster registered. `true` on the Ingress or on the Service is enough.";
            @example = "true";
        TARGET_CONTROL_PORT = "target-control-port".ServicePort, PORT, BOTH, PerIngress, Later, "none",
            "The port on which the targets of this Service port report to the load balancer how much they can take. It needs targets of type `ip`.";
            @example."shop.80" = "3000";
    }
    "ingress §2.6", "A Network Load Balancer in front", "alb.ingress.kubernetes.io/"; {
        ENABLE_FRONTEND_NLB = "enable-frontend-nlb", Bool, INGRESS, Exclusive, Built, "`false`",
            "Whether a Network Load Balancer stands before the Application Load Balancer.";
            @example = "true";
        FRONTEND_NLB_SCHEME = "frontend-nlb-scheme", Enum(SCHEMES), INGRESS, Exclusive, Built, "`internal`, or what `--default-load-balancer-scheme` says",
            "Whether the Network Load Balancer in front has public addresses.";
            @example = "internet-facing";
        FRONTEND_NLB_SUBNETS = "frontend-nlb-subnets", StringList, INGRESS, Exclusive, Built, "discovered by their tags",
            "The subnets of the Network Load Balancer in front.";
            @example = "subnet-0123456789abcdef0,subnet-0fedcba9876543210";
        FRONTEND_NLB_SECURITY_GROUPS = "frontend-nlb-security-groups", StringList, INGRESS, Exclusive, Built, "those of the Application Load Balancer",
            "The security groups of the Network Load Balancer in front.";
            @example = "sg-0123456789abcdef0";
        FRONTEND_NLB_LISTENER_PORT_MAPPING = "frontend-nlb-listener-port-mapping", StringMap, INGRESS, UnitedByKey, Built, "every port to the same port",
            "The ports of the Network Load Balancer in front and the ports they lead to, as `<port in front>=<port behind>`.";
            @example = "8080=80,8443=443";
        FRONTEND_NLB_EIP_ALLOCATIONS = "frontend-nlb-eip-allocations", StringList, INGRESS, Exclusive, Built, "none: addresses of Amazon",
            "The elastic addresses of the Network Load Balancer in front, one to a subnet.";
            @example = "eipalloc-0123456789abcdef0,eipalloc-0fedcba9876543210";
        FRONTEND_NLB_HEALTHCHECK_PORT = "frontend-nlb-healthcheck-port", HealthCheckPort { service_port_names: false }, INGRESS, Exclusive, Built, "`traffic-port`",
            "The port that the health checks of the Network Load Balancer in front go to.";
            @example = "443";
        FRONTEND_NLB_HEALTHCHECK_PROTOCOL = "frontend-nlb-healthcheck-protocol", Enum(PROTOCOLS), INGRESS, Exclusive, Built, "`HTTP`",
            "The protocol of the health checks of the Network Load Balancer in front.";
            @example = "HTTPS";
        FRONTEND_NLB_HEALTHCHECK_PATH = "frontend-nlb-healthcheck-path", String, INGRESS, Exclusive, Built, "`/`",
            "The path that the health checks of the Network Load Balancer in front ask for.";
            @example = "/healthz";
        FRONTEND_NLB_HEALTHCHECK_INTERVAL_SECONDS = "frontend-nlb-healthcheck-interval-seconds", ANY_INT32, INGRESS, Exclusive, Built, "15",
            "The time between two health checks of the Network Load Balancer in front, in seconds.";
            @example = "10";
        FRONTEND_NLB_HEALTHCHECK_TIMEOUT_SECONDS = "frontend-nlb-healthcheck-timeout-seconds", ANY_INT32, INGRESS, Exclusive, Built, "5",
            "The time after which a health check of the Network Load Balancer in front has failed, in seconds.";
            @example = "6";
        FRONTEND_NLB_HEALTHCHECK_HEALTHY_THRESHOLD_COUNT = "frontend-nlb-healthcheck-healthy-threshold-count", ANY_INT32, INGRESS, Exclusive, Built, "2",
            "How many health checks in a row must succeed before the Application Load Balancer is healthy.";
            @example = "3";
        FRONTEND_NLB_HEALTHCHECK_UNHEALTHY_THRESHOLD_COUNT = "frontend-nlb-healthcheck-unhealthy-threshold-count", ANY_INT32, INGRESS, Exclusive, Built, "2",
            "How many health checks in a row must fail before the Application Load Balancer is unhealthy.";
            @example = "4";
        FRONTEND_NLB_HEALTHCHECK_SUCCESS_CODES = "frontend-nlb-healthcheck-success-codes", String, INGRESS, Exclusive, Built, "`200`",
            "The status codes of a successful health check of the Network Load Balancer in front.";
            @example = "200-399";
        FRONTEND_NLB_ATTRIBUTES = "frontend-nlb-attributes", StringMap, INGRESS, Exclusive, Built, "none: attributes stay as they are",
            "Attributes of the Network Load Balancer in front.";
            @example = "load_balancing.cross_zone.enabled=true,dns_record.client_routing_policy=availability_zone_affinity";
        FRONTEND_NLB_TAGS = "frontend-nlb-tags", StringMap, INGRESS, Exclusive, Built, "those of the Application Load Balancer",
            "Tags of the Network Load Balancer in front, in place of those of the Application Load Balancer.";
            @example = "team=network";
    }
    "ingress §1.1", "The class", "kubernetes.io/"; {
        INGRESS_CLASS = "ingress.class", String, INGRESS, PerIngress, Built, "none: `spec.ingressClassName` decides",
            "The class of the Ingress, as it was set before `spec.ingressClassName` existed. If it is present, it takes precedence.";
            @example = "alb";
    }
}
