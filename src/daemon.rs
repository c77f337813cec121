//! Placeholder on this branch: binds the sockets and answers 404 to everything.

use std::error::Error;

use axum::Router;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::api::listener::{Limits, Listener};
use crate::api::peer::Admitted;
use crate::api::socket::{SocketError, Sockets};
use crate::config::Settings;
use crate::exit::Exit;

/// Why the daemon ended.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The sockets cannot be had.
    #[error("the sockets cannot be taken")]
    Socket(#[from] SocketError),
    /// Anything else.
    #[error("the daemon cannot run")]
    Other(#[from] Box<dyn Error + Send + Sync>),
}

impl DaemonError {
    /// What the program ends with.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Socket(error) => error.exit(),
            Self::Other(_) => Exit::Internal,
        }
    }
}

/// Runs the daemon until it is asked to end.
///
/// # Errors
/// It cannot start.
pub fn run(settings: &Settings) -> Result<(), DaemonError> {
    let admitted = Admitted::resolve(&settings.socket).map_err(Box::<dyn Error + Send + Sync>::from)?;
    let Sockets { listening, held } = Sockets::take(&settings.socket, &admitted)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Box::<dyn Error + Send + Sync>::from)?;
    let listener = Listener::new(listening, admitted, Limits::from(&settings.socket));
    let served = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let mut terminate = signal(SignalKind::terminate())?;
        let stop = shutdown.clone();
        tokio::spawn(async move {
            terminate.recv().await;
            stop.cancel();
        });
        listener.serve(Router::new(), shutdown).await?;
        Ok::<(), Box<dyn Error + Send + Sync>>(())
    });
    drop(held);
    Ok(served?)
}
