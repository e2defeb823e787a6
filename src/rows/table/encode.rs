//! Raw rows of a table flow in, what each feature column holds flows out.

use crate::rows::table::{ColumnScaling, TableScaling};
use crate::rows::{Label, Shape};

/// What one feature column holds, row by row.
pub(in crate::rows) enum Column<'a> {
    /// One number a row, or none.
    Numbers(Vec<Option<f32>>),
    /// One category a row, or none.
    Categories(Vec<Option<&'a Label>>),
    /// The numbers of lists or pictures of this shape.
    Cells(Shape, Vec<f32>),
}

/// The feature columns of the raw rows `values` `[n, raw_len]`.
pub(in crate::rows) fn split<'a>(scaling: &'a TableScaling, values: &[f32]) -> Vec<Column<'a>> {
    let mut out = vec![];
    let (width, mut at) = (scaling.raw_len().max(1), 0);
    for column in &scaling.columns {
        let own = |row: &[f32]| row[at];
        let rows = values.chunks_exact(width);
        match column {
            ColumnScaling::Number(_) => out.push(Column::Numbers(rows.map(|row| Some(own(row))).collect())),
            ColumnScaling::Missing { .. } => {
                if let Some(Column::Numbers(numbers)) = out.last_mut() {
                    for (number, row) in numbers.iter_mut().zip(rows) {
                        *number = number.filter(|_| own(row) < 0.5);
                    }
                }
            }
            ColumnScaling::Category(scaling) => {
                // What is no position of a category is NULL: the one after the last.
                out.push(Column::Categories(rows.map(|row| scaling.values.get(own(row) as usize)).collect()));
            }
            ColumnScaling::Numbers(scaling) => {
                let len = scaling.shape.len();
                let cells = rows.flat_map(|row| &row[at..at + len]).copied().collect();
                out.push(Column::Cells(scaling.shape, cells));
            }
        }
        at += column.raw_len();
    }
    out
}
