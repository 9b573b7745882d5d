//! Words of settings, both ways.

use crate::error::RoutingError;

/// The setting that `name` stands for in `table`; several words may stand for one.
pub(super) fn find<T: Copy>(
    field: &'static str,
    name: &str,
    table: &[(&'static str, T)],
) -> Result<T, RoutingError> {
    let found = table.iter().find(|(word, _)| *word == name);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<&str> = table.iter().map(|(word, _)| *word).collect();
        let expected = match words.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
            _ => words.concat(),
        };
        RoutingError::config(field, format!("{name:?}"), expected)
    })
}

/// The first word of `table` for `value`.
pub(super) fn word<T: PartialEq>(value: &T, table: &[(&'static str, T)]) -> &'static str {
    let found = table.iter().find(|(_, listed)| listed == value);
    found.map_or("", |(word, _)| word)
}

/// `Display` and `FromStr` by the first and by any word of a table.
macro_rules! words {
    ($setting:ty, $field:literal, $table:ident) => {
        impl std::fmt::Display for $setting {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad($crate::capacity::names::word(self, &$table))
            }
        }

        impl std::str::FromStr for $setting {
            type Err = $crate::error::RoutingError;

            fn from_str(name: &str) -> Result<Self, Self::Err> {
                $crate::capacity::names::find($field, name, &$table)
            }
        }
    };
}

pub(super) use words;
