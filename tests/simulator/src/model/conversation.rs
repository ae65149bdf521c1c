//! What the model remembers: the items of one conversation, in order (protocol sheet, sections 5.3 and 5.4).
//!
//! An assistant item knows how much audio of it was sent. A truncation cuts its words to what was played, so that a
//! test can read from here whether the product told the model the truth about what the caller heard.

use serde_json::{Value, json};

use super::fields::Fields;
use super::refusal::Refusal;
use crate::violations::Rule;

/// One remembered thing.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Item {
    pub(super) id: String,
    pub(super) body: Body,
    pub(super) status: Status,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Body {
    /// Text by the client, as user, system or assistant.
    Text {
        role: String,
        content: Vec<Value>,
    },
    /// What the caller said.
    CallerAudio {
        transcript: String,
        is_transcribed: bool,
        length_ms: u64,
    },
    /// What the model said.
    Speech(Speech),
    Call {
        call_id: String,
        name: String,
        arguments: String,
    },
    Output {
        call_id: String,
        output: String,
    },
}

/// Words of the model and how far they came.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Speech {
    pub(super) is_audio: bool,
    /// All that was meant to be said.
    pub(super) words: String,
    /// How long all of it sounds.
    pub(super) planned_ms: u64,
    /// How much was sent.
    pub(super) sent_ms: u64,
    /// How much the client says was played, if it said so.
    pub(super) truncated_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    InProgress,
    Completed,
    Incomplete,
}

#[derive(Debug, Default)]
pub(super) struct Conversation {
    items: Vec<Item>,
}

impl Speech {
    /// The words as far as they were sent and, if truncated, played: whole words by their share of the letters.
    pub(super) fn remembered(&self) -> String {
        self.words_until(self.truncated_ms.map_or(self.sent_ms, |played| played.min(self.sent_ms)))
    }

    /// The words that are out by a time in the item's audio.
    pub(super) fn words_until(&self, until: u64) -> String {
        if until >= self.planned_ms {
            return self.words.clone();
        }
        let words: Vec<&str> = self.words.split_whitespace().collect();
        let total = words.iter().map(|word| word.chars().count() as u64).sum::<u64>().max(1);
        let mut letters = 0;
        let heard = words.iter().take_while(|word| {
            letters += word.chars().count() as u64;
            self.planned_ms * letters / total <= until
        });
        heard.copied().collect::<Vec<_>>().join(" ")
    }
}

impl Status {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Incomplete => "incomplete",
        }
    }
}

impl Item {
    /// The item as the API writes it, without audio.
    pub(super) fn to_json(&self) -> Value {
        let (id, status) = (&self.id, self.status.name());
        match &self.body {
            Body::Text { role, content } => json!({
                "id": id, "object": "realtime.item", "type": "message", "status": status, "role": role, "content": content,
            }),
            Body::CallerAudio { transcript, is_transcribed, .. } => json!({
                "id": id, "object": "realtime.item", "type": "message", "status": status, "role": "user",
                "content": [{"type": "input_audio", "transcript": is_transcribed.then_some(transcript)}],
            }),
            Body::Speech(speech) => json!({
                "id": id, "object": "realtime.item", "type": "message", "status": status, "role": "assistant",
                "content": speech.content(self.status),
            }),
            Body::Call { call_id, name, arguments } => json!({
                "id": id, "object": "realtime.item", "type": "function_call", "status": status, "call_id": call_id,
                // Written out only when they are complete.
                "name": name, "arguments": if self.status == Status::InProgress { "" } else { arguments },
            }),
            Body::Output { call_id, output } => json!({
                "id": id, "object": "realtime.item", "type": "function_call_output", "status": status,
                "call_id": call_id, "output": output,
            }),
        }
    }

    /// Who this is from and what it says, for the log.
    pub(super) fn gist(&self) -> (&str, String) {
        match &self.body {
            Body::Text { role, content } => (role, texts(content)),
            Body::CallerAudio { transcript, .. } => ("user", transcript.clone()),
            Body::Speech(speech) => ("assistant", speech.remembered()),
            Body::Call { name, arguments, .. } => ("function_call", format!("{name}({arguments})")),
            Body::Output { output, .. } => ("function_call_output", output.clone()),
        }
    }

