//! The terminal: taken over whole, and given back in whatever way the demo ends.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, Once, PoisonError};

use holdfast_env::{RealSpawn, Spawn};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::sync::mpsc;

use super::canvas::{Canvas, Size};
use super::keys::{self, Key};

/// The other screen, without a cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[2J";
/// Back, with a cursor and without colours.
const LEAVE: &str = "\x1b[0m\x1b[?25h\x1b[?1049l";
/// Keys that wait to be handled; more are typed by nobody.
const KEYS_MAX: usize = 64;

/// The terminal's modes before it was taken over; here because a panic has to find them.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// A terminal that is taken over; given back when this is dropped, and when the process panics.
pub(super) struct Terminal {
    keys: mpsc::Receiver<Vec<Key>>,
}

/// True when there is somebody to look at a board and to press keys.
pub(in crate::demo) fn is_there() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

impl Terminal {
    /// Takes the terminal over.
    ///
    /// Errors: the system's, when standard input is no terminal.
    pub(super) fn enter() -> io::Result<Self> {
        give_back_on_panic();
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        let entered = tcsetattr(io::stdin(), OptionalActions::Flush, &raw).map_err(io::Error::from);
        if let Err(error) = entered.and_then(|()| write_out(ENTER)) {
            give_back();
            return Err(error);
        }
        Ok(Self { keys: read_keys() })
    }

    /// How large it is now. Without an answer, as large as terminals were at first.
    pub(super) fn size(&self) -> Size {
        let usual = Size { columns: 80, rows: 24 };
        match tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
                Size { columns: usize::from(size.ws_col), rows: usize::from(size.ws_row) }
            }
            _ => usual,
        }
    }

    /// Shows a picture of the terminal's size.
    ///
    /// Errors: nobody is there any more.
    pub(super) fn show(&self, canvas: &Canvas) -> io::Result<()> {
        write_out(&canvas.to_ansi())
    }

    /// The next keys; `None` when standard input has ended. Cancel-safe.
    pub(super) async fn keys(&mut self) -> Option<Vec<Key>> {
        self.keys.recv().await
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        give_back();
    }
}

fn write_out(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush())
}

/// Once: a second call finds nothing to give back.
fn give_back() {
    let Some(before) = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
    let modes = tcsetattr(io::stdin(), OptionalActions::Flush, &before).map_err(io::Error::from);
    if let Err(error) = modes.and(write_out(LEAVE)) {
        // The terminal is gone, and there is nothing to give back.
        tracing::debug!(%error, "cannot restore the terminal");
    }
}

/// The hook runs before an abort, where no destructor does; and before the panic's text, which would be lost with the
/// other screen.
fn give_back_on_panic() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            before(panic);
        }));
    });
}

fn read_keys() -> mpsc::Receiver<Vec<Key>> {
    let (tell, keys) = mpsc::channel(KEYS_MAX);
    let read = async move {
        let mut buffer = [0; 256];
        while let Ok(bytes) = io::Read::read(&mut io::stdin(), &mut buffer)
            && bytes > 0
            && tell.send(keys::read(&buffer[..bytes])).await.is_ok()
        {}
    };
    // The thread blocks in a read until the process ends, so nobody waits for it.
    drop(RealSpawn::new(tokio::runtime::Handle::current()).dedicated("keys", Box::pin(read)));
    keys
}
