//! Golden frames of the protocol sheet, tolerance, refusal, and what a frame costs.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::audio::Payload;
use crate::io::{MarkName, PhoneCommand, PhoneEvent};
use crate::{Ms, Redacted, StreamSid};

const ACCOUNT: &str = "AC0123456789abcdef0123456789abcdef";
const CALL: &str = "CA0123456789abcdef0123456789abcdef";
const STREAM: &str = "MZ0123456789abcdef0123456789abcdef";

fn parse(message: &Value) -> Result<Frame, FrameError> {
    Frame::parse(&Bytes::from(message.to_string()))
}

fn parse_text(text: &str) -> Result<Frame, FrameError> {
    Frame::parse(&Bytes::copy_from_slice(text.as_bytes()))
}

fn stream() -> StreamSid {
    STREAM.parse().unwrap()
}

fn start_message() -> Value {
    json!({"event": "start", "sequenceNumber": "1", "start": {
        "accountSid": ACCOUNT, "streamSid": STREAM, "callSid": CALL, "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {"FirstName": "Jane", "RemoteParty": "Bob"}}, "streamSid": STREAM})
}

fn start() -> Start {
    let parameter = |name: &str, value: &str| (name.to_owned(), Redacted::new(value.to_owned()));
    Start {
        account_sid: ACCOUNT.parse().unwrap(),
        call_sid: CALL.parse().unwrap(),
        stream_sid: stream(),
        tracks: vec![Track::Inbound],
        media_format: MediaFormat { encoding: "audio/x-mulaw".to_owned(), sample_rate: 8000, channels: 1 },
        custom_parameters: BTreeMap::from([parameter("FirstName", "Jane"), parameter("RemoteParty", "Bob")]),
    }
}

fn media_message(payload: &str) -> Value {
    json!({"event": "media", "sequenceNumber": "4",
           "media": {"track": "inbound", "chunk": "2", "timestamp": "5", "payload": payload}, "streamSid": STREAM})
}

#[test]
fn every_published_frame_parses() {
    let mark = MarkName { epoch: 0, generation: 3, sequence: 17 };
    let cases = [
        (json!({"event": "connected", "protocol": "Call", "version": "1.0.0"}), Frame::Connected),
        (start_message(), Frame::Start(Box::new(start()))),
        (
            media_message("no+JhoaJjpz="),
            Frame::Media {
                timestamp: Ms(5),
                audio: Payload::from_base64(Bytes::from_static(b"no+JhoaJjpz=")).unwrap(),
            },
        ),
        (
            json!({"event": "dtmf", "streamSid": STREAM, "sequenceNumber": "5",
                   "dtmf": {"track": "inbound_track", "digit": "1"}}),
            Frame::Dtmf { digit: Redacted::new('1') },
        ),
        (
            json!({"event": "mark", "sequenceNumber": "4", "streamSid": STREAM, "mark": {"name": "my label"}}),
            Frame::Mark { name: None },
        ),
        (
            json!({"event": "mark", "sequenceNumber": "4", "streamSid": STREAM, "mark": {"name": "e0.g3.m17"}}),
            Frame::Mark { name: Some(mark) },
        ),
        (
            json!({"event": "stop", "sequenceNumber": "5", "stop": {"accountSid": ACCOUNT, "callSid": CALL},
                   "streamSid": STREAM}),
            Frame::Stop,
        ),
    ];
    for (message, frame) in cases {
        assert_eq!(parse(&message), Ok(frame), "{message}");
    }
}

#[test]
fn numbers_come_as_strings_or_numbers_and_unknown_fields_are_ignored() {
    let expected = Frame::Media { timestamp: Ms(40), audio: Payload::from_mulaw(&[0xFF; 3]) };
    for timestamp in [json!("40"), json!(40), json!(40.0)] {
        let message = json!({"new": {"a": [1, null]}, "event": "media", "sequenceNumber": 4,
            "media": {"track": "inbound", "timestamp": timestamp, "payload": "////", "codec": {"x": true}}});
        assert_eq!(parse(&message), Ok(expected.clone()));
    }
    let mut message = start_message();
    message["start"]["mediaFormat"]["sampleRate"] = json!("8000");
    message["start"].as_object_mut().unwrap().remove("customParameters");
    let Ok(Frame::Start(start)) = parse(&message) else { panic!() };
    assert!(start.media_format.is_telephony());
    assert_eq!(start.custom_parameters, BTreeMap::new());
    message["start"]["mediaFormat"]["encoding"] = json!("audio/l16");
    let Ok(Frame::Start(start)) = parse(&message) else { panic!() };
    assert!(!start.media_format.is_telephony());
}

#[test]
fn unknown_events_are_known_by_a_bounded_name() {
    assert_eq!(parse(&json!({"event": "video", "media": 7})), Ok(Frame::Unknown("video".into())));
    assert_eq!(parse(&json!({"event": "video", "mark": {"name": {}}})), Ok(Frame::Unknown("video".into())));
    let long = "é".repeat(100);
    assert_eq!(parse(&json!({"event": long})), Ok(Frame::Unknown("é".repeat(32).into())));
}

#[test]
fn a_known_event_of_the_wrong_shape_is_an_error_of_its_name() {
    let malformed = |event| Err(FrameError::Malformed { event });
    let media = |body: Value| json!({"event": "media", "media": body});
    let mut foreign = media_message("////");
    foreign["media"]["track"] = json!("outbound");
    let mut bad_sid = start_message();
    bad_sid["start"]["callSid"] = json!("CA1/../x");
    let cases = [
        (json!({}), Err(FrameError::NotAnEvent)),
        (json!({"event": 7}), Err(FrameError::NotAnEvent)),
        (json!([]), Err(FrameError::NotAnEvent)),
        (json!({"event": "media"}), malformed("media")),
        (media(json!("x")), malformed("media")),
        (media(json!({"track": "inbound", "timestamp": "5"})), malformed("media")),
        (media(json!({"track": "inbound", "timestamp": "-5", "payload": "////"})), malformed("media")),
        (
            media(json!({"track": "inbound", "timestamp": "99999999999999999999", "payload": "////"})),
            malformed("media"),
        ),
        (media(json!({"track": "inbound", "timestamp": "5", "payload": ["////"]})), malformed("media")),
        (media_message("not base64"), Err(FrameError::Payload)),
        (foreign, Err(FrameError::ForeignTrack)),
        (json!({"event": "start", "start": {}}), malformed("start")),
        (bad_sid, malformed("start")),
        (json!({"event": "dtmf", "dtmf": {"digit": "12"}}), malformed("dtmf")),
        (json!({"event": "dtmf", "dtmf": {"digit": ""}}), malformed("dtmf")),
        (json!({"event": "dtmf", "dtmf": {"digit": "x"}}), malformed("dtmf")),
        (json!({"event": "mark"}), malformed("mark")),
    ];
    for (message, expected) in cases {
        assert_eq!(parse(&message), expected, "{message}");
    }
    assert_eq!(parse_text("{\"event\":\"stop\""), Err(FrameError::NotAnEvent));
    assert_eq!(Frame::parse(&Bytes::from_static(b"\xff\xfe")), Err(FrameError::NotAnEvent));
    let size = MAX_MESSAGE + 1;
    assert_eq!(Frame::parse(&Bytes::from(vec![b' '; size])), Err(FrameError::TooLarge { size }));
}

#[test]
fn all_the_keys_of_a_telephone_are_digits() {
    for digit in "0123456789*#ABCD".chars() {
        let message =
            json!({"event": "dtmf", "dtmf": {"track": "inbound_track", "digit": digit.to_string()}});
        assert_eq!(parse(&message), Ok(Frame::Dtmf { digit: Redacted::new(digit) }));
    }
}

#[test]
fn a_payload_is_a_slice_of_its_message_unless_the_peer_escaped_it() {
    let received = Bytes::from(media_message("////").to_string());
    let Ok(Frame::Media { audio, .. }) = Frame::parse(&received) else { panic!() };
    assert!(received.as_ptr_range().contains(&audio.base64().as_ptr()), "no copy");

    let escaped =
        parse_text(r#"{"event":"media","media":{"track":"inbound","timestamp":"5","payload":"\/\/\/\/"}}"#);
    assert_eq!(escaped, Ok(Frame::Media { timestamp: Ms(5), audio }));
}

#[test]
fn what_goes_back_has_exactly_the_documented_fields() {
    let sent =
        |command: &PhoneCommand| -> Value { serde_json::from_slice(&encode(&stream(), command)).unwrap() };
    let audio = Payload::from_mulaw(&[0xFF; 160]);
    assert_eq!(
        sent(&PhoneCommand::Audio(audio.clone())),
        json!({"event": "media", "streamSid": STREAM, "media": {"payload": audio.as_str()}})
    );
    let name = MarkName { epoch: u32::MAX, generation: u32::MAX, sequence: u64::MAX };
    assert_eq!(
        sent(&PhoneCommand::Mark(name)),
        json!({"event": "mark", "streamSid": STREAM, "mark": {"name": name.to_string()}})
    );
    assert_eq!(sent(&PhoneCommand::Clear), json!({"event": "clear", "streamSid": STREAM}));
}

#[test]
fn the_call_is_told_what_concerns_it_and_nothing_else() {
    let audio = Payload::from_mulaw(&[1, 2, 3]);
    let name = MarkName { epoch: 0, generation: 0, sequence: 1 };
    let cases = [
        (Frame::Connected, None),
        (Frame::Start(Box::new(start())), None),
        (
            Frame::Media { timestamp: Ms(5), audio: audio.clone() },
            Some(PhoneEvent::Media { timestamp: Ms(5), audio }),
        ),
        (Frame::Dtmf { digit: Redacted::new('1') }, Some(PhoneEvent::Digit(Redacted::new('1')))),
        (Frame::Mark { name: None }, None),
        (Frame::Mark { name: Some(name) }, Some(PhoneEvent::Mark(name))),
        (Frame::Stop, Some(PhoneEvent::Stopped)),
        (Frame::Unknown("video".into()), None),
    ];
    for (frame, event) in cases {
        assert_eq!(frame.into_event(), event);
    }
}

#[test]
fn nothing_personal_is_printed() {
    let printed = format!("{:?}", Frame::Start(Box::new(start())));
    assert!(!printed.contains("Jane"), "{printed}");
    assert!(!format!("{:?}", Frame::Dtmf { digit: Redacted::new('7') }).contains('7'));
}

proptest! {
    #[test]
    fn any_bytes_are_a_frame_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Frame::parse(&Bytes::from(bytes));
    }

    #[test]
    fn a_mangled_frame_is_a_frame_or_an_error(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        for message in [start_message(), media_message("no+JhoaJjpz=")] {
            let mut bytes = message.to_string().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = Frame::parse(&Bytes::from(bytes));
        }
    }

    #[test]
    fn audio_passes_through_unchanged(mulaw in proptest::collection::vec(any::<u8>(), 0..400), ms in any::<u64>()) {
        let audio = Payload::from_mulaw(&mulaw);
        let message = json!({"event": "media", "media": {"track": "inbound", "timestamp": ms.to_string(),
                             "payload": audio.as_str()}});
        let expected = Frame::Media { timestamp: Ms(ms), audio: audio.clone() };
        prop_assert_eq!(parse(&message), Ok(expected));
        let back: Value = serde_json::from_slice(&media(&stream(), &audio)).unwrap();
        prop_assert_eq!(audio.as_str(), back["media"]["payload"].as_str().unwrap());
        prop_assert_eq!(audio.to_mulaw(), mulaw);
    }

    #[test]
    fn the_scanner_reads_what_the_parser_reads_or_nothing(
        mangled in mangled(media_message("no+JhoaJjpz=").to_string()),
    ) {
        if let Some(frame) = frame::scan_media(&mangled) {
            prop_assert_eq!(Ok(frame), Frame::parse_any(&mangled));
        }
    }
}

/// A message in which some pieces were replaced by what JSON is made of.
fn mangled(message: String) -> impl Strategy<Value = Bytes> {
    let piece = prop_oneof![
        Just(String::new()),
        "[\\[\\]{}\",:\\\\ 0-9.eE-]{1,3}",
        Just(r#","event":"media""#.to_owned()),
        Just(r#","payload":"AAAA""#.to_owned()),
        Just(r#""delta":"AAAA","#.to_owned()),
    ];
    let edits = proptest::collection::vec((any::<prop::sample::Index>(), 0..3_usize, piece), 0..4);
    edits.prop_map(move |edits| {
        let mut text = message.clone().into_bytes();
        for (at, length, piece) in edits {
            let at = at.index(text.len().max(1)).min(text.len());
            let end = (at + length).min(text.len());
            text.splice(at..end, piece.into_bytes());
        }
        Bytes::from(text)
    })
}

#[test]
fn the_usual_media_message_is_scanned_whatever_the_order_of_its_members() {
    let usual = format!(
        r#"{{"event":"media","sequenceNumber":"4","media":{{"track":"inbound","chunk":"2","timestamp":"5","payload":"no+JhoaJjpz="}},"streamSid":"{STREAM}"}}"#
    );
    for message in [usual, media_message("no+JhoaJjpz=").to_string()] {
        let message = Bytes::from(message);
        let scanned = frame::scan_media(&message).expect("the usual shape");
        assert_eq!(Ok(scanned), Frame::parse_any(&message));
    }
}
