//! Responses of the simulated model: decided at once, then played out step by step in the order of the protocol sheet,
//! section 5.7, faster than real time; cut at any step, with the `.done` events the real service sends also then.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::conversation::{Body, Conversation, Item, Speech, Status};
use super::format::AudioFormat;
use super::log::{LoggedResponse, to_ms};
use super::reply_request::ReplyRequest;
use super::script::{Act, requested_words};
use super::session::Session;
use super::settings::{Modality, token_limit_json};
use crate::voice::mulaw::{BYTES_PER_MS, SILENCE};
use crate::voice::{Speaker, Voice};

/// Who asked for a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Requester {
    Client,
    TurnDetection,
}

/// The active response.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) id: String,
    pub(super) requester: Requester,
    pub(super) created_at: Duration,
    /// When the client had read `response.created`, as far as is known.
    pub(super) read_at: Option<Duration>,
    steps: VecDeque<(Duration, Step)>,
    /// What every event about the response repeats of the request.
    frame: Value,
    format: AudioFormat,
    is_out_of_band: bool,
    /// Items of an out-of-band response; others are in the conversation.
    detached: Vec<Item>,
    output: Vec<String>,
    open: Option<OpenItem>,
}

#[derive(Debug)]
struct OpenItem {
    id: String,
    index: usize,
    audio: Vec<u8>,
    shown: usize,
}

#[derive(Debug)]
enum Step {
    Open {
        item: Item,
        audio: Vec<u8>,
    },
    Audio(Range<usize>),
    Text,
    Arguments,
    Close(Status),
    Called {
        then_say: Option<String>,
    },
    /// The whole reply fails.
    Fail,
    Finish {
        is_complete: bool,
    },
}

impl Reply {
    /// When its next step is due.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.steps.front().map(|(due, _)| *due)
    }
}

impl Session {
    /// Begins the response that the caller's turn calls for, unless one is active: then it comes after that.
    pub(super) fn begin_due_reply(&mut self, now: Duration) {
        if self.is_reply_due && self.reply.is_none() {
            self.is_reply_due = false;
            self.begin_reply(now, ReplyRequest::default(), Requester::TurnDetection);
        }
    }

    /// Begins a response; none may be active.
    pub(super) fn begin_reply(&mut self, now: Duration, request: ReplyRequest, requester: Requester) {
        let acts = self.decide(&request);
        let id = self.new_id("resp");
        let (modality, format) =
            (request.modality(&self.settings), request.format.unwrap_or(self.settings.output_format));
        let limit = request.max_output_tokens.unwrap_or(self.settings.max_output_tokens);
        let frame = json!({
            "object": "realtime.response", "id": id,
            "conversation_id": if request.is_out_of_band { Value::Null } else { json!(self.conversation_id) },
            "output_modalities": [modality.name()],
            "max_output_tokens": token_limit_json(limit),
            "audio": {"output": {
                "format": format.to_json(), "voice": request.voice.as_ref().unwrap_or(&self.settings.voice),
            }},
            "metadata": request.metadata,
        });
        let mut steps = self.plan(now + self.behaviour.first_audio(), acts, modality, limit);
        self.log.responses.push(LoggedResponse {
            id: id.clone(),
            requested_by: requester.name().to_owned(),
            status: "in_progress".to_owned(),
            reason: None,
            at_milliseconds: to_ms(now),
        });
        let response = response_json(&frame, "in_progress", Value::Null, &[], Value::Null);
        self.send(json!({"type": "response.created", "response": response}));
        self.ask_whether_read(id.clone());
        if self.faults.failing_replies > 0 && self.switches.fails_reply() {
            steps = VecDeque::from([(now + self.behaviour.first_audio(), Step::Fail)]);
        }
        if self.faults.unannounced_audio {
            let ghost = json!({
                "type": "response.output_audio.delta", "response_id": "resp_never_announced",
                "item_id": "item_never_announced", "output_index": 0, "content_index": 0,
                "delta": STANDARD.encode([0x55; 1600]),
            });
            self.send(ghost);
        }
        self.reply = Some(Reply {
            id,
            requester,
            created_at: now,
            read_at: None,
            steps,
            frame,
            format,
            is_out_of_band: request.is_out_of_band,
            detached: Vec::new(),
            output: Vec::new(),
            open: None,
        });
    }

