//! Reservoirs or a seed flow in, the synthetic rows before the first step flow out.

use rand_chacha::ChaCha12Rng;

use crate::error::{Error, Result};
use crate::extract::Scaling;
use crate::options::{Init, Options};
use crate::random;
use crate::rows::{Label, Mosaic, Rows};
use crate::sketch::{ClassSketch, Sketches};

/// Standard deviation, in the extractors' units, of what is added where a real row is used again.
const REPEAT_NOISE: f32 = 0.1;

/// `allotment[i]` rows of class i, classes in label order, `[rows, input_shape.len()]` in the extractors' units.
///
/// `init => 'real'`: the first rows of the class's reservoir, which are a uniform draw of its distinct rows. A class with fewer of
/// them than it is to get synthetic rows has them again, in turn, with a little noise, so that they can move apart. `init => 'noise'`: the
/// standard normal distribution, moved into the domain.
///
/// A class starts from its rows of `warm`, as many as there are and it is to get. Of a `mosaic`, rows are stored pictures, those first that hold several
/// (option `mosaic_rows`), each of as many real rows as it holds; each starts from one of `warm` that holds as many.
pub(crate) fn rows(
    sketches: &Sketches,
    options: &Options,
    allotment: &[usize],
    mosaic: Option<Mosaic>,
    warm: Option<&Warm>,
) -> Result<Vec<f32>> {
    let (header, ipc) = (&sketches.header, options.pictures(options.ipc));
    if let Some(warm) = warm.map(|warm| &warm.rows).filter(|rows| !rows.is_empty() && rows.shape != header.recipe.shape)
    {
        return Err(Error::option(
            "warm_start",
            format!("its rows are {}s, the sketches are of {}s", warm.shape, header.recipe.shape),
        ));
    }
    if warm.is_none() && options.init == Init::Real && options.is_ipc_each() && header.reservoir < ipc {
        return Err(Error::Sketch(format!(
            "init => 'real' starts from {ipc} real rows a class (ipc, and mosaic), the sketch keeps {}; make it with reservoir_per_class => {ipc}, or \
             use init => 'noise'",
            header.reservoir
        )));
    }
    let scaling = &header.recipe.scaling;
    let input_len = header.recipe.input_shape().len();
    let mut out = Vec::with_capacity(allotment.iter().sum::<usize>() * input_len);
    for ((label, sketch), count) in sketches.classes.iter().zip(allotment) {
        // One stream a class: a class more or less changes nothing in the others.
        let mut stream = random::stream(options.seed, &format!("synthetic rows of class {label}"));
        let from = out.len();
        let sides: Vec<usize> = options.sides(*count).collect();
        let given = warm.map_or_else(|| vec![None; *count], |warm| warm.of_class(label, &sides));
        let cold: Vec<usize> =
            sides.iter().zip(&given).filter(|(_, row)| row.is_none()).map(|(side, _)| *side).collect();
        let mut others = vec![];
        match options.init {
            _ if cold.is_empty() => {}
            Init::Real => {
                let held = cold.iter().map(|side| side * side).sum();
                real(label, sketch, held, scaling, &mut stream, &mut others)?;
                if let Some(mosaic) = mosaic {
                    others = mosaic.pack_each(&others, &cold);
                }
            }
            Init::Noise => others = random::normal(&mut stream, cold.len() * input_len),
        }
        let mut others = others.chunks(input_len.max(1));
        for row in given {
            match row {
                Some(row) => out.extend(scaling.scale(row)),
                None => out.extend(others.next().into_iter().flatten()),
            }
        }
        scaling.project(&mut out[from..]);
    }
    Ok(out)
}

/// Rows that synthetic ones start from, in the input's units.
#[derive(Clone, Debug)]
pub struct Warm {
    /// Labelled rows, of any classes.
    pub rows: Rows,
    /// Pictures a side that each of them holds; 1 where it is one.
    pub sides: Vec<usize>,
}

impl Warm {
    /// For stored rows of class `label` that are to hold as many pictures a side as `sides` says, each the next of these that holds as many, while there are such.
    fn of_class(&self, label: &Label, sides: &[usize]) -> Vec<Option<&[f32]>> {
        let mut free: Vec<usize> = (0..self.rows.len()).filter(|i| self.rows.labels[*i] == *label).collect();
        let mut next = |side: &usize| {
            let at = free.iter().position(|i| self.sides.get(*i).copied().unwrap_or(1) == *side)?;
            Some(self.rows.row(free.remove(at)))
        };
        sides.iter().map(&mut next).collect()
    }
}

