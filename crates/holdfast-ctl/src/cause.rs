//! Why an endpoint cannot be asked: in words, with the next step.

use std::error::Error;
use std::io;
use std::time::Duration;

use holdfast_tls::ConnectError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How HTTP/2 begins where nothing was agreed before, with empty settings behind: RFC 9113, 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// The kind of record in which TLS says what is wrong: RFC 8446, 5.1.
const TLS_ALERT: u8 = 21;

/// What a holdfast port for TLS says to plain text.
const SPEAKS_TLS: &str = "this port speaks TLS";

const PLAIN_ON_TLS: &str =
    "plain text on a TLS port: use https://, and --cacert with the CA's file where it is not a public one";

/// How long a port may take to say what it is.
const PROBE_MAX: Duration = Duration::from_secs(1);

/// What a port says to plain HTTP/2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spoken {
    /// The same.
    Http2,
    /// TLS, or an answer that it wants TLS.
    Tls,
    /// Something else.
    Other,
    /// Nothing: it closes, or stays silent.
    Nothing,
    /// There is no port.
    Unreachable,
}

/// Why there is no connection to this URL, or why it broke.
pub(crate) async fn of(url: &str, error: &(dyn Error + Send + Sync + 'static)) -> String {
    if let Some(text) = known(error) {
        return text;
    }
    let said = deepest(error);
    let Some(authority) = url.strip_prefix("http://") else { return said };
    if said.contains(SPEAKS_TLS) {
        return PLAIN_ON_TLS.to_owned();
    }
    match spoken(authority).await {
        Spoken::Tls => PLAIN_ON_TLS.to_owned(),
        Spoken::Other => {
            format!("what listens there does not speak HTTP/2: is it the client port of a member? ({said})")
        }
        Spoken::Nothing => {
            format!("what listens there says nothing to HTTP/2: is it a TLS port, or a proxy? ({said})")
        }
        Spoken::Http2 | Spoken::Unreachable => said,
    }
}

/// What an error of the system or of TLS means.
fn known(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    let mut text = None;
    while let Some(error) = next {
        if let Some(ConnectError::Handshake(words)) = error.downcast_ref() {
            return Some(words.clone());
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            text = system(error.kind()).map(str::to_owned).or(text);
        }
        next = error.source();
    }
    text
}

fn system(kind: io::ErrorKind) -> Option<&'static str> {
    Some(match kind {
        io::ErrorKind::ConnectionRefused => {
            "connection refused: nothing listens there; is the member running, and is this its client port?"
        }
        io::ErrorKind::TimedOut => {
            "no answer in time: is the host up, and does a firewall let this port through?"
        }
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            "there is no route to this host"
        }
        _ => return None,
    })
}

/// The cause behind all others.
fn deepest(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    let text = cause.to_string();
    if text.contains("failed to lookup address") { format!("there is no such host ({text})") } else { text }
}

/// Says how HTTP/2 begins, and looks at how the answer does.
async fn spoken(authority: &str) -> Spoken {
    let authority = authority.trim_end_matches('/');
    let Ok(Ok(mut socket)) = timeout(PROBE_MAX, TcpStream::connect(authority)).await else {
        return Spoken::Unreachable;
    };
    let answer = async {
        socket.write_all(PREFACE).await?;
        let mut begin = vec![0; 256];
        let count = socket.read(&mut begin).await?;
        begin.truncate(count);
        io::Result::Ok(begin)
    };
    match timeout(PROBE_MAX, answer).await {
        Ok(Ok(begin)) => judge(&begin),
        Ok(Err(_)) | Err(_) => Spoken::Nothing,
    }
}

fn judge(begin: &[u8]) -> Spoken {
    let contains = |text: &[u8]| begin.windows(text.len()).any(|window| window == text);
    match begin {
        [] => Spoken::Nothing,
        [TLS_ALERT, 3, ..] => Spoken::Tls,
        _ if contains(SPEAKS_TLS.as_bytes()) || contains(b"HTTPS server") => Spoken::Tls,
        // A settings frame: its length, and its kind.
        [0, 0, _, 4, ..] => Spoken::Http2,
        _ => Spoken::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_told_by_how_they_begin() {
        assert_eq!(judge(&[0, 0, 6, 4, 0, 0, 0, 0, 0]), Spoken::Http2);
        assert_eq!(judge(&[21, 3, 1, 0, 2, 2, 70]), Spoken::Tls);
        assert_eq!(
            judge(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server."),
            Spoken::Tls
        );
        assert_eq!(judge(b"HTTP/1.1 400 Bad Request\r\n"), Spoken::Other);
        assert_eq!(judge(b"SSH-2.0-x"), Spoken::Other);
        assert_eq!(judge(b""), Spoken::Nothing);
    }

    #[tokio::test]
    async fn a_refused_connection_is_called_so() {
        let error = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert!(of("http://127.0.0.1:1", &error).await.starts_with("connection refused"));
    }
}
