//! Child processes that never outlive the lab, however the lab ends.
//!
//! Each program runs in a separate process group, with its output in a file. A small guard process holds the other end of a
//! pipe: when the lab's process ends, by return, panic or SIGKILL, the pipe closes, and the guard kills every registered
//! group and removes the lab's directory. A Ctrl-C reaches neither the programs nor the guard, only the lab itself.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::ops::RangeInclusive;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process_group};

use super::wait_for;

/// The hidden subcommand of the lab's program that runs [`guard`].
pub const GUARD: &str = "guard";

/// Starts programs in one directory and answers for their end.
#[derive(Clone)]
pub struct Processes {
    inner: Arc<Inner>,
}

struct Inner {
    directory: PathBuf,
    guard: Mutex<Child>,
    pipe: Mutex<Option<ChildStdin>>,
}

/// A running program. Dropping it kills its whole process group.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    owner: Processes,
}

/// A program that should keep running has ended: waiting for something that needs it cannot succeed. Holds the end of its
/// output.
#[derive(Debug)]
pub struct Ended(String);

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Ended {}

impl Processes {
    /// Makes the lab's directory and the guard. `program` is the lab's own program, which has the subcommand [`GUARD`].
    pub fn start(program: &Path) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("albatross-lab-").tempdir()?;
        let mut guard = Command::new(program)
            .arg(GUARD)
            .arg(directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting the guard {}", program.display()))?;
        // From here on the guard removes the directory.
        let directory = directory.keep();
        let pipe = Mutex::new(guard.stdin.take());
        Ok(Self { inner: Arc::new(Inner { directory, guard: Mutex::new(guard), pipe }) })
    }

    /// The lab's directory. It is removed when the lab ends.
    pub fn directory(&self) -> &Path {
        &self.inner.directory
    }

    /// Starts a program in the lab's directory, with its output in `<directory>/<name>.log`, to which it is appended. A relative
    /// path of the program is that of the lab's own process.
    pub fn spawn<A: AsRef<OsStr>>(
        &self,
        name: &str,
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
        environment: &[(&str, &str)],
    ) -> Result<Process> {
        let log = self.inner.directory.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log)?;
        let program = &located(program)?;
        let mut command = Command::new(program);
        // All the lab's traffic is on loopback; a proxy of the developer's network must not see it, and what the developer's
        // own AWS is reached with must not count, unless a test brings one.
        for (variable, _) in std::env::vars_os() {
            let name = variable.to_string_lossy().to_ascii_uppercase();
            if name.starts_with("AWS_") || name.ends_with("_PROXY") {
                command.env_remove(variable);
            }
        }
        command
            .args(arguments)
            .envs(environment.iter().copied())
            .current_dir(&self.inner.directory)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0);
        let child = command.spawn().with_context(|| format!("starting {}", program.display()))?;
        // Without a guard it would outlive the lab, so it is dropped, which kills it.
        let process = Process { name: name.to_owned(), child, log, owner: self.clone() };
        self.tell('+', process.id())?;
        Ok(process)
    }

    fn tell(&self, sign: char, id: u32) -> Result<()> {
        let mut pipe = self.inner.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipe) = pipe.as_mut() {
            writeln!(pipe, "{sign}{id}").context("the lab's guard process is gone")?;
        }
        Ok(())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Closing the pipe makes the guard clean up; waiting for it means that nothing is left when the drop returns.
        if let Ok(pipe) = self.pipe.get_mut() {
            pipe.take();
        }
        if let Ok(guard) = self.guard.get_mut() {
            let _ = guard.wait();
        }
    }
}

impl Process {
    /// Returns the path of the program's output.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The process's id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Fails with [`Ended`] when the program has ended.
    pub fn check_running(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(Ended(format!("{} ended: {status}\n{}", self.name, self.log_tail(30))).into()),
        }
    }

    /// The last lines of the program's output.
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.log, lines)
    }

    /// Asks the program to end (SIGTERM) and waits; kills it after `deadline`.
    pub async fn stop(mut self, deadline: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM);
        let child = &mut self.child;
        let ended = wait_for(deadline, "the process to end", async || Ok(child.try_wait()?)).await;
        ended.with_context(|| format!("{} did not end on SIGTERM and was killed", self.name))
    }

    /// Ends the program at once, as a crash of its node would.
    pub fn kill(self) {
        drop(self);
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
        let _ = self.owner.tell('-', self.child.id());
    }
}

/// Returns the path of a program for a process in another directory. A bare name is looked up in `PATH`.
fn located(program: &Path) -> io::Result<PathBuf> {
    if program.components().count() > 1 { std::path::absolute(program) } else { Ok(program.to_owned()) }
}

