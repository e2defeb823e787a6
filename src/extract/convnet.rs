//! Pictures flow in, the flattened features of the field's ConvNet flow out.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use candle_core::{Device, Tensor};
use rand_chacha::ChaCha12Rng;

use crate::error::{Error, Result};
use crate::extract::row_wise::in_chunks;
use crate::extract::weights::{count, name_under, take, uniform};
use crate::kernels::{Arena, ConvStack, Wants, conv_blocks};
use crate::options::Layers;

/// ConvNet-D of DC, DM, MTT and NCFM: `depth` blocks of conv3x3, instance norm, ReLU and 2x2 average pool, `width` channels each;
/// the first convolution is padded by 3 for one-channel pictures (28x28 becomes 32x32), by 1 otherwise. The convolutions
/// have no bias: instance norm would remove it. Features are the last block's output, flattened, unless [`ConvNet::reading`] says otherwise.
#[derive(Clone, Debug)]
pub struct ConvNet {
    blocks: Vec<(Tensor, Tensor)>,
    input: [usize; 3],
    layers: Layers,
    /// How often outputs are halved after the last block.
    halvings: usize,
    /// The blocks packed for the CPU, stretch by stretch, when they were first used frozen.
    packed: OnceLock<Vec<Arc<ConvStack>>>,
    arena: Arc<Arena>,
}

/// The padding of block `n`.
fn padding(input: [usize; 3], n: usize) -> usize {
    if n == 0 && input[0] == 1 { 3 } else { 1 }
}

/// `[height, width]` that `depth` blocks leave of a picture.
fn size_after(input: [usize; 3], depth: usize) -> [usize; 2] {
    (0..depth).fold([input[1], input[2]], |size, n| size.map(|s| (s + 2 * padding(input, n)).saturating_sub(2) / 2))
}

impl ConvNet {
    /// A network of blocks `(weight [width, in, 3, 3], affine [2, width])` for pictures `input` `[channels, height, width]`.
    ///
    /// Used frozen (without [`Wants::weights`]) on a CPU, it keeps a packed copy of the weights: variables that are changed afterwards need a new
    /// network.
    pub fn new(input: [usize; 3], blocks: Vec<(Tensor, Tensor)>) -> Self {
        Self { blocks, input, layers: Layers::Last, halvings: 0, packed: OnceLock::new(), arena: Arc::default() }
    }

    /// The same network with other features: those of `layers`, at the size that `halvings` more blocks would leave.
    ///
    /// With [`Layers::All`] they are the outputs of all blocks, the first block's first. Each is averaged over squares of pixels, those that the blocks
    /// behind it make one of, an odd rest dropped as there; `halvings` does the same once more each. All numbers are then divided by the square root of
    /// the depth. Nothing else is needed for no block to drown the others where features are L2-normalised: the parts are equally long, and instance norm
    /// gives all of them numbers of one size. Together they are about as long as the last block's output alone.
    ///
    /// An error if so many halvings leave nothing of the picture.
    pub fn reading(self, layers: Layers, halvings: usize) -> Result<Self> {
        Self::feature_len_of(self.input, self.width(), self.blocks.len() + halvings)?;
        Ok(Self { layers, halvings, packed: OnceLock::new(), ..self })
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
        if let Some(n) = (0..depth).find(|n| size_after(input, n + 1).contains(&0)) {
            let [channels, height, width] = input;
            let message = format!(
                "{depth} blocks halve a {channels}x{height}x{width} picture to nothing; it has room for {n} (option depth)"
            );
            return Err(Error::Pool(message));
        }
        let [height, columns] = size_after(input, depth);
        Ok(width * height * columns)
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
        let [height, width] = size_after(self.input, self.blocks.len() + self.halvings);
        self.parts() * self.width() * height * width
    }

    /// Blocks that run as one, up to one whose output is read.
    fn stretch(&self) -> usize {
        match self.layers {
            Layers::Last => self.blocks.len().max(1),
            Layers::All => 1,
        }
    }

