//! New TargetGroupBindings get what they leave out from their target group, as with aws-load-balancer-controller: its ARN, target
//! type, address type, VPC and protocol. Nothing depends on that; the controller completes a binding in memory as well.

use serde_json::{Value, json};

use super::shortened;
use crate::{
    api::{
        admission::{AdmissionResponse, Request},
        crd,
    },
    targets::{TargetGroupFacts, TargetGroupKey, binding_owners::key_of, role::Role},
};

/// A target group whose properties a new binding leaves out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// The target group.
    pub key: TargetGroupKey,
    /// The role in which it is read, if it is in another account.
    pub role: Option<Role>,
}

/// Returns the target group that has to be read from AWS; `None` if the binding leaves nothing out, or names no target group
/// that could be read: other checks tell its author.
#[must_use]
pub fn lookup(request: &Request) -> Option<Lookup> {
    let spec = request.creates().then(|| spec_of(request)).flatten()?;
    let key = key_of(&spec)?;
    let role = Role::of(&spec).ok()?;
    let given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    let is_complete = matches!(key, TargetGroupKey::Arn(_))
        && spec.target_type.is_some()
        && spec.ip_address_type.is_some()
        && given(&spec.vpc_id)
        && spec.target_group_protocol.is_some();
    (!is_complete).then_some(Lookup { key, role })
}

fn spec_of(request: &Request) -> Option<crd::TargetGroupBindingSpec> {
    serde_json::from_value(request.object.get("spec")?.clone()).ok()
}

/// Returns the response to a request whose target group was read: what the binding leaves out is filled in. `None` is a target group
/// that does not exist; it may be created after the binding.
#[must_use]
pub fn answer(request: &Request, lookup: &Lookup, found: Option<&TargetGroupFacts>) -> AdmissionResponse {
    let Some(spec) = spec_of(request) else { return AdmissionResponse::allowed() };
    let Some(facts) = found else {
        let name = match &lookup.key {
            TargetGroupKey::Arn(arn) => arn.as_str(),
            TargetGroupKey::Name(name) => name,
        };
        return warned(format!(
            "there is no target group `{name}`, so nothing is registered yet; correct the name, or create the target group"
        ));
    };
    let Some(target_type) = facts.bindable_type() else {
        return AdmissionResponse::denied(format!(
            "the target group {} is of type {}, which takes neither pods nor nodes; bind a target group of type instance or ip",
            facts.arn, facts.target_type
        ));
    };
    let mut patch = Vec::new();
    let mut fill = |is_missing: bool, field: &str, value: Value| {
        if is_missing {
            patch.push(json!({ "op": "add", "path": format!("/spec/{field}"), "value": value }));
        }
    };
    let missing = |text: &Option<String>| text.as_ref().is_none_or(String::is_empty);
    fill(missing(&spec.target_group_arn), "targetGroupARN", json!(facts.arn.as_str()));
    fill(spec.target_type.is_none(), "targetType", json!(target_type));
    fill(spec.ip_address_type.is_none(), "ipAddressType", json!(facts.ip_address_type));
    if let Some(vpc) = &facts.vpc {
        fill(missing(&spec.vpc_id), "vpcID", json!(vpc.as_str()));
    }
    // A protocol that bindings do not have stays unnamed.
    if let Some(protocol) = facts.known_protocol() {
        fill(spec.target_group_protocol.is_none(), "targetGroupProtocol", json!(protocol));
    }
    AdmissionResponse { patch, ..AdmissionResponse::default() }
}

/// Returns the response to a request whose target group could not be read: the controller completes the binding later.
#[must_use]
pub fn unread(why: &str) -> AdmissionResponse {
    warned(format!("what the binding leaves out is not filled in, because its target group cannot be read now: {why}"))
}

