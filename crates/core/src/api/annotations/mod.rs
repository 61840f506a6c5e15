//! The annotations of Ingresses and Services: the one list of them ([`ANNOTATIONS`]), the grammars of their values, the reader that
//! the build uses and the check that the linter uses. The parser, the linter and the documentation all come from the list.
//!
//! Everything here is pure: an object's annotations come in as a `BTreeMap<String, String>`, and nothing else is looked at.

mod actions;
mod authentication;
mod check;
mod conditions;
mod grammar;
pub mod json;
mod listen_ports;
mod markdown;
mod network_actions;
mod reader;
pub mod registry;
mod transforms;
pub mod values;

pub use actions::{Action, ForwardBackend, ForwardTarget, NamesInAction, ServicePort, Stickiness, parse_action};
pub use authentication::{
    CognitoProvider, JwtValidation, MutualAuthentication, OidcProvider, TrustStore, parse_cognito_provider,
    parse_jwt_validation, parse_mutual_authentication, parse_oidc_provider,
};
pub use check::{Finding, FindingKind, check};
pub use conditions::parse_conditions;
pub use grammar::{Fix, Grammar, JsonShape};
pub use listen_ports::parse_listen_ports;
pub use markdown::render_markdown;
pub use network_actions::{NetworkBackend, NetworkForward, NetworkForwardTarget, parse_network_action};
pub use reader::{AnnotationError, Annotations, Origin};
pub use registry::{
    ANNOTATIONS, Annotation, Example, Group, INGRESS_CLASS, INGRESS_PREFIX, Key, ObjectKind, Parameter, SERVICE_PREFIX,
    Status, WrittenKey, find,
};
pub use transforms::parse_transforms;

/// The longest part of a value that is repeated in a message, in characters.
const LONGEST_IN_MESSAGE: usize = 80;

/// A value as it may stand in a one-line message: control characters become spaces, and what is longer than 80 characters is cut.
fn shorten(value: &str) -> String {
    let line =
        |count: usize| value.chars().take(count).map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
    if value.chars().nth(LONGEST_IN_MESSAGE).is_none() {
        line(LONGEST_IN_MESSAGE)
    } else {
        line(LONGEST_IN_MESSAGE - 1) + "…"
    }
}

/// Words as a choice: "`a`", "`a` or `b`", "`a`, `b` or `c`".
fn choice(words: &[&str]) -> String {
    let quoted = words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>();
    match quoted.split_last() {
        None => String::new(),
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
    }
}
