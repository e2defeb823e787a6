//! Pictures flow in, siamese-augmented pictures flow out, differentiably (DSA, Zhao and Bilen, ICML 2021).
//!
//! The transforms and their strengths are those of DSA's published code (`ParamDiffAug`): one of the strategy's transforms is picked and applied.
//! Geometric ones are one bilinear warp with zeros outside, pixel centres at halves (`align_corners=False`, PyTorch's default since 1.3, which
//! that code runs with). Strengths of colour are in units of standardised pixels, about the extractor's.

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor, bail};
use rand::Rng;
use rand_chacha::ChaCha12Rng;

/// Probability of a flip.
const FLIP: f32 = 0.5;
/// Largest and, inverted, smallest factor of scale.
const SCALE: f32 = 1.2;
/// Largest rotation either way, in degrees.
const ROTATE: f32 = 15.0;
/// Largest shift of a crop, as a part of the side.
const CROP: f32 = 0.125;
/// Side of the cut-out square, as a part of the side.
const CUTOUT: f32 = 0.5;
/// Width of the range of brightness, centred on 0.
const BRIGHTNESS: f32 = 1.0;
/// Largest factor of saturation.
const SATURATION: f32 = 2.0;
/// Smallest factor of contrast; the largest is 1 more.
const CONTRAST: f32 = 0.5;

/// One drawn augmentation for each row of a batch, or one for all rows (siamese).
#[derive(Clone, Debug, PartialEq)]
pub struct Transform {
    /// One entry a row, or one for all.
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    None,
    /// Added brightness, factor of saturation, factor of contrast.
    Color(Vec<[f32; 3]>),
    /// Rows and columns that are set to 0: first row, end, first column, end.
    Cutout(Vec<[usize; 4]>),
    /// Output pixel `(y, x)` reads the input at `(a y + b x + c, d y + e x + f)`.
    Warp(Vec<[f32; 6]>),
}

impl Transform {
    /// All transforms of DSA: the strategy of its evaluation.
    pub const DSA: &str = "color_crop_cutout_flip_scale_rotate";

    /// Draws one transform for all rows (siamese). `strategy` is `none` or a `_`-joined list as option `augment` takes it;
    /// as in DSA one of the listed transforms is picked. `dims` is `[channels, height, width]`.
    pub fn siamese(strategy: &str, dims: [usize; 3], rng: &mut ChaCha12Rng) -> Self {
        Self::draw(strategy, 1, true, dims, rng)
    }

    /// Draws a transform of its own for each of `batch` rows; which of the listed transforms it is is the same for all rows
    /// (as in DSA's evaluation).
    pub fn per_row(strategy: &str, batch: usize, dims: [usize; 3], rng: &mut ChaCha12Rng) -> Self {
        Self::draw(strategy, batch, false, dims, rng)
    }

    fn draw(strategy: &str, n: usize, siamese: bool, [_, h, w]: [usize; 3], rng: &mut ChaCha12Rng) -> Self {
        let known = ["color", "crop", "cutout", "flip", "scale", "rotate"];
        let listed: Vec<&str> = strategy.split('_').filter(|name| known.contains(name)).collect();
        if listed.is_empty() {
            return Self { kind: Kind::None };
        }
        let rows = 0..n;
        let kind = match listed[rng.random_range(0..listed.len())] {
            "color" => Kind::Color(
                rows.map(|_| {
                    let mut u = || rng.random::<f32>();
                    [(u() - 0.5) * BRIGHTNESS, u() * SATURATION, u() + CONTRAST]
                })
                .collect(),
            ),
            "cutout" => Kind::Cutout(rows.map(|_| cutout(h, w, rng)).collect()),
            "crop" => Kind::Warp(rows.map(|_| crop(h, w, rng)).collect()),
            "flip" => Kind::Warp(rows.map(|_| flip(w, rng)).collect()),
            "scale" => Kind::Warp(rows.map(|_| scale(siamese, h, w, rng)).collect()),
            _ => Kind::Warp(rows.map(|_| rotate(h, w, rng)).collect()),
        };
        Self { kind }
    }

