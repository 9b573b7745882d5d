//! Where every figure comes from, and how sure it is.

use std::fmt::Write as _;

use expertmesh_telemetry::Run;

use super::headline::source;
use super::markup::{card as framed, escape};
use crate::human;

/// Paths of figures with their source and band.
pub(super) fn card(run: &Run) -> String {
    let mut paths: Vec<&String> = run.source.keys().chain(run.bands.keys()).collect();
    paths.sort_unstable();
    paths.dedup();
    let mut rows = String::new();
    for path in paths {
        let band = match run.bands.get(path) {
            Some([low, high]) => format!("{} – {}", human::number(*low), human::number(*high)),
            None => String::new(),
        };
        let _ = writeln!(
            rows,
            "<tr><th scope=\"row\"><code>{}</code></th><td class=\"left\">{}</td><td>{}</td></tr>",
            escape(&human::fit(path, 60)),
            source(run.source_of(path)),
            escape(&band),
        );
    }
    let body = format!(
        "<details><summary>Every figure</summary>\n<table>\n<thead><tr><th scope=\"col\">figure and \
         those below it</th><th scope=\"col\" class=\"left\">source</th><th scope=\"col\">band, in its \
         unit</th></tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n</details>\n"
    );
    let note = "Measured: counted or timed in this run, on real links. Emulated: on links that software \
                slowed down. Calibrated: by a cost model within the range of its calibration. \
                Extrapolated: outside that range. Preset: from published figures of hardware that was \
                not at hand.";
    framed("half", "Where figures come from", note, &body)
}
