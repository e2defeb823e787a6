//! Pictures that hold several smaller ones flow in, the pictures that they decode to flow out; and back.
//!
//! This is IDC's multi-formation (Kim et al., ICML 2022, section 4.1), which is how NCFM, DREAM and DANCE store pictures too. A stored picture of `[channels, height, width]`
//! is cut into `side * side` tiles of `height / side` by `width / side` pixels, rounded down, row by row from the top left; what is left at the bottom and on the right isn't used.
//! Each tile is scaled up to the whole picture's size, by bilinear interpolation between the centres of pixels, constant outside of the outermost: what PyTorch
//! calls `interpolate(mode='bilinear', align_corners=False)`.

use std::sync::Arc;

use crate::arrow::datatypes::{Field, Schema, SchemaRef};
use crate::error::{Error, Result};
use crate::rows::Shape;

/// The most pictures in one, per side.
pub const MOST_PER_SIDE: usize = 8;

/// The key of a column's own metadata that says how many pictures a side its pictures hold, or that the column itself does.
pub(super) const KEY: &str = "datafusion-distill.mosaic";

/// `schema` with the note that the pictures in `column` hold `side` pictures a side; without one for `side` 1.
pub fn with_mosaic(schema: &SchemaRef, column: &str, side: usize) -> SchemaRef {
    with_note(schema, column, (side > 1).then(|| side.to_string()))
}

/// `schema` with `note` about what the pictures in `column` hold.
pub(super) fn with_note(schema: &SchemaRef, column: &str, note: Option<String>) -> SchemaRef {
    let noted = |field: &Arc<Field>| {
        let mut metadata = field.metadata().clone();
        metadata.remove(KEY);
        metadata.extend(note.clone().map(|note| (KEY.into(), note)));
        Arc::new(field.as_ref().clone().with_metadata(metadata))
    };
    let fields: Vec<_> =
        schema.fields().iter().map(|f| if f.name() == column { noted(f) } else { Arc::clone(f) }).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// How many pictures a side the pictures in `field` hold: 1 where no note says more.
pub fn mosaic_side(field: &Field) -> usize {
    let side = field.metadata().get(KEY).and_then(|side| side.parse().ok());
    side.filter(|side| (1..=MOST_PER_SIDE).contains(side)).unwrap_or(1)
}

/// Pixels a side of a tile that isn't coarse.
const LEAST: usize = 8;

/// How pictures of one shape are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mosaic {
    side: usize,
    channels: usize,
    height: usize,
    width: usize,
}

impl Mosaic {
    /// `side` pictures a side in one of `shape`; none for `side` 1.
    ///
    /// Fails where rows aren't pictures, or are too small for it.
    pub fn new(side: usize, shape: Shape) -> Result<Option<Self>> {
        if side <= 1 {
            return Ok(None);
        }
        match shape {
            Shape::Picture { channels, height, width } if height >= 2 * side && width >= 2 * side => {
                Ok(Some(Self { side, channels, height, width }))
            }
            shape => Err(Error::option(
                "mosaic",
                format!("{side} packs pictures of at least {0}x{0} pixels; the rows are {shape}s", 2 * side),
            )),
        }
    }

    /// Whether so little of each picture is left that rows which hold several teach less than plain ones: shown for tiles of 4 x 4 pixels (docs/results.md, *Digits*), while
    /// tiles of 14 x 14 teach more where rows are few.
    pub fn is_coarse(&self) -> bool {
        let (height, width) = self.tile();
        height.min(width) < LEAST
    }

    /// Pictures in a stored one.
    pub fn count(&self) -> usize {
        self.side * self.side
    }

    /// Height and width of a tile, in pixels.
    pub fn tile(&self) -> (usize, usize) {
        (self.height / self.side, self.width / self.side)
    }

    /// The top left pixel of each tile, in order.
    pub fn corners(&self) -> impl Iterator<Item = (usize, usize)> {
        let ((height, width), side) = (self.tile(), self.side);
        (0..side * side).map(move |i| (i / side * height, i % side * width))
    }

    /// What scales a line of `tile` pixels up to one of `whole`: `[whole, tile]`, row-major, the shares of each pixel of the tile in each of the line.
    pub fn interpolation(tile: usize, whole: usize) -> Vec<f32> {
        let mut shares = vec![0.0; whole * tile];
        for (i, line) in shares.chunks_mut(tile).enumerate() {
            let at = ((i as f64 + 0.5) * tile as f64 / whole as f64 - 0.5).clamp(0.0, (tile - 1) as f64);
            let first = at.floor() as usize;
            let share = at - at.floor();
            line[first] += (1.0 - share) as f32;
            line[(first + 1).min(tile - 1)] += share as f32;
        }
        shares
    }

