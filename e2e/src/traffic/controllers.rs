//! The controller whose changes are measured: the project's own, or any other that a command line starts. It reaches the
//! API server through a way that can be cut.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::{JoinHandle, JoinSet};

use crate::lab::Lab;
use crate::lab::aws::REGION;
use crate::lab::cluster::text;
use crate::lab::controller::{Controller, NAME};
use crate::lab::processes::Process;
use crate::lab::wait_for;
use crate::lab::world::CLUSTER;

/// The most that a controller may take to be ready, and to end.
const READY_WITHIN: Duration = Duration::from_secs(120);
const ENDS_WITHIN: Duration = Duration::from_secs(30);
/// Elects, in a namespace that exists by itself.
const ELECTION: [&str; 2] = ["--enable-leader-election=true", "--leader-election-namespace=default"];

/// The controllers that run: one, or two where the leader is handed over.
pub(crate) struct Controllers {
    lab: Arc<Lab>,
    command: Option<String>,
    way: Mutex<Way>,
    kubeconfig: PathBuf,
    running: Mutex<Vec<Running>>,
}

enum Running {
    Own(Controller),
    Other(Process),
}

impl Running {
    fn check(&mut self) -> Result<()> {
        match self {
            Self::Own(controller) => controller.check_running(),
            Self::Other(process) => process.check_running(),
        }
    }

    async fn stop(self) -> Result<()> {
        match self {
            Self::Own(controller) => controller.stop().await,
            // Others may end with a failure when they are told to end.
            Self::Other(process) => process.stop(ENDS_WITHIN).await.map(drop),
        }
    }

    fn kill(self) {
        match self {
            Self::Own(controller) => controller.kill(),
            Self::Other(process) => process.kill(),
        }
    }
}

impl Controllers {
    /// Starts the controller.
    pub(crate) async fn start(lab: Arc<Lab>, command: Option<String>) -> Result<Self> {
        let mut kubeconfig: Value = serde_json::from_slice(&fs::read(&lab.kubeconfig)?)?;
        let server = text(&kubeconfig, "/clusters/0/cluster/server").trim_start_matches("https://").to_owned();
        let way = Way::to(server.parse().context("the API server's address")?).await?;
        let server = kubeconfig.pointer_mut("/clusters/0/cluster/server").context("a kubeconfig without a server")?;
        *server = format!("https://127.0.0.1:{}", way.port).into();
        let file = lab.directory().join("kubeconfig-of-controller");
        fs::write(&file, kubeconfig.to_string())?;
        let controllers = Self { lab, command, way: Mutex::new(way), kubeconfig: file, running: Mutex::default() };
        controllers.add(false).await?;
        Ok(controllers)
    }

    /// Returns true if it is the project's own.
    pub(super) fn is_own(&self) -> bool {
        self.command.is_none()
    }

    async fn add(&self, elects: bool) -> Result<()> {
        let mut running = self.running.lock().await;
        if let Some(command) = &self.command {
            running.push(Running::Other(self.spawn(command)?));
            return Ok(());
        }
        let kubeconfig = format!("--kubeconfig={}", self.kubeconfig.display());
        let mut flags = vec![kubeconfig.as_str()];
        if elects {
            flags.extend(ELECTION);
        }
        let mut controller = self.lab.controller(&flags)?;
        let ready = controller.ready(READY_WITHIN).await;
        ready.with_context(|| format!("the controller's log ends:\n{}", self.lab.controller_log(20)))?;
        running.push(Running::Own(controller));
        Ok(())
    }

    fn spawn(&self, command: &str) -> Result<Process> {
        let words = filled(
            command,
            &[
                ("{kubeconfig}", &self.kubeconfig.display().to_string()),
                ("{endpoint}", &self.lab.proxy.url),
                ("{region}", REGION),
                ("{vpc}", &self.lab.world.vpc),
                ("{cluster}", CLUSTER),
            ],
        );
        let (program, arguments) = words.split_first().context("the controller's command is empty")?;
        let kubeconfig = self.kubeconfig.display().to_string();
        let environment = [
            ("AWS_ACCESS_KEY_ID", "x"),
            ("AWS_SECRET_ACCESS_KEY", "y"),
            ("AWS_REGION", REGION),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_ENDPOINT_URL", &self.lab.proxy.url),
            ("KUBECONFIG", &kubeconfig),
        ];
        self.lab.spawn(NAME, program.as_ref(), arguments, &environment)
    }

    /// Fails if one has ended by itself.
    pub(crate) async fn check(&self) -> Result<()> {
        self.running.lock().await.iter_mut().try_for_each(Running::check)
    }

    /// Ends all as a crash does.
    pub(super) async fn kill(&self) {
        self.running.lock().await.drain(..).for_each(Running::kill);
    }

