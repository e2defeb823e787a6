//! Two sketches of one class flow in; how far apart the rows behind them are, and how far chance alone would put them, flow out.

use crate::error::{Error, Result};
use crate::sketch::{COS_SCALE, ClassSketch, MemberSums};

/// The 99.9 % quantile of the chi-squared distribution with one degree of freedom.
const QUANTILE: f64 = 10.827_566;

/// The distance of two sketches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distance {
    /// Mean over extractors and frequencies of the squared distance of the characteristic functions of the rows *behind* the two samples: what
    /// their finite numbers add is subtracted, so that it is 0 on average, and as often below as above, where both are drawn alike.
    pub distance: f64,
    /// What `distance` exceeds in at most about one of a thousand comparisons of samples that are drawn alike, see [`distance()`].
    pub chance: f64,
}

/// The distance of two sketches made with one header; `None` where one of them has fewer than two rows, whose spread isn't known.
///
/// With phi the empirical characteristic function of n rows at one frequency, `E|phi_a - phi_b|^2` is the squared distance of the true ones plus
/// `(1 - |phi|^2) / n` of each; `(1 - |phi_n|^2) / (n - 1)` estimates that without bias. The mean over frequencies drawn from a density is
/// the squared maximum mean discrepancy under the kernel k whose Fourier transform it is (Gretton et al., JMLR 2012).
///
/// Under the null hypothesis its biased form is `(1/n_a + 1/n_b) * sum_i lambda_i z_i^2` with normal z, the lambda being the eigenvalues of the centred
/// kernel. Of all spectra with the same sum of squares a single eigenvalue has the longest tail, which bounds chance whatever the spectrum:
///
/// `chance = (q - 1) * sqrt(sum lambda^2) * (1 / (n_a - 1) + 1 / (n_b - 1))`, with q the 99.9 % quantile of the squared normal.
///
/// `sum lambda^2 = E k~(x, x')^2` is at most `Var k(x, x') = E k^2 - (E k)^2`. The kernel is Gaussian: `E k = E_t |phi(t)|^2` over the
/// frequencies, and `E k^2 = E_t |phi(sqrt(2) t)|^2`, which for normal features is `E_t |phi(t)|^4`. So the variance over the frequencies of
/// `|phi|^2`, of the rows of both sketches together, stands for that bound. It is one for classes that are one cloud, and falls short for
/// those of tight clumps as far apart as features can be, or with a few rows far away: in simulations up to eight of a thousand comparisons of 60 rows
/// passed `chance` then, and five of a thousand the bound below, since 60 rows of such classes aren't normal on average.
/// Never is it more than the bound for all distributions, `(q - 1)` times what finite numbers add, since `sum lambda^2 <= (sum lambda)^2`.
///
/// That is for frequencies of one scale. Those of several have another spread at each, which adds to that variance.
///
/// Errors: sketches of different shapes, or without frequencies.
pub fn distance(a: &ClassSketch, b: &ClassSketch) -> Result<Option<Distance>> {
    let lengths = |s: &ClassSketch| s.members.iter().map(|m| (m.cos.len(), m.sin.len())).collect::<Vec<_>>();
    if lengths(a) != lengths(b) {
        return Err(Error::Sketch(
            "sketches of different shapes have no distance; make them with the same options".into(),
        ));
    }
    let frequencies: usize = a.members.iter().map(|m| m.cos.len()).sum();
    if frequencies == 0 {
        return Err(Error::Sketch(
            "a distance needs frequencies, these sketches have none; make them with frequencies => 1024".into(),
        ));
    }
    if a.count < 2 || b.count < 2 {
        return Ok(None);
    }
    let (mut squared, mut bias) = (0.0, 0.0);
    let (mut power, mut fourth) = (0.0, 0.0);
    let both = (a.count + b.count) as f64;
    let (of_a, of_b) = (a.count as f64 / both, b.count as f64 / both);
    for (a_sums, b_sums) in a.members.iter().zip(&b.members) {
        for j in 0..a_sums.cos.len() {
            let ((a_re, a_im), (b_re, b_im)) = (at(a_sums, a.count, j), at(b_sums, b.count, j));
            squared += (a_re - b_re).powi(2) + (a_im - b_im).powi(2);
            bias += spread(a_re, a_im, a.count) + spread(b_re, b_im, b.count);
            let together = (of_a * a_re + of_b * b_re).powi(2) + (of_a * a_im + of_b * b_im).powi(2);
            power += together;
            fourth += together.powi(2);
        }
    }
    let mean = |sum: f64| sum / frequencies as f64;
    let squares = (mean(fourth) - mean(power).powi(2)).max(0.0);
    let rows = |s: &ClassSketch| 1.0 / (s.count - 1) as f64;
    let chance = (squares.sqrt() * (rows(a) + rows(b))).min(mean(bias)) * (QUANTILE - 1.0);
    Ok(Some(Distance { distance: mean(squared - bias), chance }))
}

/// The empirical characteristic function at frequency `j`.
fn at(sums: &MemberSums, count: u64, j: usize) -> (f64, f64) {
    let unit = count as f64 * COS_SCALE;
    (sums.cos[j] as f64 / unit, sums.sin[j] as f64 / unit)
}