    /// Applies it to `x` `[batch, channels, height, width]`, differentiable in `x`; outside the picture is `0`. A row's result doesn't depend on
    /// the other rows. Transforms drawn per row are an error on a batch of another size.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, _, height, width) = x.dims4()?;
        let drawn = match &self.kind {
            Kind::None => return Ok(x.clone()),
            Kind::Color(rows) => rows.len(),
            Kind::Cutout(rows) => rows.len(),
            Kind::Warp(rows) => rows.len(),
        };
        if drawn != 1 && drawn != batch {
            bail!("transforms were drawn for {drawn} rows, found {batch}");
        }
        match &self.kind {
            Kind::None => Ok(x.clone()),
            Kind::Color(rows) => color(rows, x),
            Kind::Cutout(rows) => {
                let mask: Vec<f32> = rows.iter().flat_map(|row| outside(*row, height, width)).collect();
                x.broadcast_mul(&Tensor::from_vec(mask, (drawn, 1, height, width), x.device())?)
            }
            Kind::Warp(rows) if matches!(x.device(), Device::Cpu) => {
                x.contiguous()?.apply_op1(Warp { rows: rows.clone(), adjoint: false })
            }
            Kind::Warp(rows) => warp_by_gather(rows, x),
        }
    }
}

/// The pixels of a picture, row by row: `0` within a rectangle of first row, end, first column, end, and `1` outside.
pub(crate) fn outside(rectangle: [usize; 4], height: usize, width: usize) -> impl Iterator<Item = f32> {
    let [top, bottom, left, right] = rectangle;
    (0..height * width).map(move |i| {
        let within = (top..bottom).contains(&(i / width)) && (left..right).contains(&(i % width));
        if within { 0.0 } else { 1.0 }
    })
}

/// Brightness, saturation, contrast, one after the other.
fn color(rows: &[[f32; 3]], x: &Tensor) -> Result<Tensor> {
    let factor = |i: usize| {
        let values: Vec<f32> = rows.iter().map(|r| r[i]).collect();
        Tensor::from_vec(values, (rows.len(), 1, 1, 1), x.device())
    };
    let x = x.broadcast_add(&factor(0)?)?;
    let grey = x.mean_keepdim(1)?;
    let x = x.broadcast_sub(&grey)?.broadcast_mul(&factor(1)?)?.broadcast_add(&grey)?;
    let mean = x.flatten_from(1)?.mean_keepdim(1)?.reshape((x.dim(0)?, 1, 1, 1))?;
    x.broadcast_sub(&mean)?.broadcast_mul(&factor(2)?)?.broadcast_add(&mean)
}

fn cutout(h: usize, w: usize, rng: &mut ChaCha12Rng) -> [usize; 4] {
    let mut side = |n: usize| {
        let size = (n as f32 * CUTOUT + 0.5) as usize;
        let centre = rng.random_range(0..n + (1 - size % 2));
        // The square is cut off at the edges, but a pixel beyond lands on the edge, as in the published code.
        let at = |i: usize| (centre + i).saturating_sub(size / 2).min(n - 1);
        if size == 0 { (0, 0) } else { (at(0), at(size - 1) + 1) }
    };
    let ((top, bottom), (left, right)) = (side(h), side(w));
    [top, bottom, left, right]
}

fn crop(h: usize, w: usize, rng: &mut ChaCha12Rng) -> [f32; 6] {
    let mut shift = |n: usize| {
        let most = (n as f32 * CROP + 0.5) as i32;
        rng.random_range(-most..=most) as f32
    };
    let (dy, dx) = (shift(h), shift(w));
    [1.0, 0.0, dy, 0.0, 1.0, dx]
}

fn flip(w: usize, rng: &mut ChaCha12Rng) -> [f32; 6] {
    if rng.random::<f32>() < FLIP { [1.0, 0.0, 0.0, 0.0, -1.0, w as f32 - 1.0] } else { [1.0, 0.0, 0.0, 0.0, 1.0, 0.0] }
}

fn scale(siamese: bool, h: usize, w: usize, rng: &mut ChaCha12Rng) -> [f32; 6] {
    let mut factor = || 1.0 / SCALE + rng.random::<f32>() * (SCALE - 1.0 / SCALE);
    let sx = factor();
    // The published code draws both from the same seed when siamese.
    let sy = if siamese { sx } else { factor() };
    from_normalised([sx, 0.0, 0.0, sy], h, w)
}

fn rotate(h: usize, w: usize, rng: &mut ChaCha12Rng) -> [f32; 6] {
    let angle = ((rng.random::<f32>() - 0.5) * 2.0 * ROTATE).to_radians();
    from_normalised([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], h, w)
}

/// The warp in pixels of `x' = xx x + xy y, y' = yx x + yy y` in PyTorch's coordinates, where the picture spans -1 to 1 both ways.
fn from_normalised([xx, xy, yx, yy]: [f32; 4], h: usize, w: usize) -> [f32; 6] {
    let (h, w) = (h as f32, w as f32);
    // Centre of the picture in pixels; a pixel is 2 / side wide.
    let (cy, cx) = ((h - 1.0) / 2.0, (w - 1.0) / 2.0);
    let (xy, yx) = (xy * w / h, yx * h / w);
    [yy, yx, cy - yy * cy - yx * cx, xy, xx, cx - xy * cy - xx * cx]
}

