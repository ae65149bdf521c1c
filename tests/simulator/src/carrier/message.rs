//! What the product may send on a media stream, read strictly (protocols: server → carrier).
//!
//! The carrier warns and ignores a message with a missing, extra or wrong field; so does [`parse`], naming the rule.
//! A short list of refusals, no repair.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::violations::{Refused, Rule};

/// A valid message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Audio to play, decoded.
    Media(Vec<u8>),
    /// Tell when everything before was played.
    Mark(String),
    /// Throw the waiting audio away.
    Clear,
}

/// Reads one text frame for the stream with this sid.
pub fn parse(text: &str, stream_sid: &str) -> Result<Message, Refused> {
    let value: Value = serde_json::from_str(text).map_err(|error| invalid(format!("not JSON: {error}")))?;
    let Value::Object(fields) = value else { return Err(invalid("not a JSON object")) };
    let event = string(&fields, "event")?;
    let message = match event {
        "media" => {
            exactly(&fields, event, &["event", "streamSid", "media"])?;
            Message::Media(payload(string(object(&fields, "media", &["payload"])?, "payload")?)?)
        }
        "mark" => {
            exactly(&fields, event, &["event", "streamSid", "mark"])?;
            Message::Mark(string(object(&fields, "mark", &["name"])?, "name")?.to_owned())
        }
        "clear" => {
            exactly(&fields, event, &["event", "streamSid"])?;
            Message::Clear
        }
        unknown => return Err(invalid(format!("unknown event `{unknown}`"))),
    };
    if string(&fields, "streamSid")? != stream_sid {
        let detail = format!("`{event}` for another stream");
        return Err(Refused::new(Rule::StreamWrongSid, detail));
    }
    Ok(message)
}

fn payload(text: &str) -> Result<Vec<u8>, Refused> {
    let audio =
        STANDARD.decode(text).map_err(|error| Refused::new(Rule::StreamPayloadBase64, error.to_string()))?;
    if audio.starts_with(b"RIFF") || audio.starts_with(b"ID3") || audio.starts_with(b"OggS") {
        return Err(Refused::new(Rule::StreamPayloadHeader, "the payload begins with a file header"));
    }
    Ok(audio)
}

fn string<'a>(fields: &'a Map<String, Value>, name: &str) -> Result<&'a str, Refused> {
    fields.get(name).and_then(Value::as_str).ok_or_else(|| invalid(format!("`{name}` is not a string")))
}

fn object<'a>(
    fields: &'a Map<String, Value>,
    name: &str,
    known: &[&str],
) -> Result<&'a Map<String, Value>, Refused> {
    let inner = fields.get(name).and_then(Value::as_object);
    let inner = inner.ok_or_else(|| invalid(format!("`{name}` is not an object")))?;
    exactly(inner, name, known)?;
    Ok(inner)
}

fn exactly(fields: &Map<String, Value>, of: &str, known: &[&str]) -> Result<(), Refused> {
    if let Some(missing) = known.iter().find(|name| !fields.contains_key(**name)) {
        return Err(invalid(format!("`{missing}` is missing in `{of}`")));
    }
    match fields.keys().find(|name| !known.contains(&name.as_str())) {
        Some(extra) => Err(invalid(format!("`{extra}` is not a field of `{of}`"))),
        None => Ok(()),
    }
}

fn invalid(detail: impl Into<String>) -> Refused {
    Refused::new(Rule::StreamInvalidMessage, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_messages_are_accepted() {
        let accepted = [
            (
                r#"{"event":"media","streamSid":"MZ1","media":{"payload":"/38="}}"#,
                Message::Media(vec![0xFF, 0x7F]),
            ),
            (r#"{"media":{"payload":""},"streamSid":"MZ1","event":"media"}"#, Message::Media(vec![])),
            (r#"{"event":"mark","streamSid":"MZ1","mark":{"name":"x y"}}"#, Message::Mark("x y".into())),
            (r#"{"event":"clear","streamSid":"MZ1"}"#, Message::Clear),
        ];
        for (text, message) in accepted {
            assert_eq!(parse(text, "MZ1"), Ok(message), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused_with_its_rule() {
        let refused = [
            ("nonsense", Rule::StreamInvalidMessage),
            ("[]", Rule::StreamInvalidMessage),
            (r#"{"streamSid":"MZ1"}"#, Rule::StreamInvalidMessage),
            (r#"{"event":"clear"}"#, Rule::StreamInvalidMessage),
            (r#"{"event":"hangup","streamSid":"MZ1"}"#, Rule::StreamInvalidMessage),
            (r#"{"event":"clear","streamSid":"MZ1","x":1}"#, Rule::StreamInvalidMessage),
            (r#"{"event":"clear","streamSid":7}"#, Rule::StreamInvalidMessage),
            (r#"{"event":"mark","streamSid":"MZ1","mark":{}}"#, Rule::StreamInvalidMessage),
            (r#"{"event":"mark","streamSid":"MZ1","mark":{"name":1}}"#, Rule::StreamInvalidMessage),
            (r#"{"event":"media","streamSid":"MZ1","media":"/w=="}"#, Rule::StreamInvalidMessage),
            (
                r#"{"event":"media","streamSid":"MZ1","media":{"payload":"/w==","track":"outbound"}}"#,
                Rule::StreamInvalidMessage,
            ),
            (
                r#"{"event":"media","streamSid":"MZ1","sequenceNumber":"1","media":{"payload":"/w=="}}"#,
                Rule::StreamInvalidMessage,
            ),
            (r#"{"event":"media","streamSid":"MZ1","media":{"payload":"/w"}}"#, Rule::StreamPayloadBase64),
            (r#"{"event":"media","streamSid":"MZ1","media":{"payload":"_w=="}}"#, Rule::StreamPayloadBase64),
            (
                r#"{"event":"media","streamSid":"MZ1","media":{"payload":"UklGRgAA"}}"#,
                Rule::StreamPayloadHeader,
            ),
            (r#"{"event":"clear","streamSid":"MZ2"}"#, Rule::StreamWrongSid),
            (r#"{"event":"media","streamSid":"MZ2","media":{"payload":"/w=="}}"#, Rule::StreamWrongSid),
        ];
        for (text, rule) in refused {
            assert_eq!(parse(text, "MZ1").map_err(|refused| refused.rule), Err(rule), "{text}");
        }
    }
}
