//! TargetGroupBindings: the pods or nodes behind a Service become the targets of a target group, and the security groups
//! of nodes and pods let the load balancer in.

pub mod endpoints;
pub mod node_rules;
pub mod plan;
