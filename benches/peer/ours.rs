//! A line of JSON that names a case flows in; a line with the seconds that our kernels took flows out. `peer.py` alternates it with PyTorch.
//!
//! `{"case": "forward", "channels": 1, "side": 28, "width": 128, "rows": 256, "threads": 1, "repeat": 3}` answers
//! `{"seconds": [0.1, 0.1, 0.1], "peak_bytes": 1000000}`: one untimed run, then `repeat` timed ones. The bytes are the process's peak resident memory
//! above what it held before the first run of the case (Linux; `null` elsewhere). Empty input ends the process.

mod cases;

use std::io::{BufRead, Write};
use std::time::Instant;

use cases::{Case, Step, prepare};
use datafusion_distill::kernels::path;

/// As in the command `distill`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A line of this process's status, in bytes.
fn status(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Resident bytes now; from here on the peak is counted anew.
fn reset_peak() -> Option<u64> {
    std::fs::write("/proc/self/clear_refs", "5").ok()?;
    status("VmRSS")
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    eprintln!("kernel path: {}", path());
    let mut before = None;
    let mut prepared: Option<(Case, rayon::ThreadPool, Step)> = None;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        let case: Case = serde_json::from_str(&line)?;
        if prepared.as_ref().is_none_or(|(before, ..)| *before != case) {
            drop(prepared.take());
            let pool = rayon::ThreadPoolBuilder::new().num_threads(case.threads).build()?;
            let step = pool.install(|| prepare(&case))?;
            prepared = Some((case.clone(), pool, step));
            before = reset_peak();
        }
        let Some((_, pool, step)) = &mut prepared else { continue };
        pool.install(&mut *step)?;
        let mut seconds = vec![];
        for _ in 0..case.repeat {
            let start = Instant::now();
            pool.install(&mut *step)?;
            seconds.push(start.elapsed().as_secs_f64());
        }
        let peak = before.and_then(|before| Some(status("VmHWM")?.saturating_sub(before)));
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", serde_json::json!({ "seconds": seconds, "peak_bytes": peak }))?;
        out.flush()?;
    }
    Ok(())
}
