//! The programs of a pod, from its manifest and from the ConfigMaps and Secrets that it names.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use albatross_fabric::pods::{ContainerPort, ContainerSpec, OnTerm, PodSpec, Transport, is_known};
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvVarSource, KeyToPath, Lifecycle, Pod, Secret, Volume, VolumeMount,
};
use kube::ResourceExt as _;

/// The annotation for what the processes of a pod do on SIGTERM: `drain`, which is the default, or `exit`.
pub const ON_TERM: &str = "lab/on-term";

/// The files or variables of a ConfigMap or Secret.
type Data = BTreeMap<String, Vec<u8>>;

/// The ConfigMaps and Secrets of a namespace by their names.
#[derive(Clone, Debug, Default)]
pub(super) struct Sources {
    pub(super) config_maps: BTreeMap<String, Data>,
    pub(super) secrets: BTreeMap<String, Data>,
}

impl Sources {
    pub(super) fn new(config_maps: Vec<ConfigMap>, secrets: Vec<Secret>) -> Self {
        let of_map = |map: ConfigMap| {
            let name = map.name_any();
            let texts = map.data.into_iter().flatten().map(|(key, text)| (key, text.into_bytes()));
            (name, texts.chain(map.binary_data.into_iter().flatten().map(|(key, bytes)| (key, bytes.0))).collect())
        };
        let of_secret = |secret: Secret| {
            let name = secret.name_any();
            (name, secret.data.into_iter().flatten().map(|(key, bytes)| (key, bytes.0)).collect())
        };
        Self {
            config_maps: config_maps.into_iter().map(of_map).collect(),
            secrets: secrets.into_iter().map(of_secret).collect(),
        }
    }

    fn find(&self, kind: &str, name: &str, optional: Option<bool>) -> Result<Option<&Data>, String> {
        let all = if kind == "configmap" { &self.config_maps } else { &self.secrets };
        match all.get(name) {
            None if optional != Some(true) => Err(format!("{kind} \"{name}\" not found")),
            found => Ok(found),
        }
    }

    fn key(&self, kind: &str, name: &str, key: &str, optional: Option<bool>) -> Result<Option<String>, String> {
        let value = self.find(kind, name, optional)?.and_then(|data| data.get(key));
        if value.is_none() && optional != Some(true) {
            return Err(format!("couldn't find key {key} in {kind} {name}"));
        }
        Ok(value.map(|value| String::from_utf8_lossy(value).into_owned()))
    }
}

/// Returns true if a pod names ConfigMaps or Secrets, as far as they are read.
pub(super) fn needs_sources(pod: &Pod) -> bool {
    let by_variables = |container: &Container| {
        let mut variables = container.env.iter().flatten();
        container.env_from.is_some() || variables.any(|variable| variable.value_from.is_some())
    };
    let mut volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    containers(pod).iter().any(by_variables)
        || volumes.any(|it| it.secret.is_some() || it.config_map.is_some() || it.projected.is_some())
}

pub(super) fn containers(pod: &Pod) -> &[Container] {
    pod.spec.as_ref().map_or(&[], |spec| &spec.containers)
}

/// Returns what a pod runs, or what it lacks.
pub(super) fn resolve(pod: &Pod, address: &str, host: &str, sources: &Sources) -> Result<PodSpec, String> {
    let container = |container: &Container| {
        let environment = environment(pod, container, address, host, sources)?;
        let expanded = |texts: &Option<Vec<String>>| {
            texts.iter().flatten().map(|text| expand(text, &environment)).collect::<Vec<_>>()
        };
        let ports = container.ports.iter().flatten().filter_map(|port| {
            let transport = match port.protocol.as_deref() {
                Some("UDP") => Transport::Udp,
                Some("SCTP") => return None,
                _ => Transport::Tcp,
            };
            Some(ContainerPort { number: u16::try_from(port.container_port).ok()?, transport })
        });
        Ok::<_, String>(ContainerSpec {
            name: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            ports: ports.collect(),
            command: expanded(&container.command),
            arguments: expanded(&container.args),
            files: files(pod, container, sources)?,
            environment,
        })
    };
    Ok(PodSpec {
        namespace: pod.namespace().unwrap_or_default(),
        name: pod.name_any(),
        address: address.parse::<IpAddr>().ok(),
        containers: containers(pod).iter().map(container).collect::<Result<_, _>>()?,
    })
}

