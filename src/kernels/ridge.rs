//! A symmetric positive definite matrix and right sides flow in; the solutions of its linear systems flow out, differentiably.

mod cholesky;

use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp2, DType, Device, Layout, Result, Shape, Tensor, WithDType, bail};

use crate::kernels::conv_block::for_each;
use crate::kernels::simd::Path;
use cholesky::{Cholesky, WIDTH};

/// Below so many multiplications, threads cost more than they save.
const PARALLEL: usize = 1 << 22;

/// `X = K^-1 Y` for `k` `[n, n]`, symmetric and positive definite, and `y` `[n, c]`, both f32 or both f64; differentiable in both.
///
/// By Cholesky decomposition in float64; of `k` the symmetric part `(K + K^T) / 2` counts. The gradients are `dY = K^-1 dX` and
/// `dK = -(dY X^T + X dY^T) / 2`. The same bits for any thread count; columns don't depend on each other.
///
/// Other shapes and types, and a matrix that is not positive definite, are errors. Tensors of a device other than the CPU go through the CPU.
pub fn ridge_solve(k: &Tensor, y: &Tensor) -> Result<Tensor> {
    on_path(Path::detect(), k, y)
}

fn on_path(path: Path, k: &Tensor, y: &Tensor) -> Result<Tensor> {
    let (n, _) = y.dims2()?;
    if k.dims() != [n, n] || n == 0 {
        bail!("ridge solve: the matrix is {:?}, expected [{n}, {n}] for right sides {:?}", k.dims(), y.dims());
    }
    if k.dtype() != y.dtype() || !matches!(k.dtype(), DType::F32 | DType::F64) {
        bail!("ridge solve: {:?} matrix and {:?} right sides, expected f32 or f64 for both", k.dtype(), y.dtype());
    }
    let cpu = Device::Cpu;
    let (on_cpu_k, on_cpu_y) = (k.to_device(&cpu)?.contiguous()?, y.to_device(&cpu)?.contiguous()?);
    let op = Solve { path, saved: Mutex::default() };
    on_cpu_k.apply_op2(&on_cpu_y, op)?.to_device(y.device())
}

struct Solve {
    path: Path,
    saved: Mutex<Option<Saved>>,
}

/// What the backward pass needs.
struct Saved {
    factor: Cholesky,
    solution: Panels,
}

/// Columns `[n, columns]` in panels `[columns / WIDTH][rows][WIDTH]`, zeros where rows or columns end.
struct Panels {
    n: usize,
    columns: usize,
    rows: usize,
    values: Vec<f64>,
}

impl Panels {
    fn new<T: WithDType>(from: &[T], [n, columns]: [usize; 2], rows: usize) -> Self {
        let mut values = vec![0.0; columns.div_ceil(WIDTH) * rows * WIDTH];
        if columns > 0 {
            for (panel, to) in values.chunks_exact_mut(rows * WIDTH).enumerate() {
                for (row, to) in from.chunks_exact(columns).zip(to.chunks_exact_mut(WIDTH)) {
                    let row = &row[panel * WIDTH..columns.min((panel + 1) * WIDTH)];
                    to.iter_mut().zip(row).for_each(|(to, v)| *to = v.to_f64());
                }
            }
        }
        Self { n, columns, rows, values }
    }

    fn solve(&mut self, factor: &Cholesky) {
        let panel = self.rows * WIDTH;
        let parallel = self.rows * self.rows * self.columns >= PARALLEL;
        for_each(parallel, self.values.chunks_exact_mut(panel).collect(), || (), |(), panel| factor.solve(panel));
    }

    fn at(&self, row: usize, column: usize) -> f64 {
        self.values[(column / WIDTH * self.rows + row) * WIDTH + column % WIDTH]
    }

    fn list<T: WithDType>(&self) -> Vec<T> {
        let at = |i: usize| T::from_f64(self.at(i / self.columns, i % self.columns));
        (0..self.n * self.columns).map(at).collect()
    }
}

impl Solve {
    fn forward<T: WithDType>(&self, k: &[T], y: &[T], [n, columns]: [usize; 2]) -> Result<Vec<T>> {
        let at = |i: usize, j: usize| 0.5 * (k[i * n + j].to_f64() + k[j * n + i].to_f64());
        let factor = match Cholesky::new(self.path, n, at) {
            Ok(factor) => factor,
            Err(bad) => bail!(
                "ridge solve: the {n}x{n} matrix is not positive definite: in row {} its pivot is {:e}; all its numbers must be finite, and \
                 something larger must be added to its diagonal (raise the ridge)",
                bad.row,
                bad.pivot
            ),
        };
        let mut solution = Panels::new(y, [n, columns], factor.rows());
        solution.solve(&factor);
        let list = solution.list();
        *self.saved.lock().unwrap_or_else(PoisonError::into_inner) = Some(Saved { factor, solution });
        Ok(list)
    }

