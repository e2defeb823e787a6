//! Characteristic functions, amplitude and phase apart (NCFM, Wang et al., CVPR 2025, equations 5 and 6).

mod learned;
mod player;
mod target;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use candle_core::{D, Device, Tensor};

use crate::error::Result;
use crate::extract::Pool;
use crate::kernels::{Arena, Frequencies, characteristic};
use crate::objective::{Groups, Objective, of_member};
use crate::options::Options;
use crate::sketch::projection;
use crate::sketch::{Header, NORM_EPSILON, Sketches};
use learned::Learned;
use player::Player;
use target::{Target, Weights};

/// Mean over frequencies and classes of the characteristic-function discrepancy.
///
/// The empirical characteristic function of the rows `x` of a class at frequency t is `P(t) = mean_x exp(i <t, f(x)>)`, with `f(x)`
/// the L2-normalised features. With `P_r` of the real and `P_s` of the synthetic rows, and a = `alpha`, b = `beta`,
///
/// `L = mean_{c,t} sqrt( a (|P_r| - |P_s|)^2 + 2 b (|P_r| |P_s| - Re P_r Re P_s - Im P_r Im P_s) )`:
///
/// the first term compares amplitudes (diversity), the second phases (typical content). As `|P_r - P_s|^2` is
/// `(|P_r| - |P_s|)^2 + 2 (|P_r| |P_s| - Re Re - Im Im)`, it is computed as `sqrt((a - b)(|P_r| - |P_s|)^2 + b |P_r - P_s|^2)`, which doesn't
/// lose small distances to cancellation.
///
/// What a finite number of real rows adds to amplitudes on average is taken off (the paper has no equation of it; `Target` has ours). What it adds to `|P_r - P_s|^2` is a
/// constant, whatever the synthetic rows, and is left in; so where a = b, the default, nothing is taken off.
///
/// Two options bring in the other player of NCFM's game (equation 3), who looks for frequencies that tell real and synthetic rows apart, while the rows are moved so that they don't. There
/// it is a network that proposes frequencies. With `min_max` it weighs those of the sketch: the mean over frequencies is a weighted one. With `learned_frequencies` it
/// has L frequencies of its own beside the sketch's F, on which it climbs: the loss is `(F L_sketch + L L_own) / (F + L)`. States of the rows are compared by the plain mean
/// over the sketch's frequencies, which doesn't move.
#[derive(Debug)]
pub struct Characteristic<'a> {
    header: Header,
    weights: Weights,
    targets: Vec<Target>,
    /// Drawn when an extractor is first used.
    frequencies: Vec<OnceLock<Frequencies>>,
    /// What all of them work in: a step takes one extractor, and there may be hundreds.
    arena: Arc<Arena>,
    /// The player of the frequencies' weights, see option `min_max`.
    player: Option<Mutex<Player>>,
    /// The one who learns frequencies, see option `learned_frequencies`.
    learned: Option<Learned<'a>>,
}

impl<'a> Characteristic<'a> {
    /// Targets and frequencies from `sketches`; `alpha`, `beta`, `min_max` and `learned_frequencies` from `options`. `pool` are the extractors of the sketches. Fails for
    /// sketches that keep no rows of a class, where frequencies are to be learned.
    pub fn new(sketches: &Sketches, options: &Options, pool: &'a Pool) -> Result<Self> {
        let (classes, members, device) = (sketches.classes.len(), sketches.header.recipe.extractors, pool.device());
        let target = |member: usize| -> Result<Target> {
            let (mut real, mut imaginary) = (vec![], vec![]);
            for sketch in sketches.classes.values() {
                let (re, im) = sketch.characteristic(member);
                real.extend(re);
                imaginary.extend(im);
            }
            let shape = (classes, sketches.header.frequencies);
            let real = Tensor::from_vec(real, shape, device)?;
            let imaginary = Tensor::from_vec(imaginary, shape, device)?;
            let counts: Vec<u64> = sketches.classes.values().map(|sketch| sketch.count).collect();
            Ok(Target::new(real, imaginary, &counts)?)
        };
        let weights = Weights { alpha: options.alpha, beta: options.beta };
        let learned = match options.learned_frequencies {
            0 => None,
            count => Some(Learned::new(sketches, pool, count, options.seed, weights)?),
        };
        Ok(Self {
            header: sketches.header.clone(),
            weights,
            targets: (0..members).map(target).collect::<Result<_>>()?,
            frequencies: (0..members).map(|_| OnceLock::new()).collect(),
            arena: Arc::default(),
            player: (options.min_max != 0.0).then(|| Mutex::new(Player::new(options.min_max, members))),
            learned,
        })
    }

