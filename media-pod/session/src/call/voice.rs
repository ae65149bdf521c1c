//! The agent's voice: replies, their audio, their words as far as they were heard, the greeting.

use std::collections::VecDeque;

use super::model::backoff;
use super::{Call, Debt, FirstSound};
use crate::audio::Payload;
use crate::io::{
    Event, HistoryItem, Ignored, MarkName, ModelCommand, ModelLoss, Output, PhoneCommand, ReplyOutcome,
    Speech,
};
use crate::journal::Fact;
use crate::playback::Playing;
use crate::state::Opening;
use crate::timer::Timer;
use crate::{ItemId, Ms, Redacted, ReplyId};

/// Failed replies in a row that are asked for again on the same connection.
const MAX_FAILED_REPLIES: u32 = 2;

/// The phone plays in frames of 20 ms: a shorter hole is none.
const FRAME: Ms = Ms(20);

/// Words kept for items whose audio has not begun, and items kept whose words have not come.
const MAX_WAITING: usize = 16;

/// Words and audio of an item come in any order; here the one waits for the other.
#[derive(Clone, Debug, Default)]
pub(super) struct Words {
    early: VecDeque<(ItemId, Redacted<String>)>,
    late: VecDeque<Playing>,
}

impl Words {
    fn take_early(&mut self, item: &ItemId) -> Option<Redacted<String>> {
        let index = self.early.iter().position(|(known, _)| known == item)?;
        self.early.remove(index).map(|(_, text)| text)
    }

    fn take_late(&mut self, item: &ItemId) -> Option<Playing> {
        let index = self.late.iter().position(|playing| playing.item == *item)?;
        self.late.remove(index)
    }
}

fn keep<T>(queue: &mut VecDeque<T>, entry: T) {
    if queue.len() >= MAX_WAITING {
        queue.pop_front();
    }
    queue.push_back(entry);
}

impl Call {
    pub(super) fn handle_reply_started(&mut self, reply: &ReplyId) -> Result<(), Ignored> {
        self.replies.begin(reply)?;
        self.timers.stop(Timer::Reply);
        self.opening.begin(reply);
        self.yield_to_caller();
        Ok(())
    }

    pub(super) fn handle_reply_ended(
        &mut self,
        reply: &ReplyId,
        outcome: ReplyOutcome,
    ) -> Result<(), Ignored> {
        self.replies.end(reply)?;
        self.playback.complete_reply(reply);
        if outcome == ReplyOutcome::Completed {
            self.mute_replies = 0;
        }
        let is_unheard = self.opening.is_unheard(reply) || self.is_answer_awaited();
        if outcome == ReplyOutcome::Failed && is_unheard {
            self.reply_failed();
        } else if self.is_answer_awaited() {
            // It made no sound; a tool's continuation may, within the usual time.
            self.timers.start(Timer::Reply, self.now + super::limits::REPLY_BEGINS);
        }
        Ok(())
    }

    /// The model failed where the caller waits for its voice: it is asked again, and a model that goes on failing is
    /// given up like a lost one.
    fn reply_failed(&mut self) {
        self.failed_replies += 1;
        self.opening.again();
        if self.failed_replies > MAX_FAILED_REPLIES {
            self.failed_replies = 0;
            // The reply came from a connection that is up, where a loss is always taken.
            let _ = self.lose_model(ModelLoss::Closed, 1);
        } else {
            let after = self.dice.jitter(backoff(self.failed_replies));
            self.timers.set(Timer::AskAgain, self.now + after);
        }
    }

    /// The reply that failed is due again, unless something else has been said since.
    pub(super) fn ask_again(&mut self) {
        self.ask_for_greeting();
        if self.is_answer_awaited() && !self.opening.is_going_on() && !self.replies.is_any_active() {
            self.debt = Debt::Reply;
        }
    }

    pub(super) fn handle_audio(
        &mut self,
        reply: &ReplyId,
        item: &ItemId,
        audio: &Payload,
    ) -> Result<(), Ignored> {
        if !self.replies.may_sound(reply, item) {
            self.event(Event::StaleAudioDropped);
            return Err(Ignored::Stale { input: "audio" });
        }
        if audio.mulaw_len() == 0 {
            return Ok(());
        }
        let hole = self.playback.hole(self.now, item);
        let outputs = &mut self.outputs;
        self.playback.send(self.now, reply, item, audio, |piece, mark| {
            outputs.push_back(Output::Phone(PhoneCommand::Audio(piece)));
            outputs.push_back(Output::Phone(PhoneCommand::Mark(mark)));
        })?;
        if hole >= FRAME {
            self.event(Event::AudioGap { silence: hole });
        }
        if let Some(text) = self.words.take_early(item) {
            // The item is being played: its first audio was booked above.
            let _ = self.playback.put_text(item, text);
        }
        self.opening.sound(reply);
        self.note_sound();
        Ok(())
    }

