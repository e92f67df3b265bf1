//! Output of failed tests. `cargo xtask test` prints it again at the end.

use std::fmt;

/// The sections `failures:` of test programs' output.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    text: String,
    in_section: bool,
}

impl Failures {
    /// Reads the next line that a test program printed. A section extends to the program's result.
    pub(crate) fn read(&mut self, line: &str) {
        self.in_section |= line == "failures:";
        if self.in_section {
            self.text.push_str(line);
            self.text.push('\n');
        }
        self.in_section &= !line.starts_with("test result:");
    }
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_of_failed_tests_is_collected() {
        let failed = "failures:\n\n---- one stdout ----\nwhy\n\nfailures:\n    one\n\ntest result: FAILED. 1 passed\n";
        let passed = "running 1 test\ntest two ... ok\n\ntest result: ok. 1 passed\n";
        let mut failures = Failures::default();
        for line in [passed, failed, passed, failed].concat().lines() {
            failures.read(line);
        }
        assert_eq!(failures.to_string(), failed.repeat(2));
    }
}
