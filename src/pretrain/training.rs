//! A random network and a sample flow in, its weights at several levels of training flow out.

use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{Device, Tensor, Var};
use candle_nn::loss::cross_entropy;
use candle_nn::ops::log_softmax;
use rand::seq::SliceRandom;

use super::EARLY;
use crate::error::{Error, Result};
use crate::extract::{ConvNet, PoolRecipe};
use crate::kernels::{Transform, Wants};
use crate::random;
use crate::sketch::Numbers;
use crate::synthesize::{Optimizer, Sgd};

pub(super) const BATCH: usize = 128;
const RATE: f64 = 0.01;
const MOMENTUM: f64 = 0.9;
const WEIGHT_DECAY: f64 = 5e-4;

/// Rows to train on.
pub(super) struct Examples<'a> {
    /// Each row's numbers, in the input's units, with the number of its class.
    pub(super) rows: Vec<(&'a Numbers, u32)>,
    /// How many classes.
    pub(super) classes: usize,
    /// Each row's shares of the classes, `[rows, classes]`; `None`: its own class has all of it.
    pub(super) shares: Option<&'a [f32]>,
}

impl Examples<'_> {
    /// Cross entropy of `logits` `[at.len(), classes]` for the rows `at`.
    pub(super) fn loss(&self, logits: &Tensor, at: &[usize], device: &Device) -> Result<Tensor> {
        let Some(shares) = self.shares else {
            let labels: Vec<u32> = at.iter().map(|i| self.rows[*i].1).collect();
            return Ok(cross_entropy(logits, &Tensor::from_vec(labels, at.len(), device)?)?);
        };
        let of = |i: &usize| &shares[i * self.classes..(i + 1) * self.classes];
        let shares: Vec<f32> = at.iter().flat_map(of).copied().collect();
        let shares = Tensor::from_vec(shares, (at.len(), self.classes), device)?;
        Ok(((log_softmax(logits, 1)? * shares)?.sum_all()? * (-1.0 / at.len().max(1) as f64))?)
    }
}

/// What all training runs of a pool have in common.
pub(super) struct Run<'a> {
    pub(super) recipe: &'a PoolRecipe,
    pub(super) examples: &'a Examples<'a>,
    /// Passes over them.
    pub(super) epochs: usize,
    pub(super) seed: u64,
    pub(super) device: &'a Device,
    /// Whether a step's rows are spread over the threads; else runs are.
    pub(super) parallel: bool,
    /// Whether a run ends where its network is early.
    pub(super) early: bool,
    pub(super) cancel: &'a AtomicBool,
}

/// One network's weights.
pub(super) struct Snapshots {
    pub(super) start: ConvNet,
    pub(super) early: ConvNet,
    pub(super) trained: ConvNet,
}

impl Run<'_> {
    /// Trains `start` with a linear classifier on top: SGD with momentum, a tenth of the rate from half time on.
    pub(super) fn train(&self, run: usize, start: ConvNet) -> Result<Snapshots> {
        let stream = |purpose: &str| random::stream(self.seed, &format!("pretraining {purpose} {run}"));
        let (mut order, mut augmentation) = (stream("order"), stream("augmentation"));
        let rows = &self.examples.rows;
        let input = self.recipe.input_shape();
        let dims = start.input();
        let mut variables = vec![];
        for tensor in start.blocks().iter().flat_map(|(weight, affine)| [weight, affine]) {
            variables.push(Var::from_tensor(tensor)?);
        }
        let blocks = variables.chunks(2).map(|v| (v[0].as_tensor().clone(), v[1].as_tensor().clone())).collect();
        let net = ConvNet::new(dims, blocks);
        let head = Var::zeros((self.examples.classes, net.feature_len()), candle_core::DType::F32, self.device)?;
        variables.push(head.clone());
        let mut sgd = Sgd::new(variables.clone(), MOMENTUM, WEIGHT_DECAY)?;
        let wants = Wants { input: false, weights: true, parallel: self.parallel };

        let mut at: Vec<usize> = (0..rows.len()).collect();
        let steps = self.epochs * rows.len().div_ceil(BATCH);
        let early_step = ((steps as f64 * EARLY) as usize).max(1);
        let (mut step, mut early) = (0, None);
        'run: for _ in 0..self.epochs {
            at.shuffle(&mut order);
            for batch in at.chunks(BATCH) {
                if self.cancel.load(Ordering::Relaxed) {
                    return Err(Error::Cancelled);
                }
                let mut values = Vec::with_capacity(batch.len() * input.len());
                batch.iter().for_each(|i| values.extend(self.recipe.scaling.scale(&rows[*i].0.floats())));
                let x = Tensor::from_vec(values, [vec![batch.len()], input.dims()].concat(), self.device)?;
                let x = Transform::per_row(Transform::DSA, batch.len(), dims, &mut augmentation).apply(&x)?;
                let logits = net.forward(&x, wants)?.matmul(&head.t()?)?;
                let store = self.examples.loss(&logits, batch, self.device)?.backward()?;
                let gradients = variables.iter().map(|v| store.get(v).cloned().map_or_else(|| v.zeros_like(), Ok));
                let rate = if 2 * step < steps { RATE } else { RATE / 10.0 };
                sgd.step(&gradients.collect::<candle_core::Result<Vec<_>>>()?, rate)?;
                step += 1;
                if step == early_step {
                    early = Some(copied(&net)?);
                    if self.early {
                        break 'run;
                    }
                }
            }
        }
        let trained = copied(&net)?;
        Ok(Snapshots { start, early: early.unwrap_or_else(|| trained.clone()), trained })
    }
}

/// A network of its own with the present weights of `net`.
fn copied(net: &ConvNet) -> Result<ConvNet> {
    map(net, |tensor| Ok(tensor.detach().copy()?))
}

/// The network at `share` of the way from `from` to `to`.
pub(super) fn between(from: &ConvNet, to: &ConvNet, share: f64) -> Result<ConvNet> {
    let mut others = to.blocks().iter().flat_map(|(weight, affine)| [weight, affine]);
    map(from, |tensor| match others.next() {
        Some(other) => Ok(((tensor * (1.0 - share))? + (other * share)?)?),
        None => Ok(tensor.clone()),
    })
}

/// `net` with Gaussian noise added to each filter, `size` times as long as the filter.
pub(super) fn perturbed(net: &ConvNet, size: f32, seed: u64, n: usize) -> Result<ConvNet> {
    let mut stream = random::stream(seed, &format!("perturbation {n}"));
    map(net, |tensor| {
        let dims = tensor.dims().to_vec();
        let mut values: Vec<f32> = tensor.flatten_all()?.to_vec1()?;
        let filter = (values.len() / dims[0].max(1)).max(1);
        for values in values.chunks_mut(filter) {
            let noise = random::normal(&mut stream, values.len());
            let length = |v: &[f32]| v.iter().map(|v| v * v).sum::<f32>().sqrt();
            let scale = size * length(values) / length(&noise).max(f32::MIN_POSITIVE);
            values.iter_mut().zip(noise).for_each(|(v, n)| *v += scale * n);
        }
        Ok(Tensor::from_vec(values, dims, tensor.device())?)
    })
}

fn map(net: &ConvNet, mut f: impl FnMut(&Tensor) -> Result<Tensor>) -> Result<ConvNet> {
    let mut blocks = vec![];
    for (weight, affine) in net.blocks() {
        blocks.push((f(weight)?, f(affine)?));
    }
    Ok(ConvNet::new(net.input(), blocks))
}
