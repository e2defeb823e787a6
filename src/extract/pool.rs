//! A recipe flows in, a pool of frozen, fingerprinted extractors flows out.

use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::extract::pool_file::{self, Header, PoolFile};
use crate::extract::{ConvNet, Fourier, Mlp, Scaling, sizes};
use crate::kernels::{Arena, LARGEST_BLOCK, Transform, Wants};
use crate::options::{AUGMENTS, Layers, Network, Options, PoolBytes, Sizes};
use crate::random::stream;
use crate::rows::{Layout, Profile, Shape};

/// Default channels of a [`ConvNet`]'s blocks.
const CONVNET_WIDTH: usize = 64;
/// Default units of an [`Mlp`]'s layers.
const MLP_WIDTH: usize = 256;
/// Default layers of an [`Mlp`].
const MLP_DEPTH: usize = 2;
/// Changes whenever the same recipe and weights give other features, but for rounding, which the numerics tag of a sketch tells of.
const VERSION: &str = "datafusion-distill pool 1";

/// Where the weights come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Drawn from this seed.
    Random {
        /// The seed.
        seed: u64,
    },
    /// Read from a safetensors file.
    File {
        /// Its path.
        path: String,
    },
}

/// All that is needed to build a pool again, bit for bit (a file's content is checked by the fingerprint).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolRecipe {
    /// The shape of one row.
    pub shape: Shape,
    /// The input scaling, part of the pool.
    pub scaling: Scaling,
    /// Where the weights come from.
    pub source: Source,
    /// How many extractors.
    pub extractors: usize,
    /// What they are; never `auto`.
    pub network: Network,
    /// Channels or units of each layer.
    pub width: usize,
    /// Blocks or layers.
    pub depth: usize,
    /// Whose outputs are the features.
    #[serde(default = "last_layer", skip_serializing_if = "is_last_layer")]
    pub layers: Layers,
    /// Whether all extractors have this width and depth.
    #[serde(default = "same_sizes", skip_serializing_if = "are_same_sizes")]
    pub sizes: Sizes,
    /// Augmentation strategy: each extractor has one fixed transform drawn from the seed.
    pub augment: String,
}

// A recipe doesn't say what it needn't: those of pools that were made before there was a choice stay the same, byte for byte.

fn last_layer() -> Layers {
    Layers::Last
}

fn is_last_layer(layers: &Layers) -> bool {
    *layers == last_layer()
}

fn same_sizes() -> Sizes {
    Sizes::Same
}

fn are_same_sizes(sizes: &Sizes) -> bool {
    *sizes == same_sizes()
}

impl PoolRecipe {
    /// [`PoolRecipe::choose_scaled`] with the affine map of `range`.
    pub fn choose(shape: Shape, range: (f32, f32), options: &Options) -> Result<Self> {
        Self::choose_scaled(shape, Scaling::for_range(range)?, options)
    }

    /// The scaling that the option `pool_file` brings; `None` without the option, or if the file has no recipe.
    pub fn scaling_of_file(options: &Options) -> Result<Option<Scaling>> {
        let file = options.pool_file.as_ref().map(|path| PoolFile::of(path, options)).transpose()?;
        Ok(file.and_then(|file| file.header).map(|header| header.recipe.scaling))
    }

    /// The input scaling of rows of `layout`, where a pool file, the options or the column's type tell it; `None`: a scan of the rows has to find it.
    pub fn known_scaling(layout: &Layout, options: &Options) -> Result<Option<Scaling>> {
        if let Some(scaling) = Self::scaling_of_file(options)? {
            return Ok(Some(scaling));
        }
        match (layout.single(), layout.static_range(options)) {
            (Some(_), range) => range.map(Scaling::for_range).transpose(),
            (None, _) => Ok(Profile::declared(layout, options)?.map(Scaling::Table)),
        }
    }

