//! The Helm chart: what it makes of values, that the controller and the API server take it, and that it installs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use albatross::controller::runtime::flags::ControllerFlags;
use albatross_core::admission::Hook;
use albatross_core::model::VpcId;
use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use e2e::lab::cluster::{documents, items, put_in_namespace, text};
use e2e::lab::helm::{Helm, Said};
use e2e::lab::{Lab, workspace};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::migration::other_chart;
use crate::support::{Stage, gone, run};

pub(crate) const CHART: &str = "charts/albatross";
/// Values that are more than some lines.
const EVERY_VALUE: &str = include_str!("chart/every_value.yaml");

/// The objects of the smallest installation.
const MINIMUM: [&str; 10] = [
    "ClusterRole albatross",
    "ClusterRoleBinding albatross",
    "Deployment albatross",
    "IngressClass alb",
    "IngressClassParams alb",
    "PodDisruptionBudget albatross",
    "Role albatross-leader-election",
    "RoleBinding albatross-leader-election",
    "Service albatross-metrics",
    "ServiceAccount albatross",
];

/// Values, and what becomes of them.
struct Case {
    name: &'static str,
    /// YAML, in which `clusterName: demo` need not be said.
    values: &'static str,
    /// The differences from [`MINIMUM`]: `+ Kind name` and `- Kind name`.
    objects: &'static [&'static str],
    /// The differences from the arguments of the smallest installation, likewise.
    arguments: &'static [&'static str],
}

