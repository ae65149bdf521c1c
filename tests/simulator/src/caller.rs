//! A caller: what a person on the phone says, presses and waits for, as data, and the machine that does it.
//!
//! Sans-IO: once per 20 ms of the media clock [`Caller::handle_tick`] is told what the agent's side sounds like
//! ([`Ear`]) and answers with the caller's own 20 ms. Every step has a deadline; a step that is not done in time, or that
//! the end of the call cuts off, is a [`StepFailure`] that names it. After the last step the caller hangs up.

mod ear;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

pub use self::ear::{Change, Ear};
use crate::voice::mulaw::{FRAME_BYTES, SILENCE};
use crate::voice::{Clip, Registry, Speaker, Voice, VoiceError};

/// One step of a caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Step {
    /// Say this.
    Say(String),
    /// Play a recording (WAV).
    Play(PathBuf),
    /// Press keys: `0`–`9`, `*`, `#`, and `A`–`D`, which few phones have.
    Press(String),
    /// Listen until the agent speaks, or has spoken and stopped.
    WaitForAgent(Wait),
    /// Listen until the agent has been speaking for so long; the next step talks over it.
    InterruptAfterMilliseconds(u32),
    /// Be silent for so many milliseconds.
    Pause(u32),
    /// End the call.
    HangUp,
    /// Wait for the other side to end the call.
    ExpectHangUp(Patience),
}

/// What is waited for, and how long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Wait {
    /// Until when.
    pub until: Until,
    /// Deadline.
    pub seconds: u32,
}

impl Default for Wait {
    fn default() -> Self {
        Self { until: Until::Silent, seconds: 30 }
    }
}

/// State of the agent's voice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Until {
    /// It began to speak.
    Speaking,
    /// It has spoken since the caller last did anything, and is silent again.
    #[default]
    Silent,
}

/// How long a step may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Patience {
    /// Deadline.
    pub seconds: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self { seconds: 30 }
    }
}

/// Deadline of the steps that have none of their own, beyond their own length.
const PATIENCE_MILLISECONDS: u64 = 30_000;
/// Time between two keys; people press about three a second.
const KEY_MILLISECONDS: u64 = 300;

/// Why a caller's steps cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum InvalidStep {
    /// A text or recording gives no sound.
    #[error("step {step}: {source}")]
    Sound {
        /// Counted from 1.
        step: usize,
        /// Why.
        source: VoiceError,
    },
    /// A key no phone has.
    #[error("step {step}: `{key}` is not a key of a phone")]
    Key {
        /// Counted from 1.
        step: usize,
        /// What was to be pressed.
        key: char,
    },
}

/// A step that was not completed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StepFailure {
    /// Counted from 1.
    pub step: usize,
    /// The step, as it is written in a file.
    pub description: String,
    /// What went wrong.
    pub reason: &'static str,
}

/// The caller's 20 ms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tick {
    /// Exactly one frame.
    pub audio: Vec<u8>,
    /// A key pressed in it.
    pub key: Option<char>,
    /// The caller is done.
    pub end: Option<End>,
}

/// How a caller is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It hangs up, as planned.
    HungUp,
    /// It gives up.
    Failed(StepFailure),
}

/// A caller in a call.
#[derive(Debug)]
pub struct Caller {
    steps: Vec<(Step, Vec<u8>)>,
    current: usize,
    /// When the current step began.
    began: u64,
    /// When the caller last finished speaking or pressing.
    acted: u64,
    /// Where further steps come from, if they do.
    directions: Option<Directions>,
}

#[derive(Debug)]
struct Directions {
    steps: mpsc::UnboundedReceiver<(Step, Vec<u8>)>,
    done: Arc<AtomicUsize>,
}

/// Tells a caller what to do while the call goes on; dropping it makes the caller hang up when it has done all.
#[derive(Debug)]
pub struct Director {
    registry: Registry,
    steps: mpsc::UnboundedSender<(Step, Vec<u8>)>,
    given: usize,
    done: Arc<AtomicUsize>,
}

impl Director {
    /// One more step. The first rendering of a sentence may block for tens of milliseconds.
    pub fn direct(&mut self, step: Step) -> Result<(), InvalidStep> {
        let prepared = prepare(self.given, step, &self.registry)?;
        self.given += 1;
        // A caller that is gone does nothing more; its call says why.
        let _ = self.steps.send(prepared);
        Ok(())
    }

    /// Whether the caller has done all it was told.
    pub fn is_idle(&self) -> bool {
        self.done.load(Ordering::Acquire) >= self.given
    }
}

impl Caller {
    /// Prepares the sounds; what is said is made known to the recogniser.
    pub fn new(steps: Vec<Step>, registry: &Registry) -> Result<Self, InvalidStep> {
        let steps = steps.into_iter().enumerate();
        let steps = steps.map(|(index, step)| prepare(index, step, registry)).collect::<Result<_, _>>()?;
        Ok(Self { steps, current: 0, began: 0, acted: 0, directions: None })
    }

