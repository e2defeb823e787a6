//! Rows nearest to the centres of k clusters (Lloyd 1982, seeded as by Arthur and Vassilvitskii, SODA 2007).

use rand::Rng;
use rayon::prelude::*;

use crate::select::distance::{squared, squared_between};

/// Most rounds of Lloyd's algorithm: what it gains later changes no medoid that matters.
const ROUNDS: usize = 50;

/// Picks `k` of the rows of `features` `[n, d]`: of each k-means centre the nearest row that isn't taken yet, of equals the first.
///
/// Row `i` counts `weights[i]` times, more than 0. Centres start from rows drawn by k-means++ (each with probability in proportion to its
/// weight and squared distance to the nearest one before), then move until no row changes its cluster, 50 rounds at most; a
/// cluster that loses its last row keeps its centre. Positions in the order of the centres; all of them, ascending, if `k >= n`. Time `O(k n d)`
/// a round on the current rayon pool, sums in f64 in the order of the rows: the same result for any thread count.
/// `features.len()` is `weights.len() * d`.
pub fn k_means(features: &[f32], d: usize, k: usize, weights: &[f64], draws: &mut impl Rng) -> Vec<usize> {
    let rows: Vec<&[f32]> = features.chunks_exact(d.max(1)).collect();
    if k >= rows.len() {
        return (0..rows.len()).collect();
    }
    let starts = seeds(&rows, k, weights, draws);
    let mut centres: Vec<Vec<f64>> = starts.iter().map(|i| rows[*i].iter().map(|v| f64::from(*v)).collect()).collect();
    let mut clusters = vec![];
    for _ in 0..ROUNDS {
        let nearest = assign(&rows, &centres);
        if nearest == clusters {
            break;
        }
        clusters = nearest;
        centres.par_iter_mut().enumerate().for_each(|(cluster, centre)| {
            let of_cluster = || (0..rows.len()).filter(|i| clusters[*i] == cluster);
            let weight: f64 = of_cluster().map(|i| weights[i]).sum();
            if weight > 0.0 {
                centre.fill(0.0);
                for i in of_cluster() {
                    let share = weights[i] / weight;
                    centre.iter_mut().zip(rows[i]).for_each(|(c, v)| *c += share * f64::from(*v));
                }
            }
        });
    }
    medoids(&rows, &centres)
}

/// `k` different rows, spread out by k-means++.
fn seeds(rows: &[&[f32]], k: usize, weights: &[f64], draws: &mut impl Rng) -> Vec<usize> {
    let mut picked = Vec::with_capacity(k);
    let mut gaps = vec![1.0; rows.len()];
    while picked.len() < k {
        let chances: Vec<f64> = gaps.iter().zip(weights).map(|(gap, weight)| gap * weight).collect();
        let mut left = draws.random::<f64>() * chances.iter().sum::<f64>();
        // Where all that is left equals a picked row there is nothing to draw by: then the first.
        let mut pick = (0..rows.len()).find(|i| !picked.contains(i)).unwrap_or(0);
        for (i, chance) in chances.iter().enumerate().filter(|(_, chance)| **chance > 0.0) {
            pick = i;
            left -= chance;
            if left < 0.0 {
                break;
            }
        }
        let first = picked.is_empty();
        gaps.par_iter_mut().with_min_len(64).zip(rows).for_each(|(gap, row)| {
            let distance = squared_between(row, rows[pick]);
            *gap = if first { distance } else { gap.min(distance) };
        });
        picked.push(pick);
    }
    picked
}

/// The nearest centre of each row; of equals the first.
fn assign(rows: &[&[f32]], centres: &[Vec<f64>]) -> Vec<usize> {
    let nearest = |row: &&[f32]| {
        let distances = centres.iter().enumerate().map(|(i, centre)| (squared(row, centre), i));
        distances.min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))).map_or(0, |(_, i)| i)
    };
    rows.par_iter().with_min_len(16).map(nearest).collect()
}

