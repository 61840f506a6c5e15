//! The inputs and results of hashed names.

use crate::model::Value;

/// Returns the name of the cluster, if it is known.
pub(in crate::desired) fn of_cluster(cluster: &str) -> Value<&str> {
    if cluster.is_empty() {
        Value::AfterApply("named after the cluster, see --cluster-name")
    } else {
        Value::Known(cluster)
    }
}

/// Returns the uid of a Service, if it is known; files do not have it.
pub(in crate::desired) fn of_service(uid: &str) -> Value<&str> {
    if uid.is_empty() { Value::AfterApply("named after the Service's uid") } else { Value::Known(uid) }
}

/// Returns a name that is valid, or known only after apply.
///
/// # Errors
/// Returns the error of a name that is known and not valid.
pub(in crate::desired) fn valid<T, E>(name: Value<Result<T, E>>) -> Result<Value<T>, E> {
    match name {
        Value::Known(name) => name.map(Value::Known),
        Value::AfterApply(why) => Ok(Value::AfterApply(why)),
    }
}

/// Returns a pair of names as two values.
pub(in crate::desired) fn unzip<T, U>(names: Value<(T, U)>) -> (Value<T>, Value<U>) {
    match names {
        Value::Known((first, second)) => (Value::Known(first), Value::Known(second)),
        Value::AfterApply(why) => (Value::AfterApply(why), Value::AfterApply(why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(of_cluster(""), Value::AfterApply("named after the cluster, see --cluster-name"));
        assert_eq!(of_cluster("east"), Value::Known("east"));
        assert_eq!(of_service(""), Value::AfterApply("named after the Service's uid"));
        assert_eq!(of_service("1-2"), Value::Known("1-2"));
        for (name, expected) in [
            (Value::Known(Ok("a")), Ok(Value::Known("a"))),
            (Value::Known(Err("too long")), Err("too long")),
            (Value::AfterApply("why"), Ok(Value::AfterApply("why"))),
        ] {
            assert_eq!(valid(name.clone()), expected, "{name:?}");
        }
        assert_eq!(unzip(Value::Known((1, 'a'))), (Value::Known(1), Value::Known('a')));
        assert_eq!(unzip::<u8, char>(Value::AfterApply("why")), (Value::AfterApply("why"), Value::AfterApply("why")));
    }
}
