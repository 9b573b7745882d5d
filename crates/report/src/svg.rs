//! The few elements that figures are made of, as text of SVG 1.1.

use std::fmt::Write as _;

use crate::human;

/// A picture on a white ground.
pub(crate) struct Picture {
    text: String,
}

/// Where a text begins, or ends, or has its middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

/// Width of a letter at font size 11, px; what is written is mostly narrower.
pub(crate) const LETTER: f64 = 6.3;

// === impl Picture ===

impl Picture {
    pub(crate) fn new(width: f64, height: f64, title: &str) -> Self {
        let title = escape(title);
        let text = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
             viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" \
             font-family=\"DejaVu Sans, Helvetica, Arial, sans-serif\" font-size=\"11\">\n\
             <title>{title}</title>\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
        );
        Self { text }
    }

    pub(crate) fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: &str, width: f64) {
        let ((x1, y1), (x2, y2)) = (from, to);
        let _ = writeln!(
            self.text,
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" \
             stroke=\"{colour}\" stroke-width=\"{width}\"/>"
        );
    }

    /// A line that lets what is behind it be read.
    pub(crate) fn faint(&mut self, from: (f64, f64), to: (f64, f64), colour: &str) {
        let ((x1, y1), (x2, y2)) = (from, to);
        let _ = writeln!(
            self.text,
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" \
             stroke=\"{colour}\" stroke-width=\"1.5\" stroke-opacity=\"0.35\"/>"
        );
    }

    /// A filled rectangle that tells its meaning when it is pointed at.
    pub(crate) fn bar(&mut self, at: (f64, f64), size: (f64, f64), colour: &str, says: &str) {
        let ((x, y), (width, height)) = (at, size);
        let _ = writeln!(
            self.text,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
             fill=\"{colour}\"><title>{}</title></rect>",
            escape(says)
        );
    }

    /// A disc of `radius` with a white rim, so that discs that overlap stay apart.
    pub(crate) fn disc(&mut self, at: (f64, f64), radius: f64, colour: &str, says: &str) {
        let (x, y) = at;
        let _ = writeln!(
            self.text,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" fill=\"{colour}\" \
             stroke=\"#ffffff\" stroke-width=\"1\"><title>{}</title></circle>",
            escape(says)
        );
    }

    pub(crate) fn words(&mut self, at: (f64, f64), anchor: Anchor, style: &str, words: &str) {
        let (x, y) = at;
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let _ = writeln!(
            self.text,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {style}>{}</text>",
            escape(words)
        );
    }

    /// Words that read upwards, their middle at `at`.
    pub(crate) fn upwards(&mut self, at: (f64, f64), words: &str) {
        let (x, y) = at;
        let style = format!("fill=\"#222222\" transform=\"rotate(-90 {x:.1} {y:.1})\"");
        self.words(at, Anchor::Middle, &style, words);
    }

    pub(crate) fn finish(mut self) -> String {
        self.text.push_str("</svg>\n");
        self.text
    }
}

/// Text between tags: no markup, and no control character, which XML does not have.
fn escape(text: &str) -> String {
    human::fit(text, 400)
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// Round numbers from at most `low` to at least `high`, some `count` steps apart. They end before
/// `high` where a float cannot tell one from the next.
pub(crate) fn ticks(low: f64, high: f64, count: usize) -> Vec<f64> {
    let span = (high - low).clamp(1e-9, 1e300);
    let rough = span / count.max(1) as f64;
    let mut unit = 1.0;
    while unit > rough {
        unit /= 10.0;
    }
    while unit * 10.0 <= rough {
        unit *= 10.0;
    }
    let step = [1.0, 2.0, 5.0, 10.0].map(|times| times * unit);
    let step = step.into_iter().find(|step| *step >= rough * 0.999);
    let step = step.unwrap_or(unit * 10.0);
    let first = (low / step + 1e-9).floor();
    let mut ticks = vec![first * step];
    let most = 2 * count + 4;
    while ticks.len() < most && ticks.last().is_some_and(|last| *last < high - step * 1e-9) {
        ticks.push((first + ticks.len() as f64) * step);
    }
    ticks
}
