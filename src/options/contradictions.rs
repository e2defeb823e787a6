//! A whole set of options flows in; those that contradict each other are refused by name.

use crate::error::{Error, Result};
use crate::options::{
    Curve, Init, LabelKind, LabelSource, Layers, Method, Moments, Network, Options, PoolKind, Ranges, Sizes, Term,
};

/// Rejects options that are given side by side and say the same thing in two ways; `given` are their names.
pub fn check_given<'a>(given: impl IntoIterator<Item = &'a str>) -> Result<()> {
    let both = given.into_iter().filter(|name| ["ipc", "rows"].contains(name)).count();
    match both {
        2.. => Err(Error::option(
            "rows",
            "ipc is given too: ipc are the rows of each class, rows those of all; give one of them",
        )),
        _ => Ok(()),
    }
}

impl Options {
    /// Rejects options that contradict each other.
    pub fn check(&self) -> Result<()> {
        if self.method.selects() {
            self.check_selection()?;
        } else if self.init == Init::Real
            && self.is_ipc_each()
            && self.reservoir_per_class.is_some_and(|r| r < self.pictures(self.ipc))
        {
            return Err(Error::option(
                "reservoir_per_class",
                format!(
                    "init => 'real' starts from {} real rows a class (ipc{}); keep at least as many, or use init => 'noise'",
                    self.pictures(self.ipc),
                    if self.mosaic > 1 { ", with mosaic" } else { "" }
                ),
            ));
        }
        if self.init == Init::Real && self.reservoir_per_class == Some(0) {
            // Only where the classes' shares aren't known yet: else ipc has been asked for above.
            return Err(Error::option(
                "reservoir_per_class",
                "init => 'real' needs at least 1; or use init => 'noise'",
            ));
        }
        if self.pool_file.is_some() {
            for (name, set) in [
                ("extractors", self.extractors.is_some()),
                ("network", self.network != Network::Auto),
                ("ranges", matches!(self.ranges, Some(Ranges::Columns(_)))),
                ("curve", self.curve != Curve::Auto),
                ("width", self.width.is_some()),
                ("depth", self.depth.is_some()),
                ("layers", self.layers != Layers::Last),
                ("sizes", self.sizes != Sizes::Same),
                ("perturb", self.perturb.is_some()),
                ("augment", self.augment != "none"),
            ] {
                if set {
                    return Err(Error::option(name, "is part of the pool file; leave it out, or leave out pool_file"));
                }
            }
        }
        if self.frequencies == Some(0) && self.method == Method::Characteristic {
            return Err(Error::option("frequencies", "method => 'characteristic' needs at least 1"));
        }
        if self.moments == Some(Moments::None)
            && let Some((term, _)) = self.loss_terms().0.iter().find(|(term, _)| term.needs_moments())
        {
            let what = if *term == Term::Ridge { "a ridge regression's loss" } else { "the term 'calibration'" };
            return Err(Error::option("moments", format!("{what} needs second moments; leave it out")));
        }
        self.check_labels()?;
        if self.passes > 1 && self.steps == Some(0) {
            let message = "each pass goes on with the steps, and steps => 0 leaves it none; leave one of them out";
            return Err(Error::option("passes", message));
        }
        if self.pool != PoolKind::Random && self.pool_file.is_some() {
            return Err(Error::option("pool", "pool_file has the extractors already; leave one of them out"));
        }
        if self.perturb.is_some() && self.pool == PoolKind::Random {
            let message = "moves the extractors of a training run apart, and pool => 'random' trains none; leave it out, or use pool => 'trained' or \
                           'early'";
            return Err(Error::option("perturb", message));
        }
        if self.unrolled_by().is_some() && self.reservoir_per_class == Some(0) {
            let message = "unroll trains or tries networks on real rows that are kept; keep some, or use unroll => 0";
            return Err(Error::option("reservoir_per_class", message));
        }
        if let (Some(0), Some(name)) = (self.unroll, self.unrolled_by()) {
            let message = "it is for the steps of unroll, and unroll => 0 leaves it none; leave one of them out";
            return Err(Error::option(name, message));
        }
        if self.kept_extractors > 0 {
            if self.reservoir_per_class == Some(0) {
                let message =
                    "kept_extractors looks at real rows that are kept; keep some, or use kept_extractors => 0";
                return Err(Error::option("reservoir_per_class", message));
            }
            if let Some((term, _)) = self.loss_terms().0.iter().find(|(term, _)| term.needs_moments()) {
                let message = format!(
                    "second moments are taken of all rows alone, and the term '{term}' needs them; leave one of them out"
                );
                return Err(Error::option("kept_extractors", message));
            }
        }
        for (name, asked) in
            [("kept_extractors", self.kept_extractors > 0), ("learned_frequencies", self.learned_frequencies > 0)]
        {
            if asked && self.steps == Some(0) {
                let message = "it is for the optimizer's steps, and steps => 0 leaves it none; leave one of them out";
                return Err(Error::option(name, message));
            }
        }
        if self.mosaic_rows.is_some() && self.mosaic <= 1 {
            let message = "it says how many rows hold several pictures, and mosaic => 1 stores one in each; use mosaic => 2, or leave it out";
            return Err(Error::option("mosaic_rows", message));
        }
        self.check_frequencies()?;
        if self.alpha == 0.0 && self.beta == 0.0 {
            return Err(Error::option("alpha", "alpha and beta are both 0: nothing would be matched"));
        }
        Ok(())
    }

