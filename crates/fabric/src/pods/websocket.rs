//! WebSocket: what arrives is echoed.

use std::{io, time::Duration};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use bytes::{Buf as _, BytesMut};
use hyper::{HeaderMap, header};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::watch,
};

use super::{Phase, connection};

/// The longest payload of a frame.
const LONGEST: usize = 1 << 20;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Returns the value of `Sec-WebSocket-Accept` for a request that asks for an upgrade, else `None`.
pub(super) fn accept(headers: &HeaderMap) -> Option<String> {
    let says = |name: header::HeaderName, word: &str| {
        let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(word))
    };
    if !says(header::CONNECTION, "upgrade") || !says(header::UPGRADE, "websocket") {
        return None;
    }
    Some(key(headers.get(header::SEC_WEBSOCKET_KEY)?.as_bytes()))
}

fn key(key: &[u8]) -> String {
    // The text is that of RFC 6455.
    let text = [key, b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"].concat();
    base64(digest(&SHA1_FOR_LEGACY_USE_ONLY, &text).as_ref())
}

/// Returns bytes in Base64 with padding.
pub(super) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for part in bytes.chunks(3) {
        let number =
            (0..3).fold(0_usize, |number, place| number << 8 | usize::from(part.get(place).copied().unwrap_or(0)));
        for place in 0..4 {
            let letter = ALPHABET.get(number >> (18 - 6 * place) & 0x3f).copied().unwrap_or(b'=');
            text.push(if place <= part.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Frame {
    last: bool,
    code: u8,
    payload: Vec<u8>,
}

/// Takes a frame of a client from the bytes that have arrived; `None` if it is not whole.
fn take(bytes: &mut BytesMut) -> io::Result<Option<Frame>> {
    let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let Some([first, second]) = bytes.get(..2).and_then(|part| <[u8; 2]>::try_from(part).ok()) else {
        return Ok(None);
    };
    if second & 0x80 == 0 {
        return Err(invalid("a frame of a client without mask"));
    }
    let extended = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let Some(number) = bytes.get(2..2 + extended) else { return Ok(None) };
    let long = number.iter().fold(0_u64, |length, byte| length << 8 | u64::from(*byte));
    let length = if extended == 0 { u64::from(second & 0x7f) } else { long };
    let length = usize::try_from(length).ok().filter(|length| *length <= LONGEST);
    let length = length.ok_or_else(|| invalid("a frame that is too long"))?;
    let start = 2 + extended + 4;
    let (Some(mask), Some(payload)) = (bytes.get(2 + extended..start), bytes.get(start..start + length)) else {
        return Ok(None);
    };
    let payload = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    bytes.advance(start + length);
    Ok(Some(Frame { last: first & 0x80 != 0, code: first & 0x0f, payload }))
}

/// Returns a frame as a server sends it.
fn write(frame: &Frame) -> Vec<u8> {
    let mut bytes = vec![if frame.last { 0x80 } else { 0 } | frame.code];
    let length = frame.payload.len();
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length @ ..126), _) => bytes.push(length),
        (_, Ok(length)) => {
            bytes.push(126);
            bytes.extend(length.to_be_bytes());
        }
        _ => {
            bytes.push(127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(&frame.payload);
    bytes
}

/// Echoes frames until the client closes, or until the pod begins to end: the client is told so, and has a second to close.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    mut phase: watch::Receiver<Phase>,
) -> io::Result<()> {
    let mut bytes = BytesMut::new();
    let mut going = false;
    loop {
        while let Some(frame) = take(&mut bytes)? {
            let code = match frame.code {
                PONG => continue,
                PING => PONG,
                other => other,
            };
            if !going || code != CLOSE {
                stream.write_all(&write(&Frame { code, ..frame })).await?;
                stream.flush().await?;
            }
            if code == CLOSE {
                return stream.shutdown().await;
            }
        }
        tokio::select! {
            biased;
            read = stream.read_buf(&mut bytes) => if read? == 0 {
                return stream.shutdown().await;
            },
            () = tokio::time::sleep(Duration::from_secs(1)), if going => return stream.shutdown().await,
            () = connection::draining(&mut phase), if !going => {
                going = true;
                // 1001: the server goes away.
                let close = Frame { last: true, code: CLOSE, payload: 1001_u16.to_be_bytes().to_vec() };
                stream.write_all(&write(&close)).await?;
                stream.flush().await?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upgrade_is_accepted_with_the_key_of_the_rfc() {
        let rows = [
            (&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")][..], true),
            (&[("connection", "close"), ("upgrade", "websocket")], false),
            (&[("connection", "upgrade"), ("upgrade", "h2c")], false),
        ];
        for (pairs, expected) in rows {
            let mut headers = HeaderMap::new();
            headers.insert(header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==".parse().unwrap());
            for (name, value) in pairs {
                headers.insert(*name, value.parse().unwrap());
            }
            let key = expected.then(|| "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_owned());
            assert_eq!(accept(&headers), key, "{pairs:?}");
        }
    }

    #[test]
    fn base64_is_padded() {
        let rows = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")];
        for (plain, text) in rows {
            assert_eq!(base64(plain.as_bytes()), text);
        }
    }

    #[test]
    fn frames_are_taken_whole_and_written_with_their_length() {
        for length in [0, 1, 125, 126, 65535, 65536] {
            let frame = Frame { last: true, code: 2, payload: vec![7; length] };
            let mut sent = write(&frame);
            sent[1] |= 0x80;
            let header = sent.len() - length;
            let masked = sent.split_off(header);
            sent.extend([1, 2, 3, 4]);
            sent.extend(masked.iter().zip([1, 2, 3, 4].iter().cycle()).map(|(byte, mask)| byte ^ mask));
            let mut part = BytesMut::from(&sent[..sent.len() - 1]);
            assert_eq!(take(&mut part).unwrap(), None, "{length}");
            sent.push(9);
            let mut whole = BytesMut::from(sent.as_slice());
            assert_eq!(take(&mut whole).unwrap(), Some(frame), "{length}");
            assert_eq!(whole.as_ref(), [9]);
        }
        let refused = |bytes: &[u8]| take(&mut BytesMut::from(bytes)).unwrap_err().to_string();
        assert_eq!(refused(&[0x81, 1, 0]), "a frame of a client without mask");
        assert_eq!(refused(&[0x81, 0xff, 1, 0, 0, 0, 0, 0, 0, 0]), "a frame that is too long");
    }
}
