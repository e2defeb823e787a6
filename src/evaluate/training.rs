//! A training set, a test set and a recipe flow in; networks are trained from scratch, and their accuracy flows out.

use std::collections::HashMap;
use std::ops::ControlFlow;

use candle_core::{D, Device, Tensor};
use candle_nn::loss::cross_entropy;
use candle_nn::ops::log_softmax;
use rand::seq::SliceRandom;

use crate::error::{Error, Result};
use crate::evaluate::dataset::Standardisation;
use crate::evaluate::network::Network;
use crate::evaluate::report::summary;
use crate::evaluate::{Baseline, Dataset, NetworkKind, Report, TrainingRecipe};
use crate::random;
use crate::rows::{Label, Shape};
use crate::synthesize::{Optimizer, Sgd};

const MOMENTUM: f64 = 0.9;
const WEIGHT_DECAY: f64 = 5e-4;
const TEST_BATCH: usize = 256;

/// How networks are trained and tested.
#[derive(Clone, Debug)]
pub struct EvaluateConfig {
    /// The network; `None`: ConvNet for pictures, MLP for vectors.
    pub network: Option<NetworkKind>,
    /// Channels or units of each layer; `None`: 128.
    pub width: Option<usize>,
    /// Blocks or layers; `None`: by the picture's size, or 3.
    pub depth: Option<usize>,
    /// How batches are augmented and mixed and the learning rate falls; `batch` and `epochs` count as they are.
    pub recipe: TrainingRecipe,
    /// Passes over the training rows.
    pub epochs: usize,
    /// Networks, each from weights of its own.
    pub repeats: usize,
    /// Rows of a training batch, [`TrainingRecipe::batch`] of the default recipe by default; the last one of an epoch may be smaller.
    pub batch: usize,
    /// Learning rate of the first epoch, which falls as the recipe says.
    pub learning_rate: f64,
    /// Augmentation of the training pictures, as option `augment` takes it; `None`: the recipe's for pictures, none for vectors.
    pub augment: Option<String>,
    /// Seed of weights, batches, augmentation and baselines.
    pub seed: u64,
    /// Where it runs.
    pub device: Device,
}

impl Default for EvaluateConfig {
    fn default() -> Self {
        Self {
            network: None,
            width: None,
            depth: None,
            recipe: TrainingRecipe::default(),
            epochs: 300,
            repeats: 3,
            batch: TrainingRecipe::default().batch(),
            learning_rate: 0.01,
            augment: None,
            seed: 0,
            device: Device::Cpu,
        }
    }
}

impl EvaluateConfig {
    fn augment(&self, shape: Shape) -> Result<&str> {
        match (self.augment.as_deref(), shape) {
            (None, Shape::Picture { .. }) => Ok(self.recipe.augment()),
            (None | Some("none"), _) => Ok("none"),
            (Some(strategy), Shape::Picture { .. }) => Ok(strategy),
            (Some(_), Shape::Vector { .. }) => {
                Err(Error::option("augment", format!("pictures only, and these rows are a {shape}; leave it out")))
            }
        }
    }

    fn check(&self, shape: Shape) -> Result<()> {
        if let (TrainingRecipe::Idc, Shape::Vector { .. }) = (self.recipe, shape) {
            return Err(Error::option(
                "recipe",
                format!("'idc' mixes pictures, and these rows are a {shape}; use 'dc'"),
            ));
        }
        let at_least_1 = [("repeats", self.repeats), ("batch", self.batch)];
        if let Some((name, _)) = at_least_1.into_iter().find(|(_, n)| *n == 0) {
            return Err(Error::option(name, "expected at least 1, found 0"));
        }
        if !(self.learning_rate > 0.0 && self.learning_rate.is_finite()) {
            return Err(Error::option("learning_rate", format!("expected more than 0, found {}", self.learning_rate)));
        }
        Ok(())
    }
}

/// How far the evaluation of one set is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Networks done.
    pub repeat: usize,
    /// Networks in all.
    pub repeats: usize,
    /// Epochs of the current network done.
    pub epoch: usize,
    /// Epochs of each network.
    pub epochs: usize,
    /// Mean loss of the last epoch.
    pub loss: f64,
}

/// What one trained network reaches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scores {
    /// Top-1 accuracy over all test rows, 0 to 1; rows of classes that the training set lacks count as wrong.
    pub accuracy: f64,
    /// Mean cross-entropy over the test rows whose class the training set has.
    pub loss: f64,
}

