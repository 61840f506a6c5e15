//! The tags of a stack's resources.

use crate::{
    desired::BuildConfig,
    model::{ResourceId, StackId, Tags},
};

/// The fix for a tag in an annotation that is managed outside the cluster.
pub(in crate::desired) const EXTERNAL_FIX: &str = "remove it from the annotation";

/// Returns the tags of a stack's resource: the default tags win over `user`, and the tracking tags over both.
pub(in crate::desired) fn of_resource(
    config: &BuildConfig,
    stack: &StackId,
    resource: &ResourceId,
    user: &Tags,
) -> Tags {
    stack.resource_tags(&config.cluster, resource, &config.default_tags, user)
}

/// Returns a message for each requested tag that is managed outside the cluster, with its key.
pub(in crate::desired) fn external<'t>(
    config: &'t BuildConfig,
    user: &'t Tags,
) -> impl Iterator<Item = (&'t String, String)> {
    let external = user.keys().filter(|key| config.external_managed_tags.contains(*key));
    external.map(|key| (key, format!("the tag `{key}` is managed outside of the cluster (--external-managed-tags)")))
}

/// Returns the requested tags, completed with the default tags that users may override.
pub(in crate::desired) fn over_defaults(config: &BuildConfig, user: Tags) -> Tags {
    let mut all = config.low_default_tags.clone();
    all.extend(user);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Value;

    fn tags(pairs: &[(&str, &str)]) -> Tags {
        pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn tags_of_users() {
        let mut config = BuildConfig::new("east", Value::AfterApply("none"));
        config.low_default_tags = tags(&[("team", "none"), ("cost", "1")]);
        config.external_managed_tags = ["audit".to_owned(), "owner".to_owned()].into();
        let user = tags(&[("audit", "x"), ("team", "web")]);
        let found: Vec<(&String, String)> = external(&config, &user).collect();
        let message = "the tag `audit` is managed outside of the cluster (--external-managed-tags)".to_owned();
        assert_eq!(found, [(&"audit".to_owned(), message)]);
        assert_eq!(over_defaults(&config, user), tags(&[("audit", "x"), ("team", "web"), ("cost", "1")]));
    }
}
