//! Pictures and the weights of all blocks flow in, features flow out; a gradient for features flows in, those for pictures and weights flow out.
//!
//! What [`conv_block`] does block by block, in one operation: what blocks hand on to each other stays as the kernels read and write it, in memory that is used
//! again, where candle's own backward pass would add it up in fresh memory, on one thread.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp2, DType, Device, Layout, Result, Shape, Tensor, bail};

use super::backward::Gradients;
use super::{ConvBlock, Geometry, Wants, contiguous, conv_block, with_slices};
use crate::kernels::arena::Arena;
use crate::kernels::simd::Path;

/// `blocks` `(weight [out, in, 3, 3], affine [2, out])` one after the other, as [`conv_block`] defines them; `padding(n)` is that of block `n`.
///
/// `x` `[batch, in, height, width]` to features `[batch, out * height * width]` of the last block, differentiable as `wants` says, for all weights or
/// none. Results and gradients are those of [`conv_block`] but for rounding. Errors as there.
pub fn conv_blocks(
    x: &Tensor,
    blocks: &[(Tensor, Tensor)],
    padding: impl Fn(usize) -> usize,
    wants: Wants,
    arena: &Arc<Arena>,
) -> Result<Tensor> {
    on_path(Path::detect(), x, blocks, padding, wants, arena)
}

fn on_path(
    path: Path,
    x: &Tensor,
    blocks: &[(Tensor, Tensor)],
    padding: impl Fn(usize) -> usize,
    wants: Wants,
    arena: &Arc<Arena>,
) -> Result<Tensor> {
    let of_blocks = || blocks.iter().flat_map(|(weight, affine)| [weight, affine]);
    let on_cpu = |t: &Tensor| matches!(t.device(), Device::Cpu) && t.dtype() == DType::F32;
    if !of_blocks().chain([x]).all(on_cpu) || x.elem_count() == 0 || blocks.is_empty() {
        let mut x = x.clone();
        for (n, (weight, affine)) in blocks.iter().enumerate() {
            // Behind the first block, gradients for the weights before flow through the input.
            let input = wants.input || (n > 0 && wants.weights);
            x = conv_block(&x, weight, affine, padding(n), Wants { input, ..wants }, arena)?;
        }
        return x.flatten_from(1);
    }
    let (batch, mut channels, mut height, mut width) = x.dims4()?;
    let mut layers: Vec<ConvBlock> = Vec::with_capacity(blocks.len());
    for (n, (weight, affine)) in blocks.iter().enumerate() {
        let geometry = Geometry::of(path, [batch, channels, height, width], weight, affine, padding(n))?;
        let wants = Wants { input: wants.input || (n > 0 && wants.weights), ..wants };
        if let Some(before) = layers.last_mut() {
            before.next = Some(geometry.handed_blocks());
        }
        let mut layer = ConvBlock::alone(geometry, wants, arena);
        layer.from_block = n > 0;
        layers.push(layer);
        [height, width] = geometry.pooled();
        channels = geometry.out;
    }
    // candle's backward pass takes it for granted that what leads to a variable gets a gradient.
    let wanted = |t: &Tensor, wanted: bool| if wanted { t.clone() } else { t.detach() };
    let weights = of_blocks().map(|t| wanted(t, wants.weights).flatten_all()).collect::<Result<Vec<_>>>()?;
    let (x, weights) = (wanted(x, wants.input).contiguous()?, Tensor::cat(&weights, 0)?);
    let op = Trained { layers, handed: Mutex::default(), arena: arena.clone() };
    if wants.input || wants.weights { x.apply_op2(&weights, op) } else { x.apply_op2_no_bwd(&weights, &op) }
}

/// One call: pictures and all weights, those of each block before its affine parameters.
struct Trained {
    layers: Vec<ConvBlock>,
    /// The result of each block but the last, `[batch][result]` or more, as the next one reads it, kept for the way back.
    handed: Mutex<Vec<Vec<f32>>>,
    arena: Arc<Arena>,
}

impl ConvBlock {
    /// Floats of weights and of affine parameters.
    fn weight_lens(&self) -> (usize, usize) {
        let g = self.geometry;
        (g.out * g.inputs * 9, 2 * g.out)
    }

    /// Floats of the whole batch's results.
    fn results_len(&self) -> usize {
        self.geometry.batch * self.result_len()
    }
}

