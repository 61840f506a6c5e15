//! The program `albatross`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    albatross::cli::run(std::env::args_os())
}
