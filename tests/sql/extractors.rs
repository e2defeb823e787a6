//! `layers`, `sizes` and `perturb`: what the extractors are, and what they give.

use crate::support::*;

const DEEP: &str = "ipc => 2, image_size => 8, extractors => 5, width => 16, depth => 2, steps => 2, frequencies => 8";

#[tokio::test]
async fn all_layers_and_mixed_sizes_run_and_the_plan_says_them() {
    let ctx = session_with_table("t", pictures(48, 3));
    let query = |more: &str| format!("SELECT * FROM distill(t, {DEEP}{more})");
    let plain = rows(&ctx, &query("")).await.unwrap();
    let plan = shown(&ctx, &format!("EXPLAIN {}", query(""))).await;
    assert!(
        plan.contains("depth=2, features=144") && !plan.contains(" layers=") && !plan.contains(" sizes="),
        "{plan}"
    );
    let mut made = vec![plain];
    for (more, said) in [
        (", layers => 'all'", "depth=2, layers=all, features=288"),
        (", sizes => 'mixed'", "depth=2, sizes=mixed, features=144"),
        (", layers => 'all', sizes => 'mixed', method => 'ridge'", "depth=2, layers=all, sizes=mixed, features=288"),
    ] {
        let plan = shown(&ctx, &format!("EXPLAIN {}", query(more))).await;
        assert!(plan.contains(said), "{plan}");
        let found = rows(&ctx, &query(more)).await.unwrap();
        assert_eq!(ints(&found, "label"), [0, 0, 1, 1, 2, 2]);
        assert!(made.iter().all(|other| other.columns() != found.columns()), "{more} changes nothing");
        made.push(found);
    }
}

#[tokio::test]
async fn the_rows_are_the_same_for_any_partitions_and_by_way_of_sketches() {
    let ctx = session_with_table("t", pictures(48, 3));
    let more = ", layers => 'all', sizes => 'mixed'";
    let direct = rows(&ctx, &format!("SELECT label, image FROM distill(t, {DEEP}{more})")).await.unwrap();
    let split = session_with(config().with_target_partitions(3));
    split.register_batch("t", pictures(48, 3)).unwrap();
    let union = "(SELECT * FROM t WHERE label < 1 UNION ALL SELECT * FROM t WHERE label >= 1)";
    let spread = rows(&split, &format!("SELECT label, image FROM distill({union}, {DEEP}{more})")).await.unwrap();
    assert_eq!(spread.columns(), direct.columns());
    let made = |options: &str| {
        format!(
            "SELECT label, distill_sketch_agg(image, 'ipc=2 image_size=8 extractors=5 width=16 depth=2 frequencies=8{options}') AS s FROM t GROUP BY label"
        )
    };
    let rich = made(" layers=all sizes=mixed");
    let stored = format!("SELECT label, image FROM distill(({rich}), ipc => 2, steps => 2)");
    assert_eq!(rows(&ctx, &stored).await.unwrap().columns(), direct.columns());
    // Sketches of other extractors don't add up, and say what differs; nor can they be asked for what they aren't.
    let e = message(&ctx, &format!("SELECT distill_union_agg(s) FROM ({rich} UNION ALL {})", made(""))).await;
    assert!(e.contains("layers") && e.contains("sizes") && e.contains("mixed"), "{e}");
    for (option, part) in [("layers => 'all'", "'layers'"), ("sizes => 'mixed'", "'sizes'")] {
        let e = message(&ctx, &format!("SELECT * FROM distill(({}), ipc => 2, steps => 2, {option})", made(""))).await;
        assert!(e.contains(part) && e.contains("make the sketches anew"), "{e}");
    }
}

#[tokio::test]
async fn trained_extractors_have_them_too_and_can_be_moved_apart() {
    let ctx = session_with_table("t", pictures(48, 3));
    let made = async |more: &str| {
        rows(&ctx, &format!("SELECT * FROM distill(t, {DEEP}, pool => 'trained'{more})")).await.unwrap()
    };
    let plain = made("").await;
    for more in [", layers => 'all', sizes => 'mixed'", ", perturb => 0.2"] {
        let found = made(more).await;
        assert_eq!(ints(&found, "label"), ints(&plain, "label"));
        assert_ne!(found.columns(), plain.columns(), "{more}");
        assert_eq!(found.columns(), made(more).await.columns(), "the same seed, the same bytes");
    }
}

#[tokio::test]
async fn what_they_cannot_be_is_refused() {
    let ctx = session_with_table("n", numbers(12, 2));
    for (more, part) in [
        ("layers => 'all'", "'layers'"),
        ("sizes => 'mixed'", "'sizes'"),
        ("perturb => 0.1", "pool => 'trained' or 'early'"),
        ("perturb => 2, pool => 'early'", "from 0 to 1"),
        ("layers => 'first'", "'first' is not a choice"),
    ] {
        let e = message(&ctx, &format!("SELECT * FROM distill(n, ipc => 1, ranges => '0,20', {more})")).await;
        assert!(e.contains(part), "{more}: {e}");
    }
}

#[tokio::test]
async fn further_networks_see_what_is_kept_whether_rows_or_sketches_come_in() {
    let ctx = session_with_table("t", pictures(48, 3));
    let of =
        async |more: &str| rows(&ctx, &format!("SELECT label, image FROM distill(t, {DEEP}{more})")).await.unwrap();
    let (plain, further) = (of("").await, of(", kept_extractors => 4").await);
    assert_ne!(further.columns(), plain.columns());
    let made = "SELECT label, distill_sketch_agg(image, 'ipc=2 image_size=8 extractors=5 width=16 depth=2 frequencies=8') AS s FROM t GROUP BY label";
    let stored = format!("SELECT label, image FROM distill(({made}), ipc => 2, steps => 2, kept_extractors => 4)");
    assert_eq!(rows(&ctx, &stored).await.unwrap().columns(), further.columns());
    // Their means alone are matched where nothing looks at frequencies.
    let means = format!(
        "SELECT label, image FROM distill(({made}), ipc => 2, steps => 2, method => 'mean', kept_extractors => 4)"
    );
    assert_ne!(rows(&ctx, &means).await.unwrap().columns(), further.columns());
}
