//! Elements of pictures, coloured by the page's style sheet.

use std::fmt::Write as _;

use super::markup::escape;

/// An SVG picture of a stated size, which scales with the page.
pub(super) struct Chart {
    text: String,
}

/// A scale from figures to pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    pub(super) figures: (f64, f64),
    pub(super) pixels: (f64, f64),
}

// === impl Scale ===

impl Scale {
    pub(super) fn at(self, figure: f64) -> f64 {
        let (low, high) = self.figures;
        let span = if high > low { high - low } else { 1.0 };
        self.pixels.0 + (figure - low) / span * (self.pixels.1 - self.pixels.0)
    }
}

// === impl Chart ===

impl Chart {
    pub(super) fn new(width: f64, height: f64, label: &str) -> Self {
        let label = escape(label);
        let text = format!(
            "<svg viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" aria-label=\"{label}\">\n"
        );
        Self { text }
    }

    pub(super) fn line(&mut self, from: (f64, f64), to: (f64, f64), class: &str) {
        let ((x1, y1), (x2, y2)) = (from, to);
        let _ = writeln!(
            self.text,
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" class=\"{class}\"/>"
        );
    }

    /// A rectangle; `style` is CSS, `says` what it tells when it is pointed at.
    pub(super) fn rect(
        &mut self,
        at: (f64, f64),
        size: (f64, f64),
        class: &str,
        style: &str,
        says: &str,
    ) {
        let ((x, y), (width, height)) = (at, size);
        let title = match says {
            "" => String::new(),
            says => format!("<title>{}</title>", escape(says)),
        };
        let _ = writeln!(
            self.text,
            "<rect x=\"{x:.2}\" y=\"{y:.2}\" width=\"{:.2}\" height=\"{:.2}\" class=\"{class}\" \
             style=\"{style}\">{title}</rect>",
            width.max(0.0),
            height.max(0.0),
        );
    }

    /// A line through `points`.
    pub(super) fn curve(&mut self, points: &[(f64, f64)], colour: &str) {
        let points: Vec<String> = points
            .iter()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        let _ = writeln!(
            self.text,
            "<polyline points=\"{}\" class=\"curve\" style=\"--fill:var(--{colour})\"/>",
            points.join(" ")
        );
    }

    pub(super) fn dot(&mut self, at: (f64, f64), colour: &str, says: &str) {
        let (x, y) = at;
        let _ = writeln!(
            self.text,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" class=\"fill\" \
             style=\"--fill:var(--{colour})\"><title>{}</title></circle>",
            escape(says)
        );
    }

    /// `anchor`: `start`, `middle` or `end`.
    pub(super) fn words(&mut self, at: (f64, f64), anchor: &str, class: &str, words: &str) {
        let (x, y) = at;
        let _ = writeln!(
            self.text,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"{class}\">{}</text>",
            escape(words)
        );
    }

    /// Words that rise to the right from `at`.
    pub(super) fn rising(&mut self, at: (f64, f64), class: &str, words: &str) {
        let (x, y) = at;
        let _ = writeln!(
            self.text,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\" \
             transform=\"rotate(-38 {x:.1} {y:.1})\">{}</text>",
            escape(words)
        );
    }

    pub(super) fn finish(mut self) -> String {
        self.text.push_str("</svg>\n");
        self.text
    }
}
