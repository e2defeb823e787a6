use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use candle_core::Device;

use super::*;
use crate::arrow::array::AsArray;
use crate::extract::PoolRecipe;
use crate::rows::{Label, Rows, Shape};
use crate::sketch::{ClassSketch, Sketcher, from_array, to_array};

const LEN: usize = 11;

fn options(moments: Moments, moment_dim: Option<usize>) -> Options {
    let (extractors, frequencies) = (Some(2), Some(4));
    Options {
        extractors,
        width: Some(16),
        depth: Some(2),
        frequencies,
        moments: Some(moments),
        moment_dim,
        seed: 4,
        ..Options::default()
    }
}

fn sketcher(options: &Options) -> Sketcher {
    let recipe = PoolRecipe::choose(Shape::Vector { len: LEN }, (0.0, 255.0), options).unwrap();
    Sketcher::new(Arc::new(Pool::build(&recipe, &Device::Cpu).unwrap()), options).unwrap()
}

/// The sketches of the rows numbered `rows`, each of class `row % 3`, in calls of `cut` rows.
fn folded(sketcher: &Sketcher, rows: &[usize], cut: usize) -> Vec<ClassSketch> {
    let mut sketches = vec![ClassSketch::empty(sketcher.header()); 3];
    for rows in rows.chunks(cut) {
        let of = |row: &usize| random::uniform(&mut random::stream(*row as u64, "row"), LEN, 127.0);
        let values = rows.iter().flat_map(of).map(|v| v + 127.0).collect();
        let labels = vec![Label::Int(0); rows.len()];
        let classes: Vec<usize> = rows.iter().map(|row| row % 3).collect();
        let rows = Rows { shape: Shape::Vector { len: LEN }, values, labels, exact: vec![], skipped: 0 };
        sketcher.fold(&rows, &classes, &mut sketches, &AtomicBool::new(false)).unwrap();
    }
    sketches
}

fn all(n: usize) -> Vec<usize> {
    (0..n).collect()
}

#[test]
fn the_sums_are_those_of_the_products_of_rounded_features() {
    let options = options(Moments::Class, None);
    let sketcher = sketcher(&options);
    let header = sketcher.header().moments.clone().unwrap();
    assert_eq!((header.dim, header.len()), (16, 136));
    let sketch = &folded(&sketcher, &[3], 1)[0];
    assert_eq!((sketch.count, sketch.moment_rows), (1, 1));
    // Of one row the embedding's sum is the feature itself, to 2^-20.
    for (member, bound) in sketch.members.iter().zip(&header.bounds) {
        let rounded: Vec<i64> = member
            .embedding
            .iter()
            .map(|sum| (*sum as f64 / crate::sketch::EMBEDDING_SCALE / bound * f64::from(UNITS)).round() as i64)
            .collect();
        let products = (0..16).flat_map(|i| rounded[i..].iter().map(move |b| (i, *b))).map(|(i, b)| rounded[i] * b);
        let near = member
            .moments
            .iter()
            .zip(products)
            .all(|(found, expected)| (found - expected).abs() <= 4 * i64::from(UNITS));
        assert!(near && member.moments.iter().any(|sum| *sum > 100), "{:?}", member.moments);
    }
}

#[test]
fn the_bits_do_not_depend_on_split_or_order_and_parts_are_taken_back_exactly() {
    for moment_dim in [None, Some(5)] {
        let sketcher = sketcher(&options(Moments::Class, moment_dim));
        let whole = folded(&sketcher, &all(150), 150);
        let shuffled: Vec<usize> = (0..150).map(|i| (i * 67) % 150).collect();
        assert_eq!(folded(&sketcher, &shuffled, 7), whole);
        let mut rest = whole.clone();
        for ((rest, part), left) in
            rest.iter_mut().zip(&folded(&sketcher, &all(40), 40)).zip(folded(&sketcher, &shuffled, 64))
        {
            assert_eq!(*rest, left);
            rest.subtract(part).unwrap();
        }
        let others = folded(&sketcher, &(40..150).collect::<Vec<_>>(), 50);
        for (rest, others) in rest.iter().zip(&others) {
            assert_eq!((&rest.members, rest.moment_rows), (&others.members, others.moment_rows));
        }
    }
}

