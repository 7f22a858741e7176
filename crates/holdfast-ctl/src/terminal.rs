//! What is read from people and from standard input.

use std::io::{BufRead, IsTerminal, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::error::CtlError;

/// All of standard input.
pub(crate) fn all() -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The first word of standard input; empty when there is none.
pub(crate) fn word() -> std::io::Result<String> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(line.split_whitespace().next().unwrap_or_default().to_owned())
}

/// A password that is typed unseen; `None` when standard input is no terminal.
pub(crate) fn password(prompt: &str) -> Result<Option<String>, CtlError> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Ok(None);
    }
    let before = tcgetattr(&stdin).map_err(std::io::Error::from)?;
    let mut unseen = before.clone();
    unseen.local_modes.remove(LocalModes::ECHO);
    let mut stderr = std::io::stderr();
    write!(stderr, "{prompt}")?;
    tcsetattr(&stdin, OptionalActions::Flush, &unseen).map_err(std::io::Error::from)?;
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    tcsetattr(&stdin, OptionalActions::Flush, &before).map_err(std::io::Error::from)?;
    writeln!(stderr)?;
    read?;
    Ok(Some(line.trim_end_matches(['\r', '\n']).to_owned()))
}

/// A new password, typed twice.
pub(crate) fn new_password(name: &str) -> Result<String, CtlError> {
    let ask = |prompt: &str| {
        let none = || {
            CtlError::Arguments(
                "a password is typed on a terminal; without one give --interactive=false and the password on standard input"
                    .to_owned(),
            )
        };
        password(prompt)?.ok_or_else(none)
    };
    let first = ask(&format!("Password of {name}: "))?;
    if first.is_empty() {
        return Err(CtlError::Arguments("the password is empty".to_owned()));
    }
    if ask("The same once more: ")? != first {
        return Err(CtlError::Arguments("the two passwords differ".to_owned()));
    }
    Ok(first)
}
