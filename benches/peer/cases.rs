//! The name of a case flows in; a step of our kernels to be timed flows out. The programs `peer` and `roofline` share them.

use candle_core::{Device, Result, Tensor, Var};
use candle_nn::loss::cross_entropy;
use datafusion_distill::extract::ConvNet;
use datafusion_distill::kernels::{
    Frequencies, Groups, MOMENT_BOUND, Wants, characteristic, conv_block_reference, second_moments,
};
use datafusion_distill::random::{normal, stream};
use datafusion_distill::synthesize::{Optimizer, Sgd};
use serde::Deserialize;

/// What is run, how often, and on how many threads.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Case {
    pub case: String,
    #[serde(default)]
    pub channels: usize,
    #[serde(default)]
    pub side: usize,
    #[serde(default)]
    pub width: usize,
    pub rows: usize,
    pub threads: usize,
    pub repeat: usize,
}

/// Runs once.
pub type Step = Box<dyn FnMut() -> Result<()> + Send>;

const CLASSES: usize = 10;
pub const MOMENTS: usize = 1024;
pub const FEATURES: usize = 2048;
pub const FREQUENCIES: usize = 4096;

fn values(purpose: &str, shape: &[usize], scale: f64) -> Result<Tensor> {
    let values = normal(&mut stream(1, purpose), shape.iter().product());
    Tensor::from_vec(values, shape, &Device::Cpu)? * scale
}

fn net(case: &Case) -> Result<ConvNet> {
    let input = [case.channels, case.side, case.side];
    let net = ConvNet::random(input, case.width, 3, &mut stream(1, "net"), &Device::Cpu);
    net.map_err(candle_core::Error::wrap)
}

fn pictures(case: &Case) -> Result<Tensor> {
    values("pictures", &[case.rows, case.channels, case.side, case.side], 1.0)
}

/// The network in plain candle operations.
fn plain(net: &ConvNet, x: &Tensor) -> Result<Tensor> {
    let mut x = x.clone();
    for (n, (weight, affine)) in net.blocks().iter().enumerate() {
        x = conv_block_reference(&x, weight, affine, if n == 0 && net.input()[0] == 1 { 3 } else { 1 })?;
    }
    x.flatten_from(1)
}

/// Features of length 1, one class, and frequencies.
fn features(case: &Case) -> Result<(Tensor, Frequencies, Groups)> {
    let features = values("features", &[case.rows, FEATURES], 1.0 / (FEATURES as f64).sqrt())?;
    let frequencies = normal(&mut stream(1, "frequencies"), FEATURES * FREQUENCIES);
    let frequencies = Frequencies::new(&frequencies, FEATURES, FREQUENCIES, &Device::Cpu)?;
    Ok((features, frequencies, Groups::new(&[case.rows])))
}

fn characteristic_function(case: &Case) -> Result<Step> {
    let (features, frequencies, groups) = features(case)?;
    Ok(Box::new(move || characteristic(&features, &frequencies, &groups).map(drop)))
}

fn characteristic_gradient(case: &Case) -> Result<Step> {
    let (features, frequencies, groups) = features(case)?;
    let features = Var::from_tensor(&features)?;
    let weights = values("weights", &[2, FREQUENCIES], 1.0)?;
    Ok(Box::new(move || {
        let (real, imaginary) = characteristic(features.as_tensor(), &frequencies, &groups)?;
        let loss = ((real * weights.narrow(0, 0, 1)?)? + (imaginary * weights.narrow(0, 1, 1)?)?)?;
        loss.sum_all()?.backward().map(drop)
    }))
}

fn moments(case: &Case) -> Result<Step> {
    let rows: Vec<f32> = values("moments", &[case.rows * MOMENTS], 500.0)?.to_vec1()?;
    let bound = f32::from(MOMENT_BOUND);
    let rows: Vec<i16> = rows.into_iter().map(|v| v.clamp(-bound, bound) as i16).collect();
    let mut sums = vec![0; MOMENTS * (MOMENTS + 1) / 2];
    Ok(Box::new(move || {
        second_moments(&rows, MOMENTS, &mut sums);
        Ok(())
    }))
}

/// The step of a case; frozen networks and pictures are made here.
pub fn prepare(case: &Case) -> Result<Step> {
    let parallel = case.threads > 1;
    let forward = move |net: &ConvNet, x: &Tensor, wants: Wants| {
        net.forward(x, Wants { parallel, ..wants }).map_err(candle_core::Error::wrap)
    };
    Ok(match case.case.as_str() {
        "forward" => {
            let (net, x) = (net(case)?, pictures(case)?);
            Box::new(move || forward(&net, &x, Wants::default()).map(drop))
        }
        "input gradient" => {
            let (net, x) = (net(case)?, Var::from_tensor(&pictures(case)?)?);
            let wants = Wants { input: true, ..Wants::default() };
            Box::new(move || forward(&net, &x, wants)?.sqr()?.sum_all()?.backward().map(drop))
        }
        "input gradient, candle" => {
            let (net, x) = (net(case)?, Var::from_tensor(&pictures(case)?)?);
            Box::new(move || plain(&net, &x)?.sqr()?.sum_all()?.backward().map(drop))
        }
        "training step" => {
            let net = net(case)?;
            let tensors = net.blocks().iter().flat_map(|(weight, affine)| [weight, affine]);
            let mut variables = tensors.map(Var::from_tensor).collect::<Result<Vec<_>>>()?;
            let blocks = variables.chunks(2).map(|v| (v[0].as_tensor().clone(), v[1].as_tensor().clone())).collect();
            let net = ConvNet::new(net.input(), blocks);
            let head = Var::from_tensor(&values("head", &[CLASSES, net.feature_len()], 0.02)?)?;
            variables.push(head.clone());
            let mut sgd = Sgd::new(variables.clone(), 0.9, 5e-4)?;
            let x = pictures(case)?;
            let labels: Vec<u32> = (0..case.rows).map(|i| (i % CLASSES) as u32).collect();
            let labels = Tensor::from_vec(labels, case.rows, &Device::Cpu)?;
            let wants = Wants { weights: true, ..Wants::default() };
            Box::new(move || {
                let logits = forward(&net, &x, wants)?.matmul(&head.t()?)?;
                let store = cross_entropy(&logits, &labels)?.backward()?;
                let gradient = |v: &Var| store.get(v).cloned().map_or_else(|| v.zeros_like(), Ok);
                sgd.step(&variables.iter().map(gradient).collect::<Result<Vec<_>>>()?, 0.01)
            })
        }
        "characteristic function" => characteristic_function(case)?,
        "characteristic function, gradient" => characteristic_gradient(case)?,
        "second moments" => moments(case)?,
        _ => candle_core::bail!("no case '{}'", case.case),
    })
}
