//! The kind of rows flows in; what `method => 'auto'` stands for flows out, and how much of it is unrolled training.

use crate::options::{FrequencyScales, Init, LabelKind, LabelSource, Method, Options, PoolKind, Sizes, tried_on};
use crate::rows::Shape;

/// Extractors of a pool by default.
pub(crate) const EXTRACTORS: usize = 16;

/// And where unrolled training comes after what they are for: the rows it starts from needn't be as good (docs/results.md), and sketching all rows costs as much as it does.
const FEW_EXTRACTORS: usize = 4;

/// Most stored rows a class that end with unrolled training by default, and most pictures that these hold (docs/results.md).
const UNROLLED_IPC: usize = 50;
const UNROLLED_PICTURES: usize = 80;

/// Of each class, so many rows hold several pictures, or one in so many where that is more: where rows are few, four pictures of half the size teach more than a whole one, but with
/// more rows ever fewer of them do (docs/results.md).
const FEWEST_MOSAICS: usize = 2;
const ONE_MOSAIC_IN: usize = 5;

/// Most rows a class, decoded, that are made so that networks do well on real rows; more follow experts (docs/results.md).
const TRIED_IPC: usize = 4;

/// Experts to follow.
const EXPERTS: usize = 8;

/// Steps of unrolled training that follow experts, of up to [`FEW_FOLLOWING`] rows a class and of more: about ten minutes of CPU time for few.
const FOLLOWING: [usize; 2] = [280, 400];
const FEW_FOLLOWING: usize = 20;

/// Steps that are tried on real rows, a third as long at ipc 1.
const TRYING: usize = 800;

impl Options {
    /// The options with the method that `auto` stands for: herding for tables, where real rows chosen by their features teach models as much as
    /// optimized ones do, or more, at a fraction of the cost (docs/results.md, Census-Income); optimization for pictures and lists, and wherever an option
    /// is given that only an optimizer has; a ridge regression's loss where labels are to be learned, as no other term looks at them.
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

    /// Of `rows` stored rows of a class, how many hold several pictures; the others are whole.
    pub(crate) fn mosaics(&self, rows: usize) -> usize {
        match self.mosaic {
            0 | 1 => 0,
            _ => self.mosaic_rows.unwrap_or(FEWEST_MOSAICS.max(rows.div_ceil(ONE_MOSAIC_IN))).min(rows),
        }
    }

    /// Whether some rows may hold several pictures and others one. Known before how many a class gets, as far as it can be.
    pub(crate) fn mixes_mosaics(&self) -> bool {
        match self.is_ipc_each() {
            _ if self.mosaic <= 1 || self.mosaic_rows == Some(0) => false,
            true => self.mosaics(self.ipc) < self.ipc,
            false => true,
        }
    }

    /// The experts that unrolled training of `ipc` stored rows a class follows; 0: it tries networks on real rows.
    fn followed(&self, ipc: usize) -> usize {
        self.experts.unwrap_or(if self.pictures(ipc) <= TRIED_IPC { 0 } else { EXPERTS })
    }

    /// Whether rows of `shape`, of which `ipc` are made and `kept` real ones kept of each class, end with unrolled training where `unroll` doesn't say: if something else asks for
    /// it, or if the way is left open and enough is kept. What the options stand for ([`Self::automatic`]) is known by then.
    fn unrolls(&self, shape: Shape, ipc: usize, kept: usize) -> bool {
        let automatic = match self.label_kind {
            LabelKind::Hard => self.method == Method::Auto,
            // What `auto` stands for there. Many rows with learned labels that are tried on real ones get worse (docs/results.md).
            LabelKind::Soft => {
                let (few, learned) = (self.pictures(ipc) <= TRIED_IPC, self.soft_labels == LabelSource::Learned);
                self.method == Method::Ridge && learned && (few || self.followed(ipc) > 0)
            }
        };
        let open = automatic
            && self.init == Init::Real
            && self.terms.is_none()
            && self.steps.is_none()
            && self.learning_rate.is_none()
            && ipc <= UNROLLED_IPC
            && self.pictures(ipc) <= UNROLLED_PICTURES
            && kept >= tried_on(shape);
        matches!(shape, Shape::Picture { .. }) && (open || self.unrolled_by().is_some())
    }

    /// Steps of unrolled training of `ipc` stored rows a class of `shape`, of whose class `kept` real ones are kept, and the experts that these steps follow: no steps where `unroll` isn't
    /// given, unless the way is left open, or experts or a width are asked for, and enough real rows are kept ([`Self::unrolls`]).
    ///
    /// They take three to eight minutes of a job on Fashion-MNIST on two cores, with the experts, and eight of a mosaic's; pictures of more than 32 x 32 pixels, each of which costs as
    /// much more, get fewer, at least 25.
    pub(crate) fn unrolled(&self, shape: Shape, ipc: usize, kept: usize) -> (usize, usize) {
        let experts = self.followed(ipc);
        let steps = match (self.unroll, shape) {
            (Some(steps), _) => steps,
            (None, Shape::Picture { height, width, .. }) if self.unrolls(shape, ipc, kept) => {
                let following = FOLLOWING[usize::from(self.pictures(ipc) > FEW_FOLLOWING)];
                let steps = if experts > 0 { following } else { TRYING };
                (steps * 32 * 32 / (height * width).max(1)).clamp(25, steps)
            }
            (None, _) => 0,
        };
        (steps, experts)
    }

