//! Read calls of ELB v2.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_elasticloadbalancingv2::types as elb;
use futures::{StreamExt, TryStreamExt, stream};

use super::pair;
use crate::{AwsError, AwsReader, convert};
use albatross_core::{
    facts::limits::Limits,
    model::{
        Attributes, CapacityUnits, CertificateArn, ListenerArn, ListenerProtocol, LoadBalancerArn, ObservedListener,
        SecurityGroupId, Tags, TargetGroupArn, TrustStoreArn,
    },
};

/// The maximum number of resources in one DescribeTags call.
const TAGS: usize = 20;
/// The maximum number of load balancers that DescribeLoadBalancers accepts by ARN; AWS documents no limit for target
/// groups.
const BY_ARN: usize = 20;
/// The maximum number of concurrent calls when many are needed.
const AT_ONCE: usize = 4;

/// Returns all `$items` of a paged Describe call.
macro_rules! pages {
    ($aws:expr, $operation:literal, $call:expr, $items:ident) => {{
        let call = $call;
        let mut items = Vec::new();
        let mut marker: Option<String> = None;
        loop {
            let page = $aws.read($operation, || call.clone().set_marker(marker.clone()).send()).await?;
            let next = page.next_marker().filter(|next| !next.is_empty()).map(str::to_owned);
            items.extend(page.$items.unwrap_or_default());
            match next {
                None => break items,
                next if next == marker => return Err(AwsError::incomplete($operation, "next page")),
                next => marker = next,
            }
        }
    }};
}

/// Read calls.
impl AwsReader {
    /// Returns all load balancers of the region, or only the ones with these ARNs (DescribeLoadBalancers).
    pub(crate) async fn load_balancers(&self, arns: Option<Vec<String>>) -> Result<Vec<elb::LoadBalancer>, AwsError> {
        let call = self.elb.describe_load_balancers().set_load_balancer_arns(arns);
        Ok(pages!(self, "DescribeLoadBalancers", call, load_balancers))
    }

    /// Returns load balancers by ARN, at most 20 in each call (DescribeLoadBalancers).
    ///
    /// # Errors
    /// Returns the error of AWS, also if one of them does not exist.
    pub(crate) async fn load_balancers_of(&self, arns: &[LoadBalancerArn]) -> Result<Vec<elb::LoadBalancer>, AwsError> {
        let mut found = Vec::with_capacity(arns.len());
        for batch in arns.chunks(BY_ARN) {
            found.extend(self.load_balancers(Some(batch.iter().map(ToString::to_string).collect())).await?);
        }
        Ok(found)
    }

