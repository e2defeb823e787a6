//! Features flow in; their inner products with an extractor's random frequencies flow out.

use std::ops::Range;

use candle_core::{Device, Tensor};

use crate::error::Result;
use crate::random;
use crate::sketch::Header;

/// Added to the squared norm where features are L2-normalised: `f / sqrt(|f|^2 + NORM_EPSILON)`.
pub const NORM_EPSILON: f64 = 1e-12;

/// Columns of a product that are computed at a time. A fixed number: the order of additions in a matrix product depends on its
/// shape, and the shape must not depend on the thread count.
const BLOCK: usize = 128;

/// The ranges of at most [`BLOCK`] columns that `columns` are cut into.
pub(crate) fn blocks(columns: usize) -> Vec<Range<usize>> {
    (0..columns).step_by(BLOCK).map(|start| start..columns.min(start + BLOCK)).collect()
}

/// The frequencies of one extractor, t ~ N(0, I) for L2-normalised features.
#[derive(Debug)]
pub(crate) struct Frequencies {
    /// Length of the features.
    pub(crate) feature_len: usize,
    /// How many frequencies.
    pub(crate) count: usize,
    /// `[feature_len, count]`.
    values: Vec<f32>,
    /// The same on a device that is not the CPU.
    on_device: Option<Tensor>,
}

impl Frequencies {
    /// Draws those of extractor `member`.
    pub(crate) fn draw(header: &Header, member: usize, device: &Device) -> Result<Self> {
        let (feature_len, count) = (header.recipe.feature_len(), header.frequencies);
        let mut stream = random::stream(header.frequency_seed, &format!("frequencies of extractor {member}"));
        let values = random::normal(&mut stream, feature_len * count);
        let on_device = match device {
            Device::Cpu => None,
            device => Some(Tensor::from_slice(&values, (feature_len, count), device)?),
        };
        Ok(Self { feature_len, count, values, on_device })
    }

    /// The same as a tensor `[feature_len, count]`.
    pub(crate) fn tensor(&self, device: &Device) -> Result<Tensor> {
        match &self.on_device {
            Some(tensor) => Ok(tensor.to_device(device)?),
            None => Ok(Tensor::from_slice(&self.values, (self.feature_len, self.count), device)?),
        }
    }

    /// The tensor, where there is one: on devices other than the CPU.
    pub(crate) fn on_device(&self) -> Option<&Tensor> {
        self.on_device.as_ref()
    }

    /// Rows `[n, feature_len]` times the frequencies of `block`: `[n, block.len()]`.
    pub(crate) fn angles(&self, rows: &[f32], block: Range<usize>) -> Vec<f32> {
        let n = rows.len() / self.feature_len;
        product(rows, n, self.feature_len, &self.values[block.start..], self.count, 1, block.len())
    }

    /// Gradients of angles `[n, count]` times the transposed frequencies, columns `block` of the features: `[n, block.len()]`.
    pub(crate) fn angles_backward(&self, gradients: &[f32], block: Range<usize>) -> Vec<f32> {
        let n = gradients.len() / self.count;
        product(gradients, n, self.count, &self.values[block.start * self.count..], 1, self.count, block.len())
    }
}

/// `a` `[m, k]` times `b` `[k, n]`, on this thread. Element `(i, j)` of `b` is at `i * b_row + j * b_column`.
fn product(a: &[f32], m: usize, k: usize, b: &[f32], b_row: usize, b_column: usize, n: usize) -> Vec<f32> {
    let mut out = vec![0.0; m * n];
    if m == 0 || n == 0 || k == 0 {
        return out;
    }
    assert!(a.len() >= m * k && b.len() > (k - 1) * b_row + (n - 1) * b_column);
    // SAFETY: by the assertion above, every element of a, b and out that the strides reach lies inside its slice; out is
    // borrowed mutably and overlaps neither.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            false,
            a.as_ptr(),
            1,
            k as isize,
            b.as_ptr(),
            b_column as isize,
            b_row as isize,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
    out
}

/// L2-normalises one row: `to = from / sqrt(|from|^2 + NORM_EPSILON)`. `false` if a value isn't finite.
pub(crate) fn normalise(from: &[f32], to: &mut [f32]) -> bool {
    // Eight sums in a fixed order: faster than one, and the same bits every time.
    let mut lanes = [0.0f64; 8];
    for chunk in from.chunks(8) {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(*v) * f64::from(*v);
        }
    }
    let squared = lanes.iter().sum::<f64>();
    let factor = 1.0 / (squared + NORM_EPSILON).sqrt();
    for (to, from) in to.iter_mut().zip(from) {
        *to = (f64::from(*from) * factor) as f32;
    }
    squared.is_finite()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Frequencies for tests, without a pool.
    pub(crate) fn frequencies(feature_len: usize, count: usize) -> Frequencies {
        let values = random::normal(&mut random::stream(3, "test"), feature_len * count);
        Frequencies { feature_len, count, values, on_device: None }
    }

    #[test]
    fn angles_and_their_backward_are_the_matrix_products() {
        let (n, d, count) = (5, 150, 131);
        let f = frequencies(d, count);
        let rows = random::normal(&mut random::stream(4, "test"), n * d);
        let gradients = random::normal(&mut random::stream(5, "test"), n * count);
        for block in blocks(count) {
            let angles = f.angles(&rows, block.clone());
            for (i, j) in (0..n).flat_map(|i| block.clone().map(move |j| (i, j))) {
                let exact: f64 = (0..d).map(|k| f64::from(rows[i * d + k]) * f64::from(f.values[k * count + j])).sum();
                assert!((f64::from(angles[i * block.len() + j - block.start]) - exact).abs() < 1e-4);
            }
        }
        for block in blocks(d) {
            let back = f.angles_backward(&gradients, block.clone());
            for (i, k) in (0..n).flat_map(|i| block.clone().map(move |k| (i, k))) {
                let exact: f64 =
                    (0..count).map(|j| f64::from(gradients[i * count + j]) * f64::from(f.values[k * count + j])).sum();
                assert!((f64::from(back[i * block.len() + k - block.start]) - exact).abs() < 1e-4);
            }
        }
    }

    #[test]
    fn the_bits_of_a_row_depend_neither_on_its_position_nor_on_its_neighbours() {
        for (d, count) in [(1, 1), (7, 1), (33, 3), (300, 130), (1024, 256)] {
            let f = frequencies(d, count);
            let rows = random::normal(&mut random::stream(6, "test"), 64 * d);
            let turned: Vec<f32> = rows.chunks(d).rev().flatten().copied().collect();
            let mut alone = vec![0.0; 64 * d];
            alone[..d].copy_from_slice(&rows[..d]);
            for block in blocks(count) {
                let w = block.len();
                let (a, b) = (f.angles(&rows, block.clone()), f.angles(&turned, block.clone()));
                for i in 0..64 {
                    assert_eq!(a[i * w..(i + 1) * w], b[(63 - i) * w..(64 - i) * w], "{d} {count} row {i}");
                }
                assert_eq!(a[..w], f.angles(&alone, block)[..w]);
            }
        }
    }

    #[test]
    fn normalised_rows_have_norm_one_and_zeros_stay_zeros() {
        let mut to = [0.0; 9];
        assert!(normalise(&[3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 4.0], &mut to));
        assert_eq!((to[0], to[8]), (0.6, 0.8));
        assert!(normalise(&[0.0; 9], &mut to) && to == [0.0; 9]);
        assert!(!normalise(&[f32::NAN], &mut to[..1]) && !normalise(&[f32::INFINITY], &mut to[..1]));
    }
}
