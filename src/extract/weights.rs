//! Named tensors and the shapes that a network expects flow in; its checked weights flow out.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use rand_chacha::ChaCha12Rng;

use crate::error::{Error, Result};

/// `part` under `prefix` (which may be empty): `extractors.0` and `blocks.1.weight` give `extractors.0.blocks.1.weight`.
pub(super) fn name_under(prefix: &str, part: &str) -> String {
    if prefix.is_empty() { part.into() } else { format!("{prefix}.{part}") }
}

/// One more than the highest `N` of the names `PREFIX.KIND.N...`; 0 if there are none.
pub(super) fn count(tensors: &HashMap<String, Tensor>, prefix: &str, kind: &str) -> usize {
    let start = name_under(prefix, &format!("{kind}."));
    let numbers = tensors.keys().filter_map(|name| {
        let (number, _) = name.strip_prefix(&start)?.split_once('.')?;
        number.parse::<usize>().ok()
    });
    numbers.max().map_or(0, |n| n.saturating_add(1))
}

/// The tensor `name` as f32; it must exist, have this shape (`None`: any number) and be finite.
pub(super) fn take(tensors: &HashMap<String, Tensor>, name: &str, shape: &[Option<usize>]) -> Result<Tensor> {
    let tensor = tensors.get(name).ok_or_else(|| Error::Pool(format!("tensor '{name}' is missing")))?;
    let fits = tensor.rank() == shape.len()
        && tensor.dims().iter().zip(shape).all(|(found, expected)| *found > 0 && expected.is_none_or(|e| e == *found));
    if !fits {
        let expected: Vec<_> = shape.iter().map(|d| d.map_or("any".into(), |d| d.to_string())).collect();
        let message = format!("tensor '{name}' is {:?}, expected [{}]", tensor.dims(), expected.join(", "));
        return Err(Error::Pool(message));
    }
    let tensor = tensor.to_dtype(DType::F32)?.contiguous()?;
    if let Some(bad) = tensor.flatten_all()?.to_vec1::<f32>()?.into_iter().find(|v| !v.is_finite()) {
        return Err(Error::Pool(format!("tensor '{name}' holds {bad}; weights must be finite")));
    }
    Ok(tensor)
}

/// Draws uniform on +-`bound`.
pub(super) fn uniform(rng: &mut ChaCha12Rng, shape: &[usize], bound: f32, device: &Device) -> Result<Tensor> {
    Ok(Tensor::from_vec(crate::random::uniform(rng, shape.iter().product(), bound), shape, device)?)
}

/// Draws normal with this standard deviation.
pub(super) fn normal(rng: &mut ChaCha12Rng, shape: &[usize], deviation: f32, device: &Device) -> Result<Tensor> {
    let mut values = crate::random::normal(rng, shape.iter().product());
    values.iter_mut().for_each(|v| *v *= deviation);
    Ok(Tensor::from_vec(values, shape, device)?)
}