    /// Does the reply's next step if it is due.
    pub(super) fn advance_reply(&mut self, now: Duration) -> bool {
        let Some(mut reply) = self.reply.take() else { return false };
        let Some((_, step)) = reply.steps.pop_front_if(|(due, _)| *due <= now) else {
            self.reply = Some(reply);
            return false;
        };
        if matches!(step, Step::Fail) {
            self.fail(&reply);
        } else if let Step::Finish { is_complete } = step {
            let sound: u64 = reply.output.iter().map(|id| self.sounding_ms(&reply, id)).sum();
            self.rest(reply.created_at + self.behaviour.first_audio() + Duration::from_millis(sound));
            if is_complete {
                self.finish(&reply, "completed", None);
            } else {
                self.finish(&reply, "incomplete", Some("max_output_tokens"));
            }
            self.begin_due_reply(now);
        } else {
            self.step(&mut reply, step);
            self.reply = Some(reply);
        }
        true
    }

    /// Cuts the active reply, if there is one.
    pub(super) fn cut_reply(&mut self, reason: &str) {
        let Some(mut reply) = self.reply.take() else { return };
        self.close_item(&mut reply, Status::Incomplete);
        self.finish(&reply, "cancelled", Some(reason));
    }

    /// What to say: the words asked for; else what tools brought; else an answer to what was heard.
    fn decide(&mut self, request: &ReplyRequest) -> Vec<Act> {
        if let Some(instructions) = request.instructions.as_deref().filter(|text| !text.trim().is_empty()) {
            return vec![Act::Say(requested_words(instructions))];
        }
        let heard = match &request.input {
            None => self.conversation.unanswered(),
            Some(items) => self.heard_in(items),
        };
        let conversation = &self.conversation;
        let mut acts = self.brain.follow_up(|call_id| conversation.output_of(call_id));
        match heard {
            Some(heard) if acts.is_empty() => acts = self.brain.answer(&heard),
            // With results to tell, only what the script has an answer to is answered, too.
            Some(heard) => acts.extend(self.brain.answer_if_scripted(&heard).unwrap_or_default()),
            None if acts.is_empty() && self.conversation.items().is_empty() => acts = self.brain.open(),
            None if acts.is_empty() => acts = self.brain.go_on(),
            None => {}
        }
        for act in &mut acts {
            if let Act::Call { call, .. } = act
                && !request.is_callable(&self.settings, &call.tool)
            {
                *act = Act::Say(format!("I have no tool named {}.", call.tool));
            }
        }
        acts
    }

    /// The texts of `response.create`'s own input.
    fn heard_in(&self, items: &[Value]) -> Option<String> {
        let mut context = Conversation::default();
        for (index, value) in items.iter().enumerate() {
            let referenced =
                value.get("id").and_then(Value::as_str).and_then(|id| self.conversation.item(id));
            let item = referenced.cloned().or_else(|| Item::parse(value, format!("input_{index}")).ok());
            item.map(|item| context.push(item));
        }
        context.unanswered()
    }

    fn plan(
        &mut self,
        start: Duration,
        acts: Vec<Act>,
        modality: Modality,
        limit: Option<u64>,
    ) -> VecDeque<(Duration, Step)> {
        let mut steps = VecDeque::new();
        let mut due = start;
        let mut audio_left = limit.map_or(usize::MAX, |tokens| tokens as usize * 50 * BYTES_PER_MS);
        let mut is_complete = true;
        for act in acts {
            match act {
                Act::Call { call, then_say } => {
                    let body = Body::Call {
                        call_id: self.new_id("call"),
                        name: call.tool,
                        arguments: Value::Object(call.arguments).to_string(),
                    };
                    let item = Item { id: self.new_id("item"), body, status: Status::InProgress };
                    steps.push_back((due, Step::Open { item, audio: Vec::new() }));
                    due += ARGUMENTS_TIME;
                    steps.push_back((due, Step::Arguments));
                    steps.push_back((due, Step::Called { then_say }));
                    steps.push_back((due, Step::Close(Status::Completed)));
                }
                Act::Say(words) => {
                    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
                    let is_audio = modality == Modality::Audio;
                    let clip = is_audio.then(|| Voice::new(Speaker::Agent).render(&words).ok()).flatten();
                    let mut audio = clip.map(|clip| clip.mulaw).unwrap_or_default();
                    let planned_ms = (audio.len() / BYTES_PER_MS) as u64;
                    let spoken = audio.len();
                    let flood = usize::try_from(self.faults.flood_milliseconds).unwrap_or_default();
                    audio.resize(spoken + flood * BYTES_PER_MS, SILENCE);
                    let speech = Speech { is_audio, words, planned_ms, sent_ms: 0, truncated_ms: None };
                    let item = Item {
                        id: self.new_id("item"),
                        body: Body::Speech(speech),
                        status: Status::InProgress,
                    };
                    let length = audio.len().min(audio_left);
                    is_complete = length == audio.len();
                    audio_left -= length;
                    steps.push_back((due, Step::Open { item, audio }));
                    if !is_audio {
                        steps.push_back((due, Step::Text));
                    }
                    for chunk in chunks(length) {
                        let sound = Duration::from_millis((chunk.len() / BYTES_PER_MS) as u64);
                        let is_flood = chunk.start >= spoken;
                        steps.push_back((due, Step::Audio(chunk)));
                        if !is_flood {
                            due += self.behaviour.generation_time(sound);
                        }
                    }
                    let status = if is_complete { Status::Completed } else { Status::Incomplete };
                    steps.push_back((due, Step::Close(status)));
                }
            }
            if !is_complete {
                break;
            }
        }
        steps.push_back((due, Step::Finish { is_complete }));
        if let Some(limit) = self.faults.silent_after_milliseconds {
            let is_beyond = |step: &Step| match step {
                Step::Audio(range) => (range.end / BYTES_PER_MS) as u64 > limit,
                _ => false,
            };
            steps.truncate(steps.iter().position(|(_, step)| is_beyond(step)).unwrap_or(steps.len()));
        }
        steps
    }

