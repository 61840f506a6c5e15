//! One pass over a key: over a stack, from its facts to its status, or over a TargetGroupBinding.

pub(crate) mod apply;
pub(crate) mod fact_subscribers;
pub(crate) mod pass;
mod stack;
pub(crate) mod step_history;
pub mod targets;
pub(crate) mod unserved;
pub(crate) mod waits;

pub(crate) use stack::plan_annotation::PlanAnnotations;
pub use waits::Holds;

/// An Ingress with its class and Service, for the tests of several modules.
#[cfg(test)]
const MANIFESTS: &str = "
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: alb}
spec: {controller: ingress.k8s.aws/alb}
---
apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop, uid: 8f14e45f-ceea-4672-a0f1-5e9d2b1c7a11}
spec: {type: NodePort, ports: [{port: 80, targetPort: 8080, nodePort: 31380}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: shop}
spec:
  ingressClassName: alb
  rules:
  - host: shop.example
    http: {paths: [{path: /api, pathType: Prefix, backend: {service: {name: api, port: {number: 80}}}}]}
";