    /// Stretch `part` of the blocks, with the number of its first.
    fn stretch_of(&self, part: usize) -> (usize, &[(Tensor, Tensor)]) {
        let first = part * self.stretch();
        (first, &self.blocks[first..(first + self.stretch()).min(self.blocks.len())])
    }

    /// How many blocks are read.
    fn parts(&self) -> usize {
        self.blocks.len().div_ceil(self.stretch())
    }

    /// `[channels, height, width]` after `depth` blocks, at most as many as there are.
    fn shape_after(&self, depth: usize) -> [usize; 3] {
        let [height, width] = size_after(self.input, depth);
        let channels = depth.checked_sub(1).map_or(self.input[0], |last| self.blocks[last].0.dims()[0]);
        [channels, height, width]
    }

    /// `x` `[batch, channels, height, width]` to features `[batch, feature_len]`, differentiable as `wants` says. Row-wise: a row's features don't
    /// depend on the rest of the batch, to the bit, but for those on a GPU that gradients are asked for.
    pub fn forward(&self, x: &Tensor, wants: Wants) -> Result<Tensor> {
        let on_cpu = matches!(x.device(), Device::Cpu);
        if wants.weights || (wants.input && !on_cpu) {
            Ok(self.read(x, |n, x| self.through(n, x, wants))?)
        } else if on_cpu {
            let x = if wants.input { x.clone() } else { x.detach() };
            let packed = self.packed()?;
            Ok(self.read(&x, |n, x| packed[n].forward(x, wants.parallel))?)
        } else {
            Ok(in_chunks(x, |x| self.read(x, |n, x| self.through(n, x, wants)))?)
        }
    }

    fn packed(&self) -> Result<&[Arc<ConvStack>]> {
        if let Some(packed) = self.packed.get() {
            return Ok(packed);
        }
        let mut stacks = vec![];
        for part in 0..self.parts().max(1) {
            let (first, blocks) = self.stretch_of(part);
            let padding = |n: usize| padding(self.input, first + n);
            stacks.push(Arc::new(ConvStack::new(self.shape_after(first), blocks, padding, self.arena.clone())?));
        }
        Ok(self.packed.get_or_init(|| stacks))
    }

    /// Stretch `part` of the blocks, `x` `[batch, channels, height, width]` to the flattened output of its last one.
    fn through(&self, part: usize, x: &Tensor, wants: Wants) -> candle_core::Result<Tensor> {
        let (first, blocks) = self.stretch_of(part);
        // Behind the first block, gradients for the weights before flow through the input.
        let input = wants.input || (first > 0 && wants.weights);
        conv_blocks(x, blocks, |n| padding(self.input, first + n), Wants { input, ..wants }, &self.arena)
    }

    /// The features of `x`, with `run(part, x)` for each stretch of blocks: its output, flattened. What is done here is done to each row by itself.
    fn read(
        &self,
        x: &Tensor,
        run: impl Fn(usize, &Tensor) -> candle_core::Result<Tensor>,
    ) -> candle_core::Result<Tensor> {
        let depth = self.blocks.len();
        if self.parts() <= 1 && self.halvings == 0 {
            return run(0, x);
        }
        let size = size_after(self.input, depth + self.halvings);
        let (mut x, mut read) = (x.clone(), vec![]);
        for part in 0..self.parts() {
            let done = (part + 1) * self.stretch();
            let [channels, height, width] = self.shape_after(done);
            x = run(part, &x)?.reshape(((), channels, height, width))?;
            read.push(averaged(&x, size, depth - done + self.halvings)?.flatten_from(1)?);
        }
        let scale = 1.0 / (self.parts() as f64).sqrt();
        Tensor::cat(&read, 1)? * scale
    }
}