    fn step(&mut self, reply: &mut Reply, step: Step) {
        match step {
            Step::Open { item, audio } => self.open_item(reply, item, audio),
            Step::Audio(range) => self.send_audio(reply, range),
            Step::Text => self.send_text(reply),
            Step::Arguments => self.send_arguments(reply),
            Step::Called { then_say } => {
                let Some(open) = &reply.open else { return };
                if let Some(Body::Call { call_id, .. }) =
                    self.item_of(reply, &open.id).map(|item| item.body.clone())
                {
                    self.brain.called(&call_id, then_say);
                }
            }
            Step::Close(status) => self.close_item(reply, status),
            Step::Fail | Step::Finish { .. } => {} // ends the reply, which only its owner can do
        }
    }

    fn open_item(&mut self, reply: &mut Reply, item: Item, audio: Vec<u8>) {
        let index = reply.output.len();
        let (id, shown) = (item.id.clone(), item.to_json());
        let is_audio = match &item.body {
            Body::Speech(speech) => Some(speech.is_audio),
            Body::Text { .. } | Body::CallerAudio { .. } | Body::Call { .. } | Body::Output { .. } => None,
        };
        reply.output.push(id.clone());
        let event = json!({"type": "response.output_item.added", "response_id": reply.id, "output_index": index, "item": shown});
        self.send(event);
        if reply.is_out_of_band {
            reply.detached.push(item);
        } else {
            let previous = self.conversation.push(item);
            self.send(
                json!({"type": "conversation.item.added", "item": shown, "previous_item_id": previous}),
            );
        }
        reply.open = Some(OpenItem { id, index, audio, shown: 0 });
        if let Some(is_audio) = is_audio {
            let part = part_json(is_audio, "");
            self.send_of(reply, "response.content_part.added", [("part", part)]);
        }
    }

    fn send_audio(&mut self, reply: &mut Reply, range: Range<usize>) {
        let Some(open) = &mut reply.open else { return };
        let delta = STANDARD.encode(reply.format.encode(&open.audio[range.clone()]));
        let (id, shown) = (open.id.clone(), open.shown);
        let Some(speech) = self.speech_of(reply, &id) else { return };
        speech.sent_ms = (range.end / BYTES_PER_MS) as u64;
        // The text runs ahead of the sound, as at the real service.
        let words = speech.words_until(speech.sent_ms + TEXT_AHEAD_MS);
        let news = words.get(shown..).unwrap_or_default().to_owned();
        if let Some(open) = &mut reply.open {
            open.shown = words.len().max(shown);
        }
        if !news.is_empty() {
            self.send_of(reply, "response.output_audio_transcript.delta", [("delta", json!(news))]);
        }
        self.has_spoken = true;
        self.send_of(reply, "response.output_audio.delta", [("delta", json!(delta))]);
    }

    fn send_text(&mut self, reply: &mut Reply) {
        let Some(id) = reply.open.as_ref().map(|open| open.id.clone()) else { return };
        let Some(speech) = self.speech_of(reply, &id) else { return };
        let words = speech.words.clone();
        self.send_of(reply, "response.output_text.delta", [("delta", json!(words))]);
    }

