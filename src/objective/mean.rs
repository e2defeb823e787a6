//! Mean embeddings (distribution matching, Zhao and Bilen, WACV 2023, equation 4).

use candle_core::{Device, Tensor};

use crate::error::Result;
use crate::objective::{Groups, Objective, of_member};
use crate::sketch::Sketches;

/// Sum over classes of the squared distance of mean embeddings:
///
/// `L = sum_c | mean_{x in T_c} f(x) - mean_{s in S_c} f(s) |^2`
///
/// with `f` one extractor, `T_c` the real rows of class c (their mean is in the sketch, over all of them rather than over a
/// batch) and `S_c` its synthetic rows.
#[derive(Debug)]
pub struct Mean {
    /// An extractor's `[classes, feature_len]` mean embeddings of the real rows.
    targets: Vec<Tensor>,
}

impl Mean {
    /// Targets from `sketches`.
    pub fn new(sketches: &Sketches, device: &Device) -> Result<Self> {
        let targets = (0..sketches.header.recipe.extractors)
            .map(|member| {
                let means: Vec<f32> = sketches.classes.values().flat_map(|s| s.mean(member)).collect();
                Ok(Tensor::from_vec(means, (sketches.classes.len(), ()), device)?)
            })
            .collect::<Result<_>>()?;
        Ok(Self { targets })
    }
}

impl Objective for Mean {
    fn name(&self) -> &'static str {
        "mean"
    }

    fn loss(&self, member: usize, features: &Tensor, groups: &Groups, _labels: &Tensor) -> candle_core::Result<Tensor> {
        (groups.mean(features)? - of_member(&self.targets, member)?)?.sqr()?.sum_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::gradient_check;
    use crate::random;

    #[test]
    fn the_loss_is_the_squared_distance_of_means_summed_over_classes() {
        let target = Tensor::new(&[[1f32, 2.0], [0.0, -1.0]], &Device::Cpu).unwrap();
        let mean = Mean { targets: vec![target] };
        let groups = Groups::new(&[2, 1]);
        let features = Tensor::new(&[[1f32, 1.0], [3.0, 3.0], [0.0, 0.0]], &Device::Cpu).unwrap();
        assert_eq!(mean.loss(0, &features, &groups, &features).unwrap().to_scalar::<f32>().unwrap(), 2.0);
        assert!(mean.loss(1, &features, &groups, &features).unwrap_err().to_string().contains("extractor 1"));
    }

    #[test]
    fn the_gradient_is_that_of_finite_differences() {
        let mut stream = random::stream(1, "test");
        let target = Tensor::from_vec(random::normal(&mut stream, 3 * 5), (3, 5), &Device::Cpu).unwrap();
        let features = random::normal(&mut stream, 6 * 5);
        let mean = Mean { targets: vec![target] };
        for sizes in [[2, 2, 2], [1, 3, 2]] {
            gradient_check::check(&mean, &features, &Groups::new(&sizes), 1e-2);
        }
    }
}
