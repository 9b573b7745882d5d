//! The report as a page.

mod communication;
mod comparison;
mod identity;
mod latency;
mod overflow;
mod waterfall;

pub(crate) use self::comparison::differences;
pub(crate) use self::identity::chosen;
use crate::{human, table::INDENT};
use expertmesh_telemetry::{Environment, Report, Run};

/// Columns that no line exceeds.
pub const WIDTH: usize = 100;

/// Columns of the name before a figure or a sentence.
const LABEL: usize = 16;

/// The report as text of at most [`WIDTH`] columns: one block for each run, and a comparison
/// where there are several.
///
/// The text has no colours and no control characters but newlines, whatever the report holds.
pub fn terminal(report: &Report) -> String {
    let mut page = Page::default();
    // Runs of several places tell their own.
    let is_one_place = report.runs.iter().all(|run| run.environment.is_none());
    if is_one_place {
        place(&mut page, &report.environment);
    }
    if report.runs.is_empty() {
        page.blank();
        page.line("No runs.");
    }
    for (index, run) in report.runs.iter().enumerate() {
        page.title(&title(run, index, report.runs.len()));
        if !is_one_place {
            place(&mut page, report.environment_of(run));
        }
        block(&mut page, run);
    }
    if report.runs.len() > 1 {
        comparison::write(&mut page, &report.runs);
    }
    page.text
}

fn block(page: &mut Page, run: &Run) {
    identity::write(page, run);
    latency::write(page, run);
    waterfall::write(page, &run.latency_us);
    communication::write(page, run);
    overflow::write(page, run);
    if !run.losses.is_empty() {
        page.heading("Losses", "mean over steps");
        for (name, value) in &run.losses {
            page.field(name, &human::number(*value));
        }
    }
    page.blank();
    let digest = run
        .digest
        .as_deref()
        .unwrap_or("none: the run made no outputs");
    page.field("output digest", digest);
}

fn place(page: &mut Page, place: &Environment) {
    page.line(&environment(place));
    if let Some(topology) = &place.topology {
        page.line(&format!("links of {topology}"));
    }
}

fn environment(environment: &Environment) -> String {
    let cores = environment.cores;
    let mut parts = vec![
        format!("expertmesh {}", environment.version),
        format!("{} network", environment.network),
        format!("{cores} {}", if cores == 1 { "core" } else { "cores" }),
        format!("{} kernels", environment.kernel),
    ];
    parts.extend(environment.cpu.clone());
    parts.extend(environment.os.clone());
    parts.join(" · ")
}

fn title(run: &Run, index: usize, runs: usize) -> String {
    let workers = run.identity.workers;
    let mut groups = run.identity.groups.clone();
    groups.sort_unstable();
    groups.dedup();
    let what = format!(
        "{} exchange, {workers} {}{}, {} combine",
        run.identity.exchange,
        if workers == 1 { "worker" } else { "workers" },
        match groups.len() {
            0 => String::new(),
            1 => " in 1 group".to_owned(),
            groups => format!(" in {groups} groups"),
        },
        run.identity.combine,
    );
    match runs {
        1 => format!("Run: {what}"),
        _ => format!("Run {} of {runs}: {what}", index + 1),
    }
}

/// Text under construction; the one place that bounds the width of free text.
#[derive(Debug, Default)]
struct Page {
    text: String,
}

// === impl Page ===

impl Page {
    /// A line of free text, shortened to the page.
    fn line(&mut self, text: &str) {
        self.text.push_str(&human::fit(text, WIDTH));
        self.text.push('\n');
    }

    /// An empty line.
    fn blank(&mut self) {
        self.text.push('\n');
    }

    /// Opens the block of a run.
    fn title(&mut self, text: &str) {
        self.blank();
        let text = human::fit(text, WIDTH);
        let rule = "═".repeat(WIDTH);
        for line in [text.as_str(), &rule] {
            self.text.push_str(line);
            self.text.push('\n');
        }
    }

    /// Opens a section; `note` says unit or definition.
    fn heading(&mut self, name: &str, note: &str) {
        self.blank();
        match note {
            "" => self.line(name),
            note => self.line(&format!("{name} ({note})")),
        }
    }

    /// A name and what there is to say about it, indented.
    fn field(&mut self, name: &str, value: &str) {
        let name = human::fit(name, LABEL);
        let value = human::fit(value, WIDTH - INDENT.len() - LABEL - 2);
        self.text
            .push_str(format!("{INDENT}{name:<LABEL$}  {value}").trim_end());
        self.text.push('\n');
    }

    /// A figure and what it means, indented.
    fn figure(&mut self, name: &str, value: &str, note: &str) {
        self.field(name, &format!("{value:<11}  {note}"));
    }

    /// Lines of a table, which bounds itself.
    fn table(&mut self, lines: Vec<String>) {
        for line in lines {
            self.text.push_str(&line);
            self.text.push('\n');
        }
    }
}
