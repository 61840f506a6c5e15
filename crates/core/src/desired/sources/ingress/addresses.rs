//! The addresses of targets (reference: ingress §7.3).

use super::{Builder, Failed};
use crate::{
    diagnostics::Code,
    model::{IpAddressType, ObjectName},
    snapshot::Service,
};

impl Builder<'_> {
    /// The addresses of targets: IPv6 where the Service has any, also in addition to others.
    pub(super) fn target_addresses(
        &mut self,
        member: &ObjectName,
        service: &Service,
        field: &str,
    ) -> Result<IpAddressType, Failed> {
        if !service.ipv6 {
            return Ok(IpAddressType::Ipv4);
        }
        if self.ip_address_type.has_ipv6() {
            return Ok(IpAddressType::Ipv6);
        }
        let message =
            format!("the Service `{}` has IPv6 addresses, and its load balancer has only IPv4 addresses", service.name);
        let fix =
            "set `alb.ingress.kubernetes.io/ip-address-type: dualstack`, or `spec.ipFamilies: [IPv4]` on the Service";
        Err(self.error(member, Code::Unsupported, field, &message, fix))
    }
}
