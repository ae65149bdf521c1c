//! TwiML: the verbs Switchboard answers with, as types, and their XML.
//!
//! The output equals that of Twilio's own builders: names are case-sensitive, attributes stand in alphabetical order,
//! verbs and children in the order given. Text is escaped; characters XML 1.0 cannot carry are left out, because a
//! document Twilio cannot parse (error 12100) would cost the call.

use std::fmt::Write as _;

/// `Content-Type` of a TwiML document.
pub const CONTENT_TYPE: &str = "text/xml; charset=utf-8";

/// A `<Response>`: what Twilio does next, verb by verb. An empty one ends the call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    verbs: Vec<Verb>,
}

impl Response {
    /// An empty response.
    pub const fn new() -> Self {
        Self { verbs: Vec::new() }
    }

    /// Adds `<Connect>`.
    #[must_use]
    pub fn connect(self, connect: Connect) -> Self {
        self.with(Verb::Connect(connect))
    }

    /// Adds `<Say>`.
    #[must_use]
    pub fn say(self, say: Say) -> Self {
        self.with(Verb::Say(say))
    }

    /// Adds `<Pause>` of whole seconds. As the first verb Twilio waits that long before it answers.
    #[must_use]
    pub fn pause(self, seconds: u32) -> Self {
        self.with(Verb::Pause { seconds })
    }

    /// Adds `<Dial>`. With an action URL, what follows it is unreachable.
    #[must_use]
    pub fn dial(self, dial: Dial) -> Self {
        self.with(Verb::Dial(dial))
    }

    /// Adds `<Redirect>`; what follows it is unreachable.
    #[must_use]
    pub fn redirect(self, url: impl Into<String>) -> Self {
        self.with(Verb::Redirect { url: url.into() })
    }

    /// Adds `<Reject>`; only as the first verb does it avoid answering.
    #[must_use]
    pub fn reject(self, reason: RejectReason) -> Self {
        self.with(Verb::Reject { reason })
    }

    /// Adds `<Hangup>`.
    #[must_use]
    pub fn hang_up(self) -> Self {
        self.with(Verb::Hangup)
    }

    /// The document.
    pub fn to_xml(&self) -> String {
        let mut xml = String::from(r#"<?xml version="1.0" encoding="UTF-8"?>"#);
        if self.verbs.is_empty() {
            xml.push_str("<Response />");
            return xml;
        }
        xml.push_str("<Response>");
        for verb in &self.verbs {
            write_verb(&mut xml, verb);
        }
        xml.push_str("</Response>");
        xml
    }

    fn with(mut self, verb: Verb) -> Self {
        self.verbs.push(verb);
        self
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Verb {
    Connect(Connect),
    Say(Say),
    Pause { seconds: u32 },
    Dial(Dial),
    Redirect { url: String },
    Reject { reason: RejectReason },
    Hangup,
}

/// `<Connect>` with a bidirectional `<Stream>`. Twilio stays in it until the stream ends, then requests the action by
/// POST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    /// Asked what comes next when the stream is over; without one the next verb runs.
    pub action: Option<String>,
    /// The stream.
    pub stream: Stream,
}

/// `<Stream>`: where Twilio opens its WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// `wss://`, without a query.
    pub url: String,
    /// Handed back in the `start` message; name and value together below 500 characters.
    pub parameters: Vec<(String, String)>,
}

impl Stream {
    /// A stream without parameters.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), parameters: Vec::new() }
    }

    /// Adds a parameter.
    #[must_use]
    pub fn with_parameter(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.parameters.push((name.into(), value.into()));
        self
    }
}

/// `<Say>`: a sentence in the carrier's voice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Say {
    /// The words.
    pub text: String,
    /// BCP 47 tag; Twilio's default is `en-US`.
    pub language: Option<String>,
}

impl Say {
    /// Words in Twilio's default language.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), language: None }
    }

    /// Words in a language.
    pub fn in_language(text: impl Into<String>, language: impl Into<String>) -> Self {
        Self { text: text.into(), language: Some(language.into()) }
    }
}

/// `<Dial>` of one `<Number>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dial {
    /// E.164.
    pub number: String,
    /// What the dialled party sees; Twilio's default is the caller's number.
    pub caller_id: Option<String>,
    /// Asked what comes next when the dialled leg ended.
    pub action: Option<String>,
    /// How long it rings; Twilio's default is 30 s.
    pub timeout_seconds: Option<u32>,
}

