//! WAFv2 and Shield Advanced: web ACLs and protections of load balancers.

use serde_json::json;

use super::{
    account::{ACCOUNT, Balancer, REGION, Session},
    wire::{Answer, Refusal, refusal},
};

/// The names of the regional web ACLs of the account.
const WEB_ACLS: [&str; 2] = ["edge", "strict"];

/// Returns the ARN of a web ACL.
fn web_acl_arn(name: &str) -> String {
    format!("arn:aws:wafv2:{REGION}:{ACCOUNT}:regional/webacl/{name}/0a1b")
}

fn unknown() -> Refusal {
    let message = "AWS WAF couldn't perform the operation because your resource doesn't exist.";
    refusal("WAFNonexistentItemException", message)
}

fn no_protection() -> Refusal {
    refusal("ResourceNotFoundException", "The referenced protection does not exist.")
}

impl Session<'_> {
    pub(super) fn list_web_acls(&mut self) -> Answer {
        let (scope, after) = (self.request.need("Scope")?, self.request.text("NextMarker").unwrap_or_default());
        let limit = self.request.number("Limit")?.unwrap_or(usize::MAX).min(self.page_size);
        let names = WEB_ACLS.iter().filter(|name| scope == "REGIONAL" && **name > after).take(limit);
        let listed: Vec<_> = names.map(|name| json!({ "Name": name, "ARN": web_acl_arn(name) })).collect();
        // WAF sets a marker on the last page too.
        let last = listed.last().map(|web_acl| web_acl["Name"].clone());
        Ok(json!({ "WebACLs": listed, "NextMarker": last }).to_string())
    }

    pub(super) fn get_web_acl_for_resource(&mut self) -> Answer {
        let arn = self.request.need("ResourceArn")?;
        let Ok(balancer) = self.balancer(arn) else { return Err(unknown()) };
        let metrics =
            json!({ "SampledRequestsEnabled": false, "CloudWatchMetricsEnabled": false, "MetricName": "requests" });
        let web_acl = balancer.web_acl.as_ref().map(|arn| {
            json!({ "ARN": arn, "Id": "0a1b", "Name": "any", "DefaultAction": { "Allow": {} }, "VisibilityConfig": metrics })
        });
        Ok(json!({ "WebACL": web_acl }).to_string())
    }

    pub(super) fn associate_web_acl(&mut self) -> Answer {
        let web_acl = self.request.need("WebACLArn")?;
        let arn = self.request.need("ResourceArn")?;
        if !WEB_ACLS.iter().any(|name| web_acl_arn(name) == web_acl) {
            return Err(unknown());
        }
        let new = self.account.balancers.get(arn).is_some_and(|balancer| self.is_provisioning(balancer));
        let Ok(balancer) = self.balancer(arn) else { return Err(unknown()) };
        if new {
            let message = "AWS WAF couldn't retrieve the resource that you requested. Retry your request.";
            return Err(refusal("WAFUnavailableEntityException", message));
        }
        balancer.web_acl = Some(web_acl.to_owned());
        Ok("{}".to_owned())
    }

    pub(super) fn disassociate_web_acl(&mut self) -> Answer {
        let arn = self.request.need("ResourceArn")?;
        let Ok(balancer) = self.balancer(arn) else { return Err(unknown()) };
        balancer.web_acl = None;
        Ok("{}".to_owned())
    }

    pub(super) fn get_subscription_state(&mut self) -> Answer {
        Ok(json!({ "SubscriptionState": "ACTIVE" }).to_string())
    }

    pub(super) fn describe_protection(&mut self) -> Answer {
        let arn = self.request.need("ResourceArn")?;
        let found = self.balancer(arn).ok().and_then(|balancer| balancer.protection.clone());
        let (id, name) = found.ok_or_else(no_protection)?;
        Ok(json!({ "Protection": { "Id": id, "Name": name, "ResourceArn": arn } }).to_string())
    }

    pub(super) fn create_protection(&mut self) -> Answer {
        let (name, arn) = (self.request.need("Name")?.to_owned(), self.request.need("ResourceArn")?);
        let id = self.account.id();
        let Ok(balancer) = self.balancer(arn) else {
            return Err(refusal("ResourceNotFoundException", "The referenced resource does not exist."));
        };
        if balancer.protection.is_some() {
            return Err(refusal("ResourceAlreadyExistsException", "The referenced protection already exists."));
        }
        balancer.protection = Some((id.clone(), name));
        Ok(json!({ "ProtectionId": id }).to_string())
    }

    pub(super) fn delete_protection(&mut self) -> Answer {
        let id = self.request.need("ProtectionId")?;
        let is_it = |balancer: &&mut Balancer| balancer.protection.as_ref().is_some_and(|(known, _)| known == id);
        let balancer = self.account.balancers.values_mut().find(is_it).ok_or_else(no_protection)?;
        balancer.protection = None;
        Ok("{}".to_owned())
    }
}
