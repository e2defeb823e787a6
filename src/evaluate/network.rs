//! A kind of network and a seeded stream flow in; a network that can be trained flows out.

use candle_core::{Device, Tensor, Var};
use candle_nn::{Linear, Module};
use rand_chacha::ChaCha12Rng;

use super::lenet::{self, LeNet};
use super::resnet18::{self, ResNet18};
use crate::choice::choice;
use crate::error::{Error, Result};
use crate::extract::ConvNet;
use crate::kernels::Wants;
use crate::random;
use crate::rows::Shape;

choice! {
    /// The networks that a set can be judged by.
    NetworkKind {
        /// The field's ConvNet, for pictures.
        ConvNet = "convnet",
        /// LeNet, for pictures: a convolutional network of another kind.
        LeNet = "lenet",
        /// ResNet-18 with instance norm, for pictures: a deep network.
        ResNet18 = "resnet18" | "resnet-18",
        /// Three layers of 128 units with ReLU.
        Mlp = "mlp",
        /// Logistic regression.
        Linear = "linear",
    }
}

impl NetworkKind {
    /// The network for rows of `shape` if none was chosen: ConvNet for pictures, MLP for vectors.
    pub fn default_for(shape: Shape) -> Self {
        match shape {
            Shape::Picture { .. } => Self::ConvNet,
            Shape::Vector { .. } => Self::Mlp,
        }
    }
}

impl std::str::FromStr for NetworkKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse("network", text)
    }
}

/// A network with a linear classifier on top, all of its weights variables.
pub(super) struct Network {
    body: Body,
    head: Linear,
    variables: Vec<Var>,
}

enum Body {
    Convolutional(ConvNet),
    LeNet(LeNet),
    ResNet18(ResNet18),
    /// None for logistic regression.
    Layers(Vec<Linear>),
}

impl Network {
    /// A network with PyTorch's default weights from `rng`: uniform on +-1/sqrt(fan in), biases too; affine 1 and 0.
    /// `given`, width and depth, default to 128 channels and the depth that the picture's size asks for, or 3 layers of 128 units.
    pub(super) fn random(
        kind: NetworkKind,
        shape: Shape,
        classes: usize,
        given: (Option<usize>, Option<usize>),
        rng: &mut ChaCha12Rng,
        device: &Device,
    ) -> Result<Self> {
        let mut variables = vec![];
        let (width, depth) = (given.0.unwrap_or(128), given.1);
        let (body, features) = match (kind, shape) {
            (NetworkKind::ConvNet, Shape::Picture { channels, height, width: w }) => {
                let input = [channels, height, w];
                let depth = depth.unwrap_or_else(|| ConvNet::default_depth(input));
                let net = ConvNet::random(input, width, depth, rng, device)?;
                let mut blocks = vec![];
                for (weight, affine) in net.blocks() {
                    blocks.push((variable(weight, &mut variables)?, variable(affine, &mut variables)?));
                }
                let net = ConvNet::new(input, blocks);
                let features = net.feature_len();
                (Body::Convolutional(net), features)
            }
            (NetworkKind::LeNet | NetworkKind::ResNet18, Shape::Picture { .. }) if given.0.or(given.1).is_some() => {
                let message = format!("'{}' has the layers it has; leave out width and depth", kind.as_str());
                return Err(Error::option("network", message));
            }
            (NetworkKind::LeNet, Shape::Picture { channels, height, width: w }) => {
                (Body::LeNet(LeNet::random([channels, height, w], rng, device, &mut variables)?), lenet::FEATURES)
            }
            (NetworkKind::ResNet18, Shape::Picture { channels, height, width: w }) => {
                let net = ResNet18::random([channels, height, w], rng, device, &mut variables)?;
                (Body::ResNet18(net), resnet18::FEATURES)
            }
            (NetworkKind::ConvNet | NetworkKind::LeNet | NetworkKind::ResNet18, Shape::Vector { .. }) => {
                let kind = kind.as_str();
                let message =
                    format!("'{kind}' needs pictures, and these rows are a {shape}; choose 'mlp' or 'linear'");
                return Err(Error::option("network", message));
            }
            (NetworkKind::Mlp, _) => {
                let mut fan_in = shape.len();
                let layers = (0..depth.unwrap_or(3))
                    .map(|_| linear(std::mem::replace(&mut fan_in, width), width, rng, device, &mut variables))
                    .collect::<Result<_>>()?;
                (Body::Layers(layers), fan_in)
            }
            (NetworkKind::Linear, _) => (Body::Layers(vec![]), shape.len()),
        };
        let head = linear(features, classes, rng, device, &mut variables)?;
        Ok(Self { body, head, variables })
    }

