//! The conditions of a rule, and its rewrites: host and path of the Ingress together with the annotations
//! `conditions.<name>` and `transforms.<name>` (reference: ingress §3.2, §3.3, §3.5).

use super::{Builder, Failed, Member};
use crate::{
    api::annotations::registry::ingress as keys,
    diagnostics::Code,
    model::{Condition, Transform},
    snapshot::{Backend, HttpPath},
};

/// Patterns or regular expressions of one field, gathered from the Ingress and its annotation.
#[derive(Default)]
struct Patterns {
    values: Vec<String>,
    regex_values: Vec<String>,
}

impl<'a> Builder<'a> {
    /// The conditions of the rule for a path: others in the order of the annotation, then the host, then the path.
    pub(super) fn conditions(
        &mut self,
        member: Member<'a>,
        host: &str,
        path: &HttpPath,
        field: &str,
    ) -> Result<Vec<Condition>, Failed> {
        let own = self.path_patterns(member, path, field);
        let annotated = self.annotated_conditions(member, &path.backend);
        let (mut paths, annotated) = (own?, annotated?);
        let mut hosts = Patterns::default();
        if !host.is_empty() {
            hosts.values.push(host.to_owned());
        }
        let mut conditions = Vec::new();
        for condition in annotated {
            match condition {
                Condition::HostHeader { values, regex_values } => hosts.extend(values, regex_values),
                Condition::PathPattern { values, regex_values } => paths.extend(values, regex_values),
                other => conditions.push(other),
            }
        }
        for (what, patterns) in [("hosts", &hosts), ("paths", &paths)] {
            if !patterns.values.is_empty() && !patterns.regex_values.is_empty() {
                let message = format!(
                    "the rule of {field} has {what} as patterns (`{}`) and as regular expressions (`{}`), and AWS takes one of the two",
                    patterns.values.join("`, `"),
                    patterns.regex_values.join("`, `")
                );
                let fix = format!("write all {what} of the rule as patterns, or all as regular expressions");
                let key = conditions_key(&path.backend).unwrap_or_else(|| field.to_owned());
                return Err(self.error(&member.ingress.name, Code::InvalidValue, &key, &message, &fix));
            }
        }
        if !hosts.is_empty() {
            conditions.push(Condition::HostHeader { values: hosts.values, regex_values: hosts.regex_values });
        }
        if !paths.is_empty() {
            conditions.push(Condition::PathPattern { values: paths.values, regex_values: paths.regex_values });
        }
        if conditions.is_empty() {
            conditions.push(Condition::PathPattern { values: vec!["/*".to_owned()], regex_values: vec![] });
        }
        Ok(conditions)
    }

    /// Returns the conditions of `conditions.<name>` for the rules that lead to a backend.
    pub(super) fn annotated_conditions(
        &mut self,
        member: Member<'a>,
        backend: &Backend,
    ) -> Result<Vec<Condition>, Failed> {
        let Backend::Service { name, .. } = backend else { return Ok(Vec::new()) };
        Ok(self.value(member.ingress, None, member.annotations.conditions(name))?.unwrap_or_default())
    }

    /// Returns the transforms of `transforms.<name>` for the rules that lead to a backend.
    pub(super) fn transforms(&mut self, member: Member<'a>, backend: &Backend) -> Result<Vec<Transform>, Failed> {
        let Backend::Service { name, .. } = backend else { return Ok(Vec::new()) };
        Ok(self.value(member.ingress, None, member.annotations.transforms(name))?.unwrap_or_default())
    }

    fn path_patterns(&mut self, member: Member<'a>, path: &HttpPath, field: &str) -> Result<Patterns, Failed> {
        let ingress = &member.ingress.name;
        let regular = self.value(member.ingress, None, member.annotations.bool(keys::USE_REGEX_PATH_MATCH))?;
        let text = path.path.as_str();
        let values = match path.path_type.as_deref() {
            Some("Exact" | "Prefix") if text.contains(['*', '?']) => {
                let message = format!("the path `{text}` has a wildcard, which its path type does not support");
                let fix = "use pathType ImplementationSpecific for a pattern, or remove `*` and `?`";
                return Err(self.error(ingress, Code::Unsupported, &format!("{field}.path"), &message, fix));
            }
            Some("Exact" | "Prefix" | "ImplementationSpecific") | None if text.is_empty() => vec![],
            Some("ImplementationSpecific") | None if regular == Some(true) => {
                // The API server has every path begin with a slash; the expression begins after it.
                let expression: String = text.chars().skip(1).collect();
                if expression.is_empty() {
                    let message = format!(
                        "with `alb.ingress.kubernetes.io/use-regex-path-match` the path `{text}` is the empty regular expression"
                    );
                    let fix = "write the expression after the slash (`/^\\/api\\/.*`), or use pathType Prefix";
                    return Err(self.error(ingress, Code::InvalidValue, &format!("{field}.path"), &message, fix));
                }
                return Ok(Patterns { values: vec![], regex_values: vec![expression] });
            }
            Some("Exact" | "ImplementationSpecific") | None => vec![text.to_owned()],
            Some("Prefix") if text == "/" => vec!["/*".to_owned()],
            Some("Prefix") => {
                let stem = text.strip_suffix('/').unwrap_or(text);
                vec![stem.to_owned(), format!("{stem}/*")]
            }
            Some(other) => {
                let message = format!("the path type `{other}` is not known");
                let fix = "use Exact, Prefix or ImplementationSpecific";
                return Err(self.error(ingress, Code::Unsupported, &format!("{field}.pathType"), &message, fix));
            }
        };
        Ok(Patterns { values, regex_values: vec![] })
    }
}

fn conditions_key(backend: &Backend) -> Option<String> {
    match backend {
        Backend::Service { name, .. } => Some(keys::CONDITIONS.with(name).to_string()),
        _ => None,
    }
}

impl Patterns {
    fn extend(&mut self, values: Vec<String>, regex_values: Vec<String>) {
        self.values.extend(values);
        self.regex_values.extend(regex_values);
    }

    fn is_empty(&self) -> bool {
        self.values.is_empty() && self.regex_values.is_empty()
    }
}