const CASES: &[Case] = &[
    Case { name: "minimum", values: "{}", objects: &[], arguments: &[] },
    Case {
        name: "as in the documents",
        values: "{region: us-west-2, vpcId: vpc-0a1b2c3d, image: {repository: example.com/albatross}, serviceAccount: {annotations: {eks.amazonaws.com/role-arn: 'arn:aws:iam::111122223333:role/albatross'}}}",
        objects: &[],
        arguments: &["+ --aws-region=us-west-2", "+ --aws-vpc-id=vpc-0a1b2c3d"],
    },
    Case {
        name: "one replica",
        values: "replicaCount: 1",
        objects: &["- PodDisruptionBudget albatross"],
        arguments: &[],
    },
    Case {
        name: "no disruption budget",
        values: "podDisruptionBudget: null",
        objects: &["- PodDisruptionBudget albatross"],
        arguments: &[],
    },
    Case {
        name: "autoscaling",
        values: "autoscaling: {enabled: true}",
        objects: &["+ HorizontalPodAutoscaler albatross", "- PodDisruptionBudget albatross"],
        arguments: &[],
    },
    Case {
        name: "no RBAC",
        values: "rbac: {create: false}",
        objects: &[
            "- ClusterRole albatross",
            "- ClusterRoleBinding albatross",
            "- Role albatross-leader-election",
            "- RoleBinding albatross-leader-election",
        ],
        arguments: &[],
    },
    Case {
        name: "a ServiceAccount of others",
        values: "serviceAccount: {create: false, name: others}",
        objects: &["- ServiceAccount albatross"],
        arguments: &[],
    },
    Case {
        name: "on the host's network",
        values: "{hostNetwork: true, dnsPolicy: ClusterFirstWithHostNet, metricsBindAddr: ':9080', healthProbeBindAddr: '127.0.0.1:9081'}",
        objects: &[],
        arguments: &["+ --health-probe-bind-addr=127.0.0.1:9081", "+ --metrics-bind-addr=:9080"],
    },
    Case {
        name: "no IngressClass",
        values: "{createIngressClassResource: false, ingressClassParams: {spec: {scheme: internal}}}",
        objects: &["- IngressClass alb", "- IngressClassParams alb"],
        arguments: &[],
    },
    Case {
        name: "parameters of the class",
        values: "{ingressClass: edge, ingressClassParams: {spec: {scheme: internet-facing}}}",
        objects: &[
            "+ IngressClass edge",
            "+ IngressClassParams edge",
            "- IngressClass alb",
            "- IngressClassParams alb",
        ],
        arguments: &["+ --ingress-class=edge", "- --ingress-class=alb"],
    },
    Case {
        name: "parameters that are there",
        values: "ingressClassParams: {create: false, name: theirs}",
        objects: &["- IngressClassParams alb"],
        arguments: &[],
    },
    Case {
        name: "the class whose name is the flag's default",
        values: "ingressClass: ''",
        objects: &[],
        arguments: &[],
    },
    Case {
        name: "templates in values",
        values: "{clusterName: '{{ .Values.global.cluster }}', region: '{{ .Values.global.region }}', vpcId: '{{ .Values.global.vpc }}', serviceAccount: {annotations: {eks.amazonaws.com/role-arn: 'arn:aws:iam::{{ .Values.global.account }}:role/albatross'}}, global: {cluster: demo, region: us-west-2, vpc: vpc-0a1b2c3d, account: '111122223333'}}",
        objects: &[],
        arguments: &["+ --aws-region=us-west-2", "+ --aws-vpc-id=vpc-0a1b2c3d"],
    },
    Case {
        name: "numbers as tags, as the other chart writes them",
        values: "defaultTags: {account: 123456789012, quoted: '123456789012', small: 7}",
        objects: &[],
        arguments: &["+ --default-tags=account=1.23456789012e+11,quoted=123456789012,small=7"],
    },
    Case {
        name: "closed to the network",
        values: "{networkPolicy: {enabled: true, metricsFrom: [{namespaceSelector: {matchLabels: {name: monitoring}}}]}, webhooks: {enabled: true}, debugBindAddr: ':61778'}",
        objects: &[
            "+ MutatingWebhookConfiguration albatross-webhook",
            "+ NetworkPolicy albatross",
            "+ Secret albatross-certificate",
            "+ Service albatross-webhook-service",
            "+ ValidatingWebhookConfiguration albatross-webhook",
        ],
        arguments: &[
            "+ --debug-bind-addr=:61778",
            "+ --enable-webhooks=true",
            "+ --webhook-configuration-name=albatross-webhook",
            "+ --webhook-secret-name=albatross-certificate",
            "+ --webhook-service-name=albatross-webhook-service",
        ],
    },
    Case {
        name: "observed",
        values: "{serviceMonitor: {enabled: true}, grafanaDashboard: {enabled: true}, logFormat: json, logLevel: 'albatross=debug,kube=warn'}",
        objects: &["+ ConfigMap albatross-dashboard", "+ ServiceMonitor albatross"],
        arguments: &["+ --log-format=json", "+ --log-level=albatross=debug,kube=warn"],
    },
    Case {
        name: "not observed",
        values: "metricsBindAddr: '0'",
        objects: &["- Service albatross-metrics"],
        arguments: &["+ --metrics-bind-addr=0"],
    },
    Case {
        name: "lists and maps as text, and the other way round",
        values: "{awsApiThrottle: 'Elastic Load Balancing v2:.*=10:40', externalManagedTags: 'x,y', serviceTargetENISGTags: {team: shop}, certDiscovery: {allowedCertificateAuthorityARNs: ['arn:a', 'arn:b']}, env: [{name: HTTPS_PROXY, value: 'http://proxy:3128'}], awsMaxRetries: '7', defaultTags: {a: true, b: 1.5, c: x=y}}",
        objects: &[],
        arguments: &[
            "+ --allowed-certificate-authority-arns=arn:a,arn:b",
            "+ --aws-api-throttle=Elastic Load Balancing v2:.*=10:40",
            "+ --aws-max-retries=7",
            "+ --default-tags=a=true,b=1.5,c=x=y",
            "+ --external-managed-tags=x,y",
            "+ --service-target-eni-security-group-tags=team=shop",
        ],
    },
    Case {
        name: "flags that the chart does not know",
        values: "{extraArgs: ['--ingress-class=mine', '--leader-election-id=other'], unknown: {value: 1}}",
        objects: &[],
        arguments: &["+ --ingress-class=mine", "+ --leader-election-id=other"],
    },
    Case {
        name: "webhooks",
        values: "webhooks: {enabled: true}",
        objects: &[
            "+ MutatingWebhookConfiguration albatross-webhook",
            "+ Secret albatross-certificate",
            "+ Service albatross-webhook-service",
            "+ ValidatingWebhookConfiguration albatross-webhook",
        ],
        arguments: &[
            "+ --enable-webhooks=true",
            "+ --webhook-configuration-name=albatross-webhook",
            "+ --webhook-secret-name=albatross-certificate",
            "+ --webhook-service-name=albatross-webhook-service",
        ],
    },
    Case {
        name: "webhooks with a certificate of others",
        values: "{webhooks: {enabled: true}, webhookTLS: {caCert: a, cert: b, key: c}, webhookConfig: {disableIngressValidation: true}}",
        objects: &[
            "+ MutatingWebhookConfiguration albatross-webhook",
            "+ Secret albatross-tls",
            "+ Service albatross-webhook-service",
            "+ ValidatingWebhookConfiguration albatross-webhook",
        ],
        arguments: &["+ --enable-webhooks=true", "+ --webhook-cert-dir=/etc/albatross/webhook"],
    },
    Case {
        name: "webhooks with a certificate of cert-manager's and an issuer of others",
        values: "{webhooks: {enabled: true}, enableCertManager: true, enableServiceMutatorWebhook: true, certManager: {issuerRef: {kind: ClusterIssuer, name: company}}}",
        objects: &[
            "+ Certificate albatross-serving-cert",
            "+ MutatingWebhookConfiguration albatross-webhook",
            "+ Service albatross-webhook-service",
            "+ ValidatingWebhookConfiguration albatross-webhook",
        ],
        arguments: &["+ --enable-webhooks=true", "+ --webhook-cert-dir=/etc/albatross/webhook"],
    },
];

