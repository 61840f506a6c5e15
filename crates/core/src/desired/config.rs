//! The flags on which building depends.

use crate::model::{CertificateAuthorityArn, Scheme, SecurityGroupId, Tags, TargetType, Value, VpcId};

/// The flags that building depends on, with the defaults of aws-load-balancer-controller.
#[derive(Clone, Debug)]
pub struct BuildConfig {
    /// `--cluster-name`
    pub cluster: String,
    /// `--ingress-class`; empty takes Ingresses without a class too.
    pub ingress_class: String,
    /// `--disable-ingress-class-annotation`: the controller takes no new Ingress because of `kubernetes.io/ingress.class`.
    pub no_class_annotation: bool,
    /// `--disable-ingress-group-name-annotation`: no Ingress joins a group by `alb.ingress.kubernetes.io/group.name`.
    pub no_group_annotation: bool,
    /// `--default-load-balancer-scheme`
    pub default_scheme: Scheme,
    /// `--default-target-type`
    pub default_target_type: TargetType,
    /// `--default-ssl-policy`
    pub default_ssl_policy: String,
    /// `--default-tags`
    pub default_tags: Tags,
    /// `--default-tags` under the feature gate `EnableDefaultTagsLowPriority`: the users' tags win over them.
    pub low_default_tags: Tags,
    /// `--external-managed-tags`
    pub external_managed_tags: std::collections::BTreeSet<String>,
    /// `--tolerate-non-existent-backend-service`
    pub tolerate_missing_service: bool,
    /// `--tolerate-non-existent-backend-action`
    pub tolerate_missing_action: bool,
    /// `--enable-backend-security-group`
    pub enable_backend_security_group: bool,
    /// `--backend-security-group`: one that the user manages, instead of one that the controller creates.
    pub backend_security_group: Option<SecurityGroupId>,
    /// `--disable-restricted-sg-rules`
    pub disable_restricted_rules: bool,
    /// `--load-balancer-class`: the class of the Services that the controller serves.
    pub load_balancer_class: String,
    /// `--enable-manage-backend-security-group-rules`: whether the way to the targets is opened also from security groups
    /// that users give their load balancers, where no annotation says otherwise.
    pub enable_manage_backend_security_group_rules: bool,
    /// The feature gate `ServiceTypeLoadBalancerOnly`: the controller does not serve a Service of another type only because
    /// of its annotations.
    pub service_type_load_balancer_only: bool,
    /// The feature gate `EnableTCPUDPListener`: a TCP and a UDP port of one number become one listener, where no annotation
    /// says otherwise.
    pub enable_tcp_udp_listener: bool,
    /// The feature gate `ListenerRulesTagging`: listeners and rules are tagged.
    pub tag_listeners_and_rules: bool,
    /// The feature gate `EnableIPTargetType`: targets may be pods.
    pub enable_ip_target_type: bool,
    /// The feature gate `EnableServiceController`: Services get load balancers. Without it the controller does not touch the
    /// load balancers of Services.
    pub enable_services: bool,
    /// The feature gate `NLBSecurityGroup`: without it no Network Load Balancer is made in security groups.
    pub nlb_security_groups: bool,
    /// The feature gate `LBCapacityReservation`: capacity is reserved for load balancers for which it is requested.
    pub capacity_reservation: bool,
    /// The feature gate `WeightedTargetGroups`: a listener of a Network Load Balancer may forward to several target groups.
    pub weighted_target_groups: bool,
    /// The feature gate `NLBHealthCheckAdvancedConfig`: annotations set the timeout and the success codes of the health
    /// checks of Services' target groups.
    pub nlb_health_check_details: bool,
    /// The feature gate `EnhancedDefaultBehavior`: a setting of a listener that no annotation requests is switched off, where
    /// it otherwise stays as it is.
    pub resets_listeners: bool,
    /// The feature gates over the choice of subnets.
    pub subnets: crate::facts::subnets::Gates,
    /// `--enable-wafv2`: load balancers are associated with the web ACLs (WAFv2) that Ingresses request.
    pub enable_wafv2: bool,
    /// `--enable-shield`: Shield Advanced protects the load balancers for which Ingresses request it.
    pub enable_shield: bool,
    /// The feature gate `EnableCertificateManagement`: certificates are requested from ACM for Ingresses.
    pub manage_certificates: bool,
    /// `--default-pca-arn`: the private certificate authority of requested certificates, where no annotation names one.
    pub default_certificate_authority: Option<CertificateAuthorityArn>,
    /// The cluster's VPC.
    pub vpc: Value<VpcId>,
}

impl BuildConfig {
    /// The tags of a listener or a rule: none, where a gate says so.
    #[must_use]
    pub(crate) fn of_listeners(&self, tags: Tags) -> Tags {
        if self.tag_listeners_and_rules { tags } else { Tags::new() }
    }

    /// The defaults for a cluster in a VPC.
    #[must_use]
    pub fn new(cluster: impl Into<String>, vpc: Value<VpcId>) -> Self {
        Self {
            cluster: cluster.into(),
            ingress_class: "alb".to_owned(),
            no_class_annotation: false,
            no_group_annotation: false,
            default_scheme: Scheme::Internal,
            default_target_type: TargetType::Instance,
            default_ssl_policy: "ELBSecurityPolicy-2016-08".to_owned(),
            default_tags: Tags::new(),
            low_default_tags: Tags::new(),
            external_managed_tags: std::collections::BTreeSet::new(),
            tolerate_missing_service: true,
            tolerate_missing_action: true,
            enable_backend_security_group: true,
            backend_security_group: None,
            disable_restricted_rules: false,
            load_balancer_class: "service.k8s.aws/nlb".to_owned(),
            enable_manage_backend_security_group_rules: false,
            service_type_load_balancer_only: false,
            enable_tcp_udp_listener: false,
            tag_listeners_and_rules: true,
            enable_ip_target_type: true,
            enable_services: true,
            nlb_security_groups: true,
            capacity_reservation: true,
            weighted_target_groups: true,
            nlb_health_check_details: true,
            resets_listeners: false,
            subnets: crate::facts::subnets::Gates::default(),
            enable_wafv2: true,
            enable_shield: true,
            manage_certificates: false,
            default_certificate_authority: None,
            vpc,
        }
    }
}