impl Trained {
    /// Each block's share of what lies as the weights do.
    fn split<'a>(&self, mut weights: &'a [f32]) -> Vec<[&'a [f32]; 2]> {
        let of_layer = |layer: &ConvBlock| {
            let (weight_len, affine_len) = layer.weight_lens();
            let (own, rest) = weights.split_at(weight_len + affine_len);
            weights = rest;
            own.split_at(weight_len).into()
        };
        self.layers.iter().map(of_layer).collect()
    }

    fn forward(&self, x: &[f32], weights: &[f32]) -> Vec<f32> {
        let mut handed: Vec<Vec<f32>> = vec![];
        let mut features = vec![];
        for (n, (layer, [weight, affine])) in self.layers.iter().zip(self.split(weights)).enumerate() {
            let len = layer.results_len();
            let last = n + 1 == self.layers.len();
            let mut out = if last { vec![0.0; len] } else { self.arena.buffer(len) };
            let from = match handed.last() {
                Some(before) => &before[..self.layers[n - 1].results_len()],
                None => x,
            };
            let saved = layer.forward(from, weight, affine, &mut out[..len]);
            *layer.saved.lock().unwrap_or_else(PoisonError::into_inner) = saved;
            if last {
                features = out;
            } else {
                handed.push(out);
            }
        }
        *self.handed.lock().unwrap_or_else(PoisonError::into_inner) = handed;
        features
    }

    /// The gradients for the pictures and for all weights, where they are wanted.
    fn backward(&self, x: &[f32], weights: &[f32], grad: &[f32]) -> Result<[Option<Vec<f32>>; 2]> {
        let handed = self.handed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut by_x = self.layers[0].wants.input.then(|| vec![0.0; x.len()]);
        let mut by_weights = self.layers[0].wants.weights.then(|| vec![0.0; weights.len()]);
        let mut rest = by_weights.as_deref_mut().unwrap_or_default();
        let mut above: Option<Vec<f32>> = None;
        for (n, (layer, [weight, affine])) in self.layers.iter().zip(self.split(weights)).enumerate().rev() {
            let saved = layer.saved.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(saved) = saved.as_ref() else { bail!("conv_blocks: backward without forward") };
            let from = if n == 0 { x } else { &handed[n - 1][..self.layers[n - 1].results_len()] };
            let below_len = layer.geometry.batch * layer.picture_grad_len();
            let mut below = (n > 0).then(|| self.arena.buffer(below_len));
            let into = Gradients {
                input: match &mut below {
                    Some(below) => Some(&mut below[..below_len]),
                    None => by_x.as_deref_mut(),
                },
                weights: layer.wants.weights.then(|| {
                    let (weight_len, affine_len) = layer.weight_lens();
                    let (before, own) = std::mem::take(&mut rest).split_at_mut(rest_len(&self.layers[..n]));
                    rest = before;
                    debug_assert_eq!(own.len(), weight_len + affine_len);
                    own.split_at_mut(weight_len)
                }),
            };
            let grads_len = layer.geometry.batch * layer.result_grad_len();
            let grad = above.as_ref().map_or(grad, |above| &above[..grads_len]);
            layer.backward([from, weight, affine], saved, grad, into);
            above.into_iter().for_each(|buffer| self.arena.give_back(buffer));
            above = below;
        }
        Ok([by_x, by_weights])
    }
}

/// Floats of the weights of all `layers`.
fn rest_len(layers: &[ConvBlock]) -> usize {
    layers.iter().map(ConvBlock::weight_lens).map(|(weight, affine)| weight + affine).sum()
}

