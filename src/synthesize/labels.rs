//! Labels as the optimizer moves them flow in, shares of the classes flow out.

use candle_core::{Device, Tensor};

use crate::error::Result;
use crate::kernels::Groups;

/// Soft labels of rows: shares of the classes, in label order. The largest one is that of the row's own class.
#[derive(Clone, Debug, PartialEq)]
pub struct SoftLabels {
    /// `[rows, classes]`; of each row not negative, and 1 in all.
    pub shares: Vec<f32>,
    /// How many classes.
    pub classes: usize,
}

impl SoftLabels {
    /// Of `centred` labels `[rows, classes]`, shares less 1 / classes, of any size: what is negative is none, and no other class gets more of a row than
    /// the one that it is of, as `groups` says.
    pub(super) fn of(centred: &Tensor, groups: &Groups) -> Result<Self> {
        let classes = groups.classes();
        let mut shares: Vec<f32> = centred.flatten_all()?.to_vec1()?;
        let even = 1.0 / classes.max(1) as f32;
        for (i, row) in shares.chunks_mut(classes.max(1)).enumerate() {
            // A row of which its class has nothing: it is all the same of it.
            let own = (row[groups.class_of(i)] + even).max(f32::MIN_POSITIVE);
            row.iter_mut().for_each(|share| *share = (*share + even).clamp(0.0, own));
            row[groups.class_of(i)] = own;
            let sum: f32 = row.iter().sum();
            row.iter_mut().for_each(|share| *share /= sum);
        }
        Ok(Self { shares, classes })
    }

    /// `[rows, classes]`, the shares less 1 / classes.
    pub(super) fn centred(&self, device: &Device) -> Result<Tensor> {
        let rows = self.shares.len() / self.classes.max(1);
        let shares = Tensor::from_slice(&self.shares, (rows, self.classes), device)?;
        Ok((shares - 1.0 / self.classes.max(1) as f64)?)
    }

    /// The mean of these and `other` ones of the same rows. The largest share stays that of the row's own class.
    pub(super) fn mean(mut self, other: &Self) -> Self {
        self.shares.iter_mut().zip(&other.shares).for_each(|(share, other)| *share = (*share + other) / 2.0);
        self
    }

    /// The shares of row `row`.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.shares[row * self.classes..(row + 1) * self.classes]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::one_hot;

    #[test]
    fn what_a_row_has_of_a_class_is_never_negative_and_one_in_all() {
        let centred =
            Tensor::new(&[[0.75f32, -0.25, -0.25, -0.25], [0.25, 0.75, -0.5, -0.25], [-1.0; 4]], &Device::Cpu).unwrap();
        let soft = SoftLabels::of(&centred, &Groups::new(&[2, 1, 0, 0])).unwrap();
        assert_eq!(soft.shares, [1.0, 0.0, 0.0, 0.0, 0.5, 0.5, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
        let groups = Groups::new(&[1, 2]);
        let hard = SoftLabels::of(&one_hot(&groups, &Device::Cpu).unwrap(), &groups).unwrap();
        assert_eq!(hard.shares, [1.0, 0.0, 0.0, 1.0, 0.0, 1.0]);
    }

    #[test]
    fn labels_go_on_from_where_they_were_and_means_are_those_of_each_share() {
        let groups = Groups::new(&[2, 1]);
        let soft = SoftLabels { shares: vec![0.75, 0.25, 1.0, 0.0, 0.25, 0.75], classes: 2 };
        assert_eq!(SoftLabels::of(&soft.centred(&Device::Cpu).unwrap(), &groups).unwrap(), soft);
        let hard = SoftLabels { shares: vec![1.0, 0.0, 1.0, 0.0, 0.0, 1.0], classes: 2 };
        assert_eq!(soft.mean(&hard).shares, [0.875, 0.125, 1.0, 0.0, 0.125, 0.875]);
    }
}
