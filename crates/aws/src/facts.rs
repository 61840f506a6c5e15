//! The shell of [`albatross_core::facts`]: reads the facts that a build requests from AWS, and caches them for a while.

mod certificates;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use self::certificates::CertificateStore;
use crate::{AwsError, AwsReader};
use albatross_core::{
    facts::{
        Fact, FactQuery, Facts, Subnet, SubnetQuery, hosted_zones::HostedZone, limits::Limits, security_groups, subnets,
    },
    model::{SecurityGroupId, TargetGroupArn, TrustStoreArn, VpcBlocks, VpcId, WebAclArn},
};

/// Subnets, security groups, route tables and their tags change rarely. Resources that are not found are looked up again every time.
const MAXIMUM_AGE: Duration = Duration::from_secs(300);

/// The time after which web ACLs are listed again for a name that is not in the list, so that many such names cost one list.
const SHORTEST_AGE: Duration = Duration::from_secs(5);

/// A region gets new zones, and a VPC new blocks of addresses, more rarely still.
const MAXIMUM_AGE_OF_PLACES: Duration = Duration::from_secs(3600);

/// Facts with their ages.
#[derive(Debug)]
pub struct FactStore {
    aws: Arc<AwsReader>,
    cluster: String,
    vpc: VpcId,
    gates: subnets::Gates,
    ages: Ages,
    /// One reader at a time: the others wait and find the answer.
    places: tokio::sync::Mutex<Places>,
    /// The same, for each list of names.
    security_groups: Mutex<BTreeMap<Vec<String>, Cell<Vec<SecurityGroupId>>>>,
    /// The same, for each name.
    target_groups: Mutex<BTreeMap<String, Cell<TargetGroupArn>>>,
    vpc_blocks: tokio::sync::Mutex<Option<Reading<VpcBlocks>>>,
    web_acls: tokio::sync::Mutex<Option<Reading<BTreeMap<String, WebAclArn>>>>,
    shield_subscription: tokio::sync::Mutex<Option<Reading<bool>>>,
    hosted_zones: tokio::sync::Mutex<Option<Reading<Vec<HostedZone>>>>,
    /// By name.
    trust_stores: tokio::sync::Mutex<BTreeMap<String, Reading<TrustStoreArn>>>,
    certificates: CertificateStore,
}

/// The subnets and their locations: every question about subnets is answered from here.
#[derive(Debug, Default)]
struct Places {
    subnets: Option<Reading<Vec<subnets::SubnetCandidate>>>,
    zones: Option<Reading<Vec<subnets::Zone>>>,
    route_tables: Option<Reading<Vec<subnets::RouteTable>>>,
}

type Cell<T> = Arc<tokio::sync::Mutex<Option<Reading<T>>>>;

/// An answer of AWS, with its time.
#[derive(Debug)]
struct Reading<T> {
    value: T,
    at: Instant,
    /// The how manieth reading it is.
    number: u64,
}

/// Counts readings, so that one that began before a question, or before everything was forgotten, is known for old.
#[derive(Debug, Default)]
struct Ages {
    begun: AtomicU64,
    invalidated: AtomicU64,
}

impl Ages {
    /// The last reading that has begun.
    fn now(&self) -> u64 {
        self.begun.load(Ordering::SeqCst)
    }

    fn is_valid<T>(&self, reading: &Reading<T>, maximum_age: Duration) -> bool {
        reading.number > self.invalidated.load(Ordering::SeqCst) && reading.at.elapsed() < maximum_age
    }

    /// Returns the cached answer unless it is too old, otherwise the answer of `read`.
    async fn get<'a, T>(
        &self,
        kept: &'a mut Option<Reading<T>>,
        maximum_age: Duration,
        read: impl Future<Output = Result<T, AwsError>>,
    ) -> Result<&'a Reading<T>, AwsError> {
        let valid = kept.take().filter(|reading| self.is_valid(reading, maximum_age));
        let reading = match valid {
            Some(reading) => reading,
            None => {
                let (at, number) = (Instant::now(), self.begun.fetch_add(1, Ordering::SeqCst) + 1);
                Reading { value: read.await?, at, number }
            }
        };
        Ok(kept.insert(reading))
    }
}

