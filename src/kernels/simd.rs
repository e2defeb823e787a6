//! The processor flows in; vectors of its widest usable kind, and the kernels compiled for them, flow out.

use std::sync::OnceLock;

/// The instructions that the kernels use on this processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code)] // each processor family knows only its own
pub(super) enum Path {
    /// x86-64 with AVX-512F.
    Avx512,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// 64-bit ARM.
    Neon,
    /// Any processor: what the compiler makes of plain Rust.
    Portable,
    /// The sizes of AVX-512 in plain Rust, so that tests meet them on any processor.
    #[cfg(test)]
    Wide,
}

impl Path {
    /// The widest path of this processor, or the one that the environment variable `DISTILL_KERNELS` names if the
    /// processor has it; found once.
    pub fn detect() -> Self {
        static PATH: OnceLock<Path> = OnceLock::new();
        *PATH.get_or_init(|| {
            let asked = std::env::var("DISTILL_KERNELS").unwrap_or_default();
            let usable = Self::usable();
            usable.iter().copied().find(|p| p.name() == asked).unwrap_or(usable[0])
        })
    }

    /// The paths of this processor, widest first; never empty.
    pub fn usable() -> Vec<Self> {
        let mut paths = vec![];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                paths.push(Self::Avx512);
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                paths.push(Self::Avx2);
            }
        }
        #[cfg(target_arch = "aarch64")]
        paths.push(Self::Neon);
        paths.push(Self::Portable);
        #[cfg(test)]
        paths.push(Self::Wide);
        paths
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Neon => "neon",
            Self::Portable => "portable",
            #[cfg(test)]
            Self::Wide => "wide",
        }
    }

    /// Floats in a vector.
    pub fn lanes(self) -> usize {
        match self {
            Self::Avx512 => 16,
            Self::Avx2 => 8,
            Self::Neon | Self::Portable => 4,
            #[cfg(test)]
            Self::Wide => 16,
        }
    }

    /// Rows and columns of the register tile: as [`kernel!`] instantiates it.
    pub fn tile(self) -> (usize, usize) {
        match self {
            Self::Avx512 => (8, 32),
            Self::Avx2 => (6, 16),
            Self::Neon => (6, 16),
            Self::Portable => (6, 8),
            #[cfg(test)]
            Self::Wide => (8, 32),
        }
    }
}

/// A vector of f32 lanes in one register.
///
/// # Safety
/// Every function needs the instructions of its implementor: call them only under a [`Path`] that was detected, inlined into a
/// function that enables the instructions ([`kernel!`] does both). Loads and stores touch `LANES` floats at the pointer.
#[allow(clippy::missing_safety_doc)] // the trait's section holds for each function
pub(super) trait Simd: Copy {
    type V: Copy;
    const LANES: usize;
    unsafe fn splat(value: f32) -> Self::V;
    unsafe fn load(from: *const f32) -> Self::V;
    unsafe fn store(to: *mut f32, v: Self::V);
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once where the processor can.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `max(z, 0)`; NaN stays NaN.
    unsafe fn relu(z: Self::V) -> Self::V;
    /// `v` where `z > 0`, else 0.
    unsafe fn where_positive(z: Self::V, v: Self::V) -> Self::V;
}

/// Lanes of plain Rust, which every compiler target turns into what it has.
#[derive(Clone, Copy)]
pub(super) struct Plain<const N: usize>;

impl<const N: usize> Simd for Plain<N> {
    type V = [f32; N];
    const LANES: usize = N;
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self::V {
        [value; N]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::V {
        // SAFETY: the caller vouches for N floats; an array of f32 is aligned as f32 is.
        unsafe { *from.cast::<[f32; N]>() }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, v: Self::V) {
        // SAFETY: as in `load`.
        unsafe { *to.cast::<[f32; N]>() = v }
    }
    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] - b[i])
    }
    #[inline(always)]
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // Not f32::mul_add: without the instruction it is a library call.
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn relu(z: Self::V) -> Self::V {
        std::array::from_fn(|i| if z[i] < 0.0 { 0.0 } else { z[i] })
    }
    #[inline(always)]
    unsafe fn where_positive(z: Self::V, v: Self::V) -> Self::V {
        std::array::from_fn(|i| if z[i] > 0.0 { v[i] } else { 0.0 })
    }
}

