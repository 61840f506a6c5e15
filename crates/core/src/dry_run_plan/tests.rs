//! The document of a plan, and where it is written.

mod groups;
mod writes;

use super::*;
use crate::{
    desired::{self, BuildConfig},
    facts::{Fact, Facts},
    model::{ClientId, OidcSecret, SecretVersion, SecurityGroupId, SubnetId, TrustStoreArn, WebAclArn},
    testing::{self, build_config, discovered_subnets},
};
use serde_json::Value as Json;

const SERVICES: &str = r"
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop, uid: 11111111-1111-1111-1111-111111111111}
spec: {type: NodePort, ports: [{port: 80, targetPort: 8080, nodePort: 30080}]}
---
apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop, uid: 22222222-2222-2222-2222-222222222222}
spec: {type: NodePort, ports: [{name: http, port: 80, targetPort: serve, nodePort: 30081}]}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: alb}
spec: {controller: ingress.k8s.aws/alb}
";

const CERTIFICATE: &str = "arn:aws:acm:eu-west-1:111122223333:certificate/a";

/// Returns an Ingress of `shop` with annotations under the controller's prefix, that forwards a path to a Service.
fn ingress(name: &str, annotations: &[(&str, &str)], (path, service): (&str, &str)) -> String {
    let written: Vec<String> = annotations
        .iter()
        .map(|(key, value)| format!("alb.ingress.kubernetes.io/{key}: {}", Json::from(*value)))
        .collect();
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: {name}\n  namespace: shop\n  uid: uid-{name}\n  annotations: {{{}}}\nspec:\n  ingressClassName: alb\n  rules:\n  - http:\n      paths:\n      - {{path: {path}, pathType: Prefix, backend: {{service: {{name: {service}, port: {{number: 80}}}}}}}}\n",
        written.join(", ")
    )
}

fn snapshot(ingresses: &[String]) -> Snapshot {
    testing::snapshot(&format!("{SERVICES}{}", ingresses.concat()))
}

fn facts() -> Facts {
    let secret = OidcSecret {
        version: SecretVersion { uid: "u".to_owned(), resource_version: "7".to_owned() },
        client_id: ClientId("the-client".to_owned()),
        client_secret: "s3cret".to_owned(),
    };
    Facts {
        subnets: discovered_subnets(&[SubnetId::new("subnet-a"), SubnetId::new("subnet-b")]),
        backend_security_group: Some(Fact::Known(SecurityGroupId::new("sg-shared"))),
        secrets: [(ObjectName::new("shop", "oidc"), Fact::Known(secret))].into(),
        trust_stores: [("partners".to_owned(), Fact::Known(TrustStoreArn::new("arn:store")))].into(),
        web_acls: [(
            "edge".to_owned(),
            Fact::Known(WebAclArn::new("arn:aws:wafv2:eu-west-1:111122223333:regional/webacl/edge/1").unwrap()),
        )]
        .into(),
        ..Facts::default()
    }
}

fn built(id: &StackId, ingresses: &[String], config: &BuildConfig) -> (Stack, Membership, Snapshot) {
    let snapshot = snapshot(ingresses);
    let membership = desired::membership(&snapshot, config, id);
    let built = desired::build(&snapshot, config, &facts(), id, &membership);
    let stack = built.stack.unwrap_or_else(|| panic!("{:?} {:?}", built.wants, built.diagnostics));
    (stack, membership, snapshot)
}

fn web() -> StackId {
    StackId::Ingress(ObjectName::new("shop", "web"))
}

/// Returns the document of `shop/web` with the annotations.
fn read(annotations: &[(&str, &str)]) -> Json {
    let (stack, ..) = built(&web(), &[ingress("web", annotations, ("/", "web"))], &build_config());
    serde_json::from_str(&document(&stack)).unwrap()
}

/// Returns the resources of these types, as text for people.
fn shown(document: &Json, kinds: &[&str]) -> String {
    let resources = kinds.iter().map(|kind| (*kind, &document["resources"][kind]));
    serde_json::to_string_pretty(&resources.collect::<std::collections::BTreeMap<_, _>>()).unwrap()
}

