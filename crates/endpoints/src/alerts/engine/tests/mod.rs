//! Tests of the engine: several processes over one store, in virtual time.

mod crashes;
mod fixture;
