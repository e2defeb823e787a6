//! Gaps at the sketch's frequencies flow in; the weights of the frequencies flow out.

use candle_core::Tensor;

/// The share of equal weights in the player's.
pub(super) const EQUAL: f64 = 0.1;

/// The player of the frequencies' weights: the other one of NCFM's game (equation 3), who looks for the frequencies that tell real and synthetic rows apart, among those
/// that the sketch holds.
///
/// By multiplicative weights (Freund and Schapire 1999): after each step, those of the step's extractor are multiplied by `exp(rate (gap / mean gap - 1))`, gap the mean over
/// the classes, then scaled to a mean of 1 and mixed with a tenth of equal weights.
#[derive(Debug)]
pub(super) struct Player {
    /// Option `min_max`.
    rate: f64,
    /// Of each extractor, `[frequencies]`; none yet: all alike.
    pub(super) weights: Vec<Option<Tensor>>,
    /// The extractor of the last loss and its gaps, `[frequencies]`.
    last: Option<(usize, Tensor)>,
}

impl Player {
    /// For `members` extractors.
    pub(super) fn new(rate: f64, members: usize) -> Self {
        Self { rate, weights: vec![None; members], last: None }
    }

    /// The mean of `gaps` `[classes, frequencies]` of extractor `member`, weighted; the player will answer to them.
    pub(super) fn mean(&mut self, member: usize, gaps: &Tensor) -> candle_core::Result<Tensor> {
        self.last = Some((member, gaps.detach().mean(0)?));
        match self.weights.get(member).and_then(Option::as_ref) {
            Some(weights) => gaps.broadcast_mul(weights)?.mean_all(),
            None => gaps.mean_all(),
        }
    }

    /// The move that answers to the last gaps.
    pub(super) fn respond(&mut self) -> candle_core::Result<()> {
        let Some((member, gaps)) = self.last.take() else { return Ok(()) };
        let mean = gaps.mean_all()?.to_scalar::<f32>()?;
        let Some(weights) = self.weights.get_mut(member).filter(|_| mean > 0.0) else { return Ok(()) };
        let factors = gaps.affine(self.rate / f64::from(mean), -self.rate)?.exp()?;
        let new = match weights {
            Some(old) => (factors * &*old)?,
            None => factors,
        };
        let scale = (1.0 - EQUAL) / f64::from(new.mean_all()?.to_scalar::<f32>()?).max(f64::MIN_POSITIVE);
        *weights = Some(new.affine(scale, EQUAL)?);
        Ok(())
    }
}
