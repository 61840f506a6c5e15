//! The access to the load balancer and to its targets: security groups and their rules (reference: service §9, §12).

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Builder, key};
use crate::{
    api::annotations::{Key, registry::service as keys},
    desired::{
        diagnostic_sink::Failed,
        shared::security_groups::{self, GivenGroups, SecurityGroups, WithoutShared},
    },
    diagnostics::Code,
    model::{
        IpAddressType, ManagedSecurityGroup, ResourceId, Scheme, SecurityGroupReference, SecurityGroupRule, Source,
        Tags, names,
    },
    snapshot::Service,
};

const SECURITY_GROUPS: Key = keys::SECURITY_GROUPS;
const MANAGE_RULES: Key = keys::MANAGE_BACKEND_SECURITY_GROUP_RULES;
const WITHOUT: Key = keys::DISABLE_NLB_SG;
const SOURCE_RANGES: Key = keys::LOAD_BALANCER_SOURCE_RANGES;
const PREFIX_LISTS: Key = keys::SECURITY_GROUP_PREFIX_LISTS;
const PRIVATE_LINK: Key = keys::INBOUND_SG_RULES_ON_PRIVATE_LINK_TRAFFIC;
const PATH_MTU: Key = keys::ENABLE_ICMP_FOR_PATH_MTU_DISCOVERY;
pub(super) const SPEC_RANGES: &str = "spec.loadBalancerSourceRanges";
/// All of IPv4.
pub(super) const EVERYWHERE: &str = "0.0.0.0/0";
/// All of IPv6.
pub(super) const EVERYWHERE_IPV6: &str = "::/0";

/// The security groups of a load balancer, and how its targets know its traffic.
pub(super) struct Access {
    pub(super) security_groups: Vec<SecurityGroupReference>,
    pub(super) targets: TargetAccess,
    /// True if the rules of the security groups apply to PrivateLink too; `None` leaves it unchanged.
    pub(super) private_link_rules: Option<bool>,
}

impl Access {
    fn of(groups: SecurityGroups, private_link_rules: Option<bool>) -> Self {
        let targets = groups.source.map_or(TargetAccess::NotManaged, TargetAccess::Group);
        Self { security_groups: groups.all, targets, private_link_rules }
    }
}

/// The reason for a load balancer in no security group.
#[derive(Clone, Copy)]
enum NoSecurityGroups {
    /// The annotation of the Service.
    Annotation,
    /// The feature gate `NLBSecurityGroup`, which is off.
    Gate,
}

/// From where the way to the targets is opened.
pub(super) enum TargetAccess {
    /// The user manages the rules.
    NotManaged,
    /// From a security group that the load balancer is in.
    Group(SecurityGroupReference),
    /// From addresses, because the load balancer is in no security group.
    Addresses,
}

