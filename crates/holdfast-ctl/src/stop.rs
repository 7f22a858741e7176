//! Being asked to end: Ctrl-C, and SIGTERM.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The exit code of what an interrupt has ended before it was done.
pub(crate) const INTERRUPTED: u8 = 130;

/// Interrupts and requests to end. Listened for from the beginning: one that comes between two steps is not lost.
pub(crate) struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Returns at the next one.
    pub(crate) async fn asked(&mut self) {
        // Both are cancel-safe: a signal that is not taken here is taken the next time.
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
