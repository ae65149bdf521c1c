//! The machine a figure belongs to, as its kernel describes it.

use std::fmt;

use serde::Serialize;

/// What must be said beside every figure.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Machine {
    processor: String,
    cores: usize,
    memory_mib: u64,
    kernel: String,
    /// Processes that wanted to run in the minute before: others disturb times.
    load_before: f64,
}

impl Machine {
    /// This machine, of which this process may use so many cores.
    pub(crate) fn of_this(cores: usize) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let (cpus, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
        };
        let kib = field(&memory, "MemTotal").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        let load = read("/proc/loadavg");
        Self {
            processor: field(&cpus, "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores,
            memory_mib: kib.unwrap_or_default() / 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_before: load.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or_default(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { processor, cores, memory_mib, kernel, load_before } = self;
        write!(
            f,
            "{processor}, {cores} cores, {:.1} GiB, Linux {kernel}; load average before: {load_before}",
            *memory_mib as f64 / 1024.0
        )
    }
}
