//! A store of AsyncEndpoints in PostgreSQL 13 or newer. API and worker processes on many machines share it.
