//! Gradients flow in, updated variables flow out.

use candle_core::{Result, Tensor, Var, bail};

/// An optimizer of a fixed list of variables.
pub trait Optimizer {
    /// One step with learning rate `rate`; `gradients[i]` belongs to variable `i`.
    fn step(&mut self, gradients: &[Tensor], rate: f64) -> Result<()>;

    /// The variables.
    fn variables(&self) -> &[Var];
}

/// Adam (Kingma and Ba, ICLR 2015, algorithm 1): `m = b1 m + (1 - b1) g`, `v = b2 v + (1 - b2) g^2`,
/// `x = x - rate * m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps)`.
#[derive(Debug)]
pub struct Adam {
    variables: Vec<Var>,
    /// First and second moments of each variable's gradient.
    moments: Vec<(Tensor, Tensor)>,
    betas: (f64, f64),
    epsilon: f64,
    steps: i32,
}

impl Adam {
    /// Decay rates (0.9, 0.95): the second moment forgets faster than usual, as the extractor changes each step.
    pub const BETAS: (f64, f64) = (0.9, 0.95);

    /// For these variables, with decay rates `betas` and eps 1e-8.
    pub fn new(variables: Vec<Var>, betas: (f64, f64)) -> Result<Self> {
        let moments = variables.iter().map(|v| Ok((v.zeros_like()?, v.zeros_like()?))).collect::<Result<_>>()?;
        Ok(Self { variables, moments, betas, epsilon: 1e-8, steps: 0 })
    }
}

impl Optimizer for Adam {
    fn step(&mut self, gradients: &[Tensor], rate: f64) -> Result<()> {
        check(&self.variables, gradients)?;
        self.steps = self.steps.saturating_add(1);
        let (b1, b2) = self.betas;
        let (unbias1, unbias2) = (1.0 - b1.powi(self.steps), 1.0 - b2.powi(self.steps));
        for ((variable, gradient), (m, v)) in self.variables.iter().zip(gradients).zip(&mut self.moments) {
            let gradient = gradient.detach();
            *m = ((&*m * b1)? + (&gradient * (1.0 - b1))?)?;
            *v = ((&*v * b2)? + (gradient.sqr()? * (1.0 - b2))?)?;
            let divisor = ((&*v / unbias2)?.sqrt()? + self.epsilon)?;
            let update = ((&*m * (rate / unbias1))? / divisor)?;
            variable.set(&(variable.as_detached_tensor() - update)?)?;
        }
        Ok(())
    }

    fn variables(&self) -> &[Var] {
        &self.variables
    }
}

/// Stochastic gradient descent with momentum and weight decay, as PyTorch defines them: `g = g + decay x`, `b = momentum b + g`
/// (`b = g` in the first step), `x = x - rate b`.
#[derive(Debug)]
pub struct Sgd {
    variables: Vec<Var>,
    buffers: Vec<Option<Tensor>>,
    momentum: f64,
    weight_decay: f64,
}

impl Sgd {
    /// For these variables.
    pub fn new(variables: Vec<Var>, momentum: f64, weight_decay: f64) -> Result<Self> {
        let buffers = variables.iter().map(|_| None).collect();
        Ok(Self { variables, buffers, momentum, weight_decay })
    }
}

impl Optimizer for Sgd {
    fn step(&mut self, gradients: &[Tensor], rate: f64) -> Result<()> {
        check(&self.variables, gradients)?;
        for ((variable, gradient), buffer) in self.variables.iter().zip(gradients).zip(&mut self.buffers) {
            let value = variable.as_detached_tensor();
            let mut gradient = gradient.detach();
            if self.weight_decay != 0.0 {
                gradient = (gradient + (&value * self.weight_decay)?)?;
            }
            let direction = match &*buffer {
                Some(buffer) => ((buffer * self.momentum)? + gradient)?,
                None => gradient,
            };
            variable.set(&(value - (&direction * rate)?)?)?;
            if self.momentum != 0.0 {
                *buffer = Some(direction);
            }
        }
        Ok(())
    }

    fn variables(&self) -> &[Var] {
        &self.variables
    }
}

fn check(variables: &[Var], gradients: &[Tensor]) -> Result<()> {
    if variables.len() != gradients.len() {
        bail!("{} gradients for {} variables", gradients.len(), variables.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn run(mut optimizer: impl Optimizer, rates: [f64; 3]) -> Vec<f32> {
        // The gradient of x^2 / 2 + x is x + 1.
        for rate in rates {
            let gradient = (optimizer.variables()[0].as_tensor() + 1.0).unwrap();
            optimizer.step(&[gradient], rate).unwrap();
        }
        optimizer.variables()[0].to_vec1().unwrap()
    }

    fn variable() -> Var {
        Var::new(&[1.0f32, -3.0], &Device::Cpu).unwrap()
    }

    fn near(found: &[f32], expected: impl Fn(f64) -> f64) {
        for (found, start) in found.iter().zip([1.0, -3.0]) {
            assert!((f64::from(*found) - expected(start)).abs() < 1e-5, "{found} {}", expected(start));
        }
    }

    #[test]
    fn adam_follows_its_equations() {
        near(&run(Adam::new(vec![variable()], (0.9, 0.95)).unwrap(), [0.1, 0.2, 0.05]), |mut x| {
            let (mut m, mut v) = (0.0, 0.0);
            for (t, rate) in [0.1, 0.2, 0.05].into_iter().enumerate() {
                let g = x + 1.0;
                m = 0.9 * m + 0.1 * g;
                v = 0.95 * v + 0.05 * g * g;
                let t = t as i32 + 1;
                x -= rate * (m / (1.0 - 0.9f64.powi(t))) / ((v / (1.0 - 0.95f64.powi(t))).sqrt() + 1e-8);
            }
            x
        });
    }

    #[test]
    fn sgd_follows_pytorch() {
        near(&run(Sgd::new(vec![variable()], 0.9, 0.01).unwrap(), [0.1, 0.2, 0.05]), |mut x| {
            let mut b = 0.0;
            for (t, rate) in [0.1, 0.2, 0.05].into_iter().enumerate() {
                let g = x + 1.0 + 0.01 * x;
                b = if t == 0 { g } else { 0.9 * b + g };
                x -= rate * b;
            }
            x
        });
    }

    #[test]
    fn a_missing_gradient_is_an_error() {
        assert!(Sgd::new(vec![variable()], 0.5, 0.0).unwrap().step(&[], 0.1).is_err());
    }
}
