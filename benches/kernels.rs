//! The ConvNet's kernels (frozen: all blocks in one operation; trained: block by block) against their plain-candle twin: ConvNet-3 of width 128 on Fashion-MNIST's and CIFAR's picture sizes, one thread, as
//! forward of 256 pictures, forward and input gradient of 100, forward and weight gradient of 100. Throughput counts the convolutions'
//! multiplications and additions: `elem/s` reads as FLOP/s.

use std::sync::Arc;

use candle_core::{Device, Result, Tensor, Var};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use datafusion_distill::kernels::{Arena, ConvStack, Wants, conv_block, conv_block_reference, path};
use datafusion_distill::random::{normal, stream};

const WIDTH: usize = 128;
const DEPTH: usize = 3;

fn variable(shape: &[usize], scale: f64) -> Var {
    let values = normal(&mut stream(1, "bench"), shape.iter().product());
    let tensor = Tensor::from_vec(values, shape, &Device::Cpu).and_then(|t| t * scale);
    tensor.and_then(|t| Var::from_tensor(&t)).expect("a CPU tensor of this shape")
}

fn padding(inputs: usize, n: usize) -> usize {
    if n == 0 && inputs == 1 { 3 } else { 1 }
}

struct Net {
    inputs: usize,
    blocks: Vec<(Var, Var)>,
    stack: Arc<ConvStack>,
    arena: Arc<Arena>,
}

impl Net {
    fn new(inputs: usize) -> Self {
        let channels = |n: usize| if n == 0 { inputs } else { WIDTH };
        let block = |n: usize| {
            let weight = variable(&[WIDTH, channels(n), 3, 3], 1.0 / (9.0 * channels(n) as f64).sqrt());
            (weight, variable(&[2, WIDTH], 1.0))
        };
        let blocks: Vec<(Var, Var)> = (0..DEPTH).map(block).collect();
        let (arena, side) = (Arc::<Arena>::default(), if inputs == 1 { 28 } else { 32 });
        let tensors: Vec<_> = blocks.iter().map(|(w, a)| (w.as_detached_tensor(), a.as_detached_tensor())).collect();
        let stack = ConvStack::new([inputs, side, side], &tensors, |n| padding(inputs, n), arena.clone());
        Self { inputs, blocks, stack: Arc::new(stack.expect("blocks that follow each other")), arena }
    }

    fn forward(&self, x: &Tensor, wants: Option<Wants>) -> Result<Tensor> {
        if wants.is_some_and(|wants| !wants.weights) {
            return self.stack.forward(x, false);
        }
        let mut x = x.clone();
        for (n, (weight, affine)) in self.blocks.iter().enumerate() {
            x = match wants {
                Some(wants) => {
                    let input = wants.input || (n > 0 && wants.weights);
                    conv_block(&x, weight, affine, padding(self.inputs, n), Wants { input, ..wants }, &self.arena)?
                }
                None => conv_block_reference(&x, weight, affine, padding(self.inputs, n))?,
            };
        }
        Ok(x)
    }

    /// Multiplications and additions of all convolutions for one picture of 32x32 (after padding); without the first block's.
    fn flop(&self, first: bool) -> u64 {
        let blocks = (0..DEPTH).skip(usize::from(!first));
        blocks.map(|n| 2 * 9 * WIDTH * (if n == 0 { self.inputs } else { WIDTH }) * (1024 >> (2 * n))).sum::<usize>()
            as u64
    }
}

fn kernels(criterion: &mut Criterion) {
    println!("kernel path: {}", path());
    for (inputs, side) in [(1, 28), (3, 32)] {
        let net = Net::new(inputs);
        let mut group = criterion.benchmark_group(format!("convnet3-{inputs}x{side}x{side}"));
        group.sample_size(10);
        let input = Wants { input: true, ..Wants::default() };
        let weights = Wants { weights: true, ..Wants::default() };
        for (name, wants) in [("fused", true), ("candle", false)] {
            let wants = |w: Wants| wants.then_some(w);
            let x = variable(&[256, inputs, side, side], 1.0).as_detached_tensor();
            group.throughput(Throughput::Elements(256 * net.flop(true)));
            group
                .bench_function(format!("forward-256/{name}"), |b| b.iter(|| net.forward(&x, wants(Wants::default()))));
            let x = variable(&[100, inputs, side, side], 1.0);
            for (what, gradient, flop) in
                [("input", input, 2 * net.flop(true)), ("weights", weights, 2 * net.flop(true) + net.flop(false))]
            {
                group.throughput(Throughput::Elements(100 * flop));
                group.bench_function(format!("forward-and-{what}-100/{name}"), |b| {
                    b.iter(|| net.forward(&x, wants(gradient))?.sqr()?.sum_all()?.backward());
                });
            }
        }
        group.finish();
    }
}

criterion_group!(benches, kernels);
criterion_main!(benches);
