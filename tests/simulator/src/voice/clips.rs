//! Sentences that were rendered once and are carried in the binary, so that a machine without espeak-ng still has
//! real speech for the demo and the tests. `clips/make.sh` makes them from `index.tsv`.

use super::{Speaker, wav};

/// A committed clip's μ-law audio, if there is one for exactly this text and speaker.
pub fn find(text: &str, speaker: Speaker) -> Option<Vec<u8>> {
    let (name, _, _) = index().find(|(_, who, words)| *who == speaker && *words == text)?;
    let (_, file) = FILES.iter().find(|(file_name, _)| *file_name == name)?;
    wav::read(file).ok().map(|sound| super::mulaw::encode_all(&sound.samples))
}

/// Every committed sentence: file name, speaker, words.
pub fn index() -> impl Iterator<Item = (&'static str, Speaker, &'static str)> {
    INDEX.lines().filter_map(|line| {
        let mut fields = line.split('\t');
        let (name, speaker, text) = (fields.next()?, fields.next()?, fields.next()?);
        Some((name, if speaker == "agent" { Speaker::Agent } else { Speaker::Caller }, text))
    })
}

const INDEX: &str = include_str!("../../clips/index.tsv");

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_bytes!(concat!("../../clips/", $name, ".wav")) as &[u8])),*]
    };
}

const FILES: &[(&str, &[u8])] = files![
    "caller-hours",
    "caller-quote",
    "caller-friday",
    "caller-wait",
    "caller-order",
    "caller-yes",
    "caller-bye",
    "agent-greeting",
    "agent-hours",
    "agent-quote",
    "agent-sorry",
    "agent-bye",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_indexed_clip_is_carried_and_none_besides() {
        let indexed: Vec<&str> = index().map(|(name, _, _)| name).collect();
        let carried: Vec<&str> = FILES.iter().map(|(name, _)| *name).collect();
        assert_eq!(indexed, carried);
        assert!(FILES.iter().map(|(_, file)| file.len()).sum::<usize>() < 600_000);
    }

    #[test]
    fn a_committed_clip_is_real_speech() {
        for (name, speaker, text) in index() {
            let mulaw = find(text, speaker).unwrap_or_default();
            assert!(mulaw.len() > 4000, "{name}");
            assert!(crate::voice::mulaw::energy(&mulaw) > 1000, "{name}");
        }
        assert_eq!(find("Nobody ever recorded this.", Speaker::Caller), None);
    }
}
