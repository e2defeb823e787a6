//! What else the characteristic function's method (NCFM) has: the term `calibration`, scales of frequencies, and frequencies that are learned.

use crate::support::*;

fn table() -> datafusion::prelude::SessionContext {
    session_with_table("t", pictures(90, 3))
}

fn sketched(options: &str) -> String {
    format!(
        "(SELECT label, distill_sketch_agg(image, {{'extractors': 2, 'width': 8, 'depth': 1 {options}}}) AS s FROM t GROUP BY label)"
    )
}

#[tokio::test]
async fn calibration_needs_moments_which_the_job_takes_by_itself() {
    let ctx = table();
    let job = |terms: &str| format!("SELECT * FROM distill(t, ipc => 2, image_size => 8, {SMALL}{terms})");
    let bytes = |text: &str| -> usize {
        let at = text.find("sketch_bytes_per_class=").unwrap() + "sketch_bytes_per_class=".len();
        text[at..].chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
    };
    let terms = ", terms => 'characteristic=1,calibration=0.5'";
    let with = shown(&ctx, &format!("EXPLAIN {}", job(terms))).await;
    let without = shown(&ctx, &format!("EXPLAIN {}", job(", terms => 'characteristic=1'"))).await;
    // Two extractors of 8 x 6 x 6 features: half a square of 8 bytes each.
    assert_eq!(bytes(&with) - bytes(&without), 2 * 8 * (288 * 289 / 2));
    let made = rows(&ctx, &job(terms)).await.unwrap();
    assert_eq!(made.num_rows(), 6);
    assert_eq!(made.columns(), rows(&ctx, &job(terms)).await.unwrap().columns());
    assert_ne!(made.columns(), rows(&ctx, &job(", terms => 'characteristic=1'")).await.unwrap().columns());

    let e = message(&ctx, "SELECT * FROM distill(t, method => 'herding', terms => 'calibration=1')").await;
    assert!(e.contains("'terms'") && e.contains("chooses real rows"), "{e}");
    let e = message(&ctx, "SELECT * FROM distill(t, terms => 'calibration=1', moments => 'none')").await;
    assert!(e.contains("'moments'") && e.contains("'calibration'"), "{e}");
    let stored = format!("SELECT * FROM distill({}, ipc => 2, terms => 'mean,calibration', steps => 2)", sketched(""));
    let e = message(&ctx, &stored).await;
    assert!(e.contains("'calibration' needs second moments") && e.contains("moments => 'pooled'"), "{e}");
}

#[tokio::test]
async fn sketches_of_other_scales_are_others_and_say_so() {
    let ctx = table();
    let job = |more: &str| format!("SELECT * FROM distill(t, ipc => 2, {SMALL}{more})");
    let plain = rows(&ctx, &job("")).await.unwrap();
    assert_eq!(plain.columns(), rows(&ctx, &job(", frequency_scales => '1'")).await.unwrap().columns());
    assert_ne!(plain.columns(), rows(&ctx, &job(", frequency_scales => [0.5, 2]")).await.unwrap().columns());
    let e = message(&ctx, &job(", frequency_scales => '0,1'")).await;
    assert!(e.contains("'frequency_scales'") && e.contains("1 to 16 numbers"), "{e}");

    let scaled = sketched(", 'frequencies': 64, 'frequency_scales': '0.5,2'");
    let other = sketched(", 'frequencies': 64");
    let both = format!(
        "SELECT label, distill_union_agg(s) FROM (SELECT * FROM {scaled} UNION ALL SELECT * FROM {other}) GROUP BY label"
    );
    let e = message(&ctx, &both).await;
    assert!(
        e.contains("frequency_scales 0.5,2 here, 1 there") || e.contains("frequency_scales 1 here, 0.5,2 there"),
        "{e}"
    );
    let none = sketched(", 'frequencies': 0, 'method': 'mean'");
    for (sketches, told) in [(&scaled, "= '0.5,2'"), (&other, "= '1'"), (&none, "IS NULL")] {
        let with = format!("SELECT count(*) AS n FROM {sketches} WHERE distill_describe(s)['frequency_scales'] {told}");
        assert_eq!(ints(&rows(&ctx, &with).await.unwrap(), "n"), [3], "{told}");
    }
    let from = |more: &str| format!("SELECT * FROM distill({scaled}, ipc => 2, steps => 2, unroll => 0{more})");
    assert_eq!(rows(&ctx, &from("")).await.unwrap().num_rows(), 6);
    rows(&ctx, &from(", frequency_scales => '0.5,2'")).await.unwrap();
    let e = message(&ctx, &from(", frequency_scales => '0.5'")).await;
    assert!(e.contains("'frequency_scales'") && e.contains("were made with 0.5,2"), "{e}");
}

#[tokio::test]
async fn frequencies_are_learned_on_kept_rows_of_pictures_and_tables() {
    let ctx = table();
    let job = |more: &str| {
        format!("SELECT * FROM distill(t, ipc => 2, unroll => 0, {SMALL}{more})").replace("steps => 2", "steps => 8")
    };
    let plain = rows(&ctx, &job("")).await.unwrap();
    let learned = rows(&ctx, &job(", learned_frequencies => 16")).await.unwrap();
    assert_eq!(learned.columns(), rows(&ctx, &job(", learned_frequencies => 16")).await.unwrap().columns());
    assert_ne!(learned.columns(), plain.columns());
    assert_eq!(plain.columns(), rows(&ctx, &job(", learned_frequencies => 0")).await.unwrap().columns());
    let noise = ", learned_frequencies => 16, init => 'noise'";
    let e = message(&ctx, &job(&format!("{noise}, reservoir_per_class => 0"))).await;
    assert!(e.contains("'reservoir_per_class'") && e.contains("learned_frequencies => 0"), "{e}");
    // For them rows are kept, whatever the start.
    assert_ne!(
        rows(&ctx, &job(noise)).await.unwrap().columns(),
        rows(&ctx, &job(", init => 'noise'")).await.unwrap().columns()
    );
    let e = message(&ctx, "SELECT * FROM distill(t, method => 'k_means', learned_frequencies => 4)").await;
    assert!(e.contains("'learned_frequencies'") && e.contains("chooses real rows"), "{e}");
    let lists = session_with_table("n", numbers(30, 3));
    let query = "SELECT * FROM distill(n, ipc => 2, ranges => '0,100', extractors => 2, width => 8, steps => 4, learned_frequencies => 8)";
    assert_eq!(rows(&lists, query).await.unwrap().num_rows(), 6);
}