impl CustomOp2 for Trained {
    fn name(&self) -> &'static str {
        "conv-blocks"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weights: &CpuStorage,
        weights_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let features = self.forward(contiguous(x, x_layout)?, contiguous(weights, weights_layout)?);
        let batch = self.layers[0].geometry.batch;
        let length = features.len() / batch;
        Ok((CpuStorage::F32(features), Shape::from((batch, length))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weights: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let [by_x, by_weights] =
            with_slices([x, weights, &grad], |[x, weights, grad]| self.backward(x, weights, grad))?;
        let tensor = |values: Option<Vec<f32>>, like: &Tensor| {
            values.map(|v| Tensor::from_vec(v, like.shape(), &Device::Cpu)).transpose()
        };
        Ok((tensor(by_x, x)?, tensor(by_weights, weights)?))
    }
}

impl Drop for Trained {
    fn drop(&mut self) {
        let handed = std::mem::take(self.handed.get_mut().unwrap_or_else(PoisonError::into_inner));
        handed.into_iter().for_each(|buffer| self.arena.give_back(buffer));
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;
    use crate::random::{normal, stream};

    const DEPTH: usize = 3;

    fn variable(shape: &[usize], purpose: &str) -> Var {
        let values = normal(&mut stream(5, purpose), shape.iter().product());
        Var::from_tensor(&Tensor::from_vec(values, shape, &Device::Cpu).unwrap()).unwrap()
    }

    /// Features of 21 pictures, and the gradients of their squares' sum for the pictures and each weight that has one.
    fn run(width: usize, f: impl Fn(&Tensor, &[(Tensor, Tensor)]) -> Result<Tensor>) -> Vec<Option<Vec<f32>>> {
        let x = variable(&[21, 3, 17, 12], "x");
        let weights = |n: usize| variable(&[width, if n == 0 { 3 } else { width }, 3, 3], &format!("weight {n}"));
        let blocks: Vec<_> = (0..DEPTH).map(|n| (weights(n), variable(&[2, width], &format!("affine {n}")))).collect();
        let tensors: Vec<_> = blocks.iter().map(|(w, a)| (w.as_tensor().clone(), a.as_tensor().clone())).collect();
        let features = f(&x, &tensors).unwrap();
        let gradients = features.sqr().unwrap().sum_all().unwrap().backward();
        let values = |t: &Tensor| -> Vec<f32> { t.flatten_all().unwrap().to_vec1().unwrap() };
        let variables = std::iter::once(&x).chain(blocks.iter().flat_map(|(w, a)| [w, a]));
        let of = |v: &Var| gradients.as_ref().ok().and_then(|g| g.get(v)).map(values);
        std::iter::once(Some(values(&features))).chain(variables.map(of)).collect()
    }

    /// The length of the difference over that of `b`.
    fn distance(a: &[f32], b: &[f32]) -> f64 {
        let length = |v: &mut dyn Iterator<Item = f32>| v.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        assert_eq!(a.len(), b.len());
        length(&mut a.iter().zip(b).map(|(a, b)| a - b)) / length(&mut b.iter().copied())
    }

    #[test]
    fn one_operation_gives_what_blocks_one_by_one_do_and_the_same_bits_for_any_number_of_threads() {
        // Widths of whole blocks of channels and others, tiled or not.
        let cases = [(40, true, true), (40, false, true), (40, true, false), (32, true, true), (3, true, true)];
        for (path, (width, input, weights)) in Path::usable().into_iter().flat_map(|p| cases.map(|case| (p, case))) {
            let wants = |parallel: bool| Wants { input, weights, parallel };
            let arena = Arc::<Arena>::default();
            let one_by_one = run(width, |x, blocks| {
                let mut x = x.clone();
                for (n, (weight, affine)) in blocks.iter().enumerate() {
                    let wants = Wants { input: input || (n > 0 && weights), ..wants(false) };
                    x = super::super::on_path(path, &x, weight, affine, 1 + n, wants, &arena)?;
                }
                x.flatten_from(1)
            });
            let wanted: Vec<bool> = one_by_one.iter().map(Option::is_some).collect();
            assert_eq!(wanted[1..3], [input, weights]);
            let mut first = None;
            for threads in [1, 2, 3] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let f = |x: &Tensor, blocks: &[_]| on_path(path, x, blocks, |n| 1 + n, wants(threads > 1), &arena);
                let found = pool.install(|| run(width, f));
                // Memory that the next run uses again holds no numbers now.
                let poison = |x: &Tensor, blocks: &[_]| f(&(x * f64::NAN)?, blocks);
                assert!(pool.install(|| run(width, poison)).iter().flatten().flatten().any(|v| v.is_nan()));
                let bits: Vec<Vec<u32>> =
                    found.iter().flatten().map(|v| v.iter().map(|v| v.to_bits()).collect()).collect();
                assert!(first.get_or_insert_with(|| bits.clone()) == &bits, "{path:?} {width}, {threads} threads");
                for (part, (found, expected)) in found.iter().zip(&one_by_one).enumerate() {
                    assert_eq!(found.is_some(), expected.is_some());
                    if let (Some(found), Some(expected)) = (found, expected) {
                        let (off, bound) = (distance(found, expected), if part == 0 { 3e-6 } else { 1e-4 });
                        assert!(off < bound, "{path:?}, width {width}, part {part}: {off}");
                    }
                }
            }
        }
    }

    #[test]
    fn no_pictures_and_other_precisions_go_block_by_block() {
        let blocks = [(variable(&[8, 1, 3, 3], "w"), variable(&[2, 8], "a"))]
            .map(|(w, a)| (w.as_detached_tensor(), a.as_detached_tensor()));
        let forward = |x: &Tensor| conv_blocks(x, &blocks, |_| 3, Wants::default(), &Arc::default());
        assert_eq!(
            forward(&Tensor::zeros((0, 1, 28, 28), DType::F32, &Device::Cpu).unwrap()).unwrap().dims(),
            [0, 8 * 16 * 16]
        );
        let e = forward(&Tensor::zeros((1, 1, 28, 28), DType::F64, &Device::Cpu).unwrap()).unwrap_err().to_string();
        assert!(e.contains("expected f32"), "{e}");
    }
}