    /// Starts one where none runs.
    pub(super) async fn restart(&self) -> Result<()> {
        ensure!(self.running.lock().await.is_empty(), "a controller runs already");
        self.add(false).await
    }

    /// Runs two, of which one leads, where that can be told; else one.
    pub(super) async fn elect(&self) -> Result<()> {
        self.stop().await?;
        self.add(true).await?;
        if self.is_own() { self.add(true).await } else { Ok(()) }
    }

    /// Ends the leader as a rollout does; a controller of which there is only one is started again.
    pub(super) async fn hand_over(&self) -> Result<()> {
        let leader = {
            let mut running = self.running.lock().await;
            let place = wait_for(READY_WITHIN, "a leader", async || leader_of(&running).await).await?;
            running.remove(place)
        };
        leader.stop().await?;
        if self.running.lock().await.is_empty() { self.add(false).await } else { Ok(()) }
    }

    /// Ends all as a rollout does.
    pub(super) async fn stop(&self) -> Result<()> {
        let running: Vec<Running> = self.running.lock().await.drain(..).collect();
        for controller in running {
            controller.stop().await?;
        }
        Ok(())
    }

    /// Makes one run that elects nobody, whatever runs now and however the way to the API server is.
    pub(super) async fn reset(&self) -> Result<()> {
        self.mend().await?;
        let is_one = {
            let mut running = self.running.lock().await;
            running.len() == 1 && running.iter_mut().all(|controller| controller.check().is_ok())
        };
        if is_one {
            return Ok(());
        }
        self.kill().await;
        self.restart().await
    }

    /// Takes the API server away from the controllers.
    pub(super) async fn cut(&self) {
        self.way.lock().await.cut().await;
    }

    /// Gives it back.
    pub(super) async fn mend(&self) -> Result<()> {
        self.way.lock().await.mend().await
    }
}

/// Returns the place of the controller that leads.
async fn leader_of(running: &[Running]) -> Result<Option<usize>> {
    if running.len() == 1 {
        return Ok(Some(0));
    }
    for (place, controller) in running.iter().enumerate() {
        if let Running::Own(controller) = controller
            && controller.metrics().await?.contains("\nalbatross_leader 1\n")
        {
            return Ok(Some(place));
        }
    }
    Ok(None)
}

/// Returns the words of a command with its placeholders filled. A value stays one word, whatever it contains.
fn filled(command: &str, values: &[(&str, &str)]) -> Vec<String> {
    let fill = |word: &str| values.iter().fold(word.to_owned(), |word, (name, value)| word.replace(name, value));
    command.split_whitespace().map(fill).collect()
}

/// A way to a server on loopback that can be cut, as an outage of the server looks to its clients.
struct Way {
    port: u16,
    server: SocketAddr,
    task: Option<JoinHandle<()>>,
}

impl Way {
    async fn to(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        Ok(Self { port, server, task: Some(tokio::spawn(pass_on(listener, server))) })
    }

    /// Closes all connections, and refuses new ones.
    async fn cut(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            // Aborted: its error says so.
            let _ = task.await;
        }
    }

    /// Opens it again.
    async fn mend(&mut self) -> Result<()> {
        if self.task.is_none() {
            let listener = TcpListener::bind(("127.0.0.1", self.port)).await?;
            self.task = Some(tokio::spawn(pass_on(listener, self.server)));
        }
        Ok(())
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn pass_on(listener: TcpListener, server: SocketAddr) {
    // Dropping the set ends every connection.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((mut client, _)) = accepted else { return };
                connections.spawn(async move {
                    let mut server = TcpStream::connect(server).await?;
                    tokio::io::copy_bidirectional(&mut client, &mut server).await
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn the_words_of_a_command_are_filled() {
        let command = "/bin/other  --kubeconfig={kubeconfig} --region {region} {region}-{none}";
        let words = filled(command, &[("{kubeconfig}", "/a b/c"), ("{region}", "us-west-2")]);
        let expected = ["/bin/other", "--kubeconfig=/a b/c", "--region", "us-west-2", "us-west-2-{none}"];
        assert_eq!(words, expected);
    }

    #[tokio::test]
    async fn a_way_that_is_cut_refuses_and_mended_it_leads_again() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            loop {
                let (mut stream, _) = server.accept().await.unwrap();
                stream.write_all(b"!").await.unwrap();
                let _ = stream.read_u8().await;
            }
        });
        let mut way = Way::to(address).await.unwrap();
        let mut client = TcpStream::connect(("127.0.0.1", way.port)).await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'!');
        way.cut().await;
        assert!(client.read_u8().await.is_err());
        assert!(TcpStream::connect(("127.0.0.1", way.port)).await.is_err());
        way.mend().await.unwrap();
        let mut client = TcpStream::connect(("127.0.0.1", way.port)).await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'!');
        serving.abort();
    }
}
