//! QUIC server ids of pods: who gets one, in which environment variable, and the ids themselves.

mod generator;

pub use generator::{Generator, MAX_WORKER, Worker};

use std::fmt;

use crate::{model::QuicServerId, snapshot::Pod};

/// The label of namespaces whose pods the webhook is asked about.
pub const LABEL: &str = "elbv2.k8s.aws/quic-server-id-inject";
/// The value of [`LABEL`]; any other value requests nothing.
pub const ENABLED: &str = "enabled";
/// The annotation of pods with the names of the containers that get a server id, separated by commas.
pub const CONTAINERS: &str = "service.beta.kubernetes.io/aws-load-balancer-quic-enabled-containers";
/// The namespace of the ConfigMap that numbers the processes, as aws-load-balancer-controller has it.
pub const TRACKER_NAMESPACE: &str = "kube-system";
/// The name of that ConfigMap.
pub const TRACKER: &str = "quic-server-id-worker-tracker";
/// The key of its data: the number of the next process.
pub const TRACKER_KEY: &str = "nextWorkerId";

/// The name of the environment variable with a container's server id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvironmentVariable(String);

/// The name is empty, or has a character that a name cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the name of an environment variable; write for example `{DEFAULT_VARIABLE}`")]
pub struct InvalidEnvironmentVariable(String);

/// The name that aws-load-balancer-controller uses.
pub const DEFAULT_VARIABLE: &str = "AWS_LBC_QUIC_SERVER_ID";

impl Default for EnvironmentVariable {
    fn default() -> Self {
        Self(DEFAULT_VARIABLE.to_owned())
    }
}

impl EnvironmentVariable {
    /// Returns the name if the API server takes it for that of an environment variable: printable ASCII without `=`.
    ///
    /// # Errors
    /// If it does not.
    pub fn new(name: &str) -> Result<Self, InvalidEnvironmentVariable> {
        let is_valid = !name.is_empty() && name.chars().all(|c| (' '..='~').contains(&c) && c != '=');
        if is_valid { Ok(Self(name.to_owned())) } else { Err(InvalidEnvironmentVariable(name.to_owned())) }
    }

    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EnvironmentVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns the server id of a pod as a target at one of its ports: that of the container with the port, or else the first one.
#[must_use]
pub fn server_id(pod: &Pod, variable: &EnvironmentVariable, port: u16) -> Option<QuicServerId> {
    let of_variable = || pod.server_ids.iter().filter(|of| of.variable == variable.0);
    let of_port = of_variable().find(|of| of.ports.contains(&port));
    of_port.or_else(|| of_variable().next()).map(|of| of.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::ContainerServerId;

    #[test]
    fn the_container_with_the_port_decides() {
        let of = |variable: &str, id, ports: &[u16]| ContainerServerId {
            variable: variable.to_owned(),
            id: QuicServerId::new(id),
            ports: ports.into(),
        };
        let (default, own) = (EnvironmentVariable::default(), EnvironmentVariable::new("SERVER_ID").unwrap());
        for (case, server_ids, variable, port, expected) in [
            ("no container has an id", vec![], &default, 443, None),
            ("the only one", vec![of(DEFAULT_VARIABLE, 1, &[443])], &default, 443, Some(1)),
            ("its port is not declared", vec![of(DEFAULT_VARIABLE, 1, &[])], &default, 443, Some(1)),
            (
                "the second has the port",
                vec![of(DEFAULT_VARIABLE, 1, &[80]), of(DEFAULT_VARIABLE, 2, &[81, 443])],
                &default,
                443,
                Some(2),
            ),
            (
                "none has the port",
                vec![of(DEFAULT_VARIABLE, 1, &[80]), of(DEFAULT_VARIABLE, 2, &[81])],
                &default,
                443,
                Some(1),
            ),
            ("another variable", vec![of("OTHER", 1, &[443]), of(DEFAULT_VARIABLE, 2, &[])], &default, 443, Some(2)),
            ("only another variable", vec![of("OTHER", 1, &[443])], &default, 443, None),
            ("the flag names the variable", vec![of("SERVER_ID", 3, &[443])], &own, 443, Some(3)),
        ] {
            let pod = Pod { server_ids: server_ids.into(), ..crate::testing::pod("web") };
            assert_eq!(server_id(&pod, variable, port), expected.map(QuicServerId::new), "{case}");
        }
    }

    #[test]
    fn names_of_environment_variables() {
        for name in ["A", "my.app-id", "1", "a b"] {
            assert_eq!(EnvironmentVariable::new(name).map(|name| name.to_string()), Ok(name.to_owned()));
        }
        for name in ["", "a=b", "é", "a\nb"] {
            let error = EnvironmentVariable::new(name).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!(
                    "`{name}` is not the name of an environment variable; write for example `AWS_LBC_QUIC_SERVER_ID`"
                )
            );
        }
    }
}
