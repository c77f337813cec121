//! Answers the clients of a nicd that cannot start.
//!
//! The sockets are systemd's: a client that waits in one and gets no answer would have systemd start nicd again at once, and after
//! twenty such starts in two seconds systemd would close the socket. A nicd that cannot start therefore answers every request for
//! a second with the reason, and then ends with its exit code. The next client has systemd try again.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::access::AllowedPeers;
use crate::api;
use crate::api::listener::{Limits, Server};
use crate::api::socket::{Listening, Sockets};
use crate::systemd;

/// How long clients are answered: there is no more than one start in this time, far fewer than make systemd close the socket.
const ANSWERING: Duration = Duration::from_secs(1);

/// How long answers that are under way may take at the end.
const GRACE: Duration = Duration::from_millis(200);

/// The sockets that systemd passed, for the case that the daemon cannot start.
#[derive(Debug)]
pub struct Spare(Listening);

impl Spare {
    /// Of sockets that were passed.
    ///
    /// # Errors
    /// There is no free descriptor.
    pub fn of(sockets: &Sockets) -> io::Result<Self> {
        let Listening { main, view } = &sockets.listening;
        Ok(Self(Listening { main: main.try_clone()?, view: view.as_ref().map(|view| view.try_clone()).transpose()? }))
    }

    /// Answers every request for a second with 503 and the reason.
    ///
    /// # Errors
    /// No request can be answered.
    pub fn refuse(self, why: &str) -> io::Result<()> {
        systemd::starting(why);
        // The groups may be in the configuration that cannot be read: they are those of the sockets' files.
        let Listening { main, view } = &self.0;
        let admitted = AllowedPeers {
            own_uid: nix::unistd::geteuid().as_raw(),
            group: group_of(main),
            view_group: view.as_ref().and_then(group_of),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let answered = runtime.block_on(async {
            let stop = CancellationToken::new();
            let end = stop.clone();
            tokio::spawn(async move {
                tokio::time::sleep(ANSWERING).await;
                end.cancel();
            });
            let (_renew, renewed) = mpsc::channel(1);
            let limits = Limits { grace: GRACE, ..Limits::default() };
            Server::new(self.0, admitted, limits).serve(api::refusing(why), renewed, stop).await
        });
        runtime.shutdown_background();
        answered
    }
}

/// The group of a socket's file.
fn group_of(listener: &UnixListener) -> Option<u32> {
    let address = listener.local_addr().ok()?;
    fs::metadata(address.as_pathname()?).ok().map(|file| file.gid())
}
