//! Features and frequencies flow in; sums and means of the cosines and sines of their inner products flow out.
//!
//! On a CPU the angles of a block of frequencies stay in the cache between the matrix product and the sines. The frequencies are packed
//! once; the same packing serves the product with their transpose in the backward pass.

mod lanes;
mod packed;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp1, CustomOp2, DType, Device, Layout, Result, Shape, Tensor, bail};

use crate::kernels::arena::Arena;
use crate::kernels::conv_block::{contiguous, for_each, with_slices};
use crate::kernels::simd::Path;
use crate::kernels::{Groups, sincos};
use packed::Packed;

/// Frozen frequencies, `[feature_len, count]`, as the kernels of their device want them.
#[derive(Debug)]
pub struct Frequencies {
    feature_len: usize,
    count: usize,
    stored: Stored,
    /// What [`characteristic`] works in.
    arena: Arc<Arena>,
}

#[derive(Debug)]
enum Stored {
    Cpu(Arc<Packed>),
    Device(Tensor),
}

/// Sums of cosines and of sines, `[count]` each, in units of 1 / [`COS_SCALE`](crate::kernels::COS_SCALE).
#[derive(Debug)]
pub struct CosSin<'a> {
    /// Sums of cosines.
    pub cos: &'a mut [i64],
    /// Sums of sines.
    pub sin: &'a mut [i64],
}

impl Frequencies {
    /// Packs `values` `[feature_len, count]`, neither of them 0, for `device`. Other lengths are an error.
    pub fn new(values: &[f32], feature_len: usize, count: usize, device: &Device) -> Result<Self> {
        if values.len() != feature_len * count || values.is_empty() {
            bail!("{} numbers are no frequencies of shape [{feature_len}, {count}]", values.len());
        }
        let stored = match device {
            Device::Cpu => Stored::Cpu(Arc::new(Packed::new(Path::detect(), values, feature_len, count))),
            device => Stored::Device(Tensor::from_slice(values, (feature_len, count), device)?),
        };
        Ok(Self { feature_len, count, stored, arena: Arc::default() })
    }

    /// With memory that is shared with others which aren't used at the same time.
    pub fn with_arena(self, arena: Arc<Arena>) -> Self {
        Self { arena, ..self }
    }

    /// Length of the features.
    pub fn feature_len(&self) -> usize {
        self.feature_len
    }

    /// How many frequencies.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Bytes of memory that the frequencies take.
    pub fn bytes(&self) -> usize {
        4 * self.feature_len * self.count
    }

    /// The frequencies as a tensor `[feature_len, count]`.
    pub fn tensor(&self, device: &Device) -> Result<Tensor> {
        match &self.stored {
            Stored::Cpu(packed) => Tensor::from_vec(packed.unpacked(), (self.feature_len, self.count), device),
            Stored::Device(tensor) => tensor.to_device(device),
        }
    }

