//! One call from the first webhook to the last callback: the TwiML interpreter (protocols: verbs, webhook requests, ending).
//!
//! *Flow:* ask for TwiML, run its verbs one after the other, ask again where a verb says so, until a verb, the person, a
//! request or a failure ends the call; then the number's status callback. *Guarantees:* exactly one end, and a record of
//! all of it. Documents are bounded, so that TwiML cannot go round for ever.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::dial;
use super::line::{Interrupt, Line};
use super::record::{Command, Direction, EndReason, Event, Record, Status};
use super::stream::{self, StreamEnd};
use super::twiml::{self, Callback, Stream, Verb};
use super::webhook::{Form, Reply, path_of};
use super::{Carrier, callback};
use crate::caller::{Caller, End, StepFailure};
use crate::faults::AfterLostStream;
use crate::violations::{Refused, Rule};
use crate::voice::{Speaker, Voice};

/// TwiML documents a call may run: enough for any recovery, an end for any loop.
const MAX_DOCUMENTS: u32 = 50;
/// Repetitions of `<Say loop="0">`: for ever, as far as a person's patience goes.
const ENDLESS: u32 = 1000;

/// What a call's verbs need.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) carrier: Carrier,
    pub(super) record: Arc<Record>,
    entry: Entry,
    /// Pure callbacks on their way.
    callbacks: Mutex<JoinSet<()>>,
    /// Those kept back to come in the wrong order.
    kept_back: Mutex<Vec<(Callback, Form)>>,
    /// Of the streams so far.
    stream_names: Mutex<BTreeSet<String>>,
}

/// How a call begins and who is told about it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) first: Source,
    pub(super) fallback: Option<Callback>,
    pub(super) status_callback: Option<Callback>,
    /// Progress an outbound call reports; an inbound one only its end.
    pub(super) status_events: Vec<String>,
    /// How long the called person lets it ring; `None`: they do not answer.
    pub(super) ring: Option<Duration>,
    /// Seconds an outbound call may ring.
    pub(super) ring_limit: Duration,
}

/// Where TwiML comes from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// Asked for, with parameters beside the standard ones.
    Url(Callback, Form),
    /// Given.
    Twiml(String),
}

/// What follows a verb.
enum Flow {
    Next,
    Fetch(Callback, Form),
    End(EndReason),
}

/// How a call is over.
struct Over {
    reason: EndReason,
    failure: Option<StepFailure>,
}

impl Over {
    const fn because(reason: EndReason) -> Self {
        Self { reason, failure: None }
    }
}

/// Runs a call to its end.
pub(super) async fn run(
    carrier: Carrier,
    record: Arc<Record>,
    entry: Entry,
    caller: Caller,
    commands: mpsc::Receiver<Command>,
) {
    let call = Call {
        carrier,
        record: record.clone(),
        entry,
        callbacks: Mutex::default(),
        kept_back: Mutex::default(),
        stream_names: Mutex::default(),
    };
    let mut line = Line::new(record.clone(), caller, commands);
    let mut over = call.run(&mut line).await;
    let by_person =
        matches!(over.reason, EndReason::CallerHungUp | EndReason::CallerGaveUp | EndReason::NotAnswered);
    if !by_person {
        over.failure = line.caller().handle_hang_up();
    }
    let status = match (over.reason, line.is_answered()) {
        (EndReason::NotAnswered, _) => Status::NoAnswer,
        (EndReason::RejectVerb, _) => record.status(), // the verb set it
        (EndReason::RestCompleted, false) => Status::Canceled,
        (EndReason::WebhookFailed, false) => Status::Failed,
        (_, _) => Status::Completed,
    };
    record.end(status, over.reason, over.failure);
    call.report_progress(status, 3);
    let pending = std::mem::take(&mut *call.callbacks());
    pending.join_all().await;
    let kept_back = std::mem::take(&mut *call.kept_back());
    for (target, form) in kept_back.iter().rev() {
        callback::send(&call.carrier, &call.record, target, form).await;
    }
    record.finish();
}

