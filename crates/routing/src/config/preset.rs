//! Routers by the name that a user types: `NAME` or `NAME:ARG,ARG`.

mod table;

use std::{fmt, str::FromStr};

use expertmesh_kernels::Format;

use super::RouterConfig;
use crate::error::RoutingError;
use table::PRESETS;

/// A router by name, without its shape: what `--gate NAME[:ARG]` holds.
///
/// ```
/// use expertmesh_kernels::Format;
/// use expertmesh_routing::{Kind, RouterPreset};
///
/// let preset: RouterPreset = "expert-choice:1.5".parse()?;
/// let config = preset.config(8, 1, Format::F32)?;
/// assert_eq!(config.kind, Kind::ExpertChoice { factor: 1.5 });
/// # Ok::<(), expertmesh_routing::RoutingError>(())
/// ```
#[derive(Debug, Clone)]
pub struct RouterPreset {
    info: &'static PresetInfo,
    args: Vec<f64>,
}

/// What can be told about a preset.
#[derive(Debug)]
pub struct PresetInfo {
    /// Its name.
    pub name: &'static str,
    /// Its arguments, in order.
    pub args: &'static [PresetArg],
    /// What it is, in a line.
    pub about: &'static str,
    build: fn(&Shape, &[f64]) -> RouterConfig,
}

/// An argument of a preset.
#[derive(Debug)]
pub struct PresetArg {
    /// What it is.
    pub name: &'static str,
    /// Its value if it is not given.
    pub default: f64,
    /// Whether it must be a whole number.
    pub whole: bool,
    /// Whether it counts something that takes room: at most 2¹⁸ of it.
    pub counts: bool,
}

/// More experts, slots or groups than any layer has. Past it lie slips of the finger, and more memory
/// than there is.
pub(super) const MOST: usize = 1 << 18;

/// What presets are built for.
struct Shape {
    e: usize,
    k: usize,
    dtype: Format,
}

/// A row of the table.
const fn preset(
    name: &'static str,
    args: &'static [PresetArg],
    about: &'static str,
    build: fn(&Shape, &[f64]) -> RouterConfig,
) -> PresetInfo {
    PresetInfo {
        name,
        args,
        about,
        build,
    }
}

const fn whole(name: &'static str, default: f64) -> PresetArg {
    PresetArg {
        name,
        default,
        whole: true,
        counts: false,
    }
}

const fn counts(name: &'static str, default: f64) -> PresetArg {
    PresetArg {
        counts: true,
        ..whole(name, default)
    }
}

const fn real(name: &'static str, default: f64) -> PresetArg {
    PresetArg {
        whole: false,
        ..whole(name, default)
    }
}

// === impl RouterPreset ===

impl RouterPreset {
    /// Every preset.
    #[must_use]
    pub fn all() -> &'static [PresetInfo] {
        PRESETS
    }

    /// What can be told about it.
    #[must_use]
    pub fn info(&self) -> &'static PresetInfo {
        self.info
    }

    /// Choices of a token, where `usual` is what a preset without a number of its own is given.
    #[must_use]
    pub fn top_k(&self, usual: usize) -> usize {
        let shape = Shape {
            e: usual.max(1),
            k: usual,
            dtype: Format::F32,
        };
        (self.info.build)(&shape, &self.args).top_k
    }

    /// The router for `experts` experts that workers hold, `top_k` choices a token and a model in
    /// `dtype`. Free experts come on top of `experts`.
    ///
    /// # Errors
    /// What [`RouterConfig::validate`] refuses, and a `top_k` that the preset does not have.
    pub fn config(
        &self,
        experts: usize,
        top_k: usize,
        dtype: Format,
    ) -> Result<RouterConfig, RoutingError> {
        let shape = Shape {
            e: experts,
            k: top_k,
            dtype,
        };
        let config = (self.info.build)(&shape, &self.args);
        if config.top_k != top_k {
            let expected = format!("{}, as {} has", config.top_k, self.info.name);
            return Err(RoutingError::config("top_k", top_k, expected));
        }
        config.validate()?;
        Ok(config)
    }
}

impl fmt::Display for RouterPreset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.info.name)?;
        for (at, arg) in self.args.iter().enumerate() {
            write!(f, "{}{arg}", if at == 0 { ':' } else { ',' })?;
        }
        Ok(())
    }
}

/// `NAME` or `NAME:ARG,ARG`; arguments that are left out at the end have their defaults.
impl FromStr for RouterPreset {
    type Err = RoutingError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, given) = match text.split_once(':') {
            Some((name, given)) => (name, given.split(',').collect()),
            None => (text, vec![]),
        };
        let Some(info) = PRESETS.iter().find(|info| info.name == name) else {
            let names: Vec<&str> = PRESETS.iter().map(|info| info.name).collect();
            let expected = format!("one of {}", names.join(", "));
            return Err(RoutingError::config("gate", format!("{name:?}"), expected));
        };
        if given.len() > info.args.len() {
            let expected = format!("at most {} arguments to {name}", info.args.len());
            return Err(RoutingError::config("gate", format!("{text:?}"), expected));
        }
        let mut args: Vec<f64> = info.args.iter().map(|arg| arg.default).collect();
        for (at, text) in given.into_iter().enumerate() {
            args[at] = info.args[at].parse(name, text)?;
        }
        Ok(Self { info, args })
    }
}

// === impl PresetArg ===

impl PresetArg {
    fn parse(&self, of: &str, text: &str) -> Result<f64, RoutingError> {
        let value: Option<f64> = text.trim().parse().ok();
        // Past 2^53 a whole number would be another one.
        let most = if self.counts { MOST as u64 } else { 1 << 53 };
        let fits = |value: &f64| match self.whole {
            true => (0.0..=most as f64).contains(value) && value.fract() == 0.0,
            false => value.is_finite(),
        };
        value.filter(fits).ok_or_else(|| {
            let a = match self.whole {
                true => format!("a whole number from 0 to {most}"),
                false => "a finite number".to_owned(),
            };
            let expected = format!(
                "{a}, such as {}, for the {} of {of}",
                self.default, self.name
            );
            RoutingError::config("gate argument", format!("{text:?}"), expected)
        })
    }
}
