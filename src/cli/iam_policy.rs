//! `albatross iam-policy`: the IAM policy of the controller's role.

use std::process::ExitCode;

use clap::{Args, builder::PossibleValue};

use super::output;
use albatross_core::permissions::{Feature, Partition, policy};

#[derive(Args, Clone, Debug)]
pub(super) struct PolicyArguments {
    /// Only what these need, as `ingress,service`; all but `certificate-requests` and `assume-role` where it is not given
    #[arg(long, value_delimiter = ',', value_parser = features())]
    features: Vec<Feature>,
    /// The partition of AWS whose ARNs are written: `aws-cn` in China, `aws-us-gov` in GovCloud
    #[arg(long, default_value = "aws", value_parser = partitions())]
    partition: Partition,
}

fn features() -> impl clap::builder::TypedValueParser<Value = Feature> {
    use clap::builder::{PossibleValuesParser, TypedValueParser as _};
    let values = Feature::ALL.map(|feature| PossibleValue::new(feature.name()).help(feature.explanation()));
    PossibleValuesParser::new(values).map(|name| Feature::named(&name).unwrap_or(Feature::Ingress))
}

fn partitions() -> impl clap::builder::TypedValueParser<Value = Partition> {
    use clap::builder::{PossibleValuesParser, TypedValueParser as _};
    let values = Partition::ALL.map(Partition::name);
    PossibleValuesParser::new(values).map(|name| Partition::named(&name).unwrap_or_default())
}

pub(super) fn run(arguments: &PolicyArguments) -> ExitCode {
    let features = match arguments.features.as_slice() {
        [] => Feature::by_default(),
        some => some.iter().copied().collect(),
    };
    output::data(&policy(&features, arguments.partition).to_json())
}
