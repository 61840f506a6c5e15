//! The lab for programs that are no part of it: a person's own controller, or another project's suite of tests.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::route::quoted;
use super::{Ports, unless_interrupted};
use crate::lab::aws::REGION;
use crate::lab::world::CLUSTER;
use crate::lab::{Lab, Options, controller};
use crate::traffic::controllers::Controllers;

/// The flags that keep a controller from the ports that pods use. By default it takes them on all addresses.
const FLAGS: &str = "--metrics-bind-addr=127.0.0.1:8080 --health-probe-bind-addr=127.0.0.1:61779";
/// Between two looks at the programs.
const LOOK: Duration = Duration::from_secs(1);

/// The options of `lab`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Let load balancers, nodes and pods answer on 127.0.0.0/8, and run a controller: albatross, if no other is named
    #[arg(long)]
    traffic: bool,
    /// Run another controller: its command, in which {kubeconfig}, {endpoint}, {region}, {vpc} and {cluster} are filled
    ///
    /// It runs in the lab's directory, so paths in its arguments are to be absolute. Pods use ports of this machine, so its own
    /// are to be on 127.0.0.1: --metrics-bind-addr=127.0.0.1:8080 --health-probe-bind-addr=127.0.0.1:61779
    #[arg(long, value_name = "COMMAND", requires = "traffic", conflicts_with = "no_controller")]
    controller: Option<String>,
    /// Run no controller
    #[arg(long, requires = "traffic")]
    no_controller: bool,
    /// Write what is printed to a file too, as JSON; it is there as soon as the lab and albatross are ready, until they end
    #[arg(long, value_name = "FILE", requires = "traffic")]
    json: Option<PathBuf>,
    #[command(flatten)]
    ports: Ports,
}

/// Starts a lab and keeps it until Ctrl-C or SIGTERM.
pub async fn run(program: &Path, arguments: &Arguments) -> Result<()> {
    unless_interrupted(keep(program, arguments)).await?;
    println!("Cleaning up.");
    Ok(())
}

