//! Speech from `espeak-ng`, when it is on the PATH.
//!
//! One short process per text, its output cached by [`super::Voice`]. The two sides of a call speak with different
//! voices, so that a person listening to the recording knows who talks.

use std::io::Write as _;
use std::process::{Command, Stdio};

use super::Speaker;
use super::wav::{self, Sound};

/// Speaks a text, or `None` when espeak-ng is missing or fails: the caller has another voice.
pub(super) fn speak(text: &str, speaker: Speaker) -> Option<Sound> {
    let (voice, speed) = match speaker {
        Speaker::Caller => ("en-us+m3", "165"),
        Speaker::Agent => ("en-us+f3", "170"),
    };
    let mut child = Command::new("espeak-ng")
        .args(["-v", voice, "-s", speed, "--stdin", "--stdout"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    // Text on standard input, not as an argument: it may begin with a dash.
    let written = child.stdin.take().is_some_and(|mut stdin| stdin.write_all(text.as_bytes()).is_ok());
    let output = child.wait_with_output().ok()?;
    let is_usable = written && output.status.success();
    wav::read(&output.stdout).ok().filter(|sound| is_usable && !sound.samples.is_empty())
}
