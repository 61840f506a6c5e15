//! The role by which a binding's target group is reached, where it is in another account (`spec.iamRoleArnToAssume`).

use std::fmt;

use crate::api::crd::TargetGroupBindingSpec;

/// A role that the controller assumes for the calls about a target group.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Role {
    arn: String,
    external_id: Option<String>,
}

/// The external id is not shown: some treat it as a secret.
impl fmt::Debug for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Role").field(&self.arn).finish()
    }
}

/// The longest ARN of a role, and the lengths of an external id, in characters.
const LONGEST_ARN: usize = 2048;
const EXTERNAL_ID: std::ops::RangeInclusive<usize> = 2..=1224;

/// The reason why a binding's role cannot be assumed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRole {
    /// The text is not the ARN of a role.
    #[error("`{0}` is not the ARN of an IAM role")]
    Arn(String),
    /// STS does not accept the external id.
    #[error("an external id has 2 to 1224 characters, each a letter, a digit or one of `_+=,.@:/-`")]
    ExternalId,
    /// The targets are nodes.
    #[error("nodes cannot be registered in another account")]
    Nodes,
}

impl InvalidRole {
    /// Returns the name of the field of the spec.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match self {
            Self::Arn(_) | Self::Nodes => "iamRoleArnToAssume",
            Self::ExternalId => "assumeRoleExternalId",
        }
    }

    /// Returns the fix, as a sentence without a full stop.
    #[must_use]
    pub fn fix(&self) -> &'static str {
        match self {
            Self::Arn(_) => "write it as arn:aws:iam::ACCOUNT:role/NAME",
            Self::ExternalId => "write the id that the role's trust policy requires",
            Self::Nodes => "use a target group of type ip",
        }
    }
}

impl Role {
    /// Returns the role of a spec; `None` if it names none.
    ///
    /// # Errors
    /// Returns an error if IAM has no role of that name, or STS does not accept the external id.
    pub fn of(spec: &TargetGroupBindingSpec) -> Result<Option<Self>, InvalidRole> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let Some(arn) = given(&spec.iam_role_arn_to_assume) else { return Ok(None) };
        if !is_role(&arn) {
            return Err(InvalidRole::Arn(arn));
        }
        let external_id = given(&spec.assume_role_external_id);
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_+=,.@:/-".contains(c);
        if external_id.as_ref().is_some_and(|id| !EXTERNAL_ID.contains(&id.len()) || !id.chars().all(allowed)) {
            return Err(InvalidRole::ExternalId);
        }
        Ok(Some(Self { arn, external_id }))
    }

    /// Returns the ARN of the role.
    #[must_use]
    pub fn arn(&self) -> &str {
        &self.arn
    }

    /// Returns the external id, if the binding has one.
    #[must_use]
    pub fn external_id(&self) -> Option<&str> {
        self.external_id.as_deref()
    }
}

/// `arn:<partition>:iam::<account>:role/<path and name>`
fn is_role(arn: &str) -> bool {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let ["arn", partition, "iam", "", account, resource] = parts.as_slice() else { return false };
    let visible = resource.chars().all(|c| c.is_ascii_graphic());
    arn.len() <= LONGEST_ARN
        && (*partition == "aws" || partition.starts_with("aws-"))
        && account.len() == 12
        && account.chars().all(|c| c.is_ascii_digit())
        && resource.strip_prefix("role/").is_some_and(|name| !name.is_empty() && visible)
}

/// Returns the name of the sessions in which a cluster's controller assumes roles, as aws-load-balancer-controller names them.
/// STS allows some characters, and 64 of them.
#[must_use]
pub fn session_name(cluster: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || "_+=,.@-".contains(c) { c } else { '-' };
    format!("AWS-LBC-{cluster}").chars().map(allowed).take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:iam::111122223333:role/targets";

    fn of(arn: &str, external_id: &str) -> Result<Option<Role>, InvalidRole> {
        Role::of(&TargetGroupBindingSpec {
            iam_role_arn_to_assume: Some(arn.to_owned()),
            assume_role_external_id: Some(external_id.to_owned()),
            ..TargetGroupBindingSpec::default()
        })
    }

    #[test]
    fn roles_are_read_as_iam_names_them() {
        assert_eq!(Role::of(&TargetGroupBindingSpec::default()), Ok(None));
        assert_eq!(of("", "shop"), Ok(None));
        for arn in [ARN, "arn:aws-cn:iam::111122223333:role/a/b/c", "arn:aws-us-gov:iam::111122223333:role/x:y"] {
            assert_eq!(of(arn, "").unwrap().unwrap().arn(), arn);
        }
        for arn in [
            "targets",
            "arn:aws:iam::1:role/targets",
            "arn:aws:iam::11112222333x:role/targets",
            "arn:aws:iam::111122223333:user/targets",
            "arn:aws:iam::111122223333:role/",
            "arn:aws:iam:us-west-2:111122223333:role/targets",
            "arn:gcp:iam::111122223333:role/targets",
            "arn:aws:iam::111122223333:role/tar gets",
        ] {
            assert_eq!(of(arn, ""), Err(InvalidRole::Arn(arn.to_owned())), "{arn}");
        }
        assert!(of(&format!("{ARN}{}", "x".repeat(2048)), "").is_err());
    }

    #[test]
    fn external_ids_are_those_that_sts_accepts_and_are_not_shown() {
        for (id, accepted) in [
            ("shop", true),
            ("a1_+=,.@:/-", true),
            ("x", false),
            ("two words", false),
            ("ä€", false),
            (&*"x".repeat(1225), false),
        ] {
            assert_eq!(of(ARN, id).is_ok(), accepted, "{id}");
        }
        let role = of(ARN, "shop").unwrap().unwrap();
        assert_eq!((role.external_id(), format!("{role:?}")), (Some("shop"), format!("Role(\"{ARN}\")")));
        assert_ne!(Some(role), of(ARN, "").unwrap());
    }

    #[test]
    fn errors_name_the_field_and_the_fix() {
        let texts: Vec<String> = [InvalidRole::Arn("x".to_owned()), InvalidRole::ExternalId, InvalidRole::Nodes]
            .iter()
            .map(|error| format!("spec.{}: {error}; {}", error.field(), error.fix()))
            .collect();
        insta::assert_snapshot!(texts.join("\n"), @r"
        spec.iamRoleArnToAssume: `x` is not the ARN of an IAM role; write it as arn:aws:iam::ACCOUNT:role/NAME
        spec.assumeRoleExternalId: an external id has 2 to 1224 characters, each a letter, a digit or one of `_+=,.@:/-`; write the id that the role's trust policy requires
        spec.iamRoleArnToAssume: nodes cannot be registered in another account; use a target group of type ip
        ");
    }

    #[test]
    fn sessions_have_names_that_sts_accepts() {
        assert_eq!(session_name("demo"), "AWS-LBC-demo");
        assert_eq!(session_name("a b/c"), "AWS-LBC-a-b-c");
        assert_eq!(session_name(&"x".repeat(100)).len(), 64);
    }
}
