//! Readiness gates of pods: the types of the conditions that say whether a load balancer finds a pod healthy.

/// The prefix, before the name of a TargetGroupBinding, of the condition for the health of the pod in its target group.
pub const PREFIX: &str = "target-health.elbv2.k8s.aws";
/// The prefix of readiness gates written by the predecessor of aws-load-balancer-controller.
pub const LEGACY_PREFIX: &str = "target-health.alb.ingress.k8s.aws";

/// The condition for a binding.
#[must_use]
pub fn condition_of(binding: &str) -> String {
    format!("{PREFIX}/{binding}")
}

/// Returns true if the condition has the old prefix.
#[must_use]
pub fn is_legacy(condition: &str) -> bool {
    condition.strip_prefix(LEGACY_PREFIX).is_some_and(|rest| rest.starts_with('/'))
}

/// The name of the binding that a condition is about; `None` where it is another's condition.
#[must_use]
pub fn binding_of(condition: &str) -> Option<&str> {
    let rest = condition.strip_prefix(PREFIX).or_else(|| condition.strip_prefix(LEGACY_PREFIX))?;
    rest.strip_prefix('/').filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_tells_its_binding() {
        for (condition, binding, legacy) in [
            ("target-health.elbv2.k8s.aws/k8s-shop-cart", Some("k8s-shop-cart"), false),
            ("target-health.alb.ingress.k8s.aws/web_cart_80", Some("web_cart_80"), true),
            ("target-health.elbv2.k8s.aws", None, false),
            ("target-health.elbv2.k8s.aws/", None, false),
            ("target-health.elbv2.k8s.awsome/x", None, false),
            ("example.com/warm", None, false),
            ("Ready", None, false),
        ] {
            assert_eq!((binding_of(condition), is_legacy(condition)), (binding, legacy), "{condition}");
        }
        assert_eq!(binding_of(&condition_of("cart")), Some("cart"));
    }
}
