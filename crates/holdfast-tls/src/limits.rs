//! How much of a port handshakes may take. Fixed: no flag changes them.

use std::time::Duration;

/// A connection that has not finished its handshake after so long is closed; a real one takes milliseconds, and a client
/// across the world with a lost packet a few seconds.
pub const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);

/// Handshakes under way on one port. More wait for their turn, within their own time. One costs a processor about a
/// millisecond, so that these are what a few seconds can do.
pub const HANDSHAKES_MAX: usize = 1024;

/// Pause after a failed accept (usually: no file descriptors left), so that a port does not spin.
pub const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Who connects with TLS 1.3 waits so long for the server's verdict on its certificate, which comes at once with the tickets
/// that servers give.
pub const VERDICT_TIME_MAX: Duration = Duration::from_millis(500);

/// Files are looked at again so often.
pub const RELOAD_INTERVAL: Duration = Duration::from_secs(2);

/// A port says the same thing about failed handshakes at most so often; the line counts those in between.
pub const SAME_WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// Who is told why its handshake failed gets so long to read it, before the connection is reset.
pub const LAST_WORDS_TIME_MAX: Duration = Duration::from_secs(1);

/// Last words are read past at most so many bytes of what the other end still sends.
pub const LAST_WORDS_BYTES_MAX: usize = 64 * 1024;

/// Bounds of one file with certificates or a key.
pub const FILE_BYTES_MAX: usize = 4 * 1024 * 1024;
