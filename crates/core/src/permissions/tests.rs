use std::{collections::BTreeMap, fs, path::Path};

use regex_lite::Regex;

use super::*;

fn all() -> BTreeSet<Feature> {
    Feature::ALL.into()
}

/// aws-load-balancer-controller's policy, written out (v3.5.0, `docs/install/iam_policy.json`): what it allows, and whether
/// only where the cluster's tag is. What belongs to what is not built here is left out.
const OF_LBC: &[(&str, bool)] = &[
    ("acm:DescribeCertificate", false),
    ("acm:ListCertificates", false),
    ("cognito-idp:DescribeUserPoolClient", false),
    ("ec2:AuthorizeSecurityGroupIngress", false),
    ("ec2:CreateSecurityGroup", false),
    ("ec2:CreateTags", true),
    ("ec2:DeleteSecurityGroup", true),
    ("ec2:DeleteTags", true),
    ("ec2:DescribeAccountAttributes", false),
    ("ec2:DescribeAddresses", false),
    ("ec2:DescribeAvailabilityZones", false),
    ("ec2:DescribeCoipPools", false),
    ("ec2:DescribeInstances", false),
    ("ec2:DescribeInternetGateways", false),
    ("ec2:DescribeIpamPools", false),
    ("ec2:DescribeNetworkInterfaces", false),
    ("ec2:DescribeRouteTables", false),
    ("ec2:DescribeSecurityGroups", false),
    ("ec2:DescribeSubnets", false),
    ("ec2:DescribeTags", false),
    ("ec2:DescribeVpcPeeringConnections", false),
    ("ec2:DescribeVpcs", false),
    ("ec2:GetCoipPoolUsage", false),
    ("ec2:GetSecurityGroupsForVpc", false),
    ("ec2:RevokeSecurityGroupIngress", false),
    ("elasticloadbalancing:AddListenerCertificates", false),
    ("elasticloadbalancing:AddTags", true),
    ("elasticloadbalancing:CreateListener", false),
    ("elasticloadbalancing:CreateLoadBalancer", true),
    ("elasticloadbalancing:CreateRule", false),
    ("elasticloadbalancing:CreateTargetGroup", true),
    ("elasticloadbalancing:DeleteListener", false),
    ("elasticloadbalancing:DeleteLoadBalancer", true),
    ("elasticloadbalancing:DeleteRule", false),
    ("elasticloadbalancing:DeleteTargetGroup", true),
    ("elasticloadbalancing:DeregisterTargets", false),
    ("elasticloadbalancing:DescribeCapacityReservation", false),
    ("elasticloadbalancing:DescribeListenerAttributes", false),
    ("elasticloadbalancing:DescribeListenerCertificates", false),
    ("elasticloadbalancing:DescribeListeners", false),
    ("elasticloadbalancing:DescribeLoadBalancerAttributes", false),
    ("elasticloadbalancing:DescribeLoadBalancers", false),
    ("elasticloadbalancing:DescribeRules", false),
    ("elasticloadbalancing:DescribeSSLPolicies", false),
    ("elasticloadbalancing:DescribeTags", false),
    ("elasticloadbalancing:DescribeTargetGroupAttributes", false),
    ("elasticloadbalancing:DescribeTargetGroups", false),
    ("elasticloadbalancing:DescribeTargetHealth", false),
    ("elasticloadbalancing:DescribeTrustStores", false),
    ("elasticloadbalancing:ModifyCapacityReservation", true),
    ("elasticloadbalancing:ModifyIpPools", true),
    ("elasticloadbalancing:ModifyListener", false),
    ("elasticloadbalancing:ModifyListenerAttributes", true),
    ("elasticloadbalancing:ModifyLoadBalancerAttributes", true),
    ("elasticloadbalancing:ModifyRule", false),
    ("elasticloadbalancing:ModifyTargetGroup", true),
    ("elasticloadbalancing:ModifyTargetGroupAttributes", true),
    ("elasticloadbalancing:RegisterTargets", false),
    ("elasticloadbalancing:RemoveListenerCertificates", false),
    ("elasticloadbalancing:RemoveTags", true),
    ("elasticloadbalancing:SetIpAddressType", true),
    ("elasticloadbalancing:SetRulePriorities", false),
    ("elasticloadbalancing:SetSecurityGroups", true),
    ("elasticloadbalancing:SetSubnets", true),
    ("elasticloadbalancing:SetWebAcl", false),
    ("iam:CreateServiceLinkedRole", false),
    ("iam:GetServerCertificate", false),
    ("iam:ListServerCertificates", false),
    ("shield:CreateProtection", false),
    ("shield:DeleteProtection", false),
    ("shield:DescribeProtection", false),
    ("shield:GetSubscriptionState", false),
    ("wafv2:AssociateWebACL", false),
    ("wafv2:DisassociateWebACL", false),
    ("wafv2:GetWebACL", false),
    ("wafv2:GetWebACLForResource", false),
];

