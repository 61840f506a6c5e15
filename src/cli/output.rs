//! The only place that prints: data to standard output, everything else to standard error.

#![expect(clippy::disallowed_methods, reason = "this file prints, for all others")]

use std::{
    io::{self, BufWriter, ErrorKind, Write},
    process::ExitCode,
};

/// Prints the requested data. A reader that has gone away (`| head`) is no error.
pub(super) fn data(text: &str) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Prints the requested data as it is produced. `write` returns true if there were no errors.
pub(super) fn streamed(write: impl FnOnce(&mut dyn Write) -> io::Result<bool>) -> ExitCode {
    let mut out = BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|well| out.flush().map(|()| well)) {
        Ok(true) => ExitCode::SUCCESS,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Ok(false) | Err(_) => ExitCode::FAILURE,
    }
}

/// Prints a remark.
pub(super) fn remark(text: &str) {
    // Standard error is the last place to complain to, so a failure there has nowhere to go.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Prints what went wrong.
pub(super) fn error(text: &str) -> ExitCode {
    remark(&format!("error: {text}"));
    ExitCode::FAILURE
}

/// Prints what is wrong with the command line, as clap's mistakes end.
pub(super) fn wrong_usage(text: &str) -> ExitCode {
    remark(&format!("error: {text}"));
    ExitCode::from(2)
}

/// Prints what clap says: help and version to standard output, mistakes to standard error.
pub(super) fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}
