//! The demo, as a person starts it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::lab::fabric::like_aws;
use tokio::process::Command;

use crate::program::Program;
use crate::support::{run, turn};

/// The most that the demo may take.
const SHOWN: Duration = Duration::from_secs(300);
/// The ports of a person who may not use those below 1024.
const OFFSET: u16 = 10_000;

/// The answers to its requests, with Deployments in the place of their pods.
fn answers(port_offset: u16) -> [String; 5] {
    [
        format!("301 https://example.com:{}/path1", 443 + port_offset),
        "pod service1 GET /path1".to_owned(),
        "pod service2 GET /path2".to_owned(),
        "pod service1 GET /".to_owned(),
        "pod service1 GET /".to_owned(),
    ]
}

#[test]
fn the_demo_shows_both_load_balancers_sends_each_request_and_cleans_up() {
    run(async {
        let _turn = turn().await;
        let text = Program::start(&["demo", "--once"])?.succeeded(SHOWN).await?;
        for part in [
            "LOAD BALANCER  k8s-default-shop-",
            "path /path1 or /path1/*",
            "forward to k8s-default-service2-",
            "redirect to HTTPS on port 443 (HTTP_301)",
            "Service service1:9376 of Ingress default/shop",
            "healthy",
            "LOAD BALANCER  k8s-default-shopdire-",
            "forward to k8s-default-shopdire-",
            "The Ingress and the Service are gone, and so is everything that was made for them in AWS.",
        ] {
            ensure!(text.contains(part), "the demo does not say `{part}`:\n{text}");
        }
        let found: Vec<String> = requests(&text).iter().map(|(_, answer)| without_pod(answer)).collect();
        ensure!(found == answers(like_aws().port_offset), "the answers are {found:?}:\n{text}");
        ensure!(!directory(&text)?.exists(), "the lab's directory is left:\n{text}");
        Ok(())
    });
}

#[test]
fn each_command_of_the_demo_works_in_a_shell_and_the_figures_go_on() {
    run(async {
        let _turn = turn().await;
        let mut demo = Program::start(&["demo", "--port-offset", &OFFSET.to_string()])?;
        let has_figures = |text: &str| {
            let mut lines = text.lines().filter(|line| line.contains(" requests, 0 lost; in 10 s: 301 "));
            lines.any(|line| line.contains("| service1-") && line.contains("| service2-")).then(|| text.to_owned())
        };
        let text = demo.until(SHOWN, "figures without a loss", has_figures).await?;
        let commands = requests(&text);
        let answers = answers(OFFSET);
        ensure!(commands.len() == answers.len(), "{} commands:\n{text}", commands.len());
        let has_curl = Command::new("curl").arg("--version").output().await.is_ok();
        // Without curl, the test above has sent the same requests.
        for ((command, _), expected) in commands.iter().zip(answers).filter(|_| has_curl) {
            let output = Command::new("sh").args(["-c", command]).output().await?;
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let why = String::from_utf8_lossy(&output.stderr);
            let answer = without_pod(&answer(&said));
            ensure!(output.status.success() && answer == expected, "{command}:\n{said}{why}");
        }
        let text = demo.interrupt().await?;
        ensure!(text.ends_with("Cleaning up.\n"), "the demo did not end by itself:\n{text}");
        ensure!(!directory(&text)?.exists(), "the lab's directory is left:\n{text}");
        Ok(())
    });
}

/// The commands of the demo, each with the line after it.
fn requests(text: &str) -> Vec<(String, String)> {
    let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
    let commands = lines.windows(2).filter(|pair| pair[0].starts_with("curl "));
    commands.map(|pair| (pair[0].to_owned(), pair[1].to_owned())).collect()
}

/// Returns an answer of curl as the demo prints it: a redirect with its location, else the body.
fn answer(said: &str) -> String {
    let mut words = said.split_whitespace();
    match (words.next(), words.next()) {
        (Some("HTTP/1.1"), Some(status)) => {
            let header = |line: &str| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("location").then(|| value.trim().to_owned())
            };
            format!("{status} {}", said.lines().find_map(header).unwrap_or_default())
        }
        _ => said.trim_end().to_owned(),
    }
}

/// Returns an answer with the name of the Deployment in the place of its pod's.
fn without_pod(answer: &str) -> String {
    let word = |word: &str| match word.split_once('-') {
        Some((deployment, _)) if deployment.starts_with("service") => deployment.to_owned(),
        _ => word.to_owned(),
    };
    answer.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// Returns the lab's directory.
fn directory(text: &str) -> Result<&Path> {
    let log = text.split_whitespace().find(|word| word.ends_with("/controller.log")).context("no log was told")?;
    Path::new(log).parent().context("a log without a directory")
}