    /// The recipe that `options` ask for, for rows of `shape` that are scaled by `scaling`. Reads the header of `pool_file`, if any: then
    /// everything, the scaling too, is the file's. A method that doesn't look at features gets a pool without extractors: the scaling is all there is.
    ///
    /// Errors: a pool file that can't be read or is for other rows, more blocks than the picture has room for, a network that doesn't suit
    /// the rows, augmentation of vectors, `layers` or `sizes` for vectors.
    pub fn choose_scaled(shape: Shape, scaling: Scaling, options: &Options) -> Result<Self> {
        if shape.len() == 0 {
            return Err(Error::Data(format!("rows of shape {shape} hold no numbers; nothing can be extracted")));
        }
        if options.augment != "none" && matches!(shape, Shape::Vector { .. }) {
            let message = format!("transforms pictures, but a row is a {shape}; leave it out, or give image_size");
            return Err(Error::option("augment", message));
        }
        if matches!(shape, Shape::Vector { .. }) {
            for (name, asked, default) in [
                ("layers", options.layers.as_str(), Layers::Last.as_str()),
                ("sizes", options.sizes.as_str(), Sizes::Same.as_str()),
            ] {
                if asked != default {
                    let message =
                        format!("'{asked}' is for pictures, but a row is a {shape}; leave it out, or give image_size");
                    return Err(Error::option(name, message));
                }
            }
        }
        if let Some(path) = &options.pool_file {
            let recipe = PoolFile::of(path, options)?.recipe(path, shape, scaling)?;
            let extractors = if options.method.extracts() { recipe.extractors } else { 0 };
            return Ok(Self { extractors, ..recipe });
        }
        let (width, depth) = match shape {
            Shape::Picture { channels, height, width } => {
                (CONVNET_WIDTH, ConvNet::default_depth([channels, height, width]))
            }
            Shape::Vector { .. } => (MLP_WIDTH, MLP_DEPTH),
        };
        let recipe = Self {
            shape,
            network: network(options.network, shape, &scaling)?,
            scaling,
            source: Source::Random { seed: options.seed },
            extractors: if options.method.extracts() { options.extractors_for(shape) } else { 0 },
            width: options.width.unwrap_or(width),
            depth: options.depth.unwrap_or(depth),
            layers: options.layers,
            sizes: options.sizes,
            augment: options.augment.clone(),
        };
        recipe.checked_feature_len()?;
        Ok(recipe)
    }

    /// Whether extractor `n` is Fourier features: every second one of a mixed pool.
    fn is_fourier(&self, n: usize) -> bool {
        match self.network {
            Network::Fourier => true,
            Network::Mixed => n % 2 == 1,
            _ => false,
        }
    }

    /// The shape of the extractors' input.
    pub fn input_shape(&self) -> Shape {
        self.scaling.input_shape(self.shape)
    }

    /// Width and depth of extractor `n`.
    pub fn size_of(&self, n: usize) -> (usize, usize) {
        match self.sizes {
            Sizes::Same => (self.width, self.depth),
            Sizes::Mixed => sizes::mixed(self.width, self.depth, n),
        }
    }

    /// The length of each extractor's features, which those of a smaller one are filled up to with zeros.
    pub fn feature_len(&self) -> usize {
        self.checked_feature_len().unwrap_or(0)
    }

    /// Refuses what no pool can have, in a recipe that was read from somewhere: sizes whose products overflow or ask for more memory than the
    /// largest pool, a scaling that is no map or is for other rows. Says what is wrong.
    pub(crate) fn check_sound(&self) -> Result<(), String> {
        let dims = self.shape.dims();
        let sizes = [self.width, self.depth];
        let product = |dims: &[usize]| dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        if dims.iter().chain(&sizes).any(|v| *v == 0 || *v > 1 << 20)
            || product(&dims).is_none_or(|n| n > 1 << 30)
            || self.extractors > 1 << 16
            || self.depth > 64
        {
            return Err("impossible sizes".into());
        }
        // Of a single value nothing can be scaled back to a range of rows, but it is a map all the same.
        if !self.scaling.is_sound() {
            return Err("the scaling is not a map of a range".into());
        }
        if let Some(table) = self.scaling.table()
            && (Shape::Vector { len: table.raw_len() } != self.shape || table.input_len() > 1 << 20)
        {
            return Err("the scaling is of other columns than the row's".into());
        }
        let known = |part: &str| AUGMENTS.contains(&part);
        if self.augment != "none" && !self.augment.split('_').all(known) {
            return Err(format!("'{}' is no augmentation", self.augment.escape_debug()));
        }
        let plain = (self.layers, self.sizes) == (Layers::Last, Sizes::Same);
        let fits = match (self.network, self.shape) {
            (Network::ConvNet, Shape::Picture { channels, .. }) => matches!(channels, 1 | 3),
            (Network::Mlp | Network::Fourier | Network::Mixed, Shape::Vector { .. }) => plain,
            _ => false,
        };
        if !fits || self.checked_feature_len().is_err() {
            return Err(format!("'{}' of depth {} is no network for a {}", self.network, self.depth, self.shape));
        }
        // A file's weights are as many as the file is long.
        let weights = match self.input_shape() {
            Shape::Picture { .. } => 9 * self.width * self.width * self.depth,
            Shape::Vector { len } => self.width * (len + self.width * (self.depth - 1)),
        };
        if matches!(self.source, Source::Random { .. })
            && product(&[weights, self.extractors]).is_none_or(|n| n > 1 << 32)
        {
            return Err("impossible sizes".into());
        }
        Ok(())
    }

