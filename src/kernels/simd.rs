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

/// Asks for `values` to be brought to the second cache, where the processor can; else nothing.
pub(super) fn prefetch(values: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    for line in values.chunks(16) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: SSE is part of x86-64, and a prefetch reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
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
    /// `v` clamped to `[-1, 1]`; NaN stays NaN.
    unsafe fn clamp_unit(v: Self::V) -> Self::V;
    /// `odd` where the lowest bit of `bits` is set, else `even`.
    unsafe fn where_odd(bits: Self::V, odd: Self::V, even: Self::V) -> Self::V;
    /// `v`, negated where the second lowest bit of `bits` is set.
    unsafe fn negate_by_second_bit(bits: Self::V, v: Self::V) -> Self::V;
    /// Adds `v`, `|v| <= 2^30`, rounded to the nearest integers (ties to even), to `LANES` integers.
    unsafe fn add_rounded(to: *mut i64, v: Self::V);
    /// Writes `block` to `to`, which lies at a multiple of 64 bytes: past the caches where the processor can, so that memory isn't fetched only to be
    /// overwritten. [`written`] ends a run of such writes.
    unsafe fn stream(to: *mut i64, block: [i64; 8]);
}

/// Lets no later write overtake those of [`Simd::stream`].
pub(super) fn written() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of x86-64; a fence touches no memory.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
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
    #[inline(always)]
    unsafe fn clamp_unit(v: Self::V) -> Self::V {
        v.map(|v| v.clamp(-1.0, 1.0))
    }
    #[inline(always)]
    unsafe fn where_odd(bits: Self::V, odd: Self::V, even: Self::V) -> Self::V {
        std::array::from_fn(|i| if bits[i].to_bits() & 1 == 1 { odd[i] } else { even[i] })
    }
    #[inline(always)]
    unsafe fn negate_by_second_bit(bits: Self::V, v: Self::V) -> Self::V {
        std::array::from_fn(|i| f32::from_bits(v[i].to_bits() ^ ((bits[i].to_bits() & 2) << 30)))
    }
    #[inline(always)]
    unsafe fn add_rounded(to: *mut i64, v: Self::V) {
        // SAFETY: the caller vouches for N integers.
        let to = unsafe { &mut *to.cast::<[i64; N]>() };
        to.iter_mut().zip(v).for_each(|(to, v)| *to += super::sincos::fixed(f64::from(v)));
    }
    #[inline(always)]
    unsafe fn stream(to: *mut i64, block: [i64; 8]) {
        // SAFETY: the caller vouches for the block's 8 integers.
        unsafe { *to.cast::<[i64; 8]>() = block }
    }
}

