//! The sources of credentials: the ServiceAccount's role, EKS Pod Identity, a profile. They are renewed in time with the
//! token that there is then, and where there are none, the message says what is missing and how to fix it, word for word.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::lab::Lab;
use e2e::lab::processes::free_ports;
use e2e::lab::proxy::{Calls, Faults};
use e2e::lab::stand_in::{Answer, StandIn};
use e2e::lab::wait_until;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use crate::support::{
    SOON, Stage, WITH_RETRIES, apply, ingress, leave, rules_become, run, served, service, start_that_fails,
};

const ROLE: &str = "arn:aws:iam::123456789012:role/albatross";
const ASSUME: &str = "sts:AssumeRoleWithWebIdentity";
/// Only the claims count: {"iss":"https://oidc.example/id/DEMO","sub":"system:serviceaccount:kube-system:albatross",
/// "aud":["kubernetes"],"exp":5}
const TOKEN: &str = "e30.eyJpc3MiOiJodHRwczovL29pZGMuZXhhbXBsZS9pZC9ERU1PIiwic3ViIjoic3lzdGVtOnNlcnZpY2VhY2NvdW50Omt1YmUtc3lzdGVtOmFsYmF0cm9zcyIsImF1ZCI6WyJrdWJlcm5ldGVzIl0sImV4cCI6NX0.c2lnbmF0dXJl";

// Working.

#[test]
fn the_role_of_the_service_account_is_renewed_before_its_end_with_the_token_that_there_is_then() {
    run(async {
        let mut stage = Stage::without_controller().await?;
        let namespace = "irsa";
        stage.proxy.reset();
        stage.proxy.keep_bodies(true);
        // Credentials are renewed up to two minutes before their end.
        let last = Duration::from_secs(70);
        stage.proxy.set_faults(Faults { credentials_last: Some(last), ..Faults::default() });
        let file = stage.directory().join("token");
        fs::write(&file, "first")?;
        let home = tempfile::tempdir()?;
        let environment = [
            ("HOME", text(home.path())?),
            ("AWS_ROLE_ARN", ROLE),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", text(&file)?),
            ("AWS_ENDPOINT_URL", &stage.proxy.url),
        ];
        let mut controller = stage.controller_in(&environment, &[])?;
        controller.ready(SOON).await?;
        stage.controller = Some(controller);
        let first = tokens(&stage);
        ensure!(first.iter().all(|(_, token, role)| token == "first" && role == ROLE), "STS was asked {first:?}");
        let (began, ..) = first.first().context("STS was not asked")?;

        fs::write(&file, "second")?;
        stage.cluster.namespace(namespace).await?;
        apply(&stage, namespace, &[service("web"), ingress("web", &[], &["web"])]).await?;
        served(&stage, namespace, "web").await?;
        let mut edit = 0;
        wait_until(SOON, "the credentials to be renewed with the second token", async || {
            // Something to call AWS for.
            edit += 1;
            let tags = format!("edit={edit}");
            let annotation = [("alb.ingress.kubernetes.io/tags", tags.as_str())];
            apply(&stage, namespace, &[ingress("web", &annotation, &["web"])]).await?;
            Ok(tokens(&stage).iter().any(|(_, token, _)| token == "second"))
        })
        .await?;
        let all = tokens(&stage);
        let (renewed, ..) = all.iter().find(|(_, token, _)| token == "second").context("no second token")?;
        ensure!(*renewed < *began + last, "they were renewed after they had ended");
        rules_become(&stage, namespace, "web", &["/web forward"]).await?;
        ensure!(stage.proxy.counts().failed.is_empty(), "calls failed: {:?}", stage.proxy.counts().failed);
        stage.proxy.keep_bodies(false);
        stage.proxy.set_faults(Faults::default());
        leave(stage, namespace).await
    });
}

