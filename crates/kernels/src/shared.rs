//! Words that several processes of a machine share.

use std::fmt;
use std::fs::File;
use std::io;
use std::sync::atomic::AtomicU64;

use memmap2::{MmapOptions, MmapRaw};

#[cfg(test)]
mod tests;

/// The beginning of a file as 64-bit atomics, the same memory in every process that maps it.
///
/// The file must not be truncated while it is mapped: the operating system answers an access
/// behind its end with `SIGBUS`. Files made for this, which nobody else writes, do not shrink.
pub struct SharedWords {
    map: MmapRaw,
    words: usize,
}

// === impl SharedWords ===

impl SharedWords {
    /// Maps the first `words` words of `file`, which is open for reading and writing.
    ///
    /// # Errors
    /// A file that is shorter, or what the operating system says about the mapping.
    pub fn map(file: &File, words: usize) -> io::Result<Self> {
        let bytes = words.saturating_mul(size_of::<AtomicU64>());
        let held = file.metadata()?.len();
        if words == 0 || usize::try_from(held).is_ok_and(|held| held < bytes) {
            let said = format!("holds {held} bytes, expected at least {bytes}, and one word");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, said));
        }
        let map = MmapOptions::new().len(bytes).map_raw(file)?;
        Ok(Self { map, words })
    }
}

impl AsRef<[AtomicU64]> for SharedWords {
    fn as_ref(&self) -> &[AtomicU64] {
        let first: *const AtomicU64 = self.map.as_ptr().cast();
        // SAFETY: the mapping holds `words` words, begins at a page and so is aligned, is readable
        // and writable, and lives as long as `self`. Every bit pattern is a u64. All that this type
        // hands out are atomics, so other threads and processes that use it race with nobody.
        unsafe { std::slice::from_raw_parts(first, self.words) }
    }
}

impl fmt::Debug for SharedWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedWords")
            .field("words", &self.words)
            .finish()
    }
}