    /// Bytes of all networks' weights, and of what kernels pack of them: once to go forward, and again for `gradients`.
    pub(crate) fn network_bytes(&self, gradients: bool) -> usize {
        let (inputs, own, packed) = match self.input_shape() {
            Shape::Picture { channels, .. } => (channels, 9, 36 * (1 + usize::from(gradients))),
            Shape::Vector { len } => (len, 1, 0),
        };
        let bytes = |n: usize| {
            let (width, depth) = self.size_of(n);
            let of = |width: usize, floats: usize| {
                let square = width.saturating_mul(width).saturating_mul(depth.saturating_sub(1));
                inputs.saturating_mul(width).saturating_add(square).saturating_mul(floats * size_of::<f32>())
            };
            let whole = width.checked_next_multiple_of(LARGEST_BLOCK).unwrap_or(usize::MAX);
            of(width, own).saturating_add(of(whole, packed))
        };
        match self.sizes {
            Sizes::Same => bytes(0).saturating_mul(self.extractors),
            Sizes::Mixed => (0..self.extractors).map(bytes).fold(0, usize::saturating_add),
        }
    }

    fn checked_feature_len(&self) -> Result<usize> {
        match self.shape {
            Shape::Picture { channels, height, width } => {
                let read = if self.layers == Layers::All { self.depth } else { 1 };
                Ok(read * ConvNet::feature_len_of([channels, height, width], self.width, self.depth)?)
            }
            Shape::Vector { .. } => Ok(self.width),
        }
    }
}

/// The network that `asked` is for these rows.
fn network(asked: Network, shape: Shape, scaling: &Scaling) -> Result<Network> {
    match (asked, shape) {
        (Network::Auto | Network::ConvNet, Shape::Picture { .. }) => Ok(Network::ConvNet),
        (Network::Auto, Shape::Vector { .. }) if scaling.table().is_some() => Ok(Network::Mixed),
        (Network::Auto, Shape::Vector { .. }) => Ok(Network::Mlp),
        (Network::ConvNet, Shape::Vector { .. }) => {
            let message = format!("'convnet' is for pictures, and a row is a {shape}; use 'mlp', 'fourier' or 'mixed'");
            Err(Error::option("network", message))
        }
        (other, Shape::Picture { .. }) => Err(Error::option(
            "network",
            format!("'{other}' is for lists of numbers and tables, and a row is a {shape}; use 'convnet'"),
        )),
        (other, Shape::Vector { .. }) => Ok(other),
    }
}

/// Frozen extractors on a device.
#[derive(Debug)]
pub struct Pool {
    recipe: PoolRecipe,
    device: Device,
    members: Vec<Member>,
    transform_seed: u64,
    fingerprint: String,
}

#[derive(Debug)]
struct Member {
    net: Net,
    transform: Option<Transform>,
}

#[derive(Debug)]
enum Net {
    Conv(ConvNet),
    Mlp(Mlp),
    Fourier(Fourier),
}

impl Net {
    fn tensors(&self, prefix: &str) -> Vec<(String, Tensor)> {
        let tensors = match self {
            Net::Conv(net) => net.tensors(prefix),
            Net::Mlp(net) => net.tensors(prefix),
            Net::Fourier(net) => net.tensors(prefix),
        };
        let mut tensors: Vec<_> = tensors.into_iter().collect();
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        tensors
    }

    /// Width and depth; of Fourier features, which have one layer, the depth that the recipe gives MLPs beside them.
    fn size(&self, recipe: &PoolRecipe) -> (usize, usize) {
        match self {
            Net::Conv(net) => (net.width(), net.blocks().len()),
            Net::Mlp(net) => (net.feature_len(), net.layers.len()),
            Net::Fourier(net) => (net.feature_len(), recipe.depth),
        }
    }
}

impl Pool {
    /// Builds the pool of `recipe` on `device`. Weights of extractor N are drawn from the stream `extractor N`, its transform from `transform N`.
    /// A file that can't be read, or whose tensors don't fit the recipe, is an [`Error::Pool`] that names file and tensor.
    pub fn build(recipe: &PoolRecipe, device: &Device) -> Result<Self> {
        Self::build_for(recipe, device, &Options::default())
    }

