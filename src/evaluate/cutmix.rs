//! A batch of pictures flows in; the same with a rectangle of another one of the batch pasted into each flows out (CutMix, Yun et al., ICCV 2019).

use candle_core::{Result, Tensor};
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha12Rng;

use crate::kernels::outside;

/// How a batch is mixed: one rectangle for all pictures, as in IDC's code.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct CutMix {
    /// Which picture of the batch each one gets the rectangle of: a permutation.
    pub(super) partners: Vec<u32>,
    /// Height and width of a picture.
    size: [usize; 2],
    /// First row, end, first column, end.
    rectangle: [usize; 4],
}

impl CutMix {
    /// A rectangle around a uniform pixel, of a uniform part of the picture's area and cut off at its edges, for `batch` pictures of `[channels, height, width]`.
    pub(super) fn draw(batch: usize, [_, height, width]: [usize; 3], rng: &mut ChaCha12Rng) -> Self {
        // The kept part is Beta(1, 1) in the paper: uniform.
        let side = rng.random::<f64>().sqrt();
        let mut partners: Vec<u32> = (0..batch as u32).collect();
        partners.shuffle(rng);
        let mut cut = |n: usize| {
            let (half, centre) = ((n as f64 * side) as usize / 2, rng.random_range(0..n));
            (centre.saturating_sub(half), (centre + half).min(n))
        };
        let ((top, bottom), (left, right)) = (cut(height), cut(width));
        Self { partners, size: [height, width], rectangle: [top, bottom, left, right] }
    }

    /// The part of each picture that stays its own, 0 to 1; its label counts as much.
    pub(super) fn kept(&self) -> f64 {
        let ([height, width], [top, bottom, left, right]) = (self.size, self.rectangle);
        1.0 - ((bottom - top) * (right - left)) as f64 / (height * width) as f64
    }

    /// `x` `[batch, channels, height, width]`, mixed.
    pub(super) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let [height, width] = self.size;
        let mask: Vec<f32> = outside(self.rectangle, height, width).map(|own| 1.0 - own).collect();
        let mask = Tensor::from_vec(mask, (1, 1, height, width), x.device())?;
        let partners = Tensor::new(self.partners.as_slice(), x.device())?;
        x + (x.index_select(&partners, 0)? - x)?.broadcast_mul(&mask)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random;
    use candle_core::Device;

    /// Pictures of 6 x 8 pixels, all of picture n being n + 1.
    fn pictures(n: usize) -> Tensor {
        let values: Vec<f32> = (0..n).flat_map(|i| std::iter::repeat_n(i as f32 + 1.0, 2 * 48)).collect();
        Tensor::from_vec(values, (n, 2, 6, 8), &Device::Cpu).unwrap()
    }

    #[test]
    fn each_picture_keeps_what_its_label_counts_and_has_the_rest_of_its_partner() {
        let mut rng = random::stream(1, "mix");
        for _ in 0..200 {
            let mix = CutMix::draw(5, [2, 6, 8], &mut rng);
            let mut partners = mix.partners.clone();
            partners.sort_unstable();
            assert_eq!(partners, [0, 1, 2, 3, 4]);
            let mixed = mix.apply(&pictures(5)).unwrap().flatten_from(1).unwrap().to_vec2::<f32>().unwrap();
            for (n, (picture, partner)) in mixed.iter().zip(&mix.partners).enumerate() {
                let (own, theirs) = (n as f32 + 1.0, *partner as f32 + 1.0);
                assert!(picture.iter().all(|value| *value == own || *value == theirs));
                if own != theirs {
                    let part = picture.iter().filter(|value| **value == own).count() as f64 / picture.len() as f64;
                    assert!((part - mix.kept()).abs() < 1e-6, "{part} {}", mix.kept());
                }
            }
        }
    }

    #[test]
    fn a_uniform_part_is_pasted_but_for_what_edges_cut_off() {
        let mut rng = random::stream(2, "mix");
        let kept = (0..2000).map(|_| CutMix::draw(2, [1, 256, 256], &mut rng).kept()).sum::<f64>() / 2000.0;
        // Of a side s, s (1 - s / 4) is within the edges in the mean, and s^2 is uniform: 1 - (1/2 - 1/5 + 1/48).
        assert!((kept - 0.679).abs() < 0.02, "{kept}");
    }

    #[test]
    fn a_picture_of_one_pixel_stays_as_it_is() {
        let mix = CutMix::draw(2, [1, 1, 1], &mut random::stream(1, "mix"));
        assert_eq!(mix.kept(), 1.0);
        let x = Tensor::new(&[1f32, 2.0], &Device::Cpu).unwrap().reshape((2, 1, 1, 1)).unwrap();
        assert_eq!(mix.apply(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap(), [1.0, 2.0]);
    }
}
