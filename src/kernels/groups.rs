//! Rows sorted by class flow in; their means over each class flow out.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

/// Which of the rows, sorted by class, belong to which class. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Groups {
    /// Where each class begins, and the number of rows at the end: `[classes + 1]`.
    offsets: Arc<[usize]>,
}

impl Groups {
    /// Classes of `sizes` rows each.
    pub fn new(sizes: &[usize]) -> Self {
        let ends = sizes.iter().scan(0, |end, size| {
            *end += size;
            Some(*end)
        });
        Self { offsets: std::iter::once(0).chain(ends).collect() }
    }

    /// How many classes.
    pub fn classes(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Rows of all classes.
    pub fn rows(&self) -> usize {
        self.offsets[self.classes()]
    }

    /// The rows of class `class`. Panics if there is no such class.
    pub fn range(&self, class: usize) -> Range<usize> {
        self.offsets[class]..self.offsets[class + 1]
    }

    /// Where each class begins, and the number of rows at the end: `[classes + 1]`.
    pub(super) fn offsets(&self) -> &[usize] {
        &self.offsets
    }

    /// The class of row `row`, which is less than [`Groups::rows`].
    pub fn class_of(&self, row: usize) -> usize {
        self.offsets.partition_point(|offset| *offset <= row) - 1
    }

    /// Rows of each class, if all have as many, and some.
    fn common_size(&self) -> Option<usize> {
        let size = self.offsets.get(1).copied().filter(|size| *size > 0)?;
        self.offsets.windows(2).all(|w| w[1] - w[0] == size).then_some(size)
    }

    /// The mean of each class's rows: `[rows, n]` to `[classes, n]`, differentiable; zeros for a class without rows.
    pub fn mean(&self, rows: &Tensor) -> Result<Tensor> {
        let (count, length) = rows.dims2()?;
        if count != self.rows() {
            bail!("{count} rows, but the classes have {}", self.rows());
        }
        match (self.common_size(), rows.device()) {
            (Some(size), _) => rows.reshape((self.classes(), size, length))?.mean(1),
            (None, Device::Cpu) => rows.contiguous()?.apply_op1(GroupMean(self.clone())),
            (None, device) => self.averaging(device)?.matmul(rows),
        }
    }

    /// The matrix `[classes, rows]` whose product with rows is their means: the reference, and the path of GPUs.
    fn averaging(&self, device: &Device) -> Result<Tensor> {
        let rows = self.rows();
        let mut matrix = vec![0f32; self.classes() * rows];
        for class in 0..self.classes() {
            let range = self.range(class);
            let share = 1.0 / range.len().max(1) as f32;
            matrix[class * rows..][range].fill(share);
        }
        Tensor::from_vec(matrix, (self.classes(), rows), device)
    }
}

/// [`Groups::mean`] without a matrix of classes times rows, summed in the order of the rows.
struct GroupMean(Groups);

impl CustomOp1 for GroupMean {
    fn name(&self) -> &'static str {
        "mean of groups"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let Some((start, end)) = layout.contiguous_offsets() else { bail!("the rows must be contiguous") };
        let (rows, length) = layout.shape().dims2()?;
        let values = &storage.as_slice::<f32>()?[start..end];
        let mut out = vec![0f32; self.0.classes() * length];
        if rows * length > 0 {
            out.par_chunks_mut(length).enumerate().for_each(|(class, mean)| {
                let range = self.0.range(class);
                let share = 1.0 / range.len().max(1) as f32;
                for row in values[range.start * length..range.end * length].chunks(length) {
                    mean.iter_mut().zip(row).for_each(|(m, v)| *m += v);
                }
                mean.iter_mut().for_each(|m| *m *= share);
            });
        }
        Ok((CpuStorage::F32(out), (self.0.classes(), length).into()))
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (_, length) = arg.dims2()?;
        let by_mean: Vec<f32> = grad.flatten_all()?.to_vec1()?;
        let mut out = vec![0f32; arg.elem_count()];
        if length > 0 {
            out.par_chunks_mut(length).enumerate().for_each(|(row, to)| {
                let class = self.0.class_of(row);
                let share = 1.0 / self.0.range(class).len() as f32;
                let from = &by_mean[class * length..(class + 1) * length];
                to.iter_mut().zip(from).for_each(|(to, g)| *to = g * share);
            });
        }
        Ok(Some(Tensor::from_vec(out, arg.shape(), arg.device())?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;
    use crate::random;

    fn list(t: &Tensor) -> Vec<f32> {
        t.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn every_row_has_its_class() {
        let groups = Groups::new(&[2, 0, 3, 1]);
        assert_eq!((groups.classes(), groups.rows()), (4, 6));
        assert_eq!((0..6).map(|row| groups.class_of(row)).collect::<Vec<_>>(), [0, 0, 2, 2, 2, 3]);
        assert_eq!([groups.range(1), groups.range(2)], [2..2, 2..5]);
    }

    #[test]
    fn the_operation_and_the_matrix_agree_forward_and_backward_for_equal_and_unequal_classes() {
        for sizes in [&[2, 2, 2][..], &[1, 4, 1], &[3, 0, 3]] {
            let groups = Groups::new(sizes);
            let values = random::normal(&mut random::stream(1, "test"), 6 * 5);
            let weights =
                Tensor::from_vec(random::normal(&mut random::stream(2, "test"), 15), (3, 5), &Device::Cpu).unwrap();
            let run = |mean: &dyn Fn(&Tensor) -> Tensor| {
                let var = Var::from_slice(&values, (6, 5), &Device::Cpu).unwrap();
                let means = mean(var.as_tensor());
                let loss = (means.sqr().unwrap() * &weights).unwrap().sum_all().unwrap();
                (list(&means), list(loss.backward().unwrap().get(&var).unwrap()))
            };
            let (a, ga) = run(&|rows| groups.mean(rows).unwrap());
            let (b, gb) = run(&|rows| groups.averaging(&Device::Cpu).unwrap().matmul(rows).unwrap());
            assert!(a.iter().zip(&b).chain(ga.iter().zip(&gb)).all(|(a, b)| (a - b).abs() < 1e-6), "{sizes:?}");
            assert!(ga.iter().any(|g| *g != 0.0));
        }
    }

    #[test]
    fn other_rows_than_the_classes_have_are_refused() {
        let rows = Tensor::zeros((5, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
        let e = Groups::new(&[2, 2]).mean(&rows).unwrap_err().to_string();
        assert!(e.contains("5 rows") && e.contains("have 4"), "{e}");
    }
}