fn environment(
    pod: &Pod,
    container: &Container,
    address: &str,
    host: &str,
    sources: &Sources,
) -> Result<BTreeMap<String, String>, String> {
    let mut all = BTreeMap::new();
    for from in container.env_from.iter().flatten() {
        let found = match (&from.config_map_ref, &from.secret_ref) {
            (Some(map), _) => sources.find("configmap", &map.name, map.optional)?,
            (None, Some(secret)) => sources.find("secret", &secret.name, secret.optional)?,
            (None, None) => None,
        };
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let variables = found.into_iter().flatten();
        all.extend(
            variables.map(|(key, value)| (format!("{prefix}{key}"), String::from_utf8_lossy(value).into_owned())),
        );
    }
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            None => Some(expand(variable.value.as_deref().unwrap_or_default(), &all)),
            Some(from) => value(pod, from, address, host, sources)?,
        };
        if let Some(value) = value {
            all.insert(variable.name.clone(), value);
        }
    }
    Ok(all)
}

fn value(
    pod: &Pod,
    from: &EnvVarSource,
    address: &str,
    host: &str,
    sources: &Sources,
) -> Result<Option<String>, String> {
    if let Some(map) = &from.config_map_key_ref {
        return sources.key("configmap", &map.name, &map.key, map.optional);
    }
    if let Some(secret) = &from.secret_key_ref {
        return sources.key("secret", &secret.name, &secret.key, secret.optional);
    }
    let Some(field) = &from.field_ref else {
        return Ok(None);
    };
    let spec = pod.spec.as_ref();
    let of_map = |map: &BTreeMap<String, String>, key: &str| map.get(key.trim_matches(['\'', '"'])).cloned();
    Ok(match field.field_path.as_str() {
        "metadata.name" => Some(pod.name_any()),
        "metadata.namespace" => pod.namespace(),
        "metadata.uid" => pod.uid(),
        "status.podIP" | "status.podIPs" => Some(address.to_owned()),
        "status.hostIP" | "status.hostIPs" => Some(host.to_owned()),
        "spec.nodeName" => spec.and_then(|spec| spec.node_name.clone()),
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()),
        path => {
            let key = |prefix: &str| path.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(']'));
            match (key("metadata.labels["), key("metadata.annotations[")) {
                (Some(label), _) => Some(of_map(pod.labels(), label).unwrap_or_default()),
                (None, Some(annotation)) => Some(of_map(pod.annotations(), annotation).unwrap_or_default()),
                (None, None) => return Err(format!("the lab does not know the field {path}")),
            }
        }
    })
}

/// Replaces `$(NAME)` where the variable is known. `$$` is a dollar sign.
fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        let name = after.strip_prefix('(').and_then(|inner| inner.split_once(')'));
        rest = match (name.and_then(|(name, more)| Some((variables.get(name)?, more))), after.strip_prefix('$')) {
            (Some((value, more)), _) => {
                expanded.push_str(value);
                more
            }
            (None, more) => {
                expanded.push('$');
                more.unwrap_or(after)
            }
        };
    }
    expanded + rest
}

/// Returns the files that a container's mounts have.
fn files(pod: &Pod, container: &Container, sources: &Sources) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let mut all = BTreeMap::new();
    for mount in container.volume_mounts.iter().flatten() {
        let mut volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        let Some(volume) = volumes.find(|volume| volume.name == mount.name) else { continue };
        for (name, content) in of_volume(volume, sources)? {
            all.extend(path(mount, &name).map(|path| (path, content)));
        }
    }
    Ok(all)
}

/// Returns where a file of a volume is, if it is within the mount.
fn path(mount: &VolumeMount, file: &str) -> Option<String> {
    let folder = mount.mount_path.trim_end_matches('/');
    match mount.sub_path.as_deref().filter(|path| !path.is_empty()) {
        None => Some(format!("{folder}/{file}")),
        Some(own) if own == file => Some(folder.to_owned()),
        Some(own) => Some(format!("{folder}/{}", file.strip_prefix(own)?.strip_prefix('/')?)),
    }
}

fn of_volume(volume: &Volume, sources: &Sources) -> Result<Data, String> {
    let mut all = Data::new();
    if let Some(secret) = &volume.secret {
        let name = secret.secret_name.as_deref().unwrap_or_default();
        all.extend(named(sources.find("secret", name, secret.optional)?, secret.items.as_deref()));
    }
    if let Some(map) = &volume.config_map {
        all.extend(named(sources.find("configmap", &map.name, map.optional)?, map.items.as_deref()));
    }
    for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
        if let Some(secret) = &source.secret {
            all.extend(named(sources.find("secret", &secret.name, secret.optional)?, secret.items.as_deref()));
        }
        if let Some(map) = &source.config_map {
            all.extend(named(sources.find("configmap", &map.name, map.optional)?, map.items.as_deref()));
        }
    }
    Ok(all)
}

