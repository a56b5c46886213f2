//! What the methods share: what the binary gave, and what is made of it once.

use std::{ops::Deref, sync::Arc};

use crate::{Deps, page::Pages};

/// Clones share it.
#[derive(Clone)]
pub(crate) struct App {
    deps: Deps,
    /// Makes and reads page tokens.
    pub pages: Arc<Pages>,
}

impl App {
    pub(crate) fn new(deps: Deps) -> Self {
        let pages = Arc::new(Pages::new(deps.control.store().clone()));
        Self { deps, pages }
    }
}

impl Deref for App {
    type Target = Deps;

    fn deref(&self) -> &Deps {
        &self.deps
    }
}
