//! `docs/permissions.md`, written from the list of actions so that the two cannot disagree.

use std::fmt::Write as _;

use super::{Caller, Feature, Scope, actions::ACTIONS};

const HEAD: &str = "# Permissions in AWS

This file is generated from `crates/core/src/permissions/actions.rs`; `cargo xtask generate` updates it, and with it
`config/iam-policy.json`, which is the policy with all of this but `certificate-requests` and `assume-role`. `albatross iam-policy --features ingress,service` prints one with less.

Conditions: *new* things are made with the tag `elbv2.k8s.aws/cluster`; *own* things have it; that tag itself is never changed. AWS calls the actions
marked so in the controller's name.

| feature | needed for |
|---|---|
";

/// Returns the document.
#[must_use]
pub fn render_markdown() -> String {
    let mut document = HEAD.to_owned();
    for feature in Feature::ALL {
        let _ = writeln!(document, "| `{}` | {} |", feature.name(), feature.explanation());
    }
    document.push_str("\n| action | on | features | why |\n|---|---|---|---|\n");
    for action in ACTIONS {
        let scopes: Vec<&str> = action.scopes.iter().map(|scope| words(*scope)).collect();
        let features: Vec<&str> = action.features.iter().map(|feature| feature.name()).collect();
        let caller = if action.caller == Caller::Aws { " (called by AWS)" } else { "" };
        let (name, reason) = (action.name, action.reason);
        let _ = writeln!(document, "| `{name}` | {} | {} | {reason}{caller} |", scopes.join("; "), features.join(", "));
    }
    document
}

fn words(scope: Scope) -> &'static str {
    match scope {
        Scope::Anything => "anything",
        Scope::ServiceLinkedRole => "the role of Elastic Load Balancing",
        Scope::NewSecurityGroup => "new security groups",
        Scope::TagsOfSecurityGroup | Scope::OwnSecurityGroup => "own security groups",
        Scope::New | Scope::NewTags => "new load balancers and target groups",
        Scope::Tags => "own load balancers and target groups",
        Scope::TagsOfListeners => "listeners and rules",
        Scope::Own => "own load balancers, target groups and listeners",
        Scope::TargetGroup => "target groups",
        Scope::NewCertificate => "new certificates",
        Scope::OwnCertificate => "own certificates",
        Scope::Cname => "CNAME records of hosted zones",
        Scope::Role => "roles",
    }
}
