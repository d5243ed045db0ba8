//! The program: the file that runs now, and what is there when a reload looks again.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

const RUNNING: &str = "/proc/self/exe";

/// An executable file, whatever has become of its name since it was opened.
pub(super) type Image = Arc<OwnedFd>;

/// Where the program is.
#[derive(Debug)]
pub(super) struct Program {
    running: Image,
    /// The path it was called by, absolute. Symbolic links in it are followed anew each time: many deploys replace one.
    path: PathBuf,
}

impl Program {
    /// The one that this process executes.
    pub(super) fn of_this_process() -> io::Result<Self> {
        let running = open(Path::new(RUNNING))?;
        let called = OsStr::from_bytes(rustix::param::linux_execfn().to_bytes());
        // Relative to where it was called from, which is here as long as the program does not change that before.
        let called = std::path::absolute(called).ok().filter(|called| is_same(called, &running));
        let path = called.map_or_else(|| std::fs::read_link(RUNNING), Ok)?;
        Ok(Self { running: Arc::new(running), path })
    }

    /// The one that this process executes in the place of another, which was called by this path.
    pub(super) fn resumed(path: PathBuf) -> io::Result<Self> {
        Ok(Self { running: Arc::new(open(Path::new(RUNNING))?), path })
    }

    /// Where it is looked for.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What this process executes.
    pub(super) fn running(&self) -> &Image {
        &self.running
    }

    /// What is there now.
    pub(super) fn look(&self) -> io::Result<Image> {
        let about = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", self.path.display()));
        open(&self.path).map(Arc::new).map_err(about)
    }
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

/// Whether this path leads to that file. A program may have been called by a path that means nothing any more.
fn is_same(path: &Path, file: &OwnedFd) -> bool {
    let (Ok(there), Ok(here)) = (rustix::fs::stat(path), rustix::fs::fstat(file)) else { return false };
    (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn inode(image: &OwnedFd) -> u64 {
        rustix::fs::fstat(image).unwrap().st_ino
    }

    #[test]
    fn this_process_knows_its_program() {
        let program = Program::of_this_process().unwrap();
        let here = std::fs::metadata(std::env::current_exe().unwrap()).unwrap().ino();
        assert_eq!(inode(program.running()), here);
        assert_eq!(inode(&program.look().unwrap()), here);
        assert!(program.path.is_absolute());
    }

    #[test]
    fn links_are_followed_each_time() {
        let folder = std::env::temp_dir().join(format!("sticky-program-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = |name: &str| folder.join(name);
        for name in ["1", "2"] {
            std::fs::write(file(name), name).unwrap();
        }
        std::os::unix::fs::symlink("1", file("current")).unwrap();
        let program = Program { path: file("current"), ..Program::of_this_process().unwrap() };
        assert_eq!(inode(&program.look().unwrap()), std::fs::metadata(file("1")).unwrap().ino());
        std::os::unix::fs::symlink("2", file("next")).unwrap();
        std::fs::rename(file("next"), file("current")).unwrap();
        assert_eq!(inode(&program.look().unwrap()), std::fs::metadata(file("2")).unwrap().ino());
        std::fs::remove_file(file("current")).unwrap();
        let error = program.look().unwrap_err().to_string();
        assert!(error.contains("current"), "{error}");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
