//! The service manager: what it is told, and what it hands over. Speaks systemd's protocol, which other managers speak
//! as well; without one, all of this does nothing. Does not know what the server does.

use crate::net::{listener, sys};
use sd_notify::NotifyState;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

/// A manager waits so much longer than the drain may take.
const DRAIN_GRACE: Duration = Duration::from_secs(5);

/// The server serves; `status` is what `systemctl status` shows.
pub fn ready(status: &str) {
    // A line each is something else to the manager.
    let status = status.replace('\n', " ");
    tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// The config is being read again; [`ready`] ends it.
pub fn reloading() {
    // With the time, so that the manager knows that this answers its latest request.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now, NotifyState::Status("reading the config again")]),
        Err(error) => tracing::warn!(%error, "cannot tell the service manager of a reload: no clock"),
    }
}

/// The server drains within `drain_max`: no manager kills it before that, whatever its unit says.
pub fn stopping(drain_max: Duration, status: &str) {
    let patience = u32::try_from((drain_max + DRAIN_GRACE).as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(patience), NotifyState::Status(status)]);
}

/// All cores turn.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot reach the service manager at NOTIFY_SOCKET");
    }
}

/// How long the manager waits for a sign of life before it kills the process; `None` if it does not.
#[must_use]
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|patience| !patience.is_zero())
}

/// Sockets that clients come in by: at least one, all of one address.
#[derive(Debug)]
pub struct Inherited {
    /// The sockets.
    pub listeners: Vec<TcpListener>,
    /// Their address.
    pub address: SocketAddr,
}

impl Inherited {
    /// The listening sockets that the manager has opened for clients, if any. To be called before anything else opens
    /// descriptors.
    ///
    /// # Errors
    /// Something else than listening TCP sockets of one address was passed, or the variables make no sense.
    pub fn take() -> Result<Option<Inherited>, String> {
        let descriptors =
            sys::inherited().map_err(|error| format!("the sockets that LISTEN_FDS promises are not there: {error}"))?;
        let mut inherited: Option<Inherited> = None;
        for (index, descriptor) in descriptors.into_iter().enumerate() {
            let (listener, address) = listener::adopt(descriptor).map_err(|error| {
                format!("socket {} of LISTEN_FDS is not one that clients can come in by: {error}", index + 1)
            })?;
            let all = inherited.get_or_insert(Inherited { listeners: Vec::new(), address });
            if all.address != address {
                return Err(format!(
                    "the sockets of LISTEN_FDS have two addresses, {} and {address}: a socket unit opens the clients' \
                     port and no other",
                    all.address
                ));
            }
            all.listeners.push(listener);
        }
        Ok(inherited)
    }

    /// A listener for each core, and whether cores share them.
    ///
    /// # Errors
    /// There are more sockets than cores, or no descriptor is left.
    pub fn deal(&self, cores: usize) -> Result<(Vec<TcpListener>, bool), String> {
        let count = self.listeners.len();
        if count > cores {
            return Err(format!(
                "LISTEN_FDS passes {count} sockets for {cores} cores, and nobody would take what comes in by the rest: \
                 the socket unit repeats ListenStream= at most as often as there are cores (server.cores)"
            ));
        }
        let listeners = listener::share(&self.listeners, cores)
            .map_err(|error| format!("cannot share the sockets of LISTEN_FDS between cores: {error}"))?;
        Ok((listeners, count < cores))
    }
}
