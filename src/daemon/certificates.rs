//! Tells in health and metrics when certificates of `[listen]` end.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::service::{Finding, Service};
use crate::telemetry::meters;
use crate::tls::{CERT, CLIENT_CA, Certificate, Tls};

/// How often it is looked at without a reload.
const EVERY: Duration = Duration::from_secs(3600);

/// Looks at the certificates in force whenever they change, and every hour.
pub(super) async fn monitor(mut tls: watch::Receiver<Arc<Tls>>, service: Arc<Service>, stop: CancellationToken) {
    loop {
        let now = clock::now();
        let read = Arc::clone(&tls.borrow_and_update());
        for (file, key) in [("cert", CERT), ("client_ca", CLIENT_CA)] {
            let ends = read.certificates.iter().filter(|certificate| certificate.key == key).map(|certificate| certificate.ends);
            meters().certificate_ends(file, ends.min().map_or(0, |ends| ends.as_second()));
        }
        let ended = |certificate: &Certificate| if certificate.ends <= now { "ended" } else { "ends" };
        let findings = read.ending(now).map(|certificate| {
            let Certificate { key, path, name, ends } = certificate;
            Finding::new(
                format!("the certificate of '{name}' in {key} ({}) {} at {ends}", path.display(), ended(certificate)),
                "put a newer one into the file (of an authority that is not needed any more: take it out), then systemctl reload nicd",
            )
        });
        service.reconciler().note_certificates(findings.collect());
        tokio::select! {
            () = sleep(EVERY) => {}
            Ok(()) = tls.changed() => {}
            () = stop.cancelled() => return,
        }
    }
}