impl Dial {
    /// Dials a number, all else by Twilio's defaults.
    pub fn new(number: impl Into<String>) -> Self {
        Self { number: number.into(), caller_id: None, action: None, timeout_seconds: None }
    }
}

/// What a rejected caller hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectReason {
    /// "Not in service."
    Rejected,
    /// A busy tone.
    Busy,
}

impl RejectReason {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Busy => "busy",
        }
    }
}

fn write_verb(xml: &mut String, verb: &Verb) {
    match verb {
        Verb::Connect(Connect { action, stream }) => {
            let method = action.as_ref().map(|_| "POST");
            open(xml, "Connect", &[("action", action.as_deref()), ("method", method)]);
            write_stream(xml, stream);
            close(xml, "Connect");
        }
        Verb::Say(Say { text, language }) => {
            element(xml, "Say", &[("language", language.as_deref())], text);
        }
        Verb::Pause { seconds } => empty(xml, "Pause", &[("length", Some(&seconds.to_string()))]),
        Verb::Dial(Dial { number, caller_id, action, timeout_seconds }) => {
            let timeout = timeout_seconds.map(|seconds| seconds.to_string());
            let attributes = [
                ("action", action.as_deref()),
                ("callerId", caller_id.as_deref()),
                ("timeout", timeout.as_deref()),
            ];
            open(xml, "Dial", &attributes);
            element(xml, "Number", &[], number);
            close(xml, "Dial");
        }
        Verb::Redirect { url } => element(xml, "Redirect", &[("method", Some("POST"))], url),
        Verb::Reject { reason } => empty(xml, "Reject", &[("reason", Some(reason.as_str()))]),
        Verb::Hangup => empty(xml, "Hangup", &[]),
    }
}

fn write_stream(xml: &mut String, stream: &Stream) {
    let attributes = [("url", Some(stream.url.as_str()))];
    if stream.parameters.is_empty() {
        return empty(xml, "Stream", &attributes);
    }
    open(xml, "Stream", &attributes);
    for (name, value) in &stream.parameters {
        empty(xml, "Parameter", &[("name", Some(name)), ("value", Some(value))]);
    }
    close(xml, "Stream");
}

type Attributes<'a> = [(&'static str, Option<&'a str>)];

fn element(xml: &mut String, name: &str, attributes: &Attributes<'_>, text: &str) {
    open(xml, name, attributes);
    escape_into(xml, text, Place::Text);
    close(xml, name);
}

fn open(xml: &mut String, name: &str, attributes: &Attributes<'_>) {
    start(xml, name, attributes);
    xml.push('>');
}

fn empty(xml: &mut String, name: &str, attributes: &Attributes<'_>) {
    start(xml, name, attributes);
    xml.push_str(" />");
}

fn start(xml: &mut String, name: &str, attributes: &Attributes<'_>) {
    xml.push('<');
    xml.push_str(name);
    for (attribute, value) in attributes {
        let Some(value) = value else { continue };
        xml.push(' ');
        xml.push_str(attribute);
        xml.push_str("=\"");
        escape_into(xml, value, Place::Attribute);
        xml.push('"');
    }
}

fn close(xml: &mut String, name: &str) {
    xml.push_str("</");
    xml.push_str(name);
    xml.push('>');
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Text,
    Attribute,
}

fn escape_into(xml: &mut String, text: &str, place: Place) {
    for character in text.chars() {
        match character {
            '&' => xml.push_str("&amp;"),
            '<' => xml.push_str("&lt;"),
            '>' => xml.push_str("&gt;"),
            '"' if place == Place::Attribute => xml.push_str("&quot;"),
            // A parser turns these into spaces in attributes, and `\r` into `\n` everywhere, unless they are references.
            '\t' | '\n' if place == Place::Attribute => write_reference(xml, character),
            '\r' => write_reference(xml, character),
            _ if is_xml_character(character) => xml.push(character),
            _ => {}
        }
    }
}

fn write_reference(xml: &mut String, character: char) {
    write!(xml, "&#{};", u32::from(character)).expect("writing to a String cannot fail");
}