/// `x` `[batch, channels, ..]` averaged over squares of 2^`halvings` pixels a side, `[height, width]` of them: what is left of it when it is halved that
/// often, an odd rest dropped.
fn averaged(x: &Tensor, [height, width]: [usize; 2], halvings: usize) -> candle_core::Result<Tensor> {
    if halvings == 0 {
        return Ok(x.clone());
    }
    let side = 1 << halvings;
    // Narrow first: candle's avg_pool2d gives the dropped row and column of odd planes a gradient.
    x.narrow(2, 0, height * side)?.narrow(3, 0, width * side)?.contiguous()?.avg_pool2d(side)
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

    fn features(net: &ConvNet, x: &Tensor) -> Vec<Vec<f32>> {
        net.forward(x, Wants::default()).unwrap().to_vec2().unwrap()
    }

    /// `planes` `[channels, height, width]` averaged over squares of `side`, `size` of them.
    fn averages(planes: &[f32], [height, width]: [usize; 2], size: [usize; 2], side: usize) -> Vec<f32> {
        let mut averages = vec![];
        for plane in planes.chunks(height * width) {
            for (y, x) in (0..size[0]).flat_map(|y| (0..size[1]).map(move |x| (y, x))) {
                let pixels = (0..side * side).map(|i| plane[(y * side + i / side) * width + x * side + i % side]);
                averages.push(pixels.sum::<f32>() / (side * side) as f32);
            }
        }
        averages
    }

    fn near(found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len());
        let off = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off < 1e-5, "{off}");
    }

    #[test]
    fn all_blocks_features_are_those_of_shallower_networks_averaged() {
        // Odd sizes on the way: 11x13 becomes 5x6, 2x3 and 1x1.
        for (input, sizes) in [([3, 11, 13], [[5, 6], [2, 3], [1, 1]]), ([1, 12, 8], [[8, 6], [4, 3], [2, 1]])] {
            let deep = net(input, 24, 3);
            let x = pictures(3, input);
            let all = deep.clone().reading(Layers::All, 0).unwrap();
            let found = features(&all, &x);
            let part = 24 * sizes[2][0] * sizes[2][1];
            assert_eq!(all.feature_len(), 3 * part);
            for depth in 1..=3 {
                let shallow = ConvNet::new(input, deep.blocks[..depth].to_vec());
                for (row, found) in features(&shallow, &x).iter().zip(&found) {
                    let expected = averages(row, sizes[depth - 1], sizes[2], 1 << (3 - depth));
                    let expected: Vec<f32> = expected.iter().map(|v| v / 3f32.sqrt()).collect();
                    near(&found[(depth - 1) * part..depth * part], &expected);
                }
            }
            let trained = all.forward(&x, Wants { weights: true, ..Wants::default() }).unwrap();
            for (row, found) in trained.to_vec2::<f32>().unwrap().iter().zip(&found) {
                near(row, found);
            }
        }
    }

    #[test]
    fn what_is_halved_once_more_is_the_average_of_four() {
        let net = net([3, 8, 10], 8, 1);
        let x = pictures(2, [3, 8, 10]);
        let halved = net.clone().reading(Layers::Last, 1).unwrap();
        assert_eq!(halved.feature_len(), 8 * 2 * 2);
        for (row, found) in features(&net, &x).iter().zip(features(&halved, &x)) {
            near(&found, &averages(row, [4, 5], [2, 2], 2));
        }
        assert_eq!(features(&net.clone().reading(Layers::All, 0).unwrap(), &x), features(&net, &x));
        let e = net.reading(Layers::All, 3).unwrap_err().to_string();
        assert!(e.contains("4 blocks") && e.contains("room for 3"), "{e}");
    }

    /// The features of `rows`, and the gradient of their product with fixed numbers.
    fn gradient(net: &ConvNet, rows: &Tensor, parallel: bool) -> (Tensor, Tensor) {
        let rows = Var::from_tensor(rows).unwrap();
        let wants = Wants { input: true, weights: false, parallel };
        let features = net.forward(rows.as_tensor(), wants).unwrap();
        let direction = crate::random::normal(&mut stream(4, "direction"), net.feature_len());
        let direction = Tensor::from_vec(direction, (1, net.feature_len()), &Device::Cpu).unwrap();
        let product = features.broadcast_mul(&direction).unwrap().sum_all().unwrap();
        let gradient = product.backward().unwrap().get(&rows).unwrap().clone();
        (features.detach(), gradient)
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        for (layers, halvings) in [(Layers::Last, 1), (Layers::All, 0), (Layers::All, 1)] {
            let input = [3, 12, 13];
            let net = net(input, 24, 2).reading(layers, halvings).unwrap();
            let (x, step) = (pictures(2, input), 1e-3);
            let (_, by_rows) = gradient(&net, &x, false);
            let along = crate::random::normal(&mut stream(5, "along"), x.elem_count());
            let along = Tensor::from_vec(along, x.dims(), &Device::Cpu).unwrap();
            let weights = crate::random::normal(&mut stream(4, "direction"), net.feature_len());
            let product = |sign: f64| {
                let rows = features(&net, &(&x + (&along * (sign * step)).unwrap()).unwrap());
                let rows = rows.iter().flat_map(|row| row.iter().zip(&weights));
                rows.map(|(f, w)| f64::from(*f) * f64::from(*w)).sum::<f64>()
            };
            let expected = (product(1.0) - product(-1.0)) / (2.0 * step);
            let found: f32 = (by_rows * &along).unwrap().sum_all().unwrap().to_scalar().unwrap();
            let off = (f64::from(found) - expected).abs() / expected.abs().max(1.0);
            assert!(off < 2e-2, "{layers} {halvings}: {found} {expected}");
        }
    }

    #[test]
    fn a_rows_bits_depend_on_nothing_but_the_row_whatever_is_read() {
        for (layers, halvings) in [(Layers::All, 0), (Layers::All, 1), (Layers::Last, 1)] {
            let input = [1, 12, 12];
            let net = net(input, 64, 2).reading(layers, halvings).unwrap();
            let x = pictures(70, input);
            let on = |threads: usize, parallel: bool| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let (features, gradient) = pool.install(|| gradient(&net, &x, parallel));
                (features.to_vec2::<f32>().unwrap(), gradient.flatten_from(1).unwrap().to_vec2::<f32>().unwrap())
            };
            let all = on(1, false);
            assert_eq!(on(3, true), all);
            assert_eq!(features(&net, &x), all.0, "with and without a graph");
            for (start, count) in [(0, 1), (3, 5), (69, 1), (2, 66)] {
                let (found, by_rows) = gradient(&net, &x.narrow(0, start, count).unwrap(), false);
                assert_eq!(found.to_vec2::<f32>().unwrap(), all.0[start..start + count]);
                let by_rows = by_rows.flatten_from(1).unwrap().to_vec2::<f32>().unwrap();
                assert_eq!(by_rows, all.1[start..start + count]);
            }
        }
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
        for layers in [Layers::Last, Layers::All] {
            let net = net([3, 8, 8], 8, 2);
            let vars: Vec<Var> =
                net.blocks.iter().flat_map(|(w, a)| [w, a]).map(|t| Var::from_tensor(t).unwrap()).collect();
            let blocks = vars.chunks(2).map(|v| (v[0].as_tensor().clone(), v[1].as_tensor().clone())).collect();
            let net = ConvNet::new([3, 8, 8], blocks).reading(layers, 0).unwrap();
            let wants = Wants { weights: true, ..Wants::default() };
            let loss = net.forward(&pictures(4, [3, 8, 8]), wants).unwrap().sqr().unwrap().sum_all().unwrap();
            let gradients = loss.backward().unwrap();
            for v in &vars {
                let size: f32 = gradients.get(v).unwrap().abs().unwrap().sum_all().unwrap().to_scalar().unwrap();
                assert!(size > 0.0);
            }
        }
    }
}
