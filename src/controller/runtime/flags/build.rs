//! The flags that decide what is built: those of the controller and of `albatross plan` alike.

use std::collections::{BTreeMap, BTreeSet};

use clap::{ArgAction, Args};

use super::{FlagError, flag_error};
use albatross_core::{
    api::annotations::values::{parse_bool, parse_string_map},
    desired::BuildConfig,
    facts::subnets::Gates,
    model::{
        CertificateAuthorityArn, InvalidCertificateAuthorityArn, Scheme, SecurityGroupId, Tags, TargetType, Value,
        VpcId, tags,
    },
    targets::endpoints::SilentNodes,
};

/// The flags that decide what is built of a snapshot.
#[derive(Args, Clone, Debug)]
#[allow(clippy::struct_excessive_bools)]
pub struct BuildFlags {
    /// Value of the annotation kubernetes.io/ingress.class that names this controller
    #[arg(long, env = "INGRESS_CLASS", default_value = "alb")]
    pub ingress_class: String,
    /// Tags for every AWS resource, as `key=value,…`
    #[arg(long, env = "DEFAULT_TAGS", default_value = "")]
    pub default_tags: String,
    /// Keys of tags that others manage, as `key,…`
    #[arg(long, env = "EXTERNAL_MANAGED_TAGS", value_delimiter = ',')]
    pub external_managed_tags: Vec<String>,
    /// Refuse Ingresses that begin to name their class by the annotation kubernetes.io/ingress.class; those with the controller's finalizer and a published load balancer stay
    #[arg(long, env = "DISABLE_INGRESS_CLASS_ANNOTATION", default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    pub disable_ingress_class_annotation: bool,
    /// Refuse Ingresses that begin to name their group by an annotation, or change it; those with the group's finalizer and a published load balancer stay
    #[arg(long, env = "DISABLE_INGRESS_GROUP_NAME_ANNOTATION", default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    pub disable_ingress_group_name_annotation: bool,
    /// Target type if no annotation names one
    #[arg(long, env = "DEFAULT_TARGET_TYPE", default_value = "instance", value_parser = ["instance", "ip"])]
    pub default_target_type: String,
    /// Scheme if no annotation names one
    #[arg(long, env = "DEFAULT_LOAD_BALANCER_SCHEME", default_value = "internal", value_parser = ["internal", "internet-facing"])]
    pub default_load_balancer_scheme: String,
    /// TLS policy if no annotation names one
    #[arg(long, env = "DEFAULT_SSL_POLICY", default_value = "ELBSecurityPolicy-2016-08")]
    pub default_ssl_policy: String,
    /// Answer 503 for a Service that does not exist, instead of refusing the Ingress
    #[arg(long, env = "TOLERATE_NON_EXISTENT_BACKEND_SERVICE", default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    pub tolerate_non_existent_backend_service: bool,
    /// Answer 503 for an action annotation that does not exist, instead of refusing the Ingress
    #[arg(long, env = "TOLERATE_NON_EXISTENT_BACKEND_ACTION", default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    pub tolerate_non_existent_backend_action: bool,
    /// Put every load balancer into one shared security group, which rules on nodes name as their source
    #[arg(long, env = "ENABLE_BACKEND_SECURITY_GROUP", default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    pub enable_backend_security_group: bool,
    /// Shared security group that others manage, instead of one of the controller's own
    #[arg(long, env = "BACKEND_SECURITY_GROUP")]
    pub backend_security_group: Option<String>,
    /// Let the load balancers reach every TCP port of nodes, instead of the ports of targets
    #[arg(long, env = "DISABLE_RESTRICTED_SG_RULES", default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    pub disable_restricted_sg_rules: bool,
    /// The `loadBalancerClass` of the Services that get a Network Load Balancer
    #[arg(long, env = "LOAD_BALANCER_CLASS", default_value = "service.k8s.aws/nlb")]
    pub load_balancer_class: String,
    /// Open the way to the targets also from security groups that users give, where no annotation says otherwise
    #[arg(long, env = "ENABLE_MANAGE_BACKEND_SECURITY_GROUP_RULES", default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    pub enable_manage_backend_security_group_rules: bool,
    /// Associate load balancers with the web ACLs (WAFv2) that Ingresses ask for; `false` leaves associations as they are, and who asks gets a warning
    #[arg(long, env = "ENABLE_WAFV2", default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    pub enable_wafv2: bool,
    /// Let Shield Advanced protect the load balancers for which Ingresses ask for it; `false` leaves protections as they are, and who asks gets a warning
    #[arg(long, env = "ENABLE_SHIELD", default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    pub enable_shield: bool,
    /// ARN of the private certificate authority that issues the certificates of Ingresses with `create-acm-cert`, if no annotation names one; empty for certificates of Amazon
    #[arg(long, env = "DEFAULT_PCA_ARN", default_value = "")]
    pub default_pca_arn: String,
    /// Feature gates as `<name>=true` or `<name>=false`, separated by commas; they are listed below
    #[arg(long, env = "FEATURE_GATES", default_value = "")]
    pub feature_gates: String,
}