/// `Char` of XML 1.0, section 2.2 (surrogates are no `char`s anyway).
const fn is_xml_character(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | '\u{20}'..='\u{FFFD}' | '\u{10000}'..='\u{10FFFF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = r#"<?xml version="1.0" encoding="UTF-8"?>"#;

    #[test]
    fn a_stream_reads_as_from_the_official_builder() {
        let response = Response::new()
            .connect(Connect {
                action: Some("https://api.example.com/twilio/after?call=1&x=2".to_owned()),
                stream: Stream::new("wss://media.example.com/twilio/media/abc")
                    .with_parameter("agent", r#"sales-"A" & <B>"#),
            })
            .say(Say::in_language("Zoë, bye", "en-US"))
            .hang_up();
        let expected = concat!(
            r#"<Response>"#,
            r#"<Connect action="https://api.example.com/twilio/after?call=1&amp;x=2" method="POST">"#,
            r#"<Stream url="wss://media.example.com/twilio/media/abc">"#,
            r#"<Parameter name="agent" value="sales-&quot;A&quot; &amp; &lt;B&gt;" />"#,
            r#"</Stream></Connect><Say language="en-US">Zoë, bye</Say><Hangup /></Response>"#,
        );
        assert_eq!(response.to_xml(), format!("{HEADER}{expected}"));
    }

    #[test]
    fn a_dial_reads_as_from_the_official_builder() {
        let dial = Dial {
            number: "+15558675310".to_owned(),
            caller_id: Some("+15551112222".to_owned()),
            action: Some("/after".to_owned()),
            timeout_seconds: Some(20),
        };
        let expected = concat!(
            r#"<Response><Dial action="/after" callerId="+15551112222" timeout="20">"#,
            r#"<Number>+15558675310</Number></Dial></Response>"#,
        );
        assert_eq!(Response::new().dial(dial).to_xml(), format!("{HEADER}{expected}"));
    }

    #[test]
    fn the_short_verbs_read_as_from_the_official_builder() {
        let cases = [
            (Response::new().reject(RejectReason::Busy), r#"<Response><Reject reason="busy" /></Response>"#),
            (
                Response::new().pause(2).redirect("https://x.example.com/next"),
                concat!(
                    r#"<Response><Pause length="2" />"#,
                    r#"<Redirect method="POST">https://x.example.com/next</Redirect></Response>"#
                ),
            ),
            (Response::new(), "<Response />"),
            (
                Response::new().connect(Connect { action: None, stream: Stream::new("wss://h/s") }),
                r#"<Response><Connect><Stream url="wss://h/s" /></Connect></Response>"#,
            ),
        ];
        for (response, expected) in cases {
            assert_eq!(response.to_xml(), format!("{HEADER}{expected}"));
        }
    }

    #[test]
    fn what_xml_cannot_carry_is_left_out_and_the_rest_survives_a_parser() {
        let say = Say::in_language("a\0b\u{1b}c\u{FFFE}d\r\n<&>\"'", "e\n\"n\"\t");
        assert_eq!(
            Response::new().say(say).to_xml(),
            format!(
                "{HEADER}<Response><Say language=\"e&#10;&quot;n&quot;&#9;\">abcd&#13;\n&lt;&amp;&gt;\"'</Say></Response>"
            )
        );
    }

    proptest::proptest! {
        #[test]
        fn no_words_can_leave_their_place(text in "\\PC{0,60}|.{0,60}", value in ".{0,60}") {
            let stream = Stream::new("wss://h/s").with_parameter("p", value);
            let xml = Response::new().connect(Connect { action: None, stream }).say(Say::new(text)).to_xml();
            let tags: Vec<_> = xml[HEADER.len()..].split('<').skip(1).map(|tag| &tag[..3]).collect();
            proptest::prop_assert_eq!(tags, ["Res", "Con", "Str", "Par", "/St", "/Co", "Say", "/Sa", "/Re"]);
            let quotes = xml[HEADER.len()..].split('>').map(|part| part.split('<').nth(1).unwrap_or_default());
            let quotes: usize = quotes.map(|tag| tag.matches('"').count()).sum();
            proptest::prop_assert_eq!(quotes, 6);
            proptest::prop_assert!(xml.chars().all(is_xml_character));
        }
    }
}
