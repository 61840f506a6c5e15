//! Who may reach a load balancer, and how it reaches its targets (reference: ingress §6).

use ipnet::IpNet;

use super::{Builder, Failed, Member, cause};
use crate::{
    api::annotations::INGRESS_PREFIX,
    build::{Code, Severity, names, tags},
    facts::Want,
    model::{
        ManagedSecurityGroup, ObjectReference, ResourceId, SecurityGroupReference, SecurityGroupRule, Source, Tags,
        Value,
    },
    snapshot::Ingress,
};

const SECURITY_GROUPS: &str = "alb.ingress.kubernetes.io/security-groups";
const MANAGE_RULES: &str = "alb.ingress.kubernetes.io/manage-backend-security-group-rules";
const INBOUND_CIDRS: &str = "alb.ingress.kubernetes.io/inbound-cidrs";
const PREFIX_LISTS: &str = "alb.ingress.kubernetes.io/security-group-prefix-lists";

/// The security groups of a load balancer.
#[derive(Clone, Debug)]
pub(super) struct Access {
    /// In the order of the request.
    pub(super) security_groups: Vec<SecurityGroupReference>,
    /// Whom nodes and pods let in; `None` where their rules are the user's.
    pub(super) backend_source: Option<SecurityGroupReference>,
}

impl Access {
    /// Whether the first group is the stack's own.
    pub(super) fn is_managed(&self) -> bool {
        self.security_groups.contains(&SecurityGroupReference::Managed)
    }
}

impl<'a> Builder<'a> {
    pub(super) fn access(&mut self, member: Member<'a>) -> Result<Access, Failed> {
        let Member { ingress, annotations, .. } = member;
        let given = self.value(ingress, None, annotations.string_list("security-groups"));
        let manage = self.value(ingress, None, annotations.bool("manage-backend-security-group-rules"));
        let (given, manage) = (given?.unwrap_or_default(), manage?);
        if given.is_empty() {
            let mut security_groups = vec![SecurityGroupReference::Managed];
            if self.config.enable_backend_security_group {
                security_groups.push(SecurityGroupReference::SharedBackend(self.backend_security_group(ingress)?));
            }
            let backend_source = security_groups.last().cloned();
            return Ok(Access { security_groups, backend_source });
        }
        for name in ["inbound-cidrs", "security-group-prefix-lists"].into_iter().filter(|n| annotations.contains(n)) {
            let key = format!("{INGRESS_PREFIX}{name}");
            let message =
                format!("annotation `{key}` has no effect: the rules of the groups in `{SECURITY_GROUPS}` are yours");
            let fix = "put these sources into rules of those groups, or remove one of the two annotations";
            self.warning(ingress, Code::UnknownAnnotation, &key, &message, fix);
        }
        let fact = self.facts.security_groups(&given);
        let object = ObjectReference::ingress(&ingress.name);
        let found =
            self.findings.settle(fact, Want::SecurityGroups(given), object, Code::InvalidValue, SECURITY_GROUPS);
        let manage = manage.unwrap_or(self.config.enable_manage_backend_security_group_rules);
        let shared = match (manage, self.config.enable_backend_security_group) {
            (false, _) => None,
            (true, true) => Some(SecurityGroupReference::SharedBackend(self.backend_security_group(ingress)?)),
            (true, false) => {
                let message = "the rules from given security groups to the targets need the shared backend security group, which `--enable-backend-security-group=false` turns off";
                let fix =
                    "turn the flag on, or set the annotation to `false` and keep the rules of nodes and pods yourself";
                return Err(self.error(&ingress.name, Code::InvalidValue, MANAGE_RULES, message, fix));
            }
        };
        let mut security_groups: Vec<_> = match found? {
            Value::Known(ids) => ids.into_iter().map(|id| SecurityGroupReference::Given(Value::Known(id))).collect(),
            Value::AfterApply(why) => vec![SecurityGroupReference::Given(Value::AfterApply(why))],
        };
        security_groups.extend(shared.clone());
        Ok(Access { security_groups, backend_source: shared })
    }

    /// The stack's own group, which lets in the sources on every listener's port.
    pub(super) fn managed_security_group(
        &self,
        ingress: &Ingress,
        ports: impl Iterator<Item = u16>,
        sources: &[Source],
        user_tags: &Tags,
    ) -> ManagedSecurityGroup {
        let rule = |port: u16, source: &Source| SecurityGroupRule {
            protocol: "tcp".to_owned(),
            from_port: Some(i32::from(port)),
            to_port: Some(i32::from(port)),
            source: source.clone(),
            description: String::new(),
        };
        ManagedSecurityGroup {
            name: self.named(|cluster| names::managed_security_group(cluster, self.group)),
            description: names::MANAGED_GROUP_DESCRIPTION,
            ingress: ports.flat_map(|port| sources.iter().map(move |source| rule(port, source))).collect(),
            tags: tags::of_resource(
                &self.config.cluster,
                self.group,
                &ResourceId(tags::MANAGED_SECURITY_GROUP.to_owned()),
                &self.config.default_tags,
                user_tags,
            ),
            cause: cause(ingress, "spec"),
        }
    }

    /// From where the load balancer may be reached: everywhere, unless address ranges or prefix lists are named.
    pub(super) fn inbound_sources(&mut self, member: Member<'a>) -> Result<Vec<Source>, Failed> {
        let Member { ingress, annotations, .. } = member;
        let ranges = self.value(ingress, None, annotations.string_list("inbound-cidrs"));
        let lists = self.value(ingress, None, annotations.string_list("security-group-prefix-lists"));
        let (ranges, lists) = (ranges?.unwrap_or_default(), lists?.unwrap_or_default());
        if let Some(list) = lists.iter().find(|list| !list.starts_with("pl-")) {
            let message = format!("`{list}` is not the identifier of a prefix list");
            let fix = "write identifiers such as `pl-0123456789abcdef0`, separated by commas";
            return Err(self.error(&ingress.name, Code::InvalidValue, PREFIX_LISTS, &message, fix));
        }
        if ranges.is_empty() && lists.is_empty() {
            return Ok(vec![Source::Ipv4("0.0.0.0/0".to_owned())]);
        }
        let mut sources: Vec<Source> = Vec::new();
        let mut without_effect = Vec::new();
        for range in ranges {
            match range.parse::<IpNet>() {
                // EC2 keeps a range without host bits, and only so is it found again.
                Ok(IpNet::V4(range)) => sources.push(Source::Ipv4(range.trunc().to_string())),
                Ok(IpNet::V6(_)) | Err(_) => without_effect.push(format!("`{range}`")),
            }
        }
        sources.extend(lists.into_iter().map(Source::PrefixList));
        if !without_effect.is_empty() {
            let message = format!(
                "the load balancer has IPv4 addresses alone, so nobody comes in from {}",
                without_effect.join(", ")
            );
            if sources.is_empty() {
                let fix = "name an IPv4 range too; load balancers with IPv6 addresses are not built yet";
                return Err(self.error(&ingress.name, Code::InvalidValue, INBOUND_CIDRS, &message, fix));
            }
            let fix = "remove it, or leave it for the day on which the load balancer has IPv6 addresses";
            self.warning(ingress, Code::InvalidValue, INBOUND_CIDRS, &message, fix);
        }
        let mut once = std::collections::BTreeSet::new();
        sources.retain(|source| once.insert(source.clone()));
        Ok(sources)
    }

    fn warning(&mut self, ingress: &Ingress, code: Code, field: &str, message: &str, fix: &str) {
        self.findings.found(Severity::Warning, ObjectReference::ingress(&ingress.name), code, field, message, fix);
    }
}
