//! Scaled rows flow in, features of a pool of frozen networks flow out.

mod convnet;
mod device;
mod mlp;
mod pool;
mod pool_file;
mod row_wise;
mod weights;

pub use convnet::ConvNet;
pub use device::device;
pub use mlp::Mlp;
pub use pool::{Pool, PoolRecipe, Scaling, Source};