/// The arguments that [`EVERY_VALUE`] makes, webhooks off.
const EVERY_ARGUMENT: &str = "controller
--cluster-name=demo
--ingress-class=balanced
--load-balancer-class=example.com/nlb
--aws-region=us-west-2
--aws-vpc-id=vpc-0123456789abcdef0
--aws-vpc-tags=team=shop,tier=edge
--aws-api-endpoints=EC2=https://ec2.example.com,Elastic Load Balancing v2=https://elb.example.com
--aws-api-throttle=Elastic Load Balancing v2:RegisterTargets|DeregisterTargets=4:20,Elastic Load Balancing v2:.*=10:40
--aws-max-retries=12
--default-target-type=ip
--default-load-balancer-scheme=internet-facing
--default-ssl-policy=ELBSecurityPolicy-TLS13-1-2-2021-06
--default-tags=cost-center=1.234567e+06,team=shop
--external-managed-tags=owner,stage
--allowed-certificate-authority-arns=arn:aws:acm-pca:us-west-2:111122223333:certificate-authority/a,arn:aws:acm-pca:us-west-2:111122223333:certificate-authority/b
--default-pca-arn=arn:aws:acm-pca:us-west-2:111122223333:certificate-authority/a
--tolerate-non-existent-backend-service=false
--tolerate-non-existent-backend-action=false
--enable-backend-security-group=true
--backend-security-group=sg-0123456789abcdef0
--enable-manage-backend-security-group-rules=true
--disable-restricted-sg-rules=true
--enable-wafv2=false
--enable-shield=false
--service-target-eni-security-group-tags=team=shop,tier=nodes
--max-targets-per-target-group=1000000
--ingress-max-concurrent-reconciles=5
--targetgroupbinding-max-concurrent-reconciles=6
--targetgroupbinding-requeue-duration=10s
--sync-period=5h
--watch-namespace=shop
--feature-gates=ALBSingleSubnet=true,EnableTCPUDPListener=true,NLBGatewayAPI=true
--metrics-bind-addr=:9090
--log-level=debug
--enable-pod-readiness-gate-inject=true
--disable-ingress-class-annotation=true
--disable-ingress-group-name-annotation=true
--alb-gateway-max-concurrent-reconciles=2
--enable-endpoint-slices=false
--enable-waf=false
--globalaccelerator-max-concurrent-reconciles=2
--globalaccelerator-max-exponential-backoff-delay=5m
--lb-stabilization-monitor-interval=1m
--nlb-gateway-max-concurrent-reconciles=2
--service-max-concurrent-reconciles=4
--targetgroupbinding-max-exponential-backoff-delay=5m";

pub(crate) fn helm() -> Result<Helm> {
    Helm::find(Path::new(env!("CARGO_BIN_EXE_e2e")))
}

fn values(yaml: &str) -> Result<Value> {
    let mut values = documents(yaml)?.pop().context("no values")?;
    if values.get("clusterName").is_none() {
        values["clusterName"] = "demo".into();
    }
    Ok(values)
}

/// The objects that the chart makes of values, as the release `albatross` in kube-system.
pub(crate) fn rendered(helm: &Helm, values: &Value) -> Result<Vec<Value>> {
    rendered_for(helm, values, &[])
}

/// The same for a version of Kubernetes, if the arguments name one.
fn rendered_for(helm: &Helm, values: &Value, version: &[&str]) -> Result<Vec<Value>> {
    let arguments = ["template", "albatross", CHART, "--namespace=kube-system"];
    let said = helm.run(&[&arguments[..], version].concat(), Some(values))?;
    ensure!(said.success, "helm template: {}", said.errors);
    documents(&said.output)
}

fn names(objects: &[Value]) -> Vec<String> {
    let name = |object: &Value| format!("{} {}", text(object, "/kind"), text(object, "/metadata/name"));
    let mut names: Vec<String> = objects.iter().map(name).collect();
    names.sort();
    names
}

fn the<'a>(objects: &'a [Value], kind: &str) -> Result<&'a Value> {
    let mut found = objects.iter().filter(|object| text(object, "/kind") == kind);
    let object = found.next().with_context(|| format!("no {kind}"))?;
    ensure!(found.next().is_none(), "more than one {kind}");
    Ok(object)
}

