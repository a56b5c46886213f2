//! Trees that nobody needs any more, removed by a thread of their own: a large one takes seconds, and whoever lets go of it
//! has an answer to give.
//!
//! They lie in `staging/`, so what is not removed when the process ends is removed at the next open.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    thread::JoinHandle,
};

use crate::error::Error;

/// The thread. Dropped, it ends after the tree that it is at.
pub(crate) struct Trash {
    bin: Bin,
    is_closed: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Where trees are thrown. Clones share it.
#[derive(Clone)]
pub(crate) struct Bin(Sender<Option<PathBuf>>);

impl Trash {
    pub(crate) fn start() -> Result<Self, Error> {
        let (send, receive) = mpsc::channel();
        let is_closed = Arc::new(AtomicBool::new(false));
        let closed = is_closed.clone();
        let run = move || work(&receive, &closed);
        let thread = std::thread::Builder::new().name("store-trash".to_owned()).spawn(run);
        let thread = thread.map_err(|error| Error::Io(format!("start the thread that removes trees: {error}")))?;
        Ok(Self { bin: Bin(send), is_closed, thread: Some(thread) })
    }

    pub(crate) fn bin(&self) -> Bin {
        self.bin.clone()
    }
}

fn work(receive: &Receiver<Option<PathBuf>>, is_closed: &AtomicBool) {
    while let Ok(Some(path)) = receive.recv() {
        if is_closed.load(Ordering::Acquire) {
            return;
        }
        remove(&path);
    }
}

impl Bin {
    /// Removes the tree at `path` soon; here and now when the store is closed.
    pub(crate) fn throw(&self, path: &Path) {
        if self.0.send(Some(path.to_owned())).is_err() {
            remove(path);
        }
    }
}

fn remove(path: &Path) {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!("remove {}: {error}; the next start tries again", path.display());
        }
        _ => {}
    }
}

impl Drop for Trash {
    fn drop(&mut self) {
        self.is_closed.store(true, Ordering::Release);
        let _ = self.bin.0.send(None);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that removes trees ended by a fault");
        }
    }
}