/// The feature gates over the work of the controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControllerGates {
    /// `EndpointsFailOpen`
    pub silent_nodes: SilentNodes,
    /// `IngressPlanAnnotation`
    pub plan_annotation: bool,
}

/// A feature gate of aws-load-balancer-controller.
pub(super) struct Gate {
    pub(super) name: &'static str,
    pub(super) default: bool,
    pub(super) effect: Effect,
}

/// The effect of a feature gate here.
pub(super) enum Effect {
    /// It does what the text says.
    Does(&'static str),
    /// It has none, for this reason.
    No(&'static str),
}

const fn gate(name: &'static str, default: bool, does: &'static str) -> Gate {
    Gate { name, default, effect: Effect::Does(does) }
}

const fn unread(name: &'static str, default: bool, why: &'static str) -> Gate {
    Gate { name, default, effect: Effect::No(why) }
}

pub(super) const GATES: [Gate; 23] = [
    unread("ALBGatewayAPI", true, "Gateways are not served yet"),
    gate("ALBSingleSubnet", false, "Application Load Balancers may be in one subnet"),
    unread("ALBTargetControlAgent", false, "no agent is put into pods yet"),
    gate("EnableCertificateManagement", false, "Certificates are requested from ACM for Ingresses that ask for it"),
    gate("EnableDefaultTagsLowPriority", false, "The tags of users win over those of `--default-tags`"),
    gate("EnableIPTargetType", true, "Targets may be pods"),
    unread(
        "EnableRGTAPI",
        false,
        "tags are read with DescribeTags, those of 20 resources in a call, at the first listing and by the audit, so that there is little to save with the Resource Groups Tagging API",
    ),
    gate("EnableServiceController", true, "Services get load balancers"),
    gate(
        "EnableTCPUDPListener",
        false,
        "A TCP and a UDP port of one number become one listener, where no annotation says otherwise",
    ),
    gate(
        "EndpointsFailOpen",
        true,
        "Pods and nodes that Kubernetes no longer hears from are targets as long as there are no others; without it they never are",
    ),
    gate(
        "EnhancedDefaultBehavior",
        false,
        "A listener's treatment of client certificates, or its ALPN policy, is switched off when no annotation requests it; otherwise it stays as it is",
    ),
    unread("GatewayListenerSet", true, "Gateways are not served yet"),
    unread("GlobalAcceleratorController", false, "accelerators are not managed yet"),
    gate(
        "IngressPlanAnnotation",
        false,
        "The desired state of each group of Ingresses is written, as JSON, to the annotation `alb.ingress.kubernetes.io/dry-run-plan` of its first Ingress; without it the annotation is removed",
    ),
    gate("LBCapacityReservation", true, "Capacity is reserved for load balancers for which it is requested"),
    gate("ListenerRulesTagging", true, "Listeners and rules are tagged"),
    unread("NLBGatewayAPI", true, "Gateways are not served yet"),
    gate(
        "NLBHealthCheckAdvancedConfig",
        true,
        "Annotations set the timeout and the success codes of the health checks of Services' target groups; without it the timeout is the default one, and the success codes stay as they are",
    ),
    gate("NLBSecurityGroup", true, "Load balancers of Services are in security groups"),
    gate(
        "ServiceTypeLoadBalancerOnly",
        false,
        "Only Services of type LoadBalancer get load balancers, whatever their annotations",
    ),
    gate("SubnetDiscoveryByReachability", true, "Where no subnet has the tag of a role, the route tables decide"),
    gate("SubnetsClusterTagCheck", true, "Subnets that are tagged only for other clusters are left out"),
    gate("WeightedTargetGroups", true, "A listener of a Service may forward to several target groups"),
];

fn tag_map(flag: &'static str, text: &str) -> Result<Tags, FlagError> {
    let map =
        parse_string_map(text).map_err(|reason| flag_error(flag, format!("{reason}; write `key=value,key=value`")))?;
    match map.keys().find(|key| tags::TRACKING.contains(&key.as_str())) {
        Some(key) => Err(flag_error(flag, format!("the tag `{key}` is the controller's own; choose another key"))),
        None => Ok(map),
    }
}

impl BuildFlags {
    /// Returns what building depends on, for a cluster (an empty name is not known) in a VPC.
    ///
    /// # Errors
    /// When a flag's value cannot be used.
    pub fn config(&self, cluster: &str, vpc: Value<VpcId>) -> Result<BuildConfig, FlagError> {
        let default_tags = tag_map("default-tags", &self.default_tags)?;
        let external: BTreeSet<String> =
            self.external_managed_tags.iter().map(|key| key.trim().to_owned()).filter(|key| !key.is_empty()).collect();
        if let Some(key) = external.iter().find(|key| tags::TRACKING.contains(&key.as_str())) {
            let message = format!("the tag `{key}` is the controller's own and cannot be managed by others");
            return Err(flag_error("external-managed-tags", message));
        }
        if let Some(key) = external.iter().find(|key| default_tags.contains_key(*key)) {
            return Err(flag_error("external-managed-tags", format!("the tag `{key}` is in --default-tags too")));
        }
        let backend_security_group = match self.backend_security_group.as_deref().filter(|id| !id.is_empty()) {
            Some(id) if !id.starts_with("sg-") => {
                return Err(flag_error(
                    "backend-security-group",
                    format!("`{id}` is not the id of a security group; write an id, sg-…"),
                ));
            }
            id => id.map(SecurityGroupId::new),
        };
        let default_certificate_authority = match self.default_pca_arn.trim() {
            "" => None,
            arn => Some(CertificateAuthorityArn::new(arn).map_err(|invalid| {
                flag_error("default-pca-arn", format!("{invalid}; {}", InvalidCertificateAuthorityArn::FIX))
            })?),
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
            no_class_annotation: self.disable_ingress_class_annotation,
            no_group_annotation: self.disable_ingress_group_name_annotation,
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
            enable_wafv2: self.enable_wafv2,
            enable_shield: self.enable_shield,
            manage_certificates: gate("EnableCertificateManagement"),
            default_certificate_authority,
            service_type_load_balancer_only: gate("ServiceTypeLoadBalancerOnly"),
            enable_tcp_udp_listener: gate("EnableTCPUDPListener"),
            tag_listeners_and_rules: gate("ListenerRulesTagging"),
            enable_ip_target_type: gate("EnableIPTargetType"),
            enable_services: gate("EnableServiceController"),
            nlb_security_groups: gate("NLBSecurityGroup"),
            capacity_reservation: gate("LBCapacityReservation"),
            weighted_target_groups: gate("WeightedTargetGroups"),
            nlb_health_check_details: gate("NLBHealthCheckAdvancedConfig"),
            resets_listeners: gate("EnhancedDefaultBehavior"),
            subnets: Gates {
                cluster_tag_check: gate("SubnetsClusterTagCheck"),
                by_reachability: gate("SubnetDiscoveryByReachability"),
                single_subnet: gate("ALBSingleSubnet"),
            },
            ..BuildConfig::new(cluster, vpc)
        })
    }

    /// Returns the feature gates over the work of the controller, which building does not depend on.
    ///
    /// # Errors
    /// When the flag's value cannot be used.
    pub fn controller_gates(&self) -> Result<ControllerGates, FlagError> {
        let gates = self.gates()?;
        let gate = |name: &str| gates.get(name).copied().unwrap_or_default();
        Ok(ControllerGates {
            silent_nodes: if gate("EndpointsFailOpen") { SilentNodes::InNeed } else { SilentNodes::Never },
            plan_annotation: gate("IngressPlanAnnotation"),
        })
    }

    /// Returns every feature gate, with what the flag says or else its default.
    fn gates(&self) -> Result<BTreeMap<&'static str, bool>, FlagError> {
        let mut gates: BTreeMap<&str, bool> = GATES.iter().map(|gate| (gate.name, gate.default)).collect();
        gates.extend(self.written_gates()?.into_iter().map(|(gate, value)| (gate.name, value)));
        Ok(gates)
    }

