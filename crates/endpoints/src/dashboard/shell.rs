//! The frame around each page: head, navigation, preferences, state of the live stream.

use maud::{DOCTYPE, Markup, html};

use super::{
    assets,
    content::{Content, Failure, Section},
    login,
    preferences::{Theme, Zone},
    view::{Form, View},
};
use crate::{AccessLevel, Timestamp};

/// What the script does for a key.
const KEYS: [(&str, &str); 6] = [
    ("?", "Show this list"),
    ("/", "Find a job by its id or text"),
    ("1 to 7", "Open a page of the navigation"),
    ("p", "Pause the page, or go on"),
    ("n", "Show new jobs of the list"),
    ("← → Home End", "Move through the minutes of a chart that has the focus"),
];

/// A whole page.
pub(super) fn page(view: &View, content: &Content, now: Timestamp) -> Markup {
    document(view, &content.title, Some(content.section), now, Some(&content.tag()), &main(content))
}

/// The result of an action. It does not change by itself.
pub(super) fn result(view: &View, content: &Content, now: Timestamp) -> Markup {
    document(view, &content.title, Some(content.section), now, None, &main(content))
}

fn main(content: &Content) -> Markup {
    html! {
        h1 { (content.title) }
        @for region in &content.regions { (region.render()) }
    }
}

/// The page of a failure. A page that failed because of the store shows itself once the store is back, and a form, `sent`, can be
/// sent again.
pub(super) fn failure(view: &View, failure: &Failure, sent: Option<&Form>, now: Timestamp) -> Markup {
    let is_store = matches!(failure, Failure::Store(_));
    let is_live = is_store && sent.is_none();
    let main = html! {
        h1 { (failure.title()) }
        @if let Failure::SignIn { why, back } = failure {
            (login::form(view, *why, back))
        } @else {
            p.failure role="alert" { (failure) }
        }
        @if is_live { p { "The page opens by itself when the store answers again." } }
        @if let (Some(form), true) = (sent, is_store) { (again_form(view, form)) }
    };
    match failure {
        Failure::Again => again(view),
        _ => document(view, failure.title(), None, now, is_live.then_some(""), &main),
    }
}

/// The fields that were sent, to send them again.
fn again_form(view: &View, sent: &Form) -> Markup {
    html! {
        p { "The action may have been done or not." }
        form method="post" action=(view.link(&view.at())) {
            @for (name, value) in sent.iter() { input type="hidden" name=(name) value=(value); }
            button { "Send again" }
        }
    }
}

/// A page that loads itself again.
fn again(view: &View) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="refresh" content="0";
                title { "Loading" }
            }
            body { a href=(view.link(&view.at())) { "Go on" } }
        }
    }
}

/// `tag` identifies the content of a live page.
fn document(
    view: &View,
    title: &str,
    section: Option<Section>,
    now: Timestamp,
    tag: Option<&str>,
    main: &Markup,
) -> Markup {
    let options = &view.endpoints.options().dashboard;
    let name = options.name.as_deref().unwrap_or("AsyncEndpoints");
    html! {
        (DOCTYPE)
        html lang="en" data-theme=(view.preferences.theme.name()) data-zone=(view.preferences.zone.name()) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · " (name) }
                link rel="stylesheet" href=(view.link(&assets::style()));
                link rel="icon" type="image/svg+xml" href=(view.link(&assets::icon()));
                script type="module" src=(view.link(&assets::script())) {}
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                header class={ "top " (options.color.name()) } {
                    a.instance href=(view.link("")) { (name) }
                    @if view.caller.level > AccessLevel::None {
                        (navigation(view, section))
                        (live_state(now))
                    }
                }
                p #banner .banner role="status" hidden {}
                main #main tabindex="-1" data-base=(view.link("")) data-live=[tag.map(|_| view.link("/live"))] data-at=(view.at()) data-tag=[tag]
                    data-now=(now) { (main) }
                @if view.caller.level > AccessLevel::None { (footer(view)) (keys()) }
            }
        }
    }
}

fn navigation(view: &View, section: Option<Section>) -> Markup {
    html! {
        nav aria-label="Pages" {
            @for entry in Section::ALL {
                @let (path, text) = entry.entry();
                a href=(view.link(path)) aria-current=[(section == Some(entry)).then_some("page")] { (text) }
            }
        }
    }
}

fn live_state(now: Timestamp) -> Markup {
    html! {
        div.live {
            span #live-dot .dot {}
            span #live-text { "Read at " (super::format::time(now, super::format::As::Time)) }
            button #pause type="button" aria-pressed="false" hidden { "Pause" }
        }
    }
}

fn footer(view: &View) -> Markup {
    html! {
        footer {
            span.who { (view.caller.who) " · " (view.caller.level) }
            @if view.caller.by_session {
                form method="post" action=(view.link("/logout")) { button { "Sign out" } }
            }
            (choice(view, "theme", "Theme", &Theme::ALL.map(|theme| (theme.name(), view.preferences.theme == theme))))
            (choice(view, "zone", "Times", &Zone::ALL.map(|zone| (zone.name(), view.preferences.zone == zone))))
            button #show-keys type="button" hidden { "Keyboard shortcuts" }
            noscript { span { "Without scripts, pages do not update by themselves and times are in UTC." } }
        }
    }
}

/// The shortcuts, which a user can switch off: they are single keys (WCAG 2.1.4).
fn keys() -> Markup {
    html! {
        dialog #keys aria-labelledby="keys-title" {
            h2 #keys-title { "Keyboard shortcuts" }
            table {
                thead { tr { th scope="col" { "Key" } th scope="col" { "Effect" } } }
                tbody { @for (key, effect) in KEYS { tr { th scope="row" { kbd { (key) } } td { (effect) } } } }
            }
            p { label { input #use-keys type="checkbox" checked; "Use shortcuts in this browser" } }
            form method="dialog" { button { "Close" } }
        }
    }
}

/// Buttons for the values of a preference. They work without scripts.
fn choice(view: &View, name: &str, label: &str, values: &[(&str, bool)]) -> Markup {
    html! {
        form.choice method="post" action=(view.link("/preferences")) aria-label=(label) {
            input type="hidden" name="back" value=(view.at());
            span { (label) }
            @for (value, is_chosen) in values {
                button name=(name) value=(value) aria-pressed=(is_chosen) { (if *value == "utc" { "UTC" } else { value }) }
            }
        }
    }
}
