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
    /// The id of a hosted zone of Route 53, without the path that Route 53 writes before it.
    HostedZoneId;
}

/// The ARN of a private certificate authority: `arn:…:acm-pca:…:certificate-authority/<id>`. Only a checked text is one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CertificateAuthorityArn(String);

/// A text that is not the ARN of a private certificate authority.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the ARN of a private certificate authority")]
pub struct InvalidCertificateAuthorityArn(String);

impl InvalidCertificateAuthorityArn {
    /// The fix.
    pub const FIX: &str =
        "write the ARN that AWS Private CA shows: arn:aws:acm-pca:<region>:<account>:certificate-authority/<id>";
}

impl CertificateAuthorityArn {
    /// Checks that the text has the form of such an ARN.
    ///
    /// # Errors
    /// When it has another form.
    pub fn new(arn: impl Into<String>) -> Result<Self, InvalidCertificateAuthorityArn> {
        let arn = arn.into();
        let parts: Vec<&str> = arn.splitn(6, ':').collect();
        let is_one = match parts.as_slice() {
            ["arn", partition, "acm-pca", region, account, resource] => {
                let id = resource.strip_prefix("certificate-authority/").unwrap_or_default();
                let filled = [*partition, *region, *account, id].iter().all(|part| !part.is_empty());
                filled && !id.contains('/') && account.bytes().all(|byte| byte.is_ascii_digit())
            }
            _ => false,
        };
        if is_one { Ok(Self(arn)) } else { Err(InvalidCertificateAuthorityArn(arn)) }
    }

    /// Returns the ARN in the form that AWS expects.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for CertificateAuthorityArn {
    type Error = InvalidCertificateAuthorityArn;

    fn try_from(arn: String) -> Result<Self, InvalidCertificateAuthorityArn> {
        Self::new(arn)
    }
}

impl From<CertificateAuthorityArn> for String {
    fn from(arn: CertificateAuthorityArn) -> Self {
        arn.0
    }
}

impl fmt::Display for CertificateAuthorityArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The ARN of a regional web ACL of AWS WAF (WAFv2): `arn:…:wafv2:…:regional/webacl/<name>/<id>`. Only a checked text is one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WebAclArn(String);

/// A text that is not the ARN of a web ACL that a load balancer can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWebAclArn {
    /// The web ACL is for CloudFront.
    #[error("`{0}` is the ARN of a web ACL for CloudFront, which no load balancer can have")]
    Global(String),
    /// The text is the id of a web ACL, as WAF Classic has them, or the name of one.
    #[error("`{0}` is not the ARN of a web ACL (WAFv2)")]
    NoArn(String),
}

impl InvalidWebAclArn {
    /// Returns the fix.
    #[must_use]
    pub fn fix(&self) -> &'static str {
        match self {
            Self::Global(_) => {
                "name a web ACL with the scope REGIONAL in the load balancer's region: arn:aws:wafv2:<region>:<account>:regional/webacl/<name>/<id>"
            }
            Self::NoArn(_) => {
                "write the ARN of a regional web ACL, arn:aws:wafv2:<region>:<account>:regional/webacl/<name>/<id>, or `none`; a web ACL is named by `wafv2-acl-name`"
            }
        }
    }
}

impl WebAclArn {
    /// Checks that the text has the form of the ARN of a regional web ACL.
    ///
    /// # Errors
    /// When it has another form.
    pub fn new(arn: impl Into<String>) -> Result<Self, InvalidWebAclArn> {
        let arn = arn.into();
        match Self::parts(&arn) {
            Some(("regional", _)) => Ok(Self(arn)),
            Some(_) => Err(InvalidWebAclArn::Global(arn)),
            None => Err(InvalidWebAclArn::NoArn(arn)),
        }
    }

