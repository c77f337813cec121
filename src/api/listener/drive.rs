//! One connection from accept to close: hyper's work, our limits, and how it ends.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::Limits;
use super::gate::Gate;
use super::line::{Late, Line, Phase, Wire};
use super::refusal::{Refusal, RequestId};
use crate::telemetry::meters;

/// How long a last answer may take to be written and read.
const FAREWELL: Duration = Duration::from_secs(1);

/// The same while the daemon ends: whoever keeps an idle connection open does not hold up a restart.
const HURRIED: Duration = Duration::from_millis(20);

/// How much of a refused request is still read, in bytes, so that its sender gets to read the answer.
const FAREWELL_BYTES: usize = 1 << 20;

/// hyper's least buffer, below which it panics.
const LEAST_BUFFER: usize = 8192;

type Connection = http1::Connection<TokioIo<Wire>, Gate>;

/// How a connection ended.
enum End {
    /// By hyper: all is said, or it could not be understood.
    Http(Result<(), hyper::Error>),
    /// By a limit in time.
    Late(Late),
    /// For another's sake, or because the daemon ends.
    Left,
}

/// Serves one connection until it ends.
pub(super) async fn drive(stream: UnixStream, gate: Gate, leave: CancellationToken) {
    let (line, limits, shutdown) = (Arc::clone(&gate.line), gate.limits.clone(), gate.shutdown.clone());
    let io = TokioIo::new(Wire::new(stream, Arc::clone(&line)));
    let mut connection = builder(&limits).serve_connection(io, gate);
    let end = until_end(&mut connection, &line, &limits, &[shutdown.clone(), leave.clone()]).await;
    let mut stream = connection.into_parts().io.into_inner().stream;
    let last_words = last_words(&end, &line, &limits);
    line.leaves();
    tokio::select! {
        biased;
        () = part(&mut stream, &end, last_words, &shutdown) => {}
        // The seat is wanted. One that was told before to leave has this one step to say why.
        () = leave.cancelled() => {}
    }
}

/// The end of a connection: a last answer if there is one, and a moment to read it.
async fn part(stream: &mut UnixStream, end: &End, last_words: Option<Refusal>, shutdown: &CancellationToken) {
    match (end, last_words) {
        (_, Some(refusal)) => {
            tracing::debug!(?refusal, "connection closed");
            refuse(stream, &refusal).await;
        }
        (End::Http(Ok(())), None) if shutdown.is_cancelled() => linger(stream, HURRIED).await,
        (End::Http(Ok(())), None) => linger(stream, FAREWELL).await,
        (End::Http(Err(_)) | End::Late(_) | End::Left, None) => {}
    }
}

/// Answers a connection that gets no seat. The request is waited for, for a moment: clients take an answer that comes before it
/// for a fault.
pub(super) async fn turn_away(mut stream: UnixStream) {
    let _ = timeout(FAREWELL, stream.readable()).await;
    refuse(&mut stream, &Refusal::Crowded).await;
}

fn builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // Ours tells a head that is late from a connection that is idle; hyper's does not.
        .header_read_timeout(None)
        .max_header_size(limits.header_bytes)
        .max_buf_size(limits.header_bytes.max(LEAST_BUFFER))
        // A client that has sent all and said so (`nc -N`) still reads, and what it asked for is carried out.
        .half_close(true);
    builder
}

/// Runs hyper until it is done, a limit runs out, or the connection is to leave.
async fn until_end(connection: &mut Connection, line: &Line, limits: &Limits, [shutdown, leave]: &[CancellationToken; 2]) -> End {
    let mut timer = pin!(sleep_until(Instant::now()));
    let mut served = pin!(Asked::Open);
    loop {
        let http = poll_fn(|cx| poll(connection, line, limits, timer.as_mut(), cx));
        tokio::select! {
            biased;
            end = http => return end,
            () = leave.cancelled() => return End::Left,
            () = shutdown.cancelled(), if *served == Asked::Open => {
                served.set(Asked::Finish);
                Pin::new(&mut *connection).graceful_shutdown();
            }
        }
    }
}

/// Whether a connection was asked to finish.
#[derive(PartialEq, Eq)]
enum Asked {
    Open,
    Finish,
}

/// Polls hyper, and then the limit that runs after it: phases change only while hyper is polled.
fn poll(
    connection: &mut Connection,
    line: &Line,
    limits: &Limits,
    mut timer: Pin<&mut Sleep>,
    cx: &mut Context<'_>,
) -> Poll<End> {
    if let Poll::Ready(result) = connection.poll_without_shutdown(cx) {
        return Poll::Ready(End::Http(result));
    }
    let Some((due, late)) = line.due(limits) else { return Poll::Pending };
    if timer.deadline() != due {
        timer.as_mut().reset(due);
    }
    ready!(timer.poll(cx));
    Poll::Ready(End::Late(late))
}

/// What is still to be said on a connection that ended, if anything.
fn last_words(end: &End, line: &Line, limits: &Limits) -> Option<Refusal> {
    match end {
        End::Late(Late::Head) => Some(Refusal::TooSlow { limit: limits.arrival }),
        End::Http(Err(error)) => match line.bare() {
            Some(431) => Some(Refusal::HeadersTooLarge { limit: limits.header_bytes }),
            Some(_) => Some(Refusal::Malformed),
            // Heads for which hyper has no answer of its own: HTTP/2's preface, or an end in the middle.
            None if line.phase().0 == Phase::Arriving && (error.is_parse() || error.is_incomplete_message()) => {
                Some(Refusal::Malformed)
            }
            None => None,
        },
        End::Left if matches!(line.phase().0, Phase::Arriving | Phase::Receiving) => Some(Refusal::Crowded),
        End::Http(Ok(())) | End::Late(Late::Silent | Late::Reader) | End::Left => None,
    }
}

async fn refuse(stream: &mut UnixStream, refusal: &Refusal) {
    meters().refused(refusal.reason());
    let bytes = refusal.bytes(RequestId::draw());
    if let Ok(Ok(())) = timeout(FAREWELL, stream.write_all(&bytes)).await {
        linger(stream, FAREWELL).await;
    }
}

/// Says that nothing more will come, and reads on for a moment. A Unix socket closed with bytes unread breaks its peer's
/// sending (EPIPE) before the peer has read the answer (RFC 9112 §9.6).
async fn linger(stream: &mut UnixStream, limit: Duration) {
    let drain = async {
        stream.shutdown().await?;
        let mut buffer = [0; 4096];
        let mut left = FAREWELL_BYTES;
        while left > 0 {
            match stream.read(&mut buffer).await? {
                0 => break,
                read => left = left.saturating_sub(read),
            }
        }
        std::io::Result::Ok(())
    };
    let _ = timeout(limit, drain).await;
}