    fn send_arguments(&mut self, reply: &Reply) {
        let Some(open) = &reply.open else { return };
        let Some(Body::Call { call_id, arguments, .. }) =
            self.item_of(reply, &open.id).map(|item| item.body.clone())
        else {
            return;
        };
        let kind = "response.function_call_arguments.delta";
        self.send(json!({
            "type": kind, "response_id": reply.id, "item_id": open.id, "output_index": open.index,
            "call_id": call_id, "delta": arguments,
        }));
    }

    /// Ends the open item: whole, or with what there is of it.
    fn close_item(&mut self, reply: &mut Reply, status: Status) {
        let Some(open) = reply.open.take() else { return };
        let detached = reply.detached.iter_mut().find(|item| item.id == open.id);
        let Some(item) = detached.or_else(|| self.conversation.item_mut(&open.id)) else { return }; // deleted
        item.status = status;
        if let (Status::Incomplete, Body::Call { arguments, .. }) = (status, &mut item.body) {
            arguments.truncate(1); // a cut call's arguments are cut JSON; whoever runs it has not looked at the status
        }
        let item = item.clone();
        let shown = item.to_json();
        let ids = json!({
            "response_id": reply.id, "item_id": open.id, "output_index": open.index, "content_index": 0,
        });
        let with = |kind: &str, extra: Value| merged(&merged(&ids, &extra), &json!({"type": kind}));
        match &item.body {
            Body::Speech(speech) if speech.is_audio => {
                let words = speech.words.get(..open.shown).unwrap_or(&speech.words).to_owned();
                self.send(with("response.output_audio.done", json!({})));
                self.send(with("response.output_audio_transcript.done", json!({"transcript": words})));
                self.send(with("response.content_part.done", json!({"part": part_json(true, &words)})));
            }
            Body::Speech(speech) => {
                self.send(with("response.output_text.done", json!({"text": speech.words})));
                self.send(with(
                    "response.content_part.done",
                    json!({"part": part_json(false, &speech.words)}),
                ));
            }
            Body::Call { call_id, name, arguments } => self.send(json!({
                "type": "response.function_call_arguments.done", "response_id": reply.id, "item_id": open.id,
                "output_index": open.index, "call_id": call_id, "name": name, "arguments": arguments,
            })),
            Body::Text { .. } | Body::CallerAudio { .. } | Body::Output { .. } => {} // never a reply's own
        }
        let kind = "response.output_item.done";
        self.send(json!({"type": kind, "response_id": reply.id, "output_index": open.index, "item": shown}));
        if !reply.is_out_of_band {
            let items = self.conversation.items();
            let place =
                items.iter().position(|item| item.id == open.id).and_then(|place| place.checked_sub(1));
            let previous = place.map(|place| items[place].id.clone());
            self.send(json!({"type": "conversation.item.done", "item": shown, "previous_item_id": previous}));
        }
    }

    fn finish(&mut self, reply: &Reply, status: &str, reason: Option<&str>) {
        let items: Vec<Item> =
            reply.output.iter().filter_map(|id| self.item_of(reply, id).cloned()).collect();
        let output: Vec<Value> = items.iter().map(Item::to_json).collect();
        let details = reason.map_or(Value::Null, |reason| json!({"type": status, "reason": reason}));
        let usage = self.usage(&items);
        let response = response_json(&reply.frame, status, details, &output, usage);
        self.log.note_end(&reply.id, status, reason);
        self.send(json!({"type": "response.done", "response": response}));
        self.send(json!({"type": "rate_limits.updated", "rate_limits": [
            {"name": "requests", "limit": 1000, "remaining": 999, "reset_seconds": 0.06},
            {"name": "tokens", "limit": 50_000, "remaining": 49_950, "reset_seconds": 0.06},
        ]}));
    }

    /// The response is over before it began, for want of capacity.
    fn fail(&mut self, reply: &Reply) {
        let error = json!({"type": "rate_limit_error", "code": "rate_limit_exceeded", "message": "Rate limit reached."});
        let details = json!({"type": "failed", "error": error});
        let response = response_json(&reply.frame, "failed", details, &[], Value::Null);
        self.log.note_end(&reply.id, "failed", Some("rate_limit_exceeded"));
        self.send(json!({"type": "response.done", "response": response}));
    }

