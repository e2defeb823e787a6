//! Synthetic pictures and kept real ones flow in; synthetic pictures on which networks learn more of the real ones flow out.
//!
//! Each step trains a small network on the synthetic rows for a [`window`](window::Window) of training steps, and asks how the rows should have been for it to end better. What
//! is better is one of two:
//!
//! - By experts (MTT, [`matching`]): networks that are trained on the real rows first. A window starts where one of them was at some time and should end where it was a
//!   while later.
//! - By real rows, where there are no experts: back-propagation through training (after RaT-BPTT, Feng, Vedantam and Kempe, ICLR 2024, section 3). A few networks are trained on the
//!   synthetic rows all the while; each window continues one of them, whose loss on real rows should be lower at its end. A network that has lived its time, which is a
//!   few windows, is replaced by a fresh one; the first ones live shorter, so that not all are replaced at once. (The paper's windows start anywhere; these follow each other.)
//!
//! Labels that are learned start anew, whatever they were learned for before: as what the experts say of the rows (DATM, Guo et al., ICLR 2024, whose labels are learned from
//! those of a teacher, too), or, where there are none, as the rows' classes.

mod expert;
mod matching;
mod real;
mod standard;
mod student;
mod window;

use std::ops::ControlFlow;

use candle_core::{Device, Tensor, Var};
use rand::Rng;
use rand_chacha::ChaCha12Rng;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::extract::{ConvNet, Pool};
use crate::kernels::{Groups, LARGEST_BLOCK};
use crate::objective::one_hot;
use crate::options::{Options, trained_on};
use crate::random;
use crate::rows::Shape;
use crate::sketch::{Header, Sketches};
use crate::synthesize::descent::project;
use crate::synthesize::unpack::Unpack;
use crate::synthesize::{Adam, Optimizer, Progress, Recipe, SoftLabels};

use expert::Expert;
use matching::{Followed, STRETCH};
use real::Real;
use standard::Standard;
use student::Student;
use window::{Gradient, Trainee, Window};

/// Windows that are looked at side by side, from the same rows: their gradients are applied one after the other.
const TOGETHER: usize = 2;

/// Networks in training on the synthetic rows.
const NETWORKS: usize = 8;

/// Training steps of a network's life: the field's evaluation has 300 at ipc 1 and 10, of which those before the rate falls teach the most.
const LIFE: usize = 120;

/// A window's rate is moved by this part of what was wrong with it.
const RATE_SHARE: f64 = 0.05;

/// The first step's learning rate of the rows, in units of the extractors' input, where there are no experts.
const RATE: f64 = 0.03;

/// That of soft labels: what is learned about them early in training is wrong for its end, so they follow slowly.
const LABEL_RATE: f64 = 0.002;

/// A gradient longer than so many usual ones is cut: training is chaotic now and then.
const LONGEST: f64 = 2.0;

/// Is told of each step, and of none before the first; its error ends them.
type Told<'a> = dyn FnMut(usize, Option<f64>) -> Result<()> + 'a;

/// The refinement of one job's rows.
pub(super) struct Unroll<'a> {
    recipe: &'a Recipe,
    options: &'a Options,
    pool: &'a Pool,
    groups: &'a Groups,
    /// What makes the rows that networks see of stored ones; `None`: they are the same.
    unpack: Option<Unpack>,
    /// Legs of an expert's training.
    legs: usize,
    window: Window<'a>,
}

/// What is learned: stored rows, and the shares `[rows, classes]` of those they hold.
struct Learned {
    rows: Var,
    labels: Var,
    of_rows: Adam,
    /// `None`: labels are given.
    of_labels: Option<Adam>,
    /// The usual length of a gradient for the rows.
    usual: Option<f64>,
}

