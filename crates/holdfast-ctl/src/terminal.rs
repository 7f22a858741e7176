//! What is read from people and from standard input. Reading waits on a thread of its own: an interrupt ends it.

use std::io::{BufRead, IsTerminal, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::error::CtlError;
use crate::stop::{INTERRUPTED, Stop};

/// Runs what reads standard input.
///
/// Errors: what it gives.
pub(crate) async fn read<T: Send + 'static>(
    from_stdin: impl FnOnce() -> Result<T, CtlError> + Send + 'static,
) -> Result<T, CtlError> {
    tokio::task::spawn_blocking(from_stdin).await.map_err(anyhow::Error::from)?
}

/// All of standard input; waits for it.
pub(crate) fn all() -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn line() -> Result<String, CtlError> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(line)
}

/// The first word of standard input; empty when there is none.
pub(crate) async fn word() -> Result<String, CtlError> {
    let line = read(line).await?;
    Ok(line.split_whitespace().next().unwrap_or_default().to_owned())
}

/// A terminal that does not show what is typed, until this is dropped.
struct Unseen {
    before: Termios,
}

impl Unseen {
    fn begin() -> std::io::Result<Self> {
        let before = tcgetattr(std::io::stdin())?;
        let mut unseen = before.clone();
        unseen.local_modes.remove(LocalModes::ECHO);
        set(&unseen)?;
        Ok(Self { before })
    }
}

fn set(settings: &Termios) -> std::io::Result<()> {
    Ok(tcsetattr(std::io::stdin(), OptionalActions::Flush, settings)?)
}

impl Drop for Unseen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing; the end of the line was typed unseen, too.
        drop(set(&self.before));
        drop(writeln!(std::io::stderr()));
    }
}

/// A password that is typed unseen; `None` when standard input is no terminal.
pub(crate) async fn password(prompt: &str) -> Result<Option<String>, CtlError> {
    if !std::io::stdin().is_terminal() {
        return Ok(None);
    }
    // Some commands end on an interrupt only when they have given back what they hold; here nothing is held yet.
    let mut stop = Stop::listen()?;
    let unseen = Unseen::begin()?;
    write!(std::io::stderr(), "{prompt}")?;
    let line = tokio::select! {
        line = read(line) => line?,
        () = stop.asked() => return Err(CtlError::Exit(INTERRUPTED)),
    };
    drop(unseen);
    Ok(Some(line.trim_end_matches(['\r', '\n']).to_owned()))
}

/// A new password, typed twice.
pub(crate) async fn new_password(name: &str) -> Result<String, CtlError> {
    let ask = async |prompt: &str| {
        let none = || {
            CtlError::Arguments(
                "a password is typed on a terminal; without one give --interactive=false and the password on standard input"
                    .to_owned(),
            )
        };
        password(prompt).await?.ok_or_else(none)
    };
    let first = ask(&format!("Password of {name}: ")).await?;
    if first.is_empty() {
        return Err(CtlError::Arguments("the password is empty".to_owned()));
    }
    if ask("The same once more: ").await? != first {
        return Err(CtlError::Arguments("the two passwords differ".to_owned()));
    }
    Ok(first)
}
