//! The controller's flags, named as aws-load-balancer-controller names them, each also an environment variable
//! (`--cluster-name` is `CLUSTER_NAME`). What has no effect here is accepted and said at start.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use clap::{ArgAction, Args};

use albatross_aws::{FixedLimit, parse_throttle};
use albatross_core::{
    admission::Rules,
    api::annotations::values::parse_string_map,
    desired::BuildConfig,
    facts::secrets::RequiredLabel,
    model::{Tags, Value, VpcId},
    quic::{DEFAULT_VARIABLE, EnvironmentVariable},
};

/// Flags of `albatross controller`.
#[derive(Args, Clone, Debug)]
#[allow(clippy::struct_excessive_bools)]
pub struct ControllerFlags {
    /// Name of the Kubernetes cluster; part of the names and tags of everything in AWS
    #[arg(long, env = "CLUSTER_NAME")]
    pub cluster_name: String,
    #[command(flatten)]
    pub build: BuildFlags,
    /// Path of a kubeconfig file; in a cluster, its ServiceAccount is used instead
    #[arg(long, env = "KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// AWS region; else that of AWS_DEFAULT_REGION, the profile, the nodes, or the instance metadata
    #[arg(long, env = "AWS_REGION")]
    pub aws_region: Option<String>,
    /// VPC of the cluster; else that of --aws-vpc-tags, the nodes' instances, or the instance metadata
    #[arg(long, env = "AWS_VPC_ID")]
    pub aws_vpc_id: Option<String>,
    /// Tags of the cluster's VPC, as `key=value,…`, where --aws-vpc-id is not given
    #[arg(long, env = "AWS_VPC_TAGS")]
    pub aws_vpc_tags: Option<String>,
    /// Attempts for each read from AWS
    #[arg(long, env = "AWS_MAX_RETRIES", default_value_t = 10)]
    pub aws_max_retries: u32,
    /// Endpoints of AWS services, as `ServiceID=URL,…`
    #[arg(long, env = "AWS_API_ENDPOINTS")]
    pub aws_api_endpoints: Option<String>,
    /// Limits of calls in addition to the budgets that follow AWS's own, as `ServiceID:regex=rate:burst,…`: operations of the service that match, calls per second, calls at once
    #[arg(long, env = "AWS_API_THROTTLE")]
    pub aws_api_throttle: Option<String>,
    /// ARNs of the private certificate authorities whose certificates in ACM count, as `arn,…`, where certificates are found by host names; empty is all
    #[arg(long, env = "ALLOWED_CERTIFICATE_AUTHORITY_ARNS", value_delimiter = ',')]
    pub allowed_certificate_authority_arns: Vec<String>,
    /// Further tags of the security group of a node that gets rules, as `key=value,…`
    #[arg(long, env = "SERVICE_TARGET_ENI_SECURITY_GROUP_TAGS", default_value = "")]
    pub service_target_eni_security_group_tags: String,
    /// Ingress groups that are worked on at the same time
    #[arg(long, env = "INGRESS_MAX_CONCURRENT_RECONCILES", default_value_t = 3)]
    pub ingress_max_concurrent_reconciles: usize,
    /// TargetGroupBindings that are worked on at the same time; as many more whose targets end or wait to be healthy
    #[arg(long, env = "TARGETGROUPBINDING_MAX_CONCURRENT_RECONCILES", default_value_t = 3)]
    pub targetgroupbinding_max_concurrent_reconciles: usize,
    /// Longest interval at which AWS is asked again if the pods that wait at a readiness gate are healthy, as `15s`
    #[arg(long, env = "TARGETGROUPBINDING_REQUEUE_DURATION", default_value = "15s", value_parser = duration)]
    pub targetgroupbinding_requeue_duration: Duration,
    /// Most targets of one target group; 0 is no limit
    #[arg(long, env = "MAX_TARGETS_PER_TARGET_GROUP", default_value_t = 0)]
    pub max_targets_per_target_group: usize,
    /// Interval at which everything is compared with AWS again, as `10h`, `30m`
    #[arg(long, env = "SYNC_PERIOD", default_value = "10h", value_parser = duration)]
    pub sync_period: Duration,
    /// Interval at which ACM's certificates are listed as long as some are found by host name, as `5m`; a new one is noticed then, and 0
    /// is never
    #[arg(long, env = "CERTIFICATE_POLL_INTERVAL", default_value = "5m", value_parser = duration_or_zero)]
    pub certificate_poll_interval: Duration,
    /// Time for which a load balancer whose scheme was changed continues to serve next to its replacement, and an Ingress that has
    /// moved to another group on its former load balancer, as `5m`, `0`
    #[arg(long, env = "REPLACED_LOAD_BALANCER_HOLD", default_value = "5m", value_parser = duration_or_zero)]
    pub replaced_load_balancer_hold: Duration,
    /// Time for which a listener continues to serve after one on another port was created, as `30s`, `0`
    #[arg(long, env = "REPLACED_LISTENER_HOLD", default_value = "30s", value_parser = duration_or_zero)]
    pub replaced_listener_hold: Duration,
    /// Time after which a change is taken to be in effect on all nodes of a load balancer, before redirects to a new listener,
    /// before the host name of another group's load balancer is published, and before rules for targets that have left are removed
    /// from nodes and pods, as `15s`; 0 is no wait
    #[arg(long, env = "PROPAGATION_TIME", default_value = "15s", value_parser = duration_or_zero)]
    pub propagation_time: Duration,
    /// Longest time for which rules wait until the targets that they are to lead to are healthy, as `5m`; 0 is no wait
    #[arg(long, env = "TARGET_HEALTH_DEADLINE", default_value = "5m", value_parser = duration_or_zero)]
    pub target_health_deadline: Duration,
    /// The one namespace that is watched; empty watches all
    #[arg(long, env = "WATCH_NAMESPACE", default_value = "")]
    pub watch_namespace: String,
    /// Address of /metrics
    #[arg(long, env = "METRICS_BIND_ADDR", default_value = ":8080")]
    pub metrics_bind_addr: String,
    /// Address of /healthz and /readyz
    #[arg(long, env = "HEALTH_PROBE_BIND_ADDR", default_value = ":61779")]
    pub health_probe_bind_addr: String,
    /// Address of /debug/state and /idle, which name objects and errors of every namespace; `0` serves neither
    #[arg(long, env = "DEBUG_BIND_ADDR", default_value = super::admin::DEFAULT_DEBUG_ADDRESS)]
    pub debug_bind_addr: String,
    /// Serve the admission webhooks; their configurations must be installed in the API server too, as the chart does
    #[arg(long, env = "ENABLE_WEBHOOKS", default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    pub enable_webhooks: bool,
    /// Port of the webhooks, on every interface
    #[arg(long, env = "WEBHOOK_BIND_PORT", default_value_t = 9443)]
    pub webhook_bind_port: u16,
    /// The Service in the controller's namespace that leads to the webhooks: their certificate is for its name
    #[arg(long, env = "WEBHOOK_SERVICE_NAME", default_value = "aws-load-balancer-webhook-service")]
    pub webhook_service_name: String,
    /// The Secret in the controller's namespace where the controller keeps the certificate that it makes
    #[arg(long, env = "WEBHOOK_SECRET_NAME", default_value = "aws-load-balancer-tls")]
    pub webhook_secret_name: String,
    /// Name of the MutatingWebhookConfiguration and of the ValidatingWebhookConfiguration whose `caBundle` the controller maintains
    #[arg(long, env = "WEBHOOK_CONFIGURATION_NAME", default_value = "aws-load-balancer-webhook")]
    pub webhook_configuration_name: String,
    /// Validity of a certificate that the controller makes; it is renewed after two thirds of that
    #[arg(long, env = "WEBHOOK_CERTIFICATE_VALIDITY", default_value = "8760h", value_parser = duration)]
    pub webhook_certificate_validity: Duration,
    /// Folder with a certificate that another program maintains; then the controller makes none, and changes no `caBundle`
    #[arg(long, env = "WEBHOOK_CERT_DIR")]
    pub webhook_cert_dir: Option<PathBuf>,
    /// The certificate in --webhook-cert-dir
    #[arg(long, env = "WEBHOOK_CERT_FILE", default_value = "tls.crt")]
    pub webhook_cert_file: String,
    /// Its key in --webhook-cert-dir
    #[arg(long, env = "WEBHOOK_KEY_FILE", default_value = "tls.key")]
    pub webhook_key_file: String,
    /// Lets the webhook for pods give them readiness gates
    #[arg(long, env = "ENABLE_POD_READINESS_GATE_INJECT", default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    pub enable_pod_readiness_gate_inject: bool,
    /// Environment variable with the QUIC server id of a container: the webhook gives it to pods, and targets are registered with its value
    #[arg(long, env = "QUIC_ENVIRONMENT_VARIABLE_NAME", default_value = DEFAULT_VARIABLE)]
    pub quic_environment_variable_name: String,
    /// PEM file with the certificate authorities that sign the API server's client certificate; if given, the webhooks answer only a client with a certificate of theirs
    #[arg(long, env = "KUBE_CA_PEM_FILEPATH")]
    pub kube_ca_pem_filepath: Option<PathBuf>,
    /// Label that a Secret of an identity provider must carry to be used, as `key=value`; empty is none
    #[arg(long, env = "REQUIRED_SECRETS_LABEL", default_value = "")]
    pub required_secrets_label: String,
    /// Act only while holding the lease, so that one of several replicas acts
    #[arg(long, env = "ENABLE_LEADER_ELECTION", default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    pub enable_leader_election: bool,
    /// Name of the lease
    #[arg(long, env = "LEADER_ELECTION_ID", default_value = "aws-load-balancer-controller-leader")]
    pub leader_election_id: String,
    /// Namespace of the lease; empty is the controller's own
    #[arg(long, env = "LEADER_ELECTION_NAMESPACE", default_value = "")]
    pub leader_election_namespace: String,
    /// `debug` or `info`, or a filter such as `albatross=debug,kube=warn`
    #[arg(long, env = "LOG_LEVEL", default_value = "info")]
    pub log_level: String,
    /// `text` or `json`
    #[arg(long, env = "LOG_FORMAT", default_value = "text", value_parser = ["text", "json"])]
    pub log_format: String,
    #[command(flatten)]
    without_effect: FlagsWithoutEffect,
}

