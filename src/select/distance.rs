//! Rows flow in; their means and distances flow out, summed in a fixed order: the same bits for any number of threads.

/// Sums that run side by side: faster than one, and always added up in the same order.
const LANES: usize = 8;

/// The mean of the rows of `features` `[n, d]`, `[d]`; zeros of no rows.
pub fn mean(features: &[f32], d: usize) -> Vec<f64> {
    let mut mean = vec![0.0; d];
    let n = features.len().checked_div(d).unwrap_or(0);
    for row in features.chunks_exact(d.max(1)) {
        mean.iter_mut().zip(row).for_each(|(m, v)| *m += f64::from(*v) / n as f64);
    }
    mean
}

/// `<row, other>`.
pub(super) fn dot(row: &[f32], other: &[f64]) -> f64 {
    sum(row, other, |a, b| a * b)
}

/// `|row - other|^2`.
pub(super) fn squared(row: &[f32], other: &[f64]) -> f64 {
    sum(row, other, |a, b| (a - b) * (a - b))
}

/// `|row - other|^2` of two rows.
pub(super) fn squared_between(row: &[f32], other: &[f32]) -> f64 {
    let mut lanes = [0.0; LANES];
    for (a, b) in row.chunks(LANES).zip(other.chunks(LANES)) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += (f64::from(*a) - f64::from(*b)).powi(2);
        }
    }
    lanes.iter().sum()
}

fn sum(row: &[f32], other: &[f64], term: impl Fn(f64, f64) -> f64) -> f64 {
    let mut lanes = [0.0; LANES];
    for (row, other) in row.chunks(LANES).zip(other.chunks(LANES)) {
        for ((lane, a), b) in lanes.iter_mut().zip(row).zip(other) {
            *lane += term(f64::from(*a), *b);
        }
    }
    lanes.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_distances_and_means_are_those_of_their_formulas() {
        let row: Vec<f32> = (0..11).map(|i| i as f32).collect();
        let other: Vec<f64> = (0..11).map(|i| f64::from(i) * 0.5 - 1.0).collect();
        let expected =
            |term: fn(f64, f64) -> f64| -> f64 { row.iter().zip(&other).map(|(a, b)| term(f64::from(*a), *b)).sum() };
        assert!((dot(&row, &other) - expected(|a, b| a * b)).abs() < 1e-12);
        assert!((squared(&row, &other) - expected(|a, b| (a - b).powi(2))).abs() < 1e-12);
        let narrow: Vec<f32> = other.iter().map(|v| *v as f32).collect();
        assert_eq!(squared_between(&row, &narrow), squared(&row, &other));
        assert_eq!(mean(&[1.0, 2.0, 3.0, 6.0], 2), [2.0, 4.0]);
        assert_eq!(mean(&[], 2), [0.0, 0.0]);
        assert!(mean(&[], 0).is_empty());
    }
}
