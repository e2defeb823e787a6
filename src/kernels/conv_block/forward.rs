//! Pictures and weights flow in; pooled planes, and what the backward pass needs of them, flow out.

use super::convolution::{Convolution, Workspace};
use super::product::block_to_planes;
use super::tiles::norm_relu_pool;
use super::{ConvBlock, for_each};
use crate::kernels::arena::Arena;

/// What the forward pass keeps for the backward pass.
#[derive(Debug)]
pub(super) struct Saved {
    /// The convolution's result, `[batch][out / NR][pixel][NR]` or more; `None` where it is computed again.
    pub conv: Option<Vec<f32>>,
    /// Mean `[NR]` and 1 / deviation `[NR]`: `[batch][out / NR][2][NR]` or more.
    pub stats: Vec<f32>,
}

impl Saved {
    /// Gives its memory back.
    pub fn free(self, arena: &Arena) {
        self.conv.into_iter().chain([self.stats]).for_each(|buffer| arena.give_back(buffer));
    }
}

/// One picture's shares of what is written.
struct Row<'a> {
    picture: &'a [f32],
    out: &'a mut [f32],
    stats: Option<&'a mut [f32]>,
    conv: Option<&'a mut [f32]>,
}

/// What a thread needs for itself.
struct Scratch {
    workspace: Workspace,
    grid: Vec<f32>,
    conv: Vec<f32>,
    stats: Vec<f32>,
    pooled: Vec<f32>,
}

impl ConvBlock {
    /// The convolution of the padded input.
    pub(super) fn convolution(&self, weight: &[f32]) -> Convolution {
        self.geometry.convolution(self.from(), weight, self.most_pictures(), self.wants.parallel)
    }

    /// Pictures that may go through together and still leave work for all threads.
    pub(super) fn most_pictures(&self) -> usize {
        let threads = if self.wants.parallel { 2 * rayon::current_num_threads() } else { 1 };
        self.geometry.batch.div_ceil(threads)
    }

    /// Writes `[batch, out, h / 2, w / 2]` to `out`, or as the next block reads it; what is kept if a gradient is wanted.
    pub(super) fn forward(&self, x: &[f32], weight: &[f32], affine: &[f32], out: &mut [f32]) -> Option<Saved> {
        let g = self.geometry;
        let nr = g.nr();
        let convolution = self.convolution(weight);
        let affine = g.affine_blocks(affine);
        let from = self.from();
        let block_len = g.conv_block_len();
        let [ph, pw] = g.pooled();
        let pooled_len = ph * pw * nr;

        let stats_len = g.out_blocks() * 2 * nr;
        let conv_len = g.out_blocks() * block_len;
        let keep = self.wants.input || self.wants.weights;
        let mut saved = keep.then(|| Saved {
            conv: (!g.recomputes()).then(|| self.arena.buffer(g.batch * conv_len)),
            stats: self.arena.buffer(g.batch * stats_len),
        });
        let (mut conv_rows, mut stats_rows) = (None, None);
        if let Some(saved) = &mut saved {
            conv_rows = saved.conv.as_mut().map(|c| c.chunks_exact_mut(conv_len));
            stats_rows = Some(saved.stats.chunks_exact_mut(stats_len));
        }
        let mut rows: Vec<Row> = x
            .chunks_exact(self.picture_len())
            .zip(out.chunks_exact_mut(self.result_len()))
            .map(|(picture, out)| Row {
                picture,
                out,
                stats: stats_rows.as_mut().and_then(Iterator::next),
                conv: conv_rows.as_mut().and_then(Iterator::next),
            })
            .collect();
        let groups: Vec<&mut [Row]> = rows.chunks_mut(convolution.group()).collect();
        let key = g.key(&[convolution.group(), usize::from(self.from_block)]);
        let scratch = || {
            self.arena.object(&key, || Scratch {
                workspace: convolution.workspace(),
                grid: vec![0.0; if self.from_block { 0 } else { from.len() }],
                conv: vec![0.0; block_len],
                stats: vec![0.0; 2 * nr],
                pooled: vec![0.0; pooled_len],
            })
        };
        for_each(self.wants.parallel, groups, scratch, |s, rows| {
            let s = &mut **s;
            for (i, row) in rows.iter_mut().enumerate() {
                if let Some(next) = self.next {
                    next.clear_margins(row.out);
                }
                if self.from_block {
                    convolution.place(&mut s.workspace, row.picture, i);
                } else {
                    from.place(row.picture, &mut s.grid);
                    convolution.place(&mut s.workspace, &s.grid, i);
                }
            }
            for block in 0..g.out_blocks() {
                let two = block * 2 * nr..(block + 1) * 2 * nr;
                convolution.multiply(&mut s.workspace, rows.len(), block);
                for (i, row) in rows.iter_mut().enumerate() {
                    let conv = match &mut row.conv {
                        Some(conv) => &mut conv[block * block_len..(block + 1) * block_len],
                        None => &mut s.conv,
                    };
                    let stats = match &mut row.stats {
                        Some(stats) => &mut stats[two.clone()],
                        None => &mut s.stats,
                    };
                    let grid = if self.from_block { row.picture } else { &s.grid };
                    convolution.block(&s.workspace, grid, i, block, conv);
                    if let Some(next) = self.next {
                        let out = &mut row.out[block * next.grid.len() * nr..][..next.grid.len() * nr];
                        let at = [next.grid.origin(), next.grid.row()];
                        norm_relu_pool(g.path, conv, g.conv, &affine[two.clone()], stats, out, at);
                        continue;
                    }
                    norm_relu_pool(g.path, conv, g.conv, &affine[two.clone()], stats, &mut s.pooled, [0, pw]);
                    let planes = row.out.chunks_mut(nr * ph * pw).nth(block).unwrap_or_default();
                    block_to_planes(&s.pooled, nr, ph * pw, planes);
                }
            }
        });
        saved
    }
}
