//! `llms.txt`: the index of the docs for coding assistants, with links from the root of the repository.

const HEAD: &str = "\
# AsyncEndpoints

> A Rust library that turns a slow HTTP endpoint on axum into an asynchronous one. The endpoint answers 202 with a job at once, workers
> run the handler and recover jobs after a crash, and callers follow the job over HTTP.

Start with [the page for coding assistants](docs/for-assistants.md): set-up, ten rules, a whole example, pitfalls.

";

/// The sections of `docs/README.md` under the head. None if the index has no section.
pub(crate) fn text(index: &str) -> Option<String> {
    let sections = &index[index.find("## ")?..];
    let links = sections
        .replace("](../", "](/")
        .replace("](", "](docs/")
        .replace("](docs//", "](")
        .replace("](docs/https:", "](https:");
    Some(format!("{HEAD}{links}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_begin_at_the_root() {
        let index = "# Documentation\n\n## Use\n- [A](a.md#b), [B](../B.md) and [C](https://c.example)\n";
        let text = text(index).expect("a section");
        assert!(text.ends_with("## Use\n- [A](docs/a.md#b), [B](B.md) and [C](https://c.example)\n"), "{text}");
    }
}
