//! Features flow in, normalised; the frequencies of an extractor, drawn and packed, flow out.

use candle_core::Device;

use crate::error::Result;
use crate::kernels::Frequencies;
use crate::options::FrequencyScales;
use crate::random;
use crate::sketch::Header;

/// Added to the squared norm where features are L2-normalised: `f / sqrt(|f|^2 + NORM_EPSILON)`.
pub const NORM_EPSILON: f64 = 1e-12;

/// The frequencies of extractor `member`, for L2-normalised features: frequency k has t ~ N(0, s^2 I), with s the header's scale number k, which take turns.
///
/// NCFM (Wang et al., CVPR 2025, section 3) samples frequencies from a mixture of normal distributions of several scales, too: small ones compare what rows
/// are on average, large ones where exactly they lie.
pub(crate) fn draw(header: &Header, member: usize, device: &Device) -> Result<Frequencies> {
    let (feature_len, count) = (header.recipe.feature_len(), header.frequencies);
    let mut stream = random::stream(header.frequency_seed, &format!("frequencies of extractor {member}"));
    let mut values = random::normal(&mut stream, feature_len * count);
    scale(&mut values, count, &header.frequency_scales);
    Ok(Frequencies::new(&values, feature_len, count, device)?)
}

/// Multiplies each of `count` frequencies, `[_, count]`, by its scale.
pub(crate) fn scale(values: &mut [f32], count: usize, scales: &FrequencyScales) {
    if *scales != FrequencyScales::default() {
        let scales: Vec<f32> = (0..count).map(|k| scales.of(k) as f32).collect();
        values.chunks_mut(count.max(1)).for_each(|line| line.iter_mut().zip(&scales).for_each(|(v, s)| *v *= s));
    }
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
    fn scales_take_turns_over_the_frequencies_of_the_same_draw() {
        let header = Header { frequencies: 5, ..crate::sketch::test_header() };
        let scales = FrequencyScales::new(vec![0.5, 1.0, 4.0]).unwrap();
        let scaled = Header { frequency_scales: scales.clone(), ..header.clone() };
        let values = |header: &Header| -> Vec<Vec<f32>> {
            let drawn = draw(header, 1, &Device::Cpu).unwrap();
            drawn.tensor(&Device::Cpu).unwrap().to_vec2().unwrap()
        };
        for (plain, scaled) in values(&header).into_iter().zip(values(&scaled)) {
            for (k, (plain, scaled)) in plain.into_iter().zip(scaled).enumerate() {
                assert_eq!(scaled, plain * [0.5, 1.0, 4.0, 0.5, 1.0][k]);
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
