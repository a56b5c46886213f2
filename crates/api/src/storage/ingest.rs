//! Bytes from a request into a blob, hashed on the way.
//!
//! At most two buffers of [`QUANTUM_BYTES`] are in memory: one is filled while the other is hashed and written, its MD5 (which alone
//! takes as long as all the rest) beside the writing, and the request is not read further than that (which is the back pressure).
//! What was written goes to the disk while more comes, so that little is left to sync at the end. No thread waits for a slow sender.
//! What is not finished leaves nothing.

use std::{
    io::{Read, Write},
    sync::Arc,
    time::Duration,
};

use axum::body::Body;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http_body_util::BodyExt;
use md5::{Digest, Md5};
use model::{Code, Status};
use store::{BlobWriter, Store};
use tokio::task::JoinHandle;

/// How much is written at a time, and of which an upload session's chunks are multiples, in bytes.
/// Source: the resumable upload protocol of Cloud Storage.
pub(crate) const QUANTUM_BYTES: usize = model::limits::RESUMABLE_QUANTUM_BYTES;

/// The largest object, in bytes. Google's limit is 5 TiB; one machine's disk needs a lower one.
pub(crate) const OBJECT_MAX_BYTES: u64 = 10 << 30;

/// After how many bytes what was written so far is sent to the disk.
const SYNC_EVERY_BYTES: u64 = 32 << 20;

/// How long the sender may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// How much of a refused body is read, and for how long.
const DRAIN_MAX_BYTES: usize = 64 << 20;
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// A blob that is durable, and what was seen of it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Stored {
    pub blob: String,
    pub size: u64,
    /// Base64, as [`model::storage::Object`] has them.
    pub crc32c: String,
    pub md5: String,
}

/// Where bytes go.
pub(crate) struct Ingest {
    sink: At,
    buffer: Vec<u8>,
    size: u64,
}

/// Where the sink is.
enum At {
    Rest(Box<Sink>),
    /// With a buffer that is being hashed and written.
    Work(JoinHandle<Md5>, JoinHandle<Result<Output, Status>>, Arc<Vec<u8>>),
    /// Gone with a failed write.
    Lost,
}

struct Sink {
    md5: Md5,
    output: Output,
}

struct Output {
    writer: BlobWriter,
    crc32c: u32,
    /// Bytes that no sync was begun for.
    unsynced: u64,
    syncing: Option<JoinHandle<()>>,
}

impl Ingest {
    pub(crate) async fn new(store: &Store) -> Result<Self, Status> {
        let store = store.clone();
        let writer = blocking(move || store.blobs().writer().map_err(Status::internal)).await?;
        Ok(Self { sink: At::Rest(Box::new(Sink { md5: Md5::new(), output: Output::new(writer) })), buffer: Vec::new(), size: 0 })
    }

