#!/bin/sh
# RUSTC_WORKSPACE_WRAPPER of the fuzz build: our own crates report their coverage to libFuzzer, dependencies need not.
# It is LLVM's pass that stable rustc is asked for; the compiler's own flag for it is nightly's.
rustc=$1
shift
exec "$rustc" "$@" -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares
