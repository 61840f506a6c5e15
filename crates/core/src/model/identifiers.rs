//! Names and identifiers, each a separate type, so that one cannot be used for another.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! identifier {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Takes the identifier as AWS gave it.
            pub fn new(value: impl Into<String>) -> Self {
                Self(value.into())
            }

            /// Returns the identifier in the form that AWS expects.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

identifier! {
    /// `arn:…:loadbalancer/app/…`
    LoadBalancerArn;
    /// `arn:…:listener/app/…`
    ListenerArn;
    /// `arn:…:listener-rule/app/…`
    RuleArn;
    /// `arn:…:targetgroup/…`
    TargetGroupArn;
    /// The ARN of a certificate in ACM or IAM.
    CertificateArn;
    /// `arn:…:truststore/…`
    TrustStoreArn;
    /// `sg-…`
    SecurityGroupId;
    /// `subnet-…`
    SubnetId;
    /// `vpc-…`
    VpcId;
}

/// A name that ELB v2 would refuse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{name}` is not a valid name: {reason}; a name has 1 to 32 letters, digits and hyphens, neither starts nor ends with a hyphen, and does not start with `internal-`"
)]
pub struct InvalidName {
    /// The name as given.
    pub name: String,
    /// The reason why it is not valid.
    pub reason: &'static str,
}

fn checked(name: String) -> Result<String, InvalidName> {
    let reason = if name.is_empty() {
        "it is empty"
    } else if name.len() > 32 {
        "it is longer than 32 characters"
    } else if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        "it has a character that is neither letter, digit nor hyphen"
    } else if name.starts_with('-') || name.ends_with('-') {
        "it starts or ends with a hyphen"
    } else if name.starts_with("internal-") {
        "it starts with `internal-`"
    } else {
        return Ok(name);
    };
    Err(InvalidName { name, reason })
}

macro_rules! checked_name {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Checks AWS's limits: at most 32 letters, digits and hyphens.
            ///
            /// # Errors
            /// When AWS would refuse the name.
            pub fn new(name: impl Into<String>) -> Result<Self, InvalidName> {
                checked(name.into()).map(Self)
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

checked_name! {
    /// A load balancer's name (CreateLoadBalancer, `Name`).
    LoadBalancerName;
    /// A target group's name (CreateTargetGroup, `Name`).
    TargetGroupName;
}

/// Namespace and name of a namespaced Kubernetes object; ordered as the text `namespace/name` is written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectName {
    /// `metadata.namespace`
    pub namespace: String,
    /// `metadata.name`
    pub name: String,
}

impl ObjectName {
    /// Puts the two together.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_to_what_aws_takes() {
        for good in ["a", "my-front-door", "k8s-shop-webfront-f81084de68", &"a".repeat(32)] {
            assert_eq!(LoadBalancerName::new(good).map(|n| n.as_str().to_owned()), Ok(good.to_owned()));
        }
        for (bad, reason) in [
            ("", "it is empty"),
            (&*"a".repeat(33), "it is longer than 32 characters"),
            ("a_b", "it has a character that is neither letter, digit nor hyphen"),
            ("-a", "it starts or ends with a hyphen"),
            ("a-", "it starts or ends with a hyphen"),
            ("internal-a", "it starts with `internal-`"),
        ] {
            assert_eq!(LoadBalancerName::new(bad), Err(InvalidName { name: bad.to_owned(), reason }));
        }
    }
}
