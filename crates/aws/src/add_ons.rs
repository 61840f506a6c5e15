//! The services that hold settings of load balancers: AWS WAF (WAFv2), with web ACLs, and Shield Advanced, with
//! protections. None of their calls is made for a load balancer whose Ingresses request nothing of them.

use std::collections::BTreeMap;

use aws_sdk_shield::types::SubscriptionState;
use aws_sdk_wafv2::types::Scope;

use super::{AwsError, AwsReader, AwsWriter};
use albatross_core::model::{Association, LoadBalancerArn, PROTECTION_NAME, Protection, WebAclArn};

/// The most web ACLs in one answer of ListWebACLs.
const PAGE: i32 = 100;

/// The code with which Shield reports that a protection, or the resource that it is for, does not exist.
const NOT_FOUND: &str = "ResourceNotFoundException";

impl AwsReader {
    /// Returns the regional web ACLs of the account by name (ListWebACLs).
    pub(crate) async fn web_acls(&self) -> Result<BTreeMap<String, WebAclArn>, AwsError> {
        let operation = "ListWebACLs";
        let call = self.wafv2.list_web_acls().scope(Scope::Regional).limit(PAGE);
        let mut found = BTreeMap::new();
        let mut marker: Option<String> = None;
        loop {
            let page = self.read(operation, || call.clone().set_next_marker(marker.clone()).send()).await?;
            found.extend(page.web_acls().iter().filter_map(|web_acl| {
                Some((web_acl.name()?.to_owned(), WebAclArn::new(web_acl.arn()?.to_owned()).ok()?))
            }));
            // WAF may set a marker on the last page too, after which it lists none.
            match page.next_marker().filter(|next| !next.is_empty() && !page.web_acls().is_empty()) {
                None => return Ok(found),
                Some(next) if marker.as_deref() == Some(next) => {
                    return Err(AwsError::incomplete(operation, "next page"));
                }
                Some(next) => marker = Some(next.to_owned()),
            }
        }
    }

    /// Returns the web ACL that is associated with a load balancer (GetWebACLForResource).
    pub(crate) async fn web_acl_of(&self, load_balancer: &LoadBalancerArn) -> Result<Association, AwsError> {
        let call = self.wafv2.get_web_acl_for_resource().resource_arn(load_balancer.as_str());
        let answer = self.read_of("GetWebACLForResource", load_balancer.as_str(), || call.clone().send()).await?;
        Ok(match answer.web_acl() {
            Some(web_acl) => Association::WebAcl(web_acl.arn().to_owned()),
            None => Association::None,
        })
    }

    /// Returns true if the account is subscribed to Shield Advanced (GetSubscriptionState).
    pub(crate) async fn is_subscribed_to_shield(&self) -> Result<bool, AwsError> {
        let call = self.shield.get_subscription_state();
        let answer = self.read("GetSubscriptionState", || call.clone().send()).await?;
        Ok(*answer.subscription_state() == SubscriptionState::Active)
    }

    /// Returns the protection of a load balancer (DescribeProtection).
    pub(crate) async fn protection_of(&self, load_balancer: &LoadBalancerArn) -> Result<Protection, AwsError> {
        let operation = "DescribeProtection";
        let call = self.shield.describe_protection().resource_arn(load_balancer.as_str());
        let answer = match self.read_of(operation, load_balancer.as_str(), || call.clone().send()).await {
            Err(error) if error.code() == Some(NOT_FOUND) => return Ok(Protection::None),
            answer => answer?,
        };
        let Some(protection) = answer.protection() else { return Ok(Protection::None) };
        let id = protection.id().ok_or_else(|| AwsError::incomplete(operation, "id of the protection"))?;
        Ok(Protection::Exists { id: id.to_owned(), name: protection.name().unwrap_or_default().to_owned() })
    }
}

impl AwsWriter {
    /// Associates a web ACL with a load balancer, in place of another one (AssociateWebACL).
    ///
    /// # Errors
    /// AWS's.
    pub async fn associate_web_acl(
        &self,
        load_balancer: &LoadBalancerArn,
        web_acl: &WebAclArn,
    ) -> Result<Association, AwsError> {
        let call = self.wafv2.associate_web_acl().resource_arn(load_balancer.as_str()).web_acl_arn(web_acl.as_str());
        self.write_of("AssociateWebACL", load_balancer.as_str(), || call.clone().send()).await?;
        Ok(Association::WebAcl(web_acl.as_str().to_owned()))
    }

