//! Checks the sockets' files: no client reaches a socket whose file is gone, and nothing else shows it.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::access::SocketKind;
use crate::api::socket::SocketFiles;
use crate::service::{Problem, Service};

/// How often the files are checked.
const EVERY: Duration = Duration::from_secs(1);

/// How long a daemon goes on whose files were gone when it started: the next one might not find them either.
const NEVER_SEEN: Duration = Duration::from_secs(30);

/// Makes lost sockets anew, or reports in health that it cannot. When only systemd can, it ends the daemon and returns the path:
/// `OnFailure=` in the unit makes the sockets anew.
pub(super) async fn look_after(
    files: Arc<Mutex<SocketFiles>>,
    manager: Arc<Service>,
    renewed: Sender<(SocketKind, UnixListener)>,
    stop: CancellationToken,
) -> Option<PathBuf> {
    let mut lost_since = None;
    while stop.run_until_cancelled(sleep(EVERY)).await.is_some() {
        let checking = Arc::clone(&files);
        // A file system can hang, and the event loop must not.
        let check = move || checking.lock().unwrap_or_else(PoisonError::into_inner).check();
        let Ok(checked) = tokio::task::spawn_blocking(check).await else { continue };
        for socket in checked.renewed {
            tracing::warn!(door = ?socket.0, "a socket's file was gone; it was made anew");
            // The server receives no more when the daemon ends.
            let _ = renewed.send(socket).await;
        }
        manager.reconciler().note_sockets(problem(&checked.lost, checked.systemds));
        let Some((path, _)) = checked.lost.into_iter().next() else {
            lost_since = None;
            continue;
        };
        let since = *lost_since.get_or_insert_with(Instant::now);
        let limit = if checked.from_the_start { NEVER_SEEN } else { EVERY };
        if checked.systemds && since.elapsed() >= limit {
            stop.cancel();
            return Some(path);
        }
    }
    None
}

fn problem(lost: &[(PathBuf, String)], systemds: bool) -> Option<Problem> {
    let detail: Vec<String> = lost.iter().map(|(path, why)| format!("{}: {why}", path.display())).collect();
    let remedy = match systemds {
        true => "systemctl restart nicd.socket",
        false => "take away what stands against it; nicd makes the socket anew by itself",
    };
    let reason = "socket_unreachable";
    (!lost.is_empty()).then(|| Problem {
        reason,
        detail: format!("no client gets to {}", detail.join("; nor to ")),
        remedy: remedy.to_owned(),
    })
}
