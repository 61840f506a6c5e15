mod add_ons;
mod certificates;
mod ec2;
mod elb;
mod faults;
mod roles;
mod targets;

use std::{collections::BTreeSet, sync::Arc};

use super::*;
use albatross_aws::{AwsError, AwsWriter, Inventory, NewListener, NewLoadBalancer, NewRule};
use albatross_core::model::{
    Action, AddressPools, CertificateArn, Condition, HealthCheck, HealthCheckProtocol, IpAddressType, ListenerArn,
    ListenerProtocol, LoadBalancerArn, LoadBalancerKind, LoadBalancerName, Matcher, NetworkSettings, ObjectName,
    ObservedListener, ObservedLoadBalancer, ObservedRule, ObservedStack, ObservedTargetGroup, ProtocolVersion,
    ResourceId, Scheme, SecurityGroupId, SubnetId, SubnetMapping, Tags, TargetGroup, TargetGroupArn, TargetGroupName,
    TargetGroupProtocol, TargetType, Value, VpcId, WeightedTargetGroup, tags,
};

/// A simulated account with a client.
struct World {
    simulation: SimulatedAws,
    aws: Arc<AwsWriter>,
}

fn world() -> World {
    let simulation = SimulatedAws::new(1);
    let aws = Arc::new(albatross_aws::testing::writer(albatross_aws::testing::over(simulation.client())));
    World { simulation, aws }
}

fn stack() -> albatross_core::model::StackId {
    albatross_core::model::StackId::Ingress(ObjectName::new("shop", "web"))
}

fn vpc() -> VpcId {
    VpcId::new("vpc-1")
}