    /// Adds the cosines and sines of the angles of each row of `rows` `[n, feature_len]`, rounded to fixed point, to `sums[classes[row]]`.
    /// Rows after the last of `classes` are not added: a device whose product isn't row-wise gets them so that its shape is always the same.
    ///
    /// `parallel`: on the current rayon pool. A row's contribution depends on nothing but the row. Lengths that don't fit are an error.
    pub fn add(&self, rows: &[f32], classes: &[usize], sums: &mut [CosSin<'_>], parallel: bool) -> Result<()> {
        let (d, count) = (self.feature_len, self.count);
        if !rows.len().is_multiple_of(d) || rows.len() / d < classes.len() {
            bail!("{} numbers are less than {} rows of length {d}", rows.len(), classes.len());
        }
        if classes.iter().any(|c| *c >= sums.len()) || sums.iter().any(|s| [s.cos.len(), s.sin.len()] != [count; 2]) {
            bail!("characteristic function: the sums don't have all classes, {count} frequencies each");
        }
        match &self.stored {
            Stored::Cpu(packed) => add(packed, &rows[..classes.len() * d], classes, sums, parallel),
            Stored::Device(tensor) => {
                let rows = Tensor::from_slice(rows, (rows.len() / d, d), tensor.device())?;
                let angles: Vec<f32> = rows.matmul(tensor)?.flatten_all()?.to_vec1()?;
                for (angles, class) in angles.chunks(count).zip(classes) {
                    let CosSin { cos, sin } = &mut sums[*class];
                    sincos::add(angles, cos, sin);
                }
            }
        }
        Ok(())
    }
}

/// [`Frequencies::add`] on a CPU; lengths were checked.
fn add(packed: &Packed, rows: &[f32], classes: &[usize], sums: &mut [CosSin<'_>], parallel: bool) {
    /// Pointers that threads share: each thread writes the columns of its own blocks.
    struct Shared(Vec<lanes::Sums>);
    // SAFETY: as said above.
    unsafe impl Sync for Shared {}
    impl Shared {
        fn get(&self) -> &[lanes::Sums] {
            &self.0
        }
    }

    if classes.is_empty() {
        return;
    }
    let (path, nr) = (packed.path, packed.path.tile().1);
    let of_class: Vec<lanes::Sums> =
        sums.iter_mut().map(|s| lanes::Sums { cos: s.cos.as_mut_ptr(), sin: s.sin.as_mut_ptr() }).collect();
    let of_row = Shared(classes.iter().map(|class| of_class[*class]).collect());
    let whole = packed.count / nr;
    let angles = || vec![0.0; packed.block_len(classes.len())];
    for_each(parallel, (0..whole).collect(), angles, |angles: &mut Vec<f32>, block| {
        packed.angles(rows, block, angles);
        // SAFETY: the sums have `count` integers each, borrowed mutably for this call; no two blocks have a column in common.
        unsafe { lanes::add_sums(path, angles, of_row.get(), block * nr) };
    });
    let rest = packed.count - whole * nr;
    if rest > 0 {
        let mut angles = angles();
        packed.angles(rows, whole, &mut angles);
        for (angles, class) in angles.chunks(nr).zip(classes) {
            let CosSin { cos, sin } = &mut sums[*class];
            sincos::add(&angles[..rest], &mut cos[whole * nr..], &mut sin[whole * nr..]);
        }
    }
}

/// The empirical characteristic function of each class of `groups`: mean cosine and mean sine, `(real, imaginary)` `[classes, count]` each, of
/// features `[groups.rows(), feature_len]`, differentiable in the features; zeros for a class without rows.
///
/// A class's values depend on nothing but its rows, a row's gradient on nothing but its class's: the same bits for any thread count. Other
/// shapes are an error. On a device other than the CPU the twin [`characteristic_reference`] runs.
pub fn characteristic(features: &Tensor, frequencies: &Frequencies, groups: &Groups) -> Result<(Tensor, Tensor)> {
    check(features, [frequencies.feature_len, frequencies.count], groups)?;
    match &frequencies.stored {
        Stored::Device(tensor) => characteristic_reference(features, tensor, groups),
        Stored::Cpu(packed) => frozen(features, packed, groups, &frequencies.arena),
    }
}

fn frozen(features: &Tensor, packed: &Arc<Packed>, groups: &Groups, arena: &Arc<Arena>) -> Result<(Tensor, Tensor)> {
    let (packed, groups, arena) = (packed.clone(), groups.clone(), arena.clone());
    let pass = Pass { packed, groups, arena, angles: Mutex::default() };
    let op = Frozen { pass, differentiable: features.track_op() };
    let both = features.contiguous()?.apply_op1(op)?;
    Ok((both.get(0)?, both.get(1)?))
}

/// [`characteristic`] with frequencies `[feature_len, count]` that are learned: differentiable in both; they are packed at every call. What needs no
/// gradient costs none.
pub fn characteristic_learned(features: &Tensor, frequencies: &Tensor, groups: &Groups) -> Result<(Tensor, Tensor)> {
    learned(Path::detect(), features, frequencies, groups)
}

fn learned(path: Path, features: &Tensor, frequencies: &Tensor, groups: &Groups) -> Result<(Tensor, Tensor)> {
    let (feature_len, count) = frequencies.dims2()?;
    check(features, [feature_len, count], groups)?;
    if !matches!(features.device(), Device::Cpu) {
        return characteristic_reference(features, frequencies, groups);
    }
    let op = Learned { path, groups: groups.clone(), pass: Mutex::default() };
    let both = features.contiguous()?.apply_op2(&frequencies.contiguous()?, op)?;
    Ok((both.get(0)?, both.get(1)?))
}

/// [`characteristic_learned`] in plain candle operations: the reference, and the path of GPUs.
pub fn characteristic_reference(features: &Tensor, frequencies: &Tensor, groups: &Groups) -> Result<(Tensor, Tensor)> {
    let angles = features.matmul(frequencies)?;
    Ok((groups.mean(&angles.cos()?)?, groups.mean(&angles.sin()?)?))
}

fn check(features: &Tensor, [feature_len, count]: [usize; 2], groups: &Groups) -> Result<()> {
    let (rows, length) = features.dims2()?;
    if (rows, length) != (groups.rows(), feature_len) {
        let expected = groups.rows();
        bail!(
            "{rows} features of length {length}; the classes have {expected} rows, the frequencies' length is {feature_len}"
        );
    }
    if feature_len == 0 || count == 0 || features.dtype() != DType::F32 {
        bail!("characteristic function of {:?} features, {feature_len} by {count} frequencies", features.dtype());
    }
    Ok(())
}

/// One forward pass, and what its backward pass needs.
#[derive(Debug)]
struct Pass {
    packed: Arc<Packed>,
    groups: Groups,
    arena: Arc<Arena>,
    /// `[block][row][NR]`, rows in whole tiles, and what memory is left behind them: kept where a gradient will be asked for.
    angles: Mutex<Option<Vec<f32>>>,
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(angles) = self.angles.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            self.arena.give_back(angles);
        }
    }
}

