//! The controller's flags, named as aws-load-balancer-controller names them, each also an environment variable
//! (`--cluster-name` is `CLUSTER_NAME`). What has no effect here is accepted and said at start.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use clap::{ArgAction, Args};

use crate::{
    admission::Rules,
    api::annotations::values::{parse_bool, parse_string_map},
    aws::{FixedLimit, parse_throttle},
    build::{BuildConfig, tags},
    facts::subnets::Gates,
    model::{Scheme, SecurityGroupId, Tags, TargetType, Value, VpcId},
};

/// Flags of `albatross controller`.
#[derive(Args, Clone, Debug)]
#[allow(clippy::struct_excessive_bools)]
pub struct ControllerFlags {
    /// Name of the Kubernetes cluster; part of the names and tags of everything in AWS
    #[arg(long, env = "CLUSTER_NAME")]
    pub cluster_name: String,
    /// Path of a kubeconfig file; in a cluster, its ServiceAccount is used instead
    #[arg(long, env = "KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// AWS region; else that of AWS_DEFAULT_REGION, the profile, the nodes, or the instance metadata
    #[arg(long, env = "AWS_REGION")]
    pub aws_region: Option<String>,
    /// VPC of the cluster; else that of --aws-vpc-tags, the nodes' instances, or the instance metadata
    #[arg(long, env = "AWS_VPC_ID")]
    pub aws_vpc_id: Option<String>,
    /// Tags that tell the VPC of the cluster, as `key=value,…`, where --aws-vpc-id is not given
    #[arg(long, env = "AWS_VPC_TAGS")]
    pub aws_vpc_tags: Option<String>,
    /// Attempts for each read from AWS
    #[arg(long, env = "AWS_MAX_RETRIES", default_value_t = 10)]
    pub aws_max_retries: u32,
    /// Endpoints of AWS services, as `ServiceID=URL,…`
    #[arg(long, env = "AWS_API_ENDPOINTS")]
    pub aws_api_endpoints: Option<String>,
    /// Limits of calls besides the budgets that follow AWS's own, as `ServiceID:regex=rate:burst,…`: operations of the service that match, calls a second, calls at once
    #[arg(long, env = "AWS_API_THROTTLE")]
    pub aws_api_throttle: Option<String>,
    /// Value of the annotation kubernetes.io/ingress.class that is ours
    #[arg(long, env = "INGRESS_CLASS", default_value = "alb")]
    pub ingress_class: String,
    /// Tags for every AWS resource, as `key=value,…`
    #[arg(long, env = "DEFAULT_TAGS", default_value = "")]
    pub default_tags: String,
    /// Keys of tags that others manage, as `key,…`
    #[arg(long, env = "EXTERNAL_MANAGED_TAGS", value_delimiter = ',')]
    pub external_managed_tags: Vec<String>,
    /// Target type where no annotation says another
    #[arg(long, env = "DEFAULT_TARGET_TYPE", default_value = "instance", value_parser = ["instance", "ip"])]
    pub default_target_type: String,
    /// Scheme where no annotation says another
    #[arg(long, env = "DEFAULT_LOAD_BALANCER_SCHEME", default_value = "internal", value_parser = ["internal", "internet-facing"])]
    pub default_load_balancer_scheme: String,
    /// TLS policy where no annotation says another
    #[arg(long, env = "DEFAULT_SSL_POLICY", default_value = "ELBSecurityPolicy-2016-08")]
    pub default_ssl_policy: String,
    /// ARNs of the private certificate authorities whose certificates in ACM count, as `arn,…`, where certificates are found by host names; empty is all
    #[arg(long, env = "ALLOWED_CERTIFICATE_AUTHORITY_ARNS", value_delimiter = ',')]
    pub allowed_certificate_authority_arns: Vec<String>,
    /// Answer 503 for a Service that does not exist, instead of refusing the Ingress
    #[arg(long, env = "TOLERATE_NON_EXISTENT_BACKEND_SERVICE", default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    pub tolerate_non_existent_backend_service: bool,
    /// Answer 503 for an action annotation that does not exist, instead of refusing the Ingress
    #[arg(long, env = "TOLERATE_NON_EXISTENT_BACKEND_ACTION", default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    pub tolerate_non_existent_backend_action: bool,
    /// Put every load balancer into one shared security group, which rules on nodes name as their source
    #[arg(long, env = "ENABLE_BACKEND_SECURITY_GROUP", default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    pub enable_backend_security_group: bool,
    /// Shared security group that is kept by others, instead of one of our own
    #[arg(long, env = "BACKEND_SECURITY_GROUP")]
    pub backend_security_group: Option<String>,
    /// Let the load balancers reach every TCP port of nodes, instead of the ports of targets
    #[arg(long, env = "DISABLE_RESTRICTED_SG_RULES", default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    pub disable_restricted_sg_rules: bool,
    /// Tags that further tell which security group of a node gets rules, as `key=value,…`
    #[arg(long, env = "SERVICE_TARGET_ENI_SECURITY_GROUP_TAGS", default_value = "")]
    pub service_target_eni_security_group_tags: String,
    /// Ingress groups that are worked on at the same time
    #[arg(long, env = "INGRESS_MAX_CONCURRENT_RECONCILES", default_value_t = 3)]
    pub ingress_max_concurrent_reconciles: usize,
    /// TargetGroupBindings that are worked on at the same time
    #[arg(long, env = "TARGETGROUPBINDING_MAX_CONCURRENT_RECONCILES", default_value_t = 3)]
    pub targetgroupbinding_max_concurrent_reconciles: usize,
    /// How long until AWS is asked again whether the pods that wait at a readiness gate are healthy, as `15s`
    #[arg(long, env = "TARGETGROUPBINDING_REQUEUE_DURATION", default_value = "15s", value_parser = duration)]
    pub targetgroupbinding_requeue_duration: Duration,
    /// The `loadBalancerClass` of the Services that get a Network Load Balancer
    #[arg(long, env = "LOAD_BALANCER_CLASS", default_value = "service.k8s.aws/nlb")]
    pub load_balancer_class: String,
    /// Open the way to the targets also from security groups that users give, where no annotation says otherwise
    #[arg(long, env = "ENABLE_MANAGE_BACKEND_SECURITY_GROUP_RULES", default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    pub enable_manage_backend_security_group_rules: bool,
    /// Feature gates as `<name>=true` or `<name>=false`, separated by commas: ALBSingleSubnet, EnableDefaultTagsLowPriority, EnableIPTargetType, EnableServiceController, EnableTCPUDPListener, ListenerRulesTagging, ServiceTypeLoadBalancerOnly, SubnetDiscoveryByReachability and SubnetsClusterTagCheck have an effect
    #[arg(long, env = "FEATURE_GATES", default_value = "")]
    pub feature_gates: String,
    /// Most targets of one target group; 0 is no limit
    #[arg(long, env = "MAX_TARGETS_PER_TARGET_GROUP", default_value_t = 0)]
    pub max_targets_per_target_group: usize,
    /// How often everything is compared with AWS anew, as `10h`, `30m`
    #[arg(long, env = "SYNC_PERIOD", default_value = "10h", value_parser = duration)]
    pub sync_period: Duration,
    /// How long a load balancer whose scheme was changed goes on serving beside the one that replaces it, as `5m`, `0`
    #[arg(long, env = "REPLACED_LOAD_BALANCER_HOLD", default_value = "5m", value_parser = hold)]
    pub replaced_load_balancer_hold: Duration,
    /// The one namespace that is watched; empty watches all
    #[arg(long, env = "WATCH_NAMESPACE", default_value = "")]
    pub watch_namespace: String,
    /// Address of /metrics
    #[arg(long, env = "METRICS_BIND_ADDR", default_value = ":8080")]
    pub metrics_bind_addr: String,
    /// Address of /healthz, /readyz and /debug/state
    #[arg(long, env = "HEALTH_PROBE_BIND_ADDR", default_value = ":61779")]
    pub health_probe_bind_addr: String,
    /// Serve the admission webhooks; whoever installs them tells the API server about them too, as the chart does
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
    /// Name of the MutatingWebhookConfiguration and of the ValidatingWebhookConfiguration whose `caBundle` the controller keeps up
    #[arg(long, env = "WEBHOOK_CONFIGURATION_NAME", default_value = "aws-load-balancer-webhook")]
    pub webhook_configuration_name: String,
    /// How long a certificate that the controller makes is valid; it is renewed after two thirds of that
    #[arg(long, env = "WEBHOOK_CERTIFICATE_VALIDITY", default_value = "8760h", value_parser = duration)]
    pub webhook_certificate_validity: Duration,
    /// Folder with a certificate that others keep; then the controller makes none, and leaves every `caBundle` to them
    #[arg(long, env = "WEBHOOK_CERT_DIR")]
    pub webhook_cert_dir: Option<PathBuf>,
    /// The certificate in --webhook-cert-dir
    #[arg(long, env = "WEBHOOK_CERT_FILE", default_value = "tls.crt")]
    pub webhook_cert_file: String,
    /// Its key in --webhook-cert-dir
    #[arg(long, env = "WEBHOOK_KEY_FILE", default_value = "tls.key")]
    pub webhook_key_file: String,
    /// Whether the webhook for pods gives them readiness gates
    #[arg(long, env = "ENABLE_POD_READINESS_GATE_INJECT", default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    pub enable_pod_readiness_gate_inject: bool,
    /// Whether the webhook for Ingresses denies those that begin to name their class by the annotation kubernetes.io/ingress.class
    #[arg(long, env = "DISABLE_INGRESS_CLASS_ANNOTATION", default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    pub disable_ingress_class_annotation: bool,
    /// Whether the webhook for Ingresses denies those that begin to name their group by an annotation, or change it
    #[arg(long, env = "DISABLE_INGRESS_GROUP_NAME_ANNOTATION", default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    pub disable_ingress_group_name_annotation: bool,
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
    default_pca_arn,
    enable_endpoint_slices,
    targetgroupbinding_max_exponential_backoff_delay,
    lb_stabilization_monitor_interval,
    required_secrets_label,
    enable_waf,
    enable_wafv2,
    enable_shield,
    aws_vpc_tag_key,
    aws_vpc_cache_ttl,
    kube_ca_pem_filepath,
    quic_environment_variable_name,
    service_max_concurrent_reconciles,
    gateway_class_max_concurrent_reconciles,
    gateway_max_concurrent_reconciles,
    alb_gateway_max_concurrent_reconciles,
    nlb_gateway_max_concurrent_reconciles,
    globalaccelerator_max_concurrent_reconciles,
    globalaccelerator_max_exponential_backoff_delay,
    lb_addons_max_concurrent_reconciles,
);

