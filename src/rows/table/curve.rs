//! A column's numbers flow in, numbers of about mean 0 and deviation 1 flow out; and back.

use serde::{Deserialize, Serialize};

use crate::options::Curve;

/// Knots of a quantile curve.
const KNOTS: usize = 33;
/// From so many standard deviations between the middle and the furthest number on, tails are heavy.
const HEAVY: f64 = 8.0;
/// The quantile curve maps the lowest and the highest number to -+ this; so the deviation is about 1.
const SPAN: f32 = 1.75;

/// How one number is scaled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NumberScaling {
    /// The column's name.
    pub name: String,
    /// The lowest number.
    pub low: f32,
    /// The highest number.
    pub high: f32,
    /// The map.
    pub curve: CurveScaling,
    /// Whether all numbers are whole.
    pub whole: bool,
    /// The numbers that occur, ascending, where they are few; else empty.
    pub values: Vec<f32>,
}

/// A rising map of numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CurveScaling {
    /// `(x - center) / unit`.
    Linear {
        /// What becomes 0.
        center: f32,
        /// What becomes 1, from there.
        unit: f32,
    },
    /// `(asinh(x / scale) - center) / unit`.
    Log {
        /// Below it the map is about linear, above it logarithmic.
        scale: f32,
        /// What becomes 0, as a logarithm.
        center: f32,
        /// What becomes 1, as a logarithm.
        unit: f32,
    },
    /// Straight lines between the knots.
    Quantile {
        /// Rising numbers.
        knots: Vec<f32>,
        /// What they become, rising.
        heights: Vec<f32>,
    },
}

/// The mean and the standard deviation of weighted numbers, at least a little.
fn moments(sample: &[(f32, f64)], map: impl Fn(f64) -> f64) -> (f64, f64) {
    let weight: f64 = sample.iter().map(|(_, w)| w).sum::<f64>().max(1.0);
    let mean = sample.iter().map(|(x, w)| map(f64::from(*x)) * w).sum::<f64>() / weight;
    let variance = sample.iter().map(|(x, w)| (map(f64::from(*x)) - mean).powi(2) * w).sum::<f64>() / weight;
    (mean, if variance > 1e-24 { variance.sqrt() } else { 1.0 })
}

impl CurveScaling {
    /// The curve for a column with numbers from `low` to `high`, of which `sample` has some with their weights, ascending.
    /// Without a sample, as with declared ranges, the numbers are taken to be uniform.
    pub(super) fn fit(kind: Curve, low: f32, high: f32, sample: &[(f32, f64)]) -> Self {
        let uniform: Vec<(f32, f64)> = (0..=16).map(|i| (low + (high - low) * i as f32 / 16.0, 1.0)).collect();
        let sample = if sample.is_empty() { &uniform } else { sample };
        match kind {
            Curve::Linear => Self::linear(sample),
            Curve::Log => Self::log(sample),
            Curve::Quantile => Self::quantile(low, high, sample),
            Curve::Auto => {
                let (mean, deviation) = moments(sample, |x| x);
                let furthest = (f64::from(high) - mean).max(mean - f64::from(low));
                if furthest > HEAVY * deviation { Self::quantile(low, high, sample) } else { Self::linear(sample) }
            }
        }
    }

    fn linear(sample: &[(f32, f64)]) -> Self {
        let (mean, deviation) = moments(sample, |x| x);
        Self::Linear { center: mean as f32, unit: positive(deviation) }
    }

    fn log(sample: &[(f32, f64)]) -> Self {
        // A small one of the sizes of the numbers that aren't 0: the rest of them are told apart by their ratios.
        let mut sizes: Vec<f32> = sample.iter().map(|(x, _)| x.abs()).filter(|x| *x > 0.0).collect();
        sizes.sort_unstable_by(f32::total_cmp);
        let scale = sizes.get(sizes.len() / 10).copied().unwrap_or(1.0).max(f32::MIN_POSITIVE);
        let (mean, deviation) = moments(sample, |x| (x / f64::from(scale)).asinh());
        Self::Log { scale, center: mean as f32, unit: positive(deviation) }
    }

