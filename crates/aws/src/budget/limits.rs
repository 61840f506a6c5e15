//! `--aws-api-throttle`: fixed limits that users set.

use regex_lite::Regex;

use crate::client::service_id;

/// A limit for operations of a service, in addition to the budget of their class.
#[derive(Clone, Debug)]
pub struct FixedLimit {
    /// AWS's service id without case and separators.
    service: String,
    operations: Regex,
    /// Calls a second.
    pub(super) rate: f64,
    /// Calls at once.
    pub(super) burst: f64,
}

impl FixedLimit {
    /// Returns true if the limit applies to this operation.
    pub(super) fn concerns(&self, service: &str, operation: &str) -> bool {
        self.service == service && self.operations.is_match(operation)
    }
}

/// An entry of `--aws-api-throttle` that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{entry}`: {reason}; write `<service id>:<regular expression of operations>=<calls a second>:<calls at once>`, separated by commas, for example `Elastic Load Balancing v2:^Describe=10:40`"
)]
pub struct ThrottleError {
    /// The entry.
    pub entry: String,
    /// The reason why it is not valid.
    pub reason: String,
}

/// Reads `--aws-api-throttle`: `ServiceID:regex=rate:burst`, separated by commas. An operation waits for each limit that
/// concerns it.
///
/// # Errors
/// With the first entry that is not of that form.
pub fn parse_throttle(text: &str) -> Result<Vec<FixedLimit>, ThrottleError> {
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let limit = |entry: &str| parse_entry(entry).map_err(|reason| ThrottleError { entry: entry.to_owned(), reason });
    entries.map(limit).collect()
}

fn parse_entry(entry: &str) -> Result<FixedLimit, String> {
    let (operations, limit) = halves(entry, '=').ok_or("it does not have one `=`")?;
    let (service, operations) = halves(operations, ':').ok_or("there is not one `:` before the `=`")?;
    let (rate, burst) = halves(limit, ':').ok_or("there is not one `:` behind the `=`")?;
    let service = service_id(service);
    if service.is_empty() {
        return Err("it names no service".to_owned());
    }
    let operations =
        Regex::new(operations).map_err(|error| format!("`{operations}` is not a regular expression ({error})"))?;
    let rate = rate.trim().parse().ok().filter(|rate: &f64| rate.is_finite() && *rate > 0.0);
    let rate = rate.ok_or("the calls per second are not a number above 0")?;
    let burst = burst.trim().parse().ok().filter(|burst: &u32| *burst > 0);
    let burst = burst.ok_or("the calls at once are not a whole number above 0")?;
    Ok(FixedLimit { service, operations, rate, burst: f64::from(burst) })
}

/// The text on both sides of a character that is in it once.
fn halves(text: &str, at: char) -> Option<(&str, &str)> {
    text.split_once(at).filter(|(_, rest)| !rest.contains(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        parse_throttle(text).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_of_aws_load_balancer_controller_are_understood() {
        let limits = parse_throttle(
            "WAF Regional:^AssociateWebACL|DisassociateWebACL=0.5:1,WAFV2:^AssociateWebACL|DisassociateWebACL=0.5:1, \
             Elastic Load Balancing v2:^RegisterTargets|^DeregisterTargets=4:20,Elastic Load Balancing v2:^Describe.*=50:200,\
             elbv2:^Modify.*=3:20,",
        )
        .unwrap();
        let of = |service, operation| -> Vec<(f64, f64)> {
            limits.iter().filter(|l| l.concerns(service, operation)).map(|l| (l.rate, l.burst)).collect()
        };
        let elb = "elasticloadbalancingv2";
        assert_eq!(of(elb, "DeregisterTargets"), [(4.0, 20.0)]);
        assert_eq!(of(elb, "DescribeRules"), [(50.0, 200.0)]);
        assert_eq!(of(elb, "ModifyRule"), [(3.0, 20.0)]);
        assert_eq!(of(elb, "CreateRule"), []);
        assert_eq!(of("ec2", "DescribeSubnets"), []);
        assert_eq!(of("wafv2", "DisassociateWebACL"), [(0.5, 1.0)]);
        assert_eq!(of("wafregional", "AssociateWebACL"), [(0.5, 1.0)]);
    }

    #[test]
    fn an_operation_has_every_limit_that_concerns_it() {
        let limits = parse_throttle("EC2:^Describe=5:9,ec2:.*Subnets$=1:2").unwrap();
        assert_eq!(limits.iter().filter(|limit| limit.concerns("ec2", "DescribeSubnets")).count(), 2);
        assert_eq!(limits.iter().filter(|limit| limit.concerns("ec2", "DescribeVpcs")).count(), 1);
        assert!(parse_throttle(" ").unwrap().is_empty());
    }

    #[test]
    fn mistakes_name_the_entry_and_the_form() {
        insta::assert_snapshot!(refused("EC2:^Describe=5:9,EC2:^Create"), @"`EC2:^Create`: it does not have one `=`; write `<service id>:<regular expression of operations>=<calls a second>:<calls at once>`, separated by commas, for example `Elastic Load Balancing v2:^Describe=10:40`");
        let reason = |text: &str| parse_throttle(text).map(|_| ()).unwrap_err().reason;
        for (text, expected) in [
            ("EC2=5:9", "there is not one `:` before the `=`"),
            ("EC2:a:b=5:9", "there is not one `:` before the `=`"),
            (":^Describe=5:9", "it names no service"),
            ("EC2:^Describe=5", "there is not one `:` behind the `=`"),
            ("EC2:^Describe=5:9:1", "there is not one `:` behind the `=`"),
            ("EC2:^Describe=0:9", "the calls per second are not a number above 0"),
            ("EC2:^Describe=inf:9", "the calls per second are not a number above 0"),
            ("EC2:^Describe=-1:9", "the calls per second are not a number above 0"),
            ("EC2:^Describe=5:0", "the calls at once are not a whole number above 0"),
            ("EC2:^Describe=5:1.5", "the calls at once are not a whole number above 0"),
        ] {
            assert_eq!(reason(text), expected, "{text}");
        }
        assert!(reason("EC2:(=5:9").starts_with("`(` is not a regular expression ("));
    }
}
