//! Coverage-guided fuzzing on stable Rust: libFuzzer around one of the targets, which `FUZZ_TARGET` names.
//!
//! `fuzz.sh` builds this with LLVM's coverage instrumentation (a pass that stable rustc can be asked for) and
//! `--cfg fuzzing`. A plain build has neither and only says so.

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
mod fuzzing {
    use std::sync::LazyLock;

    /// Chosen once: libFuzzer's own arguments leave no room for another.
    static TARGET: LazyLock<fuzz::Target> = LazyLock::new(|| {
        let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
        let names: Vec<&str> = fuzz::TARGETS.iter().map(|target| target.name).collect();
        fuzz::target(&name).unwrap_or_else(|| panic!("FUZZ_TARGET must be one of {}", names.join(", ")))
    });

    libfuzzer_sys::fuzz_target!(|data: &[u8]| (TARGET.run)(data));
}

#[cfg(not(fuzzing))]
fn main() -> std::process::ExitCode {
    eprintln!("built without instrumentation: use `make fuzz`");
    std::process::ExitCode::FAILURE
}