fn arguments(objects: &[Value]) -> Result<Vec<String>> {
    let arguments = items(the(objects, "Deployment")?, "/spec/template/spec/containers/0/args");
    Ok(arguments.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

/// Returns the entries that are in one list only, as `+ this` and `- that`.
fn differences(from: &[String], to: &[String]) -> Vec<String> {
    let more = to.iter().filter(|entry| !from.contains(entry)).map(|entry| format!("+ {entry}"));
    let less = from.iter().filter(|entry| !to.contains(entry)).map(|entry| format!("- {entry}"));
    let mut all: Vec<String> = more.chain(less).collect();
    all.sort();
    all
}

#[derive(Parser)]
#[command(args_override_self = true)]
struct Line {
    #[command(flatten)]
    flags: ControllerFlags,
}

/// The controller's own reading of its arguments, to the last value.
fn flags(arguments: &[String]) -> Result<ControllerFlags> {
    ensure!(arguments.first().is_some_and(|first| first == "controller"), "{arguments:?} do not run the controller");
    let flags = Line::try_parse_from(arguments)?.flags;
    flags.build_config(VpcId::new("vpc-1"))?;
    flags.fixed_limits()?;
    flags.vpc_tags()?;
    flags.node_security_group_tags()?;
    Ok(flags)
}

#[test]
fn values_become_objects_and_flags() {
    run(async {
        let helm = helm()?;
        let smallest = arguments(&rendered(&helm, &values("{}")?)?)?;
        assert_eq!(
            smallest,
            ["controller", "--cluster-name=demo", "--ingress-class=alb", "--default-target-type=instance"]
        );
        let mut wrong = Vec::new();
        for case in CASES {
            let objects = rendered(&helm, &values(case.values)?).context(case.name)?;
            let differ = differences(&MINIMUM.map(str::to_owned), &names(&objects));
            let given = arguments(&objects)?;
            let others = differences(&smallest, &given);
            if differ != case.objects || others != case.arguments {
                wrong.push(format!("{}: {differ:#?} {others:#?}", case.name));
            }
            if let Err(error) = flags(&given) {
                wrong.push(format!("{}: the controller does not take {given:?}: {error:#}", case.name));
            }
        }
        let every = rendered(&helm, &values(EVERY_VALUE)?)?;
        let given = arguments(&every)?;
        assert_eq!(given.join("\n"), EVERY_ARGUMENT);
        flags(&given)?;
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    });
}

#[test]
fn the_pods_are_careful_by_default() {
    run(async {
        let objects = rendered(&helm()?, &values("{}")?)?;
        let deployment = the(&objects, "Deployment")?;
        assert_eq!(deployment["spec"]["replicas"], 2);
        let mut pod = deployment["spec"]["template"]["spec"].clone();
        let container = pod["containers"][0].take();
        let selector = json!({"app.kubernetes.io/name": "albatross", "app.kubernetes.io/instance": "albatross"});
        assert_eq!(
            pod,
            json!({
                "serviceAccountName": "albatross",
                "priorityClassName": "system-cluster-critical",
                "terminationGracePeriodSeconds": 30,
                "securityContext": {
                    "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [null],
                "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{
                    "weight": 100,
                    "podAffinityTerm": {
                        "topologyKey": "kubernetes.io/hostname",
                        "labelSelector": {"matchLabels": selector},
                    },
                }]}},
            })
        );
        assert_eq!(
            container["securityContext"],
            json!({
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "runAsNonRoot": true,
                "capabilities": {"drop": ["ALL"]},
            })
        );
        assert_eq!(
            container["resources"],
            json!({"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}})
        );
        let probe = |name: &str| text(&container, &format!("/{name}/httpGet/path")).to_owned();
        assert_eq!([probe("livenessProbe"), probe("readinessProbe")], ["/healthz", "/readyz"]);
        let budget = the(&objects, "PodDisruptionBudget")?;
        assert_eq!(budget["spec"], json!({"selector": {"matchLabels": selector}, "maxUnavailable": 1}));
        Ok(())
    });
}

/// The kinds of the chart that Kubernetes 1.22 serves: those of its `swagger.json`.
const SERVED_BY_OLDEST: [&str; 15] = [
    "admissionregistration.k8s.io/v1 MutatingWebhookConfiguration",
    "admissionregistration.k8s.io/v1 ValidatingWebhookConfiguration",
    "apps/v1 Deployment",
    "autoscaling/v2beta2 HorizontalPodAutoscaler",
    "networking.k8s.io/v1 IngressClass",
    "networking.k8s.io/v1 NetworkPolicy",
    "policy/v1 PodDisruptionBudget",
    "rbac.authorization.k8s.io/v1 ClusterRole",
    "rbac.authorization.k8s.io/v1 ClusterRoleBinding",
    "rbac.authorization.k8s.io/v1 Role",
    "rbac.authorization.k8s.io/v1 RoleBinding",
    "v1 ConfigMap",
    "v1 Secret",
    "v1 Service",
    "v1 ServiceAccount",
];

/// The oldest version of Kubernetes that the chart accepts is given what it serves.
#[test]
fn the_oldest_kubernetes_is_given_what_it_serves() {
    run(async {
        let helm = helm()?;
        let mut every = values(EVERY_VALUE)?;
        every["webhooks"] = json!({"enabled": true});
        let sets = CASES.iter().map(|case| values(case.values)).chain([Ok(every)]).collect::<Result<Vec<_>>>()?;
        let mut given = BTreeSet::new();
        for set in &sets {
            let old = rendered_for(&helm, set, &["--kube-version=1.22.0"])?;
            let mut new = rendered_for(&helm, set, &["--kube-version=1.23.0"])?;
            for object in &mut new {
                if object["kind"] == "HorizontalPodAutoscaler" {
                    assert_eq!(object["apiVersion"], "autoscaling/v2");
                    object["apiVersion"] = "autoscaling/v2beta2".into();
                }
            }
            assert_eq!(old, new, "only the version of one kind differs");
            assert_eq!(new.len(), rendered(&helm, set)?.len());
            given.extend(old.iter().map(|object| format!("{} {}", text(object, "/apiVersion"), text(object, "/kind"))));
        }
        given.retain(|kind| {
            !["cert-manager.io/", "elbv2.k8s.aws/", "monitoring.coreos.com/"]
                .iter()
                .any(|group| kind.starts_with(group))
        });
        assert_eq!(given.into_iter().collect::<Vec<_>>(), SERVED_BY_OLDEST);
        let arguments = ["template", "albatross", CHART, "--kube-version=1.21.14"];
        let said = helm.run(&arguments, sets.first())?;
        let refusal = "chart requires kubeVersion: >=1.22.0-0 which is incompatible with Kubernetes v1.21.14";
        ensure!(!said.success && said.errors.contains(refusal), "{said:?}");
        Ok(())
    });
}

/// Users without Helm get the same pods.
#[test]
fn config_has_the_same_deployment() {
    run(async {
        let mut chart = rendered(&helm()?, &values("{}")?)?;
        for (kind, file) in [("Deployment", "deployment"), ("PodDisruptionBudget", "disruption_budget")] {
            let text = fs::read_to_string(workspace().join(format!("config/controller/{file}.yaml")))?;
            let mut own = documents(&text)?.pop().with_context(|| format!("{file}.yaml is empty"))?;
            let theirs = chart.iter_mut().find(|object| object["kind"] == kind).context("not in the chart")?;
            if kind == "Deployment" {
                flags(&arguments(std::slice::from_ref(&own))?)?;
                for object in [&mut own, theirs] {
                    object["spec"]["template"]["spec"]["containers"][0]["args"].take();
                }
            }
            let theirs = chart.iter().find(|object| object["kind"] == kind).context("not in the chart")?;
            assert_eq!(own["spec"], theirs["spec"], "{kind}");
        }
        Ok(())
    });
}

/// A mistake in the values is reported with its place and the allowed values.
#[test]
fn values_that_cannot_be_meant_are_refused() {
    run(async {
        let helm = helm()?;
        let refused = |values: Value| -> Result<String> {
            let Said { success, errors, .. } =
                helm.run(&["template", "albatross", CHART, "--namespace=kube-system"], Some(&values))?;
            ensure!(!success, "{values} are taken");
            // The order of a schema's complaints is not defined.
            let mut lines: Vec<&str> = errors.lines().filter(|line| line.starts_with("- ")).collect();
            lines.sort_unstable();
            let whole = errors.lines().find(|line| line.starts_with("Error: ")).unwrap_or_default();
            Ok(if lines.is_empty() { whole.to_owned() } else { lines.join("\n") })
        };
        assert_eq!(
            refused(json!({}))?,
            "Error: execution error at (albatross/templates/deployment.yaml:73:16): clusterName is required: the name of the cluster, which is part of the names and tags of everything in AWS (--set clusterName=NAME)"
        );
        let misspelt = refused(json!({"clusterName": "demo", "networkPolicy": {"enable": true}}))?;
        ensure!(misspelt.contains("/networkPolicy") && misspelt.contains("enable"), "{misspelt}");
        assert_eq!(
            refused(json!({
                "clusterName": 5, "replicaCount": "many", "vpcId": "subnet-1", "defaultTargetType": "pod",
                "enableShield": "true", "syncPeriod": "ten hours", "image": {"pullPolicy": "Sometimes"},
                "controllerConfig": {"featureGates": {"ALBSingleSubnet": "true"}}, "tolerations": {},
                "serviceMutatorWebhookConfig": {"operations": ["DELETE"]},
            }))?,
            "- at '/clusterName': got number, want null or string
- at '/controllerConfig/featureGates/ALBSingleSubnet': got string, want boolean
- at '/defaultTargetType': value must be one of 'instance', 'ip'
- at '/enableShield': got string, want null or boolean
- at '/image/pullPolicy': value must be one of 'Always', 'IfNotPresent', 'Never'
- at '/replicaCount': 'many' does not match pattern '^[0-9]*$'
- at '/serviceMutatorWebhookConfig/operations/0': value must be one of 'CREATE', 'UPDATE'
- at '/syncPeriod': 'ten hours' does not match pattern '^([0-9.]+(h|m|s|ms))*$|^0$'
- at '/tolerations': got object, want null or array
- at '/vpcId': 'subnet-1' does not match pattern '^(vpc-[0-9a-f]+)?$|{{'"
        );
        let lint = helm.run(&["lint", CHART, "--strict"], Some(&json!({"clusterName": "demo"})))?;
        assert!(lint.success, "{}{}", lint.output, lint.errors);
        Ok(())
    });
}

/// A value that is added is described in the schema and in values.yaml; and every value of the other chart is there.
#[test]
fn every_value_is_described() {
    run(async {
        let folder = workspace().join(CHART);
        let own = documents(&fs::read_to_string(folder.join("values.yaml"))?)?.pop().context("values.yaml is empty")?;
        let schema: Value = serde_json::from_slice(&fs::read(folder.join("values.schema.json"))?)?;
        let mut undescribed = Vec::new();
        compare_keys(&own, &schema, "", &mut undescribed);
        assert_eq!(undescribed, [] as [String; 0]);
        // The notes name every other value.
        let helpers = fs::read_to_string(folder.join("templates/_helpers.tpl"))?;
        let list =
            helpers.split("{{- define \"albatross.values\" -}}").nth(1).and_then(|rest| rest.split("{{- end").next());
        let named: BTreeSet<String> = list.unwrap_or_default().split_whitespace().map(str::to_owned).collect();
        assert_eq!(named, own.as_object().context("no values")?.keys().cloned().collect());
        let theirs = values(EVERY_VALUE)?;
        let keys = |value: &Value| -> BTreeSet<String> {
            value.as_object().into_iter().flat_map(|map| map.keys().cloned()).collect()
        };
        let unknown: Vec<String> = keys(&theirs).difference(&keys(&own)).cloned().collect();
        assert_eq!(unknown, [] as [String; 0]);
        let more: Vec<String> = keys(&own).difference(&keys(&theirs)).cloned().collect();
        let ours = [
            "debugBindAddr",
            "extraArgs",
            "grafanaDashboard",
            "healthProbeBindAddr",
            "logFormat",
            "networkPolicy",
            "propagationTime",
            "replacedListenerHold",
            "replacedLoadBalancerHold",
            "targetHealthDeadline",
            "webhooks",
        ];
        assert_eq!(more, ours, "values that aws-load-balancer-controller's chart does not have");
        Ok(())
    });
}

fn compare_keys(values: &Value, schema: &Value, path: &str, undescribed: &mut Vec<String>) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
    let keys: BTreeSet<&String> = values.as_object().into_iter().flat_map(|map| map.keys()).collect();
    let described: BTreeSet<&String> = properties.keys().collect();
    undescribed.extend(keys.difference(&described).map(|key| format!("{path}/{key} is not in the schema")));
    // What has no default, only a comment.
    let commented = ["/certManagement/defaultPCAARN"];
    let missing = described.difference(&keys).map(|key| format!("{path}/{key}"));
    undescribed.extend(missing.filter(|key| !commented.contains(&key.as_str()) && !path.contains("Selector")));
    for (key, schema) in properties {
        compare_keys(&values[key], schema, &format!("{path}/{key}"), undescribed);
    }
}

