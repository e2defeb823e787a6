//! Features and classes flow in, exact additive sums flow out: the only thing the optimizer knows of the real rows.

mod arrow_form;
mod arrow_read;
mod distance;
mod header;
mod moments;
pub mod needs;
mod numbers;
mod origin;
pub(crate) mod projection;
mod reservoir;
mod schema_bytes;
mod shared;
mod sketcher;
mod sums;

pub(crate) use arrow_form::with_left_sums;
pub use arrow_form::{data_type, is_sketch, to_array};
pub use arrow_read::{SketchColumn, from_array};
pub use distance::{Distance, distance};
pub use header::{FORMAT, Header};
pub(crate) use moments::projection as moment_projection;
pub use moments::{MomentsHeader, UNITS as MOMENT_UNITS};
pub use numbers::Numbers;
pub use origin::{Origin, OriginFeature};
pub use projection::NORM_EPSILON;
pub use reservoir::{Kept, Reservoir};
pub(crate) use schema_bytes::{read as schema_from_bytes, write as schema_to_bytes};
pub use shared::Shared;
pub(crate) use sketcher::working_bytes;
pub use sketcher::{FoldTimes, MICRO_BATCH, Sketcher};
pub(crate) use sums::LeftSums;
pub use sums::{COS_SCALE, ClassSketch, EMBEDDING_BOUND, EMBEDDING_SCALE, MAX_COUNT, MemberSums};

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::error::{Error, Result};
use crate::rows::Label;

/// Most distinct labels of a source: more are taken for a mistake (an id column).
pub const MAX_CLASSES: usize = 10_000;

/// The sketches of all classes of a source, made with one header.
#[derive(Clone, Debug)]
pub struct Sketches {
    /// What they were made with.
    pub header: Header,
    /// One sketch a class.
    pub classes: BTreeMap<Label, ClassSketch>,
}

impl Sketches {
    /// Sketches of no class yet.
    pub fn new(header: Header) -> Self {
        Self { header, classes: BTreeMap::new() }
    }

    /// Adds the sketch of one class made with `header`; refuses one that doesn't belong with those that are there.
    pub fn add(&mut self, label: Label, header: &Header, mut sketch: ClassSketch) -> Result<()> {
        self.header.join(header)?;
        match self.classes.entry(label) {
            Entry::Vacant(slot) => {
                // It stays, the array that it was read from shouldn't.
                sketch.make_own();
                slot.insert(sketch);
                Ok(())
            }
            Entry::Occupied(mut slot) => slot.get_mut().merge(&sketch),
        }
    }

    /// Adds all of `other`; on an error (it was made differently, or a class gets too many rows) nothing is added.
    pub fn merge(&mut self, other: Sketches) -> Result<()> {
        let mut header = self.header.clone();
        header.join(&other.header)?;
        for (label, sketch) in &other.classes {
            if let Some(ours) = self.classes.get(label) {
                ours.check_merge(sketch)?;
            }
        }
        self.header = header;
        for (label, sketch) in other.classes {
            match self.classes.entry(label) {
                Entry::Vacant(slot) => {
                    slot.insert(sketch);
                }
                Entry::Occupied(mut slot) => slot.get_mut().merge(&sketch)?,
            }
        }
        Ok(())
    }

    /// Refuses sketches that keep no real rows of a class; `what` wants some, and `enough` of each would do. The way out is `without`.
    pub(crate) fn check_kept(&self, what: &str, enough: usize, without: &str) -> Result<()> {
        match self.classes.iter().find(|(_, sketch)| sketch.reservoir.rows.is_empty()) {
            Some((label, _)) => Err(Error::Sketch(format!(
                "class {label} has no real rows {what}; make the sketch with reservoir_per_class => {enough}, or use {without}"
            ))),
            None => Ok(()),
        }
    }

    /// Bytes of memory they hold.
    pub fn bytes(&self) -> usize {
        self.classes.values().map(ClassSketch::bytes).sum()
    }

    /// Rows of all classes.
    pub fn count(&self) -> u64 {
        self.classes.values().map(|c| c.count).sum()
    }
}

#[cfg(test)]
pub(crate) use header::tests::header as test_header;