/// Runs the guard process: it records the process groups named on its input (`+id`, `-id`), and when the input ends it kills
/// the remaining groups and removes `directory`.
pub fn guard(directory: &Path) {
    let mut groups = BTreeSet::new();
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        match (line.get(..1), line.get(1..).and_then(|id| id.parse::<i32>().ok())) {
            (Some("+"), Some(id)) => groups.insert(id),
            (_, Some(id)) => groups.remove(&id),
            _ => false,
        };
    }
    for group in groups.into_iter().filter_map(Pid::from_raw) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    // The killed programs may still write for a moment, which makes a removal fail half-way.
    for _ in 0..50 {
        if std::fs::remove_dir_all(directory).is_ok() || !directory.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The last lines of a file, or why there are none.
pub fn tail(path: &Path, lines: usize) -> String {
    match std::fs::read(path) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let all: Vec<&str> = text.lines().collect();
            all.split_at(all.len().saturating_sub(lines)).1.join("\n")
        }
        Err(error) => format!("(no log at {}: {error})", path.display()),
    }
}

/// Ports from which [`free_ports`] takes: neither those that the kernel gives to outgoing connections (32768 and up on
/// Linux, `ip_local_port_range`), of which one may be taken at any time, nor those of NodePorts (30000 and up).
const PORTS: RangeInclusive<u16> = 10_000..=29_999;

/// Returns ports that are free on every address now and that this process has not been given before. Programs of several
/// processes begin to look at different places.
pub fn free_ports<const N: usize>() -> Result<[u16; N]> {
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new((std::process::id() % 200) as u16 * 100));
    let next = || PORTS.start() + NEXT.fetch_add(1, Relaxed) % (PORTS.end() - PORTS.start() + 1);
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok();
    let mut ports = [0; N];
    for port in &mut ports {
        let found = PORTS.map(|_| next()).find(is_free);
        *port = found.context("every port from 10000 to 29999 is taken")?;
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// The processes of a lab whose guard is another program.
    fn guarded_by(program: &str, directory: &Path) -> Processes {
        let mut guard = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let pipe = Mutex::new(guard.stdin.take());
        Processes { inner: Arc::new(Inner { directory: directory.to_owned(), guard: Mutex::new(guard), pipe }) }
    }

    /// Waits until a process has this among its arguments: they are there some time after it was started.
    fn comes_to_run(argument: &str) -> bool {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !runs(argument) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        runs(argument)
    }

    /// Returns true if a process has this among its arguments.
    fn runs(argument: &str) -> bool {
        let processes = std::fs::read_dir("/proc").unwrap().map_while(Result::ok);
        let mut lines = processes.filter_map(|it| std::fs::read(it.path().join("cmdline")).ok());
        lines.any(|line| line.split(|byte| *byte == 0).any(|own| own == argument.as_bytes()))
    }

    #[test]
    fn a_port_is_given_once_and_is_none_that_a_connection_may_take() {
        let first: [u16; 2] = free_ports().unwrap();
        let taken: Vec<_> = first.iter().map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).unwrap()).collect();
        let given: [u16; 500] = free_ports().unwrap();
        let all: BTreeSet<u16> = first.into_iter().chain(given).collect();
        assert_eq!((all.len(), taken.len()), (502, 2));
        let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
        let lowest: u16 = range.split_whitespace().next().unwrap().parse().unwrap();
        assert!(all.iter().all(|port| PORTS.contains(port) && *port < lowest), "{lowest}");
    }

    #[test]
    fn a_program_that_no_guard_knows_of_is_killed() {
        let directory = tempfile::tempdir().unwrap();
        let processes = guarded_by("cat", directory.path());
        let time = format!("86400.{}", std::process::id());
        let running = processes.spawn("sleep", Path::new("sleep"), [&time], &[]).unwrap();
        assert!(comes_to_run(&time));
        drop(running);
        assert!(!runs(&time));
        let processes = guarded_by("true", directory.path());
        processes.inner.guard.lock().unwrap().wait().unwrap();
        let refused = processes.spawn("sleep", Path::new("sleep"), [&time], &[]).err().unwrap();
        assert_eq!(refused.to_string(), "the lab's guard process is gone");
        assert!(!runs(&time));
    }

    #[test]
    fn a_relative_path_of_a_program_is_from_here() {
        let here = std::env::current_dir().unwrap();
        for (program, expected) in
            [("./a", here.join("a")), ("b/a", here.join("b/a")), ("/b/a", "/b/a".into()), ("a", "a".into())]
        {
            assert_eq!(located(Path::new(program)).unwrap(), expected);
        }
    }
}
