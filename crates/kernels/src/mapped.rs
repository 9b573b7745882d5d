//! A file as bytes in memory, paged in as it is touched.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;

use memmap2::Mmap;

#[cfg(test)]
mod tests;

/// A read-only mapping of a whole file.
///
/// Nothing is read at [`MappedFile::open`]; a page comes from disk when its bytes are first used, so
/// a worker that holds four of a checkpoint's experts reads only those. The file must not be
/// truncated while it is mapped: the operating system answers such an access with `SIGBUS`.
pub struct MappedFile {
    map: Mmap,
}

// === impl MappedFile ===

impl MappedFile {
    /// Maps the file at `path`.
    ///
    /// # Errors
    ///
    /// What the operating system says about opening or mapping the file.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // SAFETY: the mapping is private to this value and only ever read. What Rust cannot rule out
        // is another process that truncates or rewrites the file meanwhile; every mapped-file reader
        // has that condition, the type's documentation states it, and checkpoints are replaced by
        // renaming, not by writing into them.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Self { map })
    }
}

impl AsRef<[u8]> for MappedFile {
    fn as_ref(&self) -> &[u8] {
        &self.map
    }
}

impl fmt::Debug for MappedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MappedFile")
            .field("bytes", &self.map.len())
            .finish()
    }
}