    fn quantile(low: f32, high: f32, sample: &[(f32, f64)]) -> Self {
        let total: f64 = sample.iter().map(|(_, w)| w).sum();
        // Middle ranks, so that a number that most rows have lands in the middle of its rows.
        let mut ranks: Vec<(f32, f64)> = vec![];
        let mut below = 0.0;
        for (x, weight) in sample {
            match ranks.last_mut() {
                Some((last, rank)) if *last == *x => *rank += weight / total / 2.0,
                _ => ranks.push((*x, (below + weight / 2.0) / total)),
            }
            below += weight;
        }
        let step = ranks.len().div_ceil(KNOTS).max(1);
        let mut curve: Vec<(f32, f32)> = vec![(low, -SPAN)];
        for (x, rank) in ranks.iter().step_by(step) {
            let height = SPAN * (2.0 * *rank as f32 - 1.0);
            if curve.last().is_some_and(|(last_x, last)| *x > *last_x && height > *last) && *x < high && height < SPAN {
                curve.push((*x, height));
            }
        }
        if high > curve[curve.len() - 1].0 {
            curve.push((high, SPAN));
        }
        let (knots, heights) = curve.into_iter().unzip();
        Self::Quantile { knots, heights }
    }

    fn apply(&self, x: f32) -> f32 {
        match self {
            Self::Linear { center, unit } => (x - center) / unit,
            Self::Log { scale, center, unit } => {
                (((f64::from(x) / f64::from(*scale)).asinh() - f64::from(*center)) / f64::from(*unit)) as f32
            }
            Self::Quantile { knots, heights } => between(knots, heights, x),
        }
    }

    fn invert(&self, z: f32) -> f32 {
        match self {
            Self::Linear { center, unit } => z * unit + center,
            Self::Log { scale, center, unit } => {
                ((f64::from(z) * f64::from(*unit) + f64::from(*center)).sinh() * f64::from(*scale)) as f32
            }
            Self::Quantile { knots, heights } => between(heights, knots, z),
        }
    }

    /// Whether all its numbers are finite and it rises: what one read from a file must be.
    pub(crate) fn is_sound(&self) -> bool {
        match self {
            Self::Linear { center, unit } => center.is_finite() && unit.is_finite() && *unit > 0.0,
            Self::Log { scale, center, unit } => {
                [scale, center, unit].iter().all(|v| v.is_finite()) && *scale > 0.0 && *unit > 0.0
            }
            Self::Quantile { knots, heights } => {
                let rises = |v: &[f32]| v.iter().all(|v| v.is_finite()) && v.windows(2).all(|w| w[0] < w[1]);
                knots.len() == heights.len() && !knots.is_empty() && rises(knots) && rises(heights)
            }
        }
    }
}

fn positive(deviation: f64) -> f32 {
    let deviation = deviation as f32;
    if deviation.is_finite() && deviation > 0.0 { deviation } else { 1.0 }
}

/// The height at `x` of the line through `(xs[i], ys[i])`, level before the first point and after the last.
fn between(xs: &[f32], ys: &[f32], x: f32) -> f32 {
    let right = xs.partition_point(|v| *v <= x);
    match (right.checked_sub(1).map(|l| (xs[l], ys[l])), xs.get(right)) {
        (Some((left, y)), Some(next)) => y + (x - left) / (next - left) * (ys[right] - y),
        (Some((_, y)), None) => y,
        (None, _) => ys.first().copied().unwrap_or(0.0),
    }
}

impl NumberScaling {
    /// The input of the number `x`.
    pub fn scale(&self, x: f32) -> f32 {
        self.curve.apply(x)
    }

    /// The number whose input is nearest to `z`, among those that occur in the data as far as they are known.
    pub fn unscale(&self, z: f32) -> f32 {
        let x = self.curve.invert(z).clamp(self.low, self.high);
        let nearest = self.values.iter().copied().min_by(|a, b| (a - x).abs().total_cmp(&(b - x).abs()));
        match nearest {
            Some(value) => value,
            None if self.whole => x.round().clamp(self.low, self.high),
            None => x,
        }
    }

