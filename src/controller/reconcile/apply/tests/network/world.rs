//! Services and the AWS that they meet.

use std::fmt::Write as _;

use super::*;
use albatross_core::model::{Scheme, VpcBlocks};

pub(crate) const PORTS: &str = "[{name: dns, port: 53, protocol: UDP, targetPort: 5353}, {name: dns-tcp, port: 53, protocol: TCP, targetPort: 5353}, {name: https, port: 443, protocol: TCP, targetPort: 8443}]";

pub(crate) fn web() -> StackId {
    StackId::Service(ObjectName::new("shop", "web"))
}

/// The stack of a Service with these annotations and ports, in the subnets 1 and 2.
pub(crate) fn service(annotations: &[(&str, &str)], ports: &str) -> Stack {
    let annotations: serde_json::Map<String, Json> = annotations
        .iter()
        .map(|(key, value)| (format!("service.beta.kubernetes.io/aws-load-balancer-{key}"), json!(value)))
        .collect();
    let manifest = format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: web, namespace: shop, generation: 2, uid: 8f14e45f-ceea-4672-a0f1-5e9d2b1c7a11, annotations: {}}}, spec: {{type: LoadBalancer, loadBalancerClass: service.k8s.aws/nlb, ports: {ports}}}}}",
        Json::Object(annotations)
    );
    let subnet = |n: u8| Subnet {
        id: SubnetId::new(format!("subnet-{n}")),
        ipv4_blocks: vec![format!("10.0.{n}.0/24")],
        ipv6_blocks: vec![format!("2001:db8:0:{n}::/64")],
    };
    let discovered = |scheme, ipv6| {
        let query = SubnetQuery::Discovered { kind: LoadBalancerKind::Network, scheme, ipv6 };
        (query, Fact::Known(vec![subnet(1), subnet(2)]))
    };
    let (internal, facing) = (Scheme::Internal, Scheme::InternetFacing);
    let facts = Facts {
        subnets: [(internal, false), (internal, true), (facing, false), (facing, true)]
            .map(|(scheme, ipv6)| discovered(scheme, ipv6))
            .into(),
        vpc_blocks: Some(Fact::Known(VpcBlocks { ipv4: vec!["10.0.0.0/16".to_owned()], ipv6: vec![] })),
        backend_security_group: Some(Fact::Known(SecurityGroupId::new("sg-backend"))),
        ..Facts::default()
    };
    let built = service::build(&snapshot(&manifest), &build_config(), &facts, &ObjectName::new("shop", "web"));
    built.stack.unwrap_or_else(|| panic!("{:?}", built.diagnostics))
}

/// The whole call, a parameter a line, tags in one.
fn whole(call: &Call) -> String {
    let mut text = call.action.clone();
    let mut tags = Vec::new();
    for (key, value) in &call.params {
        match key.strip_prefix("Tags.member.") {
            _ if key == "Action" || key == "Version" => {}
            Some(rest) if rest.ends_with(".Key") => {
                tags.push(format!("{value}={}", call.param(&key.replace(".Key", ".Value"))));
            }
            Some(_) => {}
            None => write!(text, "\n  {key}={value}").unwrap(),
        }
    }
    if !tags.is_empty() {
        write!(text, "\n  tags {}", tags.join(" ")).unwrap();
    }
    text
}

/// The calls to ELB v2.
pub(crate) fn sent(fake: &Fake) -> String {
    let calls = fake.calls();
    let elb = calls.iter().filter(|call| call.param("Version") == "2015-12-01");
    elb.map(whole).collect::<Vec<_>>().join("\n")
}

fn members(items: impl IntoIterator<Item = String>) -> String {
    items.into_iter().map(|item| format!("<member>{item}</member>")).collect()
}