#[test]
fn credentials_that_cannot_be_renewed_are_used_to_their_end_and_then_missed_aloud() {
    run(async {
        let mut stage = Stage::without_controller().await?;
        let namespace = "denied-role";
        stage.proxy.reset();
        let last = Some(Duration::from_secs(25));
        stage.proxy.set_faults(Faults { credentials_last: last, ..Faults::default() });
        let file = stage.directory().join("token");
        fs::write(&file, TOKEN)?;
        let home = tempfile::tempdir()?;
        let environment = [
            ("HOME", text(home.path())?),
            ("AWS_ROLE_ARN", ROLE),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", text(&file)?),
            ("AWS_ENDPOINT_URL", &stage.proxy.url),
        ];
        let mut controller = stage.controller_in(&environment, &[])?;
        controller.ready(SOON).await?;
        stage.controller = Some(controller);
        stage.cluster.namespace(namespace).await?;
        apply(&stage, namespace, &[service("web"), service("api"), ingress("web", &[], &["web"])]).await?;
        served(&stage, namespace, "web").await?;
        rules_become(&stage, namespace, "web", &["/web forward"]).await?;

        let before = stage.controller_log(usize::MAX).lines().count();
        stage.proxy.set_faults(Faults { deny: Some(Calls::named(ASSUME)), ..Faults::default() });
        // The old credentials stay in use.
        apply(&stage, namespace, &[ingress("web", &[], &["web", "api"])]).await?;
        rules_become(&stage, namespace, "web", &["/web forward", "/api forward"]).await?;
        let cure = "let the role's trust policy allow `sts:AssumeRoleWithWebIdentity` to the identity provider of https://oidc.example/id/DEMO, for the subject `system:serviceaccount:kube-system:albatross`; check the role's name and account, too";
        let reported = format!(
            "system:serviceaccount:kube-system:albatross may not assume the role {ROLE}: User is not authorized to perform: {ASSUME} (AccessDenied); {cure}"
        );
        let said = format!("AWS credentials cannot be renewed: {reported}; the old ones are used until they expire");
        let log = stage.controller_log(usize::MAX);
        ensure!(log.lines().skip(before).any(|line| line.contains(&said)), "the log has no line {said}");

        let words = format!("no valid AWS credentials for DescribeTags: {reported}");
        wait_until(SOON, "the credentials to be missed aloud", async || {
            let tags = format!("edit={}", Timestamp::now().as_second());
            let annotation = [("alb.ingress.kubernetes.io/tags", tags.as_str())];
            apply(&stage, namespace, &[ingress("web", &annotation, &["web", "api"])]).await?;
            let events = stage.cluster.events(namespace).await?;
            let messages: Vec<&str> = events.iter().map(|event| event.message.as_str()).collect();
            let (_, end) = words.split_once("DescribeTags").context("no operation")?;
            Ok(messages
                .iter()
                .any(|message| message.contains("no valid AWS credentials for ") && message.ends_with(end)))
        })
        .await?;
        stage.proxy.set_faults(Faults::default());
        apply(&stage, namespace, &[ingress("web", &[], &["web"])]).await?;
        wait_until(WITH_RETRIES, "the Ingress to be worked on again", async || {
            rules_become(&stage, namespace, "web", &["/web forward"]).await.map(|()| true)
        })
        .await?;
        leave(stage, namespace).await
    });
}

#[test]
fn pod_identity_gives_credentials_and_they_are_renewed_with_the_token_that_there_is_then() {
    run(async {
        let mut stage = Stage::without_controller().await?;
        let namespace = "pod-identity";
        stage.proxy.reset();
        let given = Arc::new(AtomicUsize::new(0));
        let count = given.clone();
        let agent = StandIn::start(move |_| {
            let number = count.fetch_add(1, Ordering::Relaxed);
            let end = Timestamp::now() + Duration::from_secs(70);
            let credentials = json!({
                "AccessKeyId": format!("key{number}"), "SecretAccessKey": "secret", "Token": "session", "AccountId": "1",
                "Expiration": end.to_string(),
            });
            Some((200, "application/json", credentials.to_string()))
        })
        .await?;
        let file = stage.directory().join("pod-identity-token");
        fs::write(&file, "first")?;
        let home = tempfile::tempdir()?;
        let url = format!("{}/v1/credentials", agent.url);
        let environment = [
            ("HOME", text(home.path())?),
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &url),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", text(&file)?),
            ("AWS_ENDPOINT_URL", &stage.proxy.url),
        ];
        let mut controller = stage.controller_in(&environment, &[])?;
        controller.ready(SOON).await?;
        stage.controller = Some(controller);
        let first = agent.asked();
        ensure!(
            first
                .iter()
                .all(|asked| asked.what == "GET /v1/credentials" && asked.authorization.as_deref() == Some("first")),
            "the agent was asked {first:?}"
        );
        fs::write(&file, "second")?;
        stage.cluster.namespace(namespace).await?;
        apply(&stage, namespace, &[service("web"), ingress("web", &[], &["web"])]).await?;
        served(&stage, namespace, "web").await?;
        let mut edit = 0;
        wait_until(SOON, "the credentials to be renewed with the second token", async || {
            edit += 1;
            let tags = format!("edit={edit}");
            let annotation = [("alb.ingress.kubernetes.io/tags", tags.as_str())];
            apply(&stage, namespace, &[ingress("web", &annotation, &["web"])]).await?;
            Ok(agent.asked().iter().any(|asked| asked.authorization.as_deref() == Some("second")))
        })
        .await?;
        ensure!(stage.proxy.counts().actions.keys().all(|name| !name.starts_with("sts:")), "STS was asked");
        leave(stage, namespace).await
    });
}