    /// [`Self::unrolled`] of a job on rows of `shape`, before they are read. `None`: of so many rows in all it isn't known how many a class gets.
    pub(crate) fn unrolled_before(&self, shape: Shape) -> Option<(usize, usize)> {
        self.rows.is_none().then(|| self.unrolled(shape, self.ipc, self.reservoir(shape)))
    }

    /// Extractors of the pool for a job on rows of `shape`.
    pub(crate) fn extractors_for(&self, shape: Shape) -> usize {
        let unrolls = self.unrolled_before(shape).map_or(self.unroll.unwrap_or(0), |(steps, _)| steps) > 0;
        // Nothing else asks the pool for more than a start: a teacher's labels are what its networks say.
        let plain = self.pool == PoolKind::Random && self.sizes == Sizes::Same && !self.has_teacher();
        let few = unrolls && plain && self.passes == 1;
        self.extractors.unwrap_or(if few { FEW_EXTRACTORS } else { EXTRACTORS })
    }

    /// These options for a sketch that is kept: of as many extractors, whatever is to be made of it.
    pub(crate) fn for_a_sketch(mut self) -> Self {
        if self.pool_file.is_none() {
            self.extractors.get_or_insert(EXTRACTORS);
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

    #[test]
    fn few_rows_hold_several_pictures_and_of_many_a_fifth_does() {
        let options = |mosaic_rows| Options { mosaic: 2, mosaic_rows, ..Options::default() };
        let rows = [1, 2, 3, 10, 11, 50];
        assert_eq!(rows.map(|n| options(None).mosaics(n)), [1, 2, 2, 2, 3, 10]);
        assert_eq!(rows.map(|n| options(None).pictures(n)), [4, 8, 9, 16, 20, 80]);
        assert_eq!(rows.map(|n| options(Some(5)).mosaics(n)), [1, 2, 3, 5, 5, 5]);
        assert_eq!(rows.map(|n| Options::default().pictures(n)), rows);
        assert_eq!(options(Some(1)).sides(3).collect::<Vec<_>>(), [2, 1, 1]);
        let mixes = |options: Options| options.mixes_mosaics();
        assert_eq!([1, 2, 3].map(|ipc| mixes(Options { ipc, ..options(None) })), [false, false, true]);
        assert!(mixes(Options { rows: Some(4), ..options(None) }), "how many a class gets isn't known");
        assert!(
            !mixes(Options { rows: Some(4), ..options(Some(0)) }) && !mixes(Options { mosaic: 1, ..options(None) })
        );
    }

    #[test]
    fn a_pool_is_small_where_pictures_end_with_unrolled_training_and_nothing_else_needs_it() {
        let picture = Shape::Picture { channels: 1, height: 28, width: 28 };
        let extractors = |options: &Options, shape| options.extractors_for(shape);
        let plain = Options { ipc: 10, ..Options::default() };
        assert_eq!(extractors(&plain, picture), 4);
        assert_eq!(extractors(&plain, Shape::Vector { len: 784 }), 16);
        assert_eq!(extractors(&plain.clone().for_a_sketch(), picture), 16);
        let file = Options { pool_file: Some("pool.safetensors".into()), ..plain.clone() };
        assert_eq!(file.for_a_sketch().extractors, None, "the file has its own");
        let soft = Options { label_kind: LabelKind::Soft, ..plain.clone() };
        assert_eq!([1, 10].map(|ipc| extractors(&Options { ipc, ..soft.clone() }.automatic(false), picture)), [4, 4]);
        let asked = Options { steps: Some(5), unroll_width: Some(8), ..plain.clone() };
        assert_eq!(extractors(&asked, picture), 4);
        for many in [
            Options { ipc: 51, ..plain.clone() },
            Options { unroll: Some(0), ..plain.clone() },
            Options { steps: Some(5), ..plain.clone() },
            Options { reservoir_per_class: Some(249), ..plain.clone() },
            Options { rows: Some(100), ..plain.clone() },
            Options { rows: Some(100), unroll: Some(0), ..plain.clone() },
            Options { passes: 2, ..plain.clone() },
            Options { sizes: Sizes::Mixed, ..plain.clone() },
            Options { pool: PoolKind::Trained, ..plain.clone() },
            Options { method: Method::Herding, ..plain.clone() },
            Options { soft_labels: LabelSource::Teacher, unroll: Some(3), ..soft.clone() },
            Options { soft_labels: LabelSource::Both, unroll: Some(3), ..soft.clone() }.automatic(false),
            Options { experts: Some(0), ..soft }.automatic(false),
        ] {
            assert_eq!(extractors(&many, picture), 16, "{many:?}");
        }
        assert_eq!(extractors(&Options { rows: Some(100), unroll: Some(3), ..plain.clone() }, picture), 4);
        assert_eq!(extractors(&Options { extractors: Some(9), ..plain }, picture), 9);
    }
}