macro_rules! flags_without_effect {
    ($($flag:ident),* $(,)?) => {
        /// Flags of aws-load-balancer-controller that have no effect here yet, so that its Deployment starts with this image.
        #[derive(Args, Clone, Debug, Default)]
        struct FlagsWithoutEffect {
            $(
                #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true")]
                $flag: Option<String>,
            )*
        }

        impl FlagsWithoutEffect {
            fn given(&self) -> Vec<String> {
                let mut given = Vec::new();
                $(if self.$flag.is_some() {
                    given.push(format!("--{}", stringify!($flag).replace('_', "-")));
                })*
                given
            }
        }
    };
}

flags_without_effect!(
    enable_endpoint_slices,
    targetgroupbinding_max_exponential_backoff_delay,
    lb_stabilization_monitor_interval,
    enable_waf,
    aws_vpc_tag_key,
    aws_vpc_cache_ttl,
    service_max_concurrent_reconciles,
    gateway_class_max_concurrent_reconciles,
    gateway_max_concurrent_reconciles,
    alb_gateway_max_concurrent_reconciles,
    nlb_gateway_max_concurrent_reconciles,
    globalaccelerator_max_concurrent_reconciles,
    globalaccelerator_max_exponential_backoff_delay,
    lb_addons_max_concurrent_reconciles,
);

