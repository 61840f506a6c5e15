//! Roles in other accounts: STS, and the target groups that only a role of their account reaches.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::{
    SimulatedAws,
    account::Session,
    wire::{Answer, Refusal, element, refusal, text},
};

/// The roles that the controller may assume, each with the external id that its trust policy requires.
pub(super) type Roles = BTreeMap<String, Option<String>>;

/// The beginning of the access keys of assumed roles, before the account.
const ACCESS_KEY: &str = "ASIAROLEOF";

fn account_of(arn: &str) -> Option<&str> {
    arn.split(':').nth(4)
}

impl SimulatedAws {
    /// Lets the controller assume a role of another account, with this external id if there is one. From the first time on, the
    /// target groups of the role's account are reached only in one of its roles.
    pub fn allow_role(&self, arn: &str, external_id: Option<&str>) {
        let account = &mut self.inner().account;
        account.other_accounts.extend(account_of(arn).map(str::to_owned));
        account.roles.insert(arn.to_owned(), external_id.map(str::to_owned));
    }

    /// Creates target groups in the account of a role that may be assumed, and returns their ARNs.
    pub fn add_abroad(&self, role: &str, external_id: Option<&str>, target_groups: usize) -> Vec<String> {
        self.allow_role(role, external_id);
        let (account, now) = (account_of(role).unwrap_or_default(), Instant::now());
        let mut inner = self.inner();
        (0..target_groups).map(|_| inner.account.add_foreign_target_group("abroad", account, now)).collect()
    }

    /// Has STS answer with this status, code and message from now on; `None` ends that.
    pub fn fail_sts(&self, answer: Option<(u16, String, String)>) {
        self.inner().account.sts_fails = answer;
    }

    /// Lets the controller assume a role no more. Credentials that it has stay good.
    pub fn refuse_role(&self, arn: &str) {
        let account = &mut self.inner().account;
        account.other_accounts.extend(account_of(arn).map(str::to_owned));
        account.roles.remove(arn);
    }
}

impl Session<'_> {
    pub(super) fn assume_role(&mut self) -> Answer {
        if let Some((status, code, message)) = self.account.sts_fails.clone() {
            return Err(Refusal { status, ..refusal(&code, message) });
        }
        let role = self.request.need("RoleArn")?;
        let session = self.request.need("RoleSessionName")?;
        let external_id = self.request.text("ExternalId");
        let is_allowed = match self.account.roles.get(role) {
            Some(Some(required)) => external_id == Some(required),
            Some(None) => true,
            None => false,
        };
        if !is_allowed {
            let message = format!("User: controller is not authorized to perform: sts:AssumeRole on resource: {role}");
            return Err(Refusal { status: 403, ..refusal("AccessDenied", message) });
        }
        let key = format!("{ACCESS_KEY}{}", account_of(role).unwrap_or_default());
        let credentials = text("AccessKeyId", key)
            + &text("SecretAccessKey", "secret-of-role")
            + &text("SessionToken", "token-of-role")
            + &text("Expiration", "2100-01-01T00:00:00Z");
        let user = text("Arn", format!("{role}/{session}")) + &text("AssumedRoleId", "AROA:session");
        Ok(element("Credentials", &credentials) + &element("AssumedRoleUser", &user))
    }

    /// Returns true if the caller's account is that of a resource.
    pub(super) fn reaches(&self, arn: &str) -> bool {
        let others = |account: &&str| self.account.other_accounts.contains(*account);
        let caller = self.request.caller.strip_prefix(ACCESS_KEY);
        caller == account_of(arn).filter(others)
    }

    /// Refuses a call about a target group of another account.
    pub(super) fn may_reach(&self, arn: &str) -> Result<(), Refusal> {
        if self.reaches(arn) {
            return Ok(());
        }
        let operation = &self.request.operation;
        let message =
            format!("User: caller is not authorized to perform: elasticloadbalancing:{operation} on resource: {arn}");
        Err(Refusal { status: 403, ..refusal("AccessDenied", message) })
    }
}
