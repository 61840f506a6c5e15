//! The security groups of EC2.

use std::collections::BTreeSet;

use ipnet::{Ipv4Net, Ipv6Net};

use super::{
    account::{SecurityGroup, Session, VPC, not_found, not_simulated},
    network::{DEFAULT_GROUP, Filterable, NODE_GROUP, matches},
    tags,
    wire::{Answer, Refusal, optional, refusal, set, tag_set, text},
};
use albatross_core::model::{SecurityGroupId, SecurityGroupRule, Source, Tags};

fn invalid(message: impl Into<String>) -> Refusal {
    refusal("InvalidParameterValue", message)
}

impl SecurityGroup {
    fn xml(&self) -> String {
        [
            text("groupId", &self.id),
            text("groupName", &self.name),
            text("groupDescription", &self.description),
            text("vpcId", VPC),
            set("ipPermissions", permissions(&self.ingress)),
            set("ipPermissionsEgress", []),
            tag_set(&self.tags),
        ]
        .concat()
    }

    fn has(&self, rule: &SecurityGroupRule) -> bool {
        self.ingress.iter().any(|own| own.identity() == rule.identity())
    }
}

/// Returns rules in the form of EC2's responses: rules with the same protocol and ports are one permission.
fn permissions(rules: &BTreeSet<SecurityGroupRule>) -> Vec<String> {
    let ports: BTreeSet<_> = rules.iter().map(|r| (&r.protocol, r.from_port, r.to_port)).collect();
    let permission = |(protocol, from, to): (&String, Option<i32>, Option<i32>)| {
        let sources = |pick: fn(&Source) -> Option<String>| {
            let own = rules.iter().filter(move |r| (&r.protocol, r.from_port, r.to_port) == (protocol, from, to));
            own.filter_map(move |r| {
                let description = Some(&r.description).filter(|d| !d.is_empty());
                Some(pick(&r.source)? + &optional("description", description))
            })
        };
        [
            text("ipProtocol", protocol),
            optional("fromPort", from),
            optional("toPort", to),
            set("ipRanges", sources(|s| if let Source::Ipv4(cidr) = s { Some(text("cidrIp", cidr)) } else { None })),
            set(
                "ipv6Ranges",
                sources(|s| if let Source::Ipv6(cidr) = s { Some(text("cidrIpv6", cidr)) } else { None }),
            ),
            set(
                "groups",
                sources(|s| if let Source::SecurityGroup(id) = s { Some(text("groupId", id)) } else { None }),
            ),
            set(
                "prefixListIds",
                sources(|s| if let Source::PrefixList(id) = s { Some(text("prefixListId", id)) } else { None }),
            ),
        ]
        .concat()
    };
    ports.into_iter().map(permission).collect()
}