mod build;
pub mod markdown;

pub use build::{BuildFlags, ControllerGates};

/// A flag whose value cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("--{flag}: {message}")]
pub struct FlagError {
    /// Its name, without the hyphens in front.
    pub flag: &'static str,
    /// The error, and the allowed values.
    pub message: String,
}

fn flag_error(flag: &'static str, message: impl Into<String>) -> FlagError {
    FlagError { flag, message: message.into() }
}

/// A duration as Go writes it: `10h`, `1m30s`, `15s`, `500ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration; write for example `10h`, `1m30s` or `15s`");
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        let after = &rest[digits..];
        let unit_end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let seconds = match &after[..unit_end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            _ => return Err(wrong()),
        };
        let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = &after[unit_end..];
    }
    if total.is_zero() { Err(wrong()) } else { Ok(total) }
}

/// A duration that may be none.
fn duration_or_zero(text: &str) -> Result<Duration, String> {
    if matches!(text, "0" | "0s") { Ok(Duration::ZERO) } else { duration(text) }
}

impl ControllerFlags {
    /// Returns the configuration of the build.
    ///
    /// # Errors
    /// When a flag's value cannot be used.
    pub fn build_config(&self, vpc: VpcId) -> Result<BuildConfig, FlagError> {
        if self.cluster_name.is_empty() {
            return Err(flag_error("cluster-name", "it is empty; give the cluster's name"));
        }
        self.build.config(&self.cluster_name, Value::Known(vpc))
    }