    /// Returns the scope and the name in an ARN of a web ACL.
    fn parts(arn: &str) -> Option<(&str, &str)> {
        let mut parts = arn.splitn(6, ':');
        let mut next = || parts.next().filter(|part| !part.is_empty());
        let (prefix, _partition, service, _region, account, resource) =
            (next()?, next()?, next()?, next()?, next()?, next()?);
        let is_account = account.bytes().all(|byte| byte.is_ascii_digit());
        let of_wafv2 = prefix == "arn" && service == "wafv2" && is_account;
        let mut resource = resource.split('/');
        let mut next = || resource.next().filter(|part| !part.is_empty());
        let (scope, kind, name, _id) = (next()?, next()?, next()?, next()?);
        let is_web_acl = kind == "webacl" && resource.next().is_none() && matches!(scope, "regional" | "global");
        (of_wafv2 && is_web_acl).then_some((scope, name))
    }

    /// Returns the ARN in the form that AWS expects.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the name of the web ACL, which is unique in its account and region.
    #[must_use]
    pub fn name(&self) -> &str {
        Self::name_in(&self.0).unwrap_or_default()
    }

    /// Returns the name in a text, if it is the ARN of a web ACL.
    pub(super) fn name_in(arn: &str) -> Option<&str> {
        Self::parts(arn).map(|(_, name)| name)
    }
}

impl TryFrom<String> for WebAclArn {
    type Error = InvalidWebAclArn;

    fn try_from(arn: String) -> Result<Self, InvalidWebAclArn> {
        Self::new(arn)
    }
}

impl From<WebAclArn> for String {
    fn from(arn: WebAclArn) -> Self {
        arn.0
    }
}

impl fmt::Display for WebAclArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
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
    fn arns_of_certificate_authorities() {
        for (arn, valid) in [
            ("arn:aws:acm-pca:us-west-2:111122223333:certificate-authority/0a1b", true),
            ("arn:aws-cn:acm-pca:cn-north-1:111122223333:certificate-authority/0a1b", true),
            ("arn:aws:acm-pca:us-west-2:111122223333:certificate-authority/", false),
            ("arn:aws:acm-pca:us-west-2:111122223333:certificate-authority/0a1b/certificate/2", false),
            ("arn:aws:acm:us-west-2:111122223333:certificate/0a1b", false),
            ("arn:aws:acm-pca:us-west-2:me:certificate-authority/0a1b", false),
            ("internal", false),
        ] {
            assert_eq!(CertificateAuthorityArn::new(arn).is_ok(), valid, "{arn}");
        }
        let error = CertificateAuthorityArn::new("internal").unwrap_err();
        assert_eq!(error.to_string(), "`internal` is not the ARN of a private certificate authority");
    }

    #[test]
    fn only_the_arn_of_a_regional_web_acl_is_taken() {
        for arn in [
            "arn:aws:wafv2:eu-west-1:111122223333:regional/webacl/edge/0a1b",
            "arn:aws-us-gov:wafv2:us-gov-west-1:111122223333:regional/webacl/edge/0a1b",
        ] {
            let web_acl = WebAclArn::new(arn).unwrap();
            assert_eq!((web_acl.as_str(), web_acl.name()), (arn, "edge"));
        }
        let global = "arn:aws:wafv2:us-east-1:111122223333:global/webacl/edge/0a1b";
        assert_eq!(WebAclArn::new(global), Err(InvalidWebAclArn::Global(global.to_owned())));
        for text in [
            "",
            "none",
            "edge",
            "9006a537-1905-416d-a098-7a35bfc7bdfb",
            "arn:aws:wafv2:eu-west-1:111122223333:regional/rulegroup/edge/0a1b",
            "arn:aws:wafv2:eu-west-1:111122223333:regional/webacl/edge",
            "arn:aws:wafv2:eu-west-1:111122223333:regional/webacl/edge/0a1b/2",
            "arn:aws:wafv2:eu-west-1:account:regional/webacl/edge/0a1b",
            "arn:aws:wafv2::111122223333:regional/webacl/edge/0a1b",
            "arn:aws:waf-regional:eu-west-1:111122223333:webacl/0a1b",
            " arn:aws:wafv2:eu-west-1:111122223333:regional/webacl/edge/0a1b",
        ] {
            assert_eq!(WebAclArn::new(text), Err(InvalidWebAclArn::NoArn(text.to_owned())));
        }
    }

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
