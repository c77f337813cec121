//! Which machines say on a bridge that they have which addresses: heard while machines are asked, and no longer.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::inventory::neighbours::Conflict;
use crate::kernel::handle::KernelHandle;
use crate::model::Mac;
use crate::neighbours;
use crate::sys::packet::PacketSocket;
use crate::threads::{CLOSING, SPEAKING};

/// How many ports are asked for, or told of, at the same time: what many cause at once is spread.
const AT_ONCE: usize = 32;

/// How many claims of one bridge are looked at before anything else is done.
const TURN: usize = 64;

/// So much of a frame is read, in octets: what is behind it says nothing of addresses.
const READ: usize = 128;

/// The bridges that are listened to, and the socket that speaks to all of them.
#[derive(Debug)]
pub(super) struct Listening {
    bridges: Arc<Mutex<HashMap<u32, Bridge>>>,
    speaker: OnceLock<Arc<PacketSocket>>,
    pub(super) turns: Semaphore,
}

/// A bridge that is listened to, for as long as an operation waits.
#[derive(Debug)]
struct Bridge {
    waiting: Vec<Waiting>,
    next: u64,
    stop: CancellationToken,
}

/// An operation that waits for other machines' claims to addresses.
#[derive(Debug)]
struct Waiting {
    number: u64,
    /// Who may say so: its server.
    own: Vec<Mac>,
    addresses: Vec<IpAddr>,
    heard: mpsc::Sender<Conflict>,
}

/// What is heard, until it is dropped.
#[derive(Debug)]
pub(super) struct Ear {
    bridges: Arc<Mutex<HashMap<u32, Bridge>>>,
    bridge: u32,
    number: u64,
    pub(super) heard: mpsc::Receiver<Conflict>,
}

impl Default for Listening {
    fn default() -> Self {
        Self { bridges: Arc::default(), speaker: OnceLock::new(), turns: Semaphore::new(AT_ONCE) }
    }
}

impl Listening {
    /// Sends frames out of a bridge, as the host does: to all its ports, one after the other. No other operation waits for it.
    pub(super) async fn say(&self, kernel: &dyn KernelHandle, bridge: u32, frames: Vec<Vec<u8>>) -> io::Result<()> {
        let speaker = match self.speaker.get() {
            Some(speaker) => speaker,
            None => {
                let speaker = Arc::new(kernel.speak()?);
                self.speaker.get_or_init(|| speaker)
            }
        };
        let speaker = Arc::clone(speaker);
        let sent = SPEAKING.ask(move || frames.iter().try_for_each(|frame| speaker.send(bridge, frame)));
        sent.await.unwrap_or_else(|ended| Err(io::Error::other(ended)))
    }

    /// Listens on a bridge for those who have one of these addresses, other than with these MACs.
    pub(super) fn listen(&self, kernel: &dyn KernelHandle, bridge: u32, own: Vec<Mac>, addresses: &[IpAddr]) -> io::Result<Ear> {
        let (heard, hears) = mpsc::channel(1);
        let mut bridges = lock(&self.bridges);
        let listened = match bridges.entry(bridge) {
            Entry::Occupied(listened) => listened.into_mut(),
            Entry::Vacant(silent) => {
                let socket = kernel.hear_neighbours(bridge)?;
                let stop = CancellationToken::new();
                tokio::spawn(follow(Arc::clone(&self.bridges), bridge, socket, stop.clone()));
                silent.insert(Bridge { waiting: Vec::new(), next: 0, stop })
            }
        };
        listened.next += 1;
        let number = listened.next;
        listened.waiting.push(Waiting { number, own, addresses: addresses.to_vec(), heard });
        Ok(Ear { bridges: Arc::clone(&self.bridges), bridge, number, heard: hears })
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        let mut bridges = lock(&self.bridges);
        let Some(listened) = bridges.get_mut(&self.bridge) else { return };
        listened.waiting.retain(|waiting| waiting.number != self.number);
        if listened.waiting.is_empty()
            && let Some(listened) = bridges.remove(&self.bridge)
        {
            listened.stop.cancel();
        }
    }
}

/// Tells the operations that wait what is said on a bridge, until none waits. Cancel-safe: what was read is told at once.
async fn follow(bridges: Arc<Mutex<HashMap<u32, Bridge>>>, bridge: u32, socket: PacketSocket, stop: CancellationToken) {
    let socket = match socket.watched() {
        Ok(socket) => socket,
        Err(error) => return tracing::error!(bridge, %error, "who has which address cannot be waited for"),
    };
    let mut buffer = [0; READ];
    loop {
        let mut ready = tokio::select! {
            ready = socket.readable() => match ready {
                Ok(ready) => ready,
                Err(error) => return tracing::error!(bridge, %error, "who has which address cannot be waited for"),
            },
            () = stop.cancelled() => break,
        };
        for _ in 0..TURN {
            match socket.get_ref().receive(&mut buffer) {
                Ok(received) => {
                    if let Some((address, holder)) = neighbours::claim(&buffer[..received.length]) {
                        tell(&bridges, bridge, Conflict { address, holder });
                    }
                }
                Err(_) => {
                    ready.clear_ready();
                    break;
                }
            }
        }
        tokio::task::yield_now().await;
    }
    // The kernel waits until no processor uses it.
    let socket = socket.into_inner();
    CLOSING.run(move || drop(socket));
}

fn tell(bridges: &Mutex<HashMap<u32, Bridge>>, bridge: u32, claim: Conflict) {
    let bridges = lock(bridges);
    let waiting = bridges.get(&bridge).into_iter().flat_map(|listened| &listened.waiting);
    for one in waiting.filter(|one| !one.own.contains(&claim.holder) && one.addresses.contains(&claim.address)) {
        // The first one is enough.
        let _ = one.heard.try_send(claim);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing can panic while it is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