/// A feature gate of aws-load-balancer-controller.
struct Gate {
    name: &'static str,
    default: bool,
    /// Whether it has an effect here.
    built: bool,
}

const fn gate(name: &'static str, default: bool, built: bool) -> Gate {
    Gate { name, default, built }
}

const GATES: [Gate; 23] = [
    gate("ALBGatewayAPI", true, false),
    gate("ALBSingleSubnet", false, true),
    gate("ALBTargetControlAgent", false, false),
    gate("EnableCertificateManagement", false, false),
    gate("EnableDefaultTagsLowPriority", false, true),
    gate("EnableIPTargetType", true, true),
    gate("EnableRGTAPI", false, false),
    gate("EnableServiceController", true, true),
    gate("EnableTCPUDPListener", false, true),
    gate("EndpointsFailOpen", true, false),
    gate("EnhancedDefaultBehavior", false, false),
    gate("GatewayListenerSet", true, false),
    gate("GlobalAcceleratorController", false, false),
    gate("IngressPlanAnnotation", false, false),
    gate("LBCapacityReservation", true, false),
    gate("ListenerRulesTagging", true, true),
    gate("NLBGatewayAPI", true, false),
    gate("NLBHealthCheckAdvancedConfig", true, false),
    gate("NLBSecurityGroup", true, false),
    gate("ServiceTypeLoadBalancerOnly", false, true),
    gate("SubnetDiscoveryByReachability", true, true),
    gate("SubnetsClusterTagCheck", true, true),
    gate("WeightedTargetGroups", true, false),
];

