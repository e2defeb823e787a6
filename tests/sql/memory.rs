//! Memory is asked for before it is used; without enough of it the job ends with a name, not with a kill.

use std::sync::Arc;

use datafusion::execution::memory_pool::{MemoryPool, MemoryReservation};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::SessionContext;

use crate::support::*;

#[tokio::test]
async fn a_limit_that_is_too_small_names_distill_and_what_helps() {
    let ctx = session_with_table("t", pictures(48, 3));
    rows(&ctx, "SET datafusion.runtime.memory_limit = '200K'").await.unwrap();
    let message = message(&ctx, "SELECT * FROM distill(t, ipc => 1, extractors => 8, width => 64, steps => 1)").await;
    assert!(message.contains("Distill") && message.contains("memory"), "{message}");
    assert!(message.contains("fewer extractors"), "{message}");
}

/// A pool without a limit that remembers the most that was reserved at a time.
#[derive(Debug, Default)]
struct Peak(std::sync::Mutex<(usize, usize)>);

impl std::fmt::Display for Peak {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("peak")
    }
}

impl MemoryPool for Peak {
    fn name(&self) -> &str {
        "peak"
    }

    fn grow(&self, _reservation: &MemoryReservation, additional: usize) {
        let mut state = self.0.lock().unwrap();
        state.0 += additional;
        state.1 = state.1.max(state.0);
    }

    fn shrink(&self, _reservation: &MemoryReservation, shrink: usize) {
        self.0.lock().unwrap().0 -= shrink;
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> datafusion::error::Result<()> {
        self.grow(reservation, additional);
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.0.lock().unwrap().0
    }
}

#[tokio::test]
async fn ten_times_the_rows_reserve_no_more_and_all_is_given_back() {
    let peak = async |source: &str| {
        let pool = Arc::new(Peak::default());
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(pool.clone()).build_arc().unwrap();
        let ctx = SessionContext::new_with_config_rt(config().with_target_partitions(1), runtime);
        datafusion_distill::register(&ctx).unwrap();
        ctx.register_batch("t", pictures(256, 2)).unwrap();
        rows(&ctx, &format!("SELECT * FROM distill({source}, ipc => 1, threads => 1, {SMALL})")).await.unwrap();
        assert_eq!(pool.reserved(), 0);
        pool.0.lock().unwrap().1
    };
    let once = peak("t").await;
    let ten = peak(&format!("({})", ["SELECT * FROM t"; 10].join(" UNION ALL "))).await;
    assert!(once > 0 && ten <= once + once / 20, "{once} bytes for the rows once, {ten} for ten times");
}