    /// Returns the flags that only the webhooks use.
    #[must_use]
    pub fn webhook_rules(&self) -> Rules {
        Rules {
            inject_gates: self.enable_pod_readiness_gate_inject,
            no_class_annotation: self.build.disable_ingress_class_annotation,
            no_group_annotation: self.build.disable_ingress_group_name_annotation,
            no_sleep: false,
        }
    }

    /// `--allowed-certificate-authority-arns`
    #[must_use]
    pub fn certificate_authorities(&self) -> BTreeSet<String> {
        let arns = self.allowed_certificate_authority_arns.iter().map(|arn| arn.trim());
        arns.filter(|arn| !arn.is_empty()).map(str::to_owned).collect()
    }

    /// `--service-target-eni-security-group-tags`
    ///
    /// # Errors
    /// When it is no list of `key=value`.
    pub fn node_security_group_tags(&self) -> Result<Tags, FlagError> {
        let flag = "service-target-eni-security-group-tags";
        parse_string_map(&self.service_target_eni_security_group_tags).map_err(|reason| flag_error(flag, reason))
    }

    /// `--aws-api-throttle`
    ///
    /// # Errors
    /// When an entry of it is no limit.
    pub fn fixed_limits(&self) -> Result<Vec<FixedLimit>, FlagError> {
        let text = self.aws_api_throttle.as_deref().unwrap_or_default();
        parse_throttle(text).map_err(|error| flag_error("aws-api-throttle", error.to_string()))
    }

    /// `--aws-vpc-tags`
    ///
    /// # Errors
    /// When it is no list of `key=value`.
    pub fn vpc_tags(&self) -> Result<Option<Tags>, FlagError> {
        self.aws_vpc_tags
            .as_deref()
            .filter(|text| !text.is_empty())
            .map(|text| parse_string_map(text).map_err(|reason| flag_error("aws-vpc-tags", reason)))
            .transpose()
    }

    /// `--required-secrets-label`
    ///
    /// # Errors
    /// When it is not one label.
    pub fn secrets_label(&self) -> Result<Option<RequiredLabel>, FlagError> {
        let text = self.required_secrets_label.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let label = RequiredLabel::parse(text);
        label.map(Some).ok_or_else(|| {
            let message = format!("`{text}` is not a valid label; write `key=value`, as Secrets carry it");
            flag_error("required-secrets-label", message)
        })
    }

    /// `--quic-environment-variable-name`
    ///
    /// # Errors
    /// When it cannot be the name of an environment variable.
    pub fn server_id_variable(&self) -> Result<EnvironmentVariable, FlagError> {
        let variable = EnvironmentVariable::new(&self.quic_environment_variable_name);
        variable.map_err(|invalid| flag_error("quic-environment-variable-name", invalid.to_string()))
    }

