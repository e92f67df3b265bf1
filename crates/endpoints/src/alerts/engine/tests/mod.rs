//! Tests of the engine: several processes over one store, in virtual time.

mod crashes;
mod deliveries;
mod fixture;
mod outages;
mod rules;
mod silences;
mod wiring;
