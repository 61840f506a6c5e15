//! The shell of [`crate::facts`]: asks AWS for what building wants, and keeps it for a while.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    aws::{Aws, AwsError},
    facts::{Fact, subnets},
    model::{Scheme, SubnetId, VpcId},
};

/// Subnets and their tags change rarely, and matter only to load balancers that are new.
const MAXIMUM_AGE: Duration = Duration::from_secs(300);

/// Facts with their ages.
#[derive(Debug)]
pub struct FactStore {
    aws: Arc<Aws>,
    cluster: String,
    vpc: VpcId,
    subnets: Mutex<BTreeMap<Scheme, (Vec<SubnetId>, Instant)>>,
    /// One reader at a time: whoever waited finds the answer.
    reading: tokio::sync::Mutex<()>,
}

impl FactStore {
    /// Asks through `aws`.
    #[must_use]
    pub fn new(aws: Arc<Aws>, cluster: String, vpc: VpcId) -> Self {
        Self { aws, cluster, vpc, subnets: Mutex::default(), reading: tokio::sync::Mutex::default() }
    }

    /// The subnets for a new load balancer.
    pub async fn subnets(&self, scheme: Scheme) -> Fact<Vec<SubnetId>> {
        let _reading = self.reading.lock().await;
        if let Some((known, at)) = self.subnets.lock().unwrap_or_else(PoisonError::into_inner).get(&scheme)
            && at.elapsed() < MAXIMUM_AGE
        {
            return Fact::Known(known.clone());
        }
        match self.find_subnets(scheme).await {
            Ok(Ok(found)) => {
                let mut known = self.subnets.lock().unwrap_or_else(PoisonError::into_inner);
                known.insert(scheme, (found.clone(), Instant::now()));
                Fact::Known(found)
            }
            Ok(Err(none)) => Fact::Absent { message: none.message(), fix: none.fix() },
            Err(error) => {
                let fix = error.fix().map(|fix| format!("; {fix}")).unwrap_or_default();
                Fact::Unavailable(format!("{error}{fix}"))
            }
        }
    }

    async fn find_subnets(&self, scheme: Scheme) -> Result<Result<Vec<SubnetId>, subnets::NoSubnets>, AwsError> {
        let candidates: Vec<subnets::SubnetCandidate> =
            self.aws.describe_subnets(&self.vpc).await?.into_iter().map(Into::into).collect();
        let zones: Vec<subnets::Zone> =
            self.aws.describe_availability_zones().await?.into_iter().map(Into::into).collect();
        let route_tables: Vec<subnets::RouteTable> = if subnets::needs_route_tables(scheme, &candidates) {
            self.aws.describe_route_tables(&self.vpc).await?.into_iter().map(Into::into).collect()
        } else {
            Vec::new()
        };
        Ok(subnets::choose(&self.vpc, scheme, &self.cluster, &candidates, &zones, &route_tables))
    }

    /// Forgets what was found, so that it is asked for anew: something about it did not fit.
    pub fn forget_subnets(&self) {
        self.subnets.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
