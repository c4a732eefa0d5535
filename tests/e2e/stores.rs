//! What the store promises, on every database it can be kept in, and what becomes of it when a database fails.

mod backend;
mod contract;
mod faults;
