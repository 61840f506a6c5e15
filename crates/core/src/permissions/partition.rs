//! AWS's partitions: accounts, names and ARNs of one are unknown in the others.

/// A partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Partition {
    /// The public regions.
    #[default]
    Aws,
    /// China.
    AwsCn,
    /// The United States' government.
    AwsUsGov,
    /// The United States' secret regions, and those of their allies.
    AwsIso,
    /// `us-isob-…`
    AwsIsoB,
    /// `eu-isoe-…`
    AwsIsoE,
    /// `us-isof-…`
    AwsIsoF,
    /// The European Sovereign Cloud.
    AwsEusc,
}

impl Partition {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Aws,
        Self::AwsCn,
        Self::AwsUsGov,
        Self::AwsIso,
        Self::AwsIsoB,
        Self::AwsIsoE,
        Self::AwsIsoF,
        Self::AwsEusc,
    ];

    /// Returns the name in ARNs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Aws => "aws",
            Self::AwsCn => "aws-cn",
            Self::AwsUsGov => "aws-us-gov",
            Self::AwsIso => "aws-iso",
            Self::AwsIsoB => "aws-iso-b",
            Self::AwsIsoE => "aws-iso-e",
            Self::AwsIsoF => "aws-iso-f",
            Self::AwsEusc => "aws-eusc",
        }
    }

    /// The partition of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|partition| partition.name() == name)
    }

    /// Returns the partition of a region, by the beginning of the region's name.
    #[must_use]
    pub fn of_region(region: &str) -> Self {
        let of = |beginnings: &[&str]| beginnings.iter().any(|beginning| region.starts_with(beginning));
        match region {
            _ if of(&["cn-"]) => Self::AwsCn,
            _ if of(&["us-gov-"]) => Self::AwsUsGov,
            _ if of(&["us-iso-"]) => Self::AwsIso,
            _ if of(&["us-isob-"]) => Self::AwsIsoB,
            _ if of(&["eu-isoe-"]) => Self::AwsIsoE,
            _ if of(&["us-isof-", "eu-isof-"]) => Self::AwsIsoF,
            _ if of(&["eusc-"]) => Self::AwsEusc,
            _ => Self::Aws,
        }
    }
}