/// The input pixels that make an output pixel, with their weights; weight 0 where there is none.
type Taps = [(usize, f32); 4];

/// The input rows or columns of `n` that make position `at`, with their weights.
fn axis(at: f32, n: usize) -> [(usize, f32); 2] {
    // floor(), without a call of the library for it.
    let whole = at as i32;
    let first = if whole as f32 > at { whole.saturating_sub(1) } else { whole };
    let weight = at - first as f32;
    [(first, 1.0 - weight), (first.saturating_add(1), weight)]
        .map(|(i, weight)| if i >= 0 && (i as usize) < n { (i as usize, weight) } else { (0, 0.0) })
}

fn taps(&[a, b, c, d, e, f]: &[f32; 6], height: usize, width: usize) -> impl Iterator<Item = Taps> {
    // Most warps turn nothing: a row of the output reads the same rows everywhere.
    let straight = b == 0.0 && d == 0.0;
    let of = |n: usize, slope: f32, shift: f32| -> Vec<_> {
        (0..if straight { n } else { 0 }).map(|i| axis(slope * i as f32 + shift, n)).collect()
    };
    let (all_rows, all_columns) = (of(height, a, c), of(width, e, f));
    (0..height * width).map(move |i| {
        let (y, x) = (i / width, i % width);
        let (rows, columns) = if straight {
            (all_rows[y], all_columns[x])
        } else {
            let (y, x) = (y as f32, x as f32);
            (axis(a * y + b * x + c, height), axis(d * y + e * x + f, width))
        };
        std::array::from_fn(|k| {
            let ((row, by_row), (column, by_column)) = (rows[k / 2], columns[k % 2]);
            (row * width + column, by_row * by_column)
        })
    })
}

/// A warp, or its adjoint, on the CPU.
struct Warp {
    rows: Vec<[f32; 6]>,
    adjoint: bool,
}

impl CustomOp1 for Warp {
    fn name(&self) -> &'static str {
        "warp"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let Some((start, end)) = layout.contiguous_offsets() else { bail!("warp: not contiguous") };
        let x = &storage.as_slice::<f32>()?[start..end];
        let (batch, channels, height, width) = layout.shape().dims4()?;
        let plane = height * width;
        let mut out = vec![0f32; x.len()];
        let mut table: Vec<Taps> = vec![];
        for row in 0..batch {
            if row == 0 || self.rows.len() > 1 {
                table.clear();
                table.extend(taps(&self.rows[row], height, width));
            }
            for channel in row * channels..(row + 1) * channels {
                let (from, to) = (&x[channel * plane..][..plane], &mut out[channel * plane..][..plane]);
                for (i, taps) in table.iter().enumerate() {
                    for &(j, weight) in taps {
                        if weight != 0.0 && self.adjoint {
                            to[j] += weight * from[i];
                        } else if weight != 0.0 {
                            to[i] += weight * from[j];
                        }
                    }
                }
            }
        }
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, _arg: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let adjoint = Self { rows: self.rows.clone(), adjoint: !self.adjoint };
        grad.contiguous()?.apply_op1_no_bwd(&adjoint).map(Some)
    }
}

