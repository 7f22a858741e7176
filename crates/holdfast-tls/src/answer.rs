//! What who speaks plain text to a port for TLS is told, and the other way round.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::limits;

/// How every record of a handshake begins.
pub(crate) const HANDSHAKE_RECORD: u8 = 0x16;

/// How a client begins HTTP/2 without asking: RFC 9113, 3.4.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2";

const SPEAKS_TLS: &str = "this port speaks TLS: use https://";

const SPEAKS_PLAIN_TEXT: &str = "this port speaks plain text: use http://";

/// GOAWAY's code for a transport that is not secure enough: RFC 9113, 7.
const INADEQUATE_SECURITY: u8 = 0x0c;

/// The answer to plain text that begins so, in the protocol that it is.
pub(crate) fn to_plain_text(begin: &[u8]) -> Vec<u8> {
    if begin.starts_with(HTTP2_PREFACE) { http2(SPEAKS_TLS) } else { http1(SPEAKS_TLS) }
}

/// The answer to a handshake: clients tell HTTP from TLS by it.
pub(crate) fn to_handshake() -> Vec<u8> {
    http1(SPEAKS_PLAIN_TEXT)
}

fn http1(text: &str) -> Vec<u8> {
    let length = text.len() + 1;
    format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\
         Content-Length: {length}\r\n\r\n{text}\n"
    )
    .into_bytes()
}

/// Empty settings, which have to come first, and a GOAWAY whose debug data is the text.
fn http2(text: &str) -> Vec<u8> {
    let payload_bytes = u8::try_from(8 + text.len()).expect("the text is a short line");
    let mut frames = vec![0, 0, 0, 4, 0, 0, 0, 0, 0];
    frames.extend([0, 0, payload_bytes, 7, 0, 0, 0, 0, 0]);
    frames.extend([0, 0, 0, 0, 0, 0, 0, INADEQUATE_SECURITY]);
    frames.extend(text.as_bytes());
    frames
}

/// Writes `text`, if there is some, and closes so that the other end can read all that was written: a socket that is
/// closed with something unread in it is reset, which throws away what is on its way.
pub(crate) async fn last_words(mut socket: TcpStream, text: &[u8]) {
    let words = async {
        socket.write_all(text).await?;
        socket.shutdown().await?;
        let mut rest = socket.take(limits::LAST_WORDS_BYTES_MAX as u64);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    // Who does not read them has to do without.
    drop(timeout(limits::LAST_WORDS_TIME_MAX, words).await);
}
