//! Ingresses of albatross's classes: denied where aws-load-balancer-controller denies them, with warnings about every other
//! mistake.

use crate::api::annotations::registry::ingress as keys;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{MAX_WARNINGS, Rules, shortened};
use crate::{
    api::{
        admission::{AdmissionResponse, Request},
        kubernetes as wire,
    },
    desired::{
        self, BuildConfig,
        sources::ingress::{
            self,
            class::{CLASS_ANNOTATION, Ownership, ownership},
        },
    },
    diagnostics::{Code, Diagnostic, Severity},
    facts::Facts,
    model::{ObjectName, ObjectReference},
    snapshot::{Backend, Ingress, Snapshot, in_namespace},
};

const GROUP_NAME: &str = keys::GROUP_NAME.as_str();

pub(super) fn answer(request: &Request, snapshot: &Snapshot, config: &BuildConfig, rules: Rules) -> AdmissionResponse {
    let read = |value: &Value| {
        let mut ingress = serde_json::from_value::<wire::Ingress>(value.clone()).ok()?;
        ingress.metadata.namespace = Some(request.namespace.clone());
        Some(Ingress::from(ingress))
    };
    let Some(new) = read(&request.object) else { return AdmissionResponse::allowed() };
    // Nothing may hold up one that goes.
    if new.deleting {
        return AdmissionResponse::allowed();
    }
    let old = if request.creates() { None } else { read(&request.old_object) };
    // The controller's own writes of finalizers are not checked.
    let asks_the_same = |old: &Ingress| {
        (&old.annotations, &old.class, &old.rules, &old.default_backend, &old.hosts)
            == (&new.annotations, &new.class, &new.rules, &new.default_backend, &new.hosts)
    };
    if old.as_ref().is_some_and(asks_the_same) {
        return AdmissionResponse::allowed();
    }
    let around = around(snapshot, &new);
    match ownership(&new, &around, config) {
        Ownership::Foreign => AdmissionResponse::allowed(),
        // Its controller is not known, or not yet: the class may come a moment later.
        Ownership::Broken(diagnostic) => {
            AdmissionResponse { warnings: vec![warning(&new, &diagnostic)], ..AdmissionResponse::default() }
        }
        Ownership::Ours(_) => {
            if let Some(why) = denied(&new, old.as_ref(), rules) {
                return AdmissionResponse::denied(why);
            }
            AdmissionResponse { warnings: warnings(&new, &around, config), ..AdmissionResponse::default() }
        }
    }
}

/// Returns the part of the cluster that one Ingress is built from, with the Ingress as it is written.
fn around(snapshot: &Snapshot, ingress: &Ingress) -> Snapshot {
    let namespace = &ingress.name.namespace;
    let of_namespace = ObjectName::new("", namespace);
    let known = snapshot.namespaces.get(&of_namespace).cloned();
    Snapshot {
        ingresses: BTreeMap::from([(ingress.name.clone(), ingress.clone())]),
        ingress_classes: snapshot.ingress_classes.clone(),
        ingress_class_params: snapshot.ingress_class_params.clone(),
        namespaces: known.into_iter().map(|known| (of_namespace.clone(), known)).collect(),
        unreadable: snapshot.unreadable.clone(),
        services: in_namespace(&snapshot.services, namespace).map(|(n, s)| (n.clone(), s.clone())).collect(),
        ..Snapshot::default()
    }
}

fn denied(new: &Ingress, old: Option<&Ingress>, rules: Rules) -> Option<String> {
    let before = |key: &str| old.and_then(|old| old.annotations.get(key));
    if rules.no_class_annotation && new.annotations.contains_key(CLASS_ANNOTATION) && before(CLASS_ANNOTATION).is_none()
    {
        return Some(format!(
            "the annotation `{CLASS_ANNOTATION}` is switched off (--disable-ingress-class-annotation); set spec.ingressClassName"
        ));
    }
    if rules.no_group_annotation
        && let Some(group) = new.annotations.get(GROUP_NAME)
        && before(GROUP_NAME) != Some(group)
    {
        return Some(format!(
            "the annotation `{GROUP_NAME}` is switched off (--disable-ingress-group-name-annotation); let the class name the group"
        ));
    }
    let services: BTreeSet<&str> = new
        .rules
        .iter()
        .flat_map(|rule| &rule.paths)
        .filter_map(|path| match &path.backend {
            Backend::Service { name, .. } => Some(name.as_str()),
            Backend::Resource(..) | Backend::Nothing => None,
        })
        .collect();
    services.into_iter().find_map(|service| {
        let key = keys::CONDITIONS.with(service).to_string();
        let problem = unusable_conditions(new.annotations.get(&key)?)?;
        Some(format!("the annotation `{key}` cannot be used: {problem}"))
    })
}

