//! Mark names on the wire: `e<epoch>.g<generation>.m<sequence>`, e.g. `e0.g3.m17`.
//!
//! Twilio echoes a mark both when its audio was played and when a `clear` threw the audio away, with nothing to tell
//! the two apart; the generation in the name is what does.

use std::fmt;
use std::str::FromStr;

use crate::io::MarkName;

/// Not a mark of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a mark name of the form e0.g0.m1")]
pub struct ForeignMark;

impl fmt::Display for MarkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { epoch, generation, sequence } = self;
        write!(f, "e{epoch}.g{generation}.m{sequence}")
    }
}

impl FromStr for MarkName {
    type Err = ForeignMark;

    fn from_str(text: &str) -> Result<Self, ForeignMark> {
        let mut parts = text.split('.');
        let name = Self {
            epoch: number(parts.next(), 'e')?,
            generation: number(parts.next(), 'g')?,
            sequence: number(parts.next(), 'm')?,
        };
        if parts.next().is_some() { Err(ForeignMark) } else { Ok(name) }
    }
}

/// One part; only what `Display` writes is accepted (`u64`'s own parser would take a plus sign).
fn number<N: FromStr>(part: Option<&str>, letter: char) -> Result<N, ForeignMark> {
    let digits = part.and_then(|part| part.strip_prefix(letter)).ok_or(ForeignMark)?;
    if digits.bytes().all(|b| b.is_ascii_digit()) {
        digits.parse().map_err(|_| ForeignMark)
    } else {
        Err(ForeignMark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_name_survives_the_wire() {
        let name = MarkName { epoch: 0, generation: 3, sequence: 17 };
        assert_eq!(name.to_string(), "e0.g3.m17");
        assert_eq!("e0.g3.m17".parse(), Ok(name));
        let largest = MarkName { epoch: u32::MAX, generation: u32::MAX, sequence: u64::MAX };
        assert_eq!(largest.to_string().parse(), Ok(largest));
    }

    #[test]
    fn foreign_mark_names_do_not_parse() {
        for text in
            ["", "hello", "e0.g3", "e0.g3.m17.x", "e-1.g3.m17", "e0.g3.m+7", "g0.e3.m1", "e0.g99999999999.m1"]
        {
            assert_eq!(text.parse::<MarkName>(), Err(ForeignMark), "{text}");
        }
    }
}