impl Call {
    async fn run(&self, line: &mut Line) -> Over {
        if self.record.direction == Direction::OutboundApi
            && let Err(over) = self.ring(line).await
        {
            return over;
        }
        let mut source = self.entry.first.clone();
        for _ in 0..MAX_DOCUMENTS {
            source = match self.run_source(line, source).await {
                Ok(Flow::End(reason)) => return Over::because(reason),
                Ok(Flow::Fetch(callback, extra)) => Source::Url(callback, extra),
                Ok(Flow::Next) => return Over::because(EndReason::TwimlEnded),
                Err(interrupt) => match redirected(interrupt) {
                    Ok(again) => again,
                    Err(over) => return over,
                },
            };
        }
        self.refuse(Refused::new(Rule::TwimlLoop, format!("{MAX_DOCUMENTS} documents")));
        Over::because(EndReason::WebhookFailed)
    }

    async fn run_source(&self, line: &mut Line, source: Source) -> Result<Flow, Interrupt> {
        match source {
            Source::Twiml(text) => self.run_document(line, &text, None).await,
            Source::Url(callback, extra) => match self.fetch(line, &callback, &extra).await? {
                Some(reply) => self.run_document(line, &reply.body, Some(&reply.url)).await,
                None => Ok(Flow::End(EndReason::WebhookFailed)),
            },
        }
    }

    async fn ring(&self, line: &mut Line) -> Result<(), Over> {
        self.report_progress(Status::Queued, 0);
        self.record.set_status(Status::Ringing);
        self.report_progress(Status::Ringing, 1);
        let answers = self.entry.ring.is_some_and(|ring| ring <= self.entry.ring_limit);
        let rings = self.entry.ring.unwrap_or(self.entry.ring_limit).min(self.entry.ring_limit);
        if let Err(interrupt) = line.wait_for(tokio::time::sleep(rings)).await {
            return match redirected(interrupt) {
                Ok(_) => Err(Over::because(EndReason::WebhookFailed)), // only a live call takes TwiML
                Err(over) => Err(over),
            };
        }
        if !answers {
            return Err(Over::because(EndReason::NotAnswered));
        }
        self.answer(line);
        self.report_progress(Status::InProgress, 2);
        Ok(())
    }

    async fn run_document(&self, line: &mut Line, text: &str, base: Option<&str>) -> Result<Flow, Interrupt> {
        let document = match twiml::parse(text, base) {
            Ok(document) => document,
            Err(refused) => {
                self.refuse(refused);
                return Ok(Flow::End(EndReason::WebhookFailed));
            }
        };
        for problem in document.problems {
            self.refuse(problem);
        }
        let mut verbs: VecDeque<Verb> = document.verbs.into();
        while let Some(verb) = verbs.pop_front() {
            match self.run_verb(line, verb).await? {
                Flow::Next => {}
                other => return Ok(other),
            }
        }
        Ok(Flow::Next)
    }