    /// [`Pool::build`] where a file's bytes may be in `options`, fetched from elsewhere.
    pub fn build_for(recipe: &PoolRecipe, device: &Device, options: &Options) -> Result<Self> {
        let (nets, transform_seed) = match &recipe.source {
            Source::Random { seed } => {
                let nets: Result<Vec<_>> = (0..recipe.extractors)
                    .map(|n| {
                        let rng = &mut stream(*seed, &format!("extractor {n}"));
                        let (width, depth) = recipe.size_of(n);
                        Ok(match recipe.input_shape() {
                            Shape::Picture { channels, height, width: w } => {
                                Net::Conv(ConvNet::random([channels, height, w], width, depth, rng, device)?)
                            }
                            Shape::Vector { len } if recipe.is_fourier(n) => {
                                Net::Fourier(Fourier::random(len, width, rng, device)?)
                            }
                            Shape::Vector { len } => Net::Mlp(Mlp::random(len, width, depth, rng, device)?),
                        })
                    })
                    .collect();
                (nets?, *seed)
            }
            Source::File { path } => {
                let file = PoolFile::of(path, options)?;
                let nets = nets_of_file(recipe, path, &file, device)?;
                (nets, file.header.map_or(0, |h| h.transform_seed))
            }
        };
        Self::assemble(recipe, nets, transform_seed, device)
    }

    /// The pool of `recipe` with networks made elsewhere, as many and of such sizes as it says; transforms are drawn from `seed`.
    pub fn of_networks(recipe: &PoolRecipe, nets: Vec<ConvNet>, seed: u64, device: &Device) -> Result<Self> {
        Self::assemble(recipe, nets.into_iter().map(Net::Conv).collect(), seed, device)
    }

    fn assemble(recipe: &PoolRecipe, nets: Vec<Net>, transform_seed: u64, device: &Device) -> Result<Self> {
        // One after the other or a few at once: they share scratch memory.
        let arena = Arc::<Arena>::default();
        let mut members = vec![];
        for (n, net) in nets.into_iter().enumerate() {
            let net = match net {
                Net::Conv(net) => {
                    // Shallower ones leave larger pictures: averaged to the size that the deepest leave.
                    let halvings = recipe.depth.saturating_sub(net.blocks().len());
                    Net::Conv(net.with_arena(arena.clone()).reading(recipe.layers, halvings)?)
                }
                net => net,
            };
            let transform = match recipe.shape {
                Shape::Picture { channels, height, width } if recipe.augment != "none" => {
                    let rng = &mut stream(transform_seed, &format!("transform {n}"));
                    Some(Transform::siamese(&recipe.augment, [channels, height, width], rng))
                }
                _ => None,
            };
            members.push(Member { net, transform });
        }
        let fingerprint = fingerprint(recipe, &members)?;
        Ok(Self { recipe: recipe.clone(), device: device.clone(), members, transform_seed, fingerprint })
    }

    /// The recipe it was built from.
    pub fn recipe(&self) -> &PoolRecipe {
        &self.recipe
    }

    /// Hex BLAKE3 of weights, shapes, scaling and transforms; where the weights come from doesn't enter, so that a saved pool keeps its fingerprint.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The device it is on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Rows in the input's units, `[n * shape.len()]`, as a scaled tensor `[n, ..shape.dims()]` on the device.
    pub fn scale(&self, values: &[f32]) -> Result<Tensor> {
        let shape = self.recipe.shape;
        if !values.len().is_multiple_of(shape.len().max(1)) {
            return Err(Error::Data(format!("{} numbers are no whole number of rows of {shape}", values.len())));
        }
        let dims = [vec![values.len() / shape.len().max(1)], self.recipe.input_shape().dims()].concat();
        Ok(Tensor::from_vec(self.recipe.scaling.scale(values), dims, &self.device)?)
    }

    /// Scaled rows `[batch, ..shape.dims()]` to features `[batch, feature_len]` of extractor `member`, its transform applied
    /// first; row-wise: a row's features don't depend on the rest of the batch. Differentiable in the rows if `wants.input`.
    ///
    /// Those of an extractor smaller than the recipe's `width` and `depth` end in zeros. Zeros add nothing to means, lengths and inner products, and so change
    /// neither characteristic functions nor ridge regressions.
    pub fn features(&self, member: usize, rows: &Tensor, wants: Wants) -> Result<Tensor> {
        let count = self.members.len();
        let no_member = || Error::Pool(format!("there is no extractor {member}; the pool has {count}, counted from 0"));
        let member = self.members.get(member).ok_or_else(no_member)?;
        let rows = if wants.input { rows.clone() } else { rows.detach() };
        let rows = match &member.transform {
            Some(transform) => transform.apply(&rows)?,
            None => rows,
        };
        let features = match &member.net {
            Net::Conv(net) => net.forward(&rows, Wants { weights: false, ..wants })?,
            Net::Mlp(net) => net.forward(&rows)?,
            Net::Fourier(net) => net.forward(&rows)?,
        };
        match self.recipe.feature_len().saturating_sub(features.dim(1)?) {
            0 => Ok(features),
            missing => Ok(features.pad_with_zeros(1, 0, missing)?),
        }
    }

