//! Pictures flow in, the flattened features of the field's ConvNet flow out.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use candle_core::{Device, Tensor};
use rand_chacha::ChaCha12Rng;

use crate::error::{Error, Result};
use crate::extract::row_wise::in_chunks;
use crate::extract::weights::{count, name_under, take, uniform};
use crate::kernels::{Arena, ConvStack, Wants, conv_blocks};

/// ConvNet-D of DC, DM, MTT and NCFM: `depth` blocks of conv3x3, instance norm, ReLU and 2x2 average pool, `width` channels each;
/// the first convolution is padded by 3 for one-channel pictures (28x28 becomes 32x32), by 1 otherwise. The convolutions
/// have no bias: instance norm would remove it.
#[derive(Clone, Debug)]
pub struct ConvNet {
    blocks: Vec<(Tensor, Tensor)>,
    input: [usize; 3],
    /// The blocks packed for the CPU, when they were first used frozen.
    packed: OnceLock<Arc<ConvStack>>,
    arena: Arc<Arena>,
}

/// The padding of block `n`.
fn padding(input: [usize; 3], n: usize) -> usize {
    if n == 0 && input[0] == 1 { 3 } else { 1 }
}

impl ConvNet {
    /// A network of blocks `(weight [width, in, 3, 3], affine [2, width])` for pictures `input` `[channels, height, width]`.
    ///
    /// Used frozen (without [`Wants::weights`]) on a CPU, it keeps a packed copy of the weights: variables that are changed afterwards need a new
    /// network.
    pub fn new(input: [usize; 3], blocks: Vec<(Tensor, Tensor)>) -> Self {
        Self { blocks, input, packed: OnceLock::new(), arena: Arc::default() }
    }

    /// The same network with scratch memory from `arena`, which networks can share.
    pub fn with_arena(self, arena: Arc<Arena>) -> Self {
        Self { arena, ..self }
    }

    /// A block's `(weight [width, in, 3, 3], affine [2, width])`.
    pub fn blocks(&self) -> &[(Tensor, Tensor)] {
        &self.blocks
    }

    /// `[channels, height, width]` of the input.
    pub fn input(&self) -> [usize; 3] {
        self.input
    }

    /// The depth that the field gives a picture of this size: 3 from 24 to 47 pixels (padding counted), one more each
    /// doubling, one less each halving, at least 1.
    pub fn default_depth(input: [usize; 3]) -> usize {
        let [_, height, width] = input;
        let (mut size, mut depth) = (height.min(width) + 2 * padding(input, 0) - 2, 3);
        while size >= 48 {
            (size, depth) = (size / 2, depth + 1);
        }
        while size < 24 && depth > 1 {
            (size, depth) = (size * 2, depth - 1);
        }
        depth
    }

    /// The length of the flattened features of a network of this width and depth; an error if so many blocks halve the picture to
    /// nothing.
    pub fn feature_len_of(input: [usize; 3], width: usize, depth: usize) -> Result<usize> {
        let mut size = [input[1], input[2]];
        for n in 0..depth {
            size = size.map(|s| (s + 2 * padding(input, n)).saturating_sub(2) / 2);
            if size.contains(&0) {
                let [channels, height, width] = input;
                let message = format!(
                    "{depth} blocks halve a {channels}x{height}x{width} picture to nothing; it has room for {n} (option depth)"
                );
                return Err(Error::Pool(message));
            }
        }
        Ok(width * size[0] * size[1])
    }

    /// Random weights as PyTorch draws them: uniform on +-1/sqrt(9 in); affine 1 and 0.
    pub fn random(
        input: [usize; 3],
        width: usize,
        depth: usize,
        rng: &mut ChaCha12Rng,
        device: &Device,
    ) -> Result<Self> {
        Self::feature_len_of(input, width, depth)?;
        let mut blocks = vec![];
        for n in 0..depth {
            let inputs = if n == 0 { input[0] } else { width };
            let weight = uniform(rng, &[width, inputs, 3, 3], 1.0 / (9.0 * inputs as f32).sqrt(), device)?;
            let affine = [vec![1f32; width], vec![0f32; width]].concat();
            blocks.push((weight, Tensor::from_vec(affine, (2, width), device)?));
        }
        Ok(Self::new(input, blocks))
    }

    /// Weights by the names `blocks.N.weight` and `blocks.N.affine` under `prefix` (`extractors.0`; empty: none); as many blocks as there are names,
    /// as wide as the first. Missing tensors, wrong shapes and weights that aren't finite are an [`Error::Pool`] that names the tensor.
    pub fn from_tensors(input: [usize; 3], tensors: &HashMap<String, Tensor>, prefix: &str) -> Result<Self> {
        let mut blocks: Vec<(Tensor, Tensor)> = vec![];
        let depth = count(tensors, prefix, "blocks").max(1);
        let mut width = None;
        for n in 0..depth {
            let name = |part: &str| name_under(prefix, &format!("blocks.{n}.{part}"));
            let inputs = width.unwrap_or(input[0]);
            let weight = take(tensors, &name("weight"), &[width, Some(inputs), Some(3), Some(3)])?;
            width = Some(weight.dim(0)?);
            let affine = take(tensors, &name("affine"), &[Some(2), width])?;
            blocks.push((weight, affine));
        }
        let net = Self::new(input, blocks);
        Self::feature_len_of(input, net.width(), depth)?;
        Ok(net)
    }

