//! Bad input of every kind: each gets its reason from the one table or its close code, the connection lives where that is
//! safe, and the process always does.

mod frames;
mod pushes;
mod raw;
mod services;