/// What `count` rows add to the expected squared distance.
fn spread(re: f64, im: f64, count: u64) -> f64 {
    ((1.0 - re * re - im * im) / (count - 1) as f64).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::sincos;
    use crate::random;
    use crate::sketch::Reservoir;

    const FREQUENCIES: usize = 256;

    /// The sketch of `rows` points `[rows, 3]` of one extractor that gives them as they are.
    fn sketch(rows: &[f32]) -> ClassSketch {
        let t = random::normal(&mut random::stream(1, "frequencies"), 3 * FREQUENCIES);
        let mut member = MemberSums::zeros(0, FREQUENCIES);
        for row in rows.chunks(3) {
            let angles: Vec<f32> = t.chunks(3).map(|t| t.iter().zip(row).map(|(a, b)| a * b).sum()).collect();
            sincos::add(&angles, &mut member.cos, &mut member.sin);
        }
        ClassSketch {
            count: rows.len() as u64 / 3,
            clipped: 0,
            missing: vec![],
            members: vec![member],
            moment_rows: 0,
            reservoir: Reservoir::new(0),
        }
    }

    /// `n` points around `centre`.
    fn points(seed: u64, n: usize, centre: f32) -> Vec<f32> {
        random::normal(&mut random::stream(seed, "points"), 3 * n).into_iter().map(|v| 0.5 * v + centre).collect()
    }

    /// What the finite numbers of rows add to the squared distance, on average over the frequencies.
    fn bias(a: &ClassSketch, b: &ClassSketch) -> f64 {
        let of = |s: &ClassSketch| {
            let each = (0..FREQUENCIES).map(|j| at(&s.members[0], s.count, j));
            each.map(|(re, im)| spread(re, im, s.count)).sum::<f64>() / FREQUENCIES as f64
        };
        of(a) + of(b)
    }

    #[test]
    fn samples_drawn_alike_are_at_distance_zero_on_average_and_below_chance() {
        for (n, m) in [(20, 30), (150, 8)] {
            let mut found = vec![];
            let mut uncorrected = 0.0;
            for seed in 0..200 {
                let (a, b) = (sketch(&points(2 * seed, n, 0.0)), sketch(&points(2 * seed + 1, m, 0.0)));
                found.push(distance(&a, &b).unwrap().unwrap());
                uncorrected += bias(&a, &b) / 200.0;
            }
            let mean = found.iter().map(|d| d.distance).sum::<f64>() / 200.0;
            // Without the correction the mean would be the bias.
            assert!(mean.abs() < uncorrected / 5.0, "{n} {m}: {mean} {uncorrected}");
            assert!(found.iter().all(|d| d.distance < d.chance));
            let below = found.iter().filter(|d| d.distance < 0.0).count();
            assert!((80..180).contains(&below), "{below}");
        }
    }

    #[test]
    fn chance_is_nearer_the_more_ways_there_are_to_differ_and_never_above_the_bound_for_all_distributions() {
        // The points as they are, and on a line.
        let line = |rows: &[f32]| rows.chunks(3).flat_map(|row| [row[0], 0.0, 0.0]).collect::<Vec<_>>();
        let (a, b) = (points(1, 200, 0.0), points(2, 200, 0.0));
        let relative = |a: &[f32], b: &[f32]| {
            let (a, b) = (sketch(a), sketch(b));
            distance(&a, &b).unwrap().unwrap().chance / (bias(&a, &b) * (QUANTILE - 1.0))
        };
        let (cloud, flat) = (relative(&a, &b), relative(&line(&a), &line(&b)));
        assert!(cloud < 0.6 && cloud < flat && flat < 1.0 + 1e-9, "{cloud} {flat}");
    }

    #[test]
    fn samples_of_two_clumps_or_with_outliers_seldom_pass_chance_either() {
        let share = |far: f64| {
            let rows = |seed: u64, n: usize| {
                let mut stream = random::stream(seed, "clumps");
                let noise = random::normal(&mut stream, 3 * n);
                let pick = random::normal(&mut stream, n);
                // A standard normal is above 2.05 two times in a hundred, and above 0 in half of them.
                let centre = move |i: usize| if f64::from(pick[i]) > far { 1.4 } else { 0.0 };
                noise.iter().enumerate().map(|(at, v)| 0.05 * v + centre(at / 3)).collect::<Vec<f32>>()
            };
            let over = |seed: &u64| {
                let found = distance(&sketch(&rows(2 * seed, 60)), &sketch(&rows(2 * seed + 1, 60))).unwrap().unwrap();
                found.distance > found.chance
            };
            (0..500u64).filter(over).count()
        };
        assert!(share(0.0) <= 4 && share(2.05) <= 4, "{} {} of 500", share(0.0), share(2.05));
    }

    #[test]
    fn a_shift_is_seen_and_its_distance_does_not_depend_on_the_number_of_rows() {
        let between = |n| distance(&sketch(&points(1, n, 0.0)), &sketch(&points(2, n, 1.0))).unwrap().unwrap();
        let (few, many) = (between(60), between(4000));
        assert!(few.distance > few.chance && many.distance > 20.0 * many.chance, "{few:?} {many:?}");
        assert!((few.distance / many.distance - 1.0).abs() < 0.3, "{few:?} {many:?}");
    }

    #[test]
    fn one_row_has_no_spread_and_no_frequencies_have_no_distance() {
        let (one, two) = (sketch(&points(1, 1, 0.0)), sketch(&points(1, 2, 0.0)));
        assert_eq!(distance(&one, &two).unwrap(), None);
        let mut none = two.clone();
        none.members[0] = MemberSums::zeros(0, 0);
        assert!(distance(&none, &none).unwrap_err().to_string().contains("frequencies => 1024"));
        assert!(distance(&none, &two).is_err());
    }
}
