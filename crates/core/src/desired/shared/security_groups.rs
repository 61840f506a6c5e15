//! The security groups of a load balancer: the groups that the user names, or one that the controller creates, and the one
//! that all load balancers of the cluster share.

use crate::{
    desired::{
        BuildConfig,
        diagnostic_sink::{DiagnosticSink, Failed},
    },
    diagnostics::{Code, Severity},
    facts::{FactQuery, Facts},
    model::{ObjectReference, SecurityGroupId, SecurityGroupReference, SecurityGroupRule, Source, Value},
};

/// The security groups of a load balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::desired) struct SecurityGroups {
    /// The security groups, in the requested order.
    pub(in crate::desired) all: Vec<SecurityGroupReference>,
    /// The group that the targets allow traffic from; `None` if the user manages their rules.
    pub(in crate::desired) source: Option<SecurityGroupReference>,
}

/// Returns the security group that all load balancers share: the one given by the flag, or else the one that the
/// controller manages.
pub(in crate::desired) fn backend(
    sink: &mut DiagnosticSink,
    config: &BuildConfig,
    facts: &Facts,
    object: ObjectReference,
) -> Result<Value<SecurityGroupId>, Failed> {
    if let Some(id) = &config.backend_security_group {
        return Ok(Value::Known(id.clone()));
    }
    sink.resolve(facts.backend_security_group(), FactQuery::BackendSecurityGroup, object, Code::Unsupported, "spec")
}

/// Returns the stack's own group, and the shared one unless a flag disables it.
pub(in crate::desired) fn managed(
    sink: &mut DiagnosticSink,
    config: &BuildConfig,
    facts: &Facts,
    object: ObjectReference,
) -> Result<SecurityGroups, Failed> {
    let mut all = vec![SecurityGroupReference::Managed];
    if config.enable_backend_security_group {
        all.push(SecurityGroupReference::SharedBackend(backend(sink, config, facts, object)?));
    }
    let source = all.last().cloned();
    Ok(SecurityGroups { all, source })
}

/// A request for security groups that the user manages.
pub(in crate::desired) struct GivenGroups<'r> {
    /// The object that requests them.
    pub(in crate::desired) object: ObjectReference,
    /// The groups by id or `Name` tag.
    pub(in crate::desired) names: Vec<String>,
    /// The field that names them.
    pub(in crate::desired) field: &'r str,
    /// True if the controller manages the rules that allow traffic to the targets; `None` leaves it to the flag.
    pub(in crate::desired) manage: Option<bool>,
    /// The diagnostic for a request for such rules, which need the shared group, while a flag disables that group.
    pub(in crate::desired) without_shared: WithoutShared<'r>,
    /// The number of placeholders for groups whose ids are known only after apply.
    pub(in crate::desired) placeholders: usize,
}

/// A diagnostic without its object and severity.
pub(in crate::desired) struct WithoutShared<'r> {
    pub(in crate::desired) code: Code,
    pub(in crate::desired) field: &'r str,
    pub(in crate::desired) message: &'r str,
    pub(in crate::desired) fix: &'r str,
}

/// The reason why the requested groups cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::desired) enum Unusable {
    /// The request is not valid, or its groups are not known.
    Request,
    /// The shared group is not known.
    Shared,
}

/// Returns the groups that the user names, and the shared one if the controller manages the rules that allow traffic to
/// the targets.
pub(in crate::desired) fn given(
    sink: &mut DiagnosticSink,
    config: &BuildConfig,
    facts: &Facts,
    request: GivenGroups<'_>,
) -> Result<SecurityGroups, Unusable> {
    let GivenGroups { object, names, field, manage, without_shared, placeholders } = request;
    let fact = facts.security_groups(&names);
    let found = sink.resolve(fact, FactQuery::SecurityGroups(names), object.clone(), Code::InvalidValue, field);
    let manage = manage.unwrap_or(config.enable_manage_backend_security_group_rules);
    let source = match (manage, config.enable_backend_security_group) {
        (false, _) => None,
        (true, true) => {
            let shared = backend(sink, config, facts, object).map_err(|Failed| Unusable::Shared)?;
            Some(SecurityGroupReference::SharedBackend(shared))
        }
        (true, false) => {
            let WithoutShared { code, field, message, fix } = without_shared;
            let Failed = sink.report(Severity::Error, object, code, field, message, fix);
            return Err(Unusable::Request);
        }
    };
    let mut all: Vec<SecurityGroupReference> = match found.map_err(|Failed| Unusable::Request)? {
        Value::Known(ids) => ids.into_iter().map(|id| SecurityGroupReference::Given(Value::Known(id))).collect(),
        Value::AfterApply(why) => {
            std::iter::repeat_n(SecurityGroupReference::Given(Value::AfterApply(why)), placeholders).collect()
        }
    };
    all.extend(source.clone());
    Ok(SecurityGroups { all, source })
}

