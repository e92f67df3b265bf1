//! Tables with a caption.

use maud::{Markup, html};

use super::format::scroll;

/// The heading of a column, and the class of its cells: `number`, `wide` or none.
pub(super) type Column = (&'static str, &'static str);

/// A table with these rows. The caption is for readers who do not see the heading above it.
pub(super) fn table(caption: &str, columns: &[Column], rows: &[Markup]) -> Markup {
    let heading =
        |(name, class): &Column| html! { th class=[(!class.is_empty()).then_some(class)] scope="col" { (name) } };
    let table = html! {
        table {
            caption.unseen { (caption) }
            thead { tr { @for column in columns { (heading(column)) } } }
            tbody { @for row in rows { (row) } }
        }
    };
    scroll(caption, &table)
}
