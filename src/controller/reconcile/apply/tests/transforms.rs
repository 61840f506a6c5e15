//! Transforms and forwards by weight at AWS's border: the calls when they come, change and go.

use super::*;
use albatross_core::{
    model::{
        Action, Condition, ObservedRule, Rewrite, Rule, RuleArn, Stickiness, TargetGroupReference, Transform,
        WeightedTargetGroup,
    },
    plan::ListenerReference,
};

fn rule(transforms: Vec<Transform>) -> Rule {
    let stack = wanted();
    let cause = stack.listeners[&80].rules[0].cause.clone();
    Rule {
        // Nor does the emulator of AWS know regular expressions.
        conditions: vec![Condition::PathPattern { values: vec![], regex_values: vec!["^/a".to_owned()] }],
        action: Action::FixedResponse { content_type: None, message_body: None, status_code: "200".to_owned() },
        authentication: None,
        transforms,
        tags: albatross_core::model::Tags::new(),
        cause,
    }
}

fn rewrite(regex: &str, replace: &str) -> Rewrite {
    Rewrite { regex: regex.to_owned(), replace: replace.to_owned() }
}

/// All parameters of the calls that concern rules, one a line.
fn reported(room: &Room) -> String {
    let mut lines = Vec::new();
    for call in room.fake.calls() {
        lines.push(call.action.clone());
        let shown = call.params.iter().filter(|(key, _)| !["Action", "Version"].contains(&key.as_str()));
        lines.extend(shown.map(|(key, value)| format!("  {key}={value}")));
    }
    lines.join("\n")
}

const ANSWERED: &str = "<Rules><member><RuleArn>arn:r/1</RuleArn><Priority>1</Priority><IsDefault>false</IsDefault>\
    <Actions><member><Type>fixed-response</Type><FixedResponseConfig><StatusCode>200</StatusCode></FixedResponseConfig></member></Actions>\
    <Transforms><member><Type>url-rewrite</Type><UrlRewriteConfig><Rewrites><member><Regex>^/a</Regex><Replace>/</Replace>\
    </member></Rewrites></UrlRewriteConfig></member></Transforms></member></Rules>";

/// AWS that has the listener of the stack, and one rule on it.
async fn room_with_rule() -> Room {
    let room =
        room(|call| ["CreateRule", "ModifyRule"].contains(&call.action.as_str()).then(|| elb(&call.action, ANSWERED)))
            .await;
    let (stack, nothing) = (wanted(), room.observe().await);
    room.apply(&plan::plan(&stack, &nothing).ready().unwrap()).await.unwrap();
    room.fake.calls();
    room
}

fn modify(transforms: Vec<Transform>, reset_transforms: bool) -> StepAction {
    let arn = RuleArn::new("arn:r/1");
    StepAction::ModifyRule { arn, port: 80, rule: Box::new(rule(transforms)), reset_transforms }
}

