//! The lab for others: programs that are no part of it and know only what `lab --traffic --json` says.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::process::Command;

use crate::program::Program;
use crate::support::{run, turn};

/// The most that the lab may take to be up.
const UP: Duration = Duration::from_secs(180);
/// The most that the suite may take.
const SUITE: Duration = Duration::from_secs(300);

#[test]
fn a_suite_of_another_project_needs_only_what_the_lab_prints() {
    run(async {
        let _turn = turn().await;
        let directory = tempfile::tempdir()?;
        let (file, script) = (directory.path().join("lab.json"), directory.path().join("suite.py"));
        std::fs::write(&script, include_str!("outside/suite.py"))?;
        let mut lab = Program::start(&["lab", "--traffic", "--json", &file.display().to_string()])?;
        lab.until(UP, "its file", |_| file.exists().then_some(())).await?;
        let mut suite = Command::new("python3");
        suite.arg(&script).arg(&file).current_dir(directory.path()).stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(SUITE, suite.output()).await.context("the suite does not end")??;
        let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let expected = "\
nodes have instances and zones
Deployments, StatefulSets and Jobs become ready as their probes say
each node has the Service's node port
the Ingress has the color, over HTTP of both pods and over HTTPS
the Services answer, over node ports and over UDP
AWS has the load balancers
all is gone
";
        let log = || controller_log(&file).unwrap_or_default();
        ensure!(output.status.success() && told == expected, "the suite says:\n{told}\nthe controller:\n{}", log());
        let values: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
        let text = lab.interrupt().await?;
        ensure!(!file.exists(), "the file names a lab that is gone");
        for value in ["kubeconfig", "awsEndpoint", "region", "vpc", "certificateAuthority", "controllerLog"] {
            let value = values[value].as_str().context("a value that is no text")?;
            ensure!(text.contains(value), "the lab does not print {value}:\n{text}");
        }
        ensure!(text.ends_with("Cleaning up.\n"), "the lab did not end by itself:\n{text}");
        let logs = values["logs"].as_str().context("no directory")?;
        ensure!(!Path::new(logs).exists(), "{logs} is left");
        Ok(())
    });
}

#[test]
fn a_lab_whose_emulator_ends_says_so_and_ends() {
    run(async {
        let _turn = turn().await;
        let mut lab = Program::start(&["lab"])?;
        let directory = |text: &str| Some(text.split_once("logs in ")?.1.lines().next()?.to_owned());
        let directory = lab.until(UP, "the lab to be up", directory).await?;
        kill_process(process_with(&format!("{directory}/moto_aws.py"))?, Signal::KILL)?;
        let (status, text) = lab.ended(UP).await?;
        let is_told = text.contains("error: moto ended: signal: 9");
        ensure!(status.code() == Some(1) && is_told, "{status}:\n{text}");
        ensure!(!Path::new(&directory).exists(), "{directory} is left");
        Ok(())
    });
}

/// Returns the process that has this among its arguments.
fn process_with(argument: &str) -> Result<Pid> {
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if line.split(|byte| *byte == 0).any(|own| own == argument.as_bytes()) {
            let id = entry.file_name().to_string_lossy().parse()?;
            return Pid::from_raw(id).context("no process has this id");
        }
    }
    anyhow::bail!("no process has {argument}")
}

fn controller_log(file: &Path) -> Result<String> {
    let values: Value = serde_json::from_slice(&std::fs::read(file)?)?;
    let log = values["controllerLog"].as_str().context("no log")?;
    Ok(e2e::lab::processes::tail(Path::new(log), 60))
}

#[test]
fn another_controller_is_started_with_its_words_filled_and_its_end_is_told() {
    run(async {
        let _turn = turn().await;
        let command = "printf %s\\n {kubeconfig} {endpoint} {region} {vpc} {cluster}";
        let lab = Program::start(&["lab", "--traffic", "--controller", command])?;
        let (status, text) = lab.ended(UP).await?;
        ensure!(status.code() == Some(1), "{status}:\n{text}");
        let (_, words) = text.split_once("error: controller ended: exit status: 0\n").with_context(|| text.clone())?;
        let words: Vec<&str> = words.lines().collect();
        let [kubeconfig, endpoint, region, vpc, cluster] = words[..] else { anyhow::bail!("{text}") };
        ensure!(kubeconfig.ends_with("/kubeconfig-of-controller"), "{text}");
        ensure!(endpoint.starts_with("http://127.0.0.1:") && vpc.starts_with("vpc-"), "{text}");
        ensure!((region, cluster) == ("us-west-2", "demo"), "{text}");
        Ok(())
    });
}
