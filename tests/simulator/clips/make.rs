//! Renders `index.tsv` into μ-law WAV files beside it; run by `make.sh`. Needs espeak-ng.

use std::path::Path;

use anyhow::Context as _;
use simulator::voice::{Voice, clips, wav};

fn main() -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("clips");
    for (name, speaker, text) in clips::index() {
        let mulaw = Voice::new(speaker).render_with_espeak(text).context("espeak-ng did not speak")?;
        std::fs::write(folder.join(name).with_extension("wav"), wav::write_compact(&mulaw))?;
    }
    Ok(())
}