    /// Reads the `item` of `conversation.item.create`. Without an id it gets the one given.
    pub(super) fn parse(value: &Value, spare_id: String) -> Result<Self, Refusal> {
        let fields = Fields::of(value, "item", ITEM_FIELDS)?;
        fields.word("object", &["realtime.item"])?;
        fields.word("status", &["completed", "incomplete", "in_progress"])?;
        let id = fields.text("id")?.map_or(spare_id, str::to_owned);
        let text = |name: &str| fields.required_text(name).map(str::to_owned);
        let body = match fields.required_text("type")? {
            "message" => parse_message(fields)?,
            "function_call" => {
                Body::Call { call_id: text("call_id")?, name: text("name")?, arguments: text("arguments")? }
            }
            "function_call_output" => Body::Output { call_id: text("call_id")?, output: text("output")? },
            _ => {
                return Err(Refusal::invalid("item.type", "message, function_call or function_call_output"));
            }
        };
        Ok(Self { id, body, status: Status::Completed })
    }
}

impl Speech {
    fn content(&self, status: Status) -> Value {
        match (status, self.is_audio) {
            (Status::InProgress, _) => json!([]),
            (_, true) => json!([{"type": "output_audio", "transcript": self.remembered()}]),
            (_, false) => json!([{"type": "output_text", "text": self.remembered()}]),
        }
    }
}

impl Conversation {
    pub(super) fn items(&self) -> &[Item] {
        &self.items
    }

    pub(super) fn item(&self, id: &str) -> Option<&Item> {
        self.items.iter().find(|item| item.id == id)
    }

    pub(super) fn item_mut(&mut self, id: &str) -> Option<&mut Item> {
        self.items.iter_mut().find(|item| item.id == id)
    }

    /// Adds an item at the end; returns the id before it.
    pub(super) fn push(&mut self, item: Item) -> Option<String> {
        let previous = self.items.last().map(|last| last.id.clone());
        self.items.push(item);
        previous
    }

    /// Adds a client's item where it wants it; returns the id before it.
    pub(super) fn insert(&mut self, item: Item, after: Option<&str>) -> Result<Option<String>, Refusal> {
        if self.item(&item.id).is_some() {
            return Err(Refusal::invalid("item.id", "new to the conversation").breaking(Rule::ModelItem));
        }
        self.check_output(&item)?;
        let place = match after {
            None => self.items.len(),
            Some("root") => 0,
            Some(id) => match self.items.iter().position(|item| item.id == id) {
                Some(place) => place + 1,
                None => {
                    let refusal = Refusal::invalid("previous_item_id", "the id of an item");
                    return Err(refusal.breaking(Rule::ModelItem));
                }
            },
        };
        let previous = place.checked_sub(1).map(|before| self.items[before].id.clone());
        self.items.insert(place, item);
        Ok(previous)
    }

    fn check_output(&self, item: &Item) -> Result<(), Refusal> {
        let Body::Output { call_id, .. } = &item.body else { return Ok(()) };
        let is_called = self.items.iter().any(|item| {
            matches!(&item.body, Body::Call { call_id: id, .. } if id == call_id)
                && item.status == Status::Completed
        });
        if !is_called {
            let refusal =
                Refusal::invalid("item.call_id", "the call_id of a function call in the conversation");
            return Err(refusal.breaking(Rule::ModelToolOutput));
        }
        if self.output_of(call_id).is_some() {
            let refusal =
                Refusal::invalid("item.call_id", "the call_id of a function call without an output");
            return Err(refusal.breaking(Rule::ModelToolOutput));
        }
        Ok(())
    }

    /// The output of a call, once it is there.
    pub(super) fn output_of(&self, call_id: &str) -> Option<String> {
        self.items.iter().find_map(|item| match &item.body {
            Body::Output { call_id: id, output } if id == call_id => Some(output.clone()),
            _ => None,
        })
    }

    pub(super) fn remove(&mut self, id: &str) -> Result<(), Refusal> {
        let place = self.items.iter().position(|item| item.id == id);
        let place = place
            .ok_or_else(|| Refusal::invalid("item_id", "the id of an item").breaking(Rule::ModelItem))?;
        self.items.remove(place);
        Ok(())
    }

