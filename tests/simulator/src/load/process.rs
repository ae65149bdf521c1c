//! What the kernel says of a process: processor time and memory, from `/proc`.

use std::time::Duration;

/// Kernel's clock ticks a second in `/proc/<pid>/stat`; 100 on every Linux there is a Rust for.
const TICKS: u64 = 100;

/// A moment of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// User and system time since its start.
    pub processor: Duration,
    /// Resident memory.
    pub resident_kib: u64,
}

impl Usage {
    /// Of a process; `None` when it is gone or this is not Linux.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        Some(Self { processor: processor(&stat)?, resident_kib: resident_kib(&status)? })
    }
}

fn processor(stat: &str) -> Option<Duration> {
    // The name in parentheses may hold anything; fields are counted behind it: state is the third of all.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11);
    let (user, system) = (times.next()?.parse::<u64>().ok()?, times.next()?.parse::<u64>().ok()?);
    Some(Duration::from_millis((user + system) * 1000 / TICKS))
}

fn resident_kib(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read_whatever_the_name_of_the_process() {
        let stat = "12 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20";
        assert_eq!(processor(stat), Some(Duration::from_secs(3)));
        assert_eq!(resident_kib("Name:\tx\nVmRSS:\t   10240 kB\n"), Some(10_240));
        assert_eq!((processor("12"), resident_kib("")), (None, None));
    }
}