    /// The weights by name, as [`ConvNet::from_tensors`] reads them.
    pub fn tensors(&self, prefix: &str) -> HashMap<String, Tensor> {
        let name = |n: usize, part: &str| name_under(prefix, &format!("blocks.{n}.{part}"));
        let blocks = self.blocks.iter().enumerate();
        blocks.flat_map(|(n, (w, a))| [(name(n, "weight"), w.clone()), (name(n, "affine"), a.clone())]).collect()
    }

    /// Channels of the last block; 0 without blocks.
    pub fn width(&self) -> usize {
        self.blocks.last().map_or(0, |(weight, _)| weight.dims()[0])
    }

    /// Length of the flattened features.
    pub fn feature_len(&self) -> usize {
        Self::feature_len_of(self.input, self.width(), self.blocks.len()).unwrap_or(0)
    }

    /// `x` `[batch, channels, height, width]` to features `[batch, feature_len]`, differentiable as `wants` says. Row-wise: a row's features don't
    /// depend on the rest of the batch, to the bit, but for those on a GPU that gradients are asked for.
    pub fn forward(&self, x: &Tensor, wants: Wants) -> Result<Tensor> {
        let on_cpu = matches!(x.device(), Device::Cpu);
        if wants.weights || (wants.input && !on_cpu) {
            Ok(self.through(x, wants)?)
        } else if on_cpu {
            let x = if wants.input { x.clone() } else { x.detach() };
            Ok(self.packed()?.forward(&x, wants.parallel)?)
        } else {
            Ok(in_chunks(x, |x| self.through(x, wants))?)
        }
    }

    fn packed(&self) -> Result<&Arc<ConvStack>> {
        if let Some(packed) = self.packed.get() {
            return Ok(packed);
        }
        let stack = ConvStack::new(self.input, &self.blocks, |n| padding(self.input, n), self.arena.clone())?;
        Ok(self.packed.get_or_init(|| Arc::new(stack)))
    }

    fn through(&self, x: &Tensor, wants: Wants) -> candle_core::Result<Tensor> {
        conv_blocks(x, &self.blocks, |n| padding(self.input, n), wants, &self.arena)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::stream;
    use candle_core::Var;

    fn net(input: [usize; 3], width: usize, depth: usize) -> ConvNet {
        ConvNet::random(input, width, depth, &mut stream(1, "net"), &Device::Cpu).unwrap()
    }

    fn pictures(n: usize, [c, h, w]: [usize; 3]) -> Tensor {
        Tensor::from_vec(crate::random::normal(&mut stream(2, "x"), n * c * h * w), (n, c, h, w), &Device::Cpu).unwrap()
    }

    #[test]
    fn sizes_are_those_of_the_field() {
        for (input, depth, len) in [
            ([1, 28, 28], 3, 2048),
            ([3, 32, 32], 3, 2048),
            ([3, 64, 64], 4, 2048),
            ([1, 8, 8], 2, 1152),
            ([3, 8, 8], 1, 2048),
            ([3, 128, 128], 5, 2048),
        ] {
            assert_eq!(ConvNet::default_depth(input), depth, "{input:?}");
            assert_eq!(net(input, 128, depth).feature_len(), len, "{input:?}");
        }
        assert_eq!(
            net([1, 28, 28], 8, 3).forward(&pictures(2, [1, 28, 28]), Wants::default()).unwrap().dims(),
            [2, 128]
        );
        let e = ConvNet::feature_len_of([3, 8, 8], 8, 4).unwrap_err().to_string();
        assert!(e.contains("3x8x8") && e.contains("room for 3"), "{e}");
    }

    #[test]
    fn weights_go_by_name_and_wrong_ones_are_named() {
        let net = net([3, 8, 8], 16, 2);
        let mut tensors = net.tensors("extractors.0");
        let again = ConvNet::from_tensors([3, 8, 8], &tensors, "extractors.0").unwrap();
        let x = pictures(3, [3, 8, 8]);
        let features = |net: &ConvNet| net.forward(&x, Wants::default()).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(features(&net), features(&again));

        let error = |tensors: &HashMap<String, Tensor>| {
            ConvNet::from_tensors([3, 8, 8], tensors, "extractors.0").unwrap_err().to_string()
        };
        let affine = tensors.remove("extractors.0.blocks.0.affine").unwrap();
        assert!(error(&tensors).contains("'extractors.0.blocks.0.affine' is missing"));
        tensors.insert("extractors.0.blocks.0.affine".into(), affine.t().unwrap());
        assert!(error(&tensors).contains("is [16, 2], expected [2, 16]"));
        tensors.insert("extractors.0.blocks.0.affine".into(), (affine * f64::NAN).unwrap());
        assert!(error(&tensors).contains("holds NaN"));
    }

    #[test]
    fn all_variables_of_a_network_get_gradients() {
        let net = net([3, 8, 8], 8, 2);
        let vars: Vec<Var> =
            net.blocks.iter().flat_map(|(w, a)| [w, a]).map(|t| Var::from_tensor(t).unwrap()).collect();
        let blocks = vars.chunks(2).map(|v| (v[0].as_tensor().clone(), v[1].as_tensor().clone())).collect();
        let net = ConvNet::new([3, 8, 8], blocks);
        let wants = Wants { weights: true, ..Wants::default() };
        let loss = net.forward(&pictures(4, [3, 8, 8]), wants).unwrap().sqr().unwrap().sum_all().unwrap();
        let gradients = loss.backward().unwrap();
        for v in &vars {
            let size: f32 = gradients.get(v).unwrap().abs().unwrap().sum_all().unwrap().to_scalar().unwrap();
            assert!(size > 0.0);
        }
    }
}
