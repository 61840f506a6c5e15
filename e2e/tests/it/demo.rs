//! The demo, as a person starts it.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::support::{run, turn};

#[test]
fn the_demo_shows_both_load_balancers_and_cleans_up() {
    run(async {
        let _turn = turn().await;
        let mut command = Command::new(env!("CARGO_BIN_EXE_e2e"));
        command.args(["demo", "--once"]);
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "the demo failed:\n{text}");
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
        let directory = text.split_whitespace().find(|word| word.ends_with("/controller.log"));
        let directory = directory.map(|log| log.trim_end_matches("/controller.log"));
        ensure!(
            directory.is_some_and(|directory| !std::path::Path::new(directory).exists()),
            "the lab's directory is left, or was not told:\n{text}"
        );
        Result::Ok(())
    });
}