fn warned(warning: String) -> AdmissionResponse {
    AdmissionResponse { warnings: vec![shortened(warning)], ..AdmissionResponse::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::crd::target_group_binding::IpAddressType,
        model::{TargetGroupArn, VpcId},
    };

    const ARN: &str = "arn:aws:elasticloadbalancing:us-west-2:1:targetgroup/cart/1";
    const ROLE: &str = "arn:aws:iam::111122223333:role/targets";

    fn request(operation: &str, fields: &Value) -> Request {
        let mut spec = json!({ "serviceRef": { "name": "cart", "port": 80 } });
        spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let object = json!({ "metadata": { "name": "new" }, "spec": spec });
        Request { operation: operation.to_owned(), object, ..Request::default() }
    }

    fn facts(target_type: &str, protocol: &str) -> TargetGroupFacts {
        TargetGroupFacts {
            arn: TargetGroupArn::new(ARN),
            target_type: target_type.to_owned(),
            ip_address_type: IpAddressType::Ipv6,
            vpc: Some(VpcId::new("vpc-12345678")),
            protocol: Some(protocol.to_owned()),
        }
    }

    fn all() -> Value {
        json!({ "targetGroupARN": ARN, "targetType": "ip", "ipAddressType": "ipv4", "vpcID": "vpc-1", "targetGroupProtocol": "TCP" })
    }

    #[test]
    fn aws_is_asked_only_about_new_bindings_that_leave_something_out() {
        let by_arn = || Some((TargetGroupKey::Arn(TargetGroupArn::new(ARN)), None));
        for (case, operation, fields, expected) in [
            ("all is there", "CREATE", all(), None),
            ("an update", "UPDATE", json!({ "targetGroupARN": ARN }), None),
            ("only the ARN", "CREATE", json!({ "targetGroupARN": ARN }), by_arn()),
            ("the ARN wins", "CREATE", json!({ "targetGroupARN": ARN, "targetGroupName": "other" }), by_arn()),
            (
                "a name",
                "CREATE",
                json!({ "targetGroupName": "cart" }),
                Some((TargetGroupKey::Name("cart".into()), None)),
            ),
            ("neither", "CREATE", json!({ "targetGroupARN": "" }), None),
            (
                "a role",
                "CREATE",
                json!({ "targetGroupARN": ARN, "iamRoleArnToAssume": ROLE }),
                Some((TargetGroupKey::Arn(TargetGroupArn::new(ARN)), Some(ROLE))),
            ),
            ("a role that is not valid", "CREATE", json!({ "targetGroupARN": ARN, "iamRoleArnToAssume": "x" }), None),
            ("a spec that cannot be read", "CREATE", json!({ "targetGroupARN": 1 }), None),
        ] {
            let found = lookup(&request(operation, &fields));
            let found = found.as_ref().map(|lookup| (lookup.key.clone(), lookup.role.as_ref().map(Role::arn)));
            assert_eq!(found, expected, "{case}");
        }
        assert_eq!(lookup(&Request { operation: "CREATE".to_owned(), ..Request::default() }), None);
    }

    fn answered(fields: &Value, found: Option<&TargetGroupFacts>) -> String {
        let request = request("CREATE", fields);
        let answer = answer(&request, &lookup(&request).unwrap(), found);
        let patch: Vec<String> = answer
            .patch
            .iter()
            .map(|operation| {
                format!("{} {} {}", operation["op"], operation["path"], operation["value"]).replace('"', "")
            })
            .collect();
        [answer.denied.map(|why| format!("denied: {why}")).into_iter().collect(), answer.warnings, patch]
            .concat()
            .join("\n")
    }

    #[test]
    fn what_is_left_out_is_filled_in_and_what_is_written_stays() {
        insta::assert_snapshot!(answered(&json!({ "targetGroupName": "cart" }), Some(&facts("ip", "TCP_UDP"))), @r"
        add /spec/targetGroupARN arn:aws:elasticloadbalancing:us-west-2:1:targetgroup/cart/1
        add /spec/targetType ip
        add /spec/ipAddressType ipv6
        add /spec/vpcID vpc-12345678
        add /spec/targetGroupProtocol TCP_UDP
        ");
        for field in ["targetType", "ipAddressType", "vpcID", "targetGroupProtocol"] {
            let mut fields = all();
            fields.as_object_mut().unwrap().remove(field);
            let filled = answered(&fields, Some(&facts("instance", "HTTPS")));
            assert!(filled.starts_with(&format!("add /spec/{field} ")) && filled.lines().count() == 1, "{filled}");
        }
        // A protocol of other load balancers is none of a binding's.
        let mut fields = all();
        fields.as_object_mut().unwrap().remove("targetGroupProtocol");
        assert_eq!(answered(&fields, Some(&facts("ip", "GENEVE"))), "");
    }

    #[test]
    fn what_cannot_be_filled_in_is_told() {
        let fields = json!({ "targetGroupName": "cart" });
        insta::assert_snapshot!(answered(&fields, None), @"there is no target group `cart`, so nothing is registered yet; correct the name, or create the target group");
        insta::assert_snapshot!(answered(&fields, Some(&facts("lambda", "HTTP"))), @"denied: the target group arn:aws:elasticloadbalancing:us-west-2:1:targetgroup/cart/1 is of type lambda, which takes neither pods nor nodes; bind a target group of type instance or ip");
        insta::assert_snapshot!(unread("no answer").warnings.join("\n"), @"what the binding leaves out is not filled in, because its target group cannot be read now: no answer");
    }
}
