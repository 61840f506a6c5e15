//! The AWS calls of this module as a trait, so that tests can replace AWS.

use std::{collections::BTreeMap, sync::Arc};

use albatross_aws::{AwsError, AwsWriter, Inventory, RoleClient, Roles};
use albatross_core::{
    model::{
        InstanceInfo, InterfaceInfo, ObservedSecurityGroup, Registration, SecurityGroupId, SecurityGroupRule, Tags,
        Target, TargetGroupArn, TargetHealth, VpcBlocks, VpcId,
    },
    targets::{TargetGroupFacts, TargetGroupKey, role::Role},
};

/// The AWS calls of this module. The result of `targets` includes the effects of `register` and `deregister`. `role` is the
/// role in which a call about a target group is made, if it is not the controller's own.
pub trait Cloud: Send + Sync + 'static {
    /// Returns the known targets of a group.
    fn targets(
        &self,
        role: Option<&Role>,
        group: &TargetGroupArn,
    ) -> impl Future<Output = Result<BTreeMap<Target, TargetHealth>, AwsError>> + Send;
    /// Reads the current targets of a group with their health from AWS.
    fn read_targets(
        &self,
        role: Option<&Role>,
        group: &TargetGroupArn,
    ) -> impl Future<Output = Result<BTreeMap<Target, TargetHealth>, AwsError>> + Send;
    /// Returns true if a binding's checkpoint can replace a read of the group's targets: the group exists, and its
    /// targets are neither known from a read nor invalidated.
    fn checkpoint_is_trusted(
        &self,
        role: Option<&Role>,
        group: &TargetGroupArn,
    ) -> impl Future<Output = Result<bool, AwsError>> + Send;
    /// Marks the targets of a group to be read again.
    fn invalidate_targets(&self, role: Option<&Role>, group: &TargetGroupArn);
    /// Returns a target group (DescribeTargetGroups); `None` if it does not exist.
    fn target_group(
        &self,
        role: Option<&Role>,
        key: &TargetGroupKey,
    ) -> impl Future<Output = Result<Option<TargetGroupFacts>, AwsError>> + Send;
    /// Registers targets in one call (RegisterTargets).
    fn register(
        &self,
        role: Option<&Role>,
        group: &TargetGroupArn,
        targets: &[Registration],
    ) -> impl Future<Output = Result<(), AwsError>> + Send;
    /// Deregisters targets in one call (DeregisterTargets).
    fn deregister(
        &self,
        role: Option<&Role>,
        group: &TargetGroupArn,
        targets: &[Registration],
    ) -> impl Future<Output = Result<(), AwsError>> + Send;
    /// Returns the tags of a target group of this cluster's account and region; `None` if they are unknown, as for a
    /// group in another VPC.
    fn tags(&self, group: &TargetGroupArn) -> impl Future<Output = Result<Option<Tags>, AwsError>> + Send;
    /// Returns the VPC of the cluster.
    fn vpc(&self) -> VpcId;
    /// Returns the CIDR blocks of a VPC (DescribeVpcs); `None` if the VPC does not exist or is not visible to the
    /// controller.
    fn vpc_blocks(&self, vpc: &VpcId) -> impl Future<Output = Result<Option<VpcBlocks>, AwsError>> + Send;
    /// Returns instances (DescribeInstances).
    fn instances(&self, ids: &[String]) -> impl Future<Output = Result<Vec<InstanceInfo>, AwsError>> + Send;
    /// Returns the network interfaces of the VPC with these addresses (DescribeNetworkInterfaces).
    fn interfaces_by_address(
        &self,
        addresses: &[String],
    ) -> impl Future<Output = Result<Vec<InterfaceInfo>, AwsError>> + Send;
    /// Returns security groups (DescribeSecurityGroups).
    fn security_groups(
        &self,
        ids: &[SecurityGroupId],
    ) -> impl Future<Output = Result<Vec<ObservedSecurityGroup>, AwsError>> + Send;
    /// Returns the security groups of the VPC with the cluster's tag (DescribeSecurityGroups).
    fn cluster_security_groups(&self) -> impl Future<Output = Result<Vec<ObservedSecurityGroup>, AwsError>> + Send;
    /// Adds rules to a security group (AuthorizeSecurityGroupIngress).
    fn authorize(
        &self,
        group: &SecurityGroupId,
        rules: &[SecurityGroupRule],
    ) -> impl Future<Output = Result<(), AwsError>> + Send;
    /// Removes rules from a security group (RevokeSecurityGroupIngress).
    fn revoke(
        &self,
        group: &SecurityGroupId,
        rules: &[SecurityGroupRule],
    ) -> impl Future<Output = Result<(), AwsError>> + Send;
}

/// The implementation with AWS.
pub struct LiveCloud {
    aws: AwsWriter,
    inventory: Arc<Inventory>,
    roles: Roles,
}

impl LiveCloud {
    /// Creates an implementation that uses these clients and keeps the inventory current.
    #[must_use]
    pub fn new(aws: AwsWriter, inventory: Arc<Inventory>) -> Self {
        let roles = Roles::new(Arc::clone(aws.reader()), inventory.cluster(), inventory.vpc());
        Self { aws, inventory, roles }
    }

    fn client(&self, role: Option<&Role>) -> Option<Arc<RoleClient>> {
        role.map(|role| self.roles.client(role))
    }

