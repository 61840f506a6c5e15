//! The probes of containers that run.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use albatross_fabric::pods::probe::{self, Check};
use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// A probe as it is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// The question and the port; `None` for one that passes at once, as commands do here.
    check: Option<(Check, u16)>,
    delay: Duration,
    period: Duration,
    timeout: Duration,
    successes: u32,
    failures: u32,
}

/// Returns how a container is probed.
pub(super) fn plan(container: &Container, probe: &Probe) -> Plan {
    let seconds = |value: Option<i32>, otherwise: u64| {
        Duration::from_secs(value.and_then(|value| u64::try_from(value).ok()).unwrap_or(otherwise))
    };
    let count =
        |value: Option<i32>, otherwise: u32| value.and_then(|value| u32::try_from(value).ok()).unwrap_or(otherwise);
    Plan {
        check: check(container, probe),
        delay: seconds(probe.initial_delay_seconds, 0),
        period: seconds(probe.period_seconds, 10),
        timeout: seconds(probe.timeout_seconds, 1),
        successes: count(probe.success_threshold, 1),
        failures: count(probe.failure_threshold, 3),
    }
}

fn check(container: &Container, probe: &Probe) -> Option<(Check, u16)> {
    let number = |port: &IntOrString| match port {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            let named = ports.find(|port| port.name.as_deref() == Some(name)).map(|port| port.container_port);
            named.and_then(|number| u16::try_from(number).ok()).or_else(|| name.parse().ok())
        }
    };
    // Port 0 is closed, as one without a number is.
    if let Some(http) = &probe.http_get {
        let headers = http.http_headers.iter().flatten().map(|header| (header.name.clone(), header.value.clone()));
        let check = Check::Http {
            tls: http.scheme.as_deref() == Some("HTTPS"),
            path: http.path.clone().unwrap_or_else(|| "/".to_owned()),
            headers: headers.collect(),
        };
        return Some((check, number(&http.port).unwrap_or_default()));
    }
    if let Some(tcp) = &probe.tcp_socket {
        return Some((Check::Tcp, number(&tcp.port).unwrap_or_default()));
    }
    let grpc = probe.grpc.as_ref()?;
    let check = Check::Grpc { service: grpc.service.clone().unwrap_or_default() };
    Some((check, u16::try_from(grpc.port).unwrap_or_default()))
}

/// The results of a probe in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Streak {
    good: bool,
    same: u32,
    last: Option<bool>,
}

impl Streak {
    /// Takes a result. What holds changes when it has come often enough in a row.
    fn take(&mut self, passed: bool, plan: &Plan) {
        self.same = if self.last == Some(passed) { self.same.saturating_add(1) } else { 1 };
        self.last = Some(passed);
        if self.same >= if passed { plan.successes } else { plan.failures } {
            self.good = passed;
        }
    }
}

/// The address at which a container is asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) address: Ipv4Addr,
    pub(super) port_offset: u16,
    /// The factor for delays and periods.
    pub(super) time_scale: f64,
}

impl Place {
    async fn asks(&self, plan: &Plan) -> bool {
        match &plan.check {
            None => true,
            Some((check, port)) => {
                let target = SocketAddr::from((self.address, port.saturating_add(self.port_offset)));
                probe::passes(target, check, plan.timeout).await
            }
        }
    }
}

/// Probes a container for ever, first with the startup probe until it passes; `ready` is told of changes.
pub(super) async fn run(
    place: Place,
    startup: Option<Plan>,
    readiness: Option<Plan>,
    mut started: impl FnMut(),
    mut ready: impl FnMut(bool),
) {
    if let Some(plan) = startup {
        until(place, &plan, |good| good.then_some(())).await;
    }
    started();
    let Some(plan) = readiness else {
        ready(true);
        return;
    };
    let mut before = false;
    let _: Option<()> = until(place, &plan, |good| {
        if good != before {
            before = good;
            ready(good);
        }
        None
    })
    .await;
}

/// Asks again and again until `ends` returns a value.
async fn until<T>(place: Place, plan: &Plan, mut ends: impl FnMut(bool) -> Option<T>) -> Option<T> {
    tokio::time::sleep(plan.delay.mul_f64(place.time_scale)).await;
    let mut streak = Streak::default();
    loop {
        streak.take(place.asks(plan).await, plan);
        if let Some(value) = ends(streak.good) {
            return Some(value);
        }
        tokio::time::sleep(plan.period.mul_f64(place.time_scale)).await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_probe_is_read_with_its_defaults_and_names_of_ports() {
        let ports = json!([{"name": "http", "containerPort": 8080}]);
        let container: Container = serde_json::from_value(json!({"name": "a", "ports": ports})).unwrap();
        let read = |probe: Value| plan(&container, &serde_json::from_value(probe).unwrap());
        let http = |tls, path: &str, headers: &[(&str, &str)]| Check::Http {
            tls,
            path: path.to_owned(),
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        };
        let default = |check| Plan {
            check,
            delay: Duration::ZERO,
            period: Duration::from_secs(10),
            timeout: Duration::from_secs(1),
            successes: 1,
            failures: 3,
        };
        let grpc = Check::Grpc { service: "web".to_owned() };
        let rows = [
            (json!({"httpGet": {"port": "http"}}), Some((http(false, "/", &[]), 8080))),
            (
                json!({"httpGet": {"port": 443, "path": "/a", "scheme": "HTTPS", "httpHeaders": [{"name": "Host", "value": "h"}]}}),
                Some((http(true, "/a", &[("Host", "h")]), 443)),
            ),
            (json!({"tcpSocket": {"port": 80}}), Some((Check::Tcp, 80))),
            (json!({"tcpSocket": {"port": "none"}}), Some((Check::Tcp, 0))),
            (json!({"grpc": {"port": 50051, "service": "web"}}), Some((grpc, 50051))),
            (json!({"exec": {"command": ["true"]}}), None),
        ];
        for (probe, check) in rows {
            assert_eq!(read(probe.clone()), default(check), "{probe}");
        }
        let own = json!({"exec": {}, "initialDelaySeconds": 1, "periodSeconds": 2, "timeoutSeconds": 3, "successThreshold": 4, "failureThreshold": 5});
        let expected = Plan {
            check: None,
            delay: Duration::from_secs(1),
            period: Duration::from_secs(2),
            timeout: Duration::from_secs(3),
            successes: 4,
            failures: 5,
        };
        assert_eq!(read(own), expected);
    }

    #[test]
    fn a_result_counts_when_it_has_come_often_enough_in_a_row() {
        let container = Container::default();
        let probe = Probe { success_threshold: Some(2), failure_threshold: Some(3), ..Probe::default() };
        let plan = plan(&container, &probe);
        let mut streak = Streak::default();
        let found = "+-++--+---+".chars().map(|result| {
            streak.take(result == '+', &plan);
            if streak.good { '+' } else { '-' }
        });
        assert_eq!(found.collect::<String>(), "---++++++--");
    }
}
