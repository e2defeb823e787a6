//! Weights and labelled rows flow in; the loss of a small network and its gradients flow out.

use std::sync::Arc;

use candle_core::{D, Device, Result, Tensor, Var};
use candle_nn::ops::log_softmax;
use rand_chacha::ChaCha12Rng;

use crate::extract::ConvNet;
use crate::kernels::{Arena, Wants};
use crate::random;

/// The networks that are trained on the synthetic rows: the field's ConvNet with a linear classifier on top, all weights of one in one flat tensor.
pub(super) struct Student {
    input: [usize; 3],
    width: usize,
    depth: usize,
    classes: usize,
    feature_len: usize,
    device: Device,
    arena: Arc<Arena>,
}

/// A loss, and where it falls.
pub(super) struct Gradient {
    pub(super) loss: f32,
    /// As the weights; zeros: not asked for.
    pub(super) weights: Tensor,
    /// As the rows; `None`: not asked for.
    pub(super) rows: Option<Tensor>,
    /// As the labels; `None`: not asked for.
    pub(super) labels: Option<Tensor>,
}

/// What gradients are wanted for.
#[derive(Clone, Copy, Default)]
pub(super) struct Wanted {
    pub(super) weights: bool,
    pub(super) rows: bool,
    pub(super) labels: bool,
    /// Whether rows are spread over the threads; else the caller is parallel already.
    pub(super) parallel: bool,
}

impl Student {
    /// For pictures `input` `[channels, height, width]` of so many classes. Fails where `depth` blocks halve them to nothing.
    pub(super) fn new(
        input: [usize; 3],
        (width, depth): (usize, usize),
        classes: usize,
        device: &Device,
    ) -> crate::error::Result<Self> {
        let feature_len = ConvNet::feature_len_of(input, width, depth)?;
        Ok(Self { input, width, depth, classes, feature_len, device: device.clone(), arena: Arc::default() })
    }

    /// `[channels, height, width]` of a picture.
    pub(super) fn input(&self) -> [usize; 3] {
        self.input
    }

    /// How many weights a network has.
    pub(super) fn weights_len(&self) -> usize {
        let block = |inputs: usize| self.width * (9 * inputs + 2);
        block(self.input[0]) + (self.depth - 1) * block(self.width) + self.classes * (self.feature_len + 1)
    }

    /// Random weights, as [`ConvNet::random`] and PyTorch's linear layer draw them.
    pub(super) fn random(&self, rng: &mut ChaCha12Rng) -> crate::error::Result<Tensor> {
        let net = ConvNet::random(self.input, self.width, self.depth, rng, &self.device)?;
        let mut parts = vec![];
        for (weight, affine) in net.blocks() {
            parts.extend([weight.flatten_all()?, affine.flatten_all()?]);
        }
        let len = self.classes * (self.feature_len + 1);
        let head = random::uniform(rng, len, 1.0 / (self.feature_len as f32).sqrt());
        parts.push(Tensor::from_vec(head, len, &self.device)?);
        Ok(Tensor::cat(&parts, 0)?)
    }

    /// `x` `[batch, ..input]` to `[batch, classes]`.
    pub(super) fn logits(&self, weights: &Tensor, x: &Tensor, wants: Wants) -> crate::error::Result<Tensor> {
        let mut at = 0;
        let mut part = |dims: &[usize]| -> Result<Tensor> {
            let len = dims.iter().product();
            at += len;
            weights.narrow(0, at - len, len)?.reshape(dims)
        };
        let mut blocks = vec![];
        for n in 0..self.depth {
            let inputs = if n == 0 { self.input[0] } else { self.width };
            blocks.push((part(&[self.width, inputs, 3, 3])?, part(&[2, self.width])?));
        }
        let (weight, bias) = (part(&[self.classes, self.feature_len])?, part(&[self.classes])?);
        let features = ConvNet::new(self.input, blocks).with_arena(self.arena.clone()).forward(x, wants)?;
        Ok(features.matmul(&weight.t()?)?.broadcast_add(&bias)?)
    }

    /// The mean cross-entropy of rows `x` `[batch, ..input]` with their shares of the classes `y` `[batch, classes]`, and its gradients.
    pub(super) fn gradient(
        &self,
        weights: &Tensor,
        x: &Tensor,
        y: &Tensor,
        wanted: Wanted,
    ) -> crate::error::Result<Gradient> {
        let leaf = |of: &Tensor, wanted: bool| -> Result<Tensor> {
            Ok(if wanted { Var::from_tensor(of)?.into_inner() } else { of.detach() })
        };
        let (weights, x, y) = (leaf(weights, wanted.weights)?, leaf(x, wanted.rows)?, leaf(y, wanted.labels)?);
        let wants = Wants { input: wanted.rows, weights: wanted.weights, parallel: wanted.parallel };
        let log_shares = log_softmax(&self.logits(&weights, &x, wants)?, D::Minus1)?;
        let loss = (log_shares * &y)?.sum_all()?.affine(-1.0 / x.dim(0)?.max(1) as f64, 0.0)?;
        let mut gradients = loss.backward()?;
        let mut of = |t: &Tensor| gradients.remove(t).map_or_else(|| t.zeros_like(), Ok);
        Ok(Gradient {
            weights: of(&weights)?.detach(),
            rows: if wanted.rows { Some(of(&x)?.detach()) } else { None },
            labels: if wanted.labels { Some(of(&y)?.detach()) } else { None },
            loss: loss.to_scalar()?,
        })
    }
}
