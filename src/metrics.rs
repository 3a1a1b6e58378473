//! A page of metrics in the text format of Prometheus, version 0.0.4: written by runners and by the control plane.

use std::fmt::Write;

/// The page while it is written.
#[derive(Debug, Default)]
pub struct Page {
    /// The text so far; its last line has ended.
    pub text: String,
}

impl Page {
    /// Begins a metric. `kind` is `counter`, `gauge` or `histogram`; `help` has one line.
    pub fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// Adds a value of the metric that was begun. Any text may be the value of a label.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        self.text += name;
        for (n, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.text, "{}{label}=\"{text}\"", if n == 0 { "{" } else { "," });
        }
        let _ = writeln!(self.text, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    /// Adds a metric that has one value.
    pub fn one(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.head(name, kind, help);
        self.sample(name, &[], value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_stand_in_one_pair_of_braces() {
        let mut page = Page::default();
        page.one("a_total", "counter", "Some.", 1);
        page.head("b", "gauge", "Others.");
        page.sample("b", &[("one", "x\"y\\"), ("two", "1\n2")], 7);
        let expected = "# HELP a_total Some.\n# TYPE a_total counter\na_total 1\n# HELP b Others.\n# TYPE b gauge\n\
            b{one=\"x\\\"y\\\\\",two=\"1\\n2\"} 7\n";
        assert_eq!(page.text, expected);
    }
}
