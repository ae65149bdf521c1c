//! What goes back to Twilio: `media`, `mark` and `clear` with exactly the documented fields (one more or one less is
//! warning 31951 and the message is lost).
//!
//! Written by hand: the stream's sid is hexadecimal, a payload is base64 and a mark name is letters, digits and dots,
//! so nothing needs escaping, and a message costs one allocation.

use std::io::Write as _;

use bytes::Bytes;

use crate::StreamSid;
use crate::audio::Payload;
use crate::io::{MarkName, PhoneCommand};

/// One text message for one command.
pub fn encode(stream: &StreamSid, command: &PhoneCommand) -> Bytes {
    match command {
        PhoneCommand::Audio(audio) => media(stream, audio),
        PhoneCommand::Mark(name) => mark(stream, *name),
        PhoneCommand::Clear => clear(stream),
    }
}

/// `media`: play this after what was sent before.
pub fn media(stream: &StreamSid, audio: &Payload) -> Bytes {
    concat(&[
        br#"{"event":"media","streamSid":""#,
        stream.as_str().as_bytes(),
        br#"","media":{"payload":""#,
        audio.base64(),
        br#""}}"#,
    ])
}

/// `mark`: tell me when all audio sent before was played.
pub fn mark(stream: &StreamSid, name: MarkName) -> Bytes {
    let mut text = [0; MAX_MARK_NAME];
    let mut rest = &mut text[..];
    let written = write!(rest, "{name}");
    debug_assert!(written.is_ok(), "the longest name fits");
    let length = MAX_MARK_NAME - rest.len();
    concat(&[
        br#"{"event":"mark","streamSid":""#,
        stream.as_str().as_bytes(),
        br#"","mark":{"name":""#,
        &text[..length],
        br#""}}"#,
    ])
}

/// `clear`: throw away what was not played yet.
pub fn clear(stream: &StreamSid) -> Bytes {
    concat(&[br#"{"event":"clear","streamSid":""#, stream.as_str().as_bytes(), br#""}"#])
}

/// `e`, `g` and `m`, two dots, two numbers of 32 bits (10 digits each) and one of 64 (20).
const MAX_MARK_NAME: usize = 45;

/// One allocation, exactly as large as the message.
fn concat(parts: &[&[u8]]) -> Bytes {
    Bytes::from(parts.concat())
}