    /// The inputs of the lowest and the highest number.
    pub fn bounds(&self) -> (f32, f32) {
        (self.scale(self.low), self.scale(self.high))
    }

    /// What stands for a missing number: it becomes about 0.
    pub fn middle(&self) -> f32 {
        self.unscale(0.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scaling(curve: CurveScaling, low: f32, high: f32) -> NumberScaling {
        NumberScaling { name: "x".into(), low, high, curve, whole: false, values: vec![] }
    }

    proptest! {
        #[test]
        fn every_curve_rises_and_comes_back(
            mut values in prop::collection::vec(-1e4f32..1e5, 2..80),
            kind in prop::sample::select(vec![Curve::Auto, Curve::Linear, Curve::Log, Curve::Quantile]),
        ) {
            values.sort_unstable_by(f32::total_cmp);
            let (low, high) = (values[0], values[values.len() - 1]);
            prop_assume!(high > low);
            let sample: Vec<_> = values.iter().map(|v| (*v, 1.0)).collect();
            let curve = CurveScaling::fit(kind, low, high, &sample);
            prop_assert!(curve.is_sound(), "{curve:?}");
            let scaling = scaling(curve, low, high);
            for pair in values.windows(2) {
                prop_assert!(scaling.scale(pair[0]) <= scaling.scale(pair[1]));
            }
            for v in &values {
                let back = scaling.unscale(scaling.scale(*v));
                prop_assert!((back - v).abs() <= 2e-3 * (high - low), "{v} came back as {back}");
            }
        }
    }

    #[test]
    fn a_heavy_tail_is_scaled_by_rank_unless_told_otherwise() {
        let mut sample: Vec<(f32, f64)> = vec![(0.0, 990.0)];
        sample.extend((1..=10).map(|i| (i as f32 * 1000.0, 1.0)));
        let curve = |kind| CurveScaling::fit(kind, 0.0, 10_000.0, &sample);
        assert!(matches!(curve(Curve::Auto), CurveScaling::Quantile { .. }));
        assert!(matches!(curve(Curve::Linear), CurveScaling::Linear { .. }));
        // Ten times the number is ten times as far from 0, or not nearly.
        let ratio = |kind| {
            let number = scaling(curve(kind), 0.0, 10_000.0);
            (number.scale(10_000.0) - number.scale(0.0)) / (number.scale(1_000.0) - number.scale(0.0))
        };
        assert!((ratio(Curve::Linear) - 10.0).abs() < 1e-3 && ratio(Curve::Log) < 5.0);
        let quantile = scaling(curve(Curve::Quantile), 0.0, 10_000.0);
        assert!(quantile.scale(10_000.0) == SPAN && quantile.scale(0.0) == -SPAN);
    }

    #[test]
    fn decoded_numbers_occur_in_the_data_or_are_whole() {
        let mut number = scaling(CurveScaling::Linear { center: 0.0, unit: 1.0 }, 0.0, 10.0);
        assert_eq!(number.unscale(3.4), 3.4);
        number.whole = true;
        assert_eq!((number.unscale(3.4), number.unscale(99.0)), (3.0, 10.0));
        number.values = vec![0.0, 5.0, 10.0];
        assert_eq!((number.unscale(3.4), number.unscale(2.4)), (5.0, 0.0));
    }

    #[test]
    fn a_constant_column_is_scaled_to_one_number() {
        for kind in [Curve::Auto, Curve::Linear, Curve::Log, Curve::Quantile] {
            let number = scaling(CurveScaling::fit(kind, 7.0, 7.0, &[(7.0, 3.0)]), 7.0, 7.0);
            assert!(number.curve.is_sound() && number.scale(7.0).is_finite());
            assert_eq!(number.unscale(1.0), 7.0);
        }
    }
}