#[test]
fn a_profile_gives_credentials_and_region() {
    run(async {
        let mut stage = Stage::without_controller().await?;
        let home = tempfile::tempdir()?;
        let config = home.path().join("config");
        fs::write(&config, "[profile lab]\nregion = us-west-2\naws_access_key_id = x\naws_secret_access_key = y\n")?;
        let environment = [
            ("HOME", text(home.path())?),
            ("AWS_CONFIG_FILE", text(&config)?),
            ("AWS_PROFILE", "lab"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_ENDPOINT_URL", &stage.proxy.url),
        ];
        let before = stage.controller_log(usize::MAX).lines().count();
        let mut controller = stage.controller_in(&environment, &["--aws-region="])?;
        controller.ready(SOON).await?;
        stage.controller = Some(controller);
        starts_in(&stage, before, "us-west-2").await?;
        stage.leave_clean();
        Ok(())
    });
}

/// As with AWS's SDK for Go: a default profile that is mounted, for other tools perhaps, does not change who the controller is.
#[test]
fn the_role_of_the_service_account_comes_before_the_default_profile_and_after_one_that_is_named() {
    run(async {
        let mut stage = Stage::without_controller().await?;
        let home = tempfile::tempdir()?;
        let (config, token) = (home.path().join("config"), home.path().join("token"));
        let keys = "aws_access_key_id = x\naws_secret_access_key = y\n";
        fs::write(&config, format!("[default]\n{keys}[profile lab]\n{keys}"))?;
        fs::write(&token, TOKEN)?;
        let environment = [
            ("HOME", text(home.path())?),
            ("AWS_CONFIG_FILE", text(&config)?),
            ("AWS_ROLE_ARN", ROLE),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", text(&token)?),
            ("AWS_ENDPOINT_URL", &stage.proxy.url),
        ];
        for (named, expected) in [(None, true), (Some(("AWS_PROFILE", "lab")), false)] {
            stage.proxy.reset();
            let environment: Vec<_> = environment.iter().copied().chain(named).collect();
            let mut controller = stage.controller_in(&environment, &[])?;
            controller.ready(SOON).await?;
            let asked = stage.proxy.counts().actions.contains_key(ASSUME);
            ensure!(asked == expected, "with {named:?} STS was {}asked for the role", if asked { "" } else { "not " });
            controller.stop().await?;
        }
        stage.controller = None;
        stage.leave_clean();
        Ok(())
    });
}

/// A profile whose role another profile's keys take, at the endpoint of STS that the flag names.
#[test]
fn a_chain_of_roles_in_a_profile_asks_the_endpoint_of_the_flag() {
    run(async {
        let mut stage = Stage::without_controller().await?;
        let home = tempfile::tempdir()?;
        let config = home.path().join("config");
        fs::write(
            &config,
            format!(
                "[profile base]\naws_access_key_id = x\naws_secret_access_key = y\n[profile lab]\nrole_arn = {ROLE}\nsource_profile = base\n"
            ),
        )?;
        let environment = [
            ("HOME", text(home.path())?),
            ("AWS_CONFIG_FILE", text(&config)?),
            ("AWS_PROFILE", "lab"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ];
        stage.proxy.reset();
        let url = &stage.proxy.url;
        let endpoints = format!("--aws-api-endpoints=STS={url},EC2={url},Elastic Load Balancing v2={url},ACM={url}");
        let mut controller = stage.controller_in(&environment, &[&endpoints])?;
        controller.ready(SOON).await?;
        stage.controller = Some(controller);
        let asked = stage.proxy.counts().actions;
        ensure!(asked.contains_key("sts:AssumeRole"), "STS was not asked at the flag's endpoint: {asked:?}");
        stage.leave_clean();
        Ok(())
    });
}

// Failing.

#[test]
fn what_sts_does_not_take_is_told_with_its_cure() {
    run(async {
        let stage = Stage::without_controller().await?;
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("token");
        fs::write(&file, TOKEN)?;
        let who = "system:serviceaccount:kube-system:albatross";
        for (code, words, expected) in [
            (
                "AccessDenied",
                "Not authorized to perform sts:AssumeRoleWithWebIdentity",
                format!("{who} may not assume the role {ROLE}: Not authorized to perform sts:AssumeRoleWithWebIdentity (AccessDenied); let the role's trust policy allow `sts:AssumeRoleWithWebIdentity` to the identity provider of https://oidc.example/id/DEMO, for the subject `{who}`; check the role's name and account, too"),
            ),
            (
                "InvalidIdentityToken",
                "Incorrect token audience",
                format!("the token of {who} is for another audience (kubernetes): Incorrect token audience (InvalidIdentityToken); mount a token for the audience `sts.amazonaws.com` (the annotation `eks.amazonaws.com/audience` on the ServiceAccount says another one), or add the token's audience to the identity provider in IAM"),
            ),
            (
                "InvalidIdentityToken",
                "No OpenIDConnect provider found in your account for https://oidc.example/id/DEMO",
                "the role's account has no identity provider for https://oidc.example/id/DEMO: No OpenIDConnect provider found in your account for https://oidc.example/id/DEMO (InvalidIdentityToken); make one: `eksctl utils associate-iam-oidc-provider --cluster NAME --approve`, or `aws iam create-open-id-connect-provider`; where AWS_ROLE_ARN names another account, make it there".to_owned(),
            ),
            (
                "InvalidIdentityToken",
                "Couldn't retrieve verification key from your identity provider,  please reference AssumeRoleWithWebIdentity documentation for requirements",
                format!("AWS does not accept the token of {who}: Couldn't retrieve verification key from your identity provider,  please reference AssumeRoleWithWebIdentity documentation for requirements (InvalidIdentityToken); see that https://oidc.example/id/DEMO is this cluster's issuer, and that AWS can fetch its keys from there"),
            ),
            (
                "ValidationError",
                "Request ARN is invalid",
                format!("STS gives {who} no credentials for the role {ROLE}: Request ARN is invalid (ValidationError); check AWS_ROLE_ARN and the role's trust policy"),
            ),
            (
                "RegionDisabledException",
                "STS is not activated in this region for account:123456789012. Your account administrator can activate STS in this region using the IAM Console.",
                "STS is switched off in region us-west-2: STS is not activated in this region for account:123456789012. Your account administrator can activate STS in this region using the IAM Console (RegionDisabledException); switch it on in the account settings of IAM".to_owned(),
            ),
        ] {
            let sts = StandIn::start(move |_| refusal(code, words)).await?;
            let environment = [
                ("AWS_ROLE_ARN", ROLE),
                ("AWS_WEB_IDENTITY_TOKEN_FILE", text(&file)?),
                ("AWS_ENDPOINT_URL_STS", &sts.url),
            ];
            missing(&stage, &environment, &expected).await?;
        }

        let sts = StandIn::start(|_| {
            refusal(
                "ExpiredTokenException",
                "Token expired: current date/time 1 must be before the expiration date/time 0",
            )
        })
        .await?;
        let environment =
            [("AWS_ROLE_ARN", ROLE), ("AWS_WEB_IDENTITY_TOKEN_FILE", text(&file)?), ("AWS_ENDPOINT_URL_STS", &sts.url)];
        let said = ends_with_failure(&stage, &environment).await?;
        let [before, after] = [
            format!("error: no valid AWS credentials for the start: the token of {who} has expired "),
            format!(
                " h ago: Token expired: current date/time 1 must be before the expiration date/time 0 (ExpiredTokenException); mount the token as a projected volume, which kubelet renews, and not as a copy; where `{}` is one, check the clocks of the node and of this cluster\n",
                file.display()
            ),
        ];
        ensure!(said.starts_with(&before) && said.ends_with(&after), "it said {said}");
        stage.leave_clean();
        Ok(())
    });
}

#[test]
fn a_role_without_its_token_is_told() {
    run(async {
        let stage = Stage::without_controller().await?;
        let directory = tempfile::tempdir()?;
        let [file, folder] = ["missing", "folder"].map(|name| directory.path().join(name));
        let cure =
            "restart the controller's pods, so that EKS mounts it, and run them with an fsGroup that can read it";
        let unreadable = |path: &Path, why: &str| {
            format!(
                "the ServiceAccount's token cannot be read from `{}`, which AWS_WEB_IDENTITY_TOKEN_FILE names: {why}; {cure}",
                path.display()
            )
        };
        let role = ("AWS_ROLE_ARN", ROLE);
        let token = [role, ("AWS_WEB_IDENTITY_TOKEN_FILE", text(&file)?)];
        missing(&stage, &token, &unreadable(&file, "No such file or directory (os error 2)")).await?;
        fs::write(&file, "\n")?;
        missing(&stage, &token, &unreadable(&file, "the file is empty")).await?;
        fs::create_dir(&folder)?;
        let token = [role, ("AWS_WEB_IDENTITY_TOKEN_FILE", text(&folder)?)];
        missing(&stage, &token, &unreadable(&folder, "Is a directory (os error 21)")).await?;

        let expected = format!(
            "AWS_ROLE_ARN is {ROLE} and AWS_WEB_IDENTITY_TOKEN_FILE is not set; let EKS set both by the annotation `eks.amazonaws.com/role-arn` on the controller's ServiceAccount, or mount a ServiceAccount token for the audience `sts.amazonaws.com` and name its file in AWS_WEB_IDENTITY_TOKEN_FILE"
        );
        missing(&stage, &[role], &expected).await?;
        let expected = "AWS_WEB_IDENTITY_TOKEN_FILE is set and AWS_ROLE_ARN is not; annotate the controller's ServiceAccount with `eks.amazonaws.com/role-arn` and restart its pods, because EKS injects either when pods start";
        missing(&stage, &token[1..], expected).await?;

        let [port] = free_ports()?;
        fs::write(&file, TOKEN)?;
        let url = format!("http://127.0.0.1:{port}");
        let token = [role, ("AWS_WEB_IDENTITY_TOKEN_FILE", text(&file)?), ("AWS_ENDPOINT_URL_STS", &url)];
        let expected = "STS in region us-west-2 gave no answer: dispatch failure: io error: client error (Connect): tcp connect error: Connection refused (os error 111); check name resolution, the route to STS (NAT gateway, or a VPC endpoint for `sts`), HTTPS_PROXY and NO_PROXY";
        missing(&stage, &token, expected).await?;
        stage.leave_clean();
        Ok(())
    });
}

#[test]
fn pod_identity_that_gives_nothing_is_told() {
    run(async {
        let stage = Stage::without_controller().await?;
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("token");
        let name = text(&file)?;
        let [port] = free_ports()?;
        let url = format!("http://127.0.0.1:{port}/v1/credentials");
        let environment =
            [("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str()), ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", name)];
        let expected = format!(
            "the token for EKS Pod Identity cannot be read from `{name}`, which AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE names: No such file or directory (os error 2); restart the controller's pods, so that EKS mounts it, and run them with an fsGroup that can read it"
        );
        missing(&stage, &environment, &expected).await?;

        fs::write(&file, TOKEN)?;
        let expected = format!(
            "the agent of EKS Pod Identity at {url} does not answer: unexpected credentials error: dispatch failure: io error: client error (Connect): tcp connect error: Connection refused (os error 111); install the add-on `eks-pod-identity-agent`, and see that its DaemonSet runs on this node and that no NetworkPolicy blocks 169.254.170.23"
        );
        missing(&stage, &environment, &expected).await?;

        let agent = StandIn::start(|_| Some((404, "text/plain", "no association".to_owned()))).await?;
        let url = format!("{}/v1/credentials", agent.url);
        let environment =
            [("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str()), ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", name)];
        let expected = format!(
            "the agent of EKS Pod Identity at {url} gives none: an error occurred while loading credentials: Non-success status from HTTP credential provider: StatusCode(404); give the controller's ServiceAccount an association with `aws eks create-pod-identity-association`, let the role's trust policy allow `sts:AssumeRole` and `sts:TagSession` to `pods.eks.amazonaws.com`, and look at the log of the agent on this node"
        );
        missing(&stage, &environment, &expected).await?;
        stage.leave_clean();
        Ok(())
    });
}

#[test]
fn a_profile_that_is_not_there_is_told() {
    run(async {
        let stage = Stage::without_controller().await?;
        let directory = tempfile::tempdir()?;
        let config = directory.path().join("config");
        fs::write(&config, "[profile other]\nregion = us-west-2\n")?;
        let environment = [("AWS_CONFIG_FILE", text(&config)?), ("AWS_PROFILE", "lab")];
        let expected = "AWS_PROFILE is `lab`, and there is no such profile; name one that ~/.aws/config or ~/.aws/credentials has, or name the files in AWS_CONFIG_FILE and AWS_SHARED_CREDENTIALS_FILE";
        missing(&stage, &environment, expected).await?;
        stage.leave_clean();
        Ok(())
    });
}

#[test]
fn an_instance_without_a_role_is_told_soon() {
    run(async {
        let stage = Stage::without_controller().await?;
        let nothing = |instance: &str| {
            format!(
                "the pod has neither a role of its ServiceAccount (AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE are not set) nor EKS Pod Identity (AWS_CONTAINER_CREDENTIALS_FULL_URI is not set), there is neither AWS_ACCESS_KEY_ID nor a profile, and the instance gives none: {instance}; annotate the controller's ServiceAccount with `eks.amazonaws.com/role-arn`, or give it an association with `aws eks create-pod-identity-association`, and restart its pods, because EKS injects either when pods start; outside of EKS set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
            )
        };
        missing(
            &stage,
            &[("AWS_EC2_METADATA_DISABLED", "true")],
            &nothing("AWS_EC2_METADATA_DISABLED disables its metadata service"),
        )
        .await?;
        let silent = StandIn::silent().await?;
        let environment = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", silent.url.as_str())];
        missing(&stage, &environment, &nothing("its metadata service does not answer")).await?;
        let without_role = StandIn::start(|asked| {
            let token = asked.what.starts_with("PUT /latest/api/token");
            Some(if token { (200, "text/plain", "token".to_owned()) } else { (404, "text/plain", String::new()) })
        })
        .await?;
        let environment = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", without_role.url.as_str())];
        missing(&stage, &environment, &nothing("it has no role")).await?;
        stage.leave_clean();
        Ok(())
    });
}

/// When STS was asked, with which token and for which role.
fn tokens(lab: &Lab) -> Vec<(Duration, String, String)> {
    let calls = lab.proxy.log();
    let asked = calls.iter().filter(|call| call.name == ASSUME);
    asked.filter_map(|call| Some((call.at, call.field("WebIdentityToken")?, call.field("RoleArn")?))).collect()
}

fn refusal(code: &str, words: &str) -> Answer {
    let body = format!(
        "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type><Code>{code}</Code><Message>{words}</Message></Error><RequestId>lab</RequestId></ErrorResponse>"
    );
    Some((400, "text/xml", body))
}

/// Waits until the log, after so many lines, says that it starts in this region and in the lab's VPC.
pub(crate) async fn starts_in(stage: &Stage, before: usize, region: &str) -> Result<()> {
    let vpc = format!("vpc={}", stage.world.vpc);
    let region = format!("region=\"{region}\"");
    wait_until(SOON, "the controller to say where it is", async || {
        let log = stage.controller_log(usize::MAX);
        Ok(log.lines().skip(before).any(|line| line.contains(&vpc) && line.contains(&region)))
    })
    .await
}

/// All that a controller says that ends because it has no credentials.
async fn ends_with_failure(stage: &Stage, environment: &[(&str, &str)]) -> Result<String> {
    let flags = [
        format!("--kubeconfig={}", stage.kubeconfig.display()),
        format!("--aws-vpc-id={}", stage.world.vpc),
        "--aws-region=us-west-2".to_owned(),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let (code, said) = start_that_fails(&flags, environment).await?;
    ensure!(code == Some(1), "it ended with {code:?} and said {said}");
    Ok(said)
}

/// Fails unless exactly this is reported about the credentials.
async fn missing(stage: &Stage, environment: &[(&str, &str)], expected: &str) -> Result<()> {
    let said = ends_with_failure(stage, environment).await?;
    let expected = format!("error: no valid AWS credentials for the start: {expected}\n");
    ensure!(said == expected, "it said\n{said}and not\n{expected}");
    Ok(())
}

pub(crate) fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is no text")
}
