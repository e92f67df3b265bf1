//! Pages for operators below `/dashboard`. They use the public operator API of [`AsyncEndpoints`], as the JSON routes do, and
//! never stores, drivers or worker internals.
//!
//! **A page is one function**: `async fn page(view: &View) -> Result<Content, Failure>`. The function calls the operator API and
//! returns a title and regions of HTML. The shell, the live stream, the error pages and the headers are the same for all pages.
//! To add a page: write the function in a file of `pages/`, add its path in `pages/mod.rs`, and its link to [`Section`].
//!
//! **An action is one function** too: `async fn action(view: &View, form: &Form) -> Result<Done, Failure>`. It answers a `POST`
//! form, and `pages/mod.rs` has its path. Only callers who may operate reach it.
//!
//! Links come from [`View::link`]. They are relative, so that they work below any prefix and behind any proxy.
//!
//! | file | contents |
//! |---|---|
//! | `content` | what a page returns: regions, and why a page cannot be shown |
//! | `view`, `parameters` | what a page knows of the request: path, query, rights, preferences |
//! | `renderer` | renders the pages that a caller may see |
//! | `routes` | routes, forms, response headers |
//! | `live` | the event stream that sends changed regions |
//! | `recent_lists` | reads of lists of jobs that pages share |
//! | `store_check` | whether the store answers, checked every two seconds while pages are open |
//! | `shell` | the frame around each page |
//! | `format`, `table`, `chart` | times, numbers, states, tables, charts |
//! | `forms` | what forms have in common |
//! | `login` | the login of browsers by a token |
//! | `preferences` | theme and time zone, kept in cookies |
//! | `assets` | the style sheet, the script and the icon, which the binary contains |
//! | `pages` | the pages and actions |

mod assets;
mod chart;
mod content;
mod format;
mod forms;
mod live;
mod login;
mod pages;
mod parameters;
mod preferences;
mod recent_lists;
mod renderer;
mod routes;
mod shell;
mod store_check;
mod table;
mod view;

pub(crate) use self::routes::routes;
