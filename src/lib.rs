//! Dataset distillation as a streaming DataFusion stage: a labelled table flows in, a few synthetic rows per class, good
//! enough to train on in its place, flow out.
//!
//! Rows become features, features become a sketch, a sketch becomes a few rows. The rooms, from the top of the house to
//! its ground floor: [`sql`], [`stream`], [`evaluate`], [`synthesize`], [`objective`], [`select`], [`sketch`], [`extract`],
//! [`kernels`], [`rows`]; a room uses only those below it.
#![warn(missing_docs)]

mod choice;
pub mod cli;
pub mod error;
pub mod evaluate;
pub mod extract;
pub mod kernels;
pub mod objective;
pub mod options;
pub mod pretrain;
pub mod random;
pub mod rows;
pub mod select;
pub mod sketch;
pub mod sql;
pub mod stream;
pub mod synthesize;

pub use datafusion::arrow;
pub use datafusion::parquet;
pub use error::{Error, Result};
pub use options::Options;
pub use sql::register;