    /// Returns the load balancer with a name (DescribeLoadBalancers); `None` if there is none.
    pub(crate) async fn load_balancer_named(&self, name: &str) -> Result<Option<elb::LoadBalancer>, AwsError> {
        let call = self.elb.describe_load_balancers().names(name);
        match self.read("DescribeLoadBalancers", || call.clone().send()).await {
            Ok(answer) => Ok(answer.load_balancers.unwrap_or_default().into_iter().next()),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns target groups by ARN, at most 20 in each call (DescribeTargetGroups).
    ///
    /// # Errors
    /// Returns the error of AWS, also if one of them does not exist.
    pub(crate) async fn target_groups_of(&self, arns: &[TargetGroupArn]) -> Result<Vec<elb::TargetGroup>, AwsError> {
        let mut found = Vec::with_capacity(arns.len());
        for batch in arns.chunks(BY_ARN) {
            let arns = batch.iter().map(ToString::to_string).collect();
            let call = self.elb.describe_target_groups().set_target_group_arns(Some(arns));
            found.extend(pages!(self, "DescribeTargetGroups", call, target_groups));
        }
        Ok(found)
    }

    /// Returns the target groups with a name, at most one (DescribeTargetGroups).
    pub(crate) async fn target_groups_named(&self, name: &str) -> Result<Vec<elb::TargetGroup>, AwsError> {
        let call = self.elb.describe_target_groups().names(name);
        match self.read("DescribeTargetGroups", || call.clone().send()).await {
            Ok(answer) => Ok(answer.target_groups.unwrap_or_default()),
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Returns all target groups of the region (DescribeTargetGroups).
    pub(crate) async fn target_groups(&self) -> Result<Vec<elb::TargetGroup>, AwsError> {
        Ok(pages!(self, "DescribeTargetGroups", self.elb.describe_target_groups(), target_groups))
    }

    /// Returns the target group with a name in any VPC (DescribeTargetGroups); `None` if there is none.
    pub(crate) async fn target_group_named(&self, name: &str) -> Result<Option<TargetGroupArn>, AwsError> {
        let named = self.target_groups_named(name).await?;
        Ok(named.iter().find_map(|group| group.target_group_arn().map(TargetGroupArn::new)))
    }

    /// Returns the trust store with a name (DescribeTrustStores); `None` if there is none.
    pub(crate) async fn trust_store(&self, name: &str) -> Result<Option<TrustStoreArn>, AwsError> {
        let call = self.elb.describe_trust_stores().names(name);
        match self.read("DescribeTrustStores", || call.clone().send()).await {
            Ok(answer) => Ok(answer.trust_stores().iter().find_map(|s| s.trust_store_arn().map(TrustStoreArn::new))),
            Err(error) if error.code() == Some("TrustStoreNotFound") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the tags of any number of resources (DescribeTags), without those of deleted resources.
    pub(crate) async fn tags(&self, arns: &[String]) -> Result<BTreeMap<String, Tags>, AwsError> {
        let batches: Vec<Vec<String>> = arns.chunks(TAGS).map(<[String]>::to_vec).collect();
        let answers: Vec<_> = stream::iter(batches)
            .map(|batch| self.tags_of_batch(batch))
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        Ok(answers.into_iter().flatten().collect())
    }

    async fn tags_of_batch(&self, arns: Vec<String>) -> Result<Vec<(String, Tags)>, AwsError> {
        match self.tags_at_once(arns.clone()).await {
            // A single deleted resource fails the call for all.
            Err(error) if error.is_not_found() && arns.len() > 1 => {
                let mut found = Vec::new();
                for arn in arns {
                    match self.tags_at_once(vec![arn]).await {
                        Err(error) if error.is_not_found() => {}
                        answer => found.extend(answer?),
                    }
                }
                Ok(found)
            }
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            answer => answer,
        }
    }

    async fn tags_at_once(&self, arns: Vec<String>) -> Result<Vec<(String, Tags)>, AwsError> {
        let call = self.elb.describe_tags().set_resource_arns(Some(arns));
        let answer = self.read("DescribeTags", || call.clone().send()).await?;
        let descriptions = answer.tag_descriptions().iter();
        Ok(descriptions.filter_map(|d| Some((d.resource_arn()?.to_owned(), convert::elb_tags(d.tags())))).collect())
    }

    /// Returns the attributes of a load balancer (DescribeLoadBalancerAttributes).
    pub(crate) async fn load_balancer_attributes(&self, arn: &LoadBalancerArn) -> Result<Attributes, AwsError> {
        let call = self.elb.describe_load_balancer_attributes().load_balancer_arn(arn.as_str());
        let answer = self.read("DescribeLoadBalancerAttributes", || call.clone().send()).await?;
        Ok(answer.attributes().iter().filter_map(|a| pair(a.key(), a.value())).collect())
    }

    /// Returns the limits of the account (DescribeAccountLimits).
    pub(crate) async fn account_limits(&self) -> Result<Limits, AwsError> {
        let mut named: Vec<(String, usize)> = Vec::new();
        let mut marker = None;
        loop {
            let call = self.elb.describe_account_limits().set_marker(marker.take());
            let answer = self.read("DescribeAccountLimits", || call.clone().send()).await?;
            let limit = |limit: &elb::Limit| Some((limit.name()?.to_owned(), limit.max()?.parse().ok()?));
            named.extend(answer.limits().iter().filter_map(limit));
            match answer.next_marker().filter(|next| !next.is_empty()) {
                Some(next) => marker = Some(next.to_owned()),
                None => return Ok(Limits::of(named.iter().map(|(name, most)| (name.as_str(), *most)))),
            }
        }
    }

    /// Returns the attributes of a target group (DescribeTargetGroupAttributes).
    pub(crate) async fn target_group_attributes(&self, arn: &TargetGroupArn) -> Result<Attributes, AwsError> {
        let call = self.elb.describe_target_group_attributes().target_group_arn(arn.as_str());
        let answer = self.read("DescribeTargetGroupAttributes", || call.clone().send()).await?;
        Ok(answer.attributes().iter().filter_map(|a| pair(a.key(), a.value())).collect())
    }

    /// Returns the attributes of a listener (DescribeListenerAttributes).
    pub(crate) async fn listener_attributes(&self, arn: &ListenerArn) -> Result<Attributes, AwsError> {
        let call = self.elb.describe_listener_attributes().listener_arn(arn.as_str());
        let answer = self.read("DescribeListenerAttributes", || call.clone().send()).await?;
        Ok(answer.attributes().iter().filter_map(|a| pair(a.key(), a.value())).collect())
    }

    /// Returns a load balancer's listeners with rules, certificates and tags. Listeners of a Network Load Balancer have
    /// no rules.
    pub(crate) async fn listeners(
        &self,
        balancer: &LoadBalancerArn,
    ) -> Result<BTreeMap<u16, ObservedListener>, AwsError> {
        let call = self.elb.describe_listeners().load_balancer_arn(balancer.as_str());
        let listeners = pages!(self, "DescribeListeners", call, listeners);
        let listeners: Vec<_> = listeners.iter().filter_map(convert::listener).collect();
        let mut listeners: Vec<_> = stream::iter(listeners)
            .map(|listener| self.listener_in_full(listener))
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        let arns: Vec<_> = listeners
            .iter()
            .flat_map(|l| std::iter::once(l.arn.as_str()).chain(l.rules.iter().map(|r| r.arn.as_str())))
            .map(str::to_owned)
            .collect();
        let mut tags = self.tags(&arns).await?;
        for listener in &mut listeners {
            listener.tags = tags.remove(listener.arn.as_str()).unwrap_or_default();
            for rule in &mut listener.rules {
                rule.tags = tags.remove(rule.arn.as_str()).unwrap_or_default();
            }
        }
        Ok(listeners.into_iter().map(|l| (l.port, l)).collect())
    }

    async fn listener_in_full(&self, mut listener: ObservedListener) -> Result<ObservedListener, AwsError> {
        let ruled = matches!(listener.protocol, None | Some(ListenerProtocol::Http | ListenerProtocol::Https));
        if ruled {
            let rules = self.elb.describe_rules().listener_arn(listener.arn.as_str());
            listener.rules = pages!(self, "DescribeRules", rules, rules).iter().filter_map(convert::rule).collect();
            listener.rules.sort_by_key(|rule| rule.priority);
        }
        if listener.protocol.is_none_or(ListenerProtocol::is_secure) {
            let certificates = self.elb.describe_listener_certificates().listener_arn(listener.arn.as_str());
            // AWS returns the default certificate separately, and may repeat it in this list.
            listener.certificates = pages!(self, "DescribeListenerCertificates", certificates, certificates)
                .iter()
                .filter(|c| c.is_default() != Some(true))
                .filter_map(elb::Certificate::certificate_arn)
                .map(CertificateArn::new)
                .collect();
        }
        Ok(listener)
    }

    /// Returns the capacity that is reserved for a load balancer (DescribeCapacityReservation).
    pub(crate) async fn reserved_capacity(&self, arn: &LoadBalancerArn) -> Result<CapacityUnits, AwsError> {
        let call = self.elb.describe_capacity_reservation().load_balancer_arn(arn.as_str());
        let answer = self.read("DescribeCapacityReservation", || call.clone().send()).await?;
        let units = answer.minimum_load_balancer_capacity().and_then(|minimum| minimum.capacity_units());
        Ok(units.and_then(CapacityUnits::new).unwrap_or(CapacityUnits::NONE))
    }
}

/// Returns the security groups of each load balancer by its ARN. AWS may have added some to the requested ones.
pub(crate) fn security_groups_of(balancers: &[elb::LoadBalancer]) -> BTreeMap<String, BTreeSet<SecurityGroupId>> {
    balancers.iter().filter_map(|b| Some((b.load_balancer_arn()?.to_owned(), convert::security_groups(b)))).collect()
}
