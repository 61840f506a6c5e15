//! Helm, for what is to be seen of the chart.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Result;
use serde_json::Value;
use tempfile::TempDir;

use super::go::GoProgram;
use super::{cache_directory, workspace};

const HELM: GoProgram = GoProgram {
    name: "helm",
    what: "helm",
    otherwise: "",
    sources: &[("go.mod", include_str!("../../helm/go.mod")), ("go.sum", include_str!("../../helm/go.sum"))],
    module: "helm.sh/helm/v3",
    package: "helm.sh/helm/v3/cmd/helm",
};
/// The Kubernetes that a chart is rendered for, where no cluster is asked.
const KUBERNETES: (u32, u32) = (1, 36);

/// Helm's program, with an empty home, without any user's repositories and plugins.
pub struct Helm {
    program: PathBuf,
    home: TempDir,
}

/// The result of a run.
#[derive(Debug, PartialEq, Eq)]
pub struct Said {
    pub success: bool,
    pub output: String,
    pub errors: String,
}

impl Helm {
    /// Builds it, unless it is in the cache beside `program`, the lab's own.
    pub fn find(program: &Path) -> Result<Self> {
        let (major, minor) = KUBERNETES;
        let mut link = format!("-X helm.sh/helm/v3/internal/version.version={}", HELM.version());
        for package in ["pkg/chartutil", "pkg/lint/rules"] {
            let variable = format!("-X helm.sh/helm/v3/{package}.k8sVersion");
            link += &format!(" {variable}Major={major} {variable}Minor={minor}");
        }
        Ok(Self { program: HELM.build(&cache_directory(program)?, &link)?, home: TempDir::new()? })
    }

    /// Runs it in the checkout, with values where there are some.
    pub fn run(&self, arguments: &[&str], values: Option<&Value>) -> Result<Said> {
        let mut command = Command::new(&self.program);
        command.args(arguments).current_dir(workspace()).stdin(Stdio::null());
        command.env_clear().env("HOME", self.home.path());
        if let Some(values) = values {
            let file = self.home.path().join("values.json");
            fs::write(&file, values.to_string())?;
            command.arg("--values").arg(file);
        }
        let output = command.output()?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Said { success: output.status.success(), output: text(output.stdout), errors: text(output.stderr) })
    }
}
