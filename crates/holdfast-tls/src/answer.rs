//! What who speaks plain text to a port for TLS is told, and the other way round.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::limits;

/// How every record of a handshake begins.
pub(crate) const HANDSHAKE_RECORD: u8 = 0x16;

/// How a client begins HTTP/2 without asking: RFC 9113, 3.4.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2";

const HTTP2_PREFACE_BYTES: u64 = 24;

/// A frame's type for the begin of a request: RFC 9113, 6.2.
const HEADERS: u8 = 1;

const SPEAKS_TLS: &str = "this port speaks TLS: use https://";

const SPEAKS_PLAIN_TEXT: &str = "this port speaks plain text: use http://";

/// GOAWAY's code for a transport that is not secure enough: RFC 9113, 7.
const INADEQUATE_SECURITY: u8 = 0x0c;

/// What is left to be said to who is refused.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Words {
    /// Nothing: the alert is on its way.
    None,
    /// That the port speaks TLS, in HTTP/1.1.
    Http1,
    /// The same in HTTP/2.
    Http2,
}

impl Words {
    /// For plain text that begins so.
    pub(crate) fn for_plain_text(begin: &[u8]) -> Self {
        if begin.starts_with(HTTP2_PREFACE) { Self::Http2 } else { Self::Http1 }
    }
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

/// Says the words, and closes so that the other end can read all that was written: a socket that is closed with something
/// unread in it is reset, which throws away what is on its way.
pub(crate) async fn last_words(mut socket: TcpStream, words: Words) {
    let said = async {
        let text = match words {
            Words::None => Vec::new(),
            Words::Http1 => http1(SPEAKS_TLS),
            Words::Http2 => {
                // A client that has asked nothing yet would take it for an end without a reason.
                until_asked(&mut socket).await?;
                http2(SPEAKS_TLS)
            }
        };
        socket.write_all(&text).await?;
        socket.shutdown().await?;
        let mut rest = socket.take(limits::LAST_WORDS_BYTES_MAX as u64);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    // Who does not read them has to do without.
    drop(timeout(limits::LAST_WORDS_TIME_MAX, said).await);
}

/// Reads up to the first request of an HTTP/2 client.
async fn until_asked(socket: &mut TcpStream) -> io::Result<()> {
    let mut rest = socket.take(limits::LAST_WORDS_BYTES_MAX as u64);
    let mut skipped = HTTP2_PREFACE_BYTES;
    loop {
        tokio::io::copy(&mut (&mut rest).take(skipped), &mut tokio::io::sink()).await?;
        let mut head = [0; 9];
        rest.read_exact(&mut head).await?;
        if head[3] == HEADERS {
            return Ok(());
        }
        skipped = u64::from(u32::from_be_bytes([0, head[0], head[1], head[2]]));
    }
}
