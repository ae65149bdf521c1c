//! One text message of Twilio as a typed frame.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Number, Text, slice_of};
use crate::audio::Payload;
use crate::io::{MarkName, PhoneEvent};
use crate::scan::Scanner;
use crate::{AccountSid, CallSid, Ms, Redacted, StreamSid};

/// Messages above this are refused unread. The largest honest one is `start` with its custom parameters (500 bytes
/// each, some dozens); a media frame is about 400 bytes for 20 ms, so this allows 6 s of audio in one message.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// Peers' names are kept only so far.
const MAX_NAME: usize = 64;

/// What Twilio says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The socket is open; nothing else is known yet.
    Connected,
    /// The stream begins; once, right after `connected`.
    Start(Box<Start>),
    /// The caller's audio.
    Media {
        /// Presentation time since the stream began.
        timestamp: Ms,
        /// μ-law.
        audio: Payload,
    },
    /// The caller pressed a key: `0`–`9`, `*`, `#`, `A`–`D`.
    Dtmf {
        /// Which.
        digit: Redacted<char>,
    },
    /// All audio before this mark was played, or thrown away by a clear.
    Mark {
        /// Its name; `None` when it is not one of ours.
        name: Option<MarkName>,
    },
    /// The stream or the call ended.
    Stop,
    /// An event this build does not know, by its name (cut to 64 bytes). Counted and skipped.
    Unknown(Box<str>),
}

/// What `start` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The account the call belongs to.
    pub account_sid: AccountSid,
    /// The call.
    pub call_sid: CallSid,
    /// The stream; every message back names it.
    pub stream_sid: StreamSid,
    /// The tracks that will be sent.
    pub tracks: Vec<Track>,
    /// What the audio is.
    pub media_format: MediaFormat,
    /// `<Parameter>`s of the TwiML, the stream token among them.
    pub custom_parameters: BTreeMap<String, Redacted<String>>,
}

/// A track of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Track {
    /// What the caller says.
    Inbound,
    /// What the caller hears.
    Outbound,
    /// A name this build does not know.
    Unknown,
}

/// What the audio of a stream is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaFormat {
    /// Always `audio/x-mulaw` by the documentation.
    pub encoding: String,
    /// Always 8000 by the documentation.
    pub sample_rate: u64,
    /// Always 1 by the documentation.
    pub channels: u64,
}

/// Why a message is no frame. Counted and skipped by the shell; says nothing about the message's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Above [`MAX_MESSAGE`].
    #[error("a message of {size} bytes is too large")]
    TooLarge {
        /// Its size.
        size: usize,
    },
    /// Not JSON, or not an object with an `event`.
    #[error("not a JSON object with an event name")]
    NotAnEvent,
    /// A known event without what it must hold.
    #[error("`{event}` does not have its documented shape")]
    Malformed {
        /// Which.
        event: &'static str,
    },
    /// A media frame whose payload is not base64.
    #[error("the payload of `media` is not base64")]
    Payload,
    /// A media frame of another track than the caller's: a `<Connect>` stream has none.
    #[error("`media` of a track that was not asked for")]
    ForeignTrack,
}

impl Frame {
    /// Reads one text message.
    ///
    /// # Errors
    /// When it is too large, not JSON, or a known event of the wrong shape.
    pub fn parse(message: &Bytes) -> Result<Self, FrameError> {
        if message.len() > MAX_MESSAGE {
            return Err(FrameError::TooLarge { size: message.len() });
        }
        // Nearly every message is `media` in its usual shape. Whatever the scanner does not take is looked at again.
        if let Some(frame) = scan_media(message) {
            return Ok(frame);
        }
        Self::parse_any(message)
    }

    /// Reads any message, in whatever way a peer may write it.
    pub(super) fn parse_any(message: &Bytes) -> Result<Self, FrameError> {
        if let Ok(MediaMessage { event, media }) = serde_json::from_slice(message)
            && event.as_str() == Some("media")
        {
            return media_frame(message, media);
        }
        let other: OtherMessage<'_> = serde_json::from_slice(message).map_err(|_| FrameError::NotAnEvent)?;
        let name = other.event.as_str().ok_or(FrameError::NotAnEvent)?;
        match name {
            "connected" => Ok(Self::Connected),
            "media" => Err(FrameError::Malformed { event: "media" }),
            "start" => start_frame(other.start).ok_or(FrameError::Malformed { event: "start" }),
            "dtmf" => dtmf_frame(other.dtmf).ok_or(FrameError::Malformed { event: "dtmf" }),
            "mark" => mark_frame(other.mark).ok_or(FrameError::Malformed { event: "mark" }),
            "stop" => Ok(Self::Stop),
            unknown => Ok(Self::Unknown(unknown[..unknown.floor_char_boundary(MAX_NAME)].into())),
        }
    }

    /// What the call machine is told of it; `None` for what only the shell needs (`connected`, `start`), for marks
    /// that are not ours and for unknown events.
    pub fn into_event(self) -> Option<PhoneEvent> {
        match self {
            Self::Media { timestamp, audio } => Some(PhoneEvent::Media { timestamp, audio }),
            Self::Dtmf { digit } => Some(PhoneEvent::Digit(digit)),
            Self::Mark { name } => name.map(PhoneEvent::Mark),
            Self::Stop => Some(PhoneEvent::Stopped),
            Self::Connected | Self::Start(_) | Self::Unknown(_) => None,
        }
    }
}

impl MediaFormat {
    /// Whether it is the one format the session speaks: μ-law, 8 kHz, mono.
    pub fn is_telephony(&self) -> bool {
        self.encoding == "audio/x-mulaw" && self.sample_rate == 8000 && self.channels == 1
    }
}