const REQUESTS: &str = "its documentation asks for it where certificates are requested, and its policy lacks it; so does the policy without that feature";

/// The calls that its policy does not allow, and the reason why they are made all the same.
const BEYOND: &[(&str, &str)] = &[
    ("acm-pca:GetCertificate", REQUESTS),
    ("acm-pca:IssueCertificate", REQUESTS),
    ("acm-pca:ListPermissions", REQUESTS),
    ("acm:AddTagsToCertificate", REQUESTS),
    ("acm:DeleteCertificate", REQUESTS),
    ("acm:ListTagsForCertificate", REQUESTS),
    ("acm:RequestCertificate", REQUESTS),
    (
        "elasticloadbalancing:DescribeAccountLimits",
        "only read, and only where a group outgrows AWS's default quotas; where it is denied those hold, so its policy will do",
    ),
    ("route53:ChangeResourceRecordSets", REQUESTS),
    ("route53:ListHostedZones", REQUESTS),
    ("sts:AssumeRole", "its documentation asks for it where a binding names a role, and its policy lacks it"),
    ("wafv2:ListWebACLs", "its documentation asks for it where a web ACL is named by name, and its policy lacks it"),
];

#[test]
fn the_policy_is_within_that_of_aws_load_balancer_controller() {
    let theirs: BTreeMap<&str, bool> = OF_LBC.iter().copied().collect();
    let beyond: Vec<&str> =
        ACTIONS.iter().map(|action| action.name).filter(|name| !theirs.contains_key(name)).collect();
    assert_eq!(beyond, BEYOND.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    let free =
        |action: &Action| action.scopes.iter().any(|scope| matches!(scope, Scope::Anything | Scope::TargetGroup));
    let wider: Vec<&str> = ACTIONS
        .iter()
        .filter(|action| theirs.get(action.name) == Some(&true) && free(action))
        .map(|a| a.name)
        .collect();
    assert_eq!(wider, Vec::<&str>::new(), "allowed without the condition that it has there");
}

/// The operations that the code calls, as IAM names them, read from the code: each is a call of a method of the SDK's client.
fn called() -> BTreeSet<String> {
    fn visit(folder: &Path, text: &mut String) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() && name != "tests" {
                visit(&path, text);
            } else if name.ends_with(".rs") && name != "tests.rs" {
                text.push_str(&fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut text = String::new();
    visit(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../aws/src"), &mut text);
    let call = Regex::new(r"\.(elb|ec2|acm|route53|wafv2|shield|sts)\s*\.([a-z_]+)\(\)").unwrap();
    let camel = |name: &str| -> String { name.split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect() };
    // WAF writes it in capitals.
    let operation = |name: &str| camel(name).replace("WebAcl", "WebACL");
    let service = |field: &str| if field == "elb" { "elasticloadbalancing".to_owned() } else { field.to_owned() };
    // A token that is exchanged needs no permission.
    let calls =
        call.captures_iter(&text).filter(|found| !["clone", "assume_role_with_web_identity"].contains(&&found[2]));
    calls.map(|found| format!("{}:{}", service(&found[1]), operation(&found[2]))).collect()
}

#[test]
fn the_policy_has_what_the_code_calls_and_nothing_else_but_what_aws_asks_for() {
    let called = called();
    assert!(called.len() > 40, "only {called:?} were found in the code");
    let ours: BTreeSet<String> =
        ACTIONS.iter().filter(|action| action.caller == Caller::Controller).map(|a| a.name.to_owned()).collect();
    assert_eq!(ours, called);
    let others: Vec<&str> = ACTIONS.iter().filter(|action| action.caller == Caller::Aws).map(|a| a.name).collect();
    assert_eq!(
        others,
        [
            // ACM does with a private certificate authority, and with tags, what its caller may do.
            "acm-pca:GetCertificate",
            "acm-pca:IssueCertificate",
            "acm-pca:ListPermissions",
            "acm:AddTagsToCertificate",
            // ELB checks the user's permission for the pool's client.
            "cognito-idp:DescribeUserPoolClient",
            // The first load balancer of an account makes ELB's own role, and ELB looks at some of these as the caller.
            "ec2:DescribeAccountAttributes",
            "ec2:DescribeAddresses",
            // ELB looks for pools of addresses as the caller.
            "ec2:DescribeCoipPools",
            "ec2:DescribeInternetGateways",
            "ec2:DescribeIpamPools",
            "ec2:GetCoipPoolUsage",
            // WAF checks what it does with a load balancer as the caller.
            "elasticloadbalancing:SetWebAcl",
            "iam:CreateServiceLinkedRole",
            "wafv2:GetWebACL",
        ]
    );
}

#[test]
fn records_of_domains_are_changed_only_where_that_is_named() {
    let text = |features: BTreeSet<Feature>| policy(&features, Partition::Aws).to_json();
    assert!(!text(Feature::by_default()).contains("route53") && !text(Feature::by_default()).contains("acm:Request"));
    insta::assert_snapshot!(text(BTreeSet::from([Feature::CertificateRequests])), @r#"
    {
      "Version": "2012-10-17",
      "Statement": [
        {
          "Sid": "Anything",
          "Effect": "Allow",
          "Action": [
            "acm-pca:GetCertificate",
            "acm-pca:IssueCertificate",
            "acm-pca:ListPermissions",
            "acm:DescribeCertificate",
            "acm:ListCertificates",
            "acm:ListTagsForCertificate",
            "route53:ListHostedZones"
          ],
          "Resource": [
            "*"
          ]
        },
        {
          "Sid": "NewCertificates",
          "Effect": "Allow",
          "Action": [
            "acm:AddTagsToCertificate",
            "acm:RequestCertificate"
          ],
          "Resource": [
            "*"
          ],
          "Condition": {
            "Null": {
              "aws:RequestTag/elbv2.k8s.aws/cluster": [
                "false"
              ]
            }
          }
        },
        {
          "Sid": "OwnCertificates",
          "Effect": "Allow",
          "Action": [
            "acm:DeleteCertificate"
          ],
          "Resource": [
            "arn:aws:acm:*:*:certificate/*"
          ],
          "Condition": {
            "Null": {
              "aws:ResourceTag/elbv2.k8s.aws/cluster": [
                "false"
              ]
            }
          }
        },
        {
          "Sid": "RecordsOfCertificates",
          "Effect": "Allow",
          "Action": [
            "route53:ChangeResourceRecordSets"
          ],
          "Resource": [
            "arn:aws:route53:::hostedzone/*"
          ],
          "Condition": {
            "ForAllValues:StringEquals": {
              "route53:ChangeResourceRecordSetsRecordTypes": [
                "CNAME"
              ]
            }
          }
        }
      ]
    }
    "#);
}

#[test]
fn the_list_is_in_order_and_argued() {
    assert!(ACTIONS.is_sorted_by_key(|action| action.name));
    let names: BTreeSet<&str> = ACTIONS.iter().map(|action| action.name).collect();
    assert_eq!(names.len(), ACTIONS.len());
    assert!(ACTIONS.iter().all(|a| !a.reason.is_empty() && !a.features.is_empty() && !a.scopes.is_empty()));
    for feature in Feature::ALL {
        assert_eq!(Feature::named(feature.name()), Some(feature));
        assert!(needed(&BTreeSet::from([feature])).next().is_some(), "{feature:?} needs nothing");
    }
}

#[test]
fn arns_are_of_the_partition() {
    for partition in Partition::ALL {
        assert_eq!(Partition::named(partition.name()), Some(partition));
        let text = policy(&all(), partition).to_json();
        let arns: Vec<&str> = text.split('"').filter(|text| text.starts_with("arn:")).collect();
        let own = format!("arn:{}:", partition.name());
        assert!(arns.len() > 10 && arns.iter().all(|arn| arn.starts_with(&own)), "{partition:?}: {arns:?}");
        // IAM takes this many characters in a managed policy, white space not counted.
        assert!(text.chars().filter(|c| !c.is_whitespace()).count() <= 6144, "{partition:?} is too long");
    }
    for (region, partition) in [
        ("us-west-2", "aws"),
        ("eu-central-1", "aws"),
        ("cn-north-1", "aws-cn"),
        ("cn-northwest-1", "aws-cn"),
        ("us-gov-west-1", "aws-us-gov"),
        ("us-gov-east-1", "aws-us-gov"),
        ("us-iso-east-1", "aws-iso"),
        ("us-isob-east-1", "aws-iso-b"),
        ("eu-isoe-west-1", "aws-iso-e"),
        ("us-isof-south-1", "aws-iso-f"),
        ("eusc-de-east-1", "aws-eusc"),
    ] {
        assert_eq!(Partition::of_region(region).name(), partition, "{region}");
    }
}

#[test]
fn a_feature_alone_needs_little() {
    insta::assert_snapshot!(policy(&BTreeSet::from([Feature::Binding]), Partition::AwsUsGov).to_json(), @r#"
    {
      "Version": "2012-10-17",
      "Statement": [
        {
          "Sid": "Anything",
          "Effect": "Allow",
          "Action": [
            "ec2:AuthorizeSecurityGroupIngress",
            "ec2:DescribeInstances",
            "ec2:DescribeNetworkInterfaces",
            "ec2:DescribeSecurityGroups",
            "ec2:RevokeSecurityGroupIngress",
            "elasticloadbalancing:DescribeLoadBalancers",
            "elasticloadbalancing:DescribeTags",
            "elasticloadbalancing:DescribeTargetGroups",
            "elasticloadbalancing:DescribeTargetHealth"
          ],
          "Resource": [
            "*"
          ]
        },
        {
          "Sid": "Targets",
          "Effect": "Allow",
          "Action": [
            "elasticloadbalancing:DeregisterTargets",
            "elasticloadbalancing:RegisterTargets"
          ],
          "Resource": [
            "arn:aws-us-gov:elasticloadbalancing:*:*:targetgroup/*/*"
          ]
        }
      ]
    }
    "#);
}

#[test]
fn roles_of_other_accounts_are_in_the_policy_only_if_they_are_named() {
    assert!(!policy(&Feature::by_default(), Partition::Aws).to_json().contains("sts:"));
    insta::assert_snapshot!(policy(&BTreeSet::from([Feature::AssumeRole]), Partition::Aws).to_json(), @r#"
    {
      "Version": "2012-10-17",
      "Statement": [
        {
          "Sid": "RolesOfOtherAccounts",
          "Effect": "Allow",
          "Action": [
            "sts:AssumeRole"
          ],
          "Resource": [
            "arn:aws:iam::*:role/*"
          ]
        }
      ]
    }
    "#);
}