    /// Bytes of memory that it takes for sketches with `header`, of `classes` classes, without what is learned: frequencies and targets.
    pub fn bytes_of(header: &Header, classes: usize) -> usize {
        let of_frequency = size_of::<f32>() * (header.recipe.feature_len() + 3 * classes);
        header.recipe.extractors * header.frequencies * of_frequency
    }

    /// Bytes of memory that learning frequencies takes for `rows` synthetic rows, beside the sketches.
    pub fn learned_bytes(sketches: &Sketches, options: &Options, rows: usize) -> usize {
        learned::bytes(sketches, options.learned_frequencies, rows)
    }

    fn frequencies(&self, member: usize, device: &Device) -> candle_core::Result<&Frequencies> {
        let slot = of_member(&self.frequencies, member)?;
        if let Some(frequencies) = slot.get() {
            return Ok(frequencies);
        }
        let drawn = projection::draw(&self.header, member, device).map_err(candle_core::Error::wrap)?;
        Ok(slot.get_or_init(|| drawn.with_arena(self.arena.clone())))
    }

    /// The discrepancy of each class at each of the sketch's frequencies, `[classes, frequencies]`; of normalised features.
    fn gaps(&self, member: usize, features: &Tensor, groups: &Groups) -> candle_core::Result<Tensor> {
        let frequencies = self.frequencies(member, features.device())?;
        let (real, imaginary) = characteristic(features, frequencies, groups)?;
        of_member(&self.targets, member)?.gaps((&real, &imaginary), self.weights)
    }
}

/// Each row of norm 1.
fn normalised(features: &Tensor) -> candle_core::Result<Tensor> {
    let norm = (features.sqr()?.sum_keepdim(D::Minus1)? + NORM_EPSILON)?.sqrt()?;
    features.broadcast_div(&norm)
}