    /// How many bytes were taken.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Takes bytes.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` past [`OBJECT_MAX_BYTES`]; `RESOURCE_EXHAUSTED` when the disk is full.
    pub(crate) async fn push(&mut self, mut bytes: Bytes) -> Result<(), Status> {
        self.size += bytes.len() as u64;
        if self.size > OBJECT_MAX_BYTES {
            return Err(too_large());
        }
        while !bytes.is_empty() {
            let take = bytes.len().min(QUANTUM_BYTES - self.buffer.len());
            self.buffer.extend_from_slice(&bytes.split_to(take));
            if self.buffer.len() == QUANTUM_BYTES {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// Takes a whole body, and gives how it ended: `Ok` when the sender was done, `Err` when the connection broke.
    pub(crate) async fn body(&mut self, body: &mut Body) -> Result<Result<(), Status>, Status> {
        loop {
            match frame(body).await {
                Ok(Some(bytes)) => self.push(bytes).await?,
                Ok(None) => return Ok(Ok(())),
                Err(broken) => return Ok(Err(broken)),
            }
        }
    }

    /// Makes everything durable.
    pub(crate) async fn finish(mut self) -> Result<Stored, Status> {
        self.flush().await?;
        self.close(Vec::new()).await
    }

    /// Makes the whole quanta durable and forgets the rest. `None` when there is none. `mark` is written behind them and is part of
    /// the blob's name: a blob with a mark that nobody else has may be deleted.
    pub(crate) async fn finish_quanta(mut self, mark: &str) -> Result<Option<Stored>, Status> {
        self.size -= self.buffer.len() as u64;
        self.buffer.clear();
        if self.size == 0 {
            return Ok(None);
        }
        self.close(mark.as_bytes().to_vec()).await.map(Some)
    }

    /// As [`Ingest::finish`], with a mark.
    pub(crate) async fn finish_marked(mut self, mark: &str) -> Result<Stored, Status> {
        self.flush().await?;
        self.close(mark.as_bytes().to_vec()).await
    }

    /// Begins to write the buffer, when the one before it is written.
    async fn flush(&mut self) -> Result<(), Status> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let (sink, next) = self.rest().await?;
        let Sink { mut md5, mut output } = *sink;
        let buffer = Arc::new(std::mem::replace(&mut self.buffer, next));
        let (hashed, written) = (buffer.clone(), buffer.clone());
        let hashing = tokio::task::spawn_blocking(move || {
            md5.update(&*hashed);
            md5
        });
        let writing = tokio::task::spawn_blocking(move || {
            output.take(&written)?;
            Ok(output)
        });
        self.sink = At::Work(hashing, writing, buffer);
        Ok(())
    }

    /// The sink, when nothing is being written, and an empty buffer.
    async fn rest(&mut self) -> Result<(Box<Sink>, Vec<u8>), Status> {
        match std::mem::replace(&mut self.sink, At::Lost) {
            At::Rest(sink) => Ok((sink, Vec::with_capacity(QUANTUM_BYTES))),
            At::Work(hashing, writing, buffer) => {
                let failed = |error| Status::internal(format!("a blocking task failed: {error}"));
                let (md5, output) = (hashing.await.map_err(failed)?, writing.await.map_err(failed)??);
                let mut buffer = Arc::try_unwrap(buffer).unwrap_or_default();
                buffer.clear();
                Ok((Box::new(Sink { md5, output }), buffer))
            }
            At::Lost => Err(Status::internal("an upload went on after a failed write")),
        }
    }

    async fn close(&mut self, mark: Vec<u8>) -> Result<Stored, Status> {
        let (mut sink, _) = self.rest().await?;
        let size = self.size;
        blocking(move || {
            sink.output.writer.write_all(&mark).map_err(disk)?;
            sink.finish(size)
        })
        .await
    }
}

impl Sink {
    fn take(&mut self, bytes: &[u8]) -> Result<(), Status> {
        self.md5.update(bytes);
        self.output.take(bytes)
    }

    fn finish(self, size: u64) -> Result<Stored, Status> {
        let blob = self.output.writer.finish().map_err(Status::internal)?;
        Ok(Stored { blob, size, crc32c: STANDARD.encode(self.output.crc32c.to_be_bytes()), md5: STANDARD.encode(self.md5.finalize()) })
    }
}

impl Output {
    fn new(writer: BlobWriter) -> Self {
        Self { writer, crc32c: 0, unsynced: 0, syncing: None }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Status> {
        self.crc32c = crc32c::crc32c_append(self.crc32c, bytes);
        self.writer.write_all(bytes).map_err(disk)?;
        self.unsynced += bytes.len() as u64;
        // One at a time: a slow disk gets larger pieces.
        if self.unsynced >= SYNC_EVERY_BYTES && self.syncing.as_ref().is_none_or(JoinHandle::is_finished) {
            let file = self.writer.reopened().map_err(Status::internal)?;
            // A failure is told once to each opening of the file, so to `finish` too, which is what counts.
            self.syncing = Some(tokio::task::spawn_blocking(move || drop(file.sync_data())));
            self.unsynced = 0;
        }
        Ok(())
    }
}

/// Writes the first `size` bytes of each of `parts`, in order, into one blob.
pub(crate) async fn concatenate(store: &Store, parts: Vec<(String, u64)>) -> Result<Stored, Status> {
    let total: u64 = parts.iter().map(|(_, size)| size).sum();
    if total > OBJECT_MAX_BYTES {
        return Err(too_large());
    }
    let store = store.clone();
    blocking(move || {
        let writer = store.blobs().writer().map_err(Status::internal)?;
        let mut sink = Sink { md5: Md5::new(), output: Output::new(writer) };
        let mut buffer = vec![0; QUANTUM_BYTES];
        for (blob, size) in parts {
            let file = store.blobs().open(&blob).map_err(Status::internal)?.ok_or_else(|| Status::internal(format!("blob {blob} is missing")))?;
            let mut file = file.take(size);
            let mut left = size;
            while left > 0 {
                let read = file.read(&mut buffer).map_err(|error| Status::internal(format!("reading blob {blob}: {error}")))?;
                if read == 0 {
                    return Err(Status::internal(format!("blob {blob} is shorter than {size} bytes")));
                }
                sink.take(&buffer[..read])?;
                left -= read as u64;
            }
        }
        sink.finish(total)
    })
    .await
}

/// The next bytes of a body; `None` at its end.
///
/// # Errors
/// `INVALID_ARGUMENT` when the connection broke, `DEADLINE_EXCEEDED` when the sender was silent for a minute.
pub(crate) async fn frame(body: &mut Body) -> Result<Option<Bytes>, Status> {
    loop {
        let frame = tokio::time::timeout(SILENCE_MAX, body.frame())
            .await
            .map_err(|_| Status::new(Code::DeadlineExceeded, "The request's body stopped coming for 60 seconds."))?;
        match frame {
            None => return Ok(None),
            Some(Ok(frame)) => {
                // Trailers mean nothing here.
                if let Ok(bytes) = frame.into_data() {
                    return Ok(Some(bytes));
                }
            }
            Some(Err(error)) => return Err(Status::invalid(format!("The request's body could not be read to its end: {error}"))),
        }
    }
}

/// Reads what is left of a body and forgets it, within bounds: over HTTP/1 a client that is still writing when the connection closes
/// may lose the answer.
pub(crate) async fn drain(body: &mut Body) {
    let mut left = DRAIN_MAX_BYTES;
    let rest = async {
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(DRAIN_MAX, rest).await;
}

/// Runs `work` where it may wait for the disk.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Status> + Send + 'static) -> Result<T, Status> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Status::internal(format!("a blocking task failed: {error}")))?
}

fn disk(error: std::io::Error) -> Status {
    let mut status = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Status::new(Code::ResourceExhausted, "The disk of this server is full."),
        _ => Status::internal(""),
    };
    status.inner = format!("writing a blob: {error}");
    status
}

fn too_large() -> Status {
    Status::invalid(format!("The object is larger than this server takes: {OBJECT_MAX_BYTES} bytes."))
}
