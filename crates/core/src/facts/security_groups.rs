//! The security groups that a user names.

use crate::{
    facts::list,
    model::{ObservedSecurityGroup, SecurityGroupId, VpcId},
};

/// Security groups that are not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{vpc} has no security group {}", list(.missing.iter().map(|name| format!("`{name}`")), "or"))]
pub struct MissingSecurityGroups {
    /// The VPC.
    pub vpc: VpcId,
    /// Ids and names that nothing in the VPC has, in the user's order, each once.
    pub missing: Vec<String>,
}

impl MissingSecurityGroups {
    /// Returns the message.
    #[must_use]
    pub fn message(&self) -> String {
        self.to_string()
    }

    /// Returns the fix.
    #[must_use]
    pub fn fix(&self) -> String {
        let Self { vpc, missing } = self;
        let mut fix = format!("name security groups of {vpc}, by id or by the tag `Name`");
        if missing.iter().any(|name| !is_id(name)) {
            // The console calls two things so, and the group's own name is the one that people see first.
            fix.push_str(" (the group's own name does not count)");
        }
        fix
    }
}

/// Returns true if the name is an id; otherwise it is the value of a `Name` tag.
#[must_use]
pub fn is_id(name: &str) -> bool {
    name.starts_with("sg-")
}

/// The security groups that `names` mean: those named by id, in the user's order, then those named by the tag `Name`:
/// all that have it, by ascending id. Each is in the answer once. `candidates` are groups of the VPC, at the least all
/// that `names` may mean.
///
/// # Errors
/// When one is not there.
pub fn resolve(
    vpc: &VpcId,
    names: &[String],
    candidates: &[ObservedSecurityGroup],
) -> Result<Vec<SecurityGroupId>, MissingSecurityGroups> {
    let (ids, tags): (Vec<&String>, Vec<&String>) = names.iter().partition(|name| is_id(name));
    let mut found: Vec<SecurityGroupId> = Vec::new();
    let mut missing: Vec<&String> = Vec::new();
    for name in ids.into_iter().chain(tags) {
        let means = |group: &&ObservedSecurityGroup| {
            if is_id(name) { group.id.as_str() == name } else { group.tags.get("Name") == Some(name) }
        };
        let mut meant: Vec<&SecurityGroupId> = candidates.iter().filter(means).map(|group| &group.id).collect();
        meant.sort();
        if meant.is_empty() {
            missing.push(name);
        }
        for id in meant {
            if !found.contains(id) {
                found.push(id.clone());
            }
        }
    }
    if missing.is_empty() {
        return Ok(found);
    }
    let mut in_order: Vec<String> = Vec::new();
    for name in names.iter().filter(|name| missing.contains(name)) {
        if !in_order.contains(name) {
            in_order.push(name.clone());
        }
    }
    Err(MissingSecurityGroups { vpc: vpc.clone(), missing: in_order })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Tags;

    fn resolved(names: &[&str]) -> Result<Vec<String>, MissingSecurityGroups> {
        let candidates = [("sg-4", Some("web")), ("sg-3", Some("web")), ("sg-1", None), ("sg-2", Some("sg-named"))]
            .map(|(id, name)| ObservedSecurityGroup {
                id: SecurityGroupId::new(id),
                // The group's own name is not the name that users mean.
                name: "own".to_owned(),
                tags: name.map(|name| ("Name".to_owned(), name.to_owned())).into_iter().collect::<Tags>(),
                ingress: Default::default(),
            });
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let found = resolve(&VpcId::new("vpc-1"), &names, &candidates)?;
        Ok(found.iter().map(ToString::to_string).collect())
    }

    fn refusal(names: &[&str]) -> String {
        let error = resolved(names).expect_err("they are all there");
        format!("{}\nfix: {}", error.message(), error.fix())
    }

    #[test]
    fn ids_come_first_and_one_name_may_mean_several() {
        for (names, wanted) in [
            (&["sg-2", "sg-1"][..], &["sg-2", "sg-1"][..]),
            (&["web", "sg-1"], &["sg-1", "sg-3", "sg-4"]),
            (&["web", "sg-4", "sg-4", "web"], &["sg-4", "sg-3"]),
            (&[], &[]),
        ] {
            assert_eq!(resolved(names), Ok(wanted.iter().map(|id| (*id).to_owned()).collect()), "{names:?}");
        }
    }

    #[test]
    fn what_is_missing_is_told_in_the_users_order() {
        insta::assert_snapshot!(refusal(&["sg-1", "sg-9"]), @"
        vpc-1 has no security group `sg-9`
        fix: name security groups of vpc-1, by id or by the tag `Name`
        ");
        insta::assert_snapshot!(refusal(&["own", "web", "sg-9", "sg-named", "own"]), @"
        vpc-1 has no security group `own`, `sg-9` or `sg-named`
        fix: name security groups of vpc-1, by id or by the tag `Name` (the group's own name does not count)
        ");
    }
}
