use clap::Parser as _;
use tokio::{net::TcpListener, sync::oneshot};

use super::*;

#[derive(Debug, clap::Parser)]
struct Line {
    #[command(flatten)]
    flags: ControllerFlags,
}

#[tokio::test]
async fn a_task_that_panics_ends_the_process_and_one_that_goes_on_does_not() {
    let within = Duration::from_secs(5);
    let mut election = tokio::spawn(async { panic!("by test") });
    assert_eq!(tokio::time::timeout(within, ended(Some(&mut election))).await, Ok(()));
    let mut tasks = JoinSet::new();
    tasks.spawn(std::future::pending());
    assert!(futures::poll!(std::pin::pin!(one_ended(&mut tasks))).is_pending());
    assert!(futures::poll!(std::pin::pin!(one_ended(&mut JoinSet::new()))).is_pending());
    assert!(futures::poll!(std::pin::pin!(ended(None))).is_pending());
    tasks.spawn(async { panic!("by test") });
    assert_eq!(tokio::time::timeout(within, one_ended(&mut tasks)).await, Ok(()));
}

#[tokio::test]
async fn a_stop_while_the_api_server_has_not_answered_yet_ends_the_start() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let kubeconfig = std::env::temp_dir().join(format!("albatross-{}-silent.yaml", std::process::id()));
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts: [{{name: a, context: {{cluster: a, user: a}}}}]\n\
         users: [{{name: a, user: {{}}}}]\nclusters: [{{name: a, cluster: {{server: \"http://{}\"}}}}]\n",
        server.local_addr().unwrap()
    );
    std::fs::write(&kubeconfig, text).unwrap();
    let path = kubeconfig.to_str().unwrap();
    let flags = Line::parse_from(["albatross", "--cluster-name", "demo", "--kubeconfig", path]).flags;
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(run(flags, async move {
        let _ = stopped.await;
    }));
    let accepted = tokio::time::timeout(Duration::from_secs(20), server.accept()).await;
    assert!(matches!(accepted, Ok(Ok(_))), "{accepted:?}");
    assert!(!running.is_finished());
    stop.send(()).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(2), running).await;
    let _ = std::fs::remove_file(&kubeconfig);
    assert!(matches!(ended, Ok(Ok(Ok(())))), "{ended:?}");
}