impl Session<'_> {
    pub(super) fn create_security_group(&mut self) -> Answer {
        let name = self.request.need("GroupName")?.to_owned();
        let description = self.request.need("GroupDescription")?.to_owned();
        let vpc = self.request.need("VpcId")?;
        let mut tags = Tags::new();
        for item in self.request.items("TagSpecification") {
            if self.request.text(&format!("{item}.ResourceType")) != Some("security-group") {
                return Err(invalid("The tag specification is not for a security group"));
            }
            tags.extend(self.request.pairs(&format!("{item}.Tag"))?);
        }
        tags::checked(&tags, true)?;
        if vpc != VPC {
            return Err(refusal("InvalidVpcID.NotFound", format!("The vpc ID '{vpc}' does not exist")));
        }
        if name.is_empty() || name.len() > 255 || name.starts_with("sg-") {
            return Err(invalid(format!("Value ({name}) for parameter GroupName is invalid")));
        }
        if self.account.security_groups.values().any(|group| group.name == name) {
            let message = format!("The security group '{name}' already exists for VPC '{VPC}'");
            return Err(refusal("InvalidGroup.Duplicate", message));
        }
        if self.account.security_groups.len() >= self.account.limits.security_groups {
            let message = "The maximum number of security groups has been reached";
            return Err(refusal("SecurityGroupLimitExceeded", message));
        }
        let id = format!("sg-{}", self.account.id());
        let answer = text("groupId", &id) + &text("return", true) + &tag_set(&tags);
        let made = self.now;
        let group = SecurityGroup { id: id.clone(), name, description, ingress: BTreeSet::new(), tags, made };
        self.account.security_groups.insert(id, group);
        Ok(answer)
    }

    pub(super) fn describe_security_groups(&mut self) -> Answer {
        let filters = self.filters()?;
        let ids = self.request.list("GroupId");
        for id in &ids {
            let made = self.account.security_groups.get(*id).map(|group| group.made);
            if !made.is_some_and(|made| self.sees(made)) {
                return Err(not_found(id));
            }
        }
        let mut found = std::collections::BTreeMap::new();
        for group in self.account.security_groups.values() {
            let has = Filterable::from([
                ("vpc-id", vec![VPC]),
                ("group-id", vec![group.id.as_str()]),
                ("group-name", vec![group.name.as_str()]),
            ]);
            let asked = ids.is_empty() || ids.contains(&group.id.as_str());
            if matches(&filters, &has, Some(&group.tags))? && asked && (!ids.is_empty() || self.lists(group.made)) {
                found.insert(group.id.clone(), group.xml());
            }
        }
        let (page, next) = self.page(found)?;
        Ok(set("securityGroupInfo", page) + &next)
    }

    pub(super) fn delete_security_group(&mut self) -> Answer {
        let id = self.request.need("GroupId")?;
        self.security_group(id)?;
        if id == DEFAULT_GROUP {
            return Err(refusal("CannotDelete", format!("The group '{id}' cannot be deleted")));
        }
        let account = &*self.account;
        let is_used = id == NODE_GROUP
            || account.balancers.values().any(|balancer| balancer.security_groups.contains(id))
            || account.lingering.iter().any(|(groups, until)| groups.contains(id) && self.now < *until);
        let names = |rule: &SecurityGroupRule| matches!(&rule.source, Source::SecurityGroup(s) if s.as_str() == id);
        let is_named = account.security_groups.values().any(|other| other.id != id && other.ingress.iter().any(names));
        if is_used || is_named {
            return Err(refusal("DependencyViolation", format!("resource {id} has a dependent object")));
        }
        self.account.security_groups.remove(id);
        Ok(text("return", true) + &text("groupId", id))
    }

    pub(super) fn authorize_ingress(&mut self) -> Answer {
        let rules = self.permissions()?;
        for rule in &rules {
            if let Source::SecurityGroup(source) = &rule.source {
                self.security_group(source.as_str())?;
            }
        }
        let most = self.account.limits.security_group_rules;
        let group = self.security_group(self.request.need("GroupId")?)?;
        if let Some(known) = rules.iter().find(|rule| group.has(rule)) {
            let message = format!("the specified rule \"{known}\" already exists");
            return Err(refusal("InvalidPermission.Duplicate", message));
        }
        if group.ingress.len() + rules.len() > most {
            let message = "The maximum number of rules per security group has been reached";
            return Err(refusal("RulesPerSecurityGroupLimitExceeded", message));
        }
        group.ingress.extend(rules);
        Ok(text("return", true))
    }

    pub(super) fn revoke_ingress(&mut self) -> Answer {
        let rules = self.permissions()?;
        let group = self.security_group(self.request.need("GroupId")?)?;
        if let Some(unknown) = rules.iter().find(|rule| !group.has(rule)) {
            let message = format!("The specified rule \"{unknown}\" does not exist in this security group");
            return Err(refusal("InvalidPermission.NotFound", message));
        }
        group.ingress.retain(|own| !rules.iter().any(|rule| rule.identity() == own.identity()));
        Ok(text("return", true))
    }

    /// Parses `IpPermissions` into one rule for each source.
    fn permissions(&self) -> Result<Vec<SecurityGroupRule>, Refusal> {
        let request = self.request;
        let mut rules: Vec<SecurityGroupRule> = Vec::new();
        for item in request.items("IpPermissions") {
            let protocol = request.need(&format!("{item}.IpProtocol"))?.to_owned();
            let from_port = request.number(&format!("{item}.FromPort"))?;
            let to_port = request.number(&format!("{item}.ToPort"))?;
            match protocol.as_str() {
                "tcp" | "udp" if !ports_are_valid(from_port, to_port) => {
                    return Err(invalid(format!("Invalid ports {from_port:?} to {to_port:?}")));
                }
                "tcp" | "udp" | "-1" | "icmp" | "icmpv6" => {}
                other => return Err(not_simulated(format!("protocol '{other}' of a security group"))),
            }
            let ported = protocol != "-1";
            for (list, field) in [
                ("IpRanges", "CidrIp"),
                ("Ipv6Ranges", "CidrIpv6"),
                ("Groups", "GroupId"),
                ("PrefixListIds", "PrefixListId"),
            ] {
                for source in request.items(&format!("{item}.{list}")) {
                    let value = request.need(&format!("{source}.{field}"))?;
                    let description = request.text(&format!("{source}.Description")).unwrap_or_default();
                    if description.len() > 255 {
                        return Err(invalid("A description has at most 255 characters"));
                    }
                    let rule = SecurityGroupRule {
                        protocol: protocol.clone(),
                        from_port: from_port.filter(|_| ported),
                        to_port: to_port.filter(|_| ported),
                        source: source_of(list, value)?,
                        description: description.to_owned(),
                    };
                    if rules.iter().any(|other| other.identity() == rule.identity()) {
                        return Err(invalid("The same permission must not appear multiple times"));
                    }
                    rules.push(rule);
                }
            }
        }
        if rules.is_empty() {
            return Err(refusal("MissingParameter", "The request must contain the parameter ipPermissions"));
        }
        Ok(rules)
    }
}

fn ports_are_valid(from: Option<i32>, to: Option<i32>) -> bool {
    matches!((from, to), (Some(from), Some(to)) if 0 <= from && from <= to && to <= 65535)
}

/// Returns a source in the form that EC2 stores: CIDR blocks begin with their first address.
fn source_of(list: &str, value: &str) -> Result<Source, Refusal> {
    let bad_block = || invalid(format!("CIDR block {value} is malformed"));
    Ok(match list {
        "IpRanges" => Source::Ipv4(value.parse::<Ipv4Net>().map_err(|_| bad_block())?.trunc().to_string()),
        "Ipv6Ranges" => Source::Ipv6(value.parse::<Ipv6Net>().map_err(|_| bad_block())?.trunc().to_string()),
        "Groups" => Source::SecurityGroup(SecurityGroupId::new(value)),
        _ => Source::PrefixList(value.to_owned()),
    })
}
