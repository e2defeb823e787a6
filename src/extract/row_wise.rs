//! Any number of rows flow in; rows that went through a function in chunks of one fixed shape flow out.

use candle_core::{Result, Tensor};

/// Rows in a chunk.
pub(super) const CHUNK: usize = 64;

/// Calls `f` on `x` `[batch, ..]` in chunks of [`CHUNK`] rows, the last one filled up with zeros, and puts the results together. Matrix products and
/// convolutions choose their order of summation by shape: in one fixed shape, a row's bits don't depend on how many others came with it.
pub(super) fn in_chunks(x: &Tensor, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let batch = x.dim(0)?;
    let mut results = vec![];
    for start in (0..batch.max(1)).step_by(CHUNK) {
        let rows = CHUNK.min(batch - start);
        let chunk = x.narrow(0, start, rows)?.pad_with_zeros(0, 0, CHUNK - rows)?.contiguous()?;
        results.push(f(&chunk)?.narrow(0, 0, rows)?);
    }
    if results.len() == 1 { results.remove(0).contiguous() } else { Tensor::cat(&results, 0) }
}
