//! The rules of the house: what ARCHITECTURE.md says is true, printed pages are fresh, and nothing is left half done.

mod architecture;
mod pages;
mod sources;
mod tree;
