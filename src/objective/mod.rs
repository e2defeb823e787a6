//! Synthetic features and a sketch flow in, a loss flows out: one file a family.

mod calibration;
mod characteristic;
mod mean;
mod ridge;
pub(crate) mod second_moments;

pub use crate::kernels::Groups;
pub use calibration::Calibration;
pub use characteristic::Characteristic;
pub use mean::Mean;
pub(crate) use ridge::RIDGE;
pub use ridge::Ridge;

use candle_core::{Device, Result, Tensor};

/// What is matched. Made from the sketches of all classes, in label order.
pub trait Objective: Send + Sync {
    /// Its name in reports.
    fn name(&self) -> &'static str;

    /// The loss of `features` `[groups.rows(), feature_len]` of extractor `member`, a scalar, differentiable in `features`. The rows
    /// are sorted by class, as `groups` says; classes count alike, however many rows they have. `labels` `[groups.rows(), classes]` are each row's shares
    /// of the classes, less 1 / classes; differentiable in them too where they matter.
    fn loss(&self, member: usize, features: &Tensor, groups: &Groups, labels: &Tensor) -> Result<Tensor>;

    /// The loss that states of the rows are compared by, where [`Objective::loss`] changes on the way.
    fn judged(&self, member: usize, features: &Tensor, groups: &Groups, labels: &Tensor) -> Result<Tensor> {
        self.loss(member, features, groups, labels)
    }

    /// After a step of the rows, the move of the objective's own player, who answers to the last [`Objective::loss`].
    fn respond(&self) -> Result<()> {
        Ok(())
    }
}

/// Labels of one class a row: `[groups.rows(), classes]`, one-hot less 1 / classes.
pub fn one_hot(groups: &Groups, device: &Device) -> Result<Tensor> {
    let classes = groups.classes();
    let mut labels = vec![-1.0 / classes.max(1) as f32; groups.rows() * classes];
    for row in 0..groups.rows() {
        labels[row * classes + groups.class_of(row)] += 1.0;
    }
    Tensor::from_vec(labels, (groups.rows(), classes), device)
}

/// `items[member]`, or an error that says what there is.
fn of_member<T>(items: &[T], member: usize) -> Result<&T> {
    match items.get(member) {
        Some(item) => Ok(item),
        None => candle_core::bail!("extractor {member} asked for, the sketch has {}", items.len()),
    }
}

#[cfg(test)]
mod gradient_check {
    use candle_core::{Device, Tensor, Var};

    use super::{Groups, Objective, one_hot};

    /// Holds the gradient of `objective` at `features` `[groups.rows(), _]` against central differences along each coordinate.
    pub(super) fn check(objective: &dyn Objective, features: &[f32], groups: &Groups, tolerance: f64) {
        let dims = (groups.rows(), features.len() / groups.rows());
        let labels = one_hot(groups, &Device::Cpu).unwrap();
        let loss = |values: Vec<f32>| -> f64 {
            let x = Tensor::from_vec(values, dims, &Device::Cpu).unwrap();
            f64::from(objective.loss(0, &x, groups, &labels).unwrap().to_scalar::<f32>().unwrap())
        };
        let var = Var::from_slice(features, dims, &Device::Cpu).unwrap();
        let gradients = objective.loss(0, var.as_tensor(), groups, &labels).unwrap().backward().unwrap();
        let gradient: Vec<f32> = gradients.get(&var).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let largest = gradient.iter().fold(0f64, |m, g| m.max(f64::from(g.abs())));
        assert!(largest > 0.0);
        let step = 1e-2;
        for i in 0..features.len() {
            let moved = |by: f32| {
                let mut values = features.to_vec();
                values[i] += by;
                loss(values)
            };
            let numeric = (moved(step) - moved(-step)) / (2.0 * f64::from(step));
            let error = (numeric - f64::from(gradient[i])).abs();
            assert!(
                error < tolerance * largest,
                "coordinate {i}: {numeric} by differences, {} by backward",
                gradient[i]
            );
        }
    }
}