    /// Ends the association of a load balancer with its web ACL (DisassociateWebACL).
    ///
    /// # Errors
    /// AWS's.
    pub async fn disassociate_web_acl(&self, load_balancer: &LoadBalancerArn) -> Result<Association, AwsError> {
        let call = self.wafv2.disassociate_web_acl().resource_arn(load_balancer.as_str());
        self.write_of("DisassociateWebACL", load_balancer.as_str(), || call.clone().send()).await?;
        Ok(Association::None)
    }

    /// Creates the protection of a load balancer, with the name by which the controller knows it (CreateProtection).
    ///
    /// # Errors
    /// AWS's.
    pub async fn create_protection(&self, load_balancer: &LoadBalancerArn) -> Result<Protection, AwsError> {
        let operation = "CreateProtection";
        let call = self.shield.create_protection().name(PROTECTION_NAME).resource_arn(load_balancer.as_str());
        let answer = self.write_of(operation, load_balancer.as_str(), || call.clone().send()).await?;
        let id = answer.protection_id().ok_or_else(|| AwsError::incomplete(operation, "id of the protection"))?;
        Ok(Protection::Exists { id: id.to_owned(), name: PROTECTION_NAME.to_owned() })
    }

    /// Deletes a protection; one that does not exist is deleted (DeleteProtection).
    ///
    /// # Errors
    /// AWS's.
    pub async fn delete_protection(&self, id: &str) -> Result<Protection, AwsError> {
        let call = self.shield.delete_protection().protection_id(id);
        match self.write_of("DeleteProtection", id, || call.clone().send()).await {
            Err(error) if error.code() != Some(NOT_FOUND) => Err(error),
            _ => Ok(Protection::None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{at, writer};
    use albatross_simulation::fake::{Call, Fake};

    const ARN: &str = "arn:aws:elasticloadbalancing:us-west-2:111122223333:loadbalancer/app/web/1";

    fn balancer() -> LoadBalancerArn {
        LoadBalancerArn::new(ARN)
    }

    fn web_acl(name: &str) -> WebAclArn {
        WebAclArn::new(format!("arn:aws:wafv2:us-west-2:111122223333:regional/webacl/{name}/1")).unwrap()
    }

    /// Returns the calls as `operation body`.
    fn sent(fake: &Fake) -> Vec<(String, Value)> {
        fake.calls().into_iter().map(|call| (call.action, serde_json::from_str(&call.body).unwrap())).collect()
    }

    fn refusal(code: &str, message: &str) -> (u16, String) {
        (400, json!({"__type": code, "message": message}).to_string())
    }

    async fn refusing(code: &'static str, message: &'static str) -> Fake {
        Fake::start(move |_| async move { refusal(code, message) }).await
    }

    fn text(error: &AwsError) -> String {
        format!("{error}; {}", error.fix().unwrap_or_else(|| "-".to_owned()))
    }

    #[tokio::test]
    async fn web_acls_are_listed_page_by_page() {
        let fake = Fake::start(|call: Call| async move {
            let asked: Value = serde_json::from_str(&call.body).unwrap();
            let entry = |name: &str| json!({"Name": name, "Id": "1", "ARN": web_acl(name).as_str(), "LockToken": "t"});
            let page = match asked["NextMarker"].as_str() {
                None => json!({"NextMarker": "strict", "WebACLs": [entry("edge"), entry("strict")]}),
                Some("strict") => json!({"NextMarker": "third", "WebACLs": [entry("third")]}),
                Some(_) => json!({"NextMarker": "third", "WebACLs": []}),
            };
            (200, page.to_string())
        })
        .await;
        let found = at(&fake.endpoint, None).web_acls().await.unwrap();
        assert_eq!(found, ["edge", "strict", "third"].map(|name| (name.to_owned(), web_acl(name))).into());
        let asked = |marker: Value| ("ListWebACLs".to_owned(), marker);
        assert_eq!(
            sent(&fake),
            [
                asked(json!({"Scope": "REGIONAL", "Limit": 100})),
                asked(json!({"Scope": "REGIONAL", "Limit": 100, "NextMarker": "strict"})),
                asked(json!({"Scope": "REGIONAL", "Limit": 100, "NextMarker": "third"})),
            ]
        );
    }

    #[tokio::test]
    async fn an_association_is_made_changed_and_removed() {
        let associated = Arc::new(Mutex::new(None::<String>));
        let state = Arc::clone(&associated);
        let fake = Fake::start(move |call: Call| {
            let mut associated = state.lock().unwrap();
            let body: Value = serde_json::from_str(&call.body).unwrap();
            let answer = match call.action.as_str() {
                "AssociateWebACL" => {
                    *associated = body["WebACLArn"].as_str().map(str::to_owned);
                    json!({})
                }
                "DisassociateWebACL" => {
                    *associated = None;
                    json!({})
                }
                _ => match &*associated {
                    Some(arn) => json!({"WebACL": {"ARN": arn, "Name": "n", "Id": "1", "DefaultAction": {"Allow": {}},
                        "VisibilityConfig": {"SampledRequestsEnabled": false, "CloudWatchMetricsEnabled": false, "MetricName": "n"}}}),
                    None => json!({}),
                },
            };
            async move { (200, answer.to_string()) }
        })
        .await;
        let aws = writer(at(&fake.endpoint, None));
        assert_eq!(aws.web_acl_of(&balancer()).await, Ok(Association::None));
        for name in ["edge", "strict"] {
            let made = aws.associate_web_acl(&balancer(), &web_acl(name)).await.unwrap();
            assert!(made.is(&web_acl(name)));
            assert_eq!(aws.web_acl_of(&balancer()).await, Ok(made));
        }
        assert_eq!(aws.disassociate_web_acl(&balancer()).await, Ok(Association::None));
        assert_eq!(aws.web_acl_of(&balancer()).await, Ok(Association::None));
        let writes: Vec<_> = sent(&fake).into_iter().filter(|(action, _)| !action.starts_with("Get")).collect();
        let associate =
            |name| ("AssociateWebACL".to_owned(), json!({"ResourceArn": ARN, "WebACLArn": web_acl(name).as_str()}));
        assert_eq!(
            writes,
            [associate("edge"), associate("strict"), ("DisassociateWebACL".to_owned(), json!({"ResourceArn": ARN}))]
        );
    }

    #[tokio::test]
    async fn a_protection_is_read_made_and_removed() {
        let fake = Fake::start(|call: Call| async move {
            match call.action.as_str() {
                "GetSubscriptionState" => (200, json!({"SubscriptionState": "ACTIVE"}).to_string()),
                "DescribeProtection" if call.body.contains("app/web/1") => {
                    (200, json!({"Protection": {"Id": "p-1", "Name": "by hand", "ResourceArn": ARN}}).to_string())
                }
                "CreateProtection" => (200, json!({"ProtectionId": "p-2"}).to_string()),
                "DeleteProtection" if call.body.contains("p-2") => (200, "{}".to_owned()),
                _ => refusal("com.amazonaws.shield#ResourceNotFoundException", "there is none"),
            }
        })
        .await;
        let aws = writer(at(&fake.endpoint, None));
        assert_eq!(aws.is_subscribed_to_shield().await, Ok(true));
        let exists = |id: &str, name: &str| Protection::Exists { id: id.to_owned(), name: name.to_owned() };
        assert_eq!(aws.protection_of(&balancer()).await, Ok(exists("p-1", "by hand")));
        assert_eq!(aws.protection_of(&LoadBalancerArn::new("arn:other")).await, Ok(Protection::None));
        fake.calls();
        let made = aws.create_protection(&balancer()).await.unwrap();
        assert_eq!((made.own_id(), &made), (Some("p-2"), &exists("p-2", "managed by aws-load-balancer-controller")));
        assert_eq!(aws.delete_protection("p-2").await, Ok(Protection::None));
        // It is gone already.
        assert_eq!(aws.delete_protection("p-3").await, Ok(Protection::None));
        assert_eq!(
            sent(&fake),
            [
                (
                    "CreateProtection".to_owned(),
                    json!({"Name": "managed by aws-load-balancer-controller", "ResourceArn": ARN})
                ),
                ("DeleteProtection".to_owned(), json!({"ProtectionId": "p-2"})),
                ("DeleteProtection".to_owned(), json!({"ProtectionId": "p-3"})),
            ]
        );
    }

    #[tokio::test]
    async fn errors_have_their_fixes() {
        let associate = |code, message| async move {
            let fake = refusing(code, message).await;
            let aws = writer(at(&fake.endpoint, None));
            aws.associate_web_acl(&balancer(), &web_acl("edge")).await.unwrap_err()
        };
        let error = associate(
            "WAFNonexistentItemException",
            "AWS WAF couldn't perform the operation because your resource doesn't exist.",
        )
        .await;
        assert!(error.is_refused());
        insta::assert_snapshot!(text(&error), @"AWS refuses AssociateWebACL: AWS WAF couldn't perform the operation because your resource doesn't exist (WAFNonexistentItemException); check the web ACL's ARN: it must be in the load balancer's account and region");
        let error = associate(
            "WAFUnavailableEntityException",
            "AWS WAF couldn't retrieve the resource that you requested. Retry your request.",
        )
        .await;
        assert!(error.is_transient());
        insta::assert_snapshot!(text(&error), @"AssociateWebACL has to wait: AWS WAF couldn't retrieve the resource that you requested. Retry your request (WAFUnavailableEntityException); -");
        let error = associate(
            "AccessDeniedException",
            "User: x is not authorized to perform: elasticloadbalancing:SetWebACL on resource: y",
        )
        .await;
        assert!(error.is_denied());
        insta::assert_snapshot!(text(&error), @"AWS does not allow AssociateWebACL: User: x is not authorized to perform: elasticloadbalancing:SetWebACL on resource: y (AccessDeniedException); allow the action `elasticloadbalancing:SetWebACL` in the IAM policy of the controller's role");
        let fake = refusing("AccessDeniedException", "no").await;
        let error = at(&fake.endpoint, None).web_acls().await.unwrap_err();
        insta::assert_snapshot!(text(&error), @"AWS does not allow ListWebACLs: no (AccessDeniedException); allow the action `wafv2:ListWebACLs` in the IAM policy of the controller's role");
        let error = at(&fake.endpoint, None).is_subscribed_to_shield().await.unwrap_err();
        insta::assert_snapshot!(text(&error), @"AWS does not allow GetSubscriptionState: no (AccessDeniedException); allow the action `shield:GetSubscriptionState` in the IAM policy of the controller's role");
        let fake = refusing("LimitsExceededException", "too many protections").await;
        let error = writer(at(&fake.endpoint, None)).create_protection(&balancer()).await.unwrap_err();
        insta::assert_snapshot!(text(&error), @"AWS refuses CreateProtection: too many protections (LimitsExceededException); ask AWS to raise the quota that it names, or use fewer");
    }

    #[tokio::test]
    async fn a_service_that_does_not_answer_is_asked_once_a_minute_for_all() {
        for (status, code, calls_each) in [(400, "AccessDeniedException", 1), (500, "WAFInternalErrorException", 2)] {
            let fake =
                Fake::start(
                    move |_: Call| async move { (status, json!({"__type": code, "message": "no"}).to_string()) },
                )
                .await;
            let aws = at(&fake.endpoint, None);
            let first = aws.web_acl_of(&balancer()).await.unwrap_err();
            assert_eq!(aws.web_acl_of(&balancer()).await, Err(first.clone()));
            assert_eq!(fake.actions(), vec!["GetWebACLForResource"; calls_each], "{code}");
            // A denial may be for one load balancer; an outage is for all, who are not told of another one.
            let other = aws.web_acl_of(&LoadBalancerArn::new("arn:other")).await.unwrap_err();
            assert_eq!(fake.actions().len(), usize::from(first.is_denied()), "{code}");
            if !first.is_denied() {
                let told = "GetWebACLForResource could not reach AWS in region us-west-2: there was no clear answer a short time ago";
                assert!(text(&other).starts_with(told), "{}", text(&other));
            }
            // Other operations may be allowed.
            assert!(aws.web_acls().await.is_err());
            assert_eq!(fake.actions(), vec!["ListWebACLs"; calls_each], "{code}");
            tokio::time::pause();
            tokio::time::advance(std::time::Duration::from_secs(61)).await;
            tokio::time::resume();
            assert_eq!(aws.web_acl_of(&balancer()).await, Err(first));
            assert_eq!(fake.actions(), vec!["GetWebACLForResource"; calls_each], "{code}");
        }
    }
}