#[test]
fn pooled_moments_add_up_over_the_classes_to_those_of_the_classes() {
    let total = |kind| {
        let mut sketches = folded(&sketcher(&options(kind, Some(5))), &all(90), 64);
        let mut sum = sketches.remove(0);
        sketches.iter().for_each(|s| sum.merge(s).unwrap());
        (sum.moment_rows, sum.members.into_iter().map(|m| (m.moments, m.moments_clipped)).collect::<Vec<_>>())
    };
    assert_eq!(total(Moments::Pooled), total(Moments::Class));
    let pooled = folded(&sketcher(&options(Moments::Pooled, Some(5))), &all(90), 64);
    assert_eq!([pooled[0].moment_rows, pooled[1].moment_rows], [90, 0]);
    assert!(pooled[1].members[0].moments.is_empty());
}

#[test]
fn the_section_survives_arrow_and_damage_to_it_is_an_error() {
    let sketcher = sketcher(&options(Moments::Class, Some(3)));
    let header = sketcher.header();
    let sketches = folded(&sketcher, &all(20), 20);
    let array = to_array(header, &sketches).unwrap();
    let read: Vec<_> = (0..3).map(|row| from_array(&array, row).unwrap()).collect();
    assert!(read.iter().all(|(h, _)| h == header));
    assert_eq!(read.into_iter().map(|(_, s)| s).collect::<Vec<_>>(), sketches);
    let section = array.column_by_name("sections").unwrap().as_list::<i64>().value(0);
    assert_eq!(section.as_struct().column_by_name("name").unwrap().as_string::<i32>().value(0), "second_moments");

    let damaged = |change: fn(&mut ClassSketch, &mut Header)| {
        let (mut sketch, mut header) = (sketches[0].clone(), header.clone());
        change(&mut sketch, &mut header);
        from_array(&to_array(&header, &[sketch]).unwrap(), 0).unwrap_err().to_string()
    };
    type Change = fn(&mut ClassSketch, &mut Header);
    let cases: [(Change, &str); 7] = [
        (|s, _| s.members[1].moments[3] = -1, "sum 3 of extractor 1 is -1"),
        (|s, _| s.members[0].moments[1] = i64::MIN, "can't have"),
        (|s, _| s.members[0].moments.to_mut().truncate(5), "5 sums of extractor 0, expected 6"),
        (|s, _| s.moment_rows += 1, "rows in a sketch of"),
        (|_, h| h.moments.as_mut().unwrap().dim = 1 << 40, "impossible parameters"),
        (|_, h| h.moments.as_mut().unwrap().bounds[0] = -1.0, "a positive bound"),
        (|_, h| h.moments.as_mut().unwrap().bounds.truncate(1), "for each of 2 extractors"),
    ];
    for (change, part) in cases {
        let e = damaged(change);
        assert!(e.contains(part), "{part}: {e}");
    }
}

#[test]
fn overflow_and_sketches_without_them_are_errors_that_change_nothing() {
    let sketcher = sketcher(&options(Moments::Class, Some(3)));
    let mut full = folded(&sketcher, &all(9), 9).remove(0);
    full.moment_rows = MAX_ROWS;
    let (before, one) = (full.clone(), folded(&sketcher, &[0], 1).remove(0));
    assert!(full.merge(&one).unwrap_err().to_string().contains("at most 1099511627776"));
    assert_eq!(full, before);
    let with = sketcher.header();
    let without = Header { moments: None, ..with.clone() };
    let e = with.clone().join(&without).unwrap_err().to_string();
    assert!(e.contains("second moments 'class' of 3 dimensions") && e.contains("none there"), "{e}");
}