impl Ages {
    /// Returns the cell that caches the answer to a question. Cells that have not been used for a while make room.
    fn cell<K: Ord + Clone, T>(&self, cells: &Mutex<BTreeMap<K, Cell<T>>>, key: &K) -> Cell<T> {
        let mut cells = cells.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cell) = cells.get(key) {
            return Arc::clone(cell);
        }
        cells.retain(|_, cell| {
            let kept =
                cell.try_lock().map(|kept| kept.as_ref().is_some_and(|reading| self.is_valid(reading, MAXIMUM_AGE)));
            Arc::strong_count(cell) > 1 || kept.unwrap_or(true)
        });
        Arc::clone(cells.entry(key.clone()).or_default())
    }
}

fn converted<T, U: From<T>>(items: Vec<T>) -> Vec<U> {
    items.into_iter().map(U::from).collect()
}

fn unavailable<T>(error: &AwsError) -> Fact<T> {
    let fix = error.fix().map(|fix| format!("; {fix}")).unwrap_or_default();
    Fact::Unavailable(format!("{error}{fix}"))
}

impl FactStore {
    /// Asks through `aws`.
    #[must_use]
    pub fn new(aws: Arc<AwsReader>, cluster: String, vpc: VpcId) -> Self {
        Self {
            aws,
            cluster,
            vpc,
            gates: subnets::Gates::default(),
            ages: Ages::default(),
            places: tokio::sync::Mutex::default(),
            security_groups: Mutex::default(),
            target_groups: Mutex::default(),
            vpc_blocks: tokio::sync::Mutex::default(),
            web_acls: tokio::sync::Mutex::default(),
            shield_subscription: tokio::sync::Mutex::default(),
            hosted_zones: tokio::sync::Mutex::default(),
            trust_stores: tokio::sync::Mutex::default(),
            certificates: CertificateStore::default(),
        }
    }

    /// Chooses subnets as these gates say.
    #[must_use]
    pub fn with_gates(self, gates: subnets::Gates) -> Self {
        Self { gates, ..self }
    }

    /// Restricts certificates to those of the named authorities, if any are named.
    #[must_use]
    pub fn with_certificate_authorities(mut self, allowed: BTreeSet<String>) -> Self {
        self.certificates = CertificateStore::of_authorities(allowed);
        self
    }

    /// Certificates that were requested for Ingresses are not found by host name, if `excludes`.
    #[must_use]
    pub fn without_requested_certificates(mut self, excludes: bool) -> Self {
        self.certificates = self.certificates.without_requested(excludes);
        self
    }

    /// Puts into `facts` what is wanted. The shared security group is not looked up here: looking it up may make it. Nor are Secrets,
    /// which the cluster has.
    pub async fn answer(&self, want: &FactQuery, facts: &mut Facts) {
        match want {
            FactQuery::Subnets(query) => {
                let fact = self.subnets(query).await;
                facts.subnets.insert(query.clone(), fact);
            }
            FactQuery::SecurityGroups(names) => {
                let fact = self.security_groups(names).await;
                facts.security_groups.insert(names.clone(), fact);
            }
            FactQuery::TargetGroup(name) => {
                let fact = self.target_group(name).await;
                facts.target_groups.insert(name.clone(), fact);
            }
            FactQuery::Certificates(hosts) => {
                let fact = self.certificates.answer(&self.aws, hosts).await;
                facts.certificates.insert(hosts.clone(), fact.unwrap_or_else(|error| unavailable(&error)));
            }
            FactQuery::TrustStore(name) => {
                let fact = self.trust_store(name).await;
                facts.trust_stores.insert(name.clone(), fact);
            }
            FactQuery::VpcBlocks => facts.vpc_blocks = Some(self.vpc_blocks().await),
            FactQuery::Limits => facts.limits = Some(self.limits().await),
            FactQuery::WebAcl(name) => {
                let fact = self.web_acl(name).await;
                facts.web_acls.insert(name.clone(), fact);
            }
            FactQuery::ShieldSubscription => facts.shield_subscription = Some(self.shield_subscription().await),
            FactQuery::HostedZones => facts.hosted_zones = Some(self.hosted_zones().await),
            FactQuery::Secret(_)
            | FactQuery::ManagedCertificates
            | FactQuery::BackendSecurityGroup
            | FactQuery::Current
            | FactQuery::CurrentAddOn(_)
            | FactQuery::Protection => {}
        }
    }

