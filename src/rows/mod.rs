//! Record batches flow in and numbers with labels flow out; and back, in the source's own schema.

mod decode;
mod decode_parallel;
mod encode;
mod exact;
mod form;
mod hugging_face;
mod label;
mod layout;
mod lists;
mod mosaic;
mod mosaic_column;
mod picture;
mod roles;
mod soft_label;
pub mod table;
#[cfg(test)]
mod tests;
mod unpack;
mod weight;

pub use decode::{Decoder, Rows};
pub use encode::{encode, encode_exact};
pub use label::Label;
pub use layout::{Column, Feature, FeatureKind, Hints, Layout, Role};
pub use mosaic::{MOST_PER_SIDE, Mosaic, mosaic_side, unpack_each, with_mosaic};
pub use mosaic_column::{
    Held, MOSAIC, has_mosaic_column, mosaic_array, mosaic_sides, sides_of, told_by_column, with_mosaic_column,
};
pub use soft_label::{SOFT_LABEL, has_soft_labels, soft_label_array, soft_labels, with_soft_label_column};
pub use table::{Profile, TableScaling};
pub use unpack::Unpacker;
pub use weight::{weight_array, with_weight_column};

use serde::{Deserialize, Serialize};

/// The shape of one row's feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// A picture, stored as `[channels, height, width]`.
    Picture {
        /// 1 (grey) or 3 (RGB).
        channels: usize,
        /// Rows of pixels.
        height: usize,
        /// Columns of pixels.
        width: usize,
    },
    /// A vector of numbers.
    Vector {
        /// How many.
        len: usize,
    },
}

impl Shape {
    /// Numbers in one row.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(self) -> usize {
        match self {
            Shape::Picture { channels, height, width } => channels * height * width,
            Shape::Vector { len } => len,
        }
    }

    /// The dimensions of one row: `[channels, height, width]` or `[len]`.
    pub fn dims(self) -> Vec<usize> {
        match self {
            Shape::Picture { channels, height, width } => vec![channels, height, width],
            Shape::Vector { len } => vec![len],
        }
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Shape::Picture { channels, height, width } => write!(f, "{channels}x{height}x{width} picture"),
            Shape::Vector { len } => write!(f, "vector of {len}"),
        }
    }
}
