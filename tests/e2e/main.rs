//! End-to-end tests: what Tollgate promises, shown on the real programs.

#![forbid(unsafe_code)]

mod conversation;