/// Trains `config.repeats` networks on `train` and tests each on `test`. `name` is that of the training set in the report.
///
/// Runs on the current rayon pool; the scores don't depend on its size. `observer` is called after each epoch and can break off
/// ([`Error::Cancelled`]).
///
/// # Errors
/// Rows of different shapes, classes that don't meet, fewer than two classes, a network or augmentation that doesn't suit the rows.
pub fn evaluate(
    name: &str,
    train: &Dataset,
    test: &Dataset,
    config: &EvaluateConfig,
    observer: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Report> {
    run(name, &|_| Ok(std::borrow::Cow::Borrowed(train)), test, config, observer)
}

/// Like [`evaluate`] on `ipc` rows a class that `baseline` chooses from `original`, chosen anew for each network: the deviation is that of
/// choice and training together.
pub fn evaluate_baseline(
    baseline: Baseline,
    original: &Dataset,
    ipc: usize,
    test: &Dataset,
    config: &EvaluateConfig,
    observer: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Report> {
    let draw =
        |repeat| baseline.choose(original, ipc, config.seed, repeat, &config.device).map(std::borrow::Cow::Owned);
    run(baseline.as_str(), &draw, test, config, observer)
}

type Draw<'a> = dyn Fn(usize) -> Result<std::borrow::Cow<'a, Dataset>> + 'a;

fn run(
    name: &str,
    draw: &Draw<'_>,
    test: &Dataset,
    config: &EvaluateConfig,
    observer: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Report> {
    config.check(test.shape)?;
    let clock = cpu_time::ProcessTime::try_now();
    let mut scores = vec![];
    let mut described = None;
    for repeat in 0..config.repeats {
        let train = draw(repeat)?;
        let matched = Matched::new(name, &train, test)?;
        let kind = config.network.unwrap_or_else(|| NetworkKind::default_for(train.shape));
        described.get_or_insert_with(|| {
            (kind, train.len(), train.stored.iter().sum::<usize>(), rows_per_class(&train), matched.warnings.clone())
        });
        let standard = Standardisation::of(&train);
        let network = fit(&train, &standard.apply(&train), kind, repeat, config, observer)?;
        scores.push(score(&network, test.shape, &standard.apply(test), &matched.test, &config.device)?);
    }
    let (kind, rows, stored_rows, rows_per_class, warnings) =
        described.ok_or_else(|| Error::option("repeats", "expected at least 1"))?;
    let accuracies: Vec<f64> = scores.iter().map(|s| s.accuracy).collect();
    let (mean, deviation, standard_error) = summary(&accuracies);
    Ok(Report {
        name: name.into(),
        network: kind.as_str().into(),
        recipe: config.recipe,
        rows,
        stored_rows,
        rows_per_class,
        bytes: None,
        accuracies,
        losses: scores.iter().map(|s| s.loss).collect(),
        mean,
        deviation,
        standard_error,
        cpu_seconds: clock.and_then(|c| c.try_elapsed()).map_or(0.0, |d| d.as_secs_f64()),
        warnings,
    })
}

fn rows_per_class(set: &Dataset) -> (usize, usize) {
    let counts = set.rows_by_class().into_iter().map(|rows| rows.len());
    (counts.clone().min().unwrap_or(0), counts.max().unwrap_or(0))
}

/// The test rows' classes in the training set's numbering.
struct Matched {
    /// `None`: the training set has no such class.
    test: Vec<Option<u32>>,
    warnings: Vec<String>,
}

impl Matched {
    fn new(name: &str, train: &Dataset, test: &Dataset) -> Result<Self> {
        if train.shape != test.shape {
            return Err(Error::Data(format!(
                "the rows of {name} are a {}, those of the test set a {}: a network can't be tested on other rows than it was trained for",
                train.shape, test.shape
            )));
        }
        if train.classes.len() < 2 {
            return Err(Error::Data(format!("{name} has only one class: nothing to tell apart")));
        }
        let number: HashMap<&Label, u32> = train.classes.iter().zip(0..).collect();
        let known: Vec<Option<u32>> = test.classes.iter().map(|label| number.get(label).copied()).collect();
        let matched: Vec<Option<u32>> = test.labels.iter().map(|l| known[*l]).collect();
        let missing: Vec<String> = test
            .classes
            .iter()
            .zip(&known)
            .filter(|(_, number)| number.is_none())
            .map(|(label, _)| format!("'{label}'"))
            .collect();
        if missing.len() == test.classes.len() {
            let shown =
                |classes: &[Label]| classes.iter().take(5).map(|l| format!("'{l}'")).collect::<Vec<_>>().join(", ");
            return Err(Error::Data(format!(
                "no class of the test set is in {name}: test labels are {}, training labels {}",
                shown(&test.classes),
                shown(&train.classes)
            )));
        }
        let lost = matched.iter().filter(|l| l.is_none()).count();
        let warnings = if missing.is_empty() {
            vec![]
        } else {
            let shown = missing.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
            let more = if missing.len() > 5 { ", ..." } else { "" };
            vec![format!(
                "{name} lacks {} of the test set's classes ({shown}{more}): {lost} test rows count as wrong",
                missing.len()
            )]
        };
        Ok(Self { test: matched, warnings })
    }
}

/// A network trained on `set`, whose standardised numbers are `standard`; its weights come from stream `repeat`.
fn fit(
    set: &Dataset,
    standard: &[f32],
    kind: NetworkKind,
    repeat: usize,
    config: &EvaluateConfig,
    observer: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Network> {
    let stream = |purpose: &str| random::stream(config.seed, &format!("evaluate {purpose} {repeat}"));
    let (mut weights, mut batches, mut augmentation) = (stream("weights"), stream("batches"), stream("augmentation"));
    let network = Network::random(
        kind,
        set.shape,
        set.classes.len(),
        (config.width, config.depth),
        &mut weights,
        &config.device,
    )?;
    let mut optimizer = Sgd::new(network.variables().to_vec(), MOMENTUM, WEIGHT_DECAY)?;
    let augment = config.augment(set.shape)?;
    let mut order: Vec<usize> = (0..set.len()).collect();
    for epoch in 0..config.epochs {
        let rate = config.recipe.rate(config.learning_rate, epoch, config.epochs);
        order.shuffle(&mut batches);
        let mut total = 0.0;
        for rows in order.chunks(config.batch) {
            let mut x = batch(standard, set.shape, rows, &config.device)?;
            let mut mix = None;
            if let Shape::Picture { channels, height, width } = set.shape {
                let dims = [channels, height, width];
                if augment != "none" {
                    x = config.recipe.augmented(augment, &x, dims, &mut augmentation)?;
                }
                mix = config.recipe.mix(rows.len(), dims, &mut augmentation);
            }
            let loss = match &mix {
                None => loss(&network.logits(&x)?, set, rows)?,
                Some(mix) => {
                    let logits = network.logits(&mix.apply(&x)?)?;
                    let pasted: Vec<usize> = mix.partners.iter().map(|partner| rows[*partner as usize]).collect();
                    let (own, pasted) = (loss(&logits, set, rows)?, loss(&logits, set, &pasted)?);
                    ((own * mix.kept())? + (pasted * (1.0 - mix.kept()))?)?
                }
            };
            let store = loss.backward()?;
            let gradients = network
                .variables()
                .iter()
                .map(|v| store.get(v.as_tensor()).cloned().map_or_else(|| v.zeros_like(), Ok))
                .collect::<candle_core::Result<Vec<_>>>()?;
            optimizer.step(&gradients, rate)?;
            total += f64::from(loss.to_scalar::<f32>()?) * rows.len() as f64;
        }
        let progress = Progress {
            repeat,
            repeats: config.repeats,
            epoch: epoch + 1,
            epochs: config.epochs,
            loss: total / set.len() as f64,
        };
        if observer(progress).is_break() {
            return Err(Error::Cancelled);
        }
    }
    Ok(network)
}

/// Mean cross-entropy of `logits` `[rows.len(), classes]` with the labels of `rows`: shares, where the set has them.
fn loss(logits: &Tensor, set: &Dataset, rows: &[usize]) -> candle_core::Result<Tensor> {
    let Some(soft) = &set.soft else {
        let labels: Vec<u32> = rows.iter().map(|i| set.labels[*i] as u32).collect();
        return cross_entropy(logits, &Tensor::from_vec(labels, rows.len(), logits.device())?);
    };
    let classes = set.classes.len();
    let shares: Vec<f32> = rows.iter().flat_map(|i| &soft[i * classes..(i + 1) * classes]).copied().collect();
    let shares = Tensor::from_vec(shares, (rows.len(), classes), logits.device())?;
    (log_softmax(logits, D::Minus1)? * shares)?.sum_all()?.affine(-1.0 / rows.len() as f64, 0.0)
}

fn score(network: &Network, shape: Shape, standard: &[f32], labels: &[Option<u32>], device: &Device) -> Result<Scores> {
    let network = network.frozen();
    let rows: Vec<usize> = (0..labels.len()).collect();
    let (mut right, mut known, mut total) = (0usize, 0usize, 0f64);
    for rows in rows.chunks(TEST_BATCH) {
        let logits = network.logits(&batch(standard, shape, rows, device)?)?.to_vec2::<f32>()?;
        for (logits, label) in logits.iter().zip(rows.iter().map(|i| labels[*i])) {
            let Some(label) = label else { continue };
            let (mut best, mut highest) = (0, f32::NEG_INFINITY);
            for (class, logit) in logits.iter().enumerate() {
                if *logit > highest {
                    (best, highest) = (class, *logit);
                }
            }
            let sum: f64 = logits.iter().map(|l| f64::from(l - highest).exp()).sum();
            total += sum.ln() - f64::from(logits[label as usize] - highest);
            known += 1;
            right += usize::from(best == label as usize);
        }
    }
    Ok(Scores { accuracy: right as f64 / labels.len().max(1) as f64, loss: total / known.max(1) as f64 })
}

/// The rows at `positions` of `standard` as `[positions.len(), ..shape.dims()]`.
fn batch(standard: &[f32], shape: Shape, positions: &[usize], device: &Device) -> Result<Tensor> {
    let n = shape.len();
    let mut values = Vec::with_capacity(positions.len() * n);
    positions.iter().for_each(|i| values.extend_from_slice(&standard[i * n..(i + 1) * n]));
    let dims: Vec<usize> = std::iter::once(positions.len()).chain(shape.dims()).collect();
    Ok(Tensor::from_vec(values, dims, device)?)
}

#[cfg(test)]
mod tests;
