//! Rules of a listener, in order (reference: ingress §3.1–§3.3, §3.7).

use super::{Builder, Failed, Member, cause, listeners::ListenerContext};
use crate::{
    build::{Code, tags},
    model::{Condition, Rule},
    snapshot::{HttpPath, Ingress},
};

impl<'a> Builder<'a> {
    pub(super) fn rules(&mut self, member: Member<'a>, _listener: ListenerContext) -> Result<Vec<Rule>, Failed> {
        let Member { ingress, .. } = member;
        let user_tags = self.user_tags(member, None);
        let mut failed = user_tags.is_err();
        let user_tags = user_tags.unwrap_or_default();
        let tags = tags::of_rule(&self.config.cluster, self.group, &self.config.default_tags, &user_tags);
        let mut rules = Vec::new();
        for entry in &ingress.rules {
            for (index, path) in in_order(&entry.paths) {
                let field = format!("spec.rules[{}].http.paths[{index}]", entry.index);
                let conditions = self.conditions(ingress, &entry.host, path, &field);
                let action = self.action(member, &path.backend, &format!("{field}.backend"));
                match (conditions, action) {
                    (Ok(conditions), Ok(action)) => {
                        rules.push(Rule { conditions, action, tags: tags.clone(), cause: cause(ingress, field) });
                    }
                    _ => failed = true,
                }
            }
        }
        if failed { Err(Failed) } else { Ok(rules) }
    }

    fn conditions(
        &mut self,
        ingress: &Ingress,
        host: &str,
        path: &HttpPath,
        field: &str,
    ) -> Result<Vec<Condition>, Failed> {
        let values = match path.path_type.as_deref() {
            Some("Exact" | "Prefix") if path.path.contains(['*', '?']) => {
                let message = format!("the path `{}` has a wildcard, which its path type does not know", path.path);
                let fix = "use pathType ImplementationSpecific for a pattern, or remove `*` and `?`";
                return Err(self.error(&ingress.name, Code::Unsupported, &format!("{field}.path"), &message, fix));
            }
            Some("Exact" | "ImplementationSpecific") | None => vec![path.path.clone()],
            Some("Prefix") if path.path == "/" => vec!["/*".to_owned()],
            Some("Prefix") => {
                let stem = path.path.strip_suffix('/').unwrap_or(&path.path);
                vec![stem.to_owned(), format!("{stem}/*")]
            }
            Some(other) => {
                let message = format!("the path type `{other}` is not known");
                let fix = "use Exact, Prefix or ImplementationSpecific";
                return Err(self.error(&ingress.name, Code::Unsupported, &format!("{field}.pathType"), &message, fix));
            }
        };
        let mut conditions = Vec::new();
        if !host.is_empty() {
            conditions.push(Condition::HostHeader { values: vec![host.to_owned()], regex_values: vec![] });
        }
        if !path.path.is_empty() {
            conditions.push(Condition::PathPattern { values, regex_values: vec![] });
        }
        if conditions.is_empty() {
            conditions.push(Condition::PathPattern { values: vec!["/*".to_owned()], regex_values: vec![] });
        }
        Ok(conditions)
    }
}

/// Exact paths, then prefixes from the longest to the shortest, then patterns; otherwise in the order of the manifest.
fn in_order(paths: &[HttpPath]) -> Vec<(usize, &HttpPath)> {
    let mut ordered: Vec<(usize, &HttpPath)> = paths.iter().enumerate().collect();
    ordered.sort_by_key(|(_, path)| match path.path_type.as_deref() {
        Some("Exact") => (0, 0),
        Some("Prefix") => (1, usize::MAX - path.path.len()),
        _ => (2, 0),
    });
    ordered
}