    /// Rejects scales without a frequency of their own, and learned frequencies that nothing could be learned for.
    fn check_frequencies(&self) -> Result<()> {
        let scales = self.frequency_scales.count();
        if let Some(n) = self.frequencies.filter(|n| (1..scales).contains(n)) {
            let message = format!("{scales} scales for frequencies => {n}: give fewer scales, or more frequencies");
            return Err(Error::option("frequency_scales", message));
        }
        if self.learned_frequencies == 0 {
            return Ok(());
        }
        if self.reservoir_per_class == Some(0) {
            let message = "learned_frequencies compares rows with real ones that are kept; keep some, or use learned_frequencies => 0";
            return Err(Error::option("reservoir_per_class", message));
        }
        if self.frequencies == Some(0) || !self.loss_terms().has(Term::Characteristic) {
            let message = "frequencies are learned beside those of the sketch, for the term 'characteristic'; leave it out, or use method => \
                           'characteristic' with frequencies => 1024";
            return Err(Error::option("learned_frequencies", message));
        }
        Ok(())
    }

    /// Rejects soft labels that come from nowhere.
    fn check_labels(&self) -> Result<()> {
        if self.label_kind == LabelKind::Hard && self.soft_labels != LabelSource::Learned {
            let message =
                format!("'{}' says where soft labels come from; use it with label_kind => 'soft'", self.soft_labels);
            return Err(Error::option("soft_labels", message));
        }
        if self.has_teacher() && self.moments == Some(Moments::None) {
            return Err(Error::option("moments", "a teacher of soft labels needs second moments; leave it out"));
        }
        let chosen = self.method != Method::Auto || self.terms.is_some();
        if self.learns_labels() && chosen && !self.loss_terms().has(Term::Ridge) {
            let what = match &self.terms {
                Some(terms) => format!("terms => '{terms}'"),
                None => format!("method => '{}'", self.method),
            };
            let message = format!(
                "'soft' labels are learned, and {what} doesn't look at them; use method => 'ridge', or a term 'ridge', or soft_labels => 'teacher'"
            );
            return Err(Error::option("label_kind", message));
        }
        Ok(())
    }

