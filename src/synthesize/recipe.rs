//! The options and a sketch's header flow in; what the optimizer does by default flows out: the one place to tune.

use crate::error::{Error, Result};
use crate::options::{Method, OptimizerKind, Options, Term, Terms};
use crate::sketch::Header;

/// Learning rate of soft labels.
const LABEL_RATE: f64 = 0.02;

/// Channels of unrolled training's networks: a quarter of the evaluation's, at a sixteenth of the cost.
const UNROLL_WIDTH: usize = 32;

/// How synthetic rows are optimized.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// Optimizer steps.
    pub steps: usize,
    /// The first step's learning rate, in units of the extractor's input.
    pub rate: f64,
    /// The first step's learning rate of soft labels, whose unit is a whole class.
    pub label_rate: f64,
    /// The terms of the loss with their weights.
    pub terms: Terms,
    /// Steps of unrolled training after these, see option `unroll`.
    pub unroll: usize,
    /// Experts that unrolled training is to follow, see option `experts`.
    pub experts: usize,
    /// Channels of its networks, see option `unroll_width`.
    pub unroll_width: usize,
}

impl Recipe {
    /// What `options` ask for, and defaults where they don't, for sketches with `header` and `ipc` rows a class, on average.
    pub fn choose(options: &Options, header: &Header, ipc: usize) -> Result<Self> {
        if options.method.selects() {
            let message = format!("'{}' chooses real rows; there is nothing to optimize", options.method);
            return Err(Error::option("method", message));
        }
        let mut terms = options.loss_terms();
        if options.method == Method::Auto && options.terms.is_none() && header.frequencies == 0 {
            terms = Terms(vec![(Term::Mean, 1.0)]);
        }
        if terms.has(Term::Characteristic) && header.frequencies == 0 {
            return Err(Error::Sketch(
                "method => 'characteristic' needs frequencies, this sketch has none; make it with frequencies => 1024, or use method => \
                 'mean'"
                    .into(),
            ));
        }
        if options.learned_frequencies > 0 && !terms.has(Term::Characteristic) {
            return Err(Error::Sketch(
                "frequencies are learned beside those of the sketch, this one has none; make it with frequencies => 1024, or use \
                 learned_frequencies => 0"
                    .into(),
            ));
        }
        let steps = match ipc {
            0..=10 => 1000,
            11..=50 => 600,
            _ => 400,
        };
        let rate = match options.optimizer {
            // Adam's steps are as large as the rate, whatever the loss's unit.
            OptimizerKind::Adam => 0.05,
            // The characteristic function's loss is a mean over classes and frequencies, those of ridge regressions are means over rows.
            OptimizerKind::Sgd if terms.has(Term::Characteristic) || terms.need_moments() => 100.0,
            // DM's own.
            OptimizerKind::Sgd => 1.0,
        };
        let (unroll, experts) = options.unrolled(header.recipe.shape, ipc, header.reservoir);
        let steps = options.steps.unwrap_or(steps);
        let rate = options.learning_rate.unwrap_or(rate);
        let unroll_width = options.unroll_width.unwrap_or(UNROLL_WIDTH);
        Ok(Self { steps, rate, label_rate: LABEL_RATE, terms, unroll, experts, unroll_width })
    }

    /// The learning rate of step `step`: from `rate` along half a cosine to 2 % of it.
    pub fn rate_at(&self, step: usize) -> f64 {
        self.rate * self.decay(step)
    }

    /// The learning rate of soft labels in step `step`, along the same curve.
    pub fn label_rate_at(&self, step: usize) -> f64 {
        self.label_rate * self.decay(step)
    }

    /// The part of the first rate that is left in step `step` of unrolled training, along the same curve.
    pub fn unroll_decay(&self, step: usize) -> f64 {
        decay(step, self.unroll)
    }

    fn decay(&self, step: usize) -> f64 {
        decay(step, self.steps)
    }
}

