//! What goes back to Twilio: `media`, `mark` and `clear` with exactly the documented fields (one more or one less is
//! warning 31951 and the message is lost).
//!
//! Written by hand: the stream's sid is hexadecimal, a payload is base64 and a mark name is letters, digits and dots,
//! so nothing needs escaping, and a media message costs one allocation.

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
    let mut message = Vec::with_capacity(144); // head, sid and tail 85 bytes, a name at most 45
    let written = write!(message, r#"{{"event":"mark","streamSid":"{stream}","mark":{{"name":"{name}"}}}}"#);
    debug_assert!(written.is_ok(), "a Vec takes every write");
    Bytes::from(message)
}

/// `clear`: throw away what was not played yet.
pub fn clear(stream: &StreamSid) -> Bytes {
    concat(&[br#"{"event":"clear","streamSid":""#, stream.as_str().as_bytes(), br#""}"#])
}

fn concat(parts: &[&[u8]]) -> Bytes {
    Bytes::from(parts.concat())
}
