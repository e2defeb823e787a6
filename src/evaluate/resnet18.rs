//! Pictures flow in, the 512 features of ResNet-18 flow out: a deep architecture that no extractor has, to judge sets by.

use candle_core::{Device, Tensor, Var};
use rand_chacha::ChaCha12Rng;

use super::network::variable;
use crate::error::{Error, Result};
use crate::kernels::{convolution, instance_norm, instance_norm_relu};
use crate::random;

/// Features in front of the classifier.
pub(super) const FEATURES: usize = WIDTHS[3];

/// Channels of the four stages.
const WIDTHS: [usize; 4] = [64, 128, 256, 512];
/// Blocks of a stage.
const BLOCKS: usize = 2;

/// ResNet-18 for small pictures with instance norm, as the field has it (DC's code; He and others 2016): a 3x3 convolution to 64 channels, four stages of
/// two blocks with 64, 128, 256 and 512 channels, all but the first of which halve height and width (up), and the mean over the last map. DC's code takes
/// that mean over 4x4 pixels, all that is left of pictures of 25 to 32 pixels a side: there the two are the same.
///
/// No convolution has a bias; each has instance norm with scale and shift behind it.
pub(super) struct ResNet18 {
    stem: Layer,
    blocks: Vec<Block>,
}

/// A convolution and instance norm.
struct Layer {
    /// `[out, k, k, in]`.
    weight: Tensor,
    /// `[2, out]`: scale, then shift.
    affine: Tensor,
    stride: usize,
}

/// Two layers of 3x3, and what came in added to what comes out: as it is, or through a layer of 1x1 where its shape is another.
struct Block {
    layers: [Layer; 2],
    shortcut: Option<Layer>,
}

impl ResNet18 {
    /// One with PyTorch's default weights from `rng`, for pictures `[channels, height, width]`. Its weights are appended to `variables`.
    ///
    /// # Errors
    /// Pictures of at most 8x8 pixels: of their last map one pixel would be left, and instance norm makes nothing of a single one.
    pub(super) fn random(
        input: [usize; 3],
        rng: &mut ChaCha12Rng,
        device: &Device,
        variables: &mut Vec<Var>,
    ) -> Result<Self> {
        Self::of_widths(WIDTHS, input, rng, device, variables)
    }

    fn of_widths(
        widths: [usize; 4],
        [channels, height, width]: [usize; 3],
        rng: &mut ChaCha12Rng,
        device: &Device,
        variables: &mut Vec<Var>,
    ) -> Result<Self> {
        if height.max(width) <= 8 {
            let message = format!(
                "'resnet18' needs pictures of more than 8 pixels in height or width, and these are {height}x{width}; choose 'convnet'"
            );
            return Err(Error::option("network", message));
        }
        let mut layer = |[from, to]: [usize; 2], kernel: usize, stride: usize| -> Result<Layer> {
            let taps = kernel * kernel * from;
            let weight = random::uniform(rng, to * taps, 1.0 / (taps as f32).sqrt());
            let weight = Tensor::from_vec(weight, (to, kernel, kernel, from), device)?;
            let affine = Tensor::from_vec([vec![1f32; to], vec![0f32; to]].concat(), (2, to), device)?;
            Ok(Layer { weight: variable(&weight, variables)?, affine: variable(&affine, variables)?, stride })
        };
        let stem = layer([channels, widths[0]], 3, 1)?;
        let (mut blocks, mut from) = (vec![], widths[0]);
        for (stage, to) in widths.into_iter().enumerate() {
            for n in 0..BLOCKS {
                let stride = if stage > 0 && n == 0 { 2 } else { 1 };
                let layers = [layer([from, to], 3, stride)?, layer([to, to], 3, 1)?];
                let shortcut = if stride > 1 || from != to { Some(layer([from, to], 1, stride)?) } else { None };
                blocks.push(Block { layers, shortcut });
                from = to;
            }
        }
        Ok(Self { stem, blocks })
    }