    fn backward<T: WithDType>(&self, grad: &Tensor) -> Result<(Tensor, Tensor)> {
        let saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Saved { factor, solution }) = saved.as_ref() else { bail!("ridge solve: backward without forward") };
        let (n, columns) = (solution.n, solution.columns);
        let grad: Vec<T> = grad.flatten_all()?.to_vec1()?;
        let mut by_y = Panels::new(&grad, [n, columns], solution.rows);
        by_y.solve(factor);
        // dK = -(dY X^T + X dY^T) / 2, as one product of 2c long rows: [dY, X] with [X, dY] / 2.
        let blocks = solution.rows / WIDTH;
        let halves = |first: &Panels, second: &Panels, factor: f64| -> Vec<f64> {
            let mut packed = Vec::with_capacity(blocks * 2 * columns * WIDTH);
            for block in 0..blocks {
                for column in 0..2 * columns {
                    let of = if column < columns { first } else { second };
                    packed.extend((0..WIDTH).map(|i| of.at(block * WIDTH + i, column % columns) * factor));
                }
            }
            packed
        };
        let mut by_k = vec![T::from_f64(0.0); n * n];
        if columns > 0 {
            let (left, right) = (halves(&by_y, solution, 1.0), halves(solution, &by_y, 0.5));
            let panel = 2 * columns * WIDTH;
            let lines = by_k.chunks_mut(WIDTH * n).zip(left.chunks_exact(panel)).collect();
            for_each(
                n * n * columns >= PARALLEL,
                lines,
                || (),
                |(), (to, left): (&mut [T], &[f64])| {
                    for (block, right) in right.chunks_exact(panel).enumerate() {
                        let mut tile = [0.0; WIDTH * WIDTH];
                        factor.subtract_outer(left, right, &mut tile);
                        for (to, from) in to.chunks_exact_mut(n).zip(tile.chunks_exact(WIDTH)) {
                            let to = &mut to[block * WIDTH..n.min((block + 1) * WIDTH)];
                            to.iter_mut().zip(from).for_each(|(to, from)| *to = T::from_f64(*from));
                        }
                    }
                },
            );
        }
        let by_k = Tensor::from_vec(by_k, (n, n), &Device::Cpu)?;
        Ok((by_k, Tensor::from_vec(by_y.list::<T>(), (n, columns), &Device::Cpu)?))
    }
}

