//! SIGHUP reloads the configuration. Settings that can change at runtime change; the log names the others, which need a restart.
//! An invalid configuration changes nothing, and log and health report it until a valid one is loaded.

use std::sync::Arc;

use tokio::sync::{Notify, watch};

use crate::config::{ConfigError, Settings};
use crate::exit::chain;
use crate::notify::RecipientSettings;
use crate::service::Service;
use crate::systemd;
use crate::telemetry::Log;
use crate::tls::Tls;

use super::policy;

/// The configuration: as used now, and how it is read again.
pub struct Config {
    /// The settings in force.
    pub settings: Settings,
    /// Reads the file again, with what flags and environment said at the start.
    pub read: Arc<dyn Fn() -> Result<Settings, ConfigError> + Send + Sync>,
    /// Whose level can change.
    pub log: Log,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// What a reload changes beside the settings.
pub(super) struct InForce {
    /// Whom nicd tells of ports.
    pub recipients: RecipientSettings,
    /// How clients are served over TLS, if they are.
    pub tls: Option<watch::Sender<Arc<Tls>>>,
}

impl Config {
    /// Reloads the configuration whenever `asked` is notified, also if that was before the call. Never ends.
    pub(super) async fn follow(mut self, asked: Arc<Notify>, service: Arc<Service>, in_force: InForce) {
        loop {
            asked.notified().await;
            systemd::reloading();
            self.reload(&service, in_force.tls.as_ref()).await;
            in_force.recipients.set(&self.settings);
            systemd::ready(&service.reconciler().summary());
        }
    }

    async fn reload(&mut self, service: &Arc<Service>, tls: Option<&watch::Sender<Arc<Tls>>>) {
        let read = Arc::clone(&self.read);
        // A file may lie where reading blocks.
        let read = move || {
            let settings = read()?;
            let tls = settings.listen.served().as_ref().map(Tls::read).transpose()?;
            Ok::<_, ConfigError>((settings, tls))
        };
        let (settings, read) = match tokio::task::spawn_blocking(read).await {
            Ok(Ok(read)) => read,
            Ok(Err(error)) => return refuse(service, &chain(&error)),
            Err(error) => return refuse(service, &error.to_string()),
        };
        let waiting = self.settings.take_over(settings);
        if let Some((in_force, read)) = tls.zip(read) {
            in_force.send_replace(Arc::new(read));
        }
        self.log.set_level(&self.settings.log.level);
        service.reconciler().set_policy(policy(&self.settings));
        service.reconciler().note_config(None);
        match waiting.is_empty() {
            true => tracing::info!("the configuration was read again"),
            false => {
                tracing::warn!(keys = waiting.join(", "), "the configuration was read again; these change at the next start")
            }
        }
    }
}

fn refuse(service: &Arc<Service>, why: &str) {
    tracing::error!(why, "the configuration cannot be used and stays as it was");
    service.reconciler().note_config(Some(why.to_owned()));
}