/// [`Warp`] in plain candle operations: the reference, and the path of GPUs.
fn warp_by_gather(rows: &[[f32; 6]], x: &Tensor) -> Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    let plane = height * width;
    let tables: Vec<Vec<Taps>> = rows.iter().map(|r| taps(r, height, width).collect()).collect();
    let planes = x.reshape((batch, channels, plane))?.contiguous()?;
    let mut sum = planes.zeros_like()?;
    for k in 0..4 {
        let all = || tables.iter().flatten().map(|taps| taps[k]);
        let index: Vec<u32> = all().map(|(i, _)| i as u32).collect();
        let weight: Vec<f32> = all().map(|(_, w)| w).collect();
        let shape = (rows.len(), 1, plane);
        let index = Tensor::from_vec(index, shape, x.device())?.broadcast_as((batch, channels, plane))?.contiguous()?;
        let weight = Tensor::from_vec(weight, shape, x.device())?;
        sum = (sum + planes.gather(&index, 2)?.broadcast_mul(&weight)?)?;
    }
    sum.reshape((batch, channels, height, width))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{normal, stream};
    use candle_core::Var;

    const DIMS: [usize; 3] = [3, 9, 12];
    const ALL: [&str; 6] = ["color", "crop", "cutout", "flip", "scale", "rotate"];

    fn pictures(n: usize, purpose: &str) -> Tensor {
        let [c, h, w] = DIMS;
        Tensor::from_vec(normal(&mut stream(3, purpose), n * c * h * w), (n, c, h, w), &Device::Cpu).unwrap()
    }

    fn values(t: &Tensor) -> Vec<f32> {
        t.flatten_all().unwrap().to_vec1().unwrap()
    }

    fn dot(a: &Tensor, b: &Tensor) -> f32 {
        (a * b).unwrap().sum_all().unwrap().to_scalar().unwrap()
    }

    fn row(t: &Tensor, i: usize) -> Vec<f32> {
        values(&t.narrow(0, i, 1).unwrap())
    }

    #[test]
    fn gradients_are_the_adjoints_of_the_transforms() {
        for strategy in ALL {
            for n in 0..4 {
                let rng = &mut stream(n, strategy);
                let t = Transform::per_row(strategy, 5, DIMS, rng);
                let (x, g) = (Var::from_tensor(&pictures(5, "x")).unwrap(), pictures(5, "g"));
                let y = t.apply(&x).unwrap();
                let gradient = (&y * &g).unwrap().sum_all().unwrap().backward().unwrap().get(&x).unwrap().clone();
                // Colour adds a constant: compare what is linear in x.
                let constant = t.apply(&x.zeros_like().unwrap()).unwrap();
                let (there, back) = (dot(&(y - constant).unwrap(), &g), dot(&x, &gradient));
                assert!((there - back).abs() < 1e-3, "{strategy}: {there} {back}");
            }
        }
    }

    #[test]
    fn siamese_transforms_treat_all_rows_alike_and_others_do_not() {
        let one = pictures(1, "x");
        let x = one.broadcast_as((8, DIMS[0], DIMS[1], DIMS[2])).unwrap();
        for strategy in ALL {
            let y = Transform::siamese(strategy, DIMS, &mut stream(1, strategy)).apply(&x).unwrap();
            assert!((1..8).all(|i| row(&y, i) == row(&y, 0)), "{strategy}");
            let y = Transform::per_row(strategy, 8, DIMS, &mut stream(1, strategy)).apply(&x).unwrap();
            assert!((1..8).any(|i| row(&y, i) != row(&y, 0)), "{strategy}");
        }
    }

    #[test]
    fn a_row_does_not_depend_on_its_neighbours() {
        let x = pictures(6, "x");
        for strategy in ALL {
            let t = Transform::siamese(strategy, DIMS, &mut stream(4, strategy));
            let all = t.apply(&x).unwrap();
            assert_eq!(row(&all, 4), values(&t.apply(&x.narrow(0, 4, 1).unwrap()).unwrap()), "{strategy}");
        }
    }

    #[test]
    fn none_changes_nothing_and_the_same_stream_draws_the_same() {
        let x = pictures(2, "x");
        for strategy in ["none", ""] {
            let t = Transform::siamese(strategy, DIMS, &mut stream(1, "t"));
            assert_eq!(values(&t.apply(&x).unwrap()), values(&x));
        }
        let all = ALL.join("_");
        let draw = |seed| Transform::per_row(&all, 3, DIMS, &mut stream(seed, "t"));
        assert_eq!(draw(1), draw(1));
        assert!((2..9).any(|seed| draw(seed) != draw(1)));
        let picked: std::collections::HashSet<_> =
            (0..60).map(|seed| std::mem::discriminant(&draw(seed).kind)).collect();
        assert_eq!(picked.len(), 3, "colour, cutout and warps are all picked");
    }

    #[test]
    fn a_flip_mirrors_and_a_crop_shifts_exactly() {
        let x = pictures(1, "x");
        let mirrored = Transform { kind: Kind::Warp(vec![[1.0, 0.0, 0.0, 0.0, -1.0, 11.0]]) }.apply(&x).unwrap();
        let index = Tensor::from_vec((0..12u32).rev().collect(), 12, &Device::Cpu).unwrap();
        assert_eq!(values(&mirrored), values(&x.index_select(&index, 3).unwrap()));
        let shifted = Transform { kind: Kind::Warp(vec![[1.0, 0.0, 1.0, 0.0, 1.0, -2.0]]) }.apply(&x).unwrap();
        let expected = x.narrow(2, 1, 8).unwrap().pad_with_zeros(2, 0, 1).unwrap();
        let expected = expected.narrow(3, 0, 10).unwrap().pad_with_zeros(3, 2, 0).unwrap();
        assert_eq!(values(&shifted), values(&expected));
    }

    #[test]
    fn no_rotation_and_no_scale_are_the_identity_and_a_quarter_turn_turns() {
        let still = from_normalised([1.0, 0.0, 0.0, 1.0], 9, 12);
        assert_eq!(still, [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
        let square = Tensor::arange(0f32, 9.0, &Device::Cpu).unwrap().reshape((1, 1, 3, 3)).unwrap();
        let turned = Transform { kind: Kind::Warp(vec![from_normalised([0.0, -1.0, 1.0, 0.0], 3, 3)]) };
        // As torch.nn.functional.grid_sample of the grid of [[0, -1, 0], [1, 0, 0]].
        assert_eq!(values(&turned.apply(&square).unwrap()), [2.0, 5.0, 8.0, 1.0, 4.0, 7.0, 0.0, 3.0, 6.0]);
        let half = Transform { kind: Kind::Warp(vec![from_normalised([0.5, 0.0, 0.0, 0.5], 4, 4)]) };
        let ramp = Tensor::arange(0f32, 16.0, &Device::Cpu).unwrap().reshape((1, 1, 4, 4)).unwrap();
        // Twice as large: the outermost output pixel reads the input at 0.75, row and column.
        assert_eq!(values(&half.apply(&ramp).unwrap())[0], 0.75 * 4.0 + 0.75);
    }

    #[test]
    fn a_cutout_covers_at_most_a_quarter_and_touches_nothing_else() {
        let x = (pictures(1, "x").abs().unwrap() + 1.0).unwrap();
        for seed in 0..30 {
            let y = Transform::siamese("cutout", DIMS, &mut stream(seed, "t")).apply(&x).unwrap();
            let (x, y) = (values(&x), values(&y));
            let cut = y.iter().filter(|v| **v == 0.0).count();
            assert!(cut > 0 && cut <= 3 * 5 * 6, "{cut}");
            assert!(x.iter().zip(&y).all(|(x, y)| *y == 0.0 || x == y));
        }
    }

    #[test]
    fn warps_by_gather_are_the_same() {
        let x = Var::from_tensor(&pictures(4, "x")).unwrap();
        for rng in 0..3 {
            for t in [
                Transform::siamese("rotate", DIMS, &mut stream(rng, "t")),
                Transform::per_row("scale", 4, DIMS, &mut stream(rng, "t")),
            ] {
                let Kind::Warp(rows) = &t.kind else { panic!("rotation and scale are warps") };
                let gradient =
                    |y: &Tensor| y.sqr().unwrap().sum_all().unwrap().backward().unwrap().get(&x).unwrap().clone();
                let (a, b) = (t.apply(&x).unwrap(), warp_by_gather(rows, &x).unwrap());
                for (a, b) in [(gradient(&a), gradient(&b)), (a, b)] {
                    let off = (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
                    assert!(off < 1e-5, "{off}");
                }
            }
        }
    }

    #[test]
    fn warps_that_turn_nothing_read_the_pixels_of_the_general_formula() {
        let (height, width) = (5, 8);
        let axis = |at: f32, n: usize| {
            let first = at.floor();
            [(first, 1.0 - (at - first)), (first + 1.0, at - first)]
                .map(|(i, weight)| if i >= 0.0 && i < n as f32 { (i as usize, weight) } else { (0, 0.0) })
        };
        for row in [
            [1.0, 0.0, -1.5, 0.0, 1.0, 2.0],
            [0.8, 0.0, 0.3, 0.0, -1.0, 7.0],
            [1.2, 0.0, -0.4, 0.0, 0.9, -2.25],
            [0.9, 0.2, -0.7, -0.3, 1.1, 0.5],
        ] {
            let [a, b, c, d, e, f] = row;
            for (i, taps) in taps(&row, height, width).enumerate() {
                let (y, x) = ((i / width) as f32, (i % width) as f32);
                let (rows, columns) = (axis(a * y + b * x + c, height), axis(d * y + e * x + f, width));
                for (k, tap) in taps.into_iter().enumerate() {
                    let ((row, by_row), (column, by_column)) = (rows[k / 2], columns[k % 2]);
                    assert_eq!(tap, (row * width + column, by_row * by_column), "{row:?}, pixel {i}, tap {k}");
                }
            }
        }
    }

    #[test]
    fn transforms_for_another_number_of_rows_are_an_error() {
        let t = Transform::per_row("flip", 3, DIMS, &mut stream(1, "t"));
        assert!(t.apply(&pictures(2, "x")).unwrap_err().to_string().contains("drawn for 3 rows, found 2"));
    }
}