impl Pass {
    /// `[2, classes, count]`.
    fn forward(&self, rows: &[f32], keep: bool) -> (CpuStorage, Shape) {
        let Self { packed, groups, arena, .. } = self;
        let (classes, count, nr) = (groups.classes(), packed.count, packed.path.tile().1);
        let (blocks, block_len) = (packed.blocks(), packed.block_len(groups.rows()));
        let mut out = vec![0.0; 2 * classes * count];
        if !rows.is_empty() {
            // [block][2][classes][NR]
            let len = blocks * 2 * classes * nr;
            let mut means = arena.buffer(len);
            let mut kept = if keep { arena.buffer(blocks * block_len) } else { vec![] };
            let mut slots = kept.chunks_mut(block_len);
            let work: Vec<_> =
                means[..len].chunks_mut(2 * classes * nr).map(|means| (means, slots.next())).enumerate().collect();
            for_each(
                true,
                work,
                || vec![0.0; if keep { 0 } else { block_len }],
                |scratch, (block, (means, slot))| {
                    let angles = slot.unwrap_or(scratch);
                    packed.angles(rows, block, angles);
                    lanes::means(packed.path, angles, groups.offsets(), means);
                },
            );
            let lines = out.chunks_mut(count).enumerate().collect();
            for_each(
                true,
                lines,
                || (),
                |(), (line, to): (usize, &mut [f32])| {
                    for (to, means) in to.chunks_mut(nr).zip(means[..len].chunks_exact(2 * classes * nr)) {
                        to.copy_from_slice(&means[line * nr..line * nr + to.len()]);
                    }
                },
            );
            arena.give_back(means);
            if keep {
                *self.angles.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
            }
        }
        (CpuStorage::F32(out), Shape::from((2, classes, count)))
    }

