//! The documents of groups, and of load balancers in front of others.

use super::*;

#[test]
fn a_group_of_two_with_weights() {
    let forward = r#"{"type": "forward", "forwardConfig": {"targetGroups": [{"serviceName": "web", "servicePort": 80, "weight": 20}, {"serviceName": "api", "servicePort": 80, "weight": 80}], "targetGroupStickinessConfig": {"enabled": true, "durationSeconds": 60}}}"#;
    let group = [("group.name", "edge"), ("target-type", "ip")];
    let first = ingress("web", &[&group[..], &[("actions.web", forward)]].concat(), ("/", "web"));
    let first = first.replace("port: {number: 80}", "port: {name: use-annotation}");
    let second = ingress("api", &[&group[..], &[("group.order", "1")]].concat(), ("/api", "api"));
    let id = StackId::Group("edge".to_owned());
    let (stack, membership, _) = built(&id, &[first, second], &build_config());
    assert_eq!(membership.members, [ObjectName::new("shop", "web"), ObjectName::new("shop", "api")]);
    let document: Json = serde_json::from_str(&document(&stack)).unwrap();
    assert_eq!(document["id"], "edge");
    insta::assert_snapshot!(shown(&document, &["AWS::ElasticLoadBalancingV2::ListenerRule"]), @r##"
    {
      "AWS::ElasticLoadBalancingV2::ListenerRule": {
        "80:1": {
          "spec": {
            "actions": [
              {
                "forwardConfig": {
                  "targetGroupStickinessConfig": {
                    "durationSeconds": 60,
                    "enabled": true
                  },
                  "targetGroups": [
                    {
                      "targetGroupARN": {
                        "$ref": "#/resources/AWS::ElasticLoadBalancingV2::TargetGroup/shop/web-web:80/status/targetGroupARN"
                      },
                      "weight": 20
                    },
                    {
                      "targetGroupARN": {
                        "$ref": "#/resources/AWS::ElasticLoadBalancingV2::TargetGroup/shop/web-api:80/status/targetGroupARN"
                      },
                      "weight": 80
                    }
                  ]
                },
                "type": "forward"
              }
            ],
            "conditions": [
              {
                "field": "path-pattern",
                "pathPatternConfig": {
                  "values": [
                    "/*"
                  ]
                }
              }
            ],
            "listenerARN": {
              "$ref": "#/resources/AWS::ElasticLoadBalancingV2::Listener/80/status/listenerARN"
            },
            "priority": 1
          }
        },
        "80:2": {
          "spec": {
            "actions": [
              {
                "forwardConfig": {
                  "targetGroups": [
                    {
                      "targetGroupARN": {
                        "$ref": "#/resources/AWS::ElasticLoadBalancingV2::TargetGroup/shop/api-api:80/status/targetGroupARN"
                      }
                    }
                  ]
                },
                "type": "forward"
              }
            ],
            "conditions": [
              {
                "field": "path-pattern",
                "pathPatternConfig": {
                  "values": [
                    "/api",
                    "/api/*"
                  ]
                }
              }
            ],
            "listenerARN": {
              "$ref": "#/resources/AWS::ElasticLoadBalancingV2::Listener/80/status/listenerARN"
            },
            "priority": 2
          }
        }
      }
    }
    "##);
    let groups = document["resources"]["AWS::ElasticLoadBalancingV2::TargetGroup"].as_object().unwrap();
    assert_eq!(groups.keys().collect::<Vec<_>>(), ["shop/api-api:80", "shop/web-api:80", "shop/web-web:80"]);
}

#[test]
fn a_load_balancer_in_front() {
    let document = read(&[("target-type", "ip"), ("enable-frontend-nlb", "true")]);
    let of_front = |kind: &str| {
        let all = document["resources"][kind].as_object().unwrap().iter();
        let front: Vec<_> = all.filter(|(id, _)| id.starts_with("FrontendNlb")).collect();
        serde_json::to_string_pretty(&front).unwrap()
    };
    insta::assert_snapshot!(of_front("AWS::ElasticLoadBalancingV2::LoadBalancer"), @r##"
    [
      [
        "FrontendNlb",
        {
          "spec": {
            "ipAddressType": "ipv4",
            "name": "k8s-shop-web-63400ea3d5-nlb",
            "scheme": "internal",
            "securityGroups": [
              {
                "$ref": "#/resources/AWS::EC2::SecurityGroup/ManagedLBSecurityGroup/status/groupID"
              },
              "sg-shared"
            ],
            "subnetMapping": [
              {
                "subnetID": "subnet-a"
              },
              {
                "subnetID": "subnet-b"
              }
            ],
            "type": "network"
          }
        }
      ]
    ]
    "##);
    insta::assert_snapshot!(of_front("AWS::ElasticLoadBalancingV2::Listener"), @r##"
    [
      [
        "FrontendNlb-ls-TCP-80",
        {
          "spec": {
            "defaultActions": [
              {
                "forwardConfig": {
                  "targetGroups": [
                    {
                      "targetGroupARN": {
                        "$ref": "#/resources/AWS::ElasticLoadBalancingV2::TargetGroup/FrontendNlb-tg-TCP-80/status/targetGroupARN"
                      }
                    }
                  ]
                },
                "type": "forward"
              }
            ],
            "loadBalancerARN": {
              "$ref": "#/resources/AWS::ElasticLoadBalancingV2::LoadBalancer/FrontendNlb/status/loadBalancerARN"
            },
            "port": 80,
            "protocol": "TCP"
          }
        }
      ]
    ]
    "##);
    insta::assert_snapshot!(of_front("AWS::ElasticLoadBalancingV2::TargetGroup"), @r##"
    [
      [
        "FrontendNlb-tg-TCP-80",
        {
          "spec": {
            "healthCheckConfig": {
              "healthyThresholdCount": 2,
              "intervalSeconds": 15,
              "matcher": {
                "httpCode": "200"
              },
              "path": "/",
              "port": "traffic-port",
              "protocol": "HTTP",
              "timeoutSeconds": 5,
              "unhealthyThresholdCount": 2
            },
            "ipAddressType": "ipv4",
            "name": "k8s-shop-web-39db3f47ad",
            "port": 80,
            "protocol": "TCP",
            "targetType": "alb"
          }
        }
      ]
    ]
    "##);
}
