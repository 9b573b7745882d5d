//! Topologies that come with the program: the files of `cluster/topologies`.

use std::path::Path;

use crate::error::TopologyError;
use crate::model::Topology;

const PRESETS: &[(&str, &str)] = &[
    (
        "loopback",
        include_str!("../../../cluster/topologies/loopback.toml"),
    ),
    (
        "10gbe",
        include_str!("../../../cluster/topologies/10gbe.toml"),
    ),
    (
        "25gbe",
        include_str!("../../../cluster/topologies/25gbe.toml"),
    ),
    (
        "100gbe",
        include_str!("../../../cluster/topologies/100gbe.toml"),
    ),
    ("lab", include_str!("../../../cluster/topologies/lab.toml")),
    ("wan", include_str!("../../../cluster/topologies/wan.toml")),
    (
        "h100",
        include_str!("../../../cluster/topologies/h100.toml"),
    ),
    (
        "h800",
        include_str!("../../../cluster/topologies/h800.toml"),
    ),
];

// === impl Topology ===

impl Topology {
    /// Names that [`Self::preset`] knows.
    pub fn preset_names() -> impl Iterator<Item = &'static str> {
        PRESETS.iter().map(|(name, _)| *name)
    }

    /// The preset `name`.
    ///
    /// # Errors
    /// [`TopologyError::Unknown`] with the names that there are.
    pub fn preset(name: &str) -> Result<Self, TopologyError> {
        let Some((_, text)) = PRESETS.iter().find(|(preset, _)| *preset == name) else {
            let known: Vec<&str> = Self::preset_names().collect();
            return Err(TopologyError::Unknown {
                name: name.to_owned(),
                known: known.join(", "),
            });
        };
        Self::parse(text, &format!("{name}.toml"))
    }

    /// A preset by its name, or a file: whatever ends in `.toml` or holds a separator is a file.
    ///
    /// # Errors
    /// [`TopologyError`]: a name that is neither, a file that cannot be read, and whatever
    /// [`Self::parse`] refuses.
    pub fn read(path_or_preset: &str) -> Result<Self, TopologyError> {
        let is_file = path_or_preset.ends_with(".toml")
            || path_or_preset.contains(std::path::MAIN_SEPARATOR)
            || Path::new(path_or_preset).is_file();
        if !is_file {
            return Self::preset(path_or_preset);
        }
        let text =
            std::fs::read_to_string(path_or_preset).map_err(|error| TopologyError::Read {
                path: path_or_preset.to_owned(),
                reason: error.to_string(),
            })?;
        Self::parse(&text, path_or_preset)
    }
}
