//! TwiML, read strictly (protocols: response rules, verbs, `<Stream>` attributes).
//!
//! [`parse`] turns a document into the verbs a call runs. What the carrier only warns about (an unknown attribute) is a
//! problem beside the verbs and the call goes on; what it cannot parse is an error and the call fails. Relative URLs are
//! resolved against the document's own URL. Verbs and nouns that the product does not emit yet are not known here: one
//! of them is a problem, never a silent success.

mod attributes;

use roxmltree::{Document, Node};

use crate::violations::{Refused, Rule};

/// A document, ready to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Twiml {
    /// The verbs in their order.
    pub verbs: Vec<Verb>,
    /// What the carrier would warn about.
    pub problems: Vec<Refused>,
}

/// One step of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Connect the call to a media stream.
    Connect {
        /// Asked when the stream is over; without it the next verb runs.
        action: Option<Callback>,
        /// The stream.
        stream: Stream,
    },
    /// Speak.
    Say {
        /// The words.
        text: String,
        /// How often; 0 is for ever.
        times: u32,
    },
    /// Wait.
    Pause {
        /// How long.
        seconds: u32,
    },
    /// Play a sound file.
    Play {
        /// Where it is.
        url: String,
        /// How often; 0 is for ever.
        times: u32,
    },
    /// Fetch other TwiML.
    Redirect(Callback),
    /// End the call.
    Hangup,
    /// Refuse the call.
    Reject {
        /// With a busy signal.
        busy: bool,
    },
    /// Call somebody else.
    Dial(Dial),
}

/// A URL the carrier requests, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callback {
    /// Absolute.
    pub url: String,
    /// `GET` instead of `POST`.
    pub is_get: bool,
}

/// A bidirectional media stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Absolute, `wss`.
    pub url: String,
    /// Unique per call; default the StreamSid.
    pub name: Option<String>,
    /// Told about start, stop and errors.
    pub status_callback: Option<Callback>,
    /// `customParameters` of the start message.
    pub parameters: Vec<(String, String)>,
}

/// A dialled call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dial {
    /// They ring together; the first to answer wins.
    pub numbers: Vec<String>,
    /// Asked when the dialled leg is over; without it the next verb runs.
    pub action: Option<Callback>,
    /// Seconds it rings.
    pub timeout: u32,
    /// Shown to the callee.
    pub caller_id: Option<String>,
}

/// Reads a document that was fetched from `base` (or came without a URL).
pub fn parse(text: &str, base: Option<&str>) -> Result<Twiml, Refused> {
    let document =
        Document::parse(text).map_err(|error| Refused::new(Rule::TwimlParse, format!("not XML: {error}")))?;
    let root = document.root_element();
    if root.tag_name().name() != "Response" {
        let detail = format!("the root is <{}>", root.tag_name().name());
        return Err(Refused::new(Rule::TwimlParse, detail));
    }
    let mut reader = Reader { base, problems: Vec::new() };
    reader.attributes(root, &[]);
    reader.no_text(root);
    let verbs = root.children().filter(Node::is_element).filter_map(|node| reader.verb(node)).collect();
    Ok(Twiml { verbs, problems: reader.problems })
}

struct Reader<'a> {
    base: Option<&'a str>,
    problems: Vec<Refused>,
}