/// Returns the files of a ConfigMap or Secret: all, or those that the volume lists, with its names.
fn named(data: Option<&Data>, items: Option<&[KeyToPath]>) -> Data {
    let Some(data) = data else {
        return Data::new();
    };
    match items.filter(|items| !items.is_empty()) {
        None => data.clone(),
        Some(items) => {
            items.iter().filter_map(|item| Some((item.path.clone(), data.get(&item.key)?.clone()))).collect()
        }
    }
}

/// The work of a pod that ends by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Work {
    pub(super) time: Duration,
    pub(super) exit_code: i32,
}

/// Returns the work of a pod that is not to be restarted and in which nothing is a server. It takes as long as that of any
/// container, and fails as the first one does that fails.
pub(super) fn work(pod: &Pod) -> Option<Work> {
    let restarts = pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always") == "Always";
    let is_server = |container: &Container| {
        container.image.as_deref().is_some_and(is_known) || container.ports.as_ref().is_some_and(|it| !it.is_empty())
    };
    if restarts || containers(pod).iter().any(is_server) {
        return None;
    }
    let of_container = |container: &Container| {
        let words = container.command.iter().chain(&container.args).flatten();
        work_of(&words.map(String::as_str).collect::<Vec<_>>())
    };
    let both = |one: Work, other: Work| Work {
        time: one.time.max(other.time),
        exit_code: if one.exit_code == 0 { other.exit_code } else { one.exit_code },
    };
    Some(containers(pod).iter().map(of_container).fold(Work::default(), both))
}

/// Returns the work of a command, which may be a shell with a script. Programs other than `sleep`, `false` and `exit` succeed at
/// once.
fn work_of(words: &[&str]) -> Work {
    let is_shell = words.first().is_some_and(|program| program.ends_with("sh"));
    let script = words.iter().position(|word| is_shell && word.starts_with('-') && word.ends_with('c'));
    let script = script.and_then(|flag| words.get(flag + 1)).map_or_else(|| words.join(" "), ToString::to_string);
    let mut work = Work::default();
    for line in script.replace("&&", "\n&").replace("||", "\n|").replace(';', "\n").lines() {
        let (line, is_run) = match (line.strip_prefix('&'), line.strip_prefix('|')) {
            (Some(line), _) => (line, work.exit_code == 0),
            (None, Some(line)) => (line, work.exit_code != 0),
            (None, None) => (line, true),
        };
        let mut words = line.split_whitespace();
        let Some(program) = words.next().filter(|_| is_run) else { continue };
        let argument = words.next();
        match program.rsplit('/').next() {
            Some("exit") => {
                work.exit_code = argument.and_then(|code| code.parse().ok()).unwrap_or(work.exit_code);
                break;
            }
            Some("false") => work.exit_code = 1,
            Some("sleep") => {
                work.time = work.time.saturating_add(argument.and_then(duration).unwrap_or_default());
                work.exit_code = 0;
            }
            _ => work.exit_code = 0,
        }
    }
    work
}

/// The end of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) on_term: OnTerm,
    /// The longest preStop of its containers.
    pub(super) pre_stop: Duration,
    /// From the deletion to SIGKILL, with the preStop.
    pub(super) grace: Duration,
}

/// Returns how a pod ends, which may be deleted or not yet.
pub(super) fn end(pod: &Pod) -> End {
    let on_term = match pod.annotations().get(ON_TERM).map(String::as_str) {
        Some("exit") => OnTerm::Exit,
        _ => OnTerm::Drain,
    };
    let grace = pod.metadata.deletion_grace_period_seconds;
    let own = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
    let pre_stop = containers(pod).iter().filter_map(|container| pre_stop(container.lifecycle.as_ref()?)).max();
    End {
        on_term,
        pre_stop: pre_stop.unwrap_or_default(),
        grace: Duration::from_secs(u64::try_from(grace.or(own).unwrap_or(30)).unwrap_or_default()),
    }
}

/// Returns how long a preStop takes: that of an action that sleeps, or of a command that does.
fn pre_stop(lifecycle: &Lifecycle) -> Option<Duration> {
    let handler = lifecycle.pre_stop.as_ref()?;
    if let Some(sleep) = &handler.sleep {
        return Some(Duration::from_secs(u64::try_from(sleep.seconds).ok()?));
    }
    let command = handler.exec.as_ref()?.command.as_ref()?.join(" ");
    let mut words = command.split(|letter: char| letter.is_whitespace() || letter == ';' || letter == '&');
    words.find(|word| word.rsplit('/').next() == Some("sleep"))?;
    duration(words.find(|word| !word.is_empty())?)
}