    /// Cuts an assistant item to what was played.
    pub(super) fn truncate(&mut self, id: &str, content_index: u64, played_ms: u64) -> Result<(), Refusal> {
        let broken = |refusal: Refusal| refusal.breaking(Rule::ModelTruncate);
        let item =
            self.item_mut(id).ok_or_else(|| broken(Refusal::invalid("item_id", "the id of an item")))?;
        let Body::Speech(speech) = &mut item.body else {
            return Err(broken(Refusal::invalid("item_id", "the id of an assistant message with audio")));
        };
        if !speech.is_audio {
            return Err(broken(Refusal::invalid("item_id", "the id of an assistant message with audio")));
        }
        if content_index != 0 {
            return Err(broken(Refusal::invalid("content_index", "the index of an audio content part")));
        }
        let length = speech.truncated_ms.unwrap_or(speech.sent_ms);
        if played_ms > length {
            let message = format!("Audio content of {length}ms is already shorter than {played_ms}ms");
            return Err(broken(Refusal::new("invalid_value", message, Some("audio_end_ms".to_owned()))));
        }
        speech.truncated_ms = Some(played_ms);
        Ok(())
    }

    /// What came in since the model last spoke or called a tool: the caller's words and the client's texts.
    pub(super) fn unanswered(&self) -> Option<String> {
        let is_answer = |item: &Item| match &item.body {
            Body::Speech(_) | Body::Call { .. } => true,
            Body::Text { role, .. } => role == "assistant",
            Body::CallerAudio { .. } | Body::Output { .. } => false,
        };
        let since = self.items.iter().rposition(is_answer).map_or(0, |last| last + 1);
        let heard: Vec<String> = self.items[since..]
            .iter()
            .filter(|item| !matches!(item.body, Body::Output { .. }))
            .map(|item| item.gist().1)
            .filter(|words| !words.is_empty())
            .collect();
        if heard.is_empty() { None } else { Some(heard.join(" ")) }
    }
}

fn parse_message(fields: Fields<'_>) -> Result<Body, Refusal> {
    let role = fields.required_text("role")?;
    let allowed: &[&str] = match role {
        "system" => &["input_text"],
        "user" => &["input_text", "input_audio", "input_image"],
        // Not output_audio: a client cannot put words of sound into the model's mouth.
        "assistant" => &["output_text"],
        _ => return Err(Refusal::invalid("item.role", "system, user or assistant")),
    };
    fields.required("content")?;
    let content = fields.list("content")?.ok_or_else(|| Refusal::invalid("item.content", "an array"))?;
    for (index, part) in content.iter().enumerate() {
        let place = format!("item.content[{index}]");
        let part = Fields::of(part, &place, &["type", "text", "audio", "transcript", "image_url", "detail"])?;
        match part.required_text("type")? {
            kind if !allowed.contains(&kind) => {
                return Err(Refusal::invalid(
                    part.path_of("type"),
                    &format!("one of {}", allowed.join(", ")),
                ));
            }
            "input_audio" => part.required_text("audio")?,
            "input_image" => part.required_text("image_url")?,
            _ => part.required_text("text")?,
        };
    }
    Ok(Body::Text { role: role.to_owned(), content: content.clone() })
}

fn texts(content: &[Value]) -> String {
    let texts =
        content.iter().filter_map(|part| part.get("text").or_else(|| part.get("transcript"))?.as_str());
    texts.collect::<Vec<_>>().join(" ")
}

const ITEM_FIELDS: &[&str] =
    &["id", "object", "type", "status", "role", "content", "call_id", "name", "arguments", "output"];

#[cfg(test)]
mod tests {
    use super::*;

    fn speech(sent_ms: u64) -> Item {
        let words = "one two three four five".to_owned();
        let speech = Speech { is_audio: true, words, planned_ms: 1900, sent_ms, truncated_ms: None };
        Item { id: "item_a".to_owned(), body: Body::Speech(speech), status: Status::Completed }
    }

    fn with(item: Item) -> Conversation {
        let mut conversation = Conversation::default();
        conversation.push(item);
        conversation
    }

    #[test]
    fn a_truncation_cuts_the_memory_to_what_was_played() {
        for (played, remembered) in [
            (1900, "one two three four five"),
            (1899, "one two three four"),
            (600, "one two"),
            (599, "one"),
            (0, ""),
        ] {
            let mut conversation = with(speech(1900));
            assert_eq!(conversation.truncate("item_a", 0, played), Ok(()));
            assert_eq!(conversation.items()[0].gist(), ("assistant", remembered.to_owned()), "{played}");
        }
    }

