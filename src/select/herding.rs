//! Rows whose mean follows the mean of all (Welling, ICML 2009).

use rayon::prelude::*;

/// Greedily picks `k` of the rows of `features` `[n, d]` so that their mean stays near the mean of all; without replacement.
///
/// Pick t is the row x that minimises `|mu - (s + x) / t|`, with `mu` the mean of all rows and `s` the sum of the picked
/// ones (as in iCaRL, Rebuffi et al., CVPR 2017, algorithm 4, and in DC's baseline); of equals the first. Positions in the order of picking; all of
/// them if `k >= n`. Time `O(k n d)` on the current rayon pool, the same result for any thread count. `features.len()` is a multiple of `d`.
pub fn herding(features: &[f32], d: usize, k: usize) -> Vec<usize> {
    let n = features.len().checked_div(d).unwrap_or(0);
    let rows: Vec<&[f32]> = features.chunks_exact(d.max(1)).take(n).collect();
    let mut mean = vec![0.0f64; d];
    for row in &rows {
        mean.iter_mut().zip(*row).for_each(|(m, v)| *m += f64::from(*v) / n as f64);
    }
    let norms: Vec<f64> = rows.par_iter().map(|row| row.iter().map(|v| f64::from(*v).powi(2)).sum()).collect();
    // |t mu - s - x|^2 is, up to a constant, |x|^2 - 2 <x, t mu - s>.
    let mut target = vec![0.0f64; d];
    let mut free = vec![true; n];
    let mut picked = Vec::with_capacity(k.min(n));
    while picked.len() < k.min(n) {
        target.iter_mut().zip(&mean).for_each(|(t, m)| *t += m);
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

/// Four sums in a fixed order: faster than one, and the same bits every time.
fn dot(row: &[f32], target: &[f64]) -> f64 {
    let mut lanes = [0.0; 4];
    for (row, target) in row.chunks(4).zip(target.chunks(4)) {
        for ((lane, v), t) in lanes.iter_mut().zip(row).zip(target) {
            *lane += f64::from(*v) * t;
        }
    }
    lanes.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random;

    /// The distance of the mean of `picked` to the mean of all rows.
    fn distance(features: &[f32], d: usize, picked: &[usize]) -> f64 {
        let n = features.len() / d;
        let mean = |rows: &[usize], j: usize| {
            rows.iter().map(|i| f64::from(features[i * d + j])).sum::<f64>() / rows.len() as f64
        };
        let all: Vec<usize> = (0..n).collect();
        (0..d).map(|j| (mean(picked, j) - mean(&all, j)).powi(2)).sum::<f64>().sqrt()
    }

    #[test]
    fn each_pick_is_the_one_that_brings_the_mean_nearest() {
        let (n, d) = (40, 5);
        let features = random::normal(&mut random::stream(2, "test"), n * d);
        let picked = herding(&features, d, 8);
        for t in 0..picked.len() {
            let so_far = |i: usize| distance(&features, d, &[&picked[..t], &[i]].concat());
            let free = (0..n).filter(|i| !picked[..t].contains(i));
            let best = free.map(so_far).fold(f64::INFINITY, f64::min);
            assert!(so_far(picked[t]) <= best + 1e-9);
        }
        let chance = distance(&features, d, &crate::select::random(n, 8, 1));
        assert!(distance(&features, d, &picked) < chance / 2.0);
    }

    #[test]
    fn no_row_is_picked_twice_and_asking_for_too_many_gives_all() {
        let features = [1.0, 1.0, 1.0, 2.0];
        let mut picked = herding(&features, 1, 9);
        assert_eq!(picked[0], 0);
        picked.sort_unstable();
        assert_eq!(picked, [0, 1, 2, 3]);
        assert!(herding(&[], 4, 2).is_empty() && herding(&[], 0, 2).is_empty());
    }
}
