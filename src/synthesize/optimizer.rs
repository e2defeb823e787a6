//! Gradients flow in, updated variables flow out.

use candle_core::{CpuStorage, DType, InplaceOp2, InplaceOp3, Layout, Result, Storage, Tensor, Var, bail};

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
            if on_cpu(variable) {
                let gradient = apart(&gradient, variable)?;
                let (decay1, new1, decay2, new2) = (b1 as f32, (1.0 - b1) as f32, b2 as f32, (1.0 - b2) as f32);
                m.inplace_op2(&gradient, &Each(|m: &mut f32, g: f32| *m = *m * decay1 + g * new1))?;
                v.inplace_op2(&gradient, &Each(|v: &mut f32, g: f32| *v = *v * decay2 + g * g * new2))?;
                let (rate, scale, epsilon) = ((rate / unbias1) as f32, (1.0 / unbias2) as f32, self.epsilon as f32);
                let update = |x: &mut f32, m: f32, v: f32| *x -= m * rate / ((v * scale).sqrt() + epsilon);
                variable.inplace_op3(m, v, &EachOfThree(update))?;
                continue;
            }
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
            if on_cpu(variable) {
                // Where the first step's direction is the gradient, a buffer of zeros leaves it so.
                let buffer = match &*buffer {
                    Some(buffer) => buffer.clone(),
                    None => buffer.insert(variable.zeros_like()?).clone(),
                };
                let (decay, momentum, rate) = (self.weight_decay as f32, self.momentum as f32, rate as f32);
                let direction = |b: &mut f32, g: f32, x: f32| *b = *b * momentum + (g + x * decay);
                buffer.inplace_op3(&apart(&gradient, variable)?, &value, &EachOfThree(direction))?;
                variable.inplace_op2(&buffer, &Each(|x: &mut f32, b: f32| *x -= b * rate))?;
                continue;
            }
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

/// Whether the fused updates below are for it: on the CPU candle's operations, one by one, would each go through fresh memory.
fn on_cpu(variable: &Var) -> bool {
    variable.device().is_cpu() && variable.dtype() == DType::F32 && variable.is_contiguous()
}

/// `gradient`, contiguous and in a storage of its own: `variable`'s is locked while it is written.
fn apart(gradient: &Tensor, variable: &Var) -> Result<Tensor> {
    let gradient = gradient.contiguous()?;
    let start = |t: &Tensor| -> Result<usize> {
        let (storage, _) = t.storage_and_layout();
        let Storage::Cpu(storage) = &*storage else { bail!("an optimizer's tensor is not on the CPU") };
        Ok(storage.as_slice::<f32>()?.as_ptr() as usize)
    };
    if start(&gradient)? == start(variable)? { gradient.copy() } else { Ok(gradient) }
}

/// Calls a function on each element of the first tensor and its fellow of the second.
struct Each<F>(F);

impl<F: Fn(&mut f32, f32)> InplaceOp2 for Each<F> {
    fn name(&self) -> &'static str {
        "each"
    }

    fn cpu_fwd(&self, s1: &mut CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<()> {
        let (to, from) = (slice_mut(s1, l1)?, slice(s2, l2)?);
        to.iter_mut().zip(from).for_each(|(a, b)| (self.0)(a, *b));
        Ok(())
    }
}

/// [`Each`] with two more tensors.
struct EachOfThree<F>(F);

impl<F: Fn(&mut f32, f32, f32)> InplaceOp3 for EachOfThree<F> {
    fn name(&self) -> &'static str {
        "each of three"
    }

    fn cpu_fwd(
        &self,
        s1: &mut CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<()> {
        let (to, second, third) = (slice_mut(s1, l1)?, slice(s2, l2)?, slice(s3, l3)?);
        to.iter_mut().zip(second).zip(third).for_each(|((a, b), c)| (self.0)(a, *b, *c));
        Ok(())
    }
}

fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let Some((start, end)) = layout.contiguous_offsets() else { bail!("an optimizer's tensor is not contiguous") };
    Ok(&storage.as_slice::<f32>()?[start..end])
}

fn slice_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [f32]> {
    let Some((start, end)) = layout.contiguous_offsets() else { bail!("an optimizer's tensor is not contiguous") };
    match storage {
        CpuStorage::F32(values) => Ok(&mut values[start..end]),
        _ => bail!("an optimizer's tensor is not f32"),
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
    fn other_types_take_the_plain_way_to_the_same_values() {
        for gradient_is_variable in [false, true] {
            let run = |dtype: DType, adam: bool| -> Vec<f64> {
                let variable = Var::from_tensor(&variable().to_dtype(dtype).unwrap()).unwrap();
                let mut optimizer: Box<dyn Optimizer> = if adam {
                    Box::new(Adam::new(vec![variable.clone()], Adam::BETAS).unwrap())
                } else {
                    Box::new(Sgd::new(vec![variable.clone()], 0.9, 0.01).unwrap())
                };
                for rate in [0.1, 0.2, 0.05] {
                    // The gradient of x^2 / 2 is x itself: the same storage.
                    let x = variable.as_tensor();
                    let gradient = if gradient_is_variable { x.clone() } else { (x + 1.0).unwrap() };
                    optimizer.step(&[gradient], rate).unwrap();
                }
                variable.to_dtype(DType::F64).unwrap().to_vec1().unwrap()
            };
            for adam in [true, false] {
                let (fused, plain) = (run(DType::F32, adam), run(DType::F64, adam));
                assert!(fused.iter().zip(&plain).all(|(a, b)| (a - b).abs() < 1e-5), "{fused:?} {plain:?}");
            }
        }
    }

    #[test]
    fn a_missing_gradient_is_an_error() {
        assert!(Sgd::new(vec![variable()], 0.5, 0.0).unwrap().step(&[], 0.1).is_err());
    }
}
