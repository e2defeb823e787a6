//! `distill_union_agg(sketch)`: sketches flow in, the sketch of all their rows flows out, exactly.

use std::mem::size_of;
use std::sync::Arc;

use datafusion::common::cast::as_struct_array;
use datafusion::common::{internal_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
use datafusion::scalar::ScalarValue;

use super::sketch_values::sketch_arguments;
use crate::arrow::array::{Array, ArrayRef, StructArray};
use crate::arrow::datatypes::DataType;
use crate::kernels::sums::SEVERAL;
use crate::sketch::{self, ClassSketch, Header, SketchColumn};

/// The aggregate's name.
pub(super) const NAME: &str = "distill_union_agg";

/// Sketches that are added together. Of more, memory is read in too many places at once: with 16 it takes a third longer.
const TOGETHER: usize = SEVERAL;

/// The aggregate function `distill_union_agg(sketch) -> sketch`.
///
/// Sums are integers, so any order, partitioning and merge tree gives the same bits; sketches that were made differently are
/// refused with both values named. NULLs are passed over; of NULLs alone the union is NULL.
pub fn distill_union_agg_udaf() -> AggregateUDF {
    AggregateUDF::new_from_impl(UnionAgg::default())
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct UnionAgg {
    signature: Signature,
}

impl Default for UnionAgg {
    fn default() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for UnionAgg {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        sketch_arguments(NAME, types, 1)
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(sketch::data_type())
    }

    fn accumulator(&self, _args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Union::default()))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// A sum of sketches.
#[derive(Debug, Default)]
pub(super) struct Union {
    sketch: Option<(Header, ClassSketch)>,
}

impl Union {
    /// Adds one sketch.
    pub(super) fn add(&mut self, header: Header, sketch: ClassSketch) -> Result<()> {
        match &mut self.sketch {
            None => self.sketch = Some((header, sketch)),
            Some((ours, sum)) => {
                ours.join(&header)?;
                sum.merge(&sketch)?;
            }
        }
        Ok(())
    }

    /// Adds the sketches of one column.
    pub(super) fn add_arrays(&mut self, values: &[ArrayRef]) -> Result<()> {
        let [values] = values else { return plan_err!("{NAME} takes one column of sketches") };
        let values = as_struct_array(values)?;
        let mut column = SketchColumn::new(values);
        let mut joined: Option<Header> = None;
        // Sketches of the joined header that are read, and not added yet, with their rows.
        let mut waiting: Vec<(usize, ClassSketch)> = Vec::with_capacity(TOGETHER);
        for row in (0..values.len()).filter(|row| values.is_valid(*row)) {
            let bound = self.sketch.as_ref().and_then(|(_, sum)| sum.reservoir.bound());
            let sketch = column.read_unchecked(row, bound)?;
            let Some(header) = column.header() else { continue };
            // Joining a header twice changes nothing.
            if self.sketch.is_some() && joined.as_ref() == Some(header) {
                waiting.push((row, sketch));
                if waiting.len() == TOGETHER {
                    self.add_unchecked(&mut waiting, values)?;
                }
                continue;
            }
            let header = header.clone();
            self.add_unchecked(&mut waiting, values)?;
            let mut sketch = column.read(row, bound)?;
            // It stays, the column goes.
            sketch.make_own();
            self.add(header.clone(), sketch)?;
            joined = Some(header);
        }
        self.add_unchecked(&mut waiting, values)
    }

    /// Adds sketches that were read from these rows of `column`, and whose sums weren't looked at; none wait afterwards.
    fn add_unchecked(&mut self, waiting: &mut Vec<(usize, ClassSketch)>, column: &StructArray) -> Result<()> {
        let Some((_, sum)) = self.sketch.as_mut() else { return Ok(()) };
        let sketches: Vec<&ClassSketch> = waiting.iter().map(|(_, sketch)| sketch).collect();
        if !sum.merge_several_unchecked(&sketches)? {
            // Says what is wrong.
            let mut column = SketchColumn::new(column);
            waiting.iter().try_for_each(|(row, _)| column.read(*row, None).map(drop))?;
            return internal_err!("sums of sketches that are too large, and aren't");
        }
        waiting.clear();
        Ok(())
    }

    /// The sum; NULL of none.
    pub(super) fn value(&self) -> Result<ScalarValue> {
        match &self.sketch {
            None => ScalarValue::try_from(&sketch::data_type()),
            Some((header, sum)) => {
                // Of all rows that were read, those that remain.
                sum.reservoir.check(header.frequency_seed)?;
                Ok(ScalarValue::Struct(Arc::new(sketch::to_array(header, std::slice::from_ref(sum))?)))
            }
        }
    }

    /// Bytes of memory it holds.
    pub(super) fn bytes(&self) -> usize {
        let strings = |h: &Header| h.pool.capacity() + h.numerics.capacity() + h.recipe.augment.capacity();
        // The origin's schema is small beside the sums of any pool.
        self.sketch.as_ref().map_or(0, |(header, sum)| strings(header) + sum.bytes())
    }
}

impl Accumulator for Union {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add_arrays(values)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.add_arrays(states)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.value()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.value()?])
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.bytes()
    }
}
