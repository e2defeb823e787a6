//! The original rows flow in; as many real rows a class as a distilled set has, by a cheap method, flow out.

use candle_core::{Device, Tensor};
use rand::RngCore;
use serde::Serialize;

use crate::error::{Error, Result, nearest_hint};
use crate::evaluate::Dataset;
use crate::evaluate::dataset::Standardisation;
use crate::evaluate::network::{Network, NetworkKind};
use crate::{random, select};

/// Real rows that a distilled set has to beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Baseline {
    /// Uniformly chosen in each class.
    Random,
    /// Chosen so that their mean feature follows the class's (Welling 2009), in the features of a random network.
    Herding,
}

impl Baseline {
    /// The names.
    pub const VALUES: &'static [&'static str] = &["random", "herding"];

    /// The name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Herding => "herding",
        }
    }

    /// `ipc` rows of each class of `original` (all of a class that has fewer), in class order. Each `draw` of a `seed` is a choice of its own:
    /// other rows, or another random network. Runs on the current rayon pool.
    pub fn choose(self, original: &Dataset, ipc: usize, seed: u64, draw: usize, device: &Device) -> Result<Dataset> {
        let by_class = original.rows_by_class();
        let mut chosen = vec![];
        match self {
            Self::Random => {
                for (class, rows) in by_class.iter().enumerate() {
                    let label = &original.classes[class];
                    let seed = random::stream(seed, &format!("baseline random {draw} {label}")).next_u64();
                    chosen.extend(select::random(rows.len(), ipc, seed).into_iter().map(|i| rows[i]));
                }
            }
            Self::Herding => {
                let mut rng = random::stream(seed, &format!("baseline herding {draw}"));
                let kind = NetworkKind::default_for(original.shape);
                let network = Network::random(kind, original.shape, 1, (None, None), &mut rng, device)?.frozen();
                let standard = Standardisation::of(original).apply(original);
                for rows in &by_class {
                    let (features, length) = features(&network, original, &standard, rows, device)?;
                    chosen.extend(select::herding(&features, length, ipc.min(rows.len())).into_iter().map(|i| rows[i]));
                }
            }
        }
        Ok(original.subset(&chosen))
    }
}

impl std::str::FromStr for Baseline {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.to_ascii_lowercase().as_str() {
            "random" => Ok(Self::Random),
            "herding" => Ok(Self::Herding),
            _ => Err(Error::option(
                "baseline",
                format!("'{text}' is not a choice{}", nearest_hint(text, Self::VALUES.iter().copied())),
            )),
        }
    }
}

/// The features of `rows`, row-major, and their length.
fn features(
    network: &Network,
    set: &Dataset,
    standard: &[f32],
    rows: &[usize],
    device: &Device,
) -> Result<(Vec<f32>, usize)> {
    let (mut out, mut length) = (vec![], 0);
    let n = set.shape.len();
    for batch in rows.chunks(256) {
        let values: Vec<f32> = batch.iter().flat_map(|i| &standard[i * n..(i + 1) * n]).copied().collect();
        let dims: Vec<usize> = std::iter::once(batch.len()).chain(set.shape.dims()).collect();
        let features = network.features(&Tensor::from_vec(values, dims, device)?)?;
        length = features.dim(1)?;
        out.extend(features.flatten_all()?.to_vec1::<f32>()?);
    }
    Ok((out, length))
}
