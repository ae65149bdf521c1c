//! Any speech rate to the telephone's 8 kHz: a windowed-sinc low-pass and an interpolator in one.
//!
//! Cutting below 3.6 kHz before thinning out is what keeps hiss out of the telephone band. Offline quality, whole
//! clips at once; it is never used on live audio.

use std::f64::consts::PI;

use super::mulaw::SAMPLE_RATE;

/// Converts samples at `rate` to 8 kHz.
pub(super) fn to_telephone(samples: &[i16], rate: u32) -> Vec<i16> {
    if rate == SAMPLE_RATE || rate == 0 {
        return samples.to_vec();
    }
    let step = f64::from(rate) / f64::from(SAMPLE_RATE);
    let length = (samples.len() as f64 / step) as usize;
    (0..length).map(|index| sample_at(samples, index as f64 * step, f64::from(rate))).collect()
}

/// The low-passed signal at a fractional position.
fn sample_at(samples: &[i16], position: f64, rate: f64) -> i16 {
    let cutoff = 2.0 * CUTOFF_HZ / rate;
    let first = (position - HALF_WIDTH).ceil().max(0.0) as usize;
    let last = ((position + HALF_WIDTH).floor() as usize).min(samples.len().saturating_sub(1));
    let mut sum = 0.0;
    for (index, sample) in samples.iter().enumerate().take(last + 1).skip(first) {
        let distance = index as f64 - position;
        let window = 0.5 + 0.5 * (PI * distance / HALF_WIDTH).cos();
        sum += f64::from(*sample) * cutoff * sinc(cutoff * distance) * window;
    }
    sum.clamp(f64::from(i16::MIN), f64::from(i16::MAX)) as i16
}

fn sinc(x: f64) -> f64 {
    if x.abs() < 1e-9 { 1.0 } else { (PI * x).sin() / (PI * x) }
}

/// Above speech's telephone band (3.4 kHz), below half the target rate (4 kHz).
const CUTOFF_HZ: f64 = 3600.0;

/// Input samples to either side: about 10 zero crossings at 22.05 kHz, enough for 40 dB.
const HALF_WIDTH: f64 = 32.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(hertz: f64, rate: u32) -> Vec<i16> {
        (0..rate)
            .map(|n| (8000.0 * (2.0 * PI * hertz * f64::from(n) / f64::from(rate)).sin()) as i16)
            .collect()
    }

    fn loudness(samples: &[i16]) -> f64 {
        (samples.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / samples.len() as f64).sqrt()
    }

    #[test]
    fn speech_stays_and_what_would_alias_goes() {
        for rate in [16_000, 22_050, 24_000] {
            let speech = to_telephone(&tone(1000.0, rate), rate);
            assert!((7990..=8000).contains(&speech.len()), "{rate}: {}", speech.len());
            assert!((5400.0..5900.0).contains(&loudness(&speech)), "{rate}: {}", loudness(&speech));
            let hiss = to_telephone(&tone(5500.0, rate), rate);
            assert!(loudness(&hiss) < 100.0, "{rate}: {}", loudness(&hiss));
        }
    }

    #[test]
    fn telephone_audio_passes_unchanged() {
        assert_eq!(to_telephone(&[1, 2, 3], 8000), vec![1, 2, 3]);
        assert_eq!(to_telephone(&[], 24_000), Vec::<i16>::new());
    }
}
