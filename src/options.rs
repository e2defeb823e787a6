//! A name and a value flow in, from SQL, `SET`, a command flag or Python; one typed, checked set of options flows out.
//!
//! [`SPECS`] is the only list of options there is: names, defaults, documentation and parsing. The SQL planner, the
//! `SET distill.*` extension, the command's flags and `schemas/options.json` are all made from it.

mod automatic;
mod choices;
mod contradictions;
mod declared;
mod frequency_scales;
mod specs;
mod terms;
#[cfg(test)]
mod tests;
mod text;
mod value;

pub use choices::{
    Allocation, Curve, Encoding, Init, Input, LabelKind, LabelSource, Layers, Method, Moments, Network, OnNull,
    OptimizerKind, PoolKind, Sizes, Term,
};
pub use contradictions::check_given;
pub use declared::{Declared, ImageSize, Range, Ranges};
pub use frequency_scales::FrequencyScales;
pub use specs::{Kind, OptionSpec, SPECS};
pub use terms::Terms;
pub use value::{AUGMENTS, Value};

use std::sync::Arc;

use crate::error::{Error, Result, nearest_hint};
use crate::rows::Shape;

/// The options of a distillation job. `None` means: chosen from the rows, see the option's documentation.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // each field is documented in SPECS, where users read it
pub struct Options {
    pub ipc: usize,
    pub rows: Option<usize>,
    pub allocation: Allocation,
    pub weight: Option<String>,
    pub label: Option<String>,
    pub features: Option<Vec<String>>,
    pub categorical: Vec<String>,
    pub exclude: Vec<String>,
    pub classes: Option<Vec<String>>,
    pub method: Method,
    pub terms: Option<Terms>,
    pub steps: Option<usize>,
    pub unroll: Option<usize>,
    pub experts: Option<usize>,
    pub unroll_width: Option<usize>,
    /// Further networks that see the kept rows alone.
    pub kept_extractors: usize,
    pub passes: usize,
    pub extractors: Option<usize>,
    pub network: Network,
    pub width: Option<usize>,
    pub depth: Option<usize>,
    pub layers: Layers,
    pub sizes: Sizes,
    pub pool: PoolKind,
    pub perturb: Option<f64>,
    pub pool_file: Option<String>,
    /// No option of its own: what `pool_file` holds, where it isn't a local file.
    pub pool_bytes: Option<PoolBytes>,
    pub frequencies: Option<usize>,
    pub frequency_scales: FrequencyScales,
    pub learned_frequencies: usize,
    pub alpha: f64,
    pub beta: f64,
    pub min_max: f64,
    pub init: Init,
    pub warm_start: Option<String>,
    pub label_kind: LabelKind,
    pub soft_labels: LabelSource,
    pub mosaic: usize,
    /// Of each class's rows, how many hold several pictures, where `mosaic` is more than 1; the others are whole ones. `None`: by how many there are.
    pub mosaic_rows: Option<usize>,
    pub augment: String,
    pub image_size: Option<ImageSize>,
    pub ranges: Option<Ranges>,
    pub curve: Curve,
    pub encoding: Encoding,
    pub reservoir_per_class: Option<usize>,
    pub moments: Option<Moments>,
    pub moment_dim: Option<usize>,
    pub input: Option<Input>,
    pub on_null: OnNull,
    pub optimizer: OptimizerKind,
    pub learning_rate: Option<f64>,
    pub seed: u64,
    pub device: String,
    pub threads: Option<usize>,
}

/// Real rows of `shape` kept of each class where networks are to be trained or tried on them: 1,000, fewer where they are large (more than 1,024 numbers), at least 64.
pub(crate) fn trained_on(shape: Shape) -> usize {
    (1000 * 1024 / shape.len().max(1)).clamp(64, 1000)
}

/// Of these, how many do to try networks on.
pub(crate) fn tried_on(shape: Shape) -> usize {
    trained_on(shape).min(250)
}

/// The bytes of a pool file that was fetched from elsewhere.
#[derive(Clone, PartialEq)]
pub struct PoolBytes(pub Arc<Vec<u8>>);

impl std::fmt::Debug for PoolBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PoolBytes({} bytes)", self.0.len())
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ipc: 10,
            rows: None,
            allocation: Allocation::Equal,
            weight: None,
            label: None,
            features: None,
            categorical: vec![],
            exclude: vec![],
            classes: None,
            method: Method::Auto,
            terms: None,
            steps: None,
            unroll: None,
            experts: None,
            unroll_width: None,
            kept_extractors: 0,
            passes: 1,
            extractors: None,
            network: Network::Auto,
            width: None,
            depth: None,
            layers: Layers::Last,
            sizes: Sizes::Same,
            pool: PoolKind::Random,
            perturb: None,
            pool_file: None,
            pool_bytes: None,
            frequencies: None,
            frequency_scales: FrequencyScales::default(),
            learned_frequencies: 0,
            alpha: 0.5,
            beta: 0.5,
            min_max: 0.0,
            init: Init::Real,
            warm_start: None,
            label_kind: LabelKind::Hard,
            soft_labels: LabelSource::Learned,
            mosaic: 1,
            mosaic_rows: None,
            augment: "none".into(),
            image_size: None,
            ranges: None,
            curve: Curve::Auto,
            encoding: Encoding::Source,
            reservoir_per_class: None,
            moments: None,
            moment_dim: None,
            input: None,
            on_null: OnNull::Error,
            optimizer: OptimizerKind::Adam,
            learning_rate: None,
            seed: 0,
            device: "auto".into(),
            threads: None,
        }
    }
}

