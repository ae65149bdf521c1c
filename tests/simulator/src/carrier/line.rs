//! The line between a simulated person and whatever the carrier puts on it: one media clock, 20 ms a frame, wall time.
//!
//! Owns the person's steps, both ears, the recording and the pending interruptions. Everything that takes time in an
//! answered call happens in [`Line::exchange`] or [`Line::wait_for`]: so the person goes on living while a webhook is
//! asked, and a hang-up or a REST request interrupts whatever goes on.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::record::{Command, Event, Record};
use crate::caller::{Caller, Change, Ear, End};
use crate::voice::mulaw::{FRAME_BYTES, SILENCE};

/// Length of a frame.
const FRAME: Duration = Duration::from_millis(20);

/// What ends the current verb from outside.
#[derive(Debug)]
pub(super) enum Interrupt {
    /// The person ended the call.
    Caller(End),
    /// A request did.
    Command(Command),
}

/// The person's 20 ms.
#[derive(Debug)]
pub(super) struct Spoken {
    pub(super) audio: Vec<u8>,
    pub(super) key: Option<char>,
}

/// An answered call's media clock.
#[derive(Debug)]
pub(super) struct Line {
    record: Arc<Record>,
    caller: Caller,
    commands: mpsc::Receiver<Command>,
    agent: Ear,
    person: Ear,
    /// When the person's current utterance began, while it talks over the agent.
    interruption: Option<u64>,
    clock: Option<Interval>,
    answered_at: u64,
    frames: u64,
}

impl Line {
    pub(super) fn new(record: Arc<Record>, caller: Caller, commands: mpsc::Receiver<Command>) -> Self {
        Self {
            record,
            caller,
            commands,
            agent: Ear::default(),
            person: Ear::default(),
            interruption: None,
            clock: None,
            answered_at: 0,
            frames: 0,
        }
    }

    pub(super) const fn is_answered(&self) -> bool {
        self.clock.is_some()
    }

    pub(super) const fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Starts the media clock.
    pub(super) fn answer(&mut self) {
        self.answered_at = self.record.now();
        let mut clock = interval(FRAME);
        clock.set_missed_tick_behavior(MissedTickBehavior::Burst); // a late frame is late, never lost
        self.clock = Some(clock);
    }

    /// Waits for the next frame's time; before the answer, for ever. Cancel-safe.
    pub(super) async fn next_frame(&mut self) -> Result<(), Interrupt> {
        let clock = async {
            match &mut self.clock {
                Some(clock) => {
                    clock.tick().await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some(command) = self.commands.recv() => Err(Interrupt::Command(command)),
            () = clock => Ok(()),
        }
    }

    /// Plays one frame to the person and returns theirs.
    pub(super) fn exchange(&mut self, heard: &[u8]) -> Result<Spoken, Interrupt> {
        let now = self.frames * 20;
        self.frames += 1;
        match self.agent.handle_frame(now, heard) {
            Some(Change::Started) => self.note_at(now, Event::AgentStartedSpeaking),
            Some(Change::Stopped { at }) => self.note_at(at, Event::AgentStoppedSpeaking),
            None => {}
        }
        let tick = self.caller.handle_tick(now, &self.agent);
        match self.person.handle_frame(now, &tick.audio) {
            Some(Change::Started) => {
                self.interruption = self.agent.is_speaking().then_some(now);
                self.note_at(now, Event::CallerStartedSpeaking);
            }
            Some(Change::Stopped { at }) => self.note_at(at, Event::CallerStoppedSpeaking),
            None => {}
        }
        self.record.record_frame(heard, &tick.audio, self.agent.voiced_milliseconds());
        if let Some(key) = tick.key {
            self.note_at(now, Event::KeyPressed { key });
        }
        match tick.end {
            Some(end) => Err(Interrupt::Caller(end)),
            None => Ok(Spoken { audio: tick.audio, key: tick.key }),
        }
    }

    /// The product threw away what waited to be played.
    pub(super) fn handle_clear(&mut self, discarded_milliseconds: u64) {
        let cleared_at = self.record.now();
        self.record.note_at(cleared_at, Event::Cleared { discarded_milliseconds });
        if discarded_milliseconds == 0 {
            return;
        }
        let Some(Change::Stopped { at }) = self.agent.cut() else { return };
        self.note_at(at, Event::AgentStoppedSpeaking);
        if let Some(spoke) = self.interruption.take() {
            let agent_silent_at = (self.answered_at + at).max(cleared_at);
            let caller_spoke_at = self.answered_at + spoke;
            self.record.note(Event::BargeIn { caller_spoke_at, cleared_at, agent_silent_at });
        }
    }

    /// Plays a sound to its end.
    pub(super) async fn play(&mut self, sound: &[u8]) -> Result<(), Interrupt> {
        for chunk in sound.chunks(FRAME_BYTES) {
            self.next_frame().await?;
            let mut frame = chunk.to_vec();
            frame.resize(FRAME_BYTES, SILENCE);
            self.exchange(&frame)?;
        }
        Ok(())
    }

    /// The person hears silence until something is done.
    pub(super) async fn wait_for<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Interrupt> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                frame = self.next_frame() => frame?,
            }
            self.exchange(&[SILENCE; FRAME_BYTES])?;
        }
    }

    fn note_at(&self, media: u64, event: Event) {
        self.record.note_at(self.answered_at + media, event);
    }
}