    /// The weights, in a fixed order.
    pub(super) fn variables(&self) -> &[Var] {
        &self.variables
    }

    /// The same network, sharing its weights, that no gradient flows into.
    pub(super) fn frozen(&self) -> Self {
        let body = match &self.body {
            Body::Convolutional(net) => {
                let blocks = net.blocks().iter().map(|(weight, affine)| (weight.detach(), affine.detach())).collect();
                Body::Convolutional(ConvNet::new(net.input(), blocks))
            }
            Body::LeNet(net) => Body::LeNet(net.still()),
            Body::ResNet18(net) => Body::ResNet18(net.still()),
            Body::Layers(layers) => Body::Layers(layers.iter().map(still).collect()),
        };
        Self { body, head: still(&self.head), variables: vec![] }
    }

    /// `x` `[batch, ..shape.dims()]` to the features `[batch, _]` that the classifier sees.
    pub(super) fn features(&self, x: &Tensor) -> Result<Tensor> {
        match &self.body {
            // The rows themselves are no variables: nobody asks for their gradient.
            Body::Convolutional(net) => {
                net.forward(x, Wants { input: false, weights: !self.variables.is_empty(), parallel: true })
            }
            Body::LeNet(net) => net.features(x),
            Body::ResNet18(net) => net.features(x),
            Body::Layers(layers) => {
                let mut x = x.flatten_from(1)?;
                for layer in layers {
                    x = layer.forward(&x)?.relu()?;
                }
                Ok(x)
            }
        }
    }

    /// `x` `[batch, ..shape.dims()]` to logits `[batch, classes]`.
    pub(super) fn logits(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.head.forward(&self.features(x)?)?)
    }
}

/// The same layer, sharing its weights, that no gradient flows into.
pub(super) fn still(layer: &Linear) -> Linear {
    Linear::new(layer.weight().detach(), layer.bias().map(Tensor::detach))
}

pub(super) fn variable(tensor: &Tensor, variables: &mut Vec<Var>) -> Result<Tensor> {
    let variable = Var::from_tensor(tensor)?;
    let tensor = variable.as_tensor().clone();
    variables.push(variable);
    Ok(tensor)
}

pub(super) fn linear(
    fan_in: usize,
    out: usize,
    rng: &mut ChaCha12Rng,
    device: &Device,
    variables: &mut Vec<Var>,
) -> Result<Linear> {
    let bound = 1.0 / (fan_in as f32).sqrt();
    let weight = Tensor::from_vec(random::uniform(rng, out * fan_in, bound), (out, fan_in), device)?;
    let bias = Tensor::from_vec(random::uniform(rng, out, bound), out, device)?;
    Ok(Linear::new(variable(&weight, variables)?, Some(variable(&bias, variables)?)))
}

/// For tests of networks: gradients against differences.
#[cfg(test)]
pub(super) mod slope_check {
    use candle_core::{DType, Tensor, Var};

    /// Asserts that along the gradient for each of `variables` `loss` rises by the gradient's length, to `tolerance`, between `step` before and behind.
    pub(in crate::evaluate) fn check(loss: impl Fn() -> Tensor, variables: &[Var], step: f64, tolerance: f64) {
        let gradients = loss().backward().unwrap();
        for (n, variable) in variables.iter().enumerate() {
            let gradient = gradients.get(variable).unwrap();
            let length = f64::from(gradient.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt());
            assert!(length > 0.0, "{n}");
            let at = |step: f64| {
                let before = variable.as_tensor().copy().unwrap();
                variable.set(&(&before + (gradient * (step / length)).unwrap()).unwrap()).unwrap();
                let found = loss().to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap();
                variable.set(&before).unwrap();
                found
            };
            let slope = (at(step) - at(-step)) / (2.0 * step);
            assert!((slope / length - 1.0).abs() < tolerance, "{n}: {slope} {length}");
        }
    }
}
