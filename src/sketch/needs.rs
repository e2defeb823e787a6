//! The options flow in; what the sketch has to hold for them flows out.

use crate::extract::PoolRecipe;
use crate::options::{Method, Options};

/// Frequencies per extractor where the method needs them and the option doesn't say.
pub const DEFAULT_FREQUENCIES: usize = 1024;

/// Frequencies per extractor that the sketch carries: `frequencies`, else what `method` needs. `auto` needs them; methods that
/// choose real rows don't.
pub fn frequencies(options: &Options) -> usize {
    if !options.method.extracts() {
        return 0;
    }
    options.frequencies.unwrap_or(match options.method {
        Method::Mean | Method::Random | Method::Herding | Method::KCenter | Method::KMeans => 0,
        Method::Auto | Method::Characteristic => DEFAULT_FREQUENCIES,
    })
}

/// Bytes of memory of the extractors and of their frequencies.
pub(crate) fn extractor_bytes(recipe: &PoolRecipe, options: &Options) -> usize {
    size_of::<f32>() * recipe.extractors * recipe.feature_len() * frequencies(options) + recipe.network_bytes(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_methods_that_use_the_characteristic_function_pay_for_frequencies() {
        let of = |method, frequencies| super::frequencies(&Options { method, frequencies, ..Options::default() });
        assert_eq!(of(Method::Mean, None), 0);
        assert_eq!(of(Method::KCenter, None), 0);
        assert_eq!(of(Method::Random, Some(16)), 0);
        assert_eq!(of(Method::Characteristic, None), DEFAULT_FREQUENCIES);
        assert_eq!(of(Method::Mean, Some(16)), 16);
        assert_eq!(of(Method::Auto, Some(0)), 0);
    }
}