    async fn run_verb(&self, line: &mut Line, verb: Verb) -> Result<Flow, Interrupt> {
        self.record.note(Event::VerbStarted { verb: verb_name(&verb) });
        match verb {
            Verb::Connect { action, stream } => {
                self.answer(line);
                let result = stream::run(self, line, &stream).await;
                let faults = self.carrier.switches().faults().phone;
                let parameters: Form = faults.action_parameters.into_iter().collect();
                let tells = faults
                    .action_after_hang_up
                    .unwrap_or_else(|| self.carrier.settings().action_after_hang_up);
                if let Err(Interrupt::Caller(_)) = &result
                    && tells
                    && let Some(action) = &action
                {
                    self.tell_action_after_hang_up(action, &parameters).await;
                }
                match (result?, faults.after_lost_stream) {
                    (StreamEnd::Lost, AfterLostStream::NextVerb) => return Ok(Flow::Next),
                    (StreamEnd::Lost, AfterLostStream::HangUp) => {
                        return Ok(Flow::End(EndReason::StreamLost));
                    }
                    (StreamEnd::Lost, AfterLostStream::Action) | (StreamEnd::Closed, _) => {}
                }
                Ok(action.map_or(Flow::Next, |action| Flow::Fetch(action, parameters)))
            }
            Verb::Say { text, times } => {
                self.answer(line);
                let sound = tokio::task::spawn_blocking(move || Voice::new(Speaker::Agent).render(&text));
                let sound = line.wait_for(sound).await?;
                let Ok(Ok(clip)) = sound else { return Ok(Flow::Next) }; // nothing speakable is silence
                for _ in 0..repetitions(times) {
                    line.play(&clip.mulaw).await?;
                }
                Ok(Flow::Next)
            }
            Verb::Play { url, times } => {
                self.answer(line);
                let callback = Callback { url, is_get: true };
                match line.wait_for(self.carrier.webhooks().request(&callback, &Vec::new())).await? {
                    // The simulator has no decoder for every format: a second of silence stands for the sound.
                    Ok(_) => {
                        for _ in 0..repetitions(times) {
                            line.wait_for(tokio::time::sleep(Duration::from_secs(1))).await?;
                        }
                    }
                    Err(refused) => self.refuse(refused),
                }
                Ok(Flow::Next)
            }
            Verb::Pause { seconds } => {
                line.wait_for(tokio::time::sleep(Duration::from_secs(seconds.into()))).await?;
                Ok(Flow::Next)
            }
            Verb::Redirect(callback) => Ok(Flow::Fetch(callback, Vec::new())),
            Verb::Hangup => {
                self.answer(line);
                Ok(Flow::End(EndReason::HangupVerb))
            }
            Verb::Reject { busy } => {
                if line.is_answered() {
                    return Ok(Flow::End(EndReason::HangupVerb));
                }
                self.record.set_status(if busy { Status::Busy } else { Status::NoAnswer });
                Ok(Flow::End(EndReason::RejectVerb))
            }
            Verb::Dial(dial) => {
                self.answer(line);
                let outcome = dial::run(self, line, &dial).await?;
                match dial.action {
                    Some(action) => Ok(Flow::Fetch(action, outcome.form())),
                    None => Ok(Flow::Next),
                }
            }
        }
    }

    /// Asks for TwiML, and the fallback if that fails; `None`: both failed, the call is over.
    async fn fetch(
        &self,
        line: &mut Line,
        callback: &Callback,
        extra: &[(String, String)],
    ) -> Result<Option<Reply>, Interrupt> {
        let mut form = self.form();
        form.extend_from_slice(extra);
        let failure = match line.wait_for(self.ask(callback, &form)).await? {
            Ok(reply) => return Ok(Some(reply)),
            Err(refused) => refused,
        };
        form.push(("ErrorCode".to_owned(), error_code(failure.rule).to_owned()));
        form.push(("ErrorUrl".to_owned(), callback.url.clone()));
        self.refuse(failure);
        let Some(fallback) = self.entry.fallback.as_ref().filter(|fallback| fallback.url != callback.url)
        else {
            return Ok(None);
        };
        match line.wait_for(self.ask(fallback, &form)).await? {
            Ok(reply) => Ok(Some(reply)),
            Err(refused) => {
                self.refuse(refused);
                Ok(None)
            }
        }
    }

    async fn ask(&self, callback: &Callback, form: &Form) -> Result<Reply, Refused> {
        let began = self.record.now();
        let path = path_of(&callback.url);
        let result = self.carrier.webhooks().request(callback, form).await.and_then(as_twiml);
        self.record.note(match &result {
            Ok(reply) => {
                let milliseconds = self.record.now() - began;
                Event::WebhookAnswered { path, status: reply.status, milliseconds }
            }
            Err(refused) => Event::WebhookFailed { path, reason: refused.detail.clone() },
        });
        result
    }

    /// Where the documents do not say whether the action is requested after a hang-up, the product must survive both.
    async fn tell_action_after_hang_up(&self, action: &Callback, parameters: &[(String, String)]) {
        let mut form = self.form();
        form.extend_from_slice(parameters);
        callback::set(&mut form, "CallStatus", Status::Completed.as_str());
        if let Err(refused) = self.ask(action, &form).await {
            self.refuse(refused);
        }
    }

    fn answer(&self, line: &mut Line) {
        if !line.is_answered() {
            line.answer();
            self.record.set_status(Status::InProgress);
            self.record.note(Event::Answered);
        }
    }

    /// The standard parameters at this moment.
    pub(super) fn form(&self) -> Form {
        callback::voice_form(&self.carrier, &self.record)
    }

    pub(super) fn refuse(&self, refused: Refused) {
        self.record.count_violation();
        let detail = format!("call {}: {}", self.record.sid, refused.detail);
        self.carrier.violations().record(refused.rule, detail);
    }

