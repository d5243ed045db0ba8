//! As much of the WebSocket protocol as clients need whose every message is the same and comes back as it was.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::http::header;

/// Bytes of text in each message.
pub const MESSAGE_LENGTH: usize = 64;

const TEXT: u8 = 0x81;
const MASKED: u8 = 0x80;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The key and its answer in RFC 6455, section 1.3. One will do: it is there to wake up caches, not to be secret.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The request for a WebSocket at `/ws`, the affinity's key in `x-key`.
pub fn upgrade(host: &str, key: &str) -> String {
    format!(
        "GET /ws HTTP/1.1\r\nhost: {host}\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: {KEY}\r\nx-key: {key}\r\n\r\n"
    )
}

/// Whether `request` asks for one.
pub(super) fn is_asked_for(request: &str) -> bool {
    request.contains("\r\nupgrade: websocket\r\n")
}

/// Whether `response` agrees to the upgrade.
pub(super) fn is_accepted(response: &[u8]) -> bool {
    response.starts_with(b"HTTP/1.1 101 ") && header(response, "sec-websocket-accept") == Some(ACCEPT)
}

/// What a client sends: one text message, masked as clients have to.
fn sent() -> [u8; 6 + MESSAGE_LENGTH] {
    let mut frame = [b'm'; 6 + MESSAGE_LENGTH];
    frame[..2].copy_from_slice(&[TEXT, MASKED | MESSAGE_LENGTH as u8]);
    frame[2..6].copy_from_slice(&MASK);
    for (byte, mask) in frame[6..].iter_mut().zip(MASK.iter().cycle()) {
        *byte ^= mask;
    }
    frame
}

/// What the server sends back.
fn expected() -> [u8; 2 + MESSAGE_LENGTH] {
    let mut frame = [b'm'; 2 + MESSAGE_LENGTH];
    frame[..2].copy_from_slice(&[TEXT, MESSAGE_LENGTH as u8]);
    frame
}

/// Sends one message and waits until it is back.
pub(super) async fn echo(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(&sent()).await?;
    let mut frame = [0; 2 + MESSAGE_LENGTH];
    stream.read_exact(&mut frame).await?;
    if frame == expected() { Ok(()) } else { Err(io::Error::other("the echo is not what was sent")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_masked_on_its_way_out_and_plain_on_its_way_back() {
        let (sent, expected) = (sent(), expected());
        assert_eq!(sent[..2], [0x81, 0x80 | 64]);
        assert_eq!(sent[6], b'm' ^ MASK[0]);
        assert_eq!(sent[69], b'm' ^ MASK[63 % 4]);
        assert_eq!(expected[..3], [0x81, 64, b'm']);
    }

    #[test]
    fn an_upgrade_is_accepted_with_the_answer_to_its_key() {
        let response =
            |accept: &str| format!("HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {accept}\r\n\r\n");
        assert!(is_accepted(response(ACCEPT).as_bytes()));
        assert!(!is_accepted(response("wrong").as_bytes()));
        assert!(!is_accepted(format!("HTTP/1.1 200 OK\r\nsec-websocket-accept: {ACCEPT}\r\n\r\n").as_bytes()));
    }
}
