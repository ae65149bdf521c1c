//! Tables of what the scaler decides. Times are seconds since the first look.

use std::time::Duration;

use crds::ScaleDown;

use super::*;

use Decision::{Down, Hold as Stay, Up};
use PodLoad::{Leaving, Serving, Silent, Starting};

fn settings() -> Builtin {
    Builtin {
        min_replicas: 2,
        max_replicas: 6,
        target_calls_per_pod: 10,
        scale_down: ScaleDown { stabilization_seconds: 60, pods_per_minute: 2 },
    }
}

const fn with(calls: u32) -> PodLoad {
    Serving { calls, reserved: 0 }
}

/// What is decided at first sight, with a history that says nothing.
fn at_first(replicas: i32, pods: &[PodLoad]) -> Decision {
    decide(&settings(), replicas, pods, &mut History::default(), Instant::now())
}

/// Looks at a sequence of moments; each decision is carried out before the next.
fn over_time(replicas: i32, moments: &[(u64, &[PodLoad])]) -> Vec<Decision> {
    let (start, mut history, mut replicas) = (Instant::now(), History::default(), replicas);
    let mut decisions = Vec::new();
    for (second, pods) in moments {
        let now = start + Duration::from_secs(*second);
        let decision = decide(&settings(), replicas, pods, &mut history, now);
        if let Up(wanted) | Down(wanted) = decision {
            replicas = wanted;
        }
        decisions.push(decision);
    }
    decisions
}

#[test]
fn up_is_at_once_and_to_as_many_as_hold_the_calls_at_the_target() {
    let cases: [(&str, i32, &[PodLoad], Decision); 6] = [
        ("as many as the target allows", 2, &[with(10), with(10)], Stay(Hold::Right)),
        ("one above the target is above it: no tolerance", 2, &[with(10), with(11)], Up(3)),
        ("by several pods at a time", 2, &[with(25), with(24)], Up(5)),
        ("uneven pods add up", 2, &[with(21), with(0)], Up(3)),
        ("not above the maximum", 2, &[with(100), with(100)], Up(6)),
        ("from nothing to the minimum", 0, &[], Up(2)),
    ];
    for (what, replicas, pods, wanted) in cases {
        assert_eq!(at_first(replicas, pods), wanted, "{what}");
    }
}

#[test]
fn ringing_calls_count_once_although_every_pod_tells_them() {
    let ringing = |calls, reserved| Serving { calls, reserved };
    assert_eq!(at_first(2, &[ringing(8, 3), ringing(9, 3)]), Stay(Hold::Right));
    assert_eq!(at_first(2, &[ringing(8, 3), ringing(9, 4)]), Up(3));
}

#[test]
fn pods_that_start_carry_nothing_and_pods_that_leave_do_not_count() {
    assert_eq!(at_first(3, &[with(15), with(15), Starting]), Stay(Hold::Right));
    assert_eq!(at_first(2, &[with(10), with(10), Leaving, Leaving]), Stay(Hold::Right));
}

#[test]
fn the_known_calls_alone_can_want_more_although_a_pod_is_silent() {
    assert_eq!(at_first(2, &[with(30), Silent]), Up(3));
    assert_eq!(at_first(3, &[with(5), Silent, Silent]), Stay(Hold::Silence));
}

#[test]
fn a_silent_pod_holds_the_number_and_the_window_begins_anew_when_it_speaks() {
    let (quiet, silent): (&[PodLoad], &[PodLoad]) =
        (&[with(1), with(1), with(1)], &[with(1), with(1), Silent]);
    let decisions = over_time(3, &[(0, quiet), (60, silent), (61, quiet), (120, quiet), (121, quiet)]);
    assert_eq!(
        decisions,
        [
            Stay(Hold::Stabilizing),
            Stay(Hold::Silence),
            Stay(Hold::Stabilizing),
            Stay(Hold::Stabilizing),
            Down(2)
        ]
    );
}

#[test]
fn down_waits_for_the_whole_window_and_goes_at_its_pace() {
    let quiet: &[PodLoad] = &[with(1); 5];
    let decisions = over_time(
        5,
        &[(0, quiet), (59, quiet), (60, quiet), (75, quiet), (90, quiet), (100, quiet), (150, quiet)],
    );
    assert_eq!(
        decisions,
        [
            Stay(Hold::Stabilizing),
            Stay(Hold::Stabilizing),
            // Two a minute: after a minute without any, both.
            Down(3),
            Stay(Hold::Pacing),
            Down(2),
            Stay(Hold::Right),
            Stay(Hold::Right),
        ]
    );
}

#[test]
fn a_peak_within_the_window_holds_what_it_wanted() {
    let (quiet, busy): (&[PodLoad], &[PodLoad]) = (&[with(1); 4], &[with(10); 4]);
    let decisions = over_time(4, &[(0, quiet), (30, busy), (60, quiet), (90, quiet), (91, quiet)]);
    assert_eq!(
        decisions,
        [
            Stay(Hold::Stabilizing),
            Stay(Hold::Right),
            Stay(Hold::Stabilizing),
            Stay(Hold::Stabilizing),
            Down(2),
        ]
    );
}

#[test]
fn a_lower_maximum_is_followed_at_once() {
    assert_eq!(at_first(9, &[with(1); 9]), Down(6));
    assert_eq!(at_first(9, &[Silent; 9]), Down(6));
}

#[test]
fn never_outside_the_limits_whatever_is_seen() {
    use proptest::prelude::*;
    let pod = prop_oneof![
        (0..2000_u32, 0..100_u32).prop_map(|(calls, reserved)| Serving { calls, reserved }),
        Just(Starting),
        Just(Silent),
        Just(Leaving),
    ];
    let looks = prop::collection::vec((0..120_u64, prop::collection::vec(pod, 0..12)), 1..40);
    proptest!(|(looks in looks, begun in 0..12_i32)| {
        let (mut now, mut history, mut replicas) = (Instant::now(), History::default(), begun);
        for (pause, pods) in looks {
            now += Duration::from_secs(pause);
            let decision = decide(&settings(), replicas, &pods, &mut history, now);
            if let Up(wanted) | Down(wanted) = decision {
                prop_assert!((2..=6).contains(&wanted));
                let is_fewer_in_limits = wanted < replicas && replicas <= 6;
                prop_assert!(!(is_fewer_in_limits && pods.contains(&Silent)));
                prop_assert!(!is_fewer_in_limits || replicas - wanted <= 2);
                prop_assert!(wanted != replicas);
                prop_assert_eq!(matches!(decision, Up(_)), wanted > replicas);
                replicas = wanted;
            }
        }
    });
}
