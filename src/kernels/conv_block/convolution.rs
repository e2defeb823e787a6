//! Padded grids of a group of pictures flow in; their 3x3 convolutions flow out, block by block, by the faster of two ways.

use super::product::{Blocks, Product};
use super::winograd::Winograd;
use crate::kernels::simd::Path;

/// A 3x3 convolution. For each group of pictures: [`Convolution::place`] each grid, then for each block [`Convolution::multiply`] and, for each
/// picture, [`Convolution::block`]. The way depends on shapes alone, never on the batch.
#[derive(Debug)]
pub(super) enum Convolution {
    /// One picture at a time.
    Direct(Product),
    /// Several at a time.
    Winograd(Winograd),
}

/// What a thread needs for a group.
#[derive(Debug, Default)]
pub(super) struct Workspace {
    input: Vec<f32>,
    products: Vec<f32>,
}

impl Convolution {
    /// The convolution of `from` whose first tap for pixel `(y, x)` of the result lies at `(y, x)` after pixel `first` of the grid.
    /// The weights are packed on the current rayon pool where `parallel`.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        path: Path,
        from: Blocks,
        first: usize,
        result: [usize; 2],
        out: usize,
        most_pictures: usize,
        parallel: bool,
        weight: impl Fn(usize, usize, usize) -> f32 + Sync,
    ) -> Self {
        match Winograd::new(path, from, first, result, out, most_pictures, parallel, &weight) {
            Some(winograd) => Self::Winograd(winograd),
            None => {
                let row = from.grid.row();
                let [height, width] = result;
                let pixels = (0..height).flat_map(|y| (0..width).map(move |x| first + y * row + x));
                Self::Direct(Product::new(path, from, pixels, 3, out, weight))
            }
        }
    }

    /// Pictures of a group.
    pub fn group(&self) -> usize {
        match self {
            Self::Direct(_) => 1,
            Self::Winograd(winograd) => winograd.group(),
        }
    }

    /// Floats of packed weights.
    #[cfg(test)]
    pub fn packed_len(&self) -> usize {
        match self {
            Self::Direct(product) => product.packed_len(),
            Self::Winograd(winograd) => winograd.packed_len(),
        }
    }

    pub fn workspace(&self) -> Workspace {
        match self {
            Self::Direct(_) => Workspace::default(),
            Self::Winograd(w) => Workspace { input: vec![0.0; w.input_len()], products: vec![0.0; w.product_len()] },
        }
    }

    /// Takes in the grid of picture `picture` of the group.
    pub fn place(&self, workspace: &mut Workspace, grid: &[f32], picture: usize) {
        if let Self::Winograd(winograd) = self {
            winograd.transform_input(grid, picture, &mut workspace.input);
        }
    }

    /// What the group's `pictures` pictures share in block `block` of the result.
    pub fn multiply(&self, workspace: &mut Workspace, pictures: usize, block: usize) {
        if let Self::Winograd(winograd) = self {
            winograd.multiply(&workspace.input, pictures, block, &mut workspace.products);
        }
    }

    /// Block `block` of the result of picture `picture`, `[pixel][NR]`; `grid` is the one placed last.
    pub fn block(&self, workspace: &Workspace, grid: &[f32], picture: usize, block: usize, y: &mut [f32]) {
        match self {
            Self::Direct(product) => product.run(grid, block, y),
            Self::Winograd(winograd) => winograd.transform_output(&workspace.products, picture, y),
        }
    }
}