    /// Rejects what a method that chooses real rows can't do.
    fn check_selection(&self) -> Result<()> {
        let method = self.method;
        let only = "method => 'mean', 'characteristic' or 'ridge'";
        if self.label_kind == LabelKind::Soft || self.terms.is_some() {
            let option = if self.terms.is_some() { "terms" } else { "label_kind" };
            let message =
                format!("method => '{method}' chooses real rows, and optimizes nothing; leave it out, or use {only}");
            return Err(Error::option(option, message));
        }
        if self.warm_start.is_some() {
            let message =
                format!("method => '{method}' chooses real rows and starts from none; leave it out, or use {only}");
            return Err(Error::option("warm_start", message));
        }
        if self.init == Init::Noise {
            let message = format!(
                "method => '{method}' chooses real rows, init => 'noise' starts from none; leave it out, or use {only}"
            );
            return Err(Error::option("init", message));
        }
        if let Some(steps) = self.steps {
            let message = format!(
                "method => '{method}' chooses real rows and changes none: there is nothing to do in {steps} steps; leave it out, or use {only}"
            );
            return Err(Error::option("steps", message));
        }
        if self.kept_extractors > 0 {
            let message =
                format!("method => '{method}' chooses real rows and changes none; leave it out, or use {only}");
            return Err(Error::option("kept_extractors", message));
        }
        if let Some(name) = self.unrolled_by() {
            let message =
                format!("method => '{method}' chooses real rows and changes none; leave it out, or use {only}");
            return Err(Error::option(name, message));
        }
        if self.learned_frequencies > 0 {
            let message =
                format!("method => '{method}' chooses real rows and learns nothing; leave it out, or use {only}");
            return Err(Error::option("learned_frequencies", message));
        }
        if self.passes > 1 {
            let message = format!(
                "method => '{method}' chooses real rows in one pass and changes none; leave it out, or use {only}"
            );
            return Err(Error::option("passes", message));
        }
        let least = if self.is_ipc_each() { self.pictures(self.ipc) } else { 1 };
        if self.reservoir_per_class.is_some_and(|r| r < least) {
            let message = format!(
                "method => '{method}' chooses real rows of each class from those that are kept; keep at least {least}"
            );
            return Err(Error::option("reservoir_per_class", message));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Allocation, FrequencyScales, Terms};
    use crate::rows::Shape;

    const VECTOR: Shape = Shape::Vector { len: 3 };

    fn refused(options: Options) -> String {
        options.check().unwrap_err().to_string()
    }

    #[test]
    fn too_small_a_reservoir_contradicts_a_start_from_real_rows() {
        let mut o = Options { reservoir_per_class: Some(2), ..Default::default() };
        assert!(refused(o.clone()).contains("reservoir_per_class"));
        o.init = Init::Noise;
        o.check().unwrap();
    }

    #[test]
    fn methods_that_choose_real_rows_take_no_noise_no_steps_and_no_smaller_reservoir() {
        for method in [Method::Random, Method::Herding, Method::KCenter, Method::KMeans] {
            let o = Options { method, ..Default::default() };
            o.check().unwrap();
            let e = refused(Options { init: Init::Noise, ..o.clone() });
            assert!(e.contains("'init'") && e.contains("'noise'") && e.contains(method.as_str()), "{e}");
            let e = refused(Options { steps: Some(0), ..o.clone() });
            assert!(e.contains("'steps'") && e.contains(method.as_str()), "{e}");
            let e = refused(Options { reservoir_per_class: Some(9), ..o.clone() });
            assert!(e.contains("'reservoir_per_class'") && e.contains("at least 10"), "{e}");
        }
    }

    #[test]
    fn methods_that_look_at_features_choose_among_ten_times_the_rows() {
        let reservoir = |method, ipc| Options { method, ipc, ..Default::default() }.reservoir(VECTOR);
        assert_eq!((reservoir(Method::Herding, 3), reservoir(Method::KMeans, 50)), (64, 500));
        assert_eq!((reservoir(Method::Random, 50), reservoir(Method::Mean, 100)), (64, 100));
        let given = Options { method: Method::KCenter, reservoir_per_class: Some(30), ..Default::default() };
        assert_eq!(given.reservoir(VECTOR), 30);
    }

    #[test]
    fn where_shares_are_not_known_before_the_pass_up_to_a_thousand_rows_a_class_are_kept() {
        let rows = |rows, method| Options { rows: Some(rows), method, ..Default::default() }.reservoir(VECTOR);
        assert_eq!([rows(20, Method::Mean), rows(300, Method::Herding), rows(9000, Method::Mean)], [64, 300, 1000]);
        let ipc = |ipc| Options { ipc, allocation: Allocation::Sqrt, ..Default::default() }.reservoir(VECTOR);
        assert_eq!([ipc(1), ipc(50), ipc(500), ipc(2000)], [64, 500, 1000, 2000]);
        let noise = Options { rows: Some(300), init: Init::Noise, ..Default::default() };
        assert_eq!(noise.reservoir(VECTOR), 0);
        let few = Options { rows: Some(300), reservoir_per_class: Some(5), ..Default::default() };
        few.check().unwrap();
        let none = Options { reservoir_per_class: Some(0), ..few };
        assert!(refused(none.clone()).contains("at least 1; or use init => 'noise'"));
        assert!(refused(Options { method: Method::KMeans, ..none }).contains("keep at least 1"));
    }

    #[test]
    fn pictures_that_networks_are_tried_on_are_kept_however_rows_are_to_be_optimized() {
        let picture = |side| Shape::Picture { channels: 3, height: side, width: side };
        let plain = Options::default();
        assert_eq!(plain.reservoir(VECTOR), 64);
        assert_eq!([8, 32, 64, 224].map(|side| plain.reservoir(picture(side))), [1000, 333, 83, 64]);
        for other in [
            Options { steps: Some(5), ..plain.clone() },
            Options { unroll: Some(0), ..plain.clone() },
            Options { method: Method::Mean, ..plain.clone() },
            Options { label_kind: LabelKind::Soft, method: Method::Ridge, ..plain.clone() },
        ] {
            assert_eq!(other.reservoir(picture(8)), 1000);
        }
        assert_eq!(Options { method: Method::Random, ..plain.clone() }.reservoir(picture(8)), 64);
        let noise = Options { init: Init::Noise, ..plain.clone() };
        assert_eq!(noise.reservoir(picture(8)), 0);
        let noise = Options { unroll: Some(7), ..noise };
        assert_eq!(noise.reservoir(picture(8)), 1000);
        assert_eq!(Options { unroll: None, experts: Some(2), ..noise.clone() }.reservoir(picture(8)), 1000);
        let e = refused(Options { unroll: Some(0), experts: Some(2), ..plain.clone() });
        assert!(e.contains("'experts'") && e.contains("unroll => 0"), "{e}");
        Options { unroll: Some(0), experts: Some(0), ..plain.clone() }.check().unwrap();
        let e = refused(Options { unroll: Some(0), unroll_width: Some(64), ..plain.clone() });
        assert!(e.contains("'unroll_width'") && e.contains("unroll => 0"), "{e}");
        let e = refused(Options { experts: Some(2), method: Method::KMeans, ..plain.clone() });
        assert!(e.contains("'experts'") && e.contains("'k_means' chooses real rows"), "{e}");
        let e = refused(Options { reservoir_per_class: Some(0), ..noise });
        assert!(e.contains("'reservoir_per_class'") && e.contains("unroll => 0"), "{e}");
        assert!(refused(Options { unroll: Some(7), method: Method::Herding, ..plain }).contains("'unroll'"));
    }

    #[test]
    fn labels_are_learned_by_what_looks_at_them_and_moments_are_kept_for_what_needs_them() {
        let soft = Options { label_kind: LabelKind::Soft, ..Default::default() };
        soft.check().unwrap();
        Options { method: Method::Ridge, ..soft.clone() }.check().unwrap();
        let e = refused(Options { method: Method::Mean, ..soft.clone() });
        assert!(e.contains("'label_kind'") && e.contains("'ridge'"), "{e}");
        assert!(refused(Options { method: Method::Herding, ..soft }).contains("'label_kind'"));
        let none = Options { method: Method::Ridge, moments: Some(Moments::None), ..Default::default() };
        assert!(refused(none.clone()).contains("'moments'"));
        let terms = Some(Terms(vec![(Term::Mean, 1.0), (Term::Calibration, 0.1)]));
        let e = refused(Options { method: Method::Auto, terms: terms.clone(), ..none });
        assert!(e.contains("'moments'") && e.contains("'calibration'"), "{e}");
        let e = refused(Options { method: Method::Herding, terms, ..Default::default() });
        assert!(e.contains("'terms'") && e.contains("chooses real rows"), "{e}");
        let both = Options { pool: PoolKind::Early, pool_file: Some("p".into()), ..Default::default() };
        assert!(refused(both).contains("'pool'"));
    }

    #[test]
    fn what_a_pool_file_has_already_and_what_random_networks_cannot_have_is_refused() {
        let file = Options { pool_file: Some("p".into()), ..Default::default() };
        file.check().unwrap();
        for (name, options) in [
            ("'layers'", Options { layers: Layers::All, ..file.clone() }),
            ("'sizes'", Options { sizes: Sizes::Mixed, ..file.clone() }),
            ("'perturb'", Options { perturb: Some(0.1), ..file.clone() }),
        ] {
            let e = refused(options);
            assert!(e.contains(name) && e.contains("pool_file"), "{e}");
        }
        let e = refused(Options { mosaic_rows: Some(1), ..Options::default() });
        assert!(e.contains("'mosaic_rows'") && e.contains("mosaic => 2"), "{e}");
        Options { mosaic_rows: Some(1), mosaic: 2, ..Options::default() }.check().unwrap();
        let perturbed = |pool| Options { perturb: Some(0.1), pool, ..Default::default() };
        let e = refused(perturbed(PoolKind::Random));
        assert!(e.contains("'perturb'") && e.contains("'trained' or 'early'"), "{e}");
        perturbed(PoolKind::Early).check().unwrap();
        perturbed(PoolKind::Trained).check().unwrap();
        let trained = Options { layers: Layers::All, sizes: Sizes::Mixed, ..perturbed(PoolKind::Trained) };
        trained.with_trained(crate::options::PoolBytes(Default::default()), "trained".into()).check().unwrap();
    }

    #[test]
    fn frequencies_are_learned_only_with_kept_rows_and_where_something_looks_at_them() {
        let learned = Options { learned_frequencies: 8, ..Default::default() };
        learned.check().unwrap();
        let e = refused(Options { reservoir_per_class: Some(0), init: Init::Noise, ..learned.clone() });
        assert!(e.contains("'reservoir_per_class'") && e.contains("learned_frequencies => 0"), "{e}");
        Options { init: Init::Noise, ..learned.clone() }.check().unwrap();
        let e = refused(Options { steps: Some(0), ..learned.clone() });
        assert!(e.contains("'learned_frequencies'") && e.contains("steps => 0"), "{e}");
        for other in [
            Options { method: Method::Mean, ..learned.clone() },
            Options { method: Method::Herding, ..learned.clone() },
            Options { terms: Some(Terms(vec![(Term::Ridge, 1.0)])), ..learned.clone() },
            Options { frequencies: Some(0), ..learned },
        ] {
            let e = refused(other);
            assert!(e.contains("'learned_frequencies'"), "{e}");
        }
    }

    #[test]
    fn no_scale_goes_without_a_frequency() {
        let frequency_scales = FrequencyScales::new(vec![0.5, 1.0, 2.0]).unwrap();
        let scaled =
            |frequencies| Options { frequencies, frequency_scales: frequency_scales.clone(), ..Default::default() };
        [None, Some(0), Some(3)].into_iter().for_each(|n| scaled(n).check().unwrap());
        assert!(refused(scaled(Some(2))).contains("'frequency_scales'"));
    }

    #[test]
    fn further_networks_need_kept_rows_and_something_to_optimize_without_second_moments() {
        let further = Options { kept_extractors: 8, ..Default::default() };
        further.check().unwrap();
        let noise = Options { init: Init::Noise, ..further.clone() };
        noise.check().unwrap();
        let e = refused(Options { reservoir_per_class: Some(0), ..noise });
        assert!(e.contains("'reservoir_per_class'") && e.contains("kept_extractors => 0"), "{e}");
        assert!(refused(Options { method: Method::Herding, ..further.clone() }).contains("'kept_extractors'"));
        assert!(refused(Options { steps: Some(0), ..further.clone() }).contains("'kept_extractors'"));
        let e = refused(Options { method: Method::Ridge, ..further });
        assert!(e.contains("'kept_extractors'") && e.contains("'ridge'"), "{e}");
    }

    #[test]
    fn further_passes_have_steps_to_do_and_change_rows() {
        Options { passes: 3, ..Default::default() }.check().unwrap();
        let e = refused(Options { passes: 2, method: Method::Herding, ..Default::default() });
        assert!(e.contains("'passes'") && e.contains("'herding' chooses real rows"), "{e}");
        let e = refused(Options { passes: 2, steps: Some(0), ..Default::default() });
        assert!(e.contains("'passes'") && e.contains("steps => 0"), "{e}");
    }

    #[test]
    fn a_teacher_labels_what_any_loss_makes_from_moments_where_labels_are_soft() {
        let taught = Options { label_kind: LabelKind::Soft, soft_labels: LabelSource::Teacher, ..Default::default() };
        Options { method: Method::Mean, ..taught.clone() }.check().unwrap();
        let e = refused(Options { moments: Some(Moments::None), ..taught.clone() });
        assert!(e.contains("'moments'") && e.contains("teacher"), "{e}");
        let e = refused(Options { label_kind: LabelKind::Hard, ..taught.clone() });
        assert!(e.contains("'soft_labels'") && e.contains("label_kind => 'soft'"), "{e}");
        let e = refused(Options { method: Method::Mean, soft_labels: LabelSource::Both, ..taught });
        assert!(e.contains("'label_kind'") && e.contains("'teacher'"), "{e}");
        let terms = Some(Terms(vec![(Term::Characteristic, 1.0), (Term::Calibration, 0.1)]));
        let e = refused(Options { terms, label_kind: LabelKind::Soft, ..Default::default() });
        assert!(e.contains("'label_kind'") && e.contains("characteristic=1,calibration=0.1"), "{e}");
    }

    #[test]
    fn ipc_and_rows_side_by_side_are_refused() {
        check_given(["rows", "seed"]).unwrap();
        let e = check_given(["ipc", "seed", "rows"]).unwrap_err().to_string();
        assert!(e.contains("'rows'") && e.contains("ipc"), "{e}");
    }
}
