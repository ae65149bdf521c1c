//! A voice without a model: what a caller hears while no model is there to speak.
//!
//! Pure: it is told what goes on and says when a clip is due. Silence on a line makes people hang up, so after
//! [`Comfort::PATIENCE`] without a model and without audio on its way a clip is played, and again after each
//! [`Comfort::PAUSE`], until a model is ready or the leg ends (then the carrier apologises, `Next::SayAndHangUp`). For a
//! model that is there and says nothing the call machine asks for the clip (`Output::Comfort`).
//!
//! Must never: become part of the conversation. A clip is in no transcript, carries no mark and is told to no model; it
//! is short, because what a model says next waits for it.

use call_session::Ms;
use call_session::audio::{BYTES_PER_MS, Payload, encode};
use call_session::io::PhoneCommand;

/// When the next clip is due.
#[derive(Clone, Debug)]
pub(crate) struct Comfort {
    model: Model,
    /// When everything sent to the phone has been played, as far as the clock can tell.
    plays_until: Ms,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Model {
    /// None is there; the next clip is due no earlier than this.
    Missing { next: Ms },
    /// One speaks for itself.
    Ready,
}

impl Comfort {
    /// From the last sound, or the loss of the model: together with a clip's way to the ear this stays below two seconds.
    const PATIENCE: Ms = Ms(1500);

    /// Between two clips: often enough to be known as a sign of life, seldom enough not to be heard as a fault.
    const PAUSE: Ms = Ms(4000);

    /// A leg begins without a model.
    pub(crate) const fn new(now: Ms) -> Self {
        Self { model: Model::Missing { next: Ms(now.0 + Self::PATIENCE.0) }, plays_until: now }
    }

    /// A model is there.
    pub(crate) const fn ready(&mut self) {
        self.model = Model::Ready;
    }

    /// The model is gone, or never came; saying so again changes nothing.
    pub(crate) fn lost(&mut self, now: Ms) {
        if self.model == Model::Ready {
            self.model = Model::Missing { next: now + Self::PATIENCE };
        }
    }

    /// Something goes to the phone.
    pub(crate) fn sent(&mut self, now: Ms, command: &PhoneCommand) {
        match command {
            PhoneCommand::Audio(audio) => self.plays_until = self.plays_until.max(now) + audio.duration(),
            PhoneCommand::Clear => self.plays_until = now,
            PhoneCommand::Mark(_) => {}
        }
    }

    /// When to ask for a clip; `None` while a model is there.
    pub(crate) fn due(&self) -> Option<Ms> {
        match self.model {
            Model::Ready => None,
            Model::Missing { next } => Some(next.max(self.plays_until + Self::PATIENCE)),
        }
    }

    /// The clip, if it is due; [`Comfort::sent`] is told of it like of anything else.
    pub(crate) fn take<'a>(&mut self, now: Ms, clip: &'a Payload) -> Option<&'a Payload> {
        if self.due().is_none_or(|due| due > now) {
            return None;
        }
        self.model = Model::Missing { next: now + clip.duration() + Self::PAUSE };
        Some(clip)
    }
}

/// The clip that needs no voice: two soft tones, a fourth apart and falling, as telephone systems say "please wait".
pub(crate) fn tone() -> Payload {
    const RATE: f32 = 1000.0 * BYTES_PER_MS as f32;
    /// Hertz and samples of each tone; the samples of the whole are a multiple of 3, so that base64 needs no padding.
    const TONES: [(f32, usize); 2] = [(587.33, 1800), (440.0, 2400)];
    /// A tenth of full scale: below speech, above a line's noise.
    const LOUDNESS: f32 = 3200.0;
    let mut mulaw = Vec::new();
    for (hertz, samples) in TONES {
        mulaw.extend((0..samples).map(|n| {
            let place = n as f32 / samples as f32;
            // Swells and fades, so that it does not click.
            let envelope = (std::f32::consts::PI * place).sin();
            let wave = (std::f32::consts::TAU * hertz * n as f32 / RATE).sin();
            encode((LOUDNESS * envelope * wave) as i16)
        }));
    }
    Payload::from_mulaw(&mulaw)
}

#[cfg(test)]
mod tests {
    use call_session::audio::decode;

    use super::*;

    fn audio(milliseconds: u64) -> PhoneCommand {
        PhoneCommand::Audio(Payload::from_mulaw(&vec![0x55; (milliseconds * BYTES_PER_MS) as usize]))
    }

    #[test]
    fn a_caller_without_a_model_hears_something_within_two_seconds_and_again() {
        let mut comfort = Comfort::new(Ms(1000));
        let clip = tone();
        assert!(clip.duration() < Ms(1000));
        let mut played = Vec::new();
        for now in (1000..20_000).step_by(10).map(Ms) {
            if let Some(clip) = comfort.take(now, &clip) {
                comfort.sent(now, &PhoneCommand::Audio(clip.clone()));
                played.push(now.0);
            }
        }
        let pause = (clip.duration() + Comfort::PAUSE).0.next_multiple_of(10);
        assert_eq!(played, [2500, 2500 + pause, 2500 + 2 * pause, 2500 + 3 * pause]);
    }

    #[test]
    fn a_model_that_is_there_speaks_for_itself() {
        let mut comfort = Comfort::new(Ms(0));
        comfort.ready();
        assert_eq!(comfort.due(), None);
        assert_eq!(comfort.take(Ms(60_000), &tone()), None);
    }

    #[test]
    fn what_was_sent_plays_out_before_a_clip() {
        let mut comfort = Comfort::new(Ms(0));
        comfort.ready();
        comfort.sent(Ms(1000), &audio(5000));
        comfort.lost(Ms(2000));
        assert_eq!(comfort.due(), Some(Ms(7500)));
        comfort.lost(Ms(3000));
        assert_eq!(comfort.due(), Some(Ms(7500)), "further failures change nothing");
        comfort.sent(Ms(4000), &PhoneCommand::Clear);
        assert_eq!(comfort.due(), Some(Ms(5500)));
    }

    #[test]
    fn the_tone_is_soft_and_begins_and_ends_in_silence() {
        let samples: Vec<i16> = tone().to_mulaw().into_iter().map(decode).collect();
        assert!(samples.iter().all(|sample| sample.abs() < 3400));
        assert!(samples.iter().any(|sample| sample.abs() > 2500));
        assert!(samples[0].abs() < 50 && samples[samples.len() - 1].abs() < 50);
    }
}
