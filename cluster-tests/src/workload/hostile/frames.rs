//! HTTP/2 by hand: what no library sends.

use rand::rngs::StdRng;
use rand::{Rng, RngExt};

/// What every connection begins with.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const END_HEADERS: u8 = 4;

/// A frame (RFC 9113, 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("frames are short").to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Settings: how much the other side may send on a stream before it is read.
pub fn settings(window: u32) -> Vec<u8> {
    let mut payload = vec![0, 4];
    payload.extend_from_slice(&window.to_be_bytes());
    frame(SETTINGS, 0, 0, &payload)
}

/// The headers of a gRPC call, every field spelt out (RFC 7541, 6.2.2).
pub fn call(stream: u32, path: &str) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "hostile"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).ok().filter(|len| *len < 127).expect("names are short"));
            block.extend_from_slice(text.as_bytes());
        }
    }
    frame(HEADERS, END_HEADERS, stream, &block)
}

/// The beginning of a message of so many bytes: the prefix, and the first of them.
pub fn message(stream: u32, bytes: u32, sent: &[u8]) -> Vec<u8> {
    let mut payload = vec![0];
    payload.extend_from_slice(&bytes.to_be_bytes());
    payload.extend_from_slice(sent);
    frame(DATA, 0, stream, &payload)
}

/// More of a message.
pub fn more(stream: u32, sent: &[u8]) -> Vec<u8> {
    frame(DATA, 0, stream, sent)
}

/// Bytes that are no frame, or one that may not come.
pub fn garbage(rng: &mut StdRng) -> Vec<u8> {
    let mut bytes = vec![0; rng.random_range(9..200)];
    rng.fill_bytes(&mut bytes);
    if rng.random_range(0..2) == 0 {
        // A header that can be read, of any kind, with what does not belong into it.
        bytes[..3].copy_from_slice(&[0, 0, 40]);
        bytes[3] = rng.random_range(0..12);
    }
    bytes
}