#[test]
fn an_application_load_balancer() {
    let plain = read(&[("target-type", "ip"), ("tags", "team=shop")]);
    assert_eq!(plain["id"], "shop/web");
    insta::assert_snapshot!(serde_json::to_string_pretty(&plain["resources"]).unwrap(), @r##"
    {
      "AWS::EC2::SecurityGroup": {
        "ManagedLBSecurityGroup": {
          "spec": {
            "description": "[k8s] Managed SecurityGroup for LoadBalancer",
            "groupName": "k8s-shop-web-aba6dfbc4e",
            "ingress": [
              {
                "fromPort": 80,
                "ipProtocol": "tcp",
                "ipRanges": [
                  {
                    "cidrIP": "0.0.0.0/0"
                  }
                ],
                "toPort": 80
              }
            ],
            "tags": {
              "team": "shop"
            }
          }
        }
      },
      "AWS::ElasticLoadBalancingV2::Listener": {
        "80": {
          "spec": {
            "defaultActions": [
              {
                "fixedResponseConfig": {
                  "contentType": "text/plain",
                  "statusCode": "404"
                },
                "type": "fixed-response"
              }
            ],
            "loadBalancerARN": {
              "$ref": "#/resources/AWS::ElasticLoadBalancingV2::LoadBalancer/LoadBalancer/status/loadBalancerARN"
            },
            "port": 80,
            "protocol": "HTTP",
            "tags": {
              "team": "shop"
            }
          }
        }
      },
      "AWS::ElasticLoadBalancingV2::ListenerRule": {
        "80:1": {
          "spec": {
            "actions": [
              {
                "forwardConfig": {
                  "targetGroups": [
                    {
                      "targetGroupARN": {
                        "$ref": "#/resources/AWS::ElasticLoadBalancingV2::TargetGroup/shop/web-web:80/status/targetGroupARN"
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
                    "/*"
                  ]
                }
              }
            ],
            "listenerARN": {
              "$ref": "#/resources/AWS::ElasticLoadBalancingV2::Listener/80/status/listenerARN"
            },
            "priority": 1,
            "tags": {
              "team": "shop"
            }
          }
        }
      },
      "AWS::ElasticLoadBalancingV2::LoadBalancer": {
        "LoadBalancer": {
          "spec": {
            "ipAddressType": "ipv4",
            "name": "k8s-shop-web-63400ea3d5",
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
            "tags": {
              "team": "shop"
            },
            "type": "application"
          }
        }
      },
      "AWS::ElasticLoadBalancingV2::TargetGroup": {
        "shop/web-web:80": {
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
            "name": "k8s-shop-web-8b744f0654",
            "port": 8080,
            "protocol": "HTTP",
            "protocolVersion": "HTTP1",
            "tags": {
              "team": "shop"
            },
            "targetType": "ip"
          }
        }
      },
      "K8S::ElasticLoadBalancingV2::TargetGroupBinding": {
        "shop/web-web:80": {
          "spec": {
            "template": {
              "metadata": {
                "name": "k8s-shop-web-8b744f0654",
                "namespace": "shop"
              },
              "spec": {
                "ipAddressType": "ipv4",
                "networking": {
                  "ingress": [
                    {
                      "from": [
                        {
                          "securityGroup": {
                            "groupID": "sg-shared"
                          }
                        }
                      ],
                      "ports": [
                        {
                          "port": 8080,
                          "protocol": "TCP"
                        }
                      ]
                    }
                  ]
                },
                "serviceRef": {
                  "name": "web",
                  "port": 80
                },
                "targetGroupARN": {
                  "$ref": "#/resources/AWS::ElasticLoadBalancingV2::TargetGroup/shop/web-web:80/status/targetGroupARN"
                },
                "targetGroupProtocol": "HTTP",
                "targetType": "ip",
                "vpcID": "vpc-1"
              }
            }
          }
        }
      }
    }
    "##);
}

#[test]
fn listeners_rules_and_settings() {
    let annotations = [
        ("target-type", "instance"),
        ("listen-ports", r#"[{"HTTP": 80}, {"HTTPS": 443}]"#),
        ("certificate-arn", CERTIFICATE),
        ("ssl-redirect", "443"),
        ("mutual-authentication", r#"[{"port": 443, "mode": "verify", "trustStore": "partners"}]"#),
        ("listener-attributes.HTTPS-443", "routing.http.response.server.enabled=false"),
        ("load-balancer-attributes", "idle_timeout.timeout_seconds=90"),
        ("target-group-attributes", "deregistration_delay.timeout_seconds=30"),
        ("target-node-labels", "pool=web"),
        ("inbound-cidrs", "10.0.0.0/8"),
        ("wafv2-acl-name", "edge"),
        ("minimum-load-balancer-capacity", "CapacityUnits=100"),
        (
            "conditions.web",
            r#"[{"field": "http-header", "httpHeaderConfig": {"httpHeaderName": "X-Kind", "values": ["a*"]}}, {"field": "query-string", "queryStringConfig": {"values": [{"key": "v", "value": "2"}]}}]"#,
        ),
        (
            "transforms.web",
            r#"[{"type": "url-rewrite", "urlRewriteConfig": {"rewrites": [{"regex": "^/a", "replace": "/b"}]}}]"#,
        ),
    ];
    let document = read(&annotations);
    let kinds = [
        "AWS::ElasticLoadBalancingV2::LoadBalancer",
        "AWS::ElasticLoadBalancingV2::Listener",
        "AWS::ElasticLoadBalancingV2::ListenerRule",
    ];
    insta::assert_snapshot!(shown(&document, &kinds), @r##"
    {
      "AWS::ElasticLoadBalancingV2::Listener": {
        "443": {
          "spec": {
            "certificates": [
              {
                "certificateARN": "arn:aws:acm:eu-west-1:111122223333:certificate/a"
              }
            ],
            "defaultActions": [
              {
                "fixedResponseConfig": {
                  "contentType": "text/plain",
                  "statusCode": "404"
                },
                "type": "fixed-response"
              }
            ],
            "listenerAttributes": [
              {
                "key": "routing.http.response.server.enabled",
                "value": "false"
              }
            ],
            "loadBalancerARN": {
              "$ref": "#/resources/AWS::ElasticLoadBalancingV2::LoadBalancer/LoadBalancer/status/loadBalancerARN"
            },
            "mutualAuthentication": {
              "advertiseTrustStoreCaNames": "off",
              "ignoreClientCertificateExpiry": false,
              "mode": "verify",
              "trustStoreArn": "arn:store"
            },
            "port": 443,
            "protocol": "HTTPS",
            "sslPolicy": "ELBSecurityPolicy-2016-08"
          }
        },
        "80": {
          "spec": {
            "defaultActions": [
              {
                "redirectConfig": {
                  "port": "443",
                  "protocol": "HTTPS",
                  "statusCode": "HTTP_301"
                },
                "type": "redirect"
              }
            ],
            "loadBalancerARN": {
              "$ref": "#/resources/AWS::ElasticLoadBalancingV2::LoadBalancer/LoadBalancer/status/loadBalancerARN"
            },
            "port": 80,
            "protocol": "HTTP"
          }
        }
      },
      "AWS::ElasticLoadBalancingV2::ListenerRule": {
        "443:1": {
          "spec": {
            "actions": [
              {
                "forwardConfig": {
                  "targetGroups": [
                    {
                      "targetGroupARN": {
                        "$ref": "#/resources/AWS::ElasticLoadBalancingV2::TargetGroup/shop/web-web:80/status/targetGroupARN"
                      }
                    }
                  ]
                },
                "type": "forward"
              }
            ],
            "conditions": [
              {
                "field": "http-header",
                "httpHeaderConfig": {
                  "httpHeaderName": "X-Kind",
                  "values": [
                    "a*"
                  ]
                }
              },
              {
                "field": "query-string",
                "queryStringConfig": {
                  "values": [
                    {
                      "key": "v",
                      "value": "2"
                    }
                  ]
                }
              },
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
              "$ref": "#/resources/AWS::ElasticLoadBalancingV2::Listener/443/status/listenerARN"
            },
            "priority": 1,
            "transforms": [
              {
                "type": "url-rewrite",
                "urlRewriteConfig": {
                  "rewrites": [
                    {
                      "regex": "^/a",
                      "replace": "/b"
                    }
                  ]
                }
              }
            ]
          }
        }
      },
      "AWS::ElasticLoadBalancingV2::LoadBalancer": {
        "LoadBalancer": {
          "spec": {
            "ipAddressType": "ipv4",
            "loadBalancerAttributes": [
              {
                "key": "idle_timeout.timeout_seconds",
                "value": "90"
              }
            ],
            "minimumLoadBalancerCapacity": {
              "capacityUnits": 100
            },
            "name": "k8s-shop-web-63400ea3d5",
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
            "type": "application"
          }
        }
      }
    }
    "##);
    let kinds =
        ["AWS::EC2::SecurityGroup", "AWS::WAFv2::WebACLAssociation", "AWS::ElasticLoadBalancingV2::TargetGroup"];
    insta::assert_snapshot!(shown(&document, &kinds), @r##"
    {
      "AWS::EC2::SecurityGroup": {
        "ManagedLBSecurityGroup": {
          "spec": {
            "description": "[k8s] Managed SecurityGroup for LoadBalancer",
            "groupName": "k8s-shop-web-aba6dfbc4e",
            "ingress": [
              {
                "fromPort": 80,
                "ipProtocol": "tcp",
                "ipRanges": [
                  {
                    "cidrIP": "10.0.0.0/8"
                  }
                ],
                "toPort": 80
              },
              {
                "fromPort": 443,
                "ipProtocol": "tcp",
                "ipRanges": [
                  {
                    "cidrIP": "10.0.0.0/8"
                  }
                ],
                "toPort": 443
              }
            ]
          }
        }
      },
      "AWS::ElasticLoadBalancingV2::TargetGroup": {
        "shop/web-web:80": {
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
            "name": "k8s-shop-web-32db4d036b",
            "port": 30080,
            "protocol": "HTTP",
            "protocolVersion": "HTTP1",
            "targetGroupAttributes": [
              {
                "key": "deregistration_delay.timeout_seconds",
                "value": "30"
              }
            ],
            "targetType": "instance"
          }
        }
      },
      "AWS::WAFv2::WebACLAssociation": {
        "LoadBalancer": {
          "spec": {
            "resourceARN": {
              "$ref": "#/resources/AWS::ElasticLoadBalancingV2::LoadBalancer/LoadBalancer/status/loadBalancerARN"
            },
            "webACLARN": "arn:aws:wafv2:eu-west-1:111122223333:regional/webacl/edge/1"
          }
        }
      }
    }
    "##);
    let bound = &document["resources"]["K8S::ElasticLoadBalancingV2::TargetGroupBinding"]["shop/web-web:80"];
    let selector = bound.pointer("/spec/template/spec/nodeSelector").unwrap();
    assert_eq!(*selector, serde_json::json!({ "matchLabels": { "pool": "web" } }));
}

#[test]
fn what_a_secret_has_is_masked() {
    let provider = r#"{"issuer": "https://idp", "authorizationEndpoint": "https://idp/a", "tokenEndpoint": "https://idp/t", "userInfoEndpoint": "https://idp/u", "secretName": "oidc"}"#;
    let https = [("listen-ports", r#"[{"HTTPS": 443}]"#), ("certificate-arn", CERTIFICATE), ("target-type", "ip")];
    let oidc = [&https[..], &[("auth-type", "oidc"), ("auth-idp-oidc", provider)]].concat();
    let document = read(&oidc);
    let text = document.to_string();
    assert!(!text.contains("s3cret") && !text.contains("the-client"), "{text}");
    let rule = &document["resources"]["AWS::ElasticLoadBalancingV2::ListenerRule"]["443:1"]["spec"]["actions"][0];
    insta::assert_snapshot!(serde_json::to_string_pretty(rule).unwrap(), @r##"
    {
      "authenticateOIDCConfig": {
        "authorizationEndpoint": "https://idp/a",
        "clientID": "[REDACTED]",
        "clientSecret": "[REDACTED]",
        "issuer": "https://idp",
        "onUnauthenticatedRequest": "authenticate",
        "scope": "openid",
        "sessionCookieName": "AWSELBAuthSessionCookie",
        "sessionTimeout": 604800,
        "tokenEndpoint": "https://idp/t",
        "userInfoEndpoint": "https://idp/u"
      },
      "type": "authenticate-oidc"
    }
    "##);
    let pool = r#"{"userPoolARN": "arn:pool", "userPoolClientID": "c", "userPoolDomain": "d"}"#;
    let cognito = read(&[&https[..], &[("auth-type", "cognito"), ("auth-idp-cognito", pool)]].concat());
    let rule = &cognito["resources"]["AWS::ElasticLoadBalancingV2::ListenerRule"]["443:1"]["spec"]["actions"][0];
    assert_eq!(rule["authenticateCognitoConfig"]["userPoolARN"], "arn:pool");
    let tokens = r#"{"jwksEndpoint": "https://idp/keys", "issuer": "https://idp"}"#;
    let jwt = read(&[&https[..], &[("jwt-validation", tokens)]].concat());
    let rule = &jwt["resources"]["AWS::ElasticLoadBalancingV2::ListenerRule"]["443:1"]["spec"]["actions"][0];
    assert_eq!(rule["jwtValidationConfig"]["jwksEndpoint"], "https://idp/keys");
}