/// The metrics that the dashboard queries exist.
#[test]
fn the_dashboard_asks_for_metrics_that_exist() {
    run(async {
        let objects = rendered(&helm()?, &values("grafanaDashboard: {enabled: true}")?)?;
        let map = the(&objects, "ConfigMap")?;
        assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1");
        let dashboard: Value = serde_json::from_str(text(map, "/data/albatross.json"))?;
        let documented = fs::read_to_string(workspace().join("docs/operations.md"))?;
        let mut asked = BTreeMap::new();
        for panel in items(&dashboard, "/panels") {
            for target in items(panel, "/targets") {
                let expression = text(target, "/expr");
                let names = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                let ours = names.filter(|name| name.starts_with("albatross_") || name.starts_with("aws"));
                asked.extend(ours.map(|name| (name.trim_end_matches("_bucket").to_owned(), text(panel, "/title"))));
            }
        }
        let unknown: Vec<_> = asked.iter().filter(|(name, _)| !documented.contains(&format!("`{name}`"))).collect();
        ensure!(unknown.is_empty(), "docs/operations.md does not know {unknown:?}");
        ensure!(asked.len() > 10, "the dashboard asks only for {asked:?}");
        Ok(())
    });
}

/// A definition of a kind that another operator would bring, with any fields.
fn foreign_kind(group: &str, version: &str, kind: &str, plural: &str) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group,
            "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List")},
            "scope": "Namespaced",
            "versions": [{
                "name": version, "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }],
        },
    })
}

