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

#[tokio::test]
async fn the_extractors_of_a_sketch_in_sql_are_accounted_for_once_and_given_back() {
    let peak = async |frequencies: usize, groups: &str| {
        let pool = Arc::new(Peak::default());
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(pool.clone()).build_arc().unwrap();
        let ctx = SessionContext::new_with_config_rt(config().with_target_partitions(1), runtime);
        datafusion_distill::register(&ctx).unwrap();
        ctx.register_batch("t", pictures(256, 3)).unwrap();
        let options = format!("extractors=2 width=64 depth=1 threads=1 init=noise frequencies={frequencies}");
        let query = format!("SELECT distill_sketch_agg(image, '{options}') FROM t {groups}");
        rows(&ctx, &query).await.unwrap();
        assert_eq!(pool.reserved(), 0);
        pool.0.lock().unwrap().1
    };
    // Two extractors of 2304 features: each frequency takes 4 bytes a feature in the extractors, 16 bytes a class in the sketch.
    for (groups, classes) in [("", 1), ("GROUP BY label", 3)] {
        let more = peak(1024, groups).await - peak(0, groups).await;
        let (extractors, sketches) = (2 * 2304 * 1024 * 4, classes * 2 * 1024 * 16);
        assert!(more >= extractors + sketches, "{groups}: {more}");
        // Once: states on their way add some copies of the sketches.
        assert!(more < extractors + extractors / 2, "{groups}: {more}");
    }
}

#[tokio::test]
async fn a_sketch_in_sql_whose_extractors_do_not_fit_ends_with_an_error() {
    let ctx = session_with_table("t", pictures(48, 3));
    rows(&ctx, "SET datafusion.runtime.memory_limit = '2M'").await.unwrap();
    let options = "extractors=8 width=64 frequencies=256";
    let message = message(&ctx, &format!("SELECT distill_sketch_agg(image, '{options}') FROM t")).await;
    assert!(message.contains("Resources exhausted"), "{message}");
}
