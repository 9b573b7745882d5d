//! Experts that the embedding program brings.

use std::collections::BTreeMap;
use std::sync::Arc;

use expertmesh_experts::ExpertSource;

/// Expert sources by the name that a coordinator's `CustomModel` uses.
#[derive(Clone, Default)]
pub struct ExpertRegistry {
    sources: BTreeMap<String, Arc<dyn ExpertSource>>,
}

// === impl ExpertRegistry ===

impl ExpertRegistry {
    /// Adds a source under `name`, in place of an earlier one of that name.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, source: Arc<dyn ExpertSource>) -> Self {
        self.sources.insert(name.into(), source);
        self
    }

    /// The source of that name.
    pub fn get(&self, name: &str) -> Option<Arc<dyn ExpertSource>> {
        self.sources.get(name).cloned()
    }

    /// All names, for messages.
    pub fn names(&self) -> Vec<&str> {
        self.sources.keys().map(String::as_str).collect()
    }
}

impl std::fmt::Debug for ExpertRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.sources.keys()).finish()
    }
}
