//! Vectors flow in, the last hidden layer of a multilayer perceptron flows out.

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use rand_chacha::ChaCha12Rng;

use crate::error::Result;
use crate::extract::row_wise::in_chunks;
use crate::extract::weights::{count, name_under, normal, take, uniform};

/// `depth` layers of linear and ReLU, `width` units each.
#[derive(Clone, Debug)]
pub struct Mlp {
    /// A layer's `(weight [width, in], bias [width])`.
    pub layers: Vec<(Tensor, Tensor)>,
}

impl Mlp {
    /// Random weights: He-normal, biases uniform on +-1/sqrt(in).
    pub fn random(input: usize, width: usize, depth: usize, rng: &mut ChaCha12Rng, device: &Device) -> Result<Self> {
        let mut layers = vec![];
        for n in 0..depth {
            let inputs = if n == 0 { input } else { width };
            let weight = normal(rng, &[width, inputs], (2.0 / inputs as f32).sqrt(), device)?;
            layers.push((weight, uniform(rng, &[width], 1.0 / (inputs as f32).sqrt(), device)?));
        }
        Ok(Self { layers })
    }

    /// Weights by the names `layers.N.weight` and `layers.N.bias` under `prefix` (`extractors.0`; empty: none); as many layers as there are names.
    /// Missing tensors, wrong shapes and weights that aren't finite are an [`Error::Pool`](crate::Error::Pool) that names the tensor.
    pub fn from_tensors(input: usize, tensors: &HashMap<String, Tensor>, prefix: &str) -> Result<Self> {
        let mut layers = vec![];
        let mut inputs = input;
        for n in 0..count(tensors, prefix, "layers").max(1) {
            let name = |part: &str| name_under(prefix, &format!("layers.{n}.{part}"));
            let weight = take(tensors, &name("weight"), &[None, Some(inputs)])?;
            inputs = weight.dim(0)?;
            layers.push((weight, take(tensors, &name("bias"), &[Some(inputs)])?));
        }
        Ok(Self { layers })
    }

    /// The weights by name, as [`Mlp::from_tensors`] reads them.
    pub fn tensors(&self, prefix: &str) -> HashMap<String, Tensor> {
        let name = |n: usize, part: &str| name_under(prefix, &format!("layers.{n}.{part}"));
        let layers = self.layers.iter().enumerate();
        layers.flat_map(|(n, (w, b))| [(name(n, "weight"), w.clone()), (name(n, "bias"), b.clone())]).collect()
    }

    /// Length of the features; 0 without layers.
    pub fn feature_len(&self) -> usize {
        self.layers.last().map_or(0, |(weight, _)| weight.dims()[0])
    }

    /// `x` `[batch, input]` (or `[batch, ..]`, flattened) to `[batch, width]`. Row-wise: a row's features don't depend on the rest of the batch.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = x.flatten_from(1)?;
        Ok(in_chunks(&x, |x| {
            let mut x = x.clone();
            for (weight, bias) in &self.layers {
                x = x.matmul(&weight.t()?)?.broadcast_add(bias)?.relu()?;
            }
            Ok(x)
        })?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::stream;
    use candle_core::Var;

    fn rows(n: usize, len: usize) -> Tensor {
        Tensor::from_vec(crate::random::normal(&mut stream(2, "x"), n * len), (n, len), &Device::Cpu).unwrap()
    }

    #[test]
    fn a_rows_bits_do_not_depend_on_its_position_or_neighbours() {
        let mlp = Mlp::random(37, 40, 2, &mut stream(1, "mlp"), &Device::Cpu).unwrap();
        let x = rows(150, 37);
        let all = mlp.forward(&x).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(all.len(), 150);
        for row in [0, 1, 63, 64, 149] {
            for others in [0, 1, 5, 90] {
                let others = x.narrow(0, 7, others).unwrap();
                let batch = Tensor::cat(&[&others, &x.narrow(0, row, 1).unwrap()], 0).unwrap();
                let found = mlp.forward(&batch).unwrap().to_vec2::<f32>().unwrap();
                assert_eq!(found.last().unwrap(), &all[row]);
            }
        }
    }

    #[test]
    fn bits_do_not_depend_on_the_number_of_threads() {
        let mlp = Mlp::random(784, 256, 2, &mut stream(1, "mlp"), &Device::Cpu).unwrap();
        let x = rows(100, 784);
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| mlp.forward(&x).unwrap().to_vec2::<f32>().unwrap())
        };
        assert_eq!(with(1), with(3));
    }

    #[test]
    fn gradients_reach_rows_and_weights() {
        let mut mlp = Mlp::random(5, 8, 2, &mut stream(1, "mlp"), &Device::Cpu).unwrap();
        let weight = Var::from_tensor(&mlp.layers[0].0).unwrap();
        mlp.layers[0].0 = weight.as_tensor().clone();
        let x = Var::from_tensor(&rows(70, 5)).unwrap();
        let gradients = mlp.forward(&x).unwrap().sum_all().unwrap().backward().unwrap();
        assert_eq!(gradients.get(&x).unwrap().dims(), [70, 5]);
        assert_eq!(gradients.get(&weight).unwrap().dims(), [8, 5]);
    }

    #[test]
    fn weights_go_by_name_and_wrong_ones_are_named() {
        let mlp = Mlp::random(5, 8, 2, &mut stream(1, "mlp"), &Device::Cpu).unwrap();
        let mut tensors = mlp.tensors("");
        let again = Mlp::from_tensors(5, &tensors, "").unwrap();
        let features = |m: &Mlp| m.forward(&rows(3, 5)).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(features(&mlp), features(&again));
        let e = Mlp::from_tensors(6, &tensors, "").unwrap_err().to_string();
        assert!(e.contains("'layers.0.weight' is [8, 5], expected [any, 6]"), "{e}");
        tensors.remove("layers.1.bias");
        assert!(Mlp::from_tensors(5, &tensors, "").unwrap_err().to_string().contains("'layers.1.bias' is missing"));
    }

    #[test]
    fn no_rows_give_no_features() {
        let mlp = Mlp::random(5, 8, 1, &mut stream(1, "mlp"), &Device::Cpu).unwrap();
        assert_eq!(
            mlp.forward(&Tensor::zeros((0, 5), candle_core::DType::F32, &Device::Cpu).unwrap()).unwrap().dims(),
            [0, 8]
        );
    }
}
