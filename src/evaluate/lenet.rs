//! Pictures flow in, the 84 features of LeNet flow out: an architecture that no extractor has, to judge sets by.

use candle_core::{Device, Tensor, Var};
use candle_nn::{Linear, Module};
use rand_chacha::ChaCha12Rng;

use super::network::{linear, still, variable};
use crate::error::{Error, Result};
use crate::random;

/// Features in front of the classifier.
pub(super) const FEATURES: usize = 84;

/// LeNet as the field has it (DC's code; LeCun and others 1998): convolutions 5x5 to 6 and to 16 channels, each with ReLU and 2x2 maximum pool (odd rest dropped), then
/// layers of 120 and of 84 units with ReLU. One-channel pictures are padded by 2.
pub(super) struct LeNet {
    convolutions: [(Tensor, Tensor); 2],
    padding: usize,
    layers: [Linear; 2],
}

impl LeNet {
    /// One with PyTorch's default weights from `rng`, for pictures `[channels, height, width]`. Its weights are appended to `variables`.
    pub(super) fn random(
        [channels, height, width]: [usize; 3],
        rng: &mut ChaCha12Rng,
        device: &Device,
        variables: &mut Vec<Var>,
    ) -> Result<Self> {
        let padding = if channels == 1 { 2 } else { 0 };
        // A side behind the two convolutions and pools.
        let left = |side: usize| ((side + 2 * padding).checked_sub(4)? / 2).checked_sub(4).map(|side| side / 2);
        let (Some(h @ 1..), Some(w @ 1..)) = (left(height), left(width)) else {
            let least = 16 - 2 * padding;
            let message = format!(
                "'lenet' needs pictures of at least {least}x{least}, and these are {height}x{width}; choose 'convnet'"
            );
            return Err(Error::option("network", message));
        };
        let mut convolution = |from: usize, to: usize| -> Result<(Tensor, Tensor)> {
            let bound = 1.0 / (25.0 * from as f32).sqrt();
            let weight = Tensor::from_vec(random::uniform(rng, to * from * 25, bound), (to, from, 5, 5), device)?;
            let bias = Tensor::from_vec(random::uniform(rng, to, bound), (1, to, 1, 1), device)?;
            Ok((variable(&weight, variables)?, variable(&bias, variables)?))
        };
        let convolutions = [convolution(channels, 6)?, convolution(6, 16)?];
        let layers = [linear(16 * h * w, 120, rng, device, variables)?, linear(120, FEATURES, rng, device, variables)?];
        Ok(Self { convolutions, padding, layers })
    }

    /// The same, sharing its weights, that no gradient flows into.
    pub(super) fn still(&self) -> Self {
        let convolutions = self.convolutions.each_ref().map(|(weight, bias)| (weight.detach(), bias.detach()));
        Self { convolutions, padding: self.padding, layers: self.layers.each_ref().map(still) }
    }

    /// `x` `[batch, channels, height, width]` to features `[batch, 84]`.
    pub(super) fn features(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = x.clone();
        for ((weight, bias), padding) in self.convolutions.iter().zip([self.padding, 0]) {
            x = x.contiguous()?.conv2d(weight, padding, 1, 1, 1)?.broadcast_add(bias)?.relu()?;
            // A maximum pool, see clippy.toml.
            let (batch, channels, height, width) = x.dims4()?;
            let even = x.narrow(2, 0, height / 2 * 2)?.narrow(3, 0, width / 2 * 2)?.contiguous()?;
            x = even.reshape((batch, channels, height / 2, 2, width / 2, 2))?.max(5)?.max(3)?;
        }
        x = x.flatten_from(1)?;
        for layer in &self.layers {
            x = layer.forward(&x)?.relu()?;
        }
        Ok(x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::network::slope_check;
    use crate::random::stream;

    fn net(input: [usize; 3], variables: &mut Vec<Var>) -> Result<LeNet> {
        LeNet::random(input, &mut stream(1, "lenet"), &Device::Cpu, variables)
    }

    #[test]
    fn every_weight_has_a_gradient_that_is_the_slope() {
        // 13 leaves an odd rest at the first pool.
        for input in [[1, 28, 28], [3, 17, 16], [1, 13, 12]] {
            let mut variables = vec![];
            let net = net(input, &mut variables).unwrap();
            assert_eq!(variables.len(), 8);
            let [c, h, w] = input;
            let pixels = random::normal(&mut stream(2, "pixels"), 5 * c * h * w);
            let x = Tensor::from_vec(pixels, (5, c, h, w), &Device::Cpu).unwrap();
            assert_eq!(net.features(&x).unwrap().dims(), [5, FEATURES]);
            let loss = || net.features(&x).unwrap().sqr().unwrap().sum_all().unwrap();
            slope_check::check(loss, &variables, 5e-3, 0.03);
            assert_eq!(net.still().features(&x).unwrap().dims(), [5, FEATURES]);
        }
    }

    #[test]
    fn pictures_that_are_too_small_are_refused() {
        for input in [[1, 11, 28], [3, 28, 15], [1, 1, 1]] {
            let e = net(input, &mut vec![]).err().unwrap().to_string();
            assert!(e.contains("'lenet' needs pictures of at least") && e.contains(&format!("{}x", input[1])), "{e}");
        }
    }
}