/// An implementation of [`Simd`] whose functions are one intrinsic each.
#[allow(unused_macros)]
macro_rules! intrinsics {
    ($name:ident, $doc:literal, $v:ty, $lanes:literal, $($f:ident($($arg:ident: $ty:ty),*) -> $ret:ty = $body:expr;)*) => {
        #[doc = $doc]
        #[derive(Clone, Copy)]
        pub struct $name;
        impl Simd for $name {
            type V = $v;
            const LANES: usize = $lanes;
            $(
                #[inline(always)]
                unsafe fn $f($($arg: $ty),*) -> $ret {
                    // SAFETY: by the trait's contract the instructions are there and the pointers good for all lanes.
                    unsafe { $body }
                }
            )*
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Simd;
    use std::arch::x86_64::*;

    intrinsics! {
        Avx2, "Eight lanes of AVX2 with FMA.", __m256, 8,
        splat(value: f32) -> __m256 = _mm256_set1_ps(value);
        load(from: *const f32) -> __m256 = _mm256_loadu_ps(from);
        store(to: *mut f32, v: __m256) -> () = _mm256_storeu_ps(to, v);
        add(a: __m256, b: __m256) -> __m256 = _mm256_add_ps(a, b);
        sub(a: __m256, b: __m256) -> __m256 = _mm256_sub_ps(a, b);
        mul(a: __m256, b: __m256) -> __m256 = _mm256_mul_ps(a, b);
        fma(a: __m256, b: __m256, c: __m256) -> __m256 = _mm256_fmadd_ps(a, b, c);
        // max gives its second operand when either is NaN.
        relu(z: __m256) -> __m256 = _mm256_max_ps(_mm256_setzero_ps(), z);
        where_positive(z: __m256, v: __m256) -> __m256 = _mm256_and_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(z, _mm256_setzero_ps()), v);
    }

    intrinsics! {
        Avx512, "Sixteen lanes of AVX-512F.", __m512, 16,
        splat(value: f32) -> __m512 = _mm512_set1_ps(value);
        load(from: *const f32) -> __m512 = _mm512_loadu_ps(from);
        store(to: *mut f32, v: __m512) -> () = _mm512_storeu_ps(to, v);
        add(a: __m512, b: __m512) -> __m512 = _mm512_add_ps(a, b);
        sub(a: __m512, b: __m512) -> __m512 = _mm512_sub_ps(a, b);
        mul(a: __m512, b: __m512) -> __m512 = _mm512_mul_ps(a, b);
        fma(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps(a, b, c);
        relu(z: __m512) -> __m512 = _mm512_max_ps(_mm512_setzero_ps(), z);
        where_positive(z: __m512, v: __m512) -> __m512 = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(z, _mm512_setzero_ps()), v);
    }
}
#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512};

#[cfg(target_arch = "aarch64")]
mod arm {
    use super::Simd;
    use std::arch::aarch64::*;

    intrinsics! {
        Neon, "Four lanes of NEON.", float32x4_t, 4,
        splat(value: f32) -> float32x4_t = vdupq_n_f32(value);
        load(from: *const f32) -> float32x4_t = vld1q_f32(from);
        store(to: *mut f32, v: float32x4_t) -> () = vst1q_f32(to, v);
        add(a: float32x4_t, b: float32x4_t) -> float32x4_t = vaddq_f32(a, b);
        sub(a: float32x4_t, b: float32x4_t) -> float32x4_t = vsubq_f32(a, b);
        mul(a: float32x4_t, b: float32x4_t) -> float32x4_t = vmulq_f32(a, b);
        fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t = vfmaq_f32(c, a, b);
        relu(z: float32x4_t) -> float32x4_t = vmaxq_f32(z, vdupq_n_f32(0.0));
        where_positive(z: float32x4_t, v: float32x4_t) -> float32x4_t =
            vreinterpretq_f32_u32(vandq_u32(vcgtzq_f32(z), vreinterpretq_u32_f32(v)));
    }
}
#[cfg(target_arch = "aarch64")]
pub(super) use arm::Neon;

/// Compiles an `unsafe fn body<S: Simd, const MR: usize, const NV: usize>(..)` for each path and calls the one that is asked for.
/// `MR` rows by `NV` vectors fill the registers with accumulators; `Path::tile` is `(MR, NV * LANES)`.
macro_rules! kernel {
    ($(#[$doc:meta])* fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $body:ident) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        unsafe fn $name(path: $crate::kernels::simd::Path, $($arg: $ty),*) {
            use $crate::kernels::simd;
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            #[allow(clippy::too_many_arguments)]
            unsafe fn avx2($($arg: $ty),*) {
                // SAFETY: the caller's contract; the instructions are enabled here.
                unsafe { $body::<simd::Avx2, 6, 2>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f")]
            #[allow(clippy::too_many_arguments)]
            unsafe fn avx512($($arg: $ty),*) {
                // SAFETY: the caller's contract; the instructions are enabled here.
                unsafe { $body::<simd::Avx512, 8, 2>($($arg),*) }
            }
            // SAFETY: the caller's contract; paths come from `Path::usable`, so the processor has the instructions.
            unsafe {
                match path {
                    #[cfg(target_arch = "x86_64")]
                    simd::Path::Avx2 => avx2($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    simd::Path::Avx512 => avx512($($arg),*),
                    #[cfg(target_arch = "aarch64")]
                    simd::Path::Neon => $body::<simd::Neon, 6, 4>($($arg),*),
                    #[cfg(test)]
                    simd::Path::Wide => $body::<simd::Plain<16>, 8, 2>($($arg),*),
                    _ => $body::<simd::Plain<4>, 6, 2>($($arg),*),
                }
            }
        }
    };
}
pub(super) use kernel;