/// Of each centre the nearest row that no centre before it has taken.
fn medoids(rows: &[&[f32]], centres: &[Vec<f64>]) -> Vec<usize> {
    let mut free = vec![true; rows.len()];
    let mut picked = Vec::with_capacity(centres.len());
    for centre in centres {
        let nearest = (0..rows.len())
            .into_par_iter()
            .with_min_len(64)
            .filter(|i| free[*i])
            .map(|i| (squared(rows[i], centre), i))
            .min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        if let Some((_, nearest)) = nearest {
            free[nearest] = false;
            picked.push(nearest);
        }
    }
    picked
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random;

    /// `n` rows around each of four far corners.
    fn corners(n: usize) -> Vec<f32> {
        let noise = random::normal(&mut random::stream(5, "test"), 4 * n * 2);
        let corner = |i: usize| [[-20.0, -20.0], [-20.0, 20.0], [20.0, -20.0], [20.0, 20.0]][i / 2 % 4][i % 2];
        noise.iter().enumerate().map(|(i, v)| v + corner(i)).collect()
    }

    fn picked(features: &[f32], d: usize, k: usize, weights: &[f64], seed: u64) -> Vec<usize> {
        k_means(features, d, k, weights, &mut random::stream(seed, "test"))
    }

    #[test]
    fn far_clusters_get_a_row_each_the_one_nearest_to_its_weighted_mean() {
        let features = corners(15);
        let weights: Vec<f64> = (0..60).map(|i| 1.0 + (i % 7) as f64).collect();
        for seed in 0..10 {
            let mut picked = picked(&features, 2, 4, &weights, seed);
            picked.sort_unstable_by_key(|i| i % 4);
            assert_eq!(picked.iter().map(|i| i % 4).collect::<Vec<_>>(), [0, 1, 2, 3]);
            for pick in picked {
                let members: Vec<usize> = (0..60).filter(|i| i % 4 == pick % 4).collect();
                let total: f64 = members.iter().map(|i| weights[*i]).sum();
                let mean: Vec<f64> = (0..2)
                    .map(|j| members.iter().map(|i| weights[*i] * f64::from(features[i * 2 + j])).sum::<f64>() / total)
                    .collect();
                let distance = |i: &usize| squared(&features[i * 2..i * 2 + 2], &mean);
                assert!(members.iter().all(|i| distance(i) >= distance(&pick)));
            }
        }
    }

    #[test]
    fn a_heavy_row_pulls_the_centre_to_itself() {
        let features = [0.0, 1.0, 2.0, 3.0, 10.0];
        assert_eq!(picked(&features, 1, 1, &[1.0; 5], 0), [3]);
        assert_eq!(picked(&features, 1, 1, &[1000.0, 1.0, 1.0, 1.0, 1.0], 0), [0]);
    }

    #[test]
    fn equal_rows_are_taken_from_the_first_on_and_none_twice() {
        assert_eq!(picked(&[7.0; 5], 1, 3, &[1.0; 5], 0), [0, 1, 2]);
        let features = random::normal(&mut random::stream(6, "test"), 30 * 3);
        let mut rows = picked(&features, 3, 29, &[1.0; 30], 1);
        rows.sort_unstable();
        rows.dedup();
        assert_eq!(rows.len(), 29);
        assert_eq!(picked(&features, 3, 30, &[1.0; 30], 1), (0..30).collect::<Vec<_>>());
        assert!(picked(&[], 4, 2, &[], 0).is_empty() && picked(&[1.0], 1, 0, &[1.0], 0).is_empty());
    }

    #[test]
    fn any_number_of_threads_picks_the_same_rows_and_another_seed_may_pick_others() {
        let features = random::normal(&mut random::stream(7, "test"), 400 * 6);
        let on = |threads: usize, seed: u64| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| picked(&features, 6, 25, &[1.0; 400], seed))
        };
        assert_eq!(on(1, 0), on(3, 0));
        assert_ne!(on(1, 0), on(1, 1));
    }
}