    /// The account's limits. Without the permission to read them they are unknown, and only AWS refuses what exceeds them.
    async fn limits(&self) -> Fact<Limits> {
        match self.aws.account_limits().await {
            Ok(limits) => Fact::Known(limits),
            Err(error) if error.is_denied() => Fact::Known(Limits::UNKNOWN),
            Err(error) => unavailable(&error),
        }
    }

    async fn subnets(&self, query: &SubnetQuery) -> Fact<Vec<Subnet>> {
        let asked = self.ages.now();
        let mut places = self.places.lock().await;
        let mut answer = self.find_subnets(query, &mut places).await;
        // A subnet that was made or tagged a minute ago is not missed for minutes.
        let is_older = |number| number <= asked;
        if matches!(answer, Ok(Fact::Absent { .. })) && places.subnets.as_ref().is_some_and(|r| is_older(r.number)) {
            (places.subnets, places.route_tables) = (None, None);
            answer = self.find_subnets(query, &mut places).await;
        }
        answer.unwrap_or_else(|error| unavailable(&error))
    }

    async fn find_subnets(&self, query: &SubnetQuery, places: &mut Places) -> Result<Fact<Vec<Subnet>>, AwsError> {
        let Places { subnets, zones, route_tables } = places;
        let read = async { self.aws.describe_subnets(&self.vpc).await.map(converted) };
        let candidates = &self.ages.get(subnets, MAXIMUM_AGE, read).await?.value;
        let read = async { self.aws.describe_availability_zones().await.map(converted) };
        let zones = &self.ages.get(zones, MAXIMUM_AGE_OF_PLACES, read).await?.value;
        let (kind, by, ipv6) = match query {
            SubnetQuery::Discovered { kind, scheme, ipv6 } => (*kind, subnets::SelectBy::Role(*scheme), *ipv6),
            SubnetQuery::Tagged { kind, tags, ipv6 } => (*kind, subnets::SelectBy::Tags(tags.clone()), *ipv6),
            SubnetQuery::Named { kind, names, ipv6 } => {
                let named = subnets::resolve_named(&self.vpc, *kind, *ipv6, self.gates, names, candidates, zones);
                return Ok(match named {
                    Ok(named) => Fact::Known(named),
                    Err(unfit) => Fact::Absent { message: unfit.message(), fix: unfit.fix() },
                });
            }
        };
        let choice = subnets::Choice { kind, by, ipv6 };
        let tables: &[subnets::RouteTable] = if subnets::needs_route_tables(&choice, self.gates, candidates) {
            let read = async { self.aws.describe_route_tables(&self.vpc).await.map(converted) };
            &self.ages.get(route_tables, MAXIMUM_AGE, read).await?.value
        } else {
            &[]
        };
        Ok(match subnets::choose(&self.vpc, &choice, self.gates, &self.cluster, candidates, zones, tables) {
            Ok(chosen) => Fact::Known(chosen),
            Err(none) => Fact::Absent { message: none.message(), fix: none.fix() },
        })
    }

    async fn security_groups(&self, names: &[String]) -> Fact<Vec<SecurityGroupId>> {
        let cell = self.ages.cell(&self.security_groups, &names.to_vec());
        let mut kept = cell.lock().await;
        let mut missing = None;
        let (ids, tags): (Vec<&str>, Vec<&str>) =
            names.iter().map(String::as_str).partition(|name| security_groups::is_id(name));
        let read = async {
            let candidates = self.aws.security_groups_of_vpc(&self.vpc, &ids, &tags).await?;
            let found = security_groups::resolve(&self.vpc, names, &candidates);
            Ok(found.unwrap_or_else(|none| {
                missing = Some(none);
                Vec::new()
            }))
        };
        let found = self.ages.get(&mut kept, MAXIMUM_AGE, read).await.map(|reading| reading.value.clone());
        if let Some(missing) = missing {
            *kept = None;
            return Fact::Absent { message: missing.message(), fix: missing.fix() };
        }
        found.map_or_else(|error| unavailable(&error), Fact::Known)
    }

