//! Asking memory for a line before it is needed.
//!
//! Where reads or writes go is known to us earlier than to the CPU: it learns the next address of a
//! few dozen streams by itself, not that of hundreds. On CPUs without a word for it nothing happens.

/// Asks for element `at` of `array`, which will be written soon. It may lie past the end.
#[inline(always)]
pub fn prefetch_to_write<T>(array: &[T], at: usize) {
    #[cfg(target_arch = "x86_64")]
    prefetch::<T, { std::arch::x86_64::_MM_HINT_ET0 }>(array.as_ptr().wrapping_add(at));
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (array, at);
}

/// Asks for the first line of `values`, which will be read soon.
#[inline(always)]
pub(crate) fn prefetch_to_read(values: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    prefetch::<u8, { std::arch::x86_64::_MM_HINT_T0 }>(values.as_ptr().cast());
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}

/// Asks for all of `what` by the hint `HINT`: the cache level, and whether to write.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn prefetch<L, const HINT: i32>(what: *const L) {
    for offset in (0..size_of::<L>()).step_by(64) {
        let address = what.cast::<i8>().wrapping_add(offset);
        // SAFETY: a prefetch reads nothing and may point anywhere.
        #[allow(unused_unsafe, reason = "newer compilers call it safe")]
        unsafe {
            std::arch::x86_64::_mm_prefetch::<HINT>(address);
        }
    }
}
