//! The annotations of Services that have a Network Load Balancer.

use super::{Annotation, Example, Key, ObjectKind, Parameter, Status::*, examples};
use crate::api::annotations::{
    Grammar::{self, *},
    JsonShape::*,
};

const SERVICE: &[ObjectKind] = &[ObjectKind::Service];
const ANY_INT32: Grammar = Grammar::ANY_INT32;
const ON_OFF: &[&str] = &["on", "off"];

annotations! {
    "service §4.1", "The load balancer", "service.beta.kubernetes.io/"; {
        TYPE = "aws-load-balancer-type", String, SERVICE, NotApplicable, Built, "none: `spec.loadBalancerClass` decides",
            "Who provides the load balancer: `external` (with a target type) or `nlb-ip` for this controller.";
            @example = "external";
        NLB_TARGET_TYPE = "aws-load-balancer-nlb-target-type", String, SERVICE, NotApplicable, Built, "`instance`, or what `--default-target-type` says",
            "What is registered as a target: `ip` for the pods' own addresses, `instance` for nodes.";
            @example = "ip";
        NAME = "aws-load-balancer-name", Text { most_bytes: 32 }, SERVICE, NotApplicable, Built, "made from the namespace and name",
            "The name of the load balancer. It takes effect when the load balancer is created.";
            @example = "broker";
        SCHEME = "aws-load-balancer-scheme", Enum(&["internal", "internet-facing"]), SERVICE, NotApplicable, Built, "`internal`, or what `--default-load-balancer-scheme` says",
            "Whether the load balancer has public addresses. A change makes another load balancer, which takes over when it serves; one that is removed here changes nothing.";
            @example = "internet-facing";
        INTERNAL = "aws-load-balancer-internal", Bool, SERVICE, NotApplicable, Built, "none",
            "The former way to choose the scheme, read where `aws-load-balancer-scheme` is absent.";
            @example = "true";
        IP_ADDRESS_TYPE = "aws-load-balancer-ip-address-type", Enum(&["ipv4", "dualstack"]), SERVICE, NotApplicable, Built, "`ipv4`",
            "The kinds of addresses of the load balancer.";
            @example = "dualstack";
        SUBNETS = "aws-load-balancer-subnets", StringList, SERVICE, NotApplicable, Built, "discovered by their tags",
            "The subnets of the load balancer, by identifier or by `Name` tag.";
            @example = "subnet-0123456789abcdef0,subnet-0fedcba9876543210";
        EIP_ALLOCATIONS = "aws-load-balancer-eip-allocations", StringList, SERVICE, NotApplicable, Built, "none: addresses of Amazon",
            "The elastic addresses of an internet-facing load balancer, one to a subnet and in their order.";
            @example = "eipalloc-0123456789abcdef0,eipalloc-0fedcba9876543210";
        PRIVATE_IPV4_ADDRESSES = "aws-load-balancer-private-ipv4-addresses", StringList, SERVICE, NotApplicable, Built, "chosen by AWS",
            "The IPv4 addresses of an internal load balancer, one to a subnet.";
            @example = "10.0.0.10,10.0.1.10";
        IPV6_ADDRESSES = "aws-load-balancer-ipv6-addresses", StringList, SERVICE, NotApplicable, Built, "chosen by AWS",
            "The IPv6 addresses of a dual-stack load balancer, one to a subnet. They take effect when the load balancer gets IPv6 addresses or other subnets.";
            @example = "2001:db8:0:a::10,2001:db8:0:b::10";
        ENABLE_PREFIX_FOR_IPV6_SOURCE_NAT = "aws-load-balancer-enable-prefix-for-ipv6-source-nat", Enum(ON_OFF), SERVICE, NotApplicable, Built, "`off`",
            "Whether the subnets give prefixes for IPv6 source translation, which UDP over dual stack needs.";
            @example = "on";
        SOURCE_NAT_IPV6_PREFIXES = "aws-load-balancer-source-nat-ipv6-prefixes", StringList, SERVICE, NotApplicable, Built, "chosen by AWS",
            "The prefixes for IPv6 source translation, one to a subnet and in their order: 80 bits long, or `auto_assigned`.";
            @example = "2001:db8:0:a:1::/80,auto_assigned";
        MINIMUM_LOAD_BALANCER_CAPACITY = "aws-load-balancer-minimum-load-balancer-capacity", StringMap, SERVICE, NotApplicable, Built, "none: the reservation stays as it is",
            "The capacity to reserve, as `CapacityUnits=<number>`; 0 ends the reservation. It is reserved once the load balancer serves.";
            @example = "CapacityUnits=3000";
        ATTRIBUTES = "aws-load-balancer-attributes", StringMap, SERVICE, NotApplicable, Built, "none: attributes stay as they are",
            "Attributes of the load balancer. Only those named here are set; removing one does not reset it.";
            @example = "load_balancing.cross_zone.enabled=true,dns_record.client_routing_policy=partial_availability_zone_affinity";
        ADDITIONAL_RESOURCE_TAGS = "aws-load-balancer-additional-resource-tags", StringMap, SERVICE, NotApplicable, Built, "none",
            "Tags for the AWS resources made for the Service. One that is removed here is removed from AWS.";
            @example = "team=shop,environment=production";
    }
    "service §4.2", "Access logs and zones", "service.beta.kubernetes.io/"; {
        ACCESS_LOG_ENABLED = "aws-load-balancer-access-log-enabled", Bool, SERVICE, NotApplicable, Built, "none: the setting stays as it is",
            "`true` switches access logs on. `false` does not switch them off.";
            @example = "true";
        ACCESS_LOG_S3_BUCKET_NAME = "aws-load-balancer-access-log-s3-bucket-name", String, SERVICE, NotApplicable, Built, "none",
            "The bucket of the access logs, where they are switched on.";
            @example = "example-load-balancer-logs";
        ACCESS_LOG_S3_BUCKET_PREFIX = "aws-load-balancer-access-log-s3-bucket-prefix", String, SERVICE, NotApplicable, Built, "none",
            "The prefix of the access logs in their bucket, where they are switched on.";
            @example = "production/broker";
        CROSS_ZONE_LOAD_BALANCING_ENABLED = "aws-load-balancer-cross-zone-load-balancing-enabled", Bool, SERVICE, NotApplicable, Built, "none: the setting stays as it is",
            "Whether requests are spread over the targets of all zones. It wins over `aws-load-balancer-attributes`.";
            @example = "true";
    }
    "service §4.3", "Listeners and certificates", "service.beta.kubernetes.io/"; {
        SSL_CERT = "aws-load-balancer-ssl-cert", StringList, SERVICE, NotApplicable, Built, "none: no TLS",
            "The certificates of the TLS listeners, by ARN; the first one is the default certificate.";
            @example = "arn:aws:acm:eu-west-1:111122223333:certificate/12345678-1234-1234-1234-123456789012,arn:aws:acm:eu-west-1:111122223333:certificate/87654321-4321-4321-4321-210987654321";
        SSL_PORTS = "aws-load-balancer-ssl-ports", StringList, SERVICE, NotApplicable, Built, "all ports that are not UDP",
            "The ports that get a TLS listener, by name or number.";
            @example = "443,amqps";
        SSL_NEGOTIATION_POLICY = "aws-load-balancer-ssl-negotiation-policy", String, SERVICE, NotApplicable, Built, "`ELBSecurityPolicy-2016-08`, or what `--default-ssl-policy` says",
            "The security policy of the TLS listeners.";
            @example = "ELBSecurityPolicy-TLS13-1-2-2021-06";
        BACKEND_PROTOCOL = "aws-load-balancer-backend-protocol", String, SERVICE, NotApplicable, Built, "none: TCP to the targets",
            "`ssl` for TLS to the targets of TLS listeners.";
            @example = "ssl";
        ALPN_POLICY = "aws-load-balancer-alpn-policy", Enum(&["None", "HTTP1Only", "HTTP2Only", "HTTP2Optional", "HTTP2Preferred"]), SERVICE, NotApplicable, Built, "none",
            "The protocols that TLS listeners offer inside TLS (ALPN).";
            @example = "HTTP2Preferred";
        LISTENER_ATTRIBUTES = "aws-load-balancer-listener-attributes".NetworkListener, StringMap, SERVICE, NotApplicable, Built, "none: attributes stay as they are",
            "Attributes of the listener with this protocol and port.";
            @example."TCP-80" = "tcp.idle_timeout.seconds=600";
        ENABLE_TCP_UDP_LISTENER = "aws-load-balancer-enable-tcp-udp-listener", Bool, SERVICE, NotApplicable, Built, "`false`",
            "Whether a TCP and a UDP port of the same number become one listener.";
            @example = "true";
        QUIC_ENABLED_PORTS = "aws-load-balancer-quic-enabled-ports", StringList, SERVICE, NotApplicable, Built, "none",
            "The UDP ports that become QUIC listeners, by name or number; a TCP and UDP listener of one port becomes TCP and QUIC, and has the name of the first of its ports. The targets are pods with a QUIC server id, which the webhook for pods gives them, and AWS has QUIC only on a load balancer in no security group (`aws-load-balancer-disable-nlb-sg`) and without IPv6, on one listener, and beside none of UDP.";
            @example = "443";
        ACTIONS = "actions".NetworkListener, Json(NetworkAction), SERVICE, NotApplicable, Built, "none: the Service's own targets",
            "The weighted target groups of the listener with this protocol and port: the Service's own, ports of other Services in the namespace, and existing target groups.";
            @example."TCP-80" = examples::NETWORK_FORWARD;
    }
    "service §4.4", "Targets and health checks", "service.beta.kubernetes.io/"; {
        TARGET_GROUP_ATTRIBUTES = "aws-load-balancer-target-group-attributes", StringMap, SERVICE, NotApplicable, Built, "none: attributes stay as they are",
            "Attributes of all target groups.";
            @example = "preserve_client_ip.enabled=true,deregistration_delay.timeout_seconds=30";
        PORT_TARGET_GROUP_ATTRIBUTES = "aws-load-balancer-target-group-attributes".Port, StringMap, SERVICE, NotApplicable, Built, "none",
            "Attributes of the target group of this port, key by key over those of all target groups.";
            @example."80" = "stickiness.enabled=true,stickiness.type=source_ip";
        PROXY_PROTOCOL = "aws-load-balancer-proxy-protocol", Enum(&["*"]), SERVICE, NotApplicable, Built, "none",
            "`*` for proxy protocol version 2 to all targets.";
            @example = "*";
        PROXY_PROTOCOL_PER_TARGET_GROUP = "aws-load-balancer-proxy-protocol-per-target-group", StringList, SERVICE, NotApplicable, Built, "none",
            "The port numbers whose target groups get proxy protocol version 2; the others do not.";
            @example = "80,443";
        HEALTHCHECK_PROTOCOL = "aws-load-balancer-healthcheck-protocol", EnumIgnoringCase(&["tcp", "http", "https"]), SERVICE, NotApplicable, Built, "`tcp`, or `http` with the traffic policy `Local`",
            "The protocol of health checks.";
            @example = "http";
        HEALTHCHECK_PORT = "aws-load-balancer-healthcheck-port", HealthCheckPort { service_port_names: true }, SERVICE, NotApplicable, Built, "`traffic-port`, or the health check node port with the traffic policy `Local`",
            "The port that health checks go to.";
            @example = "8081";
        HEALTHCHECK_PATH = "aws-load-balancer-healthcheck-path", String, SERVICE, NotApplicable, Built, "`/`, or `/healthz` with the traffic policy `Local`",
            "The path that health checks over HTTP and HTTPS ask for.";
            @example = "/healthz";
        HEALTHCHECK_INTERVAL = "aws-load-balancer-healthcheck-interval", ANY_INT32, SERVICE, NotApplicable, Built, "10",
            "The time between two health checks of a target, in seconds.";
            @example = "20";
        HEALTHCHECK_TIMEOUT = "aws-load-balancer-healthcheck-timeout", ANY_INT32, SERVICE, NotApplicable, Built, "10, or 6 with the traffic policy `Local`",
            "The time after which a health check without an answer has failed, in seconds.";
            @example = "6";
        HEALTHCHECK_HEALTHY_THRESHOLD = "aws-load-balancer-healthcheck-healthy-threshold", ANY_INT32, SERVICE, NotApplicable, Built, "3, or 2 with the traffic policy `Local`",
            "How many health checks in a row must succeed before a target is healthy.";
            @example = "2";
        HEALTHCHECK_UNHEALTHY_THRESHOLD = "aws-load-balancer-healthcheck-unhealthy-threshold", ANY_INT32, SERVICE, NotApplicable, Built, "3, or 2 with the traffic policy `Local`",
            "How many health checks in a row must fail before a target is unhealthy.";
            @example = "4";
        HEALTHCHECK_SUCCESS_CODES = "aws-load-balancer-healthcheck-success-codes", String, SERVICE, NotApplicable, Built, "`200-399`",
            "The status codes of a successful health check over HTTP and HTTPS.";
            @example = "200-299";
        TARGET_NODE_LABELS = "aws-load-balancer-target-node-labels", StringMap, SERVICE, NotApplicable, Built, "all nodes",
            "With instance targets: the labels of the nodes to register.";
            @example = "workload=web,kubernetes.io/arch=arm64";
        MULTI_CLUSTER_TARGET_GROUP = "aws-load-balancer-multi-cluster-target-group", Bool, SERVICE, NotApplicable, Built, "`false`",
            "Whether other clusters register targets in the same target groups: then only those are deregistered that this cluster registered.";
            @example = "true";
    }
    "service §4.5", "Security groups", "service.beta.kubernetes.io/"; {
        LOAD_BALANCER_SOURCE_RANGES = "load-balancer-source-ranges", CidrList, SERVICE, NotApplicable, Built, "everywhere",
            "The address ranges that may connect, read where `spec.loadBalancerSourceRanges` is empty.";
            @example = "198.51.100.0/24,203.0.113.0/24";
        SECURITY_GROUPS = "aws-load-balancer-security-groups", StringList, SERVICE, NotApplicable, Built, "a security group that the controller manages",
            "The security groups of the load balancer, by identifier or by `Name` tag, in place of a managed one.";
            @example = "sg-0123456789abcdef0,broker-clients";
        MANAGE_BACKEND_SECURITY_GROUP_RULES = "aws-load-balancer-manage-backend-security-group-rules", Bool, SERVICE, NotApplicable, Built, "what `--enable-manage-backend-security-group-rules` says; `true` where the load balancer has no security group",
            "Whether the controller also allows traffic from the load balancer to the targets.";
            @example = "true";
        SECURITY_GROUP_PREFIX_LISTS = "aws-load-balancer-security-group-prefix-lists", StringList, SERVICE, NotApplicable, Built, "none",
            "The prefix lists that the managed security group allows.";
            @example = "pl-0123456789abcdef0";
        INBOUND_SG_RULES_ON_PRIVATE_LINK_TRAFFIC = "aws-load-balancer-inbound-sg-rules-on-private-link-traffic", Enum(ON_OFF), SERVICE, NotApplicable, Built, "none: the setting stays as it is",
            "Whether the security groups also apply to traffic that comes through PrivateLink.";
            @example = "off";
        ENABLE_ICMP_FOR_PATH_MTU_DISCOVERY = "aws-load-balancer-enable-icmp-for-path-mtu-discovery", String, SERVICE, NotApplicable, Built, "`off`",
            "`on` to allow the ICMP messages that path MTU discovery needs.";
            @example = "on";
        DISABLE_NLB_SG = "aws-load-balancer-disable-nlb-sg", Bool, SERVICE, NotApplicable, Built, "`false`",
            "Whether the load balancer is created without any security group.";
            @example = "true";
    }
    "service §4.5, in-tree", "Annotations of the cloud provider built into Kubernetes", "service.beta.kubernetes.io/"; {
        EXTRA_SECURITY_GROUPS = "aws-load-balancer-extra-security-groups", StringList, SERVICE, NotApplicable, Later, "none",
            "Read by the cloud provider built into Kubernetes; it has no effect on a Network Load Balancer of this controller.";
            @example = "sg-0123456789abcdef0";
        CONNECTION_DRAINING_ENABLED = "aws-load-balancer-connection-draining-enabled", Bool, SERVICE, NotApplicable, Later, "none",
            "Read by the cloud provider built into Kubernetes; it has no effect on a Network Load Balancer of this controller.";
            @example = "true";
        CONNECTION_DRAINING_TIMEOUT = "aws-load-balancer-connection-draining-timeout", ANY_INT32, SERVICE, NotApplicable, Later, "none",
            "Read by the cloud provider built into Kubernetes; it has no effect on a Network Load Balancer of this controller.";
            @example = "60";
        CONNECTION_IDLE_TIMEOUT = "aws-load-balancer-connection-idle-timeout", ANY_INT32, SERVICE, NotApplicable, Later, "none",
            "Read by the cloud provider built into Kubernetes; it has no effect on a Network Load Balancer of this controller.";
            @example = "60";
        ACCESS_LOG_EMIT_INTERVAL = "aws-load-balancer-access-log-emit-interval", ANY_INT32, SERVICE, NotApplicable, Later, "none",
            "Read by the cloud provider built into Kubernetes; it has no effect on a Network Load Balancer of this controller.";
            @example = "60";
    }
    "takeover from Classic Load Balancers", "Takeover from a Classic Load Balancer", "service.beta.kubernetes.io/"; {
        ALBATROSS_ACKNOWLEDGE_ORPHANED_LOAD_BALANCER = "albatross-acknowledge-orphaned-load-balancer", String, SERVICE, NotApplicable, Built, "none",
            "The host name of the load balancer that the cloud provider built into Kubernetes has created for the Service, and that no controller manages once this controller takes the Service. Without it, this controller does not take such a Service.";
            @example = "a0123456789abcdef0123456789abcde-1234567890.eu-west-1.elb.amazonaws.com";
    }
}