#[tokio::test]
async fn transforms_are_created_changed_and_reset() {
    let room = room_with_rule().await;
    let url = Transform::UrlRewrite(vec![rewrite("^/a", "/"), rewrite("b", "c")]);
    let host = Transform::HostHeaderRewrite(vec![rewrite("^(.*)$", "new.$1")]);
    let create = StepAction::CreateRule {
        listener: ListenerReference::Existing(albatross_core::model::ListenerArn::new("arn:l/80")),
        port: 80,
        index: 0,
        priority: 7,
        rule: Box::new(rule(vec![url.clone(), host])),
    };
    room.step(create).await.unwrap();
    insta::assert_snapshot!(reported(&room), @"
    CreateRule
      Actions.member.1.FixedResponseConfig.StatusCode=200
      Actions.member.1.Order=1
      Actions.member.1.Type=fixed-response
      Conditions.member.1.Field=path-pattern
      Conditions.member.1.PathPatternConfig.RegexValues.member.1=^/a
      ListenerArn=arn:l/80
      Priority=7
      Transforms.member.1.Type=url-rewrite
      Transforms.member.1.UrlRewriteConfig.Rewrites.member.1.Regex=^/a
      Transforms.member.1.UrlRewriteConfig.Rewrites.member.1.Replace=/
      Transforms.member.1.UrlRewriteConfig.Rewrites.member.2.Regex=b
      Transforms.member.1.UrlRewriteConfig.Rewrites.member.2.Replace=c
      Transforms.member.2.HostHeaderRewriteConfig.Rewrites.member.1.Regex=^(.*)$
      Transforms.member.2.HostHeaderRewriteConfig.Rewrites.member.1.Replace=new.$1
      Transforms.member.2.Type=host-header-rewrite
    ");
    room.step(modify(vec![url], false)).await.unwrap();
    insta::assert_snapshot!(reported(&room), @"
    ModifyRule
      Actions.member.1.FixedResponseConfig.StatusCode=200
      Actions.member.1.Order=1
      Actions.member.1.Type=fixed-response
      RuleArn=arn:r/1
      Transforms.member.1.Type=url-rewrite
      Transforms.member.1.UrlRewriteConfig.Rewrites.member.1.Regex=^/a
      Transforms.member.1.UrlRewriteConfig.Rewrites.member.1.Replace=/
      Transforms.member.1.UrlRewriteConfig.Rewrites.member.2.Regex=b
      Transforms.member.1.UrlRewriteConfig.Rewrites.member.2.Replace=c
    ");
    room.step(modify(vec![], true)).await.unwrap();
    insta::assert_snapshot!(reported(&room), @"
    ModifyRule
      Actions.member.1.FixedResponseConfig.StatusCode=200
      Actions.member.1.Order=1
      Actions.member.1.Type=fixed-response
      ResetTransforms=true
      RuleArn=arn:r/1
    ");
    // If there were none, none are removed.
    room.step(modify(vec![], false)).await.unwrap();
    insta::assert_snapshot!(reported(&room), @"
    ModifyRule
      Actions.member.1.FixedResponseConfig.StatusCode=200
      Actions.member.1.Order=1
      Actions.member.1.Type=fixed-response
      RuleArn=arn:r/1
    ");
}

#[tokio::test]
async fn transforms_that_aws_answers_are_known() {
    let room = room_with_rule().await;
    room.step(modify(vec![], false)).await.unwrap();
    let mut observed = room.observe().await;
    let listener = observed.load_balancers[0].listeners.get_or_insert_default().get_mut(&80).unwrap();
    let there: ObservedRule = listener.rules[0].clone();
    assert_eq!(there.transforms, [Transform::UrlRewrite(vec![rewrite("^/a", "/")])]);
    // So that the next plan removes what is not requested, in place where nothing else changes.
    listener.default_actions = vec![Action::Other("kept".to_owned())];
    let mut stack = wanted();
    let listener = stack.listeners.get_mut(&80).unwrap();
    listener.default_action = Action::Other("kept".to_owned());
    listener.rules[0] = Rule { conditions: there.conditions, ..rule(vec![]) };
    let plan = plan::plan(&stack, &observed).ready().unwrap();
    let steps = plan.steps();
    let resets = |step: &Step| matches!(step.action, StepAction::ModifyRule { reset_transforms: true, .. });
    assert!(steps.iter().any(resets), "{steps:?}");
}

#[tokio::test]
async fn a_transform_of_unknown_kind_is_not_sent() {
    let room = room_with_rule().await;
    let text = super::reported(room.step(modify(vec![Transform::Other("new-kind".to_owned())], false)).await);
    insta::assert_snapshot!(text, @"
    change a rule of listener 80 to: answer 200: ModifyRule could not be sent: a transform of unknown kind
    blame: Ingress shop/web generation 1, spec
    fix: -
    transient: false
    ");
    assert!(room.fake.actions().is_empty());
}

#[tokio::test]
async fn a_forward_by_weight_as_aws_takes_it() {
    let room = room_with_rule().await;
    let group = |arn: &str, weight| WeightedTargetGroup {
        group: TargetGroupReference::Foreign(TargetGroupArn::new(arn)),
        weight: Some(weight),
    };
    let action =
        |stickiness| Action::Forward { target_groups: vec![group("arn:t/1", 0), group("arn:t/2", 80)], stickiness };
    let sticky = Some(Stickiness { enabled: true, duration_seconds: Some(200) });
    for stickiness in [sticky, None] {
        let rule = Box::new(Rule { action: action(stickiness), ..rule(vec![]) });
        let modify = StepAction::ModifyRule { arn: RuleArn::new("arn:r/1"), port: 80, rule, reset_transforms: false };
        room.step(modify).await.unwrap();
    }
    insta::assert_snapshot!(reported(&room), @"
    ModifyRule
      Actions.member.1.ForwardConfig.TargetGroupStickinessConfig.DurationSeconds=200
      Actions.member.1.ForwardConfig.TargetGroupStickinessConfig.Enabled=true
      Actions.member.1.ForwardConfig.TargetGroups.member.1.TargetGroupArn=arn:t/1
      Actions.member.1.ForwardConfig.TargetGroups.member.1.Weight=0
      Actions.member.1.ForwardConfig.TargetGroups.member.2.TargetGroupArn=arn:t/2
      Actions.member.1.ForwardConfig.TargetGroups.member.2.Weight=80
      Actions.member.1.Order=1
      Actions.member.1.Type=forward
      RuleArn=arn:r/1
    ModifyRule
      Actions.member.1.ForwardConfig.TargetGroups.member.1.TargetGroupArn=arn:t/1
      Actions.member.1.ForwardConfig.TargetGroups.member.1.Weight=0
      Actions.member.1.ForwardConfig.TargetGroups.member.2.TargetGroupArn=arn:t/2
      Actions.member.1.ForwardConfig.TargetGroups.member.2.Weight=80
      Actions.member.1.Order=1
      Actions.member.1.Type=forward
      RuleArn=arn:r/1
    ");
}
