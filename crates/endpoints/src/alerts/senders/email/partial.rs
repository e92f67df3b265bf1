//! Recipients that already have a mail which other recipients have not got yet.

use std::collections::VecDeque;

use lettre::{Address, message::Mailbox};
use uuid::Uuid;

use super::server::Refused;
use crate::sync::Mutex;

/// Maximum number of mails. More are not pending at the same time; the oldest is forgotten.
const CAPACITY: usize = 128;

/// The recipients that have each partly delivered mail. A process that ends forgets them, and its successor sends such a mail
/// to all recipients again, with the same `Message-ID`.
#[derive(Default)]
pub(super) struct Partial(Mutex<VecDeque<(Uuid, Vec<Address>)>>);

impl Partial {
    /// The recipients that have not got this mail.
    pub(super) fn waiting(&self, mail: Uuid, all: &[Mailbox]) -> Vec<Address> {
        let known = self.0.lock();
        let have = known.iter().find(|(id, _)| *id == mail).map_or(&[][..], |(_, have)| have);
        all.iter().map(|mailbox| &mailbox.email).filter(|address| !have.contains(address)).cloned().collect()
    }

    /// Keeps the recipients that have got this mail, if a retry can reach others.
    pub(super) fn record(&self, mail: Uuid, all: &[Mailbox], refused: &Refused) {
        let mut known = self.0.lock();
        known.retain(|(id, _)| *id != mail);
        if refused.can_retry() {
            let have = all.iter().map(|mailbox| &mailbox.email).filter(|address| !refused.contains(address));
            known.push_back((mail, have.cloned().collect()));
            if known.len() > CAPACITY {
                known.pop_front();
            }
        }
    }
}