/// Returns how long `sleep` sleeps.
fn duration(time: &str) -> Option<Duration> {
    if time == "infinity" {
        return Some(Duration::MAX);
    }
    let units = [('s', 1.0), ('m', 60.0), ('h', 3600.0), ('d', 86400.0)];
    let with_unit = units.iter().find_map(|(unit, seconds)| Some((time.strip_suffix(*unit)?, *seconds)));
    let (number, seconds) = with_unit.unwrap_or((time, 1.0));
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: &Value) -> Pod {
        let metadata = json!({"name": "web-1", "namespace": "shop", "labels": {"app": "web"}, "uid": "u"});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    fn sources() -> Sources {
        let data = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect::<Data>()
        };
        Sources {
            config_maps: [("map".to_owned(), data(&[("A", "1"), ("B", "2")]))].into(),
            secrets: [("tls".to_owned(), data(&[("tls.crt", "crt"), ("tls.key", "key")]))].into(),
        }
    }

    #[test]
    fn a_container_has_its_variables_files_and_ports() {
        let pod = pod(&json!({
            "nodeName": "node-0",
            "volumes": [
                {"name": "tls", "secret": {"secretName": "tls"}},
                {"name": "map", "configMap": {"name": "map", "items": [{"key": "A", "path": "d/a"}, {"key": "B", "path": "b"}]}},
                {"name": "empty", "emptyDir": {}},
            ],
            "containers": [{
                "name": "app",
                "image": "x",
                "args": ["--name=$(NAME)", "$$(NAME) $(NONE) $"],
                "ports": [{"containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}],
                "envFrom": [{"prefix": "P_", "configMapRef": {"name": "map"}}],
                "env": [
                    {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                    {"name": "HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
                    {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                    {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "tls", "key": "tls.key"}}},
                    {"name": "NO", "valueFrom": {"configMapKeyRef": {"name": "no", "key": "a", "optional": true}}},
                    {"name": "URL", "value": "http://$(IP)/$(P_A)"},
                ],
                "volumeMounts": [
                    {"name": "tls", "mountPath": "/etc/tls/"},
                    {"name": "map", "mountPath": "/b.conf", "subPath": "b"},
                    {"name": "map", "mountPath": "/d", "subPath": "d"},
                    {"name": "empty", "mountPath": "/tmp"},
                ],
            }],
        }));
        assert!(needs_sources(&pod));
        let found = resolve(&pod, "10.0.100.7", "10.0.100.4", &sources()).unwrap();
        let pairs = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>()
        };
        let variables = [
            ("APP", "web"),
            ("HOST", "10.0.100.4"),
            ("IP", "10.0.100.7"),
            ("KEY", "key"),
            ("NAME", "web-1"),
            ("P_A", "1"),
            ("P_B", "2"),
            ("URL", "http://10.0.100.7/1"),
        ];
        let files = [("/b.conf", "2"), ("/d/a", "1"), ("/etc/tls/tls.crt", "crt"), ("/etc/tls/tls.key", "key")];
        let container = ContainerSpec {
            name: "app".to_owned(),
            image: "x".to_owned(),
            ports: vec![
                ContainerPort { number: 80, transport: Transport::Tcp },
                ContainerPort { number: 53, transport: Transport::Udp },
            ],
            environment: pairs(&variables),
            command: Vec::new(),
            arguments: vec!["--name=web-1".to_owned(), "$(NAME) $(NONE) $".to_owned()],
            files: pairs(&files).into_iter().map(|(path, text)| (path, text.into_bytes())).collect(),
        };
        let expected = PodSpec {
            namespace: "shop".to_owned(),
            name: "web-1".to_owned(),
            address: Some([10, 0, 100, 7].into()),
            containers: vec![container],
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn a_pod_waits_for_what_it_lacks() {
        let with = |extra: Value| {
            let mut container = json!({"name": "app", "image": "x"});
            container.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            pod(&json!({"containers": [container], "volumes": [{"name": "v", "secret": {"secretName": "none"}}]}))
        };
        let rows = [
            (json!({"envFrom": [{"secretRef": {"name": "none"}}]}), "secret \"none\" not found"),
            (
                json!({"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "map", "key": "C"}}}]}),
                "couldn't find key C in configmap map",
            ),
            (json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}), "secret \"none\" not found"),
        ];
        for (extra, expected) in rows {
            assert_eq!(resolve(&with(extra), "10.0.100.7", "", &sources()), Err(expected.to_owned()));
        }
    }

    #[test]
    fn a_pod_without_servers_that_is_not_restarted_completes() {
        let with = |policy: &str, container: Value| {
            work(&pod(&json!({"restartPolicy": policy, "containers": [container]}))).is_some()
        };
        let port = json!([{"containerPort": 80}]);
        assert!(with("Never", json!({"name": "a", "image": "busybox"})));
        assert!(with("OnFailure", json!({"name": "a", "image": "busybox"})));
        assert!(!with("Always", json!({"name": "a", "image": "busybox"})));
        assert!(!with("Never", json!({"name": "a", "image": "x/colorteller:1"})));
        assert!(!with("Never", json!({"name": "a", "image": "busybox", "ports": port})));
    }

    #[test]
    fn the_work_of_a_pod_is_what_its_command_says() {
        let rows: [(&[&str], u64, i32); 17] = [
            (&[], 0, 0),
            (&["true"], 0, 0),
            (&["/bin/false"], 0, 1),
            (&["sleep", "3600"], 3_600_000, 0),
            (&["sh", "-c", "sleep 2.5s; sleep 1m"], 62_500, 0),
            (&["/bin/bash", "-ec", "echo hi\nexit 3\nsleep 5"], 0, 3),
            (&["sh", "-c", "sleep 1h && exit 2"], 3_600_000, 2),
            (&["sh", "-c", "curl -f web || exit 1"], 0, 0),
            (&["sh", "-c", "false || exit 4; exit 5"], 0, 4),
            (&["sh", "-c", "false || sleep 1"], 1_000, 0),
            (&["sh", "-c", "false && sleep 1"], 0, 1),
            (&["sh", "-c", "false; exit"], 0, 1),
            (&["sh", "-c", "false; echo bye;"], 0, 0),
            (&["sh", "-c", "if ! curl web; then exit 1; fi"], 0, 0),
            (&["ping", "-c", "3", "web"], 0, 0),
            (&["sleep"], 0, 0),
            (&["sleep", "x"], 0, 0),
        ];
        for (words, millis, exit_code) in rows {
            assert_eq!(work_of(words), Work { time: Duration::from_millis(millis), exit_code }, "{words:?}");
        }
        assert_eq!(work_of(&["sleep", "infinity"]).time, Duration::MAX);
        let container = |command: &[&str]| json!({"name": "a", "image": "busybox", "command": command});
        let sleeps = json!({"name": "b", "image": "busybox", "args": ["sleep", "9"]});
        let containers = json!([container(&["true"]), container(&["false"]), sleeps]);
        let pod = pod(&json!({"restartPolicy": "Never", "containers": containers}));
        assert_eq!(work(&pod), Some(Work { time: Duration::from_secs(9), exit_code: 1 }));
    }

    #[test]
    fn a_pods_end_is_as_its_manifest_says() {
        let with = |pre_stop: Value| {
            let lifecycle = json!({"preStop": pre_stop});
            let mut pod = pod(&json!({"containers": [{"name": "a", "lifecycle": lifecycle}]}));
            pod.annotations_mut().insert(ON_TERM.to_owned(), "exit".to_owned());
            end(&pod)
        };
        let exec = |words: &[&str]| json!({"exec": {"command": words}});
        let rows = [
            (json!({"sleep": {"seconds": 15}}), 15_000),
            (exec(&["sleep", "10"]), 10_000),
            (exec(&["/bin/sh", "-c", "/bin/sleep 2.5s; nginx -s quit"]), 2_500),
            (exec(&["sh", "-c", "echo bye && sleep 1m"]), 60_000),
            (exec(&["nginx", "-s", "quit"]), 0),
            (json!({"httpGet": {"port": 80}}), 0),
        ];
        for (pre_stop, millis) in rows {
            let expected =
                End { on_term: OnTerm::Exit, pre_stop: Duration::from_millis(millis), grace: Duration::from_secs(30) };
            assert_eq!(with(pre_stop.clone()), expected, "{pre_stop}");
        }
        let mut pod = pod(&json!({"terminationGracePeriodSeconds": 60, "containers": []}));
        assert_eq!(end(&pod).grace, Duration::from_secs(60));
        pod.metadata.deletion_grace_period_seconds = Some(1);
        let expected = End { on_term: OnTerm::Drain, pre_stop: Duration::ZERO, grace: Duration::from_secs(1) };
        assert_eq!(end(&pod), expected);
    }
}