impl<'a> Unroll<'a> {
    /// For rows of the classes of `sketches`, `groups` of them when they are unpacked. Fails for rows that aren't pictures and for sketches that keep no real rows.
    pub(super) fn new(
        sketches: &'a Sketches,
        options: &'a Options,
        recipe: &'a Recipe,
        pool: &'a Pool,
        groups: &'a Groups,
        unpack: Option<Unpack>,
    ) -> Result<Self> {
        let student = student(&sketches.header, recipe.unroll_width, sketches.classes.len(), pool.device())?;
        let enough = trained_on(sketches.header.recipe.shape);
        sketches.check_kept("to train against", enough, "unroll => 0")?;
        let real = Real::of(sketches, pool, student.input());
        let parallel = rayon::current_num_threads() > TOGETHER;
        let window = Window { student, real, learn_labels: options.learns_labels(), parallel };
        let legs = expert::legs(groups.rows(), groups.classes());
        Ok(Self { recipe, options, pool, groups, unpack, legs, window })
    }

    /// From `start` `[stored rows, ..input]`, in the extractors' units, to rows of the same form, with their labels where these are learned. `done` of the job's `steps` were
    /// taken before. Where labels aren't learned, `soft` are those that the networks are trained with; `None`: the rows' classes.
    pub(super) fn run(
        &self,
        start: Vec<f32>,
        soft: Option<SoftLabels>,
        (done, steps): (usize, usize),
        observer: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<(Vec<f32>, Option<SoftLabels>)> {
        let mut learned = self.start(start, soft)?;
        let mut told = |step: usize, loss| match observer(Progress { step: done + step, steps, loss }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Cancelled),
        };
        match self.recipe.experts {
            0 => self.by_real_rows(&mut learned, &mut told)?,
            experts => self.by_experts(experts, &mut learned, &mut told)?,
        }
        let soft = self.window.learn_labels.then(|| self.soft(&learned.labels.as_detached_tensor())).transpose()?;
        Ok((learned.rows.flatten_all()?.to_vec1()?, soft))
    }

    fn by_real_rows(&self, learned: &mut Learned, told: &mut Told) -> Result<()> {
        let mut weights = random::stream(self.options.seed, "unroll weights");
        let mut trainees: Vec<Trainee> =
            (1..=NETWORKS).map(|n| self.trainee(n * LIFE / NETWORKS, &mut weights)).collect::<Result<_>>()?;
        let mut step = 0;
        while step < self.recipe.unroll {
            let seen = self.seen(learned)?;
            // As a training on these rows would: their mean and deviation are its own.
            let standard = Standard::of(&seen.0)?;
            let windows = self.together(step, |step, draws| {
                self.window.look(&trainees[step % NETWORKS], (&seen.0, &seen.1), &standard, draws)
            })?;
            for (outcome, after) in windows {
                self.follow(learned, outcome.loss, &outcome.gradient, step)?;
                let spent = after.left == 0 || !outcome.loss.is_finite();
                trainees[step % NETWORKS] = if spent { self.trainee(LIFE, &mut weights)? } else { after };
                step += 1;
                told(step, Some(outcome.loss))?;
            }
        }
        Ok(())
    }

    fn by_experts(&self, experts: usize, learned: &mut Learned, told: &mut Told) -> Result<()> {
        // The same for experts and for those that are to follow them.
        let standard = self.window.real.standard()?;
        let experts = self.experts(experts, &standard, told)?;
        if self.window.learn_labels {
            let x = standard.apply(&self.seen(learned)?.0)?;
            let said = expert::shares(&experts, &self.window.student, &x)?;
            self.set_labels(learned, &said)?;
        }
        let mut rate = matching::RATE;
        let mut step = 0;
        while step < self.recipe.unroll {
            let seen = self.seen(learned)?;
            let windows = self.together(step, |_, mut draws| {
                let expert = &experts[draws.random_range(0..experts.len())];
                let on = expert.stretch(draws.random_range(0..=self.legs - STRETCH), STRETCH);
                self.window.follow(on, rate, (&seen.0, &seen.1), &standard, draws)
            })?;
            for Followed { loss, parts, stride } in windows {
                for gradient in &parts {
                    self.follow(learned, loss, gradient, step)?;
                }
                if stride.is_finite() {
                    rate *= stride.clamp(0.5, 2.0).powf(RATE_SHARE);
                }
                step += 1;
                told(step, Some(loss))?;
            }
        }
        Ok(())
    }

