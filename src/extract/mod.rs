//! Scaled rows flow in, features of a pool of frozen networks flow out.

mod convnet;
mod device;
mod fourier;
mod mlp;
mod pool;
mod pool_file;
mod row_wise;
mod scaling;
pub(crate) mod sizes;
mod weights;

pub use convnet::ConvNet;
pub use device::device;
pub use fourier::Fourier;
pub use mlp::Mlp;
pub use pool::{Pool, PoolRecipe, Source};
pub use scaling::{Affine, Scaling};