    /// Returns the feature gates that the flag names, in its order, with what it says of each.
    fn written_gates(&self) -> Result<Vec<(&'static Gate, bool)>, FlagError> {
        let mut gates = Vec::new();
        for written in self.feature_gates.split(',').map(str::trim).filter(|gate| !gate.is_empty()) {
            let Some((key, value)) = written.split_once('=') else {
                let message = format!("`{written}` is not a valid gate; write `<name>=true` or `<name>=false`");
                return Err(flag_error("feature-gates", message));
            };
            let value = parse_bool(value.trim())
                .map_err(|reason| flag_error("feature-gates", format!("`{written}`: {reason}")))?;
            let key = key.trim();
            let Some(gate) = GATES.iter().find(|gate| gate.name == key) else {
                let distance =
                    |gate: &&Gate| strsim::damerau_levenshtein(&gate.name.to_lowercase(), &key.to_lowercase());
                let nearest = GATES.iter().min_by_key(distance).map_or("", |gate| gate.name);
                let message = format!("there is no gate `{key}`; the nearest is `{nearest}`");
                return Err(flag_error("feature-gates", message));
            };
            gates.push((gate, value));
        }
        Ok(gates)
    }

    /// Returns the feature gates that were given and have no effect, as flags, whatever their values, with the reason.
    #[must_use]
    pub fn gates_without_effect(&self) -> Vec<String> {
        let gates = self.written_gates().unwrap_or_default();
        let unread = |(gate, value): (&Gate, bool)| match gate.effect {
            Effect::Does(_) => None,
            Effect::No(why) => Some(format!("--feature-gates={}={value} ({why})", gate.name)),
        };
        gates.into_iter().filter_map(unread).collect()
    }
}
