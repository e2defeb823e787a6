//! The kind of rows flows in; what `method => 'auto'` stands for flows out.

use crate::options::{FrequencyScales, Init, LabelKind, Method, Options};

impl Options {
    /// The options with the method that `auto` stands for: herding for tables, where real rows chosen by their features teach models as much as
    /// optimized ones do, or more, at a fraction of the cost (docs/results.md, Census-Income); optimization for pictures and lists, and wherever an option
    /// is given that only an optimizer has; a ridge regression's loss where labels are to be learned, as nothing else looks at them.
    pub fn automatic(mut self, table: bool) -> Self {
        let optimizes = self.steps.is_some()
            || self.learning_rate.is_some()
            || self.frequencies.is_some()
            || self.frequency_scales != FrequencyScales::default()
            || self.learned_frequencies > 0
            || self.warm_start.is_some()
            || self.unrolled_by().is_some()
            || self.kept_extractors > 0
            || self.passes > 1
            || self.terms.is_some()
            || self.label_kind == LabelKind::Soft
            || self.init == Init::Noise;
        if self.method == Method::Auto && table && !optimizes {
            self.method = Method::Herding;
        }
        if self.method == Method::Auto && self.learns_labels() && self.terms.is_none() {
            self.method = Method::Ridge;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::LabelSource;

    #[test]
    fn tables_are_chosen_from_unless_something_asks_for_an_optimizer() {
        let method = |options: Options, table| options.automatic(table).method;
        let plain = Options::default();
        assert_eq!(method(plain.clone(), true), Method::Herding);
        assert_eq!(method(plain.clone(), false), Method::Auto);
        assert_eq!(method(Options { steps: Some(5), ..plain.clone() }, true), Method::Auto);
        assert_eq!(method(Options { init: Init::Noise, ..plain.clone() }, true), Method::Auto);
        assert_eq!(method(Options { learned_frequencies: 8, ..plain.clone() }, true), Method::Auto);
        assert_eq!(method(Options { method: Method::Mean, ..plain.clone() }, true), Method::Mean);
        for table in [true, false] {
            let soft = Options { label_kind: LabelKind::Soft, ..plain.clone() };
            assert_eq!(method(soft.clone(), table), Method::Ridge);
            let taught = Options { soft_labels: LabelSource::Teacher, ..soft };
            assert_eq!(method(taught, table), Method::Auto);
            assert_eq!(method(Options { passes: 2, ..plain.clone() }, table), Method::Auto);
        }
    }
}