/// An implementation `$name` of the trait `$of` whose functions are one intrinsic each: its types, its lanes, its functions.
#[allow(unused_macros)]
macro_rules! intrinsics {
    ($doc:literal, $name:ident: $of:path, { $(type $t:ident = $v:ty;)* } $lanes:literal,
     $($f:ident($($arg:ident: $ty:ty),*) -> $ret:ty = $body:expr;)*) => {
        #[doc = $doc]
        #[derive(Clone, Copy)]
        pub struct $name;
        impl $of for $name {
            $(type $t = $v;)*
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
#[allow(unused_imports)]
pub(super) use intrinsics;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Simd;
    use std::arch::x86_64::*;

    intrinsics! {
        "Eight lanes of AVX2 with FMA.", Avx2: Simd, { type V = __m256; } 8,
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
        clamp_unit(v: __m256) -> __m256 = _mm256_min_ps(_mm256_set1_ps(1.0), _mm256_max_ps(_mm256_set1_ps(-1.0), v));
        where_odd(bits: __m256, odd: __m256, even: __m256) -> __m256 =
            _mm256_blendv_ps(even, odd, _mm256_castsi256_ps(_mm256_slli_epi32::<31>(_mm256_castps_si256(bits))));
        negate_by_second_bit(bits: __m256, v: __m256) -> __m256 = {
            let signs = _mm256_castsi256_ps(_mm256_slli_epi32::<30>(_mm256_castps_si256(bits)));
            _mm256_xor_ps(v, _mm256_and_ps(signs, _mm256_set1_ps(-0.0)))
        };
        add_rounded(to: *mut i64, v: __m256) -> () = {
            let rounded = _mm256_cvtps_epi32(v);
            let halves = [_mm256_castsi256_si128(rounded), _mm256_extracti128_si256::<1>(rounded)];
            for (half, to) in halves.into_iter().zip([to, to.add(4)]) {
                let sum = _mm256_add_epi64(_mm256_loadu_si256(to.cast()), _mm256_cvtepi32_epi64(half));
                _mm256_storeu_si256(to.cast(), sum);
            }
        };
        stream(to: *mut i64, block: [i64; 8]) -> () = {
            for half in 0..2 {
                let values = _mm256_loadu_si256(block.as_ptr().add(4 * half).cast());
                _mm256_stream_si256(to.add(4 * half).cast(), values);
            }
        };
    }

    intrinsics! {
        "Sixteen lanes of AVX-512F.", Avx512: Simd, { type V = __m512; } 16,
        splat(value: f32) -> __m512 = _mm512_set1_ps(value);
        load(from: *const f32) -> __m512 = _mm512_loadu_ps(from);
        store(to: *mut f32, v: __m512) -> () = _mm512_storeu_ps(to, v);
        add(a: __m512, b: __m512) -> __m512 = _mm512_add_ps(a, b);
        sub(a: __m512, b: __m512) -> __m512 = _mm512_sub_ps(a, b);
        mul(a: __m512, b: __m512) -> __m512 = _mm512_mul_ps(a, b);
        fma(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps(a, b, c);
        relu(z: __m512) -> __m512 = _mm512_max_ps(_mm512_setzero_ps(), z);
        where_positive(z: __m512, v: __m512) -> __m512 = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(z, _mm512_setzero_ps()), v);
        clamp_unit(v: __m512) -> __m512 = _mm512_min_ps(_mm512_set1_ps(1.0), _mm512_max_ps(_mm512_set1_ps(-1.0), v));
        where_odd(bits: __m512, odd: __m512, even: __m512) -> __m512 =
            _mm512_mask_blend_ps(_mm512_test_epi32_mask(_mm512_castps_si512(bits), _mm512_set1_epi32(1)), even, odd);
        negate_by_second_bit(bits: __m512, v: __m512) -> __m512 = {
            let signs = _mm512_and_si512(_mm512_slli_epi32::<30>(_mm512_castps_si512(bits)), _mm512_set1_epi32(i32::MIN));
            _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(v), signs))
        };
        add_rounded(to: *mut i64, v: __m512) -> () = {
            let rounded = _mm512_cvtps_epi32(v);
            let halves = [_mm512_castsi512_si256(rounded), _mm512_extracti64x4_epi64::<1>(rounded)];
            for (half, to) in halves.into_iter().zip([to, to.add(8)]) {
                let sum = _mm512_add_epi64(_mm512_loadu_si512(to.cast()), _mm512_cvtepi32_epi64(half));
                _mm512_storeu_si512(to.cast(), sum);
            }
        };
        stream(to: *mut i64, block: [i64; 8]) -> () = _mm512_stream_si512(to.cast(), _mm512_loadu_si512(block.as_ptr().cast()));
    }
}
#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512};

#[cfg(target_arch = "aarch64")]
mod arm {
    use super::Simd;
    use std::arch::aarch64::*;

    intrinsics! {
        "Four lanes of NEON.", Neon: Simd, { type V = float32x4_t; } 4,
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
        clamp_unit(v: float32x4_t) -> float32x4_t = vminq_f32(vdupq_n_f32(1.0), vmaxq_f32(vdupq_n_f32(-1.0), v));
        where_odd(bits: float32x4_t, odd: float32x4_t, even: float32x4_t) -> float32x4_t =
            vbslq_f32(vtstq_u32(vreinterpretq_u32_f32(bits), vdupq_n_u32(1)), odd, even);
        negate_by_second_bit(bits: float32x4_t, v: float32x4_t) -> float32x4_t = {
            let signs = vandq_u32(vshlq_n_u32::<30>(vreinterpretq_u32_f32(bits)), vdupq_n_u32(1 << 31));
            vreinterpretq_f32_u32(veorq_u32(vreinterpretq_u32_f32(v), signs))
        };
        add_rounded(to: *mut i64, v: float32x4_t) -> () = {
            let rounded = vcvtnq_s32_f32(v);
            vst1q_s64(to, vaddw_s32(vld1q_s64(to), vget_low_s32(rounded)));
            vst1q_s64(to.add(2), vaddw_high_s32(vld1q_s64(to.add(2)), rounded));
        };
        stream(to: *mut i64, block: [i64; 8]) -> () = *to.cast::<[i64; 8]>() = block;
    }
}
#[cfg(target_arch = "aarch64")]
pub(super) use arm::Neon;

/// Compiles an `unsafe fn body<S: Simd, const MR: usize, const NV: usize>(..)` for each path and calls the one that is asked for.
/// `MR` rows by `NV` vectors fill the registers with accumulators; `Path::tile` is `(MR, NV * LANES)`.
macro_rules! kernel {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $body:ident) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        $vis unsafe fn $name(path: $crate::kernels::simd::Path, $($arg: $ty),*) {
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
