//! However rows were split, ordered, added and taken back, the sums are those of the rows that are left.

use proptest::prelude::*;

use super::*;

/// What happens to a sketch: a part is added, or the part that was added at this position is taken back.
#[derive(Clone, Debug)]
enum Event {
    Add(Vec<u8>),
    TakeBack(prop::sample::Index),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    // Few distinct rows: most parts share some.
    let add = prop::collection::vec(0u8..12, 0..12).prop_map(Event::Add);
    prop::collection::vec(prop_oneof![3 => add, 2 => any::<prop::sample::Index>().prop_map(Event::TakeBack)], 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn sums_are_bit_identical_to_those_of_a_fresh_sketch_and_the_reservoir_is_a_lower_part_of_its(
        events in events(),
        rotate in 0usize..40,
    ) {
        let sketcher = sketcher(0);
        let mut left = ClassSketch::empty(sketcher.header());
        let mut parts: Vec<Vec<u8>> = vec![];
        for event in &events {
            match event {
                Event::Add(rows) => {
                    left.merge(&sketch(&sketcher, rows)).unwrap();
                    parts.push(rows.clone());
                }
                Event::TakeBack(at) if !parts.is_empty() => {
                    let mut rows = parts.remove(at.index(parts.len()));
                    rows.reverse();
                    left.subtract(&sketch(&sketcher, &rows)).unwrap();
                }
                Event::TakeBack(_) => {}
            }
        }
        let mut rows = parts.concat();
        let turn = rotate % rows.len().max(1);
        rows.rotate_left(turn);
        let fresh = sketch(&sketcher, &rows);
        prop_assert_eq!((left.count, left.clipped), (fresh.count, fresh.clipped));
        prop_assert_eq!(&left.members, &fresh.members);
        prop_assert!(fresh.reservoir.rows.starts_with(&left.reservoir.rows));
        // What is stored says the same.
        let array = array(&sketcher, std::slice::from_ref(&left));
        prop_assert_eq!(sketch::from_array(&array, 0).unwrap().1, left);
    }
}

#[test]
fn a_difference_whose_counts_cannot_be_right_is_refused_and_changes_nothing() {
    let sketcher = sketcher(0);
    let whole = sketch(&sketcher, &[1, 2, 3, 4]);
    for (part, why) in [
        (vec![1, 2, 3, 4, 5], "it has 5 rows, the first 4"),
        (vec![9, 10], "isn't part of the first"),
        (vec![1, 1], "isn't part of the first"),
    ] {
        let mut rest = whole.clone();
        let e = rest.subtract(&sketch(&sketcher, &part)).unwrap_err().to_string();
        assert!(e.contains(why), "{e}");
        assert_eq!(rest, whole);
    }
    // Sums that two rows can't have, though no kept row gives it away.
    let mut forged = sketch(&sketcher, &[1, 2]);
    forged.reservoir.rows.clear();
    let of_whole = whole.members[1].cos[3];
    for (sum, why) in [((-2 * of_whole.signum()) << 30, "2 rows would be left"), (5 << 30, "the second has the sum")] {
        forged.members[1].cos[3] = sum;
        let mut rest = whole.clone();
        let e = rest.subtract(&forged).unwrap_err().to_string();
        assert!(e.contains(why) && e.contains("extractors[1].cos[3]"), "{e}");
        assert_eq!(rest, whole);
    }
}