impl Objective for Characteristic<'_> {
    fn name(&self) -> &'static str {
        "characteristic"
    }

    fn loss(&self, member: usize, features: &Tensor, groups: &Groups, _labels: &Tensor) -> candle_core::Result<Tensor> {
        let features = normalised(features)?;
        let gaps = self.gaps(member, &features, groups)?;
        let of_sketch = match &self.player {
            Some(player) => player.lock().unwrap_or_else(PoisonError::into_inner).mean(member, &gaps)?,
            None => gaps.mean_all()?,
        };
        let Some(learned) = &self.learned else { return Ok(of_sketch) };
        let share = learned.count() as f64 / (learned.count() + self.header.frequencies) as f64;
        (of_sketch * (1.0 - share))? + (learned.loss(member, &features, groups)? * share)?
    }

    fn judged(
        &self,
        member: usize,
        features: &Tensor,
        groups: &Groups,
        _labels: &Tensor,
    ) -> candle_core::Result<Tensor> {
        self.gaps(member, &normalised(features)?, groups)?.mean_all()
    }

    fn respond(&self) -> candle_core::Result<()> {
        if let Some(player) = &self.player {
            player.lock().unwrap_or_else(PoisonError::into_inner).respond()?;
        }
        self.learned.as_ref().map_or(Ok(()), Learned::respond)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::player::EQUAL;
    use super::*;
    use crate::kernels::characteristic_reference;
    use crate::objective::gradient_check;
    use crate::random;
    use crate::sketch::projection::tests::frequencies;

    /// Six rows of three classes, as many of each and not.
    const SIZES: [[usize; 3]; 2] = [[2, 2, 2], [1, 3, 2]];
    const DIMS: (usize, usize) = (6, 20);

    fn values(purpose: &str, n: usize) -> Vec<f32> {
        random::normal(&mut random::stream(9, purpose), n)
    }

    /// An objective whose targets are the characteristic functions of `real` `[21, 20]`, seven rows a class, as if of so many rows that nothing is to be corrected.
    fn objective(real: &Tensor, alpha: f64, beta: f64) -> Characteristic<'static> {
        objective_of(real, u64::MAX, alpha, beta)
    }

    /// The same, as if of `count` rows a class.
    fn objective_of(real: &Tensor, count: u64, alpha: f64, beta: f64) -> Characteristic<'static> {
        let frequencies = frequencies(20, 150);
        let norm = real.sqr().unwrap().sum_keepdim(D::Minus1).unwrap().sqrt().unwrap();
        let (real, imaginary) =
            characteristic(&real.broadcast_div(&norm).unwrap(), &frequencies, &Groups::new(&[7; 3])).unwrap();
        let target = Target::new(real, imaginary, &[count; 3]).unwrap();
        let header = crate::sketch::Header { frequencies: 150, ..crate::sketch::test_header() };
        let (targets, frequencies) = (vec![target], vec![OnceLock::from(frequencies)]);
        let (weights, arena) = (Weights { alpha, beta }, Arc::default());
        Characteristic { header, weights, targets, frequencies, arena, player: None, learned: None }
    }

    fn real_rows() -> Tensor {
        Tensor::from_vec(values("real", 21 * 20), (21, 20), &Device::Cpu).unwrap()
    }

    #[test]
    fn the_loss_is_amplitude_and_phase_as_published() {
        let synthetic = Tensor::from_vec(values("synthetic", 120), DIMS, &Device::Cpu).unwrap();
        let cf = |rows: &Tensor, sizes: [usize; 3]| -> Vec<(f64, f64)> {
            let norm = rows.sqr().unwrap().sum_keepdim(D::Minus1).unwrap().sqrt().unwrap();
            let t = frequencies(20, 150).tensor(&Device::Cpu).unwrap();
            let (re, im) =
                characteristic_reference(&rows.broadcast_div(&norm).unwrap(), &t, &Groups::new(&sizes)).unwrap();
            let list = |t: Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            list(re).into_iter().zip(list(im)).map(|(a, b)| (f64::from(a), f64::from(b))).collect()
        };
        let mean = |sizes: [usize; 3], of: &dyn Fn([f64; 2], [f64; 2]) -> f64| -> f64 {
            let pairs = cf(&real_rows(), [7; 3]).into_iter().zip(cf(&synthetic, sizes));
            pairs.map(|((ar, ai), (br, bi))| of([ar, ai], [br, bi]).max(0.0).sqrt()).sum::<f64>() / 450.0
        };
        let loss = |count: u64, alpha, beta, sizes: [usize; 3]| {
            let objective = objective_of(&real_rows(), count, alpha, beta);
            f64::from(
                objective.loss(0, &synthetic, &Groups::new(&sizes), &synthetic).unwrap().to_scalar::<f32>().unwrap(),
            )
        };
        for (alpha, beta, sizes) in [
            (0.5, 0.5, SIZES[0]),
            (0.5, 0.5, SIZES[1]),
            (0.9, 0.1, SIZES[1]),
            (0.0, 1.0, SIZES[0]),
            (1.0, 0.0, SIZES[0]),
        ] {
            let expected = mean(sizes, &|[ar, ai], [br, bi]| {
                let (a, b) = (ar.hypot(ai), br.hypot(bi));
                alpha * (a - b).powi(2) + 2.0 * beta * (a * b - ar * br - ai * bi)
            });
            let found = loss(u64::MAX, alpha, beta, sizes);
            assert!((found - expected).abs() < 1e-5, "{alpha} {beta}: {found} {expected}");
            // Of seven rows amplitudes are too large; where both weigh alike only the distance counts, and nothing is taken off.
            let corrected = mean(sizes, &|[ar, ai], [br, bi]| {
                let amplitude = (ar * ar + ai * ai - (1.0 - ar * ar - ai * ai) / 6.0).max(0.0).sqrt();
                let apart = (ar - br).powi(2) + (ai - bi).powi(2);
                (alpha - beta) * (amplitude - br.hypot(bi)).powi(2) + beta * apart
            });
            let found = loss(7, alpha, beta, sizes);
            assert!((found - corrected).abs() < 1e-5, "{alpha} {beta}: {found} {corrected}");
            assert_eq!((corrected - expected).abs() > 1e-3, alpha != beta, "{alpha} {beta}: {corrected} {expected}");
        }
    }

    #[test]
    fn the_gradient_is_that_of_finite_differences() {
        for (alpha, beta, sizes) in [(0.5, 0.5, SIZES[0]), (0.8, 0.2, SIZES[0]), (0.5, 0.5, SIZES[1])] {
            let objective = objective(&real_rows(), alpha, beta);
            gradient_check::check(&objective, &values("synthetic", 120), &Groups::new(&sizes), 2e-2);
        }
    }

    #[test]
    fn what_few_rows_add_to_amplitudes_is_taken_off() {
        // Of classes of 4 rows each; the function of all rows is as good as the true one.
        let draws = 400;
        let rows = Tensor::from_vec(values("few", draws * 4 * 20), (draws * 4, 20), &Device::Cpu).unwrap();
        let rows = rows.broadcast_div(&rows.sqr().unwrap().sum_keepdim(D::Minus1).unwrap().sqrt().unwrap()).unwrap();
        let frequencies = frequencies(20, 150);
        let mean = |t: &Tensor| f64::from(t.mean_all().unwrap().to_scalar::<f32>().unwrap());
        let squared = |sizes: &[usize], count: u64| {
            let (real, imaginary) = characteristic(&rows, &frequencies, &Groups::new(sizes)).unwrap();
            let whole = (real.sqr().unwrap() + imaginary.sqr().unwrap()).unwrap();
            let target = Target::new(real, imaginary, &vec![count; sizes.len()]).unwrap();
            (mean(&whole), mean(&target.amplitude.sqr().unwrap()))
        };
        let (_, truth) = squared(&[draws * 4], 4 * draws as u64);
        let (raw, corrected) = squared(&vec![4; draws], 4);
        // Amplitudes that would be negative are 0, which leaves a part of it.
        assert!(raw - truth > 0.05 && (corrected - truth).abs() < 0.3 * (raw - truth), "{raw} {corrected} {truth}");
        let one = Target::new(
            Tensor::ones((1, 3), candle_core::DType::F32, &Device::Cpu).unwrap(),
            Tensor::zeros((1, 3), candle_core::DType::F32, &Device::Cpu).unwrap(),
            &[1],
        )
        .unwrap();
        assert!((mean(&one.amplitude) - 1.0).abs() < 1e-6);
    }

    #[test]
    fn the_other_player_weighs_the_frequencies_that_are_furthest_apart_and_states_are_judged_without() {
        let (real, groups) = (real_rows(), Groups::new(&SIZES[0]));
        let synthetic = Tensor::from_vec(values("synthetic", 120), DIMS, &Device::Cpu).unwrap();
        let mut objective = objective(&real, 0.5, 0.5);
        let value = |loss: Tensor| f64::from(loss.to_scalar::<f32>().unwrap());
        let plain = value(objective.loss(0, &synthetic, &groups, &synthetic).unwrap());
        objective.player = Some(Mutex::new(Player::new(0.5, 1)));
        let mut before = plain;
        for _ in 0..5 {
            let weighted = value(objective.loss(0, &synthetic, &groups, &synthetic).unwrap());
            assert!(weighted >= before - 1e-6, "{weighted} {before}");
            before = weighted;
            objective.respond().unwrap();
            let judged = value(objective.judged(0, &synthetic, &groups, &synthetic).unwrap());
            assert!((judged - plain).abs() < 1e-6);
        }
        assert!(before > 1.05 * plain, "{before} {plain}");
        let player = objective.player.as_ref().unwrap().lock().unwrap();
        let weights: Vec<f32> = player.weights[0].as_ref().unwrap().to_vec1().unwrap();
        let mean = weights.iter().sum::<f32>() / 150.0;
        assert!((mean - 1.0).abs() < 1e-4 && weights.iter().all(|w| *w >= EQUAL as f32), "{weights:?}");
    }

    #[test]
    fn at_the_target_and_at_zero_features_loss_and_gradient_are_finite() {
        let real = real_rows();
        let (objective, groups) = (objective(&real, 0.7, 0.3), Groups::new(&[7; 3]));
        for start in [real.clone(), real.zeros_like().unwrap()] {
            let var = Var::from_tensor(&start).unwrap();
            let loss = objective.loss(0, var.as_tensor(), &groups, &real).unwrap();
            let gradients = loss.backward().unwrap();
            let gradient: Vec<f32> = gradients.get(&var).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            assert!(gradient.iter().all(|g| g.is_finite()) && loss.to_scalar::<f32>().unwrap().is_finite());
        }
        assert!(objective.loss(0, &real, &groups, &real).unwrap().to_scalar::<f32>().unwrap() < 1e-5);
    }
}