/// A media message of the caller's track as Twilio writes it; nothing for whatever else.
pub(super) fn scan_media(message: &Bytes) -> Option<Frame> {
    let mut scanner = Scanner::new(message);
    let (mut event, mut media) = (None, None);
    scanner.object(|scanner, key| match key {
        b"event" if event.is_none() => {
            event = Some(scanner.plain()?);
            (event == Some(b"media")).then_some(())
        }
        b"media" if media.is_none() => {
            media = Some(scan_body(scanner)?);
            Some(())
        }
        b"event" | b"media" => None,
        _ => scanner.skip(),
    })?;
    scanner.end()?;
    let ((timestamp, payload), _) = (media?, event?);
    let audio = Payload::from_base64(message.slice_ref(payload)).ok()?;
    Some(Frame::Media { timestamp, audio })
}

/// Timestamp and payload, the latter not looked at yet.
fn scan_body<'a>(scanner: &mut Scanner<'a>) -> Option<(Ms, &'a [u8])> {
    let (mut track, mut timestamp, mut payload) = (None, None, None);
    scanner.object(|scanner, key| {
        match key {
            b"track" if track.is_none() => track = Some(scanner.plain()?),
            b"timestamp" if timestamp.is_none() => timestamp = Some(Ms(scanner.number()?)),
            b"payload" if payload.is_none() => payload = Some(scanner.quoted()?),
            b"track" | b"timestamp" | b"payload" => return None,
            _ => scanner.skip()?,
        }
        Some(())
    })?;
    (track? == b"inbound").then_some((timestamp?, payload?))
}

fn media_frame(message: &Bytes, media: MediaBody<'_>) -> Result<Frame, FrameError> {
    const SHAPE: FrameError = FrameError::Malformed { event: "media" };
    match media.track.as_str() {
        Some("inbound") => {}
        Some(_) => return Err(FrameError::ForeignTrack),
        None => return Err(SHAPE),
    }
    let timestamp = Ms(media.timestamp.0.ok_or(SHAPE)?);
    let payload = media.payload.into_cow().ok_or(SHAPE)?;
    let audio = Payload::from_base64(slice_of(message, payload)).map_err(|_| FrameError::Payload)?;
    Ok(Frame::Media { timestamp, audio })
}

fn start_frame(body: Option<&RawValue>) -> Option<Frame> {
    let body: StartBody<'_> = serde_json::from_str(body?.get()).ok()?;
    let tracks = body.tracks.unwrap_or_default().into_iter().map(|track| match track.as_str() {
        Some("inbound") => Track::Inbound,
        Some("outbound") => Track::Outbound,
        Some(_) | None => Track::Unknown,
    });
    Some(Frame::Start(Box::new(Start {
        account_sid: body.account_sid.as_str()?.parse().ok()?,
        call_sid: body.call_sid.as_str()?.parse().ok()?,
        stream_sid: body.stream_sid.as_str()?.parse().ok()?,
        tracks: tracks.collect(),
        media_format: MediaFormat {
            encoding: body.media_format.encoding.as_str()?.to_owned(),
            sample_rate: body.media_format.sample_rate.0?,
            channels: body.media_format.channels.0?,
        },
        custom_parameters: body.custom_parameters.unwrap_or_default(),
    })))
}

fn dtmf_frame(body: Option<&RawValue>) -> Option<Frame> {
    let body: DtmfBody<'_> = serde_json::from_str(body?.get()).ok()?;
    let mut characters = body.digit.as_str()?.chars();
    let (Some(digit @ ('0'..='9' | '*' | '#' | 'A'..='D')), None) = (characters.next(), characters.next())
    else {
        return None;
    };
    Some(Frame::Dtmf { digit: Redacted::new(digit) })
}

fn mark_frame(body: Option<&RawValue>) -> Option<Frame> {
    let body: MarkBody<'_> = serde_json::from_str(body?.get()).ok()?;
    Some(Frame::Mark { name: body.name.as_str()?.parse().ok() })
}

#[derive(Deserialize)]
struct MediaMessage<'a> {
    #[serde(borrow)]
    event: Text<'a>,
    #[serde(borrow)]
    media: MediaBody<'a>,
}

#[derive(Deserialize)]
struct MediaBody<'a> {
    #[serde(borrow, default)]
    track: Text<'a>,
    #[serde(default)]
    timestamp: Number,
    #[serde(borrow, default)]
    payload: Text<'a>,
}

#[derive(Deserialize)]
struct OtherMessage<'a> {
    #[serde(borrow, default)]
    event: Text<'a>,
    #[serde(borrow)]
    start: Option<&'a RawValue>,
    #[serde(borrow)]
    dtmf: Option<&'a RawValue>,
    #[serde(borrow)]
    mark: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StartBody<'a> {
    #[serde(borrow, default)]
    account_sid: Text<'a>,
    #[serde(borrow, default)]
    call_sid: Text<'a>,
    #[serde(borrow, default)]
    stream_sid: Text<'a>,
    #[serde(borrow)]
    tracks: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    media_format: MediaFormatBody<'a>,
    custom_parameters: Option<BTreeMap<String, Redacted<String>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MediaFormatBody<'a> {
    #[serde(borrow, default)]
    encoding: Text<'a>,
    #[serde(default)]
    sample_rate: Number,
    #[serde(default)]
    channels: Number,
}

#[derive(Deserialize)]
struct DtmfBody<'a> {
    #[serde(borrow, default)]
    digit: Text<'a>,
}

#[derive(Deserialize)]
struct MarkBody<'a> {
    #[serde(borrow, default)]
    name: Text<'a>,
}
