//! The pools that the IPv4 addresses of the load balancer come from (reference: ingress §5.4, §5.6).

use std::collections::BTreeSet;

use super::{
    super::{
        Builder,
        member_spec::MemberSpec,
        settings::{FieldRef, Sourced},
    },
    Unmerged,
};
use crate::{
    api::annotations::registry::ingress::{self as keys, merged},
    desired::shared::subnets,
    diagnostics::{Code, Severity},
    model::{AddressPools, CustomerOwnedPoolId, IpamPoolId, ObjectName, Scheme},
};

impl<'a> Builder<'a> {
    pub(super) fn merge_pools(
        &mut self,
        specs: &[MemberSpec<'a>],
        frozen: &BTreeSet<ObjectName>,
        scheme: Scheme,
    ) -> Result<AddressPools, Unmerged> {
        let ipam = self.merge_ipam_pool(specs, frozen, scheme)?;
        let customer_owned = self.merge_customer_owned_pool(specs, scheme)?;
        Ok(AddressPools { ipam, customer_owned })
    }

    /// Returns the IPAM pool of the group. That of the class of the first member takes precedence over all annotations.
    fn merge_ipam_pool(
        &mut self,
        specs: &[MemberSpec<'a>],
        frozen: &BTreeSet<ObjectName>,
        scheme: Scheme,
    ) -> Result<Option<IpamPoolId>, Unmerged> {
        let first = self.first_member(specs, frozen, None)?;
        let retained = self.observed_if_frozen(frozen)?.and_then(|observed| observed.load_balancers.first());
        let retained = retained.and_then(|balancer| balancer.pools.ipam.clone()).map(IpamPoolId::known);
        let of_class = first.and_then(|first| Some((first, first.params_ipam_pool()?)));
        if let Some((first, Sourced { value, place })) = of_class {
            if frozen.contains(first.name()) {
                return Ok(retained);
            }
            if scheme == Scheme::Internal {
                self.warn_of_internal(specs.first(), &place);
                return Ok(None);
            }
            // One that is not an id is reported with the other mistakes of the class.
            return Ok(IpamPoolId::new(value).ok());
        }
        let place = |spec: &MemberSpec<'a>| FieldRef::annotation(spec.member.ingress, keys::IPAM_IPV4_POOL_ID);
        let mut to_freeze = BTreeSet::new();
        for spec in specs {
            if let Some(Err(invalid)) = spec.ipam_pool.clone().map(IpamPoolId::new) {
                let (ingress, message) = (spec.member.ingress, invalid.to_string());
                self.wrong(ingress, Code::InvalidValue, &place(spec), Severity::Error, &message, &invalid.fix());
                to_freeze.insert(ingress.name.clone());
            }
        }
        if !to_freeze.is_empty() {
            return Err(Unmerged::Freeze(to_freeze));
        }
        let pool = self.merge_exclusive(
            specs,
            merged::IPAM_IPV4_POOL_ID,
            "the IPAM pool",
            |spec| spec.ipam_pool.clone().and_then(|pool| IpamPoolId::new(pool).ok()),
            |observed, pool| observed.load_balancers.first().is_some_and(|b| b.pools.has_ipam(Some(pool))),
            |pool| format!("`{pool}`"),
        )?;
        if pool.is_some() && scheme == Scheme::Internal {
            for spec in specs.iter().filter(|spec| spec.ipam_pool.is_some()) {
                self.warn_of_internal(Some(spec), &place(spec));
            }
            return Ok(None);
        }
        Ok(pool.or(retained))
    }

    fn warn_of_internal(&mut self, spec: Option<&MemberSpec<'a>>, place: &FieldRef) {
        let Some(spec) = spec else { return };
        let message = "the load balancer is internal, and an IPAM pool gives only public addresses";
        let fix = "remove the setting, or make the load balancer internet-facing";
        self.wrong(spec.member.ingress, Code::NoEffect, place, Severity::Warning, message, fix);
    }

    /// Returns the pool of customer-owned addresses, and reports that an existing load balancer has another one.
    fn merge_customer_owned_pool(
        &mut self,
        specs: &[MemberSpec<'a>],
        scheme: Scheme,
    ) -> Result<Option<CustomerOwnedPoolId>, Unmerged> {
        let pool = self.merge_exclusive(
            specs,
            merged::CUSTOMER_OWNED_IPV4_POOL,
            "the pool of customer-owned addresses",
            |spec| spec.customer_owned_pool.clone(),
            |observed, pool| {
                let known = observed.load_balancers.first().and_then(|b| b.pools.customer_owned.as_deref());
                known == Some(pool.as_str())
            },
            |pool| format!("`{pool}`"),
        )?;
        let Some(pool) = pool else { return Ok(None) };
        let existing = subnets::existing_of_scheme(self.facts, scheme).map(|it| it.customer_owned_pool.as_deref());
        if let Some(known) = existing.filter(|known| *known != Some(pool.as_str())) {
            let has = known.map_or("without such a pool".to_owned(), |known| format!("with the pool `{known}`"));
            let message = format!("the load balancer was created {has}, and AWS cannot change that");
            let fix =
                "remove the annotation, or move the Ingress to a group whose load balancer is created with the pool";
            for spec in specs.iter().filter(|spec| spec.customer_owned_pool.is_some()) {
                let place = FieldRef::annotation(spec.member.ingress, keys::CUSTOMER_OWNED_IPV4_POOL);
                self.wrong(spec.member.ingress, Code::NoEffect, &place, Severity::Warning, &message, fix);
            }
        }
        Ok(Some(pool))
    }
}
