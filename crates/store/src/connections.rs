//! The connections that read one database: a few, made when needed, each used by one caller at a time.

use std::path::{Path, PathBuf};

use parking_lot::{Condvar, Mutex};
use rusqlite::Connection;

use crate::{database, error::Error};

/// A read takes microseconds, so more would only wait for the same cores.
const CONNECTIONS_MAX: usize = 8;

pub(crate) struct Connections {
    path: PathBuf,
    pool: Mutex<Pool>,
    returned: Condvar,
}

#[derive(Default)]
struct Pool {
    idle: Vec<Connection>,
    /// Idle ones and those in use.
    count: usize,
}

impl Connections {
    /// Keeps one connection open from the start: as long as there is one, a new connection of the writer takes the
    /// state of the WAL from memory and not from what a failed write may have left in the file.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let first = database::open_reader(path)?;
        // Begins to use the WAL, which opening alone does not.
        first.query_row("SELECT count(*) FROM head", [], |_| Ok(())).map_err(Error::sqlite("read a database of the store"))?;
        Ok(Self { path: path.to_owned(), pool: Mutex::new(Pool { idle: vec![first], count: 1 }), returned: Condvar::new() })
    }

    /// Runs `read` with a connection. One that SQLite failed on is not used again.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<Result<T, Error>>) -> Result<T, Error> {
        let connection = self.take()?;
        let answer = read(&connection);
        self.give_back(answer.is_ok().then_some(connection));
        answer.map_err(Error::sqlite("read a database of the store"))?
    }

    fn take(&self) -> Result<Connection, Error> {
        let mut pool = self.pool.lock();
        loop {
            if let Some(connection) = pool.idle.pop() {
                return Ok(connection);
            }
            if pool.count < CONNECTIONS_MAX {
                pool.count += 1;
                break;
            }
            self.returned.wait(&mut pool);
        }
        drop(pool);
        database::open_reader(&self.path).inspect_err(|_| self.give_back(None))
    }

    fn give_back(&self, connection: Option<Connection>) {
        let mut pool = self.pool.lock();
        match connection {
            Some(connection) => pool.idle.push(connection),
            None => pool.count -= 1,
        }
        drop(pool);
        self.returned.notify_one();
    }
}