    /// Returns the flags and feature gates that were given and that nothing reads, whatever their values, as they are written.
    #[must_use]
    pub fn without_effect(&self) -> Vec<String> {
        let mut given = self.without_effect.given();
        given.extend(self.build.gates_without_effect());
        let webhooks_alone = [
            ("--kube-ca-pem-filepath", self.kube_ca_pem_filepath.is_some()),
            ("--webhook-cert-dir", self.webhook_cert_dir.is_some()),
        ];
        let unread = webhooks_alone.into_iter().filter(|(_, given)| *given && !self.enable_webhooks);
        given.extend(unread.map(|(flag, _)| format!("{flag} (read only with --enable-webhooks)")));
        given
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use albatross_core::{facts::subnets::Gates, targets::endpoints::SilentNodes};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: ControllerFlags,
    }

    fn flags(arguments: &[&str]) -> ControllerFlags {
        Line::parse_from(["albatross", "--cluster-name", "demo"].iter().chain(arguments)).flags
    }

    fn refused(arguments: &[&str]) -> String {
        let flags = flags(arguments);
        flags.build_config(VpcId::new("vpc-1")).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (text, seconds) in
            [("10h", 36_000.0), ("1m30s", 90.0), ("16m40s", 1000.0), ("500ms", 0.5), ("1.5h", 5400.0)]
        {
            assert_eq!(duration(text), Ok(Duration::from_secs_f64(seconds)), "{text}");
        }
        for text in ["", "10", "h", "10x", "-1s", "1h-", "0s", "18446744073709549568s18446744073709549568s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn booleans_are_given_with_or_without_a_value() {
        assert!(!flags(&["--enable-leader-election=false"]).enable_leader_election);
        assert!(flags(&["--enable-leader-election"]).enable_leader_election);
        assert!(flags(&["--disable-restricted-sg-rules"]).build.disable_restricted_sg_rules);
    }

    #[test]
    fn flags_without_effect_are_taken_and_named() {
        let flags = flags(&["--enable-waf=false", "--aws-vpc-tag-key", "Name"]);
        assert_eq!(flags.without_effect(), ["--enable-waf", "--aws-vpc-tag-key"]);
        let config = flags.build_config(VpcId::new("vpc-1")).unwrap();
        assert!(config.enable_wafv2 && config.enable_shield);
    }

    #[test]
    fn web_acls_and_protections_are_switched_off() {
        let flags = flags(&["--enable-wafv2=false", "--enable-shield=false"]);
        let config = flags.build_config(VpcId::new("vpc-1")).unwrap();
        assert!(flags.without_effect().is_empty() && !config.enable_wafv2 && !config.enable_shield);
    }

    #[test]
    fn certificates_are_requested_under_a_gate_and_the_authority_is_checked() {
        let config = |given: &[&str]| flags(given).build_config(VpcId::new("vpc-1"));
        let default = config(&[]).unwrap();
        assert!(!default.manage_certificates && default.default_certificate_authority.is_none());
        let arn = "arn:aws:acm-pca:us-west-2:111122223333:certificate-authority/a";
        let gate = "--feature-gates=EnableCertificateManagement=true";
        let given = config(&[gate, "--default-pca-arn", arn]).unwrap();
        assert!(given.manage_certificates && flags(&[gate]).without_effect().is_empty());
        assert_eq!(given.default_certificate_authority.unwrap().as_str(), arn);
        let error = config(&["--default-pca-arn=internal"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "--default-pca-arn: `internal` is not the ARN of a private certificate authority; write the ARN that AWS Private CA shows: arn:aws:acm-pca:<region>:<account>:certificate-authority/<id>"
        );
    }

    /// A gate that is written at its default is one that the user relies on.
    #[test]
    fn a_gate_without_effect_is_named_whatever_its_value() {
        let gates = "NLBGatewayAPI=true,GatewayListenerSet=true,EnableRGTAPI=false,ALBSingleSubnet=true";
        assert_eq!(
            flags(&["--feature-gates", gates]).without_effect(),
            [
                "--feature-gates=NLBGatewayAPI=true (Gateways are not served yet)",
                "--feature-gates=GatewayListenerSet=true (Gateways are not served yet)",
                "--feature-gates=EnableRGTAPI=false (tags are read with DescribeTags, those of 20 resources in a call, at the first listing and by the audit, so that there is little to save with the Resource Groups Tagging API)"
            ]
        );
    }

    #[test]
    fn the_chart_names_the_gates_without_effect() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/albatross/templates/_helpers.tpl");
        let text = std::fs::read_to_string(path).unwrap();
        let (_, from) = text.split_once(r#"{{- define "albatross.gatesWithoutEffect" -}}"#).unwrap();
        let (named, _) = from.split_once("{{- end -}}").unwrap();
        let without = build::GATES.iter().filter(|gate| matches!(gate.effect, build::Effect::No(_)));
        let without: Vec<&str> = without.map(|gate| gate.name).collect();
        assert_eq!(named.split_whitespace().collect::<Vec<_>>(), without);
    }

    #[test]
    fn a_flag_that_only_webhooks_read_is_named_without_them() {
        let given = ["--kube-ca-pem-filepath=/ca.pem", "--webhook-cert-dir=/certificates"];
        assert_eq!(
            flags(&given).without_effect(),
            [
                "--kube-ca-pem-filepath (read only with --enable-webhooks)",
                "--webhook-cert-dir (read only with --enable-webhooks)"
            ]
        );
        assert_eq!(flags(&[&given[..], &["--enable-webhooks"]].concat()).without_effect(), [] as [&str; 0]);
    }

    #[test]
    fn the_label_that_secrets_must_carry_is_one_label() {
        assert_eq!(flags(&[]).secrets_label(), Ok(None));
        assert_eq!(flags(&["--required-secrets-label="]).secrets_label(), Ok(None));
        let label = flags(&["--required-secrets-label", "team=shop"]).secrets_label().unwrap().unwrap();
        assert_eq!(label.to_string(), "team=shop");
        assert_eq!(
            flags(&["--required-secrets-label", "team="]).secrets_label().unwrap().unwrap().to_string(),
            "team="
        );
        insta::assert_snapshot!(
            flags(&["--required-secrets-label", "team"]).secrets_label().unwrap_err(),
            @"--required-secrets-label: `team` is not a valid label; write `key=value`, as Secrets carry it"
        );
    }

    #[test]
    fn without_the_gate_load_balancers_of_services_are_in_no_security_group() {
        let config = |arguments: &[&str]| flags(arguments).build_config(VpcId::new("vpc-1")).unwrap();
        assert!(config(&[]).nlb_security_groups);
        assert!(!config(&["--feature-gates=NLBSecurityGroup=false"]).nlb_security_groups);
    }

    #[test]
    fn gates_over_silent_nodes_health_checks_and_listeners() {
        let gates = |gates: &[&str]| {
            let flags = flags(gates);
            assert!(flags.without_effect().is_empty());
            let config = flags.build_config(VpcId::new("vpc-1")).unwrap();
            let ControllerGates { silent_nodes, plan_annotation } = flags.build.controller_gates().unwrap();
            (silent_nodes, plan_annotation, config.nlb_health_check_details, config.resets_listeners)
        };
        assert_eq!(gates(&[]), (SilentNodes::InNeed, false, true, false));
        let turned = "EndpointsFailOpen=false,NLBHealthCheckAdvancedConfig=false,EnhancedDefaultBehavior=true,IngressPlanAnnotation=true";
        assert_eq!(gates(&["--feature-gates", turned]), (SilentNodes::Never, true, false, true));
        let defaults = "EndpointsFailOpen=true,NLBHealthCheckAdvancedConfig=true,EnhancedDefaultBehavior=false";
        assert_eq!(gates(&["--feature-gates", defaults]), (SilentNodes::InNeed, false, true, false));
    }

    #[test]
    fn feature_gates_are_read_and_others_are_ignored() {
        let config = |gates| flags(&["--feature-gates", gates]).build_config(VpcId::new("vpc-1")).unwrap();
        let on = config("EnableRGTAPI=true, ServiceTypeLoadBalancerOnly=true,EnableTCPUDPListener=false");
        assert_eq!((on.service_type_load_balancer_only, on.enable_tcp_udp_listener), (true, false));
        assert_eq!((on.tag_listeners_and_rules, on.enable_ip_target_type, on.enable_services), (true, true, true));
        assert_eq!(on.subnets, Gates::default());
        let other = config(
            "ListenerRulesTagging=false,EnableIPTargetType=false,EnableServiceController=false,SubnetsClusterTagCheck=false,SubnetDiscoveryByReachability=false,ALBSingleSubnet=true",
        );
        assert_eq!(
            (other.tag_listeners_and_rules, other.enable_ip_target_type, other.enable_services),
            (false, false, false)
        );
        assert_eq!(other.subnets, Gates { cluster_tag_check: false, by_reachability: false, single_subnet: true });
        let tags = flags(&["--default-tags", "a=b", "--feature-gates", "EnableDefaultTagsLowPriority=true"]);
        let tags = tags.build_config(VpcId::new("vpc-1")).unwrap();
        assert_eq!((tags.default_tags.len(), tags.low_default_tags.len()), (0, 1));
        let moot = flags(&[
            "--feature-gates",
            "EnableRGTAPI=true,EndpointsFailOpen=true,NLBGatewayAPI=false,ALBSingleSubnet=true",
        ]);
        assert_eq!(
            moot.without_effect(),
            [
                "--feature-gates=EnableRGTAPI=true (tags are read with DescribeTags, those of 20 resources in a call, at the first listing and by the audit, so that there is little to save with the Resource Groups Tagging API)",
                "--feature-gates=NLBGatewayAPI=false (Gateways are not served yet)"
            ]
        );
        insta::assert_snapshot!(refused(&["--feature-gates", "EnableIpTargetType=true"]), @"--feature-gates: there is no gate `EnableIpTargetType`; the nearest is `EnableIPTargetType`");
        insta::assert_snapshot!(refused(&["--feature-gates", "EnableTCPUDPListener"]), @"--feature-gates: `EnableTCPUDPListener` is not a valid gate; write `<name>=true` or `<name>=false`");
    }

    #[test]
    fn values_that_cannot_be_used_are_refused_with_what_to_write() {
        insta::assert_snapshot!(
            refused(&["--default-tags", "elbv2.k8s.aws/cluster=x"]),
            @"--default-tags: the tag `elbv2.k8s.aws/cluster` is the controller's own; choose another key"
        );
        insta::assert_snapshot!(
            refused(&["--backend-security-group", "my-group"]),
            @"--backend-security-group: `my-group` is not the id of a security group; write an id, sg-…"
        );
        insta::assert_snapshot!(
            refused(&["--default-tags", "a=b", "--external-managed-tags", "a"]),
            @"--external-managed-tags: the tag `a` is in --default-tags too"
        );
        insta::assert_snapshot!(
            flags(&["--aws-api-throttle", "EC2:^Describe=5"]).fixed_limits().unwrap_err(),
            @"--aws-api-throttle: `EC2:^Describe=5`: there is not one `:` behind the `=`; write `<service id>:<regular expression of operations>=<calls a second>:<calls at once>`, separated by commas, for example `Elastic Load Balancing v2:^Describe=10:40`"
        );
        let unnamed = ControllerFlags { cluster_name: String::new(), ..flags(&[]) };
        insta::assert_snapshot!(
            unnamed.build_config(VpcId::new("vpc-1")).map(|_| ()).unwrap_err(),
            @"--cluster-name: it is empty; give the cluster's name"
        );
    }
}