async fn takes(lab: &Lab, object: &Value) -> Result<()> {
    let mut object = object.clone();
    put_in_namespace(&mut object, "kube-system");
    let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str);
    let api = lab.cluster.api(text(&object, "/apiVersion"), text(&object, "/kind"), namespace);
    let parameters =
        PatchParams { field_validation: Some(kube::api::ValidationDirective::Strict), ..PatchParams::apply("chart") };
    api.patch(text(&object, "/metadata/name"), &parameters.dry_run().force(), &Patch::Apply(&object)).await?;
    Ok(())
}

/// A request that is larger than the chart's own limit makes a Deployment that the API server takes.
#[test]
fn what_is_given_of_resources_takes_the_place_of_all_of_them() {
    run(async {
        let helm = helm()?;
        let resources = |given: &str| -> Result<Value> {
            let objects = rendered(&helm, &values(given)?)?;
            Ok(the(&objects, "Deployment")?["spec"]["template"]["spec"]["containers"][0]["resources"].clone())
        };
        assert_eq!(resources("resources: {requests: {memory: 512Mi}}")?, json!({"requests": {"memory": "512Mi"}}));
        assert_eq!(resources("resources: null")?, Value::Null);
        Ok(())
    });
}

/// The two conditions of aws-load-balancer-controller's chart: parameters are made with the class, and the class refers to
/// parameters that have a name, or that are made with a spec.
#[test]
fn a_class_and_its_parameters_are_made_as_the_other_chart_makes_them() {
    run(async {
        let helm = helm()?;
        for (given, made, reference) in [
            ("{}", true, Value::Null),
            ("ingressClassParams: {name: edge}", true, "edge".into()),
            ("ingressClassParams: {spec: {scheme: internal}}", true, "alb".into()),
            ("ingressClassParams: {create: false}", false, Value::Null),
            ("ingressClassParams: {create: false, spec: {scheme: internal}}", false, Value::Null),
            ("ingressClassParams: {create: false, name: edge}", false, "edge".into()),
        ] {
            let objects = rendered(&helm, &values(given)?)?;
            let parameters = objects.iter().find(|object| object["kind"] == "IngressClassParams");
            assert_eq!(parameters.is_some(), made, "{given}");
            let without_spec = !given.contains("spec");
            let has_spec = parameters.is_some_and(|parameters| parameters.get("spec").is_some());
            ensure!(!(without_spec && has_spec), "{given}: an empty spec would take away what was written into it");
            let class = the(&objects, "IngressClass")?;
            let named = class.pointer("/spec/parameters/name").cloned().unwrap_or_default();
            assert_eq!(named, reference, "{given}");
        }
        Ok(())
    });
}

/// The labels of the other chart's pods may be kept, with the name and selector of its Deployment.
#[test]
fn with_the_other_name_pods_are_selected_as_its_were() {
    run(async {
        let values = values("nameOverride: aws-load-balancer-controller")?;
        let said = helm()?.run(&["template", "aws-load-balancer-controller", CHART], Some(&values))?;
        ensure!(said.success, "{}", said.errors);
        let objects = documents(&said.output)?;
        let deployment = the(&objects, "Deployment")?;
        let labels = json!({
            "app.kubernetes.io/name": "aws-load-balancer-controller",
            "app.kubernetes.io/instance": "aws-load-balancer-controller",
        });
        assert_eq!(text(deployment, "/metadata/name"), "aws-load-balancer-controller");
        assert_eq!(deployment["spec"]["selector"]["matchLabels"], labels);
        assert_eq!(deployment["spec"]["template"]["metadata"]["labels"], labels);
        let ports = items(deployment, "/spec/template/spec/containers/0/ports");
        assert_eq!(ports.iter().map(|port| text(port, "/name")).collect::<Vec<_>>(), ["metrics-server", "health"]);
        Ok(())
    });
}