    /// Has a role whose session may do nothing more assumed anew, and returns the answer.
    fn drop_ended_session<T>(&self, role: Option<&Role>, answer: Result<T, AwsError>) -> Result<T, AwsError> {
        if let Some(role) = role {
            self.roles.drop_ended_session(role, &answer);
        }
        answer
    }

    fn writer(&self, role: Option<&Role>) -> (Option<Arc<RoleClient>>, AwsWriter) {
        let client = self.client(role);
        let aws = client.as_ref().map_or_else(|| self.aws.clone(), |client| client.writer(self.aws.permit()));
        (client, aws)
    }
}

/// Records the effect of a write of targets: known if there was an answer, to be read again if there was none.
fn settle(
    inventory: &Inventory,
    group: &TargetGroupArn,
    answer: Result<(), AwsError>,
    record: impl FnOnce(&Inventory),
) -> Result<(), AwsError> {
    match &answer {
        Ok(()) => record(inventory),
        Err(error) if error.asks_to_read_again() => inventory.invalidate_targets(group),
        Err(_) => {}
    }
    answer
}

impl Cloud for LiveCloud {
    async fn targets(
        &self,
        role: Option<&Role>,
        group: &TargetGroupArn,
    ) -> Result<BTreeMap<Target, TargetHealth>, AwsError> {
        match self.client(role) {
            Some(client) => self.drop_ended_session(role, client.inventory.targets(group).await),
            None => self.inventory.targets(group).await,
        }
    }

    async fn read_targets(
        &self,
        role: Option<&Role>,
        group: &TargetGroupArn,
    ) -> Result<BTreeMap<Target, TargetHealth>, AwsError> {
        match self.client(role) {
            Some(client) => self.drop_ended_session(role, client.inventory.read_targets(group).await),
            None => self.inventory.read_targets(group).await,
        }
    }

    async fn checkpoint_is_trusted(&self, role: Option<&Role>, group: &TargetGroupArn) -> Result<bool, AwsError> {
        match self.client(role) {
            Some(client) => Ok(client.inventory.knows_nothing_of(group)),
            None => self.inventory.checkpoint_is_trusted(group).await,
        }
    }

    fn invalidate_targets(&self, role: Option<&Role>, group: &TargetGroupArn) {
        match self.client(role) {
            Some(client) => client.inventory.invalidate_targets(group),
            None => self.inventory.invalidate_targets(group),
        }
    }

    async fn target_group(
        &self,
        role: Option<&Role>,
        key: &TargetGroupKey,
    ) -> Result<Option<TargetGroupFacts>, AwsError> {
        match self.client(role) {
            Some(client) => self.drop_ended_session(role, client.aws.describe_target_group(key).await),
            None => self.aws.describe_target_group(key).await,
        }
    }

    async fn register(
        &self,
        role: Option<&Role>,
        group: &TargetGroupArn,
        targets: &[Registration],
    ) -> Result<(), AwsError> {
        let (client, aws) = self.writer(role);
        let answer = self.drop_ended_session(role, aws.register_targets(group, targets).await);
        let inventory = client.as_ref().map_or(&*self.inventory, |client| &client.inventory);
        settle(inventory, group, answer, |inventory| inventory.record_registered(group, targets))
    }

    async fn deregister(
        &self,
        role: Option<&Role>,
        group: &TargetGroupArn,
        targets: &[Registration],
    ) -> Result<(), AwsError> {
        let (client, aws) = self.writer(role);
        let answer = self.drop_ended_session(role, aws.deregister_targets(group, targets).await);
        let inventory = client.as_ref().map_or(&*self.inventory, |client| &client.inventory);
        settle(inventory, group, answer, |inventory| inventory.record_deregistered(group, targets))
    }

    async fn tags(&self, group: &TargetGroupArn) -> Result<Option<Tags>, AwsError> {
        self.inventory.listed_tags(group).await
    }

    fn vpc(&self) -> VpcId {
        self.inventory.vpc().clone()
    }

    async fn vpc_blocks(&self, vpc: &VpcId) -> Result<Option<VpcBlocks>, AwsError> {
        self.aws.vpc_blocks(vpc).await
    }

    async fn instances(&self, ids: &[String]) -> Result<Vec<InstanceInfo>, AwsError> {
        self.aws.describe_instances(ids).await
    }

    async fn interfaces_by_address(&self, addresses: &[String]) -> Result<Vec<InterfaceInfo>, AwsError> {
        self.aws.describe_network_interfaces_by_ip(self.inventory.vpc(), addresses).await
    }

    async fn security_groups(&self, ids: &[SecurityGroupId]) -> Result<Vec<ObservedSecurityGroup>, AwsError> {
        self.aws.describe_security_groups(ids).await
    }

    async fn cluster_security_groups(&self) -> Result<Vec<ObservedSecurityGroup>, AwsError> {
        let key = format!("kubernetes.io/cluster/{}", self.inventory.cluster());
        self.aws.security_groups_tagged(self.inventory.vpc(), &key, &["owned", "shared"]).await
    }

    async fn authorize(&self, group: &SecurityGroupId, rules: &[SecurityGroupRule]) -> Result<(), AwsError> {
        self.aws.authorize_ingress(group, rules).await
    }

    async fn revoke(&self, group: &SecurityGroupId, rules: &[SecurityGroupRule]) -> Result<(), AwsError> {
        self.aws.revoke_ingress(group, rules).await
    }
}