impl CustomOp2 for Solve {
    fn name(&self) -> &'static str {
        "ridge-solve"
    }

    fn cpu_fwd(
        &self,
        k: &CpuStorage,
        k_layout: &Layout,
        y: &CpuStorage,
        y_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (Some((k_start, k_end)), Some((y_start, y_end))) =
            (k_layout.contiguous_offsets(), y_layout.contiguous_offsets())
        else {
            bail!("ridge solve: not contiguous");
        };
        let (n, columns) = y_layout.shape().dims2()?;
        let out = match k {
            CpuStorage::F64(k) => CpuStorage::F64(self.forward(
                &k[k_start..k_end],
                &y.as_slice::<f64>()?[y_start..y_end],
                [n, columns],
            )?),
            k => CpuStorage::F32(self.forward(
                &k.as_slice::<f32>()?[k_start..k_end],
                &y.as_slice::<f32>()?[y_start..y_end],
                [n, columns],
            )?),
        };
        Ok((out, Shape::from((n, columns))))
    }

    fn bwd(&self, k: &Tensor, _y: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (by_k, by_y) =
            if k.dtype() == DType::F64 { self.backward::<f64>(grad)? } else { self.backward::<f32>(grad)? };
        Ok((Some(by_k), Some(by_y)))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;
    use proptest::prelude::*;

    use super::*;
    use crate::random;

    /// A matrix `A A^T / n + ridge`, symmetric to the bit.
    fn matrix(n: usize, ridge: f64, seed: u64) -> Tensor {
        let values = random::normal(&mut random::stream(seed, "matrix"), n * n);
        let a = Tensor::from_vec(values, (n, n), &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
        let k = (a.matmul(&a.t().unwrap()).unwrap() / n as f64).unwrap();
        let k = (&k + k.t().unwrap()).unwrap() / 2.0;
        (k.unwrap() + (Tensor::eye(n, DType::F64, &Device::Cpu).unwrap() * ridge).unwrap()).unwrap()
    }

    fn sides(n: usize, columns: usize, seed: u64) -> Tensor {
        let values = random::normal(&mut random::stream(seed, "sides"), n * columns);
        Tensor::from_vec(values, (n, columns), &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap()
    }

    fn list(t: &Tensor) -> Vec<f64> {
        t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    fn largest(t: &Tensor) -> f64 {
        list(t).into_iter().fold(0.0, |m, v| m.max(v.abs()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn the_solution_of_any_shape_satisfies_the_system_on_every_path(n in 1usize..120, columns in 0usize..40, seed in 0u64..100) {
            let (k, y) = (matrix(n, 0.1, seed), sides(n, columns, seed));
            for path in Path::usable() {
                let x = on_path(path, &k, &y).unwrap();
                let apart = (k.matmul(&x).unwrap() - &y).unwrap();
                prop_assert!(largest(&apart) < 1e-10, "{:?} {}", path, largest(&apart));
                // In float32 what is lost is the rounding of what goes in and out.
                let rounded = [&k, &y].map(|t| t.to_dtype(DType::F32).unwrap());
                let single = on_path(path, &rounded[0], &rounded[1]).unwrap();
                let [k, y] = rounded.map(|t| t.to_dtype(DType::F64).unwrap());
                let exact = on_path(path, &k, &y).unwrap();
                let apart = (single.to_dtype(DType::F64).unwrap() - &exact).unwrap();
                prop_assert!(largest(&apart) <= 1e-7 * largest(&exact).max(1.0), "{:?}", path);
            }
        }
    }

    #[test]
    fn large_systems_are_solved() {
        for n in [500, 1000] {
            let (k, y) = (matrix(n, 1e-3, 1), sides(n, 20, 1));
            let apart = (k.matmul(&ridge_solve(&k, &y).unwrap()).unwrap() - &y).unwrap();
            assert!(largest(&apart) < 1e-8, "{n} {}", largest(&apart));
        }
    }

    #[test]
    fn both_gradients_are_those_of_finite_differences() {
        for (n, columns) in [(1, 1), (5, 3), (20, 18)] {
            let (k, y, w) = (matrix(n, 0.5, 2), sides(n, columns, 2), sides(n, columns, 3));
            for path in Path::usable() {
                let loss = |k: &Tensor, y: &Tensor| {
                    let x = on_path(path, k, y).unwrap();
                    ((&x * &w).unwrap() + x.sqr().unwrap()).unwrap().sum_all().unwrap()
                };
                let [k_var, y_var] = [&k, &y].map(|t| Var::from_tensor(t).unwrap());
                let gradients = loss(k_var.as_tensor(), y_var.as_tensor()).backward().unwrap();
                let check = |gradient: &Tensor, around: &Tensor, of: &dyn Fn(&Tensor) -> Tensor| {
                    let values = list(around);
                    for (i, g) in list(gradient).into_iter().enumerate() {
                        let moved = |by: f64| {
                            let mut values = values.clone();
                            values[i] += by;
                            let moved = Tensor::from_vec(values, around.shape(), &Device::Cpu).unwrap();
                            of(&moved).to_scalar::<f64>().unwrap()
                        };
                        let numeric = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                        assert!((numeric - g).abs() < 1e-5 * (1.0 + g.abs()), "{path:?} {n} {i}: {numeric} {g}");
                    }
                };
                check(gradients.get(&k_var).unwrap(), &k, &|k| loss(k, &y));
                check(gradients.get(&y_var).unwrap(), &y, &|y| loss(&k, y));
            }
        }
    }

    #[test]
    fn bits_depend_neither_on_threads_nor_on_the_other_columns() {
        let (n, columns) = (330, 50);
        let (k, y) = (matrix(n, 0.1, 4), sides(n, columns, 4));
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let [k, y] = [&k, &y].map(|t| Var::from_tensor(t).unwrap());
                let x = ridge_solve(k.as_tensor(), y.as_tensor()).unwrap();
                let gradients = x.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                [list(&x), list(gradients.get(&k).unwrap()), list(gradients.get(&y).unwrap())]
            })
        };
        let one = run(1);
        assert_eq!(one, run(3));
        let alone = ridge_solve(&k, &y.narrow(1, 37, 1).unwrap()).unwrap();
        let column: Vec<f64> = one[0].iter().skip(37).step_by(columns).copied().collect();
        assert_eq!(column, list(&alone));
    }

    #[test]
    fn the_symmetric_part_counts() {
        let (k, y) = (matrix(20, 0.1, 5), sides(20, 2, 5));
        let skew = sides(20, 20, 6);
        let skew = (&skew - skew.t().unwrap()).unwrap();
        let apart = (ridge_solve(&k, &y).unwrap() - ridge_solve(&(&k + skew).unwrap(), &y).unwrap()).unwrap();
        assert!(largest(&apart) < 1e-12);
    }

    #[test]
    fn matrices_without_a_factor_are_refused_with_the_row() {
        let y = sides(20, 2, 7);
        let message = |k: &Tensor| ridge_solve(k, &y).unwrap_err().to_string();
        let with = |row: usize, value: f64| {
            let mut values = list(&matrix(20, 0.1, 7));
            values[row * 21] = value;
            Tensor::from_vec(values, (20, 20), &Device::Cpu).unwrap()
        };
        for (row, value) in [(0, 0.0), (17, -3.0), (5, f64::NAN), (3, f64::INFINITY)] {
            let e = message(&with(row, value));
            assert!(e.contains("not positive definite") && e.contains(&format!("row {row} ")), "{e}");
        }
        // Of rank one: what is left of the second pivot is rounding.
        let column = sides(20, 1, 8);
        let e = message(&column.matmul(&column.t().unwrap()).unwrap());
        assert!(e.contains("not positive definite") && e.contains("raise the ridge"), "{e}");
        assert!(message(&matrix(19, 1.0, 1)).contains("expected [20, 20]"));
        assert!(message(&matrix(20, 1.0, 1).to_dtype(DType::F32).unwrap()).contains("F32"));
    }
}
