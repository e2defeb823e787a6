//! Rows of which no other row is far (Gonzalez, Theoretical Computer Science 1985; core-sets of Sener and Savarese, ICLR 2018).

use rayon::prelude::*;

use crate::select::distance::{squared, squared_between};

/// Greedily picks `k` of the rows of `features` `[n, d]` so that the farthest row is near to a picked one; without replacement.
///
/// The first pick is the row nearest to `centre` `[d]`, each next one the row farthest from all picked so far; of equals the first.
/// The largest distance of a row to its nearest pick is then at most twice the least that `k` rows can reach (Gonzalez). Positions in the order
/// of picking; all of them if `k >= n`. Time `O(k n d)` on the current rayon pool, the same result for any thread count.
/// `features.len()` is a multiple of `d`.
pub fn k_center(features: &[f32], d: usize, k: usize, centre: &[f64]) -> Vec<usize> {
    let rows: Vec<&[f32]> = features.chunks_exact(d.max(1)).collect();
    let k = k.min(rows.len());
    let mut picked = Vec::with_capacity(k);
    // Distance to the nearest pick; -1 of the picks themselves, which so never come again, even among equal rows.
    let mut gaps = vec![f64::INFINITY; rows.len()];
    let nearest = (0..rows.len())
        .into_par_iter()
        .with_min_len(64)
        .map(|i| (squared(rows[i], centre), i))
        .min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let mut next = nearest.map(|(_, i)| i);
    while let Some(pick) = next.filter(|_| picked.len() < k) {
        picked.push(pick);
        gaps.par_iter_mut().with_min_len(64).zip(&rows).for_each(|(gap, row)| {
            *gap = gap.min(squared_between(row, rows[pick]));
        });
        gaps[pick] = -1.0;
        // The first of equals: the largest gap, and of these the lowest position.
        let farthest = gaps.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)));
        next = farthest.map(|(i, _)| i);
    }
    picked
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{random, select};

    /// The largest squared distance of a row to its nearest one of `picked`.
    fn radius(features: &[f32], d: usize, picked: &[usize]) -> f64 {
        let row = |i: usize| &features[i * d..(i + 1) * d];
        let nearest = |i: usize| picked.iter().map(|p| squared_between(row(i), row(*p))).fold(f64::INFINITY, f64::min);
        (0..features.len() / d).map(nearest).fold(0.0, f64::max)
    }

    #[test]
    fn the_first_pick_is_nearest_to_the_centre_and_each_next_one_farthest_from_all_before() {
        let (n, d) = (60, 4);
        let features = random::normal(&mut random::stream(3, "test"), n * d);
        let centre = select::mean(&features, d);
        let picked = k_center(&features, d, 9, &centre);
        let row = |i: usize| &features[i * d..(i + 1) * d];
        assert!((0..n).all(|i| squared(row(i), &centre) >= squared(row(picked[0]), &centre)));
        for t in 1..picked.len() {
            let gap =
                |i: usize| picked[..t].iter().map(|p| squared_between(row(i), row(*p))).fold(f64::INFINITY, f64::min);
            assert!((0..n).all(|i| gap(i) <= gap(picked[t])));
        }
    }

    #[test]
    fn the_radius_is_at_most_twice_that_of_the_best_choice() {
        let (n, d) = (12, 2);
        for seed in 0..20 {
            let features = random::normal(&mut random::stream(seed, "test"), n * d);
            let greedy = radius(&features, d, &k_center(&features, d, 3, &[0.0, 0.0]));
            let triples = (0..n).flat_map(|a| (0..a).flat_map(move |b| (0..b).map(move |c| [a, b, c])));
            let best = triples.map(|t| radius(&features, d, &t)).fold(f64::INFINITY, f64::min);
            assert!(greedy.sqrt() <= 2.0 * best.sqrt() + 1e-9, "{greedy} {best}");
        }
    }

    #[test]
    fn of_equal_rows_the_first_is_picked_and_none_twice() {
        let features = [1.0, 1.0, 5.0, 5.0, 1.0];
        assert_eq!(k_center(&features, 1, 2, &[1.0]), [0, 2]);
        let mut all = k_center(&features, 1, 9, &[0.0]);
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3, 4]);
        assert!(k_center(&[], 4, 2, &[0.0; 4]).is_empty() && k_center(&features, 1, 0, &[0.0]).is_empty());
    }

    #[test]
    fn any_number_of_threads_picks_the_same_rows() {
        let features = random::normal(&mut random::stream(4, "test"), 500 * 7);
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| k_center(&features, 7, 40, &[0.0; 7]))
        };
        assert_eq!(on(1), on(3));
    }
}
