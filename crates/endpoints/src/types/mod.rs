//! Job types as operators see and steer them: counts, pauses and limits.
//!
//! | file | contents |
//! |---|---|
//! | `controls` | pauses and limits, and their stored form |
//! | `shared` | the pauses and limits as this process last read them |
//! | `state` | the state of a type, derived from statistics, pauses and limits |
//! | `change` | checks and stores what operators change |

mod change;
mod controls;
mod shared;
mod state;

pub use self::{
    change::TypeChangeError,
    controls::TypePause,
    state::{TypeCounts, TypeState},
};
pub(crate) use self::{
    change::{Change, change},
    controls::{Controls, TypeControl},
    shared::SharedControls,
    state::states,
};
