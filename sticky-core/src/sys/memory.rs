//! Memory that several processes share, seen as atomic words.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::AtomicU64;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

/// The seals without which a file is not mapped: its size is settled for good.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// A mapping of a sealed memory file. Unmapped when dropped.
#[derive(Debug)]
pub(crate) struct SharedWords {
    start: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: the mapping is not tied to a thread, and all that can be reached through it are atomics.
unsafe impl Send for SharedWords {}
// SAFETY: as above.
unsafe impl Sync for SharedWords {}

/// Makes a memory file of `words` zeroed words whose size can never change again.
///
/// `name` is seen in `/proc/PID/maps` only.
///
/// # Errors
///
/// The system's, among them `EMFILE` and `ENOMEM`.
pub(crate) fn create_sealed(name: &str, words: usize) -> io::Result<OwnedFd> {
    let file = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&file, byte_len(words)? as u64)?;
    rustix::fs::fcntl_add_seals(&file, SEALS)?;
    Ok(file)
}

/// Makes a memory file of these bytes that can never change again.
///
/// # Errors
///
/// The system's.
pub(crate) fn create_text(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let file = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = std::fs::File::from(file);
    io::Write::write_all(&mut file, bytes)?;
    rustix::fs::fcntl_add_seals(&file, SEALS | SealFlags::WRITE)?;
    Ok(file.into())
}

/// The bytes of such a file, at most so many.
///
/// # Errors
///
/// `InvalidInput` if the file is no sealed memory file, or longer; otherwise the system's.
pub(crate) fn read_text(file: &OwnedFd, most: u64) -> io::Result<Vec<u8>> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    let is_sealed = rustix::fs::fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SEALS | SealFlags::WRITE));
    let length = u64::try_from(rustix::fs::fstat(file)?.st_size).unwrap_or(u64::MAX);
    if !is_sealed || length > most {
        return Err(invalid());
    }
    let mut bytes = vec![0; usize::try_from(length).map_err(|_| invalid())?];
    // From its beginning, wherever whoever wrote it has left off.
    std::os::unix::fs::FileExt::read_exact_at(&std::fs::File::from(file.try_clone()?), &mut bytes, 0)?;
    Ok(bytes)
}

impl SharedWords {
    /// Maps the whole of a sealed memory file.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if the file is not a memory file sealed against a change of its size, or holds no whole word;
    /// otherwise the system's.
    pub(crate) fn map(file: impl AsFd) -> io::Result<Self> {
        let file = file.as_fd();
        let words = sealed_words(file)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches no other memory. The length is that of
        // the file and not 0.
        let start = unsafe {
            rustix::mm::mmap(
                ptr::null_mut(),
                byte_len(words)?,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                file,
                0,
            )?
        };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, words })
    }

    /// All words of the file.
    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: `start` is the page-aligned beginning of `words` mapped words, valid until `self` is dropped. The
        // seals keep the file from shrinking, so no access can fail. Whoever else maps the file can change the words,
        // which is what atomics are for; every bit pattern is a valid `AtomicU64`.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        let length = self.words * size_of::<AtomicU64>();
        // SAFETY: exactly this range was mapped by `map`, and no reference from `words` outlives `self`.
        let unmapped = unsafe { rustix::mm::munmap(self.start.as_ptr().cast::<c_void>(), length) };
        debug_assert!(unmapped.is_ok(), "a range that was mapped can be unmapped: {unmapped:?}");
    }
}

/// How many words a file holds, once it is certain that this stays so.
fn sealed_words(file: BorrowedFd<'_>) -> io::Result<usize> {
    let invalid = |message| io::Error::new(io::ErrorKind::InvalidInput, message);
    if !rustix::fs::fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SEALS)) {
        return Err(invalid("not a memory file of a fixed size"));
    }
    let bytes = usize::try_from(rustix::fs::fstat(file)?.st_size).unwrap_or(0);
    match bytes / size_of::<AtomicU64>() {
        0 => Err(invalid("the memory file is empty")),
        words => Ok(words),
    }
}

fn byte_len(words: usize) -> io::Result<usize> {
    words.checked_mul(size_of::<AtomicU64>()).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    #[test]
    fn two_mappings_see_the_same_words() {
        let file = create_sealed("test", 16).unwrap();
        let (one, other) = (SharedWords::map(&file).unwrap(), SharedWords::map(&file).unwrap());
        assert_eq!(one.words().len(), 16);
        one.words()[15].store(7, Relaxed);
        assert_eq!(other.words()[15].load(Relaxed), 7);
    }

    #[test]
    fn the_size_is_settled() {
        let file = create_sealed("test", 16).unwrap();
        assert!(rustix::fs::ftruncate(&file, 8).is_err());
        assert!(rustix::fs::ftruncate(&file, 4096).is_err());
    }

    #[test]
    fn a_text_can_be_read_and_nothing_else() {
        let file = create_text("test", b"hello").unwrap();
        for _ in 0..2 {
            assert_eq!(read_text(&file, 5).unwrap(), b"hello");
        }
        assert_eq!(read_text(&file, 4).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert!(rustix::fs::ftruncate(&file, 1).is_err() && rustix::io::write(&file, b"x").is_err());
        let other = create_sealed("test", 1).unwrap();
        assert_eq!(read_text(&other, 99).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn what_could_shrink_is_not_mapped() {
        let open = rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&open, 128).unwrap();
        assert_eq!(SharedWords::map(&open).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert_eq!(SharedWords::map(&file).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let empty = create_sealed("test", 0).unwrap();
        assert_eq!(SharedWords::map(&empty).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
