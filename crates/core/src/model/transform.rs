//! Changes of a request on its way from a rule to the rule's targets.

use serde::{Deserialize, Serialize};

/// A change of a request between a rule and its targets. Which rule takes the request is decided before, by what the client sent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Transform {
    /// `host-header-rewrite`: of the Host header; AWS takes one in a rule.
    HostHeaderRewrite(Vec<Rewrite>),
    /// `url-rewrite`: of path and query; AWS takes one in a rule.
    UrlRewrite(Vec<Rewrite>),
    /// A kind that is not known here, by its type. Never equal to one that is wanted.
    Other(String),
}

impl Transform {
    /// The type, as AWS writes it.
    #[must_use]
    pub fn kind(&self) -> &str {
        match self {
            Self::HostHeaderRewrite(_) => "host-header-rewrite",
            Self::UrlRewrite(_) => "url-rewrite",
            Self::Other(kind) => kind,
        }
    }

    /// Its rewrites.
    #[must_use]
    pub fn rewrites(&self) -> &[Rewrite] {
        match self {
            Self::HostHeaderRewrite(rewrites) | Self::UrlRewrite(rewrites) => rewrites,
            Self::Other(_) => &[],
        }
    }
}

/// A replacement. AWS takes up to 1,024 characters for each part.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rewrite {
    /// The regular expression that is replaced; AWS compiles it.
    pub regex: String,
    /// The replacement; `$1` is the first group of the expression.
    pub replace: String,
}