    /// Stored pictures `[n, channels, height, width]` as the `[n * count, channels, height, width]` that they decode to.
    pub fn unpack(&self, stored: &[f32]) -> Vec<f32> {
        let (tile_height, tile_width) = self.tile();
        let (down, across) =
            (Self::interpolation(tile_height, self.height), Self::interpolation(tile_width, self.width));
        let plane = self.height * self.width;
        let mut out = Vec::with_capacity(stored.len() * self.count());
        let mut wide = vec![0.0; tile_height * self.width];
        for picture in stored.chunks_exact(self.channels * plane) {
            for (top, left) in self.corners() {
                for channel in picture.chunks_exact(plane) {
                    for (y, line) in wide.chunks_exact_mut(self.width).enumerate() {
                        let from = &channel[(top + y) * self.width + left..][..tile_width];
                        for (to, shares) in line.iter_mut().zip(across.chunks_exact(tile_width)) {
                            *to = weighted(shares, from.iter().copied());
                        }
                    }
                    for shares in down.chunks_exact(tile_height) {
                        out.extend(
                            (0..self.width).map(|x| weighted(shares, wide.iter().skip(x).step_by(self.width).copied())),
                        );
                    }
                }
            }
        }
        out
    }

    /// Pictures `[n * count, channels, height, width]`, each scaled down to a tile by the mean of the pixels that it covers, as `[n, channels, height, width]` stored ones; 0 where
    /// no tile is.
    pub fn pack(&self, pictures: &[f32]) -> Vec<f32> {
        let (tile_height, tile_width) = self.tile();
        let plane = self.height * self.width;
        let length = self.channels * plane;
        let mut out = vec![0.0; pictures.len() / self.count()];
        for (stored, pictures) in out.chunks_exact_mut(length).zip(pictures.chunks_exact(length * self.count())) {
            for ((top, left), picture) in self.corners().zip(pictures.chunks_exact(length)) {
                for (stored, channel) in stored.chunks_exact_mut(plane).zip(picture.chunks_exact(plane)) {
                    for y in 0..tile_height {
                        for x in 0..tile_width {
                            let (ys, xs) = (covered(y, tile_height, self.height), covered(x, tile_width, self.width));
                            let count = (ys.len() * xs.len()) as f32;
                            let sum: f32 = ys.map(|y| channel[y * self.width..][xs.clone()].iter().sum::<f32>()).sum();
                            stored[(top + y) * self.width + left + x] = sum / count;
                        }
                    }
                }
            }
        }
        out
    }

    /// [`Self::pack`] of the pictures that stored ones hold, in order, where stored picture i is to hold `sides[i]` a side: several, or 1, which is the picture as it is.
    pub fn pack_each(&self, pictures: &[f32], sides: &[usize]) -> Vec<f32> {
        let length = self.channels * self.height * self.width;
        let mut out = Vec::with_capacity(sides.len() * length);
        let mut rest = pictures;
        for side in sides {
            let (held, after) = rest.split_at((side * side * length).min(rest.len()));
            rest = after;
            match side {
                1 => out.extend_from_slice(held),
                _ => out.extend(self.pack(held)),
            }
        }
        out
    }
}

/// Stored pictures of `shape`, `[n, shape.len()]`, of which picture i holds `sides[i]` a side, as the pictures that they decode to, in order.
///
/// Fails as [`Mosaic::new`] does.
pub fn unpack_each(stored: &[f32], shape: Shape, sides: &[usize]) -> Result<Vec<f32>> {
    let mut out = Vec::with_capacity(sides.iter().map(|side| side * side).sum::<usize>() * shape.len());
    let mut rest = stored;
    for run in sides.chunk_by(|a, b| a == b) {
        let (pictures, after) = rest.split_at((run.len() * shape.len()).min(rest.len()));
        rest = after;
        match Mosaic::new(run[0], shape)? {
            Some(mosaic) => out.extend(mosaic.unpack(pictures)),
            None => out.extend_from_slice(pictures),
        }
    }
    Ok(out)
}

fn weighted(shares: &[f32], values: impl Iterator<Item = f32>) -> f32 {
    shares.iter().zip(values).map(|(share, value)| share * value).sum()
}