    /// The same, sharing its weights, that no gradient flows into.
    pub(super) fn still(&self) -> Self {
        let block = |block: &Block| Block {
            layers: block.layers.each_ref().map(Layer::still),
            shortcut: block.shortcut.as_ref().map(Layer::still),
        };
        Self { stem: self.stem.still(), blocks: self.blocks.iter().map(block).collect() }
    }

    /// `x` `[batch, channels, height, width]` to features `[batch, 512]`.
    pub(super) fn features(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = self.stem.rectified(&x.permute((0, 2, 3, 1))?)?;
        for Block { layers: [first, second], shortcut } in &self.blocks {
            let y = second.forward(&first.rectified(&x)?)?;
            x = match shortcut {
                Some(layer) => (y + layer.forward(&x)?)?,
                None => (y + x)?,
            };
            x = x.relu()?;
        }
        Ok(x.flatten(1, 2)?.mean(1)?)
    }
}

impl Layer {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(instance_norm(&convolution(x, &self.weight, self.stride)?, &self.affine)?)
    }

    /// The same, then ReLU.
    fn rectified(&self, x: &Tensor) -> Result<Tensor> {
        Ok(instance_norm_relu(&convolution(x, &self.weight, self.stride)?, &self.affine)?)
    }

    fn still(&self) -> Self {
        Self { weight: self.weight.detach(), affine: self.affine.detach(), stride: self.stride }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::network::slope_check;
    use crate::random::stream;

    fn net(widths: [usize; 4], input: [usize; 3], variables: &mut Vec<Var>) -> Result<ResNet18> {
        ResNet18::of_widths(widths, input, &mut stream(1, "resnet18"), &Device::Cpu, variables)
    }

    fn pictures(n: usize, [c, h, w]: [usize; 3]) -> Tensor {
        Tensor::from_vec(random::normal(&mut stream(2, "pixels"), n * c * h * w), (n, c, h, w), &Device::Cpu).unwrap()
    }

    #[test]
    fn it_has_as_many_weights_as_the_published_one() {
        // 11,173,962 with a classifier of ten classes, for three channels.
        for (channels, expected) in [(3, 11_173_962), (1, 11_172_810)] {
            let mut variables = vec![];
            let input = [channels, 32, 32];
            ResNet18::random(input, &mut stream(1, "resnet18"), &Device::Cpu, &mut variables).unwrap();
            let classifier = 10 * (FEATURES + 1);
            assert_eq!(variables.iter().map(|v| v.elem_count()).sum::<usize>() + classifier, expected);
            // 17 convolutions and 3 of shortcuts.
            assert_eq!(variables.len(), 2 * 20);
        }
    }

    #[test]
    fn every_weight_has_a_gradient_that_is_the_slope() {
        for input in [[1, 12, 9], [3, 16, 16]] {
            let mut variables = vec![];
            let net = net([4, 5, 6, 7], input, &mut variables).unwrap();
            let x = pictures(5, input);
            assert_eq!(net.features(&x).unwrap().dims(), [5, 7]);
            let loss = || net.features(&x).unwrap().sqr().unwrap().sum_all().unwrap();
            slope_check::check(loss, &variables, 2e-4, 0.05);
            let (one, other) = (net.features(&x).unwrap(), net.still().features(&x).unwrap());
            assert_eq!(one.to_vec2::<f32>().unwrap(), other.to_vec2::<f32>().unwrap());
        }
    }

    #[test]
    fn pictures_that_are_too_small_are_refused() {
        for input in [[1, 8, 8], [3, 2, 8], [1, 1, 1]] {
            let e = net(WIDTHS, input, &mut vec![]).err().unwrap().to_string();
            assert!(e.contains("'resnet18' needs pictures of more than 8 pixels") && e.contains("'convnet'"), "{e}");
        }
    }
}