    /// As many networks, trained on the real rows.
    fn experts(&self, experts: usize, standard: &Standard, told: &mut Told) -> Result<Vec<Expert>> {
        let mut weights = random::stream(self.options.seed, "expert weights");
        let mut all = vec![];
        for n in 0..experts {
            let draws = random::stream(self.options.seed, &format!("expert {n}"));
            all.push(Expert::new(self.window.student.random(&mut weights)?, draws)?);
        }
        let parallel = rayon::current_num_threads() > experts;
        for _ in 0..self.legs {
            told(0, None)?;
            all.par_iter_mut().try_for_each(|expert| expert.go_on(&self.window, standard, parallel))?;
        }
        Ok(all)
    }

    fn start(&self, rows: Vec<f32>, soft: Option<SoftLabels>) -> Result<Learned> {
        let (device, classes) = (self.pool.device(), self.groups.classes());
        let mut dims = vec![self.unpack.as_ref().map_or(self.groups.rows(), Unpack::stored)];
        dims.extend(self.pool.recipe().input_shape().dims());
        let rows = Var::from_vec(rows, dims, device)?;
        let labels = match soft {
            Some(soft) => Tensor::from_vec(soft.shares, (self.groups.rows(), classes), device)?,
            None => (one_hot(self.groups, device)? + 1.0 / classes.max(1) as f64)?,
        };
        let labels = Var::from_tensor(&labels)?;
        let of = |variable: &Var| Adam::new(vec![variable.clone()], Adam::BETAS);
        let of_labels = self.window.learn_labels.then(|| of(&labels)).transpose()?;
        Ok(Learned { of_rows: of(&rows)?, of_labels, rows, labels, usual: None })
    }

    /// A fresh network that is replaced after `left` training steps.
    fn trainee(&self, left: usize, rng: &mut ChaCha12Rng) -> Result<Trainee> {
        Trainee::new(self.window.student.random(rng)?, left.max(1))
    }

    /// Rows as networks see them, with their labels.
    fn seen(&self, learned: &Learned) -> Result<(Tensor, Tensor)> {
        let stored = learned.rows.as_detached_tensor();
        let rows = match &self.unpack {
            Some(unpack) => unpack.apply(&stored, 0)?,
            None => stored,
        };
        Ok((rows, learned.labels.as_detached_tensor()))
    }

    /// What `window` says of the steps from `step` on that are taken from the same rows, in order; each has draws of its own.
    fn together<W: Send>(
        &self,
        step: usize,
        window: impl Fn(usize, ChaCha12Rng) -> Result<W> + Sync,
    ) -> Result<Vec<W>> {
        let steps = (step..self.recipe.unroll.min(step + TOGETHER)).into_par_iter();
        steps.map(|step| window(step, random::stream(self.options.seed, &format!("unroll step {step}")))).collect()
    }

    /// One move of the rows, and of learned labels, down `gradient`, of a window that ended with `loss`; none if one of them isn't finite, or the gradient is nought.
    fn follow(&self, learned: &mut Learned, loss: f64, gradient: &Gradient, step: usize) -> Result<()> {
        let by_rows = match &self.unpack {
            Some(unpack) => unpack.transposed(&gradient.rows)?,
            None => gradient.rows.clone(),
        };
        let size = window::length(&by_rows)?;
        if !(size > 0.0 && size.is_finite() && loss.is_finite()) {
            return Ok(());
        }
        let usual = *learned.usual.get_or_insert(size);
        let cut = (LONGEST * usual / size).min(1.0);
        learned.usual = Some(0.9 * usual + 0.1 * size * cut);
        let decay = self.recipe.unroll_decay(step);
        let (rate, label_rate) = match self.recipe.experts {
            0 => (RATE, LABEL_RATE),
            _ => (matching::ROWS_RATE, matching::LABEL_RATE),
        };
        learned.of_rows.step(&[(by_rows * cut)?], rate * decay)?;
        learned.rows.set(&project(&self.pool.recipe().scaling, &learned.rows.as_detached_tensor())?)?;
        if let (Some(by_labels), Some(of_labels)) = (&gradient.labels, &mut learned.of_labels) {
            let by_labels = within_sum(by_labels, learned.labels.as_tensor())?.detach();
            of_labels.step(&[(by_labels * cut)?], label_rate * decay)?;
            self.set_labels(learned, &learned.labels.as_detached_tensor())?;
        }
        Ok(())
    }