    /// Calls `f` with what writes the gradient for the angles of one block, given `gradient` `[2, classes, count]`.
    fn backward<T>(&self, gradient: &[f32], f: impl FnOnce(&(dyn Fn(usize, &mut [f32]) + Sync)) -> T) -> Result<T> {
        let Self { packed, groups, .. } = self;
        let (count, nr, block_len) = (packed.count, packed.path.tile().1, packed.block_len(groups.rows()));
        let kept = self.angles.lock().unwrap_or_else(PoisonError::into_inner);
        let angles = match kept.as_deref() {
            Some(angles) => angles,
            None if groups.rows() == 0 => &[],
            None => bail!("characteristic function: the angles were not kept"),
        };
        Ok(f(&|block, to| {
            let columns = block * nr..count.min((block + 1) * nr);
            let mut of_block = vec![0.0; 2 * groups.classes() * nr];
            for (to, line) in of_block.chunks_exact_mut(nr).zip(gradient.chunks_exact(count)) {
                to[..columns.len()].copy_from_slice(&line[columns.clone()]);
            }
            let angles = &angles[block * block_len..(block + 1) * block_len];
            lanes::means_backward(packed.path, angles, groups.offsets(), &of_block, to);
        }))
    }
}

struct Frozen {
    pass: Pass,
    differentiable: bool,
}

impl CustomOp1 for Frozen {
    fn name(&self) -> &'static str {
        "characteristic-function"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok(self.pass.forward(contiguous(storage, layout)?, self.differentiable))
    }

    fn bwd(&self, features: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let rows = self.pass.groups.rows();
        let gradient = with_slices([&grad.contiguous()?], |[grad]| {
            self.pass.backward(grad, |angles| self.pass.packed.rows_backward(rows, &self.pass.arena, angles))
        })?;
        Ok(Some(Tensor::from_vec(gradient, features.shape(), &Device::Cpu)?))
    }
}

struct Learned {
    path: Path,
    groups: Groups,
    pass: Mutex<Option<Pass>>,
}

impl CustomOp2 for Learned {
    fn name(&self) -> &'static str {
        "characteristic-function-learned"
    }

    fn cpu_fwd(
        &self,
        features: &CpuStorage,
        features_layout: &Layout,
        frequencies: &CpuStorage,
        frequencies_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (feature_len, count) = frequencies_layout.shape().dims2()?;
        let packed = Packed::new(self.path, contiguous(frequencies, frequencies_layout)?, feature_len, count);
        let (packed, groups) = (Arc::new(packed), self.groups.clone());
        let pass = Pass { packed, groups, arena: Arc::default(), angles: Mutex::default() };
        let out = pass.forward(contiguous(features, features_layout)?, true);
        *self.pass.lock().unwrap_or_else(PoisonError::into_inner) = Some(pass);
        Ok(out)
    }

    fn bwd(
        &self,
        features: &Tensor,
        frequencies: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let pass = self.pass.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(pass) = pass.as_ref() else { bail!("characteristic function: backward without forward") };
        // Often one side is given: its gradient would cost as much as the other's.
        let (wants_features, wants_frequencies) = (features.track_op(), frequencies.track_op());
        let (by_features, by_frequencies) = with_slices([features, &grad.contiguous()?], |[rows, grad]| {
            pass.backward(grad, |angles| {
                (
                    wants_features.then(|| pass.packed.rows_backward(pass.groups.rows(), &pass.arena, angles)),
                    wants_frequencies.then(|| pass.packed.frequencies_backward(rows, &pass.arena, angles)),
                )
            })
        })?;
        let tensor = |values: Option<Vec<f32>>, like: &Tensor| {
            values.map(|values| Tensor::from_vec(values, like.shape(), &Device::Cpu)).transpose()
        };
        Ok((tensor(by_features, features)?, tensor(by_frequencies, frequencies)?))
    }
}