    /// Writes the pool as safetensors (recipe in the metadata), beside and then renamed: option `pool_file` reads it.
    pub fn save(&self, path: &Path) -> Result<()> {
        let (header, tensors) = self.content();
        pool_file::write(path, &header, &tensors)
    }

    /// What [`Pool::save`] writes, for option `pool_file` of jobs in this process.
    pub fn to_bytes(&self) -> Result<PoolBytes> {
        let (header, tensors) = self.content();
        Ok(PoolBytes(Arc::new(pool_file::bytes("a pool", &header, &tensors)?)))
    }

    fn content(&self) -> (Header, Vec<(String, Tensor)>) {
        let header = Header { recipe: self.recipe.clone(), transform_seed: self.transform_seed };
        let members = self.members.iter().enumerate();
        (header, members.flat_map(|(n, m)| m.net.tensors(&format!("extractors.{n}"))).collect())
    }
}

/// The networks of a pool file, checked against the recipe.
fn nets_of_file(recipe: &PoolRecipe, path: &str, file: &PoolFile, device: &Device) -> Result<Vec<Net>> {
    let in_file = |e: Error| match e {
        Error::Pool(message) => pool_file::error(path, message),
        other => other,
    };
    let mut nets = vec![];
    for n in 0..recipe.extractors {
        let prefix = format!("extractors.{n}");
        let net = match recipe.input_shape() {
            Shape::Picture { channels, height, width } => {
                let input = [channels, height, width];
                let net = ConvNet::from_tensors(input, &file.tensors, &prefix).map_err(in_file)?;
                let to_device = |(weight, affine): &(Tensor, Tensor)| -> Result<_> {
                    Ok((weight.to_device(device)?, affine.to_device(device)?))
                };
                Net::Conv(ConvNet::new(input, net.blocks().iter().map(to_device).collect::<Result<_>>()?))
            }
            Shape::Vector { len } if recipe.is_fourier(n) => {
                let mut net = Fourier::from_tensors(len, &file.tensors, &prefix).map_err(in_file)?;
                (net.weight, net.bias) = (net.weight.to_device(device)?, net.bias.to_device(device)?);
                Net::Fourier(net)
            }
            Shape::Vector { len } => {
                let mut net = Mlp::from_tensors(len, &file.tensors, &prefix).map_err(in_file)?;
                for (weight, bias) in &mut net.layers {
                    (*weight, *bias) = (weight.to_device(device)?, bias.to_device(device)?);
                }
                Net::Mlp(net)
            }
        };
        let (width, depth) = net.size(recipe);
        let (expected_width, expected_depth) = recipe.size_of(n);
        if (width, depth) != (expected_width, expected_depth) {
            let message = format!(
                "'{prefix}' has width {width} and depth {depth}, expected width {expected_width} and depth {expected_depth}"
            );
            return Err(pool_file::error(path, message));
        }
        nets.push(net);
    }
    Ok(nets)
}

fn fingerprint(recipe: &PoolRecipe, members: &[Member]) -> Result<String> {
    let mut hasher = blake3::Hasher::new_derive_key(VERSION);
    let PoolRecipe { shape, scaling, extractors, network, width, depth, layers, sizes, .. } = recipe;
    hasher.update(format!("{shape:?} {scaling:?} {extractors} {network} {width} {depth}").as_bytes());
    // What is as it always was goes without saying, so that pools keep the fingerprints that they had.
    if !is_last_layer(layers) {
        hasher.update(format!(" layers {layers}").as_bytes());
    }
    if !are_same_sizes(sizes) {
        hasher.update(format!(" sizes {sizes}").as_bytes());
    }
    for (n, member) in members.iter().enumerate() {
        // Debug prints the shortest text that gives each number back.
        hasher.update(format!("{n} {:?}", member.transform).as_bytes());
        for (name, tensor) in member.net.tensors("") {
            hasher.update(format!("{name} {:?}", tensor.dims()).as_bytes());
            for value in tensor.flatten_all()?.to_vec1::<f32>()? {
                hasher.update(&value.to_le_bytes());
            }
        }
    }
    Ok(hasher.finalize().to_hex().to_string())
}

#[cfg(test)]
mod tests;