pub(crate) fn attributes(pairs: &[(&str, &str)]) -> Attributes {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

pub(crate) fn attribute_list(pairs: &[(&str, &str)]) -> String {
    let list = pairs.iter().map(|(key, value)| format!("<Key>{key}</Key><Value>{value}</Value>"));
    format!("<Attributes>{}</Attributes>", members(list))
}

fn tag_list(resource: &str) -> String {
    let tags = [(tags::CLUSTER, "demo"), (tags::SERVICE_STACK, "shop/web"), (tags::SERVICE_RESOURCE, resource)];
    members(tags.map(|(key, value)| format!("<Key>{key}</Key><Value>{value}</Value>")))
}

/// Returns AWS's answer for a listener that was created or changed like this and uses TLS.
fn listener_member(call: &Call, arn: &str) -> String {
    let texts = |name: &str| members(call.list(name).into_iter().map(str::to_owned));
    let protocol = if call.param("Protocol").is_empty() { "TLS" } else { call.param("Protocol") };
    let certificate = call.param("Certificates.member.1.CertificateArn");
    let certificates = if certificate.is_empty() { "arn:c/1" } else { certificate };
    let target_group = call.param("DefaultActions.member.1.ForwardConfig.TargetGroups.member.1.TargetGroupArn");
    format!(
        "<Listeners><member><ListenerArn>{arn}</ListenerArn><Port>{}</Port><Protocol>{protocol}</Protocol><SslPolicy>{}</SslPolicy><AlpnPolicy>{}</AlpnPolicy><Certificates><member><CertificateArn>{certificates}</CertificateArn></member></Certificates><DefaultActions><member><Type>forward</Type><TargetGroupArn>{target_group}</TargetGroupArn></member></DefaultActions></member></Listeners>",
        if call.param("Port").is_empty() { "443" } else { call.param("Port") },
        call.param("SslPolicy"),
        texts("AlpnPolicy"),
    )
}

pub(crate) const BALANCER_ATTRIBUTES: [(&str, &str); 3] = [
    ("access_logs.s3.enabled", "false"),
    ("deletion_protection.enabled", "false"),
    ("load_balancing.cross_zone.enabled", "true"),
];
pub(crate) const GROUP_ATTRIBUTES: [(&str, &str); 2] =
    [("deregistration_delay.timeout_seconds", "300"), ("proxy_protocol_v2.enabled", "true")];
pub(crate) const LISTENER_ATTRIBUTES: [(&str, &str); 1] = [("tcp.idle_timeout.seconds", "400")];

/// AWS with one Network Load Balancer, made by an earlier life, in the subnets 1 and 2; without security groups where
/// `bare`.
pub(crate) fn there(call: &Call, bare: bool) -> Option<(u16, String)> {
    let action = call.action.as_str();
    let body = match action {
        "DescribeLoadBalancers" => {
            let groups = if bare { "" } else { "<member>sg-1</member><member>sg-backend</member>" };
            format!(
                "<LoadBalancers><member><LoadBalancerArn>arn:b/web</LoadBalancerArn><LoadBalancerName>web</LoadBalancerName><Type>network</Type><Scheme>internal</Scheme><VpcId>vpc-1</VpcId><State><Code>active</Code></State><AvailabilityZones><member><SubnetId>subnet-1</SubnetId></member><member><SubnetId>subnet-2</SubnetId></member></AvailabilityZones><SecurityGroups>{groups}</SecurityGroups></member></LoadBalancers>"
            )
        }
        "DescribeTargetGroups" => {
            let group = |port: u16, protocol: &str| {
                format!(
                    "<TargetGroupArn>arn:t/{port}</TargetGroupArn><TargetGroupName>t{port}</TargetGroupName><Protocol>{protocol}</Protocol><TargetType>ip</TargetType><VpcId>vpc-1</VpcId><HealthCheckEnabled>true</HealthCheckEnabled><HealthCheckProtocol>TCP</HealthCheckProtocol><HealthCheckPort>traffic-port</HealthCheckPort><HealthCheckIntervalSeconds>10</HealthCheckIntervalSeconds><HealthCheckTimeoutSeconds>10</HealthCheckTimeoutSeconds><HealthyThresholdCount>3</HealthyThresholdCount><UnhealthyThresholdCount>3</UnhealthyThresholdCount>"
                )
            };
            format!("<TargetGroups>{}</TargetGroups>", members([group(53, "TCP_UDP"), group(443, "TCP")]))
        }
        "DescribeTags" => {
            let described = call.list("ResourceArns").into_iter().map(|arn| {
                let resource = match arn {
                    "arn:b/web" => "LoadBalancer".to_owned(),
                    _ if arn.starts_with("arn:t/") => arn.replace("arn:t/", "shop/web:"),
                    _ => arn.replace("arn:l/", ""),
                };
                format!("<ResourceArn>{arn}</ResourceArn><Tags>{}</Tags>", tag_list(&resource))
            });
            format!("<TagDescriptions>{}</TagDescriptions>", members(described))
        }
        "DescribeListeners" => {
            let listener = |port: u16, protocol: &str, more: &str| {
                format!(
                    "<ListenerArn>arn:l/{port}</ListenerArn><Port>{port}</Port><Protocol>{protocol}</Protocol>{more}<DefaultActions><member><Type>forward</Type><TargetGroupArn>arn:t/{port}</TargetGroupArn></member></DefaultActions>"
                )
            };
            let tls = "<SslPolicy>ELBSecurityPolicy-2016-08</SslPolicy><AlpnPolicy><member>HTTP2Preferred</member></AlpnPolicy><Certificates><member><CertificateArn>arn:c/1</CertificateArn></member></Certificates>";
            let all = [
                listener(53, "TCP_UDP", ""),
                listener(80, "TCP", ""),
                listener(443, "TLS", tls),
                listener(514, "UDP", ""),
            ];
            format!("<Listeners>{}</Listeners>", members(all))
        }
        "DescribeListenerCertificates" => {
            assert_eq!(call.param("ListenerArn"), "arn:l/443");
            let certificate = |arn: &str, default: bool| {
                format!("<CertificateArn>{arn}</CertificateArn><IsDefault>{default}</IsDefault>")
            };
            let all = [certificate("arn:c/1", true), certificate("arn:c/2", false)];
            format!("<Certificates>{}</Certificates>", members(all))
        }
        "DescribeLoadBalancerAttributes" => attribute_list(&BALANCER_ATTRIBUTES),
        "DescribeTargetGroupAttributes" => attribute_list(&GROUP_ATTRIBUTES),
        "DescribeListenerAttributes" => attribute_list(&LISTENER_ATTRIBUTES),
        "DescribeRules" => panic!("listeners of a Network Load Balancer have no rules"),
        _ => return made(call),
    };
    Some(elb(action, &body))
}

/// AWS's answers to what is made and changed of a Network Load Balancer.
pub(crate) fn made(call: &Call) -> Option<(u16, String)> {
    let action = call.action.as_str();
    let body = match action {
        "CreateLoadBalancer" => {
            let subnets = (1..).map_while(|n| call.params.get(&format!("SubnetMappings.member.{n}.SubnetId")));
            let zones = members(subnets.map(|subnet| format!("<SubnetId>{subnet}</SubnetId>")));
            let groups = members(call.list("SecurityGroups").into_iter().map(str::to_owned));
            format!(
                "<LoadBalancers><member><LoadBalancerArn>arn:b/web</LoadBalancerArn><LoadBalancerName>{}</LoadBalancerName><Type>{}</Type><Scheme>{}</Scheme><AvailabilityZones>{zones}</AvailabilityZones><SecurityGroups>{groups}</SecurityGroups></member></LoadBalancers>",
                call.param("Name"),
                call.param("Type"),
                call.param("Scheme")
            )
        }
        "CreateListener" => listener_member(call, &format!("arn:l/{}", call.param("Port"))),
        "ModifyListener" => listener_member(call, call.param("ListenerArn")),
        // AWS answers with all attributes.
        "ModifyLoadBalancerAttributes" => attribute_list(&[BALANCER_ATTRIBUTES.as_slice(), &[("a.new", "1")]].concat()),
        "ModifyTargetGroupAttributes" => attribute_list(&[GROUP_ATTRIBUTES.as_slice(), &[("a.new", "2")]].concat()),
        "ModifyListenerAttributes" => attribute_list(&[LISTENER_ATTRIBUTES.as_slice(), &[("a.new", "3")]].concat()),
        _ => return None,
    };
    Some(elb(action, &body))
}