    fn set_labels(&self, learned: &Learned, shares: &Tensor) -> Result<()> {
        let shares = self.soft(shares)?.shares;
        Ok(learned.labels.set(&Tensor::from_vec(shares, learned.labels.dims(), self.pool.device())?)?)
    }

    /// The nearest shares that rows can have to these, `[rows, classes]`.
    fn soft(&self, shares: &Tensor) -> Result<SoftLabels> {
        let even = 1.0 / self.groups.classes().max(1) as f64;
        SoftLabels::of(&(shares - even)?, self.groups)
    }
}

/// Bytes that the refinement of `rows` rows, as networks see them, works in.
pub(super) fn working_bytes(sketches: &Sketches, recipe: &Recipe, rows: usize) -> Result<usize> {
    let (header, classes) = (&sketches.header, sketches.classes.len());
    let (experts, channels) = (recipe.experts, recipe.unroll_width);
    let ([_, height, width], length) = (input(header)?, header.recipe.input_shape().len());
    let weights = student(header, channels, classes, &Device::Cpu)?.weights_len();
    let side_by_side = TOGETHER.max(experts.min(rayon::current_num_threads()));
    // Of the parts of a window that follows an expert, but for the first, which each window counts: rows of gradients.
    let gradients = if experts > 0 { TOGETHER * (matching::PARTS - 1) * rows } else { 0 };
    let pictures = real::HELD + 4 * rows + side_by_side * window::pictures(rows) + gradients;
    // What a network's first blocks hold of a batch, of pictures padded by up to 3 pixels.
    let whole = channels.next_multiple_of(LARGEST_BLOCK);
    let within = side_by_side * window::LARGEST_BATCH.max(expert::BATCH) * 2 * whole * (height + 6) * (width + 6);
    // Sums in the frequencies of tiles, of each thread: four times as many as weights.
    let sums = 4 * weights * rayon::current_num_threads().min(16 * side_by_side);
    let shares = (8 * rows + gradients) * classes;
    let (networks, of_a_window) = match experts {
        0 => (2 * NETWORKS, window::WEIGHTS),
        _ => (experts * (expert::legs(rows, classes) + expert::WEIGHTS), matching::WEIGHTS),
    };
    Ok(size_of::<f32>() * (pictures * length + within + sums + shares + weights * (networks + TOGETHER * of_a_window)))
}

/// Networks of so many channels for rows that `header` tells of.
fn student(header: &Header, channels: usize, classes: usize, device: &Device) -> Result<Student> {
    let input = input(header)?;
    Student::new(input, (channels, ConvNet::default_depth(input)), classes, device)
}

/// The part of a gradient for shares of the classes, `[rows, classes]`, that is left when each row's are divided by their sum, 1 now: what is common to all classes
/// changes nothing.
fn within_sum(gradient: &Tensor, shares: &Tensor) -> Result<Tensor> {
    Ok(gradient.broadcast_sub(&(gradient * shares)?.sum_keepdim(1)?)?)
}

/// `[channels, height, width]` of the networks' input.
fn input(header: &Header) -> Result<[usize; 3]> {
    match header.recipe.input_shape() {
        Shape::Picture { channels, height, width } => Ok([channels, height, width]),
        shape => Err(Error::option("unroll", format!("it is for pictures, and a row is a {shape}; leave it out"))),
    }
}

#[cfg(test)]
mod tests;
