//! Which instruction set runs, decided once at run time.

use std::sync::OnceLock;

/// An instruction set that the kernels are compiled for.
///
/// A value of a variant other than `Portable` is proof that this CPU has the features: only
/// [`Isa::available`] makes them. The `unsafe` calls into `#[target_feature]` functions rest on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isa {
    /// AVX-512 F, BW, DQ and VL (every AVX-512 server CPU since 2017), with what `Avx2` has.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX2 and FMA, with the counts of bits that came with them or before.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// What the target's baseline has; on aarch64 that is NEON with fused multiply-add.
    Portable,
}

/// The name of the instruction set in use: `"avx512f"`, `"avx2+fma"`, `"neon"` or `"scalar"`.
///
/// It says how fast a run was, never what it computed: the bits are the same for all of them.
#[must_use]
pub fn kernel_name() -> &'static str {
    match Isa::best() {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => "avx512f",
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => "avx2+fma",
        Isa::Portable if cfg!(target_arch = "aarch64") => "neon",
        Isa::Portable => "scalar",
    }
}

// === impl Isa ===

impl Isa {
    /// The fastest instruction set of this CPU.
    #[inline]
    pub(crate) fn best() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| Self::available().next().unwrap_or(Self::Portable))
    }

    /// Every instruction set of this CPU, the fastest first. Tests compare them bit for bit.
    pub(crate) fn available() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let vector = {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("bmi1")
                && is_x86_feature_detected!("popcnt");
            let avx512 = avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            [avx512.then_some(Self::Avx512), avx2.then_some(Self::Avx2)]
        };
        #[cfg(not(target_arch = "x86_64"))]
        let vector: [Option<Self>; 0] = [];
        vector.into_iter().flatten().chain([Self::Portable])
    }
}

/// Compiles one body for every instruction set and calls the best one.
///
/// The body is plain Rust: wider registers change its speed and, because Rust never contracts a
/// multiplication and an addition by itself, not its bits.
macro_rules! for_every_isa {
    (
        $(#[$attribute:meta])*
        $visibility:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)?
        $body:block
    ) => {
        $(#[$attribute])*
        $visibility fn $name($($argument: $type),*) $(-> $result)? {
            $name::on($crate::isa::Isa::best(), $($argument),*)
        }

        #[allow(unsafe_code, reason = "calls into functions with target features")]
        mod $name {
            #[allow(unused_imports, reason = "a body may need nothing from its module")]
            use super::*;
            use $crate::isa::Isa;

            #[inline(always)]
            fn body($($argument: $type),*) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi1,popcnt")]
            fn avx512($($argument: $type),*) $(-> $result)? {
                body($($argument),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,bmi1,popcnt")]
            fn avx2($($argument: $type),*) $(-> $result)? {
                body($($argument),*)
            }

            #[inline]
            pub(in crate) fn on(isa: Isa, $($argument: $type),*) $(-> $result)? {
                match isa {
                    #[cfg(target_arch = "x86_64")]
                    // SAFETY: a value `Isa::Avx512` exists only where the CPU has these features.
                    Isa::Avx512 => unsafe { avx512($($argument),*) },
                    #[cfg(target_arch = "x86_64")]
                    // SAFETY: a value `Isa::Avx2` exists only where the CPU has these features.
                    Isa::Avx2 => unsafe { avx2($($argument),*) },
                    Isa::Portable => body($($argument),*),
                }
            }
        }
    };
}

pub(crate) use for_every_isa;
