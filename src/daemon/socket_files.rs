//! Monitors the files of the sockets: no client can reach a socket whose file was deleted, and the kernel reports no error.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::access::SocketKind;
use crate::api::socket::SocketFiles;
use crate::service::{Finding, Service};
use crate::threads::LOOKING;

/// How often the files are checked.
const EVERY: Duration = Duration::from_secs(1);

/// How long a daemon keeps running whose socket files were missing from its start, because a restarted one may lack them too.
const NEVER_SEEN: Duration = Duration::from_secs(30);

/// Creates lost sockets again, or reports in health that it cannot. If only systemd can create them, stops the daemon and returns
/// the socket's path: `OnFailure=` in the unit then restarts the socket unit.
pub(super) async fn monitor(
    files: Arc<Mutex<SocketFiles>>,
    service: Arc<Service>,
    renewed: Sender<(SocketKind, UnixListener)>,
    stop: CancellationToken,
) -> Option<PathBuf> {
    let mut lost_since = None;
    while stop.run_until_cancelled(sleep(EVERY)).await.is_some() {
        let checking = Arc::clone(&files);
        // A file system can hang, and the event loop must not.
        let check = move || checking.lock().unwrap_or_else(PoisonError::into_inner).check();
        let Ok(checked) = LOOKING.ask(check).await else { continue };
        for socket in checked.renewed {
            tracing::warn!(socket = ?socket.0, "a socket's file was missing; it was created again");
            // The server receives no more when the daemon ends.
            let _ = renewed.send(socket).await;
        }
        service.reconciler().note_sockets(problem(&checked.lost, checked.systemds));
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

fn problem(lost: &[(PathBuf, String)], systemds: bool) -> Option<Finding> {
    let detail: Vec<String> = lost.iter().map(|(path, why)| format!("{}: {why}", path.display())).collect();
    let remedy = match systemds {
        true => "systemctl restart nicd.socket",
        false => "remove the cause; nicd creates the socket again by itself",
    };
    (!lost.is_empty()).then(|| Finding::new(format!("no client gets to {}", detail.join("; nor to ")), remedy))
}