/// Go finds fields whatever the case of their letters.
fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    let mut fields = value.as_object()?.iter();
    fields.find(|(key, value)| key.eq_ignore_ascii_case(name) && !value.is_null()).map(|(_, value)| value)
}

/// Returns the reason why aws-load-balancer-controller would refuse the conditions. The build is stricter, and warns.
fn unusable_conditions(text: &str) -> Option<String> {
    let conditions: Value = match serde_json::from_str(text) {
        Ok(conditions) => conditions,
        Err(error) => return Some(format!("it is not JSON ({error})")),
    };
    let Value::Array(conditions) = conditions else {
        return (!conditions.is_null()).then(|| "it is not a list of conditions".to_owned());
    };
    conditions.iter().enumerate().find_map(|(index, condition)| {
        let place = format!("condition {}", index + 1);
        let kind = field(condition, "field").and_then(Value::as_str).unwrap_or_default();
        let name = match kind {
            "host-header" => "hostHeaderConfig",
            "path-pattern" => "pathPatternConfig",
            "http-header" => "httpHeaderConfig",
            "http-request-method" => "httpRequestMethodConfig",
            "query-string" => "queryStringConfig",
            "source-ip" => "sourceIPConfig",
            _ => return None,
        };
        let Some(config) = field(condition, name) else { return Some(format!("{place} on `{kind}` needs `{name}`")) };
        let filled = |name: &str| field(config, name).and_then(Value::as_array).is_some_and(|list| !list.is_empty());
        if !filled("values") && !filled("regexValues") {
            return Some(format!("{place} on `{kind}` has no values"));
        }
        let unnamed = || field(config, "httpHeaderName").and_then(Value::as_str).is_none_or(str::is_empty);
        (kind == "http-header" && unnamed()).then(|| format!("{place} on `{kind}` needs `httpHeaderName`"))
    })
}

fn warnings(new: &Ingress, around: &Snapshot, config: &BuildConfig) -> Vec<String> {
    let mut found: Vec<Diagnostic> = Vec::new();
    for group in ingress::groups_of(new, around) {
        let membership = desired::membership(around, config, &group);
        if membership.members.is_empty() && membership.broken.is_empty() {
            continue;
        }
        let built = desired::build(around, config, &Facts::offline(), &group, &membership);
        let all = membership.broken.into_iter().chain(built.diagnostics);
        // A missing object may come a moment later, with the next object of the same manifest.
        let lasting = all.filter(|d| {
            !matches!(d.code, Code::MissingService | Code::MissingPort | Code::MissingSecret | Code::MissingTargetGroup)
        });
        for diagnostic in lasting {
            if !found.contains(&diagnostic) {
                found.push(diagnostic);
            }
        }
    }
    // The worst first.
    found.sort_by_key(|diagnostic| std::cmp::Reverse(diagnostic.severity));
    let more = found.len().saturating_sub(MAX_WARNINGS);
    let mut warnings: Vec<String> = found.iter().take(MAX_WARNINGS).map(|found| warning(new, found)).collect();
    if more > 0 {
        warnings.push(format!("and {more} more; `albatross plan` shows all"));
    }
    warnings
}

fn warning(ingress: &Ingress, diagnostic: &Diagnostic) -> String {
    let severity = match diagnostic.severity {
        Severity::Error => "it will not be served: ",
        Severity::Warning | Severity::Note => "",
    };
    let object = if diagnostic.object == ObjectReference::ingress(&ingress.name) {
        String::new()
    } else {
        format!("{}: ", diagnostic.object)
    };
    shortened(format!("{severity}{object}{diagnostic}"))
}
