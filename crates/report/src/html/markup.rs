//! Text into markup.

use crate::human;

/// Longest name that is shown.
const LONGEST: usize = 400;

/// Text between tags or in an attribute: no markup and no control character.
pub(super) fn escape(text: &str) -> String {
    human::fit(text, LONGEST)
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

/// A card of the page's grid. `class` says how wide it is; `body` is markup.
pub(super) fn card(class: &str, title: &str, note: &str, body: &str) -> String {
    let note = match note {
        "" => String::new(),
        note => format!("<p class=\"note\">{}</p>\n", escape(note)),
    };
    format!(
        "<div class=\"card {class}\">\n<h3>{}</h3>\n{note}{body}</div>\n",
        escape(title)
    )
}

/// Colours and what they stand for: (name, CSS variable, class of the mark).
pub(super) fn legend<'a>(entries: impl IntoIterator<Item = (&'a str, &'a str, &'a str)>) -> String {
    let entries = entries.into_iter().map(|(name, colour, class)| {
        let name = escape(name);
        format!("<li><i class=\"{class}\" style=\"--fill:var(--{colour})\"></i>{name}</li>")
    });
    format!(
        "<ul class=\"legend\">{}</ul>\n",
        entries.collect::<String>()
    )
}

/// A bar in a table: from `start`, `length` long, both shares of the track; nothing for no length.
pub(super) fn bar(start: f64, length: f64, colour: &str, class: &str, says: &str) -> String {
    if length <= 0.0 {
        return String::new();
    }
    let percent = |share: f64| (share.clamp(0.0, 1.0) * 100.0).min(100.0);
    let (left, width) = (
        percent(start),
        percent(length.min(1.0 - start.clamp(0.0, 1.0))),
    );
    format!(
        "<i class=\"{class}\" style=\"left:{left:.2}%;width:{width:.2}%;--fill:var(--{colour})\" \
         title=\"{}\"></i>",
        escape(says)
    )
}

/// CSS variable of a phase; phases of later versions have none of their own.
pub(super) fn phase_colour(name: &str) -> &str {
    match name.parse::<expertmesh_telemetry::Phase>() {
        Ok(phase) => phase.name(),
        Err(_) => "residual",
    }
}
