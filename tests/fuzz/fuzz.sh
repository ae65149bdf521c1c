#!/usr/bin/env bash
# Fuzzes with libFuzzer, on stable Rust: `make fuzz` and `make fuzz-test` call it.
#   fuzz.sh run SECONDS   every target for so long, two at a time; fails when an input breaks a promise
#   fuzz.sh keep          what reached new code in earlier runs joins the committed corpus
# What a run finds is in target/fuzz and nowhere else: the corpus changes only by `keep`, and by who commits a failed input.
set -euo pipefail
cd "$(dirname "$0")/../.."

corpus=tests/fuzz/corpus
found=target/fuzz/found
failed=target/fuzz/failed
export CARGO_TARGET_DIR=$PWD/target/fuzz
host=$(rustc -vV | sed -n 's/^host: //p')
runner=$CARGO_TARGET_DIR/$host/fuzz/fuzz-runner

# No input is longer, so that the corpus stays small; 400 acts of a call are 1201 bytes.
longest=2048
# Seconds for one input; they take milliseconds, and a machine may stall.
patience=60
# MiB; nothing that reads from outside may grow with what it reads.
memory=1024

command -v c++ >/dev/null || { echo "A C++ compiler is missing: libFuzzer is linked in (Debian: g++)."; exit 1; }
RUSTC_WORKSPACE_WRAPPER=$PWD/tests/fuzz/instrument.sh RUSTFLAGS="--cfg fuzzing" \
    cargo build --locked --quiet --profile fuzz -p fuzz-runner

run_one() {
    local target=$1 seconds=$2 log=$found/$1.log
    mkdir -p "$found/$target" "$failed"
    if ! FUZZ_TARGET=$target "$runner" -max_total_time="$seconds" -max_len=$longest -timeout=$patience \
        -rss_limit_mb=$memory -print_final_stats=1 -artifact_prefix="$failed/$target-" \
        "$found/$target" "$corpus/$target" >"$log" 2>&1; then
        tail -50 "$log"
        echo "An input broke a promise of $target. Keep it: cp $failed/$target-… $corpus/$target/ (every test run replays it)."
        return 1
    fi
    local units edges
    units=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    edges=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log")
    echo "    $target: $units inputs, $(head -1 <<<"$edges") edges reached by the corpus, $(tail -1 <<<"$edges") at the end"
}
export -f run_one
export corpus found failed runner longest patience memory

targets=()
for folder in "$corpus"/*/; do targets+=("$(basename "$folder")"); done

case ${1:-} in
run)
    printf '%s\n' "${targets[@]}" | xargs -P 2 -I TARGET bash -c 'run_one TARGET '"${2:?seconds}"' || exit 255'
    ;;
# By edges, not by how often each is passed: a tenth of the files, which every test run replays.
keep)
    for target in "${targets[@]}"; do
        FUZZ_TARGET=$target "$runner" -set_cover_merge=1 -use_counters=0 -max_len=$longest -verbosity=0 "$corpus/$target" "$found/$target"
    done
    echo "The corpus is $(cat "$corpus"/*/* | wc -c) bytes."
    ;;
*)
    sed -n '2,5s/^# //p' "$0"
    exit 64
    ;;
esac
