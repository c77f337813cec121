//! SIGHUP reloads the configuration. Settings that can change at runtime change; the log names the others, which need a restart.
//! An invalid configuration changes nothing, and log and health report it until a valid one is loaded.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::config::{ConfigError, Settings};
use crate::exit::chain;
use crate::notify::RecipientSettings;
use crate::service::Service;
use crate::systemd;
use crate::telemetry::Log;

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

impl Config {
    /// Reloads the configuration whenever `asked` is notified, also if that was before the call. Never ends.
    pub(super) async fn follow(mut self, asked: Arc<Notify>, service: Arc<Service>, recipients: RecipientSettings) {
        loop {
            asked.notified().await;
            systemd::reloading();
            self.reload(&service).await;
            recipients.set(&self.settings);
            systemd::ready(&service.reconciler().summary());
        }
    }

    async fn reload(&mut self, service: &Arc<Service>) {
        let read = Arc::clone(&self.read);
        // A file may lie where reading blocks.
        let settings = match tokio::task::spawn_blocking(move || read()).await {
            Ok(Ok(settings)) => settings,
            Ok(Err(error)) => return refuse(service, &chain(&error)),
            Err(error) => return refuse(service, &error.to_string()),
        };
        let waiting = self.settings.take_over(settings);
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