impl Builder<'_> {
    pub(super) fn access(&mut self, scheme: Option<Scheme>) -> Result<Access, Failed> {
        let annotated = self.value(self.annotations.bool(WITHOUT));
        let manage = self.value(self.annotations.bool(MANAGE_RULES));
        let given = self.value(self.annotations.string_list(SECURITY_GROUPS));
        let private_link = self.value(self.annotations.enumerated(PRIVATE_LINK, &["on", "off"]));
        let (annotated, manage, given) = (annotated?.unwrap_or_default(), manage?, given?.unwrap_or_default());
        let private_link_rules = private_link?.map(|word| word == "on");
        let without = if annotated {
            Some(NoSecurityGroups::Annotation)
        } else {
            (!self.config.nlb_security_groups).then_some(NoSecurityGroups::Gate)
        };
        let in_groups = self.is_in_groups(scheme);
        if in_groups == Some(false) || without.is_some() {
            if let (Some(true), Some(without)) = (in_groups, without) {
                let message = "the load balancer is in security groups, and AWS cannot take a Network Load Balancer out of all of them";
                let (field, fix) = match without {
                    NoSecurityGroups::Annotation => (
                        key(WITHOUT),
                        "remove the annotation, or make a second Service with it and delete this one when clients have moved",
                    ),
                    NoSecurityGroups::Gate => (
                        "--feature-gates=NLBSecurityGroup=false".to_owned(),
                        "start the controller without the gate, or make a second Service and delete this one when clients have moved",
                    ),
                };
                return Err(self.error(Code::ReplacementNeeded, &field, message, fix));
            }
            self.warn_without_effect(&given, without);
            let targets = if manage == Some(false) { TargetAccess::NotManaged } else { TargetAccess::Addresses };
            return Ok(Access { security_groups: Vec::new(), targets, private_link_rules: None });
        }
        if given.is_empty() {
            let object = self.object();
            let groups = security_groups::managed(&mut self.sink, self.config, self.facts, object);
            return groups.map(|groups| Access::of(groups, private_link_rules));
        }
        let why = "the load balancer is in security groups of yours, whose rules are yours";
        let fix = "write the allowed sources into the rules of a security group of the load balancer";
        self.warn_ranges_without_effect(why, fix, true);
        let request = GivenGroups {
            object: self.object(),
            field: &key(SECURITY_GROUPS),
            placeholders: given.len(),
            names: given,
            manage,
            without_shared: WithoutShared {
                code: Code::Unsupported,
                field: &key(MANAGE_RULES),
                message: "rules on nodes and pods name the shared security group as their source, and --enable-backend-security-group=false does without it",
                fix: "set the annotation to `false` and allow traffic to the targets yourself, or start the controller with the shared security group",
            },
        };
        let groups = security_groups::given(&mut self.sink, self.config, self.facts, request);
        groups.map(|groups| Access::of(groups, private_link_rules)).map_err(|_| Failed)
    }

    /// Warns of annotations that a load balancer without security groups does not heed. Source ranges are not among it: they are for its
    /// targets' rules.
    fn warn_without_effect(&mut self, given: &[String], without: Option<NoSecurityGroups>) {
        let why = match without {
            Some(NoSecurityGroups::Annotation) => {
                "the load balancer is in no security group, as `service.beta.kubernetes.io/aws-load-balancer-disable-nlb-sg` asks"
            }
            Some(NoSecurityGroups::Gate) => {
                "the load balancer is in no security group, as the controller's flag `--feature-gates=NLBSecurityGroup=false` asks"
            }
            None => "the load balancer was created without security groups, and AWS cannot add any",
        };
        if !given.is_empty() {
            let field = key(SECURITY_GROUPS);
            let fix = match without {
                Some(NoSecurityGroups::Annotation) => "remove one of the two annotations",
                Some(NoSecurityGroups::Gate) => "remove the annotation, or start the controller without the gate",
                None => "make a second Service and delete this one when clients have moved",
            };
            self.warning(Code::Unsupported, &field, &format!("the annotation has no effect: {why}"), fix);
        }
        if self.annotations.contains(PRIVATE_LINK) {
            let message = format!("it has no effect: {why}");
            self.warning(Code::Unsupported, &key(PRIVATE_LINK), &message, "remove it");
        }
        self.warn_ranges_without_effect(why, "remove it", false);
    }

    fn warn_ranges_without_effect(&mut self, why: &str, fix: &str, ranges: bool) {
        let spec = (!self.service.load_balancer_source_ranges.is_empty()).then(|| SPEC_RANGES.to_owned());
        let annotated = |name: Key| self.annotations.contains(name).then(|| key(name));
        let ranges = ranges.then_some([spec, annotated(SOURCE_RANGES)]).into_iter().flatten().flatten();
        let fields: Vec<String> = ranges.chain(annotated(PREFIX_LISTS)).chain(annotated(PATH_MTU)).collect();
        for field in fields {
            self.warning(Code::Unsupported, &field, &format!("it has no effect: {why}"), fix);
        }
    }

    /// The blocks that may connect, with where they are written: those of the spec, or else those of the annotation.
    pub(super) fn source_ranges(&mut self, address_type: IpAddressType) -> Result<(String, Vec<IpNet>), Failed> {
        self.source_ranges_of(self.service, address_type)
    }

    /// The blocks that may connect to the targets of a Service: its own, or else those of the load balancer.
    pub(super) fn source_ranges_of(
        &mut self,
        service: &Service,
        address_type: IpAddressType,
    ) -> Result<(String, Vec<IpNet>), Failed> {
        let ranges = &service.load_balancer_source_ranges;
        let ranges = if ranges.is_empty() { &self.service.load_balancer_source_ranges } else { ranges };
        let (field, written) = if ranges.is_empty() {
            let annotated = self.value(self.annotations.string_list(SOURCE_RANGES))?.unwrap_or_default();
            (key(SOURCE_RANGES), annotated)
        } else {
            (SPEC_RANGES.to_owned(), ranges.clone())
        };
        let mut blocks = Vec::new();
        let mut outcome = Ok(());
        for text in written {
            match text.trim().parse::<IpNet>() {
                // AWS keeps a block without its host bits.
                Ok(IpNet::V6(_)) if !address_type.has_ipv6() => {
                    let message = format!("`{text}` is a block of IPv6, and the load balancer has only IPv4 addresses");
                    let fix = format!("remove it, or write `dualstack` in `{}`", key(keys::IP_ADDRESS_TYPE));
                    outcome = Err(self.error(Code::InvalidValue, &field, &message, &fix));
                }
                Ok(block) => blocks.push(block.trunc()),
                Err(_) => {
                    let message = format!("`{text}` is not an address range");
                    let fix = "write address ranges such as `10.0.0.0/8`";
                    outcome = Err(self.error(Code::InvalidValue, &field, &message, fix));
                }
            }
        }
        outcome.map(|()| (field, blocks))
    }

    pub(super) fn managed_security_group(
        &mut self,
        access: &Access,
        address_type: Option<IpAddressType>,
        user_tags: &Tags,
    ) -> Result<Option<ManagedSecurityGroup>, Failed> {
        if !access.security_groups.contains(&SecurityGroupReference::Managed) {
            return Ok(None);
        }
        Ok(Some(ManagedSecurityGroup {
            name: self.named(|cluster, uid| names::service_security_group(cluster, &self.service.name, uid)),
            description: names::MANAGED_GROUP_DESCRIPTION,
            ingress: self.rules(address_type.ok_or(Failed)?)?,
            tags: self.tags(&ResourceId::managed_security_group(), user_tags),
            cause: self.cause("spec"),
        }))
    }

    fn rules(&mut self, address_type: IpAddressType) -> Result<Vec<SecurityGroupRule>, Failed> {
        let ranges = self.source_ranges(address_type);
        let prefix_lists = self.value(self.annotations.string_list(PREFIX_LISTS));
        let (mut ranges, prefix_lists) = (ranges?.1, prefix_lists?);
        if ranges.is_empty() && prefix_lists.is_none() {
            ranges.push(Ipv4Net::default().into());
            ranges.extend(address_type.has_ipv6().then(|| IpNet::from(Ipv6Net::default())));
        }
        let path_mtu = self.annotations.value(PATH_MTU).is_some_and(|(_, value)| value == "on");
        let mut rules: Vec<SecurityGroupRule> = Vec::new();
        let mut add = |rule: SecurityGroupRule| {
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        };
        for service_port in &self.service.ports {
            let (protocol, port) = (service_port.protocol.to_ascii_lowercase(), i32::from(service_port.port));
            for block in &ranges {
                // Fragmentation needed: type 3, code 4. Packet too big: type 2, code 0.
                let (source, too_big) = match block {
                    IpNet::V4(block) => (Source::Ipv4(block.to_string()), ("icmp", 3, 4)),
                    IpNet::V6(block) => (Source::Ipv6(block.to_string()), ("icmpv6", 2, 0)),
                };
                add(security_groups::rule(&protocol, port, port, source.clone()));
                if path_mtu {
                    let (protocol, kind, code) = too_big;
                    add(security_groups::rule(protocol, kind, code, source));
                }
            }
            for list in prefix_lists.iter().flatten() {
                add(security_groups::rule(&protocol, port, port, Source::PrefixList(list.clone())));
            }
        }
        Ok(rules)
    }
}
