use super::*;
use albatross_core::{
    dependents::Key,
    model::{ObjectName, StackId},
};

fn call(status_code: u16, error_code: &str) -> AwsCall {
    AwsCall {
        service: "EC2".to_owned(),
        operation: "DescribeSubnets".to_owned(),
        status_code,
        error_code: error_code.to_owned(),
    }
}

#[test]
fn exposition() {
    let metrics = Metrics::of_lease("lease");
    metrics.reconcile_error("ingress", "build_model_error");
    metrics.request("EC2", "DescribeSubnets", 0.25, Ok(()));
    metrics.request("EC2", "DescribeSubnets", 16.0, Ok(()));
    metrics.call("EC2", "DescribeSubnets", 16.5, 1, Ok(()));
    for failure in [
        (403, "UnauthorizedOperation"),
        (503, "RequestLimitExceeded"),
        (400, "RulesPerSecurityGroupLimitExceeded"),
        (400, "ValidationError"),
    ] {
        metrics.request("EC2", "DescribeSubnets", 0.25, Err(failure));
    }
    metrics.budget("elb_writes", Some(3.5), 0.0, true);
    metrics.budget("elb_writes", Some(3.25), 1.5, false);
    metrics.queue_depth(3);
    metrics.deregistered(Duration::from_millis(125));
    metrics.events_dropped(2);
    metrics.watch_silent("Pod", Duration::from_millis(4500));
    metrics.plan_step("CreateRule");
    metrics.drift_step("CreateRule");
    metrics.repeated_step("AddTags");
    metrics.deletions_blocked(1);
    metrics.webhook_denied("vingress.elbv2.k8s.aws");
    metrics.leader(true);
    metrics.reconciled("ingress", Some(("shop", "web")), Duration::from_secs(1), "success");
    metrics.cached("ingress", 7);
    let [namespace, service, target_group] = ["shop", "web", "targetgroup/a/1"].map(str::to_owned);
    metrics.target_groups([TargetGroupInfo { namespace, service, target_group }]);
    // Label sets come in any order, and a few of the buckets are enough.
    let text = metrics.encode().unwrap();
    let mut lines: Vec<&str> = text
        .lines()
        // Those of this process differ in each run.
        .filter(|line| !line.contains("process_"))
        .filter(|line| {
            !line.contains("_bucket{") || ["\"0.05\"", "\"0.25\"", "\"+Inf\""].iter().any(|le| line.contains(le))
        })
        .collect();
    lines
        .chunk_by_mut(|one, other| {
            one.starts_with("aws_api_requests_total") && other.starts_with("aws_api_requests_total")
        })
        .for_each(<[_]>::sort_unstable);
    insta::assert_snapshot!(lines.join("\n"), @r#"
    # HELP awslbc_controller_reconcile_errors Errors while reconciling, by what failed.
    # TYPE awslbc_controller_reconcile_errors counter
    awslbc_controller_reconcile_errors_total{controller="ingress",error_category="build_model_error"} 1
    # HELP awslbc_controller_reconcile_stage_duration Seconds that a stage of a reconcile took.
    # TYPE awslbc_controller_reconcile_stage_duration histogram
    awslbc_controller_reconcile_stage_duration_sum{controller="ingress",reconcile_stage="reconcile"} 1.0
    awslbc_controller_reconcile_stage_duration_count{controller="ingress",reconcile_stage="reconcile"} 1
    awslbc_controller_reconcile_stage_duration_bucket{le="0.05",controller="ingress",reconcile_stage="reconcile"} 0
    awslbc_controller_reconcile_stage_duration_bucket{le="+Inf",controller="ingress",reconcile_stage="reconcile"} 1
    # HELP controller_runtime_reconcile Passes over objects, by how they ended.
    # TYPE controller_runtime_reconcile counter
    controller_runtime_reconcile_total{controller="ingress",result="success"} 1
    # HELP controller_runtime_reconcile_time_seconds Seconds that a pass over an object took.
    # TYPE controller_runtime_reconcile_time_seconds histogram
    controller_runtime_reconcile_time_seconds_sum{controller="ingress"} 1.0
    controller_runtime_reconcile_time_seconds_count{controller="ingress"} 1
    controller_runtime_reconcile_time_seconds_bucket{le="0.05",controller="ingress"} 0
    controller_runtime_reconcile_time_seconds_bucket{le="+Inf",controller="ingress"} 1
    # HELP controller_runtime_reconcile_errors Passes over objects that ended with an error.
    # TYPE controller_runtime_reconcile_errors counter
    controller_runtime_reconcile_errors_total{controller="ingress"} 0
    # HELP awslbc_controller_cache_object_total Objects of the cluster that are known.
    # TYPE awslbc_controller_cache_object_total gauge
    awslbc_controller_cache_object_total{resource="ingress"} 7
    # HELP aws_target_group_info 1 for each target group of a binding.
    # TYPE aws_target_group_info gauge
    aws_target_group_info{namespace="shop",service="web",target_group="targetgroup/a/1"} 1
    # HELP aws_api_calls Calls of AWS APIs, by how their last request ended.
    # TYPE aws_api_calls counter
    aws_api_calls_total{service="EC2",operation="DescribeSubnets",status_code="200",error_code=""} 1
    # HELP aws_api_call_duration_seconds Seconds that a call of an AWS API took, with its retries and waits.
    # TYPE aws_api_call_duration_seconds histogram
    aws_api_call_duration_seconds_sum{service="EC2",operation="DescribeSubnets"} 16.5
    aws_api_call_duration_seconds_count{service="EC2",operation="DescribeSubnets"} 1
    aws_api_call_duration_seconds_bucket{le="0.05",service="EC2",operation="DescribeSubnets"} 0
    aws_api_call_duration_seconds_bucket{le="0.25",service="EC2",operation="DescribeSubnets"} 0
    aws_api_call_duration_seconds_bucket{le="+Inf",service="EC2",operation="DescribeSubnets"} 1
    # HELP aws_api_call_retries Requests of a call of an AWS API beyond the first.
    # TYPE aws_api_call_retries histogram
    aws_api_call_retries_sum{service="EC2",operation="DescribeSubnets"} 1.0
    aws_api_call_retries_count{service="EC2",operation="DescribeSubnets"} 1
    aws_api_call_retries_bucket{le="+Inf",service="EC2",operation="DescribeSubnets"} 1
    # HELP aws_api_requests Requests to AWS APIs.
    # TYPE aws_api_requests counter
    aws_api_requests_total{service="EC2",operation="DescribeSubnets",status_code="200",error_code=""} 2
    aws_api_requests_total{service="EC2",operation="DescribeSubnets",status_code="400",error_code="RulesPerSecurityGroupLimitExceeded"} 1
    aws_api_requests_total{service="EC2",operation="DescribeSubnets",status_code="400",error_code="ValidationError"} 1
    aws_api_requests_total{service="EC2",operation="DescribeSubnets",status_code="403",error_code="UnauthorizedOperation"} 1
    aws_api_requests_total{service="EC2",operation="DescribeSubnets",status_code="503",error_code="RequestLimitExceeded"} 1
    # HELP aws_api_request_duration_seconds Seconds until an AWS API answered a request.
    # TYPE aws_api_request_duration_seconds histogram
    aws_api_request_duration_seconds_sum{service="EC2",operation="DescribeSubnets"} 17.25
    aws_api_request_duration_seconds_count{service="EC2",operation="DescribeSubnets"} 6
    aws_api_request_duration_seconds_bucket{le="0.05",service="EC2",operation="DescribeSubnets"} 0
    aws_api_request_duration_seconds_bucket{le="0.25",service="EC2",operation="DescribeSubnets"} 5
    aws_api_request_duration_seconds_bucket{le="+Inf",service="EC2",operation="DescribeSubnets"} 6
    # HELP aws_api_call_permission_errors Requests to AWS APIs that the IAM policy does not allow.
    # TYPE aws_api_call_permission_errors counter
    aws_api_call_permission_errors_total{service="EC2",operation="DescribeSubnets",status_code="403",error_code="UnauthorizedOperation"} 1
    # HELP aws_api_call_service_limit_exceeded_errors Requests to AWS APIs that a quota of the account does not allow.
    # TYPE aws_api_call_service_limit_exceeded_errors counter
    aws_api_call_service_limit_exceeded_errors_total{service="EC2",operation="DescribeSubnets",status_code="400",error_code="RulesPerSecurityGroupLimitExceeded"} 1
    # HELP aws_api_call_throttled_errors Requests to AWS APIs that were throttled.
    # TYPE aws_api_call_throttled_errors counter
    aws_api_call_throttled_errors_total{service="EC2",operation="DescribeSubnets",status_code="503",error_code="RequestLimitExceeded"} 1
    # HELP aws_api_call_validation_errors Requests to AWS APIs that were refused as invalid.
    # TYPE aws_api_call_validation_errors counter
    aws_api_call_validation_errors_total{service="EC2",operation="DescribeSubnets",status_code="400",error_code="ValidationError"} 1
    # HELP albatross_aws_budget_rate Calls of AWS a second that a class of calls had at its last call; absent where that was no limit.
    # TYPE albatross_aws_budget_rate gauge
    albatross_aws_budget_rate{class="elb_writes"} 3.25
    # HELP albatross_aws_budget_waited_seconds Seconds that calls of AWS have waited for their turn.
    # TYPE albatross_aws_budget_waited_seconds counter
    albatross_aws_budget_waited_seconds_total{class="elb_writes"} 1.5
    # HELP albatross_aws_budget_throttles Calls of AWS that were throttled, by the class that AWS counts them in.
    # TYPE albatross_aws_budget_throttles counter
    albatross_aws_budget_throttles_total{class="elb_writes"} 1
    # HELP albatross_queue_depth Keys that are due and wait for a worker.
    # TYPE albatross_queue_depth gauge
    albatross_queue_depth 3
    # HELP albatross_deregistration_seconds Seconds from a change by which a target departs until AWS has accepted its deregistration.
    # TYPE albatross_deregistration_seconds histogram
    albatross_deregistration_seconds_sum 0.125
    albatross_deregistration_seconds_count 1
    albatross_deregistration_seconds_bucket{le="0.05"} 0
    albatross_deregistration_seconds_bucket{le="0.25"} 1
    albatross_deregistration_seconds_bucket{le="+Inf"} 1
    # HELP albatross_events_dropped Kubernetes events that were not written: an object had too many, or too many waited.
    # TYPE albatross_events_dropped counter
    albatross_events_dropped_total 2
    # HELP albatross_watch_silent_seconds Seconds since the API server last answered the watch of a kind: an event, a bookmark, a list or its end.
    # TYPE albatross_watch_silent_seconds gauge
    albatross_watch_silent_seconds{kind="Pod"} 4
    # HELP albatross_plan_steps Steps of plans that were carried out, by action.
    # TYPE albatross_plan_steps counter
    albatross_plan_steps_total{action="CreateRule"} 1
    # HELP awslbc_webhook_validation_failure Objects that a webhook has not admitted.
    # TYPE awslbc_webhook_validation_failure counter
    awslbc_webhook_validation_failure_total{webhook_name="vingress.elbv2.k8s.aws",error_category="denied"} 1
    # HELP albatross_drift_steps Steps that corrected changes found in AWS when it was compared again, by action.
    # TYPE albatross_drift_steps counter
    albatross_drift_steps_total{action="CreateRule"} 1
    # HELP albatross_repeated_steps Steps that were planned again after they were carried out, and now wait, by action.
    # TYPE albatross_repeated_steps counter
    albatross_repeated_steps_total{action="AddTags"} 1
    # HELP albatross_deletion_blocked Ingress groups and Services with a deletion that AWS does not carry out, and that was reported.
    # TYPE albatross_deletion_blocked gauge
    albatross_deletion_blocked 1
    # HELP albatross_leader 1 while this process is the leader, else 0.
    # TYPE albatross_leader gauge
    albatross_leader 1
    # HELP leader_election_master_status 1 while this process holds the lease, else 0.
    # TYPE leader_election_master_status gauge
    leader_election_master_status{name="lease"} 1
    # EOF
    "#);
}

#[test]
fn a_budget_without_a_limit_has_no_rate() {
    let metrics = Metrics::new();
    for (rate, shown) in [(None, false), (Some(9.0), true), (None, false)] {
        metrics.budget("elb_reads", rate, 0.0, false);
        assert_eq!(metrics.encode().unwrap().contains("albatross_aws_budget_rate{"), shown, "{rate:?}");
    }
}

#[test]
fn a_pass_over_a_key() {
    let metrics = Metrics::new();
    metrics.reconciled("ingress", None, Duration::from_secs(2), "success");
    metrics.reconciled("ingress", None, Duration::from_secs(1), "error");
    let text = metrics.encode().unwrap();
    for line in [
        r#"controller_runtime_reconcile_total{controller="ingress",result="error"} 1"#,
        r#"controller_runtime_reconcile_time_seconds_count{controller="ingress"} 2"#,
        r#"awslbc_controller_reconcile_stage_duration_sum{controller="ingress",reconcile_stage="reconcile"} 3.0"#,
        r#"awslbc_controller_reconcile_stage_duration_count{controller="ingress",reconcile_stage="reconcile"} 2"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}

#[test]
fn kinds_of_errors() {
    let cases = [
        (200, "", None),
        (0, "", None),
        (400, "TargetGroupNotFound", None),
        (401, "", Some(AwsErrorKind::Permission)),
        (403, "UnauthorizedOperation", Some(AwsErrorKind::Permission)),
        (400, "AccessDeniedException", Some(AwsErrorKind::Permission)),
        (400, "AuthFailure", Some(AwsErrorKind::Permission)),
        (400, "Throttling", Some(AwsErrorKind::Throttled)),
        (503, "RequestLimitExceeded", Some(AwsErrorKind::Throttled)),
        (400, "LimitExceededException", Some(AwsErrorKind::ServiceLimitExceeded)),
        (400, "VpcLimitExceeded", Some(AwsErrorKind::ServiceLimitExceeded)),
        (400, "ValidationError", Some(AwsErrorKind::Validation)),
    ];
    for (status, code, expected) in cases {
        assert_eq!(call(status, code).error_kind(), expected, "{status} {code}");
    }
}

#[test]
fn who_is_worked_on_most_is_shown_after_the_time_in_which_that_is_counted() {
    let metrics = Metrics::new();
    let start = metrics.talks.lock().unwrap().since;
    let talk = |name: &str, seconds: u64| {
        let talker = Talker { controller: "ingress", namespace: "shop".to_owned(), name: name.to_owned() };
        metrics.talk(talker, start + Duration::from_secs(seconds));
    };
    let shown = || -> Vec<String> {
        let text = metrics.encode().unwrap();
        let lines = text.lines().filter(|line| line.starts_with("awslbc_controller_top_talkers{"));
        let mut lines: Vec<String> = lines.map(str::to_owned).collect();
        lines.sort();
        lines
    };
    for (name, times) in [("a", 1), ("b", 3), ("c", 2), ("d", 2)] {
        (0..times).for_each(|_| talk(name, 1));
    }
    assert_eq!(shown(), [""; 0]);
    talk("next", 180);
    insta::assert_snapshot!(shown().join("\n"), @r#"
    awslbc_controller_top_talkers{controller="ingress",namespace="shop",name="b"} 3
    awslbc_controller_top_talkers{controller="ingress",namespace="shop",name="c"} 2
    awslbc_controller_top_talkers{controller="ingress",namespace="shop",name="d"} 2
    "#);
    // No pass happened in a whole window.
    talk("next", 600);
    assert_eq!(shown(), [""; 0]);
}

#[test]
fn the_queue_and_webhooks_are_shown_by_the_names_of_their_libraries() {
    let metrics = Metrics::new();
    let key = Key::Stack(StackId::Service(ObjectName::new("shop", "web")));
    let queue = metrics.of_queue();
    queue.added(&key);
    queue.taken(&key, Duration::from_millis(20));
    queue.worked(&key, Duration::from_secs(2), true);
    let of_services =
        QueueSize { waiting: 3, running: 2, unfinished: Duration::from_secs(7), longest: Duration::from_secs(4) };
    queue.measured(&[("service", of_services)].into());
    metrics.webhook_asked("/mutate-v1-pod").answered(200);
    let dropped = metrics.webhook_asked("/mutate-v1-service");
    let text = metrics.encode().unwrap();
    drop(dropped);
    let shown = |text: &str| {
        let names = ["workqueue_", "controller_runtime_active", "controller_runtime_webhook"];
        let mut lines: Vec<String> = text
            .lines()
            .filter(|line| names.iter().any(|name| line.starts_with(name)))
            .filter(|line| !line.contains("_bucket{") && !line.contains("latency_seconds_sum"))
            .map(str::to_owned)
            .collect();
        lines.sort_unstable();
        lines.join("\n")
    };
    insta::assert_snapshot!(shown(&text), @"");
    assert!(metrics.encode().unwrap().contains("webhook_requests_in_flight{webhook=\"/mutate-v1-service\"} 0"));
}
