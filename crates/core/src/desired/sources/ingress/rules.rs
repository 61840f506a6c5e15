//! Rules of a listener, in order (reference: ingress §3.1, §3.7).

use super::{Builder, Failed, Member, cause, listeners::ListenerContext, split};
use crate::{diagnostics::Code, model::Rule, snapshot::HttpPath};

impl<'a> Builder<'a> {
    pub(super) fn rules(&mut self, member: Member<'a>, listener: ListenerContext) -> Result<Vec<Rule>, Failed> {
        let Member { ingress, .. } = member;
        let user_tags = self.user_tags(member, None);
        let mut failed = user_tags.is_err();
        let user_tags = user_tags.unwrap_or_default();
        let tags = self.group.rule_tags(&self.config.cluster, &self.config.default_tags, &user_tags);
        let tags = self.config.of_listeners(tags);
        let mut rules = Vec::new();
        for entry in &ingress.rules {
            for (index, path) in in_order(&entry.paths) {
                let field = format!("spec.rules[{}].http.paths[{index}]", entry.index);
                let conditions = self.conditions(member, &entry.host, path, &field);
                let transforms = self.transforms(member, &path.backend);
                let action = self.action(member, &path.backend, &format!("{field}.backend"));
                let action = action.and_then(|action| self.answer(member, listener, action));
                match (conditions, transforms, action) {
                    (Ok(conditions), Ok(transforms), Ok((action, authentication))) => {
                        let (tags, cause) = (tags.clone(), cause(ingress, field));
                        rules.push(Rule { conditions, action, authentication, transforms, tags, cause });
                    }
                    _ => failed = true,
                }
            }
        }
        if failed { Err(Failed) } else { self.within_limits(rules) }
    }

    /// Returns the same rules; a rule that exceeds what AWS accepts in one is split into several.
    fn within_limits(&mut self, rules: Vec<Rule>) -> Result<Vec<Rule>, Failed> {
        let mut within = Vec::new();
        let mut failed = false;
        for rule in rules {
            let cause = rule.cause.clone();
            match split::split(rule) {
                Ok(parts) => within.extend(parts),
                Err(many) => {
                    self.error(&cause.object.name, Code::Unsupported, &cause.field, &many.message(), many.fix());
                    failed = true;
                }
            }
        }
        if failed { Err(Failed) } else { Ok(within) }
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
