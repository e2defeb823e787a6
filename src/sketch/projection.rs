//! Features flow in, normalised; the frequencies of an extractor, drawn and packed, flow out.

use candle_core::Device;

use crate::error::Result;
use crate::kernels::Frequencies;
use crate::random;
use crate::sketch::Header;

/// Added to the squared norm where features are L2-normalised: `f / sqrt(|f|^2 + NORM_EPSILON)`.
pub const NORM_EPSILON: f64 = 1e-12;

/// The frequencies of extractor `member`, t ~ N(0, I), for L2-normalised features.
pub(crate) fn draw(header: &Header, member: usize, device: &Device) -> Result<Frequencies> {
    let (feature_len, count) = (header.recipe.feature_len(), header.frequencies);
    let mut stream = random::stream(header.frequency_seed, &format!("frequencies of extractor {member}"));
    Ok(Frequencies::new(&random::normal(&mut stream, feature_len * count), feature_len, count, device)?)
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
        Frequencies::new(&values, feature_len, count, &Device::Cpu).unwrap()
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
