//! The daemon as commands call it: `nicd_client`, which repeats what a restart of the daemon interrupted.

use std::path::PathBuf;
use std::time::Duration;

use nicd_client::{FirstContact, Refusals, Remote, Retry};
use serde_json::Value;

pub use nicd_client::{Client, Error as ClientError, member};

/// How long a command waits for a daemon that went away under it.
const INTERRUPTION: Duration = Duration::from_secs(3);

/// The time limit of a read. Changes have the client's own: an attach or a detach may take long.
const READ: Duration = Duration::from_secs(10);

/// How long the daemon may compare all its records with the kernel.
pub const VERIFY: Duration = Duration::from_secs(120);

/// The daemon at a socket. That it is not there is told at once, and so is a refusal that does not end by itself.
pub fn daemon(socket: PathBuf) -> Client {
    as_commands_call(Client::new(socket))
}

/// The daemon of another host, in the same way.
pub fn remote(remote: Remote) -> Client {
    as_commands_call(Client::remote(remote))
}

fn as_commands_call(client: Client) -> Client {
    let refusals = Refusals::Brief;
    let retry = Retry { limit: INTERRUPTION, first_contact: FirstContact::Required, refusals, ..Retry::default() };
    client.with_read_limit(READ).with_retry(retry)
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

    #[tokio::test]
    async fn reads_are_given_up_after_ten_seconds_and_changes_later() {
        let room = tempfile::tempdir().unwrap();
        let socket = room.path().join("nicd.sock");
        let _silent = UnixListener::bind(&socket).unwrap();
        let client = daemon(socket);
        let reads = async { tokio::join!(client.get::<Value>("/x"), client.events()) };
        let (read, events) = tokio::select! {
            said = client.delete("/x") => panic!("{said:?} while reads are waited for"),
            reads = reads => reads,
        };
        for given_up in [read.map(drop), events.map(drop)] {
            let failure = Failure::from(given_up.unwrap_err());
            assert_eq!(failure.exit_code(), 4);
            assert!(failure.sentence().contains("did not answer the request within 10 s"), "{}", failure.sentence());
        }
    }
}