/// Returns the tags of a resource of the stack.
fn tags_of(resource: &str) -> Tags {
    let pairs = [(tags::CLUSTER, "demo"), (tags::INGRESS_STACK, "shop/web"), (tags::INGRESS_RESOURCE, resource)];
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn code<T: std::fmt::Debug>(result: Result<T, AwsError>) -> String {
    result.unwrap_err().code().unwrap_or("no code").to_owned()
}

fn respond(status: &str) -> Action<TargetGroupArn> {
    Action::FixedResponse {
        content_type: Some("text/plain".to_owned()),
        message_body: None,
        status_code: status.to_owned(),
    }
}

fn forward(groups: &[&TargetGroupArn]) -> Action<TargetGroupArn> {
    let target_groups = groups.iter().map(|arn| WeightedTargetGroup { group: (*arn).clone(), weight: None });
    Action::Forward { target_groups: target_groups.collect(), stickiness: None }
}

fn path(value: &str) -> Vec<Condition> {
    vec![Condition::PathPattern { values: vec![value.to_owned()], regex_values: Vec::new() }]
}

fn certificate(name: &str) -> CertificateArn {
    CertificateArn::new(format!("arn:aws:acm:us-west-2:123456789012:certificate/{name}"))
}

fn http(action: Action<TargetGroupArn>) -> NewListener {
    NewListener { protocol: Some(ListenerProtocol::Http), default_action: Some(action), ..NewListener::default() }
}

/// Returns the settings of an HTTP target group.
fn target_group(target_type: TargetType) -> TargetGroup {
    TargetGroup {
        resource: ResourceId::of_tag("shop/web-api:80"),
        name: Value::AfterApply("a test"),
        second_name: Value::AfterApply("a test"),
        target_type,
        protocol: TargetGroupProtocol::Http,
        protocol_version: Some(ProtocolVersion::Http1),
        ip_address_type: albatross_core::model::IpAddressType::Ipv4,
        port: albatross_core::model::Value::Known(80),
        vpc: Value::Known(vpc()),
        health_check: HealthCheck {
            port: "traffic-port".to_owned(),
            protocol: HealthCheckProtocol::Http,
            path: Some("/healthz".to_owned()),
            interval_seconds: 15,
            timeout_seconds: 5,
            healthy_threshold: 2,
            unhealthy_threshold: 2,
            matcher: Some(Matcher::Http("200".to_owned())),
        },
        attributes: Tags::new(),
        tags: tags_of("shop/web-api:80"),
        binding: albatross_core::model::Binding {
            namespace: "shop".to_owned(),
            labels: Tags::new(),
            service: "api".to_owned(),
            service_port: albatross_core::model::PortReference::Number(80),
            node_labels: Tags::new(),
            multi_cluster: false,
            networking: None,
        },
        cause: albatross_core::model::Cause {
            object: albatross_core::model::ObjectReference::ingress(&ObjectName::new("shop", "web")),
            generation: 1,
            field: "spec".to_owned(),
        },
    }
}

/// Returns the settings of a target group of a Network Load Balancer, whose health checks connect.
fn network_target_group(protocol: TargetGroupProtocol) -> TargetGroup {
    let plain = target_group(TargetType::Ip);
    TargetGroup {
        protocol,
        protocol_version: None,
        health_check: HealthCheck {
            protocol: HealthCheckProtocol::Tcp,
            path: None,
            matcher: None,
            ..plain.health_check
        },
        ..plain
    }
}

impl World {
    /// Returns the stack as a new inventory reads it.
    async fn observed(&self) -> ObservedStack {
        Inventory::new(self.aws.reader().clone(), "demo", vpc()).observe_whole(&stack()).await.unwrap()
    }

    async fn security_group(&self, name: &str) -> SecurityGroupId {
        let tags = tags_of(ResourceId::managed_security_group().as_str());
        self.aws.create_security_group(name, "a test", &vpc(), &tags).await.unwrap()
    }

    async fn try_balancer(
        &self,
        kind: LoadBalancerKind,
        name: &str,
        zones: &[&str],
        groups: &[SecurityGroupId],
    ) -> Result<ObservedLoadBalancer, AwsError> {
        let subnet = |zone: &&str| SubnetMapping::plain(SubnetId::new(format!("subnet-private-{zone}")));
        let new = NewLoadBalancer {
            kind,
            name: &LoadBalancerName::new(name).unwrap(),
            scheme: Scheme::Internal,
            ip_address_type: IpAddressType::Ipv4,
            network: &NetworkSettings::default(),
            pools: &AddressPools::default(),
            subnets: &zones.iter().map(subnet).collect::<Vec<_>>(),
            security_groups: groups,
            tags: &tags_of(ResourceId::load_balancer().as_str()),
        };
        self.aws.create_load_balancer(&new).await
    }

    /// Creates an Application Load Balancer in the VPC's default security group.
    async fn balancer(&self, name: &str) -> ObservedLoadBalancer {
        self.try_balancer(LoadBalancerKind::Application, name, &["a", "b"], &[]).await.unwrap()
    }

    async fn target_group(&self, name: &str) -> ObservedTargetGroup {
        let name = TargetGroupName::new(name).unwrap();
        self.aws.create_target_group(&target_group(TargetType::Ip), &name, &vpc()).await.unwrap()
    }

    async fn listener(&self, balancer: &LoadBalancerArn, port: u16, new: &NewListener) -> ObservedListener {
        self.aws.create_listener(balancer, port, new, &tags_of(&port.to_string())).await.unwrap()
    }

    async fn rule(&self, listener: &ListenerArn, priority: u32) -> Result<ObservedRule, AwsError> {
        let (conditions, tags) = (path(&format!("/{priority}")), tags_of(&format!("80:{priority}")));
        self.aws
            .create_rule(
                listener,
                NewRule { priority, conditions: &conditions, before: None, action: &respond("200"), transforms: &[] },
                &tags,
            )
            .await
    }

    /// Returns the operations since the last call of this function.
    fn operations(&self) -> Vec<String> {
        self.simulation.calls().into_iter().map(|call| call.operation).collect()
    }
}