    #[test]
    fn a_truncation_beyond_the_audio_or_of_something_else_is_refused() {
        let mut conversation = with(speech(1000));
        let code = |result: Result<(), Refusal>| {
            result.map_err(|refusal| (refusal.code, refusal.message, refusal.rule))
        };
        let beyond = "Audio content of 1000ms is already shorter than 1001ms".to_owned();
        let rule = Some(Rule::ModelTruncate);
        assert_eq!(code(conversation.truncate("item_a", 0, 1001)), Err(("invalid_value", beyond, rule)));
        assert!(conversation.truncate("item_a", 1, 10).is_err());
        assert!(conversation.truncate("item_b", 0, 10).is_err());
        assert_eq!(conversation.truncate("item_a", 0, 400), Ok(()));
        assert!(conversation.truncate("item_a", 0, 401).is_err(), "it is only 400 ms long now");
        let user =
            json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]});
        let user = Item::parse(&user, "item_u".to_owned()).expect("legal");
        conversation.push(user);
        assert!(conversation.truncate("item_u", 0, 0).is_err());
    }

    #[test]
    fn items_are_checked_as_the_api_checks_them() {
        let table = [
            (
                json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]}),
                Ok(()),
            ),
            (
                json!({"type": "message", "role": "system", "content": [{"type": "input_text", "text": "x"}]}),
                Ok(()),
            ),
            (
                json!({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "x"}]}),
                Ok(()),
            ),
            (
                json!({"type": "message", "role": "assistant", "content": [{"type": "text", "text": "x"}]}),
                Err("item.content[0].type"),
            ),
            (
                json!({"type": "message", "role": "assistant", "content": [{"type": "output_audio", "transcript": "x"}]}),
                Err("item.content[0].type"),
            ),
            (
                json!({"type": "message", "role": "system", "content": [{"type": "input_audio", "audio": ""}]}),
                Err("item.content[0].type"),
            ),
            (
                json!({"type": "message", "role": "user", "content": [{"type": "input_text"}]}),
                Err("item.content[0].text"),
            ),
            (json!({"type": "message", "role": "tool", "content": []}), Err("item.role")),
            (json!({"type": "message", "role": "user"}), Err("item.content")),
            (json!({"type": "message", "role": "user", "content": "x"}), Err("item.content")),
            (json!({"role": "user", "content": []}), Err("item.type")),
            (json!({"type": "function_call_output", "call_id": "c", "output": {"a": 1}}), Err("item.output")),
            (json!({"type": "function_call_output", "output": "x"}), Err("item.call_id")),
            (json!({"type": "function_call", "call_id": "c", "name": "n", "arguments": "{}"}), Ok(())),
            (json!({"type": "message", "role": "user", "content": [], "speaker": 1}), Err("item.speaker")),
        ];
        for (item, expected) in table {
            let result = Item::parse(&item, "item_x".to_owned());
            let result = result.map(drop).map_err(|refusal| refusal.param.unwrap_or_default());
            assert_eq!(result, expected.map_err(str::to_owned), "{item}");
        }
    }

    #[test]
    fn an_output_answers_a_call_that_was_made_once() {
        let mut conversation = Conversation::default();
        let parse = |value: Value, id: &str| Item::parse(&value, id.to_owned()).expect("legal");
        let output =
            |id: &str| parse(json!({"type": "function_call_output", "call_id": "c", "output": "x"}), id);
        let rule = |result: Result<_, Refusal>| result.map(|_| ()).map_err(|refusal| refusal.rule);
        assert_eq!(rule(conversation.insert(output("a"), None)), Err(Some(Rule::ModelToolOutput)));
        let call = json!({"type": "function_call", "call_id": "c", "name": "n", "arguments": "{}"});
        assert_eq!(rule(conversation.insert(parse(call, "b"), None)), Ok(()));
        assert_eq!(rule(conversation.insert(output("a"), None)), Ok(()));
        assert_eq!(rule(conversation.insert(output("d"), None)), Err(Some(Rule::ModelToolOutput)));
        assert_eq!(conversation.output_of("c"), Some("x".to_owned()));
    }

    #[test]
    fn places_are_the_end_the_root_or_after_an_item() {
        let mut conversation = Conversation::default();
        let text =
            json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]});
        let item = |id: &str| Item::parse(&text, id.to_owned()).expect("legal");
        assert_eq!(conversation.insert(item("a"), None), Ok(None));
        assert_eq!(conversation.insert(item("b"), None), Ok(Some("a".to_owned())));
        assert_eq!(conversation.insert(item("c"), Some("a")), Ok(Some("a".to_owned())));
        assert_eq!(conversation.insert(item("d"), Some("root")), Ok(None));
        assert!(conversation.insert(item("e"), Some("z")).is_err());
        assert!(conversation.insert(item("a"), None).is_err());
        let order: Vec<&str> = conversation.items().iter().map(|item| item.id.as_str()).collect();
        assert_eq!(order, ["d", "a", "c", "b"]);
    }
}
