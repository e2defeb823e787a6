//! Vectors flow in, random Fourier features flow out.

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use rand::Rng;
use rand_chacha::ChaCha12Rng;

use crate::error::Result;
use crate::extract::row_wise::in_chunks;
use crate::extract::weights::{name_under, normal, take};

/// Random Fourier features of a Gaussian kernel (Rahimi and Recht, NeurIPS 2007): `sqrt(2 / width) cos(W x + b)` with `W ~ N(0, 1 / bandwidth^2)` and `b`
/// uniform on 0 to 2 pi, so that the inner product of two rows' features is about `exp(-|x - y|^2 / (2 bandwidth^2))`.
#[derive(Clone, Debug)]
pub struct Fourier {
    /// `[width, in]`.
    pub weight: Tensor,
    /// `[width]`.
    pub bias: Tensor,
}

impl Fourier {
    /// Random weights. The bandwidth is drawn log-uniformly from 1/4 to 1 times `sqrt(2 * input)`, about the distance of two rows whose
    /// numbers have deviation 1: a pool sees rows at several scales.
    pub fn random(input: usize, width: usize, rng: &mut ChaCha12Rng, device: &Device) -> Result<Self> {
        let bandwidth = (2.0 * input as f32).sqrt() * 0.25f32.powf(rng.random::<f32>());
        let weight = normal(rng, &[width, input], 1.0 / bandwidth, device)?;
        let phases: Vec<f32> = (0..width).map(|_| rng.random::<f32>() * std::f32::consts::TAU).collect();
        Ok(Self { weight, bias: Tensor::from_vec(phases, width, device)? })
    }

    /// Weights by the names `fourier.weight` and `fourier.bias` under `prefix`. Missing tensors and wrong shapes are an
    /// [`Error::Pool`](crate::Error::Pool) that names the tensor.
    pub fn from_tensors(input: usize, tensors: &HashMap<String, Tensor>, prefix: &str) -> Result<Self> {
        let weight = take(tensors, &name_under(prefix, "fourier.weight"), &[None, Some(input)])?;
        let bias = take(tensors, &name_under(prefix, "fourier.bias"), &[Some(weight.dim(0)?)])?;
        Ok(Self { weight, bias })
    }

    /// The weights by name, as [`Fourier::from_tensors`] reads them.
    pub fn tensors(&self, prefix: &str) -> HashMap<String, Tensor> {
        let name = |part: &str| name_under(prefix, part);
        HashMap::from([(name("fourier.weight"), self.weight.clone()), (name("fourier.bias"), self.bias.clone())])
    }

    /// Length of the features.
    pub fn feature_len(&self) -> usize {
        self.bias.dims().first().copied().unwrap_or(0)
    }

    /// `x` `[batch, input]` (or `[batch, ..]`, flattened) to `[batch, width]`. Row-wise: a row's features don't depend on the rest of the batch.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let height = (2.0 / self.feature_len().max(1) as f64).sqrt();
        Ok(in_chunks(&x.flatten_from(1)?, |x| {
            (x.matmul(&self.weight.t()?)?.broadcast_add(&self.bias)?.cos()? * height)?.contiguous()
        })?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::stream;

    fn rows(n: usize, len: usize) -> Tensor {
        Tensor::from_vec(crate::random::normal(&mut stream(2, "x"), n * len), (n, len), &Device::Cpu).unwrap()
    }

    #[test]
    fn inner_products_of_features_are_about_the_gaussian_kernel() {
        let net = Fourier::random(6, 20_000, &mut stream(1, "fourier"), &Device::Cpu).unwrap();
        let squares = net.weight.sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap();
        let x = rows(2, 6);
        let f = net.forward(&x).unwrap();
        let dot = f.get(0).unwrap().mul(&f.get(1).unwrap()).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
        let apart = (x.get(0).unwrap() - x.get(1).unwrap()).unwrap().sqr().unwrap().sum_all().unwrap();
        let kernel = (-0.5 * squares * apart.to_scalar::<f32>().unwrap()).exp();
        assert!((dot - kernel).abs() < 0.03, "{dot} {kernel}");
    }

    #[test]
    fn a_rows_bits_do_not_depend_on_its_position_or_neighbours() {
        let net = Fourier::random(37, 40, &mut stream(1, "fourier"), &Device::Cpu).unwrap();
        let x = rows(150, 37);
        let all = net.forward(&x).unwrap().to_vec2::<f32>().unwrap();
        for row in [0, 63, 64, 149] {
            let alone = net.forward(&x.narrow(0, row, 1).unwrap()).unwrap().to_vec2::<f32>().unwrap();
            assert_eq!(alone[0], all[row]);
        }
    }

    #[test]
    fn weights_go_by_name() {
        let net = Fourier::random(5, 8, &mut stream(1, "fourier"), &Device::Cpu).unwrap();
        let again = Fourier::from_tensors(5, &net.tensors("a"), "a").unwrap();
        let features = |n: &Fourier| n.forward(&rows(3, 5)).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(features(&net), features(&again));
        let e = Fourier::from_tensors(6, &net.tensors(""), "").unwrap_err().to_string();
        assert!(e.contains("'fourier.weight' is [8, 5], expected [any, 6]"), "{e}");
    }
}