/// Returns a rule that allows a source.
pub(in crate::desired) fn rule(protocol: &str, from: i32, to: i32, source: Source) -> SecurityGroupRule {
    SecurityGroupRule {
        protocol: protocol.to_owned(),
        from_port: Some(from),
        to_port: Some(to),
        source,
        description: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{facts::Fact, model::ObjectName};

    const SHARED: &str = "sg-shared";

    fn id(text: &str) -> SecurityGroupId {
        SecurityGroupId::new(text)
    }

    fn object() -> ObjectReference {
        ObjectReference::service(&ObjectName::new("shop", "web"))
    }

    fn facts() -> Facts {
        let mut facts = Facts::default();
        facts.security_groups.insert(vec!["edge".to_owned()], Fact::Known(vec![id("sg-edge")]));
        facts.backend_security_group = Some(Fact::Known(id(SHARED)));
        facts
    }

    fn request(names: &[&str], manage: Option<bool>) -> GivenGroups<'static> {
        GivenGroups {
            object: object(),
            names: names.iter().map(|&name| name.to_owned()).collect(),
            field: "groups",
            manage,
            without_shared: WithoutShared { code: Code::Unsupported, field: "manage", message: "m", fix: "f" },
            placeholders: 2,
        }
    }

    fn known(text: &str) -> SecurityGroupReference {
        SecurityGroupReference::Given(Value::Known(id(text)))
    }

    fn shared() -> SecurityGroupReference {
        SecurityGroupReference::SharedBackend(Value::Known(id(SHARED)))
    }

    #[test]
    fn given_groups() {
        let all = |all: Vec<SecurityGroupReference>, source| Ok(SecurityGroups { all, source });
        for (names, manage, flag, has_shared, expected, reported) in [
            (["edge"], None, false, true, all(vec![known("sg-edge")], None), None),
            (["edge"], None, true, true, all(vec![known("sg-edge"), shared()], Some(shared())), None),
            (["edge"], Some(false), true, true, all(vec![known("sg-edge")], None), None),
            (["edge"], Some(true), false, false, Err(Unusable::Request), Some("manage")),
            (["other"], None, false, true, Err(Unusable::Request), None),
        ] {
            let mut config = BuildConfig::new("east", Value::AfterApply("none"));
            config.enable_manage_backend_security_group_rules = flag;
            config.enable_backend_security_group = has_shared;
            let mut sink = DiagnosticSink::default();
            assert_eq!(given(&mut sink, &config, &facts(), request(&names, manage)), expected, "{names:?} {manage:?}");
            assert_eq!(sink.diagnostics.first().map(|found| found.field.as_str()), reported);
        }
    }

    #[test]
    fn groups_that_are_not_known() {
        let config = BuildConfig::new("east", Value::AfterApply("none"));
        let mut sink = DiagnosticSink::default();
        let found = given(&mut sink, &config, &Facts::offline(), request(&["a", "b"], None)).unwrap();
        let unknown = SecurityGroupReference::Given(Value::AfterApply("security groups are looked up in the VPC"));
        assert_eq!(found, SecurityGroups { all: vec![unknown.clone(), unknown], source: None });
        let asked = given(&mut sink, &config, &Facts::default(), request(&["a"], Some(true)));
        assert_eq!(asked, Err(Unusable::Shared));
        assert_eq!(sink.wants.len(), 2);
    }

    #[test]
    fn groups_of_the_stack() {
        let mut config = BuildConfig::new("east", Value::AfterApply("none"));
        let mut sink = DiagnosticSink::default();
        let own = SecurityGroupReference::Managed;
        let both = managed(&mut sink, &config, &facts(), object()).unwrap();
        assert_eq!(both, SecurityGroups { all: vec![own.clone(), shared()], source: Some(shared()) });
        config.enable_backend_security_group = false;
        let alone = managed(&mut sink, &config, &facts(), object()).unwrap();
        assert_eq!(alone, SecurityGroups { all: vec![own.clone()], source: Some(own) });
    }
}
