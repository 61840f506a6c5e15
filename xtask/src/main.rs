//! Tasks of development. `cargo xtask generate` writes the files that are generated from the code: documents, custom
//! resources, IAM policy.

mod generate;

use std::path::Path;

use anyhow::Result;
use clap::Parser;

#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
enum Task {
    /// Write the files that are generated from the code
    Generate,
}

fn main() -> Result<()> {
    match Task::parse() {
        Task::Generate => generate::write(Path::new(ROOT)),
    }
}

/// The folder of the workspace.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