async fn keep(program: &Path, arguments: &Arguments) -> Result<()> {
    // One of an earlier lab would be read as this one's.
    let file = arguments.json.clone().map(Announcement);
    file.as_ref().map_or(Ok(()), Announcement::remove)?;
    let traffic = arguments.traffic.then(|| arguments.ports.settings());
    let lab = Arc::new(Lab::start(program, Options { kubelet: true, traffic, ..Options::default() }).await?);
    let controllers = match traffic {
        Some(_) if !arguments.no_controller => {
            Some(Controllers::start(lab.clone(), arguments.controller.clone()).await?)
        }
        _ => None,
    };
    let values = Values::of(&lab, controllers.is_some());
    print!("{}", values.text());
    if let Some(Announcement(file)) = &file {
        values.write(file).with_context(|| format!("writing {}", file.display()))?;
    }
    loop {
        lab.check_running()?;
        if let Some(controllers) = &controllers {
            controllers.check().await?;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The file that names the lab for programs. It is removed with the lab.
struct Announcement(PathBuf);

impl Announcement {
    fn remove(&self) -> Result<()> {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", self.0.display()))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        let _ = self.remove();
    }
}

/// The values by which a program finds its way in the lab.
#[derive(Clone, Debug)]
struct Values {
    directory: PathBuf,
    kubeconfig: PathBuf,
    endpoint: String,
    vpc: String,
    /// ARNs by domain.
    certificates: BTreeMap<String, String>,
    /// Ids by name.
    subnets: BTreeMap<String, String>,
    traffic: Option<TrafficValues>,
}

/// Those of a lab whose load balancers answer.
#[derive(Clone, Debug)]
struct TrafficValues {
    dns: SocketAddr,
    port_offset: u16,
    authority: PathBuf,
    controller_log: Option<PathBuf>,
}

impl Values {
    fn of(lab: &Lab, has_controller: bool) -> Self {
        let traffic = lab.traffic.as_ref().map(|traffic| TrafficValues {
            dns: traffic.fabric.dns(),
            port_offset: traffic.options.port_offset,
            authority: lab.authority_file(),
            controller_log: has_controller.then(|| lab.directory().join(format!("{}.log", controller::NAME))),
        });
        Self {
            directory: lab.directory().to_owned(),
            kubeconfig: lab.kubeconfig.clone(),
            endpoint: lab.proxy.url.clone(),
            vpc: lab.world.vpc.clone(),
            certificates: lab.world.certificates.clone(),
            subnets: lab.world.subnets.clone(),
            traffic,
        }
    }

    /// Returns the values for a person.
    fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |line: std::fmt::Arguments<'_>| {
            let _ = writeln!(text, "{line}");
        };
        line(format_args!("The lab is up: cluster {CLUSTER}, VPC {}, logs in {}", self.vpc, self.directory.display()));
        for (domain, arn) in &self.certificates {
            line(format_args!("  certificate for {domain}: {arn}"));
        }
        if let Some(traffic) = &self.traffic {
            line(format_args!("  authority of the certificates: {}", traffic.authority.display()));
            for (name, subnet) in &self.subnets {
                line(format_args!("  subnet {name}: {subnet}"));
            }
            line(format_args!("  DNS of the load balancers: {} port {}", traffic.dns.ip(), traffic.dns.port()));
            match traffic.port_offset {
                0 => line(format_args!("  ports of load balancers, nodes and pods: as in AWS")),
                offset => line(format_args!("  ports of load balancers, nodes and pods: as in AWS, plus {offset}")),
            }
            match &traffic.controller_log {
                Some(log) => line(format_args!("  the controller's log: {}", log.display())),
                None => line(format_args!("  no controller runs")),
            }
        }
        line(format_args!("\nFor a controller of your own, and for kubectl:\n"));
        line(format_args!("  export KUBECONFIG={}", quoted(&self.kubeconfig.display().to_string())));
        line(format_args!("  export AWS_ENDPOINT_URL={} AWS_REGION={REGION}", self.endpoint));
        line(format_args!("  export AWS_ACCESS_KEY_ID=x AWS_SECRET_ACCESS_KEY=y AWS_EC2_METADATA_DISABLED=true"));
        if self.traffic.as_ref().is_some_and(|traffic| traffic.port_offset == 0) {
            line(format_args!(
                "\nPods use ports of this machine, so keep those of your controller to 127.0.0.1:\n\n  {FLAGS}"
            ));
        }
        line(format_args!("\nCtrl-C ends it."));
        text
    }

    /// Returns the values for a program.
    fn json(&self) -> Value {
        let traffic = self.traffic.as_ref();
        json!({
            "logs": self.directory,
            "kubeconfig": self.kubeconfig,
            "cluster": CLUSTER,
            "awsEndpoint": self.endpoint,
            "region": REGION,
            "vpc": self.vpc,
            "subnets": self.subnets,
            "certificates": self.certificates,
            "certificateAuthority": traffic.map(|it| &it.authority),
            "dns": traffic.map(|it| json!({"address": it.dns.ip(), "port": it.dns.port()})),
            "portOffset": traffic.map(|it| it.port_offset),
            "controllerLog": traffic.and_then(|it| it.controller_log.as_ref()),
        })
    }

    /// Writes the values to a file that is never seen in part.
    fn write(&self, file: &Path) -> Result<()> {
        let mut part = file.as_os_str().to_owned();
        part.push(".part");
        fs::write(&part, format!("{:#}\n", self.json()))?;
        Ok(fs::rename(&part, file)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(traffic: Option<TrafficValues>) -> Values {
        let pair = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        Values {
            directory: "/tmp/the lab".into(),
            kubeconfig: "/tmp/the lab/kubeconfig".into(),
            endpoint: "http://127.0.0.1:5000".to_owned(),
            vpc: "vpc-1".to_owned(),
            certificates: pair("example.com", "arn:1"),
            subnets: pair("public-a", "subnet-1"),
            traffic,
        }
    }

    fn with_traffic(port_offset: u16, controller_log: Option<&str>) -> Values {
        values(Some(TrafficValues {
            dns: ([127, 30, 0, 53], 53 + port_offset).into(),
            port_offset,
            authority: "/tmp/the lab/ca.pem".into(),
            controller_log: controller_log.map(PathBuf::from),
        }))
    }

    const EXPORTS: &str = "
For a controller of your own, and for kubectl:

  export KUBECONFIG='/tmp/the lab/kubeconfig'
  export AWS_ENDPOINT_URL=http://127.0.0.1:5000 AWS_REGION=us-west-2
  export AWS_ACCESS_KEY_ID=x AWS_SECRET_ACCESS_KEY=y AWS_EC2_METADATA_DISABLED=true
";
    const END: &str = "\nCtrl-C ends it.\n";

    #[test]
    fn a_person_is_told_what_there_is() {
        let head = "The lab is up: cluster demo, VPC vpc-1, logs in /tmp/the lab
  certificate for example.com: arn:1
";
        assert_eq!(values(None).text(), format!("{head}{EXPORTS}{END}"));
        let own = "  authority of the certificates: /tmp/the lab/ca.pem
  subnet public-a: subnet-1
  DNS of the load balancers: 127.30.0.53 port 53
  ports of load balancers, nodes and pods: as in AWS
  no controller runs
";
        let flags = "
Pods use ports of this machine, so keep those of your controller to 127.0.0.1:

  --metrics-bind-addr=127.0.0.1:8080 --health-probe-bind-addr=127.0.0.1:61779
";
        assert_eq!(with_traffic(0, None).text(), format!("{head}{own}{EXPORTS}{flags}{END}"));
        let other = "  authority of the certificates: /tmp/the lab/ca.pem
  subnet public-a: subnet-1
  DNS of the load balancers: 127.30.0.53 port 10053
  ports of load balancers, nodes and pods: as in AWS, plus 10000
  the controller's log: /tmp/log
";
        assert_eq!(with_traffic(10_000, Some("/tmp/log")).text(), format!("{head}{other}{EXPORTS}{END}"));
    }

    #[test]
    fn a_program_finds_the_same_in_a_file() {
        let file = tempfile::tempdir().unwrap();
        let file = file.path().join("lab.json");
        let announcement = Announcement(file.clone());
        announcement.remove().unwrap();
        with_traffic(0, Some("/tmp/log")).write(&file).unwrap();
        let expected = json!({
            "logs": "/tmp/the lab",
            "kubeconfig": "/tmp/the lab/kubeconfig",
            "cluster": "demo",
            "awsEndpoint": "http://127.0.0.1:5000",
            "region": "us-west-2",
            "vpc": "vpc-1",
            "subnets": {"public-a": "subnet-1"},
            "certificates": {"example.com": "arn:1"},
            "certificateAuthority": "/tmp/the lab/ca.pem",
            "dns": {"address": "127.30.0.53", "port": 53},
            "portOffset": 0,
            "controllerLog": "/tmp/log",
        });
        assert_eq!(serde_json::from_slice::<Value>(&fs::read(&file).unwrap()).unwrap(), expected);
        drop(announcement);
        assert!(!file.exists());
    }
}
