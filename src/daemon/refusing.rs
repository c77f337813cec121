//! Answers the clients of a nicd that cannot start.
//!
//! The sockets are systemd's: a client that waits in one and gets no answer would have systemd start nicd again at once, and after
//! twenty such starts in two seconds systemd would close the socket. A nicd that cannot start therefore answers every request for
//! a second with the reason, and then ends with its exit code. The next client has systemd try again.

use std::io;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::access::AllowedPeers;
use crate::api;
use crate::api::listener::{Limits, Server};
use crate::api::socket::{Listening, Sockets};
use crate::config::Settings;
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
        // The groups that may use the sockets may be in the configuration that cannot be read; their files have the groups' modes.
        let settings = Settings::defaults().map_err(io::Error::other)?;
        let admitted = AllowedPeers::resolve(&settings.socket).map_err(io::Error::other)?;
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
