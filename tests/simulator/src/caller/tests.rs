//! Callers with virtual time: the test is the media clock.

use super::*;

/// What an agent's voice sounds like to these tests.
const VOICE: [u8; FRAME_BYTES] = [0x20; FRAME_BYTES];
const QUIET: [u8; FRAME_BYTES] = [SILENCE; FRAME_BYTES];

struct Phone {
    caller: Caller,
    ear: Ear,
    now: u64,
}

impl Phone {
    fn with(steps: Vec<Step>) -> Self {
        let caller = Caller::new(steps, &Registry::default()).unwrap();
        Self { caller, ear: Ear::default(), now: 0 }
    }

    fn hears(&mut self, frame: &[u8]) -> Tick {
        self.ear.handle_frame(self.now, frame);
        let tick = self.caller.handle_tick(self.now, &self.ear);
        self.now += 20;
        tick
    }

    /// Ticks until something but silence comes, and when.
    fn until_event(&mut self, frame: &[u8]) -> (u64, Tick) {
        for _ in 0..10_000 {
            let at = self.now;
            let tick = self.hears(frame);
            if tick.end.is_some() || tick.key.is_some() || tick.audio != QUIET {
                return (at, tick);
            }
        }
        panic!("nothing happens")
    }
}

fn ended(end: End) -> Tick {
    Tick { audio: QUIET.to_vec(), key: None, end: Some(end) }
}

#[test]
fn a_sentence_is_said_in_full_and_then_the_caller_hangs_up() {
    let text = "Hello there.";
    let expected = Voice::new(Speaker::Caller).render(text).unwrap().mulaw;
    let mut phone = Phone::with(vec![Step::Say(text.into())]);
    let mut said = Vec::new();
    loop {
        let tick = phone.hears(&QUIET);
        if let Some(end) = tick.end {
            assert_eq!(end, End::HungUp);
            break;
        }
        said.extend(tick.audio);
    }
    assert_eq!(said[..expected.len()], expected);
    assert!(said[expected.len()..].iter().all(|byte| *byte == SILENCE));
    assert!(said.len() < expected.len() + 2 * FRAME_BYTES);
}

#[test]
fn keys_are_pressed_one_after_the_other() {
    let mut phone = Phone::with(vec![Step::Press("1#".into())]);
    let keys: Vec<_> = (0..3).map(|_| phone.until_event(&QUIET)).map(|(at, tick)| (at, tick.key)).collect();
    assert_eq!(keys, vec![(0, Some('1')), (300, Some('#')), (600, None)]);
}

#[test]
fn waiting_for_silence_needs_a_voice_after_the_callers_own() {
    let mut phone = Phone::with(vec![Step::WaitForAgent(Wait::default()), Step::HangUp]);
    for _ in 0..50 {
        assert_eq!(phone.hears(&QUIET).end, None);
    }
    for _ in 0..50 {
        assert_eq!(phone.hears(&VOICE).end, None);
    }
    let stopped = phone.now;
    assert_eq!(phone.until_event(&QUIET), (stopped + 780, ended(End::HungUp)));
}

#[test]
fn an_interruption_comes_so_long_after_the_agent_began() {
    let mut phone = Phone::with(vec![Step::InterruptAfterMilliseconds(400), Step::Press("1".into())]);
    for _ in 0..10 {
        phone.hears(&QUIET);
    }
    let (at, tick) = phone.until_event(&VOICE);
    assert_eq!((at, tick.key), (200 + 400, Some('1')));
}

#[test]
fn a_deadline_names_the_step() {
    let wait = Wait { until: Until::Speaking, seconds: 2 };
    let mut phone = Phone::with(vec![Step::Pause(100), Step::WaitForAgent(wait)]);
    let description = r#"{"waitForAgent":{"until":"speaking","seconds":2}}"#.to_owned();
    let failure = StepFailure { step: 2, description, reason: "not in time" };
    assert_eq!(phone.until_event(&QUIET), (2100, ended(End::Failed(failure))));
}

#[test]
fn the_other_side_hanging_up_fails_the_step_it_cuts_off_unless_it_was_expected() {
    let mut phone = Phone::with(vec![Step::Pause(1000), Step::ExpectHangUp(Patience::default())]);
    phone.hears(&QUIET);
    assert_eq!(phone.caller.handle_hang_up().map(|failure| failure.step), Some(1));
    for _ in 0..60 {
        phone.hears(&QUIET);
    }
    assert_eq!(phone.caller.handle_hang_up(), None);
}

#[test]
fn steps_are_written_as_plain_yaml() {
    let text = "
- waitForAgent: {seconds: 10}
- say: \"Hello\"
- interruptAfterMilliseconds: 1500
- press: \"12#\"
- pause: 500
- expectHangUp: {}
- hangUp
";
    let steps: Vec<Step> = serde_saphyr::from_str(text).unwrap();
    let expected = vec![
        Step::WaitForAgent(Wait { until: Until::Silent, seconds: 10 }),
        Step::Say("Hello".into()),
        Step::InterruptAfterMilliseconds(1500),
        Step::Press("12#".into()),
        Step::Pause(500),
        Step::ExpectHangUp(Patience { seconds: 30 }),
        Step::HangUp,
    ];
    assert_eq!(steps, expected);
    assert!(serde_saphyr::from_str::<Vec<Step>>("- shout: \"Hello\"").is_err());
    assert!(Caller::new(vec![Step::Press("1E".into())], &Registry::default()).is_err());
}