/// Other pods reach only the metrics and the webhooks, and only if the values allow it.
#[test]
fn a_network_policy_lets_in_what_is_named() {
    run(async {
        let helm = helm()?;
        let spec = |given: &str| -> Result<Value> {
            Ok(the(&rendered(&helm, &values(given)?)?, "NetworkPolicy")?["spec"].clone())
        };
        let pods =
            json!({"matchLabels": {"app.kubernetes.io/name": "albatross", "app.kubernetes.io/instance": "albatross"}});
        assert_eq!(
            spec("networkPolicy: {enabled: true}")?,
            json!({"podSelector": pods, "policyTypes": ["Ingress"], "ingress": []})
        );
        assert_eq!(
            spec("{networkPolicy: {enabled: true, metricsFrom: [{podSelector: {}}]}, webhooks: {enabled: true}}")?,
            json!({"podSelector": pods, "policyTypes": ["Ingress"], "ingress": [
                {"ports": [{"port": 8080, "protocol": "TCP"}], "from": [{"podSelector": {}}]},
                {"ports": [{"port": 9443, "protocol": "TCP"}]},
            ]})
        );
        Ok(())
    });
}

/// The label of the namespace counts, or that of the pod, and no pod is sent to both webhooks.
#[test]
fn pods_drain_by_the_label_of_their_namespace_or_their_own() {
    run(async {
        let given = "{webhooks: {enabled: true}, podMutatorWebhookConfig: {failurePolicy: Fail}, objectSelector: {matchExpressions: [{key: team, operator: Exists}], matchLabels: {tier: web}}}";
        let objects = rendered(&helm()?, &values(given)?)?;
        let webhooks = items(the(&objects, "MutatingWebhookConfiguration")?, "/webhooks");
        let label = |operator: &str| json!({"key": "elbv2.k8s.aws/albatross-drain", "operator": operator});
        let valued = |operator: &str, value: &str| {
            let mut expression = label(operator);
            expression["values"] = json!([value]);
            expression
        };
        let own = json!({"key": "app.kubernetes.io/name", "operator": "NotIn", "values": ["albatross", "aws-load-balancer-controller"]});
        let theirs = json!({"key": "team", "operator": "Exists"});
        let (exists, is_on) = (label("Exists"), valued("NotIn", "disabled"));
        for (name, of_namespace, of_pod) in [
            ("mdrain.elbv2.k8s.aws", json!([exists, is_on]), json!([own, theirs, is_on])),
            ("mdrain-pod.elbv2.k8s.aws", json!([valued("NotIn", "enabled")]), json!([own, theirs, exists, is_on])),
        ] {
            let found = webhooks.iter().find(|webhook| text(webhook, "/name") == name).context(name)?;
            assert_eq!(found["namespaceSelector"], json!({ "matchExpressions": of_namespace }), "{name}");
            let expected = json!({"matchExpressions": of_pod, "matchLabels": {"tier": "web"}});
            assert_eq!(found["objectSelector"], expected, "{name}");
            assert_eq!((text(found, "/failurePolicy"), text(found, "/reinvocationPolicy")), ("Fail", "IfNeeded"));
            assert_eq!(text(found, "/clientConfig/service/path"), Hook::Drain.path());
        }
        Ok(())
    });
}

/// Only namespaces that ask for server ids wait for the controller.
#[test]
fn pods_get_server_ids_by_the_label_of_their_namespace() {
    run(async {
        let given = "{webhooks: {enabled: true}, objectSelector: {matchExpressions: [{key: team, operator: Exists}], matchLabels: {tier: web}}}";
        let objects = rendered(&helm()?, &values(given)?)?;
        let webhooks = items(the(&objects, "MutatingWebhookConfiguration")?, "/webhooks");
        let name = Hook::ServerId.name();
        let found = webhooks.iter().find(|webhook| text(webhook, "/name") == name).context(name)?;
        let own = json!({"key": "app.kubernetes.io/name", "operator": "NotIn", "values": ["albatross", "aws-load-balancer-controller"]});
        let enabled = json!({"key": "elbv2.k8s.aws/quic-server-id-inject", "operator": "In", "values": ["enabled"]});
        assert_eq!(found["namespaceSelector"], json!({ "matchExpressions": [enabled] }));
        let expected = json!({
            "matchExpressions": [own, {"key": "team", "operator": "Exists"}], "matchLabels": {"tier": "web"},
        });
        assert_eq!(found["objectSelector"], expected);
        assert_eq!(text(found, "/failurePolicy"), "Fail");
        assert_eq!(text(found, "/clientConfig/service/path"), Hook::ServerId.path());
        assert_eq!(
            found["rules"],
            json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}])
        );
        Ok(())
    });
}

