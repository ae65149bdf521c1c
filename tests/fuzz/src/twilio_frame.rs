//! A message of the media stream.

use bytes::Bytes;
use call_session::StreamSid;
use call_session::io::PhoneCommand;
use call_session::twilio::{Frame, encode};

/// Whatever came is a frame or an error; audio that came can be played back as it was.
pub(crate) fn run(data: &[u8]) {
    let Ok(frame) = Frame::parse(&Bytes::copy_from_slice(data)) else { return };
    if let Frame::Media { audio, .. } = &frame {
        let decoded = audio.to_mulaw();
        assert_eq!(decoded.len() as u64, audio.mulaw_len());
        let stream: StreamSid = "MZ00000000000000000000000000000001".parse().expect("a valid sid");
        let sent = encode(&stream, &PhoneCommand::Audio(audio.clone()));
        let sent: serde_json::Value = serde_json::from_slice(&sent).expect("what is sent is JSON");
        assert_eq!(sent["media"]["payload"], audio.as_str());
    }
    let _ = frame.into_event();
}