    /// Tokens by the published rates: text four letters, the caller's audio 100 ms, the model's 50 ms each.
    fn usage(&self, output: &[Item]) -> Value {
        let count = |items: &[Item]| {
            items.iter().fold((0_u64, 0_u64), |(text, audio), item| match &item.body {
                Body::CallerAudio { length_ms, .. } => (text, audio + length_ms / 100),
                Body::Speech(speech) => (
                    text + item.gist().1.len() as u64 / 4,
                    audio + speech.truncated_ms.unwrap_or(speech.sent_ms) / 50,
                ),
                Body::Text { .. } | Body::Call { .. } | Body::Output { .. } => {
                    (text + item.gist().1.len() as u64 / 4, audio)
                }
            })
        };
        let (text_out, audio_out) = count(output);
        let context: Vec<Item> =
            self.conversation.items().iter().filter(|item| !output.contains(item)).cloned().collect();
        let (text_in, audio_in) = count(&context);
        let text_in = text_in + self.settings.instructions.len() as u64 / 4;
        json!({
            "total_tokens": text_in + audio_in + text_out + audio_out,
            "input_tokens": text_in + audio_in,
            "output_tokens": text_out + audio_out,
            "input_token_details": {
                "text_tokens": text_in, "audio_tokens": audio_in, "image_tokens": 0, "cached_tokens": 0,
                "cached_tokens_details": {"text_tokens": 0, "audio_tokens": 0, "image_tokens": 0},
            },
            "output_token_details": {"text_tokens": text_out, "audio_tokens": audio_out},
        })
    }

    fn send_of<const N: usize>(&mut self, reply: &Reply, kind: &str, extra: [(&str, Value); N]) {
        let Some(open) = &reply.open else { return };
        let mut event = json!({
            "type": kind, "response_id": reply.id, "item_id": open.id, "output_index": open.index, "content_index": 0,
        });
        for (name, value) in extra {
            event[name] = value;
        }
        self.send(event);
    }

    fn sounding_ms(&self, reply: &Reply, id: &str) -> u64 {
        match self.item_of(reply, id).map(|item| &item.body) {
            Some(Body::Speech(speech)) => speech.sent_ms,
            _ => 0, // a call makes no sound
        }
    }

    fn item_of<'a>(&'a self, reply: &'a Reply, id: &str) -> Option<&'a Item> {
        reply.detached.iter().find(|item| item.id == id).or_else(|| self.conversation.item(id))
    }

    fn speech_of<'a>(&'a mut self, reply: &'a mut Reply, id: &str) -> Option<&'a mut Speech> {
        let detached = reply.detached.iter_mut().find(|item| item.id == id);
        match &mut detached.or_else(|| self.conversation.item_mut(id))?.body {
            Body::Speech(speech) => Some(speech),
            Body::Text { .. } | Body::CallerAudio { .. } | Body::Call { .. } | Body::Output { .. } => None,
        }
    }
}

impl Requester {
    const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::TurnDetection => "turn_detection",
        }
    }
}

fn response_json(frame: &Value, status: &str, details: Value, output: &[Value], usage: Value) -> Value {
    merged(frame, &json!({"status": status, "status_details": details, "output": output, "usage": usage}))
}

fn merged(base: &Value, extra: &Value) -> Value {
    let mut both = base.clone();
    for (name, value) in extra.as_object().into_iter().flatten() {
        both[name] = value.clone();
    }
    both
}

fn part_json(is_audio: bool, words: &str) -> Value {
    if is_audio {
        json!({"type": "audio", "transcript": words})
    } else {
        json!({"type": "text", "text": words})
    }
}

/// Pieces as the real service sends them: small ones first, and none a whole number of telephone frames, so that a
/// client must carry the rest over.
fn chunks(length: usize) -> impl Iterator<Item = Range<usize>> {
    let sizes = FIRST_CHUNKS.iter().copied().chain(std::iter::repeat(LATER_CHUNK));
    sizes.scan(0, move |at, size| {
        let chunk = *at..(*at + size).min(length);
        *at = chunk.end;
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// 50, 100 and 250 ms, then 400 ms, each a little off.
const FIRST_CHUNKS: [usize; 3] = [400, 808, 2000];
const LATER_CHUNK: usize = 3204;

/// How far the transcript is ahead of the audio.
const TEXT_AHEAD_MS: u64 = 400;

/// How long writing a call's arguments takes.
const ARGUMENTS_TIME: Duration = Duration::from_millis(50);