/// One test for all that needs a cluster, as an installation of Helm's takes a while.
#[test]
fn the_cluster_takes_it_and_it_takes_the_place_of_the_other() {
    run(async {
        let stage = Stage::without_controller().await?;
        let helm = helm()?;
        let kinds = [
            foreign_kind("monitoring.coreos.com", "v1", "ServiceMonitor", "servicemonitors"),
            foreign_kind("cert-manager.io", "v1", "Issuer", "issuers"),
            foreign_kind("cert-manager.io", "v1", "Certificate", "certificates"),
        ];
        let folder = tempfile::tempdir()?;
        for kind in &kinds {
            fs::write(folder.path().join(format!("{}.yaml", text(kind, "/metadata/name"))), kind.to_string())?;
        }
        stage.cluster.install_custom_resource_definitions(folder.path()).await?;
        stage.cluster.namespace("monitoring").await?;

        let version = format!("--kube-version={}", stage.cluster.version().await?);
        let mut every = values(EVERY_VALUE)?;
        every["webhooks"] = json!({"enabled": true});
        let sets = CASES.iter().map(|case| Ok((case.name, values(case.values)?))).chain([Ok(("every value", every))]);
        for (name, values) in sets.collect::<Result<Vec<_>>>()? {
            for object in rendered_for(&helm, &values, &[&version])? {
                takes(&stage, &object).await.with_context(|| format!("{name}: {object}"))?;
            }
        }

        // The release of the other chart becomes a release of this chart, keeps the class, and goes back.
        stage.cluster.namespace("chart").await?;
        let other = folder.path().join("other");
        other_chart(&other)?;
        let kubeconfig = format!("--kubeconfig={}", stage.kubeconfig.display());
        let release = "aws-load-balancer-controller";
        let with = |arguments: &[&str], values: Option<&Value>| -> Result<String> {
            let all = [arguments, &["--namespace=chart", kubeconfig.as_str()]].concat();
            let said = helm.run(&all, values)?;
            ensure!(said.success, "helm {arguments:?}: {}", said.errors);
            Ok(said.output)
        };
        with(&["install", release, &other.display().to_string()], None)?;
        let class = stage.cluster.get("networking.k8s.io/v1", "IngressClass", None, "taken-over").await?;
        let before = class.context("no IngressClass")?;
        // Every flag of its chart is among them, for what the notes say of them.
        let mut theirs = values(EVERY_VALUE)?;
        let all = theirs.as_object_mut().context("no values")?;
        let others =
            ["image", "autoscaling", "replicaCount", "fullnameOverride", "nameOverride", "region", "vpcId", "vpcTags"];
        for value in others {
            all.remove(value);
        }
        all.insert("replicaCount".to_owned(), 0.into());
        all.insert("ingressClass".to_owned(), "taken-over".into());
        theirs["serviceAccount"]["name"] = release.into();
        theirs["ingressClassParams"] = json!({});
        theirs["typo"] = true.into();
        theirs["keepTLSSecret"] = false.into();
        let said = with(&["upgrade", release, CHART], Some(&theirs))?;
        let after = stage.cluster.get("networking.k8s.io/v1", "IngressClass", None, "taken-over").await?;
        let uid = |class: &Value| text(class, "/metadata/uid").to_owned();
        ensure!(after.is_some_and(|after| uid(&after) == uid(&before)), "the IngressClass is another one");
        let webhooks = ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration");
        gone(&stage, webhooks.0, webhooks.1, None, "aws-load-balancer-webhook").await?;
        gone(&stage, "apps/v1", "Deployment", Some("chart"), "aws-load-balancer-controller").await?;
        let ours = format!("{release}-albatross");
        let deployment = stage.cluster.get("apps/v1", "Deployment", Some("chart"), &ours).await?;
        let deployment = deployment.context("no Deployment")?;
        assert_eq!(deployment["spec"]["template"]["spec"]["serviceAccountName"], "aws-load-balancer-controller");

        // What the notes say of flags without effect is what the log would say.
        let given = items(&deployment, "/spec/template/spec/containers/0/args").iter().filter_map(Value::as_str);
        let without = flags(&given.map(str::to_owned).collect::<Vec<_>>())?.without_effect();
        // The log says the reason, too.
        let mut without: Vec<_> = without.iter().map(|flag| flag.split(" (").next().unwrap_or_default()).collect();
        without.sort_unstable();
        let line = format!("WARNING: these values became flags that have no effect yet: {}.", without.join(", "));
        ensure!(without.len() == 10 && said.contains(&line), "not {line:?} in the notes:\n{said}");
        for warning in [
            "this chart has no such values, so they have no effect: typo.",
            "keepTLSSecret=false has no effect: the controller renews its certificate itself, in one Secret.",
            "defaultTags: numbers that are not quoted become tags in Helm's notation, as 1.2e+11: cost-center.",
        ] {
            ensure!(said.contains(&format!("WARNING: {warning}")), "not {warning:?} in the notes:\n{said}");
        }
        for warning in ["image.repository is not set", "region is not set", "neither vpcId nor vpcTags is set"] {
            ensure!(said.contains(&format!("WARNING: {warning}")), "not {warning:?} in the notes:\n{said}");
        }
        ensure!(!said.contains("names no IAM role"), "the role is given, but the notes say:\n{said}");

        with(&["rollback", release], None)?;
        gone(&stage, "apps/v1", "Deployment", Some("chart"), &ours).await?;
        let back = stage.cluster.get("apps/v1", "Deployment", Some("chart"), "aws-load-balancer-controller").await?;
        ensure!(back.is_some(), "the other Deployment is not back");
        with(&["uninstall", release], None)?;
        let definition = "targetgroupbindings.elbv2.k8s.aws";
        let definitions = ("apiextensions.k8s.io/v1", "CustomResourceDefinition");
        let kept = stage.cluster.get(definitions.0, definitions.1, None, definition).await?;
        ensure!(kept.is_some(), "uninstalling took the definitions away, and with them every binding");
        for kind in &kinds {
            stage.cluster.delete(definitions.0, definitions.1, None, text(kind, "/metadata/name")).await?;
        }
        for namespace in ["chart", "monitoring"] {
            stage.cluster.delete("v1", "Namespace", None, namespace).await?;
        }
        stage.leave_clean();
        Ok(())
    });
}