    /// A caller that is silent until its director says more.
    pub fn directed(registry: &Registry) -> (Self, Director) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let done = Arc::new(AtomicUsize::new(0));
        let directions = Some(Directions { steps: receiver, done: done.clone() });
        let caller = Self { steps: Vec::new(), current: 0, began: 0, acted: 0, directions };
        (caller, Director { registry: registry.clone(), steps: sender, given: 0, done })
    }

    /// One frame of the media clock, `now` milliseconds after the call was answered.
    pub fn handle_tick(&mut self, now: u64, ear: &Ear) -> Tick {
        let mut tick = Tick { audio: vec![SILENCE; FRAME_BYTES], key: None, end: None };
        loop {
            let Some((step, audio)) = self.steps.get(self.current) else {
                if self.take_direction(now, &mut tick) {
                    continue;
                }
                return tick;
            };
            let elapsed = now.saturating_sub(self.began);
            let (done, deadline) = match step {
                Step::Say(_) | Step::Play(_) => {
                    let from = (elapsed / 20) as usize * FRAME_BYTES;
                    if let Some(rest) = audio.get(from..) {
                        let length = rest.len().min(FRAME_BYTES);
                        tick.audio[..length].copy_from_slice(&rest[..length]);
                    }
                    (from + FRAME_BYTES > audio.len(), elapsed + 1)
                }
                Step::Press(keys) => {
                    let index = (elapsed / KEY_MILLISECONDS) as usize;
                    if elapsed.is_multiple_of(KEY_MILLISECONDS) {
                        tick.key = keys.chars().nth(index);
                    }
                    (index >= keys.len(), elapsed + 1)
                }
                Step::WaitForAgent(wait) => {
                    let done = match wait.until {
                        Until::Speaking => ear.is_speaking(),
                        Until::Silent => ear.heard_since(self.acted) && !ear.is_speaking(),
                    };
                    (done, u64::from(wait.seconds) * 1000)
                }
                Step::InterruptAfterMilliseconds(after) => {
                    (ear.speaking_for(now) >= u64::from(*after), u64::from(*after) + PATIENCE_MILLISECONDS)
                }
                Step::Pause(milliseconds) => (elapsed >= u64::from(*milliseconds), u64::MAX),
                Step::HangUp => {
                    tick.end = Some(End::HungUp);
                    return tick;
                }
                Step::ExpectHangUp(patience) => (false, u64::from(patience.seconds) * 1000),
            };
            if !done {
                if elapsed >= deadline {
                    tick.end = self.failure("not in time").map(End::Failed);
                }
                return tick;
            }
            let acts = matches!(step, Step::Say(_) | Step::Play(_) | Step::Press(_));
            // A sound takes this frame with it; every other step hands it to the next one.
            let took_frame = matches!(step, Step::Say(_) | Step::Play(_));
            self.current += 1;
            self.began = if took_frame { now + 20 } else { now };
            if acts {
                self.acted = self.began;
            }
            if took_frame {
                return tick;
            }
        }
    }

    /// The next step from the director; without one the caller is silent, without a director it hangs up.
    fn take_direction(&mut self, now: u64, tick: &mut Tick) -> bool {
        let next = match &mut self.directions {
            Some(directions) => {
                directions.done.store(self.current, Ordering::Release);
                directions.steps.try_recv()
            }
            None => Err(TryRecvError::Disconnected),
        };
        match next {
            Ok(step) => {
                self.steps.push(step);
                self.began = now;
                return true;
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => tick.end = Some(End::HungUp),
        }
        false
    }

    /// The other side ended the call: fine where it was expected, or where nothing was left to do.
    pub fn handle_hang_up(&self) -> Option<StepFailure> {
        match self.steps.get(self.current) {
            None | Some((Step::ExpectHangUp(_) | Step::HangUp, _)) => None,
            Some(_) => self.failure("the call ended before it was done"),
        }
    }

    fn failure(&self, reason: &'static str) -> Option<StepFailure> {
        let (step, _) = self.steps.get(self.current)?;
        let description = serde_json::to_string(step).unwrap_or_default(); // a step is plain data
        Some(StepFailure { step: self.current + 1, description, reason })
    }
}

/// A step with its sound; what is said is made known to the recogniser.
fn prepare(index: usize, step: Step, registry: &Registry) -> Result<(Step, Vec<u8>), InvalidStep> {
    let sound = |result: Result<Clip, VoiceError>| {
        let clip = result.map_err(|source| InvalidStep::Sound { step: index + 1, source })?;
        registry.add(&clip);
        Ok(clip.mulaw)
    };
    let audio = match &step {
        Step::Say(text) => sound(Voice::new(Speaker::Caller).render(text))?,
        Step::Play(path) => sound(Clip::from_wav(path, &path.display().to_string()))?,
        Step::Press(keys) => match keys.chars().find(|key| !"0123456789*#ABCD".contains(*key)) {
            Some(key) => return Err(InvalidStep::Key { step: index + 1, key }),
            None => Vec::new(),
        },
        Step::WaitForAgent(_)
        | Step::InterruptAfterMilliseconds(_)
        | Step::Pause(_)
        | Step::HangUp
        | Step::ExpectHangUp(_) => Vec::new(),
    };
    Ok((step, audio))
}

#[cfg(test)]
mod tests;