    /// Notes the name of a stream that begins.
    pub(super) fn name_stream(&self, stream: &Stream) {
        let Some(name) = &stream.name else { return };
        let mut names = self.stream_names.lock().unwrap_or_else(PoisonError::into_inner); // a set stays one
        if !names.insert(name.clone()) {
            self.refuse(Refused::new(Rule::StreamName, format!("`{name}` was given before")));
        }
    }

    pub(super) fn tell_stream(&self, stream: &Stream, sid: &str, event: &str, error: Option<&str>) {
        let Some(callback) = &stream.status_callback else { return };
        let form = callback::stream_form(&self.carrier, &self.record, (stream, sid), event, error);
        self.send(callback, form);
    }

    fn report_progress(&self, status: Status, sequence: u32) {
        let event = match status {
            Status::Queued => "initiated",
            Status::Ringing => "ringing",
            Status::InProgress => "answered",
            Status::Completed | Status::Busy | Status::Failed | Status::NoAnswer | Status::Canceled => {
                "completed"
            }
        };
        let Some(target) = &self.entry.status_callback else { return };
        if !self.entry.status_events.iter().any(|wanted| wanted == event) {
            return;
        }
        let form = callback::status_form(&self.carrier, &self.record, status, sequence);
        self.send(target, form);
    }

    /// Sends a pure callback beside the call; its end is waited for at the call's end.
    fn send(&self, target: &Callback, form: Form) {
        if self.carrier.switches().faults().phone.reverse_callbacks {
            return self.kept_back().push((target.clone(), form));
        }
        let (carrier, record, target) = (self.carrier.clone(), self.record.clone(), target.clone());
        self.callbacks().spawn(async move { callback::send(&carrier, &record, &target, &form).await });
    }

    fn kept_back(&self) -> MutexGuard<'_, Vec<(Callback, Form)>> {
        self.kept_back.lock().unwrap_or_else(PoisonError::into_inner) // a list stays one
    }

    fn callbacks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.callbacks.lock().unwrap_or_else(PoisonError::into_inner) // a set of tasks stays one
    }
}

/// An interruption either begins the call's TwiML anew or ends it.
fn redirected(interrupt: Interrupt) -> Result<Source, Over> {
    match interrupt {
        Interrupt::Caller(End::HungUp) => Err(Over::because(EndReason::CallerHungUp)),
        Interrupt::Caller(End::Failed(failure)) => {
            Err(Over { reason: EndReason::CallerGaveUp, failure: Some(failure) })
        }
        Interrupt::Command(Command::Complete) => Err(Over::because(EndReason::RestCompleted)),
        Interrupt::Command(Command::Twiml(text)) => Ok(Source::Twiml(text)),
        Interrupt::Command(Command::Url(callback)) => Ok(Source::Url(callback, Vec::new())),
    }
}

/// Content types of TwiML.
fn as_twiml(reply: Reply) -> Result<Reply, Refused> {
    match reply.content_type.as_str() {
        "text/xml" | "application/xml" | "text/html" => Ok(reply),
        "text/plain" if reply.body.trim_start().starts_with('<') => Ok(reply),
        other => {
            let detail = format!("{} answered with content type `{other}`", path_of(&reply.url));
            Err(Refused::new(Rule::WebhookContentType, detail))
        }
    }
}

/// The carrier's own number of a failure.
const fn error_code(rule: Rule) -> &'static str {
    match rule {
        Rule::WebhookUnreachable => "11205",
        Rule::WebhookRedirects => "11215",
        Rule::WebhookContentType => "12300",
        Rule::TwimlParse => "12100",
        _ => "11200",
    }
}

const fn repetitions(times: u32) -> u32 {
    if times == 0 { ENDLESS } else { times }
}

const fn verb_name(verb: &Verb) -> &'static str {
    match verb {
        Verb::Connect { .. } => "Connect",
        Verb::Say { .. } => "Say",
        Verb::Pause { .. } => "Pause",
        Verb::Play { .. } => "Play",
        Verb::Redirect(_) => "Redirect",
        Verb::Hangup => "Hangup",
        Verb::Reject { .. } => "Reject",
        Verb::Dial(_) => "Dial",
    }
}
