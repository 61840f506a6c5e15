//! The tags of ELB v2 and EC2.

use super::{
    account::{Session, not_found, not_simulated},
    wire::{Answer, Refusal, element, pairs, refusal, text},
};
use albatross_core::model::Tags;

const MOST: usize = 50;
/// The maximum number of resources in one DescribeTags call.
const AT_ONCE: usize = 20;

/// Refuses tags that AWS does not accept.
pub(super) fn checked(tags: &Tags, ec2: bool) -> Result<(), Refusal> {
    let (invalid, many) =
        if ec2 { ("InvalidParameterValue", "TagLimitExceeded") } else { ("ValidationError", "TooManyTags") };
    if let Some(key) = tags.keys().find(|key| key.is_empty() || key.len() > 128 || key.starts_with("aws:")) {
        return Err(refusal(invalid, format!("The tag key '{key}' is not valid")));
    }
    if tags.len() > MOST {
        return Err(refusal(many, format!("A resource has at most {MOST} tags")));
    }
    Ok(())
}

impl Session<'_> {
    /// Returns the tags in a request that creates a resource.
    pub(super) fn wanted_tags(&self) -> Result<Tags, Refusal> {
        let tags = self.request.pairs("Tags")?;
        checked(&tags, false)?;
        Ok(tags)
    }

    pub(super) fn describe_tags(&mut self) -> Answer {
        let arns: Vec<_> = self.request.list("ResourceArns");
        if arns.is_empty() || arns.len() > AT_ONCE {
            let message = format!("Cannot have more than {AT_ONCE} resources described, or none");
            return Err(refusal("ValidationError", message));
        }
        let mut descriptions = Vec::new();
        for arn in arns {
            let found = self.account.tags_mut(arn).map(|(tags, made)| (tags.clone(), made));
            let (tags, made) = found.ok_or_else(|| not_found(arn))?;
            if !self.sees(made) {
                return Err(not_found(arn));
            }
            descriptions.push(element("member", &(text("ResourceArn", arn) + &pairs("Tags", &tags))));
        }
        Ok(element("TagDescriptions", &descriptions.concat()))
    }

    pub(super) fn add_tags(&mut self) -> Answer {
        let tags = self.wanted_tags()?;
        let arns: Vec<_> = self.request.list("ResourceArns").into_iter().map(str::to_owned).collect();
        self.change_tags(&arns, false, |old| old.extend(tags.clone()))
    }

    pub(super) fn remove_tags(&mut self) -> Answer {
        let keys = self.request.list("TagKeys");
        let arns: Vec<_> = self.request.list("ResourceArns").into_iter().map(str::to_owned).collect();
        self.change_tags(&arns, false, |old| old.retain(|key, _| !keys.contains(&key.as_str())))
    }

    pub(super) fn create_ec2_tags(&mut self) -> Answer {
        let tags = self.request.pairs("Tag")?;
        let ids = self.security_group_ids()?;
        self.change_tags(&ids, true, |old| old.extend(tags.clone()))
    }

    pub(super) fn delete_ec2_tags(&mut self) -> Answer {
        let tags = self.request.pairs("Tag")?;
        let ids = self.security_group_ids()?;
        self.change_tags(&ids, true, |old| old.retain(|key, _| !tags.contains_key(key)))
    }

    fn security_group_ids(&self) -> Result<Vec<String>, Refusal> {
        let ids: Vec<_> = self.request.list("ResourceId").into_iter().map(str::to_owned).collect();
        match ids.iter().find(|id| !id.starts_with("sg-")) {
            Some(other) => Err(not_simulated(format!("tags of '{other}'"))),
            None => Ok(ids),
        }
    }

    /// Changes the tags of all resources or of none. New resources can be tagged even if other calls do not see them
    /// yet.
    fn change_tags(&mut self, ids: &[String], ec2: bool, change: impl Fn(&mut Tags)) -> Answer {
        let mut changed = Vec::new();
        for id in ids {
            let (old, _) = self.account.tags_mut(id).ok_or_else(|| not_found(id))?;
            let mut new = old.clone();
            change(&mut new);
            checked(&new, ec2)?;
            changed.push(new);
        }
        for (id, new) in ids.iter().zip(changed) {
            if let Some((tags, _)) = self.account.tags_mut(id) {
                *tags = new;
            }
        }
        Ok(if ec2 { text("return", true) } else { String::new() })
    }
}
