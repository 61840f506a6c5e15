//! A connection that both sides have switched to another protocol, such as WebSocket.

use std::{sync::Arc, time::Duration};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{
    Lifetime,
    forward::{Activity, becomes_true},
};
use crate::targets::Picked;

/// Copies in both directions until both sides are done, no data goes for long, or the target has no more time.
pub(super) fn open(lifetime: &Lifetime, client: OnUpgrade, target: OnUpgrade, picked: Picked, idle: Duration) {
    lifetime.spawn(async move {
        let (Ok(client), Ok(target)) = tokio::join!(client, target) else { return };
        let (from_client, to_client) = tokio::io::split(TokioIo::new(client));
        let (from_target, to_target) = tokio::io::split(TokioIo::new(target));
        let activity = Arc::new(Activity::begin());
        let both = async {
            tokio::join!(copy(from_client, to_target, &activity), copy(from_target, to_client, &activity));
        };
        tokio::select! {
            () = both => {}
            () = activity.ended(idle) => {}
            () = becomes_true(picked.gone.clone()) => {}
        }
        drop(picked);
    });
}

async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, activity: &Activity) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        activity.touch();
        if to.write_all(buffer.get(..count).unwrap_or_default()).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
