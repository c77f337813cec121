//! The daemon as commands call it: `nicd_client`, which repeats what a restart of the daemon interrupted.

use std::path::PathBuf;
use std::time::Duration;

use nicd_client::{FirstContact, Retry};
use serde_json::Value;

pub use nicd_client::{Client, Error as ClientError, member};

/// How long a command waits for a daemon that went away under it.
const INTERRUPTION: Duration = Duration::from_secs(3);

/// The daemon at `socket`. That it is not there is told at once.
pub fn daemon(socket: PathBuf) -> Client {
    let retry = Retry { limit: INTERRUPTION, first_contact: FirstContact::Required, ..Retry::default() };
    Client::new(socket).with_retry(retry)
}

/// The `id` of an object, or the member that has it.
pub fn id_of(object: &Value, key: &'static str) -> Result<String, ClientError> {
    object[key].as_str().map(str::to_owned).ok_or(ClientError::Incomplete { key })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::ctl::failure::Failure;

    #[tokio::test]
    async fn a_daemon_that_says_nothing_is_given_up() {
        let room = tempfile::tempdir().unwrap();
        let socket = room.path().join("nicd.sock");
        let _silent = UnixListener::bind(&socket).unwrap();
        let client = daemon(socket).with_limit(Duration::from_millis(20));
        for given_up in [client.delete("/x").await.map(drop), client.events().await.map(drop)] {
            let failure = Failure::from(given_up.unwrap_err());
            assert_eq!(failure.exit_code(), 4);
            assert!(failure.sentence().contains("did not answer"), "{}", failure.sentence());
        }
    }
}