fn decay(step: usize, steps: usize) -> f64 {
    let done = step as f64 / steps.saturating_sub(1).max(1) as f64;
    0.02 + 0.98 * 0.5 * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Init, LabelKind, LabelSource};
    use crate::rows::Shape;

    fn mean() -> Terms {
        Terms(vec![(Term::Mean, 1.0)])
    }

    fn header(frequencies: usize) -> Header {
        Header { frequencies, ..crate::sketch::test_header() }
    }

    #[test]
    fn options_win_over_defaults() {
        let options = Options { steps: Some(7), learning_rate: Some(0.5), method: Method::Mean, ..Options::default() };
        let recipe = Recipe::choose(&options, &header(4), 10).unwrap();
        assert_eq!(
            recipe,
            Recipe {
                steps: 7,
                rate: 0.5,
                label_rate: LABEL_RATE,
                terms: mean(),
                unroll: 0,
                experts: 8,
                unroll_width: 32
            }
        );
    }

    #[test]
    fn a_sketch_without_frequencies_is_matched_by_means_or_refused() {
        let choose = |method| Recipe::choose(&Options { method, ..Options::default() }, &header(0), 10);
        assert_eq!(choose(Method::Auto).unwrap().terms, mean());
        let e = choose(Method::Characteristic).unwrap_err().to_string();
        assert!(e.contains("frequencies => 1024") && e.contains("'mean'"), "{e}");
        let options = Options { learned_frequencies: 8, ..Options::default() };
        Recipe::choose(&options, &header(4), 10).unwrap();
        let e = Recipe::choose(&options, &header(0), 10).unwrap_err().to_string();
        assert!(e.contains("learned_frequencies => 0"), "{e}");
    }

    #[test]
    fn unrolled_training_is_the_default_for_few_pictures_where_enough_real_ones_are_kept_and_the_way_is_left_open() {
        let unroll = |reservoir, shape, options: &Options, ipc| {
            let mut header = Header { reservoir, ..header(4) };
            header.recipe.shape = shape;
            Recipe::choose(options, &header, ipc).unwrap().unroll
        };
        let picture = |channels, side| Shape::Picture { channels, height: side, width: side };
        let (small, large, open) = (picture(1, 8), picture(3, 64), Options::default());
        assert_eq!([4, 5, 20, 21, 50, 51].map(|ipc| unroll(250, small, &open, ipc)), [800, 280, 280, 400, 400, 0]);
        assert_eq!([249, 250].map(|kept| unroll(kept, small, &open, 1)), [0, 800]);
        assert_eq!([82, 83].map(|kept| unroll(kept, large, &open, 1)), [0, 200]);
        assert_eq!(unroll(250, Shape::Vector { len: 64 }, &open, 1), 0);
        let mosaic = Options { mosaic: 2, ..open.clone() };
        assert_eq!(
            [1, 2, 15, 50, 51].map(|ipc| unroll(250, small, &mosaic, ipc)),
            [800, 280, 400, 400, 0],
            "4, 8, 24, 80 and 84 pictures"
        );
        let all = Options { mosaic_rows: Some(99), ..mosaic };
        assert_eq!([20, 21].map(|ipc| unroll(250, small, &all, ipc)), [400, 0], "80 and 84 pictures");
        let asked = Options { experts: Some(3), ..open.clone() };
        assert_eq!([1, 99].map(|ipc| unroll(0, small, &asked, ipc)), [280, 400], "asked for");
        assert_eq!(unroll(250, small, &Options { experts: Some(0), ..open.clone() }, 10), 800);
        let wide = Options { unroll_width: Some(64), ..open.clone() };
        assert_eq!([1, 99].map(|ipc| unroll(0, small, &wide, ipc)), [800, 400], "asked for");
        let experts = |options: &Options, ipc| Recipe::choose(options, &header(4), ipc).unwrap().experts;
        assert_eq!([1, 4, 5, 50].map(|ipc| experts(&open, ipc)), [0, 0, 8, 8]);
        assert_eq!([1, 50].map(|ipc| experts(&asked, ipc)), [3, 3]);
        let soft = Options { label_kind: LabelKind::Soft, method: Method::Ridge, ..open.clone() };
        assert_eq!([4, 5, 50, 51].map(|ipc| unroll(250, small, &soft, ipc)), [800, 280, 400, 0]);
        let tried = Options { experts: Some(0), ..soft.clone() };
        assert_eq!([4, 5].map(|ipc| unroll(250, small, &tried, ipc)), [800, 0]);
        for source in [LabelSource::Teacher, LabelSource::Both] {
            let other = Options { soft_labels: source, ..soft.clone() };
            assert_eq!([1, 10].map(|ipc| unroll(250, small, &other, ipc)), [0, 0]);
        }
        for other in [
            Options { steps: Some(5), ..open.clone() },
            Options { learning_rate: Some(0.1), ..open.clone() },
            Options { terms: Some(mean()), ..open.clone() },
            Options { method: Method::Mean, ..open.clone() },
            Options { init: Init::Noise, ..open },
            Options { soft_labels: LabelSource::Both, ..soft },
        ] {
            assert_eq!(unroll(250, small, &other, 1), 0);
            assert_eq!(unroll(0, small, &Options { unroll: Some(3), ..other.clone() }, 99), 3);
            assert_eq!(unroll(0, small, &Options { experts: Some(3), ..other }, 99), 400);
        }
    }

    #[test]
    fn the_rate_falls_along_a_cosine_to_two_percent() {
        let terms = Terms(vec![]);
        let recipe = Recipe { steps: 101, rate: 2.0, label_rate: 0.5, terms, unroll: 0, experts: 0, unroll_width: 8 };
        let near = |step, expected: f64| assert!((recipe.rate_at(step) - expected).abs() < 1e-12);
        near(0, 2.0);
        near(50, 2.0 * 0.51);
        near(100, 0.04);
        near(1000, 0.04);
        assert_eq!(Recipe { steps: 1, ..recipe }.rate_at(0), 2.0);
    }
}
