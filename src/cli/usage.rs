//! The operating system flows in; CPU time and peak memory of this process flow out.

use std::time::Duration;

/// CPU time of all threads of this process so far.
pub(super) fn cpu_time() -> Duration {
    cpu_time::ProcessTime::try_now().map_or(Duration::ZERO, |t| t.as_duration())
}

/// Most bytes of memory resident at any time so far, where the system tells (Linux).
pub(super) fn peak_memory() -> Option<u64> {
    peak_of(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn peak_of(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// `bytes` for people: `61 KB`, `1.2 GB`.
pub(super) fn human_bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["bytes", "KB", "MB", "GB"] {
        if value < 1000.0 {
            return if unit == "bytes" || value >= 10.0 {
                format!("{value:.0} {unit}")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

/// `n` with thousands apart: `60,000`.
pub(super) fn human_count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peak_memory_is_read_from_the_status_file() {
        assert_eq!(peak_of("VmPeak:\t  99 kB\nVmHWM:\t   12 kB\n"), Some(12_288));
        assert_eq!(peak_of("VmPeak: 1 kB"), None);
    }

    #[test]
    fn numbers_are_shown_for_people() {
        assert_eq!([0, 999, 1000, 60_000, 1_234_567].map(human_count), ["0", "999", "1,000", "60,000", "1,234,567"]);
        assert_eq!([12, 1234, 61_000, 2_500_000_000].map(human_bytes), ["12 bytes", "1.2 KB", "61 KB", "2.5 GB"]);
    }
}