impl Reader<'_> {
    /// `None`: it cannot be run, and a problem says why.
    fn verb(&mut self, node: Node<'_, '_>) -> Option<Verb> {
        match node.tag_name().name() {
            "Connect" => self.connect(node),
            "Say" => {
                let attributes = self.attributes(node, &["voice", "language", "loop"]);
                let times = self.integer(&attributes, "loop", 1);
                Some(Verb::Say { text: self.text(node, "words")?, times })
            }
            "Pause" => {
                let attributes = self.attributes(node, &["length"]);
                self.empty(node);
                Some(Verb::Pause { seconds: self.integer(&attributes, "length", 1) })
            }
            "Play" => {
                let attributes = self.attributes(node, &["loop"]);
                let times = self.integer(&attributes, "loop", 1);
                let url = self.text(node, "a URL")?;
                Some(Verb::Play { url: self.http_url(&url, "Play")?, times })
            }
            "Redirect" => {
                let attributes = self.attributes(node, &["method"]);
                let is_get = self.is_get(&attributes, "method");
                let url = self.text(node, "a URL")?;
                Some(Verb::Redirect(Callback { url: self.http_url(&url, "Redirect")?, is_get }))
            }
            "Hangup" => {
                self.attributes(node, &[]);
                self.empty(node);
                Some(Verb::Hangup)
            }
            "Reject" => {
                let attributes = self.attributes(node, &["reason"]);
                self.empty(node);
                let reason = self.one_of(&attributes, "reason", &["rejected", "busy"]);
                Some(Verb::Reject { busy: reason == Some("busy") })
            }
            "Dial" => self.dial(node),
            other => {
                self.problem(format!("<{other}> is not a verb the simulator knows"));
                None
            }
        }
    }

    fn connect(&mut self, node: Node<'_, '_>) -> Option<Verb> {
        let attributes = self.attributes(node, &["action", "method"]);
        self.no_text(node);
        let action = self.callback(&attributes, "action", "method");
        let mut nouns = node.children().filter(Node::is_element);
        let stream = match nouns.next() {
            Some(noun) if noun.tag_name().name() == "Stream" => self.stream(noun)?,
            Some(noun) => {
                self.problem(format!("<{}> is not a noun of <Connect>", noun.tag_name().name()));
                return None;
            }
            None => {
                self.problem("<Connect> has no noun");
                return None;
            }
        };
        if let Some(second) = nouns.next() {
            self.problem(format!("<Connect> has a second noun <{}>", second.tag_name().name()));
        }
        Some(Verb::Connect { action, stream })
    }

    fn stream(&mut self, node: Node<'_, '_>) -> Option<Stream> {
        let known = ["url", "name", "track", "statusCallback", "statusCallbackMethod"];
        let attributes = self.attributes(node, &known);
        self.no_text(node);
        if let Some(track) = attributes.value("track")
            && track != "inbound_track"
        {
            self.problems.push(Refused::new(Rule::StreamTrack, format!("track is `{track}`")));
        }
        self.absolute(&attributes, "statusCallback");
        let status_callback = self.callback(&attributes, "statusCallback", "statusCallbackMethod");
        let parameters =
            node.children().filter(Node::is_element).filter_map(|node| self.parameter(node)).collect();
        let name = attributes.value("name").map(str::to_owned);
        let url = self.stream_url(attributes.value("url").unwrap_or_default())?;
        Some(Stream { url, name, status_callback, parameters })
    }

    fn stream_url(&mut self, text: &str) -> Option<String> {
        let mut url = text.to_owned();
        if !text.contains("://") {
            let base = self.base.and_then(|base| reqwest::Url::parse(base).ok());
            let Some(joined) = base.filter(|_| !text.is_empty()).and_then(|base| base.join(text).ok()) else {
                self.problems
                    .push(Refused::new(Rule::StreamUrl, "no absolute URL and nothing to resolve it against"));
                return None;
            };
            url = joined.as_str().replacen("http", "ws", 1); // https → wss; http → ws, refused below
        }
        match reqwest::Url::parse(&url) {
            Ok(parsed) if parsed.scheme() != "wss" => {
                let detail = format!("the scheme is `{}`", parsed.scheme());
                self.problems.push(Refused::new(Rule::StreamScheme, detail));
                None
            }
            Ok(parsed) if let Some(port) = parsed.port() => {
                self.problems.push(Refused::new(Rule::StreamUrlPort, format!("the port is {port}")));
                None // the scheme's own port, 443, is none here
            }
            Ok(parsed) if parsed.host_str().is_some_and(|host| !host.is_empty()) => {
                if parsed.query().is_some() {
                    self.problems
                        .push(Refused::new(Rule::StreamUrlQuery, "the stream's URL has a query string"));
                }
                Some(url.split('?').next().unwrap_or_default().to_owned())
            }
            _ => {
                self.problems.push(Refused::new(Rule::StreamUrl, "the stream's URL is malformed"));
                None
            }
        }
    }

    fn parameter(&mut self, node: Node<'_, '_>) -> Option<(String, String)> {
        if node.tag_name().name() != "Parameter" {
            self.problem(format!("<{}> is not a noun of <Stream>", node.tag_name().name()));
            return None;
        }
        let attributes = self.attributes(node, &["name", "value"]);
        self.empty(node);
        let (Some(name), Some(value)) = (attributes.value("name"), attributes.value("value")) else {
            self.problem("<Parameter> needs a name and a value");
            return None;
        };
        let characters = name.chars().count() + value.chars().count();
        if characters >= 500 {
            let detail = format!("`{name}` has {characters} characters");
            self.problems.push(Refused::new(Rule::StreamParameterTooLong, detail));
            return None;
        }
        Some((name.to_owned(), value.to_owned()))
    }

    fn dial(&mut self, node: Node<'_, '_>) -> Option<Verb> {
        let known = [
            "action",
            "method",
            "answerOnBridge",
            "callerId",
            "callReason",
            "hangupOnStar",
            "ringTone",
            "timeLimit",
            "timeout",
        ];
        let attributes = self.attributes(node, &known);
        for flag in ["answerOnBridge", "hangupOnStar"] {
            self.one_of(&attributes, flag, &["true", "false"]);
        }
        self.integer(&attributes, "timeLimit", 14_400);
        if attributes.value("callReason").is_some_and(|reason| reason.chars().count() > 50) {
            self.problem("`callReason` of <Dial> is longer than 50 characters");
        }
        let mut numbers = Vec::new();
        let bare: String = node.children().filter(Node::is_text).filter_map(|node| node.text()).collect();
        if !bare.trim().is_empty() {
            numbers.extend(self.number(bare.trim()));
        }
        for noun in node.children().filter(Node::is_element) {
            if noun.tag_name().name() != "Number" {
                self.problem(format!(
                    "<{}> is not a noun of <Dial> the simulator knows",
                    noun.tag_name().name()
                ));
                continue;
            }
            let known = [
                "sendDigits",
                "url",
                "method",
                "statusCallback",
                "statusCallbackEvent",
                "statusCallbackMethod",
            ];
            self.attributes(noun, &known);
            if let Some(text) = self.text(noun, "a number") {
                numbers.extend(self.number(&text));
            }
        }
        if numbers.len() > 10 {
            self.problem("<Dial> has more than ten nouns");
        }
        if numbers.is_empty() {
            self.problem("<Dial> has nobody to call");
            return None;
        }
        Some(Verb::Dial(Dial {
            numbers,
            action: self.callback(&attributes, "action", "method"),
            timeout: self.integer(&attributes, "timeout", 30),
            caller_id: attributes.value("callerId").map(str::to_owned),
        }))
    }

    fn number(&mut self, text: &str) -> Option<String> {
        if !is_e164(text) {
            self.problems.push(Refused::new(Rule::DialNumber, "not E.164"));
            return None;
        }
        Some(text.to_owned())
    }
}

/// `+` and 7 to 15 digits, the first not 0.
pub fn is_e164(text: &str) -> bool {
    text.strip_prefix('+').is_some_and(|digits| {
        (7..=15).contains(&digits.len())
            && digits.bytes().all(|byte| byte.is_ascii_digit())
            && !digits.starts_with('0')
    })
}

#[cfg(test)]
mod tests;
