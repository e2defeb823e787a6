//! Optimized inputs and the sketch's rates flow in; rows that miss values as often as the real ones flow out.

use crate::rows::table::Missing;
use crate::sketch::Sketches;

/// The rows nearest to `inputs` `[rows, input_len]`, of which `allotment[i]` are of class i; of a table whose rows can miss values, in each class as many rows miss each value as the
/// rate among the class's real rows asks for, rounded: those whose inputs miss it most. The others take the nearest value that isn't missing.
pub(crate) fn reproduced(sketches: &Sketches, allotment: &[usize], mut inputs: Vec<f32>) -> Vec<f32> {
    let recipe = &sketches.header.recipe;
    let input_len = recipe.input_shape().len();
    for (place, missing) in sketches.header.missing().iter().enumerate() {
        let mut rest = inputs.as_mut_slice();
        for (sketch, count) in sketches.classes.values().zip(allotment) {
            let (rows, others) = std::mem::take(&mut rest).split_at_mut(count * input_len);
            rest = others;
            let missed = sketch.missing.get(place).copied().unwrap_or(0);
            mark(rows, input_len, *missing, rounded(missed, sketch.count, rows.len() / input_len));
        }
    }
    recipe.scaling.unscale(&inputs)
}

/// `missed` of `count`, as a number of `rows`.
fn rounded(missed: u64, count: u64, rows: usize) -> usize {
    let share = missed as f64 / count.max(1) as f64;
    ((share * rows as f64).round() as usize).min(rows)
}

/// Lets the `most` rows miss the value that miss it most already, and no others.
fn mark(rows: &mut [f32], input_len: usize, place: Missing, most: usize) {
    let at = place.input + place.at;
    let mut order: Vec<usize> = (0..rows.len() / input_len).collect();
    order.sort_by(|a, b| rows[b * input_len + at].total_cmp(&rows[a * input_len + at]).then(a.cmp(b)));
    for (rank, row) in order.into_iter().enumerate() {
        // One more than any probability, or less: it decides alone.
        rows[row * input_len + at] = if rank < most { 2.0 } else { -1.0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_that_miss_it_most_miss_it_and_no_others() {
        // A number, its flag, a category of two with a missing one.
        let mut rows = vec![0.1, 0.7, 0.2, 0.3, 0.5, 0.2, 0.1, 0.6, 0.3, 0.1, 0.3, 0.9, 0.4, 0.6, 0.0];
        let flag = Missing { raw: 1, input: 1, len: 1, at: 0, mark: 1.0 };
        mark(&mut rows, 5, flag, 2);
        assert_eq!([rows[1], rows[6], rows[11]], [2.0, -1.0, 2.0]);
        let category = Missing { raw: 2, input: 2, len: 3, at: 2, mark: 2.0 };
        mark(&mut rows, 5, category, 1);
        assert_eq!([rows[4], rows[9], rows[14]], [2.0, -1.0, -1.0]);
        mark(&mut rows, 5, category, 0);
        assert_eq!([rows[4], rows[9], rows[14]], [-1.0; 3]);
    }

    #[test]
    fn rates_round_to_rows() {
        for (missed, count, rows, expected) in
            [(0, 10, 5, 0), (10, 10, 5, 5), (3, 10, 10, 3), (1, 10, 4, 0), (0, 0, 4, 0)]
        {
            assert_eq!(rounded(missed, count, rows), expected);
        }
    }
}
