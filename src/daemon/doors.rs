//! The sockets' files are looked after: a socket whose file is gone listens for nobody, and nothing else shows it.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::access::SocketKind;
use crate::api::socket::Held;
use crate::manager::{Manager, Problem};

/// How often the files are looked at.
const EVERY: Duration = Duration::from_secs(1);

/// How long a daemon goes on whose files were gone when it started: the next one may not find them either.
const NEVER_SEEN: Duration = Duration::from_secs(30);

/// Makes lost files anew, or says in health that it cannot. When only systemd can, this ends the daemon, and answers with the
/// socket: `OnFailure=` in its unit has the sockets made anew.
pub(super) async fn look_after(
    files: Arc<Mutex<Held>>,
    manager: Arc<Manager>,
    renewed: Sender<(SocketKind, UnixListener)>,
    stop: CancellationToken,
) -> Option<PathBuf> {
    let mut lost_since = None;
    while stop.run_until_cancelled(sleep(EVERY)).await.is_some() {
        let looking = Arc::clone(&files);
        // A file system can hang; the event loop must not.
        let look = move || looking.lock().unwrap_or_else(PoisonError::into_inner).look();
        let Ok(looked) = tokio::task::spawn_blocking(look).await else { continue };
        for socket in looked.renewed {
            tracing::warn!(door = ?socket.0, "a socket's file was gone; it was made anew");
            // Nobody listens any more when the daemon ends.
            let _ = renewed.send(socket).await;
        }
        manager.note_sockets(problem(&looked.lost, looked.systemds));
        let Some((path, _)) = looked.lost.into_iter().next() else {
            lost_since = None;
            continue;
        };
        let since = *lost_since.get_or_insert_with(Instant::now);
        let limit = if looked.from_the_start { NEVER_SEEN } else { EVERY };
        if looked.systemds && since.elapsed() >= limit {
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
