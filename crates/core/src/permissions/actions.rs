//! The list.

use super::{
    Action, Caller,
    Feature::{
        self, AssumeRole, Binding, CertificateDiscovery, CertificateRequests, Cognito, Ingress, MutualTls, Quotas,
        Service, ServiceLinkedRole, Shield, SubnetReachability, VpcDiscovery, WebAcl,
    },
    Scope,
};

const BALANCED: &[Feature] = &[Ingress, Service];
const BOUND: &[Feature] = &[Ingress, Service, Binding];

const fn action(
    name: &'static str,
    scopes: &'static [Scope],
    features: &'static [Feature],
    reason: &'static str,
) -> Action {
    Action { name, scopes, features, caller: Caller::Controller, reason }
}

/// Returns an action that AWS calls in the controller's name when it does something else.
const fn implied(
    name: &'static str,
    scopes: &'static [Scope],
    features: &'static [Feature],
    reason: &'static str,
) -> Action {
    Action { name, scopes, features, caller: Caller::Aws, reason }
}

const ANYTHING: &[Scope] = &[Scope::Anything];
const OWN: &[Scope] = &[Scope::Own];

/// All actions, by service and then by name.
pub const ACTIONS: &[Action] = &[
    implied(
        "acm-pca:GetCertificate",
        ANYTHING,
        &[CertificateRequests],
        "ACM fetches a certificate from a private certificate authority",
    ),
    implied("acm-pca:IssueCertificate", ANYTHING, &[CertificateRequests], "ACM has such an authority issue it"),
    implied("acm-pca:ListPermissions", ANYTHING, &[CertificateRequests], "ACM checks if it may renew it"),
    implied(
        "acm:AddTagsToCertificate",
        &[Scope::NewCertificate],
        &[CertificateRequests],
        "certificates are requested with their tags",
    ),
    action(
        "acm:DeleteCertificate",
        &[Scope::OwnCertificate],
        &[CertificateRequests],
        "certificates that are no longer requested",
    ),
    action(
        "acm:DescribeCertificate",
        ANYTHING,
        &[CertificateDiscovery, CertificateRequests],
        "certificates whose names a list does not contain in full, and all with --allowed-certificate-authority-arns; the state of requested ones",
    ),
    action(
        "acm:ListCertificates",
        ANYTHING,
        &[CertificateDiscovery, CertificateRequests],
        "finds the certificates for an Ingress's hosts, and those that were requested for it",
    ),
    action(
        "acm:ListTagsForCertificate",
        ANYTHING,
        &[CertificateRequests],
        "the owners of requested certificates, which are not found by host name: needed on all certificates of the account",
    ),
    action(
        "acm:RequestCertificate",
        &[Scope::NewCertificate],
        &[CertificateRequests],
        "a certificate for an Ingress's hosts",
    ),
    implied(
        "cognito-idp:DescribeUserPoolClient",
        ANYTHING,
        &[Cognito],
        "AWS reads the user pool's client when a rule signs users in with it",
    ),
    action(
        "ec2:AuthorizeSecurityGroupIngress",
        ANYTHING,
        BOUND,
        "the sources allowed at load balancers and at nodes, whose groups belong to others",
    ),
    action(
        "ec2:CreateSecurityGroup",
        ANYTHING,
        BALANCED,
        "a group in front of each load balancer, and the one that all share",
    ),
    action(
        "ec2:CreateTags",
        &[Scope::NewSecurityGroup, Scope::TagsOfSecurityGroup],
        BALANCED,
        "security groups are created with their tags, and tags follow annotations",
    ),
    action("ec2:DeleteSecurityGroup", &[Scope::OwnSecurityGroup], BALANCED, "groups that are no longer needed"),
    action(
        "ec2:DeleteTags",
        &[Scope::TagsOfSecurityGroup],
        BALANCED,
        "tags of security groups that are no longer requested",
    ),
    implied(
        "ec2:DescribeAccountAttributes",
        ANYTHING,
        &[ServiceLinkedRole],
        "AWS reads the account when the first load balancer is created",
    ),
    implied("ec2:DescribeAddresses", ANYTHING, &[ServiceLinkedRole], "the same, of Elastic IP addresses"),
    action("ec2:DescribeAvailabilityZones", ANYTHING, BALANCED, "the types of zones"),
    implied(
        "ec2:DescribeCoipPools",
        ANYTHING,
        &[Ingress],
        "AWS looks for the pool of customer-owned addresses that an Ingress asks for",
    ),
    action(
        "ec2:DescribeInstances",
        ANYTHING,
        &[Ingress, Service, Binding, VpcDiscovery],
        "the security groups of a node; the VPC of the nodes",
    ),
    implied(
        "ec2:DescribeInternetGateways",
        ANYTHING,
        &[ServiceLinkedRole],
        "AWS checks for one when the first load balancer is internet-facing",
    ),
    implied("ec2:DescribeIpamPools", ANYTHING, &[Ingress], "AWS looks for the IPAM pool that an Ingress asks for"),
    action("ec2:DescribeNetworkInterfaces", ANYTHING, BOUND, "the security groups of a pod"),
    action("ec2:DescribeRouteTables", ANYTHING, &[SubnetReachability], "the public subnets"),
    action(
        "ec2:DescribeSecurityGroups",
        ANYTHING,
        BOUND,
        "the groups in front of load balancers, those that users name, and those of nodes",
    ),
    action("ec2:DescribeSubnets", ANYTHING, BALANCED, "the subnets of a load balancer"),
    action(
        "ec2:DescribeVpcs",
        ANYTHING,
        &[Service, VpcDiscovery],
        "the VPC's blocks, which targets allow from a Network Load Balancer without security groups; --aws-vpc-tags",
    ),
    implied("ec2:GetCoipPoolUsage", ANYTHING, &[Ingress], "the free addresses of a pool of customer-owned ones"),
    action("ec2:RevokeSecurityGroupIngress", ANYTHING, BOUND, "the opposite of ec2:AuthorizeSecurityGroupIngress"),
    action("elasticloadbalancing:AddListenerCertificates", ANYTHING, BALANCED, "further certificates of a listener"),
    action(
        "elasticloadbalancing:AddTags",
        &[Scope::NewTags, Scope::Tags, Scope::TagsOfListeners],
        BALANCED,
        "resources are created with their tags, and tags follow annotations",
    ),
    action("elasticloadbalancing:CreateListener", ANYTHING, BALANCED, "a port of a load balancer"),
    action("elasticloadbalancing:CreateLoadBalancer", &[Scope::New], BALANCED, "load balancers"),
    action("elasticloadbalancing:CreateRule", ANYTHING, &[Ingress], "an Ingress's hosts and paths"),
    action("elasticloadbalancing:CreateTargetGroup", &[Scope::New], BALANCED, "the target groups of Services"),
    action("elasticloadbalancing:DeleteListener", ANYTHING, BALANCED, "removed ports"),
    action("elasticloadbalancing:DeleteLoadBalancer", OWN, BALANCED, "load balancers that are no longer needed"),
    action("elasticloadbalancing:DeleteRule", ANYTHING, &[Ingress], "removed hosts and paths"),
    action("elasticloadbalancing:DeleteTargetGroup", OWN, BALANCED, "target groups that are no longer needed"),
    action("elasticloadbalancing:DeregisterTargets", &[Scope::TargetGroup], BOUND, "removed pods and nodes"),
    action(
        "elasticloadbalancing:DescribeAccountLimits",
        ANYTHING,
        &[Quotas],
        "the quotas of rules, certificates and target groups of a load balancer in this account",
    ),
    action(
        "elasticloadbalancing:DescribeCapacityReservation",
        ANYTHING,
        BALANCED,
        "the capacity that is reserved, if annotations ask for some",
    ),
    action(
        "elasticloadbalancing:DescribeListenerAttributes",
        ANYTHING,
        BALANCED,
        "the resources whose attributes an annotation sets",
    ),
    action(
        "elasticloadbalancing:DescribeListenerCertificates",
        ANYTHING,
        BALANCED,
        "reading a load balancer before its first plan",
    ),
    action("elasticloadbalancing:DescribeListeners", ANYTHING, BALANCED, "the same"),
    action(
        "elasticloadbalancing:DescribeLoadBalancerAttributes",
        ANYTHING,
        BALANCED,
        "the resources whose attributes an annotation sets, and load balancers that AWS does not delete",
    ),
    action(
        "elasticloadbalancing:DescribeLoadBalancers",
        ANYTHING,
        BOUND,
        "finding existing resources: at the start, after an unclear answer, and every sync period",
    ),
    action("elasticloadbalancing:DescribeRules", ANYTHING, BALANCED, "reading a load balancer before its first plan"),
    action("elasticloadbalancing:DescribeTags", ANYTHING, BOUND, "the owners of existing resources"),
    action(
        "elasticloadbalancing:DescribeTargetGroupAttributes",
        ANYTHING,
        BALANCED,
        "the resources whose attributes an annotation sets, and the target groups of Services",
    ),
    action("elasticloadbalancing:DescribeTargetGroups", ANYTHING, BOUND, "finding existing resources"),
    action("elasticloadbalancing:DescribeTargetHealth", ANYTHING, BOUND, "the registered targets and their health"),
    action("elasticloadbalancing:DescribeTrustStores", ANYTHING, &[MutualTls], "finds a trust store by its name"),
    action("elasticloadbalancing:ModifyCapacityReservation", OWN, BALANCED, "the capacity that annotations reserve"),
    action("elasticloadbalancing:ModifyIpPools", OWN, &[Ingress], "the IPAM pool that an Ingress asks for"),
    action(
        "elasticloadbalancing:ModifyListener",
        ANYTHING,
        BALANCED,
        "a listener's default action, certificate and TLS policy",
    ),
    action(
        "elasticloadbalancing:ModifyListenerAttributes",
        OWN,
        BALANCED,
        "attributes that annotations ask for; the listener has to have the cluster's tag, so not with ListenerRulesTagging=false",
    ),
    action("elasticloadbalancing:ModifyLoadBalancerAttributes", OWN, BALANCED, "attributes that annotations ask for"),
    action("elasticloadbalancing:ModifyRule", ANYTHING, &[Ingress], "an Ingress's actions"),
    action("elasticloadbalancing:ModifyTargetGroup", OWN, BALANCED, "health checks"),
    action("elasticloadbalancing:ModifyTargetGroupAttributes", OWN, BALANCED, "attributes that annotations ask for"),
    action("elasticloadbalancing:RegisterTargets", &[Scope::TargetGroup], BOUND, "new pods and nodes"),
    action("elasticloadbalancing:RemoveListenerCertificates", ANYTHING, BALANCED, "removed certificates"),
    action(
        "elasticloadbalancing:RemoveTags",
        &[Scope::Tags, Scope::TagsOfListeners],
        BALANCED,
        "tags that are no longer requested",
    ),
    action("elasticloadbalancing:SetIpAddressType", OWN, BALANCED, "a load balancer's address type"),
    action("elasticloadbalancing:SetRulePriorities", ANYTHING, &[Ingress], "the order of an Ingress's hosts and paths"),
    action("elasticloadbalancing:SetSecurityGroups", OWN, BALANCED, "a load balancer's security groups"),
    action("elasticloadbalancing:SetSubnets", OWN, BALANCED, "a load balancer's subnets"),
    implied(
        "elasticloadbalancing:SetWebAcl",
        ANYTHING,
        &[WebAcl],
        "WAF associates a web ACL with a load balancer, or ends that, in the controller's name",
    ),
    implied(
        "iam:CreateServiceLinkedRole",
        &[Scope::ServiceLinkedRole],
        &[ServiceLinkedRole],
        "AWS creates ELB's own role when the account's first load balancer is created",
    ),
    action(
        "route53:ChangeResourceRecordSets",
        &[Scope::Cname],
        &[CertificateRequests],
        "the records that prove hosts to ACM",
    ),
    action("route53:ListHostedZones", ANYTHING, &[CertificateRequests], "finds the hosted zone of a host"),
    action("shield:CreateProtection", ANYTHING, &[Shield], "protects a load balancer with Shield Advanced"),
    action("shield:DeleteProtection", ANYTHING, &[Shield], "ends a protection that the controller has created"),
    action("shield:DescribeProtection", ANYTHING, &[Shield], "the protection that a load balancer has"),
    action(
        "shield:GetSubscriptionState",
        ANYTHING,
        &[Shield],
        "without a subscription to Shield Advanced nothing can be protected",
    ),
    action(
        "sts:AssumeRole",
        &[Scope::Role],
        &[AssumeRole],
        "the roles that bindings name; name them in the policy in place of all roles",
    ),
    action("wafv2:AssociateWebACL", ANYTHING, &[WebAcl], "gives a load balancer its web ACL"),
    action("wafv2:DisassociateWebACL", ANYTHING, &[WebAcl], "takes it away where an Ingress asks for none"),
    implied(
        "wafv2:GetWebACL",
        ANYTHING,
        &[WebAcl],
        "WAF checks that the controller may read the web ACL of a load balancer",
    ),
    action("wafv2:GetWebACLForResource", ANYTHING, &[WebAcl], "the web ACL that a load balancer has"),
    action("wafv2:ListWebACLs", ANYTHING, &[WebAcl], "finds a web ACL by its name"),
];
