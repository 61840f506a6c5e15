//! The rules of ELB v2.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    account::{Rule, Session, not_found, not_simulated, parent},
    actions::{action_xml, condition_xml, read_action, read_conditions},
    wire::{Answer, Refusal, Request, members, refusal, text},
};
use albatross_core::model::Action;

fn invalid(message: impl Into<String>) -> Refusal {
    refusal("ValidationError", message)
}

impl Rule {
    fn xml(&self) -> String {
        [
            text("RuleArn", &self.arn),
            text("Priority", self.priority),
            members("Conditions", self.conditions.iter().map(condition_xml)),
            members("Actions", [action_xml(&self.action)]),
            text("IsDefault", false),
        ]
        .concat()
    }
}

/// Refuses transforms, which are not simulated.
fn without_transforms(request: &Request) -> Result<(), Refusal> {
    let asks = request.has("Transforms") || request.text("ResetTransforms").is_some();
    if asks { Err(not_simulated("transforms")) } else { Ok(()) }
}

fn default_rule(listener: &str, action: &Action<String>) -> String {
    [
        text("RuleArn", default_rule_arn(listener)),
        text("Priority", "default"),
        members("Conditions", []),
        members("Actions", [action_xml(action)]),
        text("IsDefault", true),
    ]
    .concat()
}

fn default_rule_arn(listener: &str) -> String {
    format!("{}/0000000000000000", listener.replacen(":listener/", ":listener-rule/", 1))
}

fn checked_priority(priority: Option<i32>) -> Result<u32, Refusal> {
    let priority = priority.ok_or_else(|| invalid("A rule must have a priority"))?;
    u32::try_from(priority).map_err(|_| invalid(format!("Priority '{priority}' is not valid")))
}

impl Session<'_> {
    pub(super) fn create_rule(&mut self) -> Answer {
        let listener = self.request.need("ListenerArn")?;
        let priority = checked_priority(self.request.within("Priority", 1..=50000)?)?;
        let conditions = read_conditions(self.request)?;
        without_transforms(self.request)?;
        let action = read_action(self.request, "Actions")?;
        let action = action.ok_or_else(|| invalid("A rule must have an action"))?;
        let tags = self.wanted_tags()?;
        let (balancer, protocol) = self.whereabouts(listener)?;
        if !matches!(protocol.as_str(), "HTTP" | "HTTPS") {
            let message = format!("Rules are not supported for listeners with the protocol '{protocol}'");
            return Err(refusal("OperationNotPermitted", message));
        }
        if self.listener(listener)?.rules.values().any(|rule| rule.priority == priority) {
            return Err(refusal("PriorityInUse", format!("Priority '{priority}' is currently in use")));
        }
        let own = self.account.balancers.get(&balancer).ok_or_else(|| not_found(&balancer))?;
        let rules: usize = own.listeners.values().map(|l| l.rules.len()).sum();
        if rules >= self.account.limits.rules {
            let message = "You've reached the limit on the number of rules per load balancer";
            return Err(refusal("TooManyRules", message));
        }
        self.may_act(&balancer, &protocol, &action)?;
        self.note_use(&action);
        let above = listener.replacen(":listener/", ":listener-rule/", 1);
        let arn = format!("{above}/{}", self.account.id());
        let rule = Rule { arn: arn.clone(), priority, conditions, action, tags, made: self.now };
        let answer = members("Rules", [rule.xml()]);
        self.listener(listener)?.rules.insert(arn, rule);
        Ok(answer)
    }

    pub(super) fn describe_rules(&mut self) -> Answer {
        let arns = self.request.list("RuleArns");
        let mut found = BTreeMap::new();
        match (self.request.text("ListenerArn"), arns.is_empty()) {
            (Some(arn), true) => {
                let listener = self.listener(arn)?.clone();
                found.insert(default_rule_arn(arn), default_rule(arn, &listener.default_action));
                let listed = listener.rules.values().filter(|rule| self.lists(rule.made));
                found.extend(listed.map(|rule| (rule.arn.clone(), rule.xml())));
            }
            (None, false) => {
                for arn in arns {
                    found.insert(arn.to_owned(), self.rule(arn)?.xml());
                }
            }
            _ => return Err(invalid("You must specify either listener rule ARNs or a listener ARN")),
        }
        let (page, next) = self.page(found)?;
        Ok(members("Rules", page) + &next)
    }

    pub(super) fn modify_rule(&mut self) -> Answer {
        let arn = self.request.need("RuleArn")?;
        without_transforms(self.request)?;
        let action = read_action(self.request, "Actions")?;
        let conditions = self.request.has("Conditions").then(|| read_conditions(self.request)).transpose()?;
        self.rule(arn)?;
        let listener = parent(arn).ok_or_else(|| not_found(arn))?;
        let (balancer, protocol) = self.whereabouts(&listener)?;
        if let Some(action) = &action {
            self.may_act(&balancer, &protocol, action)?;
            self.note_use(action);
        }
        let rule = self.rule(arn)?;
        if let Some(action) = action {
            rule.action = action;
        }
        if let Some(conditions) = conditions {
            rule.conditions = conditions;
        }
        Ok(members("Rules", [rule.xml()]))
    }

    pub(super) fn delete_rule(&mut self) -> Answer {
        let arn = self.request.need("RuleArn")?;
        self.rule(arn)?;
        let listener = parent(arn).ok_or_else(|| not_found(arn))?;
        self.account.listener_mut(&listener).ok_or_else(|| not_found(arn))?.rules.remove(arn);
        Ok(String::new())
    }

    /// Sets all priorities at once: the named rules may swap theirs.
    pub(super) fn set_rule_priorities(&mut self) -> Answer {
        let mut wanted = BTreeMap::new();
        for item in self.request.items("RulePriorities") {
            let arn = self.request.need(&format!("{item}.RuleArn"))?;
            let priority = checked_priority(self.request.within(&format!("{item}.Priority"), 1..=50000)?)?;
            if wanted.insert(arn, priority).is_some() {
                return Err(invalid(format!("Rule '{arn}' is there more than once")));
            }
        }
        if wanted.is_empty() {
            return Err(invalid("At least one rule must be specified"));
        }
        let mut taken = BTreeSet::new();
        for (arn, priority) in &wanted {
            self.rule(arn)?;
            let listener = parent(arn).ok_or_else(|| not_found(arn))?;
            let rules = &self.listener(&listener)?.rules;
            let others = rules.values().filter(|rule| !wanted.contains_key(rule.arn.as_str()));
            if others.into_iter().any(|rule| rule.priority == *priority) || !taken.insert((listener, *priority)) {
                return Err(refusal("PriorityInUse", format!("Priority '{priority}' is currently in use")));
            }
        }
        let mut rules = Vec::new();
        for (arn, priority) in wanted {
            let rule = self.rule(arn)?;
            rule.priority = priority;
            rules.push(rule.xml());
        }
        Ok(members("Rules", rules))
    }
}