#[cfg(test)]
mod markdown;

/// A flag whose value cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("--{flag}: {message}")]
pub struct FlagError {
    /// Its name, without the hyphens in front.
    pub flag: &'static str,
    /// What is wrong, and what is allowed.
    pub message: String,
}

fn flag_error(flag: &'static str, message: impl Into<String>) -> FlagError {
    FlagError { flag, message: message.into() }
}

/// A duration as Go writes it: `10h`, `1m30s`, `15s`, `500ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration; write for example `10h`, `1m30s` or `15s`");
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
fn hold(text: &str) -> Result<Duration, String> {
    if matches!(text, "0" | "0s") { Ok(Duration::ZERO) } else { duration(text) }
}

fn tag_map(flag: &'static str, text: &str) -> Result<Tags, FlagError> {
    let map =
        parse_string_map(text).map_err(|reason| flag_error(flag, format!("{reason}; write `key=value,key=value`")))?;
    match map.keys().find(|key| tags::TRACKING.contains(&key.as_str())) {
        Some(key) => Err(flag_error(flag, format!("the tag `{key}` is the controller's own; choose another key"))),
        None => Ok(map),
    }
}

impl ControllerFlags {
    /// What building depends on.
    ///
    /// # Errors
    /// When a flag's value cannot be used.
    pub fn build_config(&self, vpc: VpcId) -> Result<BuildConfig, FlagError> {
        if self.cluster_name.is_empty() {
            return Err(flag_error("cluster-name", "it is empty; give the cluster's name"));
        }
        let default_tags = tag_map("default-tags", &self.default_tags)?;
        let external: BTreeSet<String> =
            self.external_managed_tags.iter().map(|key| key.trim().to_owned()).filter(|key| !key.is_empty()).collect();
        if let Some(key) = external.iter().find(|key| tags::TRACKING.contains(&key.as_str())) {
            let message = format!("the tag `{key}` is the controller's own and cannot be managed by others");
            return Err(flag_error("external-managed-tags", message));
        }
        if let Some(key) = external.iter().find(|key| default_tags.contains_key(*key)) {
            return Err(flag_error("external-managed-tags", format!("the tag `{key}` stands in --default-tags too")));
        }
        let backend_security_group = match self.backend_security_group.as_deref().filter(|id| !id.is_empty()) {
            Some(id) if !id.starts_with("sg-") => {
                return Err(flag_error(
                    "backend-security-group",
                    format!("`{id}` is no security group; write its id, sg-…"),
                ));
            }
            id => id.map(SecurityGroupId::new),
        };
        let gates = self.gates()?;
        let gate = |name: &str| gates.get(name).copied().unwrap_or_default();
        let (default_tags, low_default_tags) = if gate("EnableDefaultTagsLowPriority") {
            (Tags::new(), default_tags)
        } else {
            (default_tags, Tags::new())
        };
        Ok(BuildConfig {
            ingress_class: self.ingress_class.clone(),
            default_scheme: Scheme::from_word(&self.default_load_balancer_scheme).unwrap_or(Scheme::Internal),
            default_target_type: TargetType::from_word(&self.default_target_type).unwrap_or(TargetType::Instance),
            default_ssl_policy: self.default_ssl_policy.clone(),
            default_tags,
            low_default_tags,
            external_managed_tags: external,
            tolerate_missing_service: self.tolerate_non_existent_backend_service,
            tolerate_missing_action: self.tolerate_non_existent_backend_action,
            enable_backend_security_group: self.enable_backend_security_group,
            backend_security_group,
            disable_restricted_rules: self.disable_restricted_sg_rules,
            load_balancer_class: self.load_balancer_class.clone(),
            enable_manage_backend_security_group_rules: self.enable_manage_backend_security_group_rules,
            service_type_load_balancer_only: gate("ServiceTypeLoadBalancerOnly"),
            enable_tcp_udp_listener: gate("EnableTCPUDPListener"),
            tag_listeners_and_rules: gate("ListenerRulesTagging"),
            enable_ip_target_type: gate("EnableIPTargetType"),
            enable_services: gate("EnableServiceController"),
            subnets: Gates {
                cluster_tag_check: gate("SubnetsClusterTagCheck"),
                by_reachability: gate("SubnetDiscoveryByReachability"),
                single_subnet: gate("ALBSingleSubnet"),
            },
            ..BuildConfig::new(self.cluster_name.clone(), Value::Known(vpc))
        })
    }

