//! Programs of the lab that are built from Go modules, once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, bail, ensure};

/// A program, with the module that pins what it is built of.
pub struct GoProgram {
    /// Its name in the cache.
    pub name: &'static str,
    /// The name, for messages.
    pub what: &'static str,
    /// The alternative to building it, for messages.
    pub otherwise: &'static str,
    /// The files of the module that builds it, the first of which is its `go.mod`.
    pub sources: &'static [(&'static str, &'static str)],
    /// The dependency whose version is the program's.
    pub module: &'static str,
    /// The package that is built.
    pub package: &'static str,
}

impl GoProgram {
    /// Returns the text after `key` on its line in go.mod.
    fn go_mod(&self, key: &str) -> &'static str {
        let text = self.sources.first().map_or("", |(_, text)| text);
        let line = text.lines().find_map(|line| line.trim().trim_start_matches("require ").strip_prefix(key));
        line.map_or("", |rest| rest.trim().trim_end_matches("// indirect").trim())
    }

    /// The version of the program.
    pub fn version(&self) -> &'static str {
        self.go_mod(&format!("{} ", self.module))
    }

    /// Builds it into `<cache>/<name>-<version>` unless it is there. `link` are the linker's settings of variables.
    pub fn build(&self, cache: &Path, link: &str) -> Result<PathBuf> {
        let (name, what, version) = (self.name, self.what, self.version());
        let program = cache.join(format!("{name}-{version}"));
        if program.is_file() {
            return Ok(program);
        }
        let needed = self.go_mod("go ");
        let found = Command::new("go").arg("version").stdin(Stdio::null()).output();
        ensure!(
            found.is_ok_and(|output| output.status.success()),
            "{what} is built with Go, and there is no `go` on PATH: install Go {needed} or newer{}",
            self.otherwise
        );
        tracing::info!("building {what} {version} with Go; this takes minutes, and only once");
        fs::create_dir_all(cache)?;
        let work = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in(cache)?;
        for (file, text) in self.sources {
            fs::write(work.path().join(file), text)?;
        }
        let output = Command::new("go")
            .args(["build", "-trimpath", "-ldflags", &format!("-s -w {link}"), "-o", name, self.package])
            .current_dir(work.path())
            .stdin(Stdio::null())
            .output()?;
        if !output.status.success() {
            bail!(
                "`go build` of {what} failed (it needs Go {needed} and the Go module proxy):\n{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        // A rename is atomic, so that another lab that builds at the same time never runs half a program.
        fs::rename(work.path().join(name), &program)?;
        Ok(program)
    }
}