impl Options {
    /// Sets option `name`; unknown names fail with the nearest one, values of the wrong type or range with what was expected.
    pub fn set(&mut self, name: &str, value: &Value) -> Result<()> {
        let spec = SPECS.iter().find(|s| s.name == name).ok_or_else(|| Error::UnknownOption {
            name: name.into(),
            hint: nearest_hint(name, SPECS.iter().map(|s| s.name)),
        })?;
        (spec.set)(self, value)?;
        // Two ways to say one thing: the later one counts, so that an argument wins over the session's default.
        match name {
            "ipc" if *value != Value::Null => self.rows = None,
            "rows" if *value != Value::Null => self.ipc = Self::default().ipc,
            _ => {}
        }
        Ok(())
    }

    /// Name, value as text (`None`: chosen from the rows) and documentation of every option.
    pub fn entries(&self) -> impl Iterator<Item = (&'static str, Option<String>, &'static str)> + '_ {
        SPECS.iter().map(|s| (s.name, (s.get)(self), s.doc))
    }

    /// The options that differ from the defaults, as `name=value` in the order of [`SPECS`].
    pub fn changed(&self) -> Vec<(&'static str, String)> {
        let default = Self::default();
        SPECS
            .iter()
            .filter(|s| (s.get)(self) != (s.get)(&default))
            .map(|s| (s.name, (s.get)(self).unwrap_or_default()))
            .collect()
    }

    /// Real rows kept per class of rows of `shape`: `reservoir_per_class`, else what `method`, `init` and `unroll` need.
    ///
    /// Where the classes' shares depend on how many classes there are or how large they are, they aren't known before the pass: then at most 1,000
    /// are kept, or what `ipc` asks for.
    pub fn reservoir(&self, shape: Shape) -> usize {
        let ipc = self.pictures(self.ipc);
        let compares = matches!(self.method, Method::Herding | Method::KCenter | Method::KMeans);
        let wanted = match (self.rows, self.allocation) {
            _ if self.init == Init::Noise && !compares => 0,
            (Some(rows), _) => self.pictures(rows).clamp(64, 1000),
            (None, _) if compares => (10 * ipc).max(64),
            (None, Allocation::Equal) => ipc.max(64),
            (None, Allocation::Proportional | Allocation::Sqrt) => (10 * ipc).min(1000).max(ipc).max(64),
        };
        // For unrolled training and the like, whether or not it is asked for now: sketches of the same rows shouldn't differ by how they are to be optimized.
        let picture = matches!(shape, Shape::Picture { .. });
        let made = !self.method.selects() && picture && self.init == Init::Real;
        let asked = self.unrolled_by().is_some() || self.kept_extractors > 0 || self.learned_frequencies > 0;
        let trained_on = if made || asked { trained_on(shape) } else { 0 };
        self.reservoir_per_class.unwrap_or(wanted.max(trained_on))
    }

    /// The option that asks for unrolled training, if one does.
    pub(crate) fn unrolled_by(&self) -> Option<&'static str> {
        let asked = |n: Option<usize>| n.is_some_and(|n| n > 0);
        let asking = [("unroll", self.unroll), ("experts", self.experts), ("unroll_width", self.unroll_width)];
        asking.into_iter().find_map(|(name, n)| asked(n).then_some(name))
    }

    /// Pictures a side in each of `rows` stored rows of a class: those that hold several come first, see options `mosaic` and `mosaic_rows`.
    pub fn sides(&self, rows: usize) -> impl Iterator<Item = usize> + use<> {
        let (packed, side) = (self.mosaics(rows), self.mosaic);
        (0..rows).map(move |row| if row < packed { side } else { 1 })
    }

    /// Pictures that `rows` stored rows of a class hold.
    pub fn pictures(&self, rows: usize) -> usize {
        let packed = self.mosaics(rows);
        packed * self.mosaic * self.mosaic + rows - packed
    }

    /// Whether the extractors are trained on the source's rows.
    pub fn trains(&self) -> bool {
        self.pool != PoolKind::Random && self.pool_file.is_none()
    }

    /// Whether soft labels are learned with the rows.
    pub fn learns_labels(&self) -> bool {
        self.label_kind == LabelKind::Soft && self.soft_labels != LabelSource::Teacher
    }

    /// Whether soft labels are a teacher's, alone or beside what is learned.
    pub fn has_teacher(&self) -> bool {
        self.label_kind == LabelKind::Soft && self.soft_labels != LabelSource::Learned
    }

    /// The options with the `pool` that was trained for them, called `name` in messages, in place of what says how to make it.
    pub fn with_trained(&self, pool: PoolBytes, name: String) -> Self {
        let default = Self::default();
        Self {
            pool: default.pool,
            perturb: None,
            pool_file: Some(name),
            pool_bytes: Some(pool),
            extractors: None,
            network: default.network,
            width: None,
            depth: None,
            layers: default.layers,
            sizes: default.sizes,
            augment: default.augment,
            curve: default.curve,
            ranges: self.ranges.clone().filter(|ranges| matches!(ranges, Ranges::List(_))),
            ..self.clone()
        }
    }

    /// Whether every class gets `ipc` rows, whatever the classes turn out to be.
    pub(crate) fn is_ipc_each(&self) -> bool {
        self.rows.is_none() && self.allocation == Allocation::Equal
    }
}