    async fn vpc_blocks(&self) -> Fact<VpcBlocks> {
        let mut kept = self.vpc_blocks.lock().await;
        let read = async { Ok(self.aws.vpc_blocks(&self.vpc).await?.unwrap_or_default()) };
        let blocks = self.ages.get(&mut kept, MAXIMUM_AGE_OF_PLACES, read).await.map(|reading| reading.value.clone());
        match blocks {
            Ok(blocks) if blocks.ipv4.is_empty() => {
                *kept = None;
                Fact::Absent {
                    message: format!("AWS reports no IPv4 blocks of {}", self.vpc),
                    fix: "check --aws-vpc-id and --aws-region".to_owned(),
                }
            }
            Ok(blocks) => Fact::Known(blocks),
            Err(error) => unavailable(&error),
        }
    }

    async fn trust_store(&self, name: &str) -> Fact<TrustStoreArn> {
        let mut known = self.trust_stores.lock().await;
        let mut kept = known.remove(name);
        let mut missing = false;
        let read = async {
            let found = self.aws.trust_store(name).await?;
            missing = found.is_none();
            Ok(found.unwrap_or_else(|| TrustStoreArn::new("")))
        };
        let found = self.ages.get(&mut kept, MAXIMUM_AGE, read).await.map(|reading| reading.value.clone());
        if missing {
            return Fact::Absent {
                message: format!("there is no trust store `{name}`"),
                fix: "create it in the load balancer's account and region, or name another, by name or ARN".to_owned(),
            };
        }
        known.extend(kept.map(|reading| (name.to_owned(), reading)));
        found.map_or_else(|error| unavailable(&error), Fact::Known)
    }

    /// All web ACLs are listed at once. A name that is not in a list which is older than the question is looked for once more,
    /// unless the list is only seconds old. The others stay known.
    async fn web_acl(&self, name: &str) -> Fact<WebAclArn> {
        let mut kept = self.web_acls.lock().await;
        for maximum_age in [MAXIMUM_AGE, SHORTEST_AGE] {
            match self.ages.get(&mut kept, maximum_age, self.aws.web_acls()).await {
                Ok(listed) => {
                    if let Some(web_acl) = listed.value.get(name) {
                        return Fact::Known(web_acl.clone());
                    }
                }
                Err(error) => return unavailable(&error),
            }
        }
        Fact::Absent {
            message: format!("there is no regional web ACL `{name}`"),
            fix: "create it with the scope REGIONAL in the load balancer's account and region, or name another"
                .to_owned(),
        }
    }

    /// A zone that is created is missed for minutes at most.
    async fn hosted_zones(&self) -> Fact<Vec<HostedZone>> {
        let mut kept = self.hosted_zones.lock().await;
        let found = self.ages.get(&mut kept, MAXIMUM_AGE, self.aws.public_zones()).await;
        found.map_or_else(|error| unavailable(&error), |reading| Fact::Known(reading.value.clone()))
    }

    /// That the account is not subscribed is forgotten sooner.
    async fn shield_subscription(&self) -> Fact<bool> {
        let mut kept = self.shield_subscription.lock().await;
        let maximum_age = match kept.as_ref().is_some_and(|reading| reading.value) {
            true => MAXIMUM_AGE_OF_PLACES,
            false => MAXIMUM_AGE,
        };
        let found = self.ages.get(&mut kept, maximum_age, self.aws.is_subscribed_to_shield()).await;
        found.map_or_else(|error| unavailable(&error), |reading| Fact::Known(reading.value))
    }

    /// Invalidates the answer, so that it is read again: something about it did not fit.
    pub fn invalidate(&self) {
        self.ages.invalidated.store(self.ages.now(), Ordering::SeqCst);
    }
}

mod target_groups;
#[cfg(test)]
mod tests;
