//! Rows whose mean follows a given mean (Welling, ICML 2009).

use rayon::prelude::*;

use crate::select::distance::dot;

/// Greedily picks `k` of the rows of `features` `[n, d]` so that their mean stays near `mean` `[d]`; without replacement.
///
/// Pick t is the row x that minimises `|mean - (s + x) / t|`, with s the sum of the rows picked before (as in iCaRL, Rebuffi et al.,
/// CVPR 2017, algorithm 4, and in DC's baseline); of equals the first. `mean` is usually that of all rows, of which `features` may be a
/// draw. Positions in the order of picking; all of them if `k >= n`. Time `O(k n d)` on the current rayon pool, the same
/// result for any thread count. `features.len()` is a multiple of `d`.
pub fn herding(features: &[f32], d: usize, k: usize, mean: &[f64]) -> Vec<usize> {
    let rows: Vec<&[f32]> = features.chunks_exact(d.max(1)).collect();
    let n = rows.len();
    let norms: Vec<f64> = rows.par_iter().map(|row| row.iter().map(|v| f64::from(*v).powi(2)).sum()).collect();
    // |t mean - s - x|^2 is, up to a constant, |x|^2 - 2 <x, t mean - s>.
    let mut target = vec![0.0f64; d];
    let mut free = vec![true; n];
    let mut picked = Vec::with_capacity(k.min(n));
    while picked.len() < k.min(n) {
        target.iter_mut().zip(mean).for_each(|(t, m)| *t += m);
        let best = (0..n)
            .into_par_iter()
            .with_min_len(64)
            .filter(|i| free[*i])
            .map(|i| (norms[i] - 2.0 * dot(rows[i], &target), i))
            .min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let Some((_, best)) = best else { break };
        free[best] = false;
        picked.push(best);
        target.iter_mut().zip(rows[best]).for_each(|(t, v)| *t -= f64::from(*v));
    }
    picked
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{random, select};

    /// The distance of the mean of `picked` to `mean`.
    fn distance(features: &[f32], picked: &[usize], mean: &[f64]) -> f64 {
        let d = mean.len();
        let of = |j: usize| picked.iter().map(|i| f64::from(features[i * d + j])).sum::<f64>() / picked.len() as f64;
        (0..d).map(|j| (of(j) - mean[j]).powi(2)).sum::<f64>().sqrt()
    }

    #[test]
    fn each_pick_is_the_one_that_brings_the_mean_nearest_to_the_given_one() {
        let (n, d) = (40, 5);
        let features = random::normal(&mut random::stream(2, "test"), n * d);
        let own = select::mean(&features, d);
        let other: Vec<f64> = own.iter().map(|m| m + 0.3).collect();
        for mean in [&own, &other] {
            let picked = herding(&features, d, 8, mean);
            for t in 0..picked.len() {
                let so_far = |i: usize| distance(&features, &[&picked[..t], &[i]].concat(), mean);
                let free = (0..n).filter(|i| !picked[..t].contains(i));
                let best = free.map(so_far).fold(f64::INFINITY, f64::min);
                assert!(so_far(picked[t]) <= best + 1e-9);
            }
            let chance = distance(&features, &select::random(n, 8, 1), mean);
            assert!(distance(&features, &picked, mean) < chance / 2.0);
        }
    }

    #[test]
    fn no_row_is_picked_twice_and_asking_for_too_many_gives_all() {
        let features = [1.0, 1.0, 1.0, 2.0];
        let mut picked = herding(&features, 1, 9, &[1.25]);
        assert_eq!(picked[0], 0);
        picked.sort_unstable();
        assert_eq!(picked, [0, 1, 2, 3]);
        assert!(herding(&[], 4, 2, &[0.0; 4]).is_empty() && herding(&[], 0, 2, &[]).is_empty());
    }

    #[test]
    fn any_number_of_threads_picks_the_same_rows() {
        let features = random::normal(&mut random::stream(8, "test"), 500 * 7);
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| herding(&features, 7, 40, &[0.1; 7]))
        };
        assert_eq!(on(1), on(3));
    }
}
