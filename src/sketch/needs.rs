//! The options flow in; what the sketch has to hold for them flows out.

use crate::extract::PoolRecipe;
use crate::options::{FrequencyScales, Moments, Options, Term};

/// Frequencies per extractor where the method needs them and the option doesn't say.
pub const DEFAULT_FREQUENCIES: usize = 1024;

/// Most dimensions of the second moments where nothing needs them and option `moment_dim` doesn't say.
const DEFAULT_DIM: usize = 256;

/// Most dimensions of the second moments that a ridge regression is fitted in.
const RIDGE_DIM: usize = 1024;

/// Frequencies per extractor that the sketch carries: `frequencies`, else what `method` needs. `auto` needs them; methods that
/// choose real rows don't.
pub fn frequencies(options: &Options) -> usize {
    if !options.method.extracts() {
        return 0;
    }
    let needed = if options.loss_terms().has(Term::Characteristic) { DEFAULT_FREQUENCIES } else { 0 };
    options.frequencies.unwrap_or(needed)
}

/// The scales of those frequencies; where there are none, the default.
pub fn frequency_scales(options: &Options) -> FrequencyScales {
    if frequencies(options) == 0 { FrequencyScales::default() } else { options.frequency_scales.clone() }
}

/// The second moments that the sketch carries, of how many dimensions, for features of length `feature_len`: what option `moments` says, else those of
/// all classes together where a term of the loss or a teacher of soft labels needs them; `None`: none.
pub fn moments(options: &Options, feature_len: usize) -> Option<(Moments, usize)> {
    let needed = options.loss_terms().need_moments() || options.has_teacher();
    let kind = options.moments.unwrap_or(if needed { Moments::Pooled } else { Moments::None });
    let dim = options.moment_dim.unwrap_or(if needed { RIDGE_DIM } else { DEFAULT_DIM });
    (options.method.extracts() && kind != Moments::None).then_some((kind, dim.min(feature_len)))
}

/// Bytes of memory of the extractors and of their frequencies.
pub(crate) fn extractor_bytes(recipe: &PoolRecipe, options: &Options) -> usize {
    size_of::<f32>() * recipe.extractors * recipe.feature_len() * frequencies(options) + recipe.network_bytes(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Method, Terms};

    #[test]
    fn second_moments_are_kept_where_they_are_asked_for_or_a_term_needs_them() {
        let of = |options: &Options| moments(options, 2048);
        let mut options = Options { method: Method::Mean, ..Options::default() };
        assert_eq!(of(&options), None);
        options.terms = Some(Terms(vec![(Term::Mean, 1.0), (Term::Ridge, 0.1)]));
        assert_eq!(of(&options), Some((Moments::Pooled, 1024)));
        assert_eq!(moments(&options, 512), Some((Moments::Pooled, 512)));
        options.terms = Some(Terms(vec![(Term::Characteristic, 1.0), (Term::Calibration, 0.1)]));
        assert_eq!(of(&options), Some((Moments::Pooled, 1024)));
        options.moments = Some(Moments::None);
        assert_eq!(of(&options), None);
        let asked = Options { moments: Some(Moments::Class), method: Method::Mean, ..Options::default() };
        assert_eq!(of(&asked), Some((Moments::Class, 256)));
        assert_eq!(of(&Options { method: Method::Random, ..asked }), None);
    }

    #[test]
    fn only_methods_that_use_the_characteristic_function_pay_for_frequencies() {
        let of = |method, frequencies| super::frequencies(&Options { method, frequencies, ..Options::default() });
        assert_eq!(of(Method::Mean, None), 0);
        assert_eq!(of(Method::KCenter, None), 0);
        assert_eq!(of(Method::Random, Some(16)), 0);
        assert_eq!(of(Method::Characteristic, None), DEFAULT_FREQUENCIES);
        assert_eq!(of(Method::Mean, Some(16)), 16);
        assert_eq!(of(Method::Auto, Some(0)), 0);
        let frequency_scales = FrequencyScales::new(vec![0.5, 2.0]).unwrap();
        let scaled = Options { frequency_scales: frequency_scales.clone(), ..Options::default() };
        assert_eq!(super::frequency_scales(&scaled), frequency_scales);
        let without = Options { method: Method::Mean, ..scaled };
        assert_eq!(super::frequency_scales(&without), FrequencyScales::default());
    }
}
