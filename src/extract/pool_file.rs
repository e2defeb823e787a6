//! A safetensors file flows in, a pool's recipe and weights flow out; and back.
//!
//! Extractor `N`'s tensors are `extractors.N.blocks.M.weight` `[width, in, 3, 3]` and `extractors.N.blocks.M.affine` `[2, width]` (scale, then shift) for
//! pictures, `extractors.N.layers.M.weight` `[width, in]` and `extractors.N.layers.M.bias` `[width]` for vectors (`extractors.N.fourier.weight` and
//! `extractors.N.fourier.bias` where they are Fourier features), `N` and `M` counted from 0. The
//! metadata entry `datafusion-distill` holds recipe and transform seed as JSON. A file without it works too: width, depth and the number of
//! extractors follow from names and shapes, the input scaling from the rows' range, and there are no transforms.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use candle_core::{Device, Tensor};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::extract::Scaling;
use crate::extract::pool::{PoolRecipe, Source};
use crate::extract::weights::count;
use crate::options::{Layers, Network, Options, PoolBytes, Sizes};
use crate::rows::Shape;

/// The metadata entry.
const KEY: &str = "datafusion-distill";

/// What the metadata entry holds.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Header {
    pub recipe: PoolRecipe,
    pub transform_seed: u64,
}

/// A pool file that was read.
#[derive(Debug)]
pub(super) struct PoolFile {
    pub header: Option<Header>,
    pub tensors: HashMap<String, Tensor>,
}

/// An error of the pool file at `path`.
pub(super) fn error(path: &str, message: impl std::fmt::Display) -> Error {
    Error::Pool(format!("{path}: {message}"))
}

impl PoolFile {
    /// The one at `path`, whose bytes may be in `options` already.
    pub fn of(path: &str, options: &Options) -> Result<Self> {
        if let Some(PoolBytes(bytes)) =
            options.pool_bytes.as_ref().filter(|_| options.pool_file.as_deref() == Some(path))
        {
            return Self::parse(path, bytes);
        }
        if path.contains("://") {
            return Err(error(
                path,
                "has not been fetched; give it as pool_file in SQL, where its object store is known",
            ));
        }
        let io = |source| Error::io(path, source);
        // A folder or a device has no end to read to.
        if !std::fs::metadata(path).map_err(io)?.is_file() {
            return Err(error(path, "is not a file"));
        }
        Self::parse(path, &std::fs::read(path).map_err(io)?)
    }

    /// Reads it all, to the CPU.
    pub fn parse(path: &str, bytes: &[u8]) -> Result<Self> {
        let not_ours = |e: &dyn std::fmt::Display| error(path, format!("can't be read as safetensors: {e}"));
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| not_ours(&e))?;
        let header: Option<Header> = match metadata.metadata().as_ref().and_then(|m| m.get(KEY)) {
            Some(json) => Some(serde_json::from_str(json).map_err(|e| {
                error(path, format!("metadata '{KEY}' can't be understood: {e}; written by another version?"))
            })?),
            None => None,
        };
        let tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu).map_err(|e| not_ours(&e))?;
        if let Some(Header { recipe, .. }) = &header {
            let recipe = PoolRecipe { source: Source::File { path: path.into() }, ..recipe.clone() };
            recipe.check_sound().map_err(|message| error(path, format!("its recipe is damaged: {message}")))?;
        }
        Ok(Self { header, tensors })
    }

    /// The recipe for rows of `shape`; without a header, `scaling` is the scaling.
    pub fn recipe(&self, path: &str, shape: Shape, scaling: Scaling) -> Result<PoolRecipe> {
        let source = Source::File { path: path.into() };
        if let Some(Header { recipe, .. }) = &self.header {
            if recipe.shape != shape {
                return Err(error(path, format!("made for rows of {}, found {shape}", recipe.shape)));
            }
            return Ok(PoolRecipe { source, ..recipe.clone() });
        }
        let (kind, other) = match shape {
            Shape::Picture { .. } => ("blocks", "layers"),
            Shape::Vector { .. } => ("layers", "blocks"),
        };
        let first = self.tensors.get(&format!("extractors.0.{kind}.0.weight"));
        let Some(width) = first.and_then(|t| t.dims().first().copied()) else {
            let hint = if self.tensors.keys().any(|name| name.contains(&format!(".{other}."))) {
                format!("; its '{other}' are for rows of another kind than {shape}")
            } else {
                String::new()
            };
            return Err(error(path, format!("tensor 'extractors.0.{kind}.0.weight' is missing{hint}")));
        };
        let recipe = PoolRecipe {
            shape,
            scaling,
            source,
            extractors: count(&self.tensors, "", "extractors"),
            network: if kind == "blocks" { Network::ConvNet } else { Network::Mlp },
            width,
            depth: count(&self.tensors, "extractors.0", kind),
            layers: Layers::Last,
            sizes: Sizes::Same,
            augment: "none".into(),
        };
        recipe.check_sound().map_err(|message| error(path, message))?;
        Ok(recipe)
    }
}

/// `tensors` (f32, on any device) and `header` as a file's bytes, the same ones for the same pool. `name` is the file's in messages.
pub(super) fn bytes(name: &str, header: &Header, tensors: &[(String, Tensor)]) -> Result<Vec<u8>> {
    let json = serde_json::to_string(header).map_err(|e| error(name, e))?;
    let mut data = vec![];
    for (name, tensor) in tensors {
        let values: Vec<f32> = tensor.flatten_all()?.to_vec1()?;
        let bytes: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
        data.push((name.as_str(), tensor.dims().to_vec(), bytes));
    }
    let format = |e: safetensors::SafeTensorError| error(name, e);
    let mut views = vec![];
    for (name, shape, bytes) in &data {
        views.push((*name, TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(format)?));
    }
    safetensors::serialize(views, Some(HashMap::from([(KEY.into(), json)]))).map_err(format)
}

/// Writes [`bytes`] to `path`: beside it first, then renamed.
pub(super) fn write(path: &Path, header: &Header, tensors: &[(String, Tensor)]) -> Result<()> {
    let failed = |e: std::io::Error| Error::io(path, e);
    let bytes = bytes(&path.display().to_string(), header, tensors)?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // As any new file: the process's umask takes its part.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut beside = builder.prefix(".pool-").tempfile_in(folder).map_err(failed)?;
    beside.write_all(&bytes).map_err(failed)?;
    beside.persist(path).map_err(|e| failed(e.error))?;
    Ok(())
}
