//! EndpointSlices.

use super::name_of;
use crate::{api::kubernetes as wire, model::ObjectName};

/// The family of addresses of an EndpointSlice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddressFamily {
    /// `IPv4`
    Ipv4,
    /// `IPv6`
    Ipv6,
    /// `FQDN`, or a word that is not known.
    Other,
}

/// An EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Namespace and name.
    pub name: ObjectName,
    /// The Service that it belongs to, by its label.
    pub service: String,
    /// The family of its addresses.
    pub family: AddressFamily,
    /// The ports that every endpoint has.
    pub ports: Vec<EndpointSlicePort>,
    /// The endpoints.
    pub endpoints: Vec<EndpointAddress>,
}

/// A port of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlicePort {
    /// The Service port's name; empty where it has none.
    pub name: String,
    /// The pods' number.
    pub number: u16,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointAddress {
    /// Its first address; the others mean the same.
    pub address: String,
    /// Absent counts as ready.
    pub ready: Option<bool>,
    /// True if its pod is terminating.
    pub terminating: bool,
    /// The pod behind it, where there is one.
    pub pod: Option<PodReference>,
}

/// The pod of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodReference {
    /// The name, which a recreated pod of a StatefulSet has again.
    pub name: String,
    /// The UID; EndpointSlices of other controllers may lack it.
    pub uid: Option<String>,
}

impl PodReference {
    /// Returns true if it may mean the pod with this UID and the same name.
    #[must_use]
    pub fn means(&self, uid: &str) -> bool {
        self.uid.as_ref().is_none_or(|own| own == uid)
    }
}

impl From<wire::EndpointSlice> for EndpointSlice {
    fn from(wire: wire::EndpointSlice) -> Self {
        Self {
            name: name_of(&wire.metadata),
            service: wire.metadata.labels.and_then(|mut l| l.remove("kubernetes.io/service-name")).unwrap_or_default(),
            family: match wire.address_type.as_str() {
                "IPv4" => AddressFamily::Ipv4,
                "IPv6" => AddressFamily::Ipv6,
                _ => AddressFamily::Other,
            },
            ports: wire
                .ports
                .into_iter()
                .filter_map(|p| {
                    let number = u16::try_from(p.port?).ok()?;
                    Some(EndpointSlicePort { name: p.name.unwrap_or_default(), number })
                })
                .collect(),
            endpoints: wire
                .endpoints
                .into_iter()
                .filter_map(|e| {
                    Some(EndpointAddress {
                        address: e.addresses.into_iter().next()?,
                        ready: e.conditions.ready,
                        terminating: e.conditions.terminating.unwrap_or_default(),
                        pod: e
                            .target_ref
                            .filter(|r| r.kind.as_deref() == Some("Pod"))
                            .and_then(|r| Some(PodReference { name: r.name?, uid: r.uid })),
                    })
                })
                .collect(),
        }
    }
}