fn real(
    label: &Label,
    sketch: &ClassSketch,
    count: usize,
    scaling: &Scaling,
    stream: &mut ChaCha12Rng,
    out: &mut Vec<f32>,
) -> Result<()> {
    let kept = &sketch.reservoir.rows;
    if kept.is_empty() {
        return Err(Error::Sketch(format!(
            "class {label} has no real rows to start from; make the sketch with reservoir_per_class => {count}, or use init => 'noise'"
        )));
    }
    for (i, row) in kept.iter().cycle().take(count).enumerate() {
        let from = out.len();
        out.extend(scaling.scale(&row.values.floats()));
        if i >= kept.len() {
            let noise = random::normal(stream, out.len() - from);
            out[from..].iter_mut().zip(noise).for_each(|(v, n)| *v += REPEAT_NOISE * n);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sketch::{Header, MemberSums, Reservoir};

    /// Two classes: "0" with five rows, "1" with two.
    fn sketches(reservoir: usize) -> Sketches {
        let header = Header { reservoir, ..crate::sketch::test_header() };
        let mut sketches = Sketches::new(header.clone());
        for (label, n) in [(0, 5), (1, 2)] {
            let mut sketch = ClassSketch {
                count: n,
                clipped: 0,
                missing: vec![],
                members: vec![MemberSums::default(); 3],
                moment_rows: 0,
                reservoir: Reservoir::new(reservoir),
            };
            for i in 0..n {
                let row = [i as f32 + 1.0; 6];
                sketch.reservoir.offer(Reservoir::hash(header.frequency_seed, &row, &[]), 1, &row, &[]);
            }
            sketches.classes.insert(Label::Int(label), sketch);
        }
        sketches
    }

    fn start(init: Init, reservoir: usize) -> Result<Vec<f32>> {
        rows(&sketches(reservoir), &Options { ipc: 3, init, ..Options::default() }, &[3, 3], None, None)
    }

    #[test]
    fn real_rows_come_from_the_reservoir_and_a_small_class_repeats_its_rows_with_noise() {
        let values = start(Init::Real, 4).unwrap();
        assert_eq!(values.len(), 6 * 6);
        let sketches = sketches(4);
        let scaled = |label: i64, i: usize| {
            sketches.classes[&Label::Int(label)].reservoir.rows[i].values.floats()[0] * 0.125 - 1.0
        };
        for (at, expected) in
            [(0, scaled(0, 0)), (1, scaled(0, 1)), (2, scaled(0, 2)), (3, scaled(1, 0)), (4, scaled(1, 1))]
        {
            assert_eq!(values[at * 6..at * 6 + 6], [expected; 6]);
        }
        let repeated = &values[30..];
        assert!(repeated.iter().all(|v| *v != scaled(1, 0) && (v - scaled(1, 0)).abs() < 0.6));
    }

    #[test]
    fn classes_may_get_different_numbers_of_rows_and_more_than_the_sketch_keeps() {
        let options = Options { rows: Some(7), ..Options::default() };
        let uneven = rows(&sketches(2), &options, &[6, 1], None, None).unwrap();
        assert_eq!(uneven.len(), 7 * 6);
        // What a class starts from doesn't depend on the others, nor on how many more it gets.
        assert_eq!(uneven[..12], start(Init::Real, 4).unwrap()[..12]);
        assert_eq!(uneven[36..], start(Init::Real, 4).unwrap()[18..24]);
        assert_ne!(uneven[12..18], uneven[..6]);
    }

    #[test]
    fn noise_stays_in_the_range_and_repeats_with_the_seed() {
        let values = start(Init::Noise, 0).unwrap();
        assert!(values.len() == 36 && values.iter().all(|v| (-1.0..=1.0).contains(v)));
        assert_eq!(values, start(Init::Noise, 0).unwrap());
        assert_ne!(values[..18], values[18..]);
    }

    #[test]
    fn a_warm_start_comes_first_and_the_others_start_as_init_says() {
        use crate::rows::Shape;
        let values = [5.0f32; 12].into_iter().chain([7.0; 6]).collect();
        let labels = vec![Label::Int(1), Label::Int(1), Label::Int(9)];
        let given = Rows { shape: Shape::Vector { len: 6 }, values, labels, exact: vec![], skipped: 0 };
        let warm = Warm { rows: given.clone(), sides: vec![1; 3] };
        let options = Options { ipc: 3, ..Options::default() };
        let found = rows(&sketches(4), &options, &[3, 3], None, Some(&warm)).unwrap();
        let cold = start(Init::Real, 4).unwrap();
        assert_eq!(found[..18], cold[..18]);
        assert_eq!(found[18..30], [5.0 * 0.125 - 1.0; 12]);
        assert_eq!(found[30..], cold[18..24]);
        let other = Rows { shape: Shape::Vector { len: 3 }, values: vec![0.0; 9], ..given };
        let other = Warm { rows: other, sides: vec![1; 3] };
        let e = rows(&sketches(4), &options, &[3, 3], None, Some(&other)).unwrap_err().to_string();
        assert!(e.contains("'warm_start'") && e.contains("vector of 3") && e.contains("vector of 6"), "{e}");
    }

    #[test]
    fn a_row_that_holds_several_starts_from_one_that_does_and_a_whole_one_from_a_whole_one() {
        use crate::rows::Shape;
        let rows = Rows {
            shape: Shape::Vector { len: 1 },
            values: (0..6).map(|v| v as f32).collect(),
            labels: [1, 1, 0, 1, 1, 1].map(Label::Int).to_vec(),
            exact: vec![],
            skipped: 0,
        };
        let warm = Warm { rows, sides: vec![1, 2, 2, 3, 1, 2] };
        let given = |label, sides: &[usize]| -> Vec<f32> {
            let rows = warm.of_class(&Label::Int(label), sides);
            rows.iter().map(|row| row.map_or(-1.0, |row| row[0])).collect()
        };
        assert_eq!(given(1, &[2, 2, 2, 1]), [1.0, 5.0, -1.0, 0.0]);
        assert_eq!(given(1, &[1, 1, 1]), [0.0, 4.0, -1.0]);
        assert_eq!(given(0, &[2, 1]), [2.0, -1.0]);
    }

    #[test]
    fn too_small_a_reservoir_is_an_error_that_names_the_way_out() {
        let e = start(Init::Real, 2).unwrap_err().to_string();
        assert!(e.contains("reservoir_per_class => 3") && e.contains("'noise'"), "{e}");
    }
}
