//! The original rows flow in; as many real rows a class as a distilled set has, by a cheap method, flow out.

use candle_core::{Device, Tensor};
use rand::RngCore;

use crate::choice::choice;
use crate::error::{Error, Result};
use crate::evaluate::Dataset;
use crate::evaluate::dataset::Standardisation;
use crate::evaluate::network::{Network, NetworkKind};
use crate::{random, select};

/// Most rows of a class that [`Baseline::KCenter`] and [`Baseline::KMeans`] choose among: their time grows with rows times choices.
const CANDIDATES: usize = 5_000;

choice! {
    /// Real rows that a distilled set has to beat.
    Baseline {
        /// Uniformly chosen in each class.
        Random = "random",
        /// Chosen so that their mean feature follows the class's (Welling 2009).
        Herding = "herding",
        /// Chosen so that no other row is far (Gonzalez 1985), the first one nearest to the class's mean.
        KCenter = "k_center" | "k-center",
        /// Nearest to the centres of k-means (Lloyd 1982).
        KMeans = "k_means" | "k-means",
    }
}

impl Baseline {
    /// `ipc` rows of each class of `original` (all of a class that has fewer), in class order. Each `draw` of a `seed` is a choice of its own:
    /// other rows, or another random network, whose features all but `random` compare. `k_center` and `k_means` choose among at most
    /// 5,000 rows of a class, drawn from `seed`. Runs on the current rayon pool.
    pub fn choose(self, original: &Dataset, ipc: usize, seed: u64, draw: usize, device: &Device) -> Result<Dataset> {
        let chosen = match self {
            Self::Random => {
                let of_class = |(class, rows): (usize, Vec<usize>)| self.drawn(original, class, &rows, ipc, seed, draw);
                original.rows_by_class().into_iter().enumerate().flat_map(of_class).collect()
            }
            Self::Herding | Self::KCenter | Self::KMeans => self.by_features(original, ipc, seed, draw, device)?,
        };
        Ok(original.subset(&chosen))
    }

    fn by_features(
        self,
        original: &Dataset,
        ipc: usize,
        seed: u64,
        draw: usize,
        device: &Device,
    ) -> Result<Vec<usize>> {
        let mut rng = random::stream(seed, &format!("baseline {} {draw}", self.as_str()));
        let kind = NetworkKind::default_for(original.shape);
        let network = Network::random(kind, original.shape, 1, (None, None), &mut rng, device)?.frozen();
        let standard = Standardisation::of(original);
        let mut chosen = vec![];
        for (class, rows) in original.rows_by_class().into_iter().enumerate() {
            let rows = match self {
                Self::KCenter | Self::KMeans => self.drawn(original, class, &rows, CANDIDATES, seed, draw),
                Self::Random | Self::Herding => rows,
            };
            let (features, length) = features(&network, original, &standard, &rows, device)?;
            let mean = select::mean(&features, length);
            let of_class = match self {
                Self::KCenter => select::k_center(&features, length, ipc, &mean),
                Self::KMeans => {
                    let purpose = format!("baseline k_means {draw} centres {}", original.classes[class]);
                    select::k_means(&features, length, ipc, &vec![1.0; rows.len()], &mut random::stream(seed, &purpose))
                }
                Self::Random | Self::Herding => select::herding(&features, length, ipc, &mean),
            };
            chosen.extend(of_class.into_iter().map(|i| rows[i]));
        }
        Ok(chosen)
    }

    /// `k` of a class's `rows`, uniformly.
    fn drawn(self, original: &Dataset, class: usize, rows: &[usize], k: usize, seed: u64, draw: usize) -> Vec<usize> {
        let purpose = format!("baseline {} {draw} {}", self.as_str(), original.classes[class]);
        let seed = random::stream(seed, &purpose).next_u64();
        select::random(rows.len(), k, seed).into_iter().map(|i| rows[i]).collect()
    }
}

impl std::str::FromStr for Baseline {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse("baseline", text)
    }
}

/// The features of `rows`, row-major, and their length. Rows are standardised a batch at a time: all of them at once would be the set once more.
fn features(
    network: &Network,
    set: &Dataset,
    standard: &Standardisation,
    rows: &[usize],
    device: &Device,
) -> Result<(Vec<f32>, usize)> {
    let (mut out, mut length) = (vec![], 0);
    for batch in rows.chunks(256) {
        let mut values: Vec<f32> = batch.iter().flat_map(|i| set.row(*i)).copied().collect();
        standard.apply_to(&mut values);
        let dims: Vec<usize> = std::iter::once(batch.len()).chain(set.shape.dims()).collect();
        let features = network.features(&Tensor::from_vec(values, dims, device)?)?;
        length = features.dim(1)?;
        out.extend(features.flatten_all()?.to_vec1::<f32>()?);
    }
    Ok((out, length))
}
