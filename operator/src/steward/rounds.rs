//! When the steward goes on which round: pure.

use std::time::Duration;

use tokio::time::Instant;

/// Between two usual rounds: status is for people, and 15 s is what the HPA looks at too.
const PERIOD: Duration = Duration::from_secs(15);
/// Between two rounds while a change of configuration is on its way.
const FAST_PERIOD: Duration = Duration::from_secs(2);
/// So many fast rounds after the last change: half a minute, after which the usual ones tell who is behind.
const FAST_ROUNDS: u32 = 15;
/// Between two looks of the built-in scaler: a third of what the HPA takes, and a few hundred bytes per pod.
const SCALING_PERIOD: Duration = Duration::from_secs(5);

/// Which agents a round is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Round {
    /// All.
    Usual,
    /// Those whose newest configuration is not in all pods.
    Fast,
    /// Those that the operator scales itself.
    Scaling,
}

/// When each round is due.
#[derive(Clone, Debug)]
pub(super) struct Rounds {
    usual: Instant,
    scaling: Instant,
    /// The next fast round, and how many there are left.
    fast: Option<(Instant, u32)>,
}

impl Rounds {
    /// The first usual round is at once.
    pub(super) fn beginning(now: Instant) -> Self {
        Self { usual: now, scaling: now + SCALING_PERIOD, fast: None }
    }

    /// A configuration changed.
    pub(super) fn configured(&mut self, now: Instant) {
        let at = self.fast.map_or(now + FAST_PERIOD, |(at, _)| at);
        self.fast = Some((at, FAST_ROUNDS));
    }

    /// The next round and its time; of several that are due, the most thorough.
    pub(super) fn next(&self) -> (Round, Instant) {
        let mut next = (Round::Usual, self.usual);
        let fast = self.fast.map(|(at, _)| (Round::Fast, at));
        for other in [fast, Some((Round::Scaling, self.scaling))].into_iter().flatten() {
            if other.1 < next.1 {
                next = other;
            }
        }
        next
    }

    /// A round is over. The pauses are between rounds, so that slow ones do not pile up.
    pub(super) fn went(&mut self, round: Round, now: Instant) {
        match round {
            Round::Usual => {
                self.usual = now + PERIOD;
                self.scaling = now + SCALING_PERIOD;
            }
            Round::Scaling => self.scaling = now + SCALING_PERIOD,
            Round::Fast => {
                let left = self.fast.map_or(0, |(_, left)| left.saturating_sub(1));
                self.fast = (left > 0).then_some((now + FAST_PERIOD, left));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rounds of so many seconds, each taking no time.
    fn of_first(seconds: u64, configured_at: Option<u64>) -> Vec<(u64, Round)> {
        let start = Instant::now();
        let mut rounds = Rounds::beginning(start);
        let (mut went, mut configured) = (Vec::new(), configured_at.map(|s| start + Duration::from_secs(s)));
        loop {
            let (round, at) = rounds.next();
            if let Some(when) = configured.take_if(|when| *when <= at) {
                rounds.configured(when);
                continue;
            }
            if at > start + Duration::from_secs(seconds) {
                return went;
            }
            went.push((at.duration_since(start).as_secs(), round));
            rounds.went(round, at);
        }
    }

    #[test]
    fn a_usual_round_takes_the_place_of_a_scaling_round() {
        use Round::{Scaling, Usual};
        let wanted = [(0, Usual), (5, Scaling), (10, Scaling), (15, Usual), (20, Scaling)];
        assert_eq!(of_first(20, None), wanted);
    }

    #[test]
    fn a_change_of_configuration_brings_fast_rounds_and_stops_neither_of_the_others() {
        let went = of_first(60, Some(1));
        let count = |round| went.iter().filter(|(_, r)| *r == round).count();
        assert_eq!(went[1], (3, Round::Fast));
        assert_eq!((count(Round::Usual), count(Round::Fast)), (5, 15));
        assert_eq!(count(Round::Scaling), 8);
    }
}
