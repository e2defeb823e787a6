//! Batches of training pictures and how far training is flow in; the same pictures as a published recipe augments them, and its learning rate, flow out.

use candle_core::Tensor;
use rand::Rng;
use rand_chacha::ChaCha12Rng;

use super::cutmix::CutMix;
use crate::choice::choice;
use crate::error::{Error, Result};
use crate::kernels::Transform;

/// Probability that [`TrainingRecipe::Idc`] mixes a batch.
const MIXED: f64 = 0.5;

choice! {
    /// How networks are trained on a set: the evaluation of a published code. Both are SGD with momentum 0.9 and weight decay 5e-4.
    #[derive(Default)]
    TrainingRecipe {
        /// That of DC, DSA and DM (Zhao and Bilen 2021, 2023): batches of 256, a tenth of the rate from half time on, one of DSA's transforms a batch.
        #[default]
        Dc = "dc",
        /// That of IDC (Kim et al., ICML 2022), which DREAM and DANCE take over, for pictures: batches of 64, a fifth of the rate from two thirds of the time on and a twenty-fifth from
        /// five sixths; a flip, colours and one of crop, scale and rotation together, and CutMix (Yun et al., ICCV 2019) of every other batch.
        Idc = "idc",
    }
}

impl TrainingRecipe {
    /// Rows of a training batch, unless told otherwise.
    pub fn batch(self) -> usize {
        match self {
            Self::Dc => 256,
            Self::Idc => 64,
        }
    }

    /// Transforms of pictures, as option `augment` lists them, unless told otherwise.
    pub(super) fn augment(self) -> &'static str {
        match self {
            Self::Dc => Transform::DSA,
            // What CutMix pastes hides as much as a cutout would.
            Self::Idc => "color_crop_flip_scale_rotate",
        }
    }

    /// The learning rate of an epoch of training that starts with the rate `first`.
    pub(super) fn rate(self, first: f64, epoch: usize, epochs: usize) -> f64 {
        match self {
            Self::Dc if epoch < epochs.div_ceil(2) => first,
            Self::Dc => first / 10.0,
            Self::Idc => {
                let falls = [2 * epochs / 3, 5 * epochs / 6].into_iter().filter(|from| epoch >= *from);
                first * 0.2f64.powi(falls.count() as i32)
            }
        }
    }

    /// Pictures `x` `[batch, ..dims]`, augmented by the transforms of `strategy`; `dims` is `[channels, height, width]`.
    pub(super) fn augmented(
        self,
        strategy: &str,
        x: &Tensor,
        dims: [usize; 3],
        rng: &mut ChaCha12Rng,
    ) -> candle_core::Result<Tensor> {
        let batch = x.dim(0)?;
        let mut apply = |strategy: &str, x: &Tensor| Transform::per_row(strategy, batch, dims, rng).apply(x);
        if self == Self::Dc {
            return apply(strategy, x);
        }
        // As IDC's `DiffAug`: all of these, and one of the others between the first two and the last.
        let (always, others): (Vec<&str>, Vec<&str>) =
            strategy.split('_').partition(|name| ["flip", "color", "cutout"].contains(name));
        let listed = |name: &'static str| always.contains(&name).then_some(name);
        let others = others.join("_");
        let one = (!others.is_empty()).then_some(others.as_str());
        [listed("flip"), listed("color"), one, listed("cutout")]
            .into_iter()
            .flatten()
            .try_fold(x.clone(), |x, strategy| apply(strategy, &x))
    }

    /// How a batch of so many pictures is mixed, if it is.
    pub(super) fn mix(self, batch: usize, dims: [usize; 3], rng: &mut ChaCha12Rng) -> Option<CutMix> {
        (self == Self::Idc && rng.random_bool(MIXED)).then(|| CutMix::draw(batch, dims, rng))
    }
}

impl std::str::FromStr for TrainingRecipe {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse("recipe", text)
    }
}

#[cfg(test)]
mod tests;