    /// Every feature gate, with what the flag says or else its default.
    fn gates(&self) -> Result<BTreeMap<&'static str, bool>, FlagError> {
        let mut gates: BTreeMap<&str, bool> = GATES.iter().map(|gate| (gate.name, gate.default)).collect();
        for written in self.feature_gates.split(',').map(str::trim).filter(|gate| !gate.is_empty()) {
            let Some((key, value)) = written.split_once('=') else {
                let message = format!("`{written}` is no gate; write `<name>=true` or `<name>=false`");
                return Err(flag_error("feature-gates", message));
            };
            let value = parse_bool(value.trim())
                .map_err(|reason| flag_error("feature-gates", format!("`{written}`: {reason}")))?;
            let key = key.trim();
            let Some(gate) = gates.get_mut(key) else {
                let distance =
                    |gate: &&Gate| strsim::damerau_levenshtein(&gate.name.to_lowercase(), &key.to_lowercase());
                let nearest = GATES.iter().min_by_key(distance).map_or("", |gate| gate.name);
                let message = format!("there is no gate `{key}`; the nearest is `{nearest}`");
                return Err(flag_error("feature-gates", message));
            };
            *gate = value;
        }
        Ok(gates)
    }

    /// The flags that matter to webhooks alone.
    #[must_use]
    pub fn webhook_rules(&self) -> Rules {
        Rules {
            inject_gates: self.enable_pod_readiness_gate_inject,
            no_class_annotation: self.disable_ingress_class_annotation,
            no_group_annotation: self.disable_ingress_group_name_annotation,
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

    /// Flags that were given and have no effect.
    #[must_use]
    pub fn without_effect(&self) -> Vec<String> {
        let mut given = self.without_effect.given();
        let gates = self.gates().unwrap_or_default();
        let built = |name: &str| GATES.iter().any(|gate| gate.name == name && gate.built);
        let moot = GATES.iter().filter(|gate| !built(gate.name) && gates.get(gate.name) != Some(&gate.default));
        given.extend(moot.filter_map(|gate| Some(format!("--feature-gates={}={}", gate.name, gates.get(gate.name)?))));
        given
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

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
        assert!(flags(&["--disable-restricted-sg-rules"]).disable_restricted_sg_rules);
    }

    #[test]
    fn flags_without_effect_are_taken_and_named() {
        let flags = flags(&["--enable-shield=false", "--default-pca-arn", "arn"]);
        assert_eq!(flags.without_effect(), ["--default-pca-arn", "--enable-shield"]);
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
        assert_eq!(moot.without_effect(), ["--feature-gates=EnableRGTAPI=true", "--feature-gates=NLBGatewayAPI=false"]);
        insta::assert_snapshot!(refused(&["--feature-gates", "EnableIpTargetType=true"]), @"--feature-gates: there is no gate `EnableIpTargetType`; the nearest is `EnableIPTargetType`");
        insta::assert_snapshot!(refused(&["--feature-gates", "EnableTCPUDPListener"]), @"--feature-gates: `EnableTCPUDPListener` is no gate; write `<name>=true` or `<name>=false`");
    }

    #[test]
    fn values_that_cannot_be_used_are_refused_with_what_to_write() {
        insta::assert_snapshot!(
            refused(&["--default-tags", "elbv2.k8s.aws/cluster=x"]),
            @"--default-tags: the tag `elbv2.k8s.aws/cluster` is the controller's own; choose another key"
        );
        insta::assert_snapshot!(
            refused(&["--backend-security-group", "my-group"]),
            @"--backend-security-group: `my-group` is no security group; write its id, sg-…"
        );
        insta::assert_snapshot!(
            refused(&["--default-tags", "a=b", "--external-managed-tags", "a"]),
            @"--external-managed-tags: the tag `a` stands in --default-tags too"
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
