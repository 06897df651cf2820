//! Prometheus' text format, version 0.0.4:
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::fmt::{Display, Write};

use super::histogram::{BOUNDS_MS, Histograms};

/// A page of metrics.
#[derive(Debug, Default)]
pub(crate) struct Page(String);

impl Page {
    /// Begins a metric: its name, `counter`, `gauge` or `histogram`, and what it is.
    pub(crate) fn begin(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string can't fail; so below.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// Adds a value of it.
    pub(crate) fn value(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            let _ = write!(self.0, "{}{label}=\"", if at == 0 { '{' } else { ',' });
            self.label(text);
            self.0.push('"');
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    /// Adds a metric that has one value.
    pub(crate) fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.begin(name, kind, help);
        self.value(name, &[], value);
    }

    /// Adds a metric that is a histogram for each set of labels.
    pub(crate) fn histograms(
        &mut self,
        (name, help): (&str, &str),
        labels: &[&str],
        histograms: &Histograms,
    ) {
        self.begin(name, "histogram", help);
        for (values, histogram) in histograms.all() {
            let mut pairs: Vec<(&str, &str)> =
                labels.iter().copied().zip(values.iter().map(String::as_str)).collect();
            self.value(&format!("{name}_sum"), &pairs, histogram.sum);
            self.value(&format!("{name}_count"), &pairs, histogram.count);
            let bounds = BOUNDS_MS.map(|bound| (f64::from(bound) / 1000.0).to_string());
            let bounds = bounds.iter().map(String::as_str).chain(["+Inf"]);
            let counts = histogram.within.into_iter().chain([histogram.count]);
            for (bound, count) in bounds.zip(counts) {
                pairs.push(("le", bound));
                self.value(&format!("{name}_bucket"), &pairs, count);
                pairs.pop();
            }
        }
    }

    /// Returns the page.
    pub(crate) fn finish(self) -> String {
        self.0
    }

    fn label(&mut self, text: &str) {
        for character in text.chars() {
            match character {
                '\\' => self.0.push_str("\\\\"),
                '"' => self.0.push_str("\\\""),
                '\n' => self.0.push_str("\\n"),
                other => self.0.push(other),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_format_is_prometheus_s() {
        let mut page = Page::default();
        page.single("up", "gauge", "Whether.", 1);
        page.begin("c", "gauge", "Two.");
        page.value("c", &[("a", "x\"y\\z\n"), ("b", "")], 2);
        let histograms = Histograms::new();
        histograms.took(&["w"], Duration::from_millis(1500));
        page.histograms(("h", "Long."), &["step"], &histograms);
        let text = page.finish();
        let begin = "# HELP up Whether.\n# TYPE up gauge\nup 1\n# HELP c Two.\n# TYPE c gauge\n\
            c{a=\"x\\\"y\\\\z\\n\",b=\"\"} 2\n# HELP h Long.\n# TYPE h histogram\n\
            h_sum{step=\"w\"} 1.5\nh_count{step=\"w\"} 1\nh_bucket{step=\"w\",le=\"0.001\"} 0\n";
        assert!(text.starts_with(begin), "{text}");
        assert!(
            text.contains("h_bucket{step=\"w\",le=\"1\"} 0\nh_bucket{step=\"w\",le=\"5\"} 1\n")
        );
        assert!(text.ends_with("h_bucket{step=\"w\",le=\"+Inf\"} 1\n"), "{text}");
    }
}