    fn note_sound(&mut self) {
        if self.first_sound != FirstSound::Heard {
            let after = (self.first_sound == FirstSound::Owed).then(|| self.now.since(self.began));
            self.first_sound = FirstSound::Heard;
            self.event(Event::FirstAudio { after });
        }
        self.timers.stop(Timer::Reply);
        self.timers.stop(Timer::AskAgain);
        self.failed_replies = 0;
        if self.debt == Debt::None
            && let Some(stopped) = self.floor.answered()
        {
            self.event(Event::TurnAnswered { latency: self.now.since(stopped) });
        }
    }

    pub(super) fn handle_mark(&mut self, name: MarkName) -> Result<(), Ignored> {
        self.playback.mark(name)
    }

    /// Puts on record what has been heard to its end.
    pub(super) fn collect_played(&mut self) {
        while let Some(playing) = self.playback.pop_finished() {
            self.conclude(playing);
        }
        while let Some(text) = self.playback.take_progress() {
            self.write(Fact::AgentHeard { text });
        }
    }

    /// The caller will hear no more of this item: its words go on record as far as they were heard.
    pub(super) fn conclude(&mut self, mut playing: Playing) {
        if playing.text.is_none() {
            playing.text = self.words.take_early(&playing.item);
        }
        match playing.text.take() {
            Some(text) => self.put_on_record(&playing, &text),
            None => keep(&mut self.words.late, playing),
        }
    }

    /// At the end of the leg: what is still being played counts as far as it was heard.
    pub(super) fn conclude_words(&mut self) {
        for playing in self.playback.cut().items {
            self.conclude(playing);
        }
        self.finish_opening();
    }

    fn put_on_record(&mut self, playing: &Playing, text: &Redacted<String>) {
        let interrupted = playing.played < playing.sent;
        let heard = playing.heard_text(text.expose());
        if heard.is_empty() {
            return;
        }
        let text = Redacted::new(heard);
        self.event(Event::AgentTranscript { text: text.clone(), interrupted });
        self.memory.push(self.now, HistoryItem::Agent(text.clone()));
        self.write(Fact::AgentSaid { text, interrupted });
    }

    pub(super) fn handle_agent_transcript(&mut self, item: ItemId, text: Redacted<String>) {
        if let Some(playing) = self.words.take_late(&item) {
            self.put_on_record(&playing, &text);
        } else if let Err(text) = self.playback.put_text(&item, text) {
            keep(&mut self.words.early, (item, text));
        }
    }

    /// Words of the caller are known some time after they were said, often after the agent has answered them: they go
    /// on record where they belong, so that nobody takes them for unanswered.
    pub(super) fn handle_caller_transcript(&mut self, text: Redacted<String>) {
        self.event(Event::CallerTranscript { text: text.clone() });
        let at = self.turn_ended.unwrap_or(self.now);
        self.memory.push(at, HistoryItem::Caller(text.clone()));
        self.write_of(at, Fact::CallerSaid { text });
    }

    /// Words that are on their way to the caller while a new connection begins: all that was sent of them will be
    /// heard, or a barge-in will say otherwise.
    pub(super) fn words_in_the_air(&self) -> Vec<HistoryItem> {
        let texts = self.playback.items().filter_map(|playing| playing.text.clone());
        texts.map(HistoryItem::Agent).collect()
    }

    /// Asks for a reply that is owed, as soon as the model is idle and the caller is not speaking.
    pub(super) fn settle_debt(&mut self) {
        let is_idle = self.link.is_ready() && !self.replies.is_any_active() && !self.is_caller_speaking();
        if self.debt == Debt::Reply && is_idle && !matches!(self.opening, Opening::Due | Opening::Asked) {
            self.debt = Debt::None;
            self.command(ModelCommand::Speak(Speech::Reply));
            self.await_reply();
        }
    }

    pub(super) fn ask_for_greeting(&mut self) {
        let Some(greeting) = self.plan.greeting.as_ref().map(|greeting| greeting.text.clone()) else {
            return;
        };
        if self.opening.ask() {
            self.say(greeting);
        }
    }

    /// The greeting is over when its reply has ended and everything of it was played.
    pub(super) fn settle_opening(&mut self) {
        let Opening::Saying { reply, .. } = &self.opening else { return };
        if !self.replies.is_active(reply) && !self.playback.is_playing(reply) {
            self.finish_opening();
        }
    }

    /// The greeting is not said again, unless nothing of it was heard.
    pub(super) fn finish_opening(&mut self) {
        if self.opening.over() {
            self.write(Fact::Greeted);
        }
    }

    /// A greeting the model never began does not hold up the call.
    pub(super) fn finish_opening_unless_begun(&mut self) {
        if self.opening == Opening::Asked {
            self.finish_opening();
        }
    }
}