/// The pixels of a line of `whole` that pixel `i` of a tile of `tile` stands for.
fn covered(i: usize, tile: usize, whole: usize) -> std::ops::Range<usize> {
    i * whole / tile..((i + 1) * whole).div_ceil(tile)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mosaic(side: usize, channels: usize, height: usize, width: usize) -> Mosaic {
        Mosaic::new(side, Shape::Picture { channels, height, width }).unwrap().unwrap()
    }

    #[test]
    fn a_picture_that_is_left_less_than_eight_pixels_a_side_is_coarse() {
        let coarse = [(2, 8, 8), (2, 16, 14), (2, 16, 16), (3, 23, 28), (3, 28, 28)]
            .map(|(side, height, width)| mosaic(side, 1, height, width).is_coarse());
        assert_eq!(coarse, [true, true, false, true, false]);
    }

    #[test]
    fn each_tile_becomes_a_picture_of_its_own_in_order() {
        let mosaic = mosaic(2, 1, 4, 4);
        #[rustfmt::skip]
        let stored = [
            1.0, 1.0, 2.0, 2.0,
            1.0, 1.0, 2.0, 2.0,
            3.0, 3.0, 0.0, 4.0,
            3.0, 3.0, 8.0, 4.0,
        ];
        let pictures = mosaic.unpack(&stored);
        for (i, value) in [1.0, 2.0, 3.0].into_iter().enumerate() {
            assert_eq!(pictures[16 * i..16 * i + 16], [value; 16]);
        }
        // By torch.nn.functional.interpolate(..., (4, 4), mode='bilinear', align_corners=False).
        #[rustfmt::skip]
        assert_eq!(pictures[48..], [
            0.0, 1.0, 3.0, 4.0,
            2.0, 2.5, 3.5, 4.0,
            6.0, 5.5, 4.5, 4.0,
            8.0, 7.0, 5.0, 4.0,
        ]);
    }

    #[test]
    fn what_is_packed_and_unpacked_has_the_means_that_it_had_and_what_is_left_over_is_empty() {
        let mosaic = mosaic(3, 2, 11, 10);
        assert_eq!((mosaic.tile(), mosaic.count()), ((3, 3), 9));
        let constant: Vec<f32> = (0..9 * 2).flat_map(|i| vec![i as f32; 110]).collect();
        let stored = mosaic.pack(&constant);
        assert_eq!(stored.len(), 220);
        assert!(stored[9 * 10..110].iter().all(|v| *v == 0.0) && stored[9] == 0.0);
        let back = mosaic.unpack(&stored);
        assert!(back.iter().zip(&constant).all(|(a, b)| (a - b).abs() < 1e-5));
    }

    #[test]
    fn pictures_that_hold_several_and_whole_ones_are_decoded_side_by_side() {
        let shape = Shape::Picture { channels: 1, height: 4, width: 4 };
        let stored: Vec<f32> = (0..48).map(|v| v as f32).collect();
        let (whole, packed) = (&stored[..16], &stored[16..]);
        let expected = [whole, &mosaic(2, 1, 4, 4).unpack(packed)].concat();
        assert_eq!(unpack_each(&stored, shape, &[1, 2, 2]).unwrap(), expected);
        assert_eq!(unpack_each(&stored, shape, &[1, 1, 1]).unwrap(), stored);
        assert!(unpack_each(&stored, shape, &[1, 3, 1]).is_err());
    }

    #[test]
    fn lines_are_scaled_by_shares_that_are_one_in_all() {
        for (tile, whole) in [(14, 28), (9, 28), (5, 32), (2, 4), (1, 3)] {
            for line in Mosaic::interpolation(tile, whole).chunks(tile) {
                assert!((line.iter().sum::<f32>() - 1.0).abs() < 1e-6 && line.iter().all(|share| *share >= 0.0));
            }
        }
    }

    #[test]
    fn a_note_at_the_column_says_how_many_and_goes_with_plain_rows() {
        use crate::arrow::datatypes::DataType;
        let schema =
            Arc::new(Schema::new(vec![Field::new("a", DataType::Binary, true), Field::new("b", DataType::Int8, true)]));
        let noted = with_mosaic(&schema, "a", 2);
        assert_eq!((mosaic_side(noted.field(0)), mosaic_side(noted.field(1))), (2, 1));
        assert_eq!(with_mosaic(&noted, "a", 1), schema);
        let wild = Field::new("a", DataType::Binary, true).with_metadata([(KEY.to_string(), "99".to_string())].into());
        assert_eq!(mosaic_side(&wild), 1);
    }

    #[test]
    fn only_pictures_that_are_large_enough_are_packed() {
        assert_eq!(Mosaic::new(1, Shape::Vector { len: 3 }).unwrap(), None);
        let refused = |shape| Mosaic::new(2, shape).unwrap_err().to_string();
        assert!(refused(Shape::Vector { len: 30 }).contains("vector of 30"));
        assert!(refused(Shape::Picture { channels: 1, height: 3, width: 8 }).contains("at least 4x4"));
    }
}
