#!/bin/sh
# Renders every sentence of index.tsv anew: espeak-ng speaks, `switchboard-sim`'s own resampler makes telephone audio.
# Needs espeak-ng on the PATH. Run it after editing index.tsv, then list the names in src/voice/clips.rs.
set -eu
cd "$(dirname "$0")"
command -v espeak-ng >/dev/null || { echo "make.sh: install espeak-ng first (apt-get install espeak-ng)" >&2; exit 69; }
cargo run --quiet --package simulator --example make-clips
