//! The scores of several networks flow in, one line of a table flows out.

use serde::Serialize;

use super::recipe::TrainingRecipe;

/// What networks trained on one set reach.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The set's name: a file, or a baseline.
    pub name: String,
    /// The network.
    pub network: String,
    /// How it was trained.
    pub recipe: TrainingRecipe,
    /// Training rows; where pictures hold several, of these.
    pub rows: usize,
    /// Rows that are stored: fewer where pictures hold several.
    pub stored_rows: usize,
    /// Fewest and most training rows of a class.
    pub rows_per_class: (usize, usize),
    /// Bytes of the file, where there is one.
    pub bytes: Option<u64>,
    /// Top-1 accuracy over all test rows, 0 to 1, of each network after its last epoch.
    pub accuracies: Vec<f64>,
    /// Mean cross-entropy over the test rows whose class the network knows, of each network.
    pub losses: Vec<f64>,
    /// Mean of `accuracies`.
    pub mean: f64,
    /// Standard deviation of `accuracies` (n - 1 in the denominator), with two networks or more.
    pub deviation: Option<f64>,
    /// Standard error of `mean`, with two networks or more.
    pub standard_error: Option<f64>,
    /// CPU time of the process while the networks were trained and tested, baselines chosen, seconds.
    pub cpu_seconds: f64,
    /// What the reader should know.
    pub warnings: Vec<String>,
}

/// Mean and, for two values or more, standard deviation and standard error.
pub(super) fn summary(values: &[f64]) -> (f64, Option<f64>, Option<f64>) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let deviation =
        (values.len() > 1).then(|| (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt());
    (mean, deviation, deviation.map(|d| d / n.sqrt()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviation_and_error_need_two_networks() {
        assert_eq!(summary(&[0.5]), (0.5, None, None));
        let (mean, deviation, error) = summary(&[0.1, 0.2, 0.3, 0.4]);
        assert!((mean - 0.25).abs() < 1e-12);
        assert!((deviation.unwrap() - 0.129_099_444_873_580_6).abs() < 1e-12);
        assert!((error.unwrap() - deviation.unwrap() / 2.0).abs() < 1e-12);
    }
}
