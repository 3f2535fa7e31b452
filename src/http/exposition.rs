//! The text in which metrics are scraped: Prometheus's own (0.0.4), or OpenMetrics 1.0.
//!
//! Written here because the crates that do it (`prometheus-client`, `prometheus`) each write one of the two, from
//! counters of their own that threads share; a Tollgate's counters are its workers'.

use crate::stats::Times;
use std::fmt::{Display, Write};

/// One of the two forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Text 0.0.4, which every scraper reads.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The one to answer with, by the header `Accept`.
    pub fn accepted(accept: Option<&[u8]>) -> Self {
        let accept = String::from_utf8_lossy(accept.unwrap_or_default()).to_ascii_lowercase();
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// What it calls itself.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Metrics as text.
pub struct Exposition {
    text: String,
    format: Format,
}

/// A metric whose samples are being written.
pub struct Family<'a> {
    text: &'a mut String,
    name: String,
}

impl Exposition {
    /// Of none so far.
    pub fn new(format: Format) -> Self {
        Self { text: String::new(), format }
    }

    /// A count since the start. Its samples are named `<name>_total`.
    pub fn counter(&mut self, name: &str, help: &str) -> Family<'_> {
        let sample = format!("{name}_total");
        // By its samples' name in the older form, by what they have in common in the newer.
        let family = if self.format == Format::Prometheus { &sample } else { name };
        self.family(family, "counter", help, &sample)
    }

    /// What goes up and down.
    pub fn gauge(&mut self, name: &str, help: &str) -> Family<'_> {
        self.family(name, "gauge", help, name)
    }

    /// Times, in seconds: how many were at most so long. A bucket ends at 4 and at 6 times each power of two
    /// microseconds, from 16 us to 1 s, where the counts are exact.
    pub fn histogram(&mut self, name: &str, help: &str, times: &Times) {
        const FIRST_US: u64 = 16;
        const DOUBLINGS: u32 = 16;
        self.family(name, "histogram", help, name);
        let ends = (0..=DOUBLINGS).flat_map(|doubling| [FIRST_US << doubling, (FIRST_US + FIRST_US / 2) << doubling]);
        let buckets = format!("{name}_bucket");
        let mut family = Family { text: &mut self.text, name: buckets };
        for end_us in ends.take(2 * DOUBLINGS as usize + 1) {
            family.sample(&[("le", &(end_us as f64 / 1e6))], times.below(end_us));
        }
        family.sample(&[("le", &"+Inf")], times.count());
        for (suffix, value) in [("sum", times.sum_us() as f64 / 1e6), ("count", times.count() as f64)] {
            Family { text: &mut self.text, name: format!("{name}_{suffix}") }.sample(&[], value);
        }
    }

    /// The whole text.
    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }

    fn family(&mut self, family: &str, kind: &str, help: &str, sample: &str) -> Family<'_> {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "# HELP {family} {help}\n# TYPE {family} {kind}");
        Family { text: &mut self.text, name: sample.to_owned() }
    }
}

impl Family<'_> {
    /// Adds a sample.
    pub fn sample(&mut self, labels: &[(&str, &dyn Display)], value: impl Display) -> &mut Self {
        self.text.push_str(&self.name);
        for (index, (name, label)) in labels.iter().enumerate() {
            let separator = if index == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{separator}{name}=\"{}\"", escape(&label.to_string()));
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{end} {value}");
        self
    }
}

fn escape(label: &str) -> String {
    label.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Histogram;

    fn example(format: Format) -> String {
        let mut exposition = Exposition::new(format);
        exposition.counter("a", "Some.").sample(&[("x", &"1\"2\\3\n4"), ("y", &2)], 3).sample(&[], 4);
        exposition.gauge("b", "Others.").sample(&[], 0.5);
        exposition.finish()
    }

    #[test]
    fn both_forms_are_written() {
        let samples = "a_total{x=\"1\\\"2\\\\3\\n4\",y=\"2\"} 3\na_total 4\n# HELP b Others.\n# TYPE b gauge\nb 0.5\n";
        let prometheus = format!("# HELP a_total Some.\n# TYPE a_total counter\n{samples}");
        assert_eq!(example(Format::Prometheus), prometheus);
        let open_metrics = format!("# HELP a Some.\n# TYPE a counter\n{samples}# EOF\n");
        assert_eq!(example(Format::OpenMetrics), open_metrics);
    }

    #[test]
    fn a_histogram_counts_up_to_all() {
        let histogram = Histogram::default();
        [0, 15, 16, 100, 2_000_000].into_iter().for_each(|us| histogram.record(us));
        let mut exposition = Exposition::new(Format::Prometheus);
        exposition.histogram("t_seconds", "Times.", &Times::of([&histogram].into_iter()));
        let text = exposition.finish();
        for line in [
            "t_seconds_bucket{le=\"0.000016\"} 2",
            "t_seconds_bucket{le=\"0.000024\"} 3",
            "t_seconds_bucket{le=\"0.000096\"} 3",
            "t_seconds_bucket{le=\"0.000128\"} 4",
            "t_seconds_bucket{le=\"1.048576\"} 4",
            "t_seconds_bucket{le=\"+Inf\"} 5",
            "t_seconds_sum 2.000131",
            "t_seconds_count 5",
        ] {
            assert!(text.lines().any(|other| other == line), "no {line} in {text}");
        }
    }

    #[test]
    fn open_metrics_is_for_who_asks_for_it() {
        let accepted = |accept: &str| Format::accepted(Some(accept.as_bytes()));
        assert_eq!(Format::accepted(None), Format::Prometheus);
        assert_eq!(accepted("*/*"), Format::Prometheus);
        assert_eq!(accepted("Application/OpenMetrics-text;version=1.0.0,text/plain;q=0.5"), Format::OpenMetrics);
    }
}
